//! [`Body`]: the members of a sender's frame that a client reads. The server vouches for none of
//! them.

use serde::Deserialize;
use serde_json::Value;

/// The members of a message that have a meaning for the client.
#[derive(Deserialize, Clone, Default, Debug)]
pub(crate) struct Body {
    #[serde(default, rename = "msgType")]
    kind: Value,
    #[serde(default)]
    edit: Value,
    #[serde(default)]
    recall: Value,
    #[serde(default)]
    event: Value,
    #[serde(default, rename = "USERID")]
    user: Value,
}

impl Body {
    /// Reads a frame. An empty or unknown one gives no members.
    pub(crate) fn of(m: Option<&str>) -> Body {
        m.and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default()
    }

    /// The type of the message.
    pub(crate) fn kind(&self) -> Option<i64> {
        self.kind.as_i64()
    }

    /// The number of the message that this one edits.
    pub(crate) fn edit(&self) -> Option<u64> {
        self.edit.as_u64()
    }

    /// The number of the message that this one recalls.
    pub(crate) fn recall(&self) -> Option<u64> {
        self.recall.as_u64()
    }

    /// Whether the message says that this user joins a group.
    pub(crate) fn is_join_of(&self, user: i64) -> bool {
        let event = self.event.as_str();
        self.kind() == Some(57) && matches!(event, Some("joined" | "created")) && self.user.as_i64() == Some(user)
    }

    /// Whether the message counts as unread: a chat, neither an edit nor a recall.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.kind(), Some(4 | 9)) && self.edit.is_null() && self.recall.is_null()
    }
}
