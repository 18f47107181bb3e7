//! Groups: members who come and go, and the events that members see.

use serde_json::{Value, json};
use testkit::level2::{Level2Client, Store};
use testkit::{TestClient, TestServer, offline_user, user};

use crate::people::with;

/// The messages of a conversation that a client holds.
fn bodies(client: &Level2Client, conv: &str) -> Vec<Value> {
    client.store.log(conv).map_or(Vec::new(), |log| log.messages.values().map(|message| message.m.value()).collect())
}

/// The events in a conversation, each with the user it concerns and the user who caused it.
fn events(client: &Level2Client, conv: &str) -> Vec<(String, i64, i64)> {
    let event = |m: &Value| {
        let id = |key: &str| m[key].as_i64();
        Some((m["event"].as_str()?.to_owned(), id("USERID")?, id("by")?))
    };
    bodies(client, conv).iter().filter(|m| m["msgType"] == 57).filter_map(event).collect()
}

fn create(client: &mut Level2Client, name: &str) -> i64 {
    let me = client.store.me;
    let made = client.ask_for(200, json!({"msgType": 12, "FROMID": me, "name": name, "description": ""}));
    made["GROUPID"].as_i64().unwrap()
}

fn join(client: &mut Level2Client, group: i64) -> Value {
    let me = client.store.me;
    client.ask(json!({"msgType": 10, "FROMID": me, "GROUPID": group}))
}

#[test]
fn each_join_and_leave_is_a_message_of_the_group() {
    let server = TestServer::start();
    let [a, b] = ["ann", "bob"].map(|name| offline_user(&server, name));
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let group = create(&mut ann, "g");
    let conv = format!("g{group}");
    ann.until_at(&conv, 1);
    ann.say(&conv, "before");
    assert_eq!(join(&mut bob, group)["errno"], 200);
    ann.until_at(&conv, 3);
    bob.until_at(&conv, 3);
    bob.say(&conv, "hello");
    ann.until_at(&conv, 4);
    let members = ann.ask_for(200, json!({"msgType": 61, "GROUPID": group}))["members"].clone();
    assert_eq!(
        members,
        json!([{"id": a, "name": "ann", "role": "creator"}, {"id": b, "name": "bob", "role": "member"}])
    );
    // The creator leaves, and the other member becomes the creator.
    ann.ask_for(200, json!({"msgType": 62, "GROUPID": group}));
    bob.until_at(&conv, 6);
    ann.until_at(&conv, 5);
    ann.ask_for(403, json!({"msgType": 61, "GROUPID": group}));
    let id = ann.send(&conv, "more");
    assert_eq!(ann.answer(&id)["errno"], 403);
    let expected =
        [("joined", b, b), ("left", a, a), ("creator", b, a)].map(|(event, user, by)| (event.to_owned(), user, by));
    assert_eq!(events(&bob, &conv), expected);
    bob.ask_for(200, json!({"msgType": 64, "GROUPID": group, "name": "G", "description": "d"}));
    bob.until_at(&conv, 7);
    bob.ask_for(200, json!({"msgType": 65, "GROUPID": group}));
    bob.until_at(&conv, 8);
    bob.ask_for(404, json!({"msgType": 61, "GROUPID": group}));
    assert_eq!(events(&bob, &conv)[4], ("dissolved".to_owned(), b, b));
    // A device that was offline is notified that it has lost the group.
    let store = ann.leave();
    let ann = Level2Client::resume(&server, "ann", "a1", store);
    assert_eq!(events(&ann, &conv).last(), Some(&("left".to_owned(), a, a)));
}

#[test]
fn a_creator_removes_and_lets_in_again() {
    let server = TestServer::start();
    let [a, b, c] = ["ann", "bob", "cat"].map(|name| offline_user(&server, name));
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let mut cat = Level2Client::enter(&server, "cat", c, "c1");
    let group = create(&mut ann, "g");
    let conv = format!("g{group}");
    join(&mut bob, group);
    let of_bob = |extra: Value| {
        let mut request = json!({"msgType": 63, "GROUPID": group, "USERID": b});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        request
    };
    bob.ask_for(403, json!({"msgType": 63, "GROUPID": group, "USERID": a}));
    cat.ask_for(403, of_bob(json!({})));
    ann.ask_for(404, json!({"msgType": 63, "GROUPID": group, "USERID": c}));
    ann.ask_for(404, json!({"msgType": 63, "GROUPID": 999_999, "USERID": b}));
    ann.ask_for(400, json!({"msgType": 63, "GROUPID": group, "USERID": a}));
    ann.ask_for(400, json!({"msgType": 64, "GROUPID": group, "name": "x".repeat(51)}));
    ann.ask_for(400, json!({"msgType": 64, "GROUPID": group}));
    ann.ask_for(200, of_bob(json!({})));
    bob.until_at(&conv, 3);
    assert_eq!(join(&mut bob, group)["errno"], 403);
    ann.ask_for(200, of_bob(json!({"ban": false})));
    assert_eq!(join(&mut bob, group)["errno"], 200);
    bob.until_at(&conv, 4);
    ann.ask_for(200, of_bob(json!({})));
    ann.ask_for(200, of_bob(json!({"add": true})));
    bob.until_at(&conv, 6);
    ann.until_at(&conv, 6);
    let events = events(&ann, &conv);
    let kinds: Vec<&str> = events.iter().map(|(event, ..)| event.as_str()).collect();
    assert_eq!(kinds, ["created", "joined", "removed", "joined", "removed", "joined"]);
    assert_eq!(events[5], ("joined".to_owned(), b, a));
}

#[test]
fn others_add_a_user_to_half_of_the_groups_that_the_user_may_be_in() {
    let server = TestServer::builder().option("groups_max", "4").start();
    let [a, b] = ["ann", "bob"].map(|name| offline_user(&server, name));
    let [mut ann, mut also_ann] = ["a1", "a2"].map(|device| Level2Client::enter(&server, "ann", a, device));
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let groups: Vec<i64> = (0..4).map(|n| create(&mut ann, &format!("g{n}"))).collect();
    let add = |group: i64| json!({"msgType": 63, "GROUPID": group, "USERID": b, "add": true});
    ann.ask_for(200, add(groups[0]));
    ann.ask_for(200, add(groups[1]));
    let refusal = ann.ask_for(403, add(groups[2]));
    assert_eq!(refusal["errmsg"], "this user is in too many groups for another one");
    ann.ask_for(200, add(groups[1]));
    // A stranger who may not add the user does not learn of which groups the user is a member.
    let cat = offline_user(&server, "cat");
    let mut cat = Level2Client::enter(&server, "cat", cat, "c1");
    for group in [groups[1], groups[2]] {
        assert_eq!(cat.ask_for(403, add(group))["errmsg"], "you are not a member of this group");
    }
    // The other half is for the user's own conversations.
    assert_eq!(join(&mut bob, groups[2])["errno"], 200);
    create(&mut bob, "own");
    assert_eq!(join(&mut bob, groups[3])["errno"], 403);
    bob.ask_for(200, json!({"msgType": 62, "GROUPID": groups[0]}));
    assert_eq!(join(&mut bob, groups[3])["errno"], 200);
    also_ann.ask_for(403, json!({"msgType": 12, "FROMID": a, "name": "a fifth", "description": ""}));
}

#[test]
fn new_friends_get_a_message_in_their_conversation() {
    let server = TestServer::start();
    let [a, b] = ["ann", "bob"].map(|name| offline_user(&server, name));
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let reply = ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": b}));
    assert_eq!((&reply["name"], &reply["userId"]), (&json!("bob"), &json!(b)));
    ann.until_at(&with(&bob), 1);
    bob.until_at(&with(&ann), 1);
    let m = &bodies(&bob, &with(&ann))[0];
    assert_eq!(*m, json!({"errno": 200, "msgType": 6, "name": "ann", "new": true, "userId": a}));
    ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": b}));
    ann.say(&with(&bob), "second");
    // A user of level 1 is notified as before, at once or when it fetches.
    let (mut cat, c) = user(&server, "cat");
    let d = offline_user(&server, "dan");
    for friend in [c, d] {
        ann.ask_for(200, json!({"msgType": 6, "U1": a, "U2": friend}));
    }
    assert_eq!(cat.recv()["userId"], a);
    let mut dan = TestClient::connect(&server);
    dan.login(d, &testkit::password("dan"));
    assert_eq!(dan.fetch(d)[0]["userId"], a);
}

#[test]
fn clients_of_level_1_may_ask_too() {
    let server = TestServer::start();
    let ((mut ann, a), (mut bob, b)) = (user(&server, "ann"), user(&server, "bob"));
    let group = ann.create_group(a, "g");
    bob.join_group(b, group);
    let members = bob.ask(&json!({"msgType": 61, "FROMID": b, "GROUPID": group}));
    assert_eq!(
        members,
        json!({"errno": 200, "members": [{"id": a, "name": "ann", "role": "creator"}, {"id": b, "name": "bob", "role": "member"}],
               "msgType": 61})
    );
    for (request, errno) in [
        (json!({"msgType": 61, "GROUPID": group}), 400),
        (json!({"msgType": 61, "FROMID": a, "GROUPID": group}), 403),
        (json!({"msgType": 61, "FROMID": b}), 400),
        (json!({"msgType": 61, "FROMID": b, "GROUPID": "x"}), 400),
        (json!({"msgType": 65, "FROMID": b, "GROUPID": group}), 403),
        (json!({"msgType": 62, "FROMID": b, "GROUPID": group + 1}), 404),
    ] {
        let reply = bob.ask(&request);
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(errno), &request["msgType"]), "{request}: {reply}");
    }
    let mut stranger = TestClient::connect(&server);
    assert_eq!(stranger.ask(&json!({"msgType": 67, "FROMID": a}))["errno"], 403);
    assert_eq!(ann.ask(&json!({"msgType": 65, "FROMID": a, "GROUPID": group})), json!({"errno": 200, "msgType": 65}));
    assert_eq!(bob.ask(&json!({"msgType": 11, "FROMID": b}))["groups"], json!([]));
    // Types that only clients of level 2 may send are still unknown.
    for kind in [40, 46, 48, 52, 58, 59, 70] {
        assert_eq!(ann.ask(&json!({"msgType": kind, "FROMID": a}))["errno"], 404, "{kind}");
    }
    // A user of level 2 who comes later finds the events in the conversation.
    let group = ann.create_group(a, "h");
    let ann = Level2Client::resume(&server, "ann", "a1", Store::new(a));
    assert_eq!(events(&ann, &format!("g{group}")), [("created".to_owned(), a, a)]);
}

#[test]
fn a_closed_group_is_opened_by_its_creator_and_shows_everything() {
    let server = TestServer::builder().option("group_join", "closed").option("group_history", "all").start();
    let [a, b] = ["ann", "bob"].map(|name| offline_user(&server, name));
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let group = create(&mut ann, "g");
    let conv = format!("g{group}");
    ann.until_at(&conv, 1);
    ann.say(&conv, "before");
    assert_eq!(join(&mut bob, group)["errno"], 403);
    assert_eq!(join(&mut bob, group + 1)["errno"], 404);
    ann.ask_for(200, json!({"msgType": 63, "GROUPID": group, "USERID": b, "add": true}));
    bob.until_at(&conv, 3);
    let mut other_device = Level2Client::enter(&server, "bob", b, "b2");
    let page = other_device.ask_for(200, json!({"msgType": 48, "conv": &conv, "before": 3}));
    assert_eq!((&page["floor"], &page["from"], &page["to"]), (&json!(0), &json!(1), &json!(2)));
    assert_eq!(join(&mut bob, group)["errno"], 200, "a member already");
}

#[test]
fn friends_have_to_agree_where_the_server_says_so() {
    let server = TestServer::builder().option("friends", "ask").start();
    let ((mut ann, a), (mut bob, b)) = (user(&server, "ann"), user(&server, "bob"));
    let asked = ann.ask(&json!({"msgType": 6, "U1": a, "U2": b}));
    assert_eq!(asked, json!({"errno": 202, "msgType": 6, "name": "bob", "userId": b}));
    assert_eq!(bob.recv()["ask"], true);
    let friends =
        |client: &mut TestClient, id: i64| client.ask(&json!({"msgType": 8, "FROMID": id}))["friends"].clone();
    assert_eq!(friends(&mut bob, b), json!([]));
    assert_eq!(bob.ask(&json!({"msgType": 6, "U1": b, "U2": a}))["errno"], 200);
    assert_eq!(ann.recv()["new"], true);
    assert_eq!(friends(&mut bob, b)[0]["name"], "ann");
}

#[test]
fn a_user_of_level_1_is_asked_and_answers() {
    let server = TestServer::builder().option("friends", "ask").start();
    let a = offline_user(&server, "ann");
    let mut ann = Level2Client::enter(&server, "ann", a, "phone");
    let (mut bob, b) = user(&server, "bob");
    let with_bob = format!("u{b}");
    ann.ask_for(202, json!({"msgType": 6, "U1": a, "U2": b}));
    let asked = json!({"ask": true, "errno": 200, "msgType": 6, "name": "ann", "new": true, "userId": a});
    assert_eq!(bob.recv(), asked);
    ann.until_at(&with_bob, 1);
    assert_eq!(ann.store.logs[&with_bob].messages[&1].m.value(), asked);
    // A second request changes nothing, and is not repeated to the user who is asked.
    ann.ask_for(202, json!({"msgType": 6, "U1": a, "U2": b}));
    let friends =
        |client: &mut Level2Client| client.ask_for(200, json!({"msgType": 8, "FROMID": a}))["friends"].clone();
    assert_eq!(friends(&mut ann), json!([]));
    let agreed = json!({"errno": 200, "msgType": 6, "name": "ann", "userId": a});
    assert_eq!(bob.ask(&json!({"msgType": 6, "U1": b, "U2": a})), agreed);
    ann.until_at(&with_bob, 2);
    let event = ann.store.logs[&with_bob].messages[&2].m.value();
    assert_eq!(event, json!({"errno": 200, "msgType": 6, "name": "bob", "new": true, "userId": b}));
    assert_eq!(friends(&mut ann)[0]["name"], "bob");
    assert_eq!(ann.store.cursor(&with_bob), 2);
}
