//! Blocking work, away from the event loops. It knows neither sockets nor chat.
//!
//! - [`Workers`]: fixed threads for jobs that have nothing to do with each other.
//! - [`Lanes`]: ordered queues whose items are handled in batches.
//! - [`ConnectionPool`]: connections to a database.
//! - [`RedisPool`]: connections to Redis.
//!
//! Workers and pools are bounded and say when they are full; what to do then is for the caller to decide. How much the lanes
//! hold, the caller bounds, because it knows whose each item is. A job that panics is reported and ends alone.

#![warn(missing_docs)]

mod connections;
mod lanes;
mod redis;
mod workers;

pub use connections::{ConnectionPool, NoConnection, OpenFailure, PoolSizes, Pooled};
#[cfg(feature = "simulation")]
pub use lanes::ManualLane;
pub use lanes::{Again, Held, LaneLoad, Lanes, LanesClosed, LanesWatch, Standing};
pub use redis::{RedisConnection, RedisFailure, RedisPool, RedisPoolSettings, RedisStream, Timed, without_arguments};
pub use workers::{Workers, WorkersFull, WorkersWatch, join_until};
