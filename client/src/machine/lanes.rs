//! [`Lanes`]: the messages of the outbox that are on their way, and the next one to send.
//!
//! Each conversation has a lane. Within it, messages are sent in order. If one fails temporarily,
//! all later ones fail as well, and are sent again from the first one (the *prefix rule*). Lanes
//! take turns, so a conversation with thousands of waiting messages, or with a temporary failure,
//! does not delay the others. The frames themselves stay in the store until they are sent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use crate::conv::Conv;

/// The outbox as one connection sees it.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: BTreeMap<Conv, Lane>,
    /// The lane of each unanswered message.
    in_flight: HashMap<String, Conv>,
    limit: usize,
    /// The lane that had the last turn.
    turn: Option<Conv>,
}

#[derive(Default, Debug)]
struct Lane {
    /// The row of the last message that was sent.
    last: i64,
    /// The unanswered messages.
    sent: VecDeque<(i64, String)>,
    /// Whether the outbox may have more.
    has_more: bool,
    /// The row of the first message that failed temporarily, and the time of its retry.
    failed: Option<(i64, Instant)>,
}

/// A query for the store: the next messages of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    pub(crate) conv: Conv,
    /// The row after which the messages begin.
    pub(crate) after: i64,
    /// The most messages.
    pub(crate) count: usize,
}

/// The most messages that a lane sends in one turn.
const TURN: usize = 16;

/// The most messages on their way before the server has named its limit.
const LIMIT: usize = 64;

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes { lanes: BTreeMap::new(), in_flight: HashMap::new(), limit: LIMIT, turn: None }
    }
}

impl Lanes {
    /// Begins a connection: these lanes have messages, and none is on its way.
    pub(crate) fn begin(&mut self, filled: impl IntoIterator<Item = Conv>) {
        *self = Lanes { limit: self.limit, ..Lanes::default() };
        filled.into_iter().for_each(|conv| self.grown(conv));
    }

    /// Sets the server's limit for messages on their way.
    pub(crate) fn limit_to(&mut self, limit: usize) {
        self.limit = limit.clamp(1, 4096);
    }

    /// Notes a new message for this conversation.
    pub(crate) fn grown(&mut self, conv: Conv) {
        self.lanes.entry(conv).or_default().has_more = true;
    }

    /// The next messages to read from the outbox and to send.
    pub(crate) fn wanted(&mut self, now: Instant) -> Option<Wanted> {
        let free = self.limit.saturating_sub(self.in_flight.len());
        if free == 0 {
            return None;
        }
        let behind = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let mut turns = self.lanes.range((behind, Bound::Unbounded)).chain(&self.lanes);
        let (conv, _) = turns.find(|(_, lane)| lane.may_send(now))?;
        let conv = *conv;
        self.turn = Some(conv);
        let lane = self.lanes.get_mut(&conv)?;
        if let Some((first, _)) = lane.failed.take() {
            lane.last = first - 1;
        }
        Some(Wanted { conv, after: lane.last, count: free.min(TURN) })
    }

    /// Notes that the wanted messages, as row and `cid`, are sent now.
    pub(crate) fn sent(&mut self, wanted: Wanted, rows: impl IntoIterator<Item = (i64, String)>) {
        let lane = self.lanes.entry(wanted.conv).or_default();
        let mut count = 0;
        for (row, cid) in rows {
            count += 1;
            lane.last = row;
            self.in_flight.insert(cid.clone(), wanted.conv);
            lane.sent.push_back((row, cid));
        }
        lane.has_more = count == wanted.count;
    }

    /// Handles a final answer. Returns the message's conversation; `None` if the message was not
    /// sent on this connection.
    pub(crate) fn answered(&mut self, cid: &str) -> Option<Conv> {
        self.take(cid).map(|(conv, _)| conv)
    }

    /// Handles a temporary failure. A retry may succeed from `until` on.
    pub(crate) fn failed(&mut self, cid: &str, until: Instant) -> Option<Conv> {
        let (conv, row) = self.take(cid)?;
        let lane = self.lanes.get_mut(&conv)?;
        lane.failed.get_or_insert((row, until));
        lane.has_more = true;
        Some(conv)
    }

    /// The next time at which a message becomes due. A message that is due already waits for an
    /// answer or for room, not for the clock.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let failed = self.lanes.values().filter(|lane| lane.sent.is_empty());
        failed.filter_map(|lane| lane.failed.map(|(_, until)| until)).filter(|until| *until > now).min()
    }

    fn take(&mut self, cid: &str) -> Option<(Conv, i64)> {
        let conv = self.in_flight.remove(cid)?;
        let lane = self.lanes.get_mut(&conv)?;
        let at = lane.sent.iter().position(|(_, sent)| sent == cid)?;
        lane.sent.remove(at).map(|(row, _)| (conv, row))
    }
}

impl Lane {
    /// Whether the lane may send. A lane with a failed message waits until all later ones are
    /// answered.
    fn may_send(&self, now: Instant) -> bool {
        self.has_more && self.failed.is_none_or(|(_, until)| self.sent.is_empty() && until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ANN: Conv = Conv::User(1);
    const BOB: Conv = Conv::User(2);

    fn send(lanes: &mut Lanes, now: Instant, rows: &[i64]) -> Wanted {
        let wanted = lanes.wanted(now).expect("something is wanted");
        lanes.sent(wanted, rows.iter().map(|row| (*row, format!("c{row}"))));
        wanted
    }

    #[test]
    fn a_failed_message_holds_those_behind_it_and_is_sent_first() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.begin([BOB]);
        assert_eq!(send(&mut lanes, now, &[5, 6, 9]), Wanted { conv: BOB, after: 0, count: 16 });
        assert_eq!(lanes.answered("c5"), Some(BOB));
        let later = now + Duration::from_secs(2);
        assert_eq!(lanes.failed("c6", later), Some(BOB));
        lanes.grown(BOB);
        assert_eq!((lanes.wanted(later), lanes.deadline(now)), (None, None), "9 is not answered yet");
        assert_eq!(lanes.failed("c9", later + Duration::from_secs(9)), Some(BOB));
        assert_eq!((lanes.wanted(now), lanes.deadline(now)), (None, Some(later)));
        assert_eq!(lanes.deadline(later), None, "it is due: no clock is waited for");
        assert_eq!(lanes.wanted(later), Some(Wanted { conv: BOB, after: 5, count: 16 }));
    }

    #[test]
    fn a_message_refused_for_good_holds_nobody() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.begin([BOB]);
        send(&mut lanes, now, &[1, 2]);
        assert_eq!(lanes.answered("c1"), Some(BOB));
        lanes.grown(BOB);
        assert_eq!(send(&mut lanes, now, &[3]), Wanted { conv: BOB, after: 2, count: 16 });
        assert_eq!(lanes.answered("c99"), None, "it was never sent");
        assert_eq!(lanes.answered("c1"), None, "it was answered");
    }

    #[test]
    fn a_greedy_conversation_and_one_that_waits_do_not_hold_up_a_quiet_one() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.limit_to(40);
        lanes.begin([ANN, BOB, Conv::Group(1)]);
        let many: Vec<i64> = (1..=16).collect();
        assert_eq!(send(&mut lanes, now, &many).conv, ANN);
        assert_eq!(send(&mut lanes, now, &[100]).conv, BOB);
        lanes.failed("c100", now + Duration::from_secs(60));
        assert_eq!(send(&mut lanes, now, &[200]).conv, Conv::Group(1));
        let more: Vec<i64> = (17..=32).collect();
        assert_eq!(send(&mut lanes, now, &more).conv, ANN);
        let wanted = send(&mut lanes, now, &[33, 34, 35, 36, 37, 38, 39]);
        assert_eq!((wanted.conv, wanted.count), (ANN, 7), "no more than the server takes");
        lanes.grown(Conv::Group(1));
        assert_eq!(lanes.wanted(now), None);
        lanes.answered("c1");
        assert_eq!(lanes.wanted(now).map(|wanted| wanted.conv), Some(Conv::Group(1)));
    }
}
