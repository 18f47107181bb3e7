//! [`Watch`]: looks every second who else is there, and after nodes that have died.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pool::RedisFailure;

use super::{Shared, Task, registry};
use crate::bus::Node;

/// A thread of its own, because its questions block.
pub(super) struct Watch {
    shared: Arc<Shared>,
    node: Arc<dyn Node>,
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>, node: Arc<dyn Node>) -> Watch {
        Watch { shared, node }
    }

    pub(super) fn run(self) {
        while !self.rest() {
            if self.shared.up.load(Ordering::Acquire)
                && let Err(failure) = self.look()
            {
                log::debug!("looking for other nodes: {failure}");
            }
        }
    }

    /// Waits for a second, or until the bus stops, which it returns.
    fn rest(&self) -> bool {
        let (mut stopping, by) = (self.shared.stopping.lock(), Instant::now() + LOOK_EVERY);
        while !*stopping && !self.shared.changed.wait_until(&mut stopping, by).timed_out() {}
        *stopping
    }

    fn look(&self) -> Result<(), RedisFailure> {
        let shared = &self.shared;
        let patterns = registry::patterns(shared)?;
        if shared.has_neighbours.swap(patterns > 0, Ordering::AcqRel) != (patterns > 0) {
            match patterns {
                0 => log::info!("the last node of the reference server has left"),
                _ => log::info!("nodes of the reference server listen: {patterns}"),
            }
        }
        let mut others = registry::nodes(shared)?;
        let registered = others.len();
        others.retain(|other| *other != shared.node);
        if others.len() == registered {
            // Somebody took this node for dead, or emptied Redis.
            shared.add(Task::Check);
        }
        for dead in registry::dead(shared, others)? {
            self.bury(&dead)?;
        }
        Ok(())
    }

    /// Sees to it that nobody is online because of a node that no longer is.
    fn bury(&self, dead: &str) -> Result<(), RedisFailure> {
        if !registry::inherits(&self.shared, dead)? {
            return Ok(());
        }
        let mut count = 0;
        registry::users_of(&self.shared, dead, &mut |users| {
            count += users.len();
            users.into_iter().for_each(|user| self.node.on_left(user));
        })?;
        registry::forget(&self.shared, dead)?;
        log::warn!("node {dead} is gone without a word; its {count} users are offline unless they are elsewhere");
        Ok(())
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
