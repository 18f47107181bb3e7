//! Logins, farewells, and reconnects.

use super::*;

#[test]
fn it_logs_in_with_what_it_has_and_keeps_the_new_token() {
    let mut stage = Stage::connected(known(&[(BOB, 41), (TEAM, 7)]));
    assert_eq!(stage.machine.state(), State::LoggingIn);
    let login = json!({"msgType": 1, "level": 2, "device": "d", "ping": 30, "token": "t1", "have": {"u9": "41:0a", "g3": "7:0a"}});
    assert_eq!(stage.written(), [login]);
    stage.hear(&[WELCOME]);
    let done = stage.machine.done();
    assert!(matches!(&done.changes[..], [Change::Account(account)] if account.user == 7 && account.token == "t2"));
    // The next connection uses the token.
    stage.machine.lost("gone", stage.now, 0.0);
    stage.now += Duration::from_secs(1);
    stage.connect(Known::default());
    assert_eq!(stage.written()[0]["token"], "t2");
}

#[test]
fn a_login_with_a_password_needs_it_once() {
    let password = Some(("ann".to_owned(), "secret".to_owned()));
    let mut stage = Stage::new(Login {
        device: "d".to_owned(),
        password,
        token: Some("old".to_owned()),
        jwt: None,
        frame_max: 2000,
        owner: None,
    });
    stage.connect(Known::default());
    let login = stage.written().remove(0);
    assert_eq!((&login["name"], &login["password"], &login["token"]), (&json!("ann"), &json!("secret"), &Value::Null));
    assert!(!format!("{:?}", stage.machine).contains("secret"));
    stage.hear(&[WELCOME]);
    stage.machine.lost("gone", stage.now, 0.0);
    stage.now += Duration::from_secs(1);
    stage.connect(Known::default());
    assert_eq!(stage.written()[0]["token"], "t2");
}

#[test]
fn the_answer_to_a_login_decides_whether_the_client_comes_back() {
    let ends = [
        (r#"{"errmsg":"wrong","errno":302,"msgType":40}"#, End::WrongPassword),
        (r#"{"errmsg":"old tables","errno":501,"msgType":40}"#, End::NoLevel2),
        (r#"{"errno":200,"msgType":200}"#, End::NoLevel2),
        (r#"{"errmsg":"bad","errno":400,"msgType":40}"#, End::Refused("bad".to_owned())),
    ];
    for (reply, end) in ends {
        let mut stage = Stage::connected(Known::default());
        stage.hear(&[reply]);
        assert_eq!(stage.machine.state(), State::Ended(end), "{reply}");
        assert!(stage.machine.done().close);
        stage.pass(1000);
        assert!(!stage.machine.wants_connection(stage.now), "{reply}");
    }
    let waits = [
        (r#"{"errmsg":"busy","errno":503,"msgType":40,"retryAfter":7}"#, 7),
        (r#"{"errmsg":"too many wrong passwords, try again later","errno":429,"msgType":40,"retryAfter":30}"#, 30),
        (r#"{"errmsg":"too many connections, try again later","errno":429,"msgType":429}"#, 1),
        (r#"{"errmsg":"x","errno":503,"msgType":55,"reason":"drain","retryAfter":2.0}"#, 2),
        ("nonsense", 1),
    ];
    for (reply, wait) in waits {
        let mut stage = Stage::connected(Known::default());
        stage.hear(&[reply]);
        assert_eq!(stage.wait_of(), wait, "{reply}");
        assert!(!stage.machine.wants_connection(stage.now));
        stage.now += Duration::from_secs(wait);
        assert!(stage.machine.wants_connection(stage.now), "{reply}");
    }
}

#[test]
fn a_farewell_decides_whether_it_comes_back() {
    let ends = [
        ("replaced", End::Replaced),
        ("revoked", End::Revoked),
        ("logout", End::LoggedOut),
        ("protocol", End::Refused("x".to_owned())),
    ];
    for (reason, end) in ends {
        let mut stage = Stage::online(Known::default());
        stage.hear(&[&format!(r#"{{"errmsg":"x","errno":409,"msgType":55,"reason":"{reason}"}}"#)]);
        assert_eq!(stage.machine.state(), State::Ended(end));
    }
    for reason in ["drain", "slow", "idle", "limit", "overload", "of tomorrow"] {
        let mut stage = Stage::online(Known::default());
        stage.hear(&[
            &format!(r#"{{"errmsg":"x","errno":503,"msgType":55,"reason":"{reason}","retryAfter":4}}"#),
            &push(BOB, 1),
        ]);
        assert_eq!(stage.wait_of(), 4, "{reason}");
        assert_eq!(taken(&stage.machine.done()), [], "nothing counts behind it");
    }
}

#[test]
fn another_account_is_not_let_into_the_file() {
    let owner = Some((8, "bob".to_owned()));
    let mut stage = Stage::new(Login {
        device: "d".to_owned(),
        token: Some("t".to_owned()),
        jwt: None,
        frame_max: 2000,
        owner,
        password: None,
    });
    stage.connect(Known::default());
    stage.hear(&[WELCOME]);
    assert_eq!(stage.machine.state(), State::Ended(End::OtherAccount("bob".to_owned())));
    assert!(stage.machine.done().changes.is_empty());
}

#[test]
fn an_error_without_a_newline_before_the_end_is_heard() {
    let mut stage = Stage::connected(Known::default());
    let busy = br#"{"errmsg":"too many connections, try again later","errno":429,"msgType":429}"#;
    stage.machine.received(busy, stage.now, 0.0);
    stage.machine.closed(stage.now, 0.0);
    assert!(matches!(stage.machine.state(), State::Waiting { reason, .. } if reason.starts_with("too many")));
}

#[test]
fn pauses_grow_until_it_is_online() {
    let mut stage = Stage::connected(Known::default());
    let mut waits = Vec::new();
    for _ in 0..3 {
        stage.machine.lost("gone", stage.now, 0.0);
        waits.push(stage.wait_of());
        stage.now += Duration::from_secs(waits[waits.len() - 1]);
        stage.connect(Known::default());
        // A login alone does not reset the backoff.
        stage.hear(&[WELCOME]);
    }
    stage.hear(&[SYNCED]);
    stage.machine.lost("gone", stage.now, 0.0);
    waits.push(stage.wait_of());
    assert_eq!(waits, [1, 2, 4, 1]);
    stage.machine.hurry(stage.now);
    assert!(stage.machine.wants_connection(stage.now));
}

#[test]
fn silence_is_asked_about_and_then_ends_the_connection() {
    let mut stage = Stage::online(Known::default());
    stage.hear(&[r#"{"msgType":53}"#]);
    assert_eq!(stage.written(), [json!({"msgType": 54})]);
    stage.pass(29);
    assert_eq!(stage.written(), [] as [Value; 0]);
    stage.pass(1);
    assert_eq!(stage.written(), [json!({"msgType": 53})]);
    stage.hear(&[r#"{"msgType":54}"#]);
    stage.pass(30);
    assert_eq!(stage.written(), [json!({"msgType": 53})]);
    stage.pass(19);
    assert_eq!(stage.machine.state(), State::Online);
    stage.pass(1);
    assert!(matches!(stage.machine.state(), State::Waiting { .. }));
}

/// The seconds until the machine gives a connection up that is silent from now on.
fn gives_up_after(stage: &mut Stage) -> u64 {
    let begin = stage.now;
    while !matches!(stage.machine.state(), State::Waiting { .. }) {
        let next = stage.machine.deadline(stage.now).expect("it does not wait for ever");
        assert!(next > stage.now, "it does not turn in place");
        stage.now = next;
        stage.machine.tick(stage.now, 1.0);
    }
    (stage.now - begin).as_secs()
}

#[test]
fn with_several_addresses_a_frozen_server_costs_15_seconds_at_most() {
    for chance in [0.0, 1.0] {
        let mut stage = Stage::of_addresses(2);
        stage.machine.connected(Known::default(), stage.now, chance);
        stage.hear(&[WELCOME, SYNCED]);
        let lost = gives_up_after(&mut stage) + stage.wait_of();
        assert!(lost < 15, "online: {lost} s");
    }
    let mut stage = Stage::of_addresses(2);
    stage.connect(Known::default());
    let lost = gives_up_after(&mut stage) + stage.wait_of();
    assert!(lost < 15, "during the login: {lost} s");
}

#[test]
fn with_one_address_a_busy_server_has_as_long_as_ever() {
    let mut stage = Stage::of_addresses(1);
    stage.connect(Known::default());
    assert_eq!(gives_up_after(&mut stage), 60);
    stage.machine.hurry(stage.now);
    stage.connect(Known::default());
    stage.hear(&[WELCOME, SYNCED]);
    assert_eq!(gives_up_after(&mut stage), 50);
}

#[test]
fn a_slow_server_gets_longer_each_time_until_a_connection_lasts() {
    let mut stage = Stage::of_addresses(2);
    let mut logins = Vec::new();
    for _ in 0..5 {
        stage.connect(Known::default());
        logins.push(gives_up_after(&mut stage));
        stage.machine.hurry(stage.now);
    }
    assert_eq!(logins, [10, 20, 40, 60, 60]);
    stage.connect(Known::default());
    stage.pass(50);
    stage.hear(&[WELCOME, SYNCED]);
    assert_eq!(gives_up_after(&mut stage), 26, "its pings may be slow as well");
    stage.machine.hurry(stage.now);
    stage.connect(Known::default());
    stage.hear(&[WELCOME, SYNCED]);
    for _ in 0..12 {
        stage.pass(5);
        stage.hear(&[r#"{"msgType":54}"#]);
    }
    assert_eq!(gives_up_after(&mut stage), 12, "the connection has lasted");
}
