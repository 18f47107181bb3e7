//! Scripted connections of a checking client without a server, step by step.

use serde_json::{Value, json};

use testkit::level2::{Mistake, Session, Store};

/// One step of a connection.
pub enum Step {
    /// The client sends this frame.
    Sent(String),
    /// The server sends this frame.
    Got(String),
}

pub use Step::{Got, Sent};

pub const TIME: i64 = 1_789_891_201_000;

/// A connection of user 7, with a store and a session.
pub struct Talk {
    pub store: Store,
    session: Session,
}

impl Talk {
    pub fn new(store: Store, login: &Value) -> Talk {
        Talk { session: Session::new(login), store }
    }

    pub fn play(&mut self, step: &Step) -> Result<(), Mistake> {
        match step {
            Sent(text) => {
                self.session.on_sent(text, &mut self.store);
                Ok(())
            }
            Got(text) => self.session.on_frame(text, &mut self.store).map(drop),
        }
    }

    /// Plays steps, none of which may be a mistake.
    pub fn play_all(&mut self, steps: &[Step]) {
        for (at, step) in steps.iter().enumerate() {
            let text = match step {
                Sent(text) | Got(text) => text,
            };
            self.play(step).unwrap_or_else(|mistake| panic!("step {at}, {text}: {mistake:?}"));
        }
    }
}

/// The store of a device that holds 1 to 41 of u9 and 1 to 5 of g3.
pub fn held() -> Store {
    let mut talk = Talk::new(Store::new(7), &login(json!({})));
    talk.play_all(&[Got(welcome()), Got(overview("")), Got(synced())]);
    talk.play_all(&(1..=41).map(|seq| Got(push("u9", seq))).collect::<Vec<_>>());
    talk.play_all(&[Got(event("g3", 1, "joined", 7))]);
    talk.play_all(&(2..=5).map(|seq| Got(push("g3", seq))).collect::<Vec<_>>());
    talk.store
}

pub fn login(have: Value) -> Value {
    json!({"msgType": 1, "level": 2, "USERID": 7, "password": "x", "device": "d", "have": have})
}

pub fn welcome() -> String {
    let limits = r#"{"frame":65536,"inflight":256,"page":200}"#;
    format!(
        r#"{{"device":"d","errno":200,"level":2,"limits":{limits},"msgType":40,"name":"ann","ping":60,"token":"t","tokenExpires":{TIME},"user":7}}"#
    )
}

pub fn tag(seq: u64) -> String {
    format!("{:08x}", seq * 7919)
}

pub fn body(conv: &str, seq: u64) -> String {
    format!(r#"{{"msgType":4, "TOID":7,"cid":"{conv}m{seq}","msg":"{seq}"}}"#)
}

pub fn push(conv: &str, seq: u64) -> String {
    push_of(conv, seq, 9, &body(conv, seq))
}

pub fn push_of(conv: &str, seq: u64, from: i64, m: &str) -> String {
    let tag = tag(seq);
    format!(r#"{{"conv":"{conv}","from":{from},"m":{m},"msgType":42,"seq":{seq},"tag":"{tag}","time":{TIME}}}"#)
}

pub fn event(conv: &str, seq: u64, event: &str, user: i64) -> String {
    let m = format!(r#"{{"USERID":{user},"by":{user},"event":"{event}","msgType":57,"name":"ann"}}"#);
    push_of(conv, seq, user, &m)
}

pub fn ack(cid: &str, conv: &str, seq: u64) -> String {
    let tag = tag(seq);
    format!(r#"{{"cid":"{cid}","conv":"{conv}","errno":200,"msgType":41,"seq":{seq},"tag":"{tag}","time":{TIME}}}"#)
}

pub fn again(cid: &str, conv: &str, seq: u64) -> String {
    ack(cid, conv, seq).replacen('{', r#"{"again":true,"#, 1)
}

pub fn refused(cid: &str, errno: i64) -> String {
    format!(r#"{{"cid":"{cid}","errmsg":"no","errno":{errno},"msgType":41}}"#)
}

pub fn refused_for_now(cid: &str) -> String {
    format!(r#"{{"cid":"{cid}","errmsg":"no","errno":503,"msgType":41,"retryAfter":2.5}}"#)
}

pub fn send(cid: &str, to: i64) -> Step {
    Sent(format!(r#"{{"msgType":4,"TOID":{to},"cid":"{cid}"}}"#))
}

pub fn overview(convs: &str) -> String {
    format!(r#"{{"convs":[{convs}],"more":false,"msgType":43}}"#)
}

/// A conversation in a 43.
pub fn line(conv: &str, head: u64) -> String {
    line_of(conv, 0, head, &tag(head))
}

pub fn line_of(conv: &str, floor: u64, head: u64, tag: &str) -> String {
    let kind = if conv.starts_with('u') { "user" } else { "group" };
    let (first, rest) = (format!(r#""conv":"{conv}","floor":{floor},"head":{head},"kind":"{kind}""#), "\"unread\":0");
    format!(r#"{{{first},"name":null,"read":{floor},"tag":"{tag}",{rest}}}"#)
}

/// A conversation in a 43 of which the client holds nothing.
pub fn new_line(conv: &str, head: u64) -> String {
    let last = push(conv, head).replace(&format!(r#""conv":"{conv}","#), "").replace(r#""msgType":42,"#, "");
    line(conv, head).replace(r#""name""#, &format!(r#""last":{last},"name""#))
}

pub fn run(conv: &str, from: u64, to: u64) -> String {
    format!(r#"{{"complete":true,"conv":"{conv}","from":{from},"msgType":44,"to":{to}}}"#)
}

pub fn gap_run(conv: &str, gap: (u64, u64), from: u64, to: u64) -> String {
    let (first, last) = gap;
    format!(r#"{{"complete":false,"conv":"{conv}","from":{from},"gap":[{first},{last}],"msgType":44,"to":{to}}}"#)
}

pub fn reset(conv: &str, from: u64, to: u64) -> String {
    run(conv, from, to).replace(r#""to""#, r#""reset":true,"to""#)
}

pub fn run_refused(conv: &str, errno: i64) -> String {
    format!(r#"{{"conv":"{conv}","errmsg":"no","errno":{errno},"msgType":44}}"#)
}

pub fn synced() -> String {
    r#"{"msgType":45,"synced":true}"#.to_owned()
}

pub fn synced_for(rid: &str) -> String {
    format!(r#"{{"msgType":45,"rid":"{rid}","synced":true}}"#)
}

pub fn page(conv: &str, seqs: std::ops::RangeInclusive<u64>, complete: bool, head: u64) -> String {
    let (from, to) = (*seqs.start(), *seqs.end());
    let text = |seq| push(conv, seq).replace(&format!(r#""conv":"{conv}","#), "").replace(r#""msgType":42,"#, "");
    let msgs = seqs.map(text).collect::<Vec<_>>().join(",");
    let (first, then) = (format!(r#""complete":{complete},"conv":"{conv}","errno":200,"floor":0"#), r#""msgType":48"#);
    format!(r#"{{{first},"from":{from},"head":{head},{then},"msgs":[{msgs}],"rid":"h","to":{to}}}"#)
}

pub fn ask_page(more: &str) -> Step {
    Sent(format!(r#"{{"msgType":48,"conv":"u9",{more}"rid":"h"}}"#))
}

pub fn farewell(reason: &str, errno: i64, more: &str) -> String {
    format!(r#"{{"errmsg":"x","errno":{errno},"msgType":55,"reason":"{reason}"{more}}}"#)
}

/// The steps until the device knows that u9 is at 43. It holds u9 up to 41 and g3 up to 5.
pub fn behind() -> Vec<Step> {
    vec![Got(welcome()), Got(overview(&[line("u9", 43), line("g3", 5)].join(",")))]
}

/// Like [`behind`], up to the end of the synchronisation.
pub fn live() -> Vec<Step> {
    let rest = [run("u9", 42, 43), push("u9", 42), push("u9", 43), synced()];
    behind().into_iter().chain(rest.map(Got)).collect()
}

pub fn with(mut steps: Vec<Step>, more: impl IntoIterator<Item = Step>) -> Vec<Step> {
    steps.extend(more);
    steps
}

/// Plays steps for the device of [`held`].
pub fn played(steps: &[Step]) -> Talk {
    let store = held();
    let login = login(store.have());
    let mut talk = Talk::new(store, &login);
    talk.play_all(steps);
    talk
}
