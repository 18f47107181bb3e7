//! [`Link`]: how any thread reaches one connection.
//!
//! The loop that owns a connection reads it. Its output is shared, under a leaf lock: a loop which
//! has read a frame for this connection writes the frame itself at the end of its turn. So no
//! thread has to be woken, and the sender immediately knows whether the connection still accepts
//! frames. The owning loop writes only the rest that the socket does not take, because that loop
//! alone is notified when the socket has room again.
//!
//! # Acknowledgements
//!
//! A frame that the socket took may still be lost: the peer has gone, and only a timeout will show
//! that. So frames with [`Fate::Return`] are held until the peer's kernel has acknowledged them.
//! `SIOCOUTQ` (tcp(7)) gives the number of unacknowledged bytes. It is queried when much was
//! written since the last query, when the connection ends, and in an *errand* of the thread that
//! wrote, a second after the write. An errand is a second look at one link at a certain time, see
//! [`Turn::run_errands`].
//!
//! # Connections in doubt
//!
//! A client that has lost its connection and comes back on another one leaves the first behind. The
//! first looks alive until the system gives it up, so it is put in doubt ([`Link::doubt`]): if its
//! peer acknowledges nothing for a second, though there is something to acknowledge, the link is
//! hung up. A peer that has acknowledged everything ends the doubt.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::framing::{FrameWriter, Notice};
use crate::label::Label;
use crate::loop_handle::{Letter, LoopHandle};
use crate::output::{Fate, Written};
use crate::side::{Reach, Side, SideState};
use crate::slots::ConnId;
use crate::socket::Socket;
use crate::transport::Transport;
use crate::turn::{self, Listed};

mod encryption;

/// The shared part of a connection. It outlives the connection: a closed link refuses everything.
/// It holds the connection's descriptor, so do not hold it for long after
/// [`Handler::on_close`](crate::Handler::on_close).
pub struct Link<M> {
    pub(crate) id: ConnId,
    pub(crate) socket: Socket,
    /// The client's address, if a proxy has named it. Behind a pointer, because most have none.
    client: Option<Box<SocketAddr>>,
    owner: LoopHandle<M>,
    /// The share of the loop's turns that the connection uses.
    share: AtomicU64,
    side: Mutex<Side>,
}

/// The work of one thread for connections in one turn of its loop, see [`turn::TurnOf`].
pub type Turn<M> = turn::TurnOf<Link<M>>;

/// Why a link has refused a frame. No part of the frame was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The connection is closed.
    Closed,
    /// More than the high-water mark is pending: a slow consumer, to be closed.
    Full,
}

impl<M> Link<M> {
    pub(crate) fn new(
        id: ConnId,
        socket: Socket,
        client: Option<SocketAddr>,
        writer: FrameWriter,
        transport: Transport,
        owner: LoopHandle<M>,
    ) -> Link<M> {
        let paced = owner.pace().is_some_and(|pace| pace.everybody);
        let side = Side::new(writer, transport, paced);
        let client = client.map(Box::new);
        let share = AtomicU64::new(u64::from(id.generation) << 32 | u64::from(id.index));
        Link { id, socket, client, owner, share, side: Mutex::new(side) }
    }

    /// The socket that the link's side writes to, and the settings for it.
    fn reach(&self) -> Reach<'_> {
        Reach { socket: &self.socket, pace: self.owner.pace(), output_bytes_max: self.owner.output_bytes_max() }
    }

    /// The client's address: the one that a proxy has named, otherwise the socket's. The kernel may
    /// drop the socket's address long before or after the close; then this is `None`.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.client {
            Some(client) => Some(**client),
            None => self.socket.peer_addr().ok(),
        }
    }

    /// Whether a proxy has named the client. Any thread may call it.
    pub fn is_proxied(&self) -> bool {
        self.client.is_some()
    }

    /// Makes the connection use this share of its loop's time from now on. Shares take turns,
    /// however many connections each has. Before the call the connection has a share of its own.
    pub fn set_share(&self, share: u64) {
        self.share.store(share, Relaxed);
    }

    /// Takes a frame, to be written at the end of this turn or when the socket has room.
    ///
    /// # Errors
    ///
    /// [`Refused::Closed`], or [`Refused::Full`] for a frame with [`Fate::Return`] if more such
    /// frames than the high-water mark wait and the socket takes no more. Replies are never
    /// refused: a client that does not read its replies is not read either.
    pub fn send(self: &Arc<Link<M>>, turn: &mut Turn<M>, frame: &[u8], fate: Fate) -> Result<(), Refused> {
        let mut guard = self.side.lock();
        let answered = !matches!(fate, Fate::Return(_));
        if guard.must_wait_for_others(answered, self.output_bytes_max(), turn) {
            drop(guard);
            turn.flush();
            guard = self.side.lock();
        }
        let side = &mut *guard;
        let mut written = Written::All;
        if answered && side.is_behind_others(turn) {
            written = side.write(self.reach(), self, turn);
        }
        match side.state {
            SideState::Closed => return Err(Refused::Closed),
            SideState::Open | SideState::PeerEnded
                if matches!(fate, Fate::Return(_)) && side.returnable() >= self.output_bytes_max() =>
            {
                // The output may not have been written yet, because much was sent in this turn.
                written = if side.blocked { Written::Blocked } else { side.write(self.reach(), self, turn) };
                // The limit for frames held for a paced client is the limit for frames that another
                // client leaves unread.
                let is_held = side.is_paced() && side.returnable() >= self.output_bytes_max();
                if written != Written::All || is_held {
                    drop(guard);
                    self.report(turn, written);
                    return Err(Refused::Full);
                }
            }
            // Nothing is written any more. Frames that are not returned would only stay here,
            // useless, until the close.
            SideState::Sealed | SideState::Finished if answered => {
                drop(guard);
                self.report(turn, written);
                return Ok(());
            }
            SideState::Open | SideState::PeerEnded | SideState::Sealed | SideState::Finished => {}
        }
        side.enqueue(self, turn, frame, fate);
        drop(guard);
        self.report(turn, written);
        Ok(())
    }

    /// Handles a notice of the reader of this connection.
    pub(crate) fn heed(self: &Arc<Link<M>>, turn: &mut Turn<M>, notice: Notice) {
        self.side.lock().heed(self, turn, notice);
    }

    /// From now on writes at the loop's pace, if the loop has one and as long as the frames are
    /// bare. Any thread may call it.
    pub fn use_pace(&self) {
        self.side.lock().paced = self.owner.pace().is_some();
    }

    /// Whether the link writes at the loop's pace. Any thread may call it.
    pub fn is_paced(&self) -> bool {
        self.side.lock().is_paced()
    }

    /// Writes the pending output now. Any thread may call it.
    pub fn flush(self: &Arc<Link<M>>, turn: &mut Turn<M>) {
        self.flush_side(self.side.lock(), turn);
    }

    fn flush_side(self: &Arc<Link<M>>, mut side: MutexGuard<'_, Side>, turn: &mut Turn<M>) {
        side.unlist();
        let written = side.write(self.reach(), self, turn);
        drop(side);
        self.report(turn, written);
    }

    /// Returns the reports that are due now. Only the owner calls it; otherwise the reports are
    /// posted to the owner.
    pub(crate) fn take_reports(&self, turn: &mut Turn<M>) -> Vec<u32> {
        self.side.lock().ask_for_reports(self.reach(), turn);
        std::mem::take(&mut turn.reports)
    }

    /// Puts the connection in doubt: its client has come back on another one, and may have lost
    /// this one. The connection is hung up once its peer has acknowledged nothing for a while
    /// though there is something to acknowledge. Returns whether that is so already; then the
    /// caller must hang it up. Any thread may call it.
    pub fn doubt(self: &Arc<Link<M>>, turn: &mut Turn<M>) -> bool {
        let stalled = self.side.lock().doubt(self.reach(), self, turn);
        self.report(turn, Written::All);
        stalled
    }

    /// The number of frames with [`Fate::Return`] sent to this link, modulo 2³². Any thread may
    /// call it.
    pub fn pushes(&self) -> u32 {
        self.side.lock().pushes
    }

    /// Reports the results of a write to the owner, in order: frames written before the connection
    /// broke are still reported. Must not be called under the lock.
    #[inline]
    fn report(&self, turn: &mut Turn<M>, written: Written) {
        // Nearly always there is nothing to report to the owner.
        if turn.reports.is_empty() && written != Written::Broken {
            return;
        }
        for label in turn.reports.drain(..) {
            self.owner.post(Letter::Sent(self.id, label));
        }
        if written == Written::Broken {
            self.owner.post(Letter::HangUp(self.id));
        }
    }

    /// Handles room in the socket, of which only the owner is notified.
    pub(crate) fn on_writable(self: &Arc<Link<M>>, turn: &mut Turn<M>) {
        let was_blocked = std::mem::take(&mut self.side.lock().blocked);
        if was_blocked {
            let before = self.pending_bytes();
            self.flush(turn);
            turn.budget.spend(before.saturating_sub(self.pending_bytes()));
        }
    }

    /// Removes and returns, in order, the frames that were sent with [`Fate::Return`] and a wanted
    /// label and that the connection will not bring to its client. While the connection is open,
    /// these are the frames whose writing has not begun. Once it is hung up or the peer has closed,
    /// these are all frames that the peer's kernel has not acknowledged. Any thread may call it;
    /// `wanted` is called under a lock.
    pub fn take_back(&self, wanted: impl Fn(&Label) -> bool) -> Vec<(Label, Box<[u8]>)> {
        self.side.lock().take_back(self.reach(), wanted)
    }

    /// Changes the labels of the frames with [`Fate::Return`] that the connection still holds. Any
    /// thread may call it; `change` is called under a lock.
    pub fn relabel(&self, change: impl FnMut(&mut Label)) {
        if let Some(output) = &mut self.side.lock().output {
            output.relabel(change);
        }
    }

    /// Stops writing, and makes the owner close the connection. Any thread may call it.
    pub fn hang_up(&self) {
        self.seal();
        self.owner.post(Letter::HangUp(self.id));
    }

    /// Stops writing.
    pub(crate) fn seal(&self) {
        let mut side = self.side.lock();
        if side.state.writes() {
            side.state = SideState::Sealed;
        }
    }

    /// Whether the connection is closed, or about to be: it accepts no more. Any thread may call
    /// it.
    pub fn is_sealed(&self) -> bool {
        !self.side.lock().state.writes()
    }

    /// Notes that the peer has closed its side. The peer has not read the bytes that are
    /// unacknowledged now, and will hardly read bytes that are written from now on.
    pub(crate) fn on_peer_ended(&self) {
        let mut side = self.side.lock();
        if side.state == SideState::Open {
            side.state = SideState::PeerEnded;
        }
    }

    /// The bytes that wait to be written. Any thread may call it.
    pub fn pending_bytes(&self) -> usize {
        self.side.lock().pending()
    }

    /// The bytes that the client has not received, as far as is known. Any thread may call it.
    pub fn undelivered_bytes(&self) -> usize {
        let mut side = self.side.lock();
        side.pending().saturating_add(side.unacknowledged(self.reach()))
    }

    /// Whether so much is pending that the client should not be read, because its requests would
    /// add replies.
    pub(crate) fn is_congested(&self) -> bool {
        self.side.lock().is_congested(self.output_bytes_max())
    }

    /// The time until which the pending output is held, if any is held.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.side.lock().output.as_ref().and_then(|output| output.held_until(now))
    }

    fn output_bytes_max(&self) -> usize {
        self.owner.output_bytes_max()
    }

    /// Whether nothing is pending.
    pub(crate) fn is_flushed(&self) -> bool {
        self.side.lock().pending() == 0
    }

    /// Sends frames as messages of a WebSocket from now on. Bytes that were sent before are written
    /// as they are.
    pub(crate) fn speak_websocket(&self) {
        self.side.lock().writer = FrameWriter::websocket();
    }

    /// Notes the close code of a WebSocket. The first code counts; other connections send none. Any
    /// thread may call it.
    pub fn ends_with(&self, code: u16) {
        self.side.lock().writer.ends_with(code);
    }

    /// Sends the last bytes of the framing, and shuts the sending side down. Frames sent from now
    /// on are returned in the end: writing them would break the connection before the peer has read
    /// the rest.
    pub(crate) fn finish(&self, turn: &mut Turn<M>) {
        let mut side = self.side.lock();
        side.say_goodbye(self.reach(), turn);
        side.transport.end(&self.socket);
        side.state = SideState::Finished;
        drop(side);
        if let Err(error) = self.socket.shutdown(Shutdown::Write)
            && error.kind() != ErrorKind::NotConnected
        {
            log::debug!("cannot end a connection in order: {error}");
        }
    }

    /// Closes the link. Returns the frames that are to be returned, were not taken back, and have
    /// not arrived. Refusing and returning are one step, or a frame accepted between them would be
    /// lost.
    pub(crate) fn close(&self) -> Vec<(Label, Box<[u8]>)> {
        let mut side = self.side.lock();
        if side.state.writes() {
            side.state = SideState::Sealed;
        }
        let back = side.take_back(self.reach(), |_| true);
        (side.state, side.output, side.transport) = (SideState::Closed, None, Transport::Plain);
        drop(side);
        // A link that is still held keeps the descriptor open, so without this the peer would not
        // see the end.
        if let Err(error) = self.socket.shutdown(Shutdown::Both)
            && error.kind() != ErrorKind::NotConnected
        {
            log::debug!("cannot end a connection: {error}");
        }
        back
    }

    /// Posts a message for this connection to its loop, which passes it to
    /// [`Handler::on_message`](crate::Handler::on_message). Any thread may call it; it never
    /// blocks.
    pub fn post(&self, message: M) {
        self.owner.post(Letter::Message(self.id, message));
    }

    /// Posts many messages to their connections, with one wake-up per loop.
    pub fn post_all(messages: Vec<(Arc<Link<M>>, M)>) {
        let mut rest = messages;
        while let Some(owner) = rest.first().map(|(link, _)| link.owner.clone()) {
            let (here, elsewhere): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(link, _)| link.owner.is(&owner));
            owner.post_all(here.into_iter().map(|(link, message)| Letter::Message(link.id, message)));
            rest = elsewhere;
        }
    }
}

impl<M> Listed for Link<M> {
    fn id(&self) -> ConnId {
        self.id
    }

    fn share(&self) -> u64 {
        self.share.load(Relaxed)
    }

    fn flush(self: &Arc<Link<M>>, turn: &mut Turn<M>) {
        Link::flush(self, turn);
    }

    fn flush_unless_answered(self: &Arc<Link<M>>, turn: &mut Turn<M>) {
        let side = self.side.lock();
        if !side.is_answered(turn) {
            self.flush_side(side, turn);
        }
    }

    fn on_errand(self: &Arc<Link<M>>, turn: &mut Turn<M>, due: Instant) {
        let written = self.side.lock().on_errand(self.reach(), self, turn, due);
        self.report(turn, written);
    }
}

impl<M> PartialEq for Link<M> {
    fn eq(&self, other: &Link<M>) -> bool {
        std::ptr::eq(self, other)
    }
}

impl<M> fmt::Debug for Link<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "simulation"))]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicUsize;

    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::simulation::{CustomTransport, SimulatedSocket};

    /// A socket that takes everything, and leaves this number of bytes unacknowledged.
    #[derive(Default, Debug)]
    struct Taker {
        taken: AtomicUsize,
        unacknowledged: AtomicUsize,
    }

    impl SimulatedSocket for Taker {
        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            self.taken.fetch_add(bytes.len(), Relaxed);
            Ok(bytes.len())
        }
        fn unacknowledged(&self) -> usize {
            self.unacknowledged.load(Relaxed)
        }
        fn read(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn shutdown(&self, _: Shutdown) -> io::Result<()> {
            Ok(())
        }
        fn peer_addr(&self) -> io::Result<SocketAddr> {
            Err(ErrorKind::NotConnected.into())
        }
        fn receive_buffer_bytes(&self) -> usize {
            0
        }
        fn register(&self, _: usize) {}
        fn deregister(&self) {}
    }

    /// A transport that sends every byte three times, and a byte before each record.
    #[derive(Debug)]
    struct Tripling;

    impl CustomTransport for Tripling {
        fn seal(&mut self, payload: &[u8], wire: &mut Vec<u8>) {
            wire.push(b'#');
            wire.extend(payload.iter().flat_map(|byte| [*byte; 3]));
        }
        fn open(&mut self, _: &[u8], _: &mut Vec<u8>) {}
    }

    #[test]
    fn returned_bytes_are_counted_in_payload_whatever_the_transport_makes_of_it() {
        let poll = Poll::new().expect("a descriptor");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a descriptor");
        let owner: LoopHandle<()> = LoopHandle::new(waker, 1 << 20, None, None);
        let frames = ["{1}", "{}", "{333}", "{4}"];
        for transport in [(|| Transport::Plain) as fn() -> Transport, || Transport::custom(Box::new(Tripling))] {
            let wire_of = |frame: &str| if transport().is_plain() { frame.len() } else { 1 + 3 * frame.len() };
            let total: usize = frames.iter().map(|frame| wire_of(frame)).sum();
            for unacknowledged in (0..=total).chain([usize::MAX / 2]) {
                let taker = Arc::new(Taker::default());
                let id = ConnId { index: 0, generation: 0 };
                let socket = Socket::Simulated(taker.clone());
                let link = Arc::new(Link::new(id, socket, None, FrameWriter::json(), transport(), owner.clone()));
                let mut turn = Turn::new();
                for frame in frames {
                    link.send(&mut turn, frame.as_bytes(), Fate::Return(Label::of(7))).expect("it is open");
                    turn.flush();
                }
                assert_eq!(taker.taken.load(Relaxed), total);
                taker.unacknowledged.store(unacknowledged, Relaxed);
                link.seal();
                let mut end = 0;
                let lost = frames.into_iter().filter(|frame| {
                    end += wire_of(frame);
                    end > total.saturating_sub(unacknowledged)
                });
                let lost: Vec<Box<[u8]>> = lost.map(|frame| frame.as_bytes().into()).collect();
                let back: Vec<_> =
                    link.take_back(|label| label.user == 7).into_iter().map(|(_, frame)| frame).collect();
                assert_eq!(back, lost, "{unacknowledged} bytes of {total} are not acknowledged");
            }
        }
    }
}
