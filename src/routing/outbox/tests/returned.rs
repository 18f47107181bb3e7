//! Messages that a connection has returned.

use super::*;

#[test]
fn returned_messages_follow_their_user_to_another_node_and_are_stored_if_that_has_something_newer() {
    let answer = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
    let mut tester = Tester::new();
    let batch = vec![followed(1, "a"), followed(1, "b"), answer(), message(1, "c")];
    // The node itself receives it as well.
    assert_eq!(tester.handle(batch, &[Published::Taken(2)]), (vec![], vec![]));
    assert_eq!(tester.offered(), [(1, UserId(1), strings(&["a", "b"]))], "in one envelope, before anything newer");
    assert_eq!(tester.handle(vec![OutItem::Refused(1, 0)], &[]), (vec![], vec![]), "the node itself does not want it");
    let settled = tester.handle(vec![OutItem::Confirmed(None, vec![1])], &[TAKEN]);
    assert_eq!(settled, (strings(&["answer about 1"]), strings(&["a", "b"])));
    assert_eq!(tester.offered(), [(2, UserId(1), strings(&["c"]))]);

    let mut tester = Tester::new();
    tester.handle(vec![followed(1, "a"), followed(1, "b"), message(1, "c")], &[TAKEN, TAKEN]);
    let offered = [(1, UserId(1), strings(&["a", "b"])), (2, UserId(1), strings(&["c"]))];
    assert_eq!(tester.offered(), offered, "what is newer follows at once");
    let refused = tester.handle(vec![OutItem::Refused(1, 1)], &[]);
    assert_eq!(refused, (strings(&["b"]), strings(&["a"])), "it is not offered again");
    assert_eq!(tester.handle(vec![OutItem::Confirmed(None, vec![2])], &[]), (vec![], strings(&["c"])));

    let mut tester = Tester::new();
    assert_eq!(tester.handle(vec![followed(1, "a"), answer()], &[NOBODY]), (strings(&["a", "answer about 1"]), vec![]));
    tester.handle(vec![followed(1, "b")], &[TAKEN]);
    tester.now += CONFIRMED_WITHIN;
    assert_eq!(tester.handle(vec![], &[]), (strings(&["b"]), vec![]), "nothing confirms it");
}

#[test]
fn messages_that_return_late_are_stored_behind_what_was_sent_before_their_user_left_and_before_the_rest() {
    let left = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
    let late = || returned(1, "came back", Comeback::Late);
    let mut tester = Tester::new();
    let batch = vec![message(1, "before"), left(), message(1, "meanwhile"), late(), message(1, "after")];
    let kept = strings(&["before", "answer about 1", "came back", "meanwhile", "after"]);
    assert_eq!(tester.handle(batch, &[NOBODY, NOBODY]), (kept, vec![]));
    let offered: Vec<_> = tester.offered().into_iter().map(|(_, _, texts)| texts).collect();
    assert_eq!(offered, [strings(&["before"]), strings(&["meanwhile", "after"])]);
}

#[test]
fn returned_messages_are_stored_after_those_sent_before_their_user_came() {
    let answer = || OutItem::Lane(LaneItem::Answer(UserId(1), Box::new(|| ())));
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "to another node")], &[TAKEN]);
    let batch = vec![returned(1, "came back", Comeback::InOrder), answer(), message(1, "after")];
    assert_eq!(tester.handle(batch, &[]), (vec![], vec![]));
    tester.now += CONFIRMED_WITHIN;
    let kept = strings(&["to another node", "came back", "answer about 1", "after"]);
    assert_eq!(tester.handle(vec![], &[]), (kept, vec![]));

    let mut tester = Tester::new();
    tester.handle(vec![message(1, "to another node")], &[TAKEN]);
    tester.handle(vec![returned(1, "came back", Comeback::InOrder), answer(), message(1, "after")], &[]);
    let confirmed = tester.handle(vec![OutItem::Confirmed(None, vec![1])], &[TAKEN]);
    assert_eq!(confirmed, (strings(&["came back", "answer about 1"]), strings(&["to another node"])));
}

#[test]
fn messages_that_return_late_wait_for_nothing() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "newer")], &[TAKEN]);
    assert_eq!(tester.handle(vec![returned(1, "came back", Comeback::Late)], &[]), (strings(&["came back"]), vec![]));
}

#[test]
fn messages_that_follow_their_user_wait_for_those_in_flight_and_are_offered_to_all_nodes() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.offered();
    assert_eq!(tester.handle(vec![followed(1, "b")], &[TAKEN]), (vec![], vec![]));
    assert_eq!(tester.offered(), [], "what was sent before may come back");
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![1])], &[TAKEN]);
    assert_eq!(tester.offered().len(), 1);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![2]), message(1, "c")], &[TAKEN]);
    tester.handle(vec![OutItem::Confirmed(place("x-1"), vec![3]), followed(1, "d")], &[TAKEN]);
    assert_eq!(places_of(&tester), [None, None, place("x-1"), None], "the place may not be the newest");
}

#[test]
fn messages_that_follow_their_user_wait_for_refused_ones_and_those_offered_with_them() {
    let mut tester = Tester::new();
    tester.handle(vec![message(1, "a")], &[TAKEN]);
    tester.offered();
    assert_eq!(
        tester.handle(vec![OutItem::Refused(1, 0), followed(1, "b")], &[NOBODY, TAKEN]),
        (strings(&["a", "b"]), vec![]),
        "a is stored, and b must not be delivered before it"
    );
    tester.handle(vec![message(1, "c"), followed(1, "d"), followed(1, "e")], &[TAKEN]);
    assert_eq!(tester.offered().pop(), Some((3, UserId(1), strings(&["c"]))));
    tester.handle(vec![OutItem::Confirmed(None, vec![3])], &[TAKEN]);
    assert_eq!(tester.offered(), [(4, UserId(1), strings(&["d", "e"]))], "they go on together");
}
