//! [`post`]: one request to the web server.
//!
//! Somebody who controls the name of the web server could lead the request to a machine inside the
//! network. So the addresses of the name are checked, and the connection goes to one of those that
//! were checked: the name is not looked up a second time. No redirect is followed.
//!
//! A request may take [`TIME_MAX`] in all, and only its head is read, [`HEAD_BYTES_MAX`] of it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::batch::signature;
use super::trust;
use crate::config::{HookAddress, HookNetworks, is_public};

/// The reason why a request has failed.
#[derive(Debug)]
pub(super) enum PostError {
    /// The status of the answer is not 2xx.
    Status(u16),
    /// The name has no address.
    Name(String),
    /// None of the addresses of the name is allowed; this is one of them.
    Address(IpAddr),
    /// The answer is not complete in time.
    Late,
    /// The answer is not HTTP, or too long.
    Malformed,
    /// The connection or TLS has failed.
    Broken(io::Error),
}

impl PostError {
    /// Whether the web server works, but refuses what a message says. Other errors concern every
    /// message.
    pub(super) fn concerns_message(&self) -> bool {
        matches!(self, PostError::Status(400 | 406 | 409 | 413 | 415 | 422 | 451))
    }
}

/// The web server, and what a request to it needs.
pub(super) struct Receiver<'a> {
    pub(super) address: &'a HookAddress,
    /// The addresses that are allowed beside public ones.
    pub(super) private: &'a HookNetworks,
    /// Signs the requests.
    pub(super) key: &'a str,
    /// The time for a whole request.
    pub(super) within: Duration,
}

/// Posts a signed body, and returns when a success is answered.
pub(super) fn post(receiver: &Receiver<'_>, timestamp: u64, body: &str) -> Result<(), PostError> {
    let Receiver { address, private, key, within } = *receiver;
    let by = Instant::now() + within;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: raybox/{}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nX-RayBox-Timestamp: {timestamp}\r\nX-RayBox-Signature: {}\r\nConnection: close\r\n\r\n",
        address.target,
        address.authority(),
        env!("CARGO_PKG_VERSION"),
        body.len(),
        signature(key, timestamp, body),
    );
    let socket = connect(&allowed_of(resolve(address, by)?, private)?, by)?;
    let request = head + body;
    let stream = Timed { socket, by };
    match address.is_secure {
        false => exchange(stream, &request),
        true => exchange(secured(stream, &address.host)?, &request),
    }
}

/// The addresses to which a connection is allowed.
fn allowed_of(found: Vec<SocketAddr>, allowed: &HookNetworks) -> Result<Vec<SocketAddr>, PostError> {
    let is_allowed = |ip: IpAddr| is_public(ip) || allowed.0.as_ref().is_some_and(|networks| networks.contains(ip));
    let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| is_allowed(at.ip()));
    match (good.is_empty(), bad.first()) {
        (false, _) => Ok(good),
        (true, Some(at)) => Err(PostError::Address(at.ip())),
        (true, None) => Err(PostError::Name("it has no address".to_owned())),
    }
}

/// The addresses of the host. A lookup cannot be cancelled, and may take half a minute if a name
/// server does not answer. So another thread does it, and there is at most one.
fn resolve(address: &HookAddress, by: Instant) -> Result<Vec<SocketAddr>, PostError> {
    static IS_BUSY: AtomicBool = AtomicBool::new(false);
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let late = || PostError::Name("the name server does not answer".to_owned());
    if IS_BUSY.swap(true, Ordering::AcqRel) {
        return Err(late());
    }
    let (found, answer) = mpsc::sync_channel(1);
    let (host, port) = (address.host.clone(), address.port);
    let look = move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        IS_BUSY.store(false, Ordering::Release);
        // The caller may have stopped waiting.
        let _ = found.send(addresses);
    };
    if let Err(error) = thread::Builder::new().name("hook-name".to_owned()).spawn(look) {
        IS_BUSY.store(false, Ordering::Release);
        return Err(PostError::Broken(error));
    }
    match answer.recv_timeout(by.saturating_duration_since(Instant::now())) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(PostError::Name(error.to_string())),
        Err(_) => Err(late()),
    }
}

fn connect(addresses: &[SocketAddr], by: Instant) -> Result<TcpStream, PostError> {
    let mut last = PostError::Late;
    for (nth, address) in addresses.iter().take(ADDRESSES_MAX).enumerate() {
        // Each address gets the same share of the time that is left.
        let left = by.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len().min(ADDRESSES_MAX) - nth).unwrap_or(1);
        if share.is_zero() {
            return Err(PostError::Late);
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn secured(stream: Timed, host: &str) -> Result<StreamOwned<ClientConnection, Timed>, PostError> {
    let broken = |error: &dyn fmt::Display| PostError::Broken(io::Error::other(error.to_string()));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| broken(&error))?;
    let connection = ClientConnection::new(trust::client(), name).map_err(|error| broken(&error))?;
    Ok(StreamOwned::new(connection, stream))
}

/// Writes the request, and reads the answer up to the end of its head.
fn exchange(mut stream: impl Read + Write, request: &str) -> Result<(), PostError> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut head = Vec::new();
    loop {
        match status(&head)? {
            // An interim answer; the final one follows.
            Some((100..=199, length)) => drop(head.drain(..length)),
            Some((200..=299, _)) => return Ok(()),
            Some((status, _)) => return Err(PostError::Status(status)),
            None if head.len() >= HEAD_BYTES_MAX => return Err(PostError::Malformed),
            None => {
                let mut part = [0; 1024];
                match stream.read(&mut part)? {
                    0 => return Err(PostError::Broken(ErrorKind::UnexpectedEof.into())),
                    n => head.extend_from_slice(&part[..n]),
                }
            }
        }
    }
}

/// The status of an answer and the length of its head, `None` if more must be read.
fn status(head: &[u8]) -> Result<Option<(u16, usize)>, PostError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(length)) => Ok(answer.code.map(|code| (code, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(PostError::Malformed),
    }
}

/// A socket on which everything together must be done by a time.
struct Timed {
    socket: TcpStream,
    by: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.by.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl From<io::Error> for PostError {
    fn from(error: io::Error) -> PostError {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => PostError::Late,
            _ => PostError::Broken(error),
        }
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostError::Status(status @ 300..=399) => write!(f, "it answers {status}, and no redirect is followed"),
            PostError::Status(status) => write!(f, "it answers {status}"),
            PostError::Name(cause) => write!(f, "its name is not resolved: {cause}"),
            PostError::Address(ip) => {
                write!(f, "its name leads to {ip}, which is not public; if that is meant, name it in hook_private")
            }
            PostError::Late => f.write_str("it does not answer in time"),
            PostError::Malformed => f.write_str("its answer is not HTTP, or has too long a head"),
            PostError::Broken(error) => write!(f, "{error}"),
        }
    }
}

/// The time for a whole request.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10);
/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests;
