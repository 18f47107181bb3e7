//! The settings of the hook: [`HookUrl`], the file of its key, and the networks that it may be in.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::networks::Networks;

/// The address of a web server, if any.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HookUrl(pub Option<HookAddress>);

/// An address of a web server: `https://push.example.org/raybox`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookAddress {
    /// Whether the connection is encrypted, and the certificate checked.
    pub is_secure: bool,
    /// The name, or the address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query, as they stand in a request.
    pub target: String,
}

/// The file of the key, if any.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HookKeyFile(pub Option<PathBuf>);

/// The private networks that the hook may be in, if any.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HookNetworks(pub Option<Networks>);

impl HookUrl {
    /// Parses an address, or `off`.
    pub(super) fn parse(text: &str) -> Option<HookUrl> {
        if text == "off" { Some(HookUrl(None)) } else { HookAddress::parse(text).map(|at| HookUrl(Some(at))) }
    }
}

impl HookAddress {
    pub(crate) fn parse(text: &str) -> Option<HookAddress> {
        let is_good = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
        if text.len() > URL_BYTES_MAX || !text.bytes().all(is_good) {
            return None;
        }
        let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return None,
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        // No part for a user: its password would be in the log of a proxy.
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = (1..=253).contains(&host.len()) && host.bytes().all(is_letter);
        if !is_name && host.parse::<Ipv6Addr>().is_err() {
            return None;
        }
        let port = match port {
            None => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0)?
            }
            Some(_) => return None,
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Some(HookAddress { is_secure, host: host.to_ascii_lowercase(), port, target })
    }

    /// Host and port as they stand in a `Host` header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.is_secure { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// Whether this is an address of the public internet, by the registries of special addresses of
/// IANA. IPv4 addresses in an IPv6 form count as IPv4: `::ffff:0:0/96`, and `64:ff9b::/96`, which
/// NAT64 translates.
pub fn is_public(address: IpAddr) -> bool {
    let special = |ranges: &str| Networks::parse(ranges).is_none_or(|ranges| ranges.contains(address.to_canonical()));
    match address.to_canonical() {
        IpAddr::V4(_) => !special(SPECIAL_V4),
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_public(IpAddr::V4((u32::from(high) << 16 | u32::from(low)).into()))
            }
            // Nothing else is assigned to the public internet.
            [first, ..] => first & 0xe000 == 0x2000 && !special(SPECIAL_V6),
        },
    }
}

/// This network, private, shared, loopback, link-local, protocol assignments, documentation, 6to4
/// relays, benchmarks, multicast, reserved and broadcast.
const SPECIAL_V4: &str = "0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,\
    192.0.2.0/24,192.88.99.0/24,192.168.0.0/16,198.18.0.0/15,198.51.100.0/24,203.0.113.0/24,224.0.0.0/4,240.0.0.0/4";
/// Of 2000::/3: protocol assignments with Teredo, documentation, and 6to4, which has IPv4 addresses
/// in it.
const SPECIAL_V6: &str = "2001::/23,2001:db8::/32,2002::/16,3fff::/20";

const URL_BYTES_MAX: usize = 2048;

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line. A query often contains a secret.
        match &self.0 {
            Some(HookAddress { is_secure, target, .. }) => {
                let (path, query) = target.split_once('?').map_or((target.as_str(), ""), |(path, _)| (path, "?…"));
                let authority = self.0.as_ref().map(HookAddress::authority).unwrap_or_default();
                write!(f, "http{}://{authority}{path}{query}", if *is_secure { "s" } else { "" })
            }
            None => f.write_str("off"),
        }
    }
}

impl fmt::Debug for HookKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(file) => file.fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl fmt::Debug for HookNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(networks) => networks.fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_web_servers() {
        for (text, shown, authority) in [
            ("https://push.example.org", "https://push.example.org/", "push.example.org"),
            ("https://Push.example.org:443/a?b=c", "https://push.example.org/a?…", "push.example.org"),
            ("http://10.0.0.1:8080/hook", "http://10.0.0.1:8080/hook", "10.0.0.1:8080"),
            ("http://[::1]?x", "http://[::1]/?…", "[::1]"),
            ("https://[2001:4860::1]:8443/", "https://[2001:4860::1]:8443/", "[2001:4860::1]:8443"),
        ] {
            let url = HookUrl::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(url.0.unwrap().authority(), authority);
        }
        assert_eq!(HookUrl::parse("off"), Some(HookUrl(None)));
        for bad in [
            "",
            "on",
            "push.example.org",
            "ftp://push.example.org",
            "https://",
            "https:///path",
            "https://user@push.example.org",
            "https://user:password@push.example.org",
            "https://push.example.org:0",
            "https://push.example.org:65536",
            "https://push.example.org:+80",
            "https://[::1",
            "https://[::1]x",
            "https://[fe80::1%25eth0]/",
            "https://::1/",
            "https://push.example.org/#part",
            "https://push.example.org/a b",
            "https://push.example.org/\r\nHost: other",
            "https://bücher.example/",
        ] {
            assert_eq!(HookUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in
            ["8.8.8.8", "172.15.255.255", "172.32.0.0", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
