//! [`Conversations`]: the blocking work for connections of level 2: logins of devices, heads,
//! pages, marks, and the import of waiting messages.

mod devices;
mod import;
mod marks;
mod opening;
mod parts;
mod postbox;
mod presence;
mod pump_pages;
mod reads;
mod shared_read;
mod sweep;
mod typing;

use std::sync::Arc;

pub use self::devices::{TokenEnd, Visitor};
pub use self::import::{Import, ImportStep};
pub use self::parts::{ConversationParts, Conversations, DeviceRules, refusal_of};
pub use self::postbox::Postbox;
use self::pump_pages::PageWanted;
pub use self::sweep::SeenDevices;
use crate::base::conversation::Seq;
use crate::delivery::ClientLink;
use crate::devices::tasks::{FoundMark, Identity, MemberNews, MemberTask, NamedConversation};
use crate::history::pump::PumpEvent;
use crate::metrics::HistoryRead;
use crate::protocol::level2::frames::Refusal;
use crate::store::StoreError;
use crate::store::history::HistoryReads;

impl Conversations {
    /// Runs a task. Blocks.
    pub fn run(&self, who: &Identity, link: &Arc<ClientLink>, task: &MemberTask) -> Result<Vec<MemberNews>, Refusal> {
        if let Some(read) = read_by(task) {
            self.parts.metrics.history_read(read);
        }
        let done = self.try_run(who, link, task);
        self.parts.outages.note(task.what(), done.as_ref().err());
        done.map_err(|error| parts::refusal_of(&error))
    }

    fn try_run(
        &self,
        who: &Identity,
        link: &Arc<ClientLink>,
        task: &MemberTask,
    ) -> Result<Vec<MemberNews>, StoreError> {
        let history = self.history()?;
        match task {
            MemberTask::Heads { have, resume } => {
                let mut news = Vec::new();
                let mut read = |reads: &dyn HistoryReads| {
                    news = one(match self.end_of(reads, who)? {
                        Some(reason) => MemberNews::End(reason),
                        None => opening::read(reads, who, have, *resume, self.partner_marks())?,
                    });
                    Ok(())
                };
                history.read_together(&mut read)?;
                Ok(news)
            }
            MemberTask::Sync { have, resume, rid } => {
                reads::sync(history, who.user, have, *resume, rid.clone()).map(one)
            }
            MemberTask::Overview(overview) => {
                reads::overview(history, who.user, overview, self.partner_marks()).map(one)
            }
            MemberTask::Read { conv, from, to, is_new, written } => {
                let wanted = PageWanted { conv: *conv, from: *from, to: *to, is_new: *is_new, written: *written };
                pump_pages::read(history, who.user, &wanted).map(one)
            }
            MemberTask::Page(ticket, rid, named, ask, limit) => {
                let (text, head) = reads::page(history, who.user, named.name, *ask, *limit, rid.as_ref())?;
                let doubt = doubt(who, named, head);
                Ok(doubt.into_iter().chain([MemberNews::PageAnswer(*ticket, text)]).collect())
            }
            MemberTask::MarkRead(ticket, rid, named, read) => {
                let (text, found) = self.mark_read(history, who, named.name, *read, rid.as_ref())?;
                let doubt = doubt(who, named, found.map(|found| found.head));
                let conv = named.name.for_user(who.user);
                let found = found.map(|found| FoundMark { conv, read: found.read, rid: rid.clone() });
                Ok(doubt.into_iter().chain([MemberNews::MarkAnswer(*ticket, text, found)]).collect())
            }
            MemberTask::Marks(convs) => self.marks_now(history, who.user, convs).map(one),
            MemberTask::Report(ticket, stored) => self.report(history, who, *ticket, stored).map(one),
            MemberTask::Watch(ticket, rid, before, now) => {
                self.watch(who, link, (*ticket, rid.as_ref()), (before, now))
            }
            MemberTask::Typing(name) => {
                self.show_typing(who, *name)?;
                Ok(Vec::new())
            }
            // `Arrangements` runs these.
            MemberTask::Account(..) => Ok(Vec::new()),
            MemberTask::LogOut(ticket, rid) => self.log_out(history, who, *ticket, rid.as_ref()).map(one),
        }
    }
}

/// The kind of read that a task makes, for the metrics.
fn read_by(task: &MemberTask) -> Option<HistoryRead> {
    match task {
        MemberTask::Heads { .. } => Some(HistoryRead::Login),
        MemberTask::Sync { .. } => Some(HistoryRead::Sync),
        MemberTask::Read { .. } => Some(HistoryRead::Behind),
        MemberTask::Page(..) => Some(HistoryRead::Page),
        _ => None,
    }
}

/// News for the pump if the conversation ends before the number that the pump had written when the
/// request was read. Then the history is lost, and a page will show that.
fn doubt(who: &Identity, named: &NamedConversation, head: Option<Seq>) -> Option<MemberNews> {
    let (conv, shown) = (named.name.for_user(who.user), named.shown);
    let is_lower = head.is_some_and(|head| head < shown);
    is_lower.then(|| MemberNews::Pump(vec![PumpEvent::Doubt { conv, shown }]))
}

fn one(news: MemberNews) -> Vec<MemberNews> {
    vec![news]
}
