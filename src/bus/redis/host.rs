//! [`RegistryHost`]: the Redis that holds the register of nodes and users. It is the only one, or a
//! primary of a Redis Cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pool::RedisFailure;
use redis::RedisResult;

use super::names::Names;
use super::reach::{CALL_TIMEOUT, CommandConnection};
use super::state::SessionState;
use crate::bus::peer::PeerShared;

/// See the [module](self).
pub(super) trait RegistryHost: Send + Sync + 'static {
    /// The state that callers of the bus share with the thread that drives the peer.
    fn peer(&self) -> &Arc<PeerShared>;

    fn names(&self) -> &Names;

    fn state(&self) -> &SessionState;

    /// Runs `work` on a pooled connection, until `by` at most. In a Redis Cluster, `work` must be a
    /// single command, because the next key may be at another server. If the connection fails, no
    /// other command is sent there until Redis has answered again.
    fn run_by<T>(
        &self,
        by: Instant,
        work: impl Fn(&mut CommandConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFailure>;

    /// The number of subscribers of each channel, among the nodes of this server.
    fn listeners(&self, channels: &[String]) -> Result<Vec<u32>, RedisFailure>;

    /// Like [`RegistryHost::run_by`], within the usual time.
    fn run<T>(&self, work: impl Fn(&mut CommandConnection) -> RedisResult<T>) -> Result<T, RedisFailure> {
        self.run_by(Instant::now() + CALL_TIMEOUT, work)
    }

    /// Like [`RegistryHost::run`], but waits longer for a connection: publishing should not fail
    /// only because all connections are in use.
    fn publish<T>(&self, work: impl Fn(&mut CommandConnection) -> RedisResult<T>) -> Result<T, RedisFailure> {
        let patience = Instant::now() + POOL_PATIENCE;
        let by = Instant::now() + CALL_TIMEOUT;
        loop {
            match self.run_by(by, &work) {
                Err(RedisFailure::Busy) if self.peer().gate().is_open() && Instant::now() < patience => {}
                result => return result,
            }
        }
    }
}

/// How long a publication waits for a connection before its messages go to the store.
pub(super) const POOL_PATIENCE: Duration = Duration::from_secs(1);
/// How long an idle connection is used without a `PING` first: as long as the shortest `timeout` of
/// Redis.
pub(super) const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long a start waits for the first probe.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(3);
