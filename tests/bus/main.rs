//! The bus of a cluster, on a real Redis. Its nodes only record their events.

mod envelopes;
mod faults;
mod neighbours;
mod peer;
