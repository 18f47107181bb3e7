//! Connections to Redis before anything is known about it: their encryption, their timeouts, and
//! the reasons why they fail.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use pool::{RedisConnection, RedisStream, TimedSocket};
use redis::RedisError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::config::{RedisPlace, RedisSettings, ServerAddress};

/// The encryption of connections: the trusted certificates and the expected name.
#[derive(Clone)]
pub(super) struct Secured {
    config: Arc<ClientConfig>,
    /// The host's name. Without one, the certificate must be for the address.
    name: Option<ServerName<'static>>,
}

/// A connection that does not block.
pub(super) enum Stream {
    Plain(mio::net::TcpStream),
    Tls(Box<StreamOwned<ClientConnection, mio::net::TcpStream>>),
}

/// A connection for commands, which waits for their answers.
pub(super) type CommandConnection = RedisConnection<Blocking>;

/// The stream of a [`CommandConnection`].
pub(super) enum Blocking {
    Plain(TimedSocket),
    Tls(Box<StreamOwned<ClientConnection, TimedSocket>>),
}

/// The reason why a connection could not be made.
#[derive(Debug)]
pub(super) enum DialError {
    /// The certificates cannot be read, or the host's name is invalid.
    Certificates(String),
    /// There was no answer, or not in time.
    Io(io::Error),
    /// Redis refused with this text.
    Refused(String),
    /// It is a replica.
    Replica,
    /// It is not the Redis at which this node is subscribed.
    Elsewhere,
    /// The error of this server of a Redis Cluster.
    At(ServerAddress, Box<DialError>),
}

/// A connection to this address, before any login. Blocks until `by` at most.
pub(super) fn reach(
    address: SocketAddr,
    secured: Option<&Secured>,
    by: Instant,
) -> Result<CommandConnection, DialError> {
    let left = by.saturating_duration_since(Instant::now()).min(STALL_MAX);
    if left.is_zero() {
        return Err(DialError::Io(ErrorKind::TimedOut.into()));
    }
    let socket = TcpStream::connect_timeout(&address, left).map_err(DialError::Io)?;
    socket.set_nodelay(true).map_err(DialError::Io)?;
    let socket = TimedSocket::new(socket, by, STALL_MAX);
    let stream = match secured {
        None => Blocking::Plain(socket),
        Some(Secured { config, name }) => {
            let name = name.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
            let session = ClientConnection::new(config.clone(), name);
            let session = session.map_err(|error| DialError::Refused(error.to_string()))?;
            Blocking::Tls(Box::new(StreamOwned::new(session, socket)))
        }
    };
    Ok(RedisConnection::new(stream))
}

/// The longest time without progress in accepting a connection, taking sent bytes, or answering. A
/// frozen Redis must be noticed within seconds.
pub(super) const STALL_MAX: Duration = Duration::from_secs(1);
/// The longest time of a whole call, and of connecting with all addresses of the name.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

impl Blocking {
    pub(super) fn into_nonblocking(self) -> io::Result<Stream> {
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
    fn socket(&self) -> &TimedSocket {
        match self {
            Blocking::Plain(socket) => socket,
            Blocking::Tls(stream) => &stream.sock,
        }
    }

    fn socket_mut(&mut self) -> &mut TimedSocket {
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

fn nonblocking(socket: TimedSocket) -> io::Result<mio::net::TcpStream> {
    let socket = socket.into_socket();
    socket.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(socket))
}

impl Secured {
    pub(super) fn of(settings: &RedisSettings) -> Result<Secured, DialError> {
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
        let name = match &settings.place {
            RedisPlace::Server(server) => {
                let name = ServerName::try_from(server.host.clone());
                let refuse = |_| DialError::Certificates(format!("{:?} is not a valid host name", server.host));
                Some(name.map_err(refuse)?)
            }
            RedisPlace::Sentinels(_) | RedisPlace::Cluster(_) => None,
        };
        Ok(Secured { config: Arc::new(config), name })
    }
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
            DialError::At(server, error) => write!(f, "{server}: {error}"),
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
