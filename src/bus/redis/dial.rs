//! [`Dialer`]: opens connections to Redis, plain or encrypted, logged in and ready.
//!
//! A connection is useful only if it leads to a primary. A replica refuses writes, and delivers
//! published messages only to its own subscribers. So each new connection asks for the role first,
//! and all addresses of a name are tried until one is a primary's.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use parking_lot::Mutex;
use pool::{RedisConnection, RedisStream, Timed};
use redis::{RedisError, RedisResult, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::resolve::Resolver;
use super::wire::Wire;
use crate::config::RedisSettings;

/// Opens connections to Redis.
pub(super) struct Dialer {
    settings: RedisSettings,
    resolver: Resolver,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Where a primary last answered. A dead address in front of it would cost each connection a
    /// timeout.
    known: Mutex<Option<SocketAddr>>,
}

/// A connection that does not block.
pub(super) enum Stream {
    Plain(mio::net::TcpStream),
    Tls(Box<StreamOwned<ClientConnection, mio::net::TcpStream>>),
}

/// A connection for commands, which waits for their answers.
pub(super) type Commands = RedisConnection<Blocking>;

/// The stream of such a connection.
pub(super) enum Blocking {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) enum DialError {
    /// The certificates cannot be read, or the host's name is invalid.
    Certificates(String),
    /// No answer, or not in time.
    Io(io::Error),
    /// Redis refused with this text.
    Refused(String),
    /// It is a replica.
    Replica,
    /// It is another Redis than the one that this node is subscribed at.
    Elsewhere,
}

impl Dialer {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`DialError::Certificates`].
    pub(super) fn new(settings: &RedisSettings) -> Result<Dialer, DialError> {
        let tls = if settings.tls { Some(tls_config(settings)?) } else { None };
        let resolver = Resolver::new(&settings.host, settings.port);
        Ok(Dialer { settings: settings.clone(), resolver, tls, known: Mutex::new(None) })
    }

    /// The address of Redis, for the log.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }

    /// Connects to a primary and logs in; the connection then does not block. Blocks, for at most
    /// [`CALL_TIMEOUT`].
    ///
    /// # Errors
    /// Any [`DialError`] but [`DialError::Certificates`].
    pub(super) fn connect(&self) -> Result<Wire<Stream>, DialError> {
        let stream = self.commands(Instant::now() + CALL_TIMEOUT)?.into_stream().into_nonblocking();
        Ok(Wire::new(stream.map_err(DialError::Io)?))
    }

    /// Opens a connection for commands. Blocks until `by` at most.
    ///
    /// # Errors
    /// As for [`Dialer::connect`].
    pub(super) fn commands(&self, by: Instant) -> Result<Commands, DialError> {
        let (mut connection, role) = self.whoever_answers(by)?;
        connection.begin(by);
        if role == ServerRole::Primary { Ok(connection) } else { Err(DialError::Replica) }
    }

    /// Returns a connection to the first address where a primary answers, otherwise to one where a
    /// replica does.
    ///
    /// # Errors
    ///
    /// As for [`Dialer::connect`], if there is no answer at all.
    pub(super) fn whoever_answers(&self, by: Instant) -> Result<(Commands, ServerRole), DialError> {
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

    fn open(&self, address: SocketAddr, by: Instant) -> Result<(Commands, ServerRole), DialError> {
        let left = by.saturating_duration_since(Instant::now()).min(STALL_MAX);
        if left.is_zero() {
            return Err(DialError::Io(ErrorKind::TimedOut.into()));
        }
        let socket = TcpStream::connect_timeout(&address, left).map_err(DialError::Io)?;
        socket.set_nodelay(true).map_err(DialError::Io)?;
        let socket = Timed::new(socket, by, STALL_MAX);
        let stream = match &self.tls {
            None => Blocking::Plain(socket),
            Some((config, name)) => {
                let session = ClientConnection::new(config.clone(), name.clone());
                let session = session.map_err(|error| DialError::Refused(error.to_string()))?;
                Blocking::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        };
        let mut connection = RedisConnection::new(stream);
        self.log_in(&mut connection)?;
        let role = ServerRole::of(&mut connection)?;
        Ok((connection, role))
    }

    fn log_in(&self, connection: &mut Commands) -> Result<(), DialError> {
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
    /// Asks for the role. A frozen Redis still accepts connections, so this also shows that it
    /// runs. A Redis that does not report its role counts as a primary.
    fn of(connection: &mut Commands) -> RedisResult<ServerRole> {
        // Unlike ROLE and INFO, it needs no privilege beyond the one to connect (Redis 6).
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

/// The longest time without progress: for accepting a connection, for taking what is sent, for an
/// answer. A frozen Redis must be noticed within seconds.
pub(super) const STALL_MAX: Duration = Duration::from_secs(1);
/// The longest time for a call in all, and for making a connection, with all addresses of the name.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

impl Blocking {
    fn into_nonblocking(self) -> io::Result<Stream> {
        Ok(match self {
            Blocking::Plain(socket) => Stream::Plain(nonblocking(socket)?),
            Blocking::Tls(stream) => {
                let StreamOwned { conn, sock } = *stream;
                Stream::Tls(Box::new(StreamOwned::new(conn, nonblocking(sock)?)))
            }
        })
    }
}

impl RedisStream for Blocking {
    fn socket(&self) -> &Timed {
        match self {
            Blocking::Plain(socket) => socket,
            Blocking::Tls(stream) => &stream.sock,
        }
    }

    fn socket_mut(&mut self) -> &mut Timed {
        match self {
            Blocking::Plain(socket) => socket,
            Blocking::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Blocking::Plain(socket) => socket.read(buffer),
            Blocking::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Blocking::Plain(socket) => socket.write(bytes),
            Blocking::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Blocking::Plain(socket) => socket.flush(),
            Blocking::Tls(stream) => stream.flush(),
        }
    }
}

fn nonblocking(socket: Timed) -> io::Result<mio::net::TcpStream> {
    let socket = socket.into_socket();
    socket.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(socket))
}

fn tls_config(settings: &RedisSettings) -> Result<(Arc<ClientConfig>, ServerName<'static>), DialError> {
    let mut roots = RootCertStore::empty();
    match &settings.tls_ca {
        Some(file) => {
            let refuse = |error: &dyn fmt::Display| unreadable(file.display(), error);
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(&error))? {
                let certificate = certificate.map_err(|error| refuse(&error))?;
                roots.add(certificate).map_err(|error| refuse(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(DialError::Certificates("no certificate authority is known; name one with tls_ca".to_owned()));
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(settings.host.clone());
    let name = name.map_err(|_| DialError::Certificates(format!("{:?} is not a valid host name", settings.host)))?;
    Ok((Arc::new(config), name))
}

fn unreadable(file: impl fmt::Display, error: &(impl fmt::Display + ?Sized)) -> DialError {
    DialError::Certificates(format!("cannot read certificates from {file}: {error}"))
}

impl Stream {
    fn socket(&mut self) -> &mut mio::net::TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket().deregister(registry)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Certificates(text) | DialError::Refused(text) => f.write_str(text),
            DialError::Io(error) if error.kind() == ErrorKind::TimedOut && error.get_ref().is_none() => {
                f.write_str("no answer in time")
            }
            DialError::Io(error) => error.fmt(f),
            DialError::Replica => f.write_str("it is a replica, and a primary is needed"),
            DialError::Elsewhere => f.write_str("its name leads to another Redis now"),
        }
    }
}

impl std::error::Error for DialError {}

impl From<RedisError> for DialError {
    fn from(error: RedisError) -> DialError {
        let said = || pool::without_arguments(&error.to_string()).to_owned();
        if error.is_timeout() {
            DialError::Io(ErrorKind::TimedOut.into())
        } else if error.is_io_error() {
            DialError::Io(io::Error::other(said()))
        } else {
            DialError::Refused(said())
        }
    }
}
