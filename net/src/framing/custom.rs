//! A framing that a test provides. Not part of a production build.

use std::fmt;

use super::found::{FoundItem, Notice, Wrapping};

/// Finds the frames of one connection in the received bytes. Only the loop that reads the
/// connection calls it.
pub trait CustomReader: fmt::Debug + Send {
    /// Finds the item at the front of `bytes`, which are all received and unconsumed bytes.
    /// `ended`: no more can be read at this moment. A call may write into the bytes of a frame, but
    /// must find the same item again until [`CustomReader::taken`] is called.
    fn find(&mut self, bytes: &mut [u8], ended: bool) -> FoundItem;

    /// Notes that the found item is handled. Its bytes are gone from the front at the next call of
    /// `find`.
    fn taken(&mut self);

    /// Takes the notice for the writer, if there is one.
    fn notice(&mut self) -> Option<Notice> {
        None
    }

    /// Whether an item for the application was found and is not taken yet.
    fn has_shown(&self) -> bool;

    /// Whether a frame has begun and is incomplete.
    fn is_inside(&self) -> bool;

    /// Gives up on a frame that has begun. The caller drops its bytes, and `find` returns garbage
    /// next.
    fn give_up(&mut self);

    /// Notes that all received bytes are dropped, and that no more will come.
    fn forget(&mut self);
}

/// Frames the payloads sent on one connection. Any thread that sends calls it, under the lock of
/// the link.
pub trait CustomWriter: fmt::Debug + Send {
    /// Appends the frame to `out` as it is to be sent: the unchanged payload with its head and
    /// tail.
    fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping;
}
