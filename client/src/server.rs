//! [`Servers`]: the addresses that lead to a server, and the TLS for them.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::tls::Tls;

/// Several addresses, which take turns.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// Not empty.
    servers: Vec<Server>,
    turn: usize,
}

/// The scheme of an address whose server speaks TLS.
const TLS: &str = "tls://";

/// The address of a server, and the TLS for it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    address: String,
    tls: Option<Tls>,
}

impl Servers {
    /// Reads `HOST:PORT` or `tls://HOST:PORT`, or several with commas between them: all with
    /// `tls://` or none, so that a client with TLS never goes on without. `ca` is a file with
    /// certificates to trust in place of the system's.
    pub(crate) fn of(servers: &str, ca: Option<&Path>) -> Result<Servers> {
        let addresses: Vec<&str> = servers.split(',').map(str::trim).collect();
        if let Some(plain) = addresses.iter().find(|address| !address.starts_with(TLS))
            && addresses.iter().any(|address| address.starts_with(TLS))
        {
            return Err(Error::Tls(format!("the other addresses have TLS: write {plain} as {TLS}{plain}")));
        }
        if addresses.iter().any(|address| address.trim_start_matches(TLS).is_empty()) {
            let cause =
                format!("an address is missing in {servers:?}: write each as host:port, with commas between them");
            return Err(Error::Io(io::Error::new(io::ErrorKind::InvalidInput, cause)));
        }
        let servers = addresses.into_iter().map(|address| Server::of(address, ca)).collect::<Result<_>>()?;
        Ok(Servers { servers, turn: 0 })
    }

    /// Begins anywhere in the list, so that many clients with the same list spread over it.
    /// `chance` is from 0 to 1.
    pub(crate) fn begin_anywhere(&mut self, chance: f64) {
        self.turn = (chance * self.servers.len() as f64) as usize;
    }

    /// The server whose turn it is. The next call gives the next one.
    pub(crate) fn take_turn(&mut self) -> &Server {
        let turn = self.turn % self.servers.len();
        self.turn = turn + 1;
        &self.servers[turn]
    }

    /// All servers, in the order of the list.
    pub(crate) fn all(&self) -> &[Server] {
        &self.servers
    }
}

impl Server {
    /// Reads one address.
    fn of(server: &str, ca: Option<&Path>) -> Result<Server> {
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

    #[test]
    fn several_addresses_take_turns_from_anywhere_in_the_list() {
        let mut servers = Servers::of("a:1, b:2,[::1]:3", None).expect("a list");
        let mut turns = |chance, count| -> Vec<String> {
            servers.begin_anywhere(chance);
            (0..count).map(|_| servers.take_turn().address().to_owned()).collect()
        };
        assert_eq!(turns(0.0, 4), ["a:1", "b:2", "[::1]:3", "a:1"]);
        assert_eq!(turns(0.5, 2), ["b:2", "[::1]:3"]);
        assert_eq!(turns(1.0, 2), ["a:1", "b:2"]);
        assert_eq!(Servers::of("a:1", None).expect("one").take_turn().address(), "a:1");
    }

    #[test]
    fn an_address_that_is_missing_in_a_list_is_an_error() {
        for list in ["", "a:1,", "a:1,,b:2", "tls://a:1,tls://"] {
            let told = Servers::of(list, None).expect_err(list).to_string();
            assert!(told.contains("host:port"), "{told}");
        }
    }

    #[test]
    fn a_list_has_tls_for_all_addresses_or_for_none() {
        let told = Servers::of("tls://localhost:1,localhost:2", None).expect_err("one is plain").to_string();
        assert!(told.contains("tls://localhost:2"), "{told}");
    }
}
