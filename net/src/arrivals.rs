//! [`Arrivals`]: connections of one loop of which it is not known yet who is behind them.
//!
//! Behind a proxy the client's address is told by the first bytes, see [`crate::proxy_header`]. Until they have come the
//! application hears nothing of the connection. The bytes are only looked at and stay in the kernel, and the header alone
//! is taken out in the end: so nothing is kept here, and what follows the header is read as on any other connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::complaints::Complaints;
use crate::preface::Preface;
use crate::proxy_header::{self, Beginning, HEADER_BYTES_MAX};
use crate::slots::Slots;
use crate::socket::Socket;
use crate::tokens::ArrivalId;

/// The connections that wait, and until when. `A` is what the application knows of one.
#[derive(Debug)]
pub(crate) struct Arrivals<A> {
    waiting: Slots<Arrival<A>>,
    /// In the order in which they came, for all may take the same time.
    due: VecDeque<(Instant, ArrivalId)>,
    complaints: Complaints,
}

#[derive(Debug)]
pub(crate) struct Arrival<A> {
    pub(crate) socket: Socket,
    pub(crate) peer: SocketAddr,
    pub(crate) preface: Preface,
    pub(crate) app: A,
}

/// What is to be done with an arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// More bytes are needed.
    Wait,
    /// It becomes a connection; the client's address if it is not the peer's.
    Open(Option<SocketAddr>),
    /// It is to be closed, and somebody should know why.
    Refuse(&'static str),
    /// It is over before it began.
    Gone,
}

impl<A> Arrivals<A> {
    pub(crate) fn new() -> Arrivals<A> {
        Arrivals { waiting: Slots::new(), due: VecDeque::new(), complaints: Complaints::default() }
    }

    /// Takes in the connection that `make` builds for its own id, until `due`, which is not before that of any other.
    pub(crate) fn insert_with(
        &mut self,
        due: Instant,
        make: impl FnOnce(ArrivalId) -> io::Result<Arrival<A>>,
    ) -> io::Result<()> {
        let id = self.waiting.insert_with(|id| make(ArrivalId(id)))?;
        self.due.push_back((due, ArrivalId(id)));
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn get_mut(&mut self, id: ArrivalId) -> Option<&mut Arrival<A>> {
        self.waiting.get_mut(id.0)
    }

    pub(crate) fn remove(&mut self, id: ArrivalId) -> Option<Arrival<A>> {
        let arrival = self.waiting.remove(id.0);
        // One that waits for long would else have all that come and go meanwhile stay behind it.
        if self.due.len() > 2 * self.waiting.len() + SWEEP_MIN {
            self.due.retain(|(_, id)| self.waiting.get_mut(id.0).is_some());
        }
        while self.due.front().is_some_and(|(_, id)| self.waiting.get_mut(id.0).is_none()) {
            self.due.pop_front();
        }
        arrival
    }

    /// Drops them all: nothing was read of them.
    pub(crate) fn clear(&mut self) {
        *self = Arrivals::new();
    }

    /// One whose time is over.
    pub(crate) fn overdue(&self, now: Instant) -> Option<ArrivalId> {
        self.due.front().filter(|(due, _)| *due <= now).map(|&(_, id)| id)
    }

    /// When the time of the next one is over, if there is one.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }

    /// Says that a connection was refused: a line a minute for the operator, with the number of those kept back, and all
    /// of them at the level of single connections.
    pub(crate) fn complain(&mut self, peer: SocketAddr, reason: &str, now: Instant) {
        log::debug!("refused {peer}: {reason}");
        match self.complaints.raise(now) {
            Some(0) => log::warn!("refused a connection from {peer}: {reason}"),
            Some(unsaid) => log::warn!("refused a connection from {peer} and {unsaid} before it: {reason}"),
            None => {}
        }
    }
}

impl<A> Arrival<A> {
    /// Looks at what has arrived, and takes the header out when it is whole. `over` says that no more is waited for.
    pub(crate) fn look(&mut self, scratch: &mut [u8], over: bool) -> Verdict {
        let scratch = &mut scratch[..HEADER_BYTES_MAX];
        let bytes = match self.socket.peek(scratch) {
            Ok(0) => return Verdict::Gone,
            Ok(count) => &scratch[..count],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => &scratch[..0],
            Err(_) => return Verdict::Gone,
        };
        match judge(self.preface, bytes, over) {
            (Verdict::Open(client), 0) => Verdict::Open(client),
            // What was looked at is there, and one read gives it all.
            (Verdict::Open(client), len) => match self.socket.read(&mut scratch[..len]) {
                Ok(count) if count == len => Verdict::Open(client),
                Ok(_) | Err(_) => Verdict::Gone,
            },
            (verdict, _) => verdict,
        }
    }
}

/// What to do with a connection that begins with `bytes`, and how many of them are the header.
fn judge(preface: Preface, bytes: &[u8], over: bool) -> (Verdict, usize) {
    match preface {
        Preface::None => (Verdict::Open(None), 0),
        Preface::ProxyHeader => match proxy_header::look(bytes) {
            Beginning::Header { len, client } => (Verdict::Open(client), len),
            Beginning::Incomplete if over => (Verdict::Refuse(HEADER_LATE), 0),
            Beginning::Incomplete => (Verdict::Wait, 0),
            Beginning::Other => (Verdict::Refuse(HEADER_MISSING), 0),
        },
        Preface::NoProxyHeader => match proxy_header::resembles_header(bytes) {
            Some(true) => (Verdict::Refuse(HEADER_UNTRUSTED), 0),
            // A client that says nothing yet is a client like any other.
            None if !over => (Verdict::Wait, 0),
            Some(false) | None => (Verdict::Open(None), 0),
        },
    }
}

/// Fewer are not worth a sweep.
const SWEEP_MIN: usize = 1000;

const HEADER_MISSING: &str = "a trusted proxy (proxy_from) must begin with a PROXY header; have it send one (nginx: \
                              proxy_protocol on), or take its address out of proxy_from";
const HEADER_LATE: &str = "a trusted proxy (proxy_from) must begin with a PROXY header, and no whole one came within \
                           frame_timeout; have it send one (nginx: proxy_protocol on)";
const HEADER_UNTRUSTED: &str = "it begins with a PROXY header, which is not believed of this address; if it is a proxy \
                                of yours, add it to proxy_from";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::places::Accepted;

    #[test]
    fn who_comes_and_goes_leaves_nothing_behind_who_waits() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (mut arrivals, now) = (Arrivals::new(), Instant::now());
        let come = |arrivals: &mut Arrivals<()>, nth: usize| {
            let due = now + Duration::from_millis(nth as u64);
            let mut new = None;
            arrivals
                .insert_with(due, |id| {
                    new = Some(id);
                    let socket = Accepted::from(mio::net::TcpStream::from_std(stream.try_clone()?)).into();
                    let peer = listener.local_addr()?;
                    Ok(Arrival { socket, peer, preface: Preface::ProxyHeader, app: () })
                })
                .expect("descriptors");
            new.expect("it was made")
        };
        let waiting = [0, 1].map(|nth| come(&mut arrivals, nth));
        for nth in 2..10_000 {
            let id = come(&mut arrivals, nth);
            assert!(arrivals.remove(id).is_some());
            assert!(arrivals.due.len() <= SWEEP_MIN + 5, "{}", arrivals.due.len());
        }
        for id in waiting {
            assert_eq!(arrivals.overdue(now + Duration::from_secs(10)), Some(id));
            arrivals.remove(id);
        }
        assert_eq!((arrivals.len(), arrivals.due.len()), (0, 0));
    }

    const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n";

    #[test]
    fn a_trusted_proxy_must_send_a_header() {
        let client = "203.0.113.7:51234".parse().ok();
        let judge = |bytes, over| judge(Preface::ProxyHeader, bytes, over);
        assert_eq!(judge(HEADER, false), (Verdict::Open(client), HEADER.len()));
        assert_eq!(judge(&HEADER[..9], false), (Verdict::Wait, 0));
        assert_eq!(judge(b"", false), (Verdict::Wait, 0));
        assert_eq!(judge(&HEADER[..9], true), (Verdict::Refuse(HEADER_LATE), 0));
        assert_eq!(judge(b"{}", false), (Verdict::Refuse(HEADER_MISSING), 0));
    }

    #[test]
    fn others_must_not() {
        let judge = |bytes, over| judge(Preface::NoProxyHeader, bytes, over);
        assert_eq!(judge(HEADER, false), (Verdict::Refuse(HEADER_UNTRUSTED), 0));
        assert_eq!(judge(&HEADER[..3], false), (Verdict::Wait, 0));
        assert_eq!(judge(&HEADER[..3], true), (Verdict::Open(None), 0));
        assert_eq!(judge(b"", true), (Verdict::Open(None), 0));
        assert_eq!(judge(b"{}", false), (Verdict::Open(None), 0));
    }
}
