//! [`ClusterCore`]: the state that the threads of the bus and its callers share.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::RwLock;
use pool::{RedisFailure, RedisPool, RedisPoolSettings};
use redis::{RedisError, RedisResult};

use super::pings::Doubt;
use super::servers::ClusterServers;
use super::slots::{MovedSlot, SlotTable, slot_of};
use crate::bus::peer::PeerShared;
use crate::bus::redis::dial::{Blocking, CALL_TIMEOUT, CommandConnection, DialError, Dialer};
use crate::bus::redis::ended::Loss;
use crate::bus::redis::host::RegistryHost;
use crate::bus::redis::names::Names;
use crate::bus::redis::state::SessionState;
use crate::config::ServerAddress;

/// See the [module](self).
pub(super) struct ClusterCore {
    pub(super) peer: Arc<PeerShared>,
    pub(super) names: Names,
    pub(super) state: SessionState,
    pub(super) servers: ClusterServers,
    pools: RedisPoolSettings,
    shards: RwLock<Arc<Shards>>,
    own: Weak<ClusterCore>,
}

/// The primaries of the cluster, and which slots they have. While a connection lasts, only the
/// distribution of the slots changes.
pub(super) struct Shards {
    table: RwLock<SlotTable>,
    /// In the order of the table.
    pub(super) primaries: Vec<ClusterPrimary>,
}

/// One primary.
pub(super) struct ClusterPrimary {
    pub(super) at: ServerAddress,
    pub(super) dialer: Arc<Dialer>,
    pub(super) pool: Arc<RedisPool<Blocking>>,
    pub(super) doubt: Arc<Doubt>,
}

impl Shards {
    /// The index of the primary that has this slot.
    pub(super) fn owner(&self, slot: u16) -> usize {
        self.table.read().owner(slot)
    }

    /// Notes that a slot has moved. Returns the index of the primary that has it now; `None` if
    /// that is a new one.
    pub(super) fn move_slot(&self, moved: &MovedSlot) -> Option<usize> {
        log::debug!("slot {} of the Redis Cluster has moved to {}", moved.slot, moved.to);
        self.table.write().move_slot(moved)
    }

    /// Takes the distribution of the slots from a newer table; false if that has other primaries.
    pub(super) fn adopt(&self, newer: &SlotTable) -> bool {
        self.table.write().adopt(newer)
    }
}

impl ClusterCore {
    /// Finds the primaries. Blocks as long as [`ClusterServers::first_table`].
    ///
    /// # Errors
    /// As for [`ClusterServers::table`].
    pub(super) fn open(
        peer: Arc<PeerShared>,
        names: Names,
        servers: ClusterServers,
        pools: RedisPoolSettings,
    ) -> Result<Arc<ClusterCore>, DialError> {
        let table = servers.first_table()?;
        let nothing = Shards { table: RwLock::new(table.clone()), primaries: Vec::new() };
        let core = Arc::new_cyclic(|own: &Weak<ClusterCore>| ClusterCore {
            state: SessionState::new(peer.clone()),
            peer,
            names,
            servers,
            pools,
            shards: RwLock::new(Arc::new(nothing)),
            own: own.clone(),
        });
        core.arrange(table)?;
        Ok(core)
    }

    /// The primaries, as they are known now.
    pub(super) fn shards(&self) -> Arc<Shards> {
        self.shards.read().clone()
    }

    /// Asks anew for the primaries. Blocks until `by` at most.
    ///
    /// # Errors
    /// As for [`ClusterServers::table`].
    pub(super) fn look_up(&self, by: Instant) -> Result<Arc<Shards>, DialError> {
        let table = self.servers.table(by)?;
        self.arrange(table)
    }

    fn arrange(&self, table: SlotTable) -> Result<Arc<Shards>, DialError> {
        let old = self.shards();
        let primary = |at: &ServerAddress| {
            let dialer = self.servers.dialer(at)?;
            let known = old.primaries.iter().find(|primary| primary.at == *at);
            let pool = known.map_or_else(|| self.pool(dialer.clone()), |primary| primary.pool.clone());
            Ok(ClusterPrimary { at: at.clone(), dialer, pool, doubt: Arc::default() })
        };
        let primaries = table.primaries().iter().map(primary).collect::<Result<_, DialError>>()?;
        let shards = Arc::new(Shards { table: RwLock::new(table), primaries });
        *self.shards.write() = shards.clone();
        Ok(shards)
    }

    fn pool(&self, dialer: Arc<Dialer>) -> Arc<RedisPool<Blocking>> {
        let core = self.own.clone();
        let dial = move |by| {
            let dialed = dialer.commands(by);
            if let (Err(DialError::Replica), Some(core)) = (&dialed, core.upgrade()) {
                core.state.lose(core.state.session(), Loss::Demoted);
            }
            Ok(dialed?)
        };
        Arc::new(RedisPool::new(self.pools, dial))
    }

    /// Runs `work` on a pooled connection to a primary, until `by` at most. If the connection
    /// fails, no other command is sent to this primary until it answers a `PING` of the line. If it
    /// does not answer, the line ends, and all connections are replaced.
    pub(super) fn run_at<T>(
        &self,
        primary: &ClusterPrimary,
        by: Instant,
        work: impl Fn(&mut CommandConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        if self.peer.gate().is_shut() || primary.doubt.is_raised() {
            return Err(RedisFailure::NoConnection("it has failed, and is not back yet".to_owned()));
        }
        // Another primary may have used up the time, which is not the fault of this one.
        if Instant::now() >= by {
            return Err(RedisFailure::NoConnection("no time was left for it".to_owned()));
        }
        let session = self.state.session();
        let result = primary.pool.run(by, work);
        if let Err(failure) = &result {
            log::debug!("Redis at {}: {failure}", primary.at);
            if failure.is_of_connection() {
                // Without a line, nothing would settle the doubt.
                if session != 0 {
                    primary.doubt.raise();
                    self.peer.wake();
                }
            } else {
                self.on_refusal(failure.code().unwrap_or_default(), session);
            }
        }
        result
    }

    /// Runs a command on a key that has moved to this server, though its slot has not yet: the
    /// server executes it only after `ASKING`. It may have no slots yet, so that no pool leads
    /// there.
    fn run_asking<T>(
        &self,
        server: &ServerAddress,
        by: Instant,
        work: impl Fn(&mut CommandConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        let connection = self.servers.dialer(server).and_then(|dialer| dialer.commands(by));
        let mut connection = connection.map_err(|error| RedisFailure::NoConnection(error.to_string()))?;
        redis::cmd("ASKING").query::<()>(&mut connection).map_err(RedisFailure::NotSent)?;
        work(&mut connection).map_err(RedisFailure::InDoubt)
    }

    /// Notes that a command was refused with this word. `session` is the connection at that time.
    pub(super) fn on_refusal(&self, code: &str, session: u64) {
        match code {
            "READONLY" => self.state.lose(session, Loss::Demoted),
            "CLUSTERDOWN" => self.state.lose(session, Loss::CutOff),
            _ => {}
        }
    }
}

impl RegistryHost for ClusterCore {
    fn peer(&self) -> &Arc<PeerShared> {
        &self.peer
    }

    fn names(&self) -> &Names {
        &self.names
    }

    fn state(&self) -> &SessionState {
        &self.state
    }

    /// All keys are in one slot, so all commands go to one primary. While the slot moves, some keys
    /// are at the next one already.
    fn run_by<T>(
        &self,
        by: Instant,
        work: impl Fn(&mut CommandConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFailure> {
        let (shards, session) = (self.shards(), self.state.session());
        let slot = slot_of(self.names.key("").as_bytes());
        let primary = &shards.primaries[shards.owner(slot)];
        let error = match self.run_at(primary, by, &work) {
            Err(RedisFailure::InDoubt(error)) => error,
            result => return result,
        };
        if let Some(moved) = redirected(&error, "MOVED", &primary.at) {
            if let Some(owner) = shards.move_slot(&moved) {
                return self.run_at(&shards.primaries[owner], by, &work);
            }
            self.state.lose(session, Loss::Reshaped);
        } else if let Some(moving) = redirected(&error, "ASK", &primary.at) {
            return self.run_asking(&moving.to, by, &work);
        }
        Err(RedisFailure::InDoubt(error))
    }

    /// A node is subscribed at one primary only, so the numbers of all add up. While the slot of a
    /// channel moves, a node is missing between the end of its old subscription and the new one.
    fn listeners(&self, channels: &[String]) -> Result<Vec<u32>, RedisFailure> {
        let mut sums = vec![0; channels.len()];
        for primary in &self.shards().primaries {
            let by = Instant::now() + CALL_TIMEOUT;
            let counts = self.run_at(primary, by, |connection| listeners_on(connection, channels))?;
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Ok(sums)
    }
}

/// The number of subscribers that each channel has at this server.
pub(in crate::bus::redis) fn listeners_on(
    connection: &mut CommandConnection,
    channels: &[String],
) -> RedisResult<Vec<u32>> {
    let counts: Vec<(String, u32)> = redis::cmd("PUBSUB").arg("SHARDNUMSUB").arg(channels).query(connection)?;
    Ok(counts.into_iter().map(|(_, count)| count).collect())
}

/// The slot and the server in a refusal with this word.
fn redirected(error: &RedisError, word: &str, asked: &ServerAddress) -> Option<MovedSlot> {
    (error.code() == Some(word)).then(|| MovedSlot::read(error.detail()?, asked)).flatten()
}
