//! [`Duty`]: whether one server of several takes writes, as a new connection finds out.
//!
//! A read-only server is not even read from: it may lag, and what it has not applied yet would look
//! like a loss. A node of a Galera cluster is used while it belongs to the primary component. It
//! applies the writes of other nodes with a delay, so its connections wait before each statement or
//! transaction until every earlier commit is applied (`wsrep_sync_wait`). Otherwise a node that has
//! just moved there could miss what it had acknowledged itself.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::error;

/// The properties of a server that takes writes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Duty {
    /// The state of its Galera cluster; `None` outside such a cluster.
    pub(super) cluster: Option<String>,
    /// Whether it is catching up, or helping another node of its cluster to do so.
    pub(super) is_behind: bool,
}

impl Duty {
    /// Queries the server, and prepares the connection for it.
    ///
    /// # Errors
    /// The server takes no writes, or does not answer.
    pub(super) fn of(connection: &mut Conn, is_read_only: bool) -> mysql::Result<Duty> {
        if is_read_only {
            return Err(error::read_only("the server is read-only"));
        }
        if !is_in_galera(connection)? {
            return Ok(Duty::default());
        }
        let (mut is_ready, mut is_primary, mut duty) = (false, false, Duty::default());
        let status: Vec<(String, String)> = connection.query(STATUS)?;
        for (name, value) in status {
            match name.to_ascii_lowercase().as_str() {
                "wsrep_ready" => is_ready = value == "ON",
                "wsrep_cluster_status" => is_primary = value == "Primary",
                "wsrep_cluster_state_uuid" => duty.cluster = Some(value),
                "wsrep_local_state" => duty.is_behind = value != SYNCED,
                _ => {}
            }
        }
        if !is_ready || !is_primary {
            return Err(error::not_ready());
        }
        connection.query_drop(format!("SET SESSION wsrep_sync_wait = {SYNC_WAIT}"))?;
        Ok(duty)
    }
}

fn is_in_galera(connection: &mut Conn) -> mysql::Result<bool> {
    match connection.query_first::<u8, _>("SELECT @@global.wsrep_on") {
        Ok(on) => Ok(on == Some(1)),
        // Only servers that can be in such a cluster have the variable.
        Err(error) if error::code(&error) == Some(error::UNKNOWN_VARIABLE) => Ok(false),
        Err(error) => Err(error),
    }
}

const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN
    ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_cluster_state_uuid', 'wsrep_local_state')";

/// `wsrep_local_state` of a node that is up to date and helps no other.
const SYNCED: &str = "4";

/// The flags for reads and beginnings of transactions, for updates and deletions, and for inserts.
const SYNC_WAIT: u8 = 1 + 2 + 4;
