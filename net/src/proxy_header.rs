//! The header with which a proxy names the client of a connection: the PROXY protocol, versions 1
//! and 2 (`proxy-protocol.txt` of HAProxy). The header comes once, before everything else:
//!
//! ```text
//!   PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n{"msgType":1,…
//!   └──────────────── version 1 ─────────────────┘
//! ```
//!
//! Version 2 is binary and begins with a signature that no text begins with. The `ppp` crate parses
//! both; this file extracts what a connection needs.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// The beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DetectedProxyHeader {
    /// A complete header of this length. It names no client if the proxy speaks for itself (a
    /// health check) or does not know the client; then the address of the socket counts.
    Header { len: usize, client: Option<SocketAddr> },
    /// Possibly a header; more must arrive.
    Incomplete,
    /// Not a header.
    Other,
}

/// Inspects all received bytes of a connection.
pub(crate) fn look(bytes: &[u8]) -> DetectedProxyHeader {
    match resembles_header(bytes) {
        None => DetectedProxyHeader::Incomplete,
        Some(false) => DetectedProxyHeader::Other,
        Some(true) if bytes.starts_with(V1_PREFIX) => look_at_text(bytes),
        Some(true) => look_at_binary(bytes),
    }
}

/// Parses the line when it is complete, because the parser rejects some beginnings of valid lines.
fn look_at_text(bytes: &[u8]) -> DetectedProxyHeader {
    match memchr::memchr(b'\n', &bytes[..bytes.len().min(V1_BYTES_MAX)]) {
        None if bytes.len() < V1_BYTES_MAX => DetectedProxyHeader::Incomplete,
        None => DetectedProxyHeader::Other,
        // For UNKNOWN, the parser would accept a line that ends with a blank instead of `\r`.
        Some(end) if !bytes[..end].ends_with(b"\r") => DetectedProxyHeader::Other,
        Some(end) => v1::Header::try_from(&bytes[..=end]).map_or(DetectedProxyHeader::Other, |header| {
            DetectedProxyHeader::Header { len: end + 1, client: client_of_text(&header.addresses) }
        }),
    }
}

fn look_at_binary(bytes: &[u8]) -> DetectedProxyHeader {
    match v2::Header::try_from(bytes) {
        Ok(header) if header.len() > HEADER_BYTES_MAX => DetectedProxyHeader::Other,
        Ok(header) => DetectedProxyHeader::Header { len: header.len(), client: client_of_binary(&header) },
        Err(v2::ParseError::Partial(_, rest)) if rest > HEADER_BYTES_MAX - V2_FIXED_BYTES => DetectedProxyHeader::Other,
        Err(v2::ParseError::Partial(..) | v2::ParseError::Incomplete(_)) => DetectedProxyHeader::Incomplete,
        Err(_) => DetectedProxyHeader::Other,
    }
}

/// Whether the bytes begin like a header, valid or not; `None` if there are too few to tell.
pub(crate) fn resembles_header(bytes: &[u8]) -> Option<bool> {
    let prefixes = [V1_PREFIX, v2::PROTOCOL_PREFIX];
    if prefixes.iter().any(|prefix| bytes.starts_with(prefix)) {
        return Some(true);
    }
    let undecided = prefixes.iter().any(|prefix| prefix.starts_with(bytes));
    if undecided { None } else { Some(false) }
}

fn client_of_text(addresses: &v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        v1::Addresses::Tcp4(ip) => Some(client(ip.source_address.into(), ip.source_port)),
        v1::Addresses::Tcp6(ip) => Some(client(ip.source_address.into(), ip.source_port)),
        v1::Addresses::Unknown => None,
    }
}

fn client_of_binary(header: &v2::Header<'_>) -> Option<SocketAddr> {
    match (header.command, &header.addresses) {
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Some(client(ip.source_address.into(), ip.source_port)),
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Some(client(ip.source_address.into(), ip.source_port)),
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    }
}

/// The client's address. A proxy that listens for both families calls an IPv4 client
/// ::ffff:203.0.113.7.
fn client(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// The longest header that is read. Addresses need 232 bytes at most; the rest is for a proxy's
/// additions (TLVs).
pub(crate) const HEADER_BYTES_MAX: usize = 4096;
/// The longest line of version 1, including its end.
const V1_BYTES_MAX: usize = 107;
/// The signature, version, family and length of version 2.
const V2_FIXED_BYTES: usize = 16;
const V1_PREFIX: &[u8] = b"PROXY ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).expect("short");
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &len.to_be_bytes(), payload].concat()
    }

    fn whole(bytes: &[u8], client: Option<&str>) {
        let client = client.map(|text| text.parse().expect("an address"));
        assert_eq!(look(bytes), DetectedProxyHeader::Header { len: bytes.len(), client });
        let more = [bytes, b"{\"msgType\":1}\r\n"].concat();
        assert_eq!(look(&more), DetectedProxyHeader::Header { len: bytes.len(), client }, "whatever follows");
        for end in 0..bytes.len() {
            assert_eq!(look(&bytes[..end]), DetectedProxyHeader::Incomplete, "{end} bytes");
        }
    }

    #[test]
    fn headers_name_the_client() {
        whole(b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n", Some("203.0.113.7:51234"));
        whole(b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", Some("[2001:db8::7]:1"));
        whole(b"PROXY TCP6 ::ffff:203.0.113.7 ::1 7 8\r\n", Some("203.0.113.7:7"));
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x1f, 0x43];
        whole(&v2_header(1, 0x11, &v4), Some("203.0.113.7:4660"));
        whole(&v2_header(1, 0x11, &[&v4[..], &[4, 0, 2, 0, 0]].concat()), Some("203.0.113.7:4660"));
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 9, 80);
        whole(&v2_header(1, 0x21, &v6), Some("[2001::9]:80"));
    }

    #[test]
    fn a_proxy_may_name_no_client() {
        whole(b"PROXY UNKNOWN\r\n", None);
        whole(b"PROXY UNKNOWN 1.2.3.4 5.6.7.8 1 2\r\n", None);
        whole(&v2_header(0, 0x00, &[]), None);
        whole(&v2_header(0, 0x11, &[9; 12]), None);
        whole(&v2_header(1, 0x00, &[1, 2, 3]), None);
        whole(&v2_header(1, 0x31, &[b'/'; 216]), None);
    }

    #[test]
    fn anything_else_is_not_a_header() {
        for text in [
            "{\"msgType\":1}",
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY UNKNOWN 1.2.3.4 \n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r{}\r\n",
            "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.999 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "\r\n\r\n{}",
        ] {
            assert_eq!(look(text.as_bytes()), DetectedProxyHeader::Other, "{text}");
        }
        assert_eq!(look(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat()), DetectedProxyHeader::Other, "too long");
        assert_eq!(look(&v2_header(1, 0x11, &[0; 5])), DetectedProxyHeader::Other, "too short for its addresses");
        assert_eq!(
            look(&v2_header(1, 0x11, &[0; HEADER_BYTES_MAX])[..20]),
            DetectedProxyHeader::Other,
            "would be too long"
        );
        let longest = v2_header(1, 0x11, &[0; HEADER_BYTES_MAX - V2_FIXED_BYTES]);
        assert!(matches!(look(&longest), DetectedProxyHeader::Header { len: HEADER_BYTES_MAX, .. }));
    }

    #[test]
    fn bytes_that_begin_as_a_header_does() {
        assert_eq!(resembles_header(b""), None);
        assert_eq!(resembles_header(b"PROX"), None);
        assert_eq!(resembles_header(b"\r\n\r\n"), None);
        assert_eq!(resembles_header(b"PROXY nonsense"), Some(true));
        assert_eq!(resembles_header(&v2_header(3, 0, &[])), Some(true));
        for text in ["{", "PROXIES", "\r\n{", "keep this socket alive"] {
            assert_eq!(resembles_header(text.as_bytes()), Some(false), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            start in prop::sample::select(vec![b"".to_vec(), V1_PREFIX.to_vec(), v2::PROTOCOL_PREFIX.to_vec()]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            if let DetectedProxyHeader::Header { len, .. } = look(&bytes) {
                prop_assert!(len <= bytes.len());
                prop_assert_eq!(resembles_header(&bytes), Some(true));
                for end in 0..len {
                    prop_assert_eq!(look(&bytes[..end]), DetectedProxyHeader::Incomplete, "{} bytes", end);
                }
            }
        }
    }
}
