//! No client can act as another user.

use serde_json::{Value, json};
use testkit::{ACK, BAD_REQUEST, NO_SUCH_METHOD, TestClient, TestServer, World};
use testkit::{
    assert_no_repeated_member, assert_refusal, chat, login, members, offline_user, password, user, wait_until,
};

/// Every request that only the victim may make.
fn forgeries(world: &World) -> Vec<Value> {
    let (v, b, c) = (world.victim, world.bob.1, world.carol.1);
    vec![
        json!({"msgType": 4, "FROMID": v, "TOID": b, "msg": "forged"}),
        json!({"msgType": 4, "FROMID": v, "TOID": v, "msg": "forged"}),
        json!({"msgType": 5, "FROMID": v, "TOID": b, "msg": "forged"}),
        json!({"msgType": 6, "U1": v, "U2": c}),
        json!({"msgType": 7, "FROMID": v, "TOID": b}),
        json!({"msgType": 8, "FROMID": v}),
        json!({"msgType": 9, "FROMID": v, "GROUPID": world.group, "msg": "forged"}),
        json!({"msgType": 10, "FROMID": v, "GROUPID": world.carols_group}),
        json!({"msgType": 11, "FROMID": v}),
        json!({"msgType": 12, "FROMID": v, "name": "forged", "description": "d"}),
        json!({"msgType": 14, "FROMID": v}),
    ]
}

/// Sends every forgery from `attacker`, and checks that each is refused and changes nothing.
fn attack(mut world: World, attacker: &mut TestClient) {
    for forgery in forgeries(&world) {
        attacker.send(&forgery);
        let reply = attacker.recv_text();
        assert!(reply.contains(r#""errno":403"#), "{forgery} got {reply}");
        assert_refusal(&reply, 403);
    }
    attacker.send(&json!({"msgType": 3, "USERID": world.victim}));
    attacker.expect_text(BAD_REQUEST);
    attacker.barrier();
    world.expect_silence();
    assert_untouched(&world);
}

/// Checks that the owner's data is as [`World::new`] left it.
fn assert_untouched(world: &World) {
    let (v, b) = (world.victim, world.bob.1);
    let mut owner = login(&world.server, "victim", v);
    let friends = owner.ask(&json!({"msgType": 8, "FROMID": v}));
    let bob = json!({"id": b.to_string(), "isGroup": "0", "name": "bob"});
    let group = json!({"id": world.group.to_string(), "isGroup": "1", "name": "the victim's"});
    assert_eq!(friends, json!({"errno": 200, "friends": [bob, group], "msgType": 8}));
    let groups = owner.ask(&json!({"msgType": 11, "FROMID": v}));
    let group = json!({"desc": "d", "gUsers": [], "id": world.group.to_string(), "name": "the victim's"});
    assert_eq!(groups, json!({"errno": 200, "groups": [group], "msgType": 200}));
    assert_eq!(owner.fetch_all(v), [chat(b, v, "waiting")]);
    wait_until("nothing waits for anybody else", || world.server.stored() == 0);
}

#[test]
fn a_stranger_may_do_nothing() {
    let world = World::new(TestServer::start());
    let mut stranger = TestClient::connect(&world.server);
    for frame in [
        json!({"msgType": 4, "TOID": world.bob.1, "msg": "anonymous"}),
        json!({"msgType": 5, "TOID": world.bob.1}),
        json!({"msgType": 13, "name": "victim"}),
        json!({"msgType": 15, "keyword": "victim"}),
    ] {
        stranger.send(&frame);
        stranger.expect_refusal(403);
    }
    attack(world, &mut stranger);
}

#[test]
fn a_stranger_may_register_and_log_in() {
    let server = TestServer::start();
    let mut stranger = TestClient::connect(&server);
    let id = stranger.register("new", "secret");
    // A registration does not log in.
    stranger.send(&json!({"msgType": 11, "FROMID": id}));
    stranger.expect_refusal(403);
    stranger.send(&json!({"msgType": 1, "USERID": id, "password": "wrong"}));
    assert_eq!(stranger.recv()["errno"], 302);
    stranger.send(&json!({"msgType": 11, "FROMID": id}));
    stranger.expect_refusal(403);
    stranger.login(id, "secret");
    stranger.barrier();
}

#[test]
fn another_user_may_not_act_as_the_victim() {
    let world = World::new(TestServer::start());
    let (mut eve, _) = user(&world.server, "eve");
    attack(world, &mut eve);
}

#[test]
fn a_friend_and_fellow_member_may_not_act_as_the_victim() {
    let world = World::new(TestServer::start());
    let mut bob = login(&world.server, "bob", world.bob.1);
    // From now on pushes to bob would arrive on this connection. Its replies show that there are
    // none.
    attack(world, &mut bob);
}

#[test]
fn a_logout_ends_all_rights() {
    let world = World::new(TestServer::start());
    let mut former = TestClient::connect(&world.server);
    former.login(world.victim, &password("victim"));
    former.logout(world.victim);
    attack(world, &mut former);
}

#[test]
fn a_login_as_somebody_else_leaves_no_rights_of_before() {
    let world = World::new(TestServer::start());
    let e = offline_user(&world.server, "eve");
    let mut former = TestClient::connect(&world.server);
    former.login(world.victim, &password("victim"));
    former.logout(world.victim);
    former.login(e, &password("eve"));
    attack(world, &mut former);
}

#[test]
fn a_failed_login_gives_no_rights() {
    let world = World::new(TestServer::start());
    let (mut eve, _) = user(&world.server, "eve");
    eve.send(&json!({"msgType": 1, "USERID": world.victim, "password": password("eve")}));
    assert_eq!(eve.recv()["errno"], 302);
    attack(world, &mut eve);
}

#[test]
fn one_connection_may_be_several_users() {
    let server = TestServer::start();
    let (mut both, a) = user(&server, "alice");
    let e = offline_user(&server, "eve");
    both.login(e, &password("eve"));
    for id in [a, e] {
        assert_eq!(both.ask(&json!({"msgType": 11, "FROMID": id}))["errno"], 200);
    }
    both.send(&json!({"msgType": 3, "USERID": a}));
    both.expect_text(ACK);
    both.send(&json!({"msgType": 11, "FROMID": a}));
    both.expect_refusal(403);
    assert_eq!(both.ask(&json!({"msgType": 11, "FROMID": e}))["errno"], 200);
}

#[test]
fn any_login_is_enough_where_nobody_is_named() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    assert_eq!(alice.ask(&json!({"msgType": 13, "name": "none"}))["errno"], 200);
    assert_eq!(alice.ask(&json!({"msgType": 15, "keyword": "none"}))["errno"], 200);
    for frame in [json!({"msgType": 4, "TOID": b, "msg": "who am I"}), json!({"msgType": 5, "TOID": b})] {
        alice.send(&frame);
        bob.expect(&frame);
    }
    // Another user's id in a member that the request does not use has no effect.
    assert_eq!(alice.ask(&json!({"msgType": 15, "FROMID": b, "keyword": "none"}))["errno"], 200);
    assert_eq!(alice.ask(&json!({"msgType": 11, "FROMID": a, "USERID": b, "U1": b}))["errno"], 200);
}

#[test]
fn a_fromid_of_the_wrong_type_is_a_bad_request() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    for fromid in [json!(a.to_string()), json!(null), json!([a]), json!(true), json!({"id": a})] {
        for kind in [7, 8, 11, 14] {
            alice.send(&json!({"msgType": kind, "FROMID": fromid, "TOID": b}));
            alice.expect_text(BAD_REQUEST);
        }
    }
    alice.barrier();
    bob.expect_silence_until_barrier();
}

#[test]
fn group_chat_needs_membership() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let away = offline_user(&server, "carol");
    let mut carol = login(&server, "carol", away);
    let group = alice.create_group(a, "members only");
    carol.join_group(away, group);
    carol.logout(away);
    let message = json!({"msgType": 9, "FROMID": b, "GROUPID": group, "msg": "let me in"});
    for _ in 0..3 {
        bob.send(&message);
        bob.expect_refusal(403);
    }
    alice.expect_silence_until_barrier();
    assert_eq!(server.stored(), 0);
    bob.join_group(b, group);
    bob.send(&message);
    alice.expect(&message);
    bob.barrier();
    assert_eq!(server.stored_for(away), 1);
}

/// Checks what a recipient gets of a frame that contains the sender's id twice.
fn assert_forged_twice(text: &str, name: &str, sender: i64, victim: i64) {
    assert_no_repeated_member(text);
    assert!(!text.contains(&victim.to_string()), "{name} must not carry the victim's id: {text}");
    let fromid = members(text).into_iter().find(|(name, _)| name == "FROMID").expect("a sender").1;
    assert_eq!(fromid, sender, "{text}");
}

#[test]
fn a_repeated_fromid_deceives_nobody() {
    let server = TestServer::start();
    // The ids need at least two digits and must occur in no other number of the frames.
    let mut maker = TestClient::connect(&server);
    for n in 0..30 {
        maker.register(&format!("filler {n}"), "x");
    }
    let victim = offline_user(&server, "victim");
    let (mut eve, e) = user(&server, "eve");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    let mut carol = login(&server, "carol", c);
    let group = eve.create_group(e, "the group");
    bob.join_group(b, group);
    carol.join_group(c, group);
    carol.logout(c);

    let keys = ["FROMID", r"FROM\u0049D", r"\u0046ROMID"];
    let mut stored = 0;
    for key in keys {
        for (kind, target) in
            [(4, format!(r#""TOID":{b}"#)), (5, format!(r#""TOID":{b}"#)), (9, format!(r#""GROUPID":{group}"#))]
        {
            eve.send_text(&format!(r#"{{"msgType":{kind},"{key}":{victim},{target},"msg":"hi","FROMID":{e}}}"#));
            let text = bob.recv_text();
            assert_forged_twice(&text, "a push", e, victim);
        }
        stored += 1;
        // The last one counts, so these frames are refused.
        for kind in [4, 5] {
            eve.send_text(&format!(r#"{{"msgType":{kind},"FROMID":{e},"TOID":{b},"msg":"hi","{key}":{victim}}}"#));
            eve.expect_refusal(403);
        }
        eve.send_text(&format!(r#"{{"msgType":9,"FROMID":{e},"GROUPID":{group},"{key}":{victim}}}"#));
        eve.expect_refusal(403);
        eve.send_text(&format!(r#"{{"msgType":4,"{key}":{victim},"TOID":{c},"msg":"hi","FROMID":{e}}}"#));
        stored += 1;
    }
    eve.barrier();
    bob.expect_silence_until_barrier();
    let mut carol = login(&server, "carol", c);
    let texts = carol.fetch_texts(c);
    assert_eq!(texts.len(), stored);
    for text in texts {
        assert_forged_twice(&text, "a stored message", e, victim);
    }
}

#[test]
fn a_repeated_msgtype_or_recipient_is_forwarded_once() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    for frame in [
        format!(r#"{{"msgType":99,"FROMID":{a},"TOID":{b},"msgType":4}}"#),
        format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{a},"TOID":{b}}}"#),
        format!(r#"{{"msgType":"no","msgType":4,"FROMID":{a},"TOID":"no","T\u004fID":{b}}}"#),
        format!(r#"{{"msgType":4,"msgType":100,"FROMID":{a},"TOID":{b}}}"#),
    ] {
        alice.send_text(&frame);
        let text = bob.recv_text();
        assert_no_repeated_member(&text);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value, json!({"msgType": 4, "FROMID": a, "TOID": b}), "{frame}");
    }
    alice.expect_silence_until_barrier();
}

// The alias 100

#[test]
fn type_100_is_chat_for_those_logged_in_and_unknown_to_others() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    let mut stranger = TestClient::connect(&server);
    let frame = |from: i64, to: i64| json!({"msgType": 100, "FROMID": from, "TOID": to, "msg": "hi", "sendTime": 1_702_556_908_737_i64});
    for _ in 0..3 {
        stranger.send(&frame(a, b));
        stranger.expect_text(NO_SUCH_METHOD);
    }
    alice.send(&frame(a, b));
    bob.expect(&chat(a, b, "hi"));
    alice.send(&frame(a, c));
    alice.barrier();
    assert_eq!(login(&server, "carol", c).fetch(c), [chat(a, c, "hi")]);
    // As another user, and to an id of no user.
    alice.send(&frame(c, b));
    alice.expect_refusal(403);
    alice.send(&json!({"msgType": 100, "FROMID": a}));
    alice.expect_text(NO_SUCH_METHOD);
    alice.send(&json!({"msgType": 100}));
    alice.expect_text(NO_SUCH_METHOD);
    alice.logout(a);
    alice.send(&frame(a, b));
    alice.expect_text(NO_SUCH_METHOD);
    bob.expect_silence_until_barrier();
}
