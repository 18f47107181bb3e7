//! [`RequestHead`]: the head of an HTTP request, checked.

use crate::config::HostName;

/// The head of a request. Everything borrows from it.
#[derive(Debug)]
pub(super) struct RequestHead<'h> {
    pub(super) method: &'h str,
    /// The path, without the query.
    pub(super) path: &'h str,
    pub(super) host: Option<HostName>,
    /// Whether the version is 1.1, not 1.0.
    pub(super) is_modern: bool,
    headers: Vec<(&'h str, &'h [u8])>,
}

/// An error that ends the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HttpError {
    pub(super) status: u16,
    /// One line with advice.
    pub(super) text: &'static str,
}

/// Whether a connection stays open after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// Another request may follow.
    Stays,
    /// It is closed.
    Closes,
}

/// The body that a head announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyLength {
    None,
    Bytes(usize),
    /// In pieces, so of unknown length.
    Unknown,
}

impl<'h> RequestHead<'h> {
    /// Reads a head, which ends with an empty line.
    pub(super) fn read(head: &'h [u8]) -> Result<RequestHead<'h>, HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_HEADERS),
            Err(httparse::Error::Version) => return Err(WRONG_VERSION),
            Ok(httparse::Status::Partial) | Err(_) => return Err(NO_REQUEST),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(NO_REQUEST);
        };
        let headers: Vec<_> = request.headers.iter().map(|header| (header.name, header.value)).collect();
        let (authority, path) = match target.split_once("://") {
            _ if target.starts_with('/') => (None, target),
            // RFC 9112, 3.2.2: the form for a proxy, whose host takes precedence.
            Some(("http" | "https", rest)) => {
                let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (Some(&rest[..at]), &rest[at..])
            }
            _ if target == "*" => (None, target),
            _ => return Err(NO_PATH),
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = if path.is_empty() { "/" } else { path };
        let is_modern = version == 1;
        let mut request = RequestHead { method, path, host: None, is_modern, headers };
        request.host = request.read_host(authority)?;
        Ok(request)
    }

    /// RFC 9112, 3.2: exactly one host in version 1.1.
    fn read_host(&self, authority: Option<&str>) -> Result<Option<HostName>, HttpError> {
        let mut hosts = self.all("host");
        let host = match (hosts.next(), hosts.next()) {
            (None, _) if self.is_modern => return Err(NO_HOST),
            (None, _) => None,
            (Some(host), None) => Some(std::str::from_utf8(host).map_err(|_| NO_HOST)?),
            (Some(_), Some(_)) => return Err(NO_HOST),
        };
        match authority.or(host) {
            None => Ok(None),
            Some(host) => HostName::parse(host).map(Some).ok_or(NO_HOST),
        }
    }

    /// The values of all headers with this name, which is in lower case.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The value of the only header with this name, if it is text; `None` if there are several.
    pub(super) fn one(&self, name: &str) -> Option<&'h str> {
        let mut all = self.all(name);
        let first = all.next().filter(|_| all.next().is_none())?;
        std::str::from_utf8(first).ok().map(str::trim)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether a list of words contains this one, regardless of case.
    pub(super) fn lists(&self, name: &str, word: &str) -> bool {
        let words = self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        words.flat_map(|value| value.split(',')).any(|other| other.trim().eq_ignore_ascii_case(word))
    }

    /// The length of the body. With two lengths, or a length beside pieces, the sender and this
    /// server could disagree about the end of the request.
    pub(super) fn body(&self) -> Result<BodyLength, HttpError> {
        if self.has("transfer-encoding") {
            return Ok(BodyLength::Unknown);
        }
        if !self.has("content-length") {
            return Ok(BodyLength::None);
        }
        let digits = self.one("content-length").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let digits = digits.filter(|text| !text.is_empty()).ok_or(BAD_LENGTH)?;
        Ok(match digits.parse() {
            Ok(0) => BodyLength::None,
            Ok(len) => BodyLength::Bytes(len),
            // It is a number, but too large.
            Err(_) => BodyLength::Bytes(usize::MAX),
        })
    }

    /// Whether the connection stays open after an answer to a request without a body.
    pub(super) fn persistence(&self) -> Persistence {
        let stays = self.is_modern && !self.lists("connection", "close") && self.body() == Ok(BodyLength::None);
        if stays { Persistence::Stays } else { Persistence::Closes }
    }
}

/// The most headers that are read.
const HEADERS_MAX: usize = 64;

const NO_REQUEST: HttpError = HttpError { status: 400, text: "this is no HTTP request\n" };
const NO_PATH: HttpError = HttpError { status: 400, text: "ask for a path that begins with /\n" };
const NO_HOST: HttpError = HttpError { status: 400, text: "send one valid Host header\n" };
const BAD_LENGTH: HttpError = HttpError { status: 400, text: "send one Content-Length, which is a number\n" };
const TOO_MANY_HEADERS: HttpError = HttpError { status: 431, text: "too many headers, send at most 64\n" };
const WRONG_VERSION: HttpError = HttpError { status: 505, text: "this server speaks HTTP/1.0 and HTTP/1.1\n" };

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<RequestHead<'_>, u16> {
        RequestHead::read(head.as_bytes()).map_err(|error| error.status)
    }

    #[test]
    fn the_target_is_a_path() {
        for (target, path) in [
            ("/", "/"),
            ("/a/b?c=d", "/a/b"),
            ("http://h/", "/"),
            ("http://h", "/"),
            ("https://h/a?b://c", "/a"),
            ("http://h?x", "/"),
            ("*", "*"),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(read(&head).map(|request| request.path.to_owned()), Ok(path.to_owned()), "{target}");
        }
        for target in ["h:80", "ftp://h/", "a/b"] {
            assert_eq!(read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).err(), Some(400), "{target}");
        }
    }

    #[test]
    fn there_is_one_host() {
        let of = |hosts: &str, version| {
            let head = format!("GET / HTTP/1.{version}\r\n{hosts}\r\n");
            read(&head).map(|request| request.host.map(|host| host.to_string()))
        };
        assert_eq!(of("Host: Chat.org:80\r\n", 1), Ok(Some("chat.org:80".to_owned())));
        assert_eq!(of("", 1), Err(400));
        assert_eq!(of("", 0), Ok(None));
        assert_eq!(of("Host: a\r\nhost: a\r\n", 1), Err(400));
        assert_eq!(of("Host: a b\r\n", 1), Err(400));
        assert_eq!(of("Host: \r\n", 1), Err(400));
        let head = "GET http://b.org/ HTTP/1.1\r\nHost: a.org\r\n\r\n";
        assert_eq!(read(head).ok().and_then(|request| request.host).map(|host| host.to_string()), Some("b.org".into()));
    }

    #[test]
    fn versions_and_nonsense_have_errors() {
        assert_eq!(read("PRI * HTTP/2.0\r\n\r\n").err(), Some(505));
        assert_eq!(read("GET / HTTP/1.2\r\nHost: a\r\n\r\n").err(), Some(505));
        assert_eq!(read("GET /\r\n\r\n").err(), Some(400));
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n").err(), Some(400));
        let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(read(&format!("GET / HTTP/1.1\r\n{many}\r\n")).err(), Some(431));
    }

    #[test]
    fn a_body_has_one_length() {
        let of = |headers: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            read(&head).expect("a request").body().map_err(|error| error.status)
        };
        assert_eq!(of(""), Ok(BodyLength::None));
        assert_eq!(of("Content-Length: 0\r\n"), Ok(BodyLength::None));
        assert_eq!(of("Content-Length: 12\r\n"), Ok(BodyLength::Bytes(12)));
        assert_eq!(of("Content-Length: 99999999999999999999999\r\n"), Ok(BodyLength::Bytes(usize::MAX)));
        assert_eq!(of("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), Ok(BodyLength::Unknown));
        for wrong in ["1\r\nContent-Length: 1", "+1", "-1", "1, 1", "", "0x1", "1 2"] {
            assert_eq!(of(&format!("Content-Length: {wrong}\r\n")), Err(400), "{wrong}");
        }
    }

    #[test]
    fn lists_of_words_are_read_in_any_case_and_split() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, UPGRADE\r\nconnection: x\r\n\r\n";
        let request = read(head).expect("a request");
        assert!(request.lists("connection", "upgrade") && request.lists("connection", "x"));
        assert!(!request.lists("connection", "keep"));
        assert_eq!(request.persistence(), Persistence::Stays);
    }
}
