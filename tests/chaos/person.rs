//! [`Person`]: a client of level 1 that writes numbered messages and keeps [`Books`], whatever
//! happens to its connections.
//!
//! It sends a lot of messages and then a *barrier*, a search for its own id: any answer to the
//! barrier acknowledges the lot. But a refused search looks like a refused message. So another
//! request follows that only needs the node.
//!
//! When it gives up a connection, it shuts down its sending direction and reads the rest, so that
//! everything a server has written counts as delivered. A lost message was then lost by the
//! servers, not by this client.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::books::{Connection, Fate, Lot, Place, Target};
use crate::network::Source;
use crate::numbered::{is_ack, is_busy, message};
use crate::schedule::Dice;
use crate::world::{Order, Phase, Post, World};
use testkit::{TestClient, password};

/// The plan of one client.
pub struct Person {
    /// The number of this client, which determines its addresses and its random choices.
    pub index: usize,
    pub id: i64,
    pub name: String,
    pub habit: Habit,
    /// Whether it ends frames with newlines.
    pub lines: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether its kernel accepts only little that it has not read.
    pub small_buffer: bool,
    /// The places at which it logs in. It stays at one as long as that serves.
    pub places: Vec<Place>,
    /// The recipients of its messages, each with the length of the texts.
    pub targets: Vec<(Target, usize)>,
}

/// The behaviour of a person without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Stays logged in all the time.
    Stays,
    /// Logs out, stays offline for some seconds, comes back and fetches.
    ComesAndGoes,
    /// Logs out and immediately logs in at the next place.
    Moves,
}

/// A person at work, on a thread of its own.
pub struct Actor<'a> {
    person: &'a Person,
    world: &'a World,
    post: &'a Post,
    dice: Dice,
    session: Option<Session>,
    given_up: Vec<GivenUp>,
    /// The indices of its place and of its address.
    place: usize,
    source: u8,
    numbers: HashMap<Target, usize>,
    next_target: usize,
    next_lot: Instant,
    next_fetch: Instant,
    next_change: Instant,
    next_look: Instant,
    /// The time before which it does not log in.
    away_until: Instant,
}

struct Session {
    client: TestClient,
    /// The index of the connection in the books.
    number: usize,
    source: Source,
    waiting: Waiting,
    since: Instant,
}

/// The replies that a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    /// The replies to the requests that follow this lot.
    Lot {
        lot: usize,
        refused: usize,
        found: bool,
    },
    Fetch,
    Logout,
}

/// A connection that is only read until it ends.
struct GivenUp {
    client: TestClient,
    number: usize,
    /// When its address is restored.
    cut: Option<(Instant, Source)>,
}

impl<'a> Actor<'a> {
    pub fn new(person: &'a Person, world: &'a World, post: &'a Post) -> Actor<'a> {
        let now = Instant::now();
        post.books().user = person.id;
        Actor {
            person,
            world,
            post,
            dice: Dice::new(world.seed ^ (person.index as u64 + 1).wrapping_mul(0xA5A5_5A5A_1234_4321)),
            session: None,
            given_up: Vec::new(),
            place: 0,
            source: 0,
            numbers: HashMap::new(),
            next_target: 0,
            next_lot: now,
            next_fetch: now,
            next_change: now + Duration::from_secs(2),
            next_look: now,
            away_until: now,
        }
    }

    /// Runs until the end of the run.
    pub fn run(mut self) {
        while !self.world.is_in(Phase::Over) {
            self.obey();
            self.read_given_up();
            let is_expected = Instant::now() >= self.away_until || self.world.is_in(Phase::Settling);
            if self.session.is_none() && is_expected {
                self.log_in();
            }
            self.act();
            self.read();
            self.give_up_what_takes_too_long();
            let is_idle = self.session.as_ref().is_some_and(|session| session.waiting == Waiting::Nothing);
            self.post.is_idle.store(is_idle, Ordering::Relaxed);
        }
        self.leave();
        let late = Instant::now() + GIVE_UP_AFTER;
        while self.session.is_some() && Instant::now() < late {
            self.read();
        }
        for given_up in &self.given_up {
            if let Some((_, source)) = given_up.cut {
                self.world.network.mend(source);
            }
        }
    }

    // Its own actions

    fn act(&mut self) {
        let Some(session) = &self.session else {
            thread::sleep(TURN);
            return;
        };
        if session.waiting != Waiting::Nothing {
            return;
        }
        let now = Instant::now();
        let talks = self.world.is_in(Phase::Talking);
        if talks && self.person.habit != Habit::Stays && now >= self.next_change {
            self.leave();
        } else if now >= self.next_fetch {
            self.fetch();
        } else if talks && now >= self.next_lot && !self.person.targets.is_empty() {
            self.send_lot();
        }
    }

    fn send_lot(&mut self) {
        let (target, length) = self.person.targets[self.next_target % self.person.targets.len()];
        self.next_target += 1;
        let count = if self.dice.below(10) == 0 { 30 } else { 1 + self.dice.below(8) };
        self.next_lot = Instant::now() + Duration::from_millis(self.dice.between(150, 350));
        let next = self.numbers.entry(target).or_default();
        let numbers = *next..*next + count;
        *next = numbers.end;
        let lot = {
            let mut books = self.post.books();
            let connection = self.session.as_ref().map_or(0, |session| session.number);
            let sent = self.world.now();
            books.lots.push(Lot { target, connection, numbers: numbers.clone(), sent, fate: Fate::Open });
            books.lots.len() - 1
        };
        let mut bytes = String::new();
        let end = if self.person.lines { "\n" } else { "" };
        for number in numbers {
            bytes.push_str(&format!("{}{end}", message(self.person.id, target, number, length)));
        }
        // Half of all persons send no search, because a search needs the database. So they go on
        // during an outage of the database.
        let searches = self.person.index.is_multiple_of(2);
        if searches {
            bytes.push_str(&format!("{}{end}", json!({"msgType": 15, "keyword": self.person.id.to_string()})));
        }
        bytes.push_str(&format!("{}{end}", json!({"msgType": 200})));
        self.ask(&bytes, Waiting::Lot { lot, refused: 0, found: !searches });
    }

    fn fetch(&mut self) {
        let pause = if self.world.is_in(Phase::Settling) { 300 } else { self.dice.between(700, 1_500) };
        self.next_fetch = Instant::now() + Duration::from_millis(pause);
        self.ask_value(&json!({"msgType": 14, "FROMID": self.person.id}), Waiting::Fetch);
    }

    fn leave(&mut self) {
        if self.session.as_ref().is_some_and(|session| session.waiting == Waiting::Nothing) {
            self.ask_value(&json!({"msgType": 3, "USERID": self.person.id}), Waiting::Logout);
        }
    }

    fn ask_value(&mut self, request: &Value, waiting: Waiting) {
        let end = if self.person.lines { "\n" } else { "" };
        self.ask(&format!("{request}{end}"), waiting);
    }

    fn ask(&mut self, bytes: &str, waiting: Waiting) {
        let session = self.session.as_mut().expect("only who is there asks");
        session.waiting = waiting;
        session.since = Instant::now();
        if !session.client.try_send_raw(bytes.as_bytes()) {
            self.give_up(None);
        }
    }

    // Logging in and out

    fn log_in(&mut self) {
        let place = self.person.places[self.place % self.person.places.len()];
        let source = self.free_source();
        let buffer = self.person.small_buffer.then_some(SMALL_BUFFER);
        let stream = self.world.network.connect(source, self.world.address(place), buffer);
        let client = stream.and_then(|stream| match self.person.tls {
            true => TestClient::on_tls_within(LOGIN_PATIENCE, stream, "localhost", &self.world.tls),
            false => Ok(TestClient::on(stream)),
        });
        let Ok(mut client) = client else {
            self.place += 1;
            thread::sleep(TURN);
            return;
        };
        let number = {
            let mut books = self.post.books();
            books.connections.push(Connection { place, opened: self.world.now(), ended: None, broke: false });
            books.connections.len() - 1
        };
        client.set_patience(SEND_PATIENCE);
        let since = Instant::now();
        self.session = Some(Session { client, number, source, waiting: Waiting::Nothing, since });
        let request = json!({"msgType": 1, "USERID": self.person.id, "password": password(&self.person.name)});
        self.ask_value(&request, Waiting::Nothing);
        while let Some(session) = &mut self.session {
            match session.client.recv_within(TURN) {
                Some(frame) if is_ack(&frame) => break,
                Some(frame) if is_busy(&frame) => {
                    self.place += 1;
                    self.give_up(None);
                    // It retries soon, but not immediately.
                    self.away_until = Instant::now() + 10 * TURN;
                }
                Some(frame) => self.note(number, &frame),
                None if session.client.has_ended() || since.elapsed() > LOGIN_PATIENCE => {
                    self.place += 1;
                    self.give_up(None);
                }
                None => (),
            }
        }
        self.next_fetch = Instant::now();
    }

    /// One of this person's addresses that is not cut off.
    fn free_source(&mut self) -> Source {
        loop {
            let source = Source(1 + self.person.index as u8 * SOURCES + self.source % SOURCES);
            let is_cut =
                |given_up: &GivenUp| given_up.cut.is_some_and(|(until, cut)| cut == source && Instant::now() < until);
            if !self.given_up.iter().any(is_cut) {
                return source;
            }
            self.source += 1;
        }
    }

    /// Gives the connection up; the fate of the messages that it waits for is unknown.
    fn give_up(&mut self, cut: Option<(Instant, Source)>) {
        let Some(Session { client, number, waiting, .. }) = self.session.take() else { return };
        {
            let now = self.world.now();
            let mut books = self.post.books();
            books.connections[number].ended = Some(now);
            books.connections[number].broke = true;
            if let Waiting::Lot { lot, .. } = waiting {
                books.lots[lot].fate = Fate::Unknown;
            }
        }
        if client.has_ended() {
            return;
        }
        if cut.is_none() {
            let _ = client.stream().shutdown(Shutdown::Write);
        }
        self.given_up.push(GivenUp { client, number, cut });
    }

    fn give_up_what_takes_too_long(&mut self) {
        let Some(session) = &self.session else { return };
        let takes_too_long = session.waiting != Waiting::Nothing && session.since.elapsed() > GIVE_UP_AFTER;
        if session.client.has_ended() || takes_too_long {
            self.place += 1;
            self.give_up(None);
        }
    }

    // Faults

    fn obey(&mut self) {
        let Some((at, order)) = self.post.next_order() else { return };
        // An order is dropped if the person was not logged in in time.
        if at.elapsed() > ORDER_PATIENCE || self.session.is_none() {
            return;
        }
        let begun = self.world.now();
        match order {
            Order::Vanish(length) => self.vanish(length),
            Order::Reset => self.reset(),
            Order::StopReading(length) => {
                thread::sleep(length);
                if let Some(session) = &mut self.session {
                    session.since = Instant::now();
                }
            }
        }
        let over = match order {
            Order::Vanish(length) => begun + length,
            Order::Reset | Order::StopReading(_) => self.world.now(),
        };
        self.post.obeyed.lock().expect("what was obeyed").push((order, begun, over));
    }

    fn vanish(&mut self, length: Duration) {
        let Some(session) = &self.session else { return };
        let (source, until) = (session.source, Instant::now() + length);
        self.world.network.cut(source);
        // The client's reaction: it waits for a while and then tries another place.
        let noticed = Instant::now() + Duration::from_millis(self.dice.between(300, 1_500));
        while Instant::now() < noticed {
            self.read();
        }
        self.place += self.dice.below(2);
        if self.session.is_some() {
            self.give_up(Some((until, source)));
        } else {
            self.world.network.mend(source);
        }
    }

    fn reset(&mut self) {
        let Some(source) = self.session.as_ref().map(|session| session.source) else { return };
        // Messages that this client's kernel has acknowledged count as delivered. So the test
        // blocks further ones, and reads those that have arrived.
        let Some(deaf) = self.world.network.deafen(source) else { return self.give_up(None) };
        loop {
            let before = self.post.books().arrivals.len();
            self.read();
            if self.post.books().arrivals.len() == before {
                break;
            }
        }
        if let Some(session) = &self.session {
            SockRef::from(session.client.stream()).set_linger(Some(Duration::ZERO)).expect("set SO_LINGER");
            self.give_up(None);
            self.given_up.pop();
        }
        drop(deaf);
    }

    // Receiving

    /// Reads the frames that have arrived; if there are none, waits for one turn at most.
    fn read(&mut self) {
        let mut patience = TURN;
        while let Some(session) = &mut self.session {
            let Some(frame) = session.client.recv_within(patience) else { break };
            patience = Duration::from_millis(1);
            self.on_frame(&frame);
        }
    }

    fn on_frame(&mut self, frame: &Value) {
        let Some(session) = &mut self.session else { return };
        match (&mut session.waiting, frame["msgType"].as_u64()) {
            (Waiting::Lot { found, .. }, Some(15)) => *found = true,
            (Waiting::Lot { refused, .. }, Some(429 | 503)) => *refused += 1,
            (Waiting::Lot { lot, refused, found }, Some(200)) if is_ack(frame) => {
                // A refused barrier was counted as a refusal, too.
                let refused = *refused - usize::from(!*found);
                let at = self.world.now();
                self.post.books().lots[*lot].fate = Fate::Acknowledged { at, refused };
                session.waiting = Waiting::Nothing;
            }
            (Waiting::Fetch, Some(429 | 503)) => session.waiting = Waiting::Nothing,
            (Waiting::Fetch, Some(14)) => {
                session.waiting = Waiting::Nothing;
                if frame["msgs"].as_array().is_some_and(|messages| !messages.is_empty()) {
                    self.next_fetch = Instant::now();
                }
                let number = session.number;
                self.note(number, frame);
            }
            (Waiting::Logout, Some(200)) if is_ack(frame) => self.have_left(),
            _ => {
                let number = session.number;
                self.note(number, frame);
            }
        }
    }

    fn have_left(&mut self) {
        let session = self.session.take().expect("it was there");
        self.post.books().connections[session.number].ended = Some(self.world.now());
        let stay = Duration::from_millis(self.dice.between(1_500, 3_500));
        if self.person.habit == Habit::ComesAndGoes {
            self.away_until = Instant::now() + Duration::from_millis(self.dice.between(1_000, 4_000));
        }
        self.place += 1;
        self.next_change = Instant::now() + stay + self.away_until.saturating_duration_since(Instant::now());
    }

    fn read_given_up(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + 10 * TURN;
        for mut given_up in std::mem::take(&mut self.given_up) {
            // If addresses cannot be cut off, the client only stops reading for that time.
            if !self.world.network.can_cut() && given_up.cut.is_some_and(|(until, _)| Instant::now() < until) {
                self.given_up.push(given_up);
                continue;
            }
            while let Some(frame) = given_up.client.recv_now() {
                self.note(given_up.number, &frame);
            }
            if let Some((until, source)) = given_up.cut
                && Instant::now() >= until
            {
                self.world.network.mend(source);
                given_up.cut = None;
                let _ = given_up.client.stream().shutdown(Shutdown::Write);
            }
            if !given_up.client.has_ended() {
                self.given_up.push(given_up);
            } else if let Some((_, source)) = given_up.cut {
                self.world.network.mend(source);
            }
        }
    }

    /// Records a frame that arrived on a connection.
    fn note(&self, connection: usize, frame: &Value) {
        self.post.books().note(self.world.now(), connection, frame);
    }
}

/// How long a person waits for the next event.
const TURN: Duration = Duration::from_millis(10);

/// How long a client waits for an answer before it tries another place.
const GIVE_UP_AFTER: Duration = Duration::from_secs(6);
const LOGIN_PATIENCE: Duration = Duration::from_secs(3);
const SEND_PATIENCE: Duration = Duration::from_secs(3);

/// An order that could not be carried out for this long is dropped, so that no fault happens
/// outside its planned time.
const ORDER_PATIENCE: Duration = Duration::from_millis(300);

/// The number of addresses of each client.
pub const SOURCES: u8 = 8;

/// The number of clients for which there are addresses.
pub const CLIENTS_MAX: usize = 31;

/// The receive buffer of persons with a small one, in bytes.
const SMALL_BUFFER: usize = 8 * 1024;
