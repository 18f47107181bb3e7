//! [`InTurn`]: makes the requests of a connection take effect in the order sent.

use std::collections::VecDeque;

use super::tasks::MemberTask;
use crate::history::answers::Ticket;
use crate::protocol::level2::Rid;

/// The requests of a connection that threads do. A request that changes something is done alone.
/// Requests that only read are done concurrently, after the changes before them. Each has a ticket,
/// so their number is bounded by that of the open replies.
#[derive(Debug)]
pub(super) struct InTurn<T> {
    waiting: VecDeque<(Ticket, Does, T)>,
    under_way: Vec<Ticket>,
    /// The effect of the requests under way.
    does: Does,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub(super) enum QueuedRequest {
    Task(MemberTask),
    /// All 47s that were read up to this one.
    Reports(Ticket),
    /// The session processes the next frame that waits for it.
    Session(Ticket, Option<Rid>),
}

/// The effect of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Does {
    /// It changes something.
    Change,
    /// It only reads.
    Read,
}

impl<T> Default for InTurn<T> {
    fn default() -> InTurn<T> {
        InTurn { waiting: VecDeque::new(), under_way: Vec::new(), does: Does::Read }
    }
}

impl<T> InTurn<T> {
    /// Adds a request.
    pub(super) fn add(&mut self, ticket: Ticket, does: Does, request: T) {
        self.waiting.push_back((ticket, does, request));
    }

    /// Takes the next request whose turn has come. The caller repeats this until there is none.
    pub(super) fn next(&mut self) -> Option<T> {
        let (_, does, _) = self.waiting.front()?;
        if !self.under_way.is_empty() && (*does, self.does) != (Does::Read, Does::Read) {
            return None;
        }
        let (ticket, does, request) = self.waiting.pop_front()?;
        self.under_way.push(ticket);
        self.does = does;
        Some(request)
    }

    /// Whether this request has begun and is not done.
    pub(super) fn is_under_way(&self, ticket: Ticket) -> bool {
        self.under_way.contains(&ticket)
    }

    /// Notes that a request is done. Requests that are not in this queue are ignored.
    pub(super) fn done(&mut self, ticket: Ticket) {
        self.under_way.retain(|other| *other != ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::answers::Answers;

    #[test]
    fn changes_are_done_alone_and_reads_beside_each_other() {
        let (mut tickets, mut turns) = (Answers::<()>::default(), InTurn::default());
        let [a, b, c, d, e] = std::array::from_fn(|_| tickets.open());
        for (ticket, does, name) in [
            (a, Does::Read, "a"),
            (b, Does::Read, "b"),
            (c, Does::Change, "c"),
            (d, Does::Change, "d"),
            (e, Does::Read, "e"),
        ] {
            turns.add(ticket, does, name);
        }
        assert_eq!([turns.next(), turns.next(), turns.next()], [Some("a"), Some("b"), None]);
        turns.done(a);
        assert_eq!(turns.next(), None, "a change waits for all reads before it");
        turns.done(b);
        assert_eq!([turns.next(), turns.next()], [Some("c"), None]);
        turns.done(a);
        assert_eq!(turns.next(), None, "that was done before");
        turns.done(c);
        assert_eq!([turns.next(), turns.next()], [Some("d"), None]);
        turns.done(d);
        assert_eq!([turns.next(), turns.next()], [Some("e"), None]);
        turns.done(e);
        assert!(turns.under_way.is_empty() && turns.waiting.is_empty());
    }
}
