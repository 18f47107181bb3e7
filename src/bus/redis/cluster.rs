//! The bus of a cluster: sharded publish/subscribe of a Redis Cluster.
//!
//! A channel belongs to a slot, and a slot to one primary. A node subscribes to the channel of each
//! of its users at the primary of its slot, and others publish there. So the answer to `SPUBLISH`
//! counts all subscribers, as that of a single Redis does; the answer to `PUBLISH` would count
//! those at one server. The register of users has one slot, see [`names`](super::names).
//!
//! ```text
//!   lane-out ── SPUBLISH, pipelined, on pooled connections ──▶ primaries ──▶ bus (line.rs) of other nodes
//!   bus ─────── confirmations, probes, never waiting ────────▶
//!   bus-watch ─ who has died, and whether the primaries are still primaries (scout.rs)
//! ```
//! A node is connected to all primaries, or not connected: it confirms that a user is only here,
//! and may do so only if it hears every announcement. So the loss of one primary interrupts
//! messages between nodes until its replica is promoted; until then they are stored. Nodes of the
//! reference server do not take part.

mod connector;
mod core;
mod line;
mod pings;
mod post;
mod scout;
mod servers;
mod slots;
mod way;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use parking_lot::Mutex;
use pool::RedisPoolSettings;

use self::connector::ClusterConnector;
use self::core::ClusterCore;
pub(super) use self::core::listeners_on;
use self::scout::ClusterScout;
pub(super) use self::servers::ClusterServers;
pub(super) use self::slots::{SlotTable, slot_of};
use super::error::RedisError;
use super::host::{RegistryHost as _, START_PATIENCE, TRUSTED_FOR};
use super::names::Names;
use super::registry;
use super::watch::{NodeWatch, WatchRounds};
use crate::base::loads::PoolUse;
use crate::bus::peer::{BusTransport, NotSent, PeerShared, PeerThread, Publication, Reached};
use crate::bus::{BusHealth, Neighbours, Node, ReferenceNodes, Register, Unreachable};
use crate::config::{RedisSettings, ServerAddress};
use crate::delivery::Delivery;
use crate::protocol::UserId;

/// A [`Bus`](crate::bus::Bus) through a Redis Cluster.
pub struct ClusterBus {
    core: Arc<ClusterCore>,
    /// The place of the cluster, for the log.
    place: String,
    /// The poll, until the thread that waits with it takes it.
    poll: Mutex<Option<Poll>>,
}

impl ClusterBus {
    /// Finds the primaries of the cluster of which `named` are some servers.
    ///
    /// # Errors
    ///
    /// [`RedisError`] if none of these servers knows them.
    pub fn open(settings: &RedisSettings, named: &[ServerAddress]) -> Result<ClusterBus, RedisError> {
        let refuse = |cause: &dyn fmt::Display| RedisError::of(settings, cause);
        let servers = ClusterServers::new(settings, named).map_err(|error| refuse(&error))?;
        let poll = Poll::new().map_err(|error| refuse(&error))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(|error| refuse(&error))?;
        let node = format!("{:016x}", getrandom::u64().map_err(|error| refuse(&error))?);
        let wake = move || {
            if let Err(error) = waker.wake() {
                log::error!("the bus cannot be woken: {error}");
            }
        };
        let pools = RedisPoolSettings {
            size: settings.size,
            idle_timeout: settings.idle_timeout,
            wait_timeout: settings.wait_timeout,
            trusted_for: TRUSTED_FOR,
        };
        let peer = Arc::new(PeerShared::new(&node, wake));
        let core = ClusterCore::open(peer, Names::new(settings), servers, pools).map_err(|error| refuse(&error))?;
        Ok(ClusterBus { core, place: settings.place.to_string(), poll: Mutex::new(Some(poll)) })
    }
}

impl BusTransport for ClusterBus {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.core.peer
    }

    fn drive(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let Some(poll) = self.poll.lock().take() else { return Ok(()) };
        let (core, peer) = (self.core.clone(), &self.core.peer);
        PeerThread::start(ClusterConnector::new(core.clone(), self.place.clone(), poll), peer, node.clone())?;
        let (scout, scouted) = (ClusterScout::default(), core.clone());
        let rounds = WatchRounds { look: Box::new(|_| Ok(())), scout: Box::new(move || scout.look(&scouted)) };
        let watch = NodeWatch::new(core, node, rounds);
        peer.spawn("bus-watch", || watch.run())?;
        // The first clients find the other nodes, unless the cluster has just become unreachable.
        peer.wait_until_open(Instant::now() + START_PATIENCE);
        // A node that starts after this one is not the first.
        let _ = registry::register(&*self.core);
        Ok(())
    }

    fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
        post::post(&self.core, posts)
    }
}

impl Register for ClusterBus {
    fn is_first(&self) -> bool {
        registry::is_first(&*self.core, || Ok(0)).unwrap_or(false)
    }

    fn claim(&self, users: &[UserId]) -> Result<(), Unreachable> {
        registry::claim(&*self.core, users).map_err(|_| Unreachable)
    }

    fn disclaim(&self, users: &[UserId]) -> Result<(), Unreachable> {
        registry::disclaim(&*self.core, users).map_err(|_| Unreachable)
    }

    fn say_goodbye(&self) {
        if let Err(failure) = registry::forget(&*self.core, self.core.peer.node()) {
            log::debug!("the other nodes will find out that this one has gone: {failure}");
        }
    }

    fn elsewhere(&self, users: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        registry::subscribed(&*self.core, users).map_err(|_| Unreachable)
    }
}

/// Nodes of the reference server subscribe to a pattern, which no sharded channel reaches.
impl ReferenceNodes for ClusterBus {
    fn has_neighbours(&self) -> bool {
        false
    }

    fn publish_to_neighbours(&self, untaken: Vec<Delivery>, _: &dyn Fn(&[UserId]) -> Vec<UserId>) -> Neighbours {
        Neighbours { taken: Vec::new(), untaken }
    }
}

impl BusHealth for ClusterBus {
    fn describe(&self) -> String {
        let cluster = self.core.names.installation().map(|name| format!(", cluster {name}")).unwrap_or_default();
        format!("{}{cluster}, node {}", self.place, self.core.peer.node())
    }

    fn is_ready(&self) -> bool {
        self.core.state().is_ready()
    }

    fn probe_age(&self) -> Option<Duration> {
        self.core.state().probe_age()
    }

    fn connections(&self) -> Option<PoolUse> {
        let shards = self.core.shards();
        let pools = shards.primaries.iter().map(|primary| &primary.pool);
        Some(pools.fold(PoolUse { open: 0, idle: 0, max: 0 }, |sum, pool| {
            let (open, idle) = pool.connections();
            PoolUse { open: sum.open + open, idle: sum.idle + idle, max: sum.max + pool.size() }
        }))
    }
}

const WAKER: Token = Token(0);
