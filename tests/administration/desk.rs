//! [`Desk`]: an administrator of a server, which speaks HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use testkit::{Builder, LONG_PATIENCE, TestServer};

/// The admin key of the tests.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef-tests";

/// The usual options, and an admin key.
pub(crate) fn administered() -> Builder {
    TestServer::builder().option("admin", "127.0.0.1:0").file("server.cnf", format!("admin_key={KEY}\n"))
}

/// The address of the admin port.
#[derive(Clone, Copy)]
pub(crate) struct Desk(pub(crate) SocketAddr);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Desk {
    /// The administration of this server.
    pub(crate) fn of(server: &TestServer) -> Desk {
        let output = server.output();
        let banner = output.lines().next().expect("there is a banner");
        let (_, address) = banner.rsplit_once(", admin ").unwrap_or_else(|| panic!("no admin port: {banner}"));
        Desk(address.parse().unwrap_or_else(|error| panic!("{error}: {banner}")))
    }

    /// Sends these bytes, and returns the answer.
    pub(crate) fn send(self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.0).expect("connect to the admin port");
        stream.set_read_timeout(Some(LONG_PATIENCE)).expect("an option");
        stream.write_all(request).expect("send a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read the answer");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {text:?}"));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|text| text.parse().ok());
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Answer { status: status.unwrap_or_else(|| panic!("no status: {head}")), head: head.to_owned(), body }
    }

    /// Sends a request with these lines in its head.
    pub(crate) fn request(self, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}");
        self.send(request.as_bytes())
    }

    /// Sends a request with the key.
    pub(crate) fn ask(self, method: &str, path: &str, body: &Value) -> Answer {
        let head = format!("Host: {}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n", self.0);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(method, path, &head, &body)
    }

    /// Sends a request that must be answered with 200. Returns the body of the answer.
    #[track_caller]
    pub(crate) fn done(self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body
    }

    /// Like [`Desk::done`], without a body to send.
    #[track_caller]
    pub(crate) fn post(self, path: &str) -> Value {
        self.done("POST", path, &Value::Null)
    }

    #[track_caller]
    pub(crate) fn get(self, path: &str) -> Value {
        self.done("GET", path, &Value::Null)
    }

    /// Sends a request that must be refused with this status. Returns the text of the refusal.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, method: &str, path: &str, body: &Value) -> String {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.body["error"].as_str().unwrap_or_else(|| panic!("no error: {}", answer.body)).to_owned()
    }
}
