//! [`Dialer`]: opens connections to Redis, plain or encrypted, logged in and ready.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::wire::{Reply, Wire};
use crate::config::RedisSettings;

/// Knows how to reach Redis.
pub(super) struct Dialer {
    settings: RedisSettings,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A connection that does not block.
pub(super) enum Stream {
    Plain(mio::net::TcpStream),
    Tls(Box<StreamOwned<ClientConnection, mio::net::TcpStream>>),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// The certificates cannot be read, or the host's name is none.
    Certificates(String),
    /// Nobody answers, or not in time.
    Io(io::Error),
    /// Redis answered with this.
    Refused(String),
}

impl Dialer {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`DialError::Certificates`].
    pub(super) fn new(settings: &RedisSettings) -> Result<Dialer, DialError> {
        let tls = if settings.tls { Some(tls_config(settings)?) } else { None };
        Ok(Dialer { settings: settings.clone(), tls })
    }

    /// Where Redis is, for the log.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }

    /// The same way for the library's own connections.
    ///
    /// # Errors
    /// [`DialError::Certificates`].
    pub(super) fn client(&self) -> Result<Client, DialError> {
        let RedisSettings { host, port, username, password, db, tls, tls_ca, .. } = &self.settings;
        let refuse = |error: RedisError| DialError::Certificates(error.to_string());
        let host = host.clone();
        let address = match tls {
            false => ConnectionAddr::Tcp(host, *port),
            true => ConnectionAddr::TcpTls { host, port: *port, insecure: false, tls_params: None },
        };
        let mut login = RedisConnectionInfo::default().set_db(*db).set_skip_set_lib_name();
        if let Some(username) = username {
            login = login.set_username(username);
        }
        if let Some(password) = password {
            login = login.set_password(password.expose());
        }
        let info: ConnectionInfo = address.into_connection_info().map_err(refuse)?.set_redis_settings(login);
        if !tls {
            return Client::open(info).map_err(refuse);
        }
        let root_cert = match tls_ca {
            Some(file) => Some(std::fs::read(file).map_err(|error| unreadable(file.display(), &error))?),
            None => None,
        };
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(refuse)
    }

    /// Connects and logs in. Blocks, for at most a few seconds.
    ///
    /// # Errors
    /// [`DialError::Io`] and [`DialError::Refused`].
    pub(super) fn connect(&self) -> Result<Wire<Stream>, DialError> {
        let socket = self.socket().map_err(DialError::Io)?;
        let Some((config, name)) = &self.tls else {
            let mut wire = Wire::new(socket);
            self.log_in(&mut wire)?;
            let socket = nonblocking(wire.into_stream()).map_err(DialError::Io)?;
            return Ok(Wire::new(Stream::Plain(socket)));
        };
        let session = ClientConnection::new(config.clone(), name.clone());
        let session = session.map_err(|error| DialError::Refused(error.to_string()))?;
        let mut wire = Wire::new(StreamOwned::new(session, socket));
        self.log_in(&mut wire)?;
        let StreamOwned { conn, sock } = wire.into_stream();
        let socket = nonblocking(sock).map_err(DialError::Io)?;
        Ok(Wire::new(Stream::Tls(Box::new(StreamOwned::new(conn, socket)))))
    }

    fn socket(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in (self.settings.host.as_str(), self.settings.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
                    socket.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
                    return Ok(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Says who we are, and hears that Redis is there: a stopped one still accepts connections.
    fn log_in(&self, wire: &mut Wire<impl Read + Write>) -> Result<(), DialError> {
        let RedisSettings { username, password, db, .. } = &self.settings;
        let mut commands = Vec::new();
        if let Some(password) = password {
            let mut auth = redis::cmd("AUTH");
            if let Some(username) = username {
                auth.arg(username);
            }
            auth.arg(password.expose());
            commands.push(auth);
        }
        if *db != 0 {
            commands.push(redis::cmd("SELECT").arg(*db).to_owned());
        }
        commands.push(redis::cmd("PING"));
        for command in commands {
            exchange(wire, &command)?;
        }
        Ok(())
    }
}

/// How long a connection may take to come about, and an answer to come. A stopped Redis is to be noticed within seconds.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends one command on a connection that blocks, and waits for its answer.
fn exchange(wire: &mut Wire<impl Read + Write>, command: &Cmd) -> Result<(), DialError> {
    wire.push(&command.get_packed_command());
    wire.flush().map_err(DialError::Io)?;
    if wire.pending_bytes() > 0 {
        return Err(DialError::Io(ErrorKind::TimedOut.into()));
    }
    loop {
        match wire.next() {
            Ok(Some(Reply::Error(text))) => return Err(DialError::Refused(String::from_utf8_lossy(text).into_owned())),
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(malformed) => return Err(DialError::Refused(malformed.to_string())),
        }
        if !wire.fill_once().map_err(DialError::Io)? {
            return Err(DialError::Io(ErrorKind::TimedOut.into()));
        }
    }
}

fn nonblocking(socket: TcpStream) -> io::Result<mio::net::TcpStream> {
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
    let name = name.map_err(|_| DialError::Certificates(format!("{:?} is no name of a host", settings.host)))?;
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
            DialError::Io(error) if error.kind() == ErrorKind::WouldBlock => f.write_str("no answer in time"),
            DialError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DialError {}
