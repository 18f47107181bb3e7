//! What comes from Redis, and through it from whoever publishes there.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use redis::Value;

use super::envelope::{self, Bundle, Incoming};
use super::names::{self, Names};
use super::wire::{Reply, Wire, parse};

/// The bytes are a channel, a newline and a payload. What is read is written the same way again; whatever frames are
/// written are read.
pub fn envelope(data: &[u8]) {
    let names = Names::shortest();
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (channel, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let incoming = Incoming::parse(&names, channel, payload);
    let own = names.node_channel("ab12");
    match incoming {
        Some(
            Incoming::Envelope { to, sender, sequence, frames } | Incoming::Returned { to, sender, sequence, frames },
        ) => {
            assert_eq!(names.user_of(channel), Some(to));
            let is_returned = matches!(incoming, Some(Incoming::Returned { .. }));
            let again = envelope::envelope(sender, sequence, is_returned, frames.split('\n'));
            assert_eq!(Incoming::parse(&names, names.user_channel(to).as_bytes(), &again), incoming);
        }
        Some(Incoming::Bare { to, .. }) => {
            assert_eq!(Incoming::parse(&names, names::reference_channel(to).as_bytes(), payload), incoming);
        }
        Some(Incoming::Confirmations { place, sequences }) => {
            let sequences: Vec<u64> = envelope::sequences(sequences).collect();
            let again = envelope::confirmations(place, &sequences);
            match Incoming::parse(&names, own.as_bytes(), &again) {
                Some(Incoming::Confirmations { place: to, sequences: text }) => {
                    assert!(to == place && envelope::sequences(text).eq(sequences));
                }
                None => assert!(sequences.is_empty(), "an empty list is not worth a message"),
                other => panic!("{other:?}"),
            }
        }
        Some(Incoming::Bundle { sender, items }) => {
            let items: Vec<_> = items.filter(|item| item.envelopes().count() > 0).collect();
            let mut bundle = Bundle::new(sender);
            for item in &items {
                let frames: Vec<_> = item.frames.split('\n').collect();
                bundle.push(item.envelopes(), frames.into_iter());
            }
            let again = bundle.into_payload();
            match Incoming::parse(&names, names.place_channel("ab12-1").as_bytes(), &again) {
                Some(Incoming::Bundle { sender: from, items: read }) => {
                    assert_eq!(from, sender);
                    let read = read.map(|item| (item.frames, item.envelopes().collect::<Vec<_>>()));
                    assert!(read.eq(items.iter().map(|item| (item.frames, item.envelopes().collect()))));
                }
                None => assert!(items.is_empty(), "an empty one is not worth a message"),
                other => panic!("{other:?}"),
            }
        }
        Some(Incoming::Hellos { place, users }) => {
            let users: Vec<_> = envelope::users(users).collect();
            let again = envelope::hellos(place, &users);
            match Incoming::parse(&names, names.hellos_channel().as_bytes(), &again) {
                Some(Incoming::Hellos { place: there, users: text }) => {
                    assert!(there == place && envelope::users(text).eq(users));
                }
                None => assert!(users.is_empty(), "an empty list is not worth a message"),
                other => panic!("{other:?}"),
            }
        }
        Some(Incoming::Hello { user, place }) => {
            let again = envelope::hello(place);
            assert_eq!(Incoming::parse(&names, names.user_channel(user).as_bytes(), &again), incoming);
        }
        Some(Incoming::Refusal { sequence, delivered }) => {
            let again = envelope::refusal(sequence, delivered);
            assert_eq!(Incoming::parse(&names, own.as_bytes(), &again), incoming);
        }
        Some(Incoming::Probe(number)) => {
            assert_eq!(Incoming::parse(&names, own.as_bytes(), &envelope::probe(number)), incoming);
        }
        Some(Incoming::GroupChanged(group)) => {
            let again = group.to_string();
            assert_eq!(Incoming::parse(&names, names.groups_channel().as_bytes(), again.as_bytes()), incoming);
        }
        None => {}
    }
    let text = String::from_utf8_lossy(payload);
    let written = envelope::envelope("ab12", 7, false, text.split('\n'));
    let to = crate::protocol::UserId(3);
    let expected = Incoming::Envelope { to, sender: "ab12", sequence: 7, frames: &text };
    assert_eq!(Incoming::parse(&names, names.user_channel(to).as_bytes(), &written), Some(expected));
}

/// The bytes are what Redis answers, [`CUT`] where one read ends. It is the same however it is cut, and what the client
/// library makes of it.
pub fn redis_reply(data: &[u8]) {
    let pieces: Vec<&[u8]> = data.split(|byte| *byte == CUT).filter(|piece| !piece.is_empty()).collect();
    let whole = pieces.concat();
    let (mut slow, mut begin) = (Vec::new(), 0);
    for end in 1..=whole.len() {
        let bytes = &whole[begin..end];
        match parse(bytes) {
            Ok(None) => continue,
            Err(_) => {
                slow.push(Seen::Malformed);
                break;
            }
            Ok(Some((reply, length))) => {
                assert_eq!(length, bytes.len(), "it was whole before");
                let reply = shown(reply);
                // The library looks closer at numbers and texts that nobody here asks for.
                if let Ok(value) = redis::parse_redis_value(bytes) {
                    assert_eq!(reply, as_shown(&value), "{}", bytes.escape_ascii());
                }
                slow.push(Seen::Reply(reply));
                begin = end;
            }
        }
    }
    assert_eq!(read(&pieces), slow);
}

/// What comes out of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Reply(String),
    Malformed,
}

/// What a connection makes of these pieces.
fn read(pieces: &[&[u8]]) -> Vec<Seen> {
    let (mut wire, mut seen) = (Wire::new(Pieces::default()), Vec::new());
    for piece in pieces {
        wire.stream_mut().0.push_back(piece.to_vec());
        assert!(!wire.fill().expect("not broken"), "all of it was there");
        loop {
            match wire.next() {
                Ok(Some(reply)) => seen.push(Seen::Reply(shown(reply))),
                Ok(None) => break,
                Err(_) => {
                    seen.push(Seen::Malformed);
                    return seen;
                }
            }
        }
    }
    seen
}

fn shown(reply: Reply<'_>) -> String {
    match reply {
        Reply::Message { channel, payload } => push("message", channel, payload),
        Reply::Subscribed(channel) => push("subscribe", channel, b""),
        Reply::Unsubscribed(channel) => push("unsubscribe", channel, b""),
        Reply::Done => "done".to_owned(),
        Reply::Error(_) => "error".to_owned(),
    }
}

fn as_shown(value: &Value) -> String {
    match value {
        Value::Array(items) => match items.as_slice() {
            [kind, channel, last] => {
                let payload = if bytes(kind) == b"message" { bytes(last) } else { b"" };
                push(&String::from_utf8_lossy(bytes(kind)), bytes(channel), payload)
            }
            _ => panic!("no push: {value:?}"),
        },
        Value::ServerError(_) => "error".to_owned(),
        _ => "done".to_owned(),
    }
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.as_bytes(),
        Value::Okay => b"OK",
        _ => panic!("no text: {value:?}"),
    }
}

fn push(kind: &str, channel: &[u8], payload: &[u8]) -> String {
    format!("{kind} {} {}", channel.escape_ascii(), payload.escape_ascii())
}

/// A stream of which each read gives one piece.
#[derive(Default)]
struct Pieces(VecDeque<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.pop_front() else { return Err(ErrorKind::WouldBlock.into()) };
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No byte of UTF-8.
const CUT: u8 = 0xfe;
