//! Wrong passwords and new accounts.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{
    LONG_PATIENCE, MariaDb, SERVER_ERROR, StoreLock, TestClient, WRONG_PASSWORD, password, wait_until, wait_within,
};

use crate::{behind_proxy, complaints, counting, expect_later, from, refused, try_login};

#[test]
fn guessing_takes_longer_each_time_and_does_not_lock_the_owner_out() {
    let server = behind_proxy().option("login_failures", "2").start();
    let mut owner = from(&server, "203.0.113.8");
    let a = owner.register("alice", &password("alice"));
    let b = owner.register("bob", &password("bob"));
    // The server now remembers the password.
    owner.login(a, &password("alice"));
    let mut attacker = from(&server, "203.0.113.7");
    let mut guesses = 0;
    let (seconds, told) = loop {
        attacker.send(&json!({"msgType": 1, "USERID": a, "password": format!("guess {guesses}")}));
        let told = Instant::now();
        attacker.wait_readable();
        let reply = attacker.recv();
        guesses += 1;
        if reply["errno"] == 429 {
            let seconds = reply["retryAfter"].as_u64().unwrap_or_else(|| panic!("it says when: {reply}"));
            if seconds >= 2 {
                break (seconds, told);
            }
        } else {
            assert_eq!(reply.to_string(), WRONG_PASSWORD);
        }
    };
    assert!(guesses > 3, "two are free, and the third costs a second");
    // During the lockout the server checks no password. It refuses the right one, and a login on
    // another connection.
    for mut guesser in [attacker, from(&server, "203.0.113.7")] {
        let reply = try_login(&mut guesser, a, &password("alice"));
        let waited = told.elapsed() + Duration::from_secs(1) >= Duration::from_secs(seconds);
        assert!(reply["errno"] == 429 || waited, "{reply} after {:?}", told.elapsed());
        // Other accounts are not affected.
        guesser.login(b, &password("bob"));
    }
    assert!(refused(&server, "login_failures") >= 1.0);
    wait_until("the log says so", || complaints(&server, "login_failures") > 0);
    assert_eq!(complaints(&server, "login_failures"), 1, "and not for each of them");
    let logs = server.logs();
    assert!(logs.contains(&format!("turned away a login as user {a} from 203.0.113.7")), "{logs}");
    assert!(!logs.contains("guess") && !logs.contains(&password("alice")), "no password in {logs}");
    assert!(server.metric(r#"raybox_logins_total{outcome="delayed"}"#) >= 1.0);
    // The owner can log in from another address, whether the password is remembered or not.
    from(&server, "203.0.113.8").login(a, &password("alice"));
    from(&server, "203.0.113.9").login(a, &password("alice"));
}

/// A guess at a remembered password is refused without a hasher.
#[test]
fn guesses_that_find_the_queue_full_count() {
    let builder = behind_proxy().option("login_failures", "2").option("loops", "1");
    let server = builder.option("hashers", "1").option("logins_max", "1").start();
    let mut owner = from(&server, "203.0.113.8");
    let a = owner.register("alice", &password("alice"));
    owner.login(a, &password("alice"));
    let mut holder = from(&server, "203.0.113.7");
    let mut attacker = from(&server, "203.0.113.7");
    [&mut holder, &mut attacker].into_iter().for_each(TestClient::ack_barrier);
    // This request occupies its address's place until the store can write.
    let lock = StoreLock::take(&server);
    holder.send(&json!({"msgType": 2, "name": "holder", "password": "x"}));
    attacker.ack_barrier();
    let mut guesses = 0;
    loop {
        let reply = try_login(&mut attacker, a, &format!("guess {guesses}"));
        if reply["errno"] == 429 {
            break;
        }
        assert_eq!(reply["errno"], 503, "{reply}");
        guesses += 1;
        assert!(guesses < 10, "guesses are free");
    }
    assert!(guesses >= 3, "two are free, and the third costs a second");
    // A guess at an account that has not logged in here reveals nothing, so it does not count.
    for _ in 0..10 {
        assert_eq!(try_login(&mut attacker, a + 1000, "guess")["errno"], 503);
    }
    from(&server, "203.0.113.8").login(a, &password("alice"));
    drop(lock);
    assert_eq!(holder.recv()["errno"], 200);
}

#[test]
fn an_address_that_guesses_everywhere_has_to_wait_and_others_do_not() {
    let server = behind_proxy().option("login_failures_per_address", "3").start();
    let mut client = from(&server, "203.0.113.8");
    let ids: Vec<i64> = (0..4).map(|n| client.register(&format!("user {n}"), "right")).collect();
    let mut attacker = from(&server, "203.0.113.7");
    for id in &ids[..3] {
        assert_eq!(try_login(&mut attacker, *id, "wrong").to_string(), WRONG_PASSWORD);
    }
    attacker.send(&json!({"msgType": 1, "USERID": ids[3], "password": "right"}));
    assert!(expect_later(&mut attacker, 429) > 60, "the third part of an hour");
    attacker.ack_barrier();
    assert!((refused(&server, "login_failures_per_address") - 1.0).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "login_failures_per_address") == 1);
    for id in ids {
        from(&server, "203.0.113.9").login(id, "right");
    }
}

#[test]
fn an_address_may_create_a_limited_number_of_accounts_an_hour() {
    let server = behind_proxy().option("registrations_per_address", "2").start();
    let mut client = from(&server, "203.0.113.7");
    for n in 0..2 {
        client.register(&format!("user {n}"), "x");
    }
    for _ in 0..3 {
        client.send(&json!({"msgType": 2, "name": "one more", "password": "x"}));
        assert!(expect_later(&mut client, 429) > 60, "half an hour");
    }
    assert_eq!(server.count("SELECT count(*) FROM User"), 2);
    assert!((refused(&server, "registrations_per_address") - 3.0).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "registrations_per_address") > 0);
    assert_eq!(complaints(&server, "registrations_per_address"), 1, "and not for each of them");
    from(&server, "203.0.113.8").register("one more", "x");
}

#[test]
fn a_registration_does_not_count_while_the_database_is_unreachable() {
    let mut mariadb = MariaDb::start();
    let server = counting().mysql(&mariadb.create_database()).option("registrations_per_address", "3").start();
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    let register = |name: &str| json!({"msgType": 2, "name": name, "password": "x"});
    client.register("first", "x");
    mariadb.kill();
    for n in 0..5 {
        client.send(&register(&format!("user {n}")));
        client.expect_text(SERVER_ERROR);
    }
    wait_within(LONG_PATIENCE, "the server knows that the database is gone", || !server.is_ready());
    mariadb.restart();
    wait_within(LONG_PATIENCE, "the server knows that it is back", || server.is_ready());
    // A name that is taken is the client's own fault, so it counts.
    client.send(&register("first"));
    client.expect_text(SERVER_ERROR);
    client.register("second", "x");
    client.send(&register("third"));
    expect_later(&mut client, 429);
}

#[test]
fn guesses_count_while_the_database_is_unavailable() {
    let mut mariadb = MariaDb::start();
    let server = counting().mysql(&mariadb.create_database()).option("login_failures", "2").start();
    let mut client = TestClient::connect(&server);
    client.set_patience(LONG_PATIENCE);
    let a = client.register("alice", &password("alice"));
    client.login(a, &password("alice"));
    mariadb.kill();
    // A client that knows the password can log in as before.
    client.login(a, &password("alice"));
    for _ in 0..10 {
        assert_eq!(try_login(&mut client, a + 1000, "guess")["errno"], 503, "of nobody else anything is known");
    }
    let mut guesses = 0;
    while let reply = try_login(&mut client, a, &format!("guess {guesses}"))
        && reply["errno"] != 429
    {
        assert_eq!(reply["errno"], 503, "{reply}");
        guesses += 1;
        assert!(guesses < 10, "guesses are free");
    }
    assert!(guesses >= 3, "two are free, and the third costs a second");
}
