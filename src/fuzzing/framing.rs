//! [`net::Decoder`] against a decoder that reads everything again each time and lets `serde_json`
//! decide about JSON. (The check is here because `net` does not depend on a JSON library.)

use net::{Decoder, Item, NESTING_MAX};
use serde::de::IgnoredAny;
use serde_json::error::Category;

/// Takes the bytes as the input of a connection. Three byte values that never occur in UTF-8 stand
/// for events in between: [`CUT`], [`END`] and [`GIVE_UP`].
pub fn framing(data: &[u8]) {
    // Short enough never to reach the limit on wasted scanning, which depends on how much was
    // received together.
    let data = &data[..data.len().min(1024)];
    for frame_bytes_max in [24, 1024] {
        let expected = slow(data, frame_bytes_max);
        for cuts in [Cuts::AsGiven, Cuts::None, Cuts::EveryByte] {
            let seen = decode(data, frame_bytes_max, cuts);
            let how = format!("{cuts:?}, at most {frame_bytes_max} bytes");
            assert_eq!(seen, expected, "{how}, {}", data.escape_ascii());
        }
    }
}

/// The received bytes end here for the moment, and more may follow.
const CUT: u8 = 0xfe;
/// The received bytes end here, and no more will follow.
const END: u8 = 0xff;
/// Like `CUT`, and a started frame takes too long.
const GIVE_UP: u8 = 0xfd;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cuts {
    AsGiven,
    None,
    EveryByte,
}

/// The items of a stream. A line end right after a frame or garbage is an item of its own here,
/// because it may be known only later.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Frame(Vec<u8>),
    Garbage,
    LineEnd,
    Oversize,
}

fn decode(data: &[u8], frame_bytes_max: usize, cuts: Cuts) -> Vec<Seen> {
    let decoder = Decoder::new(frame_bytes_max);
    let mut connection = Connection { decoder, received: Vec::new(), seen: Vec::new() };
    for &byte in data {
        let goes_on = match byte {
            CUT if cuts == Cuts::None => true,
            CUT => connection.look(false),
            END => connection.look(true),
            GIVE_UP => connection.look(true) && connection.give_up(),
            _ => {
                connection.received.push(byte);
                cuts != Cuts::EveryByte || connection.look(false)
            }
        };
        if !goes_on {
            return connection.seen;
        }
    }
    connection.look(true);
    connection.seen
}

struct Connection {
    decoder: Decoder,
    received: Vec<u8>,
    seen: Vec<Seen>,
}

impl Connection {
    /// Takes everything available; false if nothing more can be parsed.
    fn look(&mut self, ended: bool) -> bool {
        loop {
            let item = self.decoder.look(&self.received, ended);
            let is_shown = !matches!(item, Item::Incomplete | Item::Blank { .. });
            assert_eq!(self.decoder.has_shown(), is_shown, "{item:?}");
            if is_shown {
                assert_eq!(self.decoder.look(&self.received, ended), item, "the same until it is taken");
            }
            let (len, line) = match item {
                Item::Frame { len, line } => {
                    self.seen.push(Seen::Frame(self.received[..len].to_vec()));
                    (len, line)
                }
                Item::Garbage { len, line } => {
                    self.seen.push(Seen::Garbage);
                    (len, line)
                }
                Item::LineEnd { len } => (len, true),
                Item::Http | Item::Foreign(_) => unreachable!("this is not the beginning of a connection"),
                Item::Oversize => {
                    self.seen.push(Seen::Oversize);
                    return false;
                }
                Item::Blank { len } => {
                    assert!(len > 0, "a blank is something");
                    (len, false)
                }
                Item::Incomplete => break,
            };
            if line {
                self.seen.push(Seen::LineEnd);
            }
            self.received.drain(..len);
            if is_shown {
                self.decoder.taken();
            }
        }
        assert_eq!(self.decoder.is_inside(), !self.received.is_empty(), "only a frame that has begun is kept");
        true
    }

    fn give_up(&mut self) -> bool {
        if self.decoder.is_inside() {
            self.received.clear();
            self.decoder.give_up();
        }
        self.look(true)
    }
}

/// The same items, derived from the description of the format. Only the ends of received data
/// matter to it, not the cuts.
fn slow(data: &[u8], frame_bytes_max: usize) -> Vec<Seen> {
    let (mut seen, mut kept, mut line_open) = (Vec::new(), Vec::new(), false);
    let with_end: Vec<u8> = data.iter().copied().chain([END]).collect();
    for reading in with_end.split_inclusive(|byte| matches!(*byte, END | GIVE_UP)) {
        kept.extend(reading.iter().copied().filter(|byte| !matches!(*byte, CUT | END | GIVE_UP)));
        let mut rest = kept.as_slice();
        while let Some((&byte, behind)) = rest.split_first() {
            match byte {
                b'\n' if line_open => {
                    seen.push(Seen::LineEnd);
                    (rest, line_open) = (behind, false);
                }
                b' ' | b'\t' | b'\r' | b'\n' | 0 => rest = behind,
                b'{' => match object(rest, frame_bytes_max) {
                    Object::Whole(len) => {
                        seen.push(Seen::Frame(rest[..len].to_vec()));
                        (rest, line_open) = (&rest[len..], true);
                    }
                    Object::Begun => break,
                    Object::TooLong => {
                        seen.push(Seen::Oversize);
                        return seen;
                    }
                    Object::BrokenAt(at) => {
                        seen.push(Seen::Garbage);
                        let end = rest[at..].iter().position(|byte| *byte == b'\n');
                        (rest, line_open) = (&rest[end.map_or(rest.len(), |end| at + end)..], true);
                    }
                },
                _ => {
                    seen.push(Seen::Garbage);
                    (rest, line_open) = (&rest[garbage(rest)..], true);
                }
            }
        }
        kept = rest.to_vec();
        if reading.ends_with(&[GIVE_UP]) && !kept.is_empty() {
            seen.push(Seen::Garbage);
            (kept, line_open) = (Vec::new(), true);
        }
    }
    seen
}

enum Object {
    Whole(usize),
    Begun,
    BrokenAt(usize),
    TooLong,
}

fn object(bytes: &[u8], frame_bytes_max: usize) -> Object {
    let end = end_of_braces(bytes);
    if let Some(len) = end.filter(|len| *len <= frame_bytes_max) {
        return Object::Whole(len);
    }
    // The bytes behind the first one too many may not have been received yet.
    let looked_at = end.map_or(bytes.len(), |end| end - 1).min(frame_bytes_max + 1);
    match (1..=looked_at).find(|&len| !is_beginning(&bytes[..len])) {
        Some(len) => Object::BrokenAt(len - 1),
        None if bytes.len() <= frame_bytes_max => Object::Begun,
        None => Object::TooLong,
    }
}

/// The length of an object, found by counting braces only.
fn end_of_braces(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0;
    outside_of_strings(bytes).find_map(|(at, byte)| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at + 1)
    })
}

/// Whether JSON of the allowed depth may begin like this.
fn is_beginning(bytes: &[u8]) -> bool {
    let only_ends_early =
        |text: &[u8]| serde_json::from_slice::<IgnoredAny>(text).is_err_and(|error| error.classify() == Category::Eof);
    // The parser reports a number that ends early as invalid, and another digit cannot make invalid
    // text valid. It also ignores an incomplete escape.
    nesting(bytes) <= NESTING_MAX
        && (only_ends_early(bytes) || only_ends_early(&[bytes, b"0"].concat()))
        && unfinished_escapes(bytes).all(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// The text behind each `\u` that lacks some of its four digits.
fn unfinished_escapes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (bytes.len().saturating_sub(5)..bytes.len()).filter_map(|at| {
        let backslashes = bytes[..=at].iter().rev().take_while(|byte| **byte == b'\\').count();
        bytes[at..].strip_prefix(br"\u").filter(|_| backslashes % 2 == 1)
    })
}

/// The greatest nesting depth of arrays and objects, if these bytes are JSON.
pub(super) fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for (_, byte) in outside_of_strings(bytes) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The length of garbage without the newline that ends it.
fn garbage(bytes: &[u8]) -> usize {
    let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes, |end| &bytes[..end]);
    let plain_from = match line[0] {
        b'[' => {
            let mut depth = 0;
            let end = outside_of_strings(line).find_map(|(at, byte)| {
                match byte {
                    b'[' => depth += 1,
                    b']' => depth -= 1,
                    _ => {}
                }
                (depth == 0).then_some(at + 1)
            });
            return end.unwrap_or(line.len());
        }
        b'"' => end_of_string(line),
        _ => 0,
    };
    let brace = line[plain_from..].iter().position(|byte| *byte == b'{');
    brace.map_or(line.len(), |at| plain_from + at)
}

/// The position behind the string that a line begins with.
fn end_of_string(line: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = line.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    line.len()
}

pub(super) fn outside_of_strings(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let (mut in_string, mut escaped) = (false, false);
    bytes.iter().copied().enumerate().filter(move |&(_, byte)| {
        let was_in_string = in_string;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        !was_in_string && byte != b'"'
    })
}
