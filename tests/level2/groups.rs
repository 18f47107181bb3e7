//! Groups of devices at level 2.

use serde_json::json;

use testkit::level2::{Level2Client, assert_agree};
use testkit::{TestServer, offline_user};

/// Four users with a device each, and a group that the first has made.
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
