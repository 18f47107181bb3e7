//! One thread that sends and receives at level 2, and checks every byte.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::AsRawFd;
use rustix::time::{TimerfdClockId, TimerfdFlags};

use super::books::{Books, Verdict};
use super::frames::PONG;
use crate::phase::{Phase, Watch};
use crate::talk::{Pace, QUIET, SENDS_IN_A_TURN, TIMER, TURN, arm, unless_interrupted};
use crate::tally::{Arrival, Findings, record};

/// The time until which a message is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    Acknowledged,
    /// Until it is acknowledged and every receiver has it.
    Everywhere,
}

/// The kinds of measured times.
pub(crate) const ACKNOWLEDGEMENT: usize = 0;
pub(crate) const DELIVERY: usize = 1;

/// The connections of one thread, and the conversations in which they send.
pub(crate) struct Crew {
    pub(crate) seats: Vec<Place>,
    pub(crate) books: Books,
    /// The lines of each sender, which sends to them in turn. Together these are all lines, in
    /// order.
    pub(crate) senders: Vec<Turns>,
}

/// A connection, and its place in each of its conversations.
pub(crate) struct Place {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) member: usize,
}

/// The conversations of one sender.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) seat: usize,
    pub(crate) lines: std::ops::Range<usize>,
    /// The line whose turn it is.
    pub(crate) next: usize,
}

/// Orders for a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) pace: Pace,
    pub(crate) until: Until,
    pub(crate) patience: Duration,
}

/// The findings of a thread.
#[derive(Debug)]
pub(crate) struct Found {
    /// `measured` and `slices` count deliveries.
    pub(crate) findings: Findings,
    /// Acknowledgements within the measured time.
    pub(crate) acknowledged: u64,
    pub(crate) resent: u64,
}

struct Seat {
    stream: TcpStream,
    member: usize,
    /// The beginning of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// Bytes to write; the first `written` of them have been written.
    out: Vec<u8>,
    written: usize,
    is_closed: bool,
}

struct Driver<'a> {
    seats: Vec<Seat>,
    senders: Vec<Turns>,
    /// The sender of each line.
    owners: Vec<usize>,
    books: Books,
    orders: Orders,
    phase: &'a Phase,
    watch: Watch,
    found: Found,
    buffer: Vec<u8>,
    last_arrival: Instant,
    last_progress: Instant,
}

/// Runs until the last phase begins, and then until everything has arrived or nothing has arrived
/// for too long.
pub(crate) fn drive(crew: Crew, orders: Orders, phase: &Phase) -> io::Result<Found> {
    let mut poll = Poll::new()?;
    let Crew { seats, books, senders } = crew;
    let owners = senders.iter().enumerate().flat_map(|(n, sender)| sender.lines.clone().map(move |_| n)).collect();
    let mut driver = Driver {
        seats: Vec::with_capacity(seats.len()),
        owners,
        senders,
        books,
        orders,
        phase,
        watch: Watch::default(),
        found: Found { findings: Findings::new(2), acknowledged: 0, resent: 0 },
        buffer: vec![0; BUFFER],
        last_arrival: Instant::now(),
        last_progress: Instant::now(),
    };
    for place in seats {
        driver.enter(place, &poll)?;
    }
    match orders.pace {
        Pace::Window(window) => driver.with_window(&mut poll, window)?,
        Pace::Rate(per_second) => driver.at_rate(&mut poll, per_second)?,
    }
    Ok(driver.finish())
}

/// A frame of level 2 has at most 512 KiB.
const BUFFER: usize = 1024 * 1024;

impl Driver<'_> {
    fn enter(&mut self, place: Place, poll: &Poll) -> io::Result<()> {
        let Place { stream, member } = place;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let seat = self.seats.len();
        poll.registry().register(&mut stream, Token(seat), Interest::READABLE | Interest::WRITABLE)?;
        self.seats.push(Seat { stream, member, partial: Vec::new(), out: Vec::new(), written: 0, is_closed: false });
        Ok(())
    }

    fn with_window(&mut self, poll: &mut Poll, window: usize) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        for sender in 0..self.senders.len() {
            self.refill(sender, window);
        }
        while !self.is_over() {
            poll.poll(&mut events, Some(TURN)).or_else(unless_interrupted)?;
            self.serve(&events);
            self.resend();
        }
        Ok(())
    }

    fn at_rate(&mut self, poll: &mut Poll, per_second: f64) -> io::Result<()> {
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let mut events = Events::with_capacity(1024);
        let start = Instant::now();
        let due = |message: u64| start + Duration::from_secs_f64(message as f64 / per_second);
        let mut message = 0;
        while !self.is_over() {
            let mut timeout = TURN;
            if !self.phase.is_last() {
                for _ in 0..SENDS_IN_A_TURN {
                    if due(message) > Instant::now() {
                        break;
                    }
                    let sender = message as usize % self.senders.len();
                    self.send(sender, due(message));
                    self.flush(self.senders[sender].seat);
                    message += 1;
                }
                match due(message).checked_duration_since(Instant::now()) {
                    Some(after) => arm(&timer, after)?,
                    None => timeout = Duration::ZERO,
                }
            }
            poll.poll(&mut events, Some(timeout)).or_else(unless_interrupted)?;
            self.serve(&events);
            self.resend();
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        let books = &self.books;
        self.watch.look(self.phase, || books.sent());
        let Some(last) = self.phase.last_since() else { return false };
        let is_given_up = self.last_progress.max(last).elapsed() > self.orders.patience;
        let is_quiet = self.last_arrival.max(last).elapsed() > QUIET;
        is_given_up || (is_quiet && self.books.missing() == 0) || self.seats.iter().all(|seat| seat.is_closed)
    }

    fn finish(mut self) -> Found {
        let findings = &mut self.found.findings;
        for seat in &self.seats {
            if !seat.partial.is_empty() {
                findings.counts.foreign += 1;
                findings.trouble(|| format!("a frame without an end: {}", seat.partial.escape_ascii()));
            }
            let _ = seat.stream.shutdown(Shutdown::Both);
        }
        findings.counts.sent = self.books.sent();
        findings.counts.lost = self.books.missing();
        if findings.counts.lost > 0 {
            let seconds = self.orders.patience.as_secs_f64();
            findings.trouble(|| format!("nothing more came within {seconds} s (--patience)"));
        }
        findings.busy = self.watch.busy();
        findings.sent_rate = self.watch.rate();
        self.found.resent = self.books.resent;
        self.found
    }

    fn serve(&mut self, events: &Events) {
        for event in events {
            let Token(seat) = event.token();
            if event.token() == TIMER || self.seats[seat].is_closed {
                continue;
            }
            if event.is_writable() {
                self.flush(seat);
            }
            if event.is_readable() {
                self.read(seat, event.is_read_closed());
            }
        }
    }

    /// Reads what is available; with `to_its_end`, until the end of the stream.
    fn read(&mut self, seat: usize, to_its_end: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let Seat { stream, partial, .. } = &mut self.seats[seat];
            let kept = partial.len();
            buffer[..kept].copy_from_slice(partial);
            let len = match stream.read(&mut buffer[kept..]) {
                Ok(len @ 1..) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) => {
                    self.close(seat, "the server closed a connection");
                    break;
                }
                Err(error) => {
                    self.close(seat, &error.to_string());
                    break;
                }
            };
            partial.clear();
            let received = &buffer[..kept + len];
            let taken = self.take_all(seat, received);
            let rest = &received[taken..];
            self.seats[seat].partial.extend_from_slice(rest);
            if rest.len() > BUFFER / 2 {
                self.close(seat, "a frame has no end");
                break;
            }
            if kept + len < buffer.len() && !to_its_end {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn close(&mut self, seat: usize, why: &str) {
        if std::mem::replace(&mut self.seats[seat].is_closed, true) {
            return;
        }
        self.found.findings.counts.closed += 1;
        self.found.findings.trouble(|| why.to_owned());
    }

    /// Checks all complete frames, and returns their length in bytes.
    fn take_all(&mut self, seat: usize, received: &[u8]) -> usize {
        let now = Instant::now();
        self.last_arrival = now;
        let mut may_send: Vec<usize> = Vec::new();
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', received) {
            let frame = &received[from..=at];
            from = at + 1;
            if let Some(sender) = self.take(seat, frame, now)
                && may_send.last() != Some(&sender)
            {
                may_send.push(sender);
            }
        }
        if let Pace::Window(window) = self.orders.pace
            && !self.phase.is_last()
        {
            may_send.into_iter().for_each(|sender| self.refill(sender, window));
        }
        from
    }

    /// Returns the sender that may send again because of this frame.
    fn take(&mut self, seat: usize, frame: &[u8], now: Instant) -> Option<usize> {
        let verdict = self.books.on_frame(seat, self.seats[seat].member, frame, now);
        let measured_at = self.phase.measured_at(now);
        let findings = &mut self.found.findings;
        let (line, due, kind) = match verdict {
            Verdict::Acknowledged { line, due } => {
                self.found.acknowledged += u64::from(measured_at.is_some());
                (line, due, ACKNOWLEDGEMENT)
            }
            Verdict::Delivered { line, due } => {
                findings.counts.note(Arrival::InOrder);
                if let Some(at) = measured_at {
                    findings.measured += 1;
                    findings.slices.note(at, 1);
                }
                (line, due, DELIVERY)
            }
            Verdict::Postponed => return None,
            Verdict::Ping => {
                self.seats[seat].out.extend_from_slice(PONG);
                self.flush(seat);
                return None;
            }
            Verdict::Twice => {
                findings.counts.note(Arrival::Twice);
                findings.trouble(|| format!("it came before: {}", frame.escape_ascii()));
                return None;
            }
            Verdict::Hole => {
                findings.counts.note(Arrival::Late);
                findings.trouble(|| format!("others should have come before: {}", frame.escape_ascii()));
                return None;
            }
            Verdict::Foreign => {
                findings.counts.foreign += 1;
                findings.trouble(|| format!("this may not come: {}", frame.escape_ascii()));
                return None;
            }
        };
        self.last_progress = now;
        if self.phase.is_measured(due) {
            record(&mut findings.times[kind], now.saturating_duration_since(due));
        }
        (kind == ACKNOWLEDGEMENT || self.orders.until == Until::Everywhere).then(|| self.owners[line])
    }

    /// Sends as many messages as the window allows.
    fn refill(&mut self, sender: usize, window: usize) {
        let (now, seat) = (Instant::now(), self.senders[sender].seat);
        let mut on_their_way = self.on_their_way(sender);
        while on_their_way < window && !self.seats[seat].is_closed {
            self.send(sender, now);
            on_their_way += 1;
        }
        self.flush(seat);
    }

    fn on_their_way(&self, sender: usize) -> usize {
        let of_line = |line| match self.orders.until {
            Until::Acknowledged => self.books.unacknowledged(line),
            Until::Everywhere => self.books.on_their_way(line),
        };
        self.senders[sender].lines.clone().map(of_line).sum()
    }

    fn send(&mut self, sender: usize, due: Instant) {
        let Turns { seat, lines, next } = &mut self.senders[sender];
        let line = lines.start + *next % lines.len();
        *next += 1;
        let seat = &mut self.seats[*seat];
        if !seat.is_closed {
            self.books.send(line, due, now_ms(), &mut seat.out);
        }
    }

    /// Retries the failed sends whose pause is over.
    fn resend(&mut self) {
        for (line, seat) in self.books.take_rested(Instant::now()) {
            self.books.resend(line, now_ms(), &mut self.seats[seat].out);
            self.flush(seat);
        }
    }

    fn flush(&mut self, seat: usize) {
        let Seat { stream, out, written, is_closed, .. } = &mut self.seats[seat];
        while *written < out.len() && !*is_closed {
            match stream.write(&out[*written..]) {
                Ok(len) => *written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if *written > out.len() / 2 {
                        out.drain(..*written);
                        *written = 0;
                    }
                    return;
                }
                Err(error) => {
                    let text = error.to_string();
                    self.close(seat, &text);
                    return;
                }
            }
        }
        out.clear();
        *written = 0;
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
