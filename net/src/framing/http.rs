//! HTTP/1.1, as far as its framing goes: where the head of a request ends and where its body does.
//! The application interprets the head.
//!
//! ```text
//!   POST /v2/send HTTP/1.1\r\nHost: …\r\n\r\n{"msgType":4,…}
//!   └───────────────── head ────────────────┘└──── body ───┘
//! ```
//! The application is shown the head, and says what follows: a body of some length, another
//! request, or the frames of a WebSocket. Each of them has `frame_timeout` to arrive.

use super::found::{FoundItem, HttpItem};

/// Finds the parts of requests. Stores none of their bytes.
#[derive(Debug)]
pub(crate) struct HttpReader {
    state: HttpState,
    /// Whether a head or a body is incomplete.
    is_inside: bool,
    /// The longest message, in case the connection becomes a WebSocket.
    pub(super) message_bytes_max: usize,
}

#[derive(Debug)]
enum HttpState {
    /// Before or in a head. The first `looked_at` bytes were scanned.
    Head { looked_at: usize },
    /// Before or in a body of this length.
    Body { len: usize },
    /// This item was shown and not taken.
    Shown(HttpItem),
}

impl HttpReader {
    /// The reader of a connection that begins with a method.
    pub(crate) fn new(message_bytes_max: usize) -> HttpReader {
        HttpReader { state: HttpState::Head { looked_at: 0 }, is_inside: false, message_bytes_max }
    }

    pub(super) fn find(&mut self, bytes: &[u8]) -> FoundItem {
        let item = match &mut self.state {
            HttpState::Shown(item) => return FoundItem::Http(*item),
            HttpState::Head { looked_at } => {
                // RFC 9112, 2.2: an empty line may precede a request.
                let blanks = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                if blanks > 0 && *looked_at == 0 {
                    return FoundItem::Skip { len: blanks };
                }
                match end_of_head(bytes, looked_at) {
                    Some(len) => HttpItem::Head(len),
                    None if bytes.len() >= HEAD_BYTES_MAX => HttpItem::TooLong,
                    None => return self.wait(!bytes.is_empty()),
                }
            }
            HttpState::Body { len } if bytes.len() >= *len => HttpItem::Body(*len),
            HttpState::Body { .. } => return self.wait(true),
        };
        self.show(item)
    }

    fn wait(&mut self, is_inside: bool) -> FoundItem {
        self.is_inside = is_inside;
        FoundItem::Incomplete
    }

    fn show(&mut self, item: HttpItem) -> FoundItem {
        (self.state, self.is_inside) = (HttpState::Shown(item), false);
        FoundItem::Http(item)
    }

    /// Notes that the request was answered; another one follows.
    pub(super) fn taken(&mut self) {
        (self.state, self.is_inside) = (HttpState::Head { looked_at: 0 }, false);
    }

    /// Notes that the head was taken, and that a body of this length follows.
    pub(crate) fn expect_body(&mut self, len: usize) {
        (self.state, self.is_inside) = (HttpState::Body { len }, false);
    }

    pub(super) fn has_shown(&self) -> bool {
        matches!(self.state, HttpState::Shown(_))
    }

    pub(super) fn is_inside(&self) -> bool {
        self.is_inside
    }

    pub(super) fn give_up(&mut self) {
        self.show(HttpItem::Late);
    }
}

/// The length of the head, which ends with an empty line. Each line is scanned once.
fn end_of_head(bytes: &[u8], looked_at: &mut usize) -> Option<usize> {
    let near = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    for at in memchr::memchr_iter(b'\n', &near[*looked_at..]).map(|at| *looked_at + at) {
        match &near[at + 1..] {
            [b'\n', ..] => return Some(at + 2),
            [b'\r', b'\n', ..] => return Some(at + 3),
            // The next scan begins with this line end again.
            [] | [b'\r'] => {
                *looked_at = at;
                return None;
            }
            _ => {}
        }
    }
    *looked_at = near.len();
    None
}

/// The longest head of a request, the empty line included.
pub const HEAD_BYTES_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::super::found::HttpPart;
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_is_cut() {
        for head in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /\n\n", "GET /\r\n\n", "GET /\nA: b\n\r\n"] {
            let bytes = [head.as_bytes(), b"GET /second\r\n\r\n"].concat();
            let mut reader = HttpReader::new(100);
            for end in 0..head.len() {
                assert_eq!(reader.find(&bytes[..end]), FoundItem::Incomplete, "{end} bytes of {head:?}");
                assert_eq!(reader.is_inside(), end > 0);
            }
            assert_eq!(reader.find(&bytes), FoundItem::Http(HttpItem::Head(head.len())));
            assert!(reader.has_shown() && !reader.is_inside());
            reader.taken();
            assert_eq!(reader.find(&bytes[head.len()..]), FoundItem::Http(HttpItem::Head(15)));
        }
    }

    #[test]
    fn a_head_has_a_longest_length() {
        let long = |len: usize| [b"GET /", &vec![b'x'; len - 9][..], b"\r\n\r\n"].concat();
        let mut reader = HttpReader::new(100);
        assert_eq!(reader.find(&long(HEAD_BYTES_MAX)), FoundItem::Http(HttpItem::Head(HEAD_BYTES_MAX)));
        let mut reader = HttpReader::new(100);
        assert_eq!(reader.find(&long(HEAD_BYTES_MAX + 1)), FoundItem::Http(HttpItem::TooLong));
        assert_eq!(reader.find(b""), FoundItem::Http(HttpItem::TooLong), "until it is taken");
    }

    #[test]
    fn a_body_is_as_long_as_the_application_has_said() {
        let mut reader = HttpReader::new(100);
        reader.expect_body(3);
        assert_eq!(reader.find(b"ab"), FoundItem::Incomplete);
        assert!(reader.is_inside());
        assert_eq!(reader.find(b"abcd"), FoundItem::Http(HttpItem::Body(3)));
        assert_eq!(HttpItem::Body(3).part(b"abcd"), HttpPart::Body(b"abc"));
        reader.expect_body(3);
        reader.find(b"a");
        reader.give_up();
        assert_eq!(reader.find(b""), FoundItem::Http(HttpItem::Late));
    }

    #[test]
    fn an_empty_line_may_precede_a_request() {
        let mut reader = HttpReader::new(100);
        assert_eq!(reader.find(b"\r\nGET / HTTP/1.1\r\n"), FoundItem::Skip { len: 2 });
    }
}
