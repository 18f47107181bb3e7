//! Many connections that ask and are answered, in one thread: for logins and for the ramp. Each answer is checked to the
//! last byte.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::talk::Phase;
use crate::tally::{Counts, SLICE, Times, times};
use crate::wire::Framing;

/// The reply to a login or a logout that succeeded.
pub(crate) const OK: &str = r#"{"errno":200,"msgType":200}"#;
/// The reply to a chat by nobody.
pub(crate) const NO_SUCH: &str =
    r#"{"errmsg":"No such method, failed to process your request!","errno":404,"msgType":404}"#;

/// A request and the answer it must get.
#[derive(Debug)]
pub(crate) struct Step {
    request: Vec<u8>,
    answer: Vec<u8>,
    is_counted: bool,
}

impl Step {
    pub(crate) fn new(request: &str, answer: &str, framing: Framing) -> Step {
        let frame = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            if framing == Framing::Lines {
                bytes.push(b'\n');
            }
            bytes
        };
        Step { request: frame(request), answer: frame(answer), is_counted: false }
    }

    /// One of those whose rate and times are measured.
    pub(crate) fn counted(self) -> Step {
        Step { is_counted: true, ..self }
    }
}

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Course {
    /// One script after the other until the phase is the last, or the scripts are empty.
    Repeat,
    /// The same, each on a connection of its own.
    Reconnect,
    /// They begin one after the other within this time, do one script each, and stay until all have. Times count from when
    /// the connection was due.
    Ramp(Duration),
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) counts: Counts,
    /// Counted answers of the measured time.
    pub(crate) measured: u64,
    pub(crate) times: Times,
    pub(crate) slices: Vec<u64>,
    pub(crate) first_trouble: Option<String>,
}

/// How long an answer may take, and how long a change of the phase may go unnoticed.
const PATIENCE: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(1);

/// Begins the connection with this number. On one machine they come from many addresses of the loopback network, others in
/// each run: the search for a free port takes milliseconds when more than half of those of an address are in use, or were
/// a minute ago.
fn begin_to_connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.ip() == Ipv4Addr::LOCALHOST {
        let nth = number / CONNECTIONS_PER_ADDRESS;
        let run = std::process::id() % 254;
        let from = Ipv4Addr::new(127, run as u8 + 1, (nth / 250) as u8, (nth % 250) as u8 + 1);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
    }
}

const CONNECTIONS_PER_ADDRESS: usize = 1_000;

/// This process and the server need a descriptor for each connection.
pub(crate) fn need_descriptors(connections: usize) -> io::Result<()> {
    let needed = connections as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map_or(needed, |maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: Some(maximum) })
        .map_err(|error| io::Error::other(format!("{needed} descriptors are needed: `ulimit -n {needed}` ({error})")))
}

struct Asker {
    /// None before it is due and after the end.
    stream: Option<TcpStream>,
    is_connected: bool,
    script: Vec<Step>,
    step: usize,
    written: usize,
    answer: Vec<u8>,
    since: Instant,
    turn: usize,
}

struct Asking<'a, S> {
    addresses: &'a [SocketAddr],
    course: Course,
    phase: &'a Phase,
    script: S,
    askers: Vec<Asker>,
    poll: Poll,
    asked: Asked,
    /// Connections that have not done what they have to do.
    busy: usize,
    start: Instant,
    measured_since: Option<Instant>,
    last_answer: Instant,
}

/// Runs `connections` of them. `script` says what connection `n` asks in its turn `k`.
pub(crate) fn ask<S: FnMut(usize, usize) -> Vec<Step>>(
    addresses: &[SocketAddr],
    connections: usize,
    course: Course,
    phase: &Phase,
    script: S,
) -> io::Result<Asked> {
    let now = Instant::now();
    let counts = Counts::default();
    let mut asking = Asking {
        addresses,
        course,
        phase,
        script,
        askers: Vec::with_capacity(connections),
        poll: Poll::new()?,
        asked: Asked { counts, measured: 0, times: times(), slices: Vec::new(), first_trouble: None },
        busy: 0,
        start: now,
        measured_since: None,
        last_answer: now,
    };
    asking.run(connections)?;
    Ok(asking.asked)
}

impl<S: FnMut(usize, usize) -> Vec<Step>> Asking<'_, S> {
    fn run(&mut self, connections: usize) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let all_begun = self.begin_those_due(connections)?;
            if self.measured_since.is_none() && self.phase.is_measured() {
                self.measured_since = Some(Instant::now());
            }
            if all_begun && self.busy == 0 {
                return Ok(());
            }
            if self.last_answer.elapsed() > PATIENCE {
                self.asked.counts.lost += self.busy as u64;
                self.trouble("no answer came");
                return Ok(());
            }
            match self.poll.poll(&mut events, Some(TURN)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let Token(index) = event.token();
                self.serve(index)?;
            }
        }
    }

    fn begin_those_due(&mut self, connections: usize) -> io::Result<bool> {
        while self.askers.len() < connections {
            let index = self.askers.len();
            let due = match self.course {
                Course::Ramp(over) => self.start + over.mul_f64(index as f64 / connections as f64),
                Course::Repeat | Course::Reconnect => Instant::now(),
            };
            if due > Instant::now() {
                return Ok(false);
            }
            let script = (self.script)(index, 0);
            self.askers.push(Asker {
                stream: None,
                is_connected: false,
                script,
                step: 0,
                written: 0,
                answer: Vec::new(),
                since: due,
                turn: 0,
            });
            self.busy += 1;
            self.connect(index)?;
        }
        Ok(true)
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        if self.askers[index].script.is_empty() {
            self.finish(index);
            return Ok(());
        }
        let mut stream = begin_to_connect(self.addresses[index % self.addresses.len()], index)?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let asker = &mut self.askers[index];
        (asker.stream, asker.is_connected) = (Some(stream), false);
        Ok(())
    }

    /// Goes on as far as the socket lets it.
    fn serve(&mut self, index: usize) -> io::Result<()> {
        loop {
            let asker = &mut self.askers[index];
            let Some(stream) = &mut asker.stream else { return Ok(()) };
            let Some(step) = asker.script.get(asker.step) else {
                // It stays, and nothing may come.
                if let Ok(0..) = stream.peek(&mut [0]) {
                    self.asked.counts.closed += 1;
                    self.askers[index].stream = None;
                    self.trouble("a connection that should stay was closed, or got more than was asked for");
                }
                return Ok(());
            };
            if !asker.is_connected {
                match stream.take_error()? {
                    Some(error) => return self.fail(index, &error),
                    None if stream.peer_addr().is_err() => return Ok(()),
                    None => asker.is_connected = true,
                }
            }
            if asker.written < step.request.len() {
                match stream.write(&step.request[asker.written..]) {
                    Ok(len) => {
                        asker.written += len;
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return self.fail(index, &error),
                }
            }
            let mut piece = [0; 512];
            match stream.read(&mut piece) {
                Ok(0) => return self.fail(index, &io::Error::other("the server closed it")),
                Ok(len) => asker.answer.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return self.fail(index, &error),
            }
            if asker.answer.len() < step.answer.len() && step.answer.starts_with(&asker.answer) {
                continue;
            }
            self.answered(index)?;
        }
    }

    fn answered(&mut self, index: usize) -> io::Result<()> {
        let now = Instant::now();
        self.last_answer = now;
        let asker = &mut self.askers[index];
        let step = &asker.script[asker.step];
        if asker.answer != step.answer {
            let text = format!("answered with {}", asker.answer.escape_ascii());
            return self.fail(index, &io::Error::other(text));
        }
        self.asked.counts.sent += 1;
        self.asked.counts.delivered += 1;
        if let (true, Some(since), true) = (step.is_counted, self.measured_since, self.phase.is_measured()) {
            self.asked.measured += 1;
            let nanoseconds = now.saturating_duration_since(asker.since).as_nanos() as u64;
            self.asked.times.saturating_record(nanoseconds.max(1));
            let slice = (now.saturating_duration_since(since).as_nanos() / SLICE.as_nanos()) as usize;
            if self.asked.slices.len() <= slice {
                self.asked.slices.resize(slice + 1, 0);
            }
            self.asked.slices[slice] += 1;
        }
        asker.answer.clear();
        asker.written = 0;
        asker.step += 1;
        if !matches!(self.course, Course::Ramp(_)) {
            asker.since = now;
        }
        if asker.step < asker.script.len() {
            return Ok(());
        }
        if matches!(self.course, Course::Ramp(_)) || self.phase.is_last() {
            self.finish(index);
            return Ok(());
        }
        asker.turn += 1;
        asker.script = (self.script)(index, asker.turn);
        asker.step = 0;
        if self.course == Course::Reconnect || asker.script.is_empty() {
            asker.stream = None;
            self.connect(index)?;
        }
        Ok(())
    }

    /// It has nothing more to ask.
    fn finish(&mut self, index: usize) {
        self.askers[index].script.clear();
        self.busy -= 1;
    }

    fn fail(&mut self, index: usize, error: &io::Error) -> io::Result<()> {
        self.askers[index].stream = None;
        self.asked.counts.sent += 1;
        self.asked.counts.lost += 1;
        self.trouble(&error.to_string());
        self.finish(index);
        Ok(())
    }

    fn trouble(&mut self, text: &str) {
        self.asked.first_trouble.get_or_insert_with(|| text.to_owned());
    }
}
