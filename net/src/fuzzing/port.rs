//! The first bytes of a connection, requests of HTTP, and frames of WebSockets.

use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use crate::framing::{FoundItem, FrameReader, FramingEnd, Notice};

/// Checks the bytes of a new connection. The first bytes decide about its protocol, however they
/// are cut.
pub fn opening(data: &[u8]) {
    let (step, data) = data.split_first().map_or((1, data), |(step, rest)| (usize::from(*step).max(1), rest));
    assert_eq!(begin(data, data.len()), begin(data, step));
}

/// Names the protocol of a connection, and the item that is then at the front.
fn begin(data: &[u8], step: usize) -> Option<String> {
    let (mut reader, mut kept) = (FrameReader::json(1000), Vec::new());
    for part in data.chunks(step.max(1)) {
        kept.extend_from_slice(part);
        loop {
            let found = reader.find(&mut kept, false);
            match found {
                FoundItem::Skip { len } => _ = kept.drain(..len),
                FoundItem::Incomplete => break,
                FoundItem::BeginsHttp => reader.become_http(),
                FoundItem::Http(item) => return Some(format!("{:?}", item.part(&kept))),
                FoundItem::Foreign(foreign) => return Some(format!("{foreign:?}")),
                // The fuzzing of the framing looks at the ends of frames and garbage.
                FoundItem::Garbage { .. } | FoundItem::Frame(_) | FoundItem::Oversize => {
                    return Some("JSON".to_owned());
                }
                found => return Some(format!("{found:?}")),
            }
        }
    }
    None
}

/// Checks the bytes of a WebSocket client. They are read the same however they are cut, and as
/// `tungstenite` reads them.
pub fn websocket(data: &[u8]) {
    let (step, data) = data.split_first().map_or((1, data), |(step, rest)| (usize::from(*step).max(1), rest));
    let ours = read(data, data.len());
    assert_eq!(ours, read(data, step), "{step} bytes at a time");
    let (theirs, error) = read_by_tungstenite(data);
    for (nth, (our, their)) in ours.messages.iter().zip(&theirs).enumerate() {
        let trimmed = their.trim_matches([' ', '\t', '\r', '\n', '\0']);
        match our {
            Some(text) => assert_eq!(text, trimmed, "message {nth}"),
            None => assert!(!is_object(trimmed), "message {nth} is an object: {trimmed:?}"),
        }
    }
    match (&ours.end, error) {
        (None, None) => assert_eq!(ours.messages.len(), theirs.len()),
        // `tungstenite` checks the text of each piece when it comes; this reader checks the whole
        // message.
        (None, Some(error)) => assert!(matches!(error, Error::Utf8(_)) && ours.is_inside, "{error}"),
        // This reader refuses binary messages, and refuses some frames by their heads alone.
        (Some(_), _) => assert!(ours.messages.len() <= theirs.len()),
    }
}

#[derive(PartialEq, Eq, Debug)]
struct ReadSoFar {
    /// `None` for a message that is not an object.
    messages: Vec<Option<String>>,
    end: Option<FramingEnd>,
    is_inside: bool,
}

fn read(data: &[u8], step: usize) -> ReadSoFar {
    let (mut reader, mut kept) = (FrameReader::json(MESSAGE_BYTES_MAX), Vec::new());
    reader.become_http();
    reader.become_websocket();
    let mut so_far = ReadSoFar { messages: Vec::new(), end: None, is_inside: false };
    for part in data.chunks(step.max(1)) {
        kept.extend_from_slice(part);
        loop {
            let found = reader.find(&mut kept, false);
            let notice = reader.notice();
            let len = match found {
                FoundItem::Frame(piece) => {
                    let text = kept[piece.payload()].to_vec();
                    so_far.messages.push(Some(String::from_utf8(text).expect("it is text")));
                    reader.taken(Some(piece));
                    piece.total()
                }
                FoundItem::Garbage { len } => {
                    so_far.messages.push(None);
                    reader.taken(None);
                    len
                }
                FoundItem::Skip { len } => len,
                FoundItem::Ended(ending) => {
                    assert!(matches!(notice, Some(Notice::EndsWith(_))), "an end has a code");
                    so_far.end = Some(ending);
                    return so_far;
                }
                FoundItem::Incomplete => break,
                found => panic!("{found:?}"),
            };
            kept.drain(..len);
        }
        // A gap may be a little longer than the text, and a frame may be incomplete.
        assert!(kept.len() <= 4 * MESSAGE_BYTES_MAX + 4096 + 200 + step, "what is kept is bounded");
    }
    so_far.is_inside = reader.is_inside();
    so_far
}

fn read_by_tungstenite(data: &[u8]) -> (Vec<String>, Option<Error>) {
    let limits =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocket::from_raw_socket(Bytes(data), Role::Server, Some(limits));
    let mut texts = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => texts.push(text.to_string()),
            Ok(Message::Close(_)) => return (texts, None),
            Ok(_) => {}
            Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => return (texts, None),
            Err(error) => return (texts, Some(error)),
        }
    }
}

/// Whether the text is one object by its braces, as a slow and simple reader counts them.
fn is_object(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' if at > 0 => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return at + 1 == text.len() && text.starts_with('{');
                }
            }
            _ if depth == 0 => return false,
            _ => {}
        }
        if depth <= 0 {
            return false;
        }
    }
    false
}

/// A source of these bytes that takes every write.
struct Bytes<'d>(&'d [u8]);

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Bytes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const MESSAGE_BYTES_MAX: usize = 1000;
