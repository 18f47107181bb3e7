//! [`HookBatch`]: the messages of one request, and its signature.

use std::fmt::Write as _;

use ring::hmac;

use crate::protocol::UserId;
use crate::store::history::HistoryEntry;
use crate::store::hooks::HookRow;

/// The body of a request while it is written: `{"messages":[…]}`, with the keys of a message in the
/// order of bytes.
#[derive(Default)]
pub(super) struct HookBatch {
    body: String,
    messages: usize,
}

impl HookBatch {
    /// Adds a message for one recipient, unless the body would become too long; one message always
    /// fits. Returns whether it was added.
    pub(super) fn add(&mut self, row: &HookRow, entry: &HistoryEntry, user: UserId) -> bool {
        let Some(text) = &entry.text else { return true };
        if self.messages > 0 && self.body.len() + text.len() > BODY_BYTES_MAX {
            return false;
        }
        let comma = if self.messages > 0 { "," } else { "" };
        // Writing to a string never fails.
        let _ = write!(
            self.body,
            r#"{comma}{{"conv":"{}","from":{},"m":{text},"seq":{},"time":{},"user":{user}}}"#,
            row.conv.name_for(user),
            entry.from,
            entry.seq,
            entry.time,
        );
        self.messages += 1;
        true
    }

    /// The number of messages.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// The whole body.
    pub(super) fn into_body(self) -> String {
        format!(r#"{{"messages":[{}]}}"#, self.body)
    }
}

/// The signature of a body: HMAC-SHA256 of the time, a dot and the body, in hexadecimal digits.
pub(super) fn signature(key: &str, timestamp: u64, body: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
    context.update(format!("{timestamp}.").as_bytes());
    context.update(body.as_bytes());
    let mut digits = String::with_capacity(64);
    for byte in context.sign().as_ref() {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The length at which a body is full. One message may be longer.
const BODY_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::conversation::{ConversationId, Tag};

    fn entry(text: &str) -> HistoryEntry {
        HistoryEntry {
            seq: 43,
            from: UserId(7),
            time: 1_789_891_200_123,
            tag: Tag(1),
            text: Some(text.to_owned()),
            edited: None,
            recalled: None,
            is_imported: false,
        }
    }

    fn row(conv: ConversationId) -> HookRow {
        HookRow { id: 1, sender: UserId(7), conv, seq: 43, time: 0, member: UserId(0) }
    }

    #[test]
    fn a_conversation_has_the_name_that_its_recipient_uses() {
        let mut batch = HookBatch::default();
        let pair = row(ConversationId::between(UserId(7), UserId(9)));
        assert!(batch.add(&pair, &entry(r#"{"msg":"hi"}"#), UserId(9)));
        let group = row(ConversationId::of_group(crate::protocol::GroupId(3)));
        assert!(batch.add(&group, &entry("{}"), UserId(8)));
        assert_eq!(batch.messages(), 2);
        assert_eq!(
            batch.into_body(),
            r#"{"messages":[{"conv":"u7","from":7,"m":{"msg":"hi"},"seq":43,"time":1789891200123,"user":9},{"conv":"g3","from":7,"m":{},"seq":43,"time":1789891200123,"user":8}]}"#
        );
    }

    #[test]
    fn a_body_is_bounded_but_takes_one_message_of_any_length() {
        let (pair, long) = (row(ConversationId::between(UserId(7), UserId(9))), format!("\"{}\"", "x".repeat(300_000)));
        let mut batch = HookBatch::default();
        assert!(batch.add(&pair, &entry(&long), UserId(9)));
        assert!(!batch.add(&pair, &entry("{}"), UserId(9)));
        assert_eq!(batch.messages(), 1);
    }

    #[test]
    fn a_signature_is_that_of_openssl() {
        // printf '1789891200.{"messages":[]}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let signed = signature("0123456789abcdef0123456789abcdef", 1_789_891_200, r#"{"messages":[]}"#);
        assert_eq!(signed, "b262d0f0b8807d70935055974a69d0fea3e554abce9536ec21dd0228e542de16");
    }
}
