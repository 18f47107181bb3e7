//! Messages that the store refuses, or that a mailbox has no room for.

use super::*;

#[test]
fn messages_that_the_store_would_not_take_are_refused_at_the_door() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    let long = "x".repeat(LONGEST + 1);
    node.send(&[(1, "a"), (1, &long), (1, "b")]);
    assert_eq!((node.failed(), node.spooled()), (1, 2));
}

#[test]
fn a_message_that_is_refused_for_ever_is_set_aside_and_one_for_nobody_dropped() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    node.send(&[(1, "a"), (1, "poison"), (NOBODY.0, "b"), (1, "c")]);
    *store.is_away.lock() = false;
    node.work_for(LONG);
    assert_eq!(node.kept_for(1), strings("ac"));
    assert_eq!(node.disk.load(), SpoolLoad { messages: 1, bytes: MESSAGE_BYTES + 6, aside: 1 });
    assert_eq!(node.count(r#"raybox_spool_total{what="aside"}"#), 1);
    assert_eq!(node.count(r#"raybox_spool_total{what="dropped"}"#), 1);
    assert_eq!(node.count(r#"raybox_deliveries_total{path="unknown"}"#), 1);
    node.send(&[(1, "d")]);
    assert_eq!(node.kept_for(1), strings("acd"), "the lane is past the spool");
    assert_eq!(node.fetch(1), MailboxState::Whole);
    drop(node);
    let node = Node::start(&folder, &store, 1, ROOM);
    assert_eq!(node.disk.load().aside, 0, "the database may have been put right");
}

#[test]
fn a_message_that_is_refused_alone_is_tried_for_a_while_and_blocks_nobody_for_ever() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    node.send(&[(1, "poison")]);
    *store.is_away.lock() = false;
    node.work_for(3 * LONGEST_PAUSE);
    assert_eq!(node.disk.load().aside, 0, "perhaps the database refuses everything");
    node.work_for(LONG);
    assert_eq!(node.disk.load().aside, 1);
    assert_eq!(node.fetch(1), MailboxState::Whole);
}

#[test]
fn a_single_message_of_an_earlier_run_is_stored_and_one_of_two_is_not_refused_with_the_other() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    node.send(&[(1, "poison"), (1, "a")]);
    assert_eq!((node.kept_for(1), node.failed()), (strings("a"), 1));
    *store.is_away.lock() = true;
    node.send(&[(1, "b")]);
    drop(node);
    *store.is_away.lock() = false;
    let mut node = Node::start(&folder, &store, 1, ROOM);
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.spooled()), (strings("ab"), 0));
}

fn holder() -> Holder {
    Holder { payer: Payer::Account(UserId(3)), source: Source::of([192, 0, 2, 1].into()) }
}

/// A frame for a group, with one delivery to this user on its way.
fn group_frame(to: i32) -> (Arc<Fan>, LaneItem) {
    let link = net::simulation::link_to_nowhere().unwrap();
    let berth = Berths::new(1 << 20).take(holder(), 1).unwrap();
    let provenance = Provenance { sender: &link, id: FrameId::first_of(1), holder: holder() };
    let fan = Fan::new(&provenance, GroupId(1), 1, berth);
    let share = fan.add(1).unwrap();
    (fan, from(DeliveryOrigin::Group(share), to, "g"))
}

#[test]
fn a_message_for_nobody_has_not_failed_and_one_that_is_too_long_has() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    let (fan, item) = group_frame(NOBODY.0);
    node.handle(vec![item]);
    assert_eq!(fan.all_under_way([]), Some(Ok(())));
    let (fan, item) = group_frame(1);
    let LaneItem::Delivery(delivery) = item else { unreachable!("it is one") };
    node.handle(vec![LaneItem::Delivery(Delivery { text: "long".into(), ..delivery })]);
    assert_eq!(fan.all_under_way([]), Some(Err(Undelivered::Unstored)));
    assert_eq!(node.failed(), 1);
}

#[test]
fn a_spooled_message_that_has_become_too_long_is_set_aside() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    node.send(&[(1, "long"), (1, "a")]);
    *store.is_away.lock() = false;
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.disk.load().aside), (strings("a"), 1));
}

#[test]
fn a_database_that_refuses_everything_is_not_asked_about_each_message() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    node.send(&[(1, "poison"); 64]);
    assert_eq!(node.failed(), 64);
    assert!(store.appends.load(Ordering::Relaxed) <= 20);
}

#[test]
fn a_refusal_of_an_unavailable_database_is_not_about_the_message() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    store.failures.lock().push_back(Some(StoreError::Failed("for whatever reason".into())));
    node.handle(vec![returned("a")]);
    assert_eq!((node.spooled(), node.count("raybox_unstored_messages")), (0, 1));
}

#[test]
fn a_message_that_the_database_alone_refuses_is_spooled_only_if_nobody_would_send_it_again() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    node.send(&[(1, "poison")]);
    assert_eq!((node.spooled(), node.failed()), (0, 1));
    node.handle(vec![returned("poison")]);
    assert_eq!((node.spooled(), node.failed()), (1, 1));
}

#[test]
fn a_message_that_is_refused_alone_is_set_aside_after_a_bounded_number_of_tries() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    node.send(&[(1, "poison")]);
    *store.is_away.lock() = false;
    store.appends.store(0, Ordering::Relaxed);
    let try_until = |node: &mut Node, tries| {
        while store.appends.load(Ordering::Relaxed) < tries {
            assert_eq!(node.disk.load().aside, 0, "too early");
            node.now += 2 * LONGEST_PAUSE;
            node.lanes[0].handle(Vec::new(), node.now, &node.parts);
        }
    };
    *node.disk.is_broken.lock() = true;
    try_until(&mut node, REFUSALS_MAX);
    *node.disk.is_broken.lock() = false;
    try_until(&mut node, 2 * REFUSALS_MAX);
    assert_eq!(node.disk.load().aside, 1, "what could not be set aside is tried as often again");
}

#[test]
fn members_with_full_mailboxes_are_not_counted_as_failed() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    node.parts.quotas = Arc::new(Quotas::new(0));
    let (_fan, of_group) = group_frame(1);
    let link = net::simulation::link_to_nowhere().unwrap();
    let provenance = Provenance { sender: &link, id: FrameId::first_of(2), holder: holder() };
    let berth = Berths::new(1 << 20).take(holder(), 1).unwrap();
    node.handle(vec![of_group, from(DeliveryOrigin::Sender(Owed::to(&provenance, 1), berth), 1, "a")]);
    assert_eq!((node.count(r#"raybox_deliveries_total{path="left_out"}"#), node.failed()), (1, 1));
}
