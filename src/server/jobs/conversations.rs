//! [`Conversations`]: what threads do for connections of level 2: logins of devices, heads, pages,
//! marks, and the import of what waits.

mod devices;
mod import;
mod marks;
mod opening;
mod parts;
mod postbox;
mod presence;
mod pump_pages;
mod reads;
mod sweep;

use std::sync::Arc;

pub use self::devices::Visitor;
pub use self::import::{Import, ImportStep};
pub(super) use self::parts::refusal_of;
pub use self::parts::{ConversationParts, Conversations, DeviceRules};
pub use self::postbox::Postbox;
use self::pump_pages::PageWanted;
pub use self::sweep::SeenDevices;
use crate::delivery::ClientLink;
use crate::devices::tasks::{Identity, MemberNews, MemberTask};
use crate::metrics::HistoryRead;
use crate::protocol::level2::frames::Refusal;
use crate::store::StoreError;
use crate::store::history::HistoryReads;

impl Conversations {
    /// Does a task. Blocks.
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
                        None => opening::read(reads, who, have, *resume, self.rules.receipts)?,
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
                reads::overview(history, who.user, overview, self.rules.receipts).map(one)
            }
            MemberTask::Read { conv, from, to, is_new, written } => {
                let wanted = PageWanted { conv: *conv, from: *from, to: *to, is_new: *is_new, written: *written };
                pump_pages::read(history, who.user, &wanted).map(one)
            }
            MemberTask::Page(ticket, rid, name, ask, limit) => {
                let text = reads::page(history, who.user, *name, *ask, *limit, rid.as_ref())?;
                Ok(one(MemberNews::PageAnswer(*ticket, text)))
            }
            MemberTask::MarkRead(ticket, rid, name, read) => {
                let (text, found) = self.mark_read(history, who, *name, *read, rid.as_ref())?;
                Ok(one(MemberNews::MarkAnswer(*ticket, text, found)))
            }
            MemberTask::Report(ticket, stored) => self.report(history, who, *ticket, stored).map(one),
            MemberTask::Watch(ticket, rid, before, now) => {
                self.watch(who, link, (*ticket, rid.as_ref()), (before, now))
            }
            MemberTask::Typing(name) => {
                self.show_typing(who, *name);
                Ok(Vec::new())
            }
            // Another's work.
            MemberTask::Account(..) => Ok(Vec::new()),
            MemberTask::LogOut(ticket, rid) => self.log_out(history, who, *ticket, rid.as_ref()),
        }
    }
}

/// What a task reads of conversations.
fn read_by(task: &MemberTask) -> Option<HistoryRead> {
    match task {
        MemberTask::Heads { .. } => Some(HistoryRead::Login),
        MemberTask::Sync { .. } => Some(HistoryRead::Sync),
        MemberTask::Read { .. } => Some(HistoryRead::Behind),
        MemberTask::Page(..) => Some(HistoryRead::Page),
        _ => None,
    }
}

fn one(news: MemberNews) -> Vec<MemberNews> {
    vec![news]
}
