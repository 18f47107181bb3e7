//! [`World`]: the state that all clients of a run share. [`Post`]: the state that the conductor and
//! one person share.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::books::{Books, Moment, Place};
use crate::network::Network;

/// A fault of a client.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Its address is cut off for this time. The client notices after a while, and comes back from
    /// another address.
    Vanish(Duration),
    /// Its connection is reset.
    Reset,
    /// It does not read for this time.
    StopReading(Duration),
}

/// Shared by all persons of a run.
pub struct World {
    pub network: Network,
    pub nodes: Vec<SocketAddr>,
    pub nginx: Vec<SocketAddr>,
    /// The number of connections to nginx so far.
    turns: AtomicUsize,
    pub seed: u64,
    pub tls: Arc<ClientConfig>,
    begun: Instant,
    phase: AtomicU8,
}

/// The state of one person, and the next order for it.
#[derive(Default)]
pub struct Post {
    pub books: Mutex<Books>,
    orders: Mutex<VecDeque<(Instant, Order)>>,
    /// The orders that were carried out, each with its beginning and its end.
    pub obeyed: Mutex<Vec<(Order, Moment, Moment)>>,
    /// Whether no message of this person is in flight.
    pub is_idle: AtomicBool,
}

/// The phases of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Talking = 0,
    /// No new message is sent; all persons log in and fetch.
    Settling = 1,
    Over = 2,
}

impl World {
    pub fn new(
        network: Network,
        nodes: Vec<SocketAddr>,
        nginx: Vec<SocketAddr>,
        seed: u64,
        tls: Arc<ClientConfig>,
    ) -> World {
        World {
            network,
            nodes,
            nginx,
            turns: AtomicUsize::new(0),
            seed,
            tls,
            begun: Instant::now(),
            phase: AtomicU8::new(0),
        }
    }

    /// The time since the beginning.
    pub fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    /// The address for a new connection. Those to nginx go to each in turn, so a client that has
    /// lost one soon reaches the other.
    pub fn address(&self, place: Place) -> SocketAddr {
        match place {
            Place::Node(node) => self.nodes[node],
            Place::Nginx => self.nginx[self.turns.fetch_add(1, Ordering::Relaxed) % self.nginx.len()],
        }
    }
}

impl Post {
    pub fn order(&self, order: Order) {
        self.orders.lock().expect("orders").push_back((Instant::now(), order));
    }

    /// The next order, and when it was given.
    pub fn next_order(&self) -> Option<(Instant, Order)> {
        self.orders.lock().expect("orders").pop_front()
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("books")
    }
}
