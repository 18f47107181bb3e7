//! [`MemberTask`]: blocking work for a [`Member`](super::member::Member), and [`MemberNews`]: the
//! results of that work, and news from others.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::base::conversation::{ConversationId, ConversationName, Seq};
use crate::history::answers::Ticket;
use crate::history::pump::{Heads, PumpEvent, RowPage};
use crate::protocol::UserId;
use crate::protocol::level2::frames::{MarkNews, Refusal};
use crate::protocol::level2::replies::{self, Reason};
use crate::protocol::level2::{Account, Have, HaveItem, PAGE_MAX, PageAsk, Rid};
use crate::store::history::{DeviceId, Head};

/// Blocking work. A member has a bounded number of tasks under way.
#[derive(Debug)]
pub enum MemberTask {
    /// Read the heads of all conversations of the user, for the login: [`MemberNews::Heads`].
    Heads {
        /// The messages that the client holds, as cursors.
        have: Have<'static>,
        /// The most messages of a run.
        resume: u32,
    },
    /// Read the heads of these conversations, for a 46: an event of the pump.
    Sync {
        /// The messages that the client holds, as cursors.
        have: Vec<HaveItem<'static>>,
        /// The most messages of a run.
        resume: u32,
        /// The id of the 46.
        rid: Option<Rid>,
    },
    /// Compose the next 43: [`MemberNews::Overview`].
    Overview(Overview),
    /// Read a page for the pump: an event of the pump.
    Read {
        /// The conversation.
        conv: ConversationId,
        /// The first number.
        from: Seq,
        /// The last one.
        to: Option<Seq>,
        /// Whether nothing of the conversation was written.
        is_new: bool,
        /// The number of a message that was written, whose tag is wanted.
        written: Option<Seq>,
    },
    /// Answer a 48.
    Page(Ticket, Option<Rid>, NamedConversation, PageAsk, u32),
    /// Answer a 49, and notify others of the mark: [`MemberNews::MarkAnswer`].
    MarkRead(Ticket, Option<Rid>, NamedConversation, Seq),
    /// Read the marks of these conversations: [`MemberNews::MarksRead`].
    Marks(Vec<ConversationId>),
    /// Note a 47, and notify others of it: [`MemberNews::Reported`].
    Report(Ticket, Vec<(ConversationName, Seq)>),
    /// Tell the others in this conversation that the user is typing.
    Typing(ConversationName),
    /// Answer a 52: watch the second users, and no longer the first ones. [`MemberNews::Watching`]
    /// follows.
    Watch(Ticket, Option<Rid>, Arc<[UserId]>, Arc<[UserId]>),
    /// Do and answer one of 60 to 69.
    Account(Ticket, Option<Rid>, Box<Account<'static>>),
    /// Log this device out (3): [`MemberNews::LoggedOut`].
    LogOut(Ticket, Option<Rid>),
}

/// A conversation that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedConversation {
    /// The client's name for the conversation.
    pub name: ConversationName,
    /// The last number of it that was written to the client before the request.
    pub shown: Seq,
}

/// News for a member.
#[derive(Debug)]
pub enum MemberNews {
    /// Events of the pump, in this order.
    Pump(Vec<PumpEvent>),
    /// An event of the pump for a 46.
    Synced(PumpEvent),
    /// The answer of a 48.
    PageAnswer(Ticket, String),
    /// The heads for the login.
    Heads(Heads, Overview, Ahead),
    /// A 43, and the remaining conversations.
    Overview(Arc<str>, Overview),
    /// The 43 could not be composed now.
    OverviewFailed(Overview),
    /// The answer to a request.
    Answer(Ticket, String),
    /// The answer to a 49, and the mark that was found; `None` if the 49 is refused.
    MarkAnswer(Ticket, String, Option<FoundMark>),
    /// Marks that have risen, perhaps not above those that the client knows.
    Marks(ConversationId, MarkNews),
    /// The present marks of the requested conversations, as far as they may be shown; `None` if
    /// they could not be read.
    MarksRead(Option<Vec<(ConversationId, MarkNews)>>),
    /// A 47 was noted or could not be, with its content.
    Reported(Ticket, Vec<(ConversationName, Seq)>, Noted),
    /// A frame that needs no place among others.
    Show(Arc<str>),
    /// A watched user is online, or not.
    Presence(UserId, bool),
    /// The users of a 52 are watched. Its answer and all their states came before this.
    Watching,
    /// The users of a 52 are not watched: the answer, and the users who are still watched.
    NotWatching(Ticket, String, Arc<[UserId]>),
    /// The answer to a 3: the device is logged out.
    LoggedOut(Ticket, String),
    /// The connection ends.
    End(Reason),
}

impl MemberTask {
    /// The news for the member if the task cannot be done now.
    pub fn failed(self, refusal: Refusal) -> MemberNews {
        let pump = |event| MemberNews::Pump(vec![event]);
        let answer = |ticket, msg_type, rid: Option<Rid>| {
            MemberNews::Answer(ticket, replies::refused(msg_type, refusal, rid.as_ref()))
        };
        match self {
            MemberTask::Heads { .. } => pump(PumpEvent::HeadsFailed { rid: None, refusal }),
            MemberTask::Sync { rid, .. } => MemberNews::Synced(PumpEvent::HeadsFailed { rid, refusal }),
            MemberTask::Overview(overview) => MemberNews::OverviewFailed(overview),
            MemberTask::Read { .. } => pump(PumpEvent::PageFailed),
            MemberTask::Page(ticket, rid, ..) => {
                MemberNews::PageAnswer(ticket, replies::refused(48, refusal, rid.as_ref()))
            }
            MemberTask::MarkRead(ticket, rid, ..) => {
                MemberNews::MarkAnswer(ticket, replies::refused(49, refusal, rid.as_ref()), None)
            }
            MemberTask::Marks(_) => MemberNews::MarksRead(None),
            MemberTask::Report(ticket, stored) => MemberNews::Reported(ticket, stored, Noted::Failed),
            MemberTask::Watch(ticket, rid, before, _) => {
                MemberNews::NotWatching(ticket, replies::refused(52, refusal, rid.as_ref()), before)
            }
            MemberTask::Typing(_) => MemberNews::Pump(Vec::new()),
            MemberTask::Account(ticket, rid, account) => answer(ticket, account.msg_type(), rid),
            MemberTask::LogOut(ticket, rid) => answer(ticket, 3, rid),
        }
    }

    /// The kind of the task, for the log.
    pub fn what(&self) -> &'static str {
        match self {
            MemberTask::Heads { .. } | MemberTask::Sync { .. } | MemberTask::Overview(_) => "reading conversations",
            MemberTask::Read { .. } | MemberTask::Page(..) => "reading messages",
            MemberTask::MarkRead(..) | MemberTask::Report(..) => "writing marks",
            MemberTask::Marks(_) => "reading marks",
            MemberTask::Account(..) => "arranging accounts and groups",
            MemberTask::LogOut(..) => "reading devices",
            MemberTask::Watch(..) | MemberTask::Typing(_) => "reading contacts",
        }
    }
}

/// The user's mark that a 49 has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundMark {
    /// The conversation.
    pub conv: ConversationId,
    /// The user's mark.
    pub read: Seq,
    /// The id of the 49.
    pub rid: Option<Rid>,
}

/// The outcome of a 47.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It is stored.
    Stored,
    /// The database is unavailable; the report is retried with the next one.
    Failed,
}

/// The conversations that no 43 has shown yet.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// All conversations, as of one moment, the most recently active first.
    pub heads: Arc<[Head]>,
    /// The number of heads that were shown.
    pub shown: usize,
    /// The conversations of which the client holds something: their last message is left out.
    pub held: Arc<FxHashSet<ConversationId>>,
}

impl Overview {
    /// The heads for the next 43, unless they do not fit.
    pub fn next(&self) -> &[Head] {
        let rest = &self.heads[self.shown..];
        &rest[..rest.len().min(PAGE_MAX)]
    }
}

/// The first 43 and the first pages, read together with the heads because the pump is likely to ask
/// for them first. They are valid only if the pump asks for them as soon as it has the heads: later
/// there may be more to show.
#[derive(Debug, Default)]
pub struct Ahead {
    /// The first 43, and the remaining conversations.
    pub overview: Option<(Arc<str>, Overview)>,
    /// The first pages of the first runs, each with its first number.
    pub pages: VecDeque<(ConversationId, Seq, RowPage)>,
}

impl Ahead {
    /// Takes the page of this conversation that begins with this number, if it is the next one and
    /// has the wanted tag. A page that is read ahead knows only the tag of its last message.
    pub fn page(&mut self, conv: ConversationId, from: Seq, written: Option<Seq>) -> Option<RowPage> {
        let is_it = self.pages.front().is_some_and(|(of, first, page)| {
            let last = page.rows.last().map(|row| row.at.seq);
            (*of, *first) == (conv, from) && (written.is_none() || written == last)
        });
        if is_it { self.pages.pop_front().map(|(.., page)| page) } else { None }
    }
}

/// The user and the device of a member. They do not change during the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The id of the device's row.
    pub device: DeviceId,
    /// The client's name of the device.
    pub device_name: Arc<str>,
    /// The number of this login in that row.
    pub login: i64,
}
