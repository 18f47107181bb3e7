//! [`Seat`]: the place of a connection, and its share of common resources.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::strangers::StrangerId;
use super::{Admission, Crowd, Guest, Source};
use crate::metrics::Hit;

/// A place among the connections, released when dropped.
#[derive(Debug)]
pub struct Seat {
    admission: Arc<Admission>,
    /// The client's address; the proxy's until the proxy's header has named the client.
    source: Source,
    stranger: Option<StrangerId>,
    /// Bytes of memory for the client's unfinished frame.
    kept: u32,
    is_introduced: bool,
}

impl Admission {
    /// Admits a client.
    ///
    /// # Errors
    ///
    /// The limit because of which it is refused.
    pub fn enter(self: &Arc<Admission>, client: SocketAddr, now: Instant) -> Result<Seat, Hit> {
        let source = Source::of(client.ip());
        let taken = self.seats.lock().take(Some(source), self.crowd(client));
        let leaves = taken.inspect_err(|hit| self.complain(*hit, format_args!("a client from {source}"), now))?;
        self.have_leave(leaves, source, now);
        Ok(Seat { admission: self.clone(), source, stranger: None, kept: 0, is_introduced: true })
    }

    /// Admits a connection through a proxy, whose header will name the client. Until then it counts
    /// in the total, but for no address: more clients than one address may have can come through a
    /// proxy at the same time.
    ///
    /// # Errors
    ///
    /// The limit because of which it is refused.
    pub fn enter_through(self: &Arc<Admission>, proxy: SocketAddr, now: Instant) -> Result<Seat, Hit> {
        let source = Source::of(proxy.ip());
        let taken = self.seats.lock().take(None, Crowd::Usual);
        let leaves =
            taken.inspect_err(|hit| self.complain(*hit, format_args!("a client of the proxy {}", proxy.ip()), now))?;
        self.have_leave(leaves, source, now);
        Ok(Seat { admission: self.clone(), source, stranger: None, kept: 0, is_introduced: false })
    }

    /// The treatment of the address: a proxy's may be shared by many clients.
    fn crowd(&self, client: SocketAddr) -> Crowd {
        if self.proxies.contains(client.ip()) { Crowd::Proxy } else { Crowd::Usual }
    }

    /// Makes a connection leave for one that has come from `newcomer`.
    fn have_leave(&self, leaves: Option<(Weak<dyn Guest>, Hit)>, newcomer: Source, now: Instant) {
        let Some((leaves, hit)) = leaves else { return };
        let whom = format_args!("the oldest connection that is not logged in, for one from {newcomer}");
        self.complain(hit, whom, now);
        if let Some(guest) = leaves.upgrade() {
            guest.make_room();
        }
    }
}

impl Seat {
    /// Notes the address of the client behind a proxy.
    ///
    /// # Errors
    ///
    /// The limit because of which it is refused.
    pub fn for_client(mut self, client: SocketAddr, now: Instant) -> Result<Seat, Hit> {
        debug_assert!(!self.is_introduced, "a client is told once");
        let (source, admission) = (Source::of(client.ip()), &self.admission);
        let assigned = admission.seats.lock().assign(source, admission.crowd(client));
        let leaves =
            assigned.inspect_err(|hit| admission.complain(*hit, format_args!("a client from {source}"), now))?;
        admission.have_leave(leaves, source, now);
        (self.source, self.is_introduced) = (source, true);
        Ok(self)
    }

    /// The client's address.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether its connection is logged in, as far as the seat was notified.
    pub fn is_users(&self) -> bool {
        self.stranger.is_none()
    }

    /// Notes that its connection is open and not logged in. Returns the time within which it has to
    /// log in, if there is a limit.
    pub fn becomes_strangers(&mut self, guest: Weak<dyn Guest>, now: Instant) -> Option<Duration> {
        debug_assert!(self.is_introduced && self.stranger.is_none(), "it is open, and was logged in");
        let id = self.admission.seats.lock().insert_stranger(self.source, guest, now);
        self.stranger = Some(id);
        self.move_kept(true);
        self.admission.login_timeout
    }

    /// Notes that its connection has logged in.
    pub fn becomes_users(&mut self) {
        let Some(id) = self.stranger.take() else { return };
        self.admission.seats.lock().remove_stranger(self.source, id);
        self.move_kept(false);
    }

    /// Whether the time for the login is over. True only once.
    pub fn is_late(&self, now: Instant) -> bool {
        let (Some(timeout), Some(id)) = (self.admission.login_timeout, self.stranger) else { return false };
        let mut seats = self.admission.seats.lock();
        let since = seats.stranger_since(self.source, id);
        let is_late = since.is_some_and(|since| now.saturating_duration_since(since) >= timeout);
        if is_late {
            // It leaves, so it can no longer make room for another one.
            seats.remove_stranger(self.source, id);
            drop(seats);
            let whom = format_args!("a client from {} that did not log in", self.source);
            self.admission.complain(Hit::LoginTimeout, whom, now);
        }
        is_late
    }

    /// Accounts for the memory of the client's unfinished frame. False if there is not enough: the
    /// frame must be dropped, and is not counted.
    pub fn keep(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        bytes == self.kept || self.change_kept(bytes)
    }

    /// Counts that the unfinished frame of its client was dropped for lack of memory.
    pub fn complain_of_kept(&self, now: Instant) {
        self.admission.complain(Hit::MemoryMax, format_args!("a frame from {}", self.source), now);
    }

    fn change_kept(&mut self, bytes: u32) -> bool {
        let is_stranger = !self.is_users();
        let mut kept = self.admission.kept.lock();
        let fits = match bytes.checked_sub(self.kept) {
            Some(more) => kept.take(self.source, is_stranger, more as usize),
            None => {
                kept.give_back(self.source, is_stranger, (self.kept - bytes) as usize);
                true
            }
        };
        if !fits {
            kept.give_back(self.source, is_stranger, self.kept as usize);
        }
        self.kept = if fits { bytes } else { 0 };
        fits
    }

    fn move_kept(&self, is_stranger: bool) {
        if self.kept > 0 {
            self.admission.kept.lock().moved(is_stranger, self.kept as usize);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.kept > 0 {
            self.change_kept(0);
        }
        let mut seats = self.admission.seats.lock();
        if let Some(id) = self.stranger {
            seats.remove_stranger(self.source, id);
        }
        seats.give_back(self.is_introduced.then_some(self.source));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_small() {
        assert!(size_of::<super::Seat>() <= 32, "{}", size_of::<super::Seat>());
    }
}
