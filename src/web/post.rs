//! `POST /v2/send`: a message without a connection.

use super::answer::{Composer, WebAnswer};
use super::request::{BodyLength, HttpError, Persistence, RequestHead};
use crate::protocol::level2::FRAME_MAX;

/// A message that is being posted.
#[derive(Clone, PartialEq, Eq)]
pub struct Post {
    /// The proof of the sender. Never logged.
    pub token: String,
    /// The length of its body.
    pub len: usize,
    /// The bytes for which the client waits before it sends the body.
    pub first: Option<&'static [u8]>,
}

/// Checks the head.
pub(super) fn look(request: &RequestHead<'_>) -> Result<Post, WebAnswer> {
    let len = match request.body().map_err(WebAnswer::error)? {
        BodyLength::Bytes(len) if len > FRAME_MAX => return Err(WebAnswer::error(TOO_LARGE)),
        BodyLength::Bytes(len) => len,
        BodyLength::None if request.has("content-length") => return Err(WebAnswer::error(EMPTY)),
        BodyLength::None | BodyLength::Unknown => return Err(WebAnswer::error(NO_LENGTH)),
    };
    let Some(token) = bearer(request) else { return Err(unauthorized("send Authorization: Bearer TOKEN\n")) };
    let first = match request.has("expect") {
        false => None,
        true if request.one("expect").is_some_and(|what| what.eq_ignore_ascii_case("100-continue")) => {
            Some(&b"HTTP/1.1 100 Continue\r\n\r\n"[..])
        }
        true => return Err(WebAnswer::error(EXPECTS)),
    };
    Ok(Post { token: token.to_owned(), len, first })
}

/// The answer to a wrong token.
pub fn wrong_token() -> WebAnswer {
    unauthorized("the token is wrong or has expired, log in for another one\n")
}

/// A 41 as an answer. `errno` is the status.
pub fn acknowledged(errno: u16, frame: &str, retry_after: Option<u32>) -> WebAnswer {
    let composer = Composer::new(errno, Persistence::Closes).header("Content-Type", "application/json");
    let composer = composer.header("Cache-Control", "no-store");
    let composer = match retry_after {
        Some(milliseconds) => composer.header("Retry-After", milliseconds.div_ceil(1000)),
        None => composer,
    };
    composer.body(frame.as_bytes(), true)
}

fn unauthorized(text: &str) -> WebAnswer {
    Composer::new(401, Persistence::Closes).header("WWW-Authenticate", "Bearer").text(text, true)
}

fn bearer<'h>(request: &RequestHead<'h>) -> Option<&'h str> {
    let (scheme, token) = request.one("authorization")?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Leaves out the token.
impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("len", &self.len).finish_non_exhaustive()
    }
}

const NO_LENGTH: HttpError = HttpError { status: 411, text: "send a Content-Length\n" };
const EMPTY: HttpError = HttpError { status: 400, text: "send a frame of type 4 or 9 as the body\n" };
const TOO_LARGE: HttpError = HttpError { status: 413, text: "a frame has at most 64 KiB\n" };
const EXPECTS: HttpError = HttpError { status: 417, text: "of Expect only 100-continue is known\n" };
