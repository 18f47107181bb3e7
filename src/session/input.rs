//! [`Input`]: an event for a session.

use std::time::Instant;

use super::Outcome;
use crate::base::ending::{DeliveryResult, Undelivered};
use crate::base::ids::FrameId;
use crate::protocol::UserId;

/// An event.
#[derive(Debug)]
pub enum Input<'f> {
    /// A frame was received.
    Frame(&'f [u8]),
    /// Input was received that is not a frame.
    Garbage,
    /// A frame or other input was received that exceeds the client's limits; the connection closes
    /// when the `last` one is taken.
    Excess { last: bool },
    /// The client's frame is too long; the connection closes when this is taken.
    Oversize,
    /// The client will send no more; the connection closes when this is taken.
    End,
    /// The server shuts down; the connection closes when this is taken and its output is written.
    Stop,
    /// There is no memory for the client's unfinished frame; the connection closes when this is
    /// taken.
    Crowded,
    /// A job has ended.
    Outcome(Outcome),
    /// A frame for a large group is on its way to all members.
    Spread,
    /// A login at level 2 has ended: as this user, or refused.
    OptedIn(Option<UserId>),
    /// The fate of forwarded frames.
    Settled(Settled),
    /// The reply with stored messages has arrived at the peer's kernel.
    Sent,
    /// The time of an [`Effect::Remind`](super::Effect::Remind) is over.
    Reminder { now: Instant },
    /// Another connection waits to fetch the messages of the same user; this number of bytes have
    /// not arrived at this client.
    MailboxWanted { now: Instant, undelivered_bytes: usize },
    /// Another connection has logged this user out, see [`Effect::LogOut`](super::Effect::LogOut).
    LoggedOut(UserId),
    /// The connection is dead. Input received before is still shown.
    HangUp,
    /// The connection is closed.
    Closed,
}

/// Forwarded frames whose fate is known.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settled {
    /// The number of frames.
    pub frames: u32,
    /// Their total length.
    pub bytes: usize,
    /// The frames that could neither be delivered nor stored for some recipient.
    pub failures: Vec<FailedFrame>,
}

/// A frame that could neither be delivered nor stored for some recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailedFrame {
    pub id: FrameId,
    pub reason: Undelivered,
}

impl Settled {
    /// The settlement of one frame of this length.
    pub fn one(id: FrameId, bytes: usize, ending: DeliveryResult) -> Settled {
        Settled { frames: 1, bytes, failures: Vec::from_iter(ending.err().map(|reason| FailedFrame { id, reason })) }
    }

    /// Adds other frames, which were settled later.
    pub fn append(&mut self, other: Settled) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        match self.failures.is_empty() {
            true => self.failures = other.failures,
            false => self.failures.extend(other.failures),
        }
    }
}
