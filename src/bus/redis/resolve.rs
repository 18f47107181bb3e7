//! [`Resolver`]: the current addresses of Redis's host. It waits for the system no longer than the
//! caller allows.
//!
//! A lookup cannot be cancelled, and may take half a minute if a name server does not answer. So a
//! separate thread does it, which is never joined; there is at most one. The name is looked up for
//! every connection, because it leads elsewhere after a failover.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// See the [module](self).
pub(super) struct Resolver(Host);

enum Host {
    /// An address, which needs no lookup.
    Address(SocketAddr),
    Name(Arc<Lookup>),
}

struct Lookup {
    ask: Box<dyn Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync>,
    state: Mutex<LookupState>,
    done: Condvar,
}

#[derive(Default)]
struct LookupState {
    is_under_way: bool,
    /// The number of lookups done.
    count: u64,
    /// The result of the last lookup; the text describes its failure.
    found: Option<Result<Vec<SocketAddr>, String>>,
    /// The addresses from the last successful lookup.
    known: Vec<SocketAddr>,
}

impl Resolver {
    /// Looks up a host, an address or a name.
    pub(super) fn new(host: &str, port: u16) -> Resolver {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Resolver(Host::Address(SocketAddr::new(ip, port)));
        }
        let host = host.to_owned();
        Resolver::asking(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect))
    }

    /// Uses `ask` for lookups. It may block.
    pub(super) fn asking(ask: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Resolver {
        let lookup = Lookup { ask: Box::new(ask), state: Mutex::default(), done: Condvar::new() };
        Resolver(Host::Name(Arc::new(lookup)))
    }

    /// The addresses, in the order to try them. If the name servers fail, these are the last known
    /// ones.
    ///
    /// # Errors
    ///
    /// If none is known by `by`.
    pub(super) fn addresses(&self, by: Instant) -> io::Result<Vec<SocketAddr>> {
        let lookup = match &self.0 {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(lookup) => lookup,
        };
        let mut state = lookup.state.lock();
        let before = state.count;
        if !state.is_under_way {
            state.is_under_way = true;
            let looker = lookup.clone();
            let started = thread::Builder::new().name("resolver".to_owned()).spawn(move || looker.run());
            if let Err(error) = started {
                state.is_under_way = false;
                return Err(error);
            }
        }
        while state.count == before && !lookup.done.wait_until(&mut state, by).timed_out() {}
        let failure = match &state.found {
            Some(Ok(addresses)) if state.count > before => return Ok(addresses.clone()),
            Some(Err(cause)) if state.count > before => io::Error::new(ErrorKind::NotFound, cause.clone()),
            _ => io::Error::new(ErrorKind::TimedOut, "its name is not resolved in time"),
        };
        if state.known.is_empty() { Err(failure) } else { Ok(state.known.clone()) }
    }
}

impl Lookup {
    fn run(&self) {
        let found = match (self.ask)() {
            Ok(addresses) if addresses.is_empty() => Err("its name has no address".to_owned()),
            result => result.map_err(|error| error.to_string()),
        };
        let mut state = self.state.lock();
        if let Ok(addresses) = &found {
            state.known.clone_from(addresses);
        }
        state.found = Some(found);
        state.count += 1;
        state.is_under_way = false;
        self.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6379))
    }

    #[test]
    fn a_silent_name_server_holds_nobody_up_and_is_asked_once() {
        let (answer, answers) = mpsc::channel();
        let (asked, is_asked) = mpsc::channel();
        let (asked, answers) = (Mutex::new(asked), Mutex::new(answers));
        let resolver = Resolver::asking(move || {
            asked.lock().send(()).expect("the test listens");
            Ok(answers.lock().recv().expect("the test answers"))
        });
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(resolver.addresses(soon()).map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
        assert!(resolver.addresses(soon()).is_err());
        is_asked.recv_timeout(PATIENCE).expect("it was asked");
        assert!(is_asked.try_recv().is_err(), "a second lookup would be a second thread that nobody ends");
        answer.send(vec![address(1)]).expect("it waits");
        answer.send(vec![address(2)]).expect("it waits");
        let mut found = Vec::new();
        while found != [address(2)] {
            found = resolver.addresses(Instant::now() + PATIENCE).expect("it answers now");
        }
        assert_eq!(resolver.addresses(soon()).expect("known from before"), [address(2)]);
        drop(answer);
    }

    #[test]
    fn a_name_that_is_gone_leads_where_it_led() {
        let answers = Mutex::new(vec![Err(ErrorKind::Other.into()), Ok(vec![]), Ok(vec![address(1)])]);
        let resolver = Resolver::asking(move || answers.lock().pop().unwrap_or_else(|| Ok(vec![address(2)])));
        let ask = || resolver.addresses(Instant::now() + PATIENCE).expect("known");
        assert_eq!([ask(), ask(), ask(), ask()], [[address(1)], [address(1)], [address(1)], [address(2)]]);
    }

    #[test]
    fn an_address_is_not_looked_up() {
        for (host, expected) in [("10.0.0.7", "10.0.0.7:1"), ("::1", "[::1]:1")] {
            let expected: SocketAddr = expected.parse().expect("an address");
            assert_eq!(Resolver::new(host, 1).addresses(Instant::now()).expect("at once"), [expected]);
        }
    }
}
