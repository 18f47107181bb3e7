//! [`PeerThread`]: the thread that owns a node's connection to the others, and drives its peer with
//! it.
//!
//! ```text
//!   connect ─▶ ( wait ─▶ turn )* ─▶ connection lost ─▶ pause, then connect again
//!                          └─▶ hushed, all is sent, stopped
//! ```
//! The protocol is in [`Peer`](super::Peer), and what the transport's sockets need is in its
//! [`Connector`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;
use pool::Outage;

use super::PeerRules;
use super::deadline::HUSH_PATIENCE;
use super::driver::PeerDriver;
use super::pause::Pauses;
use super::shared::{BusStage, PeerShared};
use super::transport::PeerLine;
use crate::base::clock::Clock;
use crate::bus::Node;

/// See the [module](self).
pub(in crate::bus) struct PeerThread<C> {
    connector: C,
    shared: Arc<PeerShared>,
    driver: PeerDriver,
    clock: Clock,
    /// The outage of the transport, if it was logged.
    failing: Outage,
}

/// Makes connections, and waits for them.
pub(in crate::bus) trait Connector: Send + 'static {
    /// A connection.
    type Line: PeerLine<Broken: fmt::Display>;

    /// How the peer uses this transport.
    fn rules() -> PeerRules {
        PeerRules::default()
    }

    /// The name of the server that it connects to, for the log.
    fn name(&self) -> String;

    /// Connects. Blocks, for a few seconds at most.
    ///
    /// # Errors
    ///
    /// If that is impossible now.
    fn connect(&mut self) -> Result<Self::Line, BrokenOf<Self>>;

    /// Sends what waits in the line. Then waits until something has arrived, the peer's thread is
    /// woken, or `until` has come.
    ///
    /// # Errors
    ///
    /// If the connection can no longer be used.
    fn wait(&mut self, line: &mut Self::Line, until: Instant) -> Result<(), BrokenOf<Self>>;

    /// Sends what waits in the line, without waiting. Returns whether everything has arrived at the
    /// other end.
    ///
    /// # Errors
    ///
    /// If the connection can no longer be used.
    fn flush(&mut self, line: &mut Self::Line) -> Result<bool, BrokenOf<Self>>;

    /// Waits, while there is no connection, until the peer's thread is woken or `until` has come.
    fn rest(&mut self, until: Instant);
}

/// Why a connection has ended.
type BrokenOf<C> = <<C as Connector>::Line as PeerLine>::Broken;

impl<C: Connector> PeerThread<C> {
    /// Runs the peer of this node on a thread of its own, until the bus stops.
    ///
    /// # Errors
    ///
    /// If the system cannot start the thread.
    pub(in crate::bus) fn start(connector: C, shared: &Arc<PeerShared>, node: Arc<dyn Node>) -> std::io::Result<()> {
        let driver = PeerDriver::new(shared.clone(), C::rules(), node, Turn::new());
        let (clock, failing) = (Clock::default(), Outage::default());
        let thread = PeerThread { connector, shared: shared.clone(), driver, clock, failing };
        shared.spawn("bus", || thread.run())
    }

    fn run(mut self) {
        let mut pauses = Pauses::default();
        let mut has_stopped = false;
        while self.shared.stage() == BusStage::Running && !has_stopped {
            let ended = self.connection();
            if self.driver.was_up() {
                pauses = Pauses::default();
            }
            self.driver.close();
            match ended {
                Some(ended) => {
                    self.complain(&ended);
                    self.rest(pauses.next(jitter()), BusStage::Running);
                }
                None => has_stopped = true,
            }
        }
        // Without a connection nothing arrives, and the remaining work is done at the end.
        while self.shared.stage() < BusStage::Stopping {
            // The stage may have changed since it was last read.
            self.driver.close();
            self.rest(HUSH_PATIENCE, BusStage::Hushed);
        }
        self.driver.close();
        if has_stopped {
            self.shared.on_stopped();
        }
    }

    /// Runs one life of the connection. Returns why it has ended; `None` if the bus has stopped.
    fn connection(&mut self) -> Option<BrokenOf<C>> {
        let mut line = match self.connector.connect() {
            Ok(line) => line,
            Err(ended) => return Some(ended),
        };
        self.driver.open(&mut line, self.clock.now());
        let mut gives_up_at = None;
        loop {
            let until = self.until_next();
            let waited = self.connector.wait(&mut line, until);
            let turned = waited.and_then(|()| self.driver.turn(&mut line, &self.clock));
            match turned.and_then(|()| self.has_ended(&mut line, &mut gives_up_at)) {
                Ok(false) => {}
                Ok(true) => return None,
                Err(ended) => {
                    // The last confirmations, if they can still be sent.
                    let _ = self.connector.flush(&mut line);
                    return Some(ended);
                }
            }
            if self.driver.was_up()
                && let Some(lasted) = self.failing.end()
            {
                log::warn!("{} works again after {lasted}", self.connector.name());
            }
        }
    }

    /// Whether the bus has stopped, and everything is sent or must be given up.
    fn has_ended(&mut self, line: &mut C::Line, gives_up_at: &mut Option<Instant>) -> Result<bool, BrokenOf<C>> {
        if self.shared.stage() < BusStage::Stopping {
            return Ok(false);
        }
        let now = self.clock.now();
        let Some(by) = *gives_up_at else {
            // The next turn confirms what has arrived.
            *gives_up_at = Some(now + HUSH_PATIENCE);
            return Ok(false);
        };
        Ok(self.connector.flush(line)? || now >= by)
    }

    fn until_next(&mut self) -> Instant {
        let now = self.clock.now();
        let longest = if self.shared.stage() == BusStage::Running { WAIT_MAX } else { HUSH_STEP };
        let probe = self.driver.next_probe().map(|(due, _)| due);
        self.driver.next_due().into_iter().chain(probe).fold(now + longest, Instant::min)
    }

    /// Logs one line when the transport begins to fail. Another follows when it works again.
    fn complain(&mut self, ended: &BrokenOf<C>) {
        if self.failing.begin() {
            let name = self.connector.name();
            log::error!("{name}: {ended}; messages for users of other nodes are stored until it works again");
        }
    }

    fn rest(&mut self, pause: Duration, stage: BusStage) {
        let until = self.clock.now() + pause;
        while self.clock.now() < until && self.shared.stage() == stage {
            let next = self.driver.next_errand().map_or(until, |errand| errand.min(until));
            self.connector.rest(next);
            self.driver.rest(self.clock.now());
        }
    }
}

/// A random number from 0 to 1, so that the nodes of a cluster do not all reconnect at the same
/// moment.
fn jitter() -> f64 {
    // Without random bytes, it reconnects together with the others.
    (getrandom::u64().unwrap_or_default() >> 11) as f64 / (1_u64 << 53) as f64
}

/// The interval at which a node that shuts down checks whether it may exit.
const HUSH_STEP: Duration = Duration::from_millis(20);
/// The longest wait of a node with nothing to do; its next probe is due earlier.
const WAIT_MAX: Duration = Duration::from_secs(2);
