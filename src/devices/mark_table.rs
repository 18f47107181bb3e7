//! [`MarkTable`]: the marks of the conversations of one connection.
//!
//! It takes 20 bytes for each conversation of the login, and up to twice as many after others were
//! added. A conversation with a mark beyond 32 bits takes about 100.

use std::collections::BTreeMap;

use crate::base::conversation::{ConversationId, Seq};
use crate::protocol::level2::frames::Marks;

/// The marks of the user and of the partner in a conversation. All begin with 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct KnownMarks {
    pub(super) own: Seq,
    pub(super) partner: Marks,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct MarkTable {
    /// The marks below 32 bits, sorted by conversation.
    narrow: Vec<NarrowMarks>,
    wide: BTreeMap<ConversationId, KnownMarks>,
}

// Packed: otherwise it would take 24 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct NarrowMarks {
    conv: ConversationId,
    own: u32,
    read: u32,
    recv: u32,
}

const _: () = assert!(size_of::<NarrowMarks>() == 20);

impl KnownMarks {
    fn max(self, other: KnownMarks) -> KnownMarks {
        let (read, recv) = (self.partner.read.max(other.partner.read), self.partner.recv.max(other.partner.recv));
        KnownMarks { own: self.own.max(other.own), partner: Marks { read, recv } }
    }
}

impl NarrowMarks {
    fn max(self, other: NarrowMarks) -> NarrowMarks {
        let NarrowMarks { conv, own, read, recv } = self;
        NarrowMarks { conv, own: own.max(other.own), read: read.max(other.read), recv: recv.max(other.recv) }
    }

    /// `None` if a mark is too high.
    fn new(conv: ConversationId, marks: KnownMarks) -> Option<NarrowMarks> {
        let Marks { read, recv } = marks.partner;
        let narrow = |seq: Seq| u32::try_from(seq).ok();
        Some(NarrowMarks { conv, own: narrow(marks.own)?, read: narrow(read)?, recv: narrow(recv)? })
    }

    fn marks(self) -> KnownMarks {
        KnownMarks { own: self.own.into(), partner: Marks { read: self.read.into(), recv: self.recv.into() } }
    }
}

impl MarkTable {
    /// Adds many marks at once. Of two for the same conversation, the higher ones stay.
    pub(super) fn fill(&mut self, all: impl Iterator<Item = (ConversationId, KnownMarks)>) {
        let mut wide = Vec::new();
        for (conv, marks) in all.filter(|(_, marks)| *marks != KnownMarks::default()) {
            match NarrowMarks::new(conv, marks) {
                Some(narrow) if !self.wide.contains_key(&conv) => self.narrow.push(narrow),
                _ => wide.push((conv, marks)),
            }
        }
        self.narrow.sort_by_key(|known| known.conv);
        self.narrow.dedup_by(|later, first| {
            // Copies, because fields of a packed type cannot be referenced.
            let is_same = { later.conv } == { first.conv };
            if is_same {
                *first = first.max(*later);
            }
            is_same
        });
        // The table must be in order before these are looked up.
        for (conv, marks) in wide {
            self.set(conv, self.get(conv).max(marks));
        }
    }

    /// Frees unused memory.
    pub(super) fn shrink(&mut self) {
        self.narrow.shrink_to_fit();
    }

    pub(super) fn get(&self, conv: ConversationId) -> KnownMarks {
        match self.find(conv) {
            Ok(at) => self.narrow[at].marks(),
            Err(_) => self.wide.get(&conv).copied().unwrap_or_default(),
        }
    }

    pub(super) fn set(&mut self, conv: ConversationId, marks: KnownMarks) {
        match (self.find(conv), NarrowMarks::new(conv, marks)) {
            (Ok(at), Some(narrow)) => self.narrow[at] = narrow,
            (Err(at), Some(narrow)) => {
                self.wide.remove(&conv);
                self.narrow.insert(at, narrow);
            }
            (place, None) => {
                if let Ok(at) = place {
                    self.narrow.remove(at);
                }
                self.wide.insert(conv, marks);
            }
        }
    }

    pub(super) fn forget(&mut self, conv: ConversationId) {
        if let Ok(at) = self.find(conv) {
            self.narrow.remove(at);
        }
        self.wide.remove(&conv);
    }

    fn find(&self, conv: ConversationId) -> Result<usize, usize> {
        self.narrow.binary_search_by_key(&conv, |known| known.conv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_any_size_are_kept() {
        let conv = ConversationId::from_column;
        let marks = |own, read, recv| KnownMarks { own, partner: Marks { read, recv } };
        let highest = Seq::from(u32::MAX);
        let mut table = MarkTable::default();
        table.fill(
            [(conv(9), marks(1, 2, 3)), (conv(5), marks(highest + 1, 0, 0)), (conv(7), marks(0, 0, 0))].into_iter(),
        );
        assert_eq!((table.narrow.len(), table.wide.len()), (1, 1), "nothing is kept of no marks");
        for known in [marks(4, 5, 6), marks(4, 5, highest), marks(4, 5, highest + 1), marks(7, highest + 1, 8)] {
            for id in [5, 7, 9] {
                table.set(conv(id), known);
                assert_eq!(table.get(conv(id)), known);
            }
        }
        table.fill([(conv(9), marks(9, 9, 9))].into_iter());
        assert_eq!(table.get(conv(9)), marks(9, highest + 1, 9), "the higher ones stay");
        for id in [5, 7, 9] {
            table.set(conv(id), marks(9, 9, 9));
            table.fill([(conv(id), marks(10, 8, 9))].into_iter());
            assert_eq!(table.get(conv(id)), marks(10, 9, 9));
            table.set(conv(id), marks(9, 9, 9));
            assert_eq!(table.get(conv(id)), marks(9, 9, 9));
            table.forget(conv(id));
            assert_eq!(table.get(conv(id)), KnownMarks::default());
        }
        assert_eq!((table.narrow.len(), table.wide.len()), (0, 0));
    }
}
