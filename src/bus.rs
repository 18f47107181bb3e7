//! Reaching other nodes.

use std::time::Duration;

use crate::delivery::Delivery;

pub mod local;

/// The way to the other nodes of the cluster. Its calls may block, so only lanes make them.
pub trait Bus: Send + Sync + 'static {
    /// One word or two for the log: which bus this is.
    fn describe(&self) -> String;

    /// Offers deliveries to the nodes that have their recipients; returns those that no node has taken, in the order
    /// given.
    fn publish(&self, deliveries: Vec<Delivery>) -> Vec<Delivery>;

    /// Whether messages to other nodes arrive there, as far as is known. Does not block; any thread.
    fn is_ready(&self) -> bool {
        true
    }

    /// How long ago the last message of this node to itself came back; `None` for a bus that needs no such probe, or
    /// when none has come yet. Does not block; any thread.
    fn probe_age(&self) -> Option<Duration> {
        None
    }
}
