//! Reads flat frames: objects whose values are texts and whole numbers, with no blank that nobody
//! needs. Nearly all frames are, and this takes a third of the instructions of a general parser.
//!
//! It knows only what is certainly strict JSON, and leaves everything else to the parser in `parse`,
//! which alone decides what is an error. Eight bytes of a text are looked at together.

/// The value of a member of a flat frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlatValue<'f> {
    /// A whole number. Minus zero is none.
    Integer(i64),
    /// A text without escapes.
    Text(&'f str),
    /// A text with escapes, which are valid.
    Escaped,
}

/// Calls `take` for each member, in order, while it returns true. Returns whether the frame is flat
/// and all members were taken; if not, those that were taken mean nothing.
#[inline]
pub(super) fn read<'f>(frame: &'f str, mut take: impl FnMut(&'f str, FlatValue<'f>) -> bool) -> bool {
    let mut flat = Flat { frame, at: 0 };
    flat.members(&mut take).is_some()
}

/// A flat frame, read up to a position. Each step returns `None` if it is not flat.
struct Flat<'f> {
    frame: &'f str,
    at: usize,
}

impl<'f> Flat<'f> {
    #[inline]
    fn members(&mut self, take: &mut impl FnMut(&'f str, FlatValue<'f>) -> bool) -> Option<()> {
        self.pass(b'{')?;
        loop {
            self.pass(b'"')?;
            let FlatValue::Text(key) = self.text()? else { return None };
            self.pass(b':')?;
            self.pass_blank();
            let value = match self.pass(b'"') {
                Some(()) => self.text()?,
                None => self.integer()?,
            };
            if !take(key, value) {
                return None;
            }
            if self.pass(b',').is_none() {
                self.pass(b'}')?;
                return (self.at == self.frame.len()).then_some(());
            }
            self.pass_blank();
        }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.frame.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn pass(&mut self, byte: u8) -> Option<()> {
        let is_there = self.byte()? == byte;
        self.at += usize::from(is_there);
        is_there.then_some(())
    }

    /// Some clients write one blank after a colon and a comma.
    #[inline]
    fn pass_blank(&mut self) {
        let _ = self.pass(b' ');
    }

    /// The rest of a text, after its quote.
    #[inline]
    fn text(&mut self) -> Option<FlatValue<'f>> {
        let (start, bytes) = (self.at, self.frame.as_bytes());
        let mut end = next_stop(bytes, start)?;
        let is_plain = bytes[end] == b'"';
        if !is_plain {
            end = end_of_escaped(bytes, end)?;
        }
        self.at = end + 1;
        Some(if is_plain { FlatValue::Text(self.frame.get(start..end)?) } else { FlatValue::Escaped })
    }

    /// An integer that has so few digits that it fits.
    #[inline]
    fn integer(&mut self) -> Option<FlatValue<'f>> {
        let is_negative = self.pass(b'-').is_some();
        let (start, first) = (self.at, self.byte()?);
        let mut number = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.byte()
            && self.at - start < DIGITS_MAX
        {
            number = 10 * number + i64::from(digit - b'0');
            self.at += 1;
        }
        match self.at - start {
            0 => None,
            // A zero at the front belongs to no number but zero, and minus zero is no integer.
            digits if first == b'0' && (digits > 1 || is_negative) => None,
            _ => Some(FlatValue::Integer(if is_negative { -number } else { number })),
        }
    }
}

/// The position of the next quote, backslash or control character.
#[inline]
fn next_stop(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut rest = bytes.get(from..)?;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return Some(at + first_byte(stops));
        }
        (at, rest) = (at + size_of_val(word), behind);
    }
    // The last bytes of the frame, and zeros behind them.
    let missing = size_of::<u64>() - rest.len();
    let word = u64::from_le_bytes(*bytes.last_chunk()?).checked_shr(u8::BITS * missing as u32)?;
    let nth = first_byte(stops(word));
    (nth < rest.len()).then_some(at + nth)
}

/// A bit for the first byte that is a quote, a backslash or a control character. There may be bits
/// for other bytes above that one, and there is none if no such byte is there.
#[inline]
fn stops(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    // The highest bit of a byte that was below `than` before, and of some behind such a one.
    let below = |word: u64, than: u8| word.wrapping_sub(EACH * u64::from(than)) & !word;
    let are = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    (below(word, b' ') | are(b'"') | are(b'\\')) & (EACH << 7)
}

/// The index of the byte with the lowest bit.
#[inline]
fn first_byte(bits: u64) -> usize {
    bits.trailing_zeros() as usize / u8::BITS as usize
}

/// The closing quote of a text that has a backslash at `at`, if everything up to it is valid.
fn end_of_escaped(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'"', _) => return Some(at),
            (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at += 2,
            (b'\\', Some(b'u')) if is_a_character(bytes.get(at + 2..at + 6)?) => at += 6,
            _ => return None,
        }
        at = next_stop(bytes, at)?;
    }
}

/// Whether these hexadecimal digits are a character, and not half of a pair.
fn is_a_character(digits: &[u8]) -> bool {
    let is_half = matches!(digits, [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
    !is_half && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Fewer than the greatest integer has.
const DIGITS_MAX: usize = 18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn members(frame: &str) -> Option<Vec<(&str, FlatValue<'_>)>> {
        let mut members = Vec::new();
        let is_flat = read(frame, |key, value| {
            members.push((key, value));
            true
        });
        is_flat.then_some(members)
    }

    #[test]
    fn members_of_a_flat_frame_are_those_that_stand_there() {
        use FlatValue::{Escaped, Integer, Text};
        let frame =
            r#"{"msgType":4,"TOID": -20, "msg":"你 好, {all}","":"","é":"\n\\\"\u4f60","long":999999999999999999}"#;
        let expected = [
            ("msgType", Integer(4)),
            ("TOID", Integer(-20)),
            ("msg", Text("你 好, {all}")),
            ("", Text("")),
            ("é", Escaped),
            ("long", Integer(999_999_999_999_999_999)),
        ];
        assert_eq!(members(frame), Some(expected.to_vec()));
        for at in 0..frame.len() {
            assert_eq!(frame.get(..at).and_then(members), None, "{at} bytes of it are not the frame");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_parser() {
        let values =
            r#"01|-0|1.5|1e3|-|1000000000000000000|true|null|[]|{}|"\x"|"\u12g4"|"\ud83d\ude00"|"\u12|"\|1 |  1|"#;
        for value in values.split('|').chain(["\"a\tb\"", "\"a\nb\""]) {
            assert_eq!(members(&format!("{{\"a\":{value}}}")), None, "{value}");
        }
        for frame in
            ["", "{", "{}", "{\"a\":1}\n", " {\"a\":1}", "{\"a\":1,}", "{\"a\":1}}", "{\"\\u0061\":1}", "{a:1}"]
        {
            assert_eq!(members(frame), None, "{frame}");
        }
    }

    #[test]
    fn a_stop_is_found_at_every_place_and_in_any_surroundings() {
        for stop in (0..b' ').chain([b'"', b'\\']) {
            for around in [0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xff] {
                for at in 0..20 {
                    let mut bytes = [around; 20];
                    assert_eq!(next_stop(&bytes, 0), None);
                    bytes[at] = stop;
                    assert_eq!(next_stop(&bytes, 0), Some(at), "{stop} among {around}");
                    assert_eq!(next_stop(&bytes, at + 1), None);
                }
            }
        }
    }

    /// Objects that are nearly flat: some have a value of another kind, or a wrong character.
    fn frames() -> impl Strategy<Value = String> {
        let text = r#""([ a-zé]|\\["nu/]|\\u[0-9a-eA-D]{4}|[ -~]){0,12}""#;
        let value = prop_oneof![4 => text, 4 => "-?[1-9][0-9]{0,18}", 1 => "-?[0-9]{1,3}(e3)?|true"];
        let member = ("\"([a-c]|é|你){0,12}\":", " ?", value).prop_map(|(key, blank, value)| key + &blank + &value);
        let wrong = proptest::option::weighted(0.3, (any::<prop::sample::Index>(), "[\"\\\\,:{}0 \n]"));
        (prop::collection::vec(member, 1..5), ", ?", wrong).prop_map(|(members, comma, wrong)| {
            let mut frame = format!("{{{}}}", members.join(&comma));
            if let Some((at, character)) = wrong {
                let at = at.index(frame.len());
                if frame.is_char_boundary(at) && frame.is_char_boundary(at + 1) {
                    frame.replace_range(at..=at, &character);
                }
            }
            frame
        })
    }

    proptest! {
        /// What is taken for flat is strict JSON, with these members.
        #[test]
        fn a_flat_frame_is_json(frame in frames()) {
            let Some(members) = members(&frame) else { return Ok(()) };
            let json: Value = serde_json::from_str(&frame).expect("it is JSON");
            for (key, value) in &members {
                // Of repeated ones the last counts.
                if members.iter().rfind(|(other, _)| other == key) != Some(&(*key, *value)) {
                    continue;
                }
                match value {
                    FlatValue::Integer(number) => prop_assert_eq!(json[*key].as_i64(), Some(*number)),
                    FlatValue::Text(text) => prop_assert_eq!(json[*key].as_str(), Some(*text)),
                    FlatValue::Escaped => prop_assert!(json[*key].is_string()),
                }
            }
        }
    }
}
