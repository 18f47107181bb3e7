//! [`Dialer`]: opens connections to Redis, plain or encrypted, logged in and ready.
//!
//! A connection is useful only if it leads to a primary. A replica refuses writes, and delivers
//! published messages only to its own subscribers. So each new connection asks for the role first,
//! and all addresses of a name are tried until one is a primary's.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;

use parking_lot::Mutex;
use redis::{RedisResult, Value};

pub(super) use super::reach::{Blocking, CALL_TIMEOUT, CommandConnection, DialError, Stream};
use super::reach::{Secured, reach};
use super::resolve::Resolver;
use super::sentinel::Sentinels;
use super::wire::RedisWire;
use crate::config::{RedisPlace, RedisSettings};

/// Opens connections to Redis.
pub(super) struct Dialer {
    settings: RedisSettings,
    resolver: Resolver,
    secured: Option<Secured>,
    /// The last address at which a primary answered. It is tried first, because each dead address
    /// before it would cost a timeout.
    known: Mutex<Option<SocketAddr>>,
}

impl Dialer {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`DialError::Certificates`].
    pub(super) fn new(settings: &RedisSettings) -> Result<Dialer, DialError> {
        let secured = if settings.tls { Some(Secured::of(settings)?) } else { None };
        let resolver = match &settings.place {
            RedisPlace::Server(server) => Resolver::new(&server.host, server.port),
            // Each server of a cluster has a dialer of its own, see `cluster/servers.rs`.
            RedisPlace::Cluster(_) => Resolver::asking(|| Ok(Vec::new())),
            RedisPlace::Sentinels(sentinels) => {
                let sentinels = Sentinels::new(sentinels.clone(), secured.clone());
                Resolver::asking(move || sentinels.primary())
            }
        };
        Ok(Dialer { settings: settings.clone(), resolver, secured, known: Mutex::new(None) })
    }

    /// The address of Redis, for the log.
    pub(super) fn address(&self) -> String {
        self.settings.place.to_string()
    }

    /// Connects to a primary and logs in; the connection then does not block. Blocks, for at most
    /// [`CALL_TIMEOUT`].
    ///
    /// # Errors
    /// Any [`DialError`] but [`DialError::Certificates`].
    pub(super) fn connect(&self) -> Result<RedisWire<Stream>, DialError> {
        self.connect_by(Instant::now() + CALL_TIMEOUT)
    }

    /// Like [`Dialer::connect`], with another deadline.
    ///
    /// # Errors
    /// As for [`Dialer::connect`].
    pub(super) fn connect_by(&self, by: Instant) -> Result<RedisWire<Stream>, DialError> {
        let stream = self.commands(by)?.into_stream().into_nonblocking();
        Ok(RedisWire::new(stream.map_err(DialError::Io)?))
    }

    /// Opens a connection for commands. Blocks until `by` at most.
    ///
    /// # Errors
    /// As for [`Dialer::connect`].
    pub(super) fn commands(&self, by: Instant) -> Result<CommandConnection, DialError> {
        let (mut connection, role) = self.first_to_answer(by)?;
        connection.begin(by);
        if role == ServerRole::Primary { Ok(connection) } else { Err(DialError::Replica) }
    }

    /// Returns a connection to the first address where a primary answers, otherwise to one where a
    /// replica does.
    ///
    /// # Errors
    ///
    /// As for [`Dialer::connect`], if there is no answer at all.
    pub(super) fn first_to_answer(&self, by: Instant) -> Result<(CommandConnection, ServerRole), DialError> {
        let (mut replica, mut last) = (None, None);
        let addresses = self.resolver.addresses(by).map_err(DialError::Io)?;
        let known = *self.known.lock();
        for address in known_first(addresses, known) {
            match self.open(address, by) {
                Ok((connection, ServerRole::Primary)) => {
                    *self.known.lock() = Some(address);
                    return Ok((connection, ServerRole::Primary));
                }
                Ok(other) => replica = Some(other),
                Err(error) => last = Some(error),
            }
        }
        let nobody = || DialError::Io(ErrorKind::NotFound.into());
        replica.ok_or_else(|| last.unwrap_or_else(nobody))
    }

    fn open(&self, address: SocketAddr, by: Instant) -> Result<(CommandConnection, ServerRole), DialError> {
        let mut connection = reach(address, self.secured.as_ref(), by)?;
        self.log_in(&mut connection)?;
        let role = ServerRole::of(&mut connection)?;
        Ok((connection, role))
    }

    fn log_in(&self, connection: &mut CommandConnection) -> Result<(), DialError> {
        let RedisSettings { username, password, db, .. } = &self.settings;
        if let Some(password) = password {
            let mut auth = redis::cmd("AUTH");
            if let Some(username) = username {
                auth.arg(username);
            }
            auth.arg(password.expose()).query::<Value>(connection)?;
        }
        if *db != 0 {
            redis::cmd("SELECT").arg(*db).query::<Value>(connection)?;
        }
        Ok(())
    }
}

/// Moves the known address to the front; the others follow in their order.
fn known_first(mut addresses: Vec<SocketAddr>, known: Option<SocketAddr>) -> Vec<SocketAddr> {
    if let Some(at) = addresses.iter().position(|address| Some(*address) == known) {
        addresses[..=at].rotate_right(1);
    }
    addresses
}

/// The role of a Redis in its replication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ServerRole {
    /// It accepts writes and delivers messages itself.
    Primary,
    /// It follows another Redis.
    Replica,
}

impl ServerRole {
    /// Asks for the role. A frozen Redis still accepts connections, so the answer also shows that
    /// it runs. A Redis that does not report its role counts as a primary.
    pub(super) fn of(connection: &mut CommandConnection) -> RedisResult<ServerRole> {
        // Unlike ROLE and INFO, HELLO needs no privilege beyond connecting (Redis 6).
        match redis::cmd("HELLO").arg(2).query::<Value>(connection) {
            Ok(answer) => return Ok(ServerRole::said(&answer)),
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => {}
        }
        match redis::cmd("INFO").arg("replication").query::<String>(connection) {
            Ok(text) => {
                let is_replica = text.lines().any(|line| line.trim_end() == "role:slave");
                return Ok(if is_replica { ServerRole::Replica } else { ServerRole::Primary });
            }
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => {}
        }
        redis::cmd("PING").query::<Value>(connection).map(|_| ServerRole::Primary)
    }

    /// The role in `server redis version 7.0.15 … role master modules …`.
    fn said(answer: &Value) -> ServerRole {
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) => text.clone(),
            _ => String::new(),
        };
        let Value::Array(pairs) = answer else { return ServerRole::Primary };
        let role = pairs.chunks(2).find(|pair| text(&pair[0]) == "role").and_then(|pair| pair.get(1)).map(text);
        match role.as_deref() {
            Some("replica" | "slave") => ServerRole::Replica,
            _ => ServerRole::Primary,
        }
    }
}
