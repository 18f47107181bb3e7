//! [`Arrivals`]: connections of one loop whose clients are not known yet.
//!
//! Behind a proxy, the first bytes tell the client's address; see [`Opening`]. Until they arrive,
//! the application does not see the connection. The bytes are peeked at and stay in the kernel;
//! only those that an opening has consumed are taken out. So nothing is stored here, and the next
//! opening, or the open connection, reads the bytes that follow.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::complaints::Complaints;
use crate::opening::{Look, Manner, Opening, OpeningStep};
use crate::proxy_header::HEADER_BYTES_MAX;
use crate::slots::Slots;
use crate::socket::Socket;
use crate::tokens::ArrivalId;

/// The waiting connections with their deadlines. `A` is the application's data of one.
#[derive(Debug)]
pub(crate) struct Arrivals<A> {
    waiting: Slots<Arrival<A>>,
    /// In the order of arrival, which is the order of the deadlines because all have the same
    /// timeout.
    due: VecDeque<(Instant, ArrivalId)>,
    complaints: Complaints,
}

#[derive(Debug)]
pub(crate) struct Arrival<A> {
    pub(crate) socket: Socket,
    pub(crate) peer: SocketAddr,
    pub(crate) opening: Opening,
    /// The client's address, if a proxy has named it.
    pub(crate) client: Option<Box<SocketAddr>>,
    /// `None` only while the application is asked.
    pub(crate) app: Option<A>,
}

impl<A> Arrivals<A> {
    pub(crate) fn new() -> Arrivals<A> {
        Arrivals { waiting: Slots::new(), due: VecDeque::new(), complaints: Complaints::default() }
    }

    /// Inserts the connection that `make` builds for its own id. Its deadline is `due`, which must
    /// not be before the deadline of any other.
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
        // Otherwise one arrival that waits for long would keep the entries of all later ones behind
        // it in the queue.
        if self.due.len() > 2 * self.waiting.len() + SWEEP_MIN {
            self.due.retain(|(_, id)| self.waiting.get_mut(id.0).is_some());
        }
        while self.due.front().is_some_and(|(_, id)| self.waiting.get_mut(id.0).is_none()) {
            self.due.pop_front();
        }
        arrival
    }

    /// Drops all of them: nothing was read from them.
    pub(crate) fn clear(&mut self) {
        *self = Arrivals::new();
    }

    /// An arrival whose deadline has passed.
    pub(crate) fn overdue(&self, now: Instant) -> Option<ArrivalId> {
        self.due.front().filter(|(due, _)| *due <= now).map(|&(_, id)| id)
    }

    /// The next deadline, if there is one.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }

    /// Logs that a connection was refused: one line a minute for the operator, with the number of
    /// suppressed ones, and each at debug level.
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
    /// Has its opening look at the bytes that have arrived, removes those that the opening
    /// consumed, and writes the answer. `over`: no more bytes are waited for.
    pub(crate) fn look(&mut self, scratch: &mut [u8], over: bool) -> OpeningStep {
        // Everything that has arrived belongs to the connection, even if that is only the end of
        // the stream.
        if let Opening::Nothing = self.opening {
            return OpeningStep::Open(Manner::plain());
        }
        for _ in 0..LOOKS_MAX {
            let Look { consumed, answer, step } = match self.peek(scratch) {
                Ok(bytes) => self.opening.look(bytes, over),
                Err(_) => return OpeningStep::Gone,
            };
            // The peeked bytes are there, so one read returns all of them.
            if consumed > 0 && self.socket.read(&mut scratch[..consumed]).ok() != Some(consumed) {
                return OpeningStep::Gone;
            }
            if !answer.is_empty() && self.socket.write(&answer).ok() != Some(answer.len()) {
                return OpeningStep::Gone;
            }
            // More bytes may be there than were looked at, and no further event would report them.
            if consumed == 0 || !matches!(step, OpeningStep::Wait) {
                return step;
            }
        }
        OpeningStep::Gone
    }

    /// The bytes that have arrived and were not consumed, as many as an opening looks at. The end
    /// of the stream is an error.
    fn peek<'b>(&self, scratch: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let scratch = &mut scratch[..HEADER_BYTES_MAX];
        match self.socket.peek(scratch) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(&scratch[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(&scratch[..0]),
            Err(error) => Err(error),
        }
    }
}

/// The most looks of one opening in a row. An opening that consumes without coming to an end is
/// given up.
const LOOKS_MAX: usize = 16;
/// Fewer entries are not worth a sweep.
const SWEEP_MIN: usize = 1000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::places::tests::gate;

    #[test]
    fn arrivals_that_come_and_go_leave_nothing_behind_those_that_wait() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let gate = gate();
        let (mut arrivals, now) = (Arrivals::new(), Instant::now());
        let come = |arrivals: &mut Arrivals<()>, nth: usize| {
            let due = now + Duration::from_millis(nth as u64);
            let mut new = None;
            arrivals
                .insert_with(due, |id| {
                    new = Some(id);
                    let socket = gate.enter(mio::net::TcpStream::from_std(stream.try_clone()?)).into();
                    let peer = listener.local_addr()?;
                    Ok(Arrival { socket, peer, opening: Opening::ProxyHeader, client: None, app: Some(()) })
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
}
