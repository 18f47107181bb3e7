//! [`ReferenceWatch`]: checks for nodes of the reference server, and sets their users to offline
//! when the last one has gone.

use std::sync::Arc;
use std::time::Instant;

use pool::RedisFailure;

use super::core::RedisCore;
use super::host::RegistryHost as _;
use super::neighbours;
use super::watch::SILENCE_MAX;
use crate::bus::Node;

/// See the [module](self). While such a node runs, no node of ours knows which users it has.
pub(super) struct ReferenceWatch {
    shared: Arc<RedisCore>,
    /// The number of nodes at the last check, and the time at which the last of them disappeared.
    neighbours: u32,
    alone_since: Option<Instant>,
}

impl ReferenceWatch {
    pub(super) fn new(shared: Arc<RedisCore>) -> ReferenceWatch {
        ReferenceWatch { shared, neighbours: 0, alone_since: None }
    }

    /// One check. Blocks.
    pub(super) fn look(&mut self, node: &dyn Node) -> Result<(), RedisFailure> {
        let shared = &self.shared;
        let before = self.neighbours;
        let (count, were_there) = neighbours::look(shared)?;
        self.neighbours = count;
        if count > 0 {
            self.alone_since = None;
            if !were_there || before == 0 {
                log::info!("nodes of the reference server are connected: {count}");
            } else if count < before {
                log::warn!(
                    "a node of the reference server has stopped, {count} still run: messages for users whom it \
                        has left marked online are lost until server migrate --reset-states"
                );
            }
            return neighbours::remember(shared);
        }
        if were_there {
            log::info!("the last node of the reference server has stopped");
        }
        if !neighbours::are_remembered(shared)? {
            self.alone_since = None;
            return Ok(());
        }
        // A node that comes back soon has only been restarted.
        if self.alone_since.get_or_insert_with(Instant::now).elapsed() < SILENCE_MAX {
            return Ok(());
        }
        // With many users this takes longer than a check should.
        let on_page = &mut || shared.state().on_command();
        if let Some(users) = neighbours::bury(shared, node, on_page)? {
            log::info!(
                "nodes of the reference server have left {users} users marked online: these are set to \
                offline now"
            );
        }
        Ok(())
    }
}
