//! The bus of a node that is alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Bus, Envelope, Neighbours, Node, Published, Receipt, Unreachable};
use crate::delivery::{ClientLink, Delivery};
use crate::protocol::{GroupId, UserId};

/// No other node is there, so nobody takes anything.
#[derive(Debug)]
pub struct LocalBus;

impl Bus for LocalBus {
    fn describe(&self) -> String {
        "in-process".into()
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn is_first(&self) -> bool {
        true
    }

    fn start(&self, _: Arc<dyn Node>) -> io::Result<()> {
        Ok(())
    }

    fn stop(&self) {}

    fn subscribe(&self, _: UserId, _: Option<&Arc<ClientLink>>) {}

    fn unsubscribe(&self, _: UserId) {}

    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        vec![Published::ToNobody; envelopes.len()]
    }

    fn refuse(&self, _: Receipt, _: usize) {}

    fn publish_to_neighbours(&self, untaken: Vec<Delivery>, _: &dyn Fn(&[UserId]) -> Vec<UserId>) -> Neighbours {
        Neighbours { taken: Vec::new(), untaken }
    }

    fn elsewhere(&self, _: &[UserId]) -> Result<Vec<UserId>, Unreachable> {
        Ok(Vec::new())
    }

    fn group_changed(&self, _: GroupId) {}

    fn is_ready(&self) -> bool {
        true
    }

    fn probe_age(&self) -> Option<Duration> {
        None
    }
}
