//! [`Door`]: how accepted sockets become connections of a loop, each when its turn has come.

use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Instant;

use mio::{Interest, Registry};

use crate::arrivals::{Arrival, Arrivals, Verdict};
use crate::handler::Handler;
use crate::preface::Preface;
use crate::rounds::Rounds;
use crate::service::{Entry, Service};
use crate::socket::Socket;
use crate::tokens::{self, ArrivalId};

/// Those who wait to become connections. `A` is what the application knows of one.
pub(crate) struct Door<A> {
    arrivals: Arrivals<A>,
    newcomers: Rounds<Newcomer>,
    is_shut: bool,
}

/// What may become a connection.
enum Newcomer {
    /// It was accepted.
    Accepted(Socket, SocketAddr, Preface),
    /// It has sent something; if so, no more is waited for.
    Spoke(ArrivalId, bool),
}

impl<A> Door<A> {
    pub(crate) fn new() -> Door<A> {
        Door { arrivals: Arrivals::new(), newcomers: Rounds::new(), is_shut: false }
    }

    /// Whether nobody waits for a turn.
    pub(crate) fn is_clear(&self) -> bool {
        self.newcomers.is_empty()
    }

    /// How many are not open yet, those that wait for their first turn left out.
    pub(crate) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.arrivals.next_deadline()
    }

    /// A socket was accepted; it is looked at when its turn has come.
    pub(crate) fn queue(&mut self, socket: Socket, peer: SocketAddr, preface: Preface) {
        self.newcomers.push(network_of(peer.ip()), Newcomer::Accepted(socket, peer, preface), false);
    }

    /// An arrival has sent something, or is `over`; it is looked at when its turn has come.
    pub(crate) fn hear(&mut self, id: ArrivalId, over: bool) {
        if let Some(arrival) = self.arrivals.get_mut(id) {
            self.newcomers.push(network_of(arrival.peer.ip()), Newcomer::Spoke(id, over), false);
        }
    }

    /// Looks at those whose turn it is.
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

    /// Decides about those whose time is over.
    pub(crate) fn serve_overdue<H: Handler<Arrival = A>>(&mut self, service: &mut Service<H>, registry: &Registry) {
        while !service.turn.is_spent()
            && let Some(id) = self.arrivals.overdue(service.turn.now())
        {
            self.look(service, registry, id, true);
            service.turn.budget.spend(NEWCOMER_WORK);
        }
    }

    /// Lets nobody in any more. Those that were accepted before become connections, which are told of the end like all
    /// others; of those that wait nothing was read, so nothing was promised.
    pub(crate) fn shut<H: Handler<Arrival = A>>(&mut self, service: &mut Service<H>, registry: &Registry) {
        while let Some(newcomer) = self.newcomers.next(|_| true) {
            if let Newcomer::Accepted(socket, peer, preface) = newcomer {
                self.arrive(service, registry, socket, peer, preface);
            }
        }
        self.arrivals.clear();
        self.is_shut = true;
    }

    /// Opens a connection, or has it wait until its first bytes have told who is behind it.
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
            service.open(registry, Entry { socket, peer, client: None, app });
            return;
        }
        let due = service.turn.now() + service.settings.frame_timeout;
        let arrived = self.arrivals.insert_with(due, |id| {
            socket.register(registry, tokens::of_arrival(id), Interest::READABLE)?;
            Ok(Arrival { socket, peer, preface, app })
        });
        if let Err(error) = arrived {
            log::error!("cannot watch the connection from {peer}: {error}");
        }
    }

    /// Looks whether enough has arrived to know what to do with it; if `over`, that is decided now.
    fn look<H: Handler<Arrival = A>>(
        &mut self,
        service: &mut Service<H>,
        registry: &Registry,
        id: ArrivalId,
        over: bool,
    ) {
        let Some(arrival) = self.arrivals.get_mut(id) else { return };
        let verdict = arrival.look(&mut service.scratch, over);
        if verdict == Verdict::Wait {
            return;
        }
        let Some(Arrival { socket, peer, preface, app }) = self.arrivals.remove(id) else { return };
        // Registered again, it is reported at once if more than the preface has arrived.
        if let Err(error) = socket.deregister(registry) {
            log::debug!("cannot deregister a connection: {error}");
        }
        match verdict {
            Verdict::Open(client) if preface == Preface::ProxyHeader => {
                match service.handler.on_introduced(&mut service.turn, app, client.unwrap_or(peer)) {
                    Ok(app) => service.open(registry, Entry { socket, peer, client, app }),
                    Err(text) => turn_away(&socket, text, &mut service.scratch),
                }
            }
            Verdict::Open(client) => service.open(registry, Entry { socket, peer, client, app }),
            Verdict::Refuse(reason) => self.arrivals.complain(peer, reason, service.turn.now()),
            Verdict::Wait | Verdict::Gone => {}
        }
    }
}

/// Tells a client why it may not come in. What it has sent already is taken out, because closing a socket with unread
/// bytes makes the kernel throw away what the peer has not received (RFC 2525, 2.17); that it sends no more is not waited
/// for.
fn turn_away(socket: &Socket, text: &[u8], scratch: &mut [u8]) {
    if let Err(error) = socket.write(text).and_then(|_| socket.shutdown(Shutdown::Write)) {
        log::debug!("cannot tell a client that it may not come in: {error}");
    }
    socket.take_out(scratch);
}

/// The address that a newcomer counts as: an IPv4 address, or the first half of an IPv6 one, whose rest one host may
/// choose.
fn network_of(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

/// What it costs to open a connection, or to look at one that is not open: several system calls.
const NEWCOMER_WORK: usize = 4096;
