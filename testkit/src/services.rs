//! The real services that a cluster uses: MariaDB, Redis and nginx, as child processes that a test
//! may kill, freeze and start again. They listen on 127.0.0.1 and store everything in temporary
//! folders.

mod galera;
mod mariadb;
mod nginx;
mod process;
mod redis;
mod replicas;
mod sharded;
mod switch;
mod watched;

pub use galera::Galera;
pub use mariadb::{Database, MariaDb};
pub use nginx::Nginx;
pub use process::free_port;
pub use redis::Redis;
pub(crate) use redis::RedisUse;
pub use replicas::Replicas;
pub use sharded::ShardedRedis;
pub use switch::Switch;
pub use watched::{Sentinel, WatchedRedis};
