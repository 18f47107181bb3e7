//! The entries of conversations, as they are written and as they are read.

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
    /// The sender's id of the message.
    pub cid: Cid,
    /// The hash of the frame as the sender sent it.
    pub hash: FrameHash,
    /// Its kind.
    pub kind: EntryKind,
    /// Whether it has waited in `OfflineMessage`. Then it moves no mark of its sender.
    pub is_imported: bool,
    /// The checks of the sender that are still to be made.
    pub check: SenderCheck,
    /// Whether it joins the queue of the hook in the same transaction.
    pub is_hooked: bool,
    /// The change of a group's members in the same transaction.
    pub change: Option<MemberChange>,
    /// The frame: UTF-8 JSON text.
    pub text: Arc<str>,
}

/// The checks of a sender that the transaction makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SenderCheck {
    /// No check: the server sends it, or it was accepted before.
    None,
    /// Whether the sender may send to this recipient. The message may open any conversation.
    Rights,
    /// The same, and whether both have room for another conversation, see
    /// [`CommitRules::conversations_max`].
    Whole,
}

/// The limits that a commit checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitRules {
    /// The age in ms up to which a message may be edited or recalled.
    pub edit_window: i64,
    /// The most conversations of two that a user has. Nobody opens more. Users who are not friends
    /// of the recipient open only half as many with the recipient, so that strangers cannot use up
    /// the other half. Several transactions at once may exceed this by a few.
    pub conversations_max: usize,
}

impl CommitRules {
    /// For entries of the server, which are neither edits nor checked.
    pub const OF_SERVER: CommitRules = CommitRules { edit_window: 0, conversations_max: usize::MAX };
}

/// The kind of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A message of type 4 or 9, which counts as unread.
    Message,
    /// A new body for the message with this number.
    Edit(i64),
    /// The recall of the message with this number.
    Recall(i64),
    /// Anything else, such as a friend request or an event of a group.
    Other,
}

/// A change of a group's members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// The user becomes a normal member.
    Joins {
        /// The user.
        user: UserId,
        /// Whether the new member sees earlier messages.
        sees_all: bool,
    },
    /// The user leaves.
    Leaves(UserId),
}

/// The place of a message in its conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryPlace {
    /// Its number.
    pub seq: i64,
    /// Its tag.
    pub tag: Tag,
    /// The time of its commit, ms by the database's clock. It ascends with the number.
    pub time: i64,
}

/// The outcome for one [`NewEntry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// It is stored now, after a message with this tag; `None` if it is the first one.
    New(EntryPlace, Option<Tag>),
    /// It was stored before.
    Again(EntryPlace),
    /// It is not stored, and a retry would not be either.
    Refused(EntryRefusal),
}

/// The reason why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryRefusal {
    /// The sender has used the same id for another message (409).
    Conflict,
    /// The recipient does not exist (404).
    NoSuchUser,
    /// The group does not exist (404).
    NoSuchGroup,
    /// The sender is not a member of the group (403).
    NotMember,
    /// The recipient has blocked the sender (403).
    Blocked,
    /// The sender or the recipient has too many conversations for another one (403).
    NoRoom,
    /// The target of an edit or a recall does not exist (404).
    NoSuchTarget,
    /// The target of an edit or a recall is not the sender's own message, or is recalled (403).
    NotYours,
    /// An edit or a recall comes after the end of the window (403).
    TooLate,
    /// The database refuses this message alone, for example because it is too long (500).
    Unstorable,
}

/// A message as members see it, with edits and recalls applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// Its number.
    pub seq: i64,
    /// Its sender.
    pub from: UserId,
    /// The time of its commit, ms.
    pub time: i64,
    /// Its tag.
    pub tag: Tag,
    /// The frame: its own, or that of its newest edit. `None` if it is recalled.
    pub text: Option<String>,
    /// The number of the newest edit.
    pub edited: Option<i64>,
    /// The number of the recall.
    pub recalled: Option<i64>,
    /// Whether it has waited in `OfflineMessage`; then `from` is the sender that its frame claims.
    pub is_imported: bool,
}

/// The reason why a conversation cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The user is not in it (403).
    NotYours,
    /// There is no such user or group (404).
    Unknown,
}

/// The state of a read mark after a request to raise it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marked {
    /// The last number that was read.
    pub read: i64,
    /// The highest number that a device has stored.
    pub recv: i64,
    /// Whether the mark rose.
    pub has_risen: bool,
    /// The last number.
    pub head: i64,
    /// The number of unread messages.
    pub unread: i64,
}

/// A mark that a user has raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RaisedMark {
    /// Its conversation.
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
    /// The conversation.
    pub conv: ConversationId,
    /// Its last number.
    pub head: i64,
    /// The tag of that message.
    pub tag: Tag,
    /// The time of its last message's commit, ms.
    pub at: i64,
}
