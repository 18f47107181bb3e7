//! Sends requests to the administration of a running server.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::operation::admin::guard::TOO_MANY;
use crate::operation::admin::http::parse_answer;

/// A request.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct AdminRequest {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Value,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum ClientError {
    /// Nobody listens there.
    Silent(SocketAddr, io::Error),
    /// The program that listens there does not answer like the administration.
    Foreign(SocketAddr),
    /// It was refused, for this reason.
    Refused(u16, String),
}

impl AdminRequest {
    pub(super) fn new(method: &'static str, path: impl Into<String>) -> AdminRequest {
        AdminRequest { method, path: path.into(), body: Value::Null }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> AdminRequest {
        if self.body.is_null() {
            self.body = json!({});
        }
        self.body[name] = value.into();
        self
    }
}

/// Sends the request, and returns what was answered. Sends it again a few times while other
/// administrators have too many under way.
///
/// # Errors
/// [`ClientError`].
pub(super) fn ask(address: SocketAddr, key: &str, request: &AdminRequest) -> Result<Value, ClientError> {
    ask_again(address, key, request, RETRY_AFTER)
}

fn ask_again(address: SocketAddr, key: &str, request: &AdminRequest, pause: Duration) -> Result<Value, ClientError> {
    for _ in 0..RETRIES {
        match ask_once(address, key, request) {
            Err(ClientError::Refused(503, why)) if why == TOO_MANY => thread::sleep(pause),
            answer => return answer,
        }
    }
    ask_once(address, key, request)
}

fn ask_once(address: SocketAddr, key: &str, request: &AdminRequest) -> Result<Value, ClientError> {
    let answer = exchange(address, key, request).map_err(|error| ClientError::Silent(address, error))?;
    let (status, body) = parse_answer(&answer).ok_or(ClientError::Foreign(address))?;
    let body: Value = serde_json::from_slice(body).map_err(|_| ClientError::Foreign(address))?;
    match status {
        200..300 => Ok(body),
        status => {
            let why = body["error"].as_str().unwrap_or("without a reason");
            Err(ClientError::Refused(status, why.to_owned()))
        }
    }
}

fn exchange(address: SocketAddr, key: &str, request: &AdminRequest) -> io::Result<Vec<u8>> {
    let AdminRequest { method, path, body } = request;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| match error.kind() {
        // Linux reports a read timeout like this.
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "none within 30 s"),
        _ => error,
    })?;
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Whether there was a connection, and the server has ended it.
fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Silent(address, error) if has_ended(error) => {
                write!(
                    f,
                    "{address} has ended the connection without an answer: it has too many connections, stops, or is \
                     not the admin port; try again"
                )
            }
            ClientError::Silent(address, error) => {
                write!(f, "no answer from {address}: {error}; is the server running with admin={address}?")
            }
            ClientError::Foreign(address) => {
                write!(f, "{address} is not the admin port of a server with an administration")
            }
            ClientError::Refused(status, why) => write!(f, "the server refuses ({status}): {why}"),
        }
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// The longest wait for an answer. An error mentions it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
const RETRIES: u32 = 3;
/// As the server asks for it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// The outcome of a command whose server gives these answers, and the number of answers given.
    fn asked(answers: Vec<(u16, String)>) -> (Result<Value, ClientError>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            for (nth, (status, body)) in answers.iter().enumerate() {
                let (mut stream, _) = listener.accept().expect("a command");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    match stream.read(&mut byte).expect("a request") {
                        0 => return nth,
                        _ => head.push(byte[0]),
                    }
                }
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
            answers.len()
        });
        let answer = ask_again(address, "key", &AdminRequest::new("GET", "/v1/node"), Duration::ZERO);
        // Ends a server that waits for one more.
        drop(TcpStream::connect(address));
        (answer, server.join().expect("the server"))
    }

    #[test]
    fn only_a_request_refused_because_of_others_is_sent_again() {
        let error = |why: &str| json!({"error": why}).to_string();
        let (busy, done) = ((503, error(TOO_MANY)), (200, json!({"drained": true}).to_string()));
        let (answer, given) = asked(vec![busy.clone(), busy.clone(), done.clone()]);
        assert_eq!((answer.expect("it is done"), given), (json!({"drained": true}), 3));
        let (answer, given) = asked(vec![busy; 4]);
        assert!(answer.is_err_and(|error| error.to_string().contains(TOO_MANY)) && given == 4);
        let (answer, given) = asked(vec![(503, error("the database is away")), done]);
        assert!(answer.is_err_and(|error| error.to_string().contains("is away")) && given == 1);
    }
}
