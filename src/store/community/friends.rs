//! Friends, and users who are blocked.

use std::sync::Arc;

use super::groups::event_cid;
use super::recorded::Recorded;
use crate::base::conversation::ConversationId;
use crate::protocol::{self, UserId};
use crate::store::FriendNames;
use crate::store::history::{EntryKind, FrameHash, NewEntry, SenderCheck};
use crate::store::hooks::Hooked;

/// A request of `a` to be a friend of `b`.
#[derive(Clone, Copy, Debug)]
pub struct FriendRequest {
    /// The user who makes the request.
    pub a: UserId,
    /// The user who gets the request.
    pub b: UserId,
    /// Whether `b` must have agreed.
    pub policy: FriendPolicy,
    /// Whether the conversation of both gets an entry.
    pub trace: Trace,
    /// Whether that entry joins the queue of the hook.
    pub hooked: Hooked,
    /// The most conversations of a user, see
    /// [`CommitRules::conversations_max`](crate::store::history::CommitRules::conversations_max).
    pub conversations_max: usize,
    /// Random bytes.
    pub nonce: [u8; 16],
}

/// Whether something is recorded in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// Something is recorded.
    Recorded,
    /// Nothing is recorded: neither user has used level 2.
    None,
}

/// The condition for becoming a friend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FriendPolicy {
    /// No condition.
    Open,
    /// A request by the other user before.
    Ask,
}

/// The outcome of a [`FriendRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Befriended {
    /// They are friends now.
    New(FriendNames, Option<Recorded>),
    /// They were friends before.
    Already(FriendNames),
    /// The request is made to the other user.
    Asked(FriendNames, Option<Recorded>),
    /// The request had been made before.
    AskedBefore(FriendNames),
    /// The other user has blocked the requester.
    Blocked,
    /// It would be recorded, and one of them has too many conversations for another one.
    NoRoom,
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
    /// The user has blocked too many others.
    TooMany,
}

/// The facts about two users that the decision needs.
#[derive(Clone, Debug)]
pub(in crate::store) struct FriendFacts {
    pub(in crate::store) names: Option<FriendNames>,
    pub(in crate::store) has_blocked: bool,
    /// Whether each is on the list of the other.
    pub(in crate::store) are_friends: bool,
    /// Whether `a` had made a request before.
    pub(in crate::store) has_asked: bool,
    /// Whether `b` has made a request.
    pub(in crate::store) was_asked: bool,
    /// Whether what is recorded has room in the conversations of both.
    pub(in crate::store) has_room: bool,
}

/// The result of a request.
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
            FriendPolicy::Ask if facts.has_asked && !facts.was_asked => Unchanged(Befriended::AskedBefore(names)),
            _ if !facts.has_room => Unchanged(Befriended::NoRoom),
            FriendPolicy::Ask if facts.was_asked => Friends(names),
            FriendPolicy::Ask => Asks(names),
            FriendPolicy::Open => Friends(names),
        }
    }

    /// The conversation of these two.
    pub(in crate::store) fn conv(&self) -> ConversationId {
        ConversationId::between(self.a, self.b)
    }

    /// The entries that are recorded for the other user: at most one.
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
            check: SenderCheck::None,
            is_hooked: self.hooked == Hooked::Yes,
            change: None,
            text,
        }
    }

    /// Both users, by ascending id.
    pub(in crate::store) fn both(&self) -> Vec<UserId> {
        vec![self.a.min(self.b), self.a.max(self.b)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_must_agree_is_asked_once() {
        let request = |policy| {
            let (a, b, nonce) = (UserId(1), UserId(2), [0; 16]);
            FriendRequest { a, b, policy, trace: Trace::Recorded, hooked: Hooked::No, conversations_max: 9, nonce }
        };
        let names = FriendNames { a: "a".into(), b: "b".into() };
        let none = FriendFacts {
            names: Some(names.clone()),
            has_blocked: false,
            are_friends: false,
            has_asked: false,
            was_asked: false,
            has_room: true,
        };
        let crowded = FriendFacts { has_room: false, ..none.clone() };
        let (open, ask) = (request(FriendPolicy::Open), request(FriendPolicy::Ask));
        assert_eq!(open.decide(none.clone()), FriendDecision::Friends(names.clone()));
        assert_eq!(ask.decide(none.clone()), FriendDecision::Asks(names.clone()));
        for request in [open, ask] {
            assert_eq!(request.decide(crowded.clone()), FriendDecision::Unchanged(Befriended::NoRoom));
        }
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
