//! Retention: the rules for deleting old messages, and the node that deletes them.

/// The bounds of the messages that are deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryRetention {
    /// Messages from before this time, ms.
    pub before: i64,
    /// Messages with this number of newer ones in their conversation.
    pub newest: i64,
    /// The time, ms, before which ids are deleted, so that a retry is no longer recognised.
    pub ids_before: i64,
}

/// The result of a step of retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionStep {
    /// The conversation with which the next step begins; `None` at the end of the round.
    pub next: Option<crate::base::conversation::ConversationId>,
    /// The number of messages that are newly at or below the floor.
    pub retired: u64,
    /// The number of rows at or below the floor that were deleted.
    pub deleted: u64,
}

/// How long messages are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionRules {
    /// The days after which messages are deleted; 0: never.
    pub days: u32,
    /// The number of newest messages that a conversation keeps; 0: all.
    pub newest: u32,
    /// The days for which a retry is recognised.
    pub id_days: u32,
}

/// A node's claim to delete old messages.
#[derive(Clone, Debug)]
pub struct RetentionClaim {
    /// The node: a random number.
    pub owner: u64,
    /// The time, ms: retention is due if it was last done earlier.
    pub due_before: i64,
    /// The rules of this node.
    pub rules: RetentionRules,
    /// Whether it is also due if it was last done under other rules.
    pub minds_rules: bool,
    /// The lease, ms: other nodes wait this long.
    pub lease: i64,
}

/// The node that holds the lease and the time of the last retention, from row 2 of the table
/// `Meta`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::store) struct RetentionTurn {
    /// The time when retention was last done, ms; 0: never.
    done: i64,
    /// The time at which the lease of `owner` ends.
    until: i64,
    owner: u64,
    /// The rules of the last or the current retention.
    rules: [u32; 3],
}

impl RetentionTurn {
    /// Reads the row. One that this version cannot read counts as never done.
    pub(in crate::store) fn stored(bytes: &[u8]) -> RetentionTurn {
        let Ok(bytes) = <[u8; BYTES]>::try_from(bytes) else { return RetentionTurn::default() };
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        RetentionTurn {
            done: long(0).cast_signed(),
            until: long(8).cast_signed(),
            owner: long(16),
            rules: [24, 28, 32].map(short),
        }
    }

    /// The bytes for the row.
    pub(in crate::store) fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.done.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.until.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.owner.to_le_bytes());
        for (part, rule) in bytes[24..].chunks_exact_mut(4).zip(self.rules) {
            part.copy_from_slice(&rule.to_le_bytes());
        }
        bytes
    }

    /// The turn with the claim granted; `None` if retention is not due, or another node holds the
    /// lease.
    pub(in crate::store) fn claimed(&self, claim: &RetentionClaim, now: i64) -> Option<RetentionTurn> {
        let is_free = self.until <= now || self.owner == claim.owner;
        let is_own = self.until > now && self.owner == claim.owner;
        let rules = claim.rules.as_numbers();
        let is_due = self.done < claim.due_before || claim.minds_rules && self.rules != rules;
        let granted =
            RetentionTurn { done: self.done, until: now.saturating_add(claim.lease), owner: claim.owner, rules };
        (is_free && (is_own || is_due)).then_some(granted)
    }

    /// The turn after the work; `None` if another node holds the lease.
    pub(in crate::store) fn ended(&self, claim: &RetentionClaim, now: i64) -> Option<RetentionTurn> {
        (self.owner == claim.owner).then_some(RetentionTurn { done: now, until: 0, ..*self })
    }
}

impl RetentionRules {
    fn as_numbers(self) -> [u32; 3] {
        [self.days, self.newest, self.id_days]
    }
}

const BYTES: usize = 36;
/// The row in the table `Meta`.
pub(in crate::store) const TURN_ROW: i64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RetentionRules = RetentionRules { days: 30, newest: 0, id_days: 7 };

    fn claim(owner: u64, due_before: i64) -> RetentionClaim {
        RetentionClaim { owner, due_before, rules: RULES, minds_rules: false, lease: 100 }
    }

    #[test]
    fn it_is_stored_as_it_is() {
        let turn = RetentionTurn { done: -5, until: i64::MAX, owner: u64::MAX, rules: [1, 2, u32::MAX] };
        assert_eq!(RetentionTurn::stored(&turn.bytes()), turn);
        for odd in [&[][..], &[1; BYTES - 1], &[1; BYTES + 1]] {
            assert_eq!(RetentionTurn::stored(odd), RetentionTurn::default());
        }
    }

    #[test]
    fn one_node_has_it_until_it_is_done_or_its_lease_is_over() {
        let never = RetentionTurn::default();
        let mine = never.claimed(&claim(1, 1000), 2000).expect("it was never done");
        assert_eq!(mine.claimed(&claim(2, 1000), 2050), None, "another node has it");
        let renewed = mine.claimed(&claim(1, 1000), 2090).expect("the same one goes on");
        assert_eq!(renewed.claimed(&claim(2, 1000), 2150), None);
        let lost = renewed.claimed(&claim(2, 1000), 2190).expect("the lease is over");
        assert_eq!(lost.ended(&claim(1, 1000), 2191), None, "it is another node's now");
        let done = lost.ended(&claim(2, 1000), 2195).expect("it has it");
        assert_eq!(done.claimed(&claim(1, 1000), 2200), None, "it was done tonight");
        assert!(done.claimed(&claim(1, 5000), 5001).is_some(), "the next night");
    }

    #[test]
    fn other_rules_make_it_due() {
        let done = RetentionTurn { done: 2000, until: 0, owner: 1, rules: [30, 0, 7] };
        let other = RetentionRules { days: 10, ..RULES };
        let asks = |minds_rules, rules| RetentionClaim { minds_rules, rules, ..claim(2, 1000) };
        assert!(done.claimed(&asks(true, other), 3000).is_some());
        assert_eq!(done.claimed(&asks(false, other), 3000), None);
        assert_eq!(done.claimed(&asks(true, RULES), 3000), None);
    }
}
