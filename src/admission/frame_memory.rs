//! [`FrameMemory`]: the memory for frames that clients have begun to send.
//!
//! An address may have no more than is free. The same limit holds for all connections together that
//! are not logged in, so these have at most half, however many addresses they use. A user always
//! finds room for a frame.

use super::{Shares, Source};

/// The memory, and the share of each holder.
#[derive(Debug)]
pub struct FrameMemory {
    of_address: Shares<Source>,
    /// The memory of connections that are not logged in.
    of_strangers: usize,
}

impl FrameMemory {
    /// A total of `max` bytes.
    pub fn new(max: usize) -> FrameMemory {
        FrameMemory { of_address: Shares::new(max), of_strangers: 0 }
    }

    /// Takes this number of bytes; false if that exceeds the share.
    pub fn take(&mut self, source: Source, is_stranger: bool, bytes: usize) -> bool {
        if is_stranger && self.of_strangers + bytes > self.of_address.free() {
            return false;
        }
        let taken = self.of_address.take(source, bytes);
        if taken && is_stranger {
            self.of_strangers += bytes;
        }
        taken
    }

    /// Releases this number of bytes.
    pub fn give_back(&mut self, source: Source, is_stranger: bool, bytes: usize) {
        self.of_address.give_back(source, bytes);
        if is_stranger {
            self.of_strangers -= bytes;
        }
    }

    /// Moves the bytes of a connection that has logged in or out to the other share.
    pub fn moved(&mut self, is_stranger: bool, bytes: usize) {
        if is_stranger {
            self.of_strangers += bytes;
        } else {
            self.of_strangers -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_half_together_and_users_of_each_address_what_is_free() {
        let source = |last| Source::of([192, 0, 2, last].into());
        let mut kept = FrameMemory::new(1000);
        let fill = |kept: &mut FrameMemory, from, is_stranger| {
            (0..).take_while(|_| kept.take(source(from), is_stranger, 10)).count()
        };
        assert_eq!([1, 2, 3].map(|from| fill(&mut kept, from, true)), [50, 0, 0]);
        assert_eq!(fill(&mut kept, 2, false), 25);
        assert_eq!(fill(&mut kept, 1, false), 0, "the address has its share");
        kept.moved(false, 100);
        assert_eq!(fill(&mut kept, 3, true), 0, "400 are more than is free");
        kept.give_back(source(1), true, 400);
        assert_eq!(fill(&mut kept, 3, true), 33);
        kept.give_back(source(1), false, 100);
        kept.give_back(source(2), false, 250);
        kept.give_back(source(3), true, 330);
        assert_eq!((kept.of_address.free(), kept.of_strangers), (1000, 0));
    }
}
