//! The authorities whose certificates the web server may have: those of the system, or of the file
//! that `SSL_CERT_FILE` names.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore};

/// The authorities that were found.
struct Authorities {
    roots: RootCertStore,
    /// Why some were not, one text each.
    problems: Vec<String>,
}

impl Authorities {
    fn load() -> Authorities {
        let found = rustls_native_certs::load_native_certs();
        let mut problems: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(found.certs);
        if unreadable > 0 {
            problems.push(format!("{unreadable} of the certificates cannot be read"));
        }
        if roots.is_empty() {
            problems.push(NONE.to_owned());
        }
        Authorities { roots, problems }
    }
}

/// TLS with a web server that one of the authorities vouches for. They are read once; the log says
/// what is wrong with them.
pub(super) fn client() -> Arc<ClientConfig> {
    static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let Authorities { roots, problems } = Authorities::load();
        problems.iter().for_each(|problem| log::warn!("hook: authorities of certificates: {problem}"));
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    });
    TLS.clone()
}

/// How many authorities there are, and which cannot be read.
///
/// # Errors
/// There is none; the text says why, and what to do.
pub fn authorities() -> Result<String, String> {
    let Authorities { roots, problems } = Authorities::load();
    match (roots.is_empty(), problems.is_empty()) {
        (true, _) => Err(problems.join("; ")),
        (false, true) => Ok(format!("{} authorities", roots.len())),
        (false, false) => Ok(format!("{} authorities ({})", roots.len(), problems.join("; "))),
    }
}

const NONE: &str =
    "there is none, so https cannot work: install the package ca-certificates, or name a file in SSL_CERT_FILE";
