//! Properties that hold for any bytes from outside, for code that is private here: see
//! `src/fuzzing.rs` of the server.

mod port;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use self::port::{opening, websocket};
use crate::proxy_header::{DetectedProxyHeader, HEADER_BYTES_MAX, look, resembles_header};

/// Checks bytes from a proxy. A header is recognized as soon as it is complete and not before,
/// whatever follows, and has the meaning given by `proxy-protocol.txt`.
pub fn proxy_header(data: &[u8]) {
    let whole = look(data);
    let first =
        (0..=data.len()).map(|end| look(&data[..end])).find(|beginning| *beginning != DetectedProxyHeader::Incomplete);
    // Long headers are given up at some length; a decision before that stays.
    assert_eq!(first.unwrap_or(DetectedProxyHeader::Incomplete), whole);
    let resembles = resembles_header(data);
    match whole {
        DetectedProxyHeader::Header { len, client } => {
            assert!(len <= data.len() && len <= HEADER_BYTES_MAX);
            assert_eq!(look(&data[..len]), whole);
            assert_eq!(look(&data[..len - 1]), DetectedProxyHeader::Incomplete);
            assert_eq!(resembles, Some(true));
            let header = &data[..len];
            let expected = if header.starts_with(b"PROXY") { client_of_line(header) } else { client_of_binary(header) };
            assert_eq!(client, expected, "{}", header.escape_ascii());
            assert!(client.is_none_or(|client| client.ip() == client.ip().to_canonical()));
        }
        DetectedProxyHeader::Incomplete => assert!(data.len() < HEADER_BYTES_MAX && resembles != Some(false)),
        DetectedProxyHeader::Other => assert!(resembles.is_some(), "too few bytes to tell"),
    }
}

/// `PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003`
fn client_of_line(header: &[u8]) -> Option<SocketAddr> {
    let line = str::from_utf8(header).expect("text").strip_suffix("\r\n").expect("a line");
    let words: Vec<&str> = line.split(' ').collect();
    let [_, family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] = words[..] else {
        assert_eq!(words[1], "UNKNOWN");
        return None;
    };
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    assert!([from, to].iter().all(|text| ip(text).is_ipv4() == (family == "TCP4")), "{line}");
    to_port.parse::<u16>().expect("a port");
    Some(SocketAddr::new(ip(from).to_canonical(), from_port.parse().expect("a port")))
}

/// Signature (12), version and command, family and transport, length (2), addresses, ports.
fn client_of_binary(header: &[u8]) -> Option<SocketAddr> {
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    assert_eq!((header[12] >> 4, length), (2, header.len() - 16));
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    match (header[12] & 0xf, header[13] >> 4) {
        (1, 1) => Some(SocketAddr::new([header[16], header[17], header[18], header[19]].into(), port(24))),
        (1, 2) => {
            let ip: [u8; 16] = header[16..32].try_into().expect("16 bytes");
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), port(48)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "../../fuzz/without_fuzzer.rs"]
mod without_fuzzer;

#[cfg(test)]
mod tests {
    #[test]
    fn opening() {
        super::without_fuzzer::check("opening", super::opening);
    }

    #[test]
    fn websocket() {
        super::without_fuzzer::check("websocket", super::websocket);
    }

    #[test]
    fn proxy_header() {
        super::without_fuzzer::check("proxy_header", super::proxy_header);
    }
}
