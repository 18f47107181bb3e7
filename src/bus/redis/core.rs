//! [`RedisCore`]: the state that the threads of the bus and its callers share.

use std::sync::Arc;
use std::time::Instant;

use pool::{RedisFailure, RedisPool};
use redis::RedisResult;

use super::dial::{Blocking, CommandConnection, Dialer};
use super::ended::Loss;
use super::host::RegistryHost;
use super::names::Names;
use super::sightings::Sightings;
use super::state::SessionState;
use crate::bus::peer::PeerShared;

/// The state that the threads of the bus and its callers share.
pub(super) struct RedisCore {
    /// The state that callers of the bus share with the thread that drives the peer.
    pub(super) peer: Arc<PeerShared>,
    pub(super) names: Names,
    pub(super) dialer: Dialer,
    pub(super) pool: RedisPool<Blocking>,
    pub(super) state: SessionState,
    pub(super) neighbours: Sightings,
}

impl RegistryHost for RedisCore {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.peer
    }

    fn names(&self) -> &Names {
        &self.names
    }

    fn state(&self) -> &SessionState {
        &self.state
    }

    fn run_by<T>(
        &self,
        by: Instant,
        work: impl Fn(&mut CommandConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        if self.peer.gate().is_shut() {
            return Err(RedisFailure::NoConnection("it has failed, and is not back yet".to_owned()));
        }
        let session = self.state.session();
        let result = self.pool.run(by, work);
        if let Err(failure) = &result {
            log::debug!("Redis: {failure}");
            if failure.code() == Some("READONLY") {
                self.state.lose(session, Loss::Demoted);
            } else if failure.is_of_connection() {
                self.peer.on_failure();
            }
        }
        result
    }

    fn listeners(&self, channels: &[String]) -> Result<Vec<u32>, RedisFailure> {
        let ask = |connection: &mut CommandConnection| {
            redis::cmd("PUBSUB").arg("NUMSUB").arg(channels).query::<Vec<(String, u32)>>(connection)
        };
        Ok(self.run(ask)?.into_iter().map(|(_, count)| count).collect())
    }
}
