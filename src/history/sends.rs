//! [`Sends`]: the sends of one connection that are not acknowledged yet.
//!
//! 41s leave in the order sent within each conversation. If a send fails and may succeed later, all
//! sends behind it in its conversation fail with it, and so does every later one until the client
//! sends the one that failed first again. So its messages are committed in the order sent.
//!
//! Memory: at most as many sends as may be in flight, some 150 bytes each, and [`FAILED_MAX`]
//! conversations with a failure.

use std::collections::{HashMap, VecDeque};

use crate::base::conversation::{ConversationId, ConversationName, Seq, Tag};
use crate::protocol::level2::frames::{self, Committed, Refusal};

/// The most conversations in which a send of one connection may have failed and not come again. A
/// connection with more is closed, because what must not be accepted could not be remembered.
pub const FAILED_MAX: usize = 1024;

/// The number of a send on its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SendId(u64);

/// A send to be committed.
///
/// If a send fails and may succeed later, the lane that commits must fail all sends of this
/// connection to this conversation that come behind it, until one that `resumes`: they were read
/// before the failure was known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submission {
    /// Its number.
    pub id: SendId,
    /// It is the one that had failed first, again.
    pub resumes: bool,
}

impl Submission {
    /// The only send of its connection.
    pub const ALONE: Submission = Submission { id: SendId(0), resumes: false };
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum SendAnswer {
    /// It is committed, behind a message with this tag.
    New(Committed, Option<Tag>),
    /// It was committed before.
    Again(Committed),
    /// It is not, or nobody knows.
    Refused(Refusal),
}

/// What is known of the sender of a message that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RowOrigin {
    /// Another user, or another connection: it is a 42.
    Elsewhere,
    /// The next send to be acknowledged: its 41 stands for the message.
    Next(Committed),
    /// It may be a send that has no answer yet, or one behind such a send.
    Unknown,
}

/// The sends of one connection.
#[derive(Debug, Default)]
pub(super) struct Sends {
    next: u64,
    open: HashMap<ConversationId, Open>,
    count: usize,
    /// The first send that failed in a conversation, until it comes again.
    failed: HashMap<ConversationId, (Box<str>, Refusal)>,
}

/// The sends of one conversation.
#[derive(Debug, Default)]
struct Open {
    sends: VecDeque<OpenSend>,
    /// Messages from here on were not written, because their origin is unknown.
    held: Option<(Seq, Seq)>,
}

#[derive(Debug)]
struct OpenSend {
    id: SendId,
    cid: Box<str>,
    state: SendState,
}

#[derive(Debug)]
enum SendState {
    /// It has no answer; if doomed it will fail like this, whatever that is.
    Pending { doomed: Option<Refusal> },
    /// Its 41 takes the place of this message, behind one with this tag.
    Placed(Committed, Option<Tag>),
    /// Its 41 waits for nothing but earlier 41s.
    Ready(String),
}

impl Sends {
    /// A send was read: its number, or that it was refused, because an earlier one failed. Either
    /// way the caller then writes what is next.
    pub(super) fn open(&mut self, conv: ConversationId, cid: &str) -> Option<Submission> {
        let resumes = self.failed.get(&conv).is_some_and(|(first, _)| **first == *cid);
        if resumes {
            self.failed.remove(&conv);
        }
        let refusal = self.failed.get(&conv).map(|(_, refusal)| *refusal);
        let state = match refusal {
            Some(refusal) => SendState::Ready(frames::send_refused(Some(cid), refusal)),
            None => SendState::Pending { doomed: None },
        };
        let id = self.push(conv, cid, state);
        refusal.is_none().then_some(Submission { id, resumes })
    }

    /// A send that is refused at once. It has its place among the 41s of its conversation.
    pub(super) fn refuse(&mut self, conv: ConversationId, cid: Option<&str>, refusal: Refusal) {
        let text = frames::send_refused(cid, refusal);
        self.push(conv, cid.unwrap_or_default(), SendState::Ready(text));
    }

    fn push(&mut self, conv: ConversationId, cid: &str, state: SendState) -> SendId {
        let id = SendId(self.next);
        self.next += 1;
        self.count += 1;
        self.open.entry(conv).or_default().sends.push_back(OpenSend { id, cid: cid.into(), state });
        id
    }

    /// How many have no 41 yet.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The conversations with such sends.
    pub(super) fn convs(&self) -> Vec<ConversationId> {
        self.open.keys().copied().collect()
    }

    /// Whether more failed than can be remembered.
    pub(super) fn is_overfull(&self) -> bool {
        self.failed.len() > FAILED_MAX
    }

    /// An answer. The caller then writes what is next. Answers of one conversation come in
    /// the order sent; a repeated one is passed over.
    pub(super) fn answer(&mut self, conv: ConversationId, name: ConversationName, id: SendId, answer: SendAnswer) {
        let Some(open) = self.open.get_mut(&conv) else { return };
        let Ok(at) = open.sends.binary_search_by_key(&id, |send| send.id) else { return };
        let send = &mut open.sends[at];
        let SendState::Pending { doomed } = send.state else { return };
        let answer = doomed.map_or(answer, SendAnswer::Refused);
        send.state = match answer {
            SendAnswer::New(at, before) => SendState::Placed(at, before),
            SendAnswer::Again(at) => SendState::Ready(frames::acknowledged(&send.cid, name, at, true)),
            SendAnswer::Refused(refusal) => SendState::Ready(frames::send_refused(Some(&send.cid), refusal)),
        };
        if let SendAnswer::Refused(refusal @ Refusal { retry_after: Some(_), .. }) = answer
            && doomed.is_none()
        {
            self.failed.insert(conv, (send.cid.clone(), refusal));
            for behind in open.sends.iter_mut().skip(at + 1) {
                match &mut behind.state {
                    SendState::Pending { doomed } => *doomed = Some(refusal),
                    placed @ SendState::Placed(..) => {
                        *placed = SendState::Ready(frames::send_refused(Some(&behind.cid), refusal));
                    }
                    SendState::Ready(_) => {}
                }
            }
        }
    }

    /// The next 41, if it waits for no message. It is taken out.
    pub(super) fn next_ready(&mut self, conv: ConversationId) -> Option<String> {
        match &mut self.open.get_mut(&conv)?.sends.front_mut()?.state {
            SendState::Ready(text) => {
                let text = std::mem::take(text);
                self.drop_front(conv);
                Some(text)
            }
            SendState::Pending { .. } | SendState::Placed(..) => None,
        }
    }

    /// The message whose place the next 41 takes, and the tag of the one before it.
    pub(super) fn next_placed(&self, conv: ConversationId) -> Option<(Committed, Option<Tag>)> {
        match self.open.get(&conv)?.sends.front()?.state {
            SendState::Placed(at, before) => Some((at, before)),
            SendState::Pending { .. } | SendState::Ready(_) => None,
        }
    }

    /// The 41 of [`Sends::next_placed`], which is taken out.
    pub(super) fn acknowledge(
        &mut self,
        conv: ConversationId,
        name: ConversationName,
        at: Committed,
        again: bool,
    ) -> String {
        let cid = self.open.get(&conv).and_then(|open| open.sends.front()).map(|send| send.cid.clone());
        self.drop_front(conv);
        frames::acknowledged(&cid.unwrap_or_default(), name, at, again)
    }

    fn drop_front(&mut self, conv: ConversationId) {
        if let Some(open) = self.open.get_mut(&conv) {
            self.count -= usize::from(open.sends.pop_front().is_some());
        }
    }

    /// Drops what is remembered of a conversation without open sends.
    pub(super) fn tidy(&mut self, conv: ConversationId) {
        if self.open.get(&conv).is_some_and(|open| open.sends.is_empty() && open.held.is_none()) {
            self.open.remove(&conv);
        }
    }

    /// Where an own message comes from. Numbers of one connection's sends ascend in the order sent.
    pub(super) fn origin(&self, conv: ConversationId, row: Committed) -> RowOrigin {
        let Some(open) = self.open.get(&conv) else { return RowOrigin::Elsewhere };
        for (nth, send) in open.sends.iter().enumerate() {
            match send.state {
                SendState::Pending { doomed: None } => return RowOrigin::Unknown,
                // Another message with its number means that it is lost.
                SendState::Placed(at, _) if at.seq == row.seq && at.tag != row.tag => {}
                SendState::Placed(at, _) if at.seq == row.seq && nth == 0 => return RowOrigin::Next(at),
                SendState::Placed(at, _) if at.seq == row.seq => return RowOrigin::Unknown,
                SendState::Placed(at, _) if at.seq > row.seq => return RowOrigin::Elsewhere,
                SendState::Pending { doomed: Some(_) } | SendState::Placed(..) | SendState::Ready(_) => {}
            }
        }
        RowOrigin::Elsewhere
    }

    /// The message `seq`, of unknown origin, is not written yet; there are messages up to `to`.
    pub(super) fn hold(&mut self, conv: ConversationId, seq: Seq, to: Seq) {
        if let Some(open) = self.open.get_mut(&conv) {
            let (first, last) = open.held.unwrap_or((seq, to));
            open.held = Some((first.min(seq), last.max(to)));
        }
    }

    /// Whether the message `next`, the next to be written, waits for an answer.
    pub(super) fn is_held(&self, conv: ConversationId, next: Seq) -> bool {
        let Some(open) = self.open.get(&conv) else { return false };
        open.held.is_some_and(|(first, _)| first <= next && open.has_pending_before(first))
    }

    /// Ends the waiting once all answers that it is for have come: up to where there are messages.
    pub(super) fn release(&mut self, conv: ConversationId) -> Option<Seq> {
        let open = self.open.get_mut(&conv)?;
        let (first, last) = open.held?;
        if open.has_pending_before(first) {
            return None;
        }
        open.held = None;
        Some(last)
    }
}

impl Open {
    /// Whether a send that has no answer may be the message `seq`.
    fn has_pending_before(&self, seq: Seq) -> bool {
        let is_later = |send: &&OpenSend| matches!(send.state, SendState::Placed(at, _) if at.seq >= seq);
        let mut before = self.sends.iter().take_while(|send| !is_later(send));
        before.any(|send| matches!(send.state, SendState::Pending { doomed: None }))
    }
}
