//! [`Ledger`]: the payload that the peer's kernel has acknowledged, by the bytes on the wire.

use std::collections::VecDeque;

/// The records that were made and are not completely acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The end of each record, on the wire and in the payload, counted from the beginning of the
    /// connection.
    records: VecDeque<Ends>,
    made: Ends,
    acknowledged: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Ends {
    wire: u64,
    payload: u64,
}

impl Ledger {
    /// Notes a new record. A record without payload, such as an alert, counts as well.
    ///
    /// For a peer that acknowledges nothing, at most `RECORDS_MAX` records are distinguished. Later
    /// ones count as one record, which has arrived when all of it has.
    pub(crate) fn note(&mut self, payload: usize, wire: usize) {
        self.made = Ends { wire: self.made.wire + wire as u64, payload: self.made.payload + payload as u64 };
        if self.records.len() >= RECORDS_MAX {
            self.records.pop_back();
        }
        self.records.push_back(self.made);
    }

    /// Whether so many records are distinguished that asking for acknowledgements is worthwhile.
    pub(crate) fn is_long(&self) -> bool {
        self.records.len() >= RECORDS_MAX || self.records.len() % RECORDS_BETWEEN_LOOKS == RECORDS_BETWEEN_LOOKS - 1
    }

    /// Notes that the peer's kernel has acknowledged all bytes of the wire except the last
    /// `unacknowledged`.
    pub(crate) fn acknowledge(&mut self, unacknowledged: usize) {
        let wire = self.made.wire.saturating_sub(unacknowledged as u64);
        while let Some(record) = self.records.front().filter(|record| record.wire <= wire) {
            self.acknowledged = *record;
            self.records.pop_front();
        }
        // Most connections are idle, so the memory is freed.
        if self.records.is_empty() && self.records.capacity() > RECORDS_BETWEEN_LOOKS {
            self.records = VecDeque::new();
        }
    }

    /// The number of payload bytes in the records that are not completely acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        usize::try_from(self.made.payload - self.acknowledged.payload).unwrap_or(usize::MAX)
    }
}

/// The most records that are distinguished. A peer that acknowledges now and then has fewer.
const RECORDS_MAX: usize = 256;
/// The number of records after which the kernel is asked again.
const RECORDS_BETWEEN_LOOKS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_arrived_when_all_of_it_has() {
        let mut ledger = Ledger::default();
        for (payload, wire) in [(3, 6), (0, 5), (4, 8), (1, 2)] {
            ledger.note(payload, wire);
        }
        for (unacknowledged, expected) in [(21, 8), (16, 8), (15, 5), (11, 5), (10, 5), (3, 5), (2, 1), (1, 1), (0, 0)]
        {
            ledger.acknowledge(unacknowledged);
            assert_eq!(ledger.unacknowledged(), expected, "{unacknowledged} bytes of the wire");
        }
        ledger.note(7, 20);
        ledger.acknowledge(usize::MAX);
        assert_eq!(ledger.unacknowledged(), 7, "nothing is known");
    }

    #[test]
    fn a_peer_that_acknowledges_nothing_costs_a_bounded_ledger() {
        let mut ledger = Ledger::default();
        (0..1000).for_each(|_| ledger.note(1, 2));
        assert_eq!((ledger.records.len(), ledger.is_long()), (RECORDS_MAX, true));
        ledger.acknowledge(2000 - 2 * (RECORDS_MAX - 1));
        assert_eq!(ledger.unacknowledged(), 1000 - (RECORDS_MAX - 1), "the first ones are told apart");
        ledger.acknowledge(2);
        assert_eq!(ledger.unacknowledged(), 1000 - (RECORDS_MAX - 1), "the others are one record");
        ledger.acknowledge(0);
        assert_eq!((ledger.unacknowledged(), ledger.records.capacity()), (0, 0));
    }
}
