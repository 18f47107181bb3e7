//! A client that reads and shows messages as the usual client (Qt) does. It takes one read for one
//! JSON text; anything else is lost. Each message that it shows keeps it busy for a while, and its
//! socket fills meanwhile. After a login, a registration or a logout, it takes the next bytes for
//! the reply.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{LONG_PATIENCE, PATIENCE, TestServer};

/// One connection of such a client. It never ends a frame with a newline.
pub struct QtClient {
    stream: TcpStream,
    busy: Duration,
    /// The messages that it has shown.
    pub shown: Vec<Value>,
    /// The other frames that it has understood.
    pub others: Vec<Value>,
    /// Input that it could not parse.
    pub lost: Vec<String>,
}

/// How long it is busy with one message.
const BUSY: Duration = Duration::from_millis(35);

impl QtClient {
    /// Connects.
    pub fn connect(server: &TestServer) -> QtClient {
        let stream = TcpStream::connect_timeout(&server.address(), PATIENCE).expect("connect to the server");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        QtClient { stream, busy: BUSY, shown: Vec::new(), others: Vec::new(), lost: Vec::new() }
    }

    /// Connects and logs in.
    pub fn login(server: &TestServer, id: i64, password: &str) -> QtClient {
        let mut client = QtClient::connect(server);
        let reply = client.ask(&json!({"msgType": 1, "USERID": id, "password": password}));
        assert_eq!(reply, json!({"errno": 200, "msgType": 200}));
        client
    }

    /// Sets another busy time, for a server whose `pace_ms` is below the default.
    pub fn set_busy(&mut self, busy: Duration) {
        self.busy = busy;
    }

    pub fn send(&mut self, frame: &Value) {
        self.stream.write_all(frame.to_string().as_bytes()).expect("send to the server");
    }

    /// Sends a request and takes what it reads next for the reply.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        let text = self.read(PATIENCE).unwrap_or_else(|| panic!("no reply within {PATIENCE:?} to {request}"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("the reply to {request} cannot be read ({error}): {text}"))
    }

    /// Reads the next frame without showing it. Returns the messages that it would show.
    pub fn read_frame(&mut self) -> Vec<Value> {
        let text = self.read(LONG_PATIENCE).expect("something to read");
        let frame = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        messages(&frame).unwrap_or_else(|| vec![frame])
    }

    /// Reads once and shows what was read; false if nothing arrives within `patience`.
    pub fn read_and_show(&mut self, patience: Duration) -> bool {
        let Some(text) = self.read(patience) else { return false };
        match serde_json::from_str::<Value>(&text) {
            Err(_) => self.lost.push(text),
            Ok(frame) => match messages(&frame) {
                None => self.others.push(frame),
                Some(messages) => {
                    thread::sleep(self.busy * u32::try_from(messages.len()).expect("a small number"));
                    self.shown.extend(messages);
                }
            },
        }
        true
    }

    /// Reads and shows until this number of messages was shown, or until a loss is certain: some
    /// input was lost and nothing more has arrived for long.
    pub fn show_until(&mut self, messages: usize) {
        let deadline = Instant::now() + LONG_PATIENCE;
        while self.shown.len() < messages && Instant::now() < deadline {
            let patience = if self.lost.is_empty() { LONG_PATIENCE } else { Duration::from_secs(2) };
            if !self.read_and_show(patience) {
                return;
            }
        }
    }

    fn read(&mut self, patience: Duration) -> Option<String> {
        self.stream.set_read_timeout(Some(patience)).expect("set the read timeout");
        let mut bytes = vec![0; 1 << 20];
        match self.stream.read(&mut bytes) {
            Ok(0) => panic!("the server has closed the connection"),
            Ok(count) => Some(String::from_utf8_lossy(&bytes[..count]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("read from the server: {error}"),
        }
    }
}

/// The messages that a frame shows: the frame itself, or those in a frame of type 14.
fn messages(frame: &Value) -> Option<Vec<Value>> {
    match (frame["msgType"].as_i64()?, frame["msgs"].as_array()) {
        (4 | 9, _) => Some(vec![frame.clone()]),
        (14, Some(texts)) => {
            Some(texts.iter().map(|text| serde_json::from_str(text.as_str().expect("a text")).expect("JSON")).collect())
        }
        _ => None,
    }
}
