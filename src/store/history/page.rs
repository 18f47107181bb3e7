//! Pages: the numbers that a request for history selects. Numbers are dense, so a page is a range.

use super::entries::{Denied, HistoryEntry};
use super::head::Head;
use crate::protocol::level2::PageAsk;
use crate::store::StoreError;

/// A page of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryPage {
    /// The last number of the conversation.
    pub head: i64,
    /// The last number that the user cannot read.
    pub floor: i64,
    /// The messages, ascending and contiguous.
    pub entries: Vec<HistoryEntry>,
    /// Whether there is nothing more in the direction of the request; in both directions for
    /// `around`.
    pub is_complete: bool,
}

/// The outcome of a request for a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageOutcome {
    /// The page.
    Page(EntryPage),
    /// All of it is at or below this floor (410).
    Gone {
        /// The user's floor.
        floor: i64,
    },
    /// The user may not read it.
    Denied(Denied),
}

/// Reads a page by `run`, which gets the first and the last number, whether to prefer the end to
/// the beginning, and the most bytes.
pub(in crate::store) fn read(
    head: &Head,
    ask: PageAsk,
    limit: i64,
    bytes_max: usize,
    mut run: impl FnMut(i64, i64, bool, usize) -> Result<Vec<HistoryEntry>, StoreError>,
) -> Result<PageOutcome, StoreError> {
    let (first, last, limit) = (head.floor + 1, head.head, limit.max(1));
    let is_gone = match ask {
        PageAsk::Before(seq) => seq <= first,
        PageAsk::Around(seq) => seq <= head.floor,
        PageAsk::Newest | PageAsk::After(_) => false,
    };
    if head.floor > 0 && is_gone {
        return Ok(PageOutcome::Gone { floor: head.floor });
    }
    let before = |end: i64| (first.max(end.saturating_add(1).saturating_sub(limit)), end);
    let (from, to, from_end) = match ask {
        PageAsk::Newest => (before(last).0, last, true),
        PageAsk::Before(seq) => {
            let (from, to) = before(last.min(seq.saturating_sub(1)));
            (from, to, true)
        }
        PageAsk::After(seq) => {
            let from = first.max(seq.saturating_add(1));
            (from, last.min(from.saturating_add(limit - 1)), false)
        }
        PageAsk::Around(seq) => {
            let centre = seq.clamp(first, last.max(first));
            let from = first.max(centre - limit / 2);
            (from, last.min(from.max(centre - limit / 2).saturating_add(limit - 1)), false)
        }
    };
    let mut entries = Vec::new();
    if from <= to {
        if let PageAsk::Around(seq) = ask {
            // The requested message comes first, so that the bytes suffice for it.
            let centre = seq.clamp(from, to);
            entries = run(centre, to, false, bytes_max / 2)?;
            if centre > from {
                let used: usize = entries.iter().filter_map(|entry| entry.text.as_ref()).map(String::len).sum();
                let mut below = run(from, centre - 1, true, bytes_max.saturating_sub(used))?;
                below.append(&mut entries);
                entries = below;
            }
        } else {
            entries = run(from, to, from_end, bytes_max)?;
        }
    }
    let (lowest, highest) = (entries.first().map(|entry| entry.seq), entries.last().map(|entry| entry.seq));
    let reaches_floor = lowest.is_none_or(|lowest| lowest <= first);
    let reaches_head = highest.is_none_or(|highest| highest >= last);
    let is_complete = match ask {
        PageAsk::Newest | PageAsk::Before(_) => reaches_floor,
        PageAsk::After(_) => reaches_head,
        PageAsk::Around(_) => reaches_floor && reaches_head,
    };
    Ok(PageOutcome::Page(EntryPage { head: last, floor: head.floor, entries, is_complete }))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::base::conversation::{ConversationId, Tag};
    use crate::protocol::UserId;

    /// Asks for a page of 5 to 20, with 10 bytes a message: the numbers, and whether it is
    /// complete.
    fn page(floor: i64, ask: PageAsk, limit: i64, bytes_max: usize) -> Option<(i64, i64, bool)> {
        let head = Head {
            conv: ConversationId::from_column(5),
            name: None,
            head: 20,
            tag: None,
            floor,
            read: 0,
            recv: 0,
            unread: 0,
            peer: None,
            touched: 0,
        };
        let entry = |seq| HistoryEntry {
            seq,
            from: UserId(1),
            time: 0,
            tag: Tag(0),
            text: Some("0123456789".to_owned()),
            edited: None,
            recalled: None,
            is_imported: false,
        };
        let outcome = read(&head, ask, limit, bytes_max, |from, to, from_end, bytes| {
            let count = ((bytes / 10).max(1) as i64).min(to - from + 1);
            let from = if from_end { to - count + 1 } else { from };
            Ok((from..from + count).map(entry).collect())
        });
        match outcome.unwrap() {
            PageOutcome::Page(EntryPage { entries, is_complete, .. }) => {
                let first = entries.first().map_or(0, |entry| entry.seq);
                assert!(entries.iter().map(|entry| entry.seq).eq(first..first + entries.len() as i64));
                Some((first, entries.last().map_or(0, |entry| entry.seq), is_complete))
            }
            _ => None,
        }
    }

    #[test]
    fn a_page_is_a_range_of_numbers() {
        use PageAsk::{After, Around, Before, Newest};
        for (ask, limit, expected) in [
            (Newest, 5, Some((16, 20, false))),
            (Newest, 50, Some((5, 20, true))),
            (Before(10), 3, Some((7, 9, false))),
            (Before(8), 3, Some((5, 7, true))),
            (Before(1000), 2, Some((19, 20, false))),
            (Before(5), 3, None),
            (Before(i64::MIN), 3, None),
            (After(10), 3, Some((11, 13, false))),
            (After(0), 3, Some((5, 7, false))),
            (After(18), 3, Some((19, 20, true))),
            (After(20), 3, Some((0, 0, true))),
            (After(i64::MAX), 3, Some((0, 0, true))),
            (Around(10), 5, Some((8, 12, false))),
            (Around(5), 5, Some((5, 9, false))),
            (Around(20), 5, Some((18, 20, false))),
            (Around(10), 100, Some((5, 20, true))),
            (Around(10), 1, Some((10, 10, false))),
            (Around(4), 5, None),
            (Around(i64::MAX), 4, Some((18, 20, false))),
        ] {
            assert_eq!(page(4, ask, limit, 1000), expected, "{ask:?}");
        }
        assert_eq!(page(0, Before(1), 5, 1000), Some((0, 0, true)), "nothing is gone, and nothing is there");
        assert_eq!(page(20, Newest, 5, 1000), Some((0, 0, true)));
    }

    #[test]
    fn a_page_keeps_to_its_bytes_and_shows_the_message_that_is_asked_for() {
        assert_eq!(page(4, PageAsk::Before(15), 10, 30), Some((12, 14, false)));
        assert_eq!(page(4, PageAsk::After(10), 10, 30), Some((11, 13, false)));
        assert_eq!(page(4, PageAsk::Around(10), 10, 40), Some((8, 11, false)));
        assert_eq!(page(4, PageAsk::Newest, 10, 0), Some((20, 20, false)));
    }
}
