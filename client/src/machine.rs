//! [`Machine`]: the protocol, without sockets, files and clocks.
//!
//! The inputs are bytes, instants and requests of the application. The outputs are bytes, changes
//! of the store, events and answers ([`Done`]). The worker applies the changes in one transaction
//! before it passes on events and answers, so the application learns only of stored changes.

mod asks;
mod lanes;
mod pace;
mod places;
mod receive;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::asks::{Asked, Asks};
use self::lanes::Lanes;
pub(crate) use self::lanes::Wanted;
use self::pace::Pace;
pub(crate) use self::places::Cursor;
use self::places::Places;
use self::watch::{Silence, Watch};
use crate::change::Change;
use crate::conv::Conv;
use crate::error::Error;
use crate::event::{End, Event, State};
use crate::frame::Refusal;
use crate::wire::Lines;

/// The client's side of one account.
#[derive(Debug)]
pub(crate) struct Machine {
    login: Login,
    stage: Stage,
    lines: Lines,
    places: Places,
    lanes: Lanes,
    asks: Asks,
    pace: Pace,
    user: i64,
    frame_max: usize,
    watch: Watch,
    /// The report to send with 47, and the time from which it may be sent.
    stored: BTreeMap<Conv, u64>,
    report_at: Instant,
    /// Read marks to be sent.
    marks: BTreeMap<Conv, u64>,
    /// The time from which a 46 may be sent.
    sync_at: Instant,
    watched: Vec<i64>,
    /// The time at which typing was last shown.
    typed: HashMap<Conv, Instant>,
    out: Vec<u8>,
    done: Done,
}

/// A login: its device, its proof, and the owner of the data file.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) device: String,
    pub(crate) token: Option<String>,
    /// Name and password, until the first login succeeds. They take precedence over the token.
    pub(crate) password: Option<(String, String)>,
    /// Fetches a JSON web token, for a login without password and token.
    pub(crate) jwt: Option<JwtSource>,
    /// The user who owns the data file, if it has an owner.
    pub(crate) owner: Option<(i64, String)>,
    /// The longest frame that the server takes, as far as known.
    pub(crate) frame_max: usize,
}

/// The source of JSON web tokens, or the reason why there is none now.
#[derive(Clone)]
pub(crate) struct JwtSource(pub(crate) Arc<dyn Fn() -> Result<String, String> + Send + Sync>);

impl std::fmt::Debug for JwtSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JwtSource")
    }
}

/// The results of the inputs.
#[derive(Default, Debug)]
pub(crate) struct Done {
    /// Changes for one transaction.
    pub(crate) changes: Vec<Change>,
    /// Events for the time after the transaction.
    pub(crate) events: Vec<Event>,
    pub(crate) answers: Vec<(u64, Result<Value, Error>)>,
    /// Own messages that are committed or refused for good.
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether the connection must be closed.
    pub(crate) close: bool,
}

/// The outcome of an own message.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Outcome {
    pub(crate) cid: String,
    pub(crate) result: Result<(Conv, u64), Refusal>,
}

/// The content of the store when a connection begins.
#[derive(Default, Debug)]
pub(crate) struct Known {
    /// The most recently active conversation first.
    pub(crate) cursors: Vec<(Conv, Cursor)>,
    /// Conversations with messages in the outbox.
    pub(crate) filled: Vec<Conv>,
    /// Read marks that the server has not confirmed.
    pub(crate) marks: Vec<(Conv, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Waiting { until: Instant, reason: String },
    Connecting,
    LoggingIn,
    Synchronising,
    Online,
    Ended(End),
}

/// The time of silence after which the server sends a ping.
const PING: Duration = Duration::from_secs(30);

/// The least time between two reports (47), and between two requests for holes (46).
const EVERY: Duration = Duration::from_secs(1);

/// The least time between two shows of typing.
const TYPING_EVERY: Duration = Duration::from_secs(3);

/// The most bytes that wait to be written before more messages are sent.
const OUT_MAX: usize = 256 * 1024;

/// The most bytes of cursors in a login and in a 46.
const HAVE_MAX: usize = 48 * 1024;

/// The most conversations in a 47.
const REPORT_MAX: usize = 1000;

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("device", &self.device).field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Machine {
    /// A client that connects at once, to one of so many addresses.
    pub(crate) fn new(login: Login, addresses: usize, now: Instant) -> Machine {
        let user = login.owner.as_ref().map_or(0, |(user, _)| *user);
        let frame_max = login.frame_max;
        Machine {
            login,
            stage: Stage::Waiting { until: now, reason: String::new() },
            lines: Lines::default(),
            places: Places::default(),
            lanes: Lanes::default(),
            asks: Asks::default(),
            pace: Pace::default(),
            user,
            frame_max,
            watch: Watch::new(addresses, now),
            stored: BTreeMap::new(),
            report_at: now,
            marks: BTreeMap::new(),
            sync_at: now,
            watched: Vec::new(),
            typed: HashMap::new(),
            out: Vec::new(),
            done: Done::default(),
        }
    }

    // The state that is shown

    /// The state of the connection.
    pub(crate) fn state(&self) -> State {
        match &self.stage {
            Stage::Waiting { until, reason } => State::Waiting { until: *until, reason: reason.clone() },
            Stage::Connecting => State::Connecting,
            Stage::LoggingIn => State::LoggingIn,
            Stage::Synchronising => State::Synchronising,
            Stage::Online => State::Online,
            Stage::Ended(end) => State::Ended(end.clone()),
        }
    }

    /// The results of the inputs since the last call.
    pub(crate) fn done(&mut self) -> Done {
        std::mem::take(&mut self.done)
    }

    /// Bytes to be written. The worker removes the written ones.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The latest time for the next [`Machine::tick`].
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting { until, .. } => Some(*until),
            Stage::Connecting | Stage::Ended(_) => None,
            Stage::LoggingIn => Some(self.watch.login_deadline()),
            Stage::Synchronising | Stage::Online => {
                let report = (!self.stored.is_empty()).then_some(self.report_at);
                let lanes = self.lanes.deadline(now);
                [Some(self.watch.deadline()), report, lanes, Some(self.sync_at).filter(|at| *at > now)]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    // The connection

    /// Whether a connection is to be made now.
    pub(crate) fn wants_connection(&mut self, now: Instant) -> bool {
        let is_due = matches!(&self.stage, Stage::Waiting { until, .. } if *until <= now);
        if is_due {
            self.enter(Stage::Connecting);
        }
        is_due
    }

    /// Ends the wait before the next attempt to connect.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if let Stage::Waiting { until, .. } = &mut self.stage {
            *until = now;
        }
    }

    /// Logs in on a new connection.
    pub(crate) fn connected(&mut self, known: Known, now: Instant, chance: f64) {
        self.lines = Lines::default();
        self.out.clear();
        self.watch.begin(now, chance);
        self.marks = known.marks.into_iter().collect();
        self.stored.clear();
        self.typed.clear();
        self.lanes.begin(known.filled);
        let have = self.places.begin(known.cursors, HAVE_MAX.min(self.frame_max / 2));
        let mut frame =
            json!({"msgType": 1, "level": 2, "device": self.login.device, "ping": PING.as_secs(), "have": have});
        match (&self.login.password, &self.login.token, &self.login.jwt) {
            (Some((name, password)), ..) => {
                frame["name"] = json!(name);
                frame["password"] = json!(password);
            }
            (None, Some(token), _) => frame["token"] = json!(token),
            (None, None, Some(source)) => match (source.0)() {
                Ok(jwt) => frame["jwt"] = json!(jwt),
                Err(why) => return self.wait(&why, None, now, chance),
            },
            (None, None, None) => return self.end(End::WrongPassword),
        }
        self.write(&frame);
        self.enter(Stage::LoggingIn);
    }

    /// Handles a connection that has ended, or could not be made.
    pub(crate) fn lost(&mut self, why: &str, now: Instant, chance: f64) {
        self.wait(why, None, now, chance);
    }

    /// Closes the client.
    pub(crate) fn close(&mut self) {
        self.end(End::Closed);
    }

    /// Reconnects after a backoff, unless the client has ended.
    fn wait(&mut self, why: &str, retry_after: Option<f64>, now: Instant, chance: f64) {
        self.forget_connection();
        if !matches!(self.stage, Stage::Ended(_) | Stage::Waiting { .. }) {
            let until = now + self.pace.pause(retry_after, chance);
            self.enter(Stage::Waiting { until, reason: why.to_owned() });
        }
    }

    fn end(&mut self, end: End) {
        self.forget_connection();
        if !matches!(self.stage, Stage::Ended(_)) {
            self.enter(Stage::Ended(end));
        }
    }

    fn forget_connection(&mut self) {
        for asked in self.asks.end() {
            if let Asked::Application(ask) | Asked::Page { ask, .. } = asked {
                self.done.answers.push((ask, Err(Error::Interrupted)));
            }
        }
        self.out.clear();
        self.done.close = true;
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.done.events.push(Event::State);
    }

    fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Synchronising | Stage::Online)
    }

    // Time

    /// Handles the passing of time.
    pub(crate) fn tick(&mut self, now: Instant, chance: f64) {
        match &self.stage {
            Stage::LoggingIn if now >= self.watch.login_deadline() => {
                self.watch.gave_up();
                self.wait("the server does not answer the login", None, now, chance);
            }
            Stage::Synchronising | Stage::Online => self.tick_live(now, chance),
            _ => {}
        }
    }

    fn tick_live(&mut self, now: Instant, chance: f64) {
        match self.watch.silence(now) {
            Silence::Short => {}
            Silence::Ping => {
                self.watch.pinged(now);
                self.write(&json!({"msgType": 53}));
            }
            Silence::End => {
                self.watch.gave_up();
                return self.wait("the server is silent", None, now, chance);
            }
        }
        if !self.stored.is_empty() && now >= self.report_at {
            self.report_at = now + EVERY;
            let mut recv = serde_json::Map::new();
            while let Some((conv, seq)) = self.stored.pop_first().filter(|_| recv.len() < REPORT_MAX) {
                recv.insert(conv.to_string(), json!(seq));
            }
            self.write(&json!({"msgType": 47, "recv": recv}));
        }
        if self.stage == Stage::Online {
            self.ask_for_holes(now);
            self.send_marks();
        }
    }

    fn ask_for_holes(&mut self, now: Instant) {
        if now < self.sync_at {
            return;
        }
        let Some(have) = self.places.ask(HAVE_MAX.min(self.frame_max / 2)) else { return };
        self.sync_at = now + EVERY;
        match self.asks.ask(Asked::Sync) {
            Some(rid) => self.write(&json!({"msgType": 46, "have": have, "rid": rid})),
            None => self.places.on_synced(),
        }
    }

    fn send_marks(&mut self) {
        while let Some((conv, read)) = self.marks.first_key_value().map(|(conv, read)| (*conv, *read)) {
            let Some(rid) = self.asks.ask(Asked::Mark) else { return };
            self.marks.remove(&conv);
            self.write(&json!({"msgType": 49, "conv": conv.to_string(), "read": read, "rid": rid}));
        }
    }

    // Requests of the application

    /// Notes a new message in the outbox.
    pub(crate) fn outbox_has_grown(&mut self, conv: Conv) {
        self.lanes.grown(conv);
    }

    /// The messages to read from the outbox now, for [`Machine::send`].
    pub(crate) fn wanted(&mut self, now: Instant) -> Option<Wanted> {
        if !self.is_live() || self.out.len() > OUT_MAX {
            return None;
        }
        self.lanes.wanted(now)
    }

    /// Sends messages: the row, the `cid` and the frame of each.
    pub(crate) fn send(&mut self, wanted: Wanted, rows: Vec<(i64, String, String)>) {
        let (fitting, too_long): (Vec<_>, Vec<_>) =
            rows.iter().partition(|(_, _, frame)| frame.len() <= self.frame_max);
        for (_, _, frame) in &fitting {
            self.out.extend_from_slice(frame.as_bytes());
            self.out.push(b'\n');
        }
        self.lanes.sent(wanted, rows.iter().map(|(row, cid, _)| (*row, cid.clone())));
        for (_, cid, frame) in too_long {
            self.lanes.answered(cid);
            let error = Error::TooLong { bytes: frame.len(), max: self.frame_max };
            self.refuse(wanted.conv, cid, Refusal { errno: 413, errmsg: error.to_string(), retry_after: None });
        }
    }

    /// Sends a request; its answer has this number.
    pub(crate) fn ask(&mut self, ask: u64, request: Value) {
        self.ask_for(Asked::Application(ask), ask, request);
    }

    /// Requests a page of history below a number, or the newest one.
    pub(crate) fn ask_for_page(&mut self, ask: u64, conv: Conv, before: Option<u64>, limit: u64) {
        let mut request = json!({"msgType": 48, "conv": conv.to_string(), "limit": limit.clamp(1, 200)});
        if let Some(before) = before {
            request["before"] = json!(before);
        }
        self.ask_for(Asked::Page { ask, conv, before }, ask, request);
    }

    fn ask_for(&mut self, asked: Asked, ask: u64, mut request: Value) {
        if !self.is_live() {
            return self.done.answers.push((ask, Err(Error::Offline)));
        }
        // Requests of level 1 name their sender; others ignore it.
        request["FROMID"] = json!(self.user);
        let bytes = request.to_string().len() + 32;
        if bytes > self.frame_max {
            let error = Error::TooLong { bytes, max: self.frame_max };
            return self.done.answers.push((ask, Err(error)));
        }
        match self.asks.ask(asked) {
            Some(rid) => {
                request["rid"] = rid;
                self.write(&request);
            }
            None => self.done.answers.push((ask, Err(Error::Busy))),
        }
    }

    /// Marks messages as read up to a number. The mark is in the store already.
    pub(crate) fn mark_read(&mut self, conv: Conv, read: u64) {
        let mark = self.marks.entry(conv).or_default();
        *mark = (*mark).max(read);
        if self.stage == Stage::Online {
            self.send_marks();
        }
    }

    /// Asks for the own mark and the number of unread messages in a conversation of another
    /// history, which ends at `head`. No 43 will tell them. A 49 with 0 raises no mark.
    fn learn_mark(&mut self, conv: Conv, head: u64) {
        let mark = self.marks.entry(conv).or_default();
        if *mark > head {
            *mark = 0;
        }
        self.send_marks();
    }

    /// Shows that the user is typing.
    pub(crate) fn typing(&mut self, conv: Conv, now: Instant) {
        let is_due = self.typed.get(&conv).is_none_or(|last| now >= *last + TYPING_EVERY);
        if self.stage == Stage::Online && is_due && self.out.len() < OUT_MAX {
            self.typed.insert(conv, now);
            self.write(&json!({"msgType": 51, "conv": conv.to_string(), "event": "typing"}));
        }
    }

    /// Shows which of these users are online, and every change.
    pub(crate) fn watch(&mut self, users: Vec<i64>) {
        self.watched = users;
        if self.stage == Stage::Online {
            self.send_watch();
        }
    }

    fn send_watch(&mut self) {
        self.write(&json!({"msgType": 52, "watch": self.watched}));
    }

    fn write(&mut self, frame: &Value) {
        self.out.extend_from_slice(frame.to_string().as_bytes());
        self.out.push(b'\n');
    }

    fn refuse(&mut self, conv: Conv, cid: &str, refusal: Refusal) {
        let Refusal { errno, errmsg, .. } = refusal.clone();
        self.done.changes.push(Change::Refused { cid: cid.to_owned(), errno, errmsg: errmsg.clone() });
        self.done.events.push(Event::Refused { conv, cid: cid.to_owned(), errno, message: errmsg });
        self.done.outcomes.push(Outcome { cid: cid.to_owned(), result: Err(refusal) });
    }
}
