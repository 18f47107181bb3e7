//! A cluster of two nodes that trace everything, and its operator.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Builder, Database, LONG_PATIENCE, PATIENCE, Redis, TestServer, Workplace, free_port};

const KEY: &str = "0123456789abcdef0123456789abcdef-trace";

/// The nodes `north` and `south`. They are dropped before the services that they use.
pub(crate) struct Stage {
    pub(crate) nodes: Vec<TestServer>,
    admins: Vec<SocketAddr>,
    _database: Database,
    pub(crate) redis: Redis,
}

/// The answer of a node to the operator's question.
pub(crate) struct Told(pub(crate) Value);

impl Stage {
    pub(crate) fn new() -> Stage {
        Stage::on(Database::create(), Redis::start())
    }

    pub(crate) fn on(database: Database, redis: Redis) -> Stage {
        let admins = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let start = |(name, address): (&str, &SocketAddr)| {
            let options = options(name, *address, &admins);
            TestServer::builder().mysql(&database).redis(&redis).file("server.cnf", options).start()
        };
        let nodes = ["north", "south"].into_iter().zip(&admins).map(start).collect();
        Stage { nodes, admins: admins.to_vec(), _database: database, redis }
    }

    /// Sends a request to this node, and returns the answer.
    pub(crate) fn ask(&self, node: usize, method: &str, path: &str, body: &str) -> (u16, Value) {
        ask(self.admins[node], method, path, body)
    }

    /// Asks this node about a message until the verdict contains all of these words. Some hops are
    /// noted a moment after a client sees the effect.
    #[track_caller]
    pub(crate) fn trace(&self, node: usize, query: &str, words: &[&str]) -> Told {
        until(words, || ask(self.admins[node], "GET", &path(query), ""))
    }

    /// The folder of an operator of this node.
    pub(crate) fn operator(&self, node: usize) -> Workplace {
        let workplace = Workplace::empty();
        workplace.write("server.cnf", &format!("admin={}\nadmin_key={KEY}\n", self.admins[node]));
        workplace
    }

    pub(crate) fn admin(&self, node: usize) -> SocketAddr {
        self.admins[node]
    }
}

/// The path of a request for a trace.
pub(crate) fn path(query: &str) -> String {
    let by = match query {
        query if query.contains("cid=") => "cid",
        query if query.contains("seq=") => "conversation",
        _ => "level1",
    };
    format!("/v1/trace/{by}?{query}")
}

/// The settings of a single server that traces everything, and its admin address.
pub(crate) fn alone(more: &str) -> (Builder, SocketAddr) {
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = options("north", admin, &[admin]);
    (TestServer::builder().file("server.cnf", settings + more), admin)
}

/// The settings of a node.
pub(crate) fn options(name: &str, admin: SocketAddr, nodes: &[SocketAddr]) -> String {
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let nodes = nodes.join(",");
    // On a busy machine, a client may take nothing for longer than the usual 30 seconds.
    format!(
        "admin={admin}\nadmin_key={KEY}\nadmin_nodes={nodes}\nnode_name={name}\ntrace=all\ntrace_size=1m\nuser_timeout=10m\n"
    )
}

/// Asks until the verdict or the summary contains all of these words.
#[track_caller]
pub(crate) fn until(words: &[&str], asked: impl Fn() -> (u16, Value)) -> Told {
    let by = Instant::now() + PATIENCE;
    loop {
        let (status, body) = asked();
        assert_eq!(status, 200, "{body}");
        let told = Told(body);
        let missing: Vec<&&str> = words.iter().filter(|word| !told.says(word)).collect();
        if missing.is_empty() {
            return told;
        }
        assert!(Instant::now() < by, "no {missing:?} in {:#}", told.0);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a request with the key.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("connect to the admin port");
    stream.set_read_timeout(Some(LONG_PATIENCE)).expect("an option");
    let head = format!("Host: {address}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}").expect("send");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read the answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text:?}"));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

impl Told {
    /// All sentences of the answer.
    pub(crate) fn words(&self) -> String {
        let sentences = self.0["verdict"].as_array().or_else(|| self.0["summary"].as_array()).expect("sentences");
        sentences.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        self.words().contains(words)
    }

    /// The hops, each as `node hop`.
    pub(crate) fn hops(&self) -> Vec<String> {
        let steps = self.0["steps"].as_array().expect("steps");
        steps.iter().map(|step| format!("{} {}", text(&step["node"]), text(&step["hop"]))).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
