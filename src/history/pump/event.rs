//! [`PumpEvent`]: an event for a pump, and [`Command`]: a command of a pump.

use std::sync::Arc;

use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::history::cursor::{Extent, HeldCursor};
use crate::history::sends::{SendAnswer, SendId};
use crate::protocol::UserId;
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{Committed, Refusal};
use crate::protocol::level2::replies::Reason;

/// The limits of a pump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PumpLimits {
    /// The number of unacknowledged bytes above which nothing is pushed or read: a quarter of
    /// `output_max`.
    pub output_high: usize,
    /// The most sends without a 41.
    pub inflight: usize,
}

/// An event for the pump.
#[derive(Clone, PartialEq, Debug)]
pub enum PumpEvent {
    /// The heads for the login or for a 46. They were read after the connection was attached. Those
    /// of one connection are read one after the other, and come in that order.
    Heads(Heads),
    /// The heads could not be read.
    HeadsFailed {
        /// The id of the 46; `None` for the login.
        rid: Option<Rid>,
        /// The refusal for the client.
        refusal: Refusal,
    },
    /// The 43 for [`Command::Overview`].
    Overview {
        /// The frame.
        frame: Arc<str>,
        /// Whether the frame says that more 43s follow.
        more: bool,
    },
    /// A message was committed.
    Push {
        /// The conversation.
        conv: ConversationId,
        /// The message.
        row: Row,
        /// The tag of the message before it, if the sender of the event knows it.
        before: Option<Tag>,
    },
    /// A conversation has messages up to this number.
    Hint {
        /// The conversation.
        conv: ConversationId,
        /// The number.
        head: Seq,
    },
    /// The last message of a conversation, as the sweep has read it. There may be later ones by
    /// now.
    Last {
        /// The conversation.
        conv: ConversationId,
        /// The message.
        at: Committed,
    },
    /// A reply has told the client that a conversation ends before `shown`, which was written
    /// before the store was asked.
    Doubt {
        /// The conversation.
        conv: ConversationId,
        /// The number.
        shown: Seq,
    },
    /// The page for [`Command::Read`].
    Page(RowPage),
    /// The conversation may no longer be read: 403, or 404 if it does not exist any more.
    PageDenied(Refusal),
    /// The page could not be read. [`PumpEvent::Retry`] follows after a pause.
    PageFailed,
    /// The pause after a failure is over.
    Retry,
    /// The number of bytes of the connection's output that the client's kernel has not
    /// acknowledged.
    Output(usize),
    /// A send was answered. Answers in one conversation come in the order of the sends.
    Answered {
        /// The conversation.
        conv: ConversationId,
        /// The send.
        id: SendId,
        /// The answer.
        answer: SendAnswer,
    },
    /// The user is now a member of a group, and sees its messages from this number on.
    Joined {
        /// The group's conversation.
        conv: ConversationId,
        /// The first number.
        from: Seq,
    },
    /// The user is no longer a member.
    Left {
        /// The group's conversation.
        conv: ConversationId,
        /// The first number that the user may see, and the last one: the number of the 57 that ends
        /// the membership. `None` if they are not known.
        seen: Option<(Seq, Seq)>,
    },
}

/// The work to do, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Write a frame.
    Write(Arc<str>),
    /// Compose the next 43 from the heads; [`PumpEvent::Overview`] follows.
    Overview,
    /// Read a page that begins with `from` and does not go beyond `to`, if given. The read must
    /// begin after this command, or from data known to reach at least `from - 1`.
    /// [`PumpEvent::Page`], [`PumpEvent::PageDenied`] or [`PumpEvent::PageFailed`] follows.
    Read {
        /// The conversation.
        conv: ConversationId,
        /// The first number.
        from: Seq,
        /// The last one.
        to: Option<Seq>,
        /// Whether nothing of it was written. Then messages before the user's first one are
        /// skipped.
        is_new: bool,
        /// The number of a message that was written: the page returns its tag in the store.
        written: Option<Seq>,
    },
    /// The client's messages and marks of this conversation belong to a lost history. A 44 follows
    /// that tells the client.
    Lost(ConversationId),
    /// Report [`PumpEvent::Retry`] after a pause.
    Pause,
    /// Do not read requests of this client.
    StopRequests,
    /// Read requests again.
    TakeRequests,
    /// Close the connection.
    Close(Reason),
}

/// Commands, to be carried out in order.
pub type Commands = Vec<Command>;

/// A message to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its place.
    pub at: Committed,
    /// Its sender.
    pub from: UserId,
    /// The 42, with this user's name for the conversation.
    pub frame: Arc<str>,
}

/// Messages as they were read: ascending, without a hole, from the requested number or from the
/// floor on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowPage {
    /// The messages that the user may see, and those that exist.
    pub extent: Extent,
    /// At most [`PAGE_MAX`](crate::protocol::level2::PAGE_MAX) messages with
    /// [`PAGE_BYTES_MAX`](crate::protocol::level2::PAGE_BYTES_MAX) of text, but at least one if
    /// there is any.
    pub rows: Vec<Row>,
    /// The tag of the message [`Command::Read::written`], read with the rows or after them; `None`
    /// if the message is missing, or was not requested.
    pub written: Option<Tag>,
}

/// The heads of conversations, all as of one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Heads {
    /// The id of the 46.
    pub rid: Option<Rid>,
    /// The conversations with their last messages: all of the user for the login, the named ones
    /// for a 46.
    pub convs: Vec<(ConversationId, Extent, Option<Committed>)>,
    /// The client's cursors, the most recently active conversations first.
    pub cursors: Vec<FoundCursor>,
    /// The most messages sent of one conversation (`resume`).
    pub resume: Seq,
}

/// The conversation that was found for a client's cursor.
#[derive(Clone, PartialEq, Debug)]
pub enum FoundCursor {
    /// A conversation of the user.
    Own(ConversationId, HeldCursor),
    /// Another one: the client's name for it, and 403, 404 or 400.
    Refused(Box<str>, Refusal),
}
