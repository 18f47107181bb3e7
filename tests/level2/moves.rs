//! Devices that come and go while other users write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store, assert_agree};
use testkit::{LONG_PATIENCE, PATIENCE, SetOnDrop, TestClient, TestServer, offline_user, password, wait_within};

#[test]
fn a_device_that_comes_and_goes_while_others_write_misses_nothing() {
    const VISITS: usize = 60;
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let mut carol = Level2Client::enter(&server, "carol", offline_user(&server, "carol"), "c1");
    let (to_bob, to_ann, to_carol) = (with(&bob), with(&ann), with(&carol));
    let stop = AtomicBool::new(false);
    let mut store = bob.leave();
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        for (client, text) in [(&mut ann, "a"), (&mut carol, "c")] {
            let (stop, to_bob) = (&stop, &to_bob);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.say(to_bob, text);
                }
            });
        }
        for visit in 0..VISITS {
            // The device may leave at any moment: before, during or after the synchronisation.
            let login = LoginAs::password(store.me, &password("bob"), "b1").with("resume", json!(5_000));
            let mut bob = Level2Client::login(TestClient::connect(&server), std::mem::take(&mut store), login);
            if visit % 3 != 0 {
                bob.sync();
            }
            for _ in 0..visit % 7 {
                bob.read(PATIENCE).expect("another frame");
            }
            store = bob.leave();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let bob = Level2Client::resume(&server, "bob", "b1", store);
    for (other, conv) in [(&ann, &to_ann), (&carol, &to_carol)] {
        // Messages from before the device first knew the conversation would come in pages only.
        let held = bob.store.logs[conv].messages.len() as u64;
        assert!(held > 0 && bob.store.cursor(conv) == other.store.cursor(&to_bob));
        let first = *bob.store.logs[conv].messages.keys().next().expect("a message");
        assert_eq!(held, bob.store.cursor(conv) + 1 - first, "no hole");
        assert_agree(&bob.store, conv, &other.store, &to_bob);
    }
}

/// Logs one device in on two nodes at the same moment, and waits until exactly one of its
/// connections is left.
pub fn log_in_twice_at_once(nodes: [&TestServer; 2], name: &str, id: i64) {
    let enter = |node: &TestServer| {
        let login = LoginAs::password(id, &password(name), "phone");
        match Level2Client::try_login(TestClient::connect(node), Store::new(id), login) {
            Ok(client) => Some(client),
            // The other login has replaced this one before it was complete.
            Err(refused) => {
                let reply = refused.reply.expect("a reply");
                assert_eq!(reply["reason"], "replaced", "{reply}");
                None
            }
        }
    };
    let mut both: Vec<Option<Level2Client>> = thread::scope(|scope| {
        let threads = nodes.map(|node| scope.spawn(move || enter(node)));
        threads.map(|thread| thread.join().expect("a login")).into_iter().collect()
    });
    let is_there = |client: &mut Level2Client| {
        client.send_frame(&json!({"msgType": 53, "rid": "still here?"}));
        let last = client.take("a 54 or the end", |frame| [json!(54), json!(55)].contains(&frame["msgType"]));
        assert!(last["msgType"] == 54 || last["reason"] == "replaced", "{last}");
        last["msgType"] == 54
    };
    // Some answers may come before the connection ends.
    wait_within(LONG_PATIENCE, "one of them is replaced", || {
        for client in &mut both {
            if client.as_mut().is_some_and(|client| !is_there(client)) {
                *client = None;
            }
        }
        let left = both.iter().flatten().count();
        assert!(left > 0, "both are gone");
        left == 1
    });
}

#[test]
fn one_of_two_simultaneous_logins_of_a_device_stays() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    for _ in 0..20 {
        log_in_twice_at_once([&server, &server], "ann", a);
    }
}

#[test]
fn a_conversation_that_is_new_to_both_begins_at_once() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    // Both users write the first message at the same moment.
    ann.send(&to_bob, "a");
    bob.send(&to_ann, "b");
    ann.until_at(&to_bob, 2);
    bob.until_at(&to_ann, 2);
    assert_agree(&ann.store, &to_bob, &bob.store, &to_ann);
}
