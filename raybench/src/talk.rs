//! The measured part of pairs and groups: one thread that sends, receives, and checks every byte.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mio::{Poll, Token};

use crate::conduit::Conduit;
use crate::phase::{Phase, Watch};
use crate::player::{Pace, Player, QUIET, flush, play};
use crate::rooms::Room;
use crate::tally::{Arrival, Findings, Received, record};
use crate::wire::{Framing, Template};

/// The longest frame: more than a server takes by default.
pub(crate) const FRAME_MAX: usize = 128 * 1024;

struct Seat {
    conduit: Conduit,
    /// The user who sends on this connection, if any.
    sender: Option<usize>,
    first_sender: usize,
    /// The messages received from each sender of the room.
    received: Vec<Received>,
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
    /// The window of a closed loop.
    window: Option<usize>,
    patience: Duration,
    last_byte: u8,
    phase: &'a Phase,
    watch: Watch,
    findings: Findings,
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
    let poll = Poll::new()?;
    let mut talker = Talker {
        seats: Vec::new(),
        senders: Vec::new(),
        window: pace.window(),
        patience,
        last_byte: framing.last_byte(),
        phase,
        watch: Watch::default(),
        findings: Findings::new(1),
        last_arrival: Instant::now(),
        last_progress: Instant::now(),
    };
    for room in rooms {
        talker.enter(room, &poll)?;
    }
    play(&mut talker, poll, pace, phase, vec![0; 2 * FRAME_MAX])?;
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
            let conduit = Conduit::new(stream, poll, Token(self.seats.len()))?;
            self.seats.push(Seat {
                conduit,
                sender: (n < senders).then_some(first_sender + n),
                first_sender,
                received: vec![Received::default(); senders],
            });
        }
        Ok(())
    }

    /// Counts the missing messages and the leftover bytes.
    fn finish(mut self) -> Findings {
        for seat in &self.seats {
            for (received, sender) in seat.received.iter().zip(&self.senders[seat.first_sender..]) {
                if !std::ptr::eq(seat, &self.seats[sender.seat]) {
                    self.findings.counts.lost += received.lost(sender.sent());
                }
            }
            let partial = seat.conduit.end();
            if !partial.is_empty() {
                self.findings.counts.foreign += 1;
                self.findings.trouble(|| format!("a frame without an end: {}", partial.escape_ascii()));
            }
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

    fn write(&mut self, sender: usize, due: Instant) {
        let Sender { seat, template, next, receivers, open, on_their_way, .. } = &mut self.senders[sender];
        let conduit = &mut self.seats[*seat].conduit;
        if conduit.is_closed() {
            return;
        }
        template.write(*next, conduit.out());
        *next += 1;
        *on_their_way += 1;
        open.push_back((due, *receivers));
    }
}

impl Player for Talker<'_> {
    fn conduit(&mut self, seat: usize) -> &mut Conduit {
        &mut self.seats[seat].conduit
    }

    fn senders(&self) -> usize {
        self.senders.len()
    }

    fn refill(&mut self, sender: usize, window: usize) {
        let (now, seat) = (Instant::now(), self.senders[sender].seat);
        while self.senders[sender].on_their_way < window && !self.seats[seat].conduit.is_closed() {
            self.write(sender, now);
        }
        flush(self, seat);
    }

    fn send(&mut self, sender: usize, due: Instant) {
        self.write(sender, due);
        flush(self, self.senders[sender].seat);
    }

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
        if let Some(window) = self.window
            && !self.phase.is_last()
        {
            may_send.into_iter().for_each(|sender| self.refill(sender, window));
        }
        from
    }

    fn on_written(&mut self, seat: usize, bytes: usize) {
        if let Some(sender) = self.seats[seat].sender {
            self.senders[sender].handed += bytes as u64;
        }
    }

    fn on_closed(&mut self, why: &str) {
        self.findings.counts.closed += 1;
        self.findings.trouble(|| why.to_owned());
    }

    fn is_over(&mut self) -> bool {
        self.watch.look(self.phase, || self.senders.iter().map(Sender::sent).sum());
        let Some(last) = self.phase.last_since() else { return false };
        let all_came = self.senders.iter().all(|sender| sender.on_their_way == 0);
        // Only arrivals of missing messages count as progress. A server that never stops sending
        // would otherwise keep the run going for ever.
        let is_given_up = self.last_progress.max(last).elapsed() > self.patience;
        let is_quiet = self.last_arrival.max(last).elapsed() > QUIET;
        is_given_up || (all_came && is_quiet) || self.seats.iter().all(|seat| seat.conduit.is_closed())
    }
}

impl Sender {
    /// The number of messages whose bytes were all handed to the socket.
    fn sent(&self) -> u64 {
        self.handed / self.template.len() as u64
    }
}
