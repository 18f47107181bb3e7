//! Friend requests, and events of groups.

use serde_json::{Value, json};
use testkit::level2::Level2Client;
use testkit::{offline_user, user, wait_until};

use crate::everyday::{group_of, join};
use crate::receiver::{Mood, Receiver};
use crate::stage::{enter, fate, hooked, make_due, on_both, report, waiting, with};

/// The recipients of each event, sorted, in the order in which the events happened.
fn told(receiver: &Receiver, kind: i64) -> Vec<(Value, Vec<i64>)> {
    let mut told: Vec<(u64, Value, Vec<i64>)> = Vec::new();
    for message in receiver.messages().iter().filter(|message| message["m"]["msgType"] == kind) {
        let (seq, user) = (message["seq"].as_u64().expect("a number"), message["user"].as_i64().expect("a user"));
        match told.iter_mut().find(|(known, ..)| *known == seq) {
            Some((.., users)) => users.push(user),
            None => told.push((seq, message["m"]["event"].clone(), vec![user])),
        }
    }
    told.sort_by_key(|(seq, ..)| *seq);
    let sorted = |mut users: Vec<i64>| {
        users.sort_unstable();
        users
    };
    told.into_iter().map(|(_, event, users)| (event, sorted(users))).collect()
}

fn befriend(client: &mut Level2Client, other: i64) {
    let me = client.store.me;
    client.ask_for(200, json!({"msgType": 6, "U1": me, "U2": other}));
}

#[test]
fn a_friend_request_is_posted_unless_a_device_has_reported_it() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "1h"));
        let [mut ann, mut bob, carl] = ["ann", "bob", "carl"].map(|name| enter(&server, name));
        let (mut dan, dan_id) = user(&server, "dan");
        let old = offline_user(&server, "old");
        let (a, b, c) = (ann.store.me, bob.store.me, carl.store.me);
        // The text of a friend request, and the request itself, from a user of each level.
        let cid = ann.send_with(&with(&carl), json!({"msgType": 5, "msg": "be my friend"}));
        assert_eq!(ann.number(&cid), 1);
        befriend(&mut ann, c);
        dan.send(&json!({"msgType": 5, "FROMID": dan_id, "TOID": c, "msg": "mine too"}));
        dan.ask(&json!({"msgType": 6, "U1": dan_id, "U2": c}));
        assert_eq!(waiting(&server), 4);
        // Three requests are not posted: a reported one, one for a user of level 1, a repeated one.
        befriend(&mut bob, a);
        report(&server, &mut ann, &with(&bob), 1);
        befriend(&mut bob, old);
        befriend(&mut ann, c);
        assert_eq!(waiting(&server), 5, "one more");

        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        let posted: Vec<Value> = receiver.messages();
        assert!(posted.iter().all(|message| message["user"] == json!(c)), "{posted:?} is not for {b}");
        let of = |from: i64| -> Vec<(Value, Value)> {
            let own = posted.iter().filter(|message| message["from"] == json!(from));
            own.map(|message| (message["seq"].clone(), message["m"].clone())).collect()
        };
        let asked = json!({"msgType": 5, "FROMID": a, "TOID": c, "cid": cid, "msg": "be my friend"});
        let push = |name: &str, id: i64| json!({"errno": 200, "msgType": 6, "name": name, "new": true, "userId": id});
        assert_eq!(of(a), [(json!(1), asked), (json!(2), push("ann", a))]);
        let of_dan = of(dan_id);
        assert_eq!((&of_dan[0].1["msg"], &of_dan[1].1), (&json!("mine too"), &push("dan", dan_id)));
        wait_until("they are counted", || (fate(&server, "delivered"), fate(&server, "received")) == (4.0, 1.0));
    });
}

#[test]
fn a_request_that_needs_an_agreement_is_posted_and_so_is_the_agreement() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "0").option("friends", "ask"));
        let (mut ann, mut bob) = (enter(&server, "ann"), enter(&server, "bob"));
        let (a, b) = (ann.store.me, bob.store.me);
        ann.ask_for(202, json!({"msgType": 6, "U1": a, "U2": b}));
        wait_until("the request is posted", || receiver.messages().len() == 1);
        befriend(&mut bob, a);
        wait_until("the agreement is posted", || receiver.messages().len() == 2);
        let posted = receiver.messages();
        assert_eq!((&posted[0]["user"], &posted[0]["m"]["ask"]), (&json!(b), &json!(true)), "{posted:?}");
        assert_eq!((&posted[1]["user"], &posted[1]["m"]["new"]), (&json!(a), &json!(true)), "{posted:?}");
    });
}

#[test]
fn an_event_of_a_group_is_posted_for_each_member_who_lacks_it() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "1h"));
        let [mut ann, mut bob, mut carl, mut dora] = ["ann", "bob", "carl", "dora"].map(|name| enter(&server, name));
        let (a, b, c, d) = (ann.store.me, bob.store.me, carl.store.me, dora.store.me);
        let group = group_of(&mut ann);
        assert_eq!(waiting(&server), 0, "nobody else is there");
        let conv = format!("g{group}");
        join(&mut bob, group);
        ann.ask_for(200, json!({"msgType": 63, "GROUPID": group, "USERID": c, "add": true}));
        ann.ask_for(200, json!({"msgType": 63, "GROUPID": group, "USERID": d, "add": true}));
        ann.ask_for(200, json!({"msgType": 64, "GROUPID": group, "name": "crew"}));
        // Dora's device has all events so far: created, joined three times, renamed.
        report(&server, &mut dora, &conv, 5);
        carl.ask_for(200, json!({"msgType": 62, "GROUPID": group}));
        ann.ask_for(200, json!({"msgType": 63, "GROUPID": group, "USERID": d}));
        assert_eq!(waiting(&server), 6, "each event is a row");
        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        // An event is posted for the present members only, not for one who has left.
        let expected = [("joined", vec![a]), ("joined", vec![b]), ("joined", vec![b]), ("renamed", vec![b])];
        let expected = expected.into_iter().chain([("left", vec![a, b]), ("removed", vec![b])]);
        assert_eq!(told(&receiver, 57), expected.map(|(event, users)| (json!(event), users)).collect::<Vec<_>>());
        let message = receiver.messages().into_iter().find(|message| message["m"]["event"] == "left").expect("one");
        let m = json!({"USERID": c, "by": c, "event": "left", "msgType": 57, "name": carl.welcome.name});
        assert_eq!((&message["conv"], &message["from"], &message["m"]), (&json!(conv), &json!(c), &m));

        // An added user learns of it, and a user who deletes the account leaves.
        ann.ask_for(200, json!({"msgType": 63, "GROUPID": group, "USERID": c, "add": true}));
        wait_until("it is posted", || told(&receiver, 57).last() == Some(&(json!("joined"), vec![b, c])));
        bob.ask_for(200, json!({"msgType": 69, "password": testkit::password("bob")}));
        wait_until("it is posted", || told(&receiver, 57).last() == Some(&(json!("left"), vec![a, c])));
        ann.ask_for(200, json!({"msgType": 65, "GROUPID": group}));
        wait_until("nothing waits", || waiting(&server) == 0);
        assert_eq!(told(&receiver, 57).len(), 8, "of a group that is dissolved, nothing is left to post");
    });
}
