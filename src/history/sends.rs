//! [`Sends`]: the sends of one connection that are not acknowledged yet.
//!
//! 41s leave in the order sent within each conversation. If a send fails temporarily, all sends
//! after it in its conversation fail with it, and so does every later one until the client retries
//! the one that failed first. So the client's messages are committed in the order sent.
//!
//! Memory: at most as many sends as may be in flight, about 150 bytes each, and [`FAILED_MAX`]
//! conversations with a failure.

use std::collections::{HashMap, VecDeque};

use crate::base::conversation::{ConversationId, ConversationName, Seq, Tag};
use crate::protocol::level2::frames::{self, Committed, Refusal};

/// The most conversations of a connection with a failed send that was not retried yet. A connection
/// with more is closed, because further failures could not be remembered.
pub const FAILED_MAX: usize = 1024;

/// The number of a send on its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SendId(u64);

/// A send to be committed.
///
/// If a send fails temporarily, the lane that commits must fail all later sends of this connection
/// to this conversation, until one that `resumes`: they were read before the failure was known
/// here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submission {
    /// Its number.
    pub id: SendId,
    /// Whether it is the retry of the one that had failed first.
    pub resumes: bool,
}

impl Submission {
    /// The submission of a sender with a single send.
    pub const ALONE: Submission = Submission { id: SendId(0), resumes: false };
}

/// The outcome of a send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum SendAnswer {
    /// It is committed, after a message with this tag.
    New(Committed, Option<Tag>),
    /// It was committed before.
    Again(Committed),
    /// It is not committed, or nobody knows whether it is.
    Refused(Refusal),
}

/// The known origin of a message that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RowOrigin {
    /// Another user or connection: the message is a 42.
    Elsewhere,
    /// The next send to be acknowledged: its 41 takes the message's place.
    Next(Committed),
    /// Possibly a send that has no answer yet, or one after such a send.
    Unknown,
}

/// The sends of one connection.
#[derive(Debug, Default)]
pub(super) struct Sends {
    next: u64,
    open: HashMap<ConversationId, Open>,
    count: usize,
    /// The send that failed first in a conversation, until it is retried.
    failed: HashMap<ConversationId, (Box<str>, Refusal)>,
}

/// The sends of one conversation.
#[derive(Debug, Default)]
struct Open {
    sends: VecDeque<OpenSend>,
    /// The messages that were not written because their origin is unknown: the first of them, and
    /// the last known number.
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
    /// The send has no answer. If `doomed`, it fails with this refusal, and the answer makes no
    /// difference.
    Pending { doomed: Option<Refusal> },
    /// Its 41 takes the place of this message, which is after one with this tag.
    Placed(Committed, Option<Tag>),
    /// Its 41 waits only for earlier 41s.
    Ready(String),
}

impl Sends {
    /// Handles a send. Returns its number, or `None` if it is refused because an earlier one
    /// failed. Either way the caller then writes what is ready.
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

    /// Handles a send that is refused at once. It has its place among the 41s of its conversation.
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

    /// The number of sends without a 41.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The conversations with sends without a 41.
    pub(super) fn convs(&self) -> Vec<ConversationId> {
        self.open.keys().copied().collect()
    }

    /// Whether there are more failures than can be remembered.
    pub(super) fn is_overfull(&self) -> bool {
        self.failed.len() > FAILED_MAX
    }

    /// Handles an answer. The caller then writes what is ready. Answers of one conversation come in
    /// the order sent; a repeated one is ignored.
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

    /// Takes the next 41, if it waits for no message.
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

    /// Takes the 41 of [`Sends::next_placed`].
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

    /// Drops the entry of a conversation without open sends.
    pub(super) fn tidy(&mut self, conv: ConversationId) {
        if self.open.get(&conv).is_some_and(|open| open.sends.is_empty() && open.held.is_none()) {
            self.open.remove(&conv);
        }
    }

    /// The origin of a message of this user. Numbers of one connection's sends ascend in the order
    /// sent.
    pub(super) fn origin(&self, conv: ConversationId, row: Committed) -> RowOrigin {
        let Some(open) = self.open.get(&conv) else { return RowOrigin::Elsewhere };
        for (nth, send) in open.sends.iter().enumerate() {
            match send.state {
                SendState::Pending { doomed: None } => return RowOrigin::Unknown,
                // Another message with the send's number means that the send is lost.
                SendState::Placed(at, _) if at.seq == row.seq && at.tag != row.tag => {}
                SendState::Placed(at, _) if at.seq == row.seq && nth == 0 => return RowOrigin::Next(at),
                SendState::Placed(at, _) if at.seq == row.seq => return RowOrigin::Unknown,
                SendState::Placed(at, _) if at.seq > row.seq => return RowOrigin::Elsewhere,
                SendState::Pending { doomed: Some(_) } | SendState::Placed(..) | SendState::Ready(_) => {}
            }
        }
        RowOrigin::Elsewhere
    }

    /// Notes that the message `seq`, of unknown origin, is not written yet, and that there are
    /// messages up to `to`.
    pub(super) fn hold(&mut self, conv: ConversationId, seq: Seq, to: Seq) {
        if let Some(open) = self.open.get_mut(&conv) {
            let (first, last) = open.held.unwrap_or((seq, to));
            open.held = Some((first.min(seq), last.max(to)));
        }
    }

    /// Whether the next message to be written, `next`, waits for an answer.
    pub(super) fn is_held(&self, conv: ConversationId, next: Seq) -> bool {
        let Some(open) = self.open.get(&conv) else { return false };
        open.held.is_some_and(|(first, _)| first <= next && open.has_pending_before(first))
    }

    /// Ends the waiting once all necessary answers have come. Returns the last known number.
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
    /// Whether a send without an answer may be the message `seq`.
    fn has_pending_before(&self, seq: Seq) -> bool {
        let is_later = |send: &&OpenSend| matches!(send.state, SendState::Placed(at, _) if at.seq >= seq);
        let mut before = self.sends.iter().take_while(|send| !is_later(send));
        before.any(|send| matches!(send.state, SendState::Pending { doomed: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::UserId;

    #[test]
    fn a_send_that_will_fail_is_not_a_message() {
        let (conv, mut sends) = (ConversationId::between(UserId(7), UserId(9)), Sends::default());
        let row = Committed { seq: 5, tag: Tag(1), time: 1 };
        let first = sends.open(conv, "a").expect("nothing has failed");
        sends.open(conv, "b").expect("nothing has failed");
        assert_eq!(sends.origin(conv, row), RowOrigin::Unknown, "it may be either");
        let refusal = Refusal { errno: 503, errmsg: "busy", retry_after: Some(1) };
        sends.answer(conv, conv.name_for(UserId(7)), first.id, SendAnswer::Refused(refusal));
        assert_eq!(sends.origin(conv, row), RowOrigin::Elsewhere, "the second one fails with the first");
    }
}
