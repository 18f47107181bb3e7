//! Envelopes that are addressed to the only place of their user.

use super::*;

#[test]
fn a_place_that_confirms_alone_is_addressed_until_it_refuses() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a"), message(2, "b")], &[TAKEN, Published::Taken(2)]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1, 2])], &[]);
    tester.handle(vec![message(1, "c"), message(2, "d")], &[TAKEN, TAKEN]);
    assert_eq!(places_of(&tester), [None, None, place("x-1"), None], "two nodes had the other one");
    tester.handle(vec![OutItem::Refused(3, 0)], &[TAKEN]);
    assert_eq!(places_of(&tester), [None], "and it is offered again");
    tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![5])], &[]);
    tester.handle(vec![message(1, "e")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None], "for a while nothing is believed");
    tester.now += UNKNOWN_FOR;
    tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![6]), message(1, "f")], &[TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![7])], &[]);
    tester.handle(vec![message(1, "g")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None, place("y-1")]);
    tester.now += PLACE_LEASE;
    tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![8]), message(1, "h")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None], "now and then it is asked for");
}

#[test]
fn a_place_is_learned_only_from_a_node_that_was_alone_when_the_envelope_was_offered() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[Published::Taken(2)]);
    tester.handle(vec![OutItem::Refused(1, 0), OutItem::Confirmed(place("x-1"), vec![1])], &[]);
    tester.handle(vec![message(1, "b")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None, None], "the other one was just arriving");
}

#[test]
fn a_place_that_confirms_nothing_is_forgotten_for_all_its_users() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a"), message(2, "b")], &[TAKEN, TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1, 2])], &[]);
    tester.handle(vec![message(1, "c")], &[TAKEN]);
    tester.now += CONFIRMED_WITHIN;
    assert_eq!(tester.handle(vec![message(2, "d")], &[TAKEN]), (strings(&["c"]), vec![]));
    assert_eq!(places_of(&tester), [None, None, place("x-1"), None]);
}

#[test]
fn a_place_that_refuses_costs_no_try() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1])], &[]);
    tester.handle(vec![message(1, "b")], &[TAKEN]);
    tester.handle(vec![OutItem::Refused(2, 0)], &[TAKEN]);
    assert_eq!(tester.handle(vec![OutItem::Refused(3, 0)], &[TAKEN]), (vec![], vec![]), "the user is just arriving");
    assert_eq!(tester.handle(vec![OutItem::Refused(4, 0)], &[]), (strings(&["b"]), vec![]));
}

#[test]
fn an_envelope_to_a_place_that_is_gone_is_offered_to_all_at_once() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a"), message(2, "b")], &[TAKEN, TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1, 2])], &[]);
    tester.offered();
    let answers = [NOBODY, NOBODY, TAKEN, NOBODY];
    assert_eq!(tester.handle(vec![message(1, "c"), message(2, "d")], &answers), (strings(&["d"]), vec![]));
    assert_eq!(places_of(&tester), [None, None, place("x-1"), place("x-1"), None, None]);
    tester.handle(vec![OutItem::Confirmed(place("y-1"), vec![5]), message(2, "e")], &[NOBODY]);
    assert_eq!(places_of(&tester), [None], "a place that is gone costs one try only");
    tester.handle(vec![message(1, "f")], &[TAKEN]);
    assert_eq!(places_of(&tester), [place("y-1")], "the next place is learned");
}

#[test]
fn a_place_is_not_learned_again_from_an_envelope_that_was_addressed_to_it() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1]), message(1, "b")], &[TAKEN]);
    tester.handle(vec![message(1, "c")], &[NOBODY, TAKEN]);
    assert_eq!(places_of(&tester), [None, place("x-1"), place("x-1"), None], "the place has gone meanwhile");
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![2]), message(1, "d")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None]);
}

#[test]
fn a_place_is_not_learned_from_returned_messages() {
    let mut tester = Tester::new();
    tester.handle(vec![followed(1, "a")], &[TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1])], &[]);
    tester.handle(vec![message(1, "b")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None, None], "the user is just moving");
}
