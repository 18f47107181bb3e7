//! Groups: the part of the history that each member sees, and how conversations begin and end for
//! members.

use serde_json::{Value, json};

use testkit::level2::{Level2Client, assert_agree};
use testkit::{TestServer, offline_user};

/// Four users with a device each, and a group that the first one has created.
fn group(server: &TestServer) -> (Vec<Level2Client>, String) {
    let names = ["ann", "bob", "carol", "dave"];
    let mut people: Vec<Level2Client> =
        names.iter().map(|name| Level2Client::enter(server, name, offline_user(server, name), "d")).collect();
    let ann = &mut people[0];
    let reply = ann.ask_for(200, json!({"msgType": 12, "FROMID": ann.store.me, "name": "team", "description": "d"}));
    let conv = format!("g{}", reply["GROUPID"]);
    (people, conv)
}

fn id(conv: &str) -> i64 {
    conv[1..].parse().expect("an id")
}

fn join(client: &mut Level2Client, conv: &str) {
    let me = client.store.me;
    client.ask_for(200, json!({"msgType": 10, "FROMID": me, "GROUPID": id(conv)}));
}

/// The event with which a group begins or ends for a user.
fn event(client: &Level2Client, conv: &str, seq: u64) -> Value {
    client.store.logs[conv].messages[&seq].m.value()
}

#[test]
fn a_new_group_is_there_for_its_creator() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    let ann = &mut people[0];
    ann.until_at(&conv, 1);
    let created = event(ann, &conv, 1);
    assert_eq!((&created["msgType"], &created["event"]), (&json!(57), &json!("created")), "{created}");
    assert_eq!((&created["USERID"], &created["by"]), (&json!(ann.store.me), &json!(ann.store.me)), "{created}");
    assert_eq!(ann.say(&conv, "hello"), 2);
}

#[test]
fn a_new_member_sees_the_history_from_the_join_on() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    join(&mut people[1], &conv);
    for n in 0..5 {
        people[0].say(&conv, &format!("before {n}"));
    }
    join(&mut people[2], &conv);
    let after = people[0].say(&conv, "after");
    for client in &mut people[1..3] {
        client.until_at(&conv, after);
    }
    let carol = &mut people[2];
    assert_eq!(carol.store.texts(&conv), ["after"]);
    let first = *carol.store.logs[&conv].messages.keys().next().expect("a message");
    let joined = event(carol, &conv, first);
    assert_eq!((&joined["event"], &joined["USERID"]), (&json!("joined"), &json!(carol.store.me)), "{joined}");
    // Pages end at the same floor.
    let count = carol.page_through(&conv);
    assert_eq!(count, after + 1 - first);
    assert_eq!(carol.store.texts(&conv), ["after"]);
    let page = carol.ask_for(410, json!({"msgType": 48, "conv": conv, "before": first}));
    assert!(page.get("msgs").is_none(), "{page}");
    let page = carol.ask_for(200, json!({"msgType": 48, "conv": conv, "after": 0}));
    assert_eq!((&page["from"], &page["floor"]), (&json!(first), &json!(first - 1)), "{page}");
    // The same holds for another device, and in runs.
    let mut other = Level2Client::enter(&server, "carol", carol.store.me, "d2");
    other.page_through(&conv);
    assert_eq!(other.store.texts(&conv), ["after"]);
    other.ask(json!({"msgType": 46, "have": {conv.clone(): "0:00000000"}}));
    assert_eq!(other.store.texts(&conv), ["after"]);
    assert_agree(&other.store, &conv, &people[0].store, &conv);
}

#[test]
fn a_group_has_one_order_for_all() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    for client in &mut people[1..] {
        join(client, &conv);
    }
    for n in 0..50 {
        for client in &mut people {
            client.send(&conv, &format!("{} {n}", client.store.me));
        }
    }
    people.iter_mut().for_each(Level2Client::settle);
    let head = people.iter().map(|client| client.store.cursor(&conv)).max().expect("people");
    people.iter_mut().for_each(|client| client.until_at(&conv, head));
    assert_eq!(people[0].store.texts(&conv).len(), 200);
    for client in &people {
        assert_agree(&people[0].store, &conv, &client.store, &conv);
    }
}

#[test]
fn a_member_who_has_left_sees_nothing() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    join(&mut people[1], &conv);
    join(&mut people[2], &conv);
    let number = people[0].say(&conv, "secret");
    people.iter_mut().take(3).for_each(|client| client.until_at(&conv, number));
    let mut away = people.remove(2).leave();
    let bob = &mut people[1];
    bob.ask_for(200, json!({"msgType": 62, "GROUPID": id(&conv)}));
    bob.until_at(&conv, number + 1);
    let left = event(bob, &conv, number + 1);
    assert_eq!((&left["event"], &left["USERID"]), (&json!("left"), &json!(bob.store.me)), "{left}");
    bob.ask_for(403, json!({"msgType": 48, "conv": conv}));
    bob.ask_for(403, json!({"msgType": 49, "conv": conv, "read": 1}));
    let have = bob.store.have();
    bob.ask(json!({"msgType": 46, "have": have}));
    assert_eq!(bob.store.logs[&conv].closed, Some(403));
    let cid = bob.send(&conv, "still here?");
    assert_eq!(bob.answer(&cid)["errno"], 403);
    // A member who comes back sees the messages from the new join on.
    let later = people[0].say(&conv, "without bob");
    join(&mut people[1], &conv);
    let last = people[0].say(&conv, "with bob");
    people[1].until_at(&conv, last);
    assert!(!people[1].store.logs[&conv].messages.contains_key(&later));
    people[1].ask_for(410, json!({"msgType": 48, "conv": conv, "before": number}));
    // A member who was offline is notified that the conversation is over.
    people[0].ask_for(200, json!({"msgType": 63, "GROUPID": id(&conv), "USERID": away.me}));
    let mut carol = Level2Client::resume(&server, "carol", "d", std::mem::take(&mut away));
    assert_eq!(carol.store.logs[&conv].closed, Some(403));
    let me = carol.store.me;
    carol.ask_for(403, json!({"msgType": 10, "FROMID": me, "GROUPID": id(&conv)}));
}

#[test]
fn members_change_only_their_own_messages_even_the_creator() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    join(&mut people[1], &conv);
    join(&mut people[2], &conv);
    let number = people[1].say(&conv, "bob's");
    let change = |client: &mut Level2Client, members: Value| {
        let cid = client.send_with(&conv, members);
        client.answer(&cid)
    };
    for client in [0, 2] {
        for key in ["edit", "recall"] {
            let answer = change(&mut people[client], json!({key: number}));
            assert_eq!((&answer["errno"], answer.get("retryAfter")), (&json!(403), None), "{answer}");
        }
    }
    // Bob joined as number 2 and Carol as 3, with which their histories begin.
    for (target, errno) in [(number, 200), (3, 403), (2, 403), (1, 404)] {
        assert_eq!(change(&mut people[1], json!({"recall": target}))["errno"], errno, "{target}");
    }
    for (target, errno) in [(2, 404), (3, 403)] {
        assert_eq!(change(&mut people[2], json!({"edit": target}))["errno"], errno, "{target}");
    }
}

#[test]
fn a_group_that_is_dissolved_is_gone() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    join(&mut people[1], &conv);
    let number = people[0].say(&conv, "1");
    people[1].until_at(&conv, number);
    let away = people.remove(1).leave();
    people[0].ask_for(200, json!({"msgType": 65, "GROUPID": id(&conv)}));
    people[0].until_at(&conv, number + 1);
    assert_eq!(event(&people[0], &conv, number + 1)["event"], "dissolved");
    people[0].ask_for(404, json!({"msgType": 48, "conv": conv}));
    let bob = Level2Client::resume(&server, "bob", "d", away);
    assert_eq!(bob.store.logs[&conv].closed, Some(404));
}

#[test]
fn a_list_of_many_members_comes_in_several_frames() {
    let server = TestServer::start();
    let (mut people, conv) = group(&server);
    let ann = &mut people[0];
    let names = "WITH RECURSIVE some (id) AS (SELECT 1001 UNION ALL SELECT id + 1 FROM some WHERE id < 10000)";
    server.run_sql(&format!(
        "{names} INSERT INTO User (id, name, name_key, password) SELECT id, printf('%050d', id), printf('%050d', id), '' FROM some;
         {names} INSERT INTO GroupUser (groupid, userid, grouprole) SELECT {}, id, 'normal' FROM some;",
        id(&conv)
    ));
    // The client requests several lists at once and reads slowly. The lists must not be mixed, and
    // the connection must stay open.
    let request = |rid: i64| json!({"msgType": 61, "GROUPID": id(&conv), "rid": rid});
    ann.send_many(&[request(1), request(2), json!({"msgType": 53, "rid": 3}), request(4)]);
    for rid in [1, 2, 4] {
        let mut members = Vec::new();
        loop {
            let frame = ann.take("a part of the list", |frame| frame["msgType"] == 61);
            assert_eq!((&frame["rid"], &frame["errno"]), (&json!(rid), &json!(200)));
            assert!(frame.to_string().len() < 512 << 10, "longer than the server's frames may be");
            members.extend(frame["members"].as_array().expect("members").iter().map(|member| member["id"].clone()));
            if frame["more"] != true {
                assert_eq!(frame.get("more"), None);
                break;
            }
        }
        assert_eq!(members.len(), 9001);
        assert_eq!(members.last(), Some(&json!(10000)));
        if rid == 2 {
            ann.take("the reply between them", |frame| frame["msgType"] == 54);
        }
    }
    ann.ask_for_pong();
}
