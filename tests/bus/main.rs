//! The bus of a cluster, on a real Redis, with nodes that only record their events.

mod envelopes;
mod faults;
mod neighbours;
mod peer;
