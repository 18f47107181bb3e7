//! [`NodeWatch`]: checks every second which other nodes run, and cleans up after dead ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool::{Outage, RedisFailure};

use super::host::RegistryHost;
use super::registry;
use crate::bus::Node;
use crate::bus::peer::BusStage;

/// A thread of its own, because its queries block.
pub(super) struct NodeWatch<H> {
    shared: Arc<H>,
    node: Arc<dyn Node>,
    is_registered: bool,
    /// The nodes without a subscription, each with the time at which that was first seen.
    silent: HashMap<String, Instant>,
    /// The time since which commands have failed.
    failing: Outage,
    /// The time since which Redis has taken no writes. It may outlast a failure of commands.
    unwritable: Outage,
    /// The time at which this node was last without Redis. The others were then too, and come back
    /// one after the other.
    was_away: Option<Instant>,
    rounds: WatchRounds,
    /// The time of the last check where connections lead.
    scouted: Instant,
}

/// Further checks, which a transport adds.
pub(super) struct WatchRounds {
    /// Part of each check.
    pub(super) look: Box<WatchLook>,
    /// Checks every two seconds where connections lead.
    pub(super) scout: Box<dyn Fn() + Send>,
}

type WatchLook = dyn FnMut(&dyn Node) -> Result<(), RedisFailure> + Send;

impl<H: RegistryHost> NodeWatch<H> {
    pub(super) fn new(shared: Arc<H>, node: Arc<dyn Node>, rounds: WatchRounds) -> NodeWatch<H> {
        NodeWatch {
            shared,
            node,
            is_registered: false,
            silent: HashMap::new(),
            failing: Outage::default(),
            unwritable: Outage::default(),
            was_away: None,
            rounds,
            scouted: Instant::now(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            if self.shared.peer().gate().is_open() {
                let result = self.look();
                self.tell(result.err());
                if self.scouted.elapsed() >= SCOUT_EVERY {
                    (self.rounds.scout)();
                    self.scouted = Instant::now();
                }
            } else {
                // A disconnected node cannot tell which others are silent.
                self.silent.clear();
                if self.is_registered {
                    self.was_away = Some(Instant::now());
                }
            }
            if self.rest() {
                return;
            }
        }
    }

    /// Waits for a second, or until the bus stops; returns whether it has stopped.
    fn rest(&self) -> bool {
        self.shared.peer().wait_for(BusStage::Stopping, Instant::now() + LOOK_EVERY)
    }

    fn look(&mut self) -> Result<(), RedisFailure> {
        let shared = self.shared.clone();
        let registered = registry::register(&*shared);
        match &registered {
            Ok(is_new) => {
                if std::mem::replace(&mut self.is_registered, true) && *is_new {
                    log::warn!("this node was not registered any more; it registers again");
                    self.node.on_rejoined();
                }
            }
            // The rest mostly reads.
            Err(failure) if failure.is_of_writes() => {}
            Err(_) => return registered.map(drop),
        }
        (self.rounds.look)(&*self.node)?;
        let mut others = registry::nodes(&*shared)?;
        others.retain(|other| **other != *shared.peer().node());
        let silent = registry::dead(&*shared, others)?;
        self.silent.retain(|node, _| silent.contains(node));
        let now = Instant::now();
        for node in silent {
            let since = *self.silent.entry(node.clone()).or_insert(now);
            let all_may_return = self.was_away.is_some_and(|at| now.duration_since(at) < RETURN_MAX);
            if now.duration_since(since) >= SILENCE_MAX && !all_may_return {
                self.bury(&node)?;
            }
        }
        registered.map(drop)
    }

    /// Sets the users of a dead node to offline.
    fn bury(&mut self, dead: &str) -> Result<(), RedisFailure> {
        if !registry::inherits(&*self.shared, dead)? {
            return Ok(());
        }
        let mut count = 0;
        let all_written = registry::users_of(&*self.shared, dead, &mut |users| {
            count += users.len();
            self.node.on_died(&users)
        })?;
        // Otherwise a node tries again later.
        if all_written {
            registry::forget(&*self.shared, dead)?;
            self.silent.remove(dead);
            log::warn!("node {dead} has died; its {count} users are set to offline unless they are on other nodes");
        }
        Ok(())
    }

    /// Logs one line when commands or writes begin to fail, and one when they work again.
    fn tell(&mut self, failure: Option<RedisFailure>) {
        match failure {
            None => {
                self.on_command();
                if let Some(lasted) = self.unwritable.end() {
                    log::warn!("Redis takes writes again after {lasted}");
                }
            }
            // Messages need no writes, so they still arrive.
            Some(failure) if failure.is_of_writes() => {
                self.on_command();
                if self.unwritable.begin() {
                    log::error!(
                        "Redis takes no writes: {failure}; messages arrive, but if a node dies now, the database shows its \
                         users as online until Redis takes writes again"
                    );
                }
            }
            // If the thread with the connections has noticed the outage, it logs it.
            Some(failure) => {
                if self.shared.peer().gate().is_open() && self.failing.begin() {
                    log::error!("commands to Redis fail: {failure}; messages for users of other nodes may be stored");
                }
            }
        }
    }

    fn on_command(&mut self) {
        self.shared.state().on_command();
        if let Some(lasted) = self.failing.end() {
            log::warn!("commands to Redis work again after {lasted}");
        }
    }
}

/// How long a node may be without a subscription before it counts as dead: longer than a reconnect
/// takes.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long other nodes may take to come back after this one.
const RETURN_MAX: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The interval between checks where connections lead: every second turn.
const SCOUT_EVERY: Duration = Duration::from_millis(1500);
