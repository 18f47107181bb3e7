//! Blocking work, away from the event loops. This crate knows neither sockets nor chat.
//!
//! - [`Workers`]: a fixed number of threads for independent jobs.
//! - [`Lanes`]: ordered queues whose items are handled in batches.
//! - [`ConnectionPool`]: connections to a database.
//! - [`RedisPool`]: connections to Redis.
//! - [`Outage`]: a failure is logged once when it begins, and once when it is over.
//! - [`vital`]: marks a thread whose panic must end the process.
//!
//! Workers and pools are bounded and report when they are full; the caller decides what to do then.
//! The caller also limits the content of the lanes, because the caller knows the owner of each
//! item. A job that panics is logged and ends alone.

#![warn(missing_docs)]

mod connections;
mod lanes;
mod outage;
mod redis;
mod vital;
mod workers;

pub use connections::{ConnectionPool, NoConnection, OpenFailure, PoolSizes, Pooled};
#[cfg(feature = "simulation")]
pub use lanes::ManualLane;
pub use lanes::{Again, BatchMax, LaneHold, LaneLoad, Lanes, LanesClosed, LanesWatch, Standing, lane_of};
pub use outage::{Lasted, Outage};
pub use redis::{
    RedisConnection, RedisFailure, RedisPool, RedisPoolSettings, RedisStream, TimedSocket, without_arguments,
};
pub use vital::{become_vital, is_vital, vital};
pub use workers::{Workers, WorkersFull, WorkersWatch, join_until};
