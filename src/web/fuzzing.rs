//! A property of any head of a request.

use super::site::{Response, WebSettings};
use crate::config::Config;

/// Takes the bytes as the head of a request. It is accepted, or gets a well-formed answer of the
/// stated length; and a page of another site is never admitted.
pub fn web_request(data: &[u8]) {
    let site = WebSettings::new(&Config { web: true, ..Config::with_defaults(([127, 0, 0, 1], 0).into()) });
    match site.respond(data) {
        Response::Answer(answer) => {
            let end = memchr::memmem::find(&answer.bytes, b"\r\n\r\n").expect("a head") + 4;
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut parsed = httparse::Response::new(&mut headers);
            assert!(parsed.parse(&answer.bytes[..end]).is_ok_and(|status| status.is_complete()));
            assert_eq!(parsed.code, Some(answer.status));
            let header =
                |name: &str| parsed.headers.iter().find(|header| header.name == name).map(|header| header.value);
            if let Some(len) = header("Content-Length") {
                let len: usize = std::str::from_utf8(len).expect("text").parse().expect("a number");
                assert!(answer.bytes.len() == end || answer.bytes.len() == end + len);
            }
            assert!(header("X-Content-Type-Options").is_some());
        }
        Response::WebSocket(bytes) => {
            assert!(bytes.starts_with(b"HTTP/1.1 101 ") && bytes.ends_with(b"\r\n\r\n"));
            assert!(data.starts_with(b"GET ") || data.starts_with(b"\r") || data.starts_with(b"\n"));
        }
        Response::Post(post) => assert!(post.len > 0 && post.len <= crate::protocol::level2::FRAME_MAX),
    }
}
