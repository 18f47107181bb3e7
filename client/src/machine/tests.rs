//! The machine against frames of a server, table by table.

use super::*;
use crate::frame::Message;

const BOB: Conv = Conv::User(9);
const TEAM: Conv = Conv::Group(3);
const WELCOME: &str = r#"{"device":"d","errno":200,"level":2,"limits":{"frame":2000,"inflight":20,"page":200},"msgType":40,"name":"ann","ping":30,"token":"t2","tokenExpires":9,"user":7}"#;
const SYNCED: &str = r#"{"msgType":45,"synced":true}"#;

/// A machine, the frames that it has written, and what has come of them.
struct Stage {
    machine: Machine,
    now: Instant,
}

impl Stage {
    fn new(login: Login) -> Stage {
        let now = Instant::now();
        Stage { machine: Machine::new(login, now), now }
    }

    fn connected(known: Known) -> Stage {
        let mut stage = Stage::new(Login {
            device: "d".to_owned(),
            token: Some("t1".to_owned()),
            frame_max: 2000,
            ..Login::default()
        });
        stage.connect(known);
        stage
    }

    fn connect(&mut self, known: Known) {
        assert!(self.machine.wants_connection(self.now));
        self.machine.connected(known, self.now);
    }

    fn online(known: Known) -> Stage {
        let mut stage = Stage::connected(known);
        stage.hear(&[WELCOME, SYNCED]);
        assert_eq!(stage.machine.state(), State::Online);
        stage.written();
        stage.machine.done();
        stage
    }

    fn hear(&mut self, frames: &[&str]) {
        for frame in frames {
            self.machine.received(format!("{frame}\n").as_bytes(), self.now, 0.0);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.machine.tick(self.now, 0.0);
    }

    /// The frames written since it was asked last.
    fn written(&mut self) -> Vec<Value> {
        let out = std::mem::take(self.machine.out());
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    }

    /// Gives the machine what it wants from this outbox.
    fn send(&mut self, outbox: &[(i64, Conv, &str)]) {
        while let Some(wanted) = self.machine.wanted(self.now) {
            let rows = outbox.iter().filter(|(row, conv, _)| *conv == wanted.conv && *row > wanted.after);
            let rows =
                rows.take(wanted.count).map(|(row, _, cid)| (*row, (*cid).to_owned(), format!(r#"{{"cid":"{cid}"}}"#)));
            let rows = rows.collect();
            self.machine.send(wanted, rows);
        }
    }

    fn sent_cids(&mut self) -> Vec<String> {
        self.written().iter().filter_map(|frame| frame["cid"].as_str().map(str::to_owned)).collect()
    }

    fn wait_of(&self) -> u64 {
        match self.machine.state() {
            State::Waiting { until, .. } => (until - self.now).as_secs(),
            other => panic!("{other:?}"),
        }
    }
}

fn known(cursors: &[(Conv, u64)]) -> Known {
    let cursor = |(conv, seq): &(Conv, u64)| (*conv, Cursor { seq: *seq, tag: "0a".to_owned() });
    Known { cursors: cursors.iter().map(cursor).collect(), ..Known::default() }
}

fn push(conv: Conv, seq: u64) -> String {
    format!(
        r#"{{"conv":"{conv}","from":9,"m":{{"msgType":4,"msg":"{seq}"}},"msgType":42,"seq":{seq},"tag":"0c","time":5}}"#
    )
}

fn ack(cid: &str, seq: u64) -> String {
    format!(r#"{{"cid":"{cid}","conv":"u9","errno":200,"msgType":41,"seq":{seq},"tag":"0d","time":5}}"#)
}

fn taken(done: &Done) -> Vec<(Conv, u64)> {
    let taken = done.changes.iter().filter_map(|change| match change {
        Change::Take { conv, message: Message { seq, .. } } => Some((*conv, *seq)),
        Change::Acked { conv, seq, place: true, .. } => Some((*conv, *seq)),
        _ => None,
    });
    taken.collect()
}

#[test]
fn it_logs_in_with_what_it_has_and_keeps_the_new_token() {
    let mut stage = Stage::connected(known(&[(BOB, 41), (TEAM, 7)]));
    assert_eq!(stage.machine.state(), State::LoggingIn);
    let login = json!({"msgType": 1, "level": 2, "device": "d", "ping": 30, "token": "t1", "have": {"u9": "41:0a", "g3": "7:0a"}});
    assert_eq!(stage.written(), [login]);
    stage.hear(&[WELCOME]);
    let done = stage.machine.done();
    assert!(matches!(&done.changes[..], [Change::Account(account)] if account.user == 7 && account.token == "t2"));
    // The next connection uses it.
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
fn what_a_server_answers_to_a_login_decides_whether_it_comes_back() {
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
        // A login alone is no success.
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
fn a_run_is_taken_and_reported_once_a_second() {
    let mut stage = Stage::connected(known(&[(BOB, 41)]));
    stage.written();
    stage.hear(&[
        WELCOME,
        r#"{"convs":[{"conv":"u9","floor":0,"head":43,"kind":"user","name":"bob","peerRead":40,"peerRecv":43,"read":41,"tag":"0b","unread":2}],"more":false,"msgType":43}"#,
        r#"{"complete":true,"conv":"u9","from":42,"msgType":44,"to":43}"#,
        &push(BOB, 42),
        &push(BOB, 43),
        SYNCED,
        &push(BOB, 44),
        &push(BOB, 44),
    ]);
    assert_eq!(taken(&stage.machine.done()), [(BOB, 42), (BOB, 43), (BOB, 44)]);
    assert_eq!(stage.written(), [] as [Value; 0], "nothing is reported before it is stored");
    stage.pass(0);
    assert_eq!(stage.written(), [json!({"msgType": 47, "recv": {"u9": 44}})]);
    stage.hear(&[&push(BOB, 45)]);
    stage.pass(0);
    assert_eq!(stage.written(), [] as [Value; 0]);
    assert_eq!(stage.machine.deadline(stage.now), Some(stage.now + EVERY));
    stage.pass(1);
    assert_eq!(stage.written(), [json!({"msgType": 47, "recv": {"u9": 45}})]);
}

#[test]
fn conversations_of_other_histories_and_foreign_ones() {
    let mut stage = Stage::connected(known(&[(BOB, 41), (TEAM, 7)]));
    stage.hear(&[
        WELCOME,
        r#"{"convs":[{"conv":"u9","floor":0,"head":3,"kind":"user","name":"bob","read":3,"tag":"0b","unread":0}],"more":false,"msgType":43}"#,
        r#"{"complete":true,"conv":"u9","from":1,"msgType":44,"reset":true,"to":1}"#,
        &push(BOB, 1),
        r#"{"conv":"g3","errmsg":"no","errno":403,"msgType":44}"#,
        SYNCED,
    ]);
    let done = stage.machine.done();
    assert_eq!(taken(&done), [(BOB, 1)]);
    let at = |wanted: fn(&Change) -> bool| done.changes.iter().position(wanted);
    let reset = at(|change| matches!(change, Change::Reset(BOB)));
    assert!(reset.is_some() && reset < at(|change| matches!(change, Change::Take { .. })));
    assert!(at(|change| matches!(change, Change::Closed { conv: TEAM, errno: 403 })).is_some());
}

#[test]
fn a_hole_is_asked_for_once_a_second() {
    let mut stage = Stage::online(known(&[(BOB, 5)]));
    stage.hear(&[&push(BOB, 7)]);
    assert_eq!(taken(&stage.machine.done()), []);
    stage.pass(0);
    let asked = stage.written();
    assert_eq!((&asked[0]["msgType"], &asked[0]["have"]), (&json!(46), &json!({"u9": "5:0a"})));
    stage.hear(&[r#"{"complete":true,"conv":"u9","from":6,"msgType":44,"to":7}"#, &push(BOB, 6), &push(BOB, 7)]);
    stage.hear(&[&format!(r#"{{"msgType":45,"rid":{},"synced":true}}"#, asked[0]["rid"])]);
    assert_eq!(taken(&stage.machine.done()), [(BOB, 6), (BOB, 7)]);
    stage.hear(&[&push(BOB, 9)]);
    stage.pass(0);
    assert!(stage.written().iter().all(|frame| frame["msgType"] != 46), "too early");
    stage.pass(1);
    assert!(stage.written().iter().any(|frame| frame["msgType"] == 46));
}

#[test]
fn acknowledged_messages_take_their_place() {
    let filled = Known { filled: vec![BOB], ..known(&[(BOB, 5)]) };
    let mut stage = Stage::online(filled);
    let outbox = [(1, BOB, "a"), (2, BOB, "b"), (3, BOB, "c")];
    stage.send(&outbox);
    assert_eq!(stage.sent_cids(), ["a", "b", "c"]);
    let again = ack("b", 4).replace("\"cid\"", "\"again\":true,\"cid\"");
    stage.hear(&[&ack("a", 6), &again, &ack("c", 9), &ack("never sent", 7)]);
    let done = stage.machine.done();
    assert_eq!(taken(&done), [(BOB, 6)], "one was there before, one stands behind a hole, one is not ours");
    let acked = done.changes.iter().filter(|change| matches!(change, Change::Acked { .. })).count();
    assert_eq!((acked, done.outcomes.len()), (3, 3), "all three leave the outbox");
    stage.pass(0);
    assert!(stage.written().iter().any(|frame| frame["msgType"] == 46), "what is before the third is asked for");
}

#[test]
fn the_order_of_sending_survives_a_failure() {
    let mut stage = Stage::online(Known { filled: vec![BOB], ..Known::default() });
    let outbox = [(1, BOB, "a"), (2, BOB, "b"), (3, BOB, "c")];
    stage.send(&outbox);
    stage.sent_cids();
    let busy = |cid: &str| format!(r#"{{"cid":"{cid}","errmsg":"away","errno":503,"msgType":41,"retryAfter":2}}"#);
    stage.hear(&[&ack("a", 1), &busy("b")]);
    stage.send(&outbox);
    assert_eq!(stage.sent_cids(), [] as [String; 0]);
    stage.hear(&[&busy("c")]);
    stage.pass(1);
    stage.send(&outbox);
    assert_eq!(stage.sent_cids(), [] as [String; 0]);
    stage.pass(1);
    stage.send(&outbox);
    assert_eq!(stage.sent_cids(), ["b", "c"]);
    let refused = r#"{"cid":"b","errmsg":"blocked","errno":403,"msgType":41}"#;
    stage.hear(&[refused, &ack("c", 2)]);
    let done = stage.machine.done();
    assert!(done.changes.iter().any(|change| matches!(change, Change::Refused { cid, errno: 403, .. } if cid == "b")));
    assert_eq!(taken(&done), [(BOB, 1), (BOB, 2)]);
}

#[test]
fn no_more_are_on_their_way_than_the_server_takes() {
    let mut stage = Stage::online(Known { filled: vec![BOB, TEAM], ..Known::default() });
    let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let mut outbox: Vec<(i64, Conv, &str)> =
        names.iter().enumerate().map(|(n, cid)| (n as i64 + 1, BOB, &**cid)).collect();
    outbox.push((200, TEAM, "quiet"));
    stage.send(&outbox);
    let sent = stage.sent_cids();
    assert_eq!((sent.len(), sent.contains(&"quiet".to_owned())), (20, true), "of two conversations");
    // A new connection sends everything again that is not acknowledged.
    stage.hear(&[&ack("c0", 1)]);
    stage.machine.lost("gone", stage.now, 0.0);
    stage.now += Duration::from_secs(1);
    stage.connect(Known { filled: vec![BOB], ..Known::default() });
    stage.send(&outbox[1..]);
    assert_eq!(stage.sent_cids(), [] as [String; 0], "not before the login");
    stage.hear(&[WELCOME]);
    stage.send(&outbox[1..]);
    assert_eq!(stage.sent_cids()[..2], ["c1", "c2"]);
}

#[test]
fn a_frame_that_is_too_long_is_never_sent() {
    let mut stage = Stage::online(Known { filled: vec![BOB], ..Known::default() });
    let wanted = stage.machine.wanted(stage.now).expect("something");
    stage.machine.send(
        wanted,
        vec![(1, "long".to_owned(), "x".repeat(3000)), (2, "short".to_owned(), r#"{"cid":"short"}"#.to_owned())],
    );
    assert_eq!(stage.sent_cids(), ["short"]);
    let done = stage.machine.done();
    assert!(
        matches!(&done.outcomes[..], [Outcome { cid, result: Err(refusal) }] if cid == "long" && refusal.errno == 413)
    );
}

#[test]
fn requests_are_answered_or_interrupted() {
    let mut stage = Stage::connected(Known::default());
    stage.machine.ask(1, json!({"msgType": 8}));
    stage.hear(&[WELCOME]);
    stage.machine.ask(2, json!({"msgType": 8}));
    stage.machine.ask(3, json!({"msgType": 6, "U2": 1}));
    stage.machine.ask(4, json!({"msgType": 60}));
    stage.machine.ask(5, json!({"msgType": 8, "text": "x".repeat(3000)}));
    let asked = stage.written();
    assert_eq!(asked[1]["FROMID"], 7);
    let rid = |n: usize| asked[n]["rid"].clone();
    stage.hear(&[
        &json!({"errno": 200, "msgType": 8, "friends": [], "rid": rid(1)}).to_string(),
        &json!({"errno": 404, "errmsg": "no such user", "msgType": 6, "rid": rid(2)}).to_string(),
        &json!({"errno": 200, "msgType": 60, "token": "t3", "rid": rid(3)}).to_string(),
        &json!({"errno": 200, "msgType": 8, "rid": "r99"}).to_string(),
    ]);
    stage.machine.ask(6, json!({"msgType": 8}));
    stage.machine.lost("gone", stage.now, 0.0);
    let done = stage.machine.done();
    let shape = |answer: &Result<Value, Error>| match answer {
        Ok(_) => "fine".to_owned(),
        Err(Error::Refused { errno, .. }) => errno.to_string(),
        Err(error) => format!("{error:?}").split(' ').next().unwrap_or_default().to_owned(),
    };
    let answers: Vec<(u64, String)> = done.answers.iter().map(|(ask, answer)| (*ask, shape(answer))).collect();
    let expected = [(1, "Offline"), (5, "TooLong"), (2, "fine"), (3, "404"), (4, "fine"), (6, "Interrupted")];
    assert_eq!(answers, expected.map(|(ask, shape)| (ask, shape.to_owned())));
    assert!(done.changes.iter().any(|change| matches!(change, Change::Token(token) if token == "t3")));
}

#[test]
fn pages_close_gaps_and_a_410_raises_the_floor() {
    let mut stage = Stage::online(known(&[(BOB, 50)]));
    stage.machine.ask_for_page(1, BOB, Some(40), 999);
    stage.machine.ask_for_page(2, BOB, Some(20), 200);
    stage.machine.ask_for_page(3, BOB, Some(10), 200);
    let asked = stage.written();
    assert_eq!((&asked[0]["before"], &asked[0]["limit"]), (&json!(40), &json!(200)));
    let page = |rid: &Value, seq: u64| {
        format!(
            r#"{{"complete":false,"conv":"u9","errno":200,"floor":0,"from":{seq},"head":50,"msgType":48,"msgs":[{{"from":9,"m":{{}},"seq":{seq},"tag":"0a","time":1}}],"rid":{rid},"to":{seq}}}"#
        )
    };
    let gone = json!({"errno": 410, "errmsg": "gone", "msgType": 48, "rid": asked[2]["rid"]}).to_string();
    stage.hear(&[&page(&asked[0]["rid"], 39), &page(&asked[1]["rid"], 25), &gone]);
    let done = stage.machine.done();
    let answers: Vec<bool> = done.answers.iter().map(|(_, answer)| answer.is_ok()).collect();
    assert_eq!(answers, [true, false, false], "the second page is not what was asked for");
    assert!(matches!(
        &done.changes[..],
        [Change::Page { before: Some(40), .. }, Change::Floor { conv: BOB, floor: 9 }]
    ));
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
    stage.pass(20);
    assert!(matches!(stage.machine.state(), State::Waiting { .. }));
    let mut stage = Stage::connected(Known::default());
    stage.pass(60);
    assert!(matches!(stage.machine.state(), State::Waiting { .. }), "a login is answered in time");
}

#[test]
fn marks_typing_and_presence() {
    let mut stage = Stage::connected(Known { marks: vec![(BOB, 5)], ..Known::default() });
    stage.machine.watch(vec![9, 12]);
    stage.machine.typing(BOB, stage.now);
    stage.written();
    stage.hear(&[WELCOME, SYNCED]);
    let written = stage.written();
    assert_eq!(written[0], json!({"msgType": 52, "watch": [9, 12]}));
    assert_eq!((&written[1]["conv"], &written[1]["read"]), (&json!("u9"), &json!(5)), "a mark that waited");
    stage.machine.mark_read(BOB, 8);
    stage.machine.typing(BOB, stage.now);
    stage.machine.typing(BOB, stage.now);
    let written = stage.written();
    assert_eq!(written.len(), 2);
    assert_eq!(written[1], json!({"msgType": 51, "conv": "u9", "event": "typing"}));
    stage.machine.done();
    stage.hear(&[
        r#"{"conv":"u9","event":"typing","from":9,"msgType":51}"#,
        r#"{"msgType":52,"online":true,"user":9}"#,
        r#"{"conv":"u9","msgType":50,"read":4,"recv":5,"user":9}"#,
        r#"{"conv":"u9","head":9,"msgType":49,"read":9,"unread":0,"user":7}"#,
    ]);
    let done = stage.machine.done();
    assert_eq!(done.events[..2], [Event::Typing { conv: BOB, from: 9 }, Event::Presence { user: 9, online: true }]);
    assert!(matches!(&done.changes[..], [Change::Peer(_), Change::Read(read)] if read.read == 9));
}

#[test]
fn whatever_bytes_come_nothing_breaks() {
    let frames = [WELCOME, SYNCED, &push(BOB, 1), &ack("a", 2)].join("\n");
    let mut seed = 1_u64;
    for _ in 0..2_000 {
        let mut bytes = frames.clone().into_bytes();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 20) as u8;
        }
        let mut stage = Stage::connected(Known { filled: vec![BOB], ..known(&[(BOB, 0)]) });
        stage.machine.received(&bytes, stage.now, 0.0);
        stage.send(&[(1, BOB, "a")]);
        stage.machine.closed(stage.now, 0.0);
        assert!(matches!(stage.machine.state(), State::Waiting { .. } | State::Ended(_)));
    }
}
