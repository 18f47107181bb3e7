//! [`RedisCore`]: the state that the threads of the bus and its callers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pool::{RedisFailure, RedisPool};

use super::dial::{Blocking, CALL_TIMEOUT, CommandConnection, Dialer};
use super::ended::Loss;
use super::names::Names;
use super::sightings::Sightings;
use crate::bus::peer::PeerShared;

/// The state that the threads of the bus and its callers share.
pub(super) struct RedisCore {
    /// The state that callers of the bus share with the thread that drives the peer.
    pub(super) peer: Arc<PeerShared>,
    pub(super) names: Names,
    pub(super) dialer: Dialer,
    pub(super) pool: RedisPool<Blocking>,
    /// The reason why the connections must be replaced.
    pub(super) loss: Mutex<Option<Loss>>,
    /// The number of the connection that is subscribed to this node's channel, counted from 1. Zero
    /// if there is none, as far as is known.
    pub(super) session: AtomicU64,
    pub(super) neighbours: Sightings,
    /// The time at which the last probe came back.
    pub(super) probed: Mutex<Option<Instant>>,
    /// The time of the last successful command, if there was one.
    pub(super) commanded: Mutex<Option<Instant>>,
}

impl RedisCore {
    /// Runs `work` on a pooled connection. If the connection fails, no other command is sent until
    /// a probe has come back.
    pub(super) fn run<T>(
        &self,
        work: impl Fn(&mut CommandConnection) -> redis::RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        self.run_by(Instant::now() + CALL_TIMEOUT, work)
    }

    pub(super) fn run_by<T>(
        &self,
        by: Instant,
        work: impl Fn(&mut CommandConnection) -> redis::RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        if self.peer.gate().is_shut() {
            return Err(RedisFailure::NoConnection("it has failed, and is not back yet".to_owned()));
        }
        let session = self.session.load(Ordering::Acquire);
        let result = self.pool.run(by, work);
        if let Err(failure) = &result {
            log::debug!("Redis: {failure}");
            if failure.code() == Some("READONLY") {
                self.lose(session, Loss::Demoted);
            } else if failure.is_of_connection() {
                self.peer.on_failure();
            }
        }
        result
    }

    /// Like [`RedisCore::run`], but waits longer for a connection: publishing should not fail only
    /// because all connections are in use.
    pub(super) fn publish<T>(
        &self,
        work: impl Fn(&mut CommandConnection) -> redis::RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        let now = Instant::now();
        let (by, patience) = (now + CALL_TIMEOUT, now + POOL_PATIENCE);
        loop {
            match self.run_by(by, &work) {
                Err(RedisFailure::Busy) if self.peer.gate().is_open() && Instant::now() < patience => {}
                result => return result,
            }
        }
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

    /// Notes that the connection with this number works, and is subscribed to this node's channel.
    pub(super) fn begin_session(&self, session: u64) {
        *self.commanded.lock() = Some(Instant::now());
        self.session.store(session, Ordering::Release);
    }

    /// Notes that no connection is subscribed to this node's channel any more.
    pub(super) fn forget_session(&self) {
        self.session.store(0, Ordering::Release);
    }
}

/// How long a publication waits for a connection before its messages go to the store.
const POOL_PATIENCE: Duration = Duration::from_secs(1);
