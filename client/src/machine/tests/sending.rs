//! Outgoing frames: messages of the outbox, and requests.

use super::*;

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
    // A new connection sends every unacknowledged message again.
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
