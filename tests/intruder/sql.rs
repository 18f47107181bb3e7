//! SQL, and other text with a meaning for databases, in every string. The server must treat it as
//! plain text.

use serde_json::{Value, json};

use testkit::{BAD_REQUEST, Database, SERVER_ERROR, TestClient, TestServer, WRONG_PASSWORD};
use testkit::{login, offline_user, user, wait_until};

/// Texts that fit into a name together with a number.
const TEXTS: [&str; 20] = [
    "'",
    "''",
    "\"",
    "`",
    "\\",
    "\\'",
    "' OR '1'='1",
    "' OR 1=1 -- ",
    "'; DROP TABLE User; --",
    "\"; DELETE FROM Friend; #",
    "*/ OR 1=1 /*",
    "x'); DROP TABLE AllGroup; --",
    "%",
    "_",
    "%_%",
    "nul\0' OR 1=1",
    "\u{1f431}' --",
    "\u{bf}' OR 1=1",
    ":name ?1 @x $1 {}",
    "CHAR(39)||\r\n\t\u{8}\u{1a}",
];

/// Whether a name contains a text, ignoring case, as the search compares.
fn contains(name: &str, text: &str) -> bool {
    name.to_lowercase().contains(&text.to_lowercase())
}

fn texts_stay_texts(server: &TestServer) {
    let (mut eve, e) = user(server, "eve");
    let (mut bob, b) = user(server, "bob");
    let c = offline_user(server, "carol");
    let mut carol = login(server, "carol", c);
    let common = eve.create_group(e, "everybody");
    carol.join_group(c, common);
    bob.join_group(b, common);
    carol.logout(c);
    in_names_and_descriptions(server, &mut eve, e, common);
    in_messages(server, (&mut eve, e), (&mut bob, b), c, common);
    in_the_place_of_numbers(&mut eve, e, b, common);
    beyond_their_columns(server, &mut eve, e);
}

/// Uses the texts in names, passwords and descriptions, and searches for them.
fn in_names_and_descriptions(server: &TestServer, eve: &mut TestClient, e: i64, common: i64) {
    let mut groups = vec![(common, "everybody".to_owned(), "d".to_owned())];
    let mut friends = Vec::new();
    for (n, text) in TEXTS.iter().enumerate() {
        let name = format!("{text}{n}");
        let mut client = TestClient::connect(server);
        let id = client.register(&name, text);
        client.login(id, text);
        // The server accepts the name, whatever quotes it contains.
        client.send(&json!({"msgType": 2, "name": name, "password": "x"}));
        client.expect_text(SERVER_ERROR);
        for wrong in ["' OR '1'='1", "%"].into_iter().filter(|wrong| wrong != text) {
            client.send(&json!({"msgType": 1, "USERID": id, "password": wrong}));
            client.expect_text(WRONG_PASSWORD);
        }
        let added = eve.ask(&json!({"msgType": 6, "U1": e, "U2": id}));
        assert_eq!(added, json!({"errno": 200, "msgType": 6, "name": name, "userId": id}));
        client.expect(&json!({"errno": 200, "msgType": 6, "name": "eve", "new": true, "userId": e}));
        friends.push(json!({"id": id.to_string(), "isGroup": "0", "name": name}));
        let created = eve.ask(&json!({"msgType": 12, "FROMID": e, "name": name, "description": text}));
        let group = created["GROUPID"].as_i64().unwrap_or_else(|| panic!("{text:?}: {created}"));
        assert_eq!(created, json!({"GROUPID": group, "errno": 200, "msgType": 12, "name": name}));
        groups.push((group, name.clone(), (*text).to_owned()));
        let joined = client.ask(&json!({"msgType": 10, "FROMID": id, "GROUPID": group}));
        assert_eq!(joined, json!({"errno": 200, "groupId": group, "msgType": 10, "name": name}));
        client.logout(id);
    }
    groups_are_found(eve, &groups);
    let contacts = eve.ask(&json!({"msgType": 8, "FROMID": e}));
    let in_list: Vec<Value> =
        groups.iter().map(|(id, name, _)| json!({"id": id.to_string(), "isGroup": "1", "name": name})).collect();
    assert_eq!(contacts["friends"], Value::from([friends, in_list].concat()));
}

/// Searches must find only names that contain the text literally.
fn groups_are_found(eve: &mut TestClient, groups: &[(i64, String, String)]) {
    for text in TEXTS.iter().copied().chain(["", "1' UNION SELECT 1,2,3 -- ", "%%", "e_e", "1 OR 1=1"]) {
        let found: Vec<&(i64, String, String)> = groups.iter().filter(|(_, name, _)| contains(name, text)).collect();
        let by_name: Vec<Value> = found
            .iter()
            .map(|(id, name, desc)| json!({"desc": desc, "gUsers": [], "id": id.to_string(), "name": name}))
            .collect();
        let by_keyword: Vec<Value> = found
            .iter()
            .map(|(id, name, desc)| json!({"desc": desc, "id": id.to_string(), "isGroup": "1", "name": name}))
            .collect();
        assert_eq!(eve.ask(&json!({"msgType": 13, "name": text}))["groups"], Value::from(by_name), "{text:?}");
        assert_eq!(eve.ask(&json!({"msgType": 15, "keyword": text}))["results"], Value::from(by_keyword), "{text:?}");
    }
}

/// Uses the texts in messages to online and to offline users, in every member of a message.
fn in_messages(
    server: &TestServer,
    (eve, e): (&mut TestClient, i64),
    (bob, b): (&mut TestClient, i64),
    c: i64,
    common: i64,
) {
    let mut kept = Vec::new();
    let long = "'; DROP TABLE OfflineMessage; -- \u{1f431}".repeat(700);
    for text in TEXTS.iter().copied().chain([long.as_str()]) {
        let chat = |to: i64| {
            let mut frame = json!({"msgType": 4, "FROMID": e, "TOID": to, "msg": text});
            // Repeated until the frame has the greatest allowed length.
            if text.len() < 1000 {
                frame["sendTime"] = json!(text);
                frame[text] = json!(text);
            }
            frame
        };
        let request = |to: i64| json!({"msgType": 5, "FROMID": e, "TOID": to, "name": text});
        let group = json!({"msgType": 9, "FROMID": e, "GROUPID": common, "msg": text, "USERID": text});
        for frame in [chat(b), request(b), group.clone()] {
            eve.send(&frame);
            bob.expect(&frame);
        }
        for frame in [chat(c), request(c)] {
            eve.send(&frame);
            kept.push(frame);
        }
        // The group's messages come before these.
        let at = kept.len() - 2;
        kept.insert(at, group);
    }
    eve.barrier();
    bob.expect_silence_until_barrier();
    let mut carol = login(server, "carol", c);
    assert_eq!(carol.fetch_all(c), kept);
}

/// Uses the texts in the place of numbers, where a string is invalid.
fn in_the_place_of_numbers(eve: &mut TestClient, e: i64, b: i64, common: i64) {
    for text in TEXTS {
        for (kind, key) in [
            (3, "USERID"),
            (6, "U1"),
            (6, "U2"),
            (7, "TOID"),
            (8, "FROMID"),
            (9, "GROUPID"),
            (10, "GROUPID"),
            (11, "FROMID"),
            (14, "FROMID"),
            (4, "TOID"),
            (5, "TOID"),
            (1, "USERID"),
        ] {
            let mut frame = json!({"msgType": kind, "USERID": e, "password": "x", "FROMID": e, "TOID": b, "U1": e, "U2": b, "GROUPID": common});
            frame[key] = json!(text);
            eve.send(&frame);
            eve.expect_text(BAD_REQUEST);
        }
        eve.send(&json!({"msgType": text, "FROMID": e}));
        eve.expect_text(BAD_REQUEST);
    }
}

/// Uses names that are too long for their columns: they are refused, not truncated.
fn beyond_their_columns(server: &TestServer, eve: &mut TestClient, e: i64) {
    wait_until("what was fetched is deleted", || server.stored() == 0);
    let before = server.dump();
    let long = "'".repeat(60_000);
    for frame in [
        json!({"msgType": 2, "name": long, "password": "x"}),
        json!({"msgType": 2, "name": "'".repeat(51), "password": "x"}),
        json!({"msgType": 2, "name": "new", "password": long}),
        json!({"msgType": 12, "FROMID": e, "name": long, "description": "d"}),
        json!({"msgType": 12, "FROMID": e, "name": "new", "description": "\u{1f431}".repeat(201)}),
    ] {
        eve.send(&frame);
        eve.expect_text(SERVER_ERROR);
    }
    assert_eq!(server.dump(), before);
    let rows = |table: &str| before.iter().filter(|row| row.starts_with(&format!("{table} "))).count();
    let n = TEXTS.len();
    assert_eq!(
        ["User", "Friend", "AllGroup", "GroupUser", "OfflineMessage"].map(rows),
        [n + 3, 2 * n, n + 1, 2 * n + 3, 0]
    );
}

#[test]
fn sql_in_a_string_is_text_on_the_embedded_store() {
    texts_stay_texts(&TestServer::start());
}

#[test]
fn sql_in_a_string_is_text_on_mariadb() {
    texts_stay_texts(&TestServer::builder().mysql(&Database::create()).start());
}
