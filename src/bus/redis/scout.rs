//! Checks that a connection leads to the Redis at which this node is subscribed.
//!
//! Connections are made at different times, and the name of Redis, or the address behind it, may
//! lead elsewhere since. A node that publishes at one Redis and is subscribed at another reaches
//! nobody and notices nothing. So each new connection asks for the number of subscribers of this
//! node's channel: on any other Redis there are none. (A `run_id` would say the same, but needs the
//! privilege for `INFO`.)
//!
//! ```text
//!                       this node is heard there          it is not
//!   primary             good                              the name leads elsewhere: all connections are made anew
//!   replica             demoted: likewise                 of no use; the old ones stay
//! ```
//! A node whose connections all last would never notice, so
//! [`NodeWatch`](super::watch::NodeWatch) makes one every two seconds as a check.

use std::time::Instant;

use pool::RedisConnection;

use super::core::RedisCore;
use super::dial::{Blocking, CommandConnection, DialError, ServerRole};
use super::ended::Loss;

/// A connection for commands to the Redis at which this node is subscribed or will be. Blocks
/// until `by`. If new connections lead elsewhere, the node
/// reconnects.
///
/// # Errors
/// Any [`DialError`] but [`DialError::Certificates`].
pub(super) fn dial(core: &RedisCore, by: Instant) -> Result<CommandConnection, DialError> {
    let (mut connection, role) = core.dialer.first_to_answer(by)?;
    connection.begin(by);
    let session = core.state.session();
    let is_here = session == 0 || is_heard_on(core, &mut connection)?;
    let loss = match (is_here, role) {
        (true, ServerRole::Primary) => return Ok(connection),
        (true, ServerRole::Replica) => Some(Loss::Demoted).filter(|_| session != 0),
        (false, ServerRole::Primary) => Some(Loss::Moved),
        (false, ServerRole::Replica) => None,
    };
    // If the subscriptions ended meanwhile, the count proves nothing.
    if core.state.session() != session {
        return if role == ServerRole::Primary { Ok(connection) } else { Err(DialError::Replica) };
    }
    if let Some(loss) = loss {
        core.state.lose(session, loss);
    }
    Err(if role == ServerRole::Replica { DialError::Replica } else { DialError::Elsewhere })
}

/// Checks where a new connection leads. Blocks, for a few seconds at most.
pub(super) fn look(core: &RedisCore, by: Instant) {
    if let Err(error) = dial(core, by) {
        log::debug!("a new connection to Redis: {error}");
    }
}

fn is_heard_on(core: &RedisCore, connection: &mut RedisConnection<Blocking>) -> Result<bool, DialError> {
    let channel = core.names.node_channel(core.peer.node());
    let counts: (String, u32) = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query(connection)?;
    Ok(counts.1 > 0)
}
