//! [`Clients`]: the connections of the admin port, and the choice of the one that makes room.
//!
//! Clients that have not shown the key share [`STRANGERS_MAX`] places. One more than that ends the
//! oldest connection of the address with the most of them, so many silent connections cost each
//! other their places. A client whose key was right is kept apart ([`AdminClient::keep`]): its
//! order may be under way, and its answer must not be lost. Kept clients are bounded as well, by
//! [`KEPT_MAX`]. Once the answer is written, the client is like any other
//! ([`AdminClient::release`]): programs that do not close their connections keep nobody else from
//! giving orders.

use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::admission::Source;

/// The connections that are being served.
#[derive(Debug, Default)]
pub(super) struct Clients(Arc<Mutex<Vec<AdminSlot>>>);

/// A connection that is being served.
#[derive(Debug)]
pub(super) struct AdminClient {
    pub(super) stream: Arc<TcpStream>,
    places: Arc<Mutex<Vec<AdminSlot>>>,
}

/// The place of one connection. The oldest one comes first.
#[derive(Debug)]
struct AdminSlot {
    stream: Weak<TcpStream>,
    source: Source,
    is_kept: bool,
}

/// The result of an attempt to keep a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keeping {
    /// It is kept: nobody else ends its connection.
    Yes,
    /// No more clients may be kept.
    NoRoom,
    /// Its connection has already been ended to make room.
    Gone,
}

impl Clients {
    /// Adds a connection; ends another one if there are too many.
    pub(super) fn admit(&self, stream: TcpStream) -> AdminClient {
        let source = Source::of(address_of(&stream));
        let stream = Arc::new(stream);
        let mut places = self.0.lock();
        make_room(&mut places, STRANGERS_MAX - 1);
        places.push(AdminSlot { stream: Arc::downgrade(&stream), source, is_kept: false });
        drop(places);
        AdminClient { stream, places: self.0.clone() }
    }
}

/// Ends connections until there are no more strangers than that.
fn make_room(places: &mut Vec<AdminSlot>, most: usize) {
    places.retain(|place| place.stream.strong_count() > 0);
    while places.iter().filter(|place| !place.is_kept).count() > most
        && let Some(at) = giving_way(places)
    {
        if let Some(oldest) = places.remove(at).stream.upgrade() {
            // Its thread then reads the end or fails to write, and exits.
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }
}

/// The oldest of those of the address that has the most.
fn giving_way(places: &[AdminSlot]) -> Option<usize> {
    let strangers = || places.iter().enumerate().filter(|(_, place)| !place.is_kept);
    let count = |source| strangers().filter(|(_, place)| place.source == source).count();
    let most = strangers().map(|(_, place)| count(place.source)).max()?;
    strangers().find(|(_, place)| count(place.source) == most).map(|(at, _)| at)
}

impl AdminClient {
    /// The client's address, without the port.
    pub(super) fn address(&self) -> IpAddr {
        address_of(&self.stream)
    }

    /// Keeps the connection until it is released or ends by itself, because its client has the key.
    pub(super) fn keep(&self) -> Keeping {
        let mut places = self.places.lock();
        let is_own = |place: &AdminSlot| std::ptr::eq(place.stream.as_ptr(), Arc::as_ptr(&self.stream));
        let Some(own) = places.iter().position(is_own) else { return Keeping::Gone };
        let kept = places.iter().filter(|place| place.is_kept && place.stream.strong_count() > 0).count();
        if kept >= KEPT_MAX {
            return Keeping::NoRoom;
        }
        places[own].is_kept = true;
        Keeping::Yes
    }

    /// Its answer is written, and may be ended.
    pub(super) fn release(&self) {
        let mut places = self.places.lock();
        let is_own = |place: &AdminSlot| std::ptr::eq(place.stream.as_ptr(), Arc::as_ptr(&self.stream));
        if let Some(own) = places.iter_mut().find(|place| is_own(place) && place.is_kept) {
            own.is_kept = false;
            make_room(&mut places, STRANGERS_MAX);
        }
    }
}

fn address_of(stream: &TcpStream) -> IpAddr {
    stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical())
}

/// The most connections whose clients have not shown the key.
const STRANGERS_MAX: usize = 32;
/// The most kept connections: twice the requests that are answered at the same time, because
/// connections whose answers are still being sent count as well.
pub(super) const KEPT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;

    use super::*;

    /// A port, and the connections to it: each with its end outside.
    struct Port {
        listener: TcpListener,
        clients: Clients,
    }

    impl Port {
        fn open() -> Port {
            Port { listener: TcpListener::bind("127.0.0.1:0").expect("a port"), clients: Clients::default() }
        }

        fn admit(&self) -> (TcpStream, AdminClient) {
            let outside = TcpStream::connect(self.listener.local_addr().expect("an address")).expect("it listens");
            let (stream, _) = self.listener.accept().expect("one comes");
            (outside, self.clients.admit(stream))
        }

        /// A client of another address.
        fn admit_from(&self, number: u8) -> (TcpStream, AdminClient) {
            let (outside, client) = self.admit();
            let mut places = self.clients.0.lock();
            places.last_mut().expect("it was added").source = Source::of([10, 0, 0, number].into());
            drop(places);
            (outside, client)
        }
    }

    fn is_open((_, client): &(TcpStream, AdminClient)) -> bool {
        client.stream.set_nonblocking(true).expect("an option");
        (&*client.stream).read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn one_more_than_allowed_costs_the_oldest() {
        let port = Port::open();
        let mut all: Vec<_> = (0..STRANGERS_MAX).map(|_| port.admit()).collect();
        all.remove(1);
        let next = port.admit();
        assert!(all.iter().chain([&next]).all(is_open), "one was gone already");
        let last = port.admit();
        assert!(!is_open(&all[0]), "the oldest gives way");
        assert!(all[1..].iter().chain([&next, &last]).all(is_open));
    }

    #[test]
    fn an_address_with_many_connections_costs_another_address_nothing() {
        let port = Port::open();
        let quiet = port.admit_from(1);
        let greedy: Vec<_> = (0..3 * STRANGERS_MAX).map(|_| port.admit_from(2)).collect();
        assert!(is_open(&quiet), "the oldest is not that of the greedy address");
        assert_eq!(greedy.iter().filter(|client| is_open(client)).count(), STRANGERS_MAX - 1);
    }

    #[test]
    fn a_client_with_the_key_is_kept_and_the_number_of_these_is_bounded() {
        let port = Port::open();
        let kept = port.admit();
        let late = port.admit();
        assert_eq!(kept.1.keep(), Keeping::Yes);
        let strangers: Vec<_> = (0..STRANGERS_MAX).map(|_| port.admit()).collect();
        assert!(is_open(&kept), "the oldest has the key");
        assert!(strangers.iter().all(is_open) && !is_open(&late), "kept ones take no place of others");
        assert_eq!(late.1.keep(), Keeping::Gone, "its order is not carried out");
        let more: Vec<_> = strangers.iter().map(|(_, client)| client.keep()).collect();
        assert_eq!(more.iter().filter(|kept| **kept == Keeping::Yes).count(), KEPT_MAX - 1);
        assert_eq!(more.last(), Some(&Keeping::NoRoom));
        drop(kept);
        assert_eq!(strangers.last().expect("there are some").1.keep(), Keeping::Yes);
    }

    #[test]
    fn an_answered_client_gives_its_place_back_and_the_number_of_all_stays_bounded() {
        let port = Port::open();
        let answered: Vec<_> = (0..KEPT_MAX).map(|_| port.admit_from(1)).collect();
        assert!(answered.iter().all(|(_, client)| client.keep() == Keeping::Yes));
        let strangers: Vec<_> = (0..STRANGERS_MAX).map(|n| port.admit_from(2 + n as u8)).collect();
        let next = strangers.last().expect("there are some");
        assert_eq!(next.1.keep(), Keeping::NoRoom);
        answered.iter().for_each(|(_, client)| client.release());
        let open = answered.iter().chain(&strangers).filter(|client| is_open(client)).count();
        assert_eq!(open, STRANGERS_MAX);
        assert_eq!(next.1.keep(), Keeping::Yes);
    }
}
