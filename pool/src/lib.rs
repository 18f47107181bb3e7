//! Blocking work, away from the event loops. It knows neither sockets nor chat.
//!
//! - [`Workers`]: fixed threads for jobs that have nothing to do with each other.
//! - [`Lanes`]: ordered queues whose items are handled in batches.
//! - [`RedisPool`]: connections to Redis.
//!
//! Both are bounded and say when they are full; what to do then is for the caller to decide. A job that panics is
//! reported and ends alone.

mod lanes;
mod redis;
mod workers;

pub use lanes::{Lanes, LanesFull};
pub use redis::{RedisFailure, RedisPool, RedisPoolSettings};
pub use workers::{Workers, WorkersFull, join_until};
