//! TLS for [`Stream`](crate::carrier::Stream) and for the relay.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::ops::DerefMut;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, ServerConfig, SideData, SignatureScheme,
};

/// The client's end of a connection. Any certificate will do: a measurement has no secrets.
pub(crate) fn client(server: IpAddr) -> io::Result<ClientConnection> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> = LazyLock::new(|| {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Anybody(provider.clone()));
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Arc::new(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
    });
    let config = CONFIG.clone().map_err(io::Error::other)?;
    ClientConnection::new(config, ServerName::from(server)).map_err(io::Error::other)
}

/// The relay's TLS. Its certificate is made for the run, of the kind that certificate tools make by
/// default (ECDSA with P-256).
pub(crate) fn server() -> io::Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// Reads decrypted bytes, and more from the socket if there are none. Returns `WouldBlock` if the
/// socket does.
pub(crate) fn read<T, S: SideData>(tls: &mut T, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize>
where
    T: DerefMut<Target = ConnectionCommon<S>>,
{
    // A client that reads before it writes begins the handshake here.
    flush(tls, socket).or_else(unless_full)?;
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        if tls.read_tls(socket)? == 0 {
            return Ok(0);
        }
        let processed = tls.process_new_packets();
        // The read may have made answers of the handshake, or alerts.
        let flushed = flush(tls, socket);
        processed.map_err(io::Error::other)?;
        flushed.or_else(unless_full)?;
    }
}

/// Takes bytes and writes them as far as the socket has room; the next call writes the rest. During
/// the handshake the bytes wait for its end.
pub(crate) fn write<T, S: SideData>(tls: &mut T, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize>
where
    T: DerefMut<Target = ConnectionCommon<S>>,
{
    flush(tls, socket)?;
    let count = tls.writer().write(bytes)?;
    flush(tls, socket).or_else(unless_full)?;
    Ok(count)
}

/// Writes the bytes held back. Returns `WouldBlock` until all of them are written.
pub(crate) fn flush<T, S: SideData>(tls: &mut T, socket: &mut TcpStream) -> io::Result<()>
where
    T: DerefMut<Target = ConnectionCommon<S>>,
{
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

/// Lets the error of a full socket pass as success.
pub(crate) fn unless_full(error: io::Error) -> io::Result<()> {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) { Ok(()) } else { Err(error) }
}

/// Trusts every certificate, but checks signatures, because they cost time.
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}
