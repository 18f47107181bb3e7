//! [`ForSession`]: the frames of level 1 that wait for the session, which processes one at a time.

use std::collections::VecDeque;

/// See the [module](self). They wait here and not in the connection's input, so that sends behind
/// them do not wait.
///
/// Bound: [`BYTES_MAX`] and one frame. Beyond it, the connection is not read, and its input counts
/// in the memory for unfinished frames (`memory_max`). The frames here do not, so they must be few.
#[derive(Debug, Default)]
pub(super) struct ForSession {
    waiting: VecDeque<Box<[u8]>>,
    /// The size of the frames that wait.
    bytes: usize,
    /// The frame whose turn has come.
    next: Option<Box<[u8]>>,
}

impl ForSession {
    pub(super) fn add(&mut self, frame: Box<[u8]>) {
        self.bytes += frame.len();
        self.waiting.push_back(frame);
    }

    /// Notes that the turn of the first frame has come. The one before is processed.
    pub(super) fn release(&mut self) {
        self.next = self.waiting.pop_front();
        self.bytes -= self.next.as_ref().map_or(0, |frame| frame.len());
        if self.waiting.is_empty() {
            // Most connections seldom have such a frame, so the memory is freed.
            self.waiting = VecDeque::new();
        }
    }

    /// Takes the frame whose turn has come.
    pub(super) fn next(&mut self) -> Option<Box<[u8]>> {
        self.next.take()
    }

    pub(super) fn take_back(&mut self, frame: Box<[u8]>) {
        self.next = Some(frame);
    }

    /// Whether another frame may be added.
    pub(super) fn has_room(&self) -> bool {
        let next = self.next.as_ref().map_or(0, |frame| frame.len());
        self.bytes + next < BYTES_MAX
    }
}

/// The most bytes that wait before the connection is not read any more.
const BYTES_MAX: usize = 16 * 1024;
