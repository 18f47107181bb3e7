//! [`NodeWatch`]: checks every second which other nodes run, and cleans up after dead ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pool::{Outage, RedisFailure};

use super::core::RedisCore;
use super::dial::CALL_TIMEOUT;
use super::{neighbours, registry, scout};
use crate::bus::Node;
use crate::bus::peer::BusStage;

/// A thread of its own, because its queries block.
pub(super) struct NodeWatch {
    shared: Arc<RedisCore>,
    node: Arc<dyn Node>,
    is_registered: bool,
    /// The nodes without a subscription, each with the time at which that was first seen.
    silent: HashMap<String, Instant>,
    /// The number of the reference server's nodes at the last check, and the time at which the last
    /// of them disappeared.
    neighbours: u32,
    alone_since: Option<Instant>,
    /// The time since which commands have failed.
    failing: Outage,
    /// The time at which this node was last without Redis. The others were then too, and come back
    /// one after the other.
    was_away: Option<Instant>,
    /// The time of the last check where a new connection leads.
    scouted: Instant,
}

impl NodeWatch {
    pub(super) fn new(shared: Arc<RedisCore>, node: Arc<dyn Node>) -> NodeWatch {
        NodeWatch {
            shared,
            node,
            is_registered: false,
            silent: HashMap::new(),
            neighbours: 0,
            alone_since: None,
            failing: Outage::default(),
            was_away: None,
            scouted: Instant::now(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            if self.shared.peer.gate().is_open() {
                let result = self.look();
                self.tell(result.err());
                if self.scouted.elapsed() >= SCOUT_EVERY {
                    scout::look(&self.shared, Instant::now() + CALL_TIMEOUT);
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
        self.shared.peer.wait_for(BusStage::Stopping, Instant::now() + LOOK_EVERY)
    }

    fn look(&mut self) -> Result<(), RedisFailure> {
        let shared = self.shared.clone();
        let is_new = registry::register(&shared)?;
        if std::mem::replace(&mut self.is_registered, true) && is_new {
            log::warn!("this node was not registered any more; it registers again");
            self.node.on_rejoined();
        }
        self.look_for_neighbours()?;
        let mut others = registry::nodes(&shared)?;
        others.retain(|other| **other != *shared.peer.node());
        let silent = registry::dead(&shared, others)?;
        self.silent.retain(|node, _| silent.contains(node));
        let now = Instant::now();
        for node in silent {
            let since = *self.silent.entry(node.clone()).or_insert(now);
            let all_may_return = self.was_away.is_some_and(|at| now.duration_since(at) < RETURN_MAX);
            if now.duration_since(since) >= SILENCE_MAX && !all_may_return {
                self.bury(&node)?;
            }
        }
        Ok(())
    }

    /// Checks for nodes of the reference server, and sets their users to offline when the last one
    /// has gone. While one runs, no node of ours knows which users it has.
    fn look_for_neighbours(&mut self) -> Result<(), RedisFailure> {
        let shared = self.shared.clone();
        let before = self.neighbours;
        let (count, were_there) = neighbours::look(&shared)?;
        self.neighbours = count;
        if count > 0 {
            self.alone_since = None;
            if !were_there || before == 0 {
                log::info!("nodes of the reference server are connected: {count}");
            } else if count < before {
                log::warn!(
                    "a node of the reference server has stopped, {count} still run: messages for users whom it \
                        has left marked online are lost until server migrate --reset-states"
                );
            }
            return neighbours::remember(&shared);
        }
        if were_there {
            log::info!("the last node of the reference server has stopped");
        }
        if !neighbours::are_remembered(&shared)? {
            self.alone_since = None;
            return Ok(());
        }
        // A node that comes back soon has only been restarted.
        if self.alone_since.get_or_insert_with(Instant::now).elapsed() < SILENCE_MAX {
            return Ok(());
        }
        // With many users this takes longer than a check should.
        let on_page = &mut || *shared.commanded.lock() = Some(Instant::now());
        if let Some(users) = neighbours::bury(&shared, &*self.node, on_page)? {
            log::info!(
                "nodes of the reference server have left {users} users marked online: these are set to \
                offline now"
            );
        }
        Ok(())
    }

    /// Sets the users of a dead node to offline.
    fn bury(&mut self, dead: &str) -> Result<(), RedisFailure> {
        if !registry::inherits(&self.shared, dead)? {
            return Ok(());
        }
        let mut count = 0;
        let all_written = registry::users_of(&self.shared, dead, &mut |users| {
            count += users.len();
            self.node.on_died(&users)
        })?;
        // Otherwise a node tries again later.
        if all_written {
            registry::forget(&self.shared, dead)?;
            self.silent.remove(dead);
            log::warn!("node {dead} has died; its {count} users are set to offline unless they are on other nodes");
        }
        Ok(())
    }

    /// Logs one line when commands begin to fail, and one when they work again.
    fn tell(&mut self, failure: Option<RedisFailure>) {
        match failure {
            None => {
                *self.shared.commanded.lock() = Some(Instant::now());
                if let Some(lasted) = self.failing.end() {
                    log::warn!("commands to Redis work again after {lasted}");
                }
            }
            // If the thread with the connections has noticed the outage, it logs it.
            Some(failure) => {
                if self.shared.peer.gate().is_open() && self.failing.begin() {
                    log::error!("commands to Redis fail: {failure}; messages for users of other nodes may be stored");
                }
            }
        }
    }
}

/// How long a node may be without a subscription before it counts as dead: longer than a reconnect
/// takes.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long other nodes may take to come back after this one.
const RETURN_MAX: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The interval between checks where a new connection leads: every second turn.
const SCOUT_EVERY: Duration = Duration::from_millis(1500);
