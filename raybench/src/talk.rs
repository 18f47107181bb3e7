//! The measured part of pairs and groups: one thread that sends, receives, and checks every byte.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::carrier::Stream;
use crate::phase::{Phase, Watch};
use crate::rooms::Room;
use crate::tally::{Arrival, Findings, Received, record};
use crate::wire::{Framing, Template};

/// When a message is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// A closed loop: each sender has this many messages on their way.
    Window(usize),
    /// An open loop: the senders of this thread together send this many messages per second,
    /// independent of the deliveries. Times count from when a message was due, so a delay of the
    /// server shows in all messages that it delays.
    Rate(f64),
}

/// How long a run waits for surplus messages after the last expected one: it ends when nothing has
/// arrived for this time.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// The longest frame: more than a server takes by default.
pub(crate) const FRAME_MAX: usize = 128 * 1024;
/// The most messages that an open loop sends before it reads and checks whether the run is over.
pub(crate) const SENDS_IN_A_TURN: usize = 256;
/// The longest time until a change of the phase is noticed.
pub(crate) const TURN: Duration = Duration::from_millis(20);
pub(crate) const TIMER: Token = Token(usize::MAX);

struct Seat {
    stream: Stream,
    /// The beginning of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// Bytes to write; the first `written` of them have been written.
    out: Vec<u8>,
    written: usize,
    /// The user who sends on this connection, if any.
    sender: Option<usize>,
    first_sender: usize,
    /// The messages received from each sender of the room.
    received: Vec<Received>,
    is_closed: bool,
}

struct Sender {
    /// The connection on which only this sender sends.
    seat: usize,
    template: Template,
    next: u64,
    /// The number of bytes handed to the socket.
    handed: u64,
    receivers: usize,
    /// The messages in flight: when each was due, and how many receivers lack it. The first has
    /// number `oldest`.
    open: VecDeque<(Instant, usize)>,
    oldest: u64,
    /// The number of messages that have not reached every receiver.
    on_their_way: usize,
}

struct Talker<'a> {
    seats: Vec<Seat>,
    senders: Vec<Sender>,
    pace: Pace,
    patience: Duration,
    last_byte: u8,
    phase: &'a Phase,
    watch: Watch,
    findings: Findings,
    buffer: Vec<u8>,
    /// The time of the last arrival.
    last_arrival: Instant,
    /// The time of the last arrival of a missing message.
    last_progress: Instant,
}

/// Runs these rooms until the last phase begins, and then until everything has arrived or nothing
/// has arrived for `patience`.
pub(crate) fn talk(
    rooms: Vec<Room>,
    pace: Pace,
    patience: Duration,
    framing: Framing,
    phase: &Phase,
) -> io::Result<Findings> {
    let mut poll = Poll::new()?;
    let mut talker = Talker {
        seats: Vec::new(),
        senders: Vec::new(),
        pace,
        patience,
        last_byte: framing.last_byte(),
        phase,
        watch: Watch::default(),
        findings: Findings::new(1),
        buffer: vec![0; 2 * FRAME_MAX],
        last_arrival: Instant::now(),
        last_progress: Instant::now(),
    };
    for room in rooms {
        talker.enter(room, &poll)?;
    }
    match pace {
        Pace::Window(_) => talker.with_window(&mut poll)?,
        Pace::Rate(per_second) => talker.at_rate(&mut poll, per_second)?,
    }
    Ok(talker.finish())
}

impl Talker<'_> {
    fn enter(&mut self, room: Room, poll: &Poll) -> io::Result<()> {
        let first_seat = self.seats.len();
        let first_sender = self.senders.len();
        let receivers = room.members.len() - 1;
        for (n, template) in room.templates.into_iter().enumerate() {
            let (seat, open) = (first_seat + n, VecDeque::new());
            self.senders.push(Sender {
                seat,
                template,
                next: 0,
                handed: 0,
                receivers,
                open,
                oldest: 0,
                on_their_way: 0,
            });
        }
        let senders = self.senders.len() - first_sender;
        for (n, stream) in room.members.into_iter().enumerate() {
            stream.socket().set_nonblocking(true)?;
            stream.register(poll, Token(self.seats.len()))?;
            self.seats.push(Seat {
                stream,
                partial: Vec::new(),
                out: Vec::new(),
                written: 0,
                sender: (n < senders).then_some(first_sender + n),
                first_sender,
                received: vec![Received::default(); senders],
                is_closed: false,
            });
        }
        Ok(())
    }

    fn with_window(&mut self, poll: &mut Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        for sender in 0..self.senders.len() {
            self.refill(sender);
        }
        while !self.is_over() {
            poll.poll(&mut events, Some(TURN)).or_else(unless_interrupted)?;
            self.serve(&events);
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
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        self.watch.look(self.phase, || self.senders.iter().map(Sender::sent).sum());
        let Some(last) = self.phase.last_since() else { return false };
        let all_came = self.senders.iter().all(|sender| sender.on_their_way == 0);
        // Only arrivals of missing messages count as progress. A server that never stops sending
        // would otherwise keep the run going for ever.
        let is_given_up = self.last_progress.max(last).elapsed() > self.patience;
        let is_quiet = self.last_arrival.max(last).elapsed() > QUIET;
        is_given_up || (all_came && is_quiet) || self.seats.iter().all(|seat| seat.is_closed)
    }

    /// Counts the missing messages and the leftover bytes.
    fn finish(mut self) -> Findings {
        for seat in &self.seats {
            for (received, sender) in seat.received.iter().zip(&self.senders[seat.first_sender..]) {
                if !std::ptr::eq(seat, &self.seats[sender.seat]) {
                    self.findings.counts.lost += received.lost(sender.sent());
                }
            }
            if !seat.partial.is_empty() {
                self.findings.counts.foreign += 1;
                self.findings.trouble(|| format!("a frame without an end: {}", seat.partial.escape_ascii()));
            }
            seat.stream.shutdown();
        }
        if self.findings.counts.lost > 0 {
            let seconds = self.patience.as_secs_f64();
            self.findings.trouble(|| format!("nothing more came within {seconds} s (--patience)"));
        }
        self.findings.counts.sent = self.senders.iter().map(Sender::sent).sum();
        self.findings.busy = self.watch.busy();
        self.findings.sent_rate = self.watch.rate();
        self.findings
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

    /// Reads what is available; with `to_its_end` until the end of the stream, because no other
    /// event follows if the peer has closed.
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
            if rest.len() >= FRAME_MAX {
                self.close(seat, "a frame has no end");
                break;
            }
            // A read that does not fill the buffer has emptied the socket.
            if kept + len < buffer.len() && !to_its_end && self.seats[seat].stream.is_plain() {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn close(&mut self, seat: usize, why: &str) {
        // A write during the read may have closed the connection already.
        if std::mem::replace(&mut self.seats[seat].is_closed, true) {
            return;
        }
        self.findings.counts.closed += 1;
        self.findings.trouble(|| why.to_owned());
    }

    /// Checks all complete frames, and returns their length in bytes.
    fn take_all(&mut self, seat: usize, received: &[u8]) -> usize {
        let now = Instant::now();
        self.last_arrival = now;
        // A sender may occur several times here; each time it writes everything that it may send.
        let mut may_send = Vec::new();
        let (mut from, mut arrived) = (0, 0);
        for at in memchr::memchr_iter(self.last_byte, received) {
            let frame = &received[from..=at];
            from = at + 1;
            match self.take(seat, frame, now) {
                Some((_, Arrival::Twice)) => {}
                Some((sender, Arrival::InOrder | Arrival::Late)) => {
                    arrived += 1;
                    if may_send.last() != Some(&sender) {
                        may_send.push(sender);
                    }
                }
                None => {
                    self.findings.counts.foreign += 1;
                    self.findings.trouble(|| format!("nobody sent this: {}", frame.escape_ascii()));
                }
            }
        }
        if arrived > 0 {
            self.last_progress = now;
        }
        if let Some(at) = self.phase.measured_at(now) {
            self.findings.measured += arrived;
            self.findings.slices.note(at, arrived);
        }
        if !self.phase.is_last() {
            for sender in may_send {
                self.refill(sender);
            }
        }
        from
    }

    /// Returns the sender of a message that has arrived at this receiver; `None` if the frame is
    /// not such a message.
    fn take(&mut self, seat: usize, frame: &[u8], now: Instant) -> Option<(usize, Arrival)> {
        let Seat { first_sender, received, .. } = &mut self.seats[seat];
        let of_room = if received.len() == 1 { 0 } else { Template::sender_of(frame)? };
        let received = received.get_mut(of_room)?;
        let index = *first_sender + of_room;
        let sender = &mut self.senders[index];
        let number = sender.template.number_of(frame).filter(|number| *number < sender.next)?;
        if sender.seat == seat {
            return None;
        }
        let arrival = received.note(number);
        self.findings.counts.note(arrival);
        if arrival == Arrival::Twice {
            return Some((index, arrival));
        }
        let (due, left) = &mut sender.open[(number - sender.oldest) as usize];
        // Messages that arrive after the measured time have the longest delays, so they count too.
        if self.phase.is_measured(*due) {
            record(&mut self.findings.times[0], now.saturating_duration_since(*due));
        }
        *left -= 1;
        if *left == 0 {
            sender.on_their_way -= 1;
            while sender.open.front().is_some_and(|(_, left)| *left == 0) {
                sender.open.pop_front();
                sender.oldest += 1;
            }
        }
        Some((index, arrival))
    }

    /// Sends as many messages as the window allows.
    fn refill(&mut self, sender: usize) {
        let Pace::Window(window) = self.pace else { return };
        let now = Instant::now();
        let seat = self.senders[sender].seat;
        while self.senders[sender].on_their_way < window && !self.seats[seat].is_closed {
            self.send(sender, now);
        }
        self.flush(seat);
    }

    fn send(&mut self, sender: usize, due: Instant) {
        let Sender { seat, template, next, receivers, open, on_their_way, .. } = &mut self.senders[sender];
        let seat = &mut self.seats[*seat];
        if seat.is_closed {
            return;
        }
        template.write(*next, &mut seat.out);
        *next += 1;
        *on_their_way += 1;
        open.push_back((due, *receivers));
    }

    fn flush(&mut self, seat: usize) {
        let Seat { stream, out, written, is_closed, sender, .. } = &mut self.seats[seat];
        let Some(sender) = sender.filter(|_| !*is_closed).map(|sender| &mut self.senders[sender]) else { return };
        loop {
            let is_all = *written == out.len();
            // Bytes that the stream holds back leave when the socket has room.
            let step = if is_all { stream.flush().map(|()| 0) } else { stream.write(&out[*written..]) };
            match step {
                Ok(_) if is_all => break,
                Ok(len) => {
                    *written += len;
                    sender.handed += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The written part of a backlog is dropped once it is more than half, so bytes
                    // are moved at most as often as they were written.
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

impl Sender {
    /// The number of messages whose bytes were all handed to the socket.
    fn sent(&self) -> u64 {
        self.handed / self.template.len() as u64
    }
}

pub(crate) fn unless_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Sets the timer to expire after this time; `poll` itself has a resolution of milliseconds.
pub(crate) fn arm(timer: &OwnedFd, after: Duration) -> io::Result<()> {
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Zero would disarm the timer.
    let after = after.max(Duration::from_nanos(1));
    let value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) };
    let spec = Itimerspec { it_interval: never, it_value: value };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &spec)?;
    Ok(())
}
