//! Fuzzes the parser of the admin port.

use std::sync::{Arc, LazyLock};

use super::{AnswerSources, HEAD_BYTES_MAX, HttpRequest, OK, parse};
use crate::metrics::Metrics;
use crate::operation::health::Health;

/// The bytes are a client's input. Once the request is complete, later bytes do not change it, and
/// the answer is a response with the right length.
pub fn http(data: &[u8]) {
    static KNOWN: LazyLock<AnswerSources> = LazyLock::new(|| AnswerSources {
        health: Arc::new(Health::new(Arc::new([]), None)),
        metrics: Arc::new(Metrics::new(1)),
    });
    let data = &data[..data.len().min(HEAD_BYTES_MAX)];
    let mut first = None;
    for end in 0..=data.len() {
        let asked = parse(&data[..end]);
        if first.is_some() {
            assert_eq!(asked, first, "after {end} bytes");
        }
        first = asked;
    }
    let Some(HttpRequest::For(method, path)) = first else { return };
    assert!(!method.is_empty() && !path.contains('?'), "{method} {path}");
    let answer = KNOWN.answer(&method, &path);
    let response = answer.response(method != "HEAD");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let length = format!("\r\nContent-Length: {}\r\n", answer.body.len());
    assert!(head.starts_with("HTTP/1.1 ") && head.contains(&length), "{head}");
    assert_eq!(body, if method == "HEAD" { "" } else { &answer.body });
    let known = ["/healthz", "/readyz", "/metrics"].contains(&path.as_str());
    assert!(known || answer.status != OK, "{path} is there");
}
