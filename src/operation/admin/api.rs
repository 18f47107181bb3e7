//! Requests of the administration and their answers, without the HTTP around them.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::config::Secret;

/// Carries out administrators' requests. Any thread may call it, and it may block.
pub trait Administrator: Send + Sync + 'static {
    /// Carries out a request, notes it, and answers.
    fn answer(&self, call: &ApiCall) -> ApiAnswer;

    /// Notes that a client with the key got this answer instead.
    fn refused(&self, call: &ApiCall, answer: &ApiAnswer);
}

/// A request from a client that has the key.
#[derive(Clone, Debug)]
pub struct ApiCall {
    /// The method of HTTP.
    pub method: String,
    /// The path, beginning with `/v1`.
    pub path: String,
    /// The part behind the question mark, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body: `null` if there is none.
    pub body: Value,
    /// The client's address; `None` for a command on this machine without a server.
    pub from: Option<IpAddr>,
    /// The client's key, for queries to other nodes.
    pub key: Secret,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Debug)]
pub struct ApiAnswer {
    /// The status of HTTP.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// The allowed methods, if the request's method is not one of them.
    pub allow: Option<String>,
    /// The number of seconds after which a retry may succeed.
    pub retry_after: Option<u64>,
}

impl ApiAnswer {
    /// The answer to a successful request.
    pub fn done(body: Value) -> ApiAnswer {
        ApiAnswer { status: 200, body, allow: None, retry_after: None }
    }

    /// The answer to a refused request, with advice.
    pub fn refused(status: u16, why: impl Into<String>) -> ApiAnswer {
        ApiAnswer { status, body: json!({"error": why.into()}), allow: None, retry_after: None }
    }

    /// Whether the request was successful.
    pub fn is_done(&self) -> bool {
        self.status < 400
    }
}

/// Decodes a query: `a=b&c=d` with `%` and `+` (URL Standard, application/x-www-form-urlencoded).
/// `None` if it is invalid or not UTF-8.
pub(in crate::operation) fn decoded(query: &str) -> Option<Vec<(String, String)>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((percent_decoded(name)?, percent_decoded(value)?))
    };
    parts.map(pair).collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(decoded(""), Some(vec![]));
        assert_eq!(decoded("a=1&b&&c=%c3%A9+x%2B"), Some(vec![pair("a", "1"), pair("b", ""), pair("c", "é x+")]));
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
