//! Administration of one node: its connections, whether it is drained, its log and its settings.

use std::fs;

use serde_json::{Value, json};
use testkit::level2::Level2Client;
use testkit::tls::{Certificate, trusting};
use testkit::{TestClient, TestServer, offline_user, signal, user, wait_until};

use crate::desk::{Desk, KEY, administered};

fn connections(desk: Desk, query: &str) -> Vec<Value> {
    desk.get(&format!("/v1/connections{query}"))["connections"].as_array().expect("a list").clone()
}

#[test]
fn connections_are_listed_and_closed() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let (mut ann, a) = user(&server, "ann");
    let (mut other, _) = user(&server, "other");
    let b = offline_user(&server, "bob");
    let mut bob = Level2Client::enter(&server, "bob", b, "phone");
    let of_ann = connections(desk, &format!("?user={a}"));
    assert_eq!((of_ann.len(), &of_ann[0]["level"], &of_ann[0]["user"]), (1, &json!(1), &json!(a)));
    assert!(of_ann[0]["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{of_ann:?}");
    assert_eq!(connections(desk, &format!("?user={b}"))[0]["level"], 2);
    assert_eq!(connections(desk, "").len(), 3);
    let some = desk.get("/v1/connections?limit=1&address=127.0.0.1");
    assert_eq!((some["connections"].as_array().map(Vec::len), &some["matching"]), (Some(1), &json!(3)));
    assert_eq!(connections(desk, "?address=127.0.0.9").len(), 0);

    for bad in [json!({}), json!({"user": a, "address": "127.0.0.1"}), json!({"user": 0}), json!({"address": "x"})] {
        desk.refused(400, "POST", "/v1/connections/close", &bad);
    }
    assert_eq!(desk.done("POST", "/v1/connections/close", &json!({"user": a})), json!({"closed": 1}));
    ann.expect_eof();
    other.barrier();
    assert_eq!(desk.done("POST", "/v1/connections/close", &json!({"user": b})), json!({"closed": 1}));
    let last = bob.expect_farewell("drain");
    assert!(last["retryAfter"].is_number(), "{last}");
    assert_eq!(desk.done("POST", "/v1/connections/close", &json!({"address": "127.0.0.1"})), json!({"closed": 1}));
    other.expect_eof();
    wait_until("nobody is there", || connections(desk, "").is_empty());
}

#[test]
fn a_drained_node_says_so_until_it_is_undrained() {
    let server = administered().start();
    let desk = Desk::of(&server);
    wait_until("the server is ready", || server.is_ready());
    assert_eq!(desk.post("/v1/drain"), json!({"changed": true, "drained": true}));
    assert_eq!(desk.post("/v1/drain"), json!({"changed": false, "drained": true}));
    assert!(!server.is_ready());
    assert_eq!(desk.get("/v1/node")["drained"], true);
    // The node goes on serving.
    let _ = user(&server, "ann");
    assert_eq!(desk.post("/v1/undrain"), json!({"changed": true, "drained": false}));
    assert!(server.is_ready());
}

#[test]
fn the_level_of_the_log_is_changed_at_run_time() {
    let server = administered().start();
    let desk = Desk::of(&server);
    assert_eq!(desk.get("/v1/log-level"), json!({"level": "info"}));
    let set = desk.done("PUT", "/v1/log-level", &json!({"level": "warn,raybox::server=debug"}));
    assert_eq!(set["level"], "warn,raybox::server=debug");
    let _ = user(&server, "ann");
    wait_until("the part has its level", || server.logs().contains("DEBUG loop-"));
    let refused = desk.refused(400, "PUT", "/v1/log-level", &json!({"level": "loud"}));
    assert!(refused.contains("debug"), "{refused}");
    assert_eq!(desk.get("/v1/log-level")["level"], "warn,raybox::server=debug");
    // The level cannot turn the audit trail off.
    let refused = desk.refused(400, "PUT", "/v1/log-level", &json!({"level": "info,audit=off"}));
    assert!(refused.contains("server.cnf"), "{refused}");
    desk.done("PUT", "/v1/log-level", &json!({"level": "off"}));
    desk.refused(404, "POST", "/v1/users/4711/disable", &Value::Null);
    server.logs_with("disable_user /v1/users/4711/disable: refused (404)");
}

fn set(server: &TestServer, text: &str) {
    fs::write(server.folder().join("server.cnf"), text).expect("write settings");
}

#[test]
fn settings_are_read_again_and_a_broken_file_changes_nothing() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let key = format!("admin_key={KEY}\n");
    set(&server, &format!("{key}log_level=debug\nworkers=5\nmax_frame=32k\n"));
    let read = desk.post("/v1/reload");
    assert_eq!(
        read,
        json!({"applied": ["log_level"], "certificates": null, "jwt_keys": null, "needs_restart": ["workers", "max_frame"]})
    );
    assert_eq!(desk.get("/v1/log-level")["level"], "debug");

    set(&server, &format!("{key}log_level=error\nworkers=many\n"));
    let refused = desk.refused(409, "POST", "/v1/reload", &Value::Null);
    assert!(refused.contains("server.cnf, line 3: key workers") && !refused.contains('\n'), "{refused}");
    assert_eq!(desk.get("/v1/log-level")["level"], "debug", "the old settings stay");

    // A broken key is not shown. A correct one replaces the old one.
    set(&server, "admin_key=short-secret\n");
    let refused = desk.refused(409, "POST", "/v1/reload", &Value::Null);
    assert!(!refused.contains("short-secret") && refused.contains("admin_key"), "{refused}");
    assert!(!server.logs().contains("short-secret"));
    set(&server, "admin_key=fedcba9876543210fedcba9876543210-next\n");
    assert_eq!(desk.post("/v1/reload")["applied"], json!(["admin_key", "log_level"]));
    assert_eq!(desk.ask("GET", "/v1/node", &Value::Null).status, 401);
    let head = format!("Host: {}\r\nAuthorization: Bearer fedcba9876543210fedcba9876543210-next\r\n", desk.0);
    assert_eq!(desk.request("GET", "/v1/node", &head, "").status, 200);
}

#[test]
fn a_reload_with_one_half_broken_leaves_both_halves_as_they_were() {
    let old = Certificate::of("localhost");
    let server = administered()
        .file("cert.pem", old.chain.clone())
        .file("key.pem", old.key.clone())
        .option("tls_cert", "cert.pem")
        .option("tls_key", "key.pem")
        .heeding_hup()
        .start();
    let desk = Desk::of(&server);
    let key = format!("admin_key={KEY}\n");
    let put = |file: &str, text: &str| fs::write(server.folder().join(file), text).expect("the folder is there");
    let is_shown = |certificate: &Certificate| {
        TestClient::connect_tls(&server, &trusting(&[&old, certificate])).certificate() == Some(&certificate.der)
    };
    let lines = |text: &str| server.logs().lines().filter(|line| line.contains(text)).count();

    // The settings are broken; the certificates are new.
    let new = Certificate::of("localhost");
    put("cert.pem", &new.chain);
    put("key.pem", &new.key);
    set(&server, &format!("{key}log_level=debug\nworkers=many\n"));
    let why = desk.refused(409, "POST", "/v1/reload", &Value::Null);
    assert!(why.contains("server.cnf, line 3: key workers") && !why.contains('\n'), "{why}");
    assert_eq!(desk.get("/v1/log-level")["level"], "info");
    assert!(is_shown(&old), "the certificates stay as well");
    wait_until("the log says so", || lines("nothing was reloaded: ") == 1);
    signal(server.pid(), "HUP");
    wait_until("a signal does the same", || lines("nothing was reloaded: ") == 2);
    assert!(is_shown(&old) && desk.get("/v1/log-level")["level"] == "info");

    // The certificates are broken; the settings are new.
    set(&server, &format!("{key}log_level=debug\n"));
    put("key.pem", &old.key);
    let why = desk.refused(409, "POST", "/v1/reload", &Value::Null);
    assert!(why.contains("key.pem") && !why.contains('\n'), "{why}");
    assert_eq!(desk.get("/v1/log-level")["level"], "info", "the settings stay as well");
    assert!(is_shown(&old));
    signal(server.pid(), "HUP");
    wait_until("a signal does the same", || lines("nothing was reloaded: ") == 4);
    assert_eq!(desk.get("/v1/log-level")["level"], "info");

    // Both are correct.
    put("key.pem", &new.key);
    assert_eq!(
        desk.post("/v1/reload"),
        json!({"applied": ["log_level"], "certificates": "renewed", "jwt_keys": null, "needs_restart": []})
    );
    assert!(is_shown(&new) && desk.get("/v1/log-level")["level"] == "debug");
    assert_eq!(desk.post("/v1/reload")["certificates"], "unchanged");
}

#[test]
fn requests_of_an_administrator_are_in_the_audit_log() {
    let server = administered().start();
    let desk = Desk::of(&server);
    let made = desk.done("POST", "/v1/users", &json!({"name": "ann", "password": "a-secret-of-ann"}));
    desk.refused(404, "POST", "/v1/users/4711/disable", &Value::Null);
    let id = &made["id"];
    let line = format!("create_user /v1/users name=\"ann\" id={id}: done (200)");
    server.logs_with(&format!("administrator with admin_key from 127.0.0.1: {line}"));
    // Requests that are refused before they are processed are logged, too.
    let head = format!("Host: {}\r\nAuthorization: Bearer {KEY}\r\n", desk.0);
    assert_eq!(desk.request("POST", "/v1/users", &head, "{}").status, 415);
    server.logs_with("create_user /v1/users: refused (415)");
    assert_eq!(desk.ask("PATCH", "/v1/users/7", &Value::Null).status, 405);
    server.logs_with("wrong_method PATCH /v1/users/7: refused (405)");
    assert_eq!(desk.ask("GET", "/v1/users?name=bob", &Value::Null).status, 200);
    server.logs_with("list_users /v1/users ?name=bob: done (200)");
    server.logs_with("disable_user /v1/users/4711/disable: refused (404)");
    desk.done("POST", &format!("/v1/users/{id}/password"), &json!({"password": "another-secret"}));
    server.logs_with("reset_password");
    let logs = server.logs();
    assert!(!logs.contains("a-secret-of-ann") && !logs.contains("another-secret"), "{logs}");
}

#[test]
fn a_quiet_log_keeps_the_audit_trail_unless_that_is_turned_off_by_name() {
    for (level, is_audited) in [("error", true), ("off", true), ("info,audit=off", false)] {
        let server = administered().option("log_level", level).start();
        Desk::of(&server).post("/v1/drain");
        let line = || server.logs().contains("drain /v1/drain: done (200)");
        if is_audited {
            wait_until("the order is in the log", line);
        } else {
            // This line comes after the one that must be missing.
            Desk::of(&server).post("/v1/undrain");
            server.logs_with("has undrained this node");
            assert!(!line(), "{level}");
        }
    }
}
