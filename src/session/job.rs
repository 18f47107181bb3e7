//! [`Job`]: blocking work, and [`Outcome`]: what became of it.

use std::borrow::Cow;
use std::sync::Arc;

#[cfg(doc)]
use super::Effect;
use super::password::Client;
use crate::protocol::{GroupId, Id, UserId};
use crate::store::{FriendNames, MessageId, UserState};

/// Blocking work that a session wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Is this the password of the user with this id? If that is nobody, it must take as long to find out.
    CheckPassword { id: Id, password: String },
    /// Make an account.
    Register { name: String, password: String },
    /// Make two users friends.
    AddFriends { a: UserId, b: UserId },
    /// Take one from a user's list.
    RemoveFriend { user: UserId, friend: UserId },
    /// List friends and groups.
    Contacts { user: UserId },
    /// The members of a group, if this user is one of them or no user is named.
    Members { group: GroupId, sender: Option<UserId> },
    /// Become a member.
    JoinGroup { user: UserId, group: GroupId, asked: Id },
    /// List a user's groups.
    GroupsOf { user: UserId },
    /// Make a group.
    CreateGroup { owner: UserId, name: String, description: String },
    /// Find groups.
    GroupsNamed { name: String },
    /// Find users and groups.
    Search { keyword: String },
    /// Get kept messages, as many as one reply holds. The user's mailbox is claimed until it is released.
    Fetch { user: UserId },
    /// The same, as many as a frame for a client holds that is paced.
    FetchFrame { user: UserId },
    /// Delete kept messages.
    Delete { user: UserId, ids: Vec<MessageId> },
}

/// What became of a [`Job`].
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Job::CheckPassword`]: whose account it is if the password is right.
    Password(Option<Client>),
    /// Of [`Effect::Join`]: messages come, or it is known that they cannot for now.
    Placed,
    /// Of [`Effect::Show`] and [`Effect::DetachAndShow`]: this is written, or overtaken, or cannot be written now. It may
    /// come when nobody waits for it any more.
    Shown(UserId, UserState),
    /// Of [`Job::AddFriends`]; `None` if one of them does not exist.
    Friends(Option<FriendNames>),
    /// Of [`Job::Members`], ascending; none for an unknown group.
    Members(Arc<[UserId]>),
    /// Of [`Job::Fetch`].
    Messages { reply: String, ids: Vec<MessageId> },
    /// Of [`Job::Delete`].
    Deleted,
    /// Of every other job: the answer. Of [`Job::Register`] also that what was asked for cannot be.
    Reply(Cow<'static, str>),
    /// Of any job: it could not be done, for no fault of the client, and this is the answer.
    Refused(Cow<'static, str>),
}
