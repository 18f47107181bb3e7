//! [`Server`]: the address of a server, and how it is spoken to.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tls::Tls;

/// What stands before an address whose server speaks TLS.
const TLS: &str = "tls://";

/// Where a server is, and with which TLS it is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    address: String,
    tls: Option<Tls>,
}

impl Server {
    /// From `HOST:PORT` or `tls://HOST:PORT`. `ca` is a file with the certificates that are trusted in place of the
    /// system's.
    pub(crate) fn of(server: &str, ca: Option<&Path>) -> Result<Server> {
        match server.strip_prefix(TLS) {
            Some(address) => Ok(Server { address: address.to_owned(), tls: Some(Tls::new(host_of(address), ca)?) }),
            None if ca.is_some() => Err(Error::Tls(format!(
                "certificates are trusted only with TLS: write the server's address as {TLS}{server}"
            ))),
            None => Ok(Server { address: server.to_owned(), tls: None }),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

/// The name or the IP address in front of the port.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_a_certificate_names() {
        for (address, host) in
            [("chat.example:6000", "chat.example"), ("[::1]:6000", "::1"), ("10.0.0.1:1", "10.0.0.1")]
        {
            assert_eq!(host_of(address), host);
        }
    }

    #[test]
    fn only_an_address_with_tls_trusts_certificates() {
        assert!(Server::of("localhost:6000", None).expect("plain").tls().is_none());
        let told = Server::of("localhost:6000", Some(Path::new("ca.pem"))).expect_err("no TLS").to_string();
        assert!(told.contains("tls://localhost:6000"), "{told}");
        let told =
            Server::of("tls://localhost:6000", Some(Path::new("/no/such/file"))).expect_err("no file").to_string();
        assert!(told.contains("/no/such/file"), "{told}");
        let told = Server::of("tls://-:6000", None).expect_err("no name").to_string();
        assert!(told.contains("is not the name of a server"), "{told}");
    }
}
