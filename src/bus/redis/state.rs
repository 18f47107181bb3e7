//! [`SessionState`]: whether this node's connections to Redis are good, for all its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ended::Loss;
use crate::bus::peer::{PROBE_AGE_MAX, PeerShared};

/// See the [module](self).
pub(super) struct SessionState {
    peer: Arc<PeerShared>,
    /// The reason why the connections must be replaced.
    loss: Mutex<Option<Loss>>,
    /// The number of the connection that is subscribed to this node's channel, counted from 1. Zero
    /// if there is none, as far as is known.
    session: AtomicU64,
    /// The time at which the last probe came back.
    probed: Mutex<Option<Instant>>,
    /// The time of the last successful command, if there was one.
    commanded: Mutex<Option<Instant>>,
}

impl SessionState {
    pub(super) fn new(peer: Arc<PeerShared>) -> SessionState {
        SessionState {
            peer,
            loss: Mutex::new(None),
            session: AtomicU64::new(0),
            probed: Mutex::new(None),
            commanded: Mutex::new(None),
        }
    }

    /// The number of the connection that is subscribed to this node's channel; zero without one.
    pub(super) fn session(&self) -> u64 {
        self.session.load(Ordering::Acquire)
    }

    /// Has all connections replaced, unless that has happened already. Nothing is published until
    /// then.
    pub(super) fn lose(&self, session: u64, loss: Loss) {
        if session != 0 && self.session.compare_exchange(session, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.peer.on_doubt();
            *self.loss.lock() = Some(loss);
            self.peer.wake();
        }
    }

    /// Takes the reason why the connections must be replaced, if there is one.
    pub(super) fn take_loss(&self) -> Option<Loss> {
        self.loss.lock().take()
    }

    /// Notes that the connection with this number works, and is subscribed to this node's channel.
    pub(super) fn begin(&self, session: u64) {
        self.on_command();
        self.session.store(session, Ordering::Release);
    }

    /// Notes that no connection is subscribed to this node's channel any more.
    pub(super) fn forget(&self) {
        self.session.store(0, Ordering::Release);
    }

    /// Notes that a probe has come back.
    pub(super) fn on_probe(&self) {
        *self.probed.lock() = Some(Instant::now());
    }

    /// Notes that a command has succeeded.
    pub(super) fn on_command(&self) {
        *self.commanded.lock() = Some(Instant::now());
    }

    /// The time since the last probe came back.
    pub(super) fn probe_age(&self) -> Option<Duration> {
        self.probed.lock().map(|probed| probed.elapsed())
    }

    /// Whether messages to other nodes arrive, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        let commands_work = self.commanded.lock().is_some_and(|then| then.elapsed() < COMMAND_AGE_MAX);
        let probe_is_fresh = self.probe_age().is_some_and(|age| age < PROBE_AGE_MAX);
        self.peer.gate().is_open() && probe_is_fresh && commands_work
    }
}

/// The greatest age of the last successful command. Commands are sent every second, so beyond it
/// something is wrong.
const COMMAND_AGE_MAX: Duration = Duration::from_millis(3500);
