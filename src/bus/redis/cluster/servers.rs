//! [`ClusterServers`]: the servers of a Redis Cluster, and the way to each.
//!
//! The settings name some of them; these know all others. The servers are asked one after the other
//! until one has a table, the last that answered first. One that does not answer is asked last the
//! next time, so that a dead or frozen server delays one connection, and not every one.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult, Value};

use super::slots::SlotTable;
use crate::bus::redis::dial::{CALL_TIMEOUT, CommandConnection, DialError, Dialer};
use crate::config::{RedisPlace, RedisSettings, ServerAddress};

/// See the [module](self).
pub(in crate::bus::redis) struct ClusterServers {
    settings: RedisSettings,
    /// Those that the settings name.
    named: Vec<ServerAddress>,
    /// All known ones, in the order in which they are asked.
    known: Mutex<Vec<ServerAddress>>,
    dialers: Mutex<Vec<(ServerAddress, Arc<Dialer>)>>,
}

impl ClusterServers {
    /// The cluster of which the settings name some servers.
    ///
    /// # Errors
    /// [`DialError::Certificates`].
    pub(in crate::bus::redis) fn new(
        settings: &RedisSettings,
        named: &[ServerAddress],
    ) -> Result<ClusterServers, DialError> {
        let servers = ClusterServers {
            settings: settings.clone(),
            named: named.to_vec(),
            known: Mutex::new(named.to_vec()),
            dialers: Mutex::default(),
        };
        for server in named {
            servers.dialer(server)?;
        }
        Ok(servers)
    }

    /// The way to this server.
    ///
    /// # Errors
    /// [`DialError::Certificates`].
    pub(in crate::bus::redis) fn dialer(&self, server: &ServerAddress) -> Result<Arc<Dialer>, DialError> {
        if let Some((_, dialer)) = self.dialers.lock().iter().find(|(known, _)| known == server) {
            return Ok(dialer.clone());
        }
        let place = RedisPlace::Server(server.clone());
        let dialer = Arc::new(Dialer::new(&RedisSettings { place, ..self.settings.clone() })?);
        self.dialers.lock().push((server.clone(), dialer.clone()));
        Ok(dialer)
    }

    /// Asks for the table of the slots. Blocks until `by` at most.
    ///
    /// # Errors
    ///
    /// The error of the last server that was asked.
    pub(in crate::bus::redis) fn table(&self, by: Instant) -> Result<SlotTable, DialError> {
        let known = self.known.lock().clone();
        let mut last = DialError::Io(std::io::ErrorKind::TimedOut.into());
        for server in known {
            match self.table_of(&server, by) {
                Ok(table) => {
                    self.remember(&server, &table);
                    return Ok(table);
                }
                Err(error) => {
                    last = DialError::At(server.clone(), Box::new(error));
                    let mut known = self.known.lock();
                    known.retain(|other| *other != server);
                    known.push(server);
                }
            }
            if Instant::now() >= by {
                break;
            }
        }
        Err(last)
    }

    /// The first table. No server is known to be dead yet, so it takes longer: each server that the
    /// settings name may take as long as a whole call.
    ///
    /// # Errors
    /// As for [`ClusterServers::table`].
    pub(in crate::bus::redis) fn first_table(&self) -> Result<SlotTable, DialError> {
        let named = u32::try_from(self.named.len()).unwrap_or(1);
        self.table(Instant::now() + CALL_TIMEOUT * named)
    }

    fn table_of(&self, server: &ServerAddress, by: Instant) -> Result<SlotTable, DialError> {
        let (mut connection, _) = self.dialer(server)?.first_to_answer(by)?;
        connection.begin(by);
        Ok(read_table(&mut connection, server)?)
    }

    /// Notes the servers in a table, and forgets those that have left the cluster.
    fn remember(&self, answered: &ServerAddress, table: &SlotTable) {
        let mut all: Vec<ServerAddress> = Vec::new();
        let members = table.primaries().iter().chain(table.replicas());
        for server in [answered].into_iter().chain(members).chain(&self.named) {
            if !all.contains(server) {
                all.push(server.clone());
            }
        }
        self.dialers.lock().retain(|(server, _)| all.contains(server));
        *self.known.lock() = all;
    }
}

/// Asks the server at the other end for the table of the slots.
pub(super) fn read_table(connection: &mut CommandConnection, asked: &ServerAddress) -> RedisResult<SlotTable> {
    if !is_whole(connection)? {
        let why = "its cluster is incomplete, or it is cut off from the others (cluster_state)";
        return Err((ErrorKind::Client, "no table", why.to_owned()).into());
    }
    let answer: Value = redis::cmd("CLUSTER").arg("SLOTS").query(connection)?;
    let table = SlotTable::read(&answer, asked);
    table.map_err(|bad| RedisError::from((ErrorKind::Client, "no table", bad.to_string())))
}

/// Whether the server at the other end sees a whole cluster.
pub(super) fn is_whole(connection: &mut CommandConnection) -> RedisResult<bool> {
    let info: String = redis::cmd("CLUSTER").arg("INFO").query(connection)?;
    Ok(info.lines().any(|line| line.trim_end() == "cluster_state:ok"))
}
