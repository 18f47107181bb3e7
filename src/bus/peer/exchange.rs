//! The traits of a bus that every transport gets, because they are the same for all of them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deadline::HUSH_PATIENCE;
use super::post::{announce_group, offer, tell_devices};
use super::shared::BusStage;
use super::tasks::PeerTask;
use super::transport::BusTransport;
use crate::bus::news::DeviceNews;
use crate::bus::{Envelope, Exchange, Node, Published, Publisher, Receipt};
use crate::delivery::ClientLink;
use crate::protocol::{GroupId, UserId};

impl<T: BusTransport> Publisher for T {
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        offer(self, envelopes)
    }
}

impl<T: BusTransport> Exchange for T {
    fn is_alone(&self) -> bool {
        false
    }

    fn start(&self, node: Arc<dyn Node>) -> io::Result<()> {
        self.drive(node)
    }

    fn hush(&self) {
        self.peer().advance(BusStage::Hushing);
        self.peer().wake();
        self.peer().wait_for(BusStage::Hushed, Instant::now() + HUSH_PATIENCE);
    }

    fn stop(&self, by: Instant) {
        self.peer().advance(BusStage::Stopping);
        self.peer().wake();
        self.peer().join(by.max(Instant::now() + STOP_PATIENCE));
    }

    fn subscribe(&self, user: UserId, waiter: Option<&Arc<ClientLink>>) {
        self.peer().subscribe(user, waiter);
    }

    fn unsubscribe(&self, user: UserId) {
        self.peer().add(PeerTask::Unsubscribe(user));
    }

    fn refuse(&self, receipt: Receipt, delivered: usize) {
        self.peer().add(PeerTask::Refuse(receipt, delivered));
    }

    fn group_changed(&self, group: GroupId) {
        announce_group(self, group);
    }

    fn tell_devices(&self, news: &[DeviceNews]) -> bool {
        tell_devices(self, news)
    }

    fn own_name(&self) -> &str {
        self.peer().node()
    }
}

/// The least time that the threads of a node get for their shutdown.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
