//! Administration of groups.

use serde_json::{Value, json};
use testkit::level2::Level2Client;
use testkit::{TestClient, TestServer, user};

use crate::desk::{Desk, administered};

/// A group of three: its id, and the ids of its creator and of the other two.
fn group(server: &TestServer) -> (i64, [i64; 3]) {
    let (mut ann, a) = user(server, "ann");
    let (mut bob, b) = user(server, "bob");
    let (mut cat, c) = user(server, "cat");
    let group = ann.create_group(a, "team");
    bob.join_group(b, group);
    cat.join_group(c, group);
    (group, [a, b, c])
}

/// The next message of a group, which must be an event.
fn next_event(client: &mut Level2Client, conv: &str, number: &mut u64) -> Value {
    *number += 1;
    client.until_at(conv, *number);
    client.store.logs[conv].messages[number].m.value()
}

pub(crate) fn roles(desk: Desk, group: i64) -> Vec<(i64, String)> {
    let shown = desk.get(&format!("/v1/groups/{group}"));
    let members = shown["members"].as_array().expect("members");
    let role = |member: &Value| (member["id"].as_i64().expect("an id"), member["role"].as_str().unwrap_or("-").into());
    members.iter().map(role).collect()
}

#[test]
fn groups_are_listed_transferred_and_dissolved() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (group, [a, b, c]) = group(&server);
    let line = json!({"description": "", "id": group, "member_count": 3, "name": "team"});
    let listed = desk.get("/v1/groups");
    assert_eq!((&listed["more"], &listed["groups"][0]["id"]), (&json!(false), &line["id"]));
    assert_eq!(listed["groups"][0]["member_count"], 3);
    assert_eq!(roles(desk, group), [(a, "creator".into()), (b, "normal".into()), (c, "normal".into())]);

    let transfer = format!("/v1/groups/{group}/transfer");
    desk.refused(404, "POST", &transfer, &json!({"user": 4711}));
    desk.refused(400, "POST", &transfer, &Value::Null);
    // A member at level 2 sees each change as an event.
    let mut cat = Level2Client::enter(&server, "cat", c, "phone");
    assert_eq!(desk.done("POST", &transfer, &json!({"user": b})), json!({"creator": b}));
    let conv = format!("g{group}");
    let mut number = cat.store.cursor(&conv);
    let event = next_event(&mut cat, &conv, &mut number);
    assert_eq!((&event["event"], &event["USERID"], &event["by"]), (&json!("creator"), &json!(b), &json!(a)));
    assert_eq!(roles(desk, group), [(a, "normal".into()), (b, "creator".into()), (c, "normal".into())]);

    let remove = |user: i64| format!("/v1/groups/{group}/members/{user}");
    let creator = desk.refused(409, "DELETE", &remove(b), &Value::Null);
    assert!(creator.contains("transfer"), "{creator}");
    assert_eq!(desk.done("DELETE", &remove(a), &Value::Null), json!({"removed": true}));
    desk.refused(404, "DELETE", &remove(a), &Value::Null);
    let event = next_event(&mut cat, &conv, &mut number);
    assert_eq!((&event["event"], &event["USERID"], &event["by"]), (&json!("removed"), &json!(a), &json!(b)));
    // The removed member cannot join again.
    let mut ann = TestClient::connect(&server);
    ann.login(a, &testkit::password("ann"));
    let reply = ann.ask(&json!({"msgType": 10, "FROMID": a, "GROUPID": group}));
    assert_eq!(reply["errno"], 403, "{reply}");

    assert_eq!(desk.done("DELETE", &format!("/v1/groups/{group}"), &Value::Null), json!({"dissolved": true}));
    assert_eq!(next_event(&mut cat, &conv, &mut number)["event"], "dissolved");
    desk.refused(404, "GET", &format!("/v1/groups/{group}"), &Value::Null);
    desk.refused(404, "DELETE", &format!("/v1/groups/{group}"), &Value::Null);
    assert_eq!(desk.get("/v1/groups")["groups"], json!([]));
}

#[test]
fn a_group_without_a_creator_or_members_obeys_an_administrator() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (group, [a, b, c]) = group(&server);
    let mut ann = testkit::login(&server, "ann", a);
    let (second, empty) = (ann.create_group(a, "second"), ann.create_group(a, "empty"));
    // Only other programs write such rows, for example the C++ server.
    server.run_sql(&format!(
        "UPDATE GroupUser SET grouprole = 'normal' WHERE groupid IN ({group}, {second});
         DELETE FROM GroupUser WHERE groupid = {empty}"
    ));
    let mut cat = Level2Client::enter(&server, "cat", c, "phone");
    let (conv, of) = (format!("g{group}"), |group: i64, rest: &str| format!("/v1/groups/{group}{rest}"));
    let mut number = cat.store.cursor(&conv);
    assert_eq!(desk.done("DELETE", &of(group, &format!("/members/{b}")), &Value::Null), json!({"removed": true}));
    assert_eq!(next_event(&mut cat, &conv, &mut number)["event"], "removed");
    assert_eq!(desk.done("POST", &of(group, "/transfer"), &json!({"user": c})), json!({"creator": c}));
    let event = next_event(&mut cat, &conv, &mut number);
    assert_eq!((&event["event"], &event["USERID"]), (&json!("creator"), &json!(c)));
    assert_eq!(roles(desk, group), [(a, "normal".into()), (c, "creator".into())]);
    // Even the member in whose name the removal would be recorded can be removed.
    assert_eq!(desk.done("DELETE", &of(second, &format!("/members/{a}")), &Value::Null), json!({"removed": true}));
    assert_eq!(roles(desk, second), []);
    desk.refused(404, "POST", &of(empty, "/transfer"), &json!({"user": a}));
    for group in [second, empty] {
        assert_eq!(desk.done("DELETE", &of(group, ""), &Value::Null), json!({"dissolved": true}));
        desk.refused(404, "GET", &of(group, ""), &Value::Null);
        desk.refused(404, "DELETE", &of(group, ""), &Value::Null);
    }
    ann.barrier();
}
