//! The bus of a cluster, on a real Redis or a real Redis Cluster. Its nodes only record their
//! events.

mod cluster;
mod envelopes;
mod faults;
mod neighbours;
mod peer;
