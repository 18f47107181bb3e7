//! [`Side`]: the writing side of a connection. Only the thread that holds the lock of the link can
//! use it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framing::{FrameWriter, Notice};
use crate::label::Label;
use crate::output::{Back, Fate, Output, Pace, Writing, Written};
use crate::socket::Socket;
use crate::transport::Transport;
use crate::turn::{Listed, TurnId, TurnOf};

/// The writing side of a connection.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) state: SideState,
    /// Turns payloads into frames.
    pub(crate) writer: FrameWriter,
    /// Writes bytes to the socket.
    pub(crate) transport: Transport,
    /// Whether bare frames are written at the loop's pace.
    pub(crate) paced: bool,
    /// The last turn that listed this link, and which of its lists has the link. Every turn that
    /// sends frames lists the link, because each turn writes its own frames before it ends.
    scheduled: Option<Scheduled>,
    /// Whether the socket was full at the last write. The owner is notified when it has room.
    pub(crate) blocked: bool,
    /// Whether the connection is in doubt: the client may have come back on another one, and has
    /// not acknowledged everything sent here since then.
    in_doubt: bool,
    /// The number of frames sent so far that are returned if the connection fails. It wraps around.
    pub(crate) pushes: u32,
    /// `None`, and no memory, while nothing is pending and nothing awaits an acknowledgement.
    pub(crate) output: Option<Box<Output>>,
}

/// An entry on a list of a turn. With `answered` it is on the list that is written last, because
/// the turn has sent the link a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Scheduled {
    turn: TurnId,
    answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SideState {
    /// Takes frames and writes them.
    Open,
    /// Like `Open`, but the peer has closed its side, so most likely it does not read any more.
    PeerEnded,
    /// Writes no more, but takes frames until its owner has returned them.
    Sealed,
    /// Like `Sealed`, and the end of the stream was sent to the peer.
    Finished,
    /// Refuses everything.
    Closed,
}

/// The socket that the side of a link writes to, and the settings for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a> {
    pub(crate) socket: &'a Socket,
    /// The pace of writes to clients that do not read lines; `None` if they are written at once.
    pub(crate) pace: Option<&'a Pace>,
    /// The high-water mark.
    pub(crate) output_bytes_max: usize,
}

impl SideState {
    pub(crate) fn writes(self) -> bool {
        matches!(self, SideState::Open | SideState::PeerEnded)
    }
}

impl Side {
    pub(crate) fn new(writer: FrameWriter, transport: Transport, paced: bool) -> Side {
        Side {
            state: SideState::Open,
            writer,
            transport,
            paced,
            scheduled: None,
            blocked: false,
            in_doubt: false,
            pushes: 0,
            output: None,
        }
    }

    pub(crate) fn is_paced(&self) -> bool {
        self.paced && self.writer.is_bare()
    }

    /// The number of bytes that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.pending()) + self.transport.ahead()
    }

    pub(crate) fn returnable(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.returnable())
    }

    /// The number of written bytes that the peer's kernel has not acknowledged; the number of all
    /// written bytes if that is unknown.
    pub(crate) fn unacknowledged(&mut self, reach: Reach<'_>) -> usize {
        self.transport.unacknowledged(reach.socket, self.state == SideState::Finished)
    }

    /// Whether so much output is pending that the client must not be read further, because its
    /// requests would add replies.
    pub(crate) fn is_congested(&self, output_bytes_max: usize) -> bool {
        let Some(output) = self.output.as_ref().filter(|_| self.state.writes()) else { return false };
        let max = output_bytes_max / 2;
        match self.is_paced() {
            // Only replies count here. Frames from other clients wait longer for a paced client,
            // which may send requests meanwhile. From this length on, replies are written without
            // a pause, and the owner is notified when the socket has room.
            true => output.pending_replies() >= max,
            false => output.pending_replies() >= max.min(REPLIES_BYTES_MAX) || output.pending() >= max,
        }
    }

    /// Takes a frame, which is written at the end of the turn.
    pub(crate) fn enqueue<L: Listed>(&mut self, link: &Arc<L>, turn: &mut TurnOf<L>, frame: &[u8], fate: Fate) {
        self.pushes = self.pushes.wrapping_add(u32::from(matches!(fate, Fate::Return(_))));
        let output = self.output.get_or_insert_with(|| turn.pool.get());
        match self.paced && self.writer.is_bare() {
            true => output.push_paced(frame, &mut self.writer, fate, turn.now()),
            false => output.push(frame, &mut self.writer, fate),
        }
        self.list(link, turn, frame.len(), !matches!(fate, Fate::Return(_)));
    }

    /// Lists this link, so that it is written at the end of the turn. Does nothing if this turn has
    /// listed it already, if its socket is full, or if it writes no more. `answered`: the frame is
    /// a reply.
    #[inline]
    fn list<L: Listed>(&mut self, link: &Arc<L>, turn: &mut TurnOf<L>, len: usize, answered: bool) {
        turn.note_sent(len);
        if self.blocked || !self.state.writes() {
            return;
        }
        let now = Scheduled { turn: turn.id(), answered };
        match self.scheduled {
            Some(before) if before.turn == now.turn && (before.answered || !answered) => {
                turn.is_mixed |= before.answered && !answered;
                return;
            }
            Some(_) | None => self.scheduled = Some(now),
        }
        turn.list(link.clone(), answered);
    }

    /// Forgets the turn that has listed this link: the link was just written.
    pub(crate) fn unlist(&mut self) {
        self.scheduled = None;
    }

    /// Whether this turn has sent the link a reply that is not written yet.
    pub(crate) fn is_answered<L: Listed>(&self, turn: &TurnOf<L>) -> bool {
        self.scheduled == Some(Scheduled { turn: turn.id(), answered: true })
    }

    /// Whether the turn must write its lists before this link takes a frame. A reply confirms all
    /// earlier frames of its client, so those must be written first.
    pub(crate) fn must_wait_for_others<L: Listed>(
        &self,
        answered: bool,
        output_bytes_max: usize,
        turn: &TurnOf<L>,
    ) -> bool {
        match answered {
            // Links are written in the order of their first reply. A later link may hold a frame
            // that this new reply confirms.
            true => self.is_answered(turn) && turn.is_mixed,
            // This link is full, so it would be written now, together with its replies.
            false => self.is_answered(turn) && self.returnable() >= output_bytes_max,
        }
    }

    /// Whether pending output must be written before the link takes a reply. A link with a reply is
    /// written after those that were sent a reply earlier in this turn, and those replies may
    /// confirm frames that are pending here.
    pub(crate) fn is_behind_others<L: Listed>(&self, turn: &TurnOf<L>) -> bool {
        !self.is_answered(turn) && !self.blocked && turn.has_answered() && self.pending() > 0
    }

    /// Handles a notice of the reader of this connection.
    pub(crate) fn heed<L: Listed>(&mut self, link: &Arc<L>, turn: &mut TurnOf<L>, notice: Notice) {
        match notice {
            Notice::Lines => {
                if self.writer.use_lines() && self.state.writes() {
                    self.enqueue(link, turn, b"", Fate::Drop);
                }
            }
            Notice::EndsWith(code) => self.writer.ends_with(code),
            Notice::Answer(bytes) => {
                if self.state.writes() {
                    self.output.get_or_insert_with(|| turn.pool.get()).push_raw(&bytes);
                    self.list(link, turn, bytes.len(), true);
                }
            }
        }
    }

    /// Writes the last bytes of the framing, after all other output. If the socket does not take
    /// them, the client sees only the end of the stream.
    pub(crate) fn say_goodbye<L: Listed>(&mut self, reach: Reach<'_>, turn: &mut TurnOf<L>) {
        if self.state.writes()
            && let Some(bytes) = self.writer.goodbye()
        {
            self.output.get_or_insert_with(|| turn.pool.get()).push_raw(&bytes);
            let _ = self.write_output(reach, turn.now());
        }
    }

    /// Writes pending output as far as the socket and the pace allow.
    pub(crate) fn write<L: Listed>(&mut self, reach: Reach<'_>, link: &Arc<L>, turn: &mut TurnOf<L>) -> Written {
        if !self.state.writes() {
            return Written::All;
        }
        let written = match self.write_ahead(reach) {
            Written::All => self.write_output(reach, turn.now()),
            written => written,
        };
        self.blocked = written == Written::Blocked;
        match written {
            // Usually an errand is already planned soon enough.
            Written::All | Written::Blocked if self.needs_no_look(turn.now()) => {}
            Written::All | Written::Blocked => self.look_after(reach, link, turn),
            Written::Broken => self.state = SideState::Sealed,
        }
        written
    }

    /// Whether it is needless to ask the kernel about the written bytes and to plan a new errand.
    #[inline]
    fn needs_no_look(&self, now: Instant) -> bool {
        let Some(output) = &self.output else { return true };
        output.only_awaits_errand(now) && !output.is_much_sent() && !self.in_doubt
    }

    /// Writes the bytes that the transport has buffered ahead of the output.
    #[inline]
    fn write_ahead(&mut self, reach: Reach<'_>) -> Written {
        match self.transport.flush(reach.socket) {
            Ok(()) => Written::All,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Written::Blocked,
            Err(_) => Written::Broken,
        }
    }

    fn write_output(&mut self, reach: Reach<'_>, now: Instant) -> Written {
        let Some(output) = &mut self.output else { return Written::All };
        let transport = &mut self.transport;
        let written = match (self.writer.is_bare(), reach.pace) {
            (true, Some(pace)) if self.paced => write_paced(output, transport, reach, pace, now),
            (is_bare, _) => {
                let how = if is_bare { Writing::OneByOne } else { Writing::Together };
                output.write_to(|bytes| transport.write(reach.socket, bytes), how)
            }
        };
        match written {
            Written::All if transport.ahead() > 0 => Written::Blocked,
            written => written,
        }
    }

    /// Asks the kernel for acknowledgements if that is worthwhile, and plans an errand if bytes are
    /// unacknowledged.
    fn look_after<L: Listed>(&mut self, reach: Reach<'_>, link: &Arc<L>, turn: &mut TurnOf<L>) {
        let Some(output) = &self.output else { return };
        if output.awaits_report() || output.is_much_sent() || self.in_doubt {
            self.ask(reach, turn);
        }
        let Some(output) = &mut self.output else { return };
        let pauses_until = output.held_until(turn.now());
        if output.is_empty() && pauses_until.is_none() {
            turn.pool.put(self.output.take().expect("it is there"));
            return;
        }
        let look = match () {
            () if output.awaits_report() => Some(turn.now() + output.report_pause.max(REPORT_PAUSE_MIN)),
            () if output.has_sent() => Some(turn.now() + LOOK_AFTER),
            () => None,
        };
        let due = match (self.in_doubt, pauses_until) {
            (false, None) => look,
            (in_doubt, _) => {
                let stalled_at = output.waits_since().filter(|_| in_doubt).map(|since| since + STALLED_AFTER);
                [look, stalled_at, pauses_until].into_iter().flatten().min()
            }
        };
        // Without an errand, the owner is notified when the socket has room.
        let Some(due) = due else { return };
        // An errand that is long overdue belonged to a thread that has ended.
        if output.errand.is_none_or(|errand| errand > due || errand + LOOK_AFTER < turn.now()) {
            output.errand = Some(due);
            turn.look_again(due, link);
        }
    }

    /// Handles an errand whose time has come.
    pub(crate) fn on_errand<L: Listed>(
        &mut self,
        reach: Reach<'_>,
        link: &Arc<L>,
        turn: &mut TurnOf<L>,
        due: Instant,
    ) -> Written {
        let Some(output) = self.output.as_mut().filter(|output| output.errand == Some(due)) else {
            return Written::All;
        };
        output.errand = None;
        if !self.state.writes() {
            // Its owner is about to close it.
            return Written::All;
        }
        if output.has_sent() || self.in_doubt {
            self.ask(reach, turn);
        }
        let Some(output) = &mut self.output else { return Written::All };
        if self.in_doubt && has_stalled(output, turn.now()) {
            log::debug!("a connection acknowledges nothing, and its client may be on another one: it is closed");
            self.state = SideState::Sealed;
            return Written::Broken;
        }
        output.report_pause = match output.awaits_report() {
            true => (2 * output.report_pause).clamp(REPORT_PAUSE_MIN, REPORT_PAUSE_MAX),
            false => Duration::ZERO,
        };
        if self.blocked {
            self.look_after(reach, link, turn);
            return Written::Blocked;
        }
        self.write(reach, link, turn)
    }

    /// Asks the kernel for acknowledgements. If everything is acknowledged, and more than at the
    /// last query, the doubt ends.
    fn ask<L: Listed>(&mut self, reach: Reach<'_>, turn: &mut TurnOf<L>) {
        let unacknowledged = self.unacknowledged(reach);
        let Some(output) = &mut self.output else { return };
        output.acknowledge(unacknowledged, &mut turn.reports);
        let has_progressed = output.note_progress(unacknowledged, turn.now());
        self.in_doubt &= !(has_progressed && unacknowledged == 0);
    }

    /// Asks the kernel now if a report is awaited.
    pub(crate) fn ask_for_reports<L: Listed>(&mut self, reach: Reach<'_>, turn: &mut TurnOf<L>) {
        if self.output.as_ref().is_some_and(|output| output.awaits_report()) {
            self.ask(reach, turn);
        }
    }

    /// Puts the connection in doubt. Returns whether its peer has already acknowledged nothing for
    /// a while.
    pub(crate) fn doubt<L: Listed>(&mut self, reach: Reach<'_>, link: &Arc<L>, turn: &mut TurnOf<L>) -> bool {
        if !self.state.writes() {
            return false;
        }
        // Take acknowledgements from before the doubt first: they are no sign of life.
        self.ask(reach, turn);
        let stalled = self.output.as_ref().is_some_and(|output| has_stalled(output, turn.now()));
        self.in_doubt = true;
        if !stalled {
            self.look_after(reach, link, turn);
        }
        stalled
    }

    /// Removes the frames with [`Fate::Return`] and a wanted label that will not reach the client
    /// on this connection.
    pub(crate) fn take_back(&mut self, reach: Reach<'_>, wanted: impl Fn(&Label) -> bool) -> Vec<(Label, Box<[u8]>)> {
        if self.output.is_none() {
            return Vec::new();
        }
        let back = if self.state == SideState::Open { Back::Unwritten } else { Back::Unacknowledged };
        let unacknowledged = match back {
            Back::Unacknowledged => Some(self.unacknowledged(reach)),
            Back::Unwritten => None,
        };
        let Some(output) = &mut self.output else { return Vec::new() };
        if let Some(unacknowledged) = unacknowledged {
            // The reports are dropped: the end of the connection takes their place.
            output.acknowledge(unacknowledged, &mut Vec::new());
        }
        let back = output.take_back(wanted, back);
        if output.is_empty() && output.pause.is_none() {
            self.output = None;
        }
        back
    }
}

/// Writes as much at once as the pace allows. It is a separate function, because few clients are
/// paced.
#[inline(never)]
fn write_paced(output: &mut Output, transport: &mut Transport, reach: Reach<'_>, pace: &Pace, now: Instant) -> Written {
    // The turn may have begun a while ago, but the client gets this write only now.
    let now = now.max(Instant::now());
    output.write_paced(|bytes| transport.write(reach.socket, bytes), pace, now, reach.output_bytes_max / 2)
}

fn has_stalled(output: &Output, now: Instant) -> bool {
    output.waits_since().is_some_and(|since| now.saturating_duration_since(since) >= STALLED_AFTER)
}

/// The bytes of pending replies beyond which the client is not read further. This is enough to keep
/// its socket busy, and little for thousands of clients that send requests and do not read.
const REPLIES_BYTES_MAX: usize = 64 * 1024;
/// The time without a write after which the kernel is asked about written frames.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// The same time if the acknowledgement is to be reported: short at first, because most peers are
/// near, then longer.
const REPORT_PAUSE_MIN: Duration = Duration::from_millis(2);
const REPORT_PAUSE_MAX: Duration = Duration::from_millis(100);
/// A peer that owes an acknowledgement for this long counts as dead if its user has a newer
/// connection. This is several times any round trip.
const STALLED_AFTER: Duration = Duration::from_secs(1);
