//! WebSockets of both levels through nginx, with the PROXY header, to three nodes.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{Cluster, LONG_PATIENCE, Nginx, PATIENCE, offline_user, password, wait_within};
use tungstenite::{Message, WebSocket};

/// A WebSocket through nginx.
struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn connect(nginx: &Nginx) -> Socket {
        let address = nginx.addresses()[0];
        let stream = TcpStream::connect(address).expect("nginx listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let (socket, _) = tungstenite::client(format!("ws://{address}/ws"), stream).expect("a node opens it");
        Socket(socket)
    }

    fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).expect("the node reads");
    }

    /// The next frame, or the end.
    #[track_caller]
    fn next(&mut self) -> Option<Value> {
        let by = Instant::now() + PATIENCE;
        while Instant::now() < by {
            match self.0.read() {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_)) | Err(tungstenite::Error::Protocol(_) | tungstenite::Error::ConnectionClosed) => {
                    return None;
                }
                Err(tungstenite::Error::Io(error)) if !is_late(&error) => return None,
                Err(tungstenite::Error::Io(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        panic!("nothing came in time");
    }

    #[track_caller]
    fn until(&mut self, msg_type: u64) -> Value {
        loop {
            let frame = self.next().expect("the connection goes on");
            if frame["msgType"] == msg_type {
                return frame;
            }
        }
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// The node that has one more connection than before.
fn newest(cluster: &Cluster, before: &[usize]) -> usize {
    let mut found = None;
    wait_within(LONG_PATIENCE, "a node has the connection", || {
        found = (0..before.len()).find(|node| cluster.nodes[*node].open_connections() > before[*node]);
        found.is_some()
    });
    found.expect("one has it")
}

fn connections(cluster: &Cluster) -> Vec<usize> {
    cluster.nodes.iter().map(testkit::TestServer::open_connections).collect()
}

/// Sends a message in each direction between a user of level 1 and one of level 2.
#[track_caller]
fn between_levels(one: &mut Socket, two: &mut Socket, one_id: i64, two_id: i64, when: &str) {
    one.send(&json!({"msgType": 4, "FROMID": one_id, "TOID": two_id, "msg": format!("from level 1 {when}")}));
    assert_eq!(two.until(42)["m"]["msg"], format!("from level 1 {when}"));
    let cid = format!("to-level-1-{when}");
    two.send(&json!({"msgType": 4, "FROMID": two_id, "TOID": one_id, "cid": cid, "msg": "from level 2"}));
    assert_eq!(two.until(41)["errno"], 200);
    assert_eq!(one.until(4)["msg"], "from level 2");
}

#[test]
fn websockets_of_both_levels_go_on_when_a_node_behind_nginx_is_killed() {
    let mut cluster = Cluster::start_with(3, |builder| {
        let builder = builder.option("proxy_protocol", "on").option("proxy_from", Nginx::COMES_FROM);
        builder.option("admin", "127.0.0.1:0").fixed_port()
    });
    let nginx = Nginx::as_shipped(&cluster.addresses());
    let [a, b, c] = ["ann", "bob", "carol"].map(|name| offline_user(&cluster.nodes[0], name));
    wait_within(LONG_PATIENCE, "only nginx has connections", || connections(&cluster).iter().sum::<usize>() == 0);
    let enter = |user: i64, name: &str| json!({"msgType": 1, "USERID": user, "password": password(name), "level": 2, "device": "web"});

    let mut bob = Socket::connect(&nginx);
    bob.send(&enter(b, "bob"));
    let token = bob.until(40)["token"].clone();
    bob.until(45);
    let home = newest(&cluster, &[0, 0, 0]);
    let before = connections(&cluster);
    let mut ann = Socket::connect(&nginx);
    ann.send(&enter(a, "ann"));
    ann.until(45);
    assert_ne!(newest(&cluster, &before), home, "new clients go to the node with the fewest");
    let before = connections(&cluster);
    // The same at level 1.
    let mut carol = Socket::connect(&nginx);
    carol.send(&json!({"msgType": 1, "USERID": c, "password": password("carol")}));
    assert_eq!(carol.until(200)["errno"], 200);
    assert_ne!(newest(&cluster, &before), home);

    between_levels(&mut carol, &mut ann, c, a, "before");
    let conv = format!("u{a}");
    let mut heard: BTreeMap<u64, String> = BTreeMap::new();
    let mut cursor = Value::Null;
    for n in 1..=20_u64 {
        ann.send(&json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": format!("c{n}"), "msg": n.to_string()}));
        assert_eq!(ann.until(41)["seq"], n);
        let pushed = bob.until(42);
        cursor = json!(format!("{}:{}", pushed["seq"], pushed["tag"].as_str().expect("a tag")));
        heard
            .insert(pushed["seq"].as_u64().expect("a number"), pushed["m"]["msg"].as_str().expect("a text").to_owned());
    }
    cluster.nodes[home].kill9();
    while bob.next().is_some() {}
    for n in 21..=40_u64 {
        ann.send(&json!({"msgType": 4, "FROMID": a, "TOID": b, "cid": format!("c{n}"), "msg": n.to_string()}));
        assert_eq!(ann.until(41)["seq"], n, "committed without the node of the recipient");
    }
    between_levels(&mut carol, &mut ann, c, a, "after");

    // nginx leads the next client to a running node. Bob's cursor brings him the messages that he
    // has missed.
    let mut bob = Socket::connect(&nginx);
    bob.send(&json!({"msgType": 1, "level": 2, "token": token, "device": "web", "have": {conv.clone(): cursor}}));
    assert_eq!(bob.until(40)["errno"], 200);
    loop {
        let frame = bob.next().expect("the connection goes on");
        match frame["msgType"].as_u64() {
            Some(42) => {
                let seq = frame["seq"].as_u64().expect("a number");
                let before = heard.insert(seq, frame["m"]["msg"].as_str().expect("a text").to_owned());
                assert_eq!(before, None, "{seq} comes once");
            }
            Some(45) => break,
            _ => {}
        }
    }
    assert_eq!(heard.into_iter().collect::<Vec<_>>(), (1..=40).map(|n| (n, n.to_string())).collect::<Vec<_>>());
    cluster.nodes[home].restart();
}
