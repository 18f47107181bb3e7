//! The status page: the content of its answers, the clients that get them, and other nodes beside
//! this one. `tests/browser/browser/status.js` looks at it in a browser.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};
use testkit::{TestServer, chat, user, wait_until};

use crate::{Answer, admin_of, get, send, start, wait_ready};

/// A request for the status page with this host name.
fn page(address: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    send(address, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

#[test]
fn the_status_page_loads_nothing_else_and_only_serves_its_own_host_name() {
    let server =
        TestServer::builder().option("admin", "127.0.0.1:0").option("admin_hosts", "status.example.org").start();
    let admin = admin_of(&server);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/status.css", "text/css; charset=utf-8"),
        ("/status.js", "text/javascript; charset=utf-8"),
        ("/status.json", "application/json"),
        ("/status.json?own", "application/json"),
    ] {
        let answer = get(admin, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        for header in [
            format!("Content-Type: {kind}"),
            "Cache-Control: no-store".to_owned(),
            "X-Content-Type-Options: nosniff".to_owned(),
            "Referrer-Policy: no-referrer".to_owned(),
        ] {
            assert!(answer.head.contains(&format!("\r\n{header}\r\n")), "{path}: {header} is not in {}", answer.head);
        }
        let policy = "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src 'self' data:; ";
        assert!(answer.head.contains(policy) && answer.head.contains("frame-ancestors 'none'"), "{}", answer.head);
        assert!(!answer.head.contains("Access-Control"), "no page of another origin reads it");
        assert!(!answer.body.contains("https://") && !answer.body.contains("url("), "nothing comes from elsewhere");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = page(admin, method, path, "localhost");
            assert_eq!(refused.status, 405, "{method} {path}");
            assert!(refused.head.contains("\r\nAllow: GET, HEAD\r\n"), "{}", refused.head);
        }
        let head = page(admin, "HEAD", path, "localhost");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        for (host, status) in [
            ("status.example.org", 200),
            ("[::1]:9600", 200),
            ("evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("", 421),
        ] {
            assert_eq!(page(admin, "GET", path, host).status, status, "{host} {path}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_ne!(page(admin, "GET", path, "evil.example").status, 421, "{path} answers a request for another host");
    }
}

/// The JSON behind the status page.
fn status_of(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&get(address, path).body).expect("JSON")
}

#[test]
fn the_status_tells_the_state_of_the_node_and_nothing_about_users() {
    let (server, admin) = start();
    wait_ready(admin);
    let (mut alice, a) = user(&server, "alice-in-nobodys-status");
    alice.send(&chat(a, a, "a text for nobody's status"));
    alice.recv();
    let whole = status_of(admin, "/status.json");
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&whole), ["findings", "nodes", "trend"]);
    assert_eq!(whole["findings"], json!([]), "all is well");
    let row = &whole["nodes"][0];
    assert_eq!((&row["address"], &row["trouble"]), (&Value::Null, &Value::Null));
    let node = &row["node"];
    assert_eq!(
        (&node["ready"], &node["users"], &node["version"]),
        (&json!(true), &json!(1.0), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(
        (&node["spool_messages"], &node["unstored"], &node["probe_seconds"]),
        (&json!(0.0), &json!(0.0), &Value::Null)
    );
    assert_eq!((&whole["trend"]["every_seconds"], &whole["trend"]["samples"]), (&json!(10), &json!(360)));
    let own = status_of(admin, "/status.json?own");
    assert_eq!(keys(&own), ["node"]);
    assert_eq!(keys(&own["node"]), keys(node));
    let documented = include_str!("../../docs/metrics.md");
    for key in keys(node).iter().chain(&keys(row)).chain(&keys(&whole["trend"])) {
        assert!(documented.contains(&format!("`{key}`")), "docs/metrics.md lacks {key}");
    }
    assert!(!whole.to_string().contains("nobodys-status") && !whole.to_string().contains("nobody's"), "{whole}");
}

#[test]
fn each_node_is_shown_once_and_an_unreachable_one_is_the_first_finding() {
    let (mut south, of_south) = start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address");
    let list = format!("{of_south},{of_south}");
    let north = TestServer::builder().option("admin", "127.0.0.1:0").option("admin_nodes", &list).start();
    let of_north = admin_of(&north);
    let away = TestServer::builder().option("admin", "127.0.0.1:0").option("admin_nodes", &silent.to_string()).start();
    let of_away = admin_of(&away);
    [of_south, of_north, of_away].into_iter().for_each(wait_ready);
    wait_until("the other one is shown", || {
        let whole = status_of(of_north, "/status.json");
        let nodes = whole["nodes"].as_array().expect("nodes");
        nodes.len() == 2 && nodes[1]["node"]["ready"] == true && whole["findings"] == json!([])
    });
    wait_until("the unreachable node is reported", || {
        let finding = &status_of(of_away, "/status.json")["findings"][0];
        finding["alert"] == "ServerDown"
            && finding["what"].as_str().is_some_and(|what| what.contains(&silent.to_string()))
    });
    south.kill9();
    wait_until("the killed node is reported", || {
        let whole = status_of(of_north, "/status.json");
        whole["findings"][0]["alert"] == "ServerDown" && !whole["nodes"][1]["trouble"].is_null()
    });
    assert_eq!(status_of(of_north, "/status.json?own")["node"]["findings"], json!([]), "it is well itself");
}
