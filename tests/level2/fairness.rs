//! A client that requests as much as it can, beside one that requests little.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::people::{pair, with};
use testkit::level2::Level2Client;
use testkit::{Builder, PATIENCE, SetOnDrop, StoreLock, TestServer, offline_user, wait_until};

/// Keeps sends, pages and 46s in flight until `stop`. Counts the answers.
fn flood(greedy: &mut Level2Client, conv: &str, stop: &AtomicBool, answers: &AtomicUsize) {
    let have = json!({conv: "1:00000000"});
    while !stop.load(Ordering::Relaxed) {
        while greedy.unanswered() < 250 {
            greedy.send(conv, "flood");
        }
        for request in [
            json!({"msgType": 48, "conv": conv, "limit": 200, "rid": "p"}),
            json!({"msgType": 46, "have": have, "resume": 5000, "rid": "s"}),
        ] {
            if greedy.unreplied() < 100 {
                greedy.send_frame(&request);
            }
        }
        if greedy.read(PATIENCE).is_some() {
            answers.fetch_add(1, Ordering::Relaxed);
        }
        greedy.clear_inbox();
    }
}

#[test]
fn a_greedy_client_does_not_hold_up_a_quiet_one() {
    let rates = |builder: Builder| builder.option("frames_per_second", "off").option("bytes_per_second", "off");
    let server = rates(TestServer::builder().may_keep(64)).start();
    let (mut quiet, mut friend) = pair(&server);
    let mut greedy = Level2Client::enter(&server, "greedy", offline_user(&server, "greedy"), "g1");
    let (notes, to_friend, to_quiet) = (with(&greedy), with(&friend), with(&quiet));
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        scope.spawn(|| flood(&mut greedy, &notes, &stop, &answers));
        wait_until("the flood runs", || answers.load(Ordering::Relaxed) > 2_000);
        let mut served = Vec::new();
        for n in 1..=50 {
            let before = answers.load(Ordering::Relaxed);
            assert_eq!(quiet.say(&to_friend, &n.to_string()), n);
            friend.until_at(&to_quiet, n);
            quiet.ask_for(200, json!({"msgType": 48, "conv": to_friend, "limit": 5}));
            quiet.ask_for_pong();
            served.push(answers.load(Ordering::Relaxed) - before);
        }
        served.sort_unstable();
        // If each of the quiet client's three requests waited behind everything that the greedy one
        // has in flight, it would wait for a thousand answers.
        assert!(served[25] < 350, "half of the quiet one's requests wait for too much: {served:?}");
        println!("answers to the greedy one while the quiet one has three: {served:?}");
    });
}

#[test]
fn a_message_does_not_wait_for_megabytes_of_another_sender() {
    const DEVICES: usize = 2;
    const EACH: usize = 120;
    let rates = |builder: Builder| builder.option("bytes_per_second", "off").option("frames_per_second", "off");
    let server = rates(TestServer::builder().option("admin", "127.0.0.1:0")).start();
    let (mut quiet, friend) = pair(&server);
    let g = offline_user(&server, "greedy");
    let mut greedy: Vec<Level2Client> =
        (0..DEVICES).map(|n| Level2Client::enter(&server, "greedy", g, &format!("g{n}"))).collect();
    let (to_friend, notes, text) = (with(&friend), with(&greedy[0]), "x".repeat(60_000));
    let read = || server.metric(r#"raybox_frames_total{type="4"}"#) as usize;
    // While this lock is held, nothing is committed. The first batch has one message, so all others
    // wait.
    let lock = StoreLock::take(&server);
    begin_batch(&server, &mut greedy[0], &notes);
    for device in &mut greedy {
        let frame = |_| {
            let mut frame = device.message(&notes);
            frame["msg"] = json!(text);
            frame
        };
        let frames: Vec<Value> = (0..EACH).map(frame).collect();
        device.send_many(&frames);
    }
    wait_until("what the greedy one sends is read", || read() == DEVICES * EACH + 1);
    let cid = quiet.send(&to_friend, "one");
    wait_until("what the quiet one sends is read", || read() == DEVICES * EACH + 2);
    drop(lock);
    quiet.number(&cid);
    greedy.iter_mut().for_each(Level2Client::settle);
    let behind = format!("SELECT count(*) FROM Message WHERE id > (SELECT id FROM Message WHERE sender <> {g})");
    let behind = server.count(&behind);
    println!("{behind} of {} large messages are committed behind the quiet one's", DEVICES * EACH);
    // At most one turn of each flow comes before the quiet client's message.
    assert!(behind > DEVICES * EACH * 3 / 4, "{behind} are behind it");
}

/// Sends a message, and returns when the lane of its conversation has begun a batch with it.
fn begin_batch(server: &TestServer, client: &mut Level2Client, conv: &str) {
    let first = client.message(conv);
    client.send_many(&[first]);
    wait_until("a batch is begun", || server.metric(r#"raybox_lane_busy_seconds{lane="recorder-0"}"#) > 0.0);
}

#[test]
fn a_message_does_not_wait_for_all_that_another_sender_has_in_flight() {
    const DEVICES: usize = 4;
    const EACH: usize = 250;
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let (mut quiet, _friend) = pair(&server);
    let g = offline_user(&server, "greedy");
    let mut greedy: Vec<Level2Client> =
        (0..DEVICES).map(|n| Level2Client::enter(&server, "greedy", g, &format!("g{n}"))).collect();
    let to_friend = with(&_friend);
    let notes = with(&greedy[0]);
    let read = || server.metric(r#"raybox_frames_total{type="4"}"#) as usize;
    // While this lock is held, nothing is committed. The first batch has one message, so all others
    // wait.
    let lock = StoreLock::take(&server);
    begin_batch(&server, &mut greedy[0], &notes);
    for device in &mut greedy {
        let frames: Vec<Value> = (0..EACH).map(|_| device.message(&notes)).collect();
        device.send_many(&frames);
    }
    wait_until("what the greedy one sends is read", || read() == DEVICES * EACH + 1);
    let cid = quiet.send(&to_friend, "one");
    wait_until("what the quiet one sends is read", || read() == DEVICES * EACH + 2);
    drop(lock);
    quiet.number(&cid);
    greedy.iter_mut().for_each(Level2Client::settle);
    let behind = format!("SELECT count(*) FROM Message WHERE id > (SELECT id FROM Message WHERE sender <> {g})");
    let behind = server.count(&behind);
    println!("{behind} of {} messages of the greedy one are committed behind the quiet one's", DEVICES * EACH);
    assert!(behind > DEVICES * EACH / 2, "{behind} are behind it");
}

#[test]
fn a_message_does_not_wait_for_hundreds_to_a_group_of_thousands() {
    const MEMBERS: i64 = 2_000;
    let rates = |builder: Builder| builder.option("frames_per_second", "off").option("bytes_per_second", "off");
    let mut server = rates(TestServer::builder().may_keep(64)).start();
    let g = offline_user(&server, "greedy");
    server.run_sql("INSERT INTO AllGroup (id, groupname, name_key, groupdesc) VALUES (7, 'all', 'all', '')");
    server.run_sql(&format!("INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (7, {g}, 'creator')"));
    // The members have used level 2, but have not used level 1 for a month.
    server.run_sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 999 + {MEMBERS})
         INSERT INTO User (id, name, name_key, password, level2) SELECT i, 'u' || i, 'u' || i, '', 1 FROM n"
    ));
    server.run_sql(
        "INSERT INTO GroupUser (groupid, userid, grouprole) SELECT 7, id, 'normal' FROM User WHERE id >= 1000",
    );
    server.terminate();
    server.restart();
    let (mut quiet, mut friend) = pair(&server);
    let mut greedy = Level2Client::enter(&server, "greedy", g, "g1");
    let (to_friend, to_quiet) = (with(&friend), with(&quiet));
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                while greedy.unanswered() < 250 {
                    greedy.send("g7", "to all");
                }
                if greedy.read(PATIENCE).is_some() {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                greedy.clear_inbox();
            }
        });
        wait_until("the flood runs", || answers.load(Ordering::Relaxed) > 250);
        let mut served = Vec::new();
        for n in 1..=20 {
            let before = answers.load(Ordering::Relaxed);
            assert_eq!(quiet.say(&to_friend, &n.to_string()), n);
            friend.until_at(&to_quiet, n);
            served.push(answers.load(Ordering::Relaxed) - before);
        }
        served.sort_unstable();
        // A batch with everything that the greedy client has in flight would have 250 messages.
        assert!(served[10] < 60, "half of the quiet one's messages wait for too many: {served:?}");
        println!("answers to the greedy one while the quiet one has one: {served:?}");
    });
}

/// Strangers who write to one user, and a user who writes to everybody, reach the bound. Meanwhile
/// users with a common conversation are served.
#[test]
fn a_sender_that_fills_conversations_takes_no_room_from_others() {
    let server = TestServer::builder().option("conversations_max", "4").start();
    let (mut quiet, mut friend) = pair(&server);
    let (to_friend, to_quiet) = (with(&friend), with(&quiet));
    assert_eq!(quiet.say(&to_friend, "1"), 1);
    let strangers: Vec<i64> = (0..6).map(|n| offline_user(&server, &format!("stranger-{n}"))).collect();
    let mut opened = 0;
    for (n, id) in strangers.iter().enumerate() {
        let mut stranger = Level2Client::enter(&server, &format!("stranger-{n}"), *id, "s1");
        let frame = stranger.message(&to_quiet);
        stranger.send_frame(&frame);
        let cid = frame["cid"].as_str().expect("a cid");
        let answer = stranger.answer(cid);
        match answer["errno"].as_i64() {
            Some(200) => opened += 1,
            _ => assert_eq!((&answer["errno"], &answer["retryAfter"]), (&json!(403), &Value::Null), "{answer}"),
        }
        // A friend request opens no conversation either.
        let asked = stranger.ask(json!({"msgType": 6, "U1": id, "U2": quiet.store.me}));
        assert_eq!(asked["errno"] == 200, n == 0, "only what is open goes on: {asked}");
        let so_far = n as u64 + 2;
        assert_eq!(quiet.say(&to_friend, "between"), so_far);
        friend.until_at(&to_quiet, so_far);
    }
    assert_eq!(opened, 1, "half of four, of which the friend has one");
    // The other half is for the quiet user's own conversations.
    for to in [strangers[4], strangers[5]] {
        assert_eq!(quiet.say(&format!("u{to}"), "I write first"), 1);
    }
    let frame = quiet.message(&format!("u{}", strangers[3]));
    quiet.send_frame(&frame);
    assert_eq!(quiet.answer(frame["cid"].as_str().expect("a cid"))["errno"], 403);
    let shown = Level2Client::enter(&server, "ann", quiet.store.me, "a2");
    assert_eq!(shown.store.logs.len(), 4);
}
