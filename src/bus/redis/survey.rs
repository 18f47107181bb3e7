//! [`survey`] and [`Claims`]: the nodes of the cluster, for a command that is about to change their
//! data.

use std::time::Instant;

use redis::RedisResult;

use super::dial::{self, CommandConnection, Dialer};
use super::names::Names;
use super::{RedisError, neighbours, registry};
use crate::config::RedisSettings;
use crate::protocol::UserId;

/// The nodes that are connected to Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// Whether there are nodes of the reference server.
    pub has_reference_nodes: bool,
    /// The addresses of these nodes and of tools that subscribe to patterns, unless Redis does not
    /// let us see them.
    pub reference_nodes: Vec<String>,
    /// The number of nodes of this server.
    pub nodes: usize,
}

/// Asks Redis. Blocks, for a few seconds at most.
///
/// # Errors
///
/// [`RedisError`] if it does not answer.
pub fn survey(settings: &RedisSettings) -> Result<Survey, RedisError> {
    let mut connection = connect(settings)?;
    look(&mut connection, settings).map_err(|error| RedisError::of(settings, &error))
}

/// The users that nodes of this server, living or dead, have registered.
pub struct Claims {
    settings: RedisSettings,
    connection: CommandConnection,
}

impl Claims {
    /// Connects to Redis. Blocks, for a few seconds at most.
    ///
    /// # Errors
    ///
    /// [`RedisError`] if it does not answer.
    pub fn open(settings: &RedisSettings) -> Result<Claims, RedisError> {
        Ok(Claims { settings: settings.clone(), connection: connect(settings)? })
    }

    /// Returns those of `users` that no such node has registered, in the order given. Blocks, for a
    /// few seconds at most.
    ///
    /// # Errors
    ///
    /// [`RedisError`] if it does not answer.
    pub fn unclaimed(&mut self, users: &[UserId]) -> Result<Vec<UserId>, RedisError> {
        let Claims { settings, connection } = self;
        connection.begin(Instant::now() + dial::CALL_TIMEOUT);
        let unclaimed = registry::unclaimed_on(connection, &Names::new(settings), users);
        let unclaimed = unclaimed.map_err(|error| RedisError::of(settings, &error))?;
        Ok(users.iter().copied().filter(|user| unclaimed.contains(user)).collect())
    }
}

fn connect(settings: &RedisSettings) -> Result<CommandConnection, RedisError> {
    let dialer = Dialer::new(settings).map_err(|error| RedisError::of(settings, &error))?;
    let by = Instant::now() + dial::CALL_TIMEOUT;
    dialer.commands(by).map_err(|error| RedisError::of(settings, &error))
}

fn look(connection: &mut CommandConnection, settings: &RedisSettings) -> RedisResult<Survey> {
    let names = Names::new(settings);
    // Nodes that may belong to this installation count, too: the command's changes cannot be
    // undone.
    let has_reference_nodes = settings.cpp_nodes != Some(false) && neighbours::listeners(connection)?.nodes > 0;
    let clients: RedisResult<String> = redis::cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub").query(connection);
    let reference_nodes = clients.map(|clients| pattern_listeners(&clients)).unwrap_or_default();
    let registered: Vec<String> = redis::cmd("SMEMBERS").arg(names.key(registry::NODES)).query(connection)?;
    let channels: Vec<String> = registered.iter().map(|node| names.node_channel(node)).collect();
    let listeners: Vec<(String, u32)> = match channels.as_slice() {
        [] => Vec::new(),
        channels => redis::cmd("PUBSUB").arg("NUMSUB").arg(channels).query(connection)?,
    };
    let nodes = listeners.iter().filter(|(_, count)| *count > 0).count();
    Ok(Survey { has_reference_nodes, reference_nodes, nodes })
}

/// The addresses in `id=3 addr=10.0.0.7:41234 … psub=1 …` of clients that subscribe to a pattern.
fn pattern_listeners(clients: &str) -> Vec<String> {
    let value = |client: &str, key: &str| {
        let mut words = client.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let listens = |client: &&str| value(client, "psub").is_some_and(|count| count != "0");
    clients.lines().filter(listens).filter_map(|client| value(client, "addr")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_with_patterns_are_listed() {
        let clients = "id=3 addr=10.0.0.7:41234 laddr=10.0.0.1:6379 name= sub=0 psub=1 ssub=0\n\
                       id=4 addr=10.0.0.8:41235 laddr=10.0.0.1:6379 name= sub=5 psub=0 ssub=0\n";
        assert_eq!(pattern_listeners(clients), ["10.0.0.7:41234"]);
        assert_eq!(pattern_listeners(""), [""; 0]);
    }
}
