//! Certificates for tests, and clients that trust them.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A certificate that signs itself, and its private key.
pub struct Certificate {
    /// In PEM.
    pub chain: String,
    /// In PEM.
    pub key: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl Certificate {
    /// A new one for this name.
    pub fn of(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Certificate { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().to_vec() }
    }

    /// Both in one file.
    pub fn in_one_file(&self) -> String {
        format!("{}{}", self.chain, self.key)
    }
}

/// A client that trusts these certificates and speaks all versions.
pub fn trusting(certificates: &[&Certificate]) -> Arc<ClientConfig> {
    trusting_in(certificates, rustls::DEFAULT_VERSIONS)
}

/// A client that trusts these certificates and speaks these versions.
pub fn trusting_in(certificates: &[&Certificate], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from(certificate.der.clone())).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    Arc::new(config.expect("versions of the provider").with_root_certificates(roots).with_no_client_auth())
}
