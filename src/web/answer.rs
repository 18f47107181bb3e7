//! [`WebAnswer`]: an HTTP answer.

use std::fmt::{self, Write as _};

use super::request::HttpError;
pub use super::request::Persistence;
use crate::config::HostName;

/// An HTTP answer, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebAnswer {
    /// The status.
    pub status: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether another request may follow.
    pub persistence: Persistence,
}

/// An answer that is being composed.
pub(super) struct Composer {
    status: u16,
    persistence: Persistence,
    head: String,
}

impl Composer {
    /// An answer with this status, and the headers that every answer has: they forbid frames,
    /// guessing the type, and sending a referrer.
    pub(super) fn new(status: u16, persistence: Persistence) -> Composer {
        let connection = if persistence == Persistence::Closes { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} {}\r\n{SECURITY}{connection}", reason(status));
        Composer { status, persistence, head }
    }

    pub(super) fn header(mut self, name: &str, value: impl fmt::Display) -> Composer {
        // Writing to a string does not fail.
        let _ = write!(self.head, "{name}: {value}\r\n");
        self
    }

    /// The policy of a page, which loads from and talks to this server only.
    pub(super) fn policy(self, host: Option<&HostName>) -> Composer {
        let sockets = host.map_or_else(String::new, |host| format!(" wss://{host} ws://{host}"));
        // 'self' does not cover WebSockets in older browsers (w3c/webappsec-csp#7).
        self.header(
            "Content-Security-Policy",
            format_args!(
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; manifest-src 'self'; \
                 connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
        )
    }

    /// Completes an answer whose status implies that it has no body.
    pub(super) fn bodiless(self) -> WebAnswer {
        let Composer { status, persistence, mut head } = self;
        head.push_str("\r\n");
        WebAnswer { status, bytes: head.into_bytes(), persistence }
    }

    /// Completes an answer with this body; a HEAD gets only its length.
    pub(super) fn body(self, body: &[u8], with_body: bool) -> WebAnswer {
        let mut answer = self.header("Content-Length", body.len()).bodiless();
        if with_body {
            answer.bytes.extend_from_slice(body);
        }
        answer
    }

    /// Completes an answer with this text, for a person.
    pub(super) fn text(self, text: &str, with_body: bool) -> WebAnswer {
        let typed = self.header("Content-Type", "text/plain; charset=utf-8").header("Cache-Control", "no-store");
        typed.policy(None).body(text.as_bytes(), with_body)
    }
}

impl WebAnswer {
    /// An error text for a person. The connection ends.
    pub(super) fn error(error: HttpError) -> WebAnswer {
        Composer::new(error.status, Persistence::Closes).text(error.text, true)
    }

    /// The answer to a request that did not arrive in time.
    pub fn late() -> WebAnswer {
        WebAnswer::error(HttpError { status: 408, text: "the request did not arrive in time\n" })
    }

    /// The answer to a head that is too long.
    pub fn too_long() -> WebAnswer {
        WebAnswer::error(HttpError { status: 431, text: "the head of the request is too long, at most 8 KiB\n" })
    }

    /// The answer to a connection that sends more requests than the limits allow.
    pub fn too_many() -> WebAnswer {
        let composer = Composer::new(429, Persistence::Closes).header("Retry-After", 1);
        composer.text("too many requests, wait a second\n", true)
    }
}

/// Leaves out the bytes, which may contain a user's data.
impl fmt::Debug for WebAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("persistence", &self.persistence).finish()
    }
}

/// The reason phrases of RFC 9110, 15, for the statuses used here.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

const SECURITY: &str = "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
                        Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        for with_body in [true, false] {
            let answer = Composer::new(404, Persistence::Stays).text("nothing\n", with_body);
            let text = String::from_utf8(answer.bytes).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Length: 8"), "{head}");
            assert!(!head.contains("Connection"), "{head}");
            assert_eq!(body, if with_body { "nothing\n" } else { "" });
        }
    }

    #[test]
    fn a_page_may_talk_to_its_own_host_alone() {
        let answer = Composer::new(200, Persistence::Stays).policy(HostName::parse("a.org:1").as_ref()).bodiless();
        let text = String::from_utf8(answer.bytes).expect("text");
        assert!(text.contains("connect-src 'self' wss://a.org:1 ws://a.org:1;"), "{text}");
    }
}
