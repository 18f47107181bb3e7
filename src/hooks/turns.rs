//! The order of the senders whose messages are posted, and the choice of those whose messages are
//! dropped when too many wait. Senders take turns, so one that writes very much delays the others
//! by one turn.

use std::collections::BTreeMap;

use crate::protocol::UserId;
use crate::store::hooks::HookRow;

/// The rows in the order in which they are posted: one of each sender, beginning with the first
/// sender after `last`, then a second one of each, and so on. The rows of one sender stay in order.
pub(super) fn in_turn(rows: Vec<HookRow>, last: UserId) -> Vec<HookRow> {
    let mut of_sender: BTreeMap<(bool, UserId), Vec<HookRow>> = BTreeMap::new();
    for row in rows {
        of_sender.entry((row.sender <= last, row.sender)).or_default().push(row);
    }
    let longest = of_sender.values().map(Vec::len).max().unwrap_or_default();
    (0..longest).flat_map(|nth| of_sender.values().filter_map(move |rows| rows.get(nth)).copied()).collect()
}

/// The number of senders.
pub(super) fn senders(rows: &[HookRow]) -> usize {
    rows.iter().map(|row| row.sender).collect::<std::collections::BTreeSet<_>>().len()
}

/// The number of rows to drop of each of these senders, `excess` rows in all, so that the senders
/// with the most rows keep equally many. `largest` are the senders with the most rows, most first.
/// No sender drops below the number of the last one, because senders that are not listed may have
/// as many. The second value is the number of rows that are still too many then.
pub(super) fn dropped(largest: &[(UserId, u64)], excess: u64) -> (Vec<(UserId, u64)>, u64) {
    let Some((_, lowest)) = largest.last().copied() else { return (Vec::new(), excess) };
    let gone = |level: u64| largest.iter().map(|(_, rows)| rows.saturating_sub(level)).sum::<u64>();
    // The highest level at which enough rows go.
    let (mut low, mut high) = (lowest, largest[0].1);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if gone(middle) >= excess { low = middle } else { high = middle - 1 }
    }
    let each = largest.iter().map(|(sender, rows)| (*sender, rows.saturating_sub(low)));
    (each.filter(|(_, rows)| *rows > 0).collect(), excess.saturating_sub(gone(low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::conversation::ConversationId;

    fn row(id: i64, sender: i32) -> HookRow {
        let (sender, conv) = (UserId(sender), ConversationId::between(UserId(1), UserId(2)));
        HookRow { id, sender, conv, seq: id, time: 0, member: UserId(0) }
    }

    #[test]
    fn senders_take_turns() {
        let rows =
            || [(1, 7), (2, 7), (3, 7), (4, 9), (5, 7), (6, 3), (7, 9)].map(|(id, sender)| row(id, sender)).to_vec();
        for (last, expected) in [
            (0, [6, 1, 4, 2, 7, 3, 5]),
            (3, [1, 4, 6, 2, 7, 3, 5]),
            (7, [4, 6, 1, 7, 2, 3, 5]),
            (9, [6, 1, 4, 2, 7, 3, 5]),
        ] {
            let order: Vec<i64> = in_turn(rows(), UserId(last)).iter().map(|row| row.id).collect();
            assert_eq!(order, expected, "after {last}");
        }
        assert_eq!(senders(&rows()), 3);
        assert!(in_turn(Vec::new(), UserId(0)).is_empty());
    }

    #[test]
    fn those_who_have_most_lose_most() {
        let largest = [(UserId(1), 100), (UserId(2), 60), (UserId(3), 10)];
        for (excess, expected, left) in [
            (1, vec![(1, 1)], 0),
            (40, vec![(1, 40)], 0),
            (50, vec![(1, 45), (2, 5)], 0),
            // Levels are whole numbers, so one more may go.
            (51, vec![(1, 46), (2, 6)], 0),
            (140, vec![(1, 90), (2, 50)], 0),
            // Senders that are not listed may have ten as well.
            (145, vec![(1, 90), (2, 50)], 5),
        ] {
            let expected: Vec<(UserId, u64)> =
                expected.into_iter().map(|(sender, rows)| (UserId(sender), rows)).collect();
            assert_eq!(dropped(&largest, excess), (expected, left), "{excess}");
        }
        assert_eq!(dropped(&[], 5), (Vec::new(), 5));
    }
}
