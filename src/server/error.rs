//! [`StartError`]: why a server cannot start.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::operation::certificates::CertificateError;
use crate::operation::jwt_key_file::JwtFileError;
use crate::session::password::PasswordError;

/// Why a server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Listening on this address failed.
    Listen(SocketAddr, io::Error),
    /// The system has no free descriptors, or cannot start a thread.
    Resources(io::Error),
    /// argon2 does not allow the configured cost of password hashing.
    PasswordCost(PasswordError),
    /// The certificates cannot be used.
    Certificates(CertificateError),
    /// The keys of JSON web tokens cannot be used.
    JwtKeys(JwtFileError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("stop the program that uses the port, or choose another"),
                    io::ErrorKind::PermissionDenied => f.write_str("choose a port above 1023"),
                    _ if is_without_ipv6(*address, error) => {
                        f.write_str("this machine has IPv6 switched off: listen on 0.0.0.0, or switch it on")
                    }
                    _ if is_out_of_descriptors(error) => f.write_str(
                        "raise the limit of descriptors (ulimit -n, LimitNOFILE in systemd, --ulimit nofile of a container)",
                    ),
                    _ if is_link_local(*address) => {
                        f.write_str("an address of one link cannot be given here: listen on ::, which is for all addresses")
                    }
                    _ => f.write_str("choose an address of this machine, such as 0.0.0.0"),
                }
            }
            StartError::Resources(error) => write!(f, "the system has no threads or descriptors left: {error}"),
            StartError::PasswordCost(error) => write!(f, "argon2: {error}"),
            StartError::Certificates(error) => write!(f, "{error}"),
            StartError::JwtKeys(error) => write!(f, "{error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Listen(_, error) | StartError::Resources(error) => Some(error),
            StartError::PasswordCost(error) => Some(error),
            StartError::Certificates(error) => Some(error),
            StartError::JwtKeys(error) => Some(error),
        }
    }
}

/// Whether this process, or the machine, has no descriptor left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether the address (fe80::) is one only together with an interface.
fn is_link_local(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Whether the kernel has no IPv6 support, or no IPv6 address.
fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let is_there_always = address.ip().is_unspecified() || address.ip().is_loopback();
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => address.is_ipv6(),
        Some(libc::EADDRNOTAVAIL) => address.is_ipv6() && is_there_always,
        _ => false,
    }
}
