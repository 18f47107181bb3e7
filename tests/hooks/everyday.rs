//! The messages that are posted, and their form.

use serde_json::{Value, json};
use testkit::level2::Level2Client;
use testkit::{PATIENCE, chat, offline_user, user, wait_until};

use crate::receiver::{Mood, Receiver};
use crate::stage::{KEY, enter, fate, hooked, make_due, on_both, report, waiting, with};

#[test]
fn a_message_is_posted_unless_a_device_has_reported_it() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "1h"));
        let [mut ann, mut bob, carl] = ["ann", "bob", "carl"].map(|name| enter(&server, name));
        assert_eq!(ann.say(&with(&bob), "reported"), 1);
        assert_eq!(ann.say(&with(&carl), "not reported"), 1);
        let to_ann = with(&ann);
        report(&server, &mut bob, &to_ann, 1);
        assert_eq!(ann.say(&with(&bob), "later"), 2);
        assert_eq!(waiting(&server), 3, "each message is a row");
        assert_eq!(receiver.messages(), Vec::<Value>::new());
        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        let expected = [(carl.store.me, "not reported".to_owned()), (bob.store.me, "later".to_owned())];
        assert_eq!(receiver.texts(), expected);
        wait_until("they are counted", || (fate(&server, "delivered"), fate(&server, "received")) == (2.0, 1.0));

        let message = receiver.messages().remove(1);
        let members: Vec<&String> = message.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["conv", "from", "m", "seq", "time", "user"]);
        assert_eq!(message["conv"], json!(with(&ann)), "as the recipient names it");
        assert_eq!((&message["from"], &message["seq"]), (&json!(ann.store.me), &json!(2)));
        let time = server.count("SELECT time FROM Message WHERE seq = 2");
        assert_eq!(message["time"], json!(time));
        assert_eq!(message["m"]["msgType"], 4);
        for request in receiver.requests() {
            request.assert_signed(KEY);
            assert_eq!(request.headers["content-type"], "application/json");
        }
    });
}

#[test]
fn only_users_of_level_2_other_than_the_sender_are_recipients() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "0"));
        let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
        let old = offline_user(&server, "old");
        let (mut dan, dan_id) = user(&server, "dan");
        ann.say(&format!("u{old}"), "to level 1");
        ann.say(&format!("u{}", ann.store.me), "to myself");
        // A message from level 1 to level 2 is posted.
        dan.send(&chat(dan_id, bob.store.me, "from level 1"));
        dan.barrier();
        wait_until("it is posted", || !receiver.texts().is_empty());
        wait_until("nothing waits", || waiting(&server) == 0);
        assert_eq!(receiver.texts(), [(bob.store.me, "from level 1".to_owned())]);
        assert_eq!(fate(&server, "received"), 0.0, "the others are no rows");
    });
}

/// A group that a user has made.
pub fn group_of(owner: &mut Level2Client) -> i64 {
    let me = owner.store.me;
    let reply = owner.ask_for(200, json!({"msgType": 12, "FROMID": me, "name": "team", "description": "d"}));
    reply["GROUPID"].as_i64().expect("an id")
}

pub fn join(client: &mut Level2Client, group: i64) {
    let me = client.store.me;
    client.ask_for(200, json!({"msgType": 10, "FROMID": me, "GROUPID": group}));
}

#[test]
fn a_message_to_a_group_is_one_row_and_posted_for_each_member_who_lacks_it() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "1h"));
        let [mut ann, mut bob, mut carl, dora] = ["ann", "bob", "carl", "dora"].map(|name| enter(&server, name));
        let group = group_of(&mut ann);
        [&mut bob, &mut carl].into_iter().for_each(|client| join(client, group));
        let (mut old, old_id) = user(&server, "old");
        old.join_group(old_id, group);
        let (conv, joined) = (format!("g{group}"), 3);
        assert_eq!(waiting(&server), joined);
        let seq = ann.say(&conv, "to all");
        assert_eq!(waiting(&server), joined + 1);
        report(&server, &mut bob, &conv, seq);
        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        let texts: Vec<_> = receiver.texts().into_iter().filter(|(_, text)| !text.is_empty()).collect();
        assert_eq!(texts, [(carl.store.me, "to all".to_owned())], "dora {} is no member", dora.store.me);
        assert!(receiver.messages().iter().all(|message| message["conv"] == json!(conv)));
    });
}

#[test]
fn the_members_of_a_big_group_get_each_message_once_and_in_order() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let mut server = start(hooked(&receiver, "1h"));
        let mut ann = enter(&server, "ann");
        let group = group_of(&mut ann);
        // 1,500 users of level 2. The table differs by one column between the databases.
        let is_mysql = server.logs().contains("store MySQL") || server.logs().contains("store MariaDB");
        let (key, value) = if is_mysql { ("", "") } else { (", name_key", ", 'm{n}'") };
        let row =
            |n: i32| format!("({}, 'm{n}', '', 'offline', 1{})", 10_000 + n, value.replace("{n}", &n.to_string()));
        let rows: Vec<String> = (0..1_500).map(row).collect();
        server.run_sql(&format!("INSERT INTO User (id, name, password, state, level2{key}) VALUES {}", rows.join(",")));
        server.run_sql(&format!(
            "INSERT INTO GroupUser (groupid, userid, grouprole) SELECT {group}, id, 'normal' FROM User WHERE id >= 10000"
        ));
        // The server learns of users of level 2 at its start, and of members when it reads them.
        let conv = format!("g{group}");
        server.terminate();
        server.wait_exit(PATIENCE);
        server.restart();
        ann = Level2Client::resume(&server, "ann", "d", ann.leave());
        for text in ["first", "second", "third"] {
            ann.say(&conv, text);
        }
        assert_eq!(waiting(&server), 3);
        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        let texts = receiver.texts();
        assert_eq!(texts.len(), 4_500);
        for member in 10_000..11_500 {
            let of_member: Vec<&str> =
                texts.iter().filter(|(user, _)| *user == member).map(|(_, text)| text.as_str()).collect();
            assert_eq!(of_member, ["first", "second", "third"], "{member}");
        }
        let longest = receiver.requests().iter().map(|request| request.messages().len()).max();
        assert!(longest <= Some(256), "{longest:?}");
    });
}

#[test]
fn a_message_recalled_in_time_is_not_posted_and_an_edit_is_posted_as_it_is_now() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "1h"));
        let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
        let conv = with(&bob);
        assert_eq!((ann.say(&conv, "recalled"), ann.say(&conv, "wrong")), (1, 2));
        let cids =
            [json!({"recall": 1}), json!({"edit": 2, "msg": "right"})].map(|change| ann.send_with(&conv, change));
        cids.iter().for_each(|cid| assert_eq!(ann.answer(cid)["errno"], 200));
        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        let posted: Vec<(Value, Value)> =
            receiver.messages().iter().map(|message| (message["seq"].clone(), message["m"]["msg"].clone())).collect();
        assert_eq!(posted[0], (json!(2), json!("right")), "{posted:?}");
        assert_eq!(posted.iter().map(|(seq, _)| seq.clone()).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(!receiver.requests().iter().any(|request| request.body.contains("recalled")), "the text is gone");
    });
}
