//! The answer to a client that speaks another protocol than this port: HTTP is answered in HTTP,
//! TLS not at all.

use std::sync::LazyLock;

use net::Foreign;

/// The answer; empty if the client would not understand any.
pub fn answer(foreign: Foreign) -> &'static [u8] {
    static ANSWERS: LazyLock<[String; 4]> = LazyLock::new(|| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(upgrade, head)| http(upgrade, head))
    });
    match foreign {
        Foreign::Http { upgrade, head } => ANSWERS[2 * usize::from(upgrade) + usize::from(head)].as_bytes(),
        Foreign::Tls => b"",
        Foreign::Plain { http: true } => HTTPS_ONLY.as_bytes(),
        Foreign::Plain { http: false } => TLS_ONLY.as_bytes(),
    }
}

fn http(upgrade: bool, head: bool) -> String {
    // A 426 must name the protocol to upgrade to (RFC 9110, 15.5.22).
    let (status, more) = match upgrade {
        true => ("426 Upgrade Required", "Upgrade: raybox\r\nConnection: Upgrade\r\n"),
        false => ("400 Bad Request", ""),
    };
    let (length, body) = (TEXT.len(), if head { "" } else { TEXT });
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

const TLS_ONLY: &str = r#"{"errmsg":"this port requires TLS: connect with TLS","errno":400,"msgType":400}"#;
const HTTPS_ONLY: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
                          Content-Length: 43\r\nConnection: close\r\n\r\nThis port requires TLS: use https or wss.\r\n";
const TEXT: &str = "This port speaks JSON objects over TCP, not HTTP. Nothing of the request was looked at.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        for (upgrade, head, status) in
            [(false, false, "400"), (false, true, "400"), (true, false, "426"), (true, true, "426")]
        {
            let answer = str::from_utf8(answer(Foreign::Http { upgrade, head })).expect("text");
            let (fields, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(fields.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}");
            assert!(fields.contains(&format!("Content-Length: {}", TEXT.len())), "{fields}");
            assert_eq!(body, if head { "" } else { TEXT });
            assert_eq!(fields.contains("Upgrade: raybox"), upgrade);
        }
        assert_eq!(answer(Foreign::Tls), b"");
        let (head, body) = HTTPS_ONLY.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
