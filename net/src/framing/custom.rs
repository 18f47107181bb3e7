//! A framing of a test's own. Not part of a production build.

use std::fmt;

use super::{Found, Notice, Wrapping};

/// Finds the frames of one connection in what was received. The loop that reads it calls all of
/// this.
pub trait CustomReader: fmt::Debug + Send {
    /// What stands at the front of `bytes`, all that was received and not consumed; `ended` says
    /// that no more is there at this moment. It may write into the bytes of a frame, which is
    /// called once for each until [`CustomReader::taken`] as long as it finds the same again.
    fn find(&mut self, bytes: &mut [u8], ended: bool) -> Found;

    /// What was found was dealt with; its bytes will be gone from the front at the next look.
    fn taken(&mut self);

    /// Takes what the writer is to be told.
    fn notice(&mut self) -> Option<Notice> {
        None
    }

    /// Whether something was found that the application is to be shown, and not taken.
    fn has_shown(&self) -> bool;

    /// Whether a frame has begun that is not whole yet.
    fn is_inside(&self) -> bool;

    /// Gives up on a frame that has begun: its bytes are dropped by the caller, and garbage is
    /// found next.
    fn give_up(&mut self);

    /// All that was received is dropped, and nothing more will come.
    fn forget(&mut self);
}

/// Makes frames of what is sent on one connection. Any thread that sends calls it, under the lock
/// of the link.
pub trait CustomWriter: fmt::Debug + Send {
    /// Appends the frame to `out` as it is to be sent: the payload itself unchanged, with what
    /// stands before and behind it.
    fn wrap(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Wrapping;
}
