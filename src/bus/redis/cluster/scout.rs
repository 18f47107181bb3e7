//! Checks that the primaries still are what this node takes them for.
//!
//! ```text
//!   a primary                          the connections
//!   is a replica now                   are replaced: what is published there counts other subscribers
//!   does not see a whole cluster       are replaced: others may use the replica that was promoted for it
//!   knows other primaries              are replaced
//!   knows another order of the slots   stay; publications go where the slots are
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use redis::RedisResult;

use super::core::ClusterCore;
use super::servers::{is_whole, read_table};
use super::slots::SlotTable;
use crate::bus::redis::dial::{CALL_TIMEOUT, CommandConnection, ServerRole};
use crate::bus::redis::ended::Loss;

/// Asks each primary for its state, and one of them, in turn, for the slots.
#[derive(Default)]
pub(super) struct ClusterScout {
    looks: AtomicUsize,
}

impl ClusterScout {
    /// One check. Blocks, for a few seconds at most. A primary that does not answer is lost, too.
    pub(super) fn look(&self, core: &ClusterCore) {
        let (shards, session) = (core.shards(), core.state.session());
        let by = Instant::now() + CALL_TIMEOUT;
        let asked = self.looks.fetch_add(1, Ordering::Relaxed) % shards.primaries.len().max(1);
        for (index, primary) in shards.primaries.iter().enumerate() {
            let ask = |connection: &mut CommandConnection| -> RedisResult<Result<Option<SlotTable>, Loss>> {
                if ServerRole::of(connection)? == ServerRole::Replica {
                    return Ok(Err(Loss::Demoted));
                }
                if !is_whole(connection)? {
                    return Ok(Err(Loss::CutOff));
                }
                let table = (index == asked).then(|| read_table(connection, &primary.at));
                Ok(Ok(table.transpose()?))
            };
            match core.run_at(primary, by, ask) {
                Ok(Err(loss)) => core.state.lose(session, loss),
                Ok(Ok(Some(table))) if !shards.adopt(&table) => core.state.lose(session, Loss::Reshaped),
                Ok(Ok(_)) => {}
                Err(failure) => log::debug!("a look at {}: {failure}", primary.at),
            }
        }
    }
}
