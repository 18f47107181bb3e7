//! [`Player`]: a thread that plays many clients, and the loop that it runs in.

use std::io;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::conduit::{Conduit, Got};
use crate::phase::Phase;

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

impl Pace {
    /// The window of a closed loop.
    pub(crate) fn window(self) -> Option<usize> {
        match self {
            Pace::Window(window) => Some(window),
            Pace::Rate(_) => None,
        }
    }
}

/// How long a run waits for surplus messages after the last expected one: it ends when nothing has
/// arrived for this time.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// The most messages that an open loop sends before it reads and checks whether the run is over.
const SENDS_IN_A_TURN: usize = 256;
/// The longest time until a change of the phase is noticed.
const TURN: Duration = Duration::from_millis(20);
const TIMER: Token = Token(usize::MAX);

/// The clients of one thread. The token of a connection is its seat.
pub(crate) trait Player {
    fn conduit(&mut self, seat: usize) -> &mut Conduit;

    /// The number of senders.
    fn senders(&self) -> usize;

    /// Sends as many messages as the window of this sender allows.
    fn refill(&mut self, sender: usize, window: usize);

    /// Sends the next message of this sender, which was due at this time.
    fn send(&mut self, sender: usize, due: Instant);

    /// Checks all complete frames, and returns their length in bytes.
    fn take_all(&mut self, seat: usize, received: &[u8]) -> usize;

    /// Notes that the socket has taken this many bytes.
    fn on_written(&mut self, _seat: usize, _bytes: usize) {}

    /// Notes that a connection has ended too early.
    fn on_closed(&mut self, why: &str);

    /// Called after the events of each turn.
    fn on_turn(&mut self) {}

    /// Whether the run is over.
    fn is_over(&mut self) -> bool;
}

/// Runs until the player says that the run is over. A frame has at most half the length of the
/// buffer.
pub(crate) fn play(
    player: &mut impl Player,
    mut poll: Poll,
    pace: Pace,
    phase: &Phase,
    mut buffer: Vec<u8>,
) -> io::Result<()> {
    let mut events = Events::with_capacity(1024);
    let mut beat = match pace {
        Pace::Window(window) => {
            (0..player.senders()).for_each(|sender| player.refill(sender, window));
            None
        }
        Pace::Rate(per_second) => Some(Beat::new(per_second, &poll)?),
    };
    while !player.is_over() {
        let timeout = match &mut beat {
            Some(beat) if !phase.is_last() => beat.send_due(player)?,
            _ => TURN,
        };
        poll.poll(&mut events, Some(timeout)).or_else(unless_interrupted)?;
        for event in &events {
            let Token(seat) = event.token();
            if event.token() == TIMER || player.conduit(seat).is_closed() {
                continue;
            }
            if event.is_writable() {
                flush(player, seat);
            }
            if event.is_readable() {
                read(player, seat, &mut buffer, event.is_read_closed());
            }
        }
        player.on_turn();
    }
    Ok(())
}

/// Writes what waits on a connection.
pub(crate) fn flush(player: &mut impl Player, seat: usize) {
    if player.conduit(seat).is_closed() {
        return;
    }
    match player.conduit(seat).flush() {
        Ok(bytes) => player.on_written(seat, bytes),
        Err(error) => close(player, seat, &error.to_string()),
    }
}

/// Reads what is available; with `to_its_end` until the end of the stream, because no other event
/// follows if the peer has closed.
fn read(player: &mut impl Player, seat: usize, buffer: &mut [u8], to_its_end: bool) {
    let len = buffer.len();
    loop {
        let received = match player.conduit(seat).receive(buffer) {
            Got::Bytes(received) => received,
            Got::Nothing => return,
            Got::End(why) => return close(player, seat, &why),
        };
        let rest = &received[player.take_all(seat, received)..];
        player.conduit(seat).keep(rest);
        if rest.len() >= len / 2 {
            return close(player, seat, "a frame has no end");
        }
        // A read that does not fill the buffer has emptied the socket.
        if received.len() < len && !to_its_end && player.conduit(seat).is_plain() {
            return;
        }
    }
}

fn close(player: &mut impl Player, seat: usize, why: &str) {
    // A write during a read may have closed the connection already.
    if player.conduit(seat).close() {
        player.on_closed(why);
    }
}

/// An open loop.
struct Beat {
    start: Instant,
    per_second: f64,
    timer: OwnedFd,
    /// The number of the next message.
    message: u64,
}

impl Beat {
    fn new(per_second: f64, poll: &Poll) -> io::Result<Beat> {
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Beat { start: Instant::now(), per_second, timer, message: 0 })
    }

    fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.message as f64 / self.per_second)
    }

    /// Sends the messages that are due. Returns how long the loop may wait.
    fn send_due(&mut self, player: &mut impl Player) -> io::Result<Duration> {
        for _ in 0..SENDS_IN_A_TURN {
            if self.due() > Instant::now() {
                break;
            }
            player.send(self.message as usize % player.senders(), self.due());
            self.message += 1;
        }
        match self.due().checked_duration_since(Instant::now()) {
            Some(after) => {
                arm(&self.timer, after)?;
                Ok(TURN)
            }
            None => Ok(Duration::ZERO),
        }
    }
}

fn unless_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Sets the timer to expire after this time; `poll` itself has a resolution of milliseconds.
fn arm(timer: &OwnedFd, after: Duration) -> io::Result<()> {
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Zero would disarm the timer.
    let after = after.max(Duration::from_nanos(1));
    let value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) };
    let spec = Itimerspec { it_interval: never, it_value: value };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &spec)?;
    Ok(())
}
