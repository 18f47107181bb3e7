//! [`Door`]: how accepted sockets become connections of a loop, each when its turn comes.

use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Instant;

use mio::{Interest, Registry};

use crate::arrivals::{Arrival, Arrivals};
use crate::handler::Handler;
use crate::opening::{Manner, Opening, OpeningStep, Preface};
use crate::rounds::Rounds;
use crate::service::{NewConnection, Service};
use crate::socket::Socket;
use crate::tokens::{self, ArrivalId};

/// The sockets that wait to become connections. `A` is the application's data of an arrival.
pub(crate) struct Door<A> {
    arrivals: Arrivals<A>,
    newcomers: Rounds<Newcomer>,
    is_shut: bool,
}

/// A socket that may become a connection.
enum Newcomer {
    /// The socket was accepted.
    Accepted(Socket, SocketAddr, Preface),
    /// The arrival has sent bytes. The flag: no more are waited for.
    Spoke(ArrivalId, bool),
}

impl<A> Door<A> {
    pub(crate) fn new() -> Door<A> {
        Door { arrivals: Arrivals::new(), newcomers: Rounds::new(), is_shut: false }
    }

    /// Whether no newcomer waits for its turn.
    pub(crate) fn is_clear(&self) -> bool {
        self.newcomers.is_empty()
    }

    /// The number of arrivals that are not open yet, apart from newcomers that wait for their first
    /// turn.
    pub(crate) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.arrivals.next_deadline()
    }

    /// Queues an accepted socket until its turn comes.
    pub(crate) fn queue(&mut self, socket: Socket, peer: SocketAddr, preface: Preface) {
        self.newcomers.push(network_of(peer.ip()), Newcomer::Accepted(socket, peer, preface), false);
    }

    /// Queues an arrival that has sent bytes, or is `over`, until its turn comes.
    pub(crate) fn hear(&mut self, id: ArrivalId, over: bool) {
        if let Some(arrival) = self.arrivals.get_mut(id) {
            self.newcomers.push(network_of(arrival.peer.ip()), Newcomer::Spoke(id, over), false);
        }
    }

    /// Handles the newcomers whose turn it is.
    pub(crate) fn serve<H: Handler<Arrival = A>>(&mut self, service: &mut Service<H>, registry: &Registry) {
        if self.newcomers.is_empty() {
            return;
        }
        service.turn.budget.next_step();
        while !service.turn.is_spent()
            && let Some(newcomer) = self.newcomers.next(|_| true)
        {
            match newcomer {
                Newcomer::Accepted(socket, peer, preface) => self.arrive(service, registry, socket, peer, preface),
                Newcomer::Spoke(id, over) => self.look(service, registry, id, over),
            }
            service.turn.budget.spend(NEWCOMER_WORK);
        }
    }

    /// Decides about the arrivals whose time is over.
    pub(crate) fn serve_overdue<H: Handler<Arrival = A>>(&mut self, service: &mut Service<H>, registry: &Registry) {
        while !service.turn.is_spent()
            && let Some(id) = self.arrivals.overdue(service.turn.now())
        {
            self.look(service, registry, id, true);
            service.turn.budget.spend(NEWCOMER_WORK);
        }
    }

    /// Accepts no more sockets. Sockets accepted before become connections, which are closed in
    /// order like all others. Arrivals are dropped: nothing was read from them, so nothing was
    /// promised.
    pub(crate) fn shut<H: Handler<Arrival = A>>(&mut self, service: &mut Service<H>, registry: &Registry) {
        while let Some(newcomer) = self.newcomers.next(|_| true) {
            if let Newcomer::Accepted(socket, peer, preface) = newcomer {
                self.arrive(service, registry, socket, peer, preface);
            }
        }
        self.arrivals.clear();
        self.is_shut = true;
    }

    /// Opens a connection, or makes it wait until its first bytes name the client.
    pub(crate) fn arrive<H: Handler<Arrival = A>>(
        &mut self,
        service: &mut Service<H>,
        registry: &Registry,
        socket: Socket,
        peer: SocketAddr,
        preface: Preface,
    ) {
        if self.is_shut {
            return;
        }
        let app = match service.handler.on_arrival(&mut service.turn, peer, preface) {
            Ok(app) => app,
            Err(text) => return turn_away(&socket, text, &mut service.scratch),
        };
        if preface == Preface::None {
            service.open(registry, NewConnection { socket, peer, client: None, manner: Manner::plain(), app });
            return;
        }
        let due = service.turn.now() + service.settings.frame_timeout;
        let arrived = self.arrivals.insert_with(due, |id| {
            socket.register(registry, tokens::of_arrival(id), Interest::READABLE)?;
            Ok(Arrival { socket, peer, opening: Opening::first(preface), client: None, app: Some(app) })
        });
        if let Err(error) = arrived {
            log::error!("cannot watch the connection from {peer}: {error}");
        }
    }

    /// Has the openings of an arrival look at the bytes that have arrived, until more are needed or
    /// the last opening is done. `over`: the decision is made now.
    fn look<H: Handler<Arrival = A>>(
        &mut self,
        service: &mut Service<H>,
        registry: &Registry,
        id: ArrivalId,
        over: bool,
    ) {
        for _ in 0..STEPS_MAX {
            let Some(arrival) = self.arrivals.get_mut(id) else { return };
            match arrival.look(&mut service.scratch, over) {
                OpeningStep::Wait if !over => return,
                OpeningStep::Wait | OpeningStep::Gone => break,
                OpeningStep::Introduced(client) => {
                    if !self.introduce(service, registry, id, client) {
                        return;
                    }
                }
                #[cfg(feature = "simulation")]
                OpeningStep::Next(opening) => arrival.opening = opening,
                OpeningStep::Open(manner) => {
                    if let Some(Arrival { socket, peer, client, app: Some(app), .. }) = self.remove(registry, id) {
                        let client = client.map(|client| *client);
                        service.open(registry, NewConnection { socket, peer, client, manner, app });
                    }
                    return;
                }
                OpeningStep::Refuse(reason) => {
                    if let Some(arrival) = self.remove(registry, id) {
                        self.arrivals.complain(arrival.peer, reason, service.turn.now());
                    }
                    return;
                }
            }
        }
        self.remove(registry, id);
    }

    /// Handles the client that a proxy has named: asks the application whether to admit it.
    fn introduce<H: Handler<Arrival = A>>(
        &mut self,
        service: &mut Service<H>,
        registry: &Registry,
        id: ArrivalId,
        client: Option<SocketAddr>,
    ) -> bool {
        let Some(arrival) = self.arrivals.get_mut(id) else { return false };
        let known = arrival.app.take();
        let Some(app) = known else { return false };
        match service.handler.on_introduced(&mut service.turn, app, client.unwrap_or(arrival.peer)) {
            Ok(app) => {
                (arrival.app, arrival.client, arrival.opening) = (Some(app), client.map(Box::new), Opening::Nothing);
                true
            }
            Err(text) => {
                if let Some(arrival) = self.remove(registry, id) {
                    turn_away(&arrival.socket, text, &mut service.scratch);
                }
                false
            }
        }
    }

    /// Removes an arrival. When its socket is registered again, bytes that have arrived and were
    /// not consumed are reported at once.
    fn remove(&mut self, registry: &Registry, id: ArrivalId) -> Option<Arrival<A>> {
        let arrival = self.arrivals.remove(id)?;
        if let Err(error) = arrival.socket.deregister(registry) {
            log::debug!("cannot deregister a connection: {error}");
        }
        Some(arrival)
    }
}

/// Sends a client the reason for its refusal. Bytes that the client has already sent are read,
/// because closing a socket with unread bytes makes the kernel discard bytes that the peer has not
/// received (RFC 2525, 2.17). Does not wait for the client to stop sending.
fn turn_away(socket: &Socket, text: &[u8], scratch: &mut [u8]) {
    if let Err(error) = socket.write(text).and_then(|_| socket.shutdown(Shutdown::Write)) {
        log::debug!("cannot send the refusal to a client: {error}");
    }
    socket.take_out(scratch);
}

/// The network whose share a newcomer uses: an IPv4 address, or the first half of an IPv6 address,
/// because one host may choose the other half.
fn network_of(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

/// The most openings of one arrival in a row: more than any chain has.
const STEPS_MAX: usize = 16;
/// The cost of opening a connection, or of checking one that is not open: several system calls.
const NEWCOMER_WORK: usize = 4096;
