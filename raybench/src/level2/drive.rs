//! One thread that sends and receives at level 2, and checks every byte.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Poll, Token};

use super::books::{Books, Verdict};
use super::frames::PONG;
use crate::carrier::Stream;
use crate::conduit::Conduit;
use crate::phase::{Phase, Watch};
use crate::player::{Pace, Player, QUIET, flush, play};
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
    pub(crate) seats: Vec<CrewSeat>,
    pub(crate) books: Books,
    /// The lines of each sender, which sends to them in turn. Together these are all lines, in
    /// order.
    pub(crate) senders: Vec<Turns>,
}

/// A connection, and its place in each of its conversations.
pub(crate) struct CrewSeat {
    pub(crate) stream: Stream,
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

struct DrivenSeat {
    conduit: Conduit,
    member: usize,
}

struct Driver<'a> {
    seats: Vec<DrivenSeat>,
    senders: Vec<Turns>,
    /// The sender of each line.
    owners: Vec<usize>,
    books: Books,
    orders: Orders,
    phase: &'a Phase,
    watch: Watch,
    found: Found,
    last_arrival: Instant,
    last_progress: Instant,
}

/// Runs until the last phase begins, and then until everything has arrived or nothing has arrived
/// for too long.
pub(crate) fn drive(crew: Crew, orders: Orders, phase: &Phase) -> io::Result<Found> {
    let poll = Poll::new()?;
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
        last_arrival: Instant::now(),
        last_progress: Instant::now(),
    };
    for place in seats {
        driver.enter(place, &poll)?;
    }
    play(&mut driver, poll, orders.pace, phase, vec![0; BUFFER])?;
    Ok(driver.finish())
}

/// A frame of level 2 has at most 512 KiB.
const BUFFER: usize = 1024 * 1024;

impl Driver<'_> {
    fn enter(&mut self, place: CrewSeat, poll: &Poll) -> io::Result<()> {
        let CrewSeat { stream, member } = place;
        let conduit = Conduit::new(stream, poll, Token(self.seats.len()))?;
        self.seats.push(DrivenSeat { conduit, member });
        Ok(())
    }

    fn finish(mut self) -> Found {
        let findings = &mut self.found.findings;
        for seat in &self.seats {
            let partial = seat.conduit.end();
            if !partial.is_empty() {
                findings.counts.foreign += 1;
                findings.trouble(|| format!("a frame without an end: {}", partial.escape_ascii()));
            }
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
                self.seats[seat].conduit.out().extend_from_slice(PONG);
                flush(self, seat);
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

    fn on_their_way(&self, sender: usize) -> usize {
        let of_line = |line| match self.orders.until {
            Until::Acknowledged => self.books.unacknowledged(line),
            Until::Everywhere => self.books.on_their_way(line),
        };
        self.senders[sender].lines.clone().map(of_line).sum()
    }

    fn write(&mut self, sender: usize, due: Instant) {
        let Turns { seat, lines, next } = &mut self.senders[sender];
        let line = lines.start + *next % lines.len();
        *next += 1;
        let conduit = &mut self.seats[*seat].conduit;
        if !conduit.is_closed() {
            self.books.send(line, due, now_ms(), conduit.out());
        }
    }
}

impl Player for Driver<'_> {
    fn conduit(&mut self, seat: usize) -> &mut Conduit {
        &mut self.seats[seat].conduit
    }

    fn senders(&self) -> usize {
        self.senders.len()
    }

    fn refill(&mut self, sender: usize, window: usize) {
        let (now, seat) = (Instant::now(), self.senders[sender].seat);
        let mut on_their_way = self.on_their_way(sender);
        while on_their_way < window && !self.seats[seat].conduit.is_closed() {
            self.write(sender, now);
            on_their_way += 1;
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
        if let Some(window) = self.orders.pace.window()
            && !self.phase.is_last()
        {
            may_send.into_iter().for_each(|sender| self.refill(sender, window));
        }
        from
    }

    fn on_closed(&mut self, why: &str) {
        self.found.findings.counts.closed += 1;
        self.found.findings.trouble(|| why.to_owned());
    }

    /// Retries the failed sends whose pause is over.
    fn on_turn(&mut self) {
        for (line, seat) in self.books.take_rested(Instant::now()) {
            self.books.resend(line, now_ms(), self.seats[seat].conduit.out());
            flush(self, seat);
        }
    }

    fn is_over(&mut self) -> bool {
        let books = &self.books;
        self.watch.look(self.phase, || books.sent());
        let Some(last) = self.phase.last_since() else { return false };
        let is_given_up = self.last_progress.max(last).elapsed() > self.orders.patience;
        let is_quiet = self.last_arrival.max(last).elapsed() > QUIET;
        is_given_up || (is_quiet && self.books.missing() == 0) || self.seats.iter().all(|seat| seat.conduit.is_closed())
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
