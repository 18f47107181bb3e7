//! [`Services`]: the parts that routing and the jobs use.

use std::sync::Arc;
use std::time::Duration;

use super::groups::GroupCache;
use super::quotas::Quotas;
use crate::admission::berths::Berths;
use crate::base::clock::Clock;
use crate::bus::Bus;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::outages::Outages;
use crate::store::spool::Spool;
use crate::store::{AppendOutcome, NewMessage, Store, StoreError};

/// The parts that messages pass, and their limits. Shared by all threads.
pub struct Services {
    /// The persistent data.
    pub store: Store,
    /// Where messages wait while the store is unavailable.
    pub spool: Arc<dyn Spool>,
    /// The other nodes.
    pub bus: Arc<dyn Bus>,
    /// The time.
    pub clock: Clock,
    /// Room for messages on their way to other nodes and to the store.
    pub berths: Arc<Berths>,
    /// The members of groups.
    pub groups: GroupCache,
    /// How much may be stored for each user.
    pub quotas: Quotas,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The failing kinds of calls to the store and to the spool.
    pub outages: Outages,
}

impl Services {
    /// For a server with these settings.
    pub fn new(config: &Config, store: Store, spool: Arc<dyn Spool>, bus: Arc<dyn Bus>, clock: Clock) -> Services {
        Services {
            groups: GroupCache::new((!bus.is_alone()).then_some(GROUP_LIFETIME)),
            store,
            spool,
            bus,
            clock,
            berths: Berths::new(config.lane_bytes_max),
            quotas: Quotas::new(config.mailbox_bytes_max),
            metrics: Arc::new(Metrics::new(config.loops)),
            outages: Outages::default(),
        }
    }

    /// Stores messages.
    ///
    /// # Errors
    ///
    /// The errors of the store.
    pub fn appended(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        let result = self.store.messages.get().and_then(|store| store.append(messages));
        self.outages.note("storing messages", result.as_ref().err());
        result
    }
}

/// How long cached members of a group are valid if nodes of the reference server may change them
/// without notice.
const GROUP_LIFETIME: Duration = Duration::from_secs(5);
