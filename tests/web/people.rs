//! The clients of these tests: hand-written HTTP, and WebSockets by `tungstenite`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{PATIENCE, TestServer, password};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// A connection whose reads and writes have a deadline.
pub(crate) fn dial(server: &TestServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("connect to the server");
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
    stream
}

/// Writes these pieces one after the other, and reads until the server closes.
pub(crate) fn converse(server: &TestServer, pieces: &[&[u8]]) -> String {
    let mut stream = dial(server);
    for piece in pieces {
        // The server may have answered and closed before the last piece.
        let _ = stream.write_all(piece);
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and then the end");
    answer
}

/// An answer: its status, its head, its body.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn of(text: &str) -> Answered {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text:?}"));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|text| text.parse().ok());
        Answered { status: status.expect("a status"), head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends a request with these headers, and reads up to the end.
pub(crate) fn ask(server: &TestServer, line: &str, headers: &str, body: &str) -> Answered {
    let head = format!("{line} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", server.address());
    Answered::of(&converse(server, &[head.as_bytes(), body.as_bytes()]))
}

/// A client of level 1 or 2 on a WebSocket.
pub(crate) struct Socket(pub(crate) WebSocket<TcpStream>);

impl Socket {
    pub(crate) fn connect(server: &TestServer) -> Socket {
        Socket::connect_with(server, &[]).expect("the handshake succeeds")
    }

    /// Connects with these headers. The error is the status of a refusal.
    pub(crate) fn connect_with(server: &TestServer, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
        Socket::on(dial(server), &format!("ws://{}/ws", server.address()), headers)
    }

    pub(crate) fn on(stream: TcpStream, url: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
        let mut request = url.into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the server reads");
    }

    /// Receives the next text message.
    #[track_caller]
    pub(crate) fn recv_text(&mut self) -> String {
        let by = Instant::now() + PATIENCE;
        while Instant::now() < by {
            match self.0.read().expect("a message") {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("no message came in time");
    }

    #[track_caller]
    pub(crate) fn recv(&mut self) -> Value {
        serde_json::from_str(&self.recv_text()).expect("JSON")
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, frame: &Value) {
        assert_eq!(&self.recv(), frame);
    }

    /// Receives the next message of this type; others before it are dropped.
    #[track_caller]
    pub(crate) fn until(&mut self, msg_type: u64) -> Value {
        loop {
            let frame = self.recv();
            if frame["msgType"] == msg_type {
                return frame;
            }
        }
    }

    /// Reads up to the close frame, and returns its code.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> u16 {
        loop {
            match self.0.read().expect("a close") {
                Message::Close(Some(close)) => return close.code.into(),
                Message::Close(None) => return CloseCode::Status.into(),
                _ => {}
            }
        }
    }

    /// Logs in at level 1 and waits for the reply.
    pub(crate) fn log_in(&mut self, name: &str, user: i64) {
        self.send(&json!({"msgType": 1, "USERID": user, "password": password(name)}));
        assert_eq!(self.recv()["errno"], 200);
    }

    /// Logs in at level 2 and waits until it is synchronised. Returns the token.
    pub(crate) fn enter(&mut self, name: &str, user: i64, device: &str) -> String {
        self.send(&json!({"msgType": 1, "USERID": user, "password": password(name), "level": 2, "device": device}));
        let welcome = self.until(40);
        assert_eq!(welcome["errno"], 200, "{welcome}");
        self.until(45);
        welcome["token"].as_str().expect("a token").to_owned()
    }
}
