//! [`StoredFrame`]: the facts in a frame that waits in a mailbox. The frame may be years old, and
//! any server may have written it.

use std::borrow::Cow;

use serde::Deserializer as _;
use serde_json::Value;

use super::Id;
use super::parse::Skip;
use crate::base::conversation::ConversationId;
use crate::base::ids::{GroupId, UserId};

/// A frame of level 1 as it was stored for a recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredFrame {
    /// The sender, as the frame claims.
    pub from: UserId,
    /// The group it was sent to.
    pub group: Option<GroupId>,
    /// Whether it is of type 4 or 9.
    pub is_message: bool,
    /// The client's id of the message, if it was sent at level 2.
    pub cid: Option<Cow<'static, str>>,
}

impl StoredFrame {
    /// Reads a frame; `None` unless it is one of 4, 5, 6 and 9 and names its sender.
    pub fn read(text: &str) -> Option<StoredFrame> {
        let Value::Object(members) = serde_json::from_str(text).ok()? else { return None };
        let user = |key| Id(members.get(key)?.as_i64()?).user();
        let (from, group) = match members.get("msgType")?.as_i64()? {
            4 | 5 => (user("FROMID")?, None),
            6 => (user("userId")?, None),
            9 => (user("FROMID")?, Some(GroupId(user("GROUPID")?.0))),
            _ => return None,
        };
        let is_message = matches!(members.get("msgType")?.as_i64()?, 4 | 9);
        let cid = members.get("cid").and_then(Value::as_str).map(|cid| cid.to_owned().into());
        Some(StoredFrame { from, group, is_message, cid })
    }

    /// The frame's conversation, if it waits for `owner`.
    pub fn conv(&self, owner: UserId) -> ConversationId {
        self.group.map_or_else(|| ConversationId::between(self.from, owner), ConversationId::of_group)
    }
}

/// Whether a text is one JSON object by the rules for frames of clients.
pub fn is_object(text: &str) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    // The limit of levels 1 and 2 is one higher than the parser's.
    json.disable_recursion_limit();
    json.deserialize_map(Skip { level: 1 }).and_then(|()| json.end()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::{friend_request, new_friend};
    use super::*;

    #[test]
    fn an_object_obeys_the_rules_for_frames() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            is_object(&format!(r#"{{"x":{open}{close}}}"#))
        };
        assert_eq!((nested(net::NESTING_MAX), nested(net::NESTING_MAX + 1), nested(100_000)), (true, false, false));
        for (text, expected) in [
            ("{}", true),
            (" \n{\"a\":[1,{}],\n\"a\":\"\\ud83d\\ude00\"} ", true),
            ("", false),
            ("[]", false),
            ("null", false),
            ("{", false),
            ("{}{}", false),
            (r#"{"a":1e400}"#, false),
            (r#"{"a":"\ud83d"}"#, false),
        ] {
            assert_eq!(is_object(text), expected, "{text}");
        }
    }

    #[test]
    fn a_frame_says_who_sent_it_and_where_it_belongs() {
        let read =
            |text: &str| StoredFrame::read(text).map(|frame| (frame.from.0, frame.conv(UserId(9)), frame.is_message));
        let with = |user| ConversationId::between(UserId(user), UserId(9));
        let cases = [
            (r#"{"FROMID":7,"TOID":9,"msg":"a","msgType":4}"#, Some((7, with(7), true))),
            // Others may be named in it: the mailbox is the recipient's.
            (r#"{"FROMID":7,"TOID":8,"msgType":5}"#, Some((7, with(7), false))),
            (r#"{"FROMID":9,"TOID":9,"msgType":4}"#, Some((9, with(9), true))),
            (r#"{"FROMID":7,"GROUPID":3,"msgType":9}"#, Some((7, ConversationId::of_group(GroupId(3)), true))),
            // The last of repeated members counts.
            (r#"{"FROMID":1,"TOID":9,"msgType":4,"FROMID":7}"#, Some((7, with(7), true))),
            (r#"{"TOID":9,"msgType":4}"#, None),
            (r#"{"FROMID":"7","TOID":9,"msgType":4}"#, None),
            (r#"{"FROMID":0,"msgType":4}"#, None),
            (r#"{"FROMID":4294967303,"msgType":4}"#, None),
            (r#"{"FROMID":7,"GROUPID":-3,"msgType":9}"#, None),
            (r#"{"FROMID":7,"msgType":9}"#, None),
            (r#"{"FROMID":7,"msgType":14}"#, None),
            (r#"{"FROMID":7,"msgType":"4"}"#, None),
            ("[4]", None),
            (r#"{"FROMID":7,"msgType":4"#, None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(read(&new_friend(UserId(7), "ann")), Some((7, with(7), false)));
        assert_eq!(read(&friend_request(UserId(7), "ann")), Some((7, with(7), false)));
        let cid = |text: &str| StoredFrame::read(text).and_then(|frame| frame.cid);
        assert_eq!(cid(r#"{"FROMID":7,"cid":"c1","msgType":4}"#).as_deref(), Some("c1"));
        assert_eq!(cid(r#"{"FROMID":7,"cid":1,"msgType":4}"#), None);
    }
}
