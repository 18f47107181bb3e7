mod places;
mod returned;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::base::conversation::ConversationId;
use crate::base::ids::FrameId;
use crate::bus::peer::UNKNOWN_FOR;
use crate::bus::{CONFIRMED_WITHIN, PLACE_LEASE};
use crate::store::spool::SpoolId;

/// A short limit on envelopes, so that some users have several.
const LITTLE: usize = 200;

/// A bus that answers as told, and records what it was offered.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Published>>,
    offered: Mutex<Vec<(u64, UserId, Vec<String>)>>,
    places: Mutex<Vec<Option<Place>>>,
    /// The time after a publication, if the bus is slow.
    stands_still: Mutex<Option<(Clock, Instant)>>,
}

impl Publisher for Script {
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        if let Some((clock, until)) = self.stands_still.lock().take() {
            clock.set(until);
        }
        let mut answers = self.answers.lock();
        let mut published = Vec::new();
        for envelope in envelopes {
            let texts = envelope.deliveries.iter().map(|delivery| delivery.text.to_string()).collect();
            self.offered.lock().push((envelope.sequence, envelope.to, texts));
            self.places.lock().push(envelope.place.clone());
            published.push(match answers.pop_front() {
                Some(Published::Taken(nodes)) => envelope.published_to(nodes),
                answer => answer.unwrap_or(Published::ToNobody),
            });
        }
        published
    }
}

struct Tester {
    outbox: Outbox,
    bus: Script,
    now: Instant,
}

impl Tester {
    fn new() -> Tester {
        let now = Instant::now();
        Tester { outbox: Outbox::new(LITTLE), bus: Script::default(), now }
    }

    /// Returns the messages stored and those delivered by a batch.
    fn handle(&mut self, batch: Vec<OutItem>, answers: &[Published]) -> (Vec<String>, Vec<String>) {
        self.bus.answers.lock().extend(answers);
        let sorted = self.outbox.handle(batch, &Clock::standing_at(self.now), &self.bus);
        assert_eq!(sorted.again.is_some(), self.outbox.in_flight() > 0, "late envelopes are looked for");
        let keep = sorted.keep.into_iter().map(text).collect();
        (keep, sorted.delivered.into_iter().map(|delivery| delivery.text.to_string()).collect())
    }

    fn offered(&self) -> Vec<(u64, UserId, Vec<String>)> {
        std::mem::take(&mut *self.bus.offered.lock())
    }
}

fn text(item: LaneItem) -> String {
    match item {
        LaneItem::Delivery(delivery) => delivery.text.to_string(),
        LaneItem::Work(user, _) => format!("work for {user}"),
        LaneItem::Answer(user, _) => format!("answer about {user}"),
    }
}

fn message(to: i32, text: &str) -> OutItem {
    came_back(to, text, DeliveryOrigin::Spooled(SpoolId(1), None))
}

fn work(user: i32) -> OutItem {
    OutItem::Lane(LaneItem::Work(UserId(user), Box::new(|_| ())))
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn came_back(to: i32, text: &str, origin: DeliveryOrigin) -> OutItem {
    OutItem::Lane(LaneItem::Delivery(Delivery::new(UserId(to), text.into(), origin)))
}

const TAKEN: Published = Published::Taken(1);
const NOBODY: Published = Published::ToNobody;

fn place(name: &str) -> Option<Place> {
    Some(name.into())
}

fn returned(to: i32, text: &str, comeback: Comeback) -> OutItem {
    came_back(to, text, DeliveryOrigin::Returned(FrameId::UNNAMED, comeback))
}

fn followed(to: i32, text: &str) -> OutItem {
    returned(to, text, Comeback::Elsewhere)
}

/// The places of the envelopes offered since the last call.
fn places_of(tester: &Tester) -> Vec<Option<Place>> {
    std::mem::take(&mut *tester.bus.places.lock())
}

#[test]
fn envelopes_for_nobody_are_stored_and_taken_ones_wait_for_their_confirmation() {
    let mut tester = Tester::new();
    let batch = vec![message(1, "a"), message(2, "b"), message(1, "c")];
    assert_eq!(tester.handle(batch, &[TAKEN, NOBODY]), (strings(&["b"]), vec![]));
    let offered = [(1, UserId(1), strings(&["a", "c"])), (2, UserId(2), strings(&["b"]))];
    assert_eq!(tester.offered(), offered, "one envelope for each user");
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1, 2, 9])], &[]), (vec![], strings(&["a", "c"])));
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1])], &[]), (vec![], vec![]), "once is enough");
}

#[test]
fn an_envelope_that_is_not_confirmed_in_time_is_stored() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.now += CONFIRMED_WITHIN / 2;
    tester.handle(vec![message(1, "b"), message(2, "c")], &[Published::InDoubt, TAKEN]);
    tester.now += CONFIRMED_WITHIN / 2;
    assert_eq!(tester.handle(vec![], &[]), (strings(&["a"]), vec![]));
    tester.now += CONFIRMED_WITHIN / 2;
    let late = tester.handle(vec![OutItem::Confirmed(None, vec![3])], &[]);
    assert_eq!(late, (strings(&["b"]), strings(&["c"])), "a confirmation that has come counts");
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1, 2])], &[]), (vec![], vec![]), "too late");
}

#[test]
fn unwanted_messages_stay_behind_those_in_flight() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    assert_eq!(tester.handle(vec![message(1, "b")], &[NOBODY]), (vec![], vec![]));
    tester.offered();
    assert_eq!(tester.handle(vec![message(1, "c")], &[TAKEN]), (vec![], vec![]));
    assert_eq!(tester.offered(), [], "it must not overtake the one that waits");
    tester.now += CONFIRMED_WITHIN;
    assert_eq!(tester.handle(vec![], &[]), (strings(&["a", "b", "c"]), vec![]));
}

#[test]
fn messages_that_waited_behind_a_confirmed_envelope_are_offered_again() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b")], &[NOBODY]);
    tester.offered();
    let confirmed = vec![message(1, "c"), OutItem::Confirmed(None, vec![1])];
    assert_eq!(tester.handle(confirmed, &[NOBODY]), (strings(&["b", "c"]), strings(&["a"])));
    assert_eq!(tester.offered(), [(3, UserId(1), strings(&["b", "c"]))]);
}

#[test]
fn an_unwanted_message_is_not_sent_after_one_that_was_taken_behind_it() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "in flight")], &[TAKEN]);
    let long = |text: &str| text.repeat(LITTLE);
    let two = vec![message(1, &long("a")), message(1, &long("b"))];
    assert_eq!(tester.handle(two, &[NOBODY, TAKEN]), (vec![], vec![]), "the user comes in between");
    tester.offered();
    let confirmed = vec![OutItem::Confirmed(None, vec![1]), OutItem::Confirmed(None, vec![3])];
    let delivered = strings(&["in flight", &long("b")]);
    assert_eq!(tester.handle(confirmed, &[TAKEN]), (strings(&[&long("a")]), delivered));
    assert_eq!(tester.offered(), []);
}

#[test]
fn work_comes_after_the_messages_before_it_and_before_those_after() {
    let mut tester = Tester::new();
    let batch = vec![message(1, "a"), message(2, "b"), work(1), message(1, "c"), work(3)];
    let (kept, _) = tester.handle(batch, &[]);
    assert_eq!(kept, strings(&["a", "b", "work for 1", "work for 3", "c"]));
}

#[test]
fn a_refused_envelope_is_stored_unless_another_node_has_it() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a"), message(1, "b"), message(2, "c")], &[TAKEN, Published::Taken(2)]);
    let refused = vec![OutItem::Refused(1, 1), OutItem::Refused(2, 0)];
    assert_eq!(tester.handle(refused, &[]), (strings(&["b"]), strings(&["a"])), "one of them was delivered");
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![2])], &[]), (vec![], strings(&["c"])));
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0), OutItem::Refused(7, 3)], &[]), (vec![], vec![]));
}

#[test]
fn a_refused_envelope_is_offered_once_more_and_no_more() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b")], &[NOBODY]);
    tester.offered();
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0), message(1, "c")], &[TAKEN]), (vec![], vec![]));
    assert_eq!(tester.offered(), [(3, UserId(1), strings(&["a", "b", "c"]))], "the user has gone to another node");
    let refused = tester.handle(vec![OutItem::Refused(3, 1), message(1, "d")], &[TAKEN]);
    assert_eq!(refused, (strings(&["b", "c"]), strings(&["a"])));
}

#[test]
fn a_refused_envelope_does_not_arrive_after_newer_ones() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b")], &[TAKEN]);
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]));
    assert_eq!(tester.handle(vec![message(1, "c")], &[]), (vec![], vec![]));
    let confirmed = tester.handle(vec![OutItem::Confirmed(None, vec![2])], &[]);
    assert_eq!(confirmed, (strings(&["a", "c"]), strings(&["b"])));
}

#[test]
fn envelopes_refused_one_after_the_other_are_offered_again_together() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b")], &[TAKEN]);
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]));
    assert_eq!(tester.handle(vec![message(1, "c")], &[]), (vec![], vec![]));
    tester.offered();
    assert_eq!(tester.handle(vec![OutItem::Refused(2, 0)], &[TAKEN]), (vec![], vec![]));
    assert_eq!(tester.offered(), [(3, UserId(1), strings(&["a", "b", "c"]))]);
}

#[test]
fn an_envelope_has_no_more_text_than_the_limit_allows() {
    let mut tester = Tester::new();
    let texts = ["a", "b", "c"].map(|text| text.repeat(LITTLE / 2));
    tester.handle(texts.iter().map(|text| message(1, text)).collect(), &[TAKEN, TAKEN]);
    let offered: Vec<_> = tester.offered().into_iter().map(|(_, _, texts)| texts).collect();
    assert_eq!(offered, [texts[..2].to_vec(), texts[2..].to_vec()]);
}

#[test]
fn two_nodes_that_deliver_a_part_each_do_not_make_a_whole() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a"), message(1, "b"), message(1, "c")], &[Published::Taken(2)]);
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 1)], &[]), (vec![], strings(&["a"])));
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 2)], &[]), (strings(&["c"]), strings(&["b"])));
}

#[test]
fn a_fetch_waits_for_what_is_on_its_way_and_an_answer_to_another_node_does_not() {
    let mut tester = Tester::new();
    let answer = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
    let batch = vec![message(1, "a"), work(1), answer(), message(1, "b")];
    assert_eq!(tester.handle(batch, &[TAKEN]), (strings(&["answer about 1"]), vec![]));
    tester.now += CONFIRMED_WITHIN;
    assert_eq!(tester.handle(vec![], &[]), (strings(&["a", "work for 1", "b"]), vec![]));
}

#[test]
fn a_refused_envelope_is_stored_after_those_in_flight_before_it() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b")], &[TAKEN]);
    tester.handle(vec![message(1, "c")], &[NOBODY]);
    assert_eq!(tester.handle(vec![OutItem::Refused(2, 0)], &[]), (vec![], vec![]));
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (strings(&["a", "b", "c"]), vec![]));
}

#[test]
fn only_time_settles_what_is_in_doubt_and_refused() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[Published::InDoubt]);
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]));
    tester.now += CONFIRMED_WITHIN;
    assert_eq!(tester.handle(vec![], &[]), (strings(&["a"]), vec![]));
}

#[test]
fn envelopes_that_a_frozen_bus_leaves_in_doubt_are_settled_within_the_usual_time() {
    let millis = Duration::from_millis;
    for (took, left) in [(0, 2000), (1500, 1500), (2500, 1000)] {
        let (took, left) = (millis(took), millis(left));
        let mut tester = Tester::new();
        tester.bus.answers.lock().push_back(Published::InDoubt);
        let clock = Clock::standing_at(tester.now);
        *tester.bus.stands_still.lock() = Some((clock.clone(), tester.now + took));
        tester.outbox.handle(vec![message(1, "a")], &clock, &tester.bus);
        tester.now += took + left - millis(1);
        assert_eq!(tester.handle(vec![], &[]), (vec![], vec![]), "{took:?}");
        tester.now += millis(1);
        assert_eq!(tester.handle(vec![], &[]), (strings(&["a"]), vec![]), "{took:?}");
    }
}

#[test]
fn one_envelope_does_not_grow_without_bound() {
    let mut tester = Tester::new();
    let long = "x".repeat(LITTLE / 2 + 1);
    tester.handle(vec![message(1, &long), message(1, &long), message(1, "y")], &[TAKEN, TAKEN]);
    let lengths: Vec<_> = tester.offered().iter().map(|(_, _, texts)| texts.len()).collect();
    assert_eq!(lengths, [1, 2]);
}

#[test]
fn the_next_look_is_when_the_oldest_envelope_is_late_and_not_at_once() {
    let mut tester = Tester::new();
    let begun = tester.now;
    let again = |tester: &mut Tester, batch| {
        tester.bus.answers.lock().push_back(TAKEN);
        tester.outbox.handle(batch, &Clock::standing_at(tester.now), &tester.bus).again
    };
    assert_eq!(again(&mut tester, vec![message(1, "a")]), Some(CONFIRMED_WITHIN));
    tester.now = begun + CONFIRMED_WITHIN / 2;
    assert_eq!(again(&mut tester, vec![message(2, "b")]), Some(CONFIRMED_WITHIN / 2), "the first one");
    tester.now = begun + CONFIRMED_WITHIN - Duration::from_millis(1);
    assert_eq!(again(&mut tester, vec![]), Some(SHORTEST_PAUSE));
}

#[test]
fn every_message_of_an_envelope_that_nobody_confirms_is_counted() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a"), message(1, "b")], &[TAKEN]);
    tester.now += CONFIRMED_WITHIN;
    let sorted = tester.outbox.handle(vec![], &Clock::standing_at(tester.now), &tester.bus);
    assert_eq!((sorted.unconfirmed, sorted.keep.len()), (2, 2));
}

#[test]
fn three_nodes_that_deliver_more_and_more_of_an_envelope_deliver_no_message_twice() {
    let mut tester = Tester::new();
    let batch = ["a", "b", "c", "d"].map(|text| message(1, text)).into();
    tester.handle(batch, &[Published::Taken(3)]);
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 1)], &[]), (vec![], strings(&["a"])));
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 2)], &[]), (vec![], strings(&["b"])));
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 3)], &[]), (strings(&["d"]), strings(&["c"])));
}

#[test]
fn a_refused_envelope_is_stored_when_a_single_newer_message_was_delivered() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b"), message(1, "c")], &[Published::Taken(2)]);
    assert_eq!(tester.handle(vec![OutItem::Refused(2, 1)], &[]), (vec![], strings(&["b"])));
    tester.offered();
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[TAKEN]), (strings(&["a"]), vec![]));
    assert_eq!(tester.offered(), [], "it would come after the newer one");
}

#[test]
fn messages_left_by_a_panic_are_stored_in_order_and_their_answers_settle_nothing_newer() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![message(1, "b"), work(1)], &[TAKEN]);
    let (outbox, left) = tester.outbox.begin_again();
    tester.outbox = outbox;
    let texts: Vec<_> = left.into_iter().map(text).collect();
    assert_eq!(texts, ["a", "b", "work for 1"]);
    tester.handle(vec![message(1, "c")], &[TAKEN]);
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![1, 2])], &[]), (vec![], vec![]));
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![3])], &[]), (vec![], strings(&["c"])));
}

#[derive(Clone, Debug)]
enum Act {
    Send(i32),
    /// A message that was sent on this node meanwhile comes back.
    Return(i32),
    Confirm(usize),
    Refuse(usize),
    Wait,
}

proptest! {
    /// Every message comes out once for any behaviour of the bus, and messages stored for a
    /// user come out in the order sent.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(
        acts in prop::collection::vec(
            prop_oneof![
                8 => (1..4).prop_map(Act::Send),
                2 => (1..4).prop_map(Act::Return),
                3 => (0_usize..4).prop_map(Act::Confirm),
                2 => (0_usize..4).prop_map(Act::Refuse),
                1 => Just(Act::Wait),
            ],
            0..80,
        ),
        answers in prop::collection::vec(prop::sample::select(vec![TAKEN, NOBODY, Published::InDoubt]), 80),
    ) {
        let mut tester = Tester::new();
        tester.bus.answers.lock().extend(answers);
        let (mut sent, mut kept, mut delivered) = (0, Vec::new(), Vec::new());
        let mut in_flight: Vec<u64> = Vec::new();
        for act in acts.into_iter().chain([Act::Wait, Act::Wait]) {
            let batch = match act {
                Act::Send(to) => {
                    sent += 1;
                    vec![message(to, &format!("{to} {sent:03}"))]
                }
                Act::Return(to) => {
                    sent += 1;
                    vec![returned(to, &format!("{to} {sent:03}"), Comeback::InOrder)]
                }
                Act::Confirm(nth) if nth < in_flight.len() => {
                    vec![OutItem::Confirmed(place("x-1"), vec![in_flight.remove(nth)])]
                }
                Act::Refuse(nth) if nth < in_flight.len() => vec![OutItem::Refused(in_flight.remove(nth), 0)],
                Act::Confirm(_) | Act::Refuse(_) => vec![],
                Act::Wait => {
                    tester.now += CONFIRMED_WITHIN;
                    vec![]
                }
            };
            let (keep, done) = tester.handle(batch, &[]);
            kept.extend(keep);
            delivered.extend(done);
            in_flight.extend(tester.offered().into_iter().map(|(sequence, ..)| sequence));
        }
        prop_assert_eq!(tester.outbox.in_flight(), 0);
        for user in ["1 ", "2 ", "3 "] {
            let of_user: Vec<_> = kept.iter().filter(|text| text.starts_with(user)).collect();
            prop_assert!(of_user.is_sorted(), "{:?}", of_user);
        }
        let mut all: Vec<_> = kept.into_iter().chain(delivered).collect();
        prop_assert_eq!(all.len(), sent);
        all.sort();
        all.dedup();
        prop_assert_eq!(all.len(), sent);
    }
}

#[test]
fn recorded_and_unrecorded_messages_have_envelopes_of_their_own() {
    let mut offers = Offers::new(1000);
    let conv = Some(ConversationId::between(UserId(1), UserId(2)));
    for recorded in [None, conv, conv, None] {
        offers.add(Delivery::new(UserId(1), "{}".into(), DeliveryOrigin::Spooled(SpoolId(1), recorded)));
    }
    let envelopes: Vec<_> =
        offers.envelopes.iter().map(|envelope| (envelope.is_recorded, envelope.deliveries.len())).collect();
    assert_eq!(envelopes, [(false, 1), (true, 2), (false, 1)]);
}
