//! [`Admin`]: a small HTTP port for orchestrators and Prometheus (`/healthz`, `/readyz` and
//! `/metrics`), for people (the status page at `/`), and for administrators (`/v1/…`).
//!
//! It answers one request per connection. All but the last have no access control. Their answers
//! come from earlier checks ([`Health`]) or from counters ([`Metrics`]), so none of them waits. The
//! administration needs a key ([`guard`]), and its requests ([`api`]) may wait for the database.
//! Only the head of a request is read before the key is checked.
//!
//! Clients may be slow, silent, or many. A connection has a thread and a few seconds, and the
//! number of connections is bounded ([`clients`]): an additional one displaces another, but never
//! one that has shown the key. So a client that sends a request and reads is answered, whatever the
//! others do. Requests are parsed by `httparse`. No complete HTTP server library without an async
//! runtime was found that bounds the time, size and number of its connections, and survives a
//! process without free descriptors.

pub mod api;
mod clients;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod guard;
pub(in crate::operation) mod http;
mod pages;
pub mod peers;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::api::{Administrator, ApiAnswer, ApiCall, decoded};
use self::clients::{AdminClient, Clients, Keeping};
use self::guard::AccessGuard;
use self::http::{BodyHead, DeadlineStream, HttpAnswer, HttpInput, HttpRequest, JSON, read_body, read_request};
use crate::config::Secret;
use crate::metrics::Metrics;
use crate::operation::health::{Health, Report};
use crate::operation::status::Board;

/// The bound port, which is not served yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// The reason why the admin port cannot be served.
#[derive(Debug)]
pub enum AdminError {
    /// Listening on this address failed.
    Listen(SocketAddr, io::Error),
    /// The system cannot start a thread.
    Thread(io::Error),
}

/// The sources of the answers.
struct AnswerSources {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// The answers for administrators, and the guard of access to them.
    administration: Option<(Arc<AccessGuard>, Arc<dyn Administrator>)>,
    /// The status page, if it is served.
    board: Option<Arc<Board>>,
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
    pub fn serve(
        self,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        guard: Arc<AccessGuard>,
        administrator: Arc<dyn Administrator>,
        board: Arc<Board>,
    ) -> Result<(), AdminError> {
        let (administration, board) = (Some((guard, administrator)), Some(board));
        let known = Arc::new(AnswerSources { health, metrics, administration, board });
        let accept = move || accept_all(&self.listener, &known);
        spawn(accept).map_err(AdminError::Thread)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("admin".to_owned()).spawn(work).map(drop)
}

/// Accepts for ever. If clients have taken all descriptors, the server must not look dead. Then
/// this uses a reserved descriptor, for one short connection after the other.
fn accept_all(listener: &TcpListener, known: &Arc<AnswerSources>) {
    let (clients, mut spare) = (Clients::default(), None);
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
                    Ok((stream, _)) => serve(&clients.admit(stream), known, PATIENCE_WHEN_SCARCE),
                    Err(_) => thread::park_timeout(RETRY_AFTER),
                }
            }
        }
    }
}

/// Answers one request. Errors are the client's problem.
fn serve(client: &AdminClient, known: &AnswerSources, patience: Duration) {
    if let Err(error) = talk(client, known, patience) {
        log::debug!("an admin connection failed: {error}");
    }
}

fn talk(client: &AdminClient, known: &AnswerSources, patience: Duration) -> io::Result<()> {
    let mut talk = DeadlineStream { stream: &client.stream, deadline: Instant::now() + patience };
    let (asked, begun) = read_request(&mut talk)?;
    let response = match asked {
        HttpInput::Request(request) => {
            let with_body = request.method != "HEAD";
            let answer = match is_of_administration(&request.path) {
                false => known.page(&request).unwrap_or_else(|| known.answer(&request.method, &request.path)),
                true if patience < PATIENCE => shown(&ApiAnswer::refused(503, "the server has no descriptors left")),
                true => shown(&administer(client, &mut talk, known, (&request, begun))?),
            };
            answer.response(with_body)
        }
        HttpInput::Nonsense => HttpAnswer::text(400, "this is not HTTP\n").response(true),
        HttpInput::TooMuch => HttpAnswer::text(431, "too long\n").response(true),
    };
    talk.write_all(response.as_bytes())?;
    // Before the connection ends, so that a client that has seen the end finds room for its next
    // request.
    client.release();
    talk.stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes would make the kernel discard bytes that the client has not
    // received (RFC 2525, 2.17).
    let mut rest = [0; 4096];
    while talk.read(&mut rest)? > 0 {}
    Ok(())
}

fn is_of_administration(path: &str) -> bool {
    path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request to the administration. The body is read only after the key is checked. The
/// result of every request with the key is noted.
fn administer(
    client: &AdminClient,
    talk: &mut DeadlineStream<'_>,
    known: &AnswerSources,
    (request, begun): (&HttpRequest, Vec<u8>),
) -> io::Result<ApiAnswer> {
    let from = client.address();
    let Some((guard, administrator)) = &known.administration else {
        return Ok(ApiAnswer::refused(404, "there is no administration"));
    };
    if let Err(refusal) = guard.check(request, from, Instant::now()) {
        return Ok(refusal);
    }
    let (method, path) = (request.method.clone(), request.path.clone());
    let key = Secret::new(guard::given_key(request).unwrap_or_default());
    let mut call = ApiCall { method, path, query: Vec::new(), body: Value::Null, from: Some(from), key };
    let refused = |call: &ApiCall, refusal: ApiAnswer| {
        administrator.refused(call, &refusal);
        refusal
    };
    match client.keep() {
        Keeping::Yes => {}
        Keeping::NoRoom => return Ok(refused(&call, guard.too_many())),
        Keeping::Gone => {
            refused(&call, ApiAnswer::refused(503, "the connection had to give way, and nothing was done"));
            return Err(ErrorKind::ConnectionAborted.into());
        }
    }
    match read_content(talk, request, begun) {
        Ok(Ok((query, body))) => (call.query, call.body) = (query, body),
        Ok(Err(refusal)) => return Ok(refused(&call, refusal)),
        Err(error) => {
            refused(&call, ApiAnswer::refused(408, "the body did not arrive in time"));
            return Err(error);
        }
    }
    let working = match guard.begin(&call.path) {
        Ok(working) => working,
        Err(refusal) => return Ok(refused(&call, refusal)),
    };
    let answer = catch_unwind(AssertUnwindSafe(|| administrator.answer(&call)))
        .unwrap_or_else(|_| refused(&call, ApiAnswer::refused(500, "a fault of the server, which its log shows")));
    drop(working);
    // The work may have used up the client's time.
    talk.deadline = Instant::now() + PATIENCE;
    Ok(answer)
}

/// The query and the body of a request.
type RequestContent = (Vec<(String, String)>, Value);

fn read_content(
    client: &mut DeadlineStream<'_>,
    request: &HttpRequest,
    begun: Vec<u8>,
) -> io::Result<Result<RequestContent, ApiAnswer>> {
    let refused = |status, why| Ok(Err(ApiAnswer::refused(status, why)));
    let length = match request.body {
        BodyHead::None => 0,
        BodyHead::Of(length) if length > BODY_BYTES_MAX => return refused(413, "the body is longer than 64 KiB"),
        BodyHead::Of(length) => length,
        BodyHead::Unknown => return refused(411, "say the length of the body in Content-Length"),
    };
    let body = read_body(client, begun, length, request.waits)?;
    if length > 0 && !request.is_json {
        return refused(415, "send the body as Content-Type: application/json");
    }
    let body = if length == 0 { Ok(Value::Null) } else { serde_json::from_slice(&body) };
    if length > 0 && body.as_ref().is_ok_and(Value::is_null) {
        return refused(400, "the body must be a JSON object");
    }
    let (Ok(body), Some(query)) = (body, decoded(&request.query)) else {
        return refused(400, "the body is not JSON, or the query is not well formed");
    };
    Ok(Ok((query, body)))
}

/// The HTTP form of an answer of the administration.
fn shown(answer: &ApiAnswer) -> HttpAnswer {
    let body = answer.body.to_string() + "\n";
    let mut shown = HttpAnswer { content_type: JSON, ..HttpAnswer::text(answer.status, body) };
    if let Some(allow) = &answer.allow {
        shown = shown.with("Allow", allow);
    }
    if let Some(seconds) = answer.retry_after {
        shown = shown.with("Retry-After", &seconds.to_string());
    }
    if answer.status == 401 {
        shown = shown.with("WWW-Authenticate", "Bearer");
    }
    shown
}

impl AnswerSources {
    /// The answer, if the request is for the status page.
    fn page(&self, request: &HttpRequest) -> Option<HttpAnswer> {
        let ((guard, _), board) = (self.administration.as_ref()?, self.board.as_ref()?);
        pages::answer(board, guard, request)
    }

    fn answer(&self, method: &str, path: &str) -> HttpAnswer {
        match (method, path) {
            ("GET" | "HEAD", "/healthz") => report(self.health.alive()),
            ("GET" | "HEAD", "/readyz") => report(self.health.ready()),
            ("GET" | "HEAD", "/metrics") => {
                HttpAnswer { content_type: prometheus::TEXT_FORMAT, ..HttpAnswer::text(200, self.metrics.render()) }
            }
            (_, "/healthz" | "/readyz" | "/metrics") => {
                HttpAnswer::text(405, "GET or HEAD\n").with("Allow", "GET, HEAD")
            }
            _ => HttpAnswer::text(404, "use /, /healthz, /readyz or /metrics, or /v1 with the key of administrators\n"),
        }
    }
}

fn report(report: Report) -> HttpAnswer {
    HttpAnswer::text(if report.good { 200 } else { 503 }, report.text)
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

/// The longest lifetime of a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest lifetime while others wait for the reserved descriptor.
const PATIENCE_WHEN_SCARCE: Duration = Duration::from_secs(1);
/// The longest body of a request to the administration.
const BODY_BYTES_MAX: usize = 64 * 1024;
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use parking_lot::Mutex;

    use super::*;
    use crate::config::{AdminKey, Hosts};

    #[test]
    fn answers() {
        let (health, metrics) = (Arc::new(Health::new(Arc::new([]), None)), Arc::new(Metrics::new(1)));
        health.drain();
        let known = AnswerSources { health, metrics, administration: None, board: None };
        for (method, path, status) in [
            ("GET", "/healthz", 200),
            ("HEAD", "/healthz", 200),
            ("GET", "/readyz", 503),
            ("GET", "/metrics", 200),
            ("POST", "/metrics", 405),
            ("DELETE", "/healthz", 405),
            ("GET", "/", 404),
            ("POST", "/healthz/", 404),
        ] {
            assert_eq!(known.answer(method, path).status, status, "{method} {path}");
        }
        let refused = known.answer("PUT", "/readyz");
        assert_eq!(
            refused.response(true),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\n\
             Allow: GET, HEAD\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n\
             GET or HEAD\n"
        );
        assert!(refused.response(false).ends_with(
            "Content-Length: 12\r\nAllow: GET, HEAD\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n"
        ));
    }

    /// An administrator who fails at everything, and notes the status.
    #[derive(Default)]
    struct Clumsy(Mutex<Vec<u16>>);

    impl Administrator for Clumsy {
        fn answer(&self, call: &ApiCall) -> ApiAnswer {
            panic!("on purpose, at {}", call.path)
        }

        fn refused(&self, _: &ApiCall, answer: &ApiAnswer) {
            self.0.lock().push(answer.status);
        }
    }

    #[test]
    fn every_result_of_a_request_with_the_key_is_noted() {
        const KEY: &str = "0123456789abcdef0123456789abcdef";
        let (health, metrics) = (Arc::new(Health::new(Arc::new([]), None)), Arc::new(Metrics::new(1)));
        let guard = AccessGuard::new(&AdminKey(Some(Secret::new(KEY))), &Hosts::default(), metrics.clone());
        let (guard, clumsy) = (Arc::new(guard.expect("random bytes")), Arc::new(Clumsy::default()));
        let administration: Option<(Arc<AccessGuard>, Arc<dyn Administrator>)> = Some((guard.clone(), clumsy.clone()));
        let known = AnswerSources { health, metrics, administration, board: None };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ask = |rest: &str| {
            let mut outside = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
            let head = format!("POST /v1/users HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{rest}");
            outside.write_all(head.as_bytes()).expect("a request");
            outside.shutdown(Shutdown::Write).expect("its end");
            let (stream, _) = listener.accept().expect("it comes");
            serve(&Clients::default().admit(stream), &known, PATIENCE);
            let mut answer = String::new();
            outside.read_to_string(&mut answer).expect("an answer");
            answer.get(9..12).unwrap_or_default().to_owned()
        };
        let json = "Content-Type: application/json\r\n";
        assert_eq!(ask(&format!("{json}Content-Length: 65537\r\n\r\n")), "413");
        assert_eq!(ask(&format!("{json}Transfer-Encoding: chunked\r\n\r\n")), "411");
        assert_eq!(ask("Content-Length: 2\r\n\r\n{}"), "415");
        assert_eq!(ask(&format!("{json}Content-Length: 2\r\n\r\n{{]")), "400");
        assert_eq!(ask(&format!("{json}Content-Length: 2\r\n\r\n")), "", "the body is not sent");
        assert_eq!(ask("\r\n"), "500", "a panic is a fault, and no silence");
        let all: Vec<_> = (0..64).map_while(|_| guard.begin("/v1/users").ok()).collect();
        assert_eq!(ask("\r\n"), "503");
        drop(all);
        assert_eq!(*clumsy.0.lock(), [413, 411, 415, 400, 408, 500, 503]);
    }
}
