//! Logins: passwords, tokens, devices and their limits.

use std::collections::BTreeSet;

use mysql::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{ACK, Database, LONG_PATIENCE, MariaDb, NOBODY, TestClient, TestServer};
use testkit::{chat, offline_user, password, user, wait_until, wait_within};

/// Logs in. The login must be refused; returns the 40.
fn refused(server: &TestServer, login: LoginAs) -> Value {
    match Level2Client::try_login(TestClient::connect(server), Store::new(0), login) {
        Ok(_) => panic!("the login is accepted"),
        Err(refused) => refused.reply.expect("a reply"),
    }
}

fn expect_refused(server: &TestServer, login: LoginAs, errno: i64) {
    let reply = refused(server, login.clone());
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(errno), &json!(40)), "{login:?}: {reply}");
    assert!(reply.get("retryAfter").is_none() && reply["errmsg"].is_string(), "{reply}");
}

fn with_token(server: &TestServer, user: i64, device: &str, token: &str) -> Level2Client {
    Level2Client::login(TestClient::connect(server), Store::new(user), LoginAs::token(token, device))
}

#[test]
fn wrong_proofs_are_refused_alike() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let right = || LoginAs::password(a, &password("ann"), "d");
    let by_name = |name: &str, word: &str| LoginAs::name(name, word, "d");
    let login = |login: LoginAs| Level2Client::login(TestClient::connect(&server), Store::new(a), login);
    let wrong = [
        right().with("password", json!("wrong")),
        right().with("password", json!("")),
        right().with("USERID", json!(NOBODY)),
        right().with("USERID", json!(0)),
        right().with("USERID", json!(-1)),
        right().with("USERID", json!(9_999_999_999_999_i64)),
        by_name("nobody", &password("ann")),
        by_name("", &password("ann")),
        by_name("ann", "wrong"),
        LoginAs::token("x", "d"),
        LoginAs::token("", "d"),
        LoginAs::token("x", "d").with("USERID", json!(a)),
    ];
    let texts: Vec<String> = wrong.into_iter().map(|wrong| refused(&server, wrong).to_string()).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert!(texts[0].contains("302"), "{texts:?}");
    assert_eq!(login(right()).welcome.name, "ann");
    assert_eq!(login(by_name("ann", &password("ann"))).welcome.user, a);
}

#[test]
fn a_connection_may_try_again_after_a_refused_login() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let right = LoginAs::password(a, &password("ann"), "d");
    let wrong = right.clone().with("password", json!("wrong"));
    let Err(refused) = Level2Client::try_login(TestClient::connect(&server), Store::new(a), wrong) else {
        panic!("a wrong password");
    };
    let Err(refused) = Level2Client::try_login(refused.tcp, Store::new(a), right.clone().with("device", json!("")))
    else {
        panic!("a wrong device");
    };
    let mut ann = Level2Client::login(refused.tcp, Store::new(a), right);
    ann.sync();
}

#[test]
fn one_login_is_all_that_a_connection_takes() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let b = bob.store.me;
    for login in [
        json!({"msgType": 1, "USERID": b, "password": password("bob")}),
        json!({"msgType": 1, "USERID": b, "password": password("bob"), "level": 2, "device": "x"}),
        json!({"msgType": 1, "USERID": ann.store.me, "password": password("ann"), "level": 2, "device": "a1"}),
        json!({"msgType": 1, "USERID": b, "password": "wrong"}),
    ] {
        let reply = ann.ask(login);
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(400), &json!(40)), "{reply}");
    }
    let notes = with(&ann);
    assert_eq!(ann.say(&notes, "still here"), 1);
    // The same on a connection of level 1.
    let (mut carol, c) = user(&server, "carol");
    let login = json!({"msgType": 1, "USERID": c, "password": password("carol"), "level": 2, "device": "x"});
    let reply = carol.ask(&login);
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(400), &json!(40)), "{reply}");
    carol.send(&chat(c, c, "still here"));
    assert_eq!(carol.recv()["msg"], "still here");
}

#[test]
fn a_level_that_opts_in_is_an_integer_from_2_on() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    for level in [json!(1), json!(0), json!(-2), json!("2"), json!(2.0), json!(true), json!(null), json!([2])] {
        let mut client = TestClient::connect(&server);
        client.send(&json!({"msgType": 1, "USERID": a, "password": password("ann"), "level": level, "rid": 1}));
        client.expect_text(ACK);
    }
    for level in [json!(3), json!(1_000_000), json!(i64::MAX)] {
        let login = LoginAs::password(a, &password("ann"), "d").with("level", level);
        assert_eq!(Level2Client::login(TestClient::connect(&server), Store::new(a), login).welcome.level, 2);
    }
}

#[test]
fn numbers_out_of_range_count_as_the_nearest_allowed() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    for (ping, granted) in [(0, 15), (-9, 15), (14, 15), (15, 15), (300, 300), (301, 300), (i64::MAX, 300)] {
        let login = LoginAs::password(a, &password("ann"), "d").with("ping", json!(ping)).with("resume", json!(ping));
        let mut client = Level2Client::login(TestClient::connect(&server), Store::new(a), login);
        client.sync();
        assert_eq!(client.welcome.ping, granted);
    }
}

#[test]
fn a_token_logs_in_on_its_device_also_after_a_restart() {
    let mut server = TestServer::start();
    let a = offline_user(&server, "ann");
    let token = Level2Client::enter(&server, "ann", a, "phone").welcome.token.clone();
    let second = with_token(&server, a, "phone", &token).welcome.token.clone();
    assert_ne!(token, second, "every 40 brings a new one");
    server.kill9();
    server.restart();
    // Earlier tokens stay valid.
    for token in [&token, &second] {
        with_token(&server, a, "phone", token).sync();
    }
    let named = LoginAs::token(&token, "phone").with("name", json!("ann"));
    Level2Client::login(TestClient::connect(&server), Store::new(a), named).sync();
}

#[test]
fn a_token_that_is_not_exactly_right_is_none() {
    let server = TestServer::start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let ann = Level2Client::enter(&server, "ann", a, "phone");
    let bob = Level2Client::enter(&server, "bob", b, "phone");
    let token = ann.welcome.token.clone();
    let mut wrong =
        vec![format!("{token}="), format!("{token}=="), format!(" {token}"), format!("{token}A"), "A".repeat(64)];
    for length in [1, token.len() / 2, token.len() - 1] {
        wrong.push(token[..length].to_owned());
    }
    for at in (0..token.len()).step_by(3).chain([token.len() - 1]) {
        // Changes one letter, at every third place and at the last one, whose low bits may have no
        // meaning.
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(bytes).expect("ASCII"));
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'z' { b'y' } else { bytes[at] + 1 };
        wrong.push(String::from_utf8(bytes).expect("ASCII"));
    }
    wrong.push(token.replace('-', "+").replace('_', "/") + "x");
    for wrong in wrong.iter().filter(|wrong| **wrong != token) {
        expect_refused(&server, LoginAs::token(wrong, "phone"), 302);
    }
    // The right token for another device or another user.
    expect_refused(&server, LoginAs::token(&token, "tablet"), 302);
    expect_refused(&server, LoginAs::token(&token, "phone").with("USERID", json!(b)), 302);
    expect_refused(&server, LoginAs::token(&token, "phone").with("name", json!("bob")), 302);
    expect_refused(&server, LoginAs::token(&bob.welcome.token, "phone").with("USERID", json!(a)), 302);
    // None of these logins has ended the connection of the device.
    let (mut ann, notes) = (ann, format!("u{a}"));
    ann.say(&notes, "still here");
}

#[test]
fn a_token_of_another_server_is_none() {
    let (one, other) = (TestServer::start(), TestServer::start());
    let (a, same) = (offline_user(&one, "ann"), offline_user(&other, "ann"));
    assert_eq!(a, same);
    let token = Level2Client::enter(&one, "ann", a, "phone").welcome.token.clone();
    Level2Client::enter(&other, "ann", a, "phone");
    expect_refused(&other, LoginAs::token(&token, "phone"), 302);
}

#[test]
fn a_logout_waits_for_the_sends_before_it() {
    let database = Database::create();
    let server = TestServer::builder().mysql(&database).start();
    let (mut ann, bob) = pair(&server);
    let mut locker = database.connect();
    locker.query_drop("LOCK TABLES Message WRITE").expect("lock the table");
    let cid = ann.send(&with(&bob), "before");
    let me = ann.store.me;
    let reply = ann.ask(json!({"msgType": 3, "USERID": me}));
    assert_eq!(reply["errno"], 200, "it does not wait for the message: {reply}");
    locker.query_drop("UNLOCK TABLES").expect("unlock it");
    assert_eq!(ann.answer(&cid)["errno"], 200);
    ann.expect_farewell("logout");
}

#[test]
fn nothing_behind_a_logout_is_carried_out() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (me, to_bob) = (ann.store.me, with(&bob));
    let mut tablet = Level2Client::enter(&server, "ann", me, "a2");
    let (before, behind) = (ann.message(&to_bob), ann.message(&to_bob));
    ann.send_many(&[
        json!({"msgType": 8, "FROMID": me, "rid": "before"}),
        before.clone(),
        json!({"msgType": 3, "USERID": me, "rid": "logout"}),
        behind.clone(),
        json!({"msgType": 66, "USERID": bob.store.me, "block": true, "rid": "level 2"}),
        json!({"msgType": 12, "FROMID": me, "name": "team", "description": "", "rid": "level 1"}),
    ]);
    ann.tcp().send_raw(b"]{\"msgType\":53,\"rid\":\"ping\"}");
    for rid in ["before", "logout"] {
        let reply = ann.take("a reply", |frame| !frame["rid"].is_null());
        assert_eq!(reply["rid"], rid, "{reply}");
    }
    assert_eq!(ann.answer(before["cid"].as_str().expect("a cid"))["errno"], 200);
    ann.expect_farewell("logout");
    let more: Vec<_> = ann.inbox().filter(|frame| !frame["errno"].is_null() && frame["msgType"] != 40).collect();
    assert!(more.is_empty(), "{more:?}");
    assert_eq!(tablet.ask_for(200, json!({"msgType": 66}))["blocked"], json!([]));
    assert_eq!(tablet.say(&to_bob, "next"), 2);
    let overview = Level2Client::enter(&server, "ann", me, "a3").take_kind(43);
    assert_eq!(overview["convs"].as_array().map(Vec::len), Some(1), "no group: {overview}");
}

#[test]
fn a_logout_that_fails_stops_nothing_behind_it() {
    let server = TestServer::start();
    let (mut ann, bob) = pair(&server);
    let (me, to_bob) = (ann.store.me, with(&bob));
    server.run_sql("ALTER TABLE Device RENAME TO Elsewhere");
    let behind = ann.message(&to_bob);
    ann.send_many(&[json!({"msgType": 3, "USERID": me, "rid": "logout"}), behind.clone()]);
    let reply = ann.take("the reply to the logout", |frame| frame["rid"] == "logout");
    assert!(reply["errno"] != 200, "{reply}");
    assert_eq!(ann.number(behind["cid"].as_str().expect("a cid")), 1);
    server.run_sql("ALTER TABLE Elsewhere RENAME TO Device");
    let reply = ann.ask(json!({"msgType": 3, "USERID": me}));
    assert_eq!(reply["errno"], 200, "{reply}");
    ann.expect_farewell("logout");
}

#[test]
fn whatever_needs_the_database_while_it_is_away_says_when_to_try_again() {
    let mut mariadb = MariaDb::start();
    let server = TestServer::builder().mysql(&mariadb.create_database()).start();
    let (mut ann, bob) = pair(&server);
    let (a, to_bob) = (ann.store.me, with(&bob));
    ann.say(&to_bob, "1");
    let group = ann.ask_for(200, json!({"msgType": 12, "FROMID": a, "name": "team", "description": ""}));
    let logins = [LoginAs::password(a, &password("ann"), "new"), LoginAs::token(&ann.welcome.token, "a1")];
    let requests = [
        json!({"msgType": 46, "have": {to_bob.clone(): "0:00000000"}}),
        json!({"msgType": 48, "conv": to_bob}),
        json!({"msgType": 49, "conv": to_bob, "read": 1}),
        json!({"msgType": 52, "watch": [bob.store.me]}),
        json!({"msgType": 61, "GROUPID": group["GROUPID"]}),
        json!({"msgType": 64, "GROUPID": group["GROUPID"], "name": "crew"}),
        json!({"msgType": 66}),
        json!({"msgType": 67}),
        json!({"msgType": 68}),
        json!({"msgType": 60, "password": password("ann"), "new": "new"}),
        json!({"msgType": 69, "password": password("ann")}),
        json!({"msgType": 3, "USERID": a}),
    ];
    mariadb.kill();
    for login in &logins {
        let reply = refused(&server, login.clone());
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(503), &json!(40)), "{login:?}: {reply}");
        assert!(reply["retryAfter"].is_number() && reply["errmsg"].is_string(), "{login:?}: {reply}");
    }
    for request in &requests {
        let reply = ann.ask_for(503, request.clone());
        assert_eq!(reply["msgType"], request["msgType"], "{reply}");
        assert!(reply["retryAfter"].is_number() && reply["errmsg"].is_string(), "{request}: {reply}");
    }
    mariadb.restart();
    // None of them has taken effect, and each does now.
    ann.set_patience(LONG_PATIENCE);
    wait_within(LONG_PATIENCE, "the database is back", || ann.ask(json!({"msgType": 68}))["errno"] == 200);
    for request in &requests[1..9] {
        ann.ask_for(200, request.clone());
    }
    Level2Client::login(TestClient::connect(&server), Store::new(a), logins[0].clone()).sync();
    assert_eq!(ann.say(&to_bob, "2"), 2);
}

#[test]
fn logging_out_ends_the_tokens_of_the_device() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let mut tablet = Level2Client::enter(&server, "ann", a, "tablet");
    let (old, token) = (phone.welcome.token.clone(), with_token(&server, a, "phone", &phone.welcome.token));
    phone.expect_farewell("replaced");
    let mut phone = token;
    let new = phone.welcome.token.clone();
    phone.sync();
    let reply = phone.ask(json!({"msgType": 3, "USERID": tablet.store.me + 1}));
    assert_eq!(reply["errno"], 401, "{reply}");
    let reply = phone.ask(json!({"msgType": 3, "USERID": a}));
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(200), &json!(200)), "{reply}");
    phone.expect_farewell("logout");
    expect_refused(&server, LoginAs::token(&old, "phone"), 302);
    expect_refused(&server, LoginAs::token(&new, "phone"), 302);
    // The other device is not affected, and the password logs this device in again.
    let notes = with(&tablet);
    tablet.say(&notes, "still here");
    with_token(&server, a, "tablet", &tablet.welcome.token).sync();
    Level2Client::enter(&server, "ann", a, "phone");
}

#[test]
fn a_device_that_logs_in_after_it_was_forgotten_has_reported_nothing() {
    let server = TestServer::builder().option("devices_max", "2").start();
    let (mut ann, mut bob) = pair(&server);
    let (b, to_bob, to_ann) = (bob.store.me, with(&bob), with(&ann));
    for n in 1..=4 {
        ann.say(&to_bob, &n.to_string());
    }
    for is_logged_out in [true, false] {
        bob.until_at(&to_ann, 4);
        bob.send_frame(&json!({"msgType": 47, "recv": {to_ann.clone(): 3}}));
        if is_logged_out {
            assert_eq!(bob.ask(json!({"msgType": 3, "USERID": b}))["errno"], 200);
            bob.expect_farewell("logout");
        } else {
            bob.ask(json!({"msgType": 49, "conv": to_ann, "read": 0}));
            drop(bob);
            let mut others = Vec::new();
            wait_until("the device is forgotten", || {
                others.extend(["b2", "b3"].map(|device| Level2Client::enter(&server, "bob", b, device)));
                server.count("SELECT count(*) FROM Device WHERE device = 'b1'") == 0
            });
        }
        let login = LoginAs::password(b, &password("bob"), "b1").with("have", json!("device"));
        bob = Level2Client::login(TestClient::connect(&server), Store::new(b), login);
        bob.sync();
        let run = bob.take_kind(44);
        assert_eq!((&run["from"], &run["to"]), (&json!(1), &json!(4)), "logged out: {is_logged_out}: {run}");
    }
}

#[test]
fn another_login_of_the_device_replaces_the_connection() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "1");
    let mut second = Level2Client::enter(&server, "ann", ann.store.me, "a1");
    ann.expect_farewell("replaced");
    assert_eq!(second.say(&to_bob, "2"), 2);
    bob.until_at(&to_ann, 2);
    bob.say(&to_ann, "3");
    second.until_at(&to_bob, 3);
}

#[test]
fn the_name_of_a_device_has_1_to_64_printable_characters() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let login = |device: &str| LoginAs::password(a, &password("ann"), device);
    for device in ["x", "!", "~", "\"\\/", &"d".repeat(64)] {
        let client = Level2Client::login(TestClient::connect(&server), Store::new(a), login(device));
        with_token(&server, a, device, &client.welcome.token).sync();
    }
    for device in ["", " ", "a b", "a\n", "\u{7f}", "\u{0}", "ü", "日", &"d".repeat(65), &"d".repeat(10_000)] {
        expect_refused(&server, login(device), 400);
    }
}

#[test]
fn a_device_that_has_been_connected_for_long_is_not_forgotten_for_one_that_has_left() {
    let server = TestServer::builder().option("devices_max", "2").start();
    let a = offline_user(&server, "ann");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    drop(Level2Client::enter(&server, "ann", a, "web"));
    let mut devices = || phone.ask_for(200, json!({"msgType": 68}))["devices"].as_array().expect("a list").clone();
    let is_away = |device: &Value| device["device"] == "web" && device["online"] == false;
    wait_until("the second one has left", || devices().iter().any(is_away));
    server.run_sql("UPDATE Device SET seen = seen - 86400000 WHERE device = 'phone'");
    let _tablet = Level2Client::enter(&server, "ann", a, "tablet");
    let names: BTreeSet<String> = devices().iter().map(|device| device["device"].as_str().unwrap().into()).collect();
    assert_eq!(names, BTreeSet::from(["phone".to_owned(), "tablet".to_owned()]));
}

#[test]
fn the_least_recently_seen_device_of_more_than_16_is_forgotten() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let mut devices: Vec<Level2Client> =
        (0..16).map(|n| Level2Client::enter(&server, "ann", a, &format!("d{n}"))).collect();
    let notes = format!("u{a}");
    devices[15].say(&notes, "all of us");
    devices.iter_mut().for_each(|device| device.until_at(&notes, 1));
    let mut last = Level2Client::enter(&server, "ann", a, "d16");
    let farewells: Vec<usize> = (0..16)
        .filter(|n| {
            devices[*n].send_frame(&json!({"msgType": 53, "rid": "still here?"}));
            let answer =
                devices[*n].take("a 54 or the end", |frame| [json!(54), json!(55)].contains(&frame["msgType"]));
            answer["msgType"] == 55 && answer["reason"] == "revoked"
        })
        .collect();
    assert_eq!(farewells.len(), 1, "one is forgotten: {farewells:?}");
    let forgotten = &devices[farewells[0]];
    expect_refused(&server, LoginAs::token(&forgotten.welcome.token, &forgotten.welcome.device), 302);
    last.say(&notes, "17");
    let kept = if farewells[0] == 1 { 2 } else { 1 };
    devices[kept].until_at(&notes, 2);
    // The device that logs in is never the one that is forgotten, however often this happens.
    for n in 17..40 {
        let mut device = Level2Client::enter(&server, "ann", a, &format!("d{n}"));
        device.ask_for_pong();
    }
}

#[test]
fn an_account_logs_in_at_both_levels_at_once() {
    let server = TestServer::start();
    let (mut old, a) = user(&server, "ann");
    let mut new = Level2Client::enter(&server, "ann", a, "phone");
    let (mut bob, b) = user(&server, "bob");
    bob.send(&chat(b, a, "to both"));
    bob.barrier();
    assert_eq!(old.recv()["msg"], "to both");
    new.until_at(&format!("u{b}"), 1);
    assert_eq!(new.store.texts(&format!("u{b}")), ["to both"]);
}

#[test]
fn a_wrong_password_counts_against_the_limits_of_level_1() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    let wrong = || LoginAs::password(a, "wrong", "d");
    let mut errnos = Vec::new();
    for _ in 0..40 {
        let reply = refused(&server, wrong());
        errnos.push(reply["errno"].as_i64());
        if reply["errno"] == 429 {
            assert!(reply["retryAfter"].is_number(), "{reply}");
            break;
        }
        assert_eq!(reply["errno"], 302, "{reply}");
    }
    assert_eq!(errnos.last(), Some(&Some(429)), "{errnos:?}");
}
