//! [`Syncs`]: the synchronisations of one connection: the login's, and those of its 46s.

use std::collections::VecDeque;

use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{Refusal, RunHead};

/// The most synchronisations (the login's and those of 46s) of one connection at a time.
pub const SYNCS_MAX: usize = 4;

/// See the [module](self). Synchronisations are done one after the other.
#[derive(Debug)]
pub(super) struct Syncs {
    /// The number of requested synchronisations whose heads are not read.
    asked: usize,
    waiting: VecDeque<Sync>,
}

#[derive(Debug)]
struct Sync {
    rid: Option<Rid>,
    refused: VecDeque<(Box<str>, Refusal)>,
    runs: VecDeque<Run>,
}

/// The messages that a client is missing in one conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) conv: ConversationId,
    pub(super) head: RunHead,
    /// A message that the client has. The first page is of the same history only if the message is
    /// still there.
    pub(super) held: Option<(Seq, Tag)>,
    /// Whether a 46 has found that messages which this connection has shown may be lost.
    pub(super) tells_loss: bool,
    has_begun: bool,
}

impl Run {
    /// A run that has not begun.
    pub(super) fn new(conv: ConversationId, head: RunHead, held: Option<(Seq, Tag)>) -> Run {
        Run { conv, head, held, tells_loss: false, has_begun: false }
    }

    /// The same run for a 46 that begins anew, because messages that this connection has shown may
    /// be lost.
    pub(super) fn after_loss(self) -> Run {
        Run { tells_loss: true, ..self }
    }
}

/// The work to do next.
pub(super) enum SyncStep {
    /// Tell the client that this conversation is not the user's.
    Refuse(Box<str>, Refusal),
    /// Begin this run.
    Begin(Run),
    /// Continue the first run.
    GoOn,
    /// Tell the client that the synchronisation is complete.
    End(Option<Rid>),
}

impl Syncs {
    /// The synchronisations of a new connection: the login's is requested.
    pub(super) fn of_login() -> Syncs {
        Syncs { asked: 1, waiting: VecDeque::new() }
    }

    /// Requests another one.
    pub(super) fn ask(&mut self) {
        self.asked += 1;
    }

    /// Whether another one may be requested.
    pub(super) fn has_room(&self) -> bool {
        self.asked + self.waiting.len() < SYNCS_MAX
    }

    /// Notes that the heads of one were read, or could not be.
    pub(super) fn heads_came(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Adds a synchronisation with these refusals and runs.
    pub(super) fn add(&mut self, rid: Option<Rid>, refused: VecDeque<(Box<str>, Refusal)>, runs: VecDeque<Run>) {
        self.waiting.push_back(Sync { rid, refused, runs });
    }

    /// The next step of the first synchronisation; `None` if there is none.
    pub(super) fn step(&mut self) -> Option<SyncStep> {
        let sync = self.waiting.front_mut()?;
        if let Some((name, refusal)) = sync.refused.pop_front() {
            return Some(SyncStep::Refuse(name, refusal));
        }
        let Some(run) = sync.runs.front_mut() else {
            let ended = self.waiting.pop_front();
            if self.waiting.is_empty() {
                // Most connections never request another one, so the memory is freed.
                self.waiting = VecDeque::new();
            }
            return ended.map(|sync| SyncStep::End(sync.rid));
        };
        let begins = !std::mem::replace(&mut run.has_begun, true);
        Some(if begins { SyncStep::Begin(*run) } else { SyncStep::GoOn })
    }

    /// The current run.
    pub(super) fn run(&self) -> Option<Run> {
        self.waiting.front()?.runs.front().copied()
    }

    /// Begins the current run anew with this head.
    pub(super) fn set_head(&mut self, head: RunHead) {
        if let Some(run) = self.waiting.front_mut().and_then(|sync| sync.runs.front_mut()) {
            run.head = head;
            run.held = None;
        }
    }

    /// Sets the client's cursor in the conversation of the current run. It is needed until the
    /// first page has come.
    pub(super) fn set_held(&mut self, held: Option<(Seq, Tag)>) {
        if let Some(run) = self.waiting.front_mut().and_then(|sync| sync.runs.front_mut()) {
            run.held = held;
        }
    }

    /// Ends the current run, which is written.
    pub(super) fn end_run(&mut self) {
        if let Some(sync) = self.waiting.front_mut() {
            sync.runs.pop_front();
        }
    }

    /// Whether a run of this conversation waits or is being written.
    pub(super) fn has_run(&self, conv: ConversationId) -> bool {
        self.waiting.iter().any(|sync| sync.runs.iter().any(|run| run.conv == conv))
    }

    /// Drops the runs of a conversation.
    pub(super) fn drop_runs(&mut self, conv: ConversationId) {
        for sync in &mut self.waiting {
            sync.runs.retain(|run| run.conv != conv);
        }
    }

    /// Takes the refusals for this name, which was not a conversation of the user.
    pub(super) fn take_refusals(&mut self, name: &str) -> Vec<Refusal> {
        let mut taken = Vec::new();
        for sync in &mut self.waiting {
            sync.refused.retain(|(refused, refusal)| {
                let stays = **refused != *name;
                taken.extend((!stays).then_some(*refusal));
                stays
            });
        }
        taken
    }
}
