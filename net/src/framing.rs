//! Framing: how the frames of one connection are told apart, in both directions.
//!
//! A framing has two halves, because two sides use them: the loop alone reads with the [`FrameReader`], any thread writes
//! with the [`FrameWriter`], which is under the lock of the link. Where the halves have to agree, the reader says so by a
//! [`Notice`].
//!
//! ```text
//!   received   │ head │ payload │ tail │ skip │ garbage │ the beginning of a frame
//!   sent       │ head │ payload │ tail │                      one mark a frame; it knows how long head and tail are
//! ```
//!
//! The reader finds a frame where it lies and may write into the received bytes; a mask is taken off there. The writer puts
//! head and tail around a frame in the buffer of the output. A frame that is given back to its sender is a payload again.
//! So nothing outside of this folder knows how frames look.
//!
//! The halves are enums and no trait objects: a connection has its framing from its beginning to its end, most are idle, and
//! there will be three kinds. An object would be an allocation for each idle connection, and a call that cannot be inlined
//! for each frame. In an enum of one kind the choice costs nothing, and with more of them one comparison for each look.

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

/// What stands at the front of the received bytes.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A whole frame.
    Frame(Piece),
    /// So many bytes that are no frame.
    Garbage {
        /// How many bytes to pass over; 0 when they have been passed over already.
        len: usize,
    },
    /// A frame that is too long; what follows cannot be understood.
    Oversize,
    /// The connection begins with another protocol. Nothing that follows is looked at.
    Foreign(Foreign),
    /// So many bytes that mean nothing to the application; look again behind them.
    Skip {
        /// How many bytes to pass over.
        len: usize,
    },
    /// Nothing that can be taken before more arrives.
    Incomplete,
}

/// Where a frame lies: so many bytes each, from the front.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What stands before the payload and belongs to the frame.
    pub head: usize,
    /// The payload: what the application calls the frame.
    pub len: usize,
    /// What stands behind the payload and belongs to the frame.
    pub tail: usize,
}

/// What a reader has its writer do.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The client reads lines.
    Lines,
    /// These bytes are sent as they are: the answer to something that the application is not shown.
    #[cfg(feature = "simulation")]
    Answer(Vec<u8>),
}

/// The half that finds frames in what was received. It keeps none of the bytes.
#[derive(Debug)]
pub(crate) enum FrameReader {
    /// JSON objects back to back.
    Json(JsonReader),
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomReader>),
}

/// The half that makes frames of what is sent.
#[derive(Debug)]
pub(crate) enum FrameWriter {
    /// JSON objects back to back, or each on a line of its own.
    Json(JsonWriter),
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomWriter>),
}

/// How many bytes stand around the payload of a frame that was sent.
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wrapping {
    /// Before it.
    pub head: u8,
    /// Behind it.
    pub tail: u8,
}

impl FrameReader {
    /// Of a connection at its beginning, which may speak something else. Frames are at most `frame_bytes_max` long.
    pub(crate) fn json(frame_bytes_max: usize) -> FrameReader {
        FrameReader::Json(JsonReader::new(frame_bytes_max))
    }

    /// What stands at the front of `bytes`, all that was received and not consumed. `ended` says that no more is there to be
    /// read at this moment. A frame, garbage and what else is shown to the application stays the same until
    /// [`FrameReader::taken`] is called. The bytes of a frame, its payload unmasked, may be written by this.
    pub(crate) fn find(&mut self, bytes: &mut [u8], ended: bool) -> Found {
        match self {
            FrameReader::Json(reader) => reader.find(bytes, ended),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.find(bytes, ended),
        }
    }

    /// What was found was dealt with; its bytes will be gone from the front at the next look.
    pub(crate) fn taken(&mut self) {
        match self {
            FrameReader::Json(reader) => reader.taken(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.taken(),
        }
    }

    /// Takes what the writer is to be told, which comes before what was found.
    pub(crate) fn notice(&mut self) -> Option<Notice> {
        match self {
            FrameReader::Json(reader) => reader.notice(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.notice(),
        }
    }

    /// Whether something was found that the application is to be shown, and not taken.
    pub(crate) fn has_shown(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.has_shown(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.has_shown(),
        }
    }

    /// Whether a frame has begun that is not whole yet, or a connection of which more must tell what it speaks.
    pub(crate) fn is_inside(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.is_inside(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.is_inside(),
        }
    }

    /// Gives up on a frame that has begun: its bytes are dropped by the caller, and garbage is found next, or what the
    /// connection has begun with.
    pub(crate) fn give_up(&mut self) {
        match self {
            FrameReader::Json(reader) => reader.give_up(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.give_up(),
        }
    }

    /// All that was received is dropped, and nothing more will come.
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

    /// Appends the frame to `out` as it is to be sent.
    pub(crate) fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping {
        match self {
            FrameWriter::Json(writer) => writer.wrap(frame, out),
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(writer) => writer.wrap(frame, out),
        }
    }

    /// Whether the client knows a frame's end only by the end of a write, as far as we know: nothing stands between two of
    /// them. Then each has a write of its own, and a pace may hold it.
    pub(crate) fn is_bare(&self) -> bool {
        match self {
            FrameWriter::Json(writer) => writer.is_bare(),
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(_) => false,
        }
    }

    /// Hears what its reader has to say. Whether a frame without payload is to be sent now, so that what was sent before has
    /// an end.
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
