//! `server explain`.

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::{chat, login, offline_user, user};

use crate::stage::{Stage, until};

#[test]
fn a_user_is_explained_on_all_nodes() {
    let stage = Stage::new();
    let ((mut ann, a), b) = (user(&stage.nodes[0], "ann"), offline_user(&stage.nodes[1], "bob"));
    ann.send(&chat(a, b, "later"));
    ann.barrier();
    let path = format!("/v1/users/{b}/explain");
    let told = until(&["is not connected to any node", "1 message ("], || stage.ask(0, "GET", &path, ""));
    assert_eq!(told.0["waiting"]["rows"], 1, "{}", told.0);

    let mut first = login(&stage.nodes[0], "bob", b);
    let second = Level2Client::enter(&stage.nodes[1], "bob", b, "phone");
    let told = until(&["has 2 connections", "Device phone has not reported 1 message of 1 conversation"], || {
        stage.ask(0, "GET", &path, "")
    });
    let places = told.0["places"].as_array().expect("places").clone();
    let at = |level: u64| places.iter().find(|place| place["level"] == level).expect("one").clone();
    assert_eq!(at(1)["node"], "north");
    assert!(at(2)["node"].as_str().is_some_and(|node| node.starts_with("south")), "{}", at(2));
    assert_eq!(at(2)["device"], "phone");
    assert!(at(1)["last_login"].is_string() && at(2)["last_login"].is_string(), "{places:?}");
    assert_eq!(told.0["devices"][0]["behind"], json!([{"conversation": format!("u{a}"), "cursor": 0, "head": 1}]));

    // The node remembers refusals.
    first.send(&json!({"msgType": 9, "FROMID": b, "GROUPID": 999_999, "msg": "x"}));
    first.send(&chat(a, b, "as somebody else"));
    first.expect_refusal(403);
    drop(second);
    let text = stage.operator(1).succeed(&["explain", &b.to_string()]);
    assert!(text.contains("a request was refused with 403"), "{text}");
    assert_eq!(stage.ask(0, "GET", "/v1/users/2000000001/explain", "").0, 404);
}

#[test]
fn an_unreachable_node_is_named() {
    let mut stage = Stage::new();
    let b = offline_user(&stage.nodes[0], "bob");
    stage.nodes[1].kill9();
    let path = format!("/v1/users/{b}/explain");
    let south = format!("Node {} did not answer", stage.admin(1));
    let told = until(&[&south], || stage.ask(0, "GET", &path, ""));
    assert_eq!(told.0["nodes"][1]["answered"], false, "{}", told.0);
}
