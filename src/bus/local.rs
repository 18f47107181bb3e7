//! The bus of a node that is alone.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::news::DeviceNews;
use super::{BusHealth, Envelope, Exchange, Neighbours, Node, Published, Publisher, Receipt, ReferenceNodes};
use super::{Register, Unreachable};
use crate::base::loads::PoolUse;
use crate::delivery::{ClientLink, Delivery};
use crate::protocol::{GroupId, UserId};

/// There are no other nodes, so nothing is taken.
#[derive(Debug)]
pub struct LocalBus;

impl Publisher for LocalBus {
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        vec![Published::ToNobody; envelopes.len()]
    }
}

/// Nothing arrives. Sessions of a node that is alone do not wait for a subscription.
impl Exchange for LocalBus {
    fn is_alone(&self) -> bool {
        true
    }

    fn start(&self, _: Arc<dyn Node>) -> io::Result<()> {
        Ok(())
    }

    fn hush(&self) {}

    fn stop(&self, _: Instant) {}

    fn subscribe(&self, _: UserId, _: Option<&Arc<ClientLink>>) {}

    fn unsubscribe(&self, _: UserId) {}

    fn refuse(&self, _: Receipt, _: usize) {}

    fn group_changed(&self, _: GroupId) {}

    fn tell_devices(&self, _: &[DeviceNews]) -> bool {
        true
    }

    fn own_name(&self) -> &str {
        ""
    }
}

impl Register for LocalBus {
    fn is_first(&self) -> bool {
        true
    }

    fn claim(&self, _: &[UserId]) -> Result<(), Unreachable> {
        Ok(())
    }

    fn disclaim(&self, _: &[UserId]) -> Result<(), Unreachable> {
        Ok(())
    }

    fn say_goodbye(&self) {}

    fn elsewhere(&self, _: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        Ok(Vec::new())
    }
}

impl ReferenceNodes for LocalBus {
    fn has_neighbours(&self) -> bool {
        false
    }

    fn publish_to_neighbours(&self, untaken: Vec<Delivery>, _: &dyn Fn(&[UserId]) -> Vec<UserId>) -> Neighbours {
        Neighbours { taken: Vec::new(), untaken }
    }
}

impl BusHealth for LocalBus {
    fn describe(&self) -> String {
        "in-process".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn probe_age(&self) -> Option<Duration> {
        None
    }

    fn connections(&self) -> Option<PoolUse> {
        None
    }
}
