//! [`PumpEvent`]: what a pump hears, and [`Command`]: what it wants done.

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
    /// Beyond this number of bytes that the client has not taken, nothing is pushed or read: a
    /// quarter of `output_max`.
    pub output_high: usize,
    /// The most sends without a 41.
    pub inflight: usize,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum PumpEvent {
    /// The heads for the login or for a 46 were read, after the connection was attached. Those of
    /// one connection are read one after the other, and come in that order.
    Heads(Heads),
    /// They could not be read.
    HeadsFailed {
        /// Of the 46; `None` for the login.
        rid: Option<Rid>,
        /// What the client is told.
        refusal: Refusal,
    },
    /// A 43 for [`Command::Overview`]; `more`: others follow.
    Overview {
        /// The frame.
        frame: Arc<str>,
        /// Whether it says so.
        more: bool,
    },
    /// A message was committed.
    Push {
        /// The conversation.
        conv: ConversationId,
        /// The message.
        row: Row,
        /// The tag of the message before it, if the teller knows it.
        before: Option<Tag>,
    },
    /// A conversation has messages up to this number.
    Hint {
        /// The conversation.
        conv: ConversationId,
        /// The number.
        head: Seq,
    },
    /// This is the last message of a conversation, says the sweep. There may be later ones by now.
    Last {
        /// The conversation.
        conv: ConversationId,
        /// The message.
        at: Committed,
    },
    /// The page for [`Command::Read`].
    Page(RowPage),
    /// It may not be read any more: 403, or 404 if there is nothing any more.
    PageDenied(Refusal),
    /// It could not be read. [`PumpEvent::Retry`] follows after a pause.
    PageFailed,
    /// The pause after a failure is over.
    Retry,
    /// This number of bytes of the connection's output have not been acknowledged by the client's
    /// kernel.
    Output(usize),
    /// A send was answered; those of a conversation in the order sent.
    Answered {
        /// The conversation.
        conv: ConversationId,
        /// The send.
        id: SendId,
        /// The answer.
        answer: SendAnswer,
    },
    /// The user is a member of a group now, and sees its messages from this number on.
    Joined {
        /// The group's.
        conv: ConversationId,
        /// The first number.
        from: Seq,
    },
    /// The user is not a member any more.
    Left {
        /// The group's.
        conv: ConversationId,
        /// The first number that the user may see, and the last one: that of the 57 that says so.
        /// `None` if they are not known.
        seen: Option<(Seq, Seq)>,
    },
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Write a frame.
    Write(Arc<str>),
    /// Compose the next 43 from the heads that were read; [`PumpEvent::Overview`] follows.
    Overview,
    /// Read a page, beginning with `from`, and not beyond `to` if that is given. The read must
    /// begin after this, or from what is known to reach at least `from - 1`. [`PumpEvent::Page`],
    /// [`PumpEvent::PageDenied`] or [`PumpEvent::PageFailed`] follows.
    Read {
        /// Of this conversation.
        conv: ConversationId,
        /// The first number.
        from: Seq,
        /// The last one.
        to: Option<Seq>,
        /// Nothing of it was written: what precedes the user's first message is passed over.
        is_new: bool,
        /// A message that was written: the page says which tag this number has in the store.
        written: Option<Seq>,
    },
    /// What the client holds of this conversation is of a history that is lost, its marks included. A 44
    /// that says so follows.
    Lost(ConversationId),
    /// Report [`PumpEvent::Retry`] after a pause.
    Pause,
    /// Do not read requests of this client.
    StopRequests,
    /// Read them again.
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
    /// The 42, with the name that this user has for the conversation.
    pub frame: Arc<str>,
}

/// Messages as they were read: ascending, without a hole, from the number that was asked for or
/// from the floor on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowPage {
    /// What the user may see and what there is.
    pub extent: Extent,
    /// At most [`PAGE_MAX`](crate::protocol::level2::PAGE_MAX) messages with
    /// [`PAGE_BYTES_MAX`](crate::protocol::level2::PAGE_BYTES_MAX) of text, but at least one if
    /// there is any.
    pub rows: Vec<Row>,
    /// The tag of the message [`Command::Read::written`], read after the rows; `None` if it is not there,
    /// or was not asked for.
    pub written: Option<Tag>,
}

/// The heads of conversations, all as of one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Heads {
    /// Of a 46.
    pub rid: Option<Rid>,
    /// For the login: all conversations of the user. For a 46: those that it names. With the last message.
    pub convs: Vec<(ConversationId, Extent, Option<Committed>)>,
    /// The cursors of the client, most recently active conversations first.
    pub cursors: Vec<FoundCursor>,
    /// How many messages of a conversation are sent at most (`resume`).
    pub resume: Seq,
}

/// What was found for a cursor of the client.
#[derive(Clone, PartialEq, Debug)]
pub enum FoundCursor {
    /// It is in a conversation of the user.
    Own(ConversationId, HeldCursor),
    /// It is not: what the client called the conversation, and 403, 404 or 400.
    Refused(Box<str>, Refusal),
}
