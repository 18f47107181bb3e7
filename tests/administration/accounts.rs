//! Administration of accounts.

use serde_json::{Value, json};
use testkit::jwt::{JwtIssuer, in_seconds};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{
    Cluster, LONG_PATIENCE, TestClient, TestServer, WRONG_PASSWORD, login, offline_user, password, user, wait_until,
    wait_within,
};

use crate::desk::{Desk, KEY, administered};

fn closed_as_changed(client: &mut TestClient) {
    client.set_patience(LONG_PATIENCE);
    let last = client.recv();
    assert_eq!((&last["errno"], &last["msgType"]), (&json!(403), &json!(403)), "{last}");
    client.expect_eof();
}

fn refused(server: &TestServer, user: i64, password: &str) {
    let mut client = TestClient::connect(server);
    client.set_patience(LONG_PATIENCE);
    client.send(&json!({"msgType": 1, "USERID": user, "password": password}));
    client.expect_text(WRONG_PASSWORD);
}

fn refused_at_level2(server: &TestServer, login: LoginAs) {
    match Level2Client::try_login(TestClient::connect(server), Store::new(0), login) {
        Ok(_) => panic!("the login is accepted"),
        Err(refused) => assert_eq!(refused.reply.map(|reply| reply["errno"].clone()), Some(json!(302))),
    }
}

#[test]
fn users_are_made_listed_and_found() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let ann = desk.done("POST", "/v1/users", &json!({"name": "Ann", "password": "pw"}));
    assert_eq!(ann["password"], Value::Null);
    let bob = desk.done("POST", "/v1/users", &json!({"name": "bob"}));
    let taken = desk.refused(409, "POST", "/v1/users", &json!({"name": "ANN"}));
    assert!(taken.contains("another user"), "{taken}");
    assert!(TestClient::connect(&server).try_login(ann["id"].as_i64().expect("an id"), "pw"));
    let made = bob["password"].as_str().expect("the server makes one");
    assert!(TestClient::connect(&server).try_login(bob["id"].as_i64().expect("an id"), made));

    let line = |user: &Value, name: &str| json!({"disabled": false, "id": user["id"], "jwt": false, "name": name});
    let all = desk.get("/v1/users");
    assert_eq!(all, json!({"more": false, "users": [line(&ann, "Ann"), line(&bob, "bob")]}));
    assert_eq!(desk.get("/v1/users?limit=1"), json!({"more": true, "users": [line(&ann, "Ann")]}));
    assert_eq!(desk.get(&format!("/v1/users?after={}", ann["id"]))["users"], json!([line(&bob, "bob")]));
    assert_eq!(desk.get("/v1/users?name=%61nn")["users"], json!([line(&ann, "Ann")]));
    assert_eq!(desk.get("/v1/users?name=nobody")["users"], json!([]));
    let shown = desk.get(&format!("/v1/users/{}", ann["id"]));
    assert_eq!((&shown["name"], &shown["devices"]), (&json!("Ann"), &json!([])));
}

#[test]
fn a_new_password_ends_every_connection_and_token() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (mut ann, a) = user(&server, "ann");
    let (mut other, _) = user(&server, "other");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let token = phone.welcome.token.clone();
    assert_eq!(desk.get(&format!("/v1/users/{a}"))["connections"], 2);
    desk.done("POST", &format!("/v1/users/{a}/password"), &json!({"password": "new-one"}));
    closed_as_changed(&mut ann);
    phone.expect_farewell("revoked");
    refused_at_level2(&server, LoginAs::token(&token, "phone"));
    refused(&server, a, &password("ann"));
    assert!(TestClient::connect(&server).try_login(a, "new-one"));
    other.barrier();
    desk.refused(404, "POST", "/v1/users/4711/password", &Value::Null);
}

#[test]
fn a_logout_everywhere_leaves_the_password() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (mut ann, a) = user(&server, "ann");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let token = phone.welcome.token.clone();
    assert_eq!(desk.post(&format!("/v1/users/{a}/logout")), json!({"forgotten_devices": 1}));
    closed_as_changed(&mut ann);
    phone.expect_farewell("revoked");
    refused_at_level2(&server, LoginAs::token(&token, "phone"));
    login(&server, "ann", a).barrier();
}

#[test]
fn a_disabled_account_admits_no_login_until_it_is_enabled() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (mut ann, a) = user(&server, "ann");
    let mut phone = Level2Client::enter(&server, "ann", a, "phone");
    let token = phone.welcome.token.clone();
    let disable = format!("/v1/users/{a}/disable");
    assert_eq!(desk.post(&disable), json!({"changed": true, "disabled": true}));
    assert_eq!(desk.post(&disable), json!({"changed": false, "disabled": true}));
    closed_as_changed(&mut ann);
    phone.expect_farewell("revoked");
    // The refusal is that of a wrong password, although the password is right and was remembered a
    // moment ago.
    refused(&server, a, &password("ann"));
    refused(&server, a, &format!("$disabled${}", password("ann")));
    refused_at_level2(&server, LoginAs::password(a, &password("ann"), "phone"));
    refused_at_level2(&server, LoginAs::token(&token, "phone"));
    assert_eq!(desk.get(&format!("/v1/users/{a}"))["disabled"], true);
    assert_eq!(desk.get("/v1/users")["users"][0]["disabled"], true);
    desk.refused(409, "POST", &format!("/v1/users/{a}/tokens"), &json!({"device": "bot"}));

    // A new password does not enable the account.
    desk.done("POST", &format!("/v1/users/{a}/password"), &json!({"password": "new-one"}));
    refused(&server, a, "new-one");
    assert_eq!(desk.post(&format!("/v1/users/{a}/enable")), json!({"changed": true, "disabled": false}));
    let mut ann = TestClient::connect(&server);
    assert!(ann.try_login(a, "new-one"));
    // Enabling once more changes nothing: connections stay open, and tokens stay valid.
    let mut phone =
        Level2Client::login(TestClient::connect(&server), Store::new(a), LoginAs::password(a, "new-one", "phone"));
    assert_eq!(desk.post(&format!("/v1/users/{a}/enable"))["changed"], false);
    ann.barrier();
    phone.ask_for_pong();
}

#[test]
fn a_password_that_is_stored_as_plain_text_is_hashed_when_its_account_is_disabled() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let a = offline_user(&server, "ann");
    server.run_sql(&format!("UPDATE User SET password = 'plain-text' WHERE id = {a}"));
    assert_eq!(desk.post(&format!("/v1/users/{a}/disable"))["changed"], true);
    let stored = || -> String {
        let query = "SELECT password FROM User WHERE id = ?1";
        server.database().query_row(query, [a], |row| row.get(0)).expect("a row")
    };
    assert!(stored().starts_with("$disabled$$argon2"), "{}", stored());
    refused(&server, a, "plain-text");
    assert_eq!(desk.post(&format!("/v1/users/{a}/enable"))["changed"], true);
    assert!(TestClient::connect(&server).try_login(a, "plain-text"));
}

#[test]
fn a_deleted_account_is_gone_and_leaves_its_groups() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (mut ann, a) = user(&server, "ann");
    let (mut bob, b) = user(&server, "bob");
    let group = ann.create_group(a, "team");
    bob.join_group(b, group);
    assert_eq!(desk.done("DELETE", &format!("/v1/users/{a}"), &Value::Null), json!({"deleted": true}));
    closed_as_changed(&mut ann);
    desk.refused(404, "DELETE", &format!("/v1/users/{a}"), &Value::Null);
    desk.refused(404, "GET", &format!("/v1/users/{a}"), &Value::Null);
    let left = desk.get(&format!("/v1/groups/{group}"));
    assert_eq!(left["members"], json!([{"id": b, "name": "bob", "role": "creator"}]));
    // The name is free again; the id is not given again.
    let next = desk.done("POST", "/v1/users", &json!({"name": "ann"}));
    assert!(next["id"].as_i64() > Some(a), "{next}");
}

#[test]
fn a_bot_has_a_token_that_outlives_others() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bot"));
    let made = desk.done("POST", &format!("/v1/users/{b}/tokens"), &json!({"device": "bot-1"}));
    let token = made["token"].as_str().expect("a token");
    let mut bot =
        match Level2Client::try_login(TestClient::connect(&server), Store::new(b), LoginAs::token(token, "bot-1")) {
            Ok(bot) => bot,
            Err(refused) => panic!("{:?}", refused.reply),
        };
    // The same token sends messages without a login.
    let frame = json!({"msgType": 4, "FROMID": b, "TOID": a, "cid": "c1", "msg": "hi", "sendTime": 1}).to_string();
    let (host, length) = (server.address(), frame.len());
    let request = format!(
        "POST /v2/send HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{frame}"
    );
    assert_eq!(Desk(server.address()).send(request.as_bytes()).status, 200);
    // A second token for the device replaces the first one and the token in the welcome.
    let again = desk.done("POST", &format!("/v1/users/{b}/tokens"), &json!({"device": "bot-1"}));
    bot.expect_farewell("replaced");
    let (again, welcome) = (again["token"].as_str().expect("a token"), bot.welcome.token.clone());
    for old in [token, &welcome] {
        refused_at_level2(&server, LoginAs::token(old, "bot-1"));
    }
    let enter = |token: &str, device: &str| match Level2Client::try_login(
        TestClient::connect(&server),
        Store::new(b),
        LoginAs::token(token, device),
    ) {
        Ok(bot) => bot,
        Err(refused) => panic!("{:?}", refused.reply),
    };
    let mut bot = enter(again, "bot-1");
    // Only one of two devices is logged out.
    let other = desk.done("POST", &format!("/v1/users/{b}/tokens"), &json!({"device": "bot-2"}));
    let _beside = enter(other["token"].as_str().expect("a token"), "bot-2");
    let revoke = format!("/v1/users/{b}/tokens/revoke");
    assert_eq!(desk.done("POST", &revoke, &json!({"device": "bot-3"}))["revoked"], false);
    assert_eq!(desk.done("POST", &revoke, &json!({"device": "bot-1"})), json!({"device": "bot-1", "revoked": true}));
    bot.expect_farewell("revoked");
    refused_at_level2(&server, LoginAs::token(again, "bot-1"));
    // The other device stays connected.
    let shown = desk.get(&format!("/v1/users/{b}"));
    assert_eq!(shown["connections"], 1);
    assert_eq!((shown["devices"].as_array().map(Vec::len), &shown["devices"][0]["device"]), (Some(1), &json!("bot-2")));
    desk.refused(404, "POST", "/v1/users/4711/tokens/revoke", &json!({"device": "bot"}));
    for bad in [json!({}), json!({"device": "a b"}), json!({"device": ""}), json!({"device": "x".repeat(65)})] {
        desk.refused(400, "POST", &format!("/v1/users/{b}/tokens"), &bad);
    }
    desk.refused(404, "POST", "/v1/users/4711/tokens", &json!({"device": "bot"}));
}

#[test]
fn changes_of_an_account_take_effect_on_every_node() {
    // These nodes do not compare accounts with the database, so another node has to notify them.
    let cluster = Cluster::start_with(2, |node| {
        let node = node.option("admin", "127.0.0.1:0").option("account_check", "0");
        node.file("server.cnf", format!("admin_key={KEY}\n"))
    });
    let [here, there] = [&cluster.nodes[0], &cluster.nodes[1]];
    let desk = Desk::of(here);
    let (mut ann, a) = user(there, "ann");
    let mut phone = Level2Client::enter(there, "ann", a, "phone");
    let (mut other, _) = user(there, "other");
    assert_eq!(desk.post(&format!("/v1/users/{a}/disable"))["changed"], true);
    closed_as_changed(&mut ann);
    phone.expect_farewell("revoked");
    // The other node has remembered the password a moment ago.
    refused(there, a, &password("ann"));
    other.barrier();
    assert_eq!(desk.post(&format!("/v1/users/{a}/enable"))["changed"], true);
    let mut again = login(there, "ann", a);
    assert_eq!(desk.get("/v1/users?limit=1")["users"][0]["id"], a);
    desk.post(&format!("/v1/users/{a}/logout"));
    closed_as_changed(&mut again);
    let group = other.create_group(other_id(desk), "team");
    wait_until("the group is listed", || desk.get("/v1/groups")["groups"][0]["id"] == group);
    assert_eq!(desk.get("/v1/groups")["groups"][0]["member_count"], 1);
}

#[test]
fn a_login_whose_password_is_being_checked_fails_when_the_account_is_disabled() {
    // Nothing but the order can refuse these logins: passwords are remembered, and accounts are not
    // compared.
    let cluster = Cluster::start_with(2, |node| {
        let node = node.option("admin", "127.0.0.1:0").option("account_check", "0").option("hashers", "1");
        node.file("server.cnf", format!("admin_key={KEY}\n"))
    });
    let desk = Desk::of(&cluster.nodes[0]);
    for node in &cluster.nodes {
        let came_in_time = (0..10).any(|nth| is_overtaken(desk, node, &format!("{} {nth}", node.address())));
        assert!(came_in_time, "each check of a password was over before the order");
    }
}

/// Disables a new account while the password of two logins is checked. Returns false if that came
/// too late: the first check was over. Otherwise both logins must fail.
fn is_overtaken(desk: Desk, node: &TestServer, name: &str) -> bool {
    // An argon2 hash of the text `slow`, which an idle processor checks in a fourth of a second.
    const SLOW: &str =
        "$argon2id$v=19$m=65536,t=4,p=1$YSBzYWx0IG9mIGEgdGVzdA$7zpcZByCacV4NoWTXjWF4IYJj8MMfkWP4RJqEmFq3KU";
    let id = desk.done("POST", "/v1/users", &json!({"name": name}))["id"].as_i64().expect("an id");
    node.run_sql(&format!("UPDATE User SET password = '{SLOW}' WHERE id = {id}"));
    let mut clients: Vec<TestClient> = (0..2).map(|_| TestClient::connect(node)).collect();
    for client in &mut clients {
        client.set_patience(3 * LONG_PATIENCE);
        client.send(&json!({"msgType": 1, "USERID": id, "password": "slow"}));
    }
    // Both logins are with the hasher: one is checked, and the other one waits.
    let waiting = || node.metric(r#"raybox_queue_jobs{queue="hasher"}"#) > 0.5;
    wait_within(LONG_PATIENCE, "one is being checked", waiting);
    desk.post(&format!("/v1/users/{id}/disable"));
    if !waiting() {
        return false;
    }
    clients.iter_mut().for_each(|client| client.expect_text(WRONG_PASSWORD));
    assert_eq!(Desk::of(node).get(&format!("/v1/users/{id}"))["connections"], 0);
    true
}

fn other_id(desk: Desk) -> i64 {
    desk.get("/v1/users?name=other")["users"][0]["id"].as_i64().expect("an id")
}

#[test]
fn an_account_made_by_a_jwt_is_shown_as_such_and_gets_no_password() {
    let issuer = JwtIssuer::es256();
    let builder = administered().file("key.pem", issuer.pem()).option("jwt_key", "key.pem");
    let server = builder.option("jwt_algorithm", "ES256").option("jwt_register", "on").start();
    let desk = Desk::of(&server);
    let jwt = issuer.sign(&json!({"sub": "ann", "exp": in_seconds(3600)}));
    let login = |device: &str| LoginAs::jwt(&jwt, device);
    let enter = || Level2Client::login(TestClient::connect(&server), Store::new(Store::NEW_USER), login("d"));
    let mut ann = enter();
    let a = ann.welcome.user;
    assert_eq!(desk.get("/v1/users")["users"], json!([{"disabled": false, "id": a, "jwt": true, "name": "ann"}]));
    assert_eq!(desk.get(&format!("/v1/users/{a}"))["jwt"], true);
    let why = desk.refused(409, "POST", &format!("/v1/users/{a}/password"), &json!({"password": "word"}));
    assert!(why.contains("a JWT has made this account"), "{why}");
    refused_at_level2(&server, LoginAs::password(a, "word", "d"));
    // Disabled, it is closed to tokens.
    desk.post(&format!("/v1/users/{a}/disable"));
    ann.expect_farewell("revoked");
    assert_eq!(desk.get(&format!("/v1/users/{a}"))["jwt"], true);
    refused_at_level2(&server, login("d"));
    refused_at_level2(&server, LoginAs::token(&ann.welcome.token, "d"));
    desk.post(&format!("/v1/users/{a}/enable"));
    assert_eq!(enter().welcome.user, a);
    // A token of a bot does not end with a JWT.
    let made = desk.done("POST", &format!("/v1/users/{a}/tokens"), &json!({"device": "bot"}));
    let token = made["token"].as_str().expect("a token");
    let bot = Level2Client::login(TestClient::connect(&server), Store::new(a), LoginAs::token(token, "bot"));
    assert!(bot.welcome.token_expires > in_seconds(7200) * 1000);
    desk.done("DELETE", &format!("/v1/users/{a}"), &Value::Null);
    assert_ne!(enter().welcome.user, a, "the next login makes a new account");
}
