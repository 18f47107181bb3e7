//! Friends, and users who are blocked.

use std::sync::Arc;

use super::groups::event_cid;
use super::recorded::Recorded;
use crate::base::conversation::ConversationId;
use crate::protocol::{self, UserId};
use crate::store::FriendNames;
use crate::store::history::{EntryKind, FrameHash, NewEntry};

/// A request of `a` to be a friend of `b`.
#[derive(Clone, Copy, Debug)]
pub struct FriendRequest {
    /// Who asks.
    pub a: UserId,
    /// Who is asked.
    pub b: UserId,
    /// Whether `b` must have agreed.
    pub policy: FriendPolicy,
    /// Whether the conversation of both gets an entry.
    pub trace: Trace,
    /// Random bytes.
    pub nonce: [u8; 16],
}

/// Whether something is recorded in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// It is.
    Recorded,
    /// It is not: neither of both has used level 2.
    None,
}

/// Who becomes a friend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FriendPolicy {
    /// Whoever is asked.
    Open,
    /// Only a user who has asked before.
    Ask,
}

/// The outcome of a [`FriendRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Befriended {
    /// They are friends now.
    New(FriendNames, Option<Recorded>),
    /// They were before.
    Already(FriendNames),
    /// The other user is asked.
    Asked(FriendNames, Option<Recorded>),
    /// The other user was asked before.
    AskedBefore(FriendNames),
    /// The other user has blocked the one who asks.
    Blocked,
    /// One of them does not exist.
    NoSuchUser,
}

/// The outcome of a request to block a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockOutcome {
    /// It is as requested.
    Done,
    /// No user has that id.
    NoSuchUser,
    /// Too many are blocked.
    TooMany,
}

/// What must be known about two users.
#[derive(Clone, Debug)]
pub(in crate::store) struct FriendFacts {
    pub(in crate::store) names: Option<FriendNames>,
    pub(in crate::store) has_blocked: bool,
    /// Both are on the list of the other.
    pub(in crate::store) are_friends: bool,
    /// `a` has asked before.
    pub(in crate::store) has_asked: bool,
    /// `b` has asked.
    pub(in crate::store) was_asked: bool,
}

/// What a request leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum FriendDecision {
    /// Nothing changes.
    Unchanged(Befriended),
    /// They become friends.
    Friends(FriendNames),
    /// The request is noted.
    Asks(FriendNames),
}

impl FriendRequest {
    pub(in crate::store) fn decide(&self, facts: FriendFacts) -> FriendDecision {
        use FriendDecision::{Asks, Friends, Unchanged};
        let Some(names) = facts.names else { return Unchanged(Befriended::NoSuchUser) };
        if facts.has_blocked {
            return Unchanged(Befriended::Blocked);
        }
        match self.policy {
            _ if facts.are_friends => Unchanged(Befriended::Already(names)),
            FriendPolicy::Ask if facts.was_asked => Friends(names),
            FriendPolicy::Ask if facts.has_asked => Unchanged(Befriended::AskedBefore(names)),
            FriendPolicy::Ask => Asks(names),
            FriendPolicy::Open => Friends(names),
        }
    }

    /// The conversation of both.
    pub(in crate::store) fn conv(&self) -> ConversationId {
        ConversationId::between(self.a, self.b)
    }

    /// What is recorded for the other user: one entry, if any.
    pub(in crate::store) fn entries(&self, names: &FriendNames, asks: bool) -> Vec<NewEntry> {
        match self.trace {
            Trace::Recorded => vec![self.entry(names, asks)],
            Trace::None => Vec::new(),
        }
    }

    fn entry(&self, names: &FriendNames, asks: bool) -> NewEntry {
        let text: Arc<str> = match asks {
            true => protocol::friend_request(self.a, &names.a).into(),
            false => protocol::new_friend(self.a, &names.a).into(),
        };
        NewEntry {
            conv: self.conv(),
            sender: self.a,
            cid: event_cid(self.nonce, 0),
            hash: FrameHash::of(text.as_bytes()),
            kind: EntryKind::Other,
            is_imported: false,
            is_unchecked: false,
            change: None,
            text,
        }
    }

    /// Both, by ascending id.
    pub(in crate::store) fn both(&self) -> Vec<UserId> {
        vec![self.a.min(self.b), self.a.max(self.b)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_be_asked_is_asked_once() {
        let request =
            |policy| FriendRequest { a: UserId(1), b: UserId(2), policy, trace: Trace::Recorded, nonce: [0; 16] };
        let names = FriendNames { a: "a".into(), b: "b".into() };
        let none = FriendFacts {
            names: Some(names.clone()),
            has_blocked: false,
            are_friends: false,
            has_asked: false,
            was_asked: false,
        };
        let (open, ask) = (request(FriendPolicy::Open), request(FriendPolicy::Ask));
        assert_eq!(open.decide(none.clone()), FriendDecision::Friends(names.clone()));
        assert_eq!(ask.decide(none.clone()), FriendDecision::Asks(names.clone()));
        let asked = FriendFacts { has_asked: true, ..none.clone() };
        assert_eq!(ask.decide(asked.clone()), FriendDecision::Unchanged(Befriended::AskedBefore(names.clone())));
        let both = FriendFacts { was_asked: true, ..asked };
        assert_eq!(ask.decide(both.clone()), FriendDecision::Friends(names.clone()));
        let blocked = FriendFacts { has_blocked: true, are_friends: true, ..both };
        assert_eq!(open.decide(blocked), FriendDecision::Unchanged(Befriended::Blocked));
        let friends = FriendFacts { are_friends: true, ..none.clone() };
        assert_eq!(ask.decide(friends), FriendDecision::Unchanged(Befriended::Already(names)));
        let nobody = FriendFacts { names: None, has_blocked: true, ..none };
        assert_eq!(open.decide(nobody), FriendDecision::Unchanged(Befriended::NoSuchUser));
    }
}
