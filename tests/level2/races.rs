//! Races: logins whose proof is withdrawn, several logins of one device, and retries of sends that
//! also have to reach level 1.

use std::thread;

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{PATIENCE, StoreLock, TestClient, TestServer, login, offline_user, password, wait_until};

#[test]
fn a_login_in_progress_fails_when_its_proof_is_withdrawn() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (a, to_bob) = (ann.store.me, with(&bob));
    let by_token = || LoginAs::token(&ann.welcome.token, "a1");
    let by_password = || LoginAs::password(a, &password("ann"), "a2");
    let cases = [
        (by_token(), format!("UPDATE Device SET secret = randomblob(16) WHERE user = {a}")),
        (by_token(), format!("DELETE FROM Device WHERE user = {a}")),
        (by_password(), format!("UPDATE User SET password = 'another' WHERE id = {a}")),
    ];
    for (login, change) in cases {
        let reply = thread::scope(|scope| {
            // The server has accepted the proof, and the login waits to write its row.
            let lock = StoreLock::take(&server);
            let (server, proof) = (&server, login.clone());
            let refused =
                scope.spawn(move || match Level2Client::try_login(TestClient::connect(server), Store::new(a), proof) {
                    Ok(_) => panic!("the login is accepted"),
                    Err(refused) => refused.reply.expect("a reply"),
                });
            // Requests are read in order: when this one is answered, the server has read the proof.
            ann.ask_for(200, json!({"msgType": 48, "conv": to_bob}));
            lock.change(&change);
            refused.join().expect("the login")
        });
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(302), &json!(40)), "{change}: {reply}");
    }
}

#[test]
fn the_last_of_many_simultaneous_logins_of_a_device_stays() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    drop(Level2Client::enter(&server, "ann", a, "d"));
    for _ in 0..5 {
        let mut clients: Vec<TestClient> = thread::scope(|scope| {
            let log_in = || {
                let mut client = TestClient::connect(&server);
                client
                    .send(&json!({"msgType": 1, "USERID": a, "password": password("ann"), "level": 2, "device": "d"}));
                let first = client.recv();
                let is_in = first["msgType"] == 40 && first["errno"] == 200;
                assert!(is_in || first["reason"] == "replaced", "{first}");
                is_in.then_some(client)
            };
            let logins: Vec<_> = (0..6).map(|_| scope.spawn(log_in)).collect();
            logins.into_iter().filter_map(|login| login.join().expect("a login")).collect()
        });
        // A login that is replaced may have been answered before the last login was written.
        wait_until("one connection is left", || {
            clients.retain_mut(stays);
            assert!(!clients.is_empty(), "one of them has logged in last");
            clients.len() == 1
        });
    }
}

/// Whether the connection answers; otherwise it must have ended because another login has replaced
/// it.
fn stays(client: &mut TestClient) -> bool {
    client.try_send_raw(br#"{"msgType":53,"rid":"there"}"#);
    loop {
        match client.recv_within(PATIENCE) {
            Some(frame) if frame["msgType"] == 54 => return true,
            Some(frame) if frame["msgType"] == 55 => {
                assert_eq!(frame["reason"], "replaced", "{frame}");
                return false;
            }
            Some(_) => {}
            None => return false,
        }
    }
}

#[test]
fn a_retry_completes_delivery_to_level_1_and_duplicates_nothing() {
    let mut server = TestServer::start();
    let (mut ann, _bob) = pair(&server);
    let away = offline_user(&server, "carol");
    let conv = format!("u{away}");
    let frame = ann.message(&conv);
    let cid = frame["cid"].as_str().expect("a cid").to_owned();
    for is_repeat in [false, true, true] {
        ann.send_frame(&frame);
        let answer = ann.answer(&cid);
        assert_eq!((answer["errno"].as_i64(), answer["again"] == true), (Some(200), is_repeat), "{answer}");
        assert_eq!(server.stored_for(away), 1, "the node that has forwarded it remembers that");
    }
    let store = ann.leave();
    server.kill9();
    // The state after a kill before the row was written.
    server.run_sql(&format!("DELETE FROM OfflineMessage WHERE userid = {away}"));
    server.restart();
    let mut ann = Level2Client::resume(&server, "ann", "a1", store);
    for _ in 0..2 {
        ann.send_frame(&frame);
        let again = ann.answer(&cid);
        assert_eq!(again["again"], true, "{again}");
    }
    let fetched = login(&server, "carol", away).fetch_all(away);
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    assert_eq!(fetched[0]["cid"], cid.as_str());
}

#[test]
fn a_retry_in_flight_beside_the_first_send_duplicates_nothing() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let to_bob = with(&bob);
    let mut other = Level2Client::enter(&server, "ann", ann.store.me, "a2");
    let away = offline_user(&server, "carol");
    let frames: Vec<Value> = (0..50).map(|_| ann.message(&format!("u{away}"))).collect();
    for frame in &frames {
        ann.send_frame(frame);
        other.send_frame(frame);
    }
    for frame in &frames {
        let cid = frame["cid"].as_str().expect("a cid");
        let answers = [ann.answer(cid), other.answer(cid)];
        assert!(answers.iter().all(|answer| answer["errno"] == 200), "{answers:?}");
    }
    assert_eq!(server.stored_for(away), frames.len(), "each is forwarded once");
    assert_eq!(ann.say(&to_bob, "on"), 1);
}

#[test]
fn a_member_who_joins_during_a_commit_is_shown_the_message() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let (mut ann, mut bob) = pair(&server);
    let frames = |kind: u16| server.metric(&format!("raybox_frames_total{{type=\"{kind}\"}}")) as usize;
    let waiting = || server.metric(r#"raybox_lane_busy_seconds{lane="recorder-0"}"#) > 0.0;
    for round in 1..=3 {
        let made = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": "d"}));
        let (id, conv) = (&made["GROUPID"], format!("g{}", made["GROUPID"]));
        // This makes the node cache the members.
        assert_eq!(ann.say(&conv, "before"), 2);
        let lock = StoreLock::take(&server);
        bob.send_frame(&json!({"msgType": 10, "FROMID": bob.store.me, "GROUPID": id, "rid": "join"}));
        wait_until("the join waits", || frames(10) == round);
        let cid = ann.send(&conv, "after");
        wait_until("the message waits, behind the join", waiting);
        drop(lock);
        let seq = ann.number(&cid);
        bob.until_at(&conv, seq.max(3));
    }
}
