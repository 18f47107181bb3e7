//! [`Log`]: one conversation in the database of a client.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::frame::{Body, Message, Seq};
use super::{Checked, Store, ensure};

/// The messages of one conversation that a client holds, and how far it has come.
#[derive(Clone, Default, Debug)]
pub struct Log {
    /// The number of the last message that was shown in order.
    pub cursor: u64,
    /// The tag of that message; `None` if the client has been shown nothing.
    pub tag: Option<String>,
    /// Each message once, with its edits and its recall applied.
    pub messages: BTreeMap<u64, Message>,
    /// The errno with which the server said that the conversation no longer belongs to the user.
    pub closed: Option<i64>,
}

/// The place of a message among those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The message is the next one, or one that the client has.
    Next,
    /// The message begins a run; the numbers between it and the cursor are in a gap.
    Jump,
    /// The message is beyond what the client has asked for: the client checks it and drops it.
    Forget,
}

/// The members of a sender's frame that a client reads.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Peek {
    pub(super) msg_type: Option<Value>,
    pub(super) cid: Option<Value>,
    pub(super) edit: Option<Value>,
    pub(super) recall: Option<Value>,
    pub(super) event: Option<Value>,
    #[serde(rename = "USERID")]
    pub(super) user: Option<Value>,
}

impl Peek {
    pub(super) fn at(body: &Body) -> Peek {
        serde_json::from_str(&body.0).unwrap_or_default()
    }
}

impl Log {
    /// The numbers above `floor` and up to the cursor whose messages the client lacks.
    pub fn missing(&self, floor: u64) -> Vec<u64> {
        (floor + 1..=self.cursor).filter(|seq| !self.messages.contains_key(seq)).collect()
    }

    /// The cursor in the form that `have` takes.
    pub fn have(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.cursor))
    }

    /// The texts (`msg`) of the messages, in order.
    pub fn texts(&self) -> Vec<String> {
        let texts = self.messages.values().map(|message| message.m.value()["msg"].clone());
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Takes a message that the server shows in order, and moves the cursor to it.
    pub(super) fn take(&mut self, message: Message, step: Step) -> Checked<()> {
        let seq = message.seq.0;
        if step == Step::Forget {
            return Ok(());
        }
        if seq > self.cursor {
            ensure(step == Step::Jump || seq == self.cursor + 1, || {
                format!("a hole in the store between {} and {seq}", self.cursor)
            })?;
            self.cursor = seq;
            self.tag = Some(message.tag.0.clone());
        }
        self.merge(message)
    }

    /// Takes a message with any number, as pages show them.
    pub(super) fn merge(&mut self, message: Message) -> Checked<()> {
        let seq = message.seq.0;
        if let Some(known) = self.messages.get(&seq) {
            agree(known, &message)?;
            if state(known) > state(&message) {
                return Ok(());
            }
        }
        let is_fresh = message.edited.is_none() && message.recalled.is_none();
        let peek = if is_fresh { Peek::at(&message.m) } else { Peek::default() };
        let (from, body) = (message.from, message.m.clone());
        self.messages.insert(seq, message);
        let target = |member: &Option<Value>| member.as_ref().and_then(Value::as_u64).filter(|target| *target < seq);
        if let Some(target) = target(&peek.edit) {
            self.edit(target, from, seq, body);
        }
        if let Some(target) = target(&peek.recall) {
            self.recall(target, from, seq);
        }
        Ok(())
    }

    fn edit(&mut self, target: u64, from: i64, by: u64, body: Body) {
        let Some(message) = self.messages.get_mut(&target).filter(|message| message.from == from) else { return };
        if message.recalled.is_none() && message.edited.is_none_or(|edited| edited.0 < by) {
            (message.edited, message.m) = (Some(Seq(by)), body);
        }
    }

    /// Applies a recall, which empties the message and all its edits.
    fn recall(&mut self, target: u64, from: i64, by: u64) {
        for (seq, message) in self.messages.range_mut(target..by) {
            let edits = || Peek::at(&message.m).edit.and_then(|edit| edit.as_u64());
            if message.from == from && (*seq == target || edits() == Some(target)) {
                message.recalled = Some(Seq(by));
                message.edited = None;
                message.m = Body("null".to_owned());
            }
        }
    }
}

/// The numbers of the recall and of the last edit of a message.
fn state(message: &Message) -> (Option<Seq>, Option<Seq>) {
    (message.recalled, message.edited)
}

/// Checks that one number shows the same message twice.
fn agree(known: &Message, other: &Message) -> Checked<()> {
    let same = known.tag == other.tag && known.time == other.time && known.from == other.from;
    let same = same && known.imported == other.imported;
    ensure(same && (state(known) != state(other) || known.m == other.m), || {
        format!("number {} was {known:?} and is {other:?}", known.seq.0)
    })
}

/// Panics if two clients have different messages under one number. A message that one of them lacks
/// is not compared. Each client has its own name for the conversation.
pub fn assert_agree(one: &Store, conv: &str, other: &Store, other_conv: &str) {
    let (Some(one), Some(other)) = (one.log(conv), other.log(other_conv)) else { return };
    for (seq, message) in &one.messages {
        if let Some(theirs) = other.messages.get(seq) {
            agree(message, theirs).unwrap_or_else(|mistake| panic!("two members disagree: {mistake:?}"));
        }
    }
}
