//! `server health [ADDRESS]`: asks a running server whether it is ready, so that health checks of
//! containers and scripts need no other program.
//!
//! ADDRESS is the one in the server's key `admin`; a port alone means 127.0.0.1. The default is
//! RAYBOX_ADMIN.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The reason why a server counts as not ready.
#[derive(Debug)]
pub enum Unhealthy {
    /// The address is invalid.
    Address(String),
    /// There was no answer from this address.
    Silent(SocketAddr, io::Error),
    /// The server answered that it is not ready, with this text.
    NotReady(SocketAddr, String),
}

/// Requests `/readyz` and returns the server's report.
///
/// # Errors
/// [`Unhealthy`], one line for the operator.
pub fn run(address: &str) -> Result<String, Unhealthy> {
    let parsed = address.parse().or_else(|_| format!("127.0.0.1:{address}").parse());
    let address: SocketAddr = parsed.map_err(|_| Unhealthy::Address(address.to_owned()))?;
    let answer = ask(address).map_err(|error| Unhealthy::Silent(address, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    if status == Some("200") {
        return Ok(body.to_owned());
    }
    let said = if body.trim().is_empty() { head.lines().next().unwrap_or_default() } else { body.trim() };
    Err(Unhealthy::NotReady(address, said.lines().collect::<Vec<_>>().join("; ")))
}

/// Uses HTTP/1.0, so that the answer ends with the connection.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| match error.kind() {
        // Linux reports a read timeout like this.
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "none within 2 s"),
        _ => error,
    })?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unhealthy::Address(text) => {
                write!(f, "health: {text:?} is not an address with a port, such as {DEFAULT_ADDRESS}")
            }
            Unhealthy::Silent(address, error) => {
                write!(f, "health: no answer from {address}: {error}; is the server running with admin={address}?")
            }
            Unhealthy::NotReady(address, said) => write!(f, "health: {address} is not ready: {said}"),
        }
    }
}

impl Error for Unhealthy {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Unhealthy::Silent(_, error) => Some(error),
            Unhealthy::Address(_) | Unhealthy::NotReady(..) => None,
        }
    }
}

/// The text of `--help`.
pub const HELP: &str = "\
Asks a running server whether it is ready for clients.

Usage: server health [ADDRESS]

ADDRESS is the one in the server's key admin: a port of this machine, or
IP:PORT. Without ADDRESS, the variable RAYBOX_ADMIN, else 127.0.0.1:9600.

Exit code: 0 ready, 1 not ready or no answer, 2 wrong arguments. The answer, or
what is wrong, is on one line for each condition.
";
/// The default address.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9600";
/// The timeout of each step; an error mentions it.
const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;
    use std::thread;

    /// The verdict on a server's answer.
    fn after(answer: &'static str) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            assert!(request.starts_with(b"GET /readyz HTTP/1.0\r\n"));
        });
        let outcome = run(&address).map_err(|error| error.to_string().replace(&address, "ADDRESS"));
        server.join().unwrap();
        outcome
    }

    #[test]
    fn the_status_decides() {
        assert_eq!(after("HTTP/1.1 200 OK\r\nA: b\r\n\r\nready\n"), Ok("ready\n".into()));
        let not_ready = |said: &str| Err(format!("health: ADDRESS is not ready: {said}"));
        let busy = "HTTP/1.1 503 Service Unavailable\r\n\r\nstore: unreachable\nbus: ok\n";
        assert_eq!(after(busy), not_ready("store: unreachable; bus: ok"));
        assert_eq!(after("HTTP/1.0 404 Not Found\r\n\r\n"), not_ready("HTTP/1.0 404 Not Found"));
        assert_eq!(after("{\"errno\":401}"), not_ready("{\"errno\":401}"));
        assert_eq!(after(""), not_ready(""));
    }

    #[test]
    fn a_closed_port_and_a_wrong_address_are_named() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = run(&free.to_string()).unwrap_err().to_string();
        assert!(text.starts_with(&format!("health: no answer from {free}: ")), "{text}");
        assert_eq!(
            run("localhost").unwrap_err().to_string(),
            "health: \"localhost\" is not an address with a port, such as 127.0.0.1:9600"
        );
    }
}
