//! Sends every request in the name of every kind of user, from every kind of connection. The reply
//! must be exactly the expected one, and nothing must change.

use serde_json::json;

use testkit::{ACK, BAD_REQUEST, LOG_IN_FIRST, NO_SUCH_METHOD, NOT_A_MEMBER, NOT_YOU, SERVER_ERROR, WRONG_PASSWORD};
use testkit::{Database, TestClient, TestServer, World, chat, login, offline_user, password};

/// The victim's world, and Eve, the attacker.
struct Scene {
    world: World,
    eve: i64,
}

/// A kind of attacker: its connection, and the users that it must not act as.
struct Position {
    name: &'static str,
    client: TestClient,
    is_logged_in: bool,
    others: Vec<i64>,
}

impl Position {
    /// Sends a request, which must get exactly this reply.
    fn expect(&mut self, request: &str, expected: &str) {
        self.client.send_text(request);
        assert_eq!(self.client.recv_text(), expected, "{}: {request}", self.name);
    }
}

impl Scene {
    fn new(server: TestServer) -> Scene {
        let world = World::new(server);
        let eve = offline_user(&world.server, "eve");
        Scene { world, eve }
    }

    fn positions(&self) -> Vec<Position> {
        let (v, b, c, e) = (self.world.victim, self.world.bob.1, self.world.carol.1, self.eve);
        let stranger = || TestClient::connect(&self.world.server);
        let mut former = login(&self.world.server, "victim", v);
        former.logout(v);
        let mut successor = login(&self.world.server, "victim", v);
        successor.logout(v);
        successor.login(e, &password("eve"));
        // A client that is logged in as two users may act as both, but as no other user.
        let mut both = login(&self.world.server, "eve", e);
        let maud = offline_user(&self.world.server, "maud");
        both.login(maud, &password("maud"));
        let mut half = login(&self.world.server, "eve", e);
        half.login(maud, &password("maud"));
        half.logout(maud);
        half.login(e, &password("eve"));
        let mut failed = stranger();
        failed.send(&json!({"msgType": 1, "USERID": v, "password": password("eve")}));
        failed.expect_text(WRONG_PASSWORD);
        let position = |name, client, is_logged_in, others| Position { name, client, is_logged_in, others };
        vec![
            position("a stranger", stranger(), false, vec![v, b, c, e]),
            position("another user", login(&self.world.server, "eve", e), true, vec![v, b, c]),
            position("after a logout", former, false, vec![v, b, c, e]),
            position("after a failed login", failed, false, vec![v, b, c, e]),
            position("after a login as somebody else", successor, true, vec![v, b, c]),
            position("two at once", both, true, vec![v, b, c]),
            position("one of two that is left", half, true, vec![v, b, c, maud]),
        ]
    }

    /// The requests that name their user: the type, the member with the user's id, and the other
    /// members.
    fn requests(&self) -> Vec<(i64, &'static str, String)> {
        let (b, c) = (self.world.bob.1, self.world.carol.1);
        vec![
            (3, "USERID", String::new()),
            (4, "FROMID", format!(r#","TOID":{b},"msg":"forged""#)),
            (5, "FROMID", format!(r#","TOID":{c},"msg":"forged""#)),
            (6, "U1", format!(r#","U2":{c}"#)),
            (7, "FROMID", format!(r#","TOID":{b}"#)),
            (8, "FROMID", String::new()),
            (9, "FROMID", format!(r#","GROUPID":{},"msg":"forged""#, self.world.group)),
            (9, "FROMID", format!(r#","GROUPID":{},"msg":"forged""#, self.world.carols_group)),
            (10, "FROMID", format!(r#","GROUPID":{}"#, self.world.carols_group)),
            (10, "FROMID", format!(r#","GROUPID":{}"#, self.world.group)),
            (11, "FROMID", String::new()),
            (12, "FROMID", r#","name":"forged","description":"d""#.to_owned()),
            (14, "FROMID", String::new()),
            (100, "FROMID", format!(r#","TOID":{b},"msg":"forged""#)),
        ]
    }

    fn attack(&mut self, position: &mut Position) {
        self.name_others(position);
        self.name_nobody_well(position);
        self.ask_for_more(position);
        position.client.barrier();
        self.world.expect_silence();
    }

    /// Sends requests with ids of others and of nobody, once and twice in each request.
    fn name_others(&self, position: &mut Position) {
        let is_logged_in = position.is_logged_in;
        let refusal = if is_logged_in { NOT_YOU } else { LOG_IN_FIRST };
        let strangers: Vec<String> = position.others.iter().map(ToString::to_string).collect();
        for id in strangers.into_iter().chain(NOBODIES.map(str::to_owned)) {
            for (kind, key, rest) in self.requests() {
                let expected = match kind {
                    3 => BAD_REQUEST,
                    100 if !is_logged_in => NO_SUCH_METHOD,
                    _ => refusal,
                };
                position.expect(&format!(r#"{{"msgType":{kind},"{key}":{id}{rest}}}"#), expected);
                // If a member occurs twice, the last one counts.
                position.expect(&format!(r#"{{"{key}":1,"msgType":{kind}{rest},"{key}":{id}}}"#), expected);
            }
        }
    }

    /// Sends requests with malformed ids, and without one.
    fn name_nobody_well(&self, position: &mut Position) {
        for id in MALFORMED {
            let id = id.replace("VICTIM", &self.world.victim.to_string());
            for (kind, key, rest) in self.requests() {
                let expected = if kind == 100 { NO_SUCH_METHOD } else { BAD_REQUEST };
                position.expect(&format!(r#"{{"msgType":{kind},"{key}":{id}{rest}}}"#), expected);
            }
            position.expect(&format!(r#"{{"msgType":1,"USERID":{id},"password":"x"}}"#), BAD_REQUEST);
            position.expect(&format!(r#"{{"msgType":{id},"FROMID":{}}}"#, self.world.victim), BAD_REQUEST);
        }
        // A chat may leave the member out, but then the client must be logged in.
        for (kind, _, rest) in self.requests() {
            let expected = match kind {
                4 | 5 if position.is_logged_in => continue,
                4 | 5 => LOG_IN_FIRST,
                100 => NO_SUCH_METHOD,
                _ => BAD_REQUEST,
            };
            position.expect(&format!(r#"{{"msgType":{kind}{rest}}}"#), expected);
        }
    }

    /// Sends logins, registrations, requests for groups, and types that a client must not send.
    fn ask_for_more(&self, position: &mut Position) {
        // Once is enough, because a client that tries too often has to wait.
        let ids = if position.name == "a stranger" { &NOBODIES[..] } else { &[] };
        for id in ids {
            position.expect(&format!(r#"{{"msgType":1,"USERID":{id},"password":"x"}}"#), WRONG_PASSWORD);
        }
        position.expect(r#"{"msgType":2,"name":"victim","password":"x"}"#, SERVER_ERROR);
        position.expect(r#"{"msgType":2,"name":7,"password":"x"}"#, BAD_REQUEST);
        position.expect(r#"{"msgType":2,"name":"new"}"#, BAD_REQUEST);
        if position.is_logged_in {
            for group in [self.world.group, self.world.carols_group] {
                let frame = json!({"msgType": 9, "FROMID": self.eve, "GROUPID": group, "msg": "let me in"});
                position.expect(&frame.to_string(), NOT_A_MEMBER);
            }
        } else {
            position.expect(r#"{"msgType":13,"name":"victim"}"#, LOG_IN_FIRST);
            position.expect(r#"{"msgType":15,"keyword":"victim"}"#, LOG_IN_FIRST);
        }
        for (kind, expected) in [("200", ACK), ("401", BAD_REQUEST), ("404", NO_SUCH_METHOD), ("500", SERVER_ERROR)] {
            position.expect(&format!(r#"{{"msgType":{kind},"FROMID":{}}}"#, self.world.victim), expected);
        }
        for kind in ["0", "-1", "16", "99", "101", "403", "2147483652", "4294967300", "18446744073709551620"] {
            position.expect(
                &format!(r#"{{"msgType":{kind},"FROMID":{},"TOID":{}}}"#, self.world.victim, self.world.bob.1),
                NO_SUCH_METHOD,
            );
        }
    }
}

/// Integers that are no user's id. All but the last would be users' ids if they were truncated to
/// 32 bits.
const NOBODIES: [&str; 8] = [
    "0",
    "-1",
    "2000000001",
    "2147483648",
    "-9223372036854775808",
    "4294967297",
    "4294967298",
    "99999999999999999999999999",
];

/// Values that are not ids. A lenient parser might take them for the victim's id.
const MALFORMED: [&str; 12] = [
    "VICTIM.0",
    "VICTIMe0",
    "0.5",
    "-0.0",
    "true",
    "false",
    "null",
    "\"VICTIM\"",
    "\"VICTIM OR 1=1\"",
    "[VICTIM]",
    "{\"id\":VICTIM}",
    "\"\"",
];

fn nobody_acts_as_somebody_else(server: TestServer) {
    let mut scene = Scene::new(server);
    let mut positions = scene.positions();
    let before = scene.world.server.dump();
    assert!(before.len() > 10, "there is something to lose: {before:?}");
    for position in &mut positions {
        scene.attack(position);
        assert_eq!(scene.world.server.dump(), before, "{}", position.name);
    }
    // The victim's data is unchanged, including the stored message.
    let World { server, victim: v, bob: (_, b), .. } = &scene.world;
    let mut victim = login(server, "victim", *v);
    assert_eq!(victim.fetch_all(*v), [chat(*b, *v, "waiting")]);
}

#[test]
fn no_client_acts_as_another_user_on_the_embedded_store() {
    nobody_acts_as_somebody_else(TestServer::start());
}

#[test]
fn no_client_acts_as_another_user_on_mariadb() {
    nobody_acts_as_somebody_else(TestServer::builder().mysql(&Database::create()).start());
}
