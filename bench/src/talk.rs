//! The measured part of pairs and groups: one thread that sends, receives, and checks every byte.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::rooms::Room;
use crate::tally::{Arrival, Counts, Received, SLICE, Times, times};
use crate::wire::{Framing, Template};

/// When a message is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// A closed loop: each sender has so many on their way.
    Window(usize),
    /// An open loop: so many each second by the senders of this thread together, whatever comes back. Times are counted
    /// from when a message was due, so that a server that is late is seen to be late for all of them.
    Rate(f64),
}

/// How far the run is; the same for all threads. It begins with a part that is not measured.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    pub(crate) const MEASURED: u8 = 1;
    /// Nothing is sent any more.
    pub(crate) const LAST: u8 = 2;

    pub(crate) fn enter(&self, phase: u8) {
        self.0.store(phase, Ordering::Release);
    }

    fn now(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.now() == Phase::MEASURED
    }

    pub(crate) fn is_last(&self) -> bool {
        self.now() == Phase::LAST
    }
}

/// What one thread found.
#[derive(Debug)]
pub(crate) struct Talked {
    /// Of the whole run.
    pub(crate) counts: Counts,
    /// Deliveries of the measured time.
    pub(crate) measured: u64,
    pub(crate) times: Times,
    pub(crate) slices: Vec<u64>,
    pub(crate) first_trouble: Option<String>,
}

/// Nothing more is waited for when nothing has come for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a change of the phase may go unnoticed.
const TURN: Duration = Duration::from_millis(20);
const TIMER: Token = Token(usize::MAX);

struct Seat {
    stream: TcpStream,
    /// The beginning of a frame of which the rest has not come.
    partial: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    first_sender: usize,
    /// What came of each sender of the room.
    received: Vec<Received>,
    is_closed: bool,
}

struct Sender {
    seat: usize,
    template: Template,
    next: u64,
    receivers: usize,
    /// Those on their way: when they were due, and how many receivers have not got them. The first has number `oldest`.
    open: VecDeque<(Instant, usize)>,
    oldest: u64,
    /// How many of them have not reached everybody.
    on_their_way: usize,
}

struct Talk<'a> {
    seats: Vec<Seat>,
    senders: Vec<Sender>,
    pace: Pace,
    last_byte: u8,
    phase: &'a Phase,
    measured_since: Option<Instant>,
    talked: Talked,
    buffer: Vec<u8>,
    last_arrival: Instant,
}

/// Talks in these rooms until the phase is the last one and all has come, or nothing comes any more.
pub(crate) fn talk(rooms: Vec<Room>, pace: Pace, framing: Framing, phase: &Phase) -> io::Result<Talked> {
    let mut poll = Poll::new()?;
    let mut talk = Talk {
        seats: Vec::new(),
        senders: Vec::new(),
        pace,
        last_byte: framing.last_byte(),
        phase,
        measured_since: None,
        talked: Talked {
            counts: Counts::default(),
            measured: 0,
            times: times(),
            slices: Vec::new(),
            first_trouble: None,
        },
        buffer: vec![0; 256 * 1024],
        last_arrival: Instant::now(),
    };
    for room in rooms {
        talk.enter(room, &poll)?;
    }
    match pace {
        Pace::Window(_) => talk.with_window(&mut poll)?,
        Pace::Rate(per_second) => talk.at_rate(&mut poll, per_second)?,
    }
    for seat in &talk.seats {
        for (received, sender) in seat.received.iter().zip(&talk.senders[seat.first_sender..]) {
            if !std::ptr::eq(seat, &talk.seats[sender.seat]) {
                talk.talked.counts.lost += received.lost(sender.next);
            }
        }
        let _ = seat.stream.shutdown(Shutdown::Both);
    }
    Ok(talk.talked)
}

impl Talk<'_> {
    fn enter(&mut self, room: Room, poll: &Poll) -> io::Result<()> {
        let first_seat = self.seats.len();
        let first_sender = self.senders.len();
        let receivers = room.members.len() - 1;
        for (n, template) in room.templates.into_iter().enumerate() {
            let (seat, open) = (first_seat + n, VecDeque::new());
            self.senders.push(Sender { seat, template, next: 0, receivers, open, oldest: 0, on_their_way: 0 });
        }
        let senders = self.senders.len() - first_sender;
        for stream in room.members {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let token = Token(self.seats.len());
            poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.seats.push(Seat {
                stream,
                partial: Vec::new(),
                out: Vec::new(),
                written: 0,
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
            let is_sending = !self.phase.is_last();
            while is_sending && due(message) <= Instant::now() {
                let sender = message as usize % self.senders.len();
                self.send(sender, due(message));
                self.flush(self.senders[sender].seat);
                message += 1;
            }
            if is_sending {
                arm(&timer, due(message).saturating_duration_since(Instant::now()))?;
            }
            poll.poll(&mut events, Some(TURN)).or_else(unless_interrupted)?;
            self.serve(&events);
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        if self.phase.is_measured() && self.measured_since.is_none() {
            self.measured_since = Some(Instant::now());
        }
        self.phase.is_last()
            && (self.senders.iter().all(|sender| sender.on_their_way == 0) || self.last_arrival.elapsed() > PATIENCE)
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
                self.read(seat);
            }
        }
    }

    fn read(&mut self, seat: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let Seat { stream, partial, .. } = &mut self.seats[seat];
            let kept = partial.len();
            buffer[..kept].copy_from_slice(partial);
            partial.clear();
            let len = match stream.read(&mut buffer[kept..]) {
                Ok(len @ 1..) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    partial.extend_from_slice(&buffer[..kept]);
                    break;
                }
                Ok(0) => {
                    self.close(seat, "the server closed a connection");
                    break;
                }
                Err(error) => {
                    self.close(seat, &error.to_string());
                    break;
                }
            };
            let received = &buffer[..kept + len];
            let taken = self.take_all(seat, received);
            let rest = &received[taken..];
            self.seats[seat].partial.extend_from_slice(rest);
            if rest.len() > buffer.len() / 2 {
                self.close(seat, "a frame has no end");
                break;
            }
            // A read that does not fill the buffer has emptied the socket.
            if kept + len < buffer.len() {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn close(&mut self, seat: usize, why: &str) {
        self.seats[seat].is_closed = true;
        self.talked.counts.closed += 1;
        self.talked.first_trouble.get_or_insert_with(|| why.to_owned());
    }

    /// Checks all whole frames; how many bytes they are.
    fn take_all(&mut self, seat: usize, received: &[u8]) -> usize {
        let now = Instant::now();
        self.last_arrival = now;
        // Replies may be asked for again by the same sender, which writes all that it may send at once.
        let mut may_send = Vec::new();
        let (mut from, mut arrived) = (0, 0);
        for at in memchr::memchr_iter(self.last_byte, received) {
            let frame = &received[from..=at];
            from = at + 1;
            match self.take(seat, frame, now) {
                Some(sender) => {
                    arrived += 1;
                    if may_send.last() != Some(&sender) {
                        may_send.push(sender);
                    }
                }
                None => {
                    self.talked.counts.foreign += 1;
                    let text = || format!("nobody sent this: {}", frame.escape_ascii());
                    self.talked.first_trouble.get_or_insert_with(text);
                }
            }
        }
        if self.phase.is_measured()
            && let Some(since) = self.measured_since
        {
            self.talked.measured += arrived;
            let slice = (now.saturating_duration_since(since).as_nanos() / SLICE.as_nanos()) as usize;
            if self.talked.slices.len() <= slice {
                self.talked.slices.resize(slice + 1, 0);
            }
            self.talked.slices[slice] += arrived;
        }
        if !self.phase.is_last() {
            for sender in may_send {
                self.refill(sender);
            }
        }
        from
    }

    /// The sender of a message that is now with its receiver; `None` if it is none.
    fn take(&mut self, seat: usize, frame: &[u8], now: Instant) -> Option<usize> {
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
        self.talked.counts.note(arrival);
        if arrival == Arrival::Twice {
            return Some(index);
        }
        let (due, left) = &mut sender.open[(number - sender.oldest) as usize];
        if self.measured_since.is_some() && self.phase.is_measured() {
            let nanoseconds = now.saturating_duration_since(*due).as_nanos() as u64;
            self.talked.times.saturating_record(nanoseconds.max(1));
        }
        *left -= 1;
        if *left == 0 {
            sender.on_their_way -= 1;
            while sender.open.front().is_some_and(|(_, left)| *left == 0) {
                sender.open.pop_front();
                sender.oldest += 1;
            }
        }
        Some(index)
    }

    /// Sends what the window has room for.
    fn refill(&mut self, sender: usize) {
        let Pace::Window(window) = self.pace else { return };
        let now = Instant::now();
        let seat = self.senders[sender].seat;
        while self.senders[sender].on_their_way < window {
            self.send(sender, now);
        }
        self.flush(seat);
    }

    fn send(&mut self, sender: usize, due: Instant) {
        let Sender { seat, template, next, receivers, open, on_their_way, .. } = &mut self.senders[sender];
        template.write(*next, &mut self.seats[*seat].out);
        *next += 1;
        *on_their_way += 1;
        open.push_back((due, *receivers));
        self.talked.counts.sent += 1;
    }

    fn flush(&mut self, seat: usize) {
        let Seat { stream, out, written, is_closed, .. } = &mut self.seats[seat];
        while *written < out.len() && !*is_closed {
            match stream.write(&out[*written..]) {
                Ok(len) => *written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
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

fn unless_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Lets the timer end after a time; `poll` by itself knows milliseconds only.
fn arm(timer: &OwnedFd, after: Duration) -> io::Result<()> {
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Zero would disarm it.
    let after = after.max(Duration::from_nanos(1));
    let value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) };
    let spec = Itimerspec { it_interval: never, it_value: value };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &spec)?;
    Ok(())
}
