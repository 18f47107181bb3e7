//! [`RedisConnection`]: one connection to Redis on which a call ends at its deadline.
//!
//! The client library's own connection has a timeout for each read. A call reads once for each of
//! its commands, so a frozen Redis would cost it one timeout for each of hundreds of commands. Here
//! the whole call has one deadline. The library packs commands and parses answers.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redis::{ConnectionLike, Parser, RedisResult, Value};
use rustix::net::{RecvFlags, recv};

/// The stream of a connection: a blocking socket, possibly with encryption around it.
pub trait RedisStream: Read + Write + Send {
    /// The underlying socket.
    fn socket(&self) -> &TimedSocket;

    /// The underlying socket, to set its deadline.
    fn socket_mut(&mut self) -> &mut TimedSocket;
}

/// A socket whose reads and writes end at a deadline, or earlier if the other end makes no
/// progress.
#[derive(Debug)]
pub struct TimedSocket {
    socket: TcpStream,
    by: Instant,
    stall_max: Duration,
}

/// A connection that is logged in. Between calls no command or answer is on its way.
pub struct RedisConnection<S> {
    stream: S,
    parser: Parser,
    /// Whether bytes of the present call were written.
    has_sent: bool,
    /// Whether the connection has failed. Answers may still come, and would be taken for answers to
    /// later commands.
    is_broken: bool,
}

impl TimedSocket {
    /// A socket whose calls end at `by`, or earlier if no byte moves for `stall_max`.
    pub fn new(socket: TcpStream, by: Instant, stall_max: Duration) -> TimedSocket {
        TimedSocket { socket, by, stall_max }
    }

    /// Sets the deadline of all further calls.
    pub fn end_at(&mut self, by: Instant) {
        self.by = by;
    }

    /// The socket, with its timeouts removed.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.by.saturating_duration_since(Instant::now()).min(self.stall_max);
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl RedisStream for TimedSocket {
    fn socket(&self) -> &TimedSocket {
        self
    }

    fn socket_mut(&mut self) -> &mut TimedSocket {
        self
    }
}

impl Read for TimedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer).map_err(timed_out)
    }
}

impl Write for TimedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns the error of a timeout, which the socket reports as `WouldBlock`, into `TimedOut`.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl<S: RedisStream> RedisConnection<S> {
    /// A connection on which nothing was sent yet.
    pub fn new(stream: S) -> RedisConnection<S> {
        RedisConnection { stream, parser: Parser::new(), has_sent: false, is_broken: false }
    }

    /// Begins a call, which ends at `by` with all its commands.
    pub fn begin(&mut self, by: Instant) {
        self.stream.socket_mut().end_at(by);
        self.has_sent = false;
    }

    /// The stream. No command or answer may be on its way.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Whether bytes of the present call were written.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether the connection has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether nothing unexpected has arrived: neither bytes nor the end. Asks only the kernel.
    pub(super) fn is_quiet(&self) -> bool {
        let peeked = recv(&self.stream.socket().socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked == Err(rustix::io::Errno::AGAIN)
    }

    /// Whether the other end answers. A Redis that cannot save its data refuses a `PING`, but
    /// executes what is no write.
    pub(super) fn answers(&mut self, by: Instant) -> bool {
        self.begin(by);
        match redis::cmd("PING").query::<Value>(self) {
            Ok(_) => true,
            Err(error) => error.code() == Some("MISCONF"),
        }
    }

    fn send(&mut self, packed: &[u8]) -> io::Result<()> {
        let mut rest = packed;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.has_sent = true;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.flush()
    }

    fn exchange(&mut self, packed: &[u8], answers: usize) -> RedisResult<Vec<Value>> {
        self.send(packed)?;
        (0..answers).map(|_| self.parser.parse_value(&mut self.stream)).collect()
    }

    /// Sends commands and reads this number of answers. Ends at the first failure.
    fn ask(&mut self, packed: &[u8], answers: usize) -> RedisResult<Vec<Value>> {
        if self.is_broken {
            return Err(io::Error::from(ErrorKind::NotConnected).into());
        }
        // Set before the exchange, in case it panics: the remaining answers would be taken for
        // answers to the next call.
        self.is_broken = true;
        let result = self.exchange(packed, answers);
        self.is_broken = result.is_err();
        result
    }
}

impl<S: RedisStream> ConnectionLike for RedisConnection<S> {
    fn req_packed_command(&mut self, packed: &[u8]) -> RedisResult<Value> {
        Ok(self.ask(packed, 1)?.pop().unwrap_or(Value::Nil))
    }

    fn req_packed_commands(&mut self, packed: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        Ok(self.ask(packed, offset + count)?.split_off(offset))
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").query::<Value>(self).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.is_broken
    }
}

impl<S> fmt::Debug for RedisConnection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}
