//! [`Store`]: the database of a client, which outlives its connections.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::frame::{Ack, Body, Message};
use super::losses::Losses;
use super::messages::{Log, Peek, Step};
use super::{Checked, Mistake, ensure};

/// The state of one device of a user: its conversations, and its messages that are not acknowledged
/// yet.
#[derive(Clone, Default, Debug)]
pub struct Store {
    /// The user's id.
    pub me: i64,
    /// Conversations by their names.
    pub logs: BTreeMap<String, Log>,
    /// Messages that are not acknowledged, in the order sent.
    pub outbox: Vec<Outgoing>,
    /// The numbers that this device has reported with 47, by conversation.
    pub reported: BTreeMap<String, u64>,
    /// The deviations from the contract that servers of this test may show.
    pub allowed: Allowed,
    /// The messages that the database once had and has lost since.
    pub losses: Losses,
    /// The place of each acknowledged message.
    acked: HashMap<String, Place>,
    /// The place of each message with a `cid`, by sender and `cid`.
    placed: HashMap<(i64, String), (String, u64)>,
}

/// A message that is not acknowledged yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    pub conv: String,
    pub cid: String,
    /// The whole frame, so that a retry has the same bytes.
    pub text: String,
}

/// Permissions that servers have only in some tests.
#[derive(Clone, Copy, Default, Debug)]
pub struct Allowed {
    /// Old messages may be deleted, which raises floors.
    pub trims: bool,
    /// The user leaves groups while the notice of it is late. An answer to a 46 may say before the
    /// notice that a group is no longer the user's.
    pub closes: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    conv: String,
    seq: u64,
    tag: String,
    time: i64,
}

impl Store {
    /// Stands for a user whom a JSON web token may make. The login tells the id.
    pub const NEW_USER: i64 = 0;

    /// An empty store.
    pub fn new(me: i64) -> Store {
        Store { me, ..Store::default() }
    }

    /// A conversation, if the client holds anything of it.
    pub fn log(&self, conv: &str) -> Option<&Log> {
        self.logs.get(conv)
    }

    /// The texts of the messages of a conversation, in order.
    pub fn texts(&self, conv: &str) -> Vec<String> {
        self.logs.get(conv).map(Log::texts).unwrap_or_default()
    }

    /// The number of the last message of a conversation; 0 if there is none.
    pub fn cursor(&self, conv: &str) -> u64 {
        self.logs.get(conv).map_or(0, |log| log.cursor)
    }

    /// The cursors for a login.
    pub fn have(&self) -> Value {
        let cursors = self.logs.iter().filter(|(_, log)| log.closed.is_none());
        let cursors = cursors.filter_map(|(conv, log)| Some((conv.clone(), Value::from(log.have()?))));
        Value::Object(cursors.collect::<Map<_, _>>())
    }

    /// The number under which a `cid` was acknowledged.
    pub fn acked(&self, cid: &str) -> Option<u64> {
        self.acked.get(cid).map(|place| place.seq)
    }

    /// Panics if an acknowledged message is not where its acknowledgement says.
    pub fn assert_all_acked_are_held(&self) {
        for (cid, place) in &self.acked {
            let message = self.logs.get(&place.conv).and_then(|log| log.messages.get(&place.seq));
            let is_it = message.is_some_and(|message| message.tag.0 == place.tag && message.from == self.me);
            assert!(is_it, "{cid} was acknowledged as {place:?}, and there is {message:?}");
        }
    }

    /// Notes a message that is sent for the first time.
    pub(super) fn post(&mut self, conv: &str, cid: &str, text: &str) {
        if !self.acked.contains_key(cid) && !self.outbox.iter().any(|outgoing| outgoing.cid == cid) {
            self.outbox.push(Outgoing { conv: conv.to_owned(), cid: cid.to_owned(), text: text.to_owned() });
        }
    }

    /// Drops a message that is refused for good.
    pub(super) fn give_up(&mut self, cid: &str) {
        self.outbox.retain(|outgoing| outgoing.cid != cid);
    }

    /// Notes the newest message of a conversation, as a 43 tells it.
    pub(super) fn adopt(&mut self, conv: &str, head: u64, tag: Option<&str>, last: Option<Message>) -> Checked<()> {
        let log = self.logs.entry(conv.to_owned()).or_default();
        (log.cursor, log.tag, log.closed) = (head, tag.map(str::to_owned), None);
        match last {
            Some(last) => self.keep(conv, last),
            None => Ok(()),
        }
    }

    /// Notes that the database has lost all messages of a conversation above this number that the
    /// client holds.
    pub fn lose_above(&mut self, conv: &str, seq: u64) {
        let held = self.logs.get(conv).into_iter().flat_map(|log| log.messages.range(seq + 1..));
        for (seq, message) in held {
            self.losses.lose(conv, *seq, &message.tag.0);
        }
    }

    /// Whether the client holds a lost message of a conversation.
    pub(super) fn holds_lost(&self, conv: &str) -> bool {
        self.losses.concerns(conv)
            && self.log(conv).is_some_and(|log| {
                let is_lost = |seq: u64, tag: &str| self.losses.has(conv, seq, tag);
                log.tag.as_ref().is_some_and(|tag| is_lost(log.cursor, tag))
                    || log.messages.iter().any(|(seq, message)| is_lost(*seq, &message.tag.0))
            })
    }

    /// Drops the messages held of a conversation, because they do not belong to the history of the
    /// server any more.
    pub(super) fn drop_all(&mut self, conv: &str) {
        self.logs.insert(conv.to_owned(), Log::default());
        self.placed.retain(|_, (placed, _)| placed != conv);
        self.acked.retain(|_, place| place.conv != conv);
    }

    pub(super) fn close(&mut self, conv: &str, errno: i64) {
        if let Some(log) = self.logs.get_mut(conv) {
            log.closed = Some(errno);
        }
    }

    /// Takes a message that the server shows in order.
    pub(super) fn take(&mut self, conv: &str, message: Message, step: Step) -> Checked<()> {
        self.place(conv, &message)?;
        let log = self.logs.entry(conv.to_owned()).or_default();
        log.closed = None;
        log.take(message, step)
    }

    /// Takes a message that a page shows.
    pub(super) fn keep(&mut self, conv: &str, message: Message) -> Checked<()> {
        self.place(conv, &message)?;
        self.logs.entry(conv.to_owned()).or_default().merge(message)
    }

    /// Notes that an own message is committed. `text` is its frame.
    pub(super) fn acknowledge(&mut self, ack: &Ack, text: &str, step: Step) -> Checked<()> {
        let place = Place { conv: ack.conv.0.clone(), seq: ack.seq.0, tag: ack.tag.0.clone(), time: ack.time.0 };
        match self.acked.get(&ack.cid) {
            Some(known) if !ack.again.0 => {
                return Err(Mistake(format!("{} is acknowledged anew, without again: {known:?}", ack.cid)));
            }
            Some(known) => ensure(*known == place, || format!("{} was {known:?} and is {place:?}", ack.cid))?,
            None => {}
        }
        // One of the two may be lost: the answer to a retry may come before the news of the loss.
        let is_lost = |tag: &str| ack.again.0 && self.losses.has(&ack.conv.0, ack.seq.0, tag);
        if let Some(message) = self.logs.get(&ack.conv.0).and_then(|log| log.messages.get(&ack.seq.0))
            && !is_lost(&ack.tag.0)
            && !is_lost(&message.tag.0)
        {
            let same = message.tag == ack.tag && message.time == ack.time && message.from == self.me;
            ensure(same, || format!("number {} is another message: {message:?}", ack.seq.0))?;
        }
        self.acked.insert(ack.cid.clone(), place);
        self.give_up(&ack.cid);
        if ack.again.0 {
            return Ok(());
        }
        let message = Message {
            edited: None,
            from: self.me,
            imported: super::frame::OnlyTrue(false),
            m: Body(text.to_owned()),
            recalled: None,
            seq: ack.seq,
            tag: ack.tag.clone(),
            time: ack.time,
        };
        self.take(&ack.conv.0, message, step)
    }

    /// Checks that one `cid` is one message.
    fn place(&mut self, conv: &str, message: &Message) -> Checked<()> {
        if message.edited.is_some() || message.imported.0 {
            return Ok(());
        }
        let Some(Value::String(cid)) = Peek::at(&message.m).cid else { return Ok(()) };
        if message.from == self.me
            && let Some(acked) = self.acked.get(&cid)
        {
            let same = acked.conv == conv && acked.seq == message.seq.0 && acked.tag == message.tag.0;
            ensure(same, || format!("{cid} was acknowledged as {acked:?}, and is {conv} {}", message.seq.0))?;
        }
        let place = (conv.to_owned(), message.seq.0);
        let known = self.placed.entry((message.from, cid.clone())).or_insert_with(|| place.clone());
        ensure(*known == place, || format!("{cid} is twice: {known:?} and {place:?}"))
    }
}
