//! [`Places`]: the next number in each conversation of a connection.
//!
//! On one connection the numbers of a conversation ascend without a gap. A missing number means a
//! fault of the server, or a push that was lost between its nodes. The client then does not take
//! the messages after it, and requests the missing ones with a 46.

#[cfg(test)]
use std::collections::BTreeMap;
use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use crate::conv::Conv;
use crate::frame::{Line, Run};

/// The last message of a conversation in a store, as a cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    pub(crate) seq: u64,
    pub(crate) tag: String,
}

/// The conversations of one connection.
#[derive(Default, Debug)]
pub(crate) struct Places {
    places: HashMap<Conv, ConversationPlace>,
    /// Conversations for the next 46.
    behind: BTreeSet<Conv>,
    /// Conversations of the last 46, until its 45.
    asked: BTreeSet<Conv>,
}

#[derive(Default, Debug)]
struct ConversationPlace {
    /// The last number in the store, and below its tag, if the store has a cursor.
    cursor: u64,
    tag: Option<String>,
    /// The number of the next message from the server.
    next: u64,
    /// Whether a run is needed and has not begun. Until it begins, no message beyond the cursor is
    /// taken.
    awaits_run: bool,
}

/// The tag of a cursor at 0.
const NO_TAG: &str = "00000000";

/// The treatment of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The store takes the message, because it is the next one.
    Take,
    /// The store has the message already.
    Known,
    /// An earlier message is missing, and is requested from the server.
    Hole,
}

impl Places {
    /// Begins a connection with these cursors, the most recently active conversation first. Returns
    /// those that fit into a login as `have`; a 46 follows for the others.
    pub(crate) fn begin(&mut self, cursors: impl IntoIterator<Item = (Conv, Cursor)>, bytes: usize) -> Value {
        *self = Places::default();
        let (mut have, mut left) = (Map::new(), bytes);
        for (conv, cursor) in cursors {
            let text = format!("{}:{}", cursor.seq, cursor.tag);
            let size = text.len() + 32;
            let fits = size <= left;
            if fits {
                left -= size;
                have.insert(conv.to_string(), Value::from(text));
            } else {
                self.behind.insert(conv);
            }
            let place = ConversationPlace {
                cursor: cursor.seq,
                tag: Some(cursor.tag),
                next: cursor.seq.saturating_add(1),
                awaits_run: !fits,
            };
            self.places.insert(conv, place);
        }
        Value::Object(have)
    }

    /// Handles a conversation of a 43. Returns whether it begins at its head, because the store has
    /// no cursor of it.
    pub(crate) fn on_line(&mut self, line: &Line) -> bool {
        let place = self.places.entry(line.conv).or_default();
        place.next = line.head + 1;
        let adopt = place.tag.is_none() && line.head > 0;
        if adopt {
            (place.cursor, place.tag) = (line.head, line.tag.clone());
        }
        adopt
    }

    /// Handles a 44, whose run begins at `from`.
    pub(crate) fn on_run(&mut self, run: &Run) {
        let place = self.places.entry(run.conv).or_default();
        if run.reset {
            // The store keeps nothing, but it has a number to ask from: the acknowledgement of an
            // own message may come before the run's messages, and must not take their place.
            (place.cursor, place.tag) = (0, Some(NO_TAG.to_owned()));
        }
        place.next = run.from;
        place.awaits_run = false;
    }

    /// Handles a conversation that no longer belongs to the user.
    pub(crate) fn on_closed(&mut self, conv: Conv) {
        self.places.remove(&conv);
        self.behind.remove(&conv);
    }

    /// Handles a message with a number. `may_jump`: with this message the user joins the group.
    pub(crate) fn on_number(&mut self, conv: Conv, seq: u64, tag: &str, may_jump: bool) -> Step {
        let place =
            self.places.entry(conv).or_insert_with(|| ConversationPlace { next: 1, ..ConversationPlace::default() });
        if seq <= place.cursor {
            place.next = place.next.max(seq + 1);
            return Step::Known;
        }
        let is_next = seq == place.cursor + 1 || (seq == place.next && !place.awaits_run);
        // A conversation without a cursor has no number to ask from. The store notes its missing
        // messages as a gap.
        if !is_next && !may_jump && place.tag.is_some() {
            place.awaits_run = true;
            // A run that is already requested brings this message as well.
            if !self.asked.contains(&conv) {
                self.behind.insert(conv);
            }
            return Step::Hole;
        }
        (place.cursor, place.tag, place.next) = (seq, Some(tag.to_owned()), seq + 1);
        Step::Take
    }

    /// The cursors for the next 46; `None` if no request is due.
    pub(crate) fn ask(&mut self, bytes: usize) -> Option<Value> {
        if self.behind.is_empty() || !self.asked.is_empty() {
            return None;
        }
        let (mut have, mut left) = (Map::new(), bytes);
        while let Some(conv) = self.behind.first().copied() {
            let place = self.places.get(&conv);
            if let Some((place, tag)) = place.and_then(|place| Some((place, place.tag.as_ref()?))) {
                let text = format!("{}:{tag}", place.cursor);
                let size = text.len() + 32;
                if size > left && !have.is_empty() {
                    break;
                }
                left = left.saturating_sub(size);
                have.insert(conv.to_string(), Value::from(text));
                self.asked.insert(conv);
            }
            self.behind.remove(&conv);
        }
        (!have.is_empty()).then_some(Value::Object(have))
    }

    /// Handles the 45 of a 46: conversations without a run have no messages after their cursors.
    pub(crate) fn on_synced(&mut self) {
        for conv in std::mem::take(&mut self.asked) {
            if let Some(place) = self.places.get_mut(&conv).filter(|place| place.awaits_run) {
                place.awaits_run = self.behind.contains(&conv);
                place.next = place.cursor + 1;
            }
        }
    }

    /// The number that the next message must have; `None` if this connection does not know the
    /// conversation.
    #[cfg(test)]
    pub(crate) fn next_of(&self, conv: Conv) -> Option<u64> {
        self.places.get(&conv).map(|place| place.next)
    }

    /// The cursors, by conversation.
    #[cfg(test)]
    pub(crate) fn cursors(&self) -> BTreeMap<Conv, u64> {
        self.places.iter().map(|(conv, place)| (*conv, place.cursor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BOB: Conv = Conv::User(9);
    const TEAM: Conv = Conv::Group(3);

    fn cursor(seq: u64) -> Cursor {
        Cursor { seq, tag: "0a".to_owned() }
    }

    fn line(conv: Conv, head: u64) -> Line {
        let tag = (head > 0).then(|| "0b".to_owned());
        Line { conv, head, floor: 0, tag, name: None, read: 0, unread: 0, peer_read: 0, peer_recv: 0, last: None }
    }

    fn run(conv: Conv, from: u64, reset: bool) -> Run {
        Run { conv, from, to: from, reset }
    }

    #[test]
    fn numbers_go_on_behind_the_cursor_the_head_or_at_one() {
        let mut places = Places::default();
        assert_eq!(places.begin([(BOB, cursor(5))], 1000), json!({"u9": "5:0a"}));
        assert!(!places.on_line(&line(BOB, 7)));
        places.on_run(&run(BOB, 6, false));
        let mut step = |conv, seq| places.on_number(conv, seq, "0c", false);
        assert_eq!(
            [step(BOB, 5), step(BOB, 6), step(BOB, 7), step(BOB, 7)],
            [Step::Known, Step::Take, Step::Take, Step::Known]
        );
        assert_eq!(step(Conv::User(1), 1), Step::Take, "in no 43");
        assert!(places.on_line(&line(TEAM, 40)), "it begins at its head");
        assert_eq!(places.on_number(TEAM, 41, "0c", false), Step::Take);
        assert!(!places.on_line(&line(Conv::Group(4), 0)), "an empty group has no tag");
        assert_eq!(places.on_number(Conv::Group(4), 1, "0c", false), Step::Take);
    }

    #[test]
    fn a_run_behind_a_gap_begins_where_it_says() {
        let mut places = Places::default();
        places.begin([(TEAM, cursor(7))], 1000);
        places.on_line(&line(TEAM, 207));
        places.on_run(&run(TEAM, 108, false));
        assert_eq!(places.on_number(TEAM, 108, "0c", false), Step::Take);
        assert_eq!(places.on_number(TEAM, 109, "0c", false), Step::Take);
    }

    #[test]
    fn a_hole_is_asked_for_and_nothing_beyond_it_is_taken() {
        let mut places = Places::default();
        places.begin([(BOB, cursor(5))], 1000);
        places.on_line(&line(BOB, 5));
        assert_eq!(places.on_number(BOB, 7, "0c", false), Step::Hole);
        assert_eq!(places.on_number(BOB, 8, "0c", false), Step::Hole);
        assert_eq!(places.ask(1000), Some(json!({"u9": "5:0a"})));
        assert_eq!(places.ask(1000), None, "it is asked for once");
        assert_eq!(places.on_number(BOB, 9, "0c", false), Step::Hole);
        places.on_run(&run(BOB, 6, false));
        let steps: Vec<Step> = (6..=9).map(|seq| places.on_number(BOB, seq, "0c", false)).collect();
        assert_eq!(steps, [Step::Take; 4]);
        places.on_synced();
        assert_eq!((places.ask(1000), places.next_of(BOB)), (None, Some(10)));
    }

    #[test]
    fn cursors_that_do_not_fit_into_the_login_are_asked_for_later() {
        let mut places = Places::default();
        let cursors = (1..=40).map(|id| (Conv::User(id), cursor(5)));
        let have = places.begin(cursors, 20 * 36);
        assert_eq!(have.as_object().map(Map::len), Some(20));
        for id in 1..=40 {
            assert!(!places.on_line(&line(Conv::User(id), 9)));
        }
        assert_eq!(places.on_number(Conv::User(40), 10, "0c", false), Step::Hole, "its run has not begun");
        let (mut asked, mut rounds) = (BTreeSet::new(), 0);
        while let Some(have) = places.ask(10 * 36) {
            asked.extend(have.as_object().expect("cursors").keys().cloned());
            places.on_synced();
            rounds += 1;
        }
        assert_eq!((asked.len(), rounds), (20, 2));
        assert_eq!(places.cursors().get(&Conv::User(40)), Some(&5));
    }

    #[test]
    fn another_history_begins_anew() {
        let mut places = Places::default();
        places.begin([(BOB, cursor(50))], 1000);
        places.on_line(&line(BOB, 20));
        places.on_run(&run(BOB, 3, true));
        assert_eq!(places.on_number(BOB, 3, "0c", false), Step::Take);
        places.on_closed(BOB);
        assert_eq!(places.next_of(BOB), None);
    }

    #[test]
    fn a_number_beyond_the_run_of_another_history_does_not_hide_it() {
        let mut places = Places::default();
        places.begin([(BOB, cursor(50)), (TEAM, cursor(50))], 1000);
        places.on_run(&run(BOB, 1, true));
        assert_eq!(places.on_number(BOB, 106, "0c", false), Step::Hole);
        let steps: Vec<Step> = (1..=105).map(|seq| places.on_number(BOB, seq, "0c", false)).collect();
        assert_eq!(steps, [Step::Take; 105]);
        assert_eq!(places.ask(1000), Some(json!({"u9": "105:0c"})));
        // A run that does not begin at 1 is asked for again.
        places.on_synced();
        places.on_run(&run(TEAM, 7, true));
        assert_eq!([8, 7].map(|seq| places.on_number(TEAM, seq, "0c", false)), [Step::Hole; 2]);
        assert_eq!(places.ask(1000), Some(json!({"g3": "0:00000000"})));
        places.on_run(&run(TEAM, 7, false));
        assert_eq!([7, 8].map(|seq| places.on_number(TEAM, seq, "0c", false)), [Step::Take; 2]);
    }

    #[test]
    fn a_user_who_joins_a_group_again_begins_there() {
        let mut places = Places::default();
        places.begin([(TEAM, cursor(5))], 1000);
        places.on_line(&line(TEAM, 5));
        assert_eq!(places.on_number(TEAM, 31, "0c", true), Step::Take);
        assert_eq!(places.on_number(TEAM, 32, "0c", false), Step::Take);
    }
}
