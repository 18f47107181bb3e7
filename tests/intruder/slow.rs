//! A thousand connections send slowly, stay silent or do not read, while other clients chat.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process;
use std::time::{Duration, Instant};

use serde_json::json;

use super::others::{somebody, undisturbed};
use testkit::{BAD_REQUEST, Builder, LONG_PATIENCE, TestClient, TestServer};
use testkit::{raise_descriptor_limit, user, wait_within};

const CONNECTIONS: usize = 1_000;

const MIB: usize = 1 << 20;

/// About 100 KiB for each connection; a server without limits would use far more.
const RESIDENT_MAX: usize = 200 * MIB;

fn start(builder: Builder) -> TestServer {
    raise_descriptor_limit(process::id(), CONNECTIONS + 500);
    let server = builder.start();
    raise_descriptor_limit(server.pid(), CONNECTIONS + 500);
    server
}

/// A connection on which the test never blocks.
struct Slow {
    stream: TcpStream,
    received: Vec<u8>,
    is_open: bool,
}

impl Slow {
    fn all(server: &TestServer) -> Vec<Slow> {
        let connect = |_| {
            let stream = TcpStream::connect(server.address()).expect("connect to the server");
            stream.set_nonblocking(true).expect("a socket that does not block");
            stream.set_nodelay(true).expect("set TCP_NODELAY");
            Slow { stream, received: Vec::new(), is_open: true }
        };
        (0..CONNECTIONS).map(connect).collect()
    }

    /// Sends as much as the socket takes; false if it takes nothing.
    fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write(bytes) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.is_open = false;
                false
            }
        }
    }

    /// Reads what has arrived.
    fn receive(&mut self) {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.is_open = false,
            Ok(count) => self.received.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.is_open = false,
        }
    }
}

/// Runs `step` for each in turn until `is_done` holds for all.
fn until_all(what: &str, all: &mut [Slow], mut step: impl FnMut(&mut Slow), is_done: impl Fn(&Slow) -> bool) {
    let deadline = Instant::now() + LONG_PATIENCE;
    loop {
        let mut left = 0;
        for slow in all.iter_mut().filter(|slow| !is_done(slow)) {
            step(slow);
            left += 1;
        }
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} of {CONNECTIONS} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_small(server: &TestServer) {
    let resident = server.resident_bytes();
    assert!(resident < RESIDENT_MAX, "{resident} bytes for {CONNECTIONS} slow connections");
}

#[test]
fn clients_that_send_a_byte_at_a_time_get_a_401_and_disturb_nobody() {
    let server = start(TestServer::builder().option("frame_timeout", "1s"));
    undisturbed(&server, b"", || {
        let before = server.sockets();
        let mut all = Slow::all(&server);
        for slow in &mut all {
            slow.send(br#"{"msgType":99,"pad":""#);
        }
        let dribble = |slow: &mut Slow| {
            slow.send(b"x");
            slow.receive();
            assert!(slow.is_open, "a frame that takes too long costs the frame alone");
        };
        until_all("a byte now and then must not keep a frame alive", &mut all, dribble, |slow| {
            !slow.received.is_empty()
        });
        assert_small(&server);
        assert!(all.iter().all(|slow| slow.received.starts_with(BAD_REQUEST.as_bytes())));
        drop(all);
        wait_within(LONG_PATIENCE, "all sockets are closed", || server.sockets() <= before);
    });
}

#[test]
fn silent_clients_are_closed_and_disturb_nobody() {
    let server = start(TestServer::builder().option("idle_timeout", "5s"));
    undisturbed(&server, b"", || {
        let before = server.sockets();
        let mut all = Slow::all(&server);
        wait_within(LONG_PATIENCE, "they are all in", || server.sockets() >= before + CONNECTIONS);
        assert_small(&server);
        until_all("the silent are closed", &mut all, Slow::receive, |slow| !slow.is_open);
        assert!(all.iter().all(|slow| slow.received.is_empty()), "who says nothing hears nothing");
        wait_within(LONG_PATIENCE, "all sockets are closed", || server.sockets() <= before);
    });
}

#[test]
fn clients_that_do_not_read_their_replies_take_little_memory_and_disturb_nobody() {
    const GROUPS: usize = 60;
    const ASKS: usize = 5;
    let server = start(TestServer::builder().option("output_max", "64k"));
    // With these groups, a reply has about 60 KiB.
    let (id, secret) = somebody(&server, "hog");
    let mut client = TestClient::connect(&server);
    client.login(id, &secret);
    for _ in 0..GROUPS {
        let (name, description) = ("\u{1f437}".repeat(50), "\u{1f437}".repeat(200));
        let reply = client.ask(&json!({"msgType": 12, "FROMID": id, "name": name, "description": description}));
        assert_eq!(reply["errno"], 200, "{reply}");
    }
    let (mut bystander, b) = user(&server, "bystander");
    bystander.set_patience(LONG_PATIENCE);
    let asked = format!(r#"{{"msgType":11,"FROMID":{id}}}"#).repeat(ASKS);
    let login = format!(r#"{{"msgType":1,"USERID":{id},"password":"{secret}"}}"#);
    undisturbed(&server, b"", || {
        // The store opens files when it needs them, so only sockets are counted.
        let before = server.sockets();
        let mut all = Slow::all(&server);
        let mut resident_max = 0;
        for slow in &mut all {
            slow.send(login.as_bytes());
            slow.send(asked.as_bytes());
        }
        // The requests of another user wait behind those of the greedy ones, so their replies show
        // how far the server has come.
        for _ in 0..2 * ASKS {
            bystander.ask(&json!({"msgType": 11, "FROMID": b}));
            resident_max = resident_max.max(server.resident_bytes());
        }
        assert!(resident_max < RESIDENT_MAX, "{resident_max} bytes for {CONNECTIONS} that do not read");
        drop(all);
        wait_within(LONG_PATIENCE, "all sockets are closed", || server.sockets() <= before);
        assert_small(&server);
    });
}

#[test]
fn clients_that_dribble_a_proxy_header_are_closed_and_disturb_nobody() {
    const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n";
    let server = start(TestServer::builder().option("proxy_protocol", "on").option("frame_timeout", "3s"));
    undisturbed(&server, HEADER, || {
        let before = server.sockets();
        let mut all = Slow::all(&server);
        let dribble = |slow: &mut Slow| {
            // The header's line never ends, and never exceeds the allowed length.
            let sent = slow.received.len();
            slow.receive();
            assert_eq!(slow.received.len(), sent, "a header that does not end is not answered");
        };
        for byte in HEADER[..HEADER.len() - 2].iter() {
            for slow in &mut all {
                slow.send(&[*byte]);
            }
        }
        assert_small(&server);
        until_all("a header must come in time", &mut all, dribble, |slow| !slow.is_open);
        wait_within(LONG_PATIENCE, "all sockets are closed", || server.sockets() <= before);
    });
}
