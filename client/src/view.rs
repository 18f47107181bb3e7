//! What an application sees of the store: [`Conversation`], [`Message`], [`Pending`], [`History`].

use serde_json::Value;

use crate::conv::Conv;

/// A conversation as the list of conversations shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Which one.
    pub conv: Conv,
    /// The name of the partner or of the group, if it is known.
    pub name: Option<String>,
    /// Messages of others that are not read.
    pub unread: u64,
    /// The number up to which the user has read.
    pub read: u64,
    /// The last number that the server has named.
    pub head: u64,
    /// The last number that has come to the store.
    pub held: u64,
    /// What the partner has read.
    pub peer_read: u64,
    /// What some device of the partner has stored.
    pub peer_recv: u64,
    /// Messages that wait in the outbox.
    pub pending: u64,
    /// Why it is not the user's any more: 403 or 404.
    pub closed: Option<i64>,
    /// When something was written last, in milliseconds since 1970.
    pub time: i64,
}

/// A message in the store, with its edits applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its conversation.
    pub conv: Conv,
    /// Its number, which is the same for everybody.
    pub seq: u64,
    /// The sender, by the server's word.
    pub from: i64,
    /// When it was committed, in milliseconds since 1970.
    pub time: i64,
    /// The sender's frame as JSON; `None` if it was recalled. Everything in it is what the sender claims.
    pub frame: Option<String>,
    /// The number of its newest edit.
    pub edited: Option<u64>,
    /// The number with which it was recalled.
    pub recalled: Option<u64>,
}

/// What a message is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Content {
    /// A text. It may hold any character, also control characters.
    Text(String),
    /// Its sender asks to be a friend.
    FriendRequest,
    /// Its sender has made the user a friend, or asks for it.
    MadeFriends,
    /// An event of the group, such as `joined`: what has happened, the user whom it concerns, and a name.
    GroupEvent {
        /// `created`, `joined`, `left`, `removed`, `creator`, `renamed` or `dissolved`.
        event: String,
        /// Whom it concerns.
        user: i64,
        /// The user's name; after `renamed` the group's.
        name: String,
    },
    /// It was recalled.
    Recalled,
    /// Something else: the frame says what.
    Other,
}

impl Message {
    /// What it is.
    pub fn content(&self) -> Content {
        let Some(frame) = &self.frame else { return Content::Recalled };
        let frame: Value = serde_json::from_str(frame).unwrap_or(Value::Null);
        let text = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
        match frame["msgType"].as_i64() {
            Some(4 | 9) => match &frame["msg"] {
                Value::String(text) => Content::Text(text.clone()),
                Value::Null => Content::Other,
                other => Content::Text(other.to_string()),
            },
            Some(5) => Content::FriendRequest,
            Some(6) => Content::MadeFriends,
            Some(57) => {
                let user = frame["USERID"].as_i64().unwrap_or(0);
                Content::GroupEvent { event: text("event"), user, name: text("name") }
            }
            _ => Content::Other,
        }
    }
}

/// A message in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Its conversation.
    pub conv: Conv,
    /// Its id.
    pub cid: String,
    /// The whole frame.
    pub frame: String,
    /// Why the server refuses it for good: the reason as a number and in words. `None` while it waits.
    pub refused: Option<(i64, String)>,
}

impl Pending {
    /// Its text.
    pub fn text(&self) -> String {
        let frame: Value = serde_json::from_str(&self.frame).unwrap_or(Value::Null);
        frame["msg"].as_str().unwrap_or_default().to_owned()
    }
}

/// A piece of a conversation without a hole.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct History {
    /// In ascending order.
    pub messages: Vec<Message>,
    /// Whether nothing older is kept.
    pub is_start: bool,
    /// Whether older messages are not in the store yet; the server has them.
    pub has_gap: bool,
}
