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
    /// Its tag; `None` if the client has been shown nothing.
    pub tag: Option<String>,
    /// Each message once, as it looks after its edits and its recall.
    pub messages: BTreeMap<u64, Message>,
    /// The errno with which the server said that the conversation is not the user's.
    pub closed: Option<i64>,
}

/// How a message stands to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It is the next one, or one that the client has.
    Next,
    /// It begins a run: what is between it and the cursor is in a gap.
    Jump,
    /// It is beyond what the client has asked for: the client looks at it and forgets it.
    Forget,
}

/// What a client looks at in a sender's frame.
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
    /// Numbers above `floor` that the client has passed and does not hold.
    pub fn missing(&self, floor: u64) -> Vec<u64> {
        (floor + 1..=self.cursor).filter(|seq| !self.messages.contains_key(seq)).collect()
    }

    /// The cursor as `have` takes it.
    pub fn have(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.cursor))
    }

    /// The texts (`msg`) of its messages, in order.
    pub fn texts(&self) -> Vec<String> {
        let texts = self.messages.values().map(|message| message.m.value()["msg"].clone());
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Takes a message that the server shows in order, and moves the cursor.
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

    /// Takes a message that may be anywhere, as pages show it.
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

    /// A recall empties the message and all its edits.
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

/// The number of the last change of a message.
fn state(message: &Message) -> (Option<Seq>, Option<Seq>) {
    (message.recalled, message.edited)
}

/// Two looks at one number show one message.
fn agree(known: &Message, other: &Message) -> Checked<()> {
    let same = known.tag == other.tag && known.time == other.time && known.from == other.from;
    let same = same && known.imported == other.imported;
    ensure(same && (state(known) != state(other) || known.m == other.m), || {
        format!("number {} was {known:?} and is {other:?}", known.seq.0)
    })
}

/// Panics if two clients have different messages under one number. What one of them does not hold
/// is not compared. The second conversation is the first as the other client calls it.
pub fn assert_agree(one: &Store, conv: &str, other: &Store, other_conv: &str) {
    let (Some(one), Some(other)) = (one.log(conv), other.log(other_conv)) else { return };
    for (seq, message) in &one.messages {
        if let Some(theirs) = other.messages.get(seq) {
            agree(message, theirs).unwrap_or_else(|mistake| panic!("two members disagree: {mistake:?}"));
        }
    }
}
