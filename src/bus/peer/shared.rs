//! [`PeerShared`]: the state that the callers of a bus and the thread that drives its peer share.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::gate::Gate;
use super::tasks::{PeerTask, PeerTasks};
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::session::Outcome;

/// Tasks from the node for the thread that drives its peer.
type NodeTasks = PeerTasks<Arc<ClientLink>>;

/// See the [module](self). Any thread may call it.
pub(crate) struct PeerShared {
    node: Box<str>,
    gate: Gate,
    tasks: Mutex<NodeTasks>,
    stage: Mutex<BusStage>,
    /// Notified when the gate opens or `stage` changes.
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The progress of the bus's shutdown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum BusStage {
    Running,
    /// Stop receiving.
    Hushing,
    /// No more messages arrive.
    Hushed,
    /// Send what is left, and end.
    Stopping,
}

impl PeerShared {
    /// The state of the node with this name. `wake` makes the thread that drives the peer look at
    /// its tasks and at the stage.
    pub(crate) fn new(node: &str, wake: impl Fn() + Send + Sync + 'static) -> PeerShared {
        PeerShared {
            node: node.into(),
            gate: Gate::new(),
            tasks: Mutex::new(PeerTasks::new()),
            stage: Mutex::new(BusStage::Running),
            changed: Condvar::new(),
            threads: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    /// The node's name in the cluster.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn tasks(&self) -> &Mutex<NodeTasks> {
        &self.tasks
    }

    /// Queues a task.
    pub(crate) fn add(&self, task: PeerTask<Arc<ClientLink>>) {
        let is_first = self.tasks.lock().add(task);
        if is_first {
            self.wake();
        }
    }

    /// Queues a subscription, or notifies the waiter immediately if that is impossible.
    pub(super) fn subscribe(&self, user: UserId, waiter: Option<&Arc<ClientLink>>) {
        let added = self.tasks.lock().subscribe(user, waiter.cloned());
        match added {
            Ok(true) => self.wake(),
            Ok(false) => {}
            Err(waiter) => post_placed(waiter.into_iter().collect()),
        }
    }

    /// Makes the thread that drives the peer take a turn.
    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// Notes that a command has failed: nothing is sent until a probe has come back.
    pub(crate) fn on_failure(&self) {
        // Before its connection is up, and after it has ended, the node would send no probe.
        if self.gate.shut() {
            self.add(PeerTask::Probe);
        }
    }

    /// Notes that the connection is about to be replaced: nothing is sent until the new one is up.
    pub(crate) fn on_doubt(&self) {
        self.gate.shut();
    }

    /// Notes that a probe has come back.
    pub(super) fn on_open(&self) {
        let _stage = self.stage.lock();
        self.gate.open();
        self.changed.notify_all();
    }

    /// Notes that there is no connection. A node that shuts down then receives nothing more.
    pub(super) fn on_closed(&self) {
        self.gate.lose();
        if self.stage() == BusStage::Hushing {
            self.advance(BusStage::Hushed);
        }
    }

    /// Notes that the node has stopped gracefully.
    pub(super) fn on_stopped(&self) {
        self.gate.release();
    }

    pub(crate) fn stage(&self) -> BusStage {
        *self.stage.lock()
    }

    /// Advances to a stage, unless a later one is reached.
    pub(crate) fn advance(&self, next: BusStage) {
        let mut stage = self.stage.lock();
        *stage = next.max(*stage);
        self.changed.notify_all();
    }

    /// Waits for this stage until `by`; returns whether it is reached.
    pub(crate) fn wait_for(&self, awaited: BusStage, by: Instant) -> bool {
        let mut stage = self.stage.lock();
        while *stage < awaited && !self.changed.wait_until(&mut stage, by).timed_out() {}
        *stage >= awaited
    }

    /// Waits until envelopes may be published, the node shuts down, or `by` has come.
    pub(crate) fn wait_until_open(&self, by: Instant) {
        let mut stage = self.stage.lock();
        while !self.gate.is_open() && *stage == BusStage::Running {
            if self.changed.wait_until(&mut stage, by).timed_out() {
                return;
            }
        }
    }

    /// Starts a thread that the process cannot do without.
    ///
    /// # Errors
    ///
    /// If the system cannot start it.
    pub(crate) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || pool::vital(work))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Waits for the threads to end, until `by` at most.
    pub(super) fn join(&self, by: Instant) {
        for thread in self.threads.lock().drain(..) {
            // A thread that waits for another program ends with the process at the latest.
            pool::join_until(thread, by);
        }
    }
}

/// Notifies clients that need not wait any longer until other nodes know of their login.
pub(super) fn post_placed(waiters: Vec<Arc<ClientLink>>) {
    let posts = waiters.into_iter().map(|link| (link, Posted::Outcome(Outcome::Placed)));
    ClientLink::post_all(posts.collect());
}

#[cfg(test)]
impl PeerShared {
    pub(crate) fn has_tasks(&self) -> bool {
        !self.tasks.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_does_not_go_back_to_an_earlier_stage() {
        let shared = PeerShared::new("a", || {});
        for (next, reached) in [
            (BusStage::Hushing, BusStage::Hushing),
            (BusStage::Stopping, BusStage::Stopping),
            // The thread may notice late that nothing arrives any more.
            (BusStage::Hushed, BusStage::Stopping),
        ] {
            shared.advance(next);
            assert_eq!(shared.stage(), reached);
        }
    }
}
