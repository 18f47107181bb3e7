//! [`ServerAddress`]: the address of a database or another service, and lists of them.

use std::fmt;
use std::net::Ipv6Addr;

/// The host and port of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerAddress {
    /// An address or a host name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// An error in a list of servers: the wrong part of the value, and the allowed values.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct BadList<'a>(pub(super) &'a str, pub(super) String);

impl ServerAddress {
    /// The server at this host and port.
    pub fn new(host: &str, port: u16) -> ServerAddress {
        ServerAddress { host: host.to_owned(), port }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The servers as they are written in a list: `10.0.0.1:3306,10.0.0.2:3306`.
pub fn in_words(servers: &[ServerAddress]) -> String {
    servers.iter().map(ServerAddress::to_string).collect::<Vec<_>>().join(",")
}

/// Reads `10.0.0.1,db2:3307,[fd00::3]:3306`. An entry without a port has `default_port`.
pub(super) fn list(text: &str, default_port: u16) -> Result<Vec<ServerAddress>, BadList<'_>> {
    let mut servers: Vec<ServerAddress> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        if entry.is_empty() {
            let advice = "addresses with one comma between two of them, such as 10.0.0.1,10.0.0.2";
            return Err(BadList(text, advice.to_owned()));
        }
        let address = "an address such as 127.0.0.1, a host name, or one of both with a port, such as db1:3306";
        let server = one(entry, default_port).ok_or_else(|| BadList(entry, address.to_owned()))?;
        if servers.iter().any(|known| known.port == server.port && known.host.eq_ignore_ascii_case(&server.host)) {
            return Err(BadList(text, format!("each server once: {server} is there twice")));
        }
        servers.push(server);
    }
    if servers.len() > SERVERS_MAX {
        return Err(BadList(text, format!("at most {SERVERS_MAX} servers, not {}", servers.len())));
    }
    Ok(servers)
}

fn one(entry: &str, default_port: u16) -> Option<ServerAddress> {
    if entry.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return None;
    }
    // An IPv6 address has colons of its own.
    if entry.parse::<Ipv6Addr>().is_ok() {
        return Some(ServerAddress::new(entry, default_port));
    }
    let (host, port) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match entry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (entry, None),
        },
    };
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port > 0)?,
        Some(_) => return None,
        None => default_port,
    };
    if host.is_empty() { None } else { Some(ServerAddress::new(host, port)) }
}

/// The most servers in a list: each costs a thread during the search for a usable one.
const SERVERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let read = |text| list(text, 3306).map(|servers| in_words(&servers));
        assert_eq!(read("db").unwrap(), "db:3306");
        assert_eq!(read("::1").unwrap(), "[::1]:3306");
        assert_eq!(
            read("10.0.0.1, db2:3307,[fd00::3]:1,[::1]").unwrap(),
            "10.0.0.1:3306,db2:3307,[fd00::3]:1,[::1]:3306"
        );
        assert_eq!(list("::1", 1).unwrap()[0].host, "::1");
    }

    #[test]
    fn wrong_lists_say_what_is_wrong() {
        let wrong = |text: &str| list(text, 3306).unwrap_err().1;
        for text in ["", ",", "a,", ",a", "a,,b", "a, ,b"] {
            assert!(wrong(text).contains("one comma"), "{text:?}");
        }
        for text in ["a b", "a/b", "a:", "a:0", "a:65536", "a:+1", ":1", "[::1", "[a]:1", "[::1]1", "a:1:2", "a\u{7}"] {
            assert!(wrong(text).contains("such as db1:3306"), "{text:?}");
        }
        assert_eq!(wrong("a,b,A:3306"), "each server once: A:3306 is there twice");
        let many = (0..17).map(|nth| format!("a{nth}")).collect::<Vec<_>>().join(",");
        assert_eq!(wrong(&many), "at most 16 servers, not 17");
        assert!(list(many.rsplit_once(',').unwrap().0, 1).is_ok());
    }
}
