//! Redundant services: a Galera cluster, a primary with a replica, Redis with Sentinel, a Redis
//! Cluster, two nginx. While two nodes serve users of level 2, one process of a service is killed,
//! frozen or cut off. No acknowledged message may be lost, and messages must arrive again without
//! help.
//!
//! `cargo test --test availability -- --nocapture` shows how long that takes.

mod frozen;
mod galera;
mod nginx;
mod replica;
mod sentinel;
mod sharded;
mod talk;
