//! [`Receiver`]: the thread that owns this node's connections to Redis, and drives its peer with
//! them.
//!
//! A turn polls, reads and handles what has arrived, writes to the clients, does the tasks,
//! confirms, and checks the time. The protocol is in `bus/peer`; this file has the sockets, the
//! waiting, and reconnects.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use net::Turn;
use pool::Outage;

use super::core::{BusStage, RedisCore};
use super::ended::SessionError;
use super::line::RedisLine;
use crate::bus::Node;
use crate::bus::peer::{HUSH_PATIENCE, PeerDriver, PeerRules};

/// See the [module](self).
pub(super) struct Receiver {
    shared: Arc<RedisCore>,
    driver: PeerDriver,
    poll: Poll,
    /// Since when Redis has failed, if that was logged.
    failing: Outage,
}

/// The progress of a node's shutdown, as far as its connections are concerned.
#[derive(Default)]
struct Farewell {
    is_hushing: bool,
    /// After this time, unsent messages are given up.
    by: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(shared: Arc<RedisCore>, node: Arc<dyn Node>, poll: Poll) -> Receiver {
        let driver = PeerDriver::new(&shared.node, PeerRules::default(), node, Turn::new());
        Receiver { shared, driver, poll, failing: Outage::default() }
    }

    pub(super) fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while self.shared.stage() == BusStage::Running {
            let (ended, was_up) = self.session();
            self.shared.set_down(!matches!(ended, SessionError::Stopping));
            self.driver.close(&self.shared.tasks);
            if matches!(ended, SessionError::Stopping) {
                break;
            }
            if was_up {
                pause = PAUSE_MIN;
            }
            self.complain(&ended);
            self.rest(pause.mul_f64(0.5 + jitter()), BusStage::Running);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        // Without a connection nothing arrives, and the remaining work is done at the end.
        while self.shared.stage() < BusStage::Stopping {
            self.shared.set_stage(BusStage::Hushed);
            self.rest(PAUSE_MAX, BusStage::Hushed);
        }
        self.driver.close(&self.shared.tasks);
    }

    /// Runs one life of the connections. Returns why they ended, and whether publishing to the
    /// other nodes was possible.
    fn session(&mut self) -> (SessionError, bool) {
        let mut line = match RedisLine::open(&self.shared, self.poll.registry()) {
            Ok(line) => line,
            Err(error) => return (error, false),
        };
        *self.shared.loss.lock() = None;
        self.driver.open(&mut line, &self.shared.tasks, Instant::now());
        let (mut farewell, mut events) = (Farewell::default(), Events::with_capacity(8));
        loop {
            if let Err(error) = self.turn(&mut line, &mut farewell, &mut events) {
                return (error, line.was_up());
            }
        }
    }

    fn turn(&mut self, line: &mut RedisLine, farewell: &mut Farewell, events: &mut Events) -> Result<(), SessionError> {
        line.flush()?;
        let timeout = if line.is_ready() { Duration::ZERO } else { self.until_next(line, farewell) };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = Instant::now();
        self.driver.begin(now);
        events.iter().for_each(|event| line.on_event(event.token()));
        if line.fill()? {
            self.driver.hear(line, now)?;
        }
        line.take_answers()?;
        self.driver.do_tasks(line, &self.shared.tasks, Instant::now());
        if let Some(loss) = self.shared.loss.lock().take() {
            // Confirm what has arrived, if that is still possible, so that it is not sent again.
            self.driver.confirm(line, Instant::now());
            line.flush()?;
            return Err(SessionError::Lost(loss));
        }
        let now = Instant::now();
        if !farewell.is_hushing {
            line.give_sign(now);
        }
        self.driver.tick(line, now)?;
        if line.was_up()
            && let Some(lasted) = self.failing.end()
        {
            log::warn!("Redis works again after {lasted}");
        }
        self.leave(line, farewell, now)
    }

    /// Shutdown: first stops receiving, then sends what is left.
    fn leave(&mut self, line: &mut RedisLine, farewell: &mut Farewell, now: Instant) -> Result<(), SessionError> {
        let stage = self.shared.stage();
        if stage == BusStage::Running {
            return Ok(());
        }
        if !farewell.is_hushing {
            farewell.is_hushing = true;
            // From now on this node's channel has no subscriber here, so it no longer shows where a
            // connection leads.
            self.shared.forget_session();
            self.driver.hush(line, now);
            return Ok(());
        }
        if stage < BusStage::Stopping {
            return Ok(());
        }
        let by = *farewell.by.get_or_insert(now + HUSH_PATIENCE);
        line.flush()?;
        if line.is_answered() || now >= by { Err(SessionError::Stopping) } else { Ok(()) }
    }

    fn until_next(&mut self, line: &RedisLine, farewell: &Farewell) -> Duration {
        if farewell.is_hushing {
            return HUSH_STEP;
        }
        let probe = self.driver.next_probe().map(|(due, _)| due);
        let next = self.driver.next_due().into_iter().chain(probe).fold(line.sign_due(), Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    /// Logs one line when Redis begins to fail, and one when it works again.
    fn complain(&mut self, ended: &SessionError) {
        if self.failing.begin() {
            let address = self.shared.dialer.address();
            log::error!(
                "Redis at {address}: {ended}; messages for users of other nodes are stored until it works again"
            );
        }
    }

    fn rest(&mut self, pause: Duration, stage: BusStage) {
        let (mut events, until) = (Events::with_capacity(8), Instant::now() + pause);
        while Instant::now() < until && self.shared.stage() == stage {
            let next = self.driver.next_errand().map_or(until, |errand| errand.min(until));
            let left = next.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(left)) {
                log::debug!("the bus cannot wait for events: {error}");
            }
            self.driver.close(&self.shared.tasks);
            self.driver.begin(Instant::now());
        }
    }
}

/// A random number from 0 to 1, so that the nodes of a cluster do not all reconnect at the same
/// moment.
fn jitter() -> f64 {
    // Without random bytes it comes back with the others.
    (getrandom::u64().unwrap_or_default() >> 11) as f64 / (1_u64 << 53) as f64
}

/// How often a node that shuts down checks whether it may exit.
const HUSH_STEP: Duration = Duration::from_millis(20);
/// The pause between reconnects grows from the first to the second; half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
