//! Reaching other nodes.

use crate::delivery::Delivery;

pub mod local;

/// The way to the other nodes of the cluster. Its calls may block, so only lanes make them.
pub trait Bus: Send + Sync + 'static {
    /// One word or two for the log: which bus this is.
    fn describe(&self) -> String;

    /// Offers deliveries to the nodes that have their recipients; returns those that no node has taken, in the order
    /// given.
    fn publish(&self, deliveries: Vec<Delivery>) -> Vec<Delivery>;
}
