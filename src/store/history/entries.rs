//! What goes into conversations, and what comes out of them.

use std::sync::Arc;

use super::names::{Cid, FrameHash};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;

/// A message on its way into a conversation.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// The conversation.
    pub conv: ConversationId,
    /// The sender.
    pub sender: UserId,
    /// The sender's id of it.
    pub cid: Cid,
    /// Of the frame as the sender sent it.
    pub hash: FrameHash,
    /// What it is.
    pub kind: EntryKind,
    /// It waited in `OfflineMessage`. It moves no mark of its sender.
    pub is_imported: bool,
    /// Whether the sender may send it is still to be found out.
    pub is_unchecked: bool,
    /// The users who join or leave a group with it, in the same transaction.
    pub change: Option<MemberChange>,
    /// The frame: UTF-8 JSON text.
    pub text: Arc<str>,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A message of type 4 or 9, which counts as unread.
    Message,
    /// A new body of the message with this number.
    Edit(i64),
    /// Empties the message with this number.
    Recall(i64),
    /// Anything else, such as a friend request or an event of a group.
    Other,
}

/// A change of a group's members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// The user becomes a normal member.
    Joins {
        /// Who.
        user: UserId,
        /// Whether the new member sees what was sent before.
        sees_all: bool,
    },
    /// The user is a member no more.
    Leaves(UserId),
}

/// Where a message stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryPlace {
    /// Its number.
    pub seq: i64,
    /// Its tag.
    pub tag: Tag,
    /// When it was committed, ms by the database's clock; ascends with the number.
    pub time: i64,
}

/// The outcome for one [`NewEntry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// It is stored now, behind a message with this tag; `None` if it is the first one.
    New(EntryPlace, Option<Tag>),
    /// It was stored before.
    Again(EntryPlace),
    /// It is not stored, and the same again would not be either.
    Refused(EntryRefusal),
}

/// Why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryRefusal {
    /// The same sender used the same id for something else (409).
    Conflict,
    /// The recipient does not exist (404).
    NoSuchUser,
    /// The group does not exist (404).
    NoSuchGroup,
    /// The sender is not a member of the group (403).
    NotMember,
    /// The recipient has blocked the sender (403).
    Blocked,
    /// An edit or a recall of a number that is not there (404).
    NoSuchTarget,
    /// An edit or a recall of what is not an own message, or is recalled (403).
    NotYours,
    /// An edit or a recall after the end of the window (403).
    TooLate,
    /// The database refuses this one by itself, for example because it is too long (500).
    Unstorable,
}

/// A message as members see it, with edits and recalls applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub seq: i64,
    /// Its sender.
    pub from: UserId,
    /// When it was committed, ms.
    pub time: i64,
    /// Its tag.
    pub tag: Tag,
    /// The frame: its own, or that of its newest edit. `None` if it is recalled.
    pub text: Option<String>,
    /// The number of the newest edit.
    pub edited: Option<i64>,
    /// The number of the recall.
    pub recalled: Option<i64>,
    /// It waited in `OfflineMessage`; `from` is what it claims.
    pub is_imported: bool,
}

/// Why a conversation cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// It is not the asker's (403).
    NotYours,
    /// There is no such user or group (404).
    Unknown,
}

/// A read mark after a request to raise it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marked {
    /// Where it stands.
    pub read: i64,
    /// The furthest device's.
    pub recv: i64,
    /// Whether it rose.
    pub has_risen: bool,
    /// The last number.
    pub head: i64,
    /// How many messages are unread.
    pub unread: i64,
}

/// A mark that somebody has raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RaisedMark {
    /// In which conversation.
    pub conv: ConversationId,
    /// Its user.
    pub user: UserId,
    /// Read up to here.
    pub read: i64,
    /// Received up to here.
    pub recv: i64,
}

/// A conversation that got messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touched {
    /// Which.
    pub conv: ConversationId,
    /// Its last number.
    pub head: i64,
    /// The tag of that message.
    pub tag: Tag,
    /// When its last message was committed, ms.
    pub at: i64,
}
