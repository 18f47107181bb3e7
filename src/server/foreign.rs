//! The answer to a client that speaks another protocol than this port: TLS is not answered at all.

use net::Foreign;

/// The answer; empty if the client would not understand any.
pub fn answer(foreign: Foreign) -> &'static [u8] {
    match foreign {
        Foreign::Tls => b"",
        Foreign::Plain { http: true } => HTTPS_ONLY.as_bytes(),
        Foreign::Plain { http: false } => TLS_ONLY.as_bytes(),
    }
}

const TLS_ONLY: &str = r#"{"errmsg":"this port requires TLS: connect with TLS","errno":400,"msgType":400}"#;
const HTTPS_ONLY: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
                          Content-Length: 43\r\nConnection: close\r\n\r\nThis port requires TLS: use https or wss.\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        assert_eq!(answer(Foreign::Tls), b"");
        let (head, body) = HTTPS_ONLY.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
