//! What the two halves of a framing say: [`FoundItem`], [`Notice`] and [`Wrapping`].

use super::foreign::Foreign;

/// The item at the front of the received bytes.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundItem {
    /// A whole frame.
    Frame(Piece),
    /// Bytes that are not a frame.
    Garbage {
        /// The number of bytes to skip; 0 if they have been skipped already.
        len: usize,
    },
    /// A frame that is too long; the bytes after it cannot be parsed.
    Oversize,
    /// The connection begins with another protocol. The bytes after that are not processed.
    Foreign(Foreign),
    /// Bytes without a meaning for the application; look again behind them.
    Skip {
        /// The number of bytes to skip.
        len: usize,
    },
    /// Nothing complete before more arrives.
    Incomplete,
}

/// The position of a frame: lengths, counted from the front.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The bytes before the payload that belong to the frame.
    pub head: usize,
    /// The payload: what the application calls the frame.
    pub len: usize,
    /// The bytes after the payload that belong to the frame.
    pub tail: usize,
}

/// A reader's message to its writer.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The client reads lines.
    Lines,
    /// These bytes are sent as they are: the answer to something that the application is not shown.
    #[cfg(feature = "simulation")]
    Answer(Vec<u8>),
}

/// The number of bytes around the payload of a sent frame.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wrapping {
    /// Before it.
    pub head: u8,
    /// After it.
    pub tail: u8,
}

impl Piece {
    /// All bytes of the frame.
    pub(crate) fn total(self) -> usize {
        self.head + self.len + self.tail
    }

    /// The payload.
    pub(crate) fn payload(self) -> std::ops::Range<usize> {
        self.head..self.head + self.len
    }
}
