//! [`Tls`]: the trusted certificates, and connections that speak TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Source;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::error::{Error, Result};
use crate::transport::Transport;

/// A connection with TLS that blocks.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// The name of a server, and the certificates that prove it.
#[derive(Clone)]
pub(crate) struct Tls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// TLS for the server of this name. Trusts the certificates in the file `ca`, otherwise those
    /// of the system.
    pub(crate) fn new(host: &str, ca: Option<&Path>) -> Result<Tls> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Tls(format!("{host:?} is not the name of a server: write tls://HOST:PORT")))?;
        let roots = match ca {
            Some(ca) => roots_of(ca)?,
            None => roots_of_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls { name, config: Arc::new(config) })
    }

    /// Begins TLS. Fails if the handshake is not finished at this time.
    pub(crate) fn begin(&self, mut socket: TcpStream, deadline: Instant) -> io::Result<TlsStream> {
        let mut tls = ClientConnection::new(self.config.clone(), self.name.clone()).map_err(io::Error::other)?;
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            if !tls.is_handshaking() {
                socket.set_read_timeout(None)?;
                return Ok(StreamOwned::new(tls, socket));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            match tls.read_tls(&mut socket) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server does not speak TLS")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Err(error) = tls.process_new_packets() {
                // Sends the server the reason, if that is possible.
                let _ = tls.write_tls(&mut socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why(&error)));
            }
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn roots_of(ca: &Path) -> Result<RootCertStore> {
    let unusable = |why: String| Error::Tls(format!("the certificates in {} cannot be used: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there are none (PEM: BEGIN CERTIFICATE)".to_owned()));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(Error::Tls("this system trusts no certificates: give a file with those to trust".to_owned())),
        false => Ok(roots),
    }
}

/// The reason why TLS does not begin, in words that a user understands.
fn why(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => format!("the server's certificate is not trusted: {error}"),
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
        error => format!("TLS fails: {error}"),
    }
}

/// A connection with TLS that never blocks.
pub(crate) struct Encrypted {
    tls: ClientConnection,
    socket: mio::net::TcpStream,
}

impl Encrypted {
    /// `stream` does not block already.
    pub(crate) fn new(stream: TlsStream) -> Encrypted {
        let (tls, socket) = stream.into_parts();
        Encrypted { tls, socket: mio::net::TcpStream::from_std(socket) }
    }
}

impl Transport for Encrypted {
    fn source(&mut self) -> &mut dyn Source {
        &mut self.socket
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            // Decrypted bytes come first, because no event of the socket reports them.
            match self.tls.reader().read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.tls.read_tls(&mut self.socket)? == 0 {
                // A server that was killed ends no stream in order. Frames and cursors show which
                // messages are missing.
                return Ok(0);
            }
            self.tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, why(&error)))?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // At most one record is held back.
        self.flush()?;
        let count = self.tls.writer().write(&bytes[..bytes.len().min(RECORD_MAX)])?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Encrypted {
    /// Sends the server the end of the stream, if the socket has room.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = Transport::flush(self);
    }
}

/// The most payload of one record.
const RECORD_MAX: usize = 16 * 1024;
