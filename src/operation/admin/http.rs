//! The HTTP of the admin port: requests, answers, and time limits for clients.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The input of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum HttpInput {
    /// A request.
    Request(Box<HttpRequest>),
    /// An invalid request.
    Nonsense,
    /// A request whose head is too long.
    TooMuch,
}

/// The head of a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct HttpRequest {
    pub(super) method: String,
    /// The path, without the query.
    pub(super) path: String,
    /// The query, without the question mark.
    pub(super) query: String,
    pub(super) host: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) body: BodyHead,
    /// Whether the body is declared as JSON.
    pub(super) is_json: bool,
    /// Whether the client waits for permission to send the body.
    pub(super) waits: bool,
}

/// The head's description of the body.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum BodyHead {
    /// There is none.
    #[default]
    None,
    /// A body of this number of bytes.
    Of(usize),
    /// A body whose length is missing or invalid.
    Unknown,
}

/// An HTTP response, without the constant part of its head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// More header lines.
    pub(super) headers: String,
    pub(super) body: String,
}

/// Reads the head of a request, and the part of the body that has come with it.
pub(super) fn read_request(client: &mut DeadlineStream<'_>) -> io::Result<(HttpInput, Vec<u8>)> {
    let mut head = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    while filled < head.len() {
        match client.read(&mut head[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        if let Some((asked, len)) = parse(&head[..filled]) {
            return Ok((asked, head[len..filled].to_vec()));
        }
    }
    Ok((HttpInput::TooMuch, Vec::new()))
}

/// Reads the rest of a body of this length.
pub(super) fn read_body(
    client: &mut DeadlineStream<'_>,
    mut begun: Vec<u8>,
    length: usize,
    waits: bool,
) -> io::Result<Vec<u8>> {
    if waits && begun.len() < length {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let known = begun.len().min(length);
    begun.resize(length, 0);
    client.read_exact(&mut begun[known..])?;
    Ok(begun)
}

/// Parses the head of a request; `None` while it is incomplete. Returns its length as well.
pub(super) fn parse(head: &[u8]) -> Option<(HttpInput, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(len)) => Some((
            request_of(&request).map_or(HttpInput::Nonsense, |request| HttpInput::Request(Box::new(request))),
            len,
        )),
        Err(httparse::Error::TooManyHeaders) => Some((HttpInput::TooMuch, head.len())),
        Err(_) => Some((HttpInput::Nonsense, head.len())),
    }
}

/// `None` if the head is ambiguous, because a decisive header occurs twice.
fn request_of(request: &httparse::Request<'_, '_>) -> Option<HttpRequest> {
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut read = HttpRequest {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..HttpRequest::default()
    };
    for header in request.headers.iter() {
        let text = || Some(std::str::from_utf8(header.value).unwrap_or_default().trim().to_owned());
        let name = header.name.to_ascii_lowercase();
        let is_second = match name.as_str() {
            "host" => std::mem::replace(&mut read.host, text()).is_some(),
            "authorization" => std::mem::replace(&mut read.authorization, text()).is_some(),
            "content-length" => {
                let length = text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let length = length.and_then(|text| text.parse().ok()).map_or(BodyHead::Unknown, BodyHead::Of);
                std::mem::replace(&mut read.body, length) != BodyHead::None
            }
            "transfer-encoding" => std::mem::replace(&mut read.body, BodyHead::Unknown) != BodyHead::None,
            "content-type" => {
                let media = text().unwrap_or_default();
                read.is_json = media.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON));
                false
            }
            "expect" => {
                read.waits = header.value.eq_ignore_ascii_case(b"100-continue");
                false
            }
            _ => false,
        };
        if is_second {
            return None;
        }
    }
    Some(read)
}

impl HttpAnswer {
    pub(super) fn text(status: u16, body: impl Into<String>) -> HttpAnswer {
        HttpAnswer { status, content_type: "text/plain; charset=utf-8", headers: String::new(), body: body.into() }
    }

    /// Adds a header line.
    pub(super) fn with(mut self, name: &str, value: &str) -> HttpAnswer {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn response(&self, with_body: bool) -> String {
        let HttpAnswer { status, content_type, headers, body } = self;
        let (reason, length) = (reason(*status), body.len());
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{headers}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{}",
            if with_body { body } else { "" }
        )
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// Limits the total time of a peer, however it splits its bytes.
pub(in crate::operation) struct DeadlineStream<'a> {
    pub(in crate::operation) stream: &'a TcpStream,
    pub(in crate::operation) deadline: Instant,
}

impl DeadlineStream<'_> {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for DeadlineStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.time_left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for DeadlineStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The status and the body of an answer.
pub(in crate::operation) fn parse_answer(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(answer).ok()? {
        httparse::Status::Complete(len) => Some((head.code?, &answer[len..])),
        httparse::Status::Partial => None,
    }
}

/// The media type of answers and bodies of the administration.
pub(super) const JSON: &str = "application/json";
/// The longest head of a request.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &[u8]) -> HttpRequest {
        match parse(head) {
            Some((HttpInput::Request(request), _)) => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_when_its_head_is_whole() {
        let head = b"GET /readyz?verbose HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(parse(&head[..end]), None, "{end}");
        }
        let read = request(head);
        assert_eq!((read.method.as_str(), read.path.as_str(), read.query.as_str()), ("GET", "/readyz", "verbose"));
        assert_eq!((read.host.as_deref(), read.body), (Some("a"), BodyHead::None));
        let (asked, len) = parse(b"POST /metrics HTTP/1.0\r\n\r\nbody").unwrap();
        assert!(matches!(asked, HttpInput::Request(_)));
        assert_eq!(len, 26, "the body is not part of it");
        for nonsense in [
            &b"{\"msgType\":1}\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/3.0\r\n",
        ] {
            assert_eq!(parse(nonsense).map(|(asked, _)| asked), Some(HttpInput::Nonsense), "{nonsense:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes()).map(|(asked, _)| asked), Some(HttpInput::TooMuch));
    }

    #[test]
    fn an_answer_is_parsed_and_anything_else_is_not() {
        let answer = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\n\r\n{\"error\":\"x\"}\n";
        assert_eq!(parse_answer(answer), Some((409, &b"{\"error\":\"x\"}\n"[..])));
        for foreign in [&b""[..], b"{\"errno\":401}", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"SSH-2.0-x\r\n\r\n"] {
            assert_eq!(parse_answer(foreign), None);
        }
    }

    #[test]
    fn a_decisive_header_may_come_only_once() {
        let of = |headers: &str| parse(format!("POST /v1/x HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes()).unwrap().0;
        for twice in [
            "Host: a\r\nhost: b",
            "Authorization: Bearer a\r\nAuthorization: Bearer b",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(of(twice), HttpInput::Nonsense, "{twice}");
        }
        let body = |headers: &str| match of(headers) {
            HttpInput::Request(request) => request.body,
            other => panic!("{other:?}"),
        };
        assert_eq!(body("Content-Length: 12"), BodyHead::Of(12));
        for unknown in ["Content-Length: +1", "Content-Length: x", "Content-Length: 99999999999999999999999"] {
            assert_eq!(body(unknown), BodyHead::Unknown, "{unknown}");
        }
        assert_eq!(body("Transfer-Encoding: chunked"), BodyHead::Unknown);
    }
}
