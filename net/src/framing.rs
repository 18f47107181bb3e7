//! Framing: how the frames of one connection are delimited, in both directions.
//!
//! A framing has two halves, because they are used in different places: the loop alone reads with
//! the [`FrameReader`], any thread writes with the [`FrameWriter`], which is under the lock of the
//! link. If the halves have to agree, the reader sends a [`Notice`].
//!
//! ```text
//!   received   │ head │ payload │ tail │ skip │ garbage │ the beginning of a frame
//!   sent       │ head │ payload │ tail │                      one mark a frame; it knows how long head and tail are
//! ```
//!
//! The reader finds a frame in place and may write into the received bytes, for example to remove a
//! mask. The writer puts head and tail around a frame in the buffer of the output. A frame that is
//! returned to its sender is a payload again. So only this folder knows the encoding of frames.
//!
//! The halves are enums and not trait objects: the framing of a connection never changes, most
//! connections are idle, and there will be three kinds. An object would cost an allocation for each
//! idle connection, and a call that cannot be inlined for each frame. An enum of one kind costs
//! nothing, and one with more kinds a comparison for each call.

mod codec;
#[cfg(feature = "simulation")]
mod custom;
mod foreign;
mod json;
mod json_prefix;

pub use codec::{Decoder, Item};
#[cfg(feature = "simulation")]
pub use custom::{CustomReader, CustomWriter};
pub use foreign::Foreign;
pub use json_prefix::NESTING_MAX;

use json::{JsonReader, JsonWriter};

/// The item at the front of the received bytes.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
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

/// The half that finds frames in received bytes. It stores none of the bytes.
#[derive(Debug)]
pub(crate) enum FrameReader {
    /// JSON objects back to back.
    Json(JsonReader),
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomReader>),
}

/// The half that encodes frames to be sent.
#[derive(Debug)]
pub(crate) enum FrameWriter {
    /// JSON objects back to back, or each on a line of its own.
    Json(JsonWriter),
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomWriter>),
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

impl FrameReader {
    /// For the beginning of a connection, which may speak another protocol. Frames have at most
    /// `frame_bytes_max` bytes.
    pub(crate) fn json(frame_bytes_max: usize) -> FrameReader {
        FrameReader::Json(JsonReader::new(frame_bytes_max))
    }

    /// Finds the item at the front of `bytes`, which are all received and unconsumed bytes.
    /// `ended`: no more can be read at this moment. A frame, garbage and other shown items stay the
    /// same until [`FrameReader::taken`] is called. This may write into the bytes of a frame, for
    /// example to unmask its payload.
    #[inline]
    pub(crate) fn find(&mut self, bytes: &mut [u8], ended: bool) -> Found {
        match self {
            FrameReader::Json(reader) => reader.find(bytes, ended),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.find(bytes, ended),
        }
    }

    /// The item was taken, a `frame` or garbage; its bytes will be gone from the front at the next call.
    #[inline]
    pub(crate) fn taken(&mut self, frame: Option<Piece>) {
        match self {
            FrameReader::Json(reader) => reader.taken(frame),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.taken(),
        }
    }

    /// Takes the message to the writer, which precedes the found item.
    #[inline]
    pub(crate) fn notice(&mut self) -> Option<Notice> {
        match self {
            FrameReader::Json(reader) => reader.notice(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.notice(),
        }
    }

    /// Whether an item was found that must be shown to the application, and was not taken.
    #[inline]
    pub(crate) fn has_shown(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.has_shown(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.has_shown(),
        }
    }

    /// Whether a frame is incomplete, or the protocol of the connection is not known yet.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.is_inside(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.is_inside(),
        }
    }

    /// Gives up on a frame that has begun: the caller drops its bytes, and the next item is
    /// garbage, or the protocol that the connection has begun with.
    pub(crate) fn give_up(&mut self) {
        match self {
            FrameReader::Json(reader) => reader.give_up(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.give_up(),
        }
    }

    /// All received bytes are dropped, and no more will come.
    pub(crate) fn forget(&mut self) {
        match self {
            FrameReader::Json(reader) => reader.forget(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.forget(),
        }
    }
}

impl FrameWriter {
    pub(crate) fn json() -> FrameWriter {
        FrameWriter::Json(JsonWriter::default())
    }

    /// Appends the encoded frame to `out`.
    pub(crate) fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping {
        match self {
            FrameWriter::Json(writer) => writer.wrap(frame, out),
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(writer) => writer.wrap(frame, out),
        }
    }

    /// Whether the client, as far as is known, recognizes a frame's end only by the end of a write,
    /// because nothing separates two frames. Then each frame needs a write of its own, and a pace
    /// may hold it.
    pub(crate) fn is_bare(&self) -> bool {
        match self {
            FrameWriter::Json(writer) => writer.is_bare(),
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(_) => false,
        }
    }

    /// Handles its reader's message. Returns whether an empty frame must be sent now, so that what
    /// was sent before is terminated.
    pub(crate) fn use_lines(&mut self) -> bool {
        match self {
            FrameWriter::Json(writer) => writer.use_lines(),
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(_) => false,
        }
    }
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
