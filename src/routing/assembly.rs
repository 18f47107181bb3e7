//! [`Routes`]: the router with the lanes behind it, put together.

use std::io;
use std::sync::Arc;

use pool::{Again, Lanes};

use super::backlog::Backlog;
use super::outbox::{OutItem, Outbox, Sorted};
use super::router::Router;
use super::services::Services;
use super::states::StateWriter;
use super::ways::{self, Ways};
use crate::base::threads::Threads;
use crate::delivery::{self, LaneItem};
use crate::metrics::{BatchStage, Metrics};
use crate::store::States;

/// A router, and the lanes that it puts messages into.
pub struct Routes {
    /// The router.
    pub router: Arc<Router>,
    /// The lane to other nodes, if there can be any.
    pub outbox: Option<Arc<Lanes<OutItem>>>,
    /// The lanes to the store.
    pub keepers: Arc<Lanes<LaneItem>>,
}

impl Routes {
    /// Starts the lanes and the bus. Envelopes hold at most `envelope_bytes_max` bytes.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(services: &Services, envelope_bytes_max: usize, threads: &mut impl Threads) -> io::Result<Routes> {
        let (store, bus) = (&services.store, &services.bus);
        let keepers = Arc::new(start_keepers(services, threads)?);
        let outbox = match bus.is_alone() {
            true => None,
            false => Some(start_outbox(services, &keepers, envelope_bytes_max, threads).map(Arc::new)?),
        };
        let states = StateWriter::new(store.states.clone(), bus.clone(), services.watchers.clone());
        threads.one(|| states.start())?;
        let router = Arc::new(Router::new(services.of_router(), Ways::new(outbox.clone(), keepers.clone()), states));
        if bus.is_first()
            && let Err(error) = store.states.get().and_then(States::set_all_offline)
        {
            log::error!("users of an earlier run may still be marked online: {error}");
        }
        bus.start(router.clone())?;
        Ok(Routes { router, outbox, keepers })
    }
}

/// The lanes to the store.
fn start_keepers(services: &Services, threads: &mut impl Threads) -> io::Result<Lanes<LaneItem>> {
    let (lanes, parts, spool) =
        (services.store.database.appenders(), services.of_store_lanes(), services.spool.clone());
    let keep = move |backlog: &mut Backlog, batch| backlog.handle(batch, parts.clock.now(), &parts);
    let begin = move |nth, panicked: Option<Backlog>| {
        let new = || Backlog::new(nth, lanes, &*spool);
        let backlog = panicked.map_or_else(new, |backlog| backlog.begin_again(&*spool));
        let first = backlog.begins();
        (backlog, first)
    };
    threads.lanes("lane", lanes, BATCH_MAX, begin, keep)
}

/// The lane to other nodes.
fn start_outbox(
    services: &Services,
    keepers: &Arc<Lanes<LaneItem>>,
    envelope_bytes_max: usize,
    threads: &mut impl Threads,
) -> io::Result<Lanes<OutItem>> {
    let (bus, clock, metrics) = (services.bus.clone(), services.clock.clone(), services.metrics.clone());
    let (keepers, again, tracer) = (keepers.clone(), keepers.clone(), services.tracer.clone());
    let publish = move |outbox: &mut Outbox, batch| {
        let sorted = outbox.handle(batch, &clock, &*bus);
        conclude(sorted, &metrics, &keepers)
    };
    let begin = move |_, panicked: Option<Outbox>| {
        let Some(outbox) = panicked else {
            return (Outbox::new(envelope_bytes_max).traced_by(tracer.clone()), None);
        };
        let (outbox, left) = outbox.begin_again();
        keep(left, &again);
        (outbox, None)
    };
    threads.lanes("lane-out", OUTBOXES, BATCH_MAX, begin, publish)
}

/// Counts a batch of the lane to other nodes, passes on the messages that no node takes, and
/// settles the confirmed ones. Returns the time of the lane's next call.
fn conclude(sorted: Sorted, metrics: &Metrics, keepers: &Lanes<LaneItem>) -> Option<Again> {
    metrics.published(sorted.published);
    metrics.confirmed(sorted.delivered.len());
    metrics.unconfirmed(sorted.unconfirmed);
    if sorted.published > 0 {
        metrics.batch(BatchStage::Publish, sorted.published);
    }
    keep(sorted.keep, keepers);
    delivery::settle_all(sorted.delivered, Ok(()));
    sorted.again.map(Again::After)
}

/// Hands items that no other node takes to the lanes to the store.
fn keep(items: Vec<LaneItem>, keepers: &Lanes<LaneItem>) {
    for item in items {
        // The item already has its room in the lanes, and keeps it.
        if ways::store(keepers, item).is_err() {
            log::error!("the server has stopped before a message could be stored");
        }
    }
}

/// One connection to Redis carries more than a node can send; more lanes would only make its
/// batches smaller.
const OUTBOXES: usize = 1;
/// The most messages in one transaction of a lane. A message waits for the batch before it, no
/// matter who sent that. Measured beside a flood of messages for offline users: half of another
/// sender's messages waited for more than 32 ms with 4,096, and for more than 11 ms with 1,024. But
/// 1,024 took a sixth more processor time for each stored message (SQLite, 2 cores).
const BATCH_MAX: usize = 2048;
