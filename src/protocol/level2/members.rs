//! [`Level2Members`]: one pass over a frame of level 2, as strict as the parser of level 1.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Rid;
use super::frames::Refusal;
use crate::protocol::parse::{MemberValue, Skip, Take};
use crate::protocol::{BadRequest, Id, Sender};

/// The members of requests, as in the frame. The last one counts if a key is repeated.
pub(super) struct Level2Members<'f> {
    frame: &'f str,
    values: [Value<'f>; KEYS.len()],
    /// Whether a key occurs more than once.
    pub(super) repeated: bool,
}

/// One member's value.
#[derive(Default)]
enum Value<'f> {
    #[default]
    Missing,
    Scalar(MemberValue<'f>),
    Bool(bool),
    /// A list, for [`DEEP`] members only.
    List(Vec<MemberValue<'f>>),
    /// An object, for [`DEEP`] members only.
    Pairs(Pairs<'f>),
}

/// The members of an object within a frame, in their order. A frame of 64 KiB has at most some
/// 13,000.
pub(super) type Pairs<'f> = Vec<(Cow<'f, str>, MemberValue<'f>)>;

/// The value of `have`.
pub(super) enum HaveValue<'f> {
    Missing,
    Text(Cow<'f, str>),
    Pairs(Pairs<'f>),
    Wrong,
}

impl<'f> Level2Members<'f> {
    /// Reads a frame.
    pub(super) fn read(frame: &'f str) -> Result<Level2Members<'f>, BadRequest> {
        let mut members = Level2Members { frame, values: std::array::from_fn(|_| Value::Missing), repeated: false };
        let mut json = serde_json::Deserializer::from_str(frame);
        // The visitors count the levels.
        json.disable_recursion_limit();
        json.deserialize_map(&mut members).and_then(|()| json.end()).map_err(|_| BadRequest)?;
        Ok(members)
    }

    fn value(&self, key: &'static str) -> &Value<'f> {
        &self.values[place(key).expect("it is in the list")]
    }

    fn take(&mut self, key: &'static str) -> Value<'f> {
        std::mem::take(&mut self.values[place(key).expect("it is in the list")])
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        !matches!(self.value(key), Value::Missing)
    }

    /// An integer; one beyond 64 bits becomes the nearest that fits. `Err` if there is none, or if
    /// the value is of another kind.
    pub(super) fn integer(&self, key: &'static str) -> Result<i64, BadRequest> {
        match self.value(key) {
            Value::Scalar(member) => member.id(self.frame, key).map(|id| id.0),
            Value::Missing | Value::Bool(_) | Value::List(_) | Value::Pairs(_) => Err(BadRequest),
        }
    }

    /// The integer, if the member is present.
    pub(super) fn maybe_integer(&self, key: &'static str) -> Result<Option<i64>, BadRequest> {
        if self.has(key) { self.integer(key).map(Some) } else { Ok(None) }
    }

    pub(super) fn id(&self, key: &'static str) -> Result<Id, BadRequest> {
        self.integer(key).map(Id)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Cow<'f, str>, BadRequest> {
        match self.take(key) {
            Value::Scalar(mut member) => member.text(),
            Value::Missing | Value::Bool(_) | Value::List(_) | Value::Pairs(_) => Err(BadRequest),
        }
    }

    pub(super) fn maybe_text(&mut self, key: &'static str) -> Result<Option<Cow<'f, str>>, BadRequest> {
        if self.has(key) { self.text(key).map(Some) } else { Ok(None) }
    }

    pub(super) fn maybe_bool(&self, key: &'static str) -> Result<Option<bool>, BadRequest> {
        match self.value(key) {
            Value::Missing => Ok(None),
            Value::Bool(value) => Ok(Some(*value)),
            Value::Scalar(_) | Value::List(_) | Value::Pairs(_) => Err(BadRequest),
        }
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<MemberValue<'f>>, BadRequest> {
        match self.take(key) {
            Value::List(list) => Ok(list),
            Value::Missing | Value::Scalar(_) | Value::Bool(_) | Value::Pairs(_) => Err(BadRequest),
        }
    }

    pub(super) fn pairs(&mut self, key: &'static str) -> Result<Pairs<'f>, BadRequest> {
        match self.take(key) {
            Value::Pairs(pairs) => Ok(pairs),
            Value::Missing | Value::Scalar(_) | Value::Bool(_) | Value::List(_) => Err(BadRequest),
        }
    }

    pub(super) fn have(&mut self) -> HaveValue<'f> {
        match self.take("have") {
            Value::Missing => HaveValue::Missing,
            Value::Pairs(pairs) => HaveValue::Pairs(pairs),
            Value::Scalar(MemberValue::Text(text)) => HaveValue::Text(text),
            Value::Scalar(_) | Value::Bool(_) | Value::List(_) => HaveValue::Wrong,
        }
    }

    /// The value of FROMID, if present.
    pub(super) fn sender(&self) -> Option<Sender> {
        self.has("FROMID").then(|| self.id("FROMID").map_or(Sender::Malformed, Sender::Claimed))
    }

    /// The client's id of the request, if it has one; the reply repeats it.
    pub(super) fn rid(&self) -> Option<Rid> {
        match self.value("rid") {
            Value::Scalar(MemberValue::Text(text)) => Rid::text(text),
            _ => self.integer("rid").ok().and_then(Rid::integer),
        }
    }
}

/// A 400 with advice for the client.
pub(super) const fn bad(errmsg: &'static str) -> Refusal {
    Refusal::forever(400, errmsg)
}

fn place(key: &str) -> Option<usize> {
    KEYS.binary_search(&key).ok()
}

/// The known members, in byte order. They include those of level 1, because a frame that is
/// forwarded to level 1 has each of them once.
const KEYS: [&str; 39] = [
    "FROMID",
    "GROUPID",
    "TOID",
    "U1",
    "U2",
    "USERID",
    "add",
    "after",
    "around",
    "ban",
    "before",
    "block",
    "byName",
    "cid",
    "conv",
    "description",
    "device",
    "edit",
    "event",
    "have",
    "jwt",
    "keyword",
    "level",
    "limit",
    "msgType",
    "name",
    "new",
    "password",
    "ping",
    "read",
    "recall",
    "receipts",
    "recv",
    "resume",
    "revoke",
    "rid",
    "text",
    "token",
    "watch",
];

/// The members whose lists and objects are stored.
const DEEP: [&str; 3] = ["have", "recv", "watch"];

impl<'f> Visitor<'f> for &mut Level2Members<'f> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'f>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(at) = map.next_key_seed(MemberKey)? {
            let Some(at) = at else {
                map.next_value_seed(Skip { level: 2 })?;
                continue;
            };
            let value = map.next_value_seed(Keep { is_deep: DEEP.contains(&KEYS[at]) })?;
            if !matches!(std::mem::replace(&mut self.values[at], value), Value::Missing) {
                self.repeated = true;
            }
        }
        Ok(())
    }
}

/// Finds the place of a key; `None` for a key that no request has.
struct MemberKey;

impl<'f> DeserializeSeed<'f> for MemberKey {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberKey {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(place(key))
    }
}

/// Stores a value. A list or an object is stored only if the member is deep, without its nested
/// values.
struct Keep {
    is_deep: bool,
}

impl<'f> DeserializeSeed<'f> for Keep {
    type Value = Value<'f>;

    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<Value<'f>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'f> Visitor<'f> for Keep {
    type Value = Value<'f>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'f>, E> {
        Take { level: 2 }.visit_i64(number).map(Value::Scalar)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'f>, E> {
        Take { level: 2 }.visit_u64(number).map(Value::Scalar)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value<'f>, E> {
        Take { level: 2 }.visit_f64(number).map(Value::Scalar)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'f str) -> Result<Value<'f>, E> {
        Ok(Value::Scalar(MemberValue::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'f>, E> {
        Ok(Value::Scalar(MemberValue::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'f>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'f>, E> {
        Ok(Value::Scalar(MemberValue::Other))
    }

    fn visit_seq<A: SeqAccess<'f>>(self, mut seq: A) -> Result<Value<'f>, A::Error> {
        if !self.is_deep {
            return Skip { level: 2 }.visit_seq(seq).map(|()| Value::Scalar(MemberValue::Other));
        }
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(Take { level: 3 })? {
            list.push(element);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'f>>(self, mut map: A) -> Result<Value<'f>, A::Error> {
        if !self.is_deep {
            return Skip { level: 2 }.visit_map(map).map(|()| Value::Scalar(MemberValue::Other));
        }
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key_seed(Take { level: 3 })? {
            let value = map.next_value_seed(Take { level: 3 })?;
            // A key is always a text.
            if let MemberValue::Text(key) = key {
                pairs.push((key, value));
            }
        }
        Ok(Value::Pairs(pairs))
    }
}
