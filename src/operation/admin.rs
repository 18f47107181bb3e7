//! [`Admin`]: a small HTTP port for orchestrators and Prometheus: `/healthz`, `/readyz` and
//! `/metrics`.
//!
//! It answers `GET` and `HEAD`, one request per connection, and has no access control. The answers
//! come from earlier checks ([`Health`]) or from counters ([`Metrics`]), so no answer waits.
//!
//! Clients may be slow, silent, or many. A connection has a thread and a few seconds, and the
//! number of connections is bounded: one more shuts the oldest down. So a client that sends a
//! request and reads is answered, whatever the others do. Requests are parsed by `httparse`; no
//! complete HTTP server library without an async runtime was found that bounds the time, size and
//! number of its connections, and survives a process without free descriptors.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::operation::health::{Health, Report};

/// The bound port, not served yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why the admin port cannot be served.
#[derive(Debug)]
pub enum AdminError {
    /// Listening on this address failed.
    Listen(SocketAddr, io::Error),
    /// The system cannot start a thread.
    Thread(io::Error),
}

/// The sources of the answers.
#[derive(Debug)]
struct AnswerSources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum HttpRequest {
    /// This method and path.
    For(String, String),
    /// An invalid request.
    Nonsense,
    /// A request that is too long.
    TooMuch,
}

/// An HTTP response, without the constant part of its head.
#[derive(Clone, PartialEq, Eq, Debug)]
struct HttpAnswer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Admin {
    /// Binds the port. Connections wait until it is served.
    ///
    /// # Errors
    /// [`AdminError::Listen`].
    pub fn bind(address: SocketAddr) -> Result<Admin, AdminError> {
        let listener = TcpListener::bind(address).map_err(|error| AdminError::Listen(address, error))?;
        let address = listener.local_addr().map_err(|error| AdminError::Listen(address, error))?;
        Ok(Admin { listener, address })
    }

    /// The address, with the port that the system chose if 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the port, on threads named `admin`, until the process ends.
    ///
    /// # Errors
    /// [`AdminError::Thread`].
    pub fn serve(self, health: Arc<Health>, metrics: Arc<Metrics>) -> Result<(), AdminError> {
        let known = Arc::new(AnswerSources { health, metrics });
        let accept = move || accept_all(&self.listener, &known);
        spawn(accept).map_err(AdminError::Thread)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("admin".to_owned()).spawn(work).map(drop)
}

/// Accepts for ever. If clients have taken all descriptors, the server must not look dead: then
/// this uses a reserved descriptor, for one short connection after the other.
fn accept_all(listener: &TcpListener, known: &Arc<AnswerSources>) {
    let (mut clients, mut spare) = (Clients::default(), None);
    loop {
        spare = spare.or_else(|| File::open("/dev/null").ok());
        let started = listener.accept().and_then(|(stream, _)| {
            let (client, known) = (clients.admit(stream), known.clone());
            spawn(move || serve(&client, &known, PATIENCE))
        });
        match started {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(_) => {
                drop(spare.take());
                match listener.accept() {
                    Ok((stream, _)) => serve(&stream, known, PATIENCE_WHEN_SCARCE),
                    Err(_) => thread::park_timeout(RETRY_AFTER),
                }
            }
        }
    }
}

/// The connections being served, the oldest first.
#[derive(Debug, Default)]
struct Clients(VecDeque<Weak<TcpStream>>);

impl Clients {
    /// Adds a connection; shuts the oldest down if there are too many.
    fn admit(&mut self, stream: TcpStream) -> Arc<TcpStream> {
        self.0.retain(|client| client.strong_count() > 0);
        if self.0.len() >= CLIENTS_MAX
            && let Some(oldest) = self.0.pop_front().and_then(|client| client.upgrade())
        {
            // Its thread then reads the end or fails to write, and exits.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let client = Arc::new(stream);
        self.0.push_back(Arc::downgrade(&client));
        client
    }
}

/// Answers one request. Errors are the client's problem.
fn serve(stream: &TcpStream, known: &AnswerSources, patience: Duration) {
    let mut client = Timed { stream, deadline: Instant::now() + patience };
    if let Err(error) = talk(&mut client, known) {
        log::debug!("an admin connection failed: {error}");
    }
}

fn talk(client: &mut Timed<'_>, known: &AnswerSources) -> io::Result<()> {
    let asked = read_request(client)?;
    let response = match &asked {
        HttpRequest::For(method, path) => known.answer(method, path).response(method != "HEAD"),
        HttpRequest::Nonsense => HttpAnswer::text("400 Bad Request", "this is not HTTP\n").response(true),
        HttpRequest::TooMuch => HttpAnswer::text("431 Request Header Fields Too Large", "too long\n").response(true),
    };
    client.write_all(response.as_bytes())?;
    client.stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes would make the kernel discard bytes that the client has not
    // received (RFC 2525, 2.17).
    let mut rest = [0; 4096];
    while client.read(&mut rest)? > 0 {}
    Ok(())
}

/// Reads the head of a request; a body is ignored.
fn read_request(client: &mut Timed<'_>) -> io::Result<HttpRequest> {
    let mut head = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    while filled < head.len() {
        match client.read(&mut head[filled..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        if let Some(asked) = parse(&head[..filled]) {
            return Ok(asked);
        }
    }
    Ok(HttpRequest::TooMuch)
}

/// Parses a request; `None` while it is incomplete. The query is not part of the path.
fn parse(head: &[u8]) -> Option<HttpRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
            Some(HttpRequest::For(request.method.unwrap_or_default().to_owned(), path.to_owned()))
        }
        Err(httparse::Error::TooManyHeaders) => Some(HttpRequest::TooMuch),
        Err(_) => Some(HttpRequest::Nonsense),
    }
}

impl AnswerSources {
    fn answer(&self, method: &str, path: &str) -> HttpAnswer {
        match (method, path) {
            ("GET" | "HEAD", "/healthz") => HttpAnswer::report(self.health.alive()),
            ("GET" | "HEAD", "/readyz") => HttpAnswer::report(self.health.ready()),
            ("GET" | "HEAD", "/metrics") => {
                HttpAnswer { status: OK, content_type: prometheus::TEXT_FORMAT, body: self.metrics.render() }
            }
            (_, "/healthz" | "/readyz" | "/metrics") => HttpAnswer::text(NOT_ALLOWED, "GET or HEAD\n"),
            _ => HttpAnswer::text("404 Not Found", "use /healthz, /readyz or /metrics\n"),
        }
    }
}

impl HttpAnswer {
    fn text(status: &'static str, body: impl Into<String>) -> HttpAnswer {
        HttpAnswer { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    fn report(report: Report) -> HttpAnswer {
        HttpAnswer::text(if report.good { OK } else { "503 Service Unavailable" }, report.text)
    }

    fn response(&self, with_body: bool) -> String {
        let HttpAnswer { status, content_type, body } = self;
        let allow = if *status == NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{}",
            if with_body { body } else { "" }
        )
    }
}

/// Limits the total time of a client, however it splits its bytes.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.time_left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::Listen(address, error) => {
                write!(f, "key admin: cannot listen on {address}: {error}; ")?;
                match error.kind() {
                    ErrorKind::AddrInUse => f.write_str("stop the program that uses the port, or choose another"),
                    ErrorKind::PermissionDenied => f.write_str("choose a port above 1023"),
                    _ => f.write_str("choose an address of this machine, such as 127.0.0.1"),
                }
            }
            AdminError::Thread(error) => write!(f, "the system has no threads left: {error}"),
        }
    }
}

impl Error for AdminError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            AdminError::Listen(_, error) | AdminError::Thread(error) => Some(error),
        }
    }
}

const OK: &str = "200 OK";
const NOT_ALLOWED: &str = "405 Method Not Allowed";
/// The most concurrent connections.
const CLIENTS_MAX: usize = 32;
/// The longest lifetime of a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while others wait for the reserved descriptor.
const PATIENCE_WHEN_SCARCE: Duration = Duration::from_secs(1);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str) -> Option<HttpRequest> {
        Some(HttpRequest::For(method.to_owned(), path.to_owned()))
    }

    #[test]
    fn a_request_is_read_when_its_head_is_whole() {
        let request = b"GET /readyz?verbose HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        for end in 0..request.len() {
            assert_eq!(parse(&request[..end]), None, "{end}");
        }
        assert_eq!(parse(request), asked("GET", "/readyz"));
        assert_eq!(parse(b"POST /metrics HTTP/1.0\r\n\r\nbody"), asked("POST", "/metrics"));
        for nonsense in [
            &b"{\"msgType\":1}\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/3.0\r\n",
        ] {
            assert_eq!(parse(nonsense), Some(HttpRequest::Nonsense), "{nonsense:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes()), Some(HttpRequest::TooMuch));
    }

    #[test]
    fn answers() {
        let (health, metrics) = (Arc::new(Health::new(Arc::new([]), None)), Arc::new(Metrics::new(1)));
        health.drain();
        let known = AnswerSources { health, metrics };
        for (method, path, status) in [
            ("GET", "/healthz", OK),
            ("HEAD", "/healthz", OK),
            ("GET", "/readyz", "503 Service Unavailable"),
            ("GET", "/metrics", OK),
            ("POST", "/metrics", NOT_ALLOWED),
            ("DELETE", "/healthz", NOT_ALLOWED),
            ("GET", "/", "404 Not Found"),
            ("POST", "/healthz/", "404 Not Found"),
        ] {
            assert_eq!(known.answer(method, path).status, status, "{method} {path}");
        }
        let refused = known.answer("PUT", "/readyz");
        assert_eq!(
            refused.response(true),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\n\
             Allow: GET, HEAD\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nGET or HEAD\n"
        );
        assert!(refused.response(false).ends_with(
            "Content-Length: 12\r\nAllow: GET, HEAD\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        ));
    }

    #[test]
    fn one_more_than_allowed_costs_the_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut clients = Clients::default();
        let mut admit = || {
            let outside = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
            let (stream, _) = listener.accept().expect("one comes");
            (outside, clients.admit(stream))
        };
        let mut all: Vec<_> = (0..CLIENTS_MAX).map(|_| admit()).collect();
        all.remove(1);
        let next = admit();
        let is_open = |(_, client): &(TcpStream, Arc<TcpStream>)| {
            client.set_nonblocking(true).expect("an option");
            (&**client).read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        assert!(all.iter().chain([&next]).all(is_open), "one was gone already");
        let last = admit();
        assert!(!is_open(&all[0]), "the oldest gives way");
        assert!(all[1..].iter().chain([&next, &last]).all(is_open));
    }
}
