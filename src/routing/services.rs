//! The parts of the server that handle messages, grouped by the caller that uses them. Only an
//! assembly has [`Services`], which are all of them. A lane to the store takes [`StoreLaneParts`],
//! the router [`RouterParts`], and each job the parts that it names itself.

use std::sync::Arc;
use std::time::Duration;

use super::audience::Audience;
use super::blocks::Blocks;
use super::groups::GroupCache;
use super::level1_seen::Level1Seen;
use super::quotas::Quotas;
use super::watchers::Watchers;
use crate::admission::berths::Berths;
use crate::base::clock::Clock;
use crate::base::trace::Tracer;
use crate::bus::{Bus, Exchange, Neighbours, ReferenceNodes};
use crate::config::{Config, RecordingScope};
use crate::delivery::Delivery;
use crate::metrics::Metrics;
use crate::protocol::UserId;
use crate::store::history::HistoryRole;
use crate::store::outages::Outages;
use crate::store::spool::Spool;
use crate::store::{AppendOutcome, Database, Messages, NewMessage, Role, States, Store, StoreError};

/// All parts, for an assembly. All of them are shared.
pub struct Services {
    /// The persistent data.
    pub store: Store,
    /// The messages that wait while the store is unavailable.
    pub spool: Arc<dyn Spool>,
    /// The other nodes.
    pub bus: Arc<dyn Bus>,
    /// The time.
    pub clock: Clock,
    /// Room for messages on their way to other nodes and to the store.
    pub berths: Arc<Berths>,
    /// The members of groups.
    pub groups: Arc<GroupCache>,
    /// The limits of stored messages for each user.
    pub quotas: Arc<Quotas>,
    /// The users of level 2 who still use level 1.
    pub level1_seen: Arc<Level1Seen>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// The pairs of a user and another whom that user has blocked.
    pub blocks: Arc<Blocks>,
    /// The connections that watch which users come and go.
    pub watchers: Arc<Watchers>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The failing kinds of calls to the store and to the spool.
    pub outages: Arc<Outages>,
    /// Traces the ways of messages.
    pub tracer: Arc<Tracer>,
}

impl Services {
    /// The parts of a server with these settings.
    pub fn new(config: &Config, mut store: Store, spool: Arc<dyn Spool>, bus: Arc<dyn Bus>, clock: Clock) -> Services {
        let outages = Arc::<Outages>::default();
        if config.recorded == RecordingScope::Nothing {
            store.history = HistoryRole::of(None);
        }
        Services {
            level1_seen: Arc::new(Level1Seen::new(store.history.clone(), outages.clone(), clock.clone())),
            groups: Arc::new(GroupCache::new((!bus.is_alone()).then_some(GROUP_LIFETIME))),
            watchers: Arc::new(Watchers::new(bus.is_alone())),
            store,
            spool,
            bus,
            clock,
            berths: Berths::new(config.lane_bytes_max),
            quotas: Arc::new(Quotas::new(config.mailbox_bytes_max)),
            audience: Arc::new(Audience::new(config.recorded)),
            blocks: Arc::default(),
            metrics: Arc::new(Metrics::new(config.loops)),
            outages,
            tracer: Arc::new(Tracer::new(config.trace, config.trace_bytes)),
        }
    }

    /// The parts that the lanes to the store use.
    pub fn of_store_lanes(&self) -> StoreLaneParts {
        StoreLaneParts {
            messages: self.store.messages.clone(),
            states: self.store.states.clone(),
            database: self.store.database.clone(),
            spool: self.spool.clone(),
            reference_nodes: self.bus.clone(),
            clock: self.clock.clone(),
            quotas: self.quotas.clone(),
            metrics: self.metrics.clone(),
            outages: self.outages.clone(),
            tracer: self.tracer.clone(),
        }
    }

    /// The parts that the router uses.
    pub fn of_router(&self) -> RouterParts {
        RouterParts {
            bus: self.bus.clone(),
            berths: self.berths.clone(),
            groups: self.groups.clone(),
            states: self.store.states.clone(),
            audience: self.audience.clone(),
            blocks: self.blocks.clone(),
            watchers: self.watchers.clone(),
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
        }
    }
}

/// The parts that a lane to the store uses.
pub struct StoreLaneParts {
    /// Stored messages.
    pub messages: Role<dyn Messages>,
    /// The users whose `User.state` says online.
    pub states: Role<dyn States>,
    /// Whether the database works.
    pub database: Arc<dyn Database>,
    /// Keeps messages while the store is unavailable.
    pub spool: Arc<dyn Spool>,
    /// Nodes that take messages before they are stored.
    pub reference_nodes: Arc<dyn ReferenceNodes>,
    /// The clock that measures queries to the store.
    pub clock: Clock,
    /// The limits of stored messages for each user.
    pub quotas: Arc<Quotas>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The failing kinds of calls to the store and to the spool.
    pub outages: Arc<Outages>,
    /// Traces the ways of messages.
    pub tracer: Arc<Tracer>,
}

impl StoreLaneParts {
    /// Stores messages.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        let result = self.messages.get().and_then(|store| store.append(messages));
        self.outages.note("storing messages", result.as_ref().err());
        result
    }

    /// Offers messages to nodes of the reference server, and returns which of them are taken.
    pub fn offer_to_neighbours(&self, deliveries: Vec<Delivery>) -> Neighbours {
        // While the store is unreachable, no user counts as online there.
        let online = |users: &[UserId]| self.states.get().and_then(|store| store.online(users)).unwrap_or_default();
        let offered = self.reference_nodes.publish_to_neighbours(deliveries, &online);
        self.metrics.published(offered.taken.len());
        offered
    }
}

/// The parts that the router uses.
pub struct RouterParts {
    /// The other nodes.
    pub bus: Arc<dyn Exchange>,
    /// Room for messages on their way to other nodes and to the store.
    pub berths: Arc<Berths>,
    /// The members of groups.
    pub groups: Arc<GroupCache>,
    /// The users whose `User.state` says online.
    pub states: Role<dyn States>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// The blocked users, as other nodes report them.
    pub blocks: Arc<Blocks>,
    /// The connections that watch which users come and go.
    pub watchers: Arc<Watchers>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Traces the ways of messages.
    pub tracer: Arc<Tracer>,
}

/// How long cached members of a group are valid if nodes of the reference server may change them
/// without notice.
const GROUP_LIFETIME: Duration = Duration::from_secs(5);
