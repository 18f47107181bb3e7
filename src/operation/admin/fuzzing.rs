//! Fuzzes the parser of the admin port.

use std::sync::{Arc, LazyLock};

use super::AnswerSources;
use super::api::decoded;
use super::http::{HEAD_BYTES_MAX, HttpInput, parse};
use crate::metrics::Metrics;
use crate::operation::health::Health;

/// Takes the bytes as a client's input. Once the request is complete, later bytes do not change it,
/// and the answer is a response with the right length.
pub fn http(data: &[u8]) {
    static KNOWN: LazyLock<AnswerSources> = LazyLock::new(|| AnswerSources {
        health: Arc::new(Health::new(Arc::new([]), None)),
        metrics: Arc::new(Metrics::new(1)),
        administration: None,
        board: None,
    });
    let data = &data[..data.len().min(HEAD_BYTES_MAX)];
    let mut first = None;
    for end in 0..=data.len() {
        let asked = parse(&data[..end]).map(|(asked, _)| asked);
        if first.is_some() {
            assert_eq!(asked, first, "after {end} bytes");
        }
        first = asked;
    }
    let Some(HttpInput::Request(request)) = first else { return };
    let (method, path) = (request.method, request.path);
    assert!(!method.is_empty() && !path.contains('?'), "{method} {path}");
    // This must not panic.
    let _ = decoded(&request.query);
    let answer = KNOWN.answer(&method, &path);
    let response = answer.response(method != "HEAD");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let length = format!("\r\nContent-Length: {}\r\n", answer.body.len());
    assert!(head.starts_with("HTTP/1.1 ") && head.contains(&length), "{head}");
    assert_eq!(body, if method == "HEAD" { "" } else { &answer.body });
    let known = ["/healthz", "/readyz", "/metrics"].contains(&path.as_str());
    assert!(known || answer.status != 200, "{path} is there");
}
