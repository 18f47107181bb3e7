//! [`Body`]: what a client looks at in a sender's frame. The server vouches for none of it.

use serde::Deserialize;
use serde_json::Value;

/// The members of a message that mean something.
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
    /// Looks at a frame; nothing is understood of one that is empty or strange.
    pub(crate) fn of(m: Option<&str>) -> Body {
        m.and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default()
    }

    /// The type of the message.
    pub(crate) fn kind(&self) -> Option<i64> {
        self.kind.as_i64()
    }

    /// The number of the message that it edits.
    pub(crate) fn edit(&self) -> Option<u64> {
        self.edit.as_u64()
    }

    /// The number of the message that it recalls.
    pub(crate) fn recall(&self) -> Option<u64> {
        self.recall.as_u64()
    }

    /// Whether this user joins a group with it.
    pub(crate) fn is_join_of(&self, user: i64) -> bool {
        let event = self.event.as_str();
        self.kind() == Some(57) && matches!(event, Some("joined" | "created")) && self.user.as_i64() == Some(user)
    }

    /// Whether it counts as unread: a chat, neither an edit nor a recall.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.kind(), Some(4 | 9)) && self.edit.is_null() && self.recall.is_null()
    }
}
