//! [`Head`]: the state of a conversation for one of its members.

use rustc_hash::FxHashMap;

use crate::base::conversation::{ConversationId, Tag};

/// A conversation as one member sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The conversation.
    pub conv: ConversationId,
    /// The partner's or the group's name; `None` if the partner's account is deleted.
    pub name: Option<String>,
    /// The last number, 0 if there is no message.
    pub head: i64,
    /// The tag of the last message, `None` if there is none.
    pub tag: Option<Tag>,
    /// The last number that this member cannot read.
    pub floor: i64,
    /// The member's read mark.
    pub read: i64,
    /// The highest number that one of the member's devices has stored.
    pub recv: i64,
    /// The number of messages of others above `read` and `floor` that count as unread.
    pub unread: i64,
    /// The partner's `read` and `recv`; `None` in a group.
    pub peer: Option<(i64, i64)>,
    /// The time of the last message's commit, ms.
    pub touched: i64,
}

/// The columns of a conversation and of one member's marks.
#[derive(Clone, Default, Debug)]
pub(in crate::store) struct HeadRow {
    pub(in crate::store) conv: i64,
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) head: i64,
    pub(in crate::store) head_tag: i64,
    pub(in crate::store) count: i64,
    pub(in crate::store) recalled: i64,
    pub(in crate::store) floor: i64,
    pub(in crate::store) floor_nth: i64,
    pub(in crate::store) touched: i64,
    pub(in crate::store) joined: i64,
    pub(in crate::store) joined_nth: i64,
    pub(in crate::store) read: i64,
    pub(in crate::store) read_nth: i64,
    pub(in crate::store) own: i64,
    pub(in crate::store) recv: i64,
    pub(in crate::store) peer: Option<(i64, i64)>,
}

impl HeadRow {
    /// The member's floor. In a group it is not below the start of the latest membership.
    pub(in crate::store) fn member_floor(&self) -> i64 {
        self.floor.max(self.joined - 1).min(self.head)
    }

    /// The number above which messages may be unread.
    fn base(&self) -> i64 {
        self.read.max(self.member_floor())
    }

    /// The number of messages above [`HeadRow::base`] that count, recalled or not.
    fn behind(&self) -> i64 {
        self.count - self.read_nth.max(self.floor_nth).max(self.joined_nth)
    }

    /// The first block of recalled messages that [`unread`] needs, if any.
    pub(in crate::store) fn block(&self) -> Option<i64> {
        (self.recalled > 0 && self.behind() > 0).then(|| self.base() / BLOCK)
    }

    /// The head, from the recalled messages of [`HeadRow::block`] and later.
    pub(in crate::store) fn into_head(self, recalled: &[RecalledBlock]) -> Head {
        let (floor, unread) = (self.member_floor(), unread(&self, recalled));
        Head {
            conv: ConversationId::from_column(self.conv),
            name: self.name,
            head: self.head,
            tag: (self.head > 0).then_some(Tag(self.head_tag as u32)),
            floor,
            read: self.read.min(self.head),
            recv: self.recv.min(self.head),
            unread,
            peer: self.peer.map(|(read, recv)| (read.min(self.head), recv.min(self.head))),
            touched: self.touched,
        }
    }
}

/// The heads, from the recalled messages of all of them, in any order.
pub(in crate::store) fn into_heads(rows: Vec<HeadRow>, recalled: &[RecalledBlock]) -> Vec<Head> {
    let mut by_conv: FxHashMap<i64, Vec<RecalledBlock>> = FxHashMap::default();
    for block in recalled {
        by_conv.entry(block.conv).or_default().push(block.clone());
    }
    let head = |row: HeadRow| {
        let recalled = by_conv.get(&row.conv).map_or(&[][..], Vec::as_slice);
        row.into_head(recalled)
    };
    rows.into_iter().map(head).collect()
}

/// The number of messages of others that count as unread: those above the marks, without the
/// recalled ones and the member's own.
pub(in crate::store) fn unread(row: &HeadRow, recalled: &[RecalledBlock]) -> i64 {
    let base = row.base();
    let gone: i64 = recalled.iter().filter(|block| block.conv == row.conv).map(|block| block.behind(base)).sum();
    (row.behind() - gone - row.own).max(0)
}

/// The numbers of one row of `Recalled`.
pub(in crate::store) const BLOCK: i64 = 1024;
const BLOCK_BYTES: usize = (BLOCK / 8) as usize;

/// A row of `Recalled`.
#[derive(Clone, Debug)]
pub(in crate::store) struct RecalledBlock {
    pub(in crate::store) conv: i64,
    pub(in crate::store) block: i64,
    pub(in crate::store) count: i64,
    bits: Box<[u8]>,
}

impl RecalledBlock {
    /// A block without a recalled message.
    pub(in crate::store) fn new(conv: i64, block: i64) -> RecalledBlock {
        RecalledBlock { conv, block, count: 0, bits: vec![0; BLOCK_BYTES].into() }
    }

    /// The block that was stored.
    pub(in crate::store) fn stored(conv: i64, block: i64, count: i64, mut bits: Vec<u8>) -> RecalledBlock {
        bits.resize(BLOCK_BYTES, 0);
        RecalledBlock { conv, block, count, bits: bits.into() }
    }

    /// The bits to be stored.
    pub(in crate::store) fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Adds a number of this block. False if it was added before.
    pub(in crate::store) fn add(&mut self, seq: i64) -> bool {
        let at = (seq % BLOCK) as usize;
        let (byte, bit) = (&mut self.bits[at / 8], 1 << (at % 8));
        let is_new = *byte & bit == 0;
        *byte |= bit;
        self.count += i64::from(is_new);
        is_new
    }

    /// The number of recalled messages whose numbers are above `seq`.
    fn behind(&self, seq: i64) -> i64 {
        let first = self.block * BLOCK;
        if seq < first {
            return self.count;
        }
        if seq >= first + BLOCK - 1 {
            return 0;
        }
        let from = (seq - first + 1) as usize;
        let partial = (self.bits[from / 8] >> (from % 8)).count_ones();
        let whole: u32 = self.bits[from / 8 + 1..].iter().map(|byte| byte.count_ones()).sum();
        i64::from(partial + whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recalled_numbers_behind_a_mark_are_counted() {
        let numbers = [1, 2, 7, 8, 9, 63, 64, 512, 1022, 1023];
        let mut block = RecalledBlock::new(5, 0);
        assert!(numbers.iter().all(|seq| block.add(*seq)));
        assert!(!block.add(64) && block.count == 10);
        let block = RecalledBlock::stored(5, 0, block.count, block.bits().to_vec());
        for mark in 0..1100 {
            let expected = numbers.iter().filter(|seq| **seq > mark).count() as i64;
            assert_eq!(block.behind(mark), expected, "{mark}");
        }
        let mut later = RecalledBlock::new(5, 3);
        later.add(3 * BLOCK);
        assert_eq!([3 * BLOCK - 1, 3 * BLOCK].map(|mark| later.behind(mark)), [1, 0]);
    }

    #[test]
    fn unread_messages_begin_behind_the_furthest_of_mark_floor_and_joining() {
        let mut recalled = RecalledBlock::new(5, 0);
        recalled.add(8);
        recalled.add(4);
        let row = HeadRow { conv: 5, head: 10, count: 9, recalled: 2, ..HeadRow::default() };
        let unread = |row: &HeadRow| unread(row, std::slice::from_ref(&recalled));
        assert_eq!(unread(&row), 7);
        let read = HeadRow { read: 6, read_nth: 5, ..row.clone() };
        assert_eq!((unread(&read), read.block()), (3, Some(0)));
        assert_eq!(unread(&HeadRow { floor: 8, floor_nth: 7, ..read.clone() }), 2);
        assert_eq!(unread(&HeadRow { joined: 5, joined_nth: 3, ..row.clone() }), 5);
        assert_eq!(unread(&HeadRow { own: 1, ..read }), 2);
        let caught_up = HeadRow { read: 10, read_nth: 9, ..row };
        assert_eq!((unread(&caught_up), caught_up.block()), (0, None));
    }
}
