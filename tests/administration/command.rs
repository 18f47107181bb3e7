//! `server admin`.

use serde_json::{Value, json};
use testkit::{TestServer, Workplace, user, wait_until};

use crate::desk::{Desk, KEY, administered};

/// A folder with the settings of an administrator of this server.
fn workplace(server: &TestServer) -> Workplace {
    let workplace = Workplace::empty();
    workplace.write("server.cnf", &format!("admin={}\nadmin_key={KEY}\n", Desk::of(server).0));
    workplace
}

#[test]
fn commands_are_carried_out_and_shown() {
    let server = administered().start();
    let at = workplace(&server);
    let (_ann, a) = user(&server, "ann");
    let status = at.succeed(&["admin", "status"]);
    assert!(status.contains("drained: no") && status.contains("connections: 1"), "{status}");
    at.succeed(&["admin", "drain"]);
    wait_until("it is drained", || !server.is_ready());
    at.succeed(&["admin", "undrain"]);
    let made: Value = serde_json::from_str(&at.succeed(&["admin", "users", "create", "bob", "--json"])).expect("JSON");
    assert!(made["password"].is_string(), "{made}");
    let listed = at.succeed(&["admin", "users", "list"]);
    assert!(listed.lines().any(|line| line.starts_with("DISABLED  ID")), "{listed}");
    assert!(listed.lines().any(|line| line.contains("ann")), "{listed}");
    let found: Value = serde_json::from_str(&at.succeed(&["admin", "users", "find", "ann", "--json"])).expect("JSON");
    assert_eq!(found["users"][0]["id"], json!(a));

    // A destructive command asks for confirmation, which nobody gives here.
    let a_text = a.to_string();
    for (command, what) in [
        (&["users", "delete", &a_text][..], "delete the account of user"),
        (&["users", "token", &a_text, "bot"], "end the tokens that device \"bot\" of user"),
        (&["groups", "transfer", "1", &a_text], "the creator of group 1"),
        (&["close", "--user", &a_text], "close the connections of this node of user"),
    ] {
        let refused = at.refused(&[&["admin"], command].concat());
        assert!(refused.contains(what) && refused.contains("--yes"), "{refused}");
    }
    let of_nobody = at.refused(&["admin", "close"]);
    assert!(of_nobody.contains("--user N") && !of_nobody.contains("--yes"), "{of_nobody}");
    assert!(at.succeed(&["admin", "users", "token", &a_text, "bot", "--yes"]).contains("token: "));
    at.succeed(&["admin", "users", "disable", &a.to_string(), "--yes"]);
    assert!(at.succeed(&["admin", "users", "show", &a.to_string()]).contains("disabled: yes"));
    at.succeed(&["admin", "users", "delete", &a.to_string(), "--yes"]);
    let gone = at.run(&["admin", "users", "show", &a.to_string()]);
    assert_eq!(gone.code, Some(1), "{}", gone.stderr);
    assert!(gone.stderr.contains("the server refuses (404): there is no such user"), "{}", gone.stderr);
}

#[test]
fn the_reason_for_a_failed_command_is_printed() {
    let server = administered().start();
    let at = Workplace::empty();
    assert!(at.refused(&["admin", "status"]).contains("RAYBOX_ADMIN_KEY"));
    at.write("server.cnf", &format!("admin_key={KEY}\n"));
    let free = testkit::free_port();
    let silent = at.run(&["admin", "status", "--address", &free.to_string()]);
    assert_eq!(silent.code, Some(1));
    assert!(silent.stderr.contains("is the server running with admin="), "{}", silent.stderr);
    assert!(at.refused(&["admin", "status", "--address", "nowhere"]).contains("is not an address"));
    assert!(at.refused(&["admin", "stats"]).contains("usage: server admin"));
    let foreign = at.run(&["admin", "status", "--address", &server.address().to_string()]);
    assert!(foreign.stderr.contains("not the admin port"), "{}", foreign.stderr);
    at.write("server.cnf", "admin_key=0123456789abcdef0123456789abcdef-other\n");
    let wrong = at.run(&["admin", "status", "--address", &Desk::of(&server).0.to_string()]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("(401): the key is wrong"), "{}", wrong.stderr);
}
