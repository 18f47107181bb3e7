//! [`Source`]: the address that a limit applies to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or the first 64 bits of an IPv6 address: an owner of one address of such a
/// network has all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Source(u64);

impl Source {
    /// The source with this address. An IPv4 address in its IPv6 form (`::ffff:10.0.0.1`) is that
    /// IPv4 address.
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source(IPV4 | u64::from(address.to_bits())),
            IpAddr::V6(address) => Source((address.to_bits() >> 64) as u64),
        }
    }
}

impl Source {
    /// A unique number for the source.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 & !u64::from(u32::MAX) == IPV4 {
            return Ipv4Addr::from_bits(self.0 as u32).fmt(f);
        }
        write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(self.0) << 64))
    }
}

/// Marks IPv4 addresses. No IPv6 address begins like this: 0000::/8 is reserved, and its assigned
/// parts begin differently (RFC 4291, 2.5.5; RFC 6052, 2.1).
const IPV4: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_network() {
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_ne!(source("0.0.0.0"), source("::1"));
        assert_eq!(source("::1"), source("::2"));
    }

    #[test]
    fn it_is_shown_as_an_operator_would_write_it() {
        for (address, shown) in [
            ("203.0.113.7", "203.0.113.7"),
            ("0.0.0.0", "0.0.0.0"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(source(address).to_string(), shown);
        }
    }
}
