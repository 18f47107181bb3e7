//! Nodes of the reference server: whether any are subscribed, which messages they take, and which
//! users the last of them leaves behind.
//!
//! They subscribe to the channels of all users by one pattern, and the answer to `PUBLISH` counts
//! them. It also counts tools that watch Redis (`redis-cli PSUBSCRIBE '*'`), which deliver nothing.
//! A decoy channel tells the two apart: its name is not a user's, but so similar that every pattern
//! except the one of the nodes matches both.
//!
//! ```text
//! RayBox-user~decoy    gets     tools that listen to *, RayBox-*, RayBox-user*
//! RayBox-user-0        gets     the same tools, and nodes of the reference server: nobody has this id
//! raybox:neighbours    is set   while such nodes are there, and until the users they leave behind are offline
//! ```

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use pool::RedisFailure;
use redis::RedisResult;

use super::core::RedisCore;
use super::dial::CommandConnection;
use super::host::RegistryHost as _;
use super::{names, registry};
use crate::bus::Node;
use crate::bus::peer::{POSTS_MAX, USERS_AT_ONCE};
use crate::delivery::Delivery;
use crate::protocol::UserId;

/// Counts the nodes, and notes whether there are any. Returns their number, and whether there were
/// any before.
pub(super) fn look(shared: &RedisCore) -> Result<(u32, bool), RedisFailure> {
    let count = count(shared)?;
    Ok((count, shared.neighbours.are_there.swap(count > 0, Ordering::AcqRel)))
}

/// Counts the nodes that are subscribed. Both warnings are about rights and settings that the
/// operator has to change, not about outages, so no second line reports that they work again.
pub(super) fn count(shared: &RedisCore) -> Result<u32, RedisFailure> {
    let Listeners { patterns, nodes, has_decoy } = shared.run(listeners)?;
    if patterns > 0 && shared.neighbours.has_no_decoy.begins(!has_decoy) {
        log::warn!(
            "Redis does not let this node publish on {DECOY}, so a tool that listens to a pattern counts as a node of \
             the reference server: add the channel pattern RayBox-user* to the rights of its user"
        );
    }
    if shared.names.hears_reference() {
        return Ok(nodes);
    }
    if shared.neighbours.are_foreign.begins(nodes > 0) {
        log::warn!(
            "C++ servers use this Redis, and this server ignores their messages: if they belong to this \
                installation, set cpp_nodes=on in redis.cnf"
        );
    }
    Ok(0)
}

/// The subscribers to patterns.
pub(super) struct Listeners {
    /// The number of patterns.
    patterns: u32,
    /// The number of nodes of the reference server.
    pub(super) nodes: u32,
    /// Whether tools could be told apart from nodes.
    has_decoy: bool,
}

/// Counts the listeners on a connection of any kind.
pub(super) fn listeners(connection: &mut CommandConnection) -> RedisResult<Listeners> {
    // Newer versions of Redis count distinct patterns, and all reference nodes share one.
    let patterns: u32 = redis::cmd("PUBSUB").arg("NUMPAT").query(connection)?;
    if patterns == 0 {
        return Ok(Listeners { patterns, nodes: 0, has_decoy: true });
    }
    let mut publish = |channel: &str| redis::cmd("PUBLISH").arg(channel).arg(NO_FRAME).query::<u32>(&mut *connection);
    let (tools, has_decoy) = match publish(DECOY) {
        Ok(tools) => (tools, true),
        Err(error) if !error.is_io_error() => (0, false),
        Err(error) => return Err(error),
    };
    let all = publish(&names::reference_channel(NOBODY))?;
    Ok(Listeners { patterns, nodes: all.saturating_sub(tools), has_decoy })
}

/// Publishes each message on its user's channel. Returns for each whether a node of the reference
/// server gets it. The result is shorter if Redis fails meanwhile.
pub(super) fn publish(shared: &RedisCore, deliveries: &[Delivery]) -> Vec<bool> {
    let has_decoy = !shared.neighbours.has_no_decoy.is_there();
    let mut taken = Vec::with_capacity(deliveries.len());
    for deliveries in deliveries.chunks(POSTS_MAX) {
        let mut pipeline = redis::pipe();
        let decoy = |pipeline: &mut redis::Pipeline| {
            if has_decoy {
                pipeline.cmd("PUBLISH").arg(DECOY).arg(NO_FRAME);
            }
        };
        // A tool may subscribe or leave in between. It counts for as long as it may have been
        // there.
        decoy(&mut pipeline);
        for delivery in deliveries {
            pipeline.cmd("PUBLISH").arg(names::reference_channel(delivery.to)).arg(&*delivery.text);
        }
        decoy(&mut pipeline);
        let Ok(counts) = shared.publish(|connection| pipeline.query::<Vec<u32>>(connection)) else { break };
        let (tools, counts) = match &*counts {
            [before, counts @ .., after] if has_decoy => (*before.max(after), counts),
            counts => (0, counts),
        };
        taken.extend(counts.iter().map(|count| *count > tools));
    }
    taken
}

/// Records in Redis that there are such nodes. When they are gone, a node that finds the record
/// corrects the states of their users.
pub(super) fn remember(shared: &RedisCore) -> Result<(), RedisFailure> {
    shared.run(|connection| redis::cmd("SET").arg(shared.names.key(WERE_THERE)).arg(1).query(connection))
}

/// Whether there were such nodes and the states of their users were not corrected yet.
pub(super) fn are_remembered(shared: &RedisCore) -> Result<bool, RedisFailure> {
    shared.run(|connection| redis::cmd("EXISTS").arg(shared.names.key(WERE_THERE)).query(connection))
}

/// Sets the users of the last such node to offline, unless another of our nodes does. Returns the
/// number of users; `None` if another node does it, or if it failed and must be tried again.
pub(super) fn bury(
    shared: &RedisCore,
    node: &dyn Node,
    on_page: &mut dyn FnMut(),
) -> Result<Option<usize>, RedisFailure> {
    if !registry::inherits(shared, "neighbours")? {
        return Ok(None);
    }
    let (mut after, mut count) = (UserId(0), 0);
    loop {
        let Some(online) = node.online_after(after, USERS_AT_ONCE) else { return Ok(None) };
        let Some(last) = online.last() else { break };
        after = *last;
        let abandoned: HashSet<UserId> = registry::unclaimed(shared, &online)?;
        let abandoned: Vec<UserId> = online.into_iter().filter(|user| abandoned.contains(user)).collect();
        // Users who have since logged in at one of our nodes are left out.
        if !abandoned.is_empty() && !node.on_died(&abandoned) {
            return Ok(None);
        }
        count += abandoned.len();
        on_page();
    }
    shared.run(|connection| redis::cmd("DEL").arg(shared.names.key(WERE_THERE)).query::<u32>(connection))?;
    Ok(Some(count))
}

const DECOY: &str = "RayBox-user~decoy";
const NOBODY: UserId = UserId(0);
const NO_FRAME: &str = "{}";
const WERE_THERE: &str = "neighbours";
