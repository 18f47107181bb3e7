//! [`Input`]: what happens to a session.

use std::time::Instant;

#[cfg(doc)]
use super::Effect;
use super::Outcome;
use crate::protocol::UserId;

/// What happens to a session.
#[derive(Debug)]
pub enum Input<'f> {
    /// A frame was received.
    Frame(&'f [u8]),
    /// Something was received that is no frame.
    Garbage,
    /// A frame was received, or something that is none, which is beyond what the client may send; with the `last` one the
    /// connection closes when this is taken.
    Excess { last: bool },
    /// The client sends too long a frame; the connection closes when this is taken.
    Oversize,
    /// The client will send nothing more; the connection closes when this is taken.
    End,
    /// The server stops; the connection closes when this is taken and what was sent to it is written.
    Stop,
    /// There is no memory for what the client has begun to send; the connection closes when this is taken.
    Crowded,
    /// A job is done.
    Outcome(Outcome),
    /// A frame for a large group is on its way to all members.
    Spread,
    /// What became of forwarded frames.
    Settled(Settled),
    /// The reply with kept messages has arrived at the peer's kernel.
    Sent,
    /// The time of an [`Effect::Remind`] has come.
    Reminder { now: Instant },
    /// Another connection waits to fetch the messages of the same user; so many bytes have not arrived at this client.
    MailboxWanted { now: Instant, undelivered_bytes: usize },
    /// Another connection has logged this user out, see [`Effect::LogOut`].
    LoggedOut(UserId),
    /// The connection is dead. What was received before is still shown.
    HangUp,
    /// The connection is gone.
    Closed,
}

/// Forwarded frames of which it is known, or not yet, what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Settled {
    /// How many frames.
    pub frames: u32,
    /// Their length in all.
    pub bytes: usize,
    /// How many of them could neither be delivered nor kept for some recipient.
    pub failed: u32,
    /// How many of these because a recipient's mailbox is full.
    pub full: u32,
}
