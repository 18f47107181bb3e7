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
//! Every connection begins with the reader of JSON, which finds out whether the connection begins
//! with something else ([`foreign`]). HTTP has a reader of its own, and after an upgrade the
//! connection has those of a WebSocket.
//!
//! The halves are enums and not trait objects: most connections are idle, and there are three
//! kinds. An object would cost an allocation for each idle connection, and a call that cannot be
//! inlined for each frame. An enum costs a comparison for each call.

mod codec;
#[cfg(feature = "simulation")]
mod custom;
mod flat;
mod foreign;
mod found;
mod http;
mod json;
mod json_prefix;
mod websocket;

pub use codec::{Decoder, Item};
#[cfg(feature = "simulation")]
pub use custom::{CustomReader, CustomWriter};
pub use foreign::Foreign;
pub(crate) use foreign::looks_like_http;
pub use found::HttpPart;
#[cfg_attr(not(feature = "simulation"), expect(unreachable_pub))]
pub use found::{FoundItem, FramingEnd, HttpItem, Notice, Piece, Wrapping};
pub use http::HEAD_BYTES_MAX;
pub use json_prefix::NESTING_MAX;

use http::HttpReader;
use json::{JsonReader, JsonWriter};
use websocket::{WebSocketReader, WebSocketWriter};

/// The half that finds frames in received bytes. It stores none of the bytes.
#[derive(Debug)]
pub(crate) enum FrameReader {
    /// JSON objects back to back.
    Json(JsonReader),
    /// Messages of a WebSocket.
    WebSocket(WebSocketReader),
    /// Requests of HTTP/1.1.
    Http(HttpReader),
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomReader>),
}

/// The half that encodes frames to be sent.
#[derive(Debug)]
pub(crate) enum FrameWriter {
    /// JSON objects back to back, or each on a line of its own.
    Json(JsonWriter),
    /// Messages of a WebSocket.
    WebSocket(WebSocketWriter),
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomWriter>),
}

impl FrameReader {
    /// The reader at the beginning of a connection, which may speak another protocol. Frames have
    /// at most `frame_bytes_max` bytes.
    pub(crate) fn json(frame_bytes_max: usize) -> FrameReader {
        FrameReader::Json(JsonReader::new(frame_bytes_max))
    }

    /// Changes the protocol: the connection begins with HTTP.
    pub(crate) fn become_http(&mut self) {
        if let FrameReader::Json(reader) = self {
            *self = FrameReader::Http(HttpReader::new(reader.frame_bytes_max()));
        }
    }

    /// Changes the protocol: the connection has become a WebSocket.
    pub(crate) fn become_websocket(&mut self) {
        if let FrameReader::Http(reader) = self {
            *self = FrameReader::WebSocket(WebSocketReader::new(reader.message_bytes_max));
        }
    }

    /// Whether no item can be found before more bytes arrive, provided that all items received so
    /// far were taken. Returns false if the reader would have to look.
    #[inline]
    pub(crate) fn awaits_bytes(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.awaits_bytes(),
            FrameReader::WebSocket(reader) => reader.awaits_bytes(),
            FrameReader::Http(_) => false,
            #[cfg(feature = "simulation")]
            FrameReader::Custom(_) => false,
        }
    }

    /// Whether skipped bytes belong to a frame that has not ended.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, FrameReader::WebSocket(reader) if reader.goes_on())
    }

    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self, FrameReader::WebSocket(_))
    }

    /// Notes that the head of the request was taken, and that a body of this length follows.
    pub(crate) fn expect_body(&mut self, len: usize) {
        if let FrameReader::Http(reader) = self {
            reader.expect_body(len);
        }
    }

    /// Finds the item at the front of `bytes`, which are all received and unconsumed bytes.
    /// `ended`: no more can be read at this moment. A frame, garbage and other shown items stay the
    /// same until [`FrameReader::taken`] is called. This may write into the bytes of a frame, for
    /// example to unmask its payload.
    #[inline]
    pub(crate) fn find(&mut self, bytes: &mut [u8], ended: bool) -> FoundItem {
        match self {
            FrameReader::Json(reader) => reader.find(bytes, ended),
            FrameReader::WebSocket(reader) => reader.find(bytes),
            FrameReader::Http(reader) => reader.find(bytes),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.find(bytes, ended),
        }
    }

    /// Notes that the item was taken: a `frame`, or garbage. Its bytes are gone from the front at
    /// the next call.
    #[inline]
    pub(crate) fn taken(&mut self, frame: Option<Piece>) {
        match self {
            FrameReader::Json(reader) => reader.taken(frame),
            FrameReader::WebSocket(reader) => reader.taken(),
            FrameReader::Http(reader) => reader.taken(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.taken(),
        }
    }

    /// Takes the notice for the writer. It must be handled before the found item.
    #[inline]
    pub(crate) fn notice(&mut self) -> Option<Notice> {
        match self {
            FrameReader::Json(reader) => reader.notice(),
            FrameReader::WebSocket(reader) => reader.notice(),
            FrameReader::Http(_) => None,
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.notice(),
        }
    }

    /// Whether an item for the application was found and is not taken yet.
    #[inline]
    pub(crate) fn has_shown(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.has_shown(),
            FrameReader::WebSocket(reader) => reader.has_shown(),
            FrameReader::Http(reader) => reader.has_shown(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.has_shown(),
        }
    }

    /// Whether a frame is incomplete, or the protocol of the connection is not known yet.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        match self {
            FrameReader::Json(reader) => reader.is_inside(),
            FrameReader::WebSocket(reader) => reader.is_inside(),
            FrameReader::Http(reader) => reader.is_inside(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.is_inside(),
        }
    }

    /// Gives up on a frame that has begun. The caller drops the bytes, and the next item reports
    /// the loss: garbage, the end, or a late request.
    pub(crate) fn give_up(&mut self) {
        match self {
            FrameReader::Json(reader) => reader.give_up(),
            FrameReader::WebSocket(reader) => reader.give_up(),
            FrameReader::Http(reader) => reader.give_up(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.give_up(),
        }
    }

    /// Notes that all received bytes are dropped, and that no more will come.
    pub(crate) fn forget(&mut self) {
        match self {
            FrameReader::Json(reader) => reader.forget(),
            FrameReader::WebSocket(reader) => reader.forget(),
            FrameReader::Http(reader) => reader.taken(),
            #[cfg(feature = "simulation")]
            FrameReader::Custom(reader) => reader.forget(),
        }
    }
}

impl FrameWriter {
    pub(crate) fn json() -> FrameWriter {
        FrameWriter::Json(JsonWriter::default())
    }

    pub(crate) fn websocket() -> FrameWriter {
        FrameWriter::WebSocket(WebSocketWriter::default())
    }

    /// Notes the close code of the connection, if its framing has one. The first code counts.
    pub(crate) fn ends_with(&mut self, code: u16) {
        if let FrameWriter::WebSocket(writer) = self {
            writer.ends_with(code);
        }
    }

    /// The last bytes of the connection, if its framing has some.
    pub(crate) fn goodbye(&self) -> Option<[u8; 4]> {
        match self {
            FrameWriter::WebSocket(writer) => Some(writer.goodbye()),
            _ => None,
        }
    }

    /// Appends the encoded frame to `out`.
    #[inline]
    pub(crate) fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping {
        match self {
            FrameWriter::Json(writer) => writer.wrap(frame, out),
            FrameWriter::WebSocket(writer) => writer.wrap(frame, out),
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(writer) => writer.wrap(frame, out),
        }
    }

    /// Whether the client, as far as is known, recognizes the end of a frame only by the end of a
    /// write, because nothing separates two frames. Then each frame needs its own write, and a pace
    /// may hold it.
    #[inline]
    pub(crate) fn is_bare(&self) -> bool {
        match self {
            FrameWriter::Json(writer) => writer.is_bare(),
            FrameWriter::WebSocket(_) => false,
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(_) => false,
        }
    }

    /// Switches to lines, as the reader has asked. Returns whether an empty frame must be sent now,
    /// which terminates what was sent before.
    pub(crate) fn use_lines(&mut self) -> bool {
        match self {
            FrameWriter::Json(writer) => writer.use_lines(),
            FrameWriter::WebSocket(_) => false,
            #[cfg(feature = "simulation")]
            FrameWriter::Custom(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_the_same_memory_whatever_it_speaks() {
        assert_eq!(size_of::<FrameReader>(), size_of::<JsonReader>().next_multiple_of(8));
        // A test build has one variant more, with a pointer to an object.
        assert!(size_of::<FrameWriter>() <= 24, "{}", size_of::<FrameWriter>());
    }
}
