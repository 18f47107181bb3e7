//! The protocol of a connection by its first bytes: JSON, HTTP or TLS.
//!
//! A web page can make a browser send a request with any text to any address and port. Frames in
//! that text would be processed as the visitor's. So HTTP is recognized before the text is searched
//! for frames.
//!
//! ```text
//!   {"msgType":…             frames
//!   keep this socket alive   frames: garbage, as ever
//!   G  GE  GET               not known yet: wait for more, as for the rest of a frame
//!   GET / HTTP/1.1 …         HTTP
//!   0x16 …                   TLS
//! ```
//!
//! A connection that begins with a brace, as nearly all do, costs one comparison.

/// A protocol that is not spoken here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// TLS.
    Tls,
    /// Not TLS, though the port requires it.
    Plain {
        /// Whether its first bytes look like HTTP.
        http: bool,
    },
}

/// The decision after some first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DetectedProtocol {
    /// Frames, or input treated like frames.
    Frames,
    /// More bytes will decide. If none come, the bytes are garbage.
    Undecided,
    /// HTTP.
    Http,
    /// Another protocol.
    Foreign(Foreign),
}

/// Decides by the first bytes of a connection, without preceding blanks.
pub(crate) fn look(bytes: &[u8]) -> DetectedProtocol {
    match bytes.first() {
        None => DetectedProtocol::Undecided,
        Some(b'A'..=b'Z') => look_for_method(bytes),
        Some(&TLS_HANDSHAKE) => DetectedProtocol::Foreign(Foreign::Tls),
        Some(_) => DetectedProtocol::Frames,
    }
}

/// Whether these are the first bytes of a request in HTTP.
pub(crate) fn looks_like_http(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| bytes.starts_with(method))
}

fn look_for_method(bytes: &[u8]) -> DetectedProtocol {
    let near = &bytes[..bytes.len().min(METHOD_BYTES_MAX)];
    for method in METHODS {
        if near.starts_with(method) {
            return DetectedProtocol::Http;
        }
        if method.starts_with(near) {
            return DetectedProtocol::Undecided;
        }
    }
    DetectedProtocol::Frames
}

/// The methods of RFC 9110 and RFC 5789, and the beginning of HTTP/2 (RFC 9113, 3.4), each with the
/// blank after it. None is the beginning of another.
const METHODS: [&[u8]; 10] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ", b"PRI "];
const METHOD_BYTES_MAX: usize = b"CONNECT ".len();
/// The type of the record that TLS begins with (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_of_a_method_waits_for_more() {
        for method in METHODS {
            for end in 1..method.len() {
                // A beginning shared by several methods waits as well: P of POST, PUT, PATCH, PRI.
                assert_eq!(look(&method[..end]), DetectedProtocol::Undecided, "{}", method[..end].escape_ascii());
            }
            assert_eq!(look(method), DetectedProtocol::Http);
            assert_eq!(look(&[method, b"{\"msgType\":1}"].concat()), DetectedProtocol::Http);
        }
        assert_eq!(look(b""), DetectedProtocol::Undecided);
    }

    #[test]
    fn everything_else_is_as_ever() {
        for bytes in
            [&b"{"[..], b"keep this socket alive", b"GETX", b"Px", b"get / HTTP/1.1", b"\x17\x03", b"[{}]", b"OPTIONSX"]
        {
            assert_eq!(look(bytes), DetectedProtocol::Frames, "{}", bytes.escape_ascii());
        }
        assert_eq!(look(b"\x16"), DetectedProtocol::Foreign(Foreign::Tls));
    }
}
