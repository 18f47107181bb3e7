//! One thread that drives many connections, for the logins and for the ramp. Each connection sends
//! requests and waits for the answers, which are compared to the last byte.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::carrier::{Address, Stream};
use crate::interrupt;
use crate::phase::{Phase, Watch};
use crate::player::QUIET;
use crate::progress::Progress;
use crate::tally::{Findings, record};
use crate::tls::unless_full;
use crate::wire::{self, Framing};

/// The reply to a login or a logout that succeeded.
pub(crate) const OK: &str = r#"{"errno":200,"msgType":200}"#;
/// The reply to a chat message from a user who does not exist.
pub(crate) const NO_SUCH: &str =
    r#"{"errmsg":"No such method, failed to process your request!","errno":404,"msgType":404}"#;

/// A request and the answer it must get.
#[derive(Debug)]
pub(crate) struct Step {
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Index of the histogram for its time; `None` if it is not measured.
    kind: Option<usize>,
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
        Step { request: frame(request), answer: frame(answer), kind: None }
    }

    /// Counts this step in the rate, and records its time in the histogram of this kind.
    pub(crate) fn counted(self, kind: usize) -> Step {
        Step { kind: Some(kind), ..self }
    }
}

/// How the connections go through their scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Course {
    /// Runs one script after another until the last phase, or until there are no more scripts.
    Repeat,
    /// Like `Repeat`, with a new connection for each script.
    Reconnect,
    /// The connections start evenly spread over this time, run one script each, and stay open until
    /// all scripts have run. The time of the first answer counts from when the connection was due
    /// to start.
    Ramp(Duration),
}

/// The longest wait for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest time until a change of the phase is noticed.
const TURN: Duration = Duration::from_millis(1);

/// Begins a connection. On one machine, connections come from many addresses of the loopback
/// network: a new address for each thousand, and different ones in each run. The kernel's search
/// for a free port would otherwise take milliseconds: it does so once more than half of the ports
/// of an address are in use or were in use a minute ago.
fn begin_to_connect(address: Address) -> io::Result<Stream> {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let socket = Socket::new(Domain::for_address(address.socket), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.socket.ip() == Ipv4Addr::LOCALHOST {
        let from = source(BEGUN.fetch_add(1, Ordering::Relaxed), std::process::id());
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    match socket.connect(&address.socket.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        Ok(()) | Err(_) => Stream::new(socket.into(), address),
    }
}

/// The source address of the connection with this number.
fn source(number: usize, run: u32) -> Ipv4Addr {
    let nth = number / CONNECTIONS_PER_ADDRESS;
    Ipv4Addr::new(127, (run % 254) as u8 + 1, (nth / 250) as u8, (nth % 250) as u8 + 1)
}

const CONNECTIONS_PER_ADDRESS: usize = 1_000;

struct Asker {
    /// `None` before the connection is due and after it has ended.
    stream: Option<Stream>,
    is_connected: bool,
    script: Vec<Step>,
    step: usize,
    written: usize,
    answer: Vec<u8>,
    since: Instant,
    turn: usize,
}

struct Asking<'a, S> {
    inquiry: Inquiry<'a>,
    phase: &'a Phase,
    progress: &'a Progress,
    script: S,
    askers: Vec<Asker>,
    poll: Poll,
    watch: Watch,
    findings: Findings,
    /// Connections that have not finished their scripts.
    busy: usize,
    start: Instant,
    last_answer: Instant,
    /// The time of the last answer, or of the first request after nothing was awaited.
    waiting_since: Instant,
}

/// The settings of the client that sends requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inquiry<'a> {
    /// The connections are spread over these addresses.
    pub(crate) addresses: &'a [Address],
    pub(crate) connections: usize,
    pub(crate) course: Course,
    /// The number of histograms for the counted answers.
    pub(crate) kinds: usize,
    /// If no connection gets an answer for this long, those that wait are given up.
    pub(crate) patience: Duration,
}

/// Runs the scripts, and returns the findings and the time of the last answer. `script` returns the
/// requests of connection `n` in its round `k`.
pub(crate) fn ask<S: FnMut(usize, usize) -> Vec<Step>>(
    inquiry: Inquiry<'_>,
    phase: &Phase,
    progress: &Progress,
    script: S,
) -> io::Result<(Findings, Instant)> {
    let now = Instant::now();
    let mut asking = Asking {
        inquiry,
        phase,
        progress,
        script,
        askers: Vec::with_capacity(inquiry.connections),
        poll: Poll::new()?,
        watch: Watch::default(),
        findings: Findings::new(inquiry.kinds),
        busy: 0,
        start: now,
        last_answer: now,
        waiting_since: now,
    };
    asking.run()?;
    Ok((asking.findings, asking.last_answer))
}

impl<S: FnMut(usize, usize) -> Vec<Step>> Asking<'_, S> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let all_begun = self.begin_those_due();
            let (phase, done) = (self.phase, self.findings.counts.delivered);
            self.watch.look(phase, || done);
            let is_over = all_begun && self.busy == 0 && self.last_answer.elapsed() > QUIET;
            if is_over || interrupt::is_requested() || self.is_given_up() {
                self.findings.busy = self.watch.busy_until_now();
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

    /// Whether an answer has taken too long. If so, the run waits for no more answers and starts no
    /// more connections.
    fn is_given_up(&mut self) -> bool {
        if self.busy == 0 || self.waiting_since.elapsed() <= self.inquiry.patience {
            return false;
        }
        let never_begun = self.inquiry.connections - self.askers.len();
        self.findings.counts.sent += self.busy as u64;
        self.findings.counts.lost += (self.busy + never_begun) as u64;
        self.findings.trouble(|| "no answer came".to_owned());
        true
    }

    fn begin_those_due(&mut self) -> bool {
        while self.askers.len() < self.inquiry.connections {
            let index = self.askers.len();
            let due = match self.inquiry.course {
                Course::Ramp(over) => self.start + over.mul_f64(index as f64 / self.inquiry.connections as f64),
                Course::Repeat | Course::Reconnect => Instant::now(),
            };
            if due > Instant::now() {
                return false;
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
            if self.busy == 0 {
                self.waiting_since = Instant::now();
            }
            self.busy += 1;
            self.connect(index);
        }
        true
    }

    fn connect(&mut self, index: usize) {
        if self.askers[index].script.is_empty() {
            self.finish(index);
            return;
        }
        let begun = begin_to_connect(self.inquiry.addresses[index % self.inquiry.addresses.len()]).and_then(|stream| {
            stream.register(&self.poll, Token(index))?;
            Ok(stream)
        });
        match begun {
            Ok(stream) => {
                let asker = &mut self.askers[index];
                (asker.stream, asker.is_connected) = (Some(stream), false);
            }
            Err(error) => self.fail(index, &wire::explain(error)),
        }
    }

    /// Sends and receives until the socket would block.
    fn serve(&mut self, index: usize) -> io::Result<()> {
        loop {
            let asker = &mut self.askers[index];
            let Some(stream) = &mut asker.stream else { return Ok(()) };
            let Some(step) = asker.script.get(asker.step) else {
                self.check_silence(index);
                return Ok(());
            };
            if !asker.is_connected {
                match stream.socket().take_error()? {
                    Some(error) => {
                        self.fail(index, &wire::explain(error));
                        return Ok(());
                    }
                    None if stream.socket().peer_addr().is_err() => return Ok(()),
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
                    Err(error) => {
                        self.fail(index, &error);
                        return Ok(());
                    }
                }
            }
            if let Err(error) = stream.flush().or_else(unless_full) {
                self.fail(index, &error);
                return Ok(());
            }
            let mut piece = [0; 512];
            match stream.read(&mut piece) {
                Ok(len @ 1..) => asker.answer.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                closed => {
                    let error = closed.map_or_else(|error| error, |_| io::Error::other("the server closed it"));
                    self.fail(index, &error);
                    return Ok(());
                }
            }
            if asker.answer.len() < step.answer.len() && step.answer.starts_with(&asker.answer) {
                continue;
            }
            self.answered(index);
        }
    }

    /// Checks that a connection that stays open has received nothing.
    fn check_silence(&mut self, index: usize) {
        let asker = &mut self.askers[index];
        let Some(stream) = &mut asker.stream else { return };
        let why = match stream.look() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(1..) => {
                self.findings.counts.foreign += 1;
                "more came than was asked for"
            }
            Ok(0) | Err(_) => {
                self.findings.counts.closed += 1;
                "a connection that should stay was closed"
            }
        };
        asker.stream = None;
        self.last_answer = Instant::now();
        self.findings.trouble(|| why.to_owned());
    }

    fn answered(&mut self, index: usize) {
        let now = Instant::now();
        (self.last_answer, self.waiting_since) = (now, now);
        let asker = &mut self.askers[index];
        let step = &asker.script[asker.step];
        if asker.answer != step.answer {
            let text = format!("answered with {}{}", asker.answer.escape_ascii(), wire::hint(&asker.answer));
            self.fail(index, &io::Error::other(text));
            return;
        }
        self.findings.counts.sent += 1;
        self.findings.counts.delivered += 1;
        if let Some(kind) = step.kind {
            if let Some(at) = self.phase.measured_at(now) {
                self.findings.measured += 1;
                self.findings.slices.note(at, 1);
            }
            if self.phase.is_measured(asker.since) {
                record(&mut self.findings.times[kind], now.saturating_duration_since(asker.since));
            }
        }
        asker.answer.clear();
        asker.written = 0;
        asker.step += 1;
        asker.since = now;
        if asker.step < asker.script.len() {
            return;
        }
        if matches!(self.inquiry.course, Course::Ramp(_)) || self.phase.is_last() {
            self.finish(index);
            return;
        }
        asker.turn += 1;
        asker.script = (self.script)(index, asker.turn);
        asker.step = 0;
        if asker.script.is_empty() {
            self.finish(index);
        } else if self.inquiry.course == Course::Reconnect {
            asker.stream = None;
            self.connect(index);
        }
    }

    /// Ends the scripts of a connection.
    fn finish(&mut self, index: usize) {
        self.askers[index].script.clear();
        self.busy -= 1;
        self.progress.step();
    }

    fn fail(&mut self, index: usize, error: &io::Error) {
        self.askers[index].stream = None;
        self.findings.counts.sent += 1;
        self.findings.counts.lost += 1;
        self.findings.trouble(|| error.to_string());
        self.finish(index);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A ramp of this many connections to a server that answers or stays silent.
    fn ramp(connections: usize, over: Duration, patience: Duration, answers: bool) -> Findings {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let mut held = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                if answers {
                    stream.read_exact(&mut [0; 4]).expect("a question");
                    stream.write_all(b"yes\n").expect("it listens");
                }
                held.push(stream);
            }
        });
        let inquiry =
            Inquiry { addresses: &[address.into()], connections, course: Course::Ramp(over), kinds: 1, patience };
        let (phase, progress) = (Phase::default(), Progress::new(true));
        phase.begin_measured();
        let script = |_, _| vec![Step::new("ask", "yes", Framing::Lines).counted(0)];
        ask(inquiry, &phase, &progress, script).expect("it runs").0
    }

    #[test]
    fn requests_that_never_began_are_lost_with_those_that_wait_in_vain() {
        let findings = ramp(10, Duration::from_secs(3_600), Duration::from_millis(100), false);
        assert_eq!((findings.counts.sent, findings.counts.lost), (1, 10));
        assert!(findings.first_trouble.is_some());
    }

    #[test]
    fn no_connection_is_given_up_while_none_waits() {
        let findings = ramp(2, Duration::from_secs(5), Duration::from_secs(2), true);
        assert!(findings.counts.is_complete(), "{:?}", findings.first_trouble);
        assert_eq!((findings.counts.delivered, findings.measured, findings.times[0].len()), (2, 2, 2));
    }

    #[test]
    fn an_address_is_left_after_a_thousand_connections() {
        assert_eq!(source(0, 300), source(999, 300));
        let sources: Vec<_> =
            (0..1_000_000).step_by(CONNECTIONS_PER_ADDRESS).map(|number| source(number, 300)).collect();
        let mut unique = sources.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), sources.len());
    }
}
