//! A client of the public protocol on one TCP connection, with TLS or without.

mod wire;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use self::wire::Wire;
use crate::{ACK, PATIENCE, TestServer, members};

/// One connection.
pub struct TestClient {
    wire: Wire,
    lines: bool,
    patience: Duration,
    user: Option<i64>,
}

impl TestClient {
    /// A new connection in bare mode: frames are sent as they are.
    pub fn connect(server: &TestServer) -> TestClient {
        TestClient::connect_to(server.address())
    }

    /// Like [`TestClient::connect`], in line mode: every frame sent ends with a newline.
    pub fn connect_lines(server: &TestServer) -> TestClient {
        let mut client = TestClient::connect(server);
        client.lines = true;
        client
    }

    /// A new connection in bare mode to any address.
    pub fn connect_to(address: SocketAddr) -> TestClient {
        TestClient::on(TcpStream::connect_timeout(&address, PATIENCE).expect("connect to the server"))
    }

    /// Like [`TestClient::connect_to`], but `None` if the connection is refused.
    pub fn try_connect_to(address: SocketAddr) -> Option<TestClient> {
        TcpStream::connect_timeout(&address, PATIENCE).ok().map(TestClient::on)
    }

    /// A new connection in bare mode that comes from 127.0.0.`last`.
    pub fn connect_from(last: u8, server: &TestServer) -> TestClient {
        TestClient::connect_from_with(last, server, |_| ())
    }

    /// Like [`TestClient::connect_from`], with socket options that `set` sets before connecting.
    pub fn connect_from_with(last: u8, server: &TestServer, set: impl Fn(&Socket)) -> TestClient {
        TestClient::try_from(last, server, set).expect("connect to the server")
    }

    /// Like [`TestClient::connect_from`], but `None` if the connection is not accepted in time.
    pub fn try_connect_from(last: u8, server: &TestServer) -> Option<TestClient> {
        TestClient::try_from(last, server, |_| ())
    }

    fn try_from(last: u8, server: &TestServer, set: impl Fn(&Socket)) -> Option<TestClient> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Without this, each connection would use up a port of all addresses.
        socket.set_reuse_address(true).expect("an option");
        set(&socket);
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).expect("bind to a loopback address");
        socket.connect_timeout(&server.address().into(), PATIENCE).ok()?;
        Some(TestClient::on(socket.into()))
    }

    /// A client in bare mode on an existing connection.
    pub fn on(stream: TcpStream) -> TestClient {
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        TestClient { wire: Wire::new(stream, None), lines: false, patience: PATIENCE, user: None }
    }

    /// A new connection in bare mode that speaks TLS.
    pub fn connect_tls(server: &TestServer, config: &Arc<ClientConfig>) -> TestClient {
        let stream = TcpStream::connect_timeout(&server.address(), PATIENCE).expect("connect to the server");
        TestClient::on_tls(stream, "localhost", config).expect("the server speaks TLS")
    }

    /// A client in bare mode that begins TLS on an existing connection, with a server of this name.
    ///
    /// # Errors
    ///
    /// If the handshake fails.
    pub fn on_tls(stream: TcpStream, name: &str, config: &Arc<ClientConfig>) -> io::Result<TestClient> {
        TestClient::on_tls_within(PATIENCE, stream, name, config)
    }

    /// Like [`TestClient::on_tls`], with a server that may take this long for each answer.
    ///
    /// # Errors
    ///
    /// If the handshake fails.
    pub fn on_tls_within(
        patience: Duration,
        mut stream: TcpStream,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<TestClient> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = Box::new(ClientConnection::new(config.clone(), name).expect("a client"));
        stream.set_read_timeout(Some(patience))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let mut client = TestClient::on(stream);
        client.wire.tls = Some(tls);
        Ok(client)
    }

    /// The certificate that the server has shown.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.wire.tls.as_ref()?.peer_certificates()?.first().map(|der| &der[..])
    }

    /// Sets how long this client waits for what it expects.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Returns the connection, for a test that reads and writes in its own way.
    pub fn into_stream(self) -> TcpStream {
        self.wire.stream
    }

    // Sending

    /// Sends one frame.
    pub fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    /// Sends one frame given as text.
    pub fn send_text(&mut self, frame: &str) {
        let mut bytes = frame.as_bytes().to_vec();
        if self.lines {
            bytes.push(b'\n');
        }
        self.send_raw(&bytes);
    }

    /// Sends bytes as they are, in one write.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        assert!(self.try_send_raw(bytes), "cannot send {} bytes to the server", bytes.len());
    }

    /// Sends one frame; false if the connection is gone.
    pub fn try_send(&mut self, frame: &Value) -> bool {
        self.try_send_raw(frame.to_string().as_bytes())
    }

    /// Sends bytes as they are; false if the connection ended before it took them all.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.wire.write(bytes, self.patience)
    }

    /// Ends the sending direction; replies still arrive.
    pub fn half_close(&mut self) {
        self.wire.stream.shutdown(Shutdown::Write).expect("shut down the sending direction");
    }

    // Receiving

    /// The next frame; panics if none comes in time.
    pub fn recv(&mut self) -> Value {
        let text = self.recv_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// The text of the next frame; panics if none comes in time.
    pub fn recv_text(&mut self) -> String {
        match self.next_text(self.patience) {
            Some(text) => text,
            None if self.wire.eof => panic!("expected a frame, but the connection ended{}", self.wire.leftover()),
            None => panic!("expected a frame, but none came in {:?}{}", self.patience, self.wire.leftover()),
        }
    }

    /// The text of the next frame; `None` as for [`TestClient::recv_within`].
    pub(crate) fn next_text(&mut self, patience: Duration) -> Option<String> {
        self.wire.next_text(patience)
    }

    /// Returns the next frame, or `None` if the connection ends or no frame comes within
    /// `patience`.
    pub fn recv_within(&mut self, patience: Duration) -> Option<Value> {
        let text = self.next_text(patience)?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}")))
    }

    /// Returns a frame that has already arrived, if any; does not wait.
    pub fn recv_now(&mut self) -> Option<Value> {
        self.recv_within(Duration::from_millis(1))
    }

    /// The next frame must be this value.
    pub fn expect(&mut self, frame: &Value) {
        let got = self.recv();
        assert_eq!(got, *frame);
    }

    /// The next frame must be exactly this text.
    pub fn expect_text(&mut self, text: &str) {
        let got = self.recv_text();
        assert_eq!(got, text);
    }

    /// The next bytes must be exactly these, newlines included.
    pub fn expect_bytes(&mut self, bytes: &[u8]) {
        let deadline = Instant::now() + self.patience;
        while self.wire.received.len() < bytes.len() && self.wire.fill(deadline) {}
        let have = self.wire.received.len().min(bytes.len());
        let got: Vec<u8> = self.wire.received.drain(..have).collect();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
    }

    /// Checks that nothing is left over after [`TestClient::expect_bytes`].
    pub fn expect_no_bytes(&mut self) {
        assert!(self.wire.received.is_empty(), "unexpected bytes{}", self.wire.leftover());
    }

    /// Expects a reply of the server's own with this number as errno and msgType and a text that
    /// explains the refusal: 403, 413, 429, 503.
    pub fn expect_refusal(&mut self, errno: u64) {
        let reply = self.recv_text();
        assert_refusal(&reply, errno);
    }

    /// Expects the server to close the connection without sending another frame.
    pub fn expect_eof(&mut self) {
        let deadline = Instant::now() + self.patience;
        while self.wire.fill(deadline) {}
        assert!(self.wire.received.iter().all(u8::is_ascii_whitespace), "expected the end{}", self.wire.leftover());
        assert!(self.wire.eof, "expected the end of the connection, which is still open");
    }

    /// Reads until the server closes the connection; an incomplete frame at the end is dropped.
    pub fn read_to_end(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.recv_within(self.patience) {
            frames.push(frame);
        }
        assert!(self.wire.eof, "expected the end of the connection, which is still open after {} frames", frames.len());
        frames
    }

    /// Whether the end of the connection has been read.
    pub fn has_ended(&self) -> bool {
        self.wire.eof
    }

    /// Waits until something has arrived, without taking it.
    pub fn wait_readable(&mut self) {
        self.wire.stream.set_read_timeout(Some(self.patience)).expect("set the read timeout");
        let arrived = self.wire.stream.peek(&mut [0]).expect("wait for the server");
        assert!(arrived > 0, "expected something, but the connection ended");
    }

    // Barriers

    /// Sends a cheap request and checks that its reply is the next frame. The reply proves that no
    /// other frame was waiting, and that the server has processed everything sent on this
    /// connection before.
    pub fn barrier(&mut self) {
        let early = self.recv_until_barrier();
        assert!(early.is_empty(), "unexpected: {early:?}");
    }

    /// Sends a cheap request and returns what arrives before its reply.
    pub fn recv_until_barrier(&mut self) -> Vec<Value> {
        // A client that is not logged in may not search. Instead it sends the message type of a
        // reply, which the server answers with that reply.
        let (request, is_reply): (Value, fn(&Value) -> bool) = match self.user {
            Some(user) => (json!({"msgType": 15, "keyword": user.to_string()}), |frame| frame["msgType"] == 15),
            None => (json!({"msgType": 200}), |frame| *frame == json!({"errno": 200, "msgType": 200})),
        };
        self.send(&request);
        let mut early = Vec::new();
        loop {
            let frame = self.recv();
            if is_reply(&frame) {
                return early;
            }
            early.push(frame);
        }
    }

    /// Sends the request that needs neither login nor database and checks that its reply is the
    /// next frame.
    pub fn ack_barrier(&mut self) {
        self.send(&json!({"msgType": 200}));
        self.expect_text(ACK);
    }

    /// Proves that nothing was sent to this connection. Call it after the sender's own barrier. It
    /// takes two barriers: the first one makes this connection's loop take a turn, and in this turn
    /// the loop also handles what other loops have posted.
    pub fn expect_silence_until_barrier(&mut self) {
        self.barrier();
        self.barrier();
    }

    /// Returns all pushes that were on their way to this connection. Call it after the sender's own
    /// barrier.
    pub fn recv_pushes(&mut self) -> Vec<Value> {
        let mut pushes = self.recv_until_barrier();
        pushes.extend(self.recv_until_barrier());
        pushes
    }

    // Requests

    /// Registers a user and returns its id.
    pub fn register(&mut self, name: &str, password: &str) -> i64 {
        self.send(&json!({"msgType": 2, "name": name, "password": password}));
        let reply = self.recv();
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(200), &json!(200)), "register {name}: {reply}");
        reply["USERID"].as_i64().unwrap_or_else(|| panic!("no id: {reply}"))
    }

    /// Logs in; the login must succeed.
    pub fn login(&mut self, id: i64, password: &str) {
        self.send(&json!({"msgType": 1, "USERID": id, "password": password}));
        self.expect_text(ACK);
        self.user = Some(id);
    }

    /// Logs in; false if the server refuses for now or the connection ends.
    pub fn try_login(&mut self, id: i64, password: &str) -> bool {
        let sent = self.try_send(&json!({"msgType": 1, "USERID": id, "password": password}));
        let reply = if sent { self.recv_within(self.patience) } else { None };
        let Some(reply) = reply else { return false };
        assert!(["200", "503"].contains(&reply["errno"].to_string().as_str()), "login of {id}: {reply}");
        if reply["errno"] == 200 {
            self.user = Some(id);
        }
        self.user == Some(id)
    }

    /// Logs out; the logout must succeed.
    pub fn logout(&mut self, id: i64) {
        self.send(&json!({"msgType": 3, "USERID": id}));
        self.expect_text(ACK);
        if self.user == Some(id) {
            self.user = None;
        }
    }

    /// Sends a request and returns the reply.
    pub fn ask(&mut self, frame: &Value) -> Value {
        self.send(frame);
        self.recv()
    }

    /// Creates a group and returns its id.
    pub fn create_group(&mut self, owner: i64, name: &str) -> i64 {
        let reply = self.ask(&json!({"msgType": 12, "FROMID": owner, "name": name, "description": "d"}));
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(200), &json!(12)), "create {name}: {reply}");
        reply["GROUPID"].as_i64().unwrap_or_else(|| panic!("no id: {reply}"))
    }

    /// Joins a group; this must succeed.
    pub fn join_group(&mut self, user: i64, group: i64) {
        let reply = self.ask(&json!({"msgType": 10, "FROMID": user, "GROUPID": group}));
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(200), &json!(10)), "join {group}: {reply}");
    }

    /// One fetch of `user`'s stored messages, as the texts that were stored.
    pub fn fetch_texts(&mut self, user: i64) -> Vec<String> {
        self.send(&json!({"msgType": 14, "FROMID": user}));
        self.recv_fetched()
    }

    /// Reads the reply to a fetch that was sent before.
    pub fn recv_fetched(&mut self) -> Vec<String> {
        let reply = self.recv();
        assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(200), &json!(14)), "not a fetch reply: {reply}");
        let texts = reply["msgs"].as_array().unwrap_or_else(|| panic!("no msgs: {reply}"));
        texts.iter().map(|text| text.as_str().expect("a stored message is text").to_owned()).collect()
    }

    /// One fetch of `user`'s stored messages.
    pub fn fetch(&mut self, user: i64) -> Vec<Value> {
        self.fetch_texts(user).iter().map(|text| serde_json::from_str(text).expect("stored text is JSON")).collect()
    }

    /// Fetches until nothing is left.
    pub fn fetch_all(&mut self, user: i64) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let some = self.fetch(user);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// Returns everything that reaches `user` on this connection: the pushes that arrive, then one
    /// fetch. For tests in which a message may come either way.
    pub fn collect(&mut self, user: i64) -> Vec<Value> {
        let mut frames = self.recv_until_barrier();
        self.send(&json!({"msgType": 14, "FROMID": user}));
        loop {
            let frame = self.recv();
            if frame["msgType"] != 14 {
                frames.push(frame);
                continue;
            }
            for text in frame["msgs"].as_array().unwrap_or_else(|| panic!("no msgs: {frame}")) {
                let text = text.as_str().expect("a stored message is text");
                frames.push(serde_json::from_str(text).expect("stored text is JSON"));
            }
            return frames;
        }
    }

    /// The connection itself, for setting its options.
    pub fn stream(&self) -> &TcpStream {
        &self.wire.stream
    }
}

/// Checks the form of the server's own refusals.
pub fn assert_refusal(reply: &str, errno: u64) {
    let members = members(reply);
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["errmsg", "errno", "msgType"], "a refusal with {errno}: {reply}");
    assert!(members[0].1.as_str().is_some_and(|text| !text.is_empty()), "a refusal says what to do: {reply}");
    assert_eq!((&members[1].1, &members[2].1), (&json!(errno), &json!(errno)), "{reply}");
}
