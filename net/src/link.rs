//! [`Link`]: how any thread reaches one connection.
//!
//! The loop that owns a connection reads it; its output is shared, under a leaf lock, so that a loop which read a
//! frame for this connection writes it here itself at the end of its turn. No thread has to be woken for it, and
//! whether the connection still takes frames is known at once. Only what the socket does not take is finished by the
//! owning loop, which alone hears that the socket has room again.
//!
//! # What has arrived
//! A frame that the socket took may still be lost: the peer is gone, and only a timeout will tell. So frames that are to be
//! given back are kept until the peer's kernel has acknowledged them. How much it has not is asked by `SIOCOUTQ` (tcp(7)):
//! when much was written since the last time, when the connection ends, and in an *errand* of the thread that wrote, a
//! second after it did. An errand is a second look at one link at a certain time, see [`Turn::run_errands`].
//!
//! # Connections in doubt
//! A client that has lost its connection and comes back on another one leaves the first behind, which looks alive until the
//! system gives it up. Such a link is put in doubt ([`Link::doubt`]): if its peer acknowledges nothing for a second then,
//! though there is something to acknowledge, it is hung up. A peer that has acknowledged all it was sent ends the doubt.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::framing::{FrameWriter, Notice};
use crate::loop_handle::{Letter, LoopHandle};
use crate::output::{Back, Fate, Output, Writing, Written};
use crate::slots::ConnId;
use crate::socket::Socket;
use crate::turn::{self, Listed, TurnId};

/// The shared part of a connection. It outlives the connection: a closed link refuses everything. It keeps the
/// connection's descriptor, so it should not be kept for long after [`Handler::on_close`](crate::Handler::on_close).
pub struct Link<M> {
    pub(crate) id: ConnId,
    pub(crate) socket: Socket,
    /// The client's address if a proxy has told it. Behind a pointer, because most have none.
    client: Option<Box<SocketAddr>>,
    owner: LoopHandle<M>,
    /// The share of the loop's turns that it uses.
    share: AtomicU64,
    side: Mutex<Side>,
}

/// What one thread does for connections in one turn of its loop, see [`turn::Turn`].
pub type Turn<M> = turn::Turn<Link<M>>;

/// The writing side of a connection.
#[derive(Debug)]
struct Side {
    state: State,
    /// Makes frames of what is sent.
    writer: FrameWriter,
    /// Frames are written at the loop's pace, as long as they are bare.
    paced: bool,
    /// The turn that has this link on one of its lists, and which. Every turn that sends something lists it
    /// too, so that each has written what it sent before it is over.
    scheduled: Option<Scheduled>,
    /// The socket took no more; the owner will hear when it does.
    blocked: bool,
    /// The client may have come back on another connection, and has not acknowledged all that it was sent since.
    in_doubt: bool,
    /// How many frames that are given back were sent so far. It wraps around.
    pushes: u32,
    /// Nothing pending and nothing to be acknowledged: no memory.
    output: Option<Box<Output>>,
}

/// On a list of a turn: the one that is written last if it was sent a reply in that turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Scheduled {
    turn: TurnId,
    answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Takes frames and writes them.
    Open,
    /// The same, but the peer has closed its side: most likely nobody reads.
    PeerEnded,
    /// Writes no more; takes frames for as long as its owner needs to give them back.
    Sealed,
    /// The same, and the peer was told that nothing follows.
    Finished,
    /// Gone.
    Closed,
}

/// Why a link does not take a frame. Nothing of it was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The connection is closed.
    Closed,
    /// More than the high-water mark is pending: a slow consumer, to be closed.
    Full,
}

impl<M> Link<M> {
    pub(crate) fn new(id: ConnId, socket: Socket, client: Option<SocketAddr>, owner: LoopHandle<M>) -> Link<M> {
        let (state, output) = (State::Open, None);
        let paced = owner.pace().is_some_and(|pace| pace.everybody);
        let side = Side {
            state,
            writer: FrameWriter::json(),
            paced,
            scheduled: None,
            blocked: false,
            in_doubt: false,
            pushes: 0,
            output,
        };
        let client = client.map(Box::new);
        let share = AtomicU64::new(u64::from(id.generation) << 32 | u64::from(id.index));
        Link { id, socket, client, owner, share, side: Mutex::new(side) }
    }

    /// The client's address: what a proxy has told, else the socket's, which is `None` when the kernel has forgotten it;
    /// that may be long before or after the close.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.client {
            Some(client) => Some(**client),
            None => self.socket.peer_addr().ok(),
        }
    }

    /// Has it use this share of its loop's time from now on; shares take turns, however many connections each has. Before,
    /// it has one of its own.
    pub fn set_share(&self, share: u64) {
        self.share.store(share, Relaxed);
    }

    /// Takes a frame, to be written at the end of this turn or when the socket has room.
    ///
    /// # Errors
    /// [`Refused::Closed`], or [`Refused::Full`] for a frame with [`Fate::Return`] when frames of that kind wait beyond
    /// the high-water mark and the socket takes no more. Replies are not refused: a client that does not read them is not
    /// read either.
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
            written = self.write(side, turn);
        }
        match side.state {
            State::Closed => return Err(Refused::Closed),
            State::Open | State::PeerEnded
                if matches!(fate, Fate::Return(_)) && side.returnable() >= self.output_bytes_max() =>
            {
                // Perhaps nothing was written yet, because much was sent in this turn.
                written = if side.blocked { Written::Blocked } else { self.write(side, turn) };
                // What is held for a client that is paced may be as much as what another does not take, and no more.
                let is_held = side.is_paced() && side.returnable() >= self.output_bytes_max();
                if written != Written::All || is_held {
                    drop(guard);
                    self.report(turn, written);
                    return Err(Refused::Full);
                }
            }
            // Nothing is written any more: what is not given back is worthless, and would only lie here until the close.
            State::Sealed | State::Finished if answered => {
                drop(guard);
                self.report(turn, written);
                return Ok(());
            }
            State::Open | State::PeerEnded | State::Sealed | State::Finished => {}
        }
        self.enqueue(side, turn, frame, fate);
        drop(guard);
        if !turn.reports.is_empty() || written == Written::Broken {
            self.report(turn, written);
        }
        Ok(())
    }

    fn enqueue(self: &Arc<Link<M>>, side: &mut Side, turn: &mut Turn<M>, frame: &[u8], fate: Fate) {
        side.pushes = side.pushes.wrapping_add(u32::from(matches!(fate, Fate::Return(_))));
        let output = side.output.get_or_insert_with(|| turn.pool.get());
        match side.paced && side.writer.is_bare() {
            true => output.push_paced(frame, &mut side.writer, fate, turn.now()),
            false => output.push(frame, &mut side.writer, fate),
        }
        self.list(side, turn, frame.len(), !matches!(fate, Fate::Return(_)));
    }

    /// Has what was sent written at the end of the turn, if it is written at all and nobody else will; `answered` says
    /// that it is a reply.
    fn list(self: &Arc<Link<M>>, side: &mut Side, turn: &mut Turn<M>, len: usize, answered: bool) {
        turn.note_sent(len);
        if side.blocked || !side.state.writes() {
            return;
        }
        let now = Scheduled { turn: turn.id(), answered };
        match side.scheduled {
            Some(before) if before.turn == now.turn && (before.answered || !answered) => {
                turn.is_mixed |= before.answered && !answered;
                return;
            }
            Some(_) | None => side.scheduled = Some(now),
        }
        turn.list(self.clone(), answered);
    }

    /// Does what the reader of its frames says.
    pub(crate) fn heed(self: &Arc<Link<M>>, turn: &mut Turn<M>, notice: Notice) {
        let mut guard = self.side.lock();
        let side = &mut *guard;
        match notice {
            Notice::Lines => {
                if side.writer.use_lines() && side.state.writes() {
                    self.enqueue(side, turn, b"", Fate::Drop);
                }
            }
        }
    }

    /// From now on writes at the loop's pace, if there is one and as long as its frames are bare. Any thread.
    pub fn use_pace(&self) {
        self.side.lock().paced = self.owner.pace().is_some();
    }

    /// Whether it writes at the loop's pace. Any thread.
    pub fn is_paced(&self) -> bool {
        self.side.lock().is_paced()
    }

    /// Writes what is pending, now. Any thread.
    pub fn flush(self: &Arc<Link<M>>, turn: &mut Turn<M>) {
        self.flush_side(self.side.lock(), turn);
    }

    fn flush_side(self: &Arc<Link<M>>, mut side: MutexGuard<'_, Side>, turn: &mut Turn<M>) {
        side.scheduled = None;
        let written = self.write(&mut side, turn);
        drop(side);
        self.report(turn, written);
    }

    fn write(self: &Arc<Link<M>>, side: &mut Side, turn: &mut Turn<M>) -> Written {
        let Some(output) = side.output.as_mut().filter(|_| side.state.writes()) else { return Written::All };
        let written = match self.owner.pace() {
            _ if !side.writer.is_bare() => output.write_to(&self.socket, Writing::Together),
            Some(pace) if side.paced => {
                // The turn may have begun a while ago, and what is written now is what the client is busy with from now on.
                let now = turn.now().max(Instant::now());
                output.write_paced(&self.socket, pace, now, self.output_bytes_max() / 2)
            }
            Some(_) | None => output.write_to(&self.socket, Writing::OneByOne),
        };
        side.blocked = written == Written::Blocked;
        match written {
            Written::All | Written::Blocked => self.look_after(side, turn),
            Written::Broken => side.state = State::Sealed,
        }
        written
    }

    /// Asks the kernel what has arrived if that is worth it, and has somebody come again for what has not.
    fn look_after(self: &Arc<Link<M>>, side: &mut Side, turn: &mut Turn<M>) {
        let Some(output) = &mut side.output else { return };
        if output.awaits_report() || output.is_much_sent() || side.in_doubt {
            side.in_doubt &= !self.ask(output, side.state, turn);
        }
        let pauses_until = output.held_until(turn.now());
        if output.is_empty() && pauses_until.is_none() {
            turn.pool.put(side.output.take().expect("it is there"));
            return;
        }
        let look = match () {
            () if output.awaits_report() => Some(turn.now() + output.report_pause.max(REPORT_PAUSE_MIN)),
            () if output.has_sent() => Some(turn.now() + LOOK_AFTER),
            () => None,
        };
        let due = match (side.in_doubt, pauses_until) {
            (false, None) => look,
            (in_doubt, _) => {
                let stalled_at = output.waits_since().filter(|_| in_doubt).map(|since| since + STALLED_AFTER);
                [look, stalled_at, pauses_until].into_iter().flatten().min()
            }
        };
        // Otherwise the owner hears when the socket has room.
        let Some(due) = due else { return };
        // One that is long overdue was of a thread that has ended.
        if output.errand.is_none_or(|errand| errand > due || errand + LOOK_AFTER < turn.now()) {
            output.errand = Some(due);
            turn.look_again(due, self);
        }
    }

    /// Asks the kernel what the peer's kernel has acknowledged; whether that is all, and more than at the last look.
    fn ask(&self, output: &mut Output, state: State, turn: &mut Turn<M>) -> bool {
        let unacknowledged = self.unacknowledged(state);
        output.acknowledge(unacknowledged, &mut turn.reports);
        output.note_progress(unacknowledged, turn.now()) && unacknowledged == 0
    }

    /// Bytes that the socket took and that the peer's kernel has not acknowledged. If that cannot be known, all of them.
    fn unacknowledged(&self, state: State) -> usize {
        self.socket.unacknowledged(state == State::Finished).unwrap_or(usize::MAX)
    }

    /// Looks now whether a report is due; returns those that are, for the owner, who would be posted them otherwise.
    pub(crate) fn take_reports(&self, turn: &mut Turn<M>) -> Vec<u32> {
        let mut guard = self.side.lock();
        let side = &mut *guard;
        if let Some(output) = side.output.as_mut().filter(|output| output.awaits_report()) {
            side.in_doubt &= !self.ask(output, side.state, turn);
        }
        drop(guard);
        std::mem::take(&mut turn.reports)
    }

    /// Puts the connection in doubt: its client has come to another one, and may have lost this one. It is hung up as soon
    /// as its peer has acknowledged nothing for a while though there is something to acknowledge. Whether that is so
    /// already; then the caller hangs it up. Any thread.
    pub fn doubt(self: &Arc<Link<M>>, turn: &mut Turn<M>) -> bool {
        let mut guard = self.side.lock();
        let side = &mut *guard;
        if !side.state.writes() {
            return false;
        }
        // What was acknowledged before is no sign of life.
        let stalled = side.output.as_mut().is_some_and(|output| {
            self.ask(output, side.state, turn);
            has_stalled(output, turn.now())
        });
        side.in_doubt = true;
        if !stalled {
            self.look_after(side, turn);
        }
        drop(guard);
        self.report(turn, Written::All);
        stalled
    }

    /// How many frames with [`Fate::Return`] it was sent so far, up to a number that wraps around. Any thread.
    pub fn pushes(&self) -> u32 {
        self.side.lock().pushes
    }

    /// Tells the owner what a write has come to, in the order in which it happened: what was written before the
    /// connection broke is still reported. Not under the lock.
    fn report(&self, turn: &mut Turn<M>, written: Written) {
        for label in turn.reports.drain(..) {
            self.owner.post(Letter::Sent(self.id, label));
        }
        if written == Written::Broken {
            self.owner.post(Letter::HangUp(self.id));
        }
    }

    /// The socket has room again. Only the owner hears it.
    pub(crate) fn on_writable(self: &Arc<Link<M>>, turn: &mut Turn<M>) {
        let was_blocked = std::mem::take(&mut self.side.lock().blocked);
        if was_blocked {
            let before = self.pending_bytes();
            self.flush(turn);
            turn.budget.spend(before.saturating_sub(self.pending_bytes()));
        }
    }

    /// Removes the frames that were sent with [`Fate::Return`] and this label and that the connection will not bring to its
    /// client, in order: while it is open, those that were not begun to be written; when it is hung up or the peer has
    /// closed, all that the peer's kernel has not acknowledged. Any thread.
    pub fn take_back(&self, label: u32) -> Vec<Box<[u8]>> {
        let back = self.take_back_where(&mut self.side.lock(), |other| other == label);
        back.into_iter().map(|(_, frame)| frame).collect()
    }

    fn take_back_where(&self, side: &mut Side, wanted: impl Fn(u32) -> bool) -> Vec<(u32, Box<[u8]>)> {
        let Some(output) = &mut side.output else { return Vec::new() };
        let back = if side.state == State::Open { Back::Unwritten } else { Back::Unacknowledged };
        if back == Back::Unacknowledged {
            // Those that wait for a report have heard of the end.
            output.acknowledge(self.unacknowledged(side.state), &mut Vec::new());
        }
        let back = output.take_back(wanted, back);
        if output.is_empty() && output.pause.is_none() {
            side.output = None;
        }
        back
    }

    /// What the connection still holds under one label is given back under another from now on. Any thread.
    pub fn relabel(&self, from: u32, to: u32) {
        if let Some(output) = &mut self.side.lock().output {
            output.relabel(from, to);
        }
    }

    /// Writes no more from now on, and has the owner close the connection. Any thread.
    pub fn hang_up(&self) {
        self.seal();
        self.owner.post(Letter::HangUp(self.id));
    }

    /// Writes no more from now on.
    pub(crate) fn seal(&self) {
        let mut side = self.side.lock();
        if side.state.writes() {
            side.state = State::Sealed;
        }
    }

    /// Whether it is closed, or about to be: it takes nothing more. Any thread.
    pub fn is_sealed(&self) -> bool {
        !self.side.lock().state.writes()
    }

    /// The peer has closed its side: what it has not acknowledged now it has not read, and what is written from now on it
    /// will hardly read.
    pub(crate) fn on_peer_ended(&self) {
        let mut side = self.side.lock();
        if side.state == State::Open {
            side.state = State::PeerEnded;
        }
    }

    /// How much waits to be written, in bytes. Any thread.
    pub fn pending_bytes(&self) -> usize {
        self.side.lock().pending()
    }

    /// How much the client has not received, as far as is known, in bytes. Any thread.
    pub fn undelivered_bytes(&self) -> usize {
        let side = self.side.lock();
        side.pending().saturating_add(self.unacknowledged(side.state))
    }

    /// So much is pending that a client should not be read on, since it would be answered.
    pub(crate) fn is_congested(&self) -> bool {
        let side = self.side.lock();
        let Some(output) = side.output.as_ref().filter(|_| side.state.writes()) else { return false };
        let max = self.output_bytes_max() / 2;
        match side.is_paced() {
            // What others have sent waits longer for a client that is paced, and it may well ask for something meanwhile.
            // From this length on its replies are written without a pause, and the owner hears when the socket has room.
            true => output.pending_replies() >= max,
            false => output.pending_replies() >= max.min(REPLIES_BYTES_MAX) || output.pending() >= max,
        }
    }

    /// Until when what is pending is held, if it is.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.side.lock().output.as_ref().and_then(|output| output.held_until(now))
    }

    fn output_bytes_max(&self) -> usize {
        self.owner.output_bytes_max()
    }

    /// Nothing is pending.
    pub(crate) fn is_flushed(&self) -> bool {
        self.side.lock().pending() == 0
    }

    /// Says to the peer that nothing follows. What is sent from now on is given back in the end: trying to write it
    /// would break the connection before the peer has read the rest.
    pub(crate) fn finish(&self) {
        self.side.lock().state = State::Finished;
        if let Err(error) = self.socket.shutdown(Shutdown::Write)
            && error.kind() != ErrorKind::NotConnected
        {
            log::debug!("cannot end a connection in order: {error}");
        }
    }

    /// The end: returns what was to be given back, was not asked for, and has not arrived. Refusing and giving back are one
    /// step, or a frame accepted between them would be lost.
    pub(crate) fn close(&self) -> Vec<(u32, Box<[u8]>)> {
        let mut side = self.side.lock();
        if side.state.writes() {
            side.state = State::Sealed;
        }
        let back = self.take_back_where(&mut side, |_| true);
        (side.state, side.output) = (State::Closed, None);
        drop(side);
        // A link that is still held keeps the descriptor open: the peer would not hear of the end.
        if let Err(error) = self.socket.shutdown(Shutdown::Both)
            && error.kind() != ErrorKind::NotConnected
        {
            log::debug!("cannot end a connection: {error}");
        }
        back
    }

    /// Posts a message for this connection to its loop; it comes to [`Handler::on_message`](crate::Handler::on_message).
    /// Any thread, never blocks.
    pub fn post(&self, message: M) {
        self.owner.post(Letter::Message(self.id, message));
    }

    /// Posts many messages to their connections, waking each loop once.
    pub fn post_all(messages: Vec<(Arc<Link<M>>, M)>) {
        let mut rest = messages;
        while let Some(owner) = rest.first().map(|(link, _)| link.owner.clone()) {
            let (here, elsewhere): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(link, _)| link.owner.is(&owner));
            owner.post_all(here.into_iter().map(|(link, message)| Letter::Message(link.id, message)));
            rest = elsewhere;
        }
    }
}

fn has_stalled(output: &Output, now: Instant) -> bool {
    output.waits_since().is_some_and(|since| now.saturating_duration_since(since) >= STALLED_AFTER)
}

impl State {
    fn writes(self) -> bool {
        matches!(self, State::Open | State::PeerEnded)
    }
}

impl Side {
    /// Whether the turn has to be written before this link takes a frame, because a reply must not leave before the frames
    /// that it confirms. A reply confirms all that its client has had forwarded before.
    fn must_wait_for_others<M>(&self, answered: bool, output_bytes_max: usize, turn: &Turn<M>) -> bool {
        let is_answered = self.scheduled == Some(Scheduled { turn: turn.id(), answered: true });
        match answered {
            // It is written before a link that was sent a reply later, and such a link may hold what this reply confirms.
            true => is_answered && turn.is_mixed,
            // It is full and would be written now, with the replies in it.
            false => is_answered && self.returnable() >= output_bytes_max,
        }
    }

    /// Whether what is pending has to be written before the link takes a reply: from then on it is written after the links
    /// that were sent a reply earlier in this turn, and those replies may confirm what is pending here.
    fn is_behind_others<M>(&self, turn: &Turn<M>) -> bool {
        let is_answered = self.scheduled == Some(Scheduled { turn: turn.id(), answered: true });
        !is_answered && !self.blocked && turn.has_answered() && self.pending() > 0
    }

    fn is_paced(&self) -> bool {
        self.paced && self.writer.is_bare()
    }

    fn pending(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.pending())
    }

    fn returnable(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.returnable())
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
        if side.scheduled != Some(Scheduled { turn: turn.id(), answered: true }) {
            self.flush_side(side, turn);
        }
    }

    fn on_errand(self: &Arc<Link<M>>, turn: &mut Turn<M>, due: Instant) {
        let mut guard = self.side.lock();
        let side = &mut *guard;
        let Some(output) = side.output.as_mut().filter(|output| output.errand == Some(due)) else { return };
        output.errand = None;
        if !side.state.writes() {
            // Its owner is about to close it.
            return;
        }
        if output.has_sent() || side.in_doubt {
            side.in_doubt &= !self.ask(output, side.state, turn);
        }
        if side.in_doubt && has_stalled(output, turn.now()) {
            log::debug!("a connection acknowledges nothing, and its client may be on another one: it is closed");
            side.state = State::Sealed;
            drop(guard);
            self.report(turn, Written::Broken);
            return;
        }
        output.report_pause = match output.awaits_report() {
            true => (2 * output.report_pause).clamp(REPORT_PAUSE_MIN, REPORT_PAUSE_MAX),
            false => Duration::ZERO,
        };
        let written = match side.blocked {
            true => {
                self.look_after(side, turn);
                Written::Blocked
            }
            false => self.write(side, turn),
        };
        drop(guard);
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

/// Replies that wait for a client before it is read no further: enough to keep its socket busy, and little where thousands ask
/// and do not read.
const REPLIES_BYTES_MAX: usize = 64 * 1024;
/// When the kernel is asked what has become of frames after which nothing was written.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// The same when somebody waits for the answer: at first soon, for most peers are near, then less often.
const REPORT_PAUSE_MIN: Duration = Duration::from_millis(2);
const REPORT_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a peer may owe an acknowledgement until its connection counts as dead for whoever has a better one. Several
/// times what any round trip takes.
const STALLED_AFTER: Duration = Duration::from_secs(1);
