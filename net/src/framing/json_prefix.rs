//! [`JsonPrefix`]: can these bytes still become a JSON object?
//!
//! A frame whose end has not arrived may be slow, or broken so that its end will never come (an
//! unclosed string, for example). A slow frame deserves patience, a broken one an immediate answer.
//! This automaton reads each byte once and reports where the text stopped being the beginning of
//! any JSON text (RFC 8259). It is used only for frames that are incomplete when the received data
//! ends; the parser finds out whether a complete frame is valid.

/// The most levels of nested objects and arrays; the outermost object is the first.
pub const NESTING_MAX: usize = 128;

/// The part of the text that has been read, and what may follow.
#[derive(Debug)]
pub(crate) struct JsonPrefix {
    expect: Expect,
    /// One bit per open level, set for an object; the level `depth - 1` is the innermost.
    objects: u128,
    depth: usize,
    read: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// The opening brace of the outermost object.
    Start,
    /// A value; at the beginning of an array also its end.
    Value {
        or_end: bool,
    },
    /// A key; at the beginning of an object also its end.
    Key {
        or_end: bool,
    },
    Colon,
    /// After a value: a comma, or the end of the object or array around it.
    CommaOrEnd,
    /// Inside a string, which is a key or a value.
    Text {
        key: bool,
    },
    /// After a backslash.
    Escape {
        key: bool,
    },
    /// The number of missing hexadecimal digits after `\u`.
    Hex {
        key: bool,
        missing: u8,
    },
    /// Inside a number.
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

impl JsonPrefix {
    pub(crate) fn new() -> JsonPrefix {
        JsonPrefix { expect: Expect::Start, objects: 0, depth: 0, read: 0 }
    }

    /// Reads on in `text`, which begins with all bytes read before. `Err` is the index of the first
    /// byte that cannot be part of a JSON object.
    pub(crate) fn read(&mut self, text: &[u8]) -> Result<(), usize> {
        while let Some(&byte) = text.get(self.read) {
            self.expect = self.after(byte).ok_or(self.read)?;
            self.read += 1;
        }
        Ok(())
    }

    fn after(&mut self, byte: u8) -> Option<Expect> {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.expect {
            Expect::Start => (byte == b'{').then(|| self.open(true))?,
            Expect::Value { .. } | Expect::Key { .. } | Expect::Colon | Expect::CommaOrEnd if blank => {
                Some(self.expect)
            }
            Expect::Value { or_end } => match byte {
                b']' if or_end => self.close(false),
                _ => self.value(byte),
            },
            Expect::Key { or_end } => match byte {
                b'"' => Some(Expect::Text { key: true }),
                b'}' if or_end => self.close(true),
                _ => None,
            },
            Expect::Colon => (byte == b':').then_some(Expect::Value { or_end: false }),
            Expect::CommaOrEnd => self.comma_or_end(byte),
            Expect::Text { key } => match byte {
                b'"' if key => Some(Expect::Colon),
                b'"' => Some(Expect::CommaOrEnd),
                b'\\' => Some(Expect::Escape { key }),
                0..0x20 => None,
                _ => Some(self.expect),
            },
            Expect::Escape { key } => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(Expect::Text { key }),
                b'u' => Some(Expect::Hex { key, missing: 4 }),
                _ => None,
            },
            Expect::Hex { key, missing } if byte.is_ascii_hexdigit() => Some(match missing {
                1 => Expect::Text { key },
                _ => Expect::Hex { key, missing: missing - 1 },
            }),
            Expect::Hex { .. } => None,
            Expect::Number(number) => match number.after(byte) {
                Some(number) => Some(Expect::Number(number)),
                None if !number.is_whole() => None,
                None if blank => Some(Expect::CommaOrEnd),
                None => self.comma_or_end(byte),
            },
            Expect::Literal(rest) => match rest {
                [last] if *last == byte => Some(Expect::CommaOrEnd),
                [next, rest @ ..] if *next == byte => Some(Expect::Literal(rest)),
                _ => None,
            },
        }
    }

    fn value(&mut self, byte: u8) -> Option<Expect> {
        Some(match byte {
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b'"' => Expect::Text { key: false },
            b'-' => Expect::Number(Number::Minus),
            b'0' => Expect::Number(Number::Zero),
            b'1'..=b'9' => Expect::Number(Number::Integer),
            b't' => Expect::Literal(b"rue"),
            b'f' => Expect::Literal(b"alse"),
            b'n' => Expect::Literal(b"ull"),
            _ => return None,
        })
    }

    fn comma_or_end(&mut self, byte: u8) -> Option<Expect> {
        let in_object = self.objects & 1 == 1;
        match byte {
            b',' if in_object => Some(Expect::Key { or_end: false }),
            b',' => Some(Expect::Value { or_end: false }),
            b'}' => self.close(true),
            b']' => self.close(false),
            _ => None,
        }
    }

    fn open(&mut self, object: bool) -> Option<Expect> {
        if self.depth == NESTING_MAX {
            return None;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Some(if object { Expect::Key { or_end: true } } else { Expect::Value { or_end: true } })
    }

    /// Closes an object or array. The reader stops at the end of the outermost one, so nothing may
    /// follow.
    fn close(&mut self, object: bool) -> Option<Expect> {
        if self.depth <= 1 || (self.objects & 1 == 1) != object {
            return None;
        }
        self.depth -= 1;
        self.objects >>= 1;
        Some(Expect::CommaOrEnd)
    }
}

impl Number {
    fn after(self, byte: u8) -> Option<Number> {
        Some(match (self, byte) {
            (Number::Minus, b'0') => Number::Zero,
            (Number::Minus, b'1'..=b'9') | (Number::Integer, b'0'..=b'9') => Number::Integer,
            (Number::Zero | Number::Integer, b'.') => Number::Point,
            (Number::Point | Number::Fraction, b'0'..=b'9') => Number::Fraction,
            (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Number::E,
            (Number::E, b'+' | b'-') => Number::ESign,
            (Number::E | Number::ESign | Number::Exponent, b'0'..=b'9') => Number::Exponent,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::Exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_bad_byte(text: &str) -> Option<usize> {
        JsonPrefix::new().read(text.as_bytes()).err()
    }

    #[test]
    fn every_beginning_of_a_good_object_is_viable() {
        let whole =
            r#"{ "a" : [1, -0.5e+3, 20E2, true, false, null, {}, [], "x\u00e9\n\"" ], "" : { "b":0 , "c" : [[{}]] }}"#;
        for end in 0..whole.len() {
            assert_eq!(first_bad_byte(&whole[..end]), None, "{}", &whole[..end]);
        }
    }

    #[test]
    fn the_first_impossible_byte_is_found() {
        let cases = [
            ("{'a'", 1),
            ("{a", 1),
            ("{,", 1),
            ("{\"a\" 1", 5),
            ("{\"a\":01", 6),
            ("{\"a\":+", 5),
            ("{\"a\":1.,", 7),
            ("{\"a\":-,", 6),
            ("{\"a\":1e}", 7),
            ("{\"a\":tru,", 8),
            ("{\"a\":nul}", 8),
            ("{\"a\":\"\n", 6),
            ("{\"a\":\"\\x", 7),
            ("{\"a\":\"\\u12g", 10),
            ("{\"a\":1]", 6),
            ("{\"a\":[1}", 7),
            ("{\"a\":1,}", 7),
            ("{\"a\":[1,]", 8),
            ("[", 0),
        ];
        for (text, at) in cases {
            assert_eq!(first_bad_byte(text), Some(at), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = |levels: usize| format!("{{\"a\":{}", "[".repeat(levels - 1));
        assert_eq!(first_bad_byte(&deep(NESTING_MAX)), None);
        assert_eq!(first_bad_byte(&deep(NESTING_MAX + 1)), Some(4 + NESTING_MAX));
    }
}
