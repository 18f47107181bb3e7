//! [`HostName`], [`Hosts`] and [`Origins`]: the names under which browsers call this server, and
//! the pages that may do so.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A host as in a `Host` header (RFC 9110, 7.2): a name or an address, and a port if one is given.
#[derive(Clone, PartialEq, Eq)]
pub struct HostName {
    /// The name in lower case, with only those characters that a name or an address can have.
    name: String,
    port: Option<u16>,
}

/// A list of hosts; without any, every host will do.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hosts(Vec<HostName>);

/// The origin of a page (RFC 6454): scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct WebOrigin {
    is_secure: bool,
    host: HostName,
}

/// A list of origins.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Origins(Vec<WebOrigin>);

impl HostName {
    /// Parses `chat.example.org`, `10.0.0.7:6000` or `[::1]:6000`.
    pub fn parse(text: &str) -> Option<HostName> {
        let (name, port) = match text.rsplit_once(':') {
            // A colon inside of brackets belongs to the address.
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (text, None),
        };
        let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
        let is_good = match name.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').is_some_and(is_address),
            None => {
                let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                (1..=255).contains(&name.len()) && name.bytes().all(is_letter)
            }
        };
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        is_good.then(|| HostName { name: name.to_ascii_lowercase(), port })
    }

    /// Whether it is an address or `localhost`, which a foreign name server cannot redirect.
    pub fn is_fixed(&self) -> bool {
        self.name == "localhost" || self.name.starts_with('[') || self.name.parse::<Ipv4Addr>().is_ok()
    }

    fn is_at(&self, other: &HostName, default_port: u16) -> bool {
        self.name == other.name && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

impl Hosts {
    /// Parses a list separated by commas, or `off`.
    pub(super) fn parse(text: &str) -> Option<Hosts> {
        if text == "off" {
            return Some(Hosts::default());
        }
        text.split(',').map(|part| HostName::parse(part.trim())).collect::<Option<_>>().map(Hosts)
    }

    /// Whether requests to this host are for this server. An entry without a port allows any port.
    pub fn allow(&self, host: Option<&HostName>) -> bool {
        self.0.is_empty() || host.is_some_and(|host| self.contain(host))
    }

    /// Whether the list contains the host.
    pub fn contain(&self, host: &HostName) -> bool {
        let is_meant =
            |entry: &HostName| host.name == entry.name && entry.port.is_none_or(|port| host.port == Some(port));
        self.0.iter().any(is_meant)
    }
}

impl WebOrigin {
    /// Parses `https://chat.example.org` or `http://localhost:8080`: as browsers write it.
    pub fn parse(text: &str) -> Option<WebOrigin> {
        let (is_secure, host) = match text.split_once("://")? {
            (scheme, host) if scheme.eq_ignore_ascii_case("https") => (true, host),
            (scheme, host) if scheme.eq_ignore_ascii_case("http") => (false, host),
            _ => return None,
        };
        Some(WebOrigin { is_secure, host: HostName::parse(host)? })
    }

    /// Whether a page of this origin came from this host. The scheme does not count, because a
    /// proxy before this server may terminate TLS.
    pub fn is_of(&self, host: &HostName) -> bool {
        self.host.is_at(host, self.default_port())
    }

    fn default_port(&self) -> u16 {
        if self.is_secure { 443 } else { 80 }
    }
}

impl Origins {
    /// Parses a list separated by commas, or `off`.
    pub(super) fn parse(text: &str) -> Option<Origins> {
        if text == "off" {
            return Some(Origins::default());
        }
        text.split(',').map(|part| WebOrigin::parse(part.trim())).collect::<Option<_>>().map(Origins)
    }

    /// Whether the list contains the origin.
    pub fn contain(&self, origin: &WebOrigin) -> bool {
        let is_same = |other: &WebOrigin| {
            other.is_secure == origin.is_secure && other.host.is_at(&origin.host, origin.default_port())
        };
        self.0.iter().any(is_same)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_secure { "https" } else { "http" }, self.host)
    }
}

/// Formats it on one line, like every setting.
impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.0)
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.0)
    }
}

fn list(f: &mut fmt::Formatter<'_>, entries: &[impl fmt::Debug]) -> fmt::Result {
    if entries.is_empty() {
        return f.write_str("off");
    }
    for (nth, entry) in entries.iter().enumerate() {
        write!(f, "{}{entry:?}", if nth == 0 { "" } else { "," })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostName {
        HostName::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    fn origin(text: &str) -> WebOrigin {
        WebOrigin::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for (text, shown) in [
            ("Chat.Example.org", "chat.example.org"),
            ("chat.example.org:8003", "chat.example.org:8003"),
            ("localhost:", "localhost"),
            ("10.0.0.7:1", "10.0.0.7:1"),
            ("[::1]", "[::1]"),
            ("[2001:DB8::1]:6000", "[2001:db8::1]:6000"),
        ] {
            assert_eq!(host(text).to_string(), shown);
        }
        for text in ["", ":80", "a b", "a;b", "::1", "[::1", "[x]", "a:b", "a:65536", "a:-1", "a:+1", "u@a", "a/b", "ä"]
        {
            assert_eq!(HostName::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_page_of_the_same_host_and_port_is_our_own() {
        for (page, at, is_own) in [
            ("http://localhost:6000", "localhost:6000", true),
            ("http://localhost:6000", "LOCALHOST:6000", true),
            ("http://localhost:6000", "localhost", false),
            ("http://localhost", "localhost", true),
            ("http://localhost", "localhost:80", true),
            ("https://chat.example.org", "chat.example.org", true),
            ("https://chat.example.org", "chat.example.org:443", true),
            ("https://chat.example.org:443", "chat.example.org", true),
            ("https://chat.example.org", "chat.example.org:80", false),
            ("https://chat.example.org.evil.com", "chat.example.org", false),
            ("http://127.0.0.1:6000", "localhost:6000", false),
            ("http://[::1]:6000", "[::1]:6000", true),
        ] {
            assert_eq!(origin(page).is_of(&host(at)), is_own, "{page} at {at}");
        }
        for text in ["", "null", "localhost", "ftp://a", "http://", "http://a/", "http://a b", "http:/a", "file://"] {
            assert_eq!(WebOrigin::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn lists_say_what_is_allowed() {
        let hosts = Hosts::parse("chat.example.org, localhost:6000").expect("a list");
        for (text, is_allowed) in [
            ("chat.example.org", true),
            ("chat.example.org:8003", true),
            ("localhost:6000", true),
            ("localhost", false),
            ("evil.com", false),
        ] {
            assert_eq!(hosts.allow(Some(&host(text))), is_allowed, "{text}");
        }
        assert!(!hosts.allow(None));
        assert!(Hosts::parse("off").expect("none").allow(None));
        assert_eq!(Hosts::parse(""), None);
        let origins = Origins::parse("https://a.org,http://b.org:8080").expect("a list");
        for (text, is_allowed) in [
            ("https://a.org", true),
            ("https://a.org:443", true),
            ("http://a.org", false),
            ("http://b.org:8080", true),
            ("http://b.org", false),
        ] {
            assert_eq!(origins.contain(&origin(text)), is_allowed, "{text}");
        }
        assert!(!Origins::default().contain(&origin("http://a.org")));
        assert_eq!(Origins::parse("a.org"), None);
        assert_eq!(format!("{origins:?}"), "https://a.org,http://b.org:8080");
    }
}
