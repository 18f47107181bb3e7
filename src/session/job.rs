//! [`Job`]: blocking work, and [`Outcome`]: its result.

use std::borrow::Cow;
use std::sync::Arc;

use super::password::RightPassword;
use crate::protocol::level2::Account;
use crate::protocol::{GroupId, Id, UserId};
use crate::store::{FriendNames, MessageId, UserState};

/// Blocking work for a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Check whether this is the password of the user with this id. The check must take as long for
    /// an unknown id.
    CheckPassword { id: Id, password: String },
    /// Create an account.
    Register { name: String, password: String },
    /// Make two users friends.
    AddFriends { a: UserId, b: UserId },
    /// Remove a friend from a user's list.
    RemoveFriend { user: UserId, friend: UserId },
    /// List friends and groups.
    Contacts { user: UserId },
    /// Read the members of a group, if this user is one of them or no user is given.
    Members { group: GroupId, sender: Option<UserId> },
    /// Add this user to a group.
    JoinGroup { user: UserId, group: GroupId, asked: Id },
    /// List a user's groups.
    GroupsOf { user: UserId },
    /// Create a group.
    CreateGroup { owner: UserId, name: String, description: String },
    /// Find groups.
    GroupsNamed { name: String },
    /// Find users and groups, users also by their name if `by_name`.
    Search { keyword: String, by_name: bool },
    /// Process one of 60 to 69.
    Account { user: UserId, request: Box<Account<'static>> },
    /// Read stored messages, as many as one reply can hold. The user's mailbox is claimed until it
    /// is released.
    Fetch { user: UserId },
    /// Read as many stored messages as fit into a frame for a paced client.
    FetchFrame { user: UserId },
    /// Delete stored messages.
    Delete { user: UserId, ids: Vec<MessageId> },
}

/// The result of a [`Job`].
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Job::CheckPassword`]: whether the password is right.
    Password(Option<RightPassword>),
    /// Of [`Effect::Join`](super::Effect::Join): messages arrive, or it is known that they cannot
    /// for now.
    Placed,
    /// Of [`Effect::Show`](super::Effect::Show) and
    /// [`Effect::DetachAndShow`](super::Effect::DetachAndShow): the state is written, or overtaken,
    /// or cannot be written now. It may come when the session no longer waits for it.
    Shown(UserId, UserState),
    /// Of [`Job::AddFriends`].
    Friends(MadeFriends),
    /// Of [`Job::Members`], ascending; none for an unknown group.
    Members(Arc<[UserId]>),
    /// Of [`Job::Fetch`].
    Messages { reply: String, ids: Vec<MessageId> },
    /// Of [`Job::Delete`].
    Deleted,
    /// Of every other job: the answer. Of [`Job::Register`] also the refusal to create the account.
    Reply(Cow<'static, str>),
    /// Of any job: it could not be done, not by the client's fault; this is the answer.
    Refused(Cow<'static, str>),
}

/// The outcome of a request to make two users friends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MadeFriends {
    /// They are friends.
    Friends(FriendNames, ToldBy),
    /// The other user has to agree.
    Asked(FriendNames, ToldBy),
    /// The other user has blocked the requester.
    Blocked,
    /// One of them has too many conversations for another one.
    NoRoom,
    /// One of them does not exist.
    NoSuchUser,
}

/// The way in which the other user of a friendship is notified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToldBy {
    /// By a push of level 1, which waits if the user is offline.
    Push,
    /// By the conversation of both; a connection of level 1 gets the push as well, if there is one.
    Conversation,
    /// Not notified again.
    Nothing,
}
