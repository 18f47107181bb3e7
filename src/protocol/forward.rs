//! [`Forward`]: the text that is forwarded for a frame. It is made only after the sender's rights
//! are checked. Members are located by position, and unchanged parts are copied.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// The text to be forwarded for a frame: the same JSON value on one line. Nearly always the frame
/// itself.
///
/// Nothing is scanned or copied before [`Forward::text`], so a frame that its sender may not send
/// costs no more than parsing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward<'f> {
    frame: &'f str,
    repeated: bool,
    as_chat: bool,
    /// The frame is known to be on one line.
    is_one_line: bool,
}

impl<'f> Forward<'f> {
    /// For a `frame` that was parsed as a JSON object. If a known member is `repeated`, each member
    /// is forwarded once: the last one counts here, but the first one may count for the recipient.
    /// `as_chat` changes its msgType to 4.
    pub(super) fn new(frame: &'f str, repeated: bool, as_chat: bool) -> Forward<'f> {
        Forward { frame, repeated, as_chat, is_one_line: false }
    }

    /// The same forward, noting whether its frame is known to be on one line.
    pub(super) fn on_one_line(self, is_one_line: bool) -> Forward<'f> {
        Forward { is_one_line, ..self }
    }

    /// The text.
    pub fn text(self) -> Cow<'f, str> {
        let Forward { frame, repeated, as_chat, is_one_line } = self;
        let text = match (repeated, as_chat) {
            (false, false) => Cow::Borrowed(frame),
            (false, true) => Cow::Owned(self::as_chat(frame)),
            (true, as_chat) => Cow::Owned(each_once(frame, as_chat)),
        };
        // JSON strings cannot contain raw newlines. So these are between tokens, where a blank is
        // equivalent.
        match is_one_line || memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
            true => text,
            false => Cow::Owned(joined(text)),
        }
    }
}

/// The frame with msgType 4.
fn as_chat(frame: &str) -> String {
    let Range { start, end } = value_of(frame, "msgType").expect("a frame without msgType is no request");
    [&frame[..start], CHAT, &frame[end..]].concat()
}

/// The frame with only the last occurrence of each member.
fn each_once(frame: &str, as_chat: bool) -> String {
    // The hash is keyed, because clients choose the keys.
    let mut last = HashMap::new();
    for member in Positions::of(frame) {
        last.insert(member.key(frame), member.start);
    }
    let mut text = String::with_capacity(frame.len());
    let mut copy = |from: usize, to: usize| {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(&frame[from..to]);
    };
    // Adjacent unchanged members are copied together.
    let mut run: Option<Range<usize>> = None;
    for member in Positions::of(frame) {
        if last[&member.key(frame)] == member.start {
            run = Some(run.map_or(member.start, |run| run.start)..member.value.end);
        } else if let Some(run) = run.take() {
            copy(run.start, run.end);
        }
    }
    if let Some(run) = run {
        copy(run.start, run.end);
    }
    text.push('}');
    if as_chat { self::as_chat(&text) } else { text }
}

/// The text with a blank in place of each line break.
fn joined(text: Cow<'_, str>) -> String {
    let mut bytes = text.into_owned().into_bytes();
    for byte in &mut bytes {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    String::from_utf8(bytes).expect("one ASCII character stands for another")
}

/// The position of the value of the last member with this key in `frame`, which was parsed as a
/// JSON object.
pub(super) fn value_of(frame: &str, key: &str) -> Option<Range<usize>> {
    Positions::of(frame).filter(|member| member.key(frame) == key).last().map(|member| member.value)
}

/// The position in `reply`, a compact object with its keys in byte order, at which a member with
/// this key is inserted, with a comma before it.
pub(super) fn place_for(reply: &str, key: &str) -> usize {
    let next = Positions::of(reply).find(|member| *member.key(reply) > *key);
    next.map_or(reply.len(), |member| member.start) - 1
}

/// One member of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Position {
    /// The beginning of its key, with the quote.
    start: usize,
    /// The end of its key, after the quote.
    key_end: usize,
    value: Range<usize>,
}

/// The positions of the members of a JSON object, one after the other. The object was parsed
/// before, so this scans only what is necessary to find them.
#[derive(Clone, Debug)]
struct Positions<'f> {
    bytes: &'f [u8],
    at: usize,
}

impl Position {
    fn key<'f>(&self, frame: &'f str) -> Cow<'f, str> {
        let key = &frame[self.start + 1..self.key_end - 1];
        match key.contains('\\') {
            false => Cow::Borrowed(key),
            true => serde_json::from_str(&frame[self.start..self.key_end]).expect("it was read as a string before"),
        }
    }
}

impl<'f> Positions<'f> {
    fn of(frame: &'f str) -> Positions<'f> {
        let bytes = frame.as_bytes();
        Positions { bytes, at: memchr::memchr(b'{', bytes).map_or(bytes.len(), |at| at + 1) }
    }

    fn seek(&self, from: usize, is: impl Fn(u8) -> bool) -> Option<usize> {
        self.bytes[from..].iter().position(|byte| is(*byte)).map(|at| from + at)
    }

    /// The end of the string that begins at `start`, after its quote.
    fn string_end(&self, start: usize) -> Option<usize> {
        let mut at = start + 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', self.bytes.get(at..)?)?;
            match self.bytes[at] {
                b'"' => return Some(at + 1),
                _ => at += 2,
            }
        }
    }

    /// The end of the value that begins at `start`.
    fn value_end(&self, start: usize) -> Option<usize> {
        match self.bytes[start] {
            b'"' => self.string_end(start),
            b'{' | b'[' => {
                let (mut at, mut depth) = (start, 0);
                loop {
                    match self.bytes.get(at)? {
                        b'"' => {
                            at = self.string_end(at)?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    at += 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
            }
            _ => self.seek(start, |byte| matches!(byte, b',' | b'}') || byte.is_ascii_whitespace()),
        }
    }
}

impl Iterator for Positions<'_> {
    type Item = Position;

    fn next(&mut self) -> Option<Position> {
        // Only blanks and a comma precede it.
        let start = self.seek(self.at, |byte| matches!(byte, b'"' | b'}'))?;
        if self.bytes[start] == b'}' {
            return None;
        }
        let key_end = self.string_end(start)?;
        let colon = self.seek(key_end, |byte| byte == b':')?;
        let value_start = self.seek(colon + 1, |byte| !byte.is_ascii_whitespace())?;
        let value_end = self.value_end(value_start)?;
        self.at = value_end;
        Some(Position { start, key_end, value: value_start..value_end })
    }
}

/// The msgType of a chat.
const CHAT: &str = "4";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_where_they_stand() {
        let frame =
            " { \"a\\\"\" :\t[1,{\"b\":\"]}\\\\\"}] ,\"\\u0061\":-1.5e3,\"c\":\"\\\"}\" , \"d\": {} ,\"e\":null}";
        let members: Vec<_> =
            Positions::of(frame).map(|member| (member.key(frame), &frame[member.value.clone()])).collect();
        let expected =
            [("a\"", "[1,{\"b\":\"]}\\\\\"}]"), ("a", "-1.5e3"), ("c", "\"\\\"}\""), ("d", "{}"), ("e", "null")];
        assert_eq!(members, expected.map(|(key, value)| (Cow::Borrowed(key), value)));
        assert_eq!(Positions::of("{ }").next(), None);
        assert_eq!(value_of(r#"{"a":1,"a":22}"#, "a"), Some(11..13));
        assert_eq!(value_of(r#"{"a":1}"#, "b"), None);
    }

    #[test]
    fn members_that_stay_are_copied_as_they_are() {
        let forward = |frame, repeated, as_chat| Forward::new(frame, repeated, as_chat).text().into_owned();
        let frame = r#"{"x" : 1.50, "msgT\u0079pe":  100 , "y":[1, 2]}"#;
        assert_eq!(forward(frame, false, true), r#"{"x" : 1.50, "msgT\u0079pe":  4 , "y":[1, 2]}"#);
        let frame = r#"{"TOID":1, "x":1, "y":2,"msgType":9,"TOID":"z","x":3,"msgType":100,"TOID":2}"#;
        assert_eq!(forward(frame, true, true), r#"{"y":2,"x":3,"msgType":4,"TOID":2}"#);
        assert_eq!(forward(frame, true, false), r#"{"y":2,"x":3,"msgType":100,"TOID":2}"#);
        assert_eq!(forward("{\"TOID\":1,\r\n\"TOID\":2}", true, false), r#"{"TOID":2}"#);
        assert_eq!(forward("{\"TOID\":1,\r\n\"a\":[\n2]}", false, false), r#"{"TOID":1,  "a":[ 2]}"#);
    }
}
