//! WebSocket (RFC 6455): each text message carries one frame.
//!
//! ```text
//!   received   │ head │ key │ masked text │ head │ key │ masked text │ …
//!   shown                   └── unmasked, where it lies ──┘
//!   sent       │ head │ text │ head │ text │ …
//! ```
//!
//! The codec is written here because a library's would copy each message into a buffer of its own,
//! and an idle connection would hold that buffer. Here the mask is removed in the buffer of the
//! loop, and an idle connection holds nothing.
//!
//! The text of a fragmented message is moved together at the front of the received bytes. Between
//! it and the next frame lies a gap: the heads of its frames, bytes without a meaning.
//!
//! ```text
//!   │ text so far │ gap │ head │ key │ masked text │
//! ```
//! Each byte of text is moved once for the frame that brings it, and once more whenever the gap has
//! become longer than the text. So the work is a small multiple of the bytes received.
//!
//! A message that is not exactly one JSON object, apart from blanks around it, is garbage. A
//! violation of the protocol ends the connection with the code of RFC 6455, 7.4.1.

use super::codec::is_one_object;
use super::flat::unmask;
use super::found::{FoundItem, FramingEnd, Notice, Piece, Wrapping};

/// Finds messages. Stores none of their bytes.
#[derive(Debug)]
pub(crate) struct WebSocketReader {
    state: WsState,
    message_bytes_max: u32,
    /// The fragmented message that has begun, if there is one.
    begun: Option<Begun>,
    /// Whether a frame or a message is incomplete.
    is_inside: bool,
    /// Behind a pointer, because most connections never have one.
    notice: Option<Box<Notice>>,
}

/// An unfinished message, whose text so far is at the front.
#[derive(Clone, Copy, Debug)]
struct Begun {
    len: u32,
    /// The bytes between the text and the next frame.
    gap: u32,
    /// Whether the text was moved, so that bytes of the message were skipped.
    is_moved: bool,
}

#[derive(Clone, Copy, Debug)]
enum WsState {
    Between,
    /// The frame was shown, and is not taken yet.
    Frame {
        head: u32,
        len: u32,
        tail: u32,
    },
    Garbage {
        len: u32,
    },
    Ended(FramingEnd),
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_last: bool,
    opcode: u8,
    /// The length of the head, including the key.
    len: usize,
    payload: usize,
    key: [u8; 4],
}

impl WebSocketReader {
    pub(crate) fn new(message_bytes_max: usize) -> WebSocketReader {
        let message_bytes_max = u32::try_from(message_bytes_max).unwrap_or(u32::MAX);
        WebSocketReader { state: WsState::Between, message_bytes_max, begun: None, is_inside: false, notice: None }
    }

    #[inline]
    pub(super) fn find(&mut self, bytes: &mut [u8]) -> FoundItem {
        match self.flat_message(bytes) {
            Some(piece) => FoundItem::Frame(piece),
            None => self.find_any(bytes),
        }
    }

    /// Finds the usual message: one frame that is one flat object in ASCII. Other messages are at
    /// most unmasked here.
    #[inline]
    fn flat_message(&mut self, bytes: &mut [u8]) -> Option<Piece> {
        if !matches!(self.state, WsState::Between) || self.begun.is_some() {
            return None;
        }
        let (head, len, key) = match *bytes {
            [WHOLE_TEXT, len @ MASKED..=0xfd, a, b, c, d, ..] => (6, usize::from(len & !MASKED), [a, b, c, d]),
            [WHOLE_TEXT, 0xfe, high, low, a, b, c, d, ..] => {
                (8, usize::from(u16::from_be_bytes([high, low])), [a, b, c, d])
            }
            _ => return None,
        };
        let text = bytes.get_mut(head..head + len).filter(|text| text.len() <= self.message_bytes_max as usize)?;
        let seen = unmask(text, key);
        if !(seen.is_flat && seen.is_ascii) {
            // The message is looked at again, and has no mask any more.
            bytes[head - 4..head].fill(0);
            return None;
        }
        self.state = WsState::Frame { head: head as u32, len: len as u32, tail: 0 };
        self.is_inside = false;
        Some(Piece { head, len, tail: 0 })
    }

    fn find_any(&mut self, bytes: &mut [u8]) -> FoundItem {
        if let Some(item) = self.state.item() {
            return item;
        }
        loop {
            let at = self.begun.map_or(0, |begun| (begun.len + begun.gap) as usize);
            let head = match Head::parse(&bytes[at..]) {
                Ok(Some(head)) => head,
                Ok(None) => return self.wait(self.begun.is_some() || bytes.len() > at),
                Err(code) => return self.end(FramingEnd::Violation, code),
            };
            if let Err(code) = self.check(head) {
                return self.end(if code == TOO_BIG { FramingEnd::TooLong } else { FramingEnd::Violation }, code);
            }
            let (from, end) = (at + head.len, at + head.len + head.payload);
            let Some(payload) = bytes.get_mut(from..end) else { return self.wait(true) };
            unmask(payload, head.key);
            match (head.opcode, &mut self.begun) {
                (TEXT, _) if head.is_last => return self.found(bytes, from, head.payload, end),
                (TEXT, begun) => {
                    *begun = Some(Begun { len: head.payload as u32, gap: 0, is_moved: false });
                    return FoundItem::Skip { len: from };
                }
                (CONTINUATION, Some(begun)) => {
                    let text = begun.len as usize;
                    bytes.copy_within(from..end, text);
                    if head.is_last {
                        return self.found(bytes, 0, text + head.payload, end);
                    }
                    begun.len += head.payload as u32;
                    begun.gap += head.len as u32;
                    if let Some(skip) = begun.close_gap(bytes) {
                        return skip;
                    }
                }
                (opcode, _) => {
                    if let Some(ended) = self.control(opcode, &bytes[from..end]) {
                        return ended;
                    }
                    let Some(begun) = &mut self.begun else { return FoundItem::Skip { len: end } };
                    begun.gap += (end - at) as u32;
                    return begun.close_gap(bytes).unwrap_or(FoundItem::Skip { len: 0 });
                }
            }
        }
    }

    /// Whether a frame with this head may come now; otherwise the close code of the violation.
    fn check(&self, head: Head) -> Result<(), u16> {
        let begun = match (head.opcode, self.begun) {
            (CONTINUATION, None) | (TEXT | BINARY, Some(_)) => return Err(VIOLATION),
            (BINARY, None) => return Err(NO_TEXT),
            (CONTINUATION, Some(begun)) => begun.len as usize,
            _ => 0,
        };
        if begun + head.payload > self.message_bytes_max as usize { Err(TOO_BIG) } else { Ok(()) }
    }

    fn wait(&mut self, is_inside: bool) -> FoundItem {
        self.is_inside = is_inside;
        FoundItem::Incomplete
    }

    /// Handles a complete message: the place of its text, and its length in all.
    fn found(&mut self, bytes: &[u8], from: usize, len: usize, end: usize) -> FoundItem {
        let text = &bytes[from..from + len];
        if str::from_utf8(text).is_err() {
            return self.end(FramingEnd::Violation, NO_UTF8);
        }
        let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0);
        let before = text.iter().take_while(is_blank).count();
        let behind = text[before..].iter().rev().take_while(is_blank).count();
        self.state = match is_one_object(&text[before..len - behind]) {
            true => WsState::Frame {
                head: (from + before) as u32,
                len: (len - before - behind) as u32,
                tail: (end - from - len + behind) as u32,
            },
            false => WsState::Garbage { len: end as u32 },
        };
        self.is_inside = false;
        self.state.item().unwrap_or(FoundItem::Incomplete)
    }

    /// Handles a complete control frame. Returns the end of the connection if the frame is a close.
    fn control(&mut self, opcode: u8, payload: &[u8]) -> Option<FoundItem> {
        match opcode {
            PING => {
                let mut answer = vec![LAST | PONG, payload.len() as u8];
                answer.extend_from_slice(payload);
                self.notice = Some(Box::new(Notice::Answer(answer)));
                None
            }
            CLOSE => Some(match code_of(payload) {
                Ok(code) => self.end(FramingEnd::Peer, code),
                Err(code) => self.end(FramingEnd::Violation, code),
            }),
            _ => None,
        }
    }

    /// Ends the connection; this close code is sent to the client.
    fn end(&mut self, ending: FramingEnd, code: u16) -> FoundItem {
        (self.state, self.is_inside) = (WsState::Ended(ending), false);
        self.notice = Some(Box::new(Notice::EndsWith(code)));
        FoundItem::Ended(ending)
    }

    #[inline]
    pub(super) fn notice(&mut self) -> Option<Notice> {
        if self.notice.is_none() { None } else { self.notice.take().map(|notice| *notice) }
    }

    /// Whether the reader is before a message of which it has scanned nothing.
    #[inline]
    pub(super) fn awaits_bytes(&self) -> bool {
        matches!(self.state, WsState::Between) && self.begun.is_none() && !self.is_inside
    }

    #[inline]
    pub(super) fn taken(&mut self) {
        (self.state, self.begun, self.is_inside) = (WsState::Between, None, false);
    }

    #[inline]
    pub(super) fn has_shown(&self) -> bool {
        !matches!(self.state, WsState::Between)
    }

    #[inline]
    pub(super) fn is_inside(&self) -> bool {
        self.is_inside
    }

    pub(super) fn goes_on(&self) -> bool {
        self.begun.is_some_and(|begun| begun.is_moved)
    }

    /// Gives up on the frame. No other frame can be found after it.
    pub(super) fn give_up(&mut self) {
        self.end(FramingEnd::Violation, LATE);
    }

    pub(super) fn forget(&mut self) {
        *self = WebSocketReader::new(self.message_bytes_max as usize);
    }
}

impl WsState {
    #[inline]
    fn item(self) -> Option<FoundItem> {
        match self {
            WsState::Between => None,
            WsState::Frame { head, len, tail } => {
                Some(FoundItem::Frame(Piece { head: head as usize, len: len as usize, tail: tail as usize }))
            }
            WsState::Garbage { len } => Some(FoundItem::Garbage { len: len as usize }),
            WsState::Ended(ending) => Some(FoundItem::Ended(ending)),
        }
    }
}

impl Begun {
    /// Moves the text behind the gap once the gap is longer. So a client that sends little text in
    /// many frames takes up no more memory than twice the text and a little.
    fn close_gap(&mut self, bytes: &mut [u8]) -> Option<FoundItem> {
        if self.gap <= self.len + GAP_BYTES_MAX {
            return None;
        }
        let gap = self.gap as usize;
        bytes.copy_within(..self.len as usize, gap);
        (self.gap, self.is_moved) = (0, true);
        Some(FoundItem::Skip { len: gap })
    }
}

impl Head {
    /// Reads the head at the front; `None` if more of it must come. Reports a violation as early as
    /// possible.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, u16> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (is_last, opcode) = (first & LAST != 0, first & OPCODE);
        let is_control = opcode >= CLOSE;
        // A client must mask its frames (RFC 6455, 5.1). No extension was negotiated, so the other
        // bits and opcodes have no meaning.
        let is_known = first & RESERVED == 0 && matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        let len = second & !MASKED;
        if !is_known || second & MASKED == 0 || is_control && (!is_last || len > CONTROL_BYTES_MAX) {
            return Err(VIOLATION);
        }
        let (payload, rest) = match (len, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest),
            (126 | 127, _) => return Ok(None),
            (len, rest) => (u64::from(len), rest),
        };
        if payload >> 63 != 0 {
            return Err(VIOLATION);
        }
        let payload =
            usize::try_from(payload).ok().filter(|len| *len <= u32::MAX as usize).unwrap_or(u32::MAX as usize);
        let key = rest.first_chunk::<4>();
        // A message that is too long is refused before its key has come.
        let key = match key {
            Some(key) => *key,
            None if payload == u32::MAX as usize => [0; 4],
            None => return Ok(None),
        };
        Ok(Some(Head { is_last, opcode, len: bytes.len() - rest.len() + 4, payload, key }))
    }
}

/// The close code that answers a close with this payload: the client's own code, or the code of its
/// violation.
fn code_of(payload: &[u8]) -> Result<u16, u16> {
    match payload {
        [] => Ok(NORMAL),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => match str::from_utf8(reason) {
                Ok(_) => Ok(code),
                Err(_) => Err(NO_UTF8),
            },
            _ => Err(VIOLATION),
        },
        _ => Err(VIOLATION),
    }
}

/// Puts messages into frames.
#[derive(Debug, Default)]
pub(crate) struct WebSocketWriter {
    /// The close code of the connection; 0 while it is not known.
    code: u16,
}

impl WebSocketWriter {
    #[inline]
    pub(super) fn wrap(&mut self, text: &[u8], out: &mut Vec<u8>) -> Wrapping {
        out.reserve(HEAD_BYTES_MAX + text.len());
        let head = match text.len() {
            len @ ..126 => {
                out.extend_from_slice(&[WHOLE_TEXT, len as u8]);
                2
            }
            len @ ..0x1_0000 => {
                let [high, low] = (len as u16).to_be_bytes();
                out.extend_from_slice(&[WHOLE_TEXT, 126, high, low]);
                4
            }
            len => {
                out.extend_from_slice(&[WHOLE_TEXT, 127]);
                out.extend_from_slice(&(len as u64).to_be_bytes());
                10
            }
        };
        out.extend_from_slice(text);
        Wrapping { head, tail: 0 }
    }

    /// Notes the close code. The first one counts.
    pub(super) fn ends_with(&mut self, code: u16) {
        if self.code == 0 {
            self.code = code;
        }
    }

    /// The last frame: a close.
    pub(super) fn goodbye(&self) -> [u8; 4] {
        let [high, low] = if self.code == 0 { NORMAL } else { self.code }.to_be_bytes();
        [LAST | CLOSE, 2, high, low]
    }
}

const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
/// The first byte of a text message in one frame.
const WHOLE_TEXT: u8 = LAST | TEXT;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The longest head of an unmasked frame.
const HEAD_BYTES_MAX: usize = 10;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u8 = 125;
/// The number of bytes by which the gap may be longer than the text.
const GAP_BYTES_MAX: u32 = 4096;

// Codes of RFC 6455, 7.4.1.
const NORMAL: u16 = 1000;
const VIOLATION: u16 = 1002;
const NO_TEXT: u16 = 1003;
const NO_UTF8: u16 = 1007;
/// The code for a client that has left a message unfinished for too long.
const LATE: u16 = 1008;
const TOO_BIG: u16 = 1009;

#[cfg(test)]
mod tests;
