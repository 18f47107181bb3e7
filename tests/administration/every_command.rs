//! Every command of `server admin` against a running server, for people and for scripts.

use std::fs;

use serde_json::{Value, json};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{LONG_PATIENCE, TestClient, TestServer, Workplace, login, offline_user, user, wait_until};

use crate::announcements::{crowd, over};
use crate::desk::{Desk, KEY, administered};

/// A command; what it prints for people, line by line, with any other lines between; members of
/// its JSON; and a check that the deed was done, which gets what was printed.
type Row = (&'static str, &'static [&'static str], &'static str, fn(&mut Stage, &str));

/// The commands, in an order in which each can do its deed. The ids are those of [`Stage::new`].
const ROWS: [Row; 34] = [
    ("status", &["drained: no", "log_level: info"], r#"{"drained": false, "log_level": "info"}"#, nothing),
    ("drain", &["changed: yes", "drained: yes"], r#"{"changed": true, "drained": true}"#, |at, _| {
        assert!(!at.server.is_ready());
    }),
    ("undrain", &["changed: yes", "drained: no"], r#"{"changed": true, "drained": false}"#, |at, _| {
        assert!(at.server.is_ready());
    }),
    ("log-level", &["level: info"], r#"{"level": "info"}"#, nothing),
    ("log-level debug", &["level: debug"], r#"{"level": "debug"}"#, |at, _| at.expect_level("debug")),
    (
        "reload",
        &["applied: log_level", "certificates: -", "jwt_keys: -", "needs_restart: workers"],
        r#"{"applied": ["log_level"], "certificates": null, "jwt_keys": null, "needs_restart": ["workers"]}"#,
        |at, _| at.expect_level("warn"),
    ),
    ("trace --set all", &["trace: all"], r#"{"trace": "all"}"#, |at, _| {
        assert_eq!(at.desk().get("/v1/tracing"), json!({"trace": "all"}));
        assert_eq!(at.bob.say("u1", "hello"), 1);
        assert_eq!(at.ann.recv()["msg"], "hello");
        at.ann.barrier();
    }),
    (
        "trace --user 2 --conv u1 --seq 1",
        &["Stored as 1 of u1", "AT ", "stored it as 1"],
        r#"{"message": {"seq": 1, "from": 2}, "nodes": [{"answered": true}]}"#,
        nothing,
    ),
    (
        "explain 2",
        &["The user has 1 connection.", "phone"],
        r#"{"id": 2, "name": "bob", "devices": [{"device": "phone"}], "places": [{"level": 2}]}"#,
        nothing,
    ),
    (
        "connections --user 2",
        &["matching: 1", "FROM", "127.0.0.1:"],
        r#"{"matching": 1, "connections": [{"user": 2, "level": 2}]}"#,
        nothing,
    ),
    ("users list --limit 1", &["there are more: --after 1", "DISABLED  ID", "ann"], r#"{"more": true}"#, nothing),
    ("users find cat", &["DISABLED  ID", "cat"], r#"{"users": [{"id": 3, "name": "cat"}]}"#, nothing),
    (
        "users show 2",
        &["connections: 1", "disabled: no", "name: bob", "DEVICE", "phone"],
        r#"{"connections": 1, "disabled": false, "devices": [{"device": "phone"}], "id": 2, "name": "bob"}"#,
        nothing,
    ),
    ("users create dan", &["id: 6", "name: dan", "password: "], r#"{"id": 6, "name": "dan"}"#, |at, printed| {
        at.expect_login(6, &member(printed, "password"));
    }),
    ("users password 3 --yes", &["password: "], "{}", |at, printed| {
        at.cat.expect_refusal(403);
        at.cat.expect_eof();
        at.expect_login(3, &member(printed, "password"));
        assert!(!at.lets_in(3, &testkit::password("cat")), "the old password is over");
    }),
    ("users password 3 --password cat-1 --yes", &["password: -"], r#"{"password": null}"#, |at, _| {
        at.expect_login(3, "cat-1");
    }),
    ("users disable 3 --yes", &["changed: yes", "disabled: yes"], r#"{"changed": true, "disabled": true}"#, |at, _| {
        assert!(!at.lets_in(3, "cat-1"));
    }),
    ("users enable 3", &["changed: yes", "disabled: no"], r#"{"changed": true, "disabled": false}"#, |at, _| {
        at.expect_login(3, "cat-1");
    }),
    ("users token 2 robot --yes", &["device: robot", "token: "], r#"{"device": "robot"}"#, |at, printed| {
        at.robot = Some(at.enter_by_token(&member(printed, "token"), "robot"));
    }),
    ("users revoke 2 robot --yes", &["device: robot", "revoked: yes"], r#"{"revoked": true}"#, |at, _| {
        at.robot.take().expect("it is logged in").expect_farewell("revoked");
        at.bob.ask_for_pong();
    }),
    ("users logout 2 --yes", &["forgotten_devices: 1"], r#"{"forgotten_devices": 1}"#, |at, _| {
        at.bob.expect_farewell("revoked");
        assert!(at.desk().get("/v1/users/2")["devices"] == json!([]), "its tokens are over");
    }),
    ("groups list", &["ID", "team"], r#"{"more": false, "groups": [{"id": 1, "member_count": 3}]}"#, nothing),
    (
        "groups show 1",
        &["name: team", "ID", "creator", "bob", "cat"],
        r#"{"id": 1, "members": [{"id": 1, "role": "creator"}, {"id": 2}, {"id": 3}]}"#,
        nothing,
    ),
    ("groups transfer 1 2 --yes", &["creator: 2"], r#"{"creator": 2}"#, |at, _| {
        assert_eq!(at.members(), [(1, "normal".into()), (2, "creator".into()), (3, "normal".into())]);
    }),
    ("groups remove 1 3 --yes", &["removed: yes"], r#"{"removed": true}"#, |at, _| {
        assert_eq!(at.members(), [(1, "normal".into()), (2, "creator".into())]);
    }),
    ("groups dissolve 1 --yes", &["dissolved: yes"], r#"{"dissolved": true}"#, |at, _| {
        at.desk().refused(404, "GET", "/v1/groups/1", &Value::Null);
    }),
    ("groups list", &["no groups"], r#"{"groups": [], "more": false}"#, |at, _| {
        wait_until("only ann counts as logged in", || {
            (1..=6).all(|user| (at.server.state_of(user) == "online") == (user == 1))
        });
    }),
    (
        "announcements send 5 news --id first --yes",
        &["away: no", "from: 5", "id: first"],
        r#"{"announcement": {"away": false, "from": 5, "id": "first"}}"#,
        |at, _| {
            assert_eq!(at.ann.recv()["msg"], "news");
            assert_eq!(over(at.desk())["sent"], 1);
            assert_eq!(at.server.stored_for(4), 0, "only those who are there");
        },
    ),
    (
        "announcements show",
        &["id: first", "sent: 1", "state: done"],
        r#"{"announcement": {"id": "first", "sent": 1, "state": "done"}}"#,
        |at, _| crowd(&at.server, 100_000),
    ),
    (
        "announcements send 5 more --away --yes",
        &["away: yes", "from: 5"],
        r#"{"announcement": {"away": true, "from": 5}}"#,
        |at, _| assert_eq!(at.ann.recv()["msg"], "more"),
    ),
    ("announcements stop", &["stopped: yes"], r#"{"stopped": true}"#, |at, _| {
        assert_eq!(over(at.desk())["state"], "stopped");
    }),
    ("close --user 1 --yes", &["closed: 1"], r#"{"closed": 1}"#, |at, _| at.ann.expect_eof()),
    ("connections", &["matching: 0", "no connections"], r#"{"connections": [], "matching": 0}"#, nothing),
    ("users delete 4 --yes", &["deleted: yes"], r#"{"deleted": true}"#, |at, _| {
        at.desk().refused(404, "GET", "/v1/users/4", &Value::Null);
        assert!(!at.lets_in(4, &testkit::password("eve")));
    }),
];

fn nothing(_: &mut Stage, _: &str) {}

/// A server with users: ann (1) and cat (3) are connected at level 1, bob (2) at level 2; eve (4)
/// and the sender of announcements (5) are offline. Group 1 is ann's.
struct Stage {
    server: TestServer,
    ann: TestClient,
    bob: Level2Client,
    cat: TestClient,
    robot: Option<Level2Client>,
}

impl Stage {
    fn new() -> Stage {
        let server = administered().start();
        let (mut ann, a) = user(&server, "ann");
        let b = offline_user(&server, "bob");
        let (mut cat, c) = user(&server, "cat");
        let (e, news) = (offline_user(&server, "eve"), offline_user(&server, "news"));
        let group = ann.create_group(a, "team");
        login(&server, "bob", b).join_group(b, group);
        cat.join_group(c, group);
        assert_eq!(([a, b, c, e, news], group), ([1, 2, 3, 4, 5], 1), "the rows name these ids");
        let bob = Level2Client::enter(&server, "bob", b, "phone");
        let matching = || Desk::of(&server).get("/v1/connections")["matching"].clone();
        wait_until("the other connections are gone", || matching() == 3);
        let settings = format!("admin_key={KEY}\nlog_level=warn\nworkers=5\n");
        fs::write(server.folder().join("server.cnf"), settings).expect("write settings");
        ann.set_patience(LONG_PATIENCE);
        Stage { server, ann, bob, cat, robot: None }
    }

    fn desk(&self) -> Desk {
        Desk::of(&self.server)
    }

    #[track_caller]
    fn expect_level(&self, level: &str) {
        assert_eq!(self.desk().get("/v1/log-level")["level"], level);
    }

    fn lets_in(&self, user: i64, password: &str) -> bool {
        let mut client = TestClient::connect(&self.server);
        client.send(&json!({"msgType": 1, "USERID": user, "password": password}));
        client.recv()["errno"] == 200
    }

    #[track_caller]
    fn expect_login(&self, user: i64, password: &str) {
        assert!(self.lets_in(user, password), "user {user}, {password}");
    }

    fn enter_by_token(&self, token: &str, device: &str) -> Level2Client {
        Level2Client::login(TestClient::connect(&self.server), Store::new(2), LoginAs::token(token, device))
    }

    /// The members of the group with their roles.
    fn members(&self) -> Vec<(i64, String)> {
        crate::groups::roles(self.desk(), 1)
    }
}

/// The text behind this name, in JSON or in lines for people.
#[track_caller]
fn member(printed: &str, name: &str) -> String {
    let of_json = serde_json::from_str::<Value>(printed).ok().and_then(|json| Some(json[name].as_str()?.to_owned()));
    let line = || printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
    of_json.or_else(line).unwrap_or_else(|| panic!("no {name} in {printed}"))
}

/// Whether a value has all members of another one; a list must have its length.
fn covers(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|whole| covers(whole, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| covers(whole, part))
        }
        _ => whole == part,
    }
}

/// Expects these texts in different lines, in this order.
#[track_caller]
fn expect_lines(line: &str, printed: &str, texts: &[&str]) {
    let mut lines = printed.lines();
    for text in texts {
        assert!(lines.any(|line| line.contains(text)), "{line}: no {text:?} in\n{printed}");
    }
}

#[test]
fn every_command_does_its_deed_and_says_so_to_people_and_to_scripts() {
    for is_for_scripts in [false, true] {
        let mut stage = Stage::new();
        let at = Workplace::empty();
        at.write("server.cnf", &format!("admin={}\nadmin_key={KEY}\n", stage.desk().0));
        for (line, shown, members, deed) in ROWS {
            let mut words: Vec<&str> = ["admin"].into_iter().chain(line.split(' ')).collect();
            words.extend(is_for_scripts.then_some("--json"));
            let printed = at.succeed(&words);
            if is_for_scripts {
                let answer: Value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{line}: {e}: {printed}"));
                let part = serde_json::from_str(members).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(covers(&answer, &part), "{line}: {answer} does not have {part}");
            } else {
                assert!(!printed.contains('{'), "{line}: {printed}");
                expect_lines(line, &printed, shown);
            }
            deed(&mut stage, &printed);
        }
    }
}

/// The names in the list of commands of a help.
fn commands_in(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names = list.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn no_command_is_missing_above() {
    let at = Workplace::empty();
    let outer = commands_in(&at.succeed(&["admin", "--help"]));
    assert!(outer.len() > 10, "{outer:?}");
    for command in outer {
        let inner = commands_in(&at.succeed(&["admin", &command, "--help"]));
        let names = inner.iter().map(|inner| format!("{command} {inner}"));
        let names: Vec<String> = if inner.is_empty() { vec![command] } else { names.collect() };
        for name in names {
            let is_it = |line: &str| {
                line.strip_prefix(name.as_str()).is_some_and(|rest| matches!(rest.get(..1), None | Some(" ")))
            };
            assert!(ROWS.iter().any(|row| is_it(row.0)), "{name}");
        }
    }
}
