//! Certificates for tests, and clients that trust them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A self-signed certificate and its private key.
pub struct Certificate {
    /// The certificate in PEM.
    pub chain: String,
    /// The private key in PEM.
    pub key: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl Certificate {
    /// A new certificate for this name.
    pub fn of(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Certificate { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().to_vec() }
    }

    /// A certificate for this name that expires after this time.
    pub fn ending(name: &str, after: Duration) -> Certificate {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = (SystemTime::now() + after).into();
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        Certificate { chain: made.pem(), key: key.serialize_pem(), der: made.der().to_vec() }
    }

    /// Certificate and key in one file, in PEM.
    pub fn in_one_file(&self) -> String {
        format!("{}{}", self.chain, self.key)
    }
}

/// The settings of a client that trusts these certificates and speaks all versions.
pub fn trusting(certificates: &[&Certificate]) -> Arc<ClientConfig> {
    trusting_in(certificates, rustls::DEFAULT_VERSIONS)
}

/// The settings of a client that trusts these certificates and speaks these versions.
pub fn trusting_in(certificates: &[&Certificate], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from(certificate.der.clone())).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    Arc::new(config.expect("versions of the provider").with_root_certificates(roots).with_no_client_auth())
}
