//! Messages that come back from a connection: where they go, and in which order.

use super::*;

#[test]
fn messages_of_the_last_connection_are_stored_before_others_hear_that_nobody_is_here() {
    let mut scene = Scene::new();
    let client = scene.log_in(USER);
    client.blocks();
    scene.send(USER, "{a}");
    scene.told();
    scene.leave(USER, &client);
    assert_eq!(scene.told(), [""; 0]);
    assert_eq!(scene.lane(), ["{a} for 1 returned", "answer about 1"]);
    assert_eq!(scene.told(), ["unsubscribe 1"]);

    let client = scene.log_in(USER);
    scene.told();
    scene.leave(USER, &client);
    assert_eq!((scene.told(), scene.lane()), (vec!["unsubscribe 1".to_owned()], vec![]), "nothing has come back");
}

#[test]
fn messages_to_an_earlier_login_on_the_same_connection_come_back_late_and_first() {
    let mut scene = Scene::new();
    let client = scene.log_in(USER);
    client.is_silent();
    scene.send(USER, "{a}");
    scene.router.attendance().detach(&mut scene.turn, USER, &client.link);
    scene.router.attendance().attach(&mut scene.turn, USER, &client.link);
    scene.told();
    scene.leave(USER, &client);
    assert_eq!(scene.told(), [""; 0]);
    assert_eq!(scene.lane(), ["answer about 1", "{a} for 1 returned late", "answer about 1"]);
    scene.router.give_back(Label { user_has_left: true, ..Label::of(7) }, b"{b}".as_slice().into());
    assert_eq!(scene.lane(), ["{b} for 7 returned late"]);
}

#[test]
fn messages_of_the_newest_connection_go_to_the_next_one() {
    let mut scene = Scene::new();
    let (older, newest) = (scene.log_in(USER), scene.log_in(USER));
    newest.blocks();
    scene.send(USER, "{a}");
    scene.told();
    scene.leave(USER, &newest);
    assert_eq!((older.got(), scene.lane(), scene.told()), ("{a}".to_owned(), vec![], vec![]), "the user is still here");
}

#[test]
fn messages_of_an_older_connection_go_to_one_that_has_got_nothing_yet() {
    let mut scene = Scene::new();
    let older = scene.log_in(USER);
    older.blocks();
    scene.send(USER, "{a}");
    let newest = scene.log_in(USER);
    scene.leave(USER, &older);
    assert_eq!((newest.got(), scene.lane()), ("{a}".to_owned(), vec![]));

    let mut scene = Scene::new();
    let older = scene.log_in(USER);
    older.blocks();
    scene.send(USER, "{a}");
    let newest = scene.log_in(USER);
    scene.send(USER, "{b}");
    scene.leave(USER, &older);
    assert_eq!((newest.got(), scene.lane()), ("{b}".to_owned(), vec!["{a} for 1 returned".to_owned()]));
}

#[test]
fn messages_of_the_oldest_connection_do_not_follow_those_of_a_newer_one() {
    let mut scene = Scene::new();
    let oldest = scene.log_in(USER);
    oldest.blocks();
    scene.send(USER, "{a}");
    let middle = scene.log_in(USER);
    middle.blocks();
    scene.send(USER, "{b}");
    let newest = scene.log_in(USER);
    scene.leave(USER, &middle);
    assert_eq!(newest.got(), "{b}");
    scene.leave(USER, &oldest);
    assert_eq!((newest.got(), scene.lane()), ("{b}".to_owned(), vec!["{a} for 1 returned".to_owned()]));
}

#[test]
fn a_connection_that_is_full_as_well_hands_all_it_has_on_first() {
    let mut scene = Scene::new();
    let oldest = scene.log_in(USER);
    let middle = scene.log_in(USER);
    middle.blocks();
    scene.send(USER, "{a}");
    scene.send(USER, "{b}");
    let newest = scene.log_in(USER);
    newest.blocks();
    scene.send(USER, "{c}");
    scene.leave(USER, &newest);
    assert_eq!((oldest.got(), scene.lane()), ("{a}{b}{c}".to_owned(), vec![]));

    let mut scene = Scene::new();
    let older = scene.log_in(USER);
    older.blocks();
    scene.send(USER, "{a}");
    scene.send(USER, "{b}");
    let newest = scene.log_in(USER);
    newest.blocks();
    scene.send(USER, "{c}");
    scene.told();
    scene.leave(USER, &newest);
    let kept = ["{a} for 1 returned", "{b} for 1 returned", "{c} for 1 returned", "answer about 1"];
    assert_eq!(scene.lane(), kept);
    assert_eq!(scene.told(), ["unsubscribe 1"], "there is no connection left");
}

#[test]
fn messages_held_before_their_user_came_elsewhere_do_not_follow_there_once_the_user_has_come_back() {
    let mut scene = Scene::new();
    let older = scene.log_in(USER);
    older.blocks();
    scene.send(USER, "{a}");
    scene.router.on_elsewhere(&mut scene.turn, USER);
    let back = scene.log_in(USER);
    back.link.hang_up();
    // Its loop closes it; the session has not said yet that its user leaves.
    scene.event_loop.turn(scene.turn.now(), &[]);
    scene.leave(USER, &older);
    assert_eq!(scene.lane(), ["{a} for 1 returned", "answer about 1"]);

    let mut scene = Scene::new();
    let only = scene.log_in(USER);
    only.blocks();
    scene.send(USER, "{a}");
    scene.router.on_elsewhere(&mut scene.turn, USER);
    scene.leave(USER, &only);
    assert_eq!(scene.lane(), ["{a} for 1 returned elsewhere", "answer about 1"]);
}

#[test]
fn messages_of_a_stalled_connection_do_not_go_to_one_that_may_have_got_something_newer() {
    let mut scene = Scene::new();
    let returning = scene.log_in(USER);
    scene.send(USER, "{a}");
    scene.router.attendance().detach(&mut scene.turn, USER, &returning.link);
    let stalled = scene.log_in(USER);
    stalled.is_silent();
    scene.send(USER, "{b}");
    scene.pass(&[&stalled]);
    scene.router.attendance().attach(&mut scene.turn, USER, &returning.link);
    scene.turn.flush();
    assert!(stalled.link.is_sealed(), "it is given up");
    let lane = vec!["answer about 1".to_owned(), "{b} for 1 returned".to_owned()];
    assert_eq!((returning.got(), scene.lane()), ("{a}".to_owned(), lane), "the answer parts before and after leaving");
}

#[test]
fn a_login_gets_what_the_newer_of_two_stalled_connections_holds() {
    let mut scene = Scene::new();
    let oldest = scene.log_in(USER);
    oldest.is_silent();
    scene.send(USER, "{a}");
    let again = scene.log_in(USER);
    scene.send(USER, "{b}");
    let stalled = scene.log_in(USER);
    stalled.is_silent();
    scene.send(USER, "{c}");
    scene.pass(&[&oldest, &stalled]);
    scene.router.attendance().attach(&mut scene.turn, USER, &again.link);
    scene.turn.flush();
    assert_eq!((again.got(), scene.lane()), ("{b}{c}".to_owned(), vec!["{a} for 1 returned".to_owned()]));
}
