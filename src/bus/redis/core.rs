//! [`RedisCore`]: what the threads of the bus and its callers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::Waker;
use parking_lot::{Condvar, Mutex};
use pool::{RedisFailure, RedisPool};

use super::dial::{Blocking, CALL_TIMEOUT, Commands, Dialer};
use super::ended::Loss;
use super::names::Names;
use super::sightings::Sightings;
use crate::bus::Published;
use crate::bus::peer::{Courier, NodeTasks, NotSent, PeerTask, Post};
use crate::delivery::ClientLink;

/// The data shared by the threads of the bus and its callers.
pub(super) struct RedisCore {
    /// This process's name in the cluster.
    pub(super) node: String,
    pub(super) names: Names,
    pub(super) dialer: Dialer,
    pub(super) pool: RedisPool<Blocking>,
    pub(super) waker: Waker,
    /// Tasks for the receiver.
    pub(super) tasks: Mutex<NodeTasks>,
    /// Why the receiver must replace its connections.
    pub(super) loss: Mutex<Option<Loss>>,
    /// Whether messages reach other nodes, as far as is known.
    pub(super) up: AtomicBool,
    /// Redis has failed since the last probe that came back: no command is sent.
    pub(super) away: AtomicBool,
    /// The number of the receiver's connection that is subscribed to this node's channel, counted
    /// from 1. Zero: none, as far as is known.
    pub(super) session: AtomicU64,
    pub(super) neighbours: Sightings,
    /// When the last probe came back.
    pub(super) probed: Mutex<Option<Instant>>,
    /// When commands last succeeded, if they ever did.
    pub(super) commanded: Mutex<Option<Instant>>,
    pub(super) stage: Mutex<BusStage>,
    /// `up` or `stage` has changed.
    pub(super) changed: Condvar,
}

/// How far the shutdown of the bus has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum BusStage {
    Running,
    /// Stop receiving.
    Hushing,
    /// No more messages arrive.
    Hushed,
    Stopping,
}

impl RedisCore {
    /// Runs `work` on a pooled connection. If the connection fails, no other command is sent until
    /// a probe has come back.
    pub(super) fn run<T>(&self, work: impl Fn(&mut Commands) -> redis::RedisResult<T>) -> Result<T, RedisFailure> {
        self.run_by(Instant::now() + CALL_TIMEOUT, work)
    }

    pub(super) fn run_by<T>(
        &self,
        by: Instant,
        work: impl Fn(&mut Commands) -> redis::RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        if self.away.load(Ordering::Acquire) {
            return Err(RedisFailure::NoConnection("it has failed, and is not back yet".to_owned()));
        }
        let session = self.session.load(Ordering::Acquire);
        let result = self.pool.run(by, work);
        if let Err(failure) = &result {
            log::debug!("Redis: {failure}");
            if failure.code() == Some("READONLY") {
                self.lose(session, Loss::Demoted);
            } else if failure.is_of_connection() && self.suspend() {
                self.add(PeerTask::Probe);
            }
        }
        result
    }

    /// Like [`RedisCore::run`], but waits longer for a connection, because publishing should not
    /// fail only because all connections are in use.
    pub(super) fn publish<T>(&self, work: impl Fn(&mut Commands) -> redis::RedisResult<T>) -> Result<T, RedisFailure> {
        let now = Instant::now();
        let (by, patience) = (now + CALL_TIMEOUT, now + POOL_PATIENCE);
        loop {
            match self.run_by(by, &work) {
                Err(RedisFailure::Busy) if self.up.load(Ordering::Acquire) && Instant::now() < patience => {}
                result => return result,
            }
        }
    }

    /// Stops sending commands until [`RedisCore::set_up`] or [`RedisCore::resume`]; false if they
    /// were stopped already.
    pub(super) fn suspend(&self) -> bool {
        // Before the receiver has begun, and after it has ended, it would send no probe.
        let was_up = self.up.swap(false, Ordering::AcqRel);
        if was_up {
            self.away.store(true, Ordering::Release);
        }
        was_up
    }

    /// Makes the receiver replace all connections, unless it has done so already. Nothing is
    /// published until then.
    pub(super) fn lose(&self, session: u64, loss: Loss) {
        if session != 0 && self.session.compare_exchange(session, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.suspend();
            *self.loss.lock() = Some(loss);
            self.wake();
        }
    }

    pub(super) fn add(&self, task: PeerTask<Arc<ClientLink>>) {
        let is_first = self.tasks.lock().add(task);
        if is_first {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the bus cannot be woken: {error}");
        }
    }

    pub(super) fn stage(&self) -> BusStage {
        *self.stage.lock()
    }

    pub(super) fn set_stage(&self, next: BusStage) {
        let mut stage = self.stage.lock();
        *stage = next.max(*stage);
        self.changed.notify_all();
    }

    pub(super) fn wait_until_up(&self, by: Instant) {
        let mut stage = self.stage.lock();
        while !self.up.load(Ordering::Acquire) && *stage == BusStage::Running {
            if self.changed.wait_until(&mut stage, by).timed_out() {
                return;
            }
        }
    }

    /// The connections of this session work.
    pub(super) fn set_up(&self, session: u64) {
        *self.commanded.lock() = Some(Instant::now());
        self.session.store(session, Ordering::Release);
        self.resume();
    }

    /// Redis answers.
    pub(super) fn resume(&self) {
        let _stage = self.stage.lock();
        self.away.store(false, Ordering::Release);
        self.up.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// This node is no longer subscribed to its own channel, because it shuts down.
    pub(super) fn forget_session(&self) {
        self.session.store(0, Ordering::Release);
    }

    /// The connections no longer work, or there are no subscriptions any more.
    pub(super) fn set_down(&self, is_away: bool) {
        self.session.store(0, Ordering::Release);
        self.away.store(is_away, Ordering::Release);
        self.up.store(false, Ordering::Release);
    }
}

impl Courier for RedisCore {
    fn is_open(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    fn post(&self, posts: &[Post<'_>]) -> Result<Vec<Published>, NotSent> {
        let mut pipeline = redis::pipe();
        for Post { topic, payload, .. } in posts {
            pipeline.cmd("PUBLISH").arg(self.names.channel(*topic)).arg(payload);
        }
        match self.publish(|connection| pipeline.query::<Vec<u32>>(connection)) {
            Ok(counts) => Ok(counts.into_iter().map(Published::to).collect()),
            Err(RedisFailure::InDoubt(_)) => Ok(vec![Published::InDoubt; posts.len()]),
            Err(_) => Err(NotSent),
        }
    }
}

/// How long a publication waits for a connection before its messages go to the store.
const POOL_PATIENCE: Duration = Duration::from_secs(1);
