//! The part of the wire protocol that a load generator needs.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::Value;

use crate::carrier::{Address, Carrier, Stream};
use crate::interrupt;

/// The way in which the end of a frame is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// Each frame ends with a newline, in both directions.
    Lines,
    /// Frames are sent without a separator, as by the Qt client. A measured frame contains exactly
    /// one closing brace.
    Bare,
}

impl Framing {
    /// The byte that ends each frame, in both directions.
    pub(crate) fn last_byte(self) -> u8 {
        match self {
            Framing::Lines => b'\n',
            Framing::Bare => b'}',
        }
    }

    fn push_end(self, frame: &mut Vec<u8>) {
        if self == Framing::Lines {
            frame.push(b'\n');
        }
    }
}

/// A chat frame in which only a number changes. Its keys are sorted, so that a server that
/// serialises the JSON again writes the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    from: i64,
    bytes: Vec<u8>,
    number_at: usize,
}

/// The recipient of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    User(i64),
    Group(i64),
}

/// The number of digits in a message's number.
const DIGITS: usize = 10;

impl Template {
    /// A template of exactly `size` bytes, the newline included, whose text begins with `sender`
    /// and the number.
    pub(crate) fn new(from: i64, to: To, sender: usize, size: usize, framing: Framing) -> Result<Template, String> {
        let (to, msg_type) = match to {
            To::User(id) => (format!(r#""TOID":{id}"#), 4),
            To::Group(id) => (format!(r#""GROUPID":{id}"#), 9),
        };
        let head = format!(r#"{{"FROMID":{from},{to},"msg":"{sender:05} "#);
        let mut tail = format!(r#"","msgType":{msg_type},"sendTime":"12:00"}}"#).into_bytes();
        framing.push_end(&mut tail);
        let least = head.len() + DIGITS + tail.len();
        let Some(filling) = size.checked_sub(least) else {
            return Err(format!("a frame needs at least {least} bytes: give --size {least} or more"));
        };
        let number_at = head.len();
        let mut bytes = head.into_bytes();
        bytes.extend([b'0'; DIGITS]);
        bytes.extend((0..filling).map(|n| b'a' + (n % 26) as u8));
        bytes.extend(tail);
        Ok(Template { from, bytes, number_at })
    }

    /// The user who sends it.
    pub(crate) fn from(&self) -> i64 {
        self.from
    }

    /// The length of each frame in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends message `number`.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let mut rest = number;
        for digit in out[start + self.number_at..][..DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// Returns the number of a message if it matches this template to the last byte.
    pub(crate) fn number_of(&self, frame: &[u8]) -> Option<u64> {
        let digits_end = self.number_at + DIGITS;
        if frame.len() != self.bytes.len()
            || frame[..self.number_at] != self.bytes[..self.number_at]
            || frame[digits_end..] != self.bytes[digits_end..]
        {
            return None;
        }
        frame[self.number_at..digits_end]
            .iter()
            .try_fold(0, |number: u64, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
    }

    /// Returns the sender's index from a frame of this shape.
    pub(crate) fn sender_of(frame: &[u8]) -> Option<usize> {
        const KEY: &[u8] = br#""msg":""#;
        let at = memchr::memmem::find(frame, KEY)? + KEY.len();
        str::from_utf8(frame.get(at..at + 5)?).ok()?.parse().ok()
    }
}

/// A connection that sends one request at a time and waits for the answer. It sets things up and is
/// not measured.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    framing: Framing,
    received: Vec<u8>,
}

/// A server that does not answer within this time is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a wait for the server checks for an interrupt.
const GLANCE: Duration = Duration::from_millis(100);

impl Client {
    pub(crate) fn connect(address: Address, framing: Framing) -> io::Result<Client> {
        need_lines(&[address], framing)?;
        let stream = TcpStream::connect_timeout(&address.socket, PATIENCE)
            .map_err(explain)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {address}: {error}")))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GLANCE))?;
        stream.set_write_timeout(Some(GLANCE))?;
        Ok(Client { stream: Stream::new(stream, address)?, framing, received: Vec::new() })
    }

    pub(crate) fn send(&mut self, request: &str) -> io::Result<()> {
        let mut frame = request.as_bytes().to_vec();
        self.framing.push_end(&mut frame);
        self.send_raw(&frame)
    }

    /// Writes frames that are ready to be sent.
    pub(crate) fn send_raw(&mut self, mut frames: &[u8]) -> io::Result<()> {
        let mut since = Instant::now();
        while !frames.is_empty() {
            match self.stream.write(frames) {
                Ok(len) => (frames, since) = (&frames[len..], Instant::now()),
                Err(error) => go_on_waiting(error, since)?,
            }
        }
        while let Err(error) = self.stream.flush() {
            go_on_waiting(error, since)?;
        }
        Ok(())
    }

    /// Receives the next JSON object, with the end of its frame.
    pub(crate) fn receive(&mut self) -> io::Result<Value> {
        if let Some(value) = self.take_value()? {
            return Ok(value);
        }
        let mut piece = vec![0; 256 * 1024];
        let mut since = Instant::now();
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
                Ok(len) => {
                    self.received.extend_from_slice(&piece[..len]);
                    since = Instant::now();
                    if let Some(value) = self.take_value()? {
                        return Ok(value);
                    }
                }
                Err(error) => go_on_waiting(error, since)?,
            }
        }
    }

    fn take_value(&mut self) -> io::Result<Option<Value>> {
        let mut values = serde_json::Deserializer::from_slice(&self.received).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) if !error.is_eof() => return Err(io::Error::other(format!("no JSON came: {error}"))),
            Some(Err(_)) | None => return Ok(None),
        };
        let mut len = values.byte_offset();
        if self.framing == Framing::Lines {
            // The newline after a frame is removed too, so that the next frame does not begin with
            // it.
            match self.received.get(len) {
                Some(b'\n') => len += 1,
                Some(_) => return Err(io::Error::other("a reply came without a newline")),
                None => return Ok(None),
            }
        }
        self.received.drain(..len);
        Ok(Some(value))
    }

    /// Sends a request, and expects an answer with `errno` 200.
    pub(crate) fn ask(&mut self, request: &str) -> io::Result<Value> {
        interrupt::check()?;
        self.send(request)?;
        let reply = self.receive()?;
        if reply["errno"] == 200 {
            return Ok(reply);
        }
        let hint = hint(reply.to_string().as_bytes());
        Err(io::Error::other(format!("{} was answered with {reply}{hint}", without_password(request))))
    }

    /// Returns the socket; all received bytes must have been taken.
    pub(crate) fn into_stream(self) -> io::Result<Stream> {
        if self.received.iter().any(|byte| !byte.is_ascii_whitespace()) {
            return Err(io::Error::other("more came than was asked for"));
        }
        self.stream.socket().set_read_timeout(None)?;
        self.stream.socket().set_write_timeout(None)?;
        Ok(self.stream)
    }
}

/// Bare frames cannot be sent over a WebSocket, whose client makes messages of lines.
pub(crate) fn need_lines(addresses: &[Address], framing: Framing) -> io::Result<()> {
    let has_websockets = addresses.iter().any(|address| address.carrier == Carrier::WebSocket);
    match has_websockets && framing == Framing::Bare {
        true => Err(io::Error::other("a WebSocket has messages and no bare frames: leave --bare out")),
        false => Ok(()),
    }
}

/// Decides whether to wait on after a read error of an idle socket.
///
/// # Errors
///
/// Unless it is only the short read timeout: the error itself, an interrupt of the run, or a
/// timeout because the server has taken too long.
fn go_on_waiting(error: io::Error, since: Instant) -> io::Result<()> {
    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) {
        return Err(error);
    }
    interrupt::check()?;
    if since.elapsed() < PATIENCE {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs())))
}

/// Adds advice to an error that is caused by this machine, not by the server.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let advice = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => {
            "no port is left to connect from: wait a minute, ask for fewer connections, or widen \
             net.ipv4.ip_local_port_range"
        }
        Some(Errno::MFILE) => "too many open files: raise the limit with `ulimit -n`",
        Some(Errno::NFILE) => "too many open files on this machine: raise fs.file-max",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{advice} ({error})"))
}

/// The likely reason for a refusal.
pub(crate) fn hint(reply: &[u8]) -> &'static str {
    let is_wrong_password = memchr::memmem::find(reply, br#""errno":302"#).is_some();
    if is_wrong_password {
        "; several addresses must be nodes of one cluster, and a file that --accounts names may be of another server"
    } else {
        ""
    }
}

fn without_password(request: &str) -> String {
    request.split_once(r#""password""#).map_or_else(|| request.to_owned(), |(before, _)| format!("{before}...}}"))
}

pub(crate) fn register(name: &str, password: &str) -> String {
    format!(r#"{{"msgType":2,"name":"{name}","password":"{password}"}}"#)
}

pub(crate) fn login(id: i64, password: &str) -> String {
    format!(r#"{{"USERID":{id},"msgType":1,"password":"{password}"}}"#)
}

pub(crate) fn logout(id: i64) -> String {
    format!(r#"{{"USERID":{id},"msgType":3}}"#)
}

pub(crate) fn create_group(id: i64, name: &str) -> String {
    format!(r#"{{"FROMID":{id},"description":"raybench","msgType":12,"name":"{name}"}}"#)
}

pub(crate) fn join_group(id: i64, group: i64) -> String {
    format!(r#"{{"FROMID":{id},"GROUPID":{group},"msgType":10}}"#)
}

pub(crate) fn fetch(id: i64) -> String {
    format!(r#"{{"FROMID":{id},"msgType":14}}"#)
}

/// A cheap request. Its answer confirms that the server has processed everything sent before it.
pub(crate) fn barrier(id: i64) -> String {
    format!(r#"{{"keyword":"{id}","msgType":15}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_size_and_its_number() {
        for framing in [Framing::Lines, Framing::Bare] {
            let template = Template::new(123_456, To::User(123_457), 7, 100, framing).expect("it fits");
            let mut frame = Vec::new();
            template.write(4_200_000_001, &mut frame);
            assert_eq!(frame.len(), 100);
            assert_eq!(frame.last(), Some(&framing.last_byte()));
            assert_eq!(template.number_of(&frame), Some(4_200_000_001));
            assert_eq!(Template::sender_of(&frame), Some(7));
            let value: Value = serde_json::from_slice(&frame).expect("JSON");
            let again = value.to_string();
            assert_eq!(again.as_bytes(), frame.trim_ascii_end(), "a server that writes it anew writes the same");
        }
    }

    #[test]
    fn one_wrong_byte_is_seen() {
        let template = Template::new(1, To::Group(2), 0, 120, Framing::Lines).expect("it fits");
        let mut frame = Vec::new();
        template.write(5, &mut frame);
        for at in 0..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] ^= 1;
            assert_ne!(template.number_of(&wrong), Some(5), "{at}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let of = |errno: Errno| explain(errno.into()).to_string();
        assert!(of(Errno::ADDRNOTAVAIL).contains("ip_local_port_range"));
        assert!(of(Errno::MFILE).contains("ulimit -n"));
        go_on_waiting(Errno::AGAIN.into(), Instant::now()).expect("there is time");
        let error = go_on_waiting(Errno::AGAIN.into(), Instant::now() - PATIENCE).expect_err("there is none");
        assert_eq!(error.to_string(), "no answer within 30 s");
        assert!(go_on_waiting(Errno::PIPE.into(), Instant::now()).is_err());
        assert_eq!(without_password(&login(7, "secret")), r#"{"USERID":7,"msgType":1,...}"#);
        assert!(hint(br#"{"errno":302,"msgType":200}"#).contains("--accounts"));
        assert_eq!(hint(br#"{"errno":200,"msgType":200}"#), "");
    }

    #[test]
    fn a_size_too_small_says_what_to_give() {
        let error = Template::new(1, To::User(2), 0, 10, Framing::Lines).expect_err("too small");
        assert!(error.contains("--size 7"), "{error}");
    }
}
