//! [`Level2Client`]: a device of a user on one TCP connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::frame::{Frame, Welcome};
use super::{Mistake, Session, Store};
use crate::{PATIENCE, TestClient, TestServer, password};

/// A connection that is logged in at level 2. It checks every frame that arrives, and panics at the
/// first mistake.
pub struct Level2Client {
    tcp: TestClient,
    session: Session,
    /// The device's database.
    pub store: Store,
    /// The answer to the login.
    pub welcome: Welcome,
    /// Frames that have arrived and that the test has not taken; messages are not among them.
    inbox: VecDeque<Value>,
    /// The last 41 of each `cid`.
    answers: BTreeMap<String, Value>,
    patience: Duration,
}

/// A login at level 2.
#[derive(Clone, Debug)]
pub struct LoginAs(Value);

/// The outcome of a login that did not succeed.
pub struct Refused {
    /// The reply; `None` if the connection ended.
    pub reply: Option<Value>,
    pub tcp: TestClient,
    pub store: Store,
}

impl LoginAs {
    /// A login with a password.
    pub fn password(user: i64, password: &str, device: &str) -> LoginAs {
        LoginAs(json!({"msgType": 1, "level": 2, "USERID": user, "password": password, "device": device}))
    }

    /// A login with a password, by name.
    pub fn name(name: &str, password: &str, device: &str) -> LoginAs {
        LoginAs(json!({"msgType": 1, "level": 2, "name": name, "password": password, "device": device}))
    }

    /// A login with a token from an earlier 40.
    pub fn token(token: &str, device: &str) -> LoginAs {
        LoginAs(json!({"msgType": 1, "level": 2, "token": token, "device": device}))
    }

    /// With a JSON web token.
    pub fn jwt(jwt: &str, device: &str) -> LoginAs {
        LoginAs(json!({"msgType": 1, "level": 2, "jwt": jwt, "device": device}))
    }

    /// The length of the frame.
    #[allow(clippy::len_without_is_empty, reason = "no login is empty")]
    pub fn len(&self) -> usize {
        self.0.to_string().len()
    }

    /// Sets another member, such as `have`, whose default is the content of the store.
    pub fn with(mut self, member: &str, value: Value) -> LoginAs {
        self.0[member] = value;
        self
    }
}

impl Level2Client {
    /// Logs in a user made by [`user`](crate::user) or [`offline_user`](crate::offline_user), and
    /// synchronises a device that holds nothing.
    pub fn enter(server: &TestServer, name: &str, id: i64, device: &str) -> Level2Client {
        Level2Client::resume(server, name, device, Store::new(id))
    }

    /// Like [`Level2Client::enter`], with a store: fetches the messages that the store misses, and
    /// repeats the sends that are not acknowledged.
    pub fn resume(server: &TestServer, name: &str, device: &str, store: Store) -> Level2Client {
        let login = LoginAs::password(store.me, &password(name), device);
        let mut client = Level2Client::login(TestClient::connect(server), store, login);
        client.sync();
        client.send_outbox();
        client
    }

    /// Logs in on a connection; the login must succeed. The frames of the synchronisation are still
    /// to be read.
    pub fn login(tcp: TestClient, store: Store, login: LoginAs) -> Level2Client {
        match Level2Client::try_login(tcp, store, login) {
            Ok(client) => client,
            Err(refused) => panic!("the login is refused: {:?}", refused.reply),
        }
    }

    /// Logs in on a connection.
    ///
    /// # Errors
    /// The store and the reply, if the login is refused or the connection ends before the answer.
    pub fn try_login(mut tcp: TestClient, mut store: Store, login: LoginAs) -> Result<Level2Client, Box<Refused>> {
        let LoginAs(mut login) = login;
        if login.get("have").is_none() {
            login["have"] = store.have();
        }
        let mut session = Session::new(&login);
        let text = if tcp.try_send(&login) { tcp.next_text(PATIENCE) } else { None };
        let Some(text) = text else { return Err(Box::new(Refused { reply: None, tcp, store })) };
        match session.on_frame(&text, &mut store) {
            Ok(Frame::Welcome(welcome)) => {
                let (inbox, answers) = (VecDeque::new(), BTreeMap::new());
                Ok(Level2Client { tcp, session, store, welcome, inbox, answers, patience: PATIENCE })
            }
            Ok(_) => Err(Box::new(Refused { reply: Some(value(&text)), tcp, store })),
            Err(mistake) => panic!("{mistake:?}: {text}"),
        }
    }

    // Receiving

    /// Reads until every synchronisation has ended.
    pub fn sync(&mut self) {
        self.until("the end of the synchronisation", |client| client.session.is_synced());
    }

    /// Reads until the condition holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Level2Client) -> bool) {
        let deadline = Instant::now() + self.patience;
        while !holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let read = !left.is_zero() && self.read(left).is_some();
            assert!(read, "waited in vain for {what}; {} in {:?}", self.store.me, self.inbox);
        }
    }

    /// Reads until the store holds the message with this number.
    pub fn until_at(&mut self, conv: &str, seq: u64) {
        self.until(&format!("{conv} {seq}"), |client| client.store.cursor(conv) >= seq);
    }

    /// Reads one frame; `None` if none comes in time or the connection ends.
    pub fn read(&mut self, patience: Duration) -> Option<Frame> {
        let text = self.tcp.next_text(patience)?;
        let frame = match self.session.on_frame(&text, &mut self.store) {
            Ok(frame) => frame,
            Err(Mistake(mistake)) => panic!("{} of user {} got {text}: {mistake}", self.welcome.device, self.store.me),
        };
        match &frame {
            Frame::Push(_) => {}
            Frame::Ack(ack) => drop(self.answers.insert(ack.cid.clone(), value(&text))),
            Frame::SendRefused(refusal) => match &refusal.cid {
                Some(cid) => drop(self.answers.insert(cid.clone(), value(&text))),
                None => self.inbox.push_back(value(&text)),
            },
            _ => self.inbox.push_back(value(&text)),
        }
        Some(frame)
    }

    /// The next frame that fits. It may have arrived already, or arrive after others.
    pub fn take(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(what, |client| client.inbox.iter().any(&fits));
        let at = self.inbox.iter().position(fits).expect("it is there");
        self.inbox.remove(at).expect("it is there")
    }

    /// The next frame of this type.
    pub fn take_kind(&mut self, kind: i64) -> Value {
        self.take(&format!("a {kind}"), |frame| frame["msgType"] == kind)
    }

    /// The frames that have arrived and that the test has not taken; messages are not among them.
    pub fn inbox(&self) -> impl Iterator<Item = &Value> {
        self.inbox.iter()
    }

    /// Drops the frames that have arrived and that the test has not taken.
    pub fn clear_inbox(&mut self) {
        self.inbox.clear();
    }

    /// Reads until the server sends a farewell with this reason and closes.
    pub fn expect_farewell(&mut self, reason: &str) -> Value {
        let farewell = self.take_kind(55);
        assert_eq!(farewell["reason"], reason, "{farewell}");
        self.tcp.expect_eof();
        farewell
    }

    // Sending

    /// Sends a text to a conversation, and returns its `cid`.
    pub fn send(&mut self, conv: &str, msg: &str) -> String {
        self.send_with(conv, json!({"msg": msg}))
    }

    /// Like [`Level2Client::send`]; false if the connection is gone. The message then waits in the
    /// store.
    pub fn try_send(&mut self, conv: &str, msg: &str) -> bool {
        let mut frame = self.message(conv);
        frame["msg"] = json!(msg);
        self.try_send_text(&frame.to_string())
    }

    /// Sends a frame with these members besides the usual ones, and returns its `cid`.
    pub fn send_with(&mut self, conv: &str, members: Value) -> String {
        let mut frame = self.message(conv);
        for (key, member) in members.as_object().expect("members") {
            frame[key] = member.clone();
        }
        self.send_frame(&frame);
        frame["cid"].as_str().unwrap_or_default().to_owned()
    }

    /// A message to a conversation with a new `cid`, to be sent.
    pub fn message(&self, conv: &str) -> Value {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let cid = format!("{}-{}", self.store.me, COUNT.fetch_add(1, Ordering::Relaxed));
        let id: i64 = conv[1..].parse().expect("the name of a conversation");
        match conv.starts_with('g') {
            true => json!({"msgType": 9, "FROMID": self.store.me, "GROUPID": id, "cid": cid}),
            false => json!({"msgType": 4, "FROMID": self.store.me, "TOID": id, "cid": cid}),
        }
    }

    /// Sends any frame.
    pub fn send_frame(&mut self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    /// Sends any text.
    pub fn send_text(&mut self, text: &str) {
        assert!(self.try_send_text(text), "cannot send {text}");
    }

    /// Sends any text; false if the connection is gone. Each text is noted before it is sent.
    pub fn try_send_text(&mut self, text: &str) -> bool {
        self.session.on_sent(text, &mut self.store);
        self.tcp.try_send_raw(text.as_bytes())
    }

    /// Sends several frames in one write.
    pub fn send_many(&mut self, frames: &[Value]) {
        let texts: Vec<String> = frames.iter().map(Value::to_string).collect();
        texts.iter().for_each(|text| self.session.on_sent(text, &mut self.store));
        self.tcp.send_raw(texts.concat().as_bytes());
    }

    /// Sends this number of messages, and waits until all are answered.
    pub fn talk(&mut self, conv: &str, count: usize) {
        let frames: Vec<Value> = (0..count).map(|_| self.message(conv)).collect();
        for some in frames.chunks(200) {
            self.send_many(some);
            self.settle();
        }
    }

    /// Repeats every send that is not acknowledged.
    pub fn send_outbox(&mut self) {
        for outgoing in self.store.outbox.clone() {
            if !self.try_send_text(&outgoing.text) {
                return;
            }
        }
    }

    /// Reads until every send is answered.
    pub fn settle(&mut self) {
        self.until("the answers to all sends", |client| client.session.unanswered() == 0);
    }

    /// Whether the synchronisation has ended.
    pub fn is_synced(&self) -> bool {
        self.session.is_synced()
    }

    /// The number of other requests that are not answered, 46s among them.
    pub fn unreplied(&self) -> usize {
        self.session.unreplied()
    }

    /// Sets how long this client waits for what it expects.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
        self.tcp.set_patience(patience);
    }

    /// The number of sends that are not answered.
    pub fn unanswered(&self) -> usize {
        self.session.unanswered()
    }

    /// Sends a text and waits until it is committed. Returns its number.
    pub fn say(&mut self, conv: &str, msg: &str) -> u64 {
        let cid = self.send(conv, msg);
        self.number(&cid)
    }

    /// Waits for the 41 of a `cid`, which must be committed. Returns its number.
    pub fn number(&mut self, cid: &str) -> u64 {
        let answer = self.answer(cid);
        answer["seq"].as_u64().unwrap_or_else(|| panic!("not committed: {answer}"))
    }

    /// Waits for the 41 of a `cid` and takes it.
    pub fn answer(&mut self, cid: &str) -> Value {
        self.until(&format!("the 41 of {cid}"), |client| client.answers.contains_key(cid));
        self.answers.remove(cid).expect("it is there")
    }

    /// Sends a request with a `rid` of its own and waits for its reply.
    pub fn ask(&mut self, mut request: Value) -> Value {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let rid = json!(format!("r{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        request["rid"] = rid.clone();
        self.send_frame(&request);
        self.take(&format!("the reply to {request}"), |frame| frame["rid"] == rid)
    }

    /// Like [`Level2Client::ask`], and the reply must have this errno.
    pub fn ask_for(&mut self, errno: i64, request: Value) -> Value {
        let reply = self.ask(request.clone());
        assert_eq!(reply["errno"], errno, "{request}: {reply}");
        reply
    }

    /// Sends a 53 and waits for its 54. The server has then read everything sent before it.
    pub fn ask_for_pong(&mut self) {
        assert_eq!(self.ask(json!({"msgType": 53}))["msgType"], 54);
    }

    /// Sends a 46 with the store's cursors, and reads what follows.
    pub fn catch_up(&mut self) {
        let have = self.store.have();
        self.ask(json!({"msgType": 46, "have": have}));
    }

    /// Pages through a conversation from its end to its floor, so that the store holds all of it.
    /// Returns the number of messages above the floor.
    pub fn page_through(&mut self, conv: &str) -> u64 {
        let mut request = json!({"msgType": 48, "conv": conv, "limit": 200});
        let mut count = 0;
        loop {
            let page = self.ask_for(200, request.clone());
            count += page["msgs"].as_array().map_or(0, Vec::len) as u64;
            if page["complete"] == true {
                return count;
            }
            request["before"] = page["from"].clone();
        }
    }

    // The end

    /// Closes the connection and returns the store.
    pub fn leave(self) -> Store {
        self.store
    }

    /// The connection itself, for tests that need more than this client offers. Texts sent on it
    /// are not noted.
    pub fn tcp(&mut self) -> &mut TestClient {
        &mut self.tcp
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
