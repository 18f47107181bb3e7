//! [`survey`] and [`Claims`]: the nodes of the cluster, for a command that is about to change their
//! data.

use std::time::Instant;

use redis::RedisResult;

use super::cluster::{ClusterServers, SlotTable, listeners_on, slot_of};
use super::dial::{self, CommandConnection, DialError, Dialer};
use super::error::RedisError;
use super::names::Names;
use super::{neighbours, registry};
use crate::config::{RedisPlace, RedisSettings, ServerAddress};
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
    if let RedisPlace::Cluster(named) = &settings.place {
        return look_at_all(settings, named).map_err(|error| RedisError::of(settings, &error));
    }
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
    let soon = || Instant::now() + dial::CALL_TIMEOUT;
    let connected = match &settings.place {
        RedisPlace::Server(_) | RedisPlace::Sentinels(_) => {
            Dialer::new(settings).and_then(|dialer| dialer.commands(soon()))
        }
        RedisPlace::Cluster(named) => ClusterServers::new(settings, named).and_then(|servers| {
            let table = servers.first_table()?;
            with_register(settings, &servers, &table, soon())
        }),
    };
    connected.map_err(|error| RedisError::of(settings, &error))
}

/// A connection to the primary of a Redis Cluster that has the register.
fn with_register(
    settings: &RedisSettings,
    servers: &ClusterServers,
    table: &SlotTable,
    by: Instant,
) -> Result<CommandConnection, DialError> {
    let slot = slot_of(Names::new(settings).key("").as_bytes());
    servers.dialer(&table.primaries()[table.owner(slot)])?.commands(by)
}

/// Asks all servers of a Redis Cluster: each knows only its own subscribers. A replica that does
/// not answer is left out.
fn look_at_all(settings: &RedisSettings, named: &[ServerAddress]) -> Result<Survey, DialError> {
    let (names, servers) = (Names::new(settings), ClusterServers::new(settings, named)?);
    let table = servers.first_table()?;
    let by = Instant::now() + dial::CALL_TIMEOUT;
    let mut with_register = with_register(settings, &servers, &table, by)?;
    let registered: Vec<String> = redis::cmd("SMEMBERS").arg(names.key(registry::NODES)).query(&mut with_register)?;
    let channels: Vec<String> = registered.iter().map(|node| names.node_channel(node)).collect();
    let mut survey = Survey { has_reference_nodes: false, reference_nodes: Vec::new(), nodes: 0 };
    let mut add = |connection: &mut CommandConnection| -> RedisResult<()> {
        survey.has_reference_nodes |= settings.cpp_nodes != Some(false) && neighbours::listeners(connection)?.nodes > 0;
        let clients: RedisResult<String> = redis::cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub").query(connection);
        survey.reference_nodes.extend(clients.map(|clients| pattern_listeners(&clients)).unwrap_or_default());
        Ok(())
    };
    let mut listeners = vec![0; channels.len()];
    for primary in table.primaries() {
        let mut connection = servers.dialer(primary)?.commands(by)?;
        add(&mut connection)?;
        // Also without any, because a Redis before 7.0 does not know the command.
        let counts = listeners_on(&mut connection, &channels)?;
        listeners.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    for replica in table.replicas() {
        if let Ok((mut connection, _)) = servers.dialer(replica)?.first_to_answer(by) {
            let _ = add(&mut connection);
        }
    }
    survey.nodes = listeners.iter().filter(|count| **count > 0).count();
    Ok(survey)
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
