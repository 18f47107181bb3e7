//! [`MysqlDialer`]: opens connections to one server, and learns the limits that each reports.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};
use parking_lot::Mutex;

use super::duty::Duty;
use super::{error, probe};
use crate::config::ServerAddress;

/// Opens connections to a server. The name is looked up for every connection, and all its addresses
/// are tried: the first may be one where nobody listens, as `::1` of `localhost` often is, and a
/// name may move to another server.
#[derive(Clone)]
pub(super) struct MysqlDialer {
    opts: Opts,
    server: ServerAddress,
    limits: PacketLimits,
    /// Whether the server must take writes, because there are others.
    needs_writes: bool,
    /// Shared by all dialers of one database.
    order: Arc<Mutex<DialOrder>>,
}

/// The address at which an attempt begins.
#[derive(Clone, Copy, Debug, Default)]
struct DialOrder {
    /// The address that answered last. It is tried first, because each dead address before it would
    /// cost a timeout.
    known: Option<IpAddr>,
    /// The number of times that another server than the needed one answered. The next attempt
    /// begins at another address.
    moves: usize,
}

impl DialOrder {
    fn sort(self, addresses: &mut [SocketAddr]) {
        let first = self.moves % addresses.len().max(1);
        addresses.rotate_left(first);
        if let Some(at) = addresses.iter().position(|address| Some(address.ip()) == self.known) {
            addresses[..=at].rotate_right(1);
        }
    }
}

/// The limits of the database, as the newest connection reports them.
#[derive(Clone, Debug)]
pub(super) struct PacketLimits {
    packet_bytes: Arc<AtomicUsize>,
}

/// The properties of its server that a connection reports.
pub(super) struct Traits {
    packet_bytes: u64,
    /// Whether the server's binary log holds statements instead of rows.
    pub(super) logs_statements: bool,
    /// Whether the server is a replica, or under maintenance.
    is_read_only: bool,
}

impl MysqlDialer {
    pub(super) fn new(opts: OptsBuilder, server: &ServerAddress, limits: PacketLimits) -> MysqlDialer {
        // The limits of the database are queried here: the driver would only report that a packet
        // is too large for itself.
        let opts = opts.max_allowed_packet(Some(PACKET_BYTES_MAX));
        let opts = Opts::from(opts.ip_or_hostname(Some(&server.host)).tcp_port(server.port));
        MysqlDialer { opts, server: server.clone(), limits, needs_writes: false, order: Arc::default() }
    }

    /// The same dialer, for a server that is one of several.
    pub(super) fn one_of_several(self) -> MysqlDialer {
        MysqlDialer { needs_writes: true, ..self }
    }

    /// The same dialer with other options.
    pub(super) fn with(&self, opts: OptsBuilder) -> MysqlDialer {
        let MysqlDialer { server, limits, needs_writes, order, .. } = self.clone();
        MysqlDialer { order, needs_writes, ..MysqlDialer::new(opts, &server, limits) }
    }

    /// Notes that the server that answered is not the needed one: the next attempt begins at
    /// another address.
    pub(super) fn move_on(&self) {
        let mut order = self.order.lock();
        order.known = None;
        order.moves = order.moves.wrapping_add(1);
    }

    /// Opens a connection. Blocks, within the bounds of the options for each address.
    ///
    /// # Errors
    ///
    /// The first error that a database itself reports; if none does, the error of the last address.
    pub(super) fn connect(&self) -> mysql::Result<Conn> {
        self.connect_and_ask().map(|(connection, _)| connection)
    }

    /// Opens a connection, and returns the duty of a server that is one of several.
    ///
    /// # Errors
    /// As for [`MysqlDialer::connect`], or the server takes no writes.
    pub(super) fn connect_and_ask(&self) -> mysql::Result<(Conn, Duty)> {
        let mut addresses: Vec<SocketAddr> = (self.server.host.as_str(), self.server.port).to_socket_addrs()?.collect();
        let order = *self.order.lock();
        order.sort(&mut addresses);
        let mut failed: mysql::Error = io::Error::new(ErrorKind::NotFound, "the name has no address").into();
        for (nth, way) in self.ways(&addresses).into_iter().enumerate() {
            let bound = way.bind_address();
            let is_bound = bound.is_some();
            let leads_to = match bound {
                None => addresses.get(nth),
                Some(any) => addresses.iter().find(|address| address.is_ipv4() == any.is_ipv4()),
            };
            match open(way).and_then(|connection| self.prepare(connection)) {
                Ok(prepared) => {
                    self.order.lock().known = leads_to.map(SocketAddr::ip);
                    return Ok(prepared);
                }
                Err(_) if error::code(&failed).is_some() => {}
                // The driver has tried the addresses of the other family last, which cannot be
                // bound like this.
                Err(mysql::Error::IoError(error)) if is_bound && error.kind() == ErrorKind::InvalidInput => {
                    failed =
                        io::Error::new(ErrorKind::ConnectionRefused, "none of its addresses takes connections").into();
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The ways to try. The driver tries only the first address of a name, so it is given one
    /// address after the other. If it needs the name for encryption, it is given one family of
    /// addresses after the other: it tries all of a family if it must bind to one.
    fn ways(&self, addresses: &[SocketAddr]) -> Vec<Opts> {
        if addresses.len() < 2 {
            return vec![self.opts.clone()];
        }
        let opts = || OptsBuilder::from_opts(self.opts.clone());
        if self.opts.get_ssl_opts().is_none() {
            let by_address = |address: &SocketAddr| opts().ip_or_hostname(Some(address.ip().to_string())).into();
            return addresses.iter().map(by_address).collect();
        }
        let mut families: Vec<IpAddr> = Vec::new();
        for address in addresses {
            let any = match address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            if !families.contains(&any) {
                families.push(any);
            }
        }
        let by_family = |any: &IpAddr| opts().bind_address(Some(SocketAddr::new(*any, 0))).into();
        families.iter().map(by_family).collect()
    }

    /// Learns the limits of the database. The connection then refuses to write to a read-only
    /// server, and locks only the rows that a statement changes, not those between them. For that
    /// the binary log, if there is one, must hold rows and not statements.
    fn prepare(&self, mut connection: Conn) -> mysql::Result<(Conn, Duty)> {
        let traits = Traits::of(&mut connection)?;
        self.limits.learn(traits.packet_bytes);
        let level = if traits.logs_statements { "REPEATABLE READ" } else { "READ COMMITTED" };
        // The connection is read-only even for an account that may write to a read-only server: the
        // next primary would lack its changes.
        let access = if traits.is_read_only { "READ ONLY" } else { "READ WRITE" };
        connection.query_drop(format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}, {access}"))?;
        let duty = match self.needs_writes {
            true => Duty::of(&mut connection, traits.is_read_only)?,
            false => Duty::default(),
        };
        Ok((connection, duty))
    }
}

impl Traits {
    pub(super) fn of(connection: &mut Conn) -> mysql::Result<Traits> {
        let all = connection
            .query_first("SELECT @@max_allowed_packet, CONCAT(@@global.read_only), @@log_bin, @@binlog_format");
        let (packet_bytes, read_only, is_logged, format): (u64, String, u8, String) = match all {
            // This server has only one format.
            Err(error) if error::code(&error) == Some(error::UNKNOWN_VARIABLE) => {
                let some = connection.query_first("SELECT @@max_allowed_packet, CONCAT(@@global.read_only)")?;
                let (packet_bytes, read_only) = some.unwrap_or_default();
                (packet_bytes, read_only, 0, String::new())
            }
            all => all?.unwrap_or_default(),
        };
        let is_read_only = !read_only.is_empty() && probe::is_on(&read_only);
        Ok(Traits { packet_bytes, logs_statements: is_logged != 0 && format == "STATEMENT", is_read_only })
    }
}

/// The driver panics at some answers of a server. That must not end the thread that watches the
/// database.
fn open(opts: Opts) -> mysql::Result<Conn> {
    catch_unwind(AssertUnwindSafe(|| Conn::new(opts)))
        .unwrap_or_else(|panic| Err(io::Error::other(panicked(&*panic)).into()))
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    format!("the driver panicked: {}", text.unwrap_or("no text"))
}

impl PacketLimits {
    pub(super) fn new() -> PacketLimits {
        PacketLimits { packet_bytes: Arc::new(AtomicUsize::new(PACKET_BYTES_MAX)) }
    }

    fn learn(&self, packet_bytes: u64) {
        self.packet_bytes.store(usize::try_from(packet_bytes).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The bytes of text that fit into one statement, or into one row of a result.
    pub(super) fn text_bytes(&self) -> usize {
        self.packet_bytes.load(Ordering::Relaxed).saturating_sub(PACKET_OVERHEAD)
    }
}

/// The size of a packet besides the text.
const PACKET_OVERHEAD: usize = 1024;

/// The largest possible `max_allowed_packet`.
const PACKET_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_packets_is_that_of_the_last_connection() {
        let limits = PacketLimits::new();
        let shared = limits.clone();
        assert_eq!(limits.text_bytes(), PACKET_BYTES_MAX - PACKET_OVERHEAD);
        shared.learn(1 << 20);
        assert_eq!(limits.text_bytes(), (1 << 20) - PACKET_OVERHEAD);
        shared.learn(1);
        assert_eq!(limits.text_bytes(), 0);
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let addresses: Vec<SocketAddr> =
            ["[::1]:3306", "127.0.0.1:3306", "127.0.0.2:3306"].map(|address| address.parse().unwrap()).into();
        let opts = OptsBuilder::new().ip_or_hostname(Some("localhost"));
        let dialer = |opts| MysqlDialer::new(opts, &ServerAddress::new("localhost", 3306), PacketLimits::new());
        let plain = dialer(opts.clone());
        let hosts = |ways: &[Opts]| ways.iter().map(|way| way.get_ip_or_hostname().into_owned()).collect::<Vec<_>>();
        assert_eq!(hosts(&plain.ways(&addresses)), ["::1", "127.0.0.1", "127.0.0.2"]);
        assert_eq!(hosts(&plain.ways(&addresses[..1])), ["localhost"]);
        // The name is needed to encrypt.
        let ways = dialer(opts.ssl_opts(Some(mysql::SslOpts::default()))).ways(&addresses);
        assert_eq!(hosts(&ways), ["localhost", "localhost"]);
        let binds: Vec<_> = ways.iter().map(|way| way.bind_address().unwrap().ip().to_string()).collect();
        assert_eq!(binds, ["::", "0.0.0.0"]);
    }

    #[test]
    fn the_address_that_answered_is_tried_first_until_it_is_the_wrong_server() {
        let addresses = ["[::1]:3306", "127.0.0.1:3306", "127.0.0.2:3306"].map(|address| address.parse().unwrap());
        let opts = OptsBuilder::new().ip_or_hostname(Some("localhost"));
        let server = ServerAddress::new("localhost", 3306);
        let dialer = MysqlDialer::new(opts.clone(), &server, PacketLimits::new());
        let beside = dialer.with(opts);
        let sorted = || {
            let mut sorted = addresses;
            let order = *beside.order.lock();
            order.sort(&mut sorted);
            sorted.map(|address: SocketAddr| addresses.iter().position(|known| *known == address).unwrap())
        };
        assert_eq!(sorted(), [0, 1, 2]);
        dialer.order.lock().known = Some(addresses[2].ip());
        assert_eq!(sorted(), [2, 0, 1], "the others follow in their order");
        dialer.order.lock().known = Some([10, 0, 0, 1].into());
        assert_eq!(sorted(), [0, 1, 2], "the name has moved");
        dialer.order.lock().known = Some(addresses[0].ip());
        dialer.move_on();
        assert_eq!(sorted(), [1, 2, 0]);
    }

    #[test]
    fn a_panic_of_the_driver_has_its_text() {
        let panic = catch_unwind(|| panic!("cannot do {}", "that")).unwrap_err();
        assert_eq!(panicked(&*panic), "the driver panicked: cannot do that");
        let panic = catch_unwind(|| panic!("plain")).unwrap_err();
        assert_eq!(panicked(&*panic), "the driver panicked: plain");
    }
}
