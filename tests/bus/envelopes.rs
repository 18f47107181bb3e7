//! Envelopes between nodes: which node receives and confirms them, and which users are where.

use std::sync::Arc;

use raybox::base::ids::FrameId;
use raybox::bus::{Envelope, Published};
use raybox::delivery::{Comeback, Delivery, DeliveryOrigin};
use raybox::protocol::GroupId;
use testkit::{Redis, wait_until};

use crate::peer::{ANN, BOB, Heard, Peer, delivery, wait_until_both_want_ann};

#[test]
fn an_envelope_reaches_the_node_that_has_its_user_and_is_confirmed() {
    let redis = Redis::start();
    let (one, two, three) = (Peer::start(&redis), Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    assert_eq!(one.publish(ANN, 41, &["{\"a\":1}", "{}"]), Published::ToOne);
    two.notes.wait_for(&Heard::Envelope(ANN, "{\"a\":1}\n{}".to_owned()));
    one.notes.wait_for(&Heard::Confirmed(41));
    assert_eq!(one.publish(BOB, 42, &["{}"]), Published::ToNobody);
    // The third node's next event is its first one, so no envelope has reached it.
    one.bus.group_changed(GroupId(3));
    three.notes.wait_for(&Heard::Group(GroupId(3)));
    let heard = three.notes.heard.lock().expect("notes");
    let heard: Vec<_> = heard.iter().filter(|heard| **heard != Heard::Rejoined).collect();
    assert_eq!(heard, [&Heard::Group(GroupId(3))]);
}

#[test]
fn returned_messages_come_as_such_and_are_confirmed() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    one.welcome(ANN);
    two.welcome(ANN);
    wait_until_both_want_ann(&redis);
    let deliveries = vec![delivery(ANN, "{}")];
    let envelope = Envelope { to: ANN, place: None, sequence: 43, is_returned: true, is_recorded: false, deliveries };
    assert_eq!(one.bus.publish(&[envelope]), [Published::Taken(2)]);
    two.notes.wait_for(&Heard::Returned(ANN, "{}".to_owned()));
    one.notes.wait_for(&Heard::Confirmed(43));
    one.notes.wait_for(&Heard::Refused(43, 0));
}

#[test]
fn envelopes_for_a_place_go_there_in_one_message_with_each_text_once() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    two.welcome(BOB);
    let place = one.find(ANN, 1);
    let text: Arc<str> = "{\"g\":1}".into();
    let envelopes = [(ANN, 2), (BOB, 3)].map(|(to, sequence)| {
        let deliveries =
            vec![Delivery::new(to, text.clone(), DeliveryOrigin::Returned(FrameId::UNNAMED, Comeback::InOrder))];
        Envelope { to, place: Some(place.clone()), sequence, is_returned: false, is_recorded: false, deliveries }
    });
    let watched = redis.watch_published();
    assert_eq!(one.bus.publish(&envelopes), [Published::Taken(1); 2]);
    for (user, sequence) in [(ANN, 2), (BOB, 3)] {
        two.notes.wait_for(&Heard::Envelope(user, text.to_string()));
        one.notes.wait_for(&Heard::Confirmed(sequence));
    }
    const END: &str = "raybox-test-end";
    let _: usize = redis::cmd("PUBLISH").arg(END).arg("e").query(&mut redis.connect()).expect("publish the end");
    let to_place = watched.take_while(|(channel, _)| channel != END).filter(|(_, payload)| payload.starts_with("1 "));
    let to_place: Vec<_> = to_place.collect();
    assert_eq!(to_place.len(), 1, "{to_place:?}");
    assert_eq!(to_place[0].1.matches("g").count(), 1, "{to_place:?}");
}

#[test]
fn a_user_who_leaves_and_comes_back_has_no_place_for_a_while() {
    let redis = Redis::start();
    let (one, two, three) = (Peer::start(&redis), Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let place = one.find(ANN, 1);
    two.leave(ANN);
    // The second node does not receive this announcement, because its user is not here now.
    three.welcome(ANN);
    two.welcome(ANN);
    wait_until_both_want_ann(&redis);
    assert_eq!(one.publish_at(Some(place), ANN, 2, &["{}"]), Published::Taken(1));
    one.notes.wait_for(&Heard::Refused(2, 0));
    three.leave(ANN);
    assert_eq!(one.publish(ANN, 3, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(3));
    assert_eq!(one.notes.last_place(), None, "somebody may still think that it was alone before");
}

#[test]
fn a_place_refuses_envelopes_for_a_user_who_is_also_elsewhere() {
    let redis = Redis::start();
    let (one, two, three) = (Peer::start(&redis), Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let place = one.find(ANN, 1);
    assert_eq!(one.publish_at(Some(place.clone()), ANN, 2, &["{}"]), Published::Taken(1));
    one.notes.wait_for(&Heard::Confirmed(2));
    three.welcome(ANN);
    // The announcement of node three arrives before anything that node one sends after it.
    wait_until("three has said that it has the user too", || {
        one.publish_at(Some(place.clone()), ANN, 3, &["{\"alone\":true}"]);
        one.notes.count(&Heard::Refused(3, 0)) > 0
    });
    assert_eq!(one.publish(ANN, 4, &["{\"both\":1}"]), Published::Taken(2));
    for peer in [&two, &three] {
        peer.notes.wait_for(&Heard::Envelope(ANN, "{\"both\":1}".to_owned()));
    }
}

#[test]
fn a_node_that_has_lost_its_connection_is_another_place() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    let place = one.find(ANN, 1);
    let rejoined = two.notes.count(&Heard::Rejoined);
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query::<u32>(&mut redis.connect());
    assert_eq!(kill, Ok(2), "both nodes listen");
    wait_until("both are back", || two.notes.count(&Heard::Rejoined) >= rejoined + 2 && one.bus.is_ready());
    wait_until("the user is wanted again", || one.bus.elsewhere(&[ANN]) == Ok(vec![ANN]));
    assert_eq!(one.publish_at(Some(place.clone()), ANN, 2, &["{}"]), Published::ToNobody);
    assert_ne!(one.find(ANN, 3), place);
}

#[test]
fn an_envelope_that_finds_nobody_is_refused_and_not_confirmed() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    two.notes.here.lock().expect("notes").clear();
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    wait_until("it has come", || !two.notes.refused.lock().expect("notes").is_empty());
    let receipt = two.notes.refused.lock().expect("notes").remove(0);
    two.bus.refuse(receipt, 3);
    one.notes.wait_for(&Heard::Refused(1, 3));
    two.welcome(ANN);
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Confirmed(2));
    assert_eq!(one.notes.count(&Heard::Confirmed(1)), 0);
}

#[test]
fn a_node_does_not_deliver_its_own_envelope() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    one.welcome(ANN);
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToOne);
    one.notes.wait_for(&Heard::Refused(1, 0));
    two.welcome(ANN);
    wait_until_both_want_ann(&redis);
    assert_eq!(one.publish(ANN, 2, &["{}"]), Published::Taken(2));
    one.notes.wait_for(&Heard::Confirmed(2));
    one.notes.wait_for(&Heard::Refused(2, 0));
    assert_eq!(one.notes.count(&Heard::Envelope(ANN, "{}".to_owned())), 0);
}

#[test]
fn no_node_subscribes_for_a_user_who_has_left() {
    let redis = Redis::start();
    let (one, two) = (Peer::start(&redis), Peer::start(&redis));
    two.welcome(ANN);
    two.welcome(BOB);
    two.bus.unsubscribe(ANN);
    two.notes.wait_for(&Heard::Left(ANN));
    assert_eq!(one.publish(ANN, 1, &["{}"]), Published::ToNobody);
    assert_eq!(one.publish(BOB, 2, &["{}"]), Published::ToOne);
    // Logins and logouts are processed in order.
    for _ in 0..50 {
        two.bus.unsubscribe(BOB);
        two.bus.subscribe(BOB, None);
    }
    two.bus.subscribe(ANN, None);
    wait_until("all is done", || one.bus.elsewhere(&[ANN, BOB]) == Ok(vec![ANN, BOB]));
}
