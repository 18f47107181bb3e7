//! [`Networks`]: a list of addresses and CIDR networks, such as `127.0.0.1,10.0.0.0/8,fd00::/8`.

use std::fmt;
use std::net::IpAddr;

/// A set of addresses. IPv4 addresses in their IPv6 form (`::ffff:10.0.0.1`) count as IPv4.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

/// The addresses that have the same first bits as this one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl Networks {
    /// Parses a list separated by commas; `None` if it is empty or invalid. An address with bits
    /// after its prefix, as in 10.0.0.1/8, is refused: either the address or the prefix is a
    /// mistake.
    pub(super) fn parse(text: &str) -> Option<Networks> {
        text.split(',').map(|part| Network::parse(part.trim())).collect::<Option<_>>().map(Networks)
    }

    /// Whether one of the networks contains the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        if address.to_canonical() != address {
            return None;
        }
        let width = width(address);
        let prefix_bits = match prefix {
            None => width,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= width)?
            }
            Some(_) => return None,
        };
        let network = Network { address, prefix_bits };
        (bits(address) == network.prefix(address)).then_some(network)
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.prefix(address) == bits(self.address)
    }

    /// The address with zeros after the prefix.
    fn prefix(self, address: IpAddr) -> u128 {
        let rest = width(address) - self.prefix_bits;
        bits(address).checked_shr(rest).and_then(|prefix| prefix.checked_shl(rest)).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { u32::BITS } else { u128::BITS }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, network) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(f, "{comma}{}", network.address)?;
            if network.prefix_bits < width(network.address) {
                write!(f, "/{}", network.prefix_bits)?;
            }
        }
        Ok(())
    }
}

/// Formats it on one line, as in a settings file.
impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_contains_what_it_names() {
        let networks = Networks::parse("127.0.0.1, 10.0.0.0/8,192.168.4.0/23,fd00::/8,::1").unwrap();
        assert_eq!(networks.to_string(), "127.0.0.1,10.0.0.0/8,192.168.4.0/23,fd00::/8,::1");
        for inside in
            ["127.0.0.1", "10.0.0.0", "10.255.255.255", "192.168.5.9", "::ffff:10.1.2.3", "fd12::3", "fdff::", "::1"]
        {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["127.0.0.2", "11.0.0.0", "9.255.255.255", "192.168.6.0", "fe00::", "::2", "::ffff:127.0.0.2"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn everybody_of_one_kind() {
        let networks = Networks::parse("0.0.0.0/0").unwrap();
        assert!(networks.contains("203.0.113.7".parse().unwrap()));
        assert!(!networks.contains("::1".parse().unwrap()));
        assert!(Networks::parse("::/0").unwrap().contains("::1".parse().unwrap()));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            ",",
            "10.0.0.1,",
            "10.0.0",
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "fd00::/129",
            "fd00::1/64",
            "::ffff:10.0.0.1",
            "10.0.0.1:80",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Networks::parse(bad), None, "{bad}");
        }
    }
}
