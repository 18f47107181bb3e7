//! [`MemberTask`]: blocking work for a [`Member`](super::member::Member), and [`MemberNews`]: what it
//! is told, by that work and by others.

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

/// Blocking work. A member has a bounded number of them under way.
#[derive(Debug)]
pub enum MemberTask {
    /// Read where all conversations of the user stand, for the login: [`MemberNews::Heads`].
    Heads {
        /// What the client holds.
        have: Have<'static>,
        /// The most messages of a run.
        resume: u32,
    },
    /// Read where these conversations stand, for a 46: an event of the pump.
    Sync {
        /// What the client holds.
        have: Vec<HaveItem<'static>>,
        /// The most messages of a run.
        resume: u32,
        /// Of the 46.
        rid: Option<Rid>,
    },
    /// Compose the next 43: [`MemberNews::Overview`].
    Overview(Overview),
    /// Read a page for the pump: an event of it.
    Read {
        /// Of this conversation.
        conv: ConversationId,
        /// The first number.
        from: Seq,
        /// The last one.
        to: Option<Seq>,
        /// Nothing of the conversation was written.
        is_new: bool,
        /// A message that was written: its tag is wanted.
        written: Option<Seq>,
    },
    /// Answer a 48.
    Page(Ticket, Option<Rid>, ConversationName, PageAsk, u32),
    /// Answer a 49, and tell it to others: [`MemberNews::MarkAnswer`].
    MarkRead(Ticket, Option<Rid>, ConversationName, Seq),
    /// Note a 47, and tell it to others: [`MemberNews::Reported`].
    Report(Ticket, Vec<(ConversationName, Seq)>),
    /// Tell the others in this conversation that the user is typing.
    Typing(ConversationName),
    /// Answer a 52: watch the second users, and the first ones no more. [`MemberNews::Watching`] follows.
    Watch(Ticket, Option<Rid>, Arc<[UserId]>, Arc<[UserId]>),
    /// Do and answer one of 60 to 69.
    Account(Ticket, Option<Rid>, Box<Account<'static>>),
    /// Log this device out (3): [`MemberNews::End`] follows the answer.
    LogOut(Ticket, Option<Rid>),
}

/// What a member is told.
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
    /// A 43, and the conversations that are left.
    Overview(Arc<str>, Overview),
    /// It could not be composed now.
    OverviewFailed(Overview),
    /// The answer of a question.
    Answer(Ticket, String),
    /// The answer of a 49, and where the mark stands; `None` if it is refused.
    MarkAnswer(Ticket, String, Option<(ConversationId, Seq)>),
    /// Marks have risen, perhaps not above those that the client knows.
    Marks(ConversationId, MarkNews),
    /// A 47 is noted, or could not be: with what it said.
    Reported(Ticket, Vec<(ConversationName, Seq)>, Noted),
    /// A frame that has no place among others.
    Show(Arc<str>),
    /// A watched user is online, or not.
    Presence(UserId, bool),
    /// The users of a 52 are watched. Its answer and all their states came before this.
    Watching,
    /// They are not: the answer, and those who are still watched.
    NotWatching(Ticket, String, Arc<[UserId]>),
    /// The connection ends.
    End(Reason),
}

impl MemberTask {
    /// What the member is told if the task cannot be done now.
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
            MemberTask::Report(ticket, stored) => MemberNews::Reported(ticket, stored, Noted::Failed),
            MemberTask::Watch(ticket, rid, before, _) => {
                MemberNews::NotWatching(ticket, replies::refused(52, refusal, rid.as_ref()), before)
            }
            MemberTask::Typing(_) => MemberNews::Pump(Vec::new()),
            MemberTask::Account(ticket, rid, account) => answer(ticket, account.msg_type(), rid),
            MemberTask::LogOut(ticket, rid) => answer(ticket, 3, rid),
        }
    }

    /// The kind of task, for the log.
    pub fn what(&self) -> &'static str {
        match self {
            MemberTask::Heads { .. } | MemberTask::Sync { .. } | MemberTask::Overview(_) => "reading conversations",
            MemberTask::Read { .. } | MemberTask::Page(..) => "reading messages",
            MemberTask::MarkRead(..) | MemberTask::Report(..) | MemberTask::Typing(_) => "writing marks",
            MemberTask::Account(..) => "arranging accounts and groups",
            MemberTask::LogOut(..) => "reading devices",
            MemberTask::Watch(..) => "reading contacts",
        }
    }
}

/// What became of a 47.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It is stored.
    Stored,
    /// The database is away; it is tried again with the next one.
    Failed,
}

/// The conversations that are not in a 43 yet.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// All of them, as of one moment, the most recently active first.
    pub heads: Arc<[Head]>,
    /// How many were shown.
    pub shown: usize,
    /// Those that the client holds something of: their last message is left out.
    pub held: Arc<FxHashSet<ConversationId>>,
}

impl Overview {
    /// Those of the next 43, unless they do not fit.
    pub fn next(&self) -> &[Head] {
        let rest = &self.heads[self.shown..];
        &rest[..rest.len().min(PAGE_MAX)]
    }
}

/// What was read with the heads because the pump is likely to ask for it first. It counts only for
/// what the pump asks as soon as it has the heads: later there may be more to show.
#[derive(Debug, Default)]
pub struct Ahead {
    /// The first 43, and the conversations that are left.
    pub overview: Option<(Arc<str>, Overview)>,
    /// The first pages of the first runs, each with its first number.
    pub pages: VecDeque<(ConversationId, Seq, RowPage)>,
}

impl Ahead {
    /// Takes the page of this conversation that begins with this number, if it is the next one and tells
    /// the tag that is wanted: a page that is read ahead knows that of its last message.
    pub fn page(&mut self, conv: ConversationId, from: Seq, written: Option<Seq>) -> Option<RowPage> {
        let is_it = self.pages.front().is_some_and(|(of, first, page)| {
            let last = page.rows.last().map(|row| row.at.seq);
            (*of, *first) == (conv, from) && (written.is_none() || written == last)
        });
        if is_it { self.pages.pop_front().map(|(.., page)| page) } else { None }
    }
}

/// The user and the device of a member. It stays the same for the life of the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The row of the device.
    pub device: DeviceId,
    /// The client's name of the device.
    pub device_name: Arc<str>,
    /// The number of this login in that row.
    pub login: i64,
}
