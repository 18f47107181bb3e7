//! The results of the two halves of a framing: [`FoundItem`], [`Notice`] and [`Wrapping`].

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
    /// The connection begins with HTTP, whose bytes are at the front.
    BeginsHttp,
    /// A part of an HTTP request.
    Http(HttpItem),
    /// The framing has ended the connection. The bytes after that are not processed.
    Ended(FramingEnd),
    /// Bytes without a meaning for the application; look again after them.
    Skip {
        /// The number of bytes to skip.
        len: usize,
    },
    /// No complete item before more bytes arrive.
    Incomplete,
}

/// A part of an HTTP request, for the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpPart<'a> {
    /// The head of a request with the empty line after it. It was not parsed.
    Head(&'a [u8]),
    /// The body that the application has asked for.
    Body(&'a [u8]),
    /// The head is longer than [`HEAD_BYTES_MAX`](crate::HEAD_BYTES_MAX).
    TooLong,
    /// The head or the body did not arrive in time, or the connection ended before it was complete.
    Late,
}

/// A part of an HTTP request, as it is found at the front of the received bytes.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpItem {
    /// A head of this length.
    Head(usize),
    /// A body of this length.
    Body(usize),
    /// A head that is too long.
    TooLong,
    /// The head or the body has not arrived in time.
    Late,
}

/// Why a framing has ended its connection.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramingEnd {
    /// The client has sent a close.
    Peer,
    /// The client has broken the rules of the framing.
    Violation,
    /// The client has begun a message that is too long.
    TooLong,
}

/// The position of a frame: lengths, counted from the front.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The bytes before the payload that belong to the frame.
    pub head: usize,
    /// The payload, which the application calls the frame.
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
    /// Send these bytes as they are: they answer an item that the application is not shown.
    Answer(Vec<u8>),
    /// The connection ends, and this close code is sent to the client.
    EndsWith(u16),
}

/// The number of bytes around the payload of a sent frame.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wrapping {
    /// The number of bytes before the payload.
    pub head: u8,
    /// The number of bytes after the payload.
    pub tail: u8,
}

impl Piece {
    /// The length of the frame, payload included.
    pub(crate) fn total(self) -> usize {
        self.head + self.len + self.tail
    }

    /// The position of the payload.
    pub(crate) fn payload(self) -> std::ops::Range<usize> {
        self.head..self.head + self.len
    }
}

impl HttpItem {
    /// The number of bytes of the item.
    pub(crate) fn len(self) -> usize {
        match self {
            HttpItem::Head(len) | HttpItem::Body(len) => len,
            HttpItem::TooLong | HttpItem::Late => 0,
        }
    }

    /// The part for the application; its bytes are at the front.
    pub(crate) fn part(self, bytes: &[u8]) -> HttpPart<'_> {
        match self {
            HttpItem::Head(len) => HttpPart::Head(&bytes[..len]),
            HttpItem::Body(len) => HttpPart::Body(&bytes[..len]),
            HttpItem::TooLong => HttpPart::TooLong,
            HttpItem::Late => HttpPart::Late,
        }
    }
}
