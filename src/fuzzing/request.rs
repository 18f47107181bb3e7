//! [`Request::parse`] against a parser that uses only `serde_json`.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::framing;
use crate::protocol::{self, BadRequest, FrameKind, Id, Request, Sender};

/// Takes the bytes as a frame.
pub fn request(frame: &[u8]) {
    let parsed = Request::parse(frame);
    let Some(members) = WrittenMembers::read(frame) else {
        assert_eq!(parsed, Err(BadRequest), "this is no good JSON");
        return;
    };
    let expected = members.expected();
    match &parsed {
        Err(BadRequest) => assert_eq!(expected, None, "it was refused"),
        Ok((kind, request)) => {
            assert_eq!(Some(Plain::of(request)), expected);
            assert_eq!(Some(*kind), members.id("msgType").map(FrameKind::of));
            if let Request::Chat { from: claimed, .. } = request {
                let from = members
                    .0
                    .get("FROMID")
                    .map(|_| members.id("FROMID").map_or(Sender::Malformed, |id| Sender::Claimed(Id(id))));
                assert_eq!(*claimed, from);
            }
            if let Request::OldChat { to, .. } = request {
                assert_eq!(to.ok().map(|to| to.0), members.id("TOID"));
            }
            if let Request::Chat { text, .. } | Request::OldChat { text, .. } | Request::GroupChat { text, .. } =
                request
            {
                members.assert_forwarded(&text.text(), matches!(request, Request::OldChat { .. }));
            }
        }
    }
}

/// The members of an object as written; the last one counts if a key is repeated.
pub(super) struct WrittenMembers(BTreeMap<String, Box<RawValue>>);

impl WrittenMembers {
    /// `None` for input that is not JSON, not an object, or nested too deeply.
    pub(super) fn read(frame: &[u8]) -> Option<WrittenMembers> {
        // Checked before any recursive parser runs.
        if framing::nesting(frame) > net::NESTING_MAX {
            return None;
        }
        let mut json = serde_json::Deserializer::from_slice(frame);
        json.disable_recursion_limit();
        let value = <Value as serde::Deserialize>::deserialize(&mut json).ok()?;
        json.end().ok()?;
        value.is_object().then(|| WrittenMembers(serde_json::from_slice(frame).expect("it is an object")))
    }

    pub(super) fn id(&self, key: &str) -> Option<i64> {
        let text = self.0.get(key)?.get();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // More digits than 64 bits can hold.
        let huge = digits.len() > 20;
        let number = if huge { i128::MAX } else { digits.parse().expect("it fits") };
        let number = if text.starts_with('-') { -number } else { number };
        Some(number.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }

    fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }

    /// The members that each type needs; `None` if one is missing or has a wrong type.
    fn expected(&self) -> Option<Plain> {
        let (name, ids, texts): (_, &[&str], &[&str]) = match self.id("msgType")? {
            1 => ("login", &["USERID"], &["password"]),
            2 => ("register", &[], &["name", "password"]),
            3 => ("logout", &["USERID"], &[]),
            4 | 5 => ("chat", &["TOID"], &[]),
            6 => ("add friend", &["U1", "U2"], &[]),
            7 => ("delete friend", &["FROMID", "TOID"], &[]),
            8 => ("contacts", &["FROMID"], &[]),
            9 => ("group chat", &["FROMID", "GROUPID"], &[]),
            10 => ("join group", &["FROMID", "GROUPID"], &[]),
            11 => ("groups of", &["FROMID"], &[]),
            12 => ("create group", &["FROMID"], &["name", "description"]),
            13 => ("groups named", &[], &["name"]),
            14 => ("fetch", &["FROMID"], &[]),
            15 => ("search", &[], &["keyword"]),
            100 if self.id("FROMID").is_some() && self.0.contains_key("TOID") => ("old chat", &["FROMID"], &[]),
            200 => ("ACK", &[], &[]),
            401 => ("BAD_REQUEST", &[], &[]),
            500 => ("SERVER_ERROR", &[], &[]),
            _ => ("NO_METHOD", &[], &[]),
        };
        Some(Plain {
            name,
            ids: ids.iter().map(|key| self.id(key)).collect::<Option<_>>()?,
            texts: texts.iter().map(|key| self.text(key)).collect::<Option<_>>()?,
        })
    }

    /// Checks the forwarded text: the same value, each member as written, on one line.
    fn assert_forwarded(&self, text: &str, with_type_4: bool) {
        assert!(!text.contains(['\n', '\r']), "a raw newline: {text}");
        let forwarded = WrittenMembers::read(text.as_bytes()).expect("what is sent on is good JSON");
        let mut sent = self.0.clone();
        if with_type_4 {
            sent.insert("msgType".to_owned(), RawValue::from_string("4".to_owned()).expect("a number"));
        }
        let written = |members: &BTreeMap<String, Box<RawValue>>| -> Vec<(String, String)> {
            let one_line = |text: &str| text.replace(['\n', '\r'], " ");
            members.iter().map(|(key, value)| (key.clone(), one_line(value.get()))).collect()
        };
        assert_eq!(written(&forwarded.0), written(&sent));
        for key in ["msgType", "FROMID", "TOID", "GROUPID"] {
            let counted = Counted::of(text, key);
            assert_eq!(counted, usize::from(sent.contains_key(key)), "{key} in {text}");
        }
    }
}

/// Counts how often an object has this member.
struct Counted<'k>(&'k str);

impl Counted<'_> {
    fn of(text: &str, key: &str) -> usize {
        let mut json = serde_json::Deserializer::from_str(text);
        serde::de::Deserializer::deserialize_map(&mut json, Counted(key)).expect("an object")
    }
}

impl<'de> serde::de::Visitor<'de> for Counted<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some((key, _)) = map.next_entry::<String, &RawValue>()? {
            count += usize::from(key == self.0);
        }
        Ok(count)
    }
}

/// A request without its borrowed parts.
#[derive(PartialEq, Eq, Debug)]
struct Plain {
    name: &'static str,
    ids: Vec<i64>,
    texts: Vec<String>,
}

impl Plain {
    fn of(request: &Request<'_>) -> Plain {
        let plain = |name, ids: &[Id], texts: &[&str]| Plain {
            name,
            ids: ids.iter().map(|id| id.0).collect(),
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        };
        match request {
            Request::Login { user, password, .. } => plain("login", &[*user], &[password]),
            Request::Register { name, password } => plain("register", &[], &[name, password]),
            Request::Logout { user } => plain("logout", &[*user], &[]),
            Request::Chat { to, .. } => plain("chat", &[*to], &[]),
            Request::OldChat { from, .. } => plain("old chat", &[*from], &[]),
            Request::AddFriend { a, b } => plain("add friend", &[*a, b.id], &[]),
            Request::DeleteFriend { user, friend } => plain("delete friend", &[*user, *friend], &[]),
            Request::Contacts { user } => plain("contacts", &[*user], &[]),
            Request::GroupChat { from, group, .. } => plain("group chat", &[*from, *group], &[]),
            Request::JoinGroup { user, group } => plain("join group", &[*user, group.id], &[]),
            Request::GroupsOf { user } => plain("groups of", &[*user], &[]),
            Request::CreateGroup { user, name, description } => plain("create group", &[*user], &[name, description]),
            Request::GroupsNamed { name } => plain("groups named", &[], &[name]),
            Request::FetchMessages { user } => plain("fetch", &[*user], &[]),
            Request::Search { keyword } => plain("search", &[], &[keyword]),
            Request::Fixed(protocol::ACK) => plain("ACK", &[], &[]),
            Request::Fixed(protocol::BAD_REQUEST) => plain("BAD_REQUEST", &[], &[]),
            Request::Fixed(protocol::SERVER_ERROR) => plain("SERVER_ERROR", &[], &[]),
            Request::Fixed(protocol::NO_METHOD) => plain("NO_METHOD", &[], &[]),
            Request::Fixed(other) => panic!("no fixed reply: {other}"),
        }
    }
}
