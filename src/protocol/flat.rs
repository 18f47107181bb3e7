//! Reads flat frames: objects whose needed members are texts and numbers, without superfluous
//! blanks. Nearly all frames are flat, and this takes half of the instructions of a general parser.
//!
//! It accepts only what is certainly strict JSON. Everything else goes to the parser in `parse`,
//! which alone decides what is an error. Eight bytes of a text are examined together.

use std::ops::Range;

/// The value of a member of a flat frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FlatValue {
    /// A whole number, except minus zero.
    Integer(i64),
    /// A text without escapes, by its position in the frame.
    Text(Range<usize>),
    /// Any other valid value: a text with escapes, a fraction, true, false, null, an array or an
    /// object.
    Other,
}

/// Calls `take` with the key and the value of each member, in order, while it returns true. Returns
/// whether the frame is flat and all members were taken. If not, the caller must ignore those that
/// were taken.
#[inline]
pub(super) fn read(frame: &str, take: impl FnMut(&[u8], FlatValue) -> bool) -> bool {
    members(frame.as_bytes(), take).is_some()
}

/// `None`, here and below: the frame is not flat.
#[inline]
fn members(frame: &[u8], mut take: impl FnMut(&[u8], FlatValue) -> bool) -> Option<()> {
    let mut at = after(frame, 0, b'{')?;
    loop {
        let key = after(frame, at, b'"')?;
        let key = key..next_stop(frame, key)?;
        at = after(frame, key.end, b'"')?;
        at = after_blank(frame, after(frame, at, b':')?);
        let (value, end) = match frame.get(at)? {
            b'"' => text(frame, at + 1)?,
            b'-' | b'0'..=b'9' => number(frame, at)?,
            _ => (FlatValue::Other, after_other(frame, at, DEPTH_MAX)?),
        };
        if !take(frame.get(key)?, value) {
            return None;
        }
        match frame.get(end)? {
            b',' => at = after_blank(frame, end + 1),
            b'}' => return (end + 1 == frame.len()).then_some(()),
            _ => return None,
        }
    }
}

/// The position behind this byte, which must be there.
#[inline]
fn after(frame: &[u8], at: usize, byte: u8) -> Option<usize> {
    (*frame.get(at)? == byte).then_some(at + 1)
}

/// Some clients write one blank after a colon and a comma.
#[inline]
fn after_blank(frame: &[u8], at: usize) -> usize {
    after(frame, at, b' ').unwrap_or(at)
}

/// The text that begins here, behind its quote, and the position behind it.
#[inline]
fn text(frame: &[u8], start: usize) -> Option<(FlatValue, usize)> {
    let end = next_stop(frame, start)?;
    match after(frame, end, b'"') {
        Some(behind) => Some((FlatValue::Text(start..end), behind)),
        None => Some((FlatValue::Other, after_escaped(frame, end)?)),
    }
}

/// A number with so few digits that every reader represents it exactly.
#[inline]
fn number(frame: &[u8], at: usize) -> Option<(FlatValue, usize)> {
    let is_negative = frame.get(at) == Some(&b'-');
    let start = at + usize::from(is_negative);
    let (mut end, mut number) = (start, 0_i64);
    while let Some(digit @ b'0'..=b'9') = frame.get(end)
        && end - start < DIGITS_MAX
    {
        number = 10 * number + i64::from(digit - b'0');
        end += 1;
    }
    let has_zero = frame.get(start) == Some(&b'0');
    if end == start || has_zero && end - start > 1 {
        return None;
    }
    if frame.get(end) == Some(&b'.') {
        return Some((FlatValue::Other, after_fraction(frame, end)?));
    }
    // Minus zero is not an integer.
    (!has_zero || !is_negative).then_some((FlatValue::Integer(if is_negative { -number } else { number }), end))
}

/// The position behind the digits that follow a point.
#[cold]
fn after_fraction(frame: &[u8], point: usize) -> Option<usize> {
    let digits = frame[point + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=DIGITS_MAX).contains(&digits).then_some(point + 1 + digits)
}

/// The position behind a value that is neither text nor number and has fewer levels than `depth`.
#[cold]
fn after_other(frame: &[u8], at: usize, depth: usize) -> Option<usize> {
    let end = match frame.get(at)? {
        b'[' => b']',
        b'{' => b'}',
        _ => {
            let word = ["true", "false", "null"].into_iter().find(|word| frame[at..].starts_with(word.as_bytes()))?;
            return Some(at + word.len());
        }
    };
    let inside = depth.checked_sub(1)?;
    let mut at = at + 1;
    if *frame.get(at)? == end {
        return Some(at + 1);
    }
    loop {
        if end == b'}' {
            let key = next_stop(frame, after(frame, at, b'"')?)?;
            at = after_blank(frame, after(frame, after(frame, key, b'"')?, b':')?);
        }
        at = match frame.get(at)? {
            b'"' => text(frame, at + 1)?.1,
            b'-' | b'0'..=b'9' => number(frame, at)?.1,
            _ => after_other(frame, at, inside)?,
        };
        match frame.get(at)? {
            b',' => at = after_blank(frame, at + 1),
            byte if *byte == end => return Some(at + 1),
            _ => return None,
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

/// Sets a bit for the first byte that is a quote, a backslash or a control character. Bytes above
/// that one may have a bit as well. Without such a byte the result is 0.
#[inline]
fn stops(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    // Sets the highest bit of a byte that was below `than`, and of some bytes after such a one.
    let below = |word: u64, than: u8| word.wrapping_sub(EACH * u64::from(than)) & !word;
    let are = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    (below(word, b' ') | are(b'"') | are(b'\\')) & (EACH << 7)
}

/// The index of the byte with the lowest bit.
#[inline]
fn first_byte(bits: u64) -> usize {
    bits.trailing_zeros() as usize / u8::BITS as usize
}

/// The position behind a text that has a backslash or a control character at `at`.
#[cold]
fn after_escaped(frame: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match (frame.get(at)?, frame.get(at + 1)) {
            (b'"', _) => return Some(at + 1),
            (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at += 2,
            (b'\\', Some(b'u')) => match half_of(frame, at)? {
                Half::Neither => at += 6,
                Half::First if half_of(frame, at + 6)? == Half::Second => at += 12,
                Half::First | Half::Second => return None,
            },
            _ => return None,
        }
        at = next_stop(frame, at)?;
    }
}

/// Whether an escaped character is half of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    Neither,
    First,
    Second,
}

/// The half of a surrogate pair that is written here as `\uXXXX`.
fn half_of(frame: &[u8], at: usize) -> Option<Half> {
    let [b'\\', b'u', digits @ ..] = frame.get(at..at + 6)? else { return None };
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    Some(match digits {
        [b'd' | b'D', b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B', ..] => Half::First,
        [b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..] => Half::Second,
        _ => Half::Neither,
    })
}

/// The most levels of a value: few, because each takes a stack frame.
const DEPTH_MAX: usize = 8;
/// The most digits of a number, fewer than the greatest integer has. Its fraction may have as many.
const DIGITS_MAX: usize = 18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read_all(frame: &str) -> Option<Vec<(&str, FlatValue)>> {
        let mut members = Vec::new();
        let is_flat = read(frame, |key, value| {
            members.push((key.to_vec(), value));
            true
        });
        let key_of =
            |key: Vec<u8>| frame.get(frame.find(std::str::from_utf8(&key).expect("a text"))?..)?.get(..key.len());
        is_flat.then(|| members.into_iter().map(|(key, value)| (key_of(key).expect("it is there"), value)).collect())
    }

    #[test]
    fn members_of_a_flat_frame_are_those_that_stand_there() {
        use FlatValue::{Integer, Other, Text};
        let frame = concat!(
            r#"{"msgType":4,"TOID": -20, "msg":"你 好, {all}","":"","é":"\n\\\"\u4f60","long":999999999999999999,"#,
            r#""0":0,"rest":-0.50,"yes":true,"no":false,"none":null,"pair":"\ud83d\uDE00","list":[],"#,
            r#""all":[1, "x",{"a":[[[[[{}]]]]],"b": {"c":"\n","d":1.5}},null]}"#
        );
        let text = |text: &str| {
            let start = frame.find(text).expect("it is there");
            Text(start..start + text.len())
        };
        let nothing = frame.find(r#""","é""#).expect("it is there") + 1;
        let expected = [
            ("msgType", Integer(4)),
            ("TOID", Integer(-20)),
            ("msg", text("你 好, {all}")),
            ("", Text(nothing..nothing)),
            ("é", Other),
            ("long", Integer(999_999_999_999_999_999)),
            ("0", Integer(0)),
            ("rest", Other),
            ("yes", Other),
            ("no", Other),
            ("none", Other),
            ("pair", Other),
            ("list", Other),
            ("all", Other),
        ];
        assert_eq!(read_all(frame), Some(expected.to_vec()));
        for at in 0..frame.len() {
            assert_eq!(frame.get(..at).and_then(read_all), None, "{at} bytes of it are not the frame");
        }
    }

    #[test]
    fn halves_of_pairs_are_known_in_any_spelling() {
        for unit in 0..=u16::MAX {
            let expected = match unit {
                0xd800..=0xdbff => Half::First,
                0xdc00..=0xdfff => Half::Second,
                _ => Half::Neither,
            };
            for text in [format!("\\u{unit:04x}"), format!("\\u{unit:04X}")] {
                assert_eq!(half_of(text.as_bytes(), 0), Some(expected), "{text}");
            }
        }
    }

    #[test]
    fn everything_else_is_left_to_the_parser() {
        let values = r#"01|-0|1.|.5|00.5|1.5e3|1e3|-|1000000000000000000|0.1234567890123456789|truer|nul|[|[1|[1,]|[1}|[1 ]|{"a"}|{"a":}|{a:1}|[[[[[[[[[]]]]]]]]]|"\x"|"#;
        let texts = r#""\u12g4"|"\ud83d"|"\ud83d\u0020"|"\ude00"|"\u12|"\|1 |  1|"#;
        for value in values.split('|').chain(texts.split('|')).chain(["\"a\tb\"", "\"a\nb\""]) {
            assert_eq!(read_all(&format!("{{\"a\":{value}}}")), None, "{value}");
        }
        for frame in
            ["", "{", "{}", "{\"a\":1}\n", " {\"a\":1}", "{\"a\":1,}", "{\"a\":1}}", "{\"\\u0061\":1}", "{a:1}"]
        {
            assert_eq!(read_all(frame), None, "{frame}");
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
        let value = prop_oneof![4 => text, 4 => "-?[1-9][0-9]{0,18}", 1 => "-?[0-9]{1,3}([.][0-9]{1,9})?(e3)?|true|null|\\[[1-3\\[\\],]{0,4}\\]|\\{(\"a\":[1-3]){0,2}\\}"];
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
        /// A frame that is taken for flat is strict JSON, with these members.
        #[test]
        fn a_flat_frame_is_json(frame in frames()) {
            let Some(members) = read_all(&frame) else { return Ok(()) };
            let json: Value = serde_json::from_str(&frame).expect("it is JSON");
            for (key, value) in &members {
                // Of repeated keys the last one counts.
                if members.iter().rfind(|(other, _)| other == key).is_some_and(|(_, last)| last != value) {
                    continue;
                }
                match value {
                    FlatValue::Integer(number) => prop_assert_eq!(json[*key].as_i64(), Some(*number)),
                    FlatValue::Text(text) => prop_assert_eq!(json[*key].as_str(), frame.get(text.clone())),
                    FlatValue::Other => prop_assert!(!json[*key].is_i64()),
                }
            }
        }
    }
}
