//! One pass over a frame: strict JSON, of which only the members of requests are stored.
//!
//! The parser of `serde_json` skips unused values without validating them: lone surrogates, numbers
//! beyond a double and any depth of nesting would pass. Here every value is visited, so that only
//! valid JSON is forwarded.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::claims::{BadRequest, EchoedId, Id, Sender};
use super::flat::{self, FlatValue};
use super::forward;

/// The members of requests, as in the frame. The last one counts if a key is repeated.
#[derive(Default)]
pub(super) struct Level1Members<'f> {
    pub(super) msg_type: MemberValue<'f>,
    pub(super) user_id: MemberValue<'f>,
    pub(super) from: MemberValue<'f>,
    pub(super) to: MemberValue<'f>,
    pub(super) group: MemberValue<'f>,
    pub(super) u1: MemberValue<'f>,
    pub(super) u2: MemberValue<'f>,
    pub(super) name: MemberValue<'f>,
    pub(super) password: MemberValue<'f>,
    pub(super) description: MemberValue<'f>,
    pub(super) keyword: MemberValue<'f>,
    /// Whether a key occurs more than once.
    pub(super) repeated: bool,
    /// Whether there is a `level`, which no request of level 1 has.
    pub(super) has_level: bool,
    /// Whether the frame is known to be on one line.
    pub(super) is_one_line: bool,
}

/// One member's value.
#[derive(Default)]
pub(super) enum MemberValue<'f> {
    #[default]
    Missing,
    Integer(i64),
    /// A number beyond 64 bits with a sign, or minus zero: its digits decide whether it is an
    /// integer.
    ByDigits,
    Text(Cow<'f, str>),
    Other,
}

impl<'f> Level1Members<'f> {
    /// Fills the empty members from the frame.
    pub(super) fn read(&mut self, text: &'f str) -> Result<(), BadRequest> {
        if flat::read(text, |key, value| self.take_flat(text, key, value)) {
            self.is_one_line = true;
            return Ok(());
        }
        *self = Level1Members::default();
        self.read_any(text)
    }

    /// Takes a member of a flat frame; false if it needs the parser.
    #[inline]
    fn take_flat(&mut self, frame: &'f str, key: &[u8], value: FlatValue) -> bool {
        let Some(member) = self.of(key) else { return true };
        let value = match value {
            FlatValue::Integer(number) => MemberValue::Integer(number),
            FlatValue::Text(place) => {
                frame.get(place).map_or(MemberValue::Other, |text| MemberValue::Text(Cow::Borrowed(text)))
            }
            FlatValue::Other => return false,
        };
        if !matches!(std::mem::replace(member, value), MemberValue::Missing) {
            self.repeated = true;
        }
        true
    }

    #[inline(never)]
    fn read_any(&mut self, text: &'f str) -> Result<(), BadRequest> {
        let mut json = serde_json::Deserializer::from_str(text);
        // The visitors count the levels themselves, because this limit is one higher than the
        // parser's.
        json.disable_recursion_limit();
        json.deserialize_map(self).and_then(|()| json.end()).map_err(|_| BadRequest)
    }

    /// The value of FROMID, if present.
    pub(super) fn sender(&self, frame: &str) -> Option<Sender> {
        match &self.from {
            MemberValue::Missing => None,
            from => Some(from.id(frame, "FROMID").map_or(Sender::Malformed, Sender::Claimed)),
        }
    }

    fn of(&mut self, key: &[u8]) -> Option<&mut MemberValue<'f>> {
        Some(match key {
            b"msgType" => &mut self.msg_type,
            b"USERID" => &mut self.user_id,
            b"FROMID" => &mut self.from,
            b"TOID" => &mut self.to,
            b"GROUPID" => &mut self.group,
            b"U1" => &mut self.u1,
            b"U2" => &mut self.u2,
            b"name" => &mut self.name,
            b"password" => &mut self.password,
            b"description" => &mut self.description,
            b"keyword" => &mut self.keyword,
            b"level" => {
                self.has_level = true;
                return None;
            }
            _ => return None,
        })
    }
}

impl<'f> MemberValue<'f> {
    /// The integer value of `key` in `frame`.
    pub(super) fn id(&self, frame: &str, key: &str) -> Result<Id, BadRequest> {
        match self {
            MemberValue::Integer(id) => Ok(Id(*id)),
            _ => self.asked(frame, key).map(|asked| asked.id),
        }
    }

    /// The integer value of `key`, with its digits if they are needed.
    pub(super) fn asked<'t>(&self, frame: &'t str, key: &str) -> Result<EchoedId<'t>, BadRequest> {
        match self {
            MemberValue::Integer(id) => Ok(Id(*id).into()),
            MemberValue::ByDigits => {
                let number = &frame[forward::value_of(frame, key).ok_or(BadRequest)?];
                let (nearest, digits) = match number.strip_prefix('-') {
                    Some(digits) => (i64::MIN, digits),
                    None => (i64::MAX, number),
                };
                if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                    return Err(BadRequest);
                }
                Ok(number.parse().map_or(EchoedId { id: Id(nearest), digits: Some(number) }, |id| Id(id).into()))
            }
            MemberValue::Missing | MemberValue::Text(_) | MemberValue::Other => Err(BadRequest),
        }
    }

    pub(super) fn text(&mut self) -> Result<Cow<'f, str>, BadRequest> {
        match std::mem::take(self) {
            MemberValue::Text(text) => Ok(text),
            MemberValue::Missing | MemberValue::Integer(_) | MemberValue::ByDigits | MemberValue::Other => {
                Err(BadRequest)
            }
        }
    }
}

impl<'f> Visitor<'f> for &mut Level1Members<'f> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'f>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key_seed(Level1Key(self))? {
            let Some(member) = member else {
                map.next_value_seed(Skip { level: 2 })?;
                continue;
            };
            let value = map.next_value_seed(Take { level: 2 })?;
            if !matches!(std::mem::replace(member, value), MemberValue::Missing) {
                self.repeated = true;
            }
        }
        Ok(())
    }
}

/// Selects the member for a key; `None` for a key that no request has.
struct Level1Key<'m, 'f>(&'m mut Level1Members<'f>);

impl<'m, 'f> DeserializeSeed<'f> for Level1Key<'m, 'f> {
    type Value = Option<&'m mut MemberValue<'f>>;

    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'m, 'f> Visitor<'f> for Level1Key<'m, 'f> {
    type Value = Option<&'m mut MemberValue<'f>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.of(key.as_bytes()))
    }
}

/// Stores a number or a text, and validates everything else. An array or object here would be at
/// depth `level`.
#[derive(Clone, Copy)]
pub(super) struct Take {
    pub(super) level: usize,
}

impl<'f> DeserializeSeed<'f> for Take {
    type Value = MemberValue<'f>;

    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<MemberValue<'f>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'f> Visitor<'f> for Take {
    type Value = MemberValue<'f>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_i64<E>(self, number: i64) -> Result<MemberValue<'f>, E> {
        Ok(MemberValue::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<MemberValue<'f>, E> {
        Ok(i64::try_from(number).map_or(MemberValue::ByDigits, MemberValue::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<MemberValue<'f>, E> {
        // Integers that fit 64 bits arrive as integers, except minus zero.
        let is_beyond = number >= u64::MAX as f64 || number <= i64::MIN as f64;
        Ok(if is_beyond || number == 0.0 { MemberValue::ByDigits } else { MemberValue::Other })
    }

    fn visit_borrowed_str<E>(self, text: &'f str) -> Result<MemberValue<'f>, E> {
        Ok(MemberValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<MemberValue<'f>, E> {
        Ok(MemberValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<MemberValue<'f>, E> {
        Ok(MemberValue::Other)
    }

    fn visit_unit<E>(self) -> Result<MemberValue<'f>, E> {
        Ok(MemberValue::Other)
    }

    fn visit_seq<A: SeqAccess<'f>>(self, seq: A) -> Result<MemberValue<'f>, A::Error> {
        Skip { level: self.level }.visit_seq(seq).map(|()| MemberValue::Other)
    }

    fn visit_map<A: MapAccess<'f>>(self, map: A) -> Result<MemberValue<'f>, A::Error> {
        Skip { level: self.level }.visit_map(map).map(|()| MemberValue::Other)
    }
}

/// Validates a value without storing it. An array or object here would be at depth `level`.
#[derive(Clone, Copy)]
pub(super) struct Skip {
    pub(super) level: usize,
}

impl Skip {
    fn inside<E: Error>(self) -> Result<Skip, E> {
        if self.level > net::NESTING_MAX {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Skip { level: self.level + 1 })
    }
}

impl<'f> DeserializeSeed<'f> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'f> Visitor<'f> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'f>>(self, mut seq: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while seq.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'f>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        // The visitor accepts every key, because a key is a string.
        while map.next_key_seed(inside)?.is_some() {
            map.next_value_seed(inside)?;
        }
        Ok(())
    }
}
