//! Blocking queries to Redis about where users are.
//!
//! The subscriptions of a node vanish with it. In addition each node stores a set of its users,
//! which stays: from it the others know whose `User.state` they must set to offline after it has
//! died.
//!
//! ```text
//! raybox:nodes        set of nodes (behind raybox: there may be more, see `names.rs`)
//! raybox:on:<node>    set of the users of a node
//! raybox:first        who looks after a cluster that has just been started
//! raybox:heir:<node>  who looks after the users of a node that has died, or of the last node of the reference server
//! ```

use std::collections::HashSet;

use pool::RedisFailure;
use redis::RedisResult;

use super::dial::CommandConnection;
use super::host::RegistryHost;
use super::names::Names;
use crate::bus::peer::USERS_AT_ONCE;
use crate::protocol::UserId;

/// Returns which of these users any node of ours wants messages for.
pub(super) fn subscribed(shared: &impl RegistryHost, users: &[UserId]) -> Result<Vec<UserId>, RedisFailure> {
    let mut subscribed = Vec::new();
    for users in users.chunks(USERS_AT_ONCE) {
        let channels: Vec<_> = users.iter().map(|user| shared.names().user_channel(*user)).collect();
        let counts = listeners(shared, &channels)?;
        subscribed.extend(users.iter().zip(counts).filter(|(_, count)| *count > 0).map(|(user, _)| *user));
    }
    Ok(subscribed)
}

/// The number of subscribers of each channel.
fn listeners(shared: &impl RegistryHost, channels: &[String]) -> Result<Vec<u32>, RedisFailure> {
    if channels.is_empty() {
        return Ok(Vec::new());
    }
    shared.listeners(channels)
}

/// Returns those of these users that no node of ours, living or dead, has registered.
pub(super) fn unclaimed(shared: &impl RegistryHost, users: &[UserId]) -> Result<HashSet<UserId>, RedisFailure> {
    if users.is_empty() {
        return Ok(HashSet::new());
    }
    shared.run(|connection| unclaimed_on(connection, shared.names(), users))
}

/// The same query, on any connection.
pub(super) fn unclaimed_on(
    connection: &mut CommandConnection,
    names: &Names,
    users: &[UserId],
) -> RedisResult<HashSet<UserId>> {
    let mut unclaimed: HashSet<UserId> = users.iter().copied().collect();
    let nodes: Vec<String> = redis::cmd("SMEMBERS").arg(names.key(NODES)).query(connection)?;
    for node in nodes {
        let mut pipeline = redis::pipe();
        for user in users {
            pipeline.cmd("SISMEMBER").arg(users_key(names, &node)).arg(user.0);
        }
        let claims: Vec<bool> = pipeline.query(connection)?;
        for (user, _) in users.iter().zip(claims).filter(|(_, claimed)| *claimed) {
            unclaimed.remove(user);
        }
    }
    Ok(unclaimed)
}

/// The nodes that have registered and not unregistered.
pub(super) fn nodes(shared: &impl RegistryHost) -> Result<Vec<String>, RedisFailure> {
    shared.run(|connection| redis::cmd("SMEMBERS").arg(shared.names().key(NODES)).query(connection))
}

/// Returns those of `nodes` without a subscription.
pub(super) fn dead(shared: &impl RegistryHost, nodes: Vec<String>) -> Result<Vec<String>, RedisFailure> {
    let channels: Vec<_> = nodes.iter().map(|node| shared.names().node_channel(node)).collect();
    let counts = listeners(shared, &channels)?;
    Ok(nodes.into_iter().zip(counts).filter(|(_, count)| *count == 0).map(|(node, _)| node).collect())
}

/// Whether no other node runs, neither ours nor the reference server's, and no other starting node
/// claims the same. `neighbours` counts the nodes of the reference server.
pub(super) fn is_first(
    shared: &impl RegistryHost,
    neighbours: impl FnOnce() -> Result<u32, RedisFailure>,
) -> Result<bool, RedisFailure> {
    for names in shared.names().with_earlier() {
        let registered: Vec<String> =
            shared.run(|connection| redis::cmd("SMEMBERS").arg(names.key(NODES)).query(connection))?;
        let channels: Vec<String> = registered.iter().map(|node| names.node_channel(node)).collect();
        if listeners(shared, &channels)?.iter().any(|count| *count > 0) {
            return Ok(false);
        }
    }
    if neighbours()? > 0 {
        return Ok(false);
    }
    take(shared, &shared.names().key(FIRST))
}

/// Whether this node, and no other, should correct the states of a dead node's users.
pub(super) fn inherits(shared: &impl RegistryHost, node: &str) -> Result<bool, RedisFailure> {
    take(shared, &shared.names().key(&format!("heir:{node}")))
}

/// Reads the users of a node, page by page, until `page` returns false; then returns false.
pub(super) fn users_of(
    shared: &impl RegistryHost,
    node: &str,
    page: &mut dyn FnMut(Vec<UserId>) -> bool,
) -> Result<bool, RedisFailure> {
    let mut cursor = 0_u64;
    loop {
        let scan = |connection: &mut CommandConnection| {
            let mut command = redis::cmd("SSCAN");
            command.arg(users_key(shared.names(), node)).arg(cursor).arg("COUNT").arg(USERS_AT_ONCE);
            command.query::<(u64, Vec<i32>)>(connection)
        };
        let (next, users) = shared.run(scan)?;
        if !page(users.into_iter().map(UserId).collect()) {
            return Ok(false);
        }
        if next == 0 {
            return Ok(true);
        }
        cursor = next;
    }
}

/// Removes a node.
pub(super) fn forget(shared: &impl RegistryHost, node: &str) -> Result<(), RedisFailure> {
    let names = shared.names();
    shared.run(|connection| redis::cmd("DEL").arg(users_key(names, node)).query::<u32>(connection))?;
    shared.run(|connection| redis::cmd("SREM").arg(names.key(NODES)).arg(node).query::<u32>(connection)).map(drop)
}

/// Registers this node; true if it was not registered.
pub(super) fn register(shared: &impl RegistryHost) -> Result<bool, RedisFailure> {
    shared.publish(|connection| {
        redis::cmd("SADD").arg(shared.names().key(NODES)).arg(shared.peer().node()).query(connection)
    })
}

/// Registers these users as users of this node.
pub(super) fn claim(shared: &impl RegistryHost, users: &[UserId]) -> Result<(), RedisFailure> {
    if users.is_empty() {
        return Ok(());
    }
    // A node may die before its first look at the others.
    register(shared)?;
    change(shared, "SADD", users)
}

/// Unregisters these users.
pub(super) fn disclaim(shared: &impl RegistryHost, users: &[UserId]) -> Result<(), RedisFailure> {
    change(shared, "SREM", users)
}

fn change(shared: &impl RegistryHost, name: &str, users: &[UserId]) -> Result<(), RedisFailure> {
    let key = users_key(shared.names(), shared.peer().node());
    for users in users.chunks(USERS_AT_ONCE) {
        let ids: Vec<i32> = users.iter().map(|user| user.0).collect();
        shared.publish(|connection| redis::cmd(name).arg(&key).arg(&ids).query::<u32>(connection))?;
    }
    Ok(())
}

fn take(shared: &impl RegistryHost, key: &str) -> Result<bool, RedisFailure> {
    let set = |connection: &mut CommandConnection| {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(shared.peer().node()).arg("NX").arg("EX").arg(CLAIM_SECONDS);
        command.query::<Option<String>>(connection)
    };
    shared.run(set).map(|answer| answer.is_some())
}

fn users_key(names: &Names, node: &str) -> String {
    names.key(&format!("on:{node}"))
}

pub(super) const NODES: &str = "nodes";
const FIRST: &str = "first";
/// How long a claim lasts: longer than it takes to register, or to read the users of a node.
const CLAIM_SECONDS: u32 = 10;
