//! An application's view of the store: [`Conversation`], [`Message`], [`Pending`], [`History`].

use serde_json::Value;

use crate::conv::Conv;

/// A conversation as the list of conversations shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// The conversation.
    pub conv: Conv,
    /// The name of the partner or of the group, if it is known.
    pub name: Option<String>,
    /// The number of unread messages of others.
    pub unread: u64,
    /// The number up to which the user has read.
    pub read: u64,
    /// The last number that the server has named.
    pub head: u64,
    /// The last number that has come to the store.
    pub held: u64,
    /// The last number that the partner has read.
    pub peer_read: u64,
    /// The last number that some device of the partner has stored.
    pub peer_recv: u64,
    /// The number of messages that wait in the outbox.
    pub pending: u64,
    /// The reason why the conversation no longer belongs to the user: 403 or 404.
    pub closed: Option<i64>,
    /// The time of the last message, in milliseconds since 1970.
    pub time: i64,
}

/// A message in the store, with its edits applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The conversation of the message.
    pub conv: Conv,
    /// The number of the message, the same for everybody.
    pub seq: u64,
    /// The sender, as the server vouches.
    pub from: i64,
    /// The time of the commit, in milliseconds since 1970.
    pub time: i64,
    /// The sender's frame as JSON; `None` if the message was recalled. The server vouches for
    /// nothing in it.
    pub frame: Option<String>,
    /// The number of the newest edit.
    pub edited: Option<u64>,
    /// The number of the recall.
    pub recalled: Option<u64>,
}

/// The content of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Content {
    /// A text. It may hold any character, also control characters.
    Text(String),
    /// The sender asks the user to be a friend.
    FriendRequest,
    /// The sender has made the user a friend, or asks for it.
    MadeFriends,
    /// An event of the group, such as `joined`: the kind, the user whom it concerns, and a name.
    GroupEvent {
        /// `created`, `joined`, `left`, `removed`, `creator`, `renamed` or `dissolved`.
        event: String,
        /// The user whom the event concerns.
        user: i64,
        /// The user's name; after `renamed` the group's.
        name: String,
    },
    /// The message was recalled.
    Recalled,
    /// Another content: see the frame.
    Other,
}

impl Message {
    /// The content.
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
    /// The reason for the final refusal, as a number and in words. `None` while the message waits.
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
    /// Whether no older message is kept.
    pub is_start: bool,
    /// Whether older messages are not in the store yet. The server has them.
    pub has_gap: bool,
}
