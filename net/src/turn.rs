//! [`TurnOf`]: the work of one thread for connections in one turn of its loop. Outside of this
//! package, where the links are [`Link`](crate::link::Link)s, the type is called `Turn`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::buffer_pool::BufferPool;
use crate::slots::ConnId;

/// The work of one thread for connections in one turn of its loop: the links to be written, memory
/// for their output, and the rest of the turn's budget. A thread without a loop creates a turn and
/// calls [`TurnOf::flush`].
#[derive(Debug)]
#[expect(private_bounds, reason = "the links of this package alone are listed")]
pub struct TurnOf<L: Listed> {
    id: TurnId,
    now: Instant,
    /// The links that were sent something from another client, and those that were sent a reply.
    pushed: Vec<Arc<L>>,
    answered: Vec<Arc<L>>,
    /// Whether, since the last flush, a link was sent a reply and after that something from another
    /// client.
    pub(crate) is_mixed: bool,
    /// The number of bytes sent since the last flush.
    sent_bytes: usize,
    pub(crate) budget: Budget,
    pub(crate) reminders: Vec<(Instant, ConnId)>,
    /// Connections to be closed because their descriptors are needed.
    pub(crate) turned_away: Vec<ConnId>,
    /// Connections that wait to begin TLS.
    pub(crate) hellos: Vec<ConnId>,
    errands: BinaryHeap<Errand<L>>,
    pub(crate) pool: BufferPool,
    /// Labels of frames that have arrived, for the link that is being processed.
    pub(crate) reports: Vec<u32>,
}

/// The part of a link that a turn needs. It keeps this file independent of links, which depend on
/// turns.
pub(crate) trait Listed: Sized {
    fn id(&self) -> ConnId;

    /// The share of the loop's turns that the connection uses.
    fn share(&self) -> u64;

    /// Writes the pending output now.
    fn flush(self: &Arc<Self>, turn: &mut TurnOf<Self>);

    /// Writes the pending output now, unless a reply is in it: such a link is written later in the
    /// same flush.
    fn flush_unless_answered(self: &Arc<Self>, turn: &mut TurnOf<Self>);

    /// Handles an errand whose time has come.
    fn on_errand(self: &Arc<Self>, turn: &mut TurnOf<Self>, due: Instant);
}

/// Distinguishes the turns of different threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TurnId(u64);

/// A second look at a link at a certain time. The order is reversed, so that the earliest is the
/// greatest.
#[derive(Debug)]
struct Errand<L> {
    due: Instant,
    link: Weak<L>,
}

#[expect(private_bounds, reason = "see there")]
impl<L: Listed> TurnOf<L> {
    /// A turn with nothing to do yet.
    pub fn new() -> TurnOf<L> {
        TurnOf::at(Instant::now())
    }

    /// A turn that began at `now`.
    pub fn at(now: Instant) -> TurnOf<L> {
        static TURNS: AtomicU64 = AtomicU64::new(0);
        TurnOf {
            id: TurnId(TURNS.fetch_add(1, atomic::Ordering::Relaxed)),
            now,
            pushed: Vec::new(),
            answered: Vec::new(),
            is_mixed: false,
            sent_bytes: 0,
            budget: Budget::new(now),
            reminders: Vec::new(),
            turned_away: Vec::new(),
            hellos: Vec::new(),
            errands: BinaryHeap::new(),
            pool: BufferPool::default(),
            reports: Vec::new(),
        }
    }

    /// The time at which this turn began.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Begins a turn. A thread without a loop calls this whenever it wakes.
    pub fn begin(&mut self, now: Instant) {
        self.now = now;
        self.budget.begin(now);
    }

    /// Whether this step, or the share being served, has used up its budget: the rest waits for the
    /// next turn.
    pub(crate) fn is_spent(&mut self) -> bool {
        self.budget.is_spent()
    }

    /// Whether the share of this connection has some of its part of this turn left. If not, work
    /// that can wait should be posted to the connection again.
    ///
    /// A handler that has much to do for one client does it in pieces, and other clients are served
    /// in between:
    ///
    /// ```
    /// # use std::{error::Error, io::{BufRead, BufReader, Write}, net::{SocketAddr, TcpStream}};
    /// # use std::{sync::Arc, thread, time::Duration};
    /// # use net::{Acceptor, Fate, Flow, Handler, Incoming, Link, ListenSettings, LoopGroup, Preface, Settings, Turn};
    /// struct Counter;
    ///
    /// impl Handler for Counter {
    /// #   type Conn = ();
    /// #   type Arrival = ();
    ///     type Message = u32;
    /// #   fn on_arrival(&mut self, _: &mut Turn<u32>, _: SocketAddr, _: Preface) -> Result<(), &'static [u8]> {
    /// #       Ok(())
    /// #   }
    /// #   fn on_open(&mut self, _: &mut Turn<u32>, _: &Arc<Link<u32>>, _: ()) {}
    ///
    ///     fn on_incoming(&mut self, _: &mut Turn<u32>, link: &Arc<Link<u32>>, _: &mut (), incoming: Incoming<'_>) -> Flow {
    ///         if let Incoming::Frame(_) = incoming {
    ///             link.post(1000);
    ///         }
    ///         Flow::Taken
    ///     }
    ///
    ///     fn on_message(&mut self, turn: &mut Turn<u32>, link: &Arc<Link<u32>>, _: &mut (), mut left: u32) {
    ///         while left > 0 && turn.has_left(link) {
    ///             // Computing a reply costs as much as sending 4 KiB.
    ///             turn.spend(4096);
    ///             left -= 1;
    ///             let _ = link.send(turn, format!("{{\"left\":{left}}}").as_bytes(), Fate::Drop);
    ///         }
    ///         if left > 0 {
    ///             link.post(left);
    ///         }
    ///     }
    /// }
    /// #
    /// # fn main() -> Result<(), Box<dyn Error>> {
    /// # let settings = Settings {
    /// #     frame_bytes_max: 64 * 1024,
    /// #     frame_timeout: Duration::from_secs(10),
    /// #     idle_timeout: Duration::from_secs(600),
    /// #     output_bytes_max: 1024 * 1024,
    /// #     drain_timeout: Duration::from_secs(5),
    /// #     pace: None,
    /// # };
    /// # let listen = ListenSettings { backlog: 128, user_timeout: Duration::from_secs(30) };
    /// # let acceptor = Acceptor::bind("127.0.0.1:0".parse()?, listen)?;
    /// # let (address, stopper) = (acceptor.local_addr()?, acceptor.stopper());
    /// # let mut loops = LoopGroup::start(1, settings, |_| Counter)?;
    /// # thread::scope(|scope| -> std::io::Result<()> {
    /// #     scope.spawn(|| acceptor.run(|stream, peer| loops.assign(stream, peer, Preface::None)));
    /// #     let talk = || {
    /// #         let mut client = TcpStream::connect(address)?;
    /// #         client.write_all(b"{}\n")?;
    /// #         let lines = BufReader::new(client).lines().take(1000).collect::<Result<Vec<_>, _>>()?;
    /// #         assert_eq!(lines.last().map(String::as_str), Some("{\"left\":0}"));
    /// #         Ok(())
    /// #     };
    /// #     let talked = talk();
    /// #     stopper.stop();
    /// #     talked
    /// # })?;
    /// # loops.drain(u32::MAX, Duration::from_secs(5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn has_left(&self, link: &L) -> bool {
        self.budget.has_left(link.share())
    }

    pub(crate) fn id(&self) -> TurnId {
        self.id
    }

    /// Notes that this many bytes were sent to a link.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
        self.budget.spend(bytes);
    }

    /// Lists the link to be written at the end of this turn.
    pub(crate) fn list(&mut self, link: Arc<L>, answered: bool) {
        let links = if answered { &mut self.answered } else { &mut self.pushed };
        links.push(link);
    }

    /// Whether a link was sent a reply since the last flush.
    pub(crate) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    /// Plans an errand at this time for the link.
    pub(crate) fn look_again(&mut self, due: Instant, link: &Arc<L>) {
        self.errands.push(Errand { due, link: Arc::downgrade(link) });
    }

    /// The time of the next errand for a link that this thread has written to, if there is one.
    pub fn next_errand(&self) -> Option<Instant> {
        self.errands.peek().map(|errand| errand.due)
    }

    /// Notes work other than sending, in bytes or their equivalent in time.
    pub fn spend(&mut self, work: usize) {
        self.budget.spend(work);
    }

    /// Runs the errands that are due, within the budget of this turn.
    pub fn run_errands(&mut self) {
        while self.next_errand().is_some_and(|due| due <= self.now)
            && !self.is_spent()
            && let Some(Errand { due, link }) = self.errands.pop()
        {
            self.budget.spend(ERRAND_WORK);
            if let Some(link) = link.upgrade() {
                link.on_errand(self, due);
            }
        }
    }

    /// Makes the loop call [`Handler::on_reminder`](crate::Handler::on_reminder) for one of its
    /// connections after some time.
    pub fn remind(&mut self, link: &L, after: Duration) {
        self.reminders.push((self.now + after, link.id()));
    }

    /// Closes one of the loop's connections at the end of the turn, because others need its
    /// descriptor: its output is written as far as its socket takes it immediately.
    pub fn turn_away(&mut self, link: &L) {
        self.turned_away.push(link.id());
    }

    /// Writes now if much was sent already. Otherwise a frame for thousands of clients would be in
    /// memory thousands of times.
    pub fn relieve(&mut self) {
        if self.sent_bytes >= SENT_BYTES_MAX {
            self.flush();
        }
    }

    /// Writes to every connection that was sent something. Those that were sent a reply come last,
    /// in the order of their first replies. So a frame leaves before a later reply to its sender
    /// confirms it, and a process that is killed between two writes loses nothing that it has
    /// confirmed. Where this order would write a frame too late, [`Link::send`](crate::Link::send)
    /// writes it earlier. One gap is left: a second thread that sends to one of the links at the
    /// same moment writes all output of that link, perhaps including a reply of this turn.
    pub fn flush(&mut self) {
        self.sent_bytes = 0;
        self.is_mixed = false;
        self.flush_list(|turn| &mut turn.pushed, L::flush_unless_answered);
        self.flush_list(|turn| &mut turn.answered, L::flush);
    }

    fn flush_list(
        &mut self,
        list: impl Fn(&mut TurnOf<L>) -> &mut Vec<Arc<L>>,
        flush: impl Fn(&Arc<L>, &mut TurnOf<L>),
    ) {
        if list(self).is_empty() {
            return;
        }
        let mut links = std::mem::take(list(self));
        for link in links.drain(..) {
            flush(&link, self);
        }
        // The list is empty again, and its memory is used for the next turn.
        *list(self) = links;
    }
}

/// A link that is listed in one turn is not listed by another. Without this, a turn that ends
/// early, for example by a panic, would silence the link for ever.
impl<L: Listed> Drop for TurnOf<L> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<L: Listed> Default for TurnOf<L> {
    fn default() -> TurnOf<L> {
        TurnOf::new()
    }
}

impl<L> PartialEq for Errand<L> {
    fn eq(&self, other: &Errand<L>) -> bool {
        self.due == other.due
    }
}

impl<L> Eq for Errand<L> {}

impl<L> PartialOrd for Errand<L> {
    fn partial_cmp(&self, other: &Errand<L>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<L> Ord for Errand<L> {
    fn cmp(&self, other: &Errand<L>) -> Ordering {
        other.due.cmp(&self.due)
    }
}

/// The most bytes that one turn sends before it writes.
const SENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The cost of an errand: a system call or two.
const ERRAND_WORK: usize = 512;

#[cfg(all(test, feature = "simulation"))]
mod tests {
    use std::io;
    use std::net::{Shutdown, SocketAddr};

    use mio::{Poll, Token, Waker};
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::framing::{FrameWriter, Notice};
    use crate::label::Label;
    use crate::link::{Link, Turn};
    use crate::loop_handle::LoopHandle;
    use crate::output::Fate;
    use crate::simulation::SimulatedSocket;
    use crate::socket::Socket;
    use crate::transport::Transport;

    /// A socket that accepts everything, and records it in a log that all sockets share.
    #[derive(Debug)]
    struct Recorder(Arc<Mutex<String>>);

    impl SimulatedSocket for Recorder {
        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push_str(std::str::from_utf8(bytes).expect("frames are text"));
            Ok(bytes.len())
        }
        fn read(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn shutdown(&self, _: Shutdown) -> io::Result<()> {
            Ok(())
        }
        fn peer_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::NotConnected.into())
        }
        fn receive_buffer_bytes(&self) -> usize {
            64 * 1024
        }
        fn unacknowledged(&self) -> usize {
            0
        }
        fn register(&self, _: usize) {}
        fn deregister(&self) {}
    }

    /// One action of a client's frame in a turn.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// It is forwarded from one client to another.
        Forward(usize, usize),
        /// The sender of the frame gets a reply, which confirms all frames that were forwarded for
        /// it before.
        Reply(usize),
    }

    /// Carries the acts out in one turn. Returns the writes, in order: "7" is a forwarded frame,
    /// "r7" a reply.
    fn written(acts: &[Act], clients: usize, output_bytes_max: usize) -> Vec<String> {
        let poll = Poll::new().expect("a descriptor");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a descriptor");
        let owner: LoopHandle<()> = LoopHandle::new(waker, output_bytes_max, None, None);
        let log = Arc::new(Mutex::new(String::new()));
        let link = |index| {
            let socket = Socket::Simulated(Arc::new(Recorder(log.clone())));
            let link = Arc::new(Link::new(
                ConnId { index, generation: 0 },
                socket,
                None,
                FrameWriter::json(),
                Transport::Plain,
                owner.clone(),
            ));
            let mut turn = Turn::new();
            link.heed(&mut turn, Notice::Lines);
            link
        };
        let links: Vec<_> = (0..clients as u32).map(link).collect();
        let mut turn = Turn::new();
        for (nth, act) in acts.iter().enumerate() {
            let (to, frame, fate) = match *act {
                Act::Forward(_, to) => (to, nth.to_string(), Fate::Return(Label::of(1))),
                Act::Reply(to) => (to, format!("r{nth}"), Fate::Drop),
            };
            links[to].send(&mut turn, frame.as_bytes(), fate).expect("the link takes it");
        }
        turn.flush();
        log.lock().lines().map(str::to_owned).collect()
    }

    fn check(acts: &[Act], clients: usize, output_bytes_max: usize) {
        let written = written(acts, clients, output_bytes_max);
        assert_eq!(written.len(), acts.len(), "{written:?}");
        let at = |frame: String| written.iter().position(|other| *other == frame).expect("it was written");
        for (nth, act) in acts.iter().enumerate() {
            let Act::Reply(client) = *act else { continue };
            for (before, _) in acts[..nth]
                .iter()
                .enumerate()
                .filter(|(_, act)| matches!(act, Act::Forward(from, _) if *from == client))
            {
                assert!(at(before.to_string()) < at(format!("r{nth}")), "r{nth} confirms {before}: {written:?}");
            }
        }
    }

    #[test]
    fn a_reply_leaves_after_what_its_client_sent_to_a_client_that_is_answered_later() {
        check(&[Act::Forward(0, 1), Act::Reply(0), Act::Reply(1)], 2, 1 << 20);
    }

    #[test]
    fn replies_that_confirm_what_each_others_clients_sent_are_written_in_two_steps() {
        let both = [Act::Reply(0), Act::Reply(1), Act::Forward(0, 1), Act::Forward(1, 0), Act::Reply(0), Act::Reply(1)];
        check(&both, 2, 1 << 20);
    }

    proptest! {
        #[test]
        fn no_reply_leaves_before_what_it_confirms(
            acts in prop::collection::vec(
                prop_oneof![
                    (0_usize..4, 0_usize..4).prop_map(|(from, to)| Act::Forward(from, to)),
                    (0_usize..4).prop_map(Act::Reply),
                ],
                0..40,
            ),
            output_bytes_max in prop::sample::select(vec![4, 1 << 20]),
        ) {
            check(&acts, 4, output_bytes_max);
        }
    }
}
