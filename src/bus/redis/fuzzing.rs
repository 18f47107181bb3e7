//! Fuzzes what arrives from Redis, and so from anybody who can publish there.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use redis::Value;

use super::names::{self, Channel, Names};
use super::wire::{RedisReply, RedisWire, parse};
use crate::base::ids::FrameId;
use crate::bus::peer::Topic;
use crate::bus::peer::envelope::{self, Bundle, Frames, Items, PeerMessage};

/// Takes the bytes as a channel, a newline and a payload. A parsed message is written the same way
/// again; any written frames can be parsed.
pub fn envelope(data: &[u8]) {
    let names = Names::shortest();
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (channel, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match names.read(channel) {
        Some(Channel::Topic(topic)) => {
            assert_eq!(names.read(names.channel(topic).as_bytes()), Some(Channel::Topic(topic)));
            peer_message(topic, payload);
        }
        Some(Channel::Reference(to)) => {
            assert_eq!(names.read(names::reference_channel(to).as_bytes()), Some(Channel::Reference(to)));
        }
        None => {}
    }
    let text = String::from_utf8_lossy(payload);
    let written = envelope::envelope("ab12", 7, (false, false), text.split('\n'));
    let to = crate::protocol::UserId(3);
    let expected = PeerMessage::Envelope { to, sender: "ab12", sequence: 7, frames: Frames::of(&text) };
    assert_eq!(PeerMessage::parse(Topic::User(to), &written), Some(expected));
}

fn peer_message(topic: Topic<&str>, payload: &[u8]) {
    let read = PeerMessage::parse(topic, payload);
    let own = Topic::Node("ab12");
    match read {
        Some(
            PeerMessage::Envelope { sender, sequence, frames, .. }
            | PeerMessage::Returned { sender, sequence, frames, .. },
        ) => {
            let is_returned = matches!(read, Some(PeerMessage::Returned { .. }));
            let is_recorded = frames.id() == FrameId::RECORDED;
            let again = envelope::envelope(sender, sequence, (is_returned, is_recorded), frames);
            assert_eq!(PeerMessage::parse(topic, &again), read);
        }
        Some(PeerMessage::Confirmations { place, sequences }) => {
            let sequences: Vec<u64> = envelope::sequences(sequences).collect();
            let again = envelope::confirmations(place, &sequences);
            match PeerMessage::parse(own, &again) {
                Some(PeerMessage::Confirmations { place: to, sequences: text }) => {
                    assert!(to == place && envelope::sequences(text).eq(sequences));
                }
                None => assert!(sequences.is_empty(), "an empty list is not worth a message"),
                other => panic!("{other:?}"),
            }
        }
        Some(PeerMessage::Bundle { sender, items }) => bundle(sender, items),
        Some(PeerMessage::Hellos { place, users }) => {
            let users: Vec<_> = envelope::users(users).collect();
            let again = envelope::hellos(place, &users);
            match PeerMessage::parse(Topic::Hellos, &again) {
                Some(PeerMessage::Hellos { place: there, users: text }) => {
                    assert!(there == place && envelope::users(text).eq(users));
                }
                None => assert!(users.is_empty(), "an empty list is not worth a message"),
                other => panic!("{other:?}"),
            }
        }
        Some(PeerMessage::Hello { place, .. }) => {
            assert_eq!(PeerMessage::parse(topic, &envelope::hello(place)), read);
        }
        Some(PeerMessage::Refusal { sequence, delivered }) => {
            assert_eq!(PeerMessage::parse(own, &envelope::refusal(sequence, delivered)), read);
        }
        Some(PeerMessage::Probe(number)) => {
            assert_eq!(PeerMessage::parse(own, &envelope::probe(number)), read);
        }
        Some(PeerMessage::GroupChanged(group)) => {
            assert_eq!(PeerMessage::parse(Topic::Groups, &envelope::group(group)), read);
        }
        // `devices.rs` reads its content, and passes over what no node writes.
        Some(PeerMessage::Devices { .. }) | None => {}
    }
}

fn bundle(sender: &str, items: Items<'_>) {
    let items: Vec<_> = items.filter(|item| item.envelopes().count() > 0).collect();
    let mut bundle = Bundle::new(sender);
    for item in &items {
        let frames: Vec<_> = item.frames.collect();
        bundle.push(item.envelopes(), frames.into_iter(), item.frames.id() == FrameId::RECORDED);
    }
    let again = bundle.into_payload();
    match PeerMessage::parse(Topic::Place("ab12-1"), &again) {
        Some(PeerMessage::Bundle { sender: from, items: read }) => {
            assert_eq!(from, sender);
            let read = read.map(|item| (item.frames, item.envelopes().collect::<Vec<_>>()));
            assert!(read.eq(items.iter().map(|item| (item.frames, item.envelopes().collect()))));
        }
        None => assert!(items.is_empty(), "an empty one is not worth a message"),
        other => panic!("{other:?}"),
    }
}

/// Takes the bytes as Redis's answers, with [`CUT`] at the end of each read. The result is the same
/// for any segmentation, and the same as the client library's.
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
                // The library validates numbers and texts that are not needed here.
                if let Ok(value) = redis::parse_redis_value(bytes) {
                    assert_eq!(shown(reply), as_shown(&value), "{}", bytes.escape_ascii());
                }
                slow.push(Seen::RedisReply(shown(reply.accept_misconf())));
                begin = end;
            }
        }
    }
    assert_eq!(read(&pieces), slow);
}

/// The results of reading a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    RedisReply(String),
    Malformed,
}

/// Reads these pieces on a connection.
fn read(pieces: &[&[u8]]) -> Vec<Seen> {
    let (mut wire, mut seen) = (RedisWire::new(Pieces::default()), Vec::new());
    for piece in pieces {
        wire.stream_mut().0.push_back(piece.to_vec());
        assert!(!wire.fill().expect("not broken"), "all of it was there");
        loop {
            match wire.next() {
                Ok(Some(reply)) => seen.push(Seen::RedisReply(shown(reply))),
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

fn shown(reply: RedisReply<'_>) -> String {
    match reply {
        RedisReply::Message { channel, payload } => push("message", channel, payload),
        RedisReply::Subscribed(channel) => push("subscribe", channel, b""),
        RedisReply::Unsubscribed(channel) => push("unsubscribe", channel, b""),
        RedisReply::Done => "done".to_owned(),
        RedisReply::Error(_) => "error".to_owned(),
    }
}

fn as_shown(value: &Value) -> String {
    match value {
        Value::Array(items) => match items.as_slice() {
            [kind, channel, last] => {
                let kind = String::from_utf8_lossy(bytes(kind));
                // In a Redis Cluster, each word has another s in front of it.
                let kind = kind.strip_prefix('s').filter(|kind| !kind.starts_with("ub")).unwrap_or(&kind);
                push(kind, bytes(channel), if kind == "message" { bytes(last) } else { b"" })
            }
            [kind, _] if bytes(kind) == b"pong" => "done".to_owned(),
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
        Value::Nil => b"",
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

/// A byte that never occurs in UTF-8.
const CUT: u8 = 0xfe;
