//! Frames for groups: who gets them, and what their sender hears.

use super::*;

#[test]
fn the_sender_of_a_group_message_does_not_get_it() {
    let mut scene = Scene::new();
    let clients = [1, 2, 3].map(|user| scene.log_in(UserId(user)));
    let members = [1, 2, 3].map(UserId);
    let frame = Scene::group(&members, 2, "{a}");
    let routed = scene.send_all(&frame, 2);
    scene.turn.flush();
    assert_eq!(routed, Routed::DONE);
    assert_eq!(clients.map(|client| client.got()), ["{a}", "", "{a}"]);
}

/// Sends a frame to more offline members than are handed out at once. `settle` gets the deliveries
/// of the first piece before the last one is handed out. Returns their number, and the fate of the
/// frame.
fn spread_with(lane_bytes_max: usize, settle: impl FnOnce(Vec<Delivery>)) -> (usize, Routed) {
    let mut scene = Scene::with_room(lane_bytes_max);
    let members: Arc<[UserId]> = (1..=members_at_once(3) as i32 + 1).map(UserId).collect();
    let except = *members.last().expect("there are many");
    let provenance = Provenance { sender: &scene.sender, id: FrameId::first_of(1), holder: holder(1) };
    let mut spread = Spread::new((GroupId(1), members), except, "{a}", &provenance);
    assert_eq!(fan_out::spread(&scene.router, &mut scene.turn, &mut spread), None, "more are left");
    let delivery = |item| if let LaneItem::Delivery(delivery) = item { delivery } else { unreachable!("a message") };
    let deliveries: Vec<Delivery> = scene.items().into_iter().map(delivery).collect();
    let count = deliveries.len();
    settle(deliveries);
    (count, fan_out::spread(&scene.router, &mut scene.turn, &mut spread).expect("all have been looked at"))
}

#[test]
fn a_group_message_that_only_full_mailboxes_have_kept_from_everybody_says_so_also_if_that_is_known_early() {
    let (count, routed) = spread_with(1 << 20, |all| delivery::settle_all(all, Err(Undelivered::MailboxFull)));
    assert!(count > 1);
    assert_eq!(routed, Routed::Settled(Err(Undelivered::MailboxFull)));
    let failed = |all| delivery::settle_all(all, Err(Undelivered::Unstored));
    assert_eq!(spread_with(1 << 20, failed).1, Routed::FAILED);
}

#[test]
fn a_group_message_fails_if_its_sender_has_no_room_for_one_of_the_members() {
    let done = |all| delivery::settle_all(all, Ok(()));
    assert_eq!(spread_with(2 * ("{a}".len() + DELIVERY_BYTES), done), (1, Routed::FAILED), "it has half of the room");
    assert_eq!(spread_with(1 << 20, done).1, Routed::DONE);
}

#[test]
fn a_sender_without_any_room_hears_so() {
    let mut scene = Scene::with_room(10);
    let others: Berth = scene.berths.take(holder(2), 10).expect("there is room");
    let members = [UserId(3)];
    let frame = Scene::group(&members, 1, "{a}");
    let routed = scene.send_all(&frame, 1);
    assert_eq!((routed, scene.send(UserId(3), "{a}")), (Routed::FAILED, Routed::FAILED));
    assert_eq!(scene.lane(), [""; 0]);
    drop(others);
}
