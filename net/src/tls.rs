//! [`Tls`]: the certificates and sessions of a port that speaks TLS.
//!
//! This file alone knows rustls. A [`TlsSession`] turns bytes into bytes: it has no socket, and
//! does not know which bytes have arrived. rustls 0.23 has one half for both directions, so the
//! loop decrypts under the lock of the link. The next version has two halves, and then only the
//! writing half belongs under the lock.
//!
//! New certificates are for new connections; open connections keep theirs. Resumption uses tickets
//! that only this process can read: a client that comes to another node makes a whole handshake
//! there.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig, ServerConnection};

/// TLS of one port: its certificates, and counts of its handshakes. Any thread may use it.
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
    tickets: Arc<dyn ProducesTickets>,
    tallies: Arc<Tallies>,
}

/// One certificate with its chain and its private key.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

/// Why these files cannot be used for TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlsError {
    /// The first file has no certificate.
    NoCertificate,
    /// A certificate, or the text around it, cannot be read.
    BadCertificate(String),
    /// The second file has no private key that can be read.
    NoKey,
    /// The private key belongs to another certificate.
    OtherKey,
    /// The private key is of a kind that is not supported.
    BadKey(String),
    /// No certificate was given.
    Nothing,
    /// The system gives no random bytes.
    Random,
}

/// Counts of the handshakes, and of the connections that speak TLS now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Handshakes {
    /// Handshakes that have succeeded.
    pub finished: u64,
    /// The part of `finished` that resumed an earlier session.
    pub resumed: u64,
    /// Connections that began with TLS and ended before the end of the handshake.
    pub failed: u64,
    /// Open connections whose handshake is finished.
    pub open: u64,
}

#[derive(Default, Debug)]
struct Tallies {
    finished: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    open: AtomicU64,
}

impl Tls {
    /// Speaks TLS with these certificates. A client is shown the first one that has the requested
    /// name and a key of a kind that the client knows. If no certificate has the name, or the
    /// client requests none, it is shown the first one with such a key.
    ///
    /// # Errors
    ///
    /// If there are no certificates, or the system gives no random bytes.
    pub fn new(certificates: Vec<Certificate>) -> Result<Tls, TlsError> {
        let tickets = ring::Ticketer::new().map_err(|_| TlsError::Random)?;
        let config = RwLock::new(config(certificates, tickets.clone())?);
        Ok(Tls { config, tickets, tallies: Arc::default() })
    }

    /// Shows new connections these certificates from now on. On an error nothing changes.
    ///
    /// # Errors
    ///
    /// If there are no certificates.
    pub fn renew(&self, certificates: Vec<Certificate>) -> Result<(), TlsError> {
        *self.config.write() = config(certificates, self.tickets.clone())?;
        Ok(())
    }

    /// The counts so far.
    pub fn handshakes(&self) -> Handshakes {
        let Tallies { finished, resumed, failed, open } = &*self.tallies;
        Handshakes {
            finished: finished.load(Relaxed),
            resumed: resumed.load(Relaxed),
            failed: failed.load(Relaxed),
            open: open.load(Relaxed),
        }
    }

    /// The session of a new connection; `None` if the system gives no random bytes.
    pub(crate) fn begin(&self) -> Option<TlsSession> {
        let config = self.config.read().clone();
        match ServerConnection::new(config) {
            Ok(connection) => Some(TlsSession { connection, tallies: self.tallies.clone(), is_open: false }),
            Err(error) => {
                log::error!("cannot begin TLS: {error}");
                None
            }
        }
    }
}

impl Certificate {
    /// Reads PEM text: the certificate followed by those of its issuers, and its private key, which
    /// may be in the same text.
    ///
    /// # Errors
    ///
    /// If something is missing, cannot be read, or does not belong together.
    pub fn of_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::BadCertificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::OtherKey,
            rustls::Error::InvalidCertificate(error) => TlsError::BadCertificate(format!("{error:?}")),
            error => TlsError::BadKey(error.to_string()),
        })?;
        // The chooser reads the names of the certificate.
        ParsedCertificate::try_from(&certified.cert[0]).map_err(|error| TlsError::BadCertificate(error.to_string()))?;
        Ok(Certificate(Arc::new(certified)))
    }

    /// The certificate itself, in DER (X.690).
    pub fn der(&self) -> &[u8] {
        &self.0.cert[0]
    }

    fn has_name(&self, name: &ServerName<'_>) -> bool {
        ParsedCertificate::try_from(&self.0.cert[0]).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

fn config(certificates: Vec<Certificate>, tickets: Arc<dyn ProducesTickets>) -> Result<Arc<ServerConfig>, TlsError> {
    if certificates.is_empty() {
        return Err(TlsError::Nothing);
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::BadKey(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chooser(certificates)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = tickets;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Chooses the certificate for a client.
#[derive(Debug)]
struct Chooser(Vec<Certificate>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_known = |one: &&Certificate| one.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let of_name = name.and_then(|name| self.0.iter().filter(is_known).find(|one| one.has_name(&name)));
        of_name.or_else(|| self.0.iter().find(is_known)).map(|one| one.0.clone())
    }
}

/// The TLS session of one connection.
pub(crate) struct TlsSession {
    connection: ServerConnection,
    tallies: Arc<Tallies>,
    /// Whether the handshake is finished and counted as such.
    is_open: bool,
}

/// The outcome of reading decrypted bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plain {
    /// This number of payload bytes.
    Bytes(usize),
    /// No payload before more bytes of the wire arrive.
    Nothing,
    /// The peer has ended its stream.
    End,
}

impl TlsSession {
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Processes the bytes at the front of `wire`, [`FEED_BYTES`] at most, and returns their
    /// number. The caller must read their payload before the next call.
    ///
    /// # Errors
    ///
    /// If the bytes break the protocol. The alert for the peer is ready to be sent.
    pub(crate) fn feed(&mut self, wire: &[u8]) -> io::Result<usize> {
        let count = self.connection.read_tls(&mut &wire[..wire.len().min(FEED_BYTES)])?;
        let processed = self.connection.process_new_packets();
        if !self.is_open && processed.is_ok() && !self.connection.is_handshaking() {
            self.is_open = true;
            self.tallies.finished.fetch_add(1, Relaxed);
            self.tallies.open.fetch_add(1, Relaxed);
            if self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                self.tallies.resumed.fetch_add(1, Relaxed);
            }
        }
        match processed {
            Ok(_) => Ok(count),
            Err(error) => {
                log::debug!("a TLS connection is closed: {error}");
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// Reads the decrypted payload.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Plain {
        match self.connection.reader().read(buffer) {
            Ok(0) if !buffer.is_empty() => Plain::End,
            Ok(count) => Plain::Bytes(count),
            // The caller knows about the end of the socket.
            Err(_) => Plain::Nothing,
        }
    }

    /// Makes one record of the front of `payload`, [`RECORD_BYTES_MAX`] at most, and returns the
    /// number of bytes. Not during the handshake.
    pub(crate) fn seal(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.connection.writer().write(&payload[..payload.len().min(RECORD_BYTES_MAX)])
    }

    /// Sends the peer the end of the stream.
    pub(crate) fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether bytes wait to be moved to the wire.
    pub(crate) fn has_wire(&self) -> bool {
        self.connection.wants_write()
    }

    /// Moves all bytes for the wire to `sink`, which takes all of them.
    pub(crate) fn take_wire(&mut self, sink: &mut dyn Write) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(sink)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Drop for TlsSession {
    fn drop(&mut self) {
        match self.is_open {
            true => self.tallies.open.fetch_sub(1, Relaxed),
            false => self.tallies.failed.fetch_add(1, Relaxed),
        };
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("handshakes", &self.handshakes()).finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::NoCertificate => f.write_str("it has no certificate (PEM: BEGIN CERTIFICATE)"),
            TlsError::BadCertificate(what) => write!(f, "its certificate cannot be read: {what}"),
            TlsError::NoKey => f.write_str(
                "it has no private key that can be read without a password (PEM: BEGIN PRIVATE KEY, RSA PRIVATE KEY or \
                 EC PRIVATE KEY)",
            ),
            TlsError::OtherKey => f.write_str("the private key is not that of the first certificate"),
            TlsError::BadKey(what) => write!(f, "the private key cannot be used: {what}"),
            TlsError::Nothing => f.write_str("there is no certificate"),
            TlsError::Random => f.write_str("the system gives no random bytes"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Whether a client whose input begins with this byte speaks TLS. The byte is the type of a
/// handshake record (RFC 8446, 5.1), and no text begins with it.
pub(crate) fn is_first_byte(byte: u8) -> bool {
    byte == HANDSHAKE
}

/// Whether the record at the front is complete, or too long to be accepted anyway: type (1),
/// version (2), length (2), content.
pub(crate) fn is_whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, content @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            content.len() >= length.min(HELLO_BYTES_MAX - RECORD_HEAD_BYTES)
        }
        _ => false,
    }
}

const HANDSHAKE: u8 = 0x16;
const RECORD_HEAD_BYTES: usize = 5;
/// The most bytes of a client's part of a handshake; usual ones have 200 to 2,000.
pub(crate) const HELLO_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of the wire that are processed at once: rustls takes no more.
pub(crate) const FEED_BYTES: usize = 4096;
/// The most payload of one record (RFC 8446, 5.1).
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024;
