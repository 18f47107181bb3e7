//! The status page, over HTTP. It has no key: everybody who reaches the port may read the numbers.
//! A foreign page whose name was made to lead here may not. So the request must name the port as
//! the [`AccessGuard`](super::guard) demands.

use super::guard::{AccessGuard, WRONG_HOST};
use super::http::{HttpAnswer, HttpRequest, JSON};
use crate::operation::status::{Board, PAGE};

/// The answer, if the request is for the page.
pub(super) fn answer(board: &Board, guard: &AccessGuard, request: &HttpRequest) -> Option<HttpAnswer> {
    let file = PAGE.iter().find(|file| file.path == request.path);
    if file.is_none() && request.path != DATA {
        return None;
    }
    if !guard.is_called_by_name(request) {
        return Some(HttpAnswer::text(421, format!("{WRONG_HOST}\n")));
    }
    if !["GET", "HEAD"].contains(&request.method.as_str()) {
        return Some(HttpAnswer::text(405, "GET or HEAD\n").with("Allow", "GET, HEAD"));
    }
    let (content_type, text) = match file {
        Some(file) => (file.content_type, file.text.to_owned()),
        None if request.query == "own" => (JSON, board.own()),
        None => (JSON, board.whole()),
    };
    let answer = HttpAnswer { content_type, ..HttpAnswer::text(200, text) };
    let headers =
        [("Content-Security-Policy", POLICY), ("Referrer-Policy", "no-referrer"), ("X-Frame-Options", "DENY")];
    Some(headers.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value)))
}

const DATA: &str = "/status.json";
/// Nothing is loaded from or sent to other sites, and no page may show this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
