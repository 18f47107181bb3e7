//! The bus of a cluster: Redis publish/subscribe.
//!
//! Redis itself is the register of where users are: a node subscribes to the channels of exactly
//! its own users. So a message reaches only the nodes with a connection of its recipient, the
//! answer to `PUBLISH` is their number, and the subscriptions of a dead node end with its
//! connection. The protocol between nodes is in `bus/peer`; a channel carries one of its topics
//! (`names.rs`).
//!
//! ```text
//!   lane-out ── PUBLISH, pipelined, on pooled connections ──▶ Redis ──┬──▶ bus   (line.rs) of other nodes
//!   bus ─────── confirmations, probes, never waiting ───────▶         └──▶ reference nodes, by pattern
//!   bus-watch ─ who has died, who else is there (watch.rs)
//! ```
//! A node whose own probe does not come back in time closes its connections and reconnects. Until
//! it is connected, nothing is published, and messages for other nodes go to the store. A command
//! that fails makes the node send a probe immediately, and no other command is sent until the probe
//! is back: so a frozen Redis delays one call, and not every call. All connections lead to one
//! Redis, which is a primary (`scout.rs`). With a Redis Cluster, see [`cluster`].

mod cluster;
mod connector;
mod core;
mod dial;
mod ended;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod host;
mod line;
mod names;
mod neighbours;
mod reach;
mod reference_watch;
mod registry;
mod resolve;
mod scout;
mod sentinel;
mod sightings;
mod state;
mod survey;
mod watch;
mod wire;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use parking_lot::Mutex;
use pool::{RedisFailure, RedisPool, RedisPoolSettings};

pub use self::cluster::ClusterBus;
use self::connector::RedisConnector;
use self::core::RedisCore;
use self::dial::{CALL_TIMEOUT, Dialer};
pub use self::error::RedisError;
use self::host::{RegistryHost as _, START_PATIENCE, TRUSTED_FOR};
use self::names::Names;
use self::reference_watch::ReferenceWatch;
use self::sightings::Sightings;
use self::state::SessionState;
pub use self::survey::{Claims, Survey, survey};
use self::watch::{NodeWatch, WatchRounds};
use super::peer::{BusTransport, NotSent, PeerShared, PeerThread, Publication, Reached};
use super::{BusHealth, Neighbours, Node, ReferenceNodes, Register, Unreachable};
use crate::base::loads::PoolUse;
use crate::config::RedisSettings;
use crate::delivery::Delivery;
use crate::protocol::UserId;

/// A [`Bus`](super::Bus) through Redis.
pub struct RedisBus {
    shared: Arc<RedisCore>,
    /// The poll, until the thread that waits with it takes it.
    poll: Mutex<Option<Poll>>,
}

impl RedisBus {
    /// Checks that Redis is reachable and accepts the login.
    ///
    /// # Errors
    ///
    /// [`RedisError`] if it does not.
    pub fn open(settings: &RedisSettings) -> Result<RedisBus, RedisError> {
        let refuse = |cause: &dyn fmt::Display| RedisError::of(settings, cause);
        let dialer = Dialer::new(settings).map_err(|error| refuse(&error))?;
        dialer.connect().map_err(|error| refuse(&error))?;
        let poll = Poll::new().map_err(|error| refuse(&error))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(|error| refuse(&error))?;
        let sizes = RedisPoolSettings {
            size: settings.size,
            idle_timeout: settings.idle_timeout,
            wait_timeout: settings.wait_timeout,
            trusted_for: TRUSTED_FOR,
        };
        let node = format!("{:016x}", getrandom::u64().map_err(|error| refuse(&error))?);
        let wake = move || {
            if let Err(error) = waker.wake() {
                log::error!("the bus cannot be woken: {error}");
            }
        };
        let peer = Arc::new(PeerShared::new(&node, wake));
        let shared = Arc::new_cyclic(|shared: &Weak<RedisCore>| {
            let shared = shared.clone();
            let dial = move |by| match shared.upgrade() {
                Some(shared) => Ok(scout::dial(&shared, by)?),
                None => Err("this node has stopped".into()),
            };
            RedisCore {
                state: SessionState::new(peer.clone()),
                peer,
                names: Names::new(settings),
                dialer,
                pool: RedisPool::new(sizes, dial),
                neighbours: Sightings::new(),
            }
        });
        Ok(RedisBus { shared, poll: Mutex::new(Some(poll)) })
    }
}

impl BusTransport for RedisBus {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.shared.peer
    }

    fn drive(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let Some(poll) = self.poll.lock().take() else { return Ok(()) };
        let peer = &self.shared.peer;
        PeerThread::start(RedisConnector::new(self.shared.clone(), poll), peer, node.clone())?;
        let (core, mut reference) = (self.shared.clone(), ReferenceWatch::new(self.shared.clone()));
        let rounds = WatchRounds {
            look: Box::new(move |node| reference.look(node)),
            scout: Box::new(move || scout::look(&core, Instant::now() + CALL_TIMEOUT)),
        };
        let watch = NodeWatch::new(self.shared.clone(), node, rounds);
        peer.spawn("bus-watch", || watch.run())?;
        // The first clients find the other nodes, unless Redis has just become unreachable.
        peer.wait_until_open(Instant::now() + START_PATIENCE);
        // A node that starts after this one is not the first.
        let _ = registry::register(&*self.shared);
        let _ = neighbours::look(&self.shared);
        Ok(())
    }

    fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
        let mut pipeline = redis::pipe();
        for Publication { topic, payload, .. } in posts {
            pipeline.cmd("PUBLISH").arg(self.shared.names.channel(*topic)).arg(payload);
        }
        match self.shared.publish(|connection| pipeline.query::<Vec<u32>>(connection)) {
            Ok(counts) => Ok(counts.into_iter().map(Reached::Nodes).collect()),
            Err(RedisFailure::InDoubt(_)) => Ok(vec![Reached::Unknown; posts.len()]),
            Err(_) => Err(NotSent),
        }
    }
}

impl Register for RedisBus {
    fn is_first(&self) -> bool {
        registry::is_first(&*self.shared, || neighbours::count(&self.shared)).unwrap_or(false)
    }

    fn claim(&self, users: &[UserId]) -> Result<(), Unreachable> {
        registry::claim(&*self.shared, users).map_err(|_| Unreachable)
    }

    fn disclaim(&self, users: &[UserId]) -> Result<(), Unreachable> {
        registry::disclaim(&*self.shared, users).map_err(|_| Unreachable)
    }

    fn say_goodbye(&self) {
        if let Err(failure) = registry::forget(&*self.shared, self.shared.peer.node()) {
            log::debug!("the other nodes will find out that this one has gone: {failure}");
        }
    }

    fn elsewhere(&self, users: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        registry::subscribed(&*self.shared, users).map_err(|_| Unreachable)
    }
}

impl ReferenceNodes for RedisBus {
    fn has_neighbours(&self) -> bool {
        self.shared.neighbours.are_there()
    }

    fn publish_to_neighbours(
        &self,
        deliveries: Vec<Delivery>,
        online: &dyn Fn(&[UserId]) -> Vec<UserId>,
    ) -> Neighbours {
        let nobody = |untaken| Neighbours { taken: Vec::new(), untaken };
        if !self.has_neighbours() || !self.shared.peer.gate().is_open() {
            return nobody(deliveries);
        }
        let users: HashSet<UserId> = deliveries.iter().map(|delivery| delivery.to).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        // The register is read twice: before the states, for a user who is just leaving this node,
        // and after them, for one who is just arriving. If one of our nodes has just died or lost
        // its connection, its users are not with a neighbour.
        let Ok(before) = registry::unclaimed(&*self.shared, &users) else { return nobody(deliveries) };
        let online = online(&before.into_iter().collect::<Vec<_>>());
        let Ok(there) = registry::unclaimed(&*self.shared, &online) else { return nobody(deliveries) };
        let (offered, mut untaken): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| there.contains(&delivery.to));
        if offered.is_empty() {
            return nobody(untaken);
        }
        let are_taken = neighbours::publish(&self.shared, &offered).into_iter().chain(std::iter::repeat(false));
        let mut taken = Vec::new();
        for (delivery, is_taken) in offered.into_iter().zip(are_taken) {
            if is_taken { taken.push(delivery) } else { untaken.push(delivery) }
        }
        Neighbours { taken, untaken }
    }
}

impl BusHealth for RedisBus {
    fn describe(&self) -> String {
        let RedisCore { dialer, names, peer, .. } = &*self.shared;
        let cluster = names.installation().map(|name| format!(", cluster {name}")).unwrap_or_default();
        format!("Redis {}{cluster}, node {}", dialer.address(), peer.node())
    }

    fn is_ready(&self) -> bool {
        self.shared.state.is_ready()
    }

    fn probe_age(&self) -> Option<Duration> {
        self.shared.state.probe_age()
    }

    fn connections(&self) -> Option<PoolUse> {
        let (open, idle) = self.shared.pool.connections();
        Some(PoolUse { open, idle, max: self.shared.pool.size() })
    }
}

const WAKER: Token = Token(0);
