//! The protocol of a connection by its first bytes: JSON, or another protocol that has come to the
//! wrong port.
//!
//! A web page can make a browser send a request with any text to any address and port: frames in it
//! would be taken for the visitor's. So a connection that begins with HTTP is answered in HTTP and
//! closed, and its input is not processed; one that begins with TLS, which is not spoken here, is
//! closed.
//!
//! ```text
//!   {"msgType":…          frames
//!   keep this socket alive   frames: garbage, as ever
//!   G  GE  GET            not known yet: wait for more, as for the rest of a frame
//!   GET / HTTP/1.1 …      HTTP; the rest of its head is waited for, which tells whether it wants to upgrade
//!   0x16 …                TLS
//! ```

/// A protocol other than JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// HTTP.
    Http {
        /// Whether it asks for another protocol, such as a WebSocket.
        upgrade: bool,
        /// Whether it asks for the head only, so that the answer has no body.
        head: bool,
    },
    /// TLS.
    Tls,
    /// No TLS, where the port requires it.
    Plain {
        /// Whether its first bytes look like HTTP.
        http: bool,
    },
}

/// The decision after some first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beginning {
    /// Frames, or input treated like frames.
    Frames,
    /// More bytes will decide. If none come, it is this, or garbage.
    Undecided(Option<Foreign>),
    /// Another protocol.
    Foreign(Foreign),
}

/// Decides by the first bytes of a connection, without preceding blanks.
pub(crate) fn look(bytes: &[u8]) -> Beginning {
    match bytes.first() {
        None => return Beginning::Undecided(None),
        Some(&TLS_HANDSHAKE) => return Beginning::Foreign(Foreign::Tls),
        Some(_) => {}
    }
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return look_at_head(bytes);
    }
    match METHODS.iter().any(|method| method.starts_with(bytes)) {
        true => Beginning::Undecided(None),
        false => Beginning::Frames,
    }
}

/// Whether these are the first bytes of a request in HTTP.
pub(crate) fn looks_like_http(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// A head ends with an empty line.
fn look_at_head(bytes: &[u8]) -> Beginning {
    let near = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let mut lines = near.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let (mut upgrade, mut whole) = (false, near.len() == HEAD_BYTES_MAX);
    let head = near.starts_with(b"HEAD ");
    // The bytes after the last newline are not a complete line.
    let count = memchr::memchr_iter(b'\n', near).count();
    for line in lines.by_ref().take(count).skip(1) {
        if line.is_empty() {
            whole = true;
            break;
        }
        upgrade |= line.get(..UPGRADE.len()).is_some_and(|name| name.eq_ignore_ascii_case(UPGRADE));
    }
    let http = Foreign::Http { upgrade, head };
    if whole { Beginning::Foreign(http) } else { Beginning::Undecided(Some(http)) }
}

/// The methods of RFC 9110 and RFC 5789, and the beginning of HTTP/2 (RFC 9113, 3.4), each with the
/// blank after it.
const METHODS: [&[u8]; 10] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ", b"PRI "];
const UPGRADE: &[u8] = b"upgrade:";
/// The type of the record that TLS begins with (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// The answer does not wait for a longer head.
const HEAD_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Foreign = Foreign::Http { upgrade: false, head: false };

    #[test]
    fn every_beginning_of_a_request_waits_for_more() {
        for method in METHODS {
            for end in 1..method.len() {
                assert_eq!(look(&method[..end]), Beginning::Undecided(None), "{}", method[..end].escape_ascii());
            }
            let head = *method == *b"HEAD ";
            assert_eq!(look(method), Beginning::Undecided(Some(Foreign::Http { upgrade: false, head })));
        }
        assert_eq!(look(b""), Beginning::Undecided(None));
    }

    #[test]
    fn a_request_is_known_when_its_head_is_there() {
        let post = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n{\"msgType\":1}";
        assert_eq!(look(post), Beginning::Foreign(PLAIN));
        assert_eq!(look(&post[..27]), Beginning::Undecided(Some(PLAIN)));
        assert_eq!(look(b"GET /\n\n"), Beginning::Foreign(PLAIN));
        let upgrade = Foreign::Http { upgrade: true, head: false };
        assert_eq!(look(b"GET / HTTP/1.1\r\nUPgrade : x\r\n\r\n"), Beginning::Foreign(PLAIN), "no such header");
        assert_eq!(look(b"GET / HTTP/1.1\r\nA: upgrade:\r\nUPgrade: websocket\r\n\r\n"), Beginning::Foreign(upgrade));
        assert_eq!(look(b"GET / HTTP/1.1\r\n\r\nUpgrade: websocket\r\n\r\n"), Beginning::Foreign(PLAIN), "in the body");
        assert_eq!(look(&[b"GET /", &[b'x'; HEAD_BYTES_MAX][..]].concat()), Beginning::Foreign(PLAIN));
        assert_eq!(look(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Beginning::Foreign(PLAIN));
    }

    #[test]
    fn everything_else_is_as_ever() {
        for bytes in [&b"{"[..], b"keep this socket alive", b"GETX", b"Px", b"get / HTTP/1.1", b"\x17\x03", b"[{}]"] {
            assert_eq!(look(bytes), Beginning::Frames, "{}", bytes.escape_ascii());
        }
        assert_eq!(look(b"\x16"), Beginning::Foreign(Foreign::Tls));
    }
}
