//! Incoming frames: runs, holes, pages, marks, and garbage.

use super::*;

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
    let reset = at(|change| matches!(change, Change::Reset { conv: BOB, .. }));
    assert!(reset.is_some() && reset < at(|change| matches!(change, Change::Take { .. })));
    assert!(at(|change| matches!(change, Change::Closed { conv: TEAM, errno: 403 })).is_some());
}

#[test]
fn after_a_reset_that_no_43_explains_the_own_mark_is_asked_for() {
    let mut stage = Stage::online(known(&[(BOB, 5), (TEAM, 5)]));
    stage.machine.marks.extend([(BOB, 9), (TEAM, 3)]);
    stage.written();
    let reset = |conv| format!(r#"{{"complete":true,"conv":"{conv}","from":1,"msgType":44,"reset":true,"to":4}}"#);
    stage.hear(&[&reset(BOB)]);
    let asked = stage.written();
    let marks: Vec<_> = asked.iter().map(|frame| (&frame["msgType"], &frame["conv"], &frame["read"])).collect();
    // The mark of BOB is beyond the new history, and that of TEAM is still to be sent.
    assert_eq!(marks, [(&json!(49), &json!("u9"), &json!(0)), (&json!(49), &json!("g3"), &json!(3))]);
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
fn no_bytes_break_the_machine() {
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
