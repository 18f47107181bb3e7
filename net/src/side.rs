//! [`Side`]: the writing side of a connection, which any thread has to itself while it holds the
//! lock of the link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framing::{FrameWriter, Notice};
use crate::label::Label;
use crate::output::{Back, Fate, Output, Pace, Writing, Written};
use crate::socket::Socket;
use crate::transport::Transport;
use crate::turn::{Listed, Turn, TurnId};

/// The writing side of a connection.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) state: SideState,
    /// Makes frames of what is sent.
    pub(crate) writer: FrameWriter,
    /// Brings bytes to the socket.
    pub(crate) transport: Transport,
    /// Frames are written at the loop's pace, as long as they are bare.
    pub(crate) paced: bool,
    /// The last turn that listed this link, and on which of its lists. Every turn that sends
    /// something lists the link, because each turn writes what it has sent before it ends.
    scheduled: Option<Scheduled>,
    /// The socket took no more; the owner will hear when it does.
    pub(crate) blocked: bool,
    /// The client may have come back on another connection, and has not acknowledged all that it
    /// was sent since.
    in_doubt: bool,
    /// How many frames that are given back were sent so far. It wraps around.
    pub(crate) pushes: u32,
    /// Nothing pending and nothing to be acknowledged: no memory.
    pub(crate) output: Option<Box<Output>>,
}

/// On a list of a turn: the one that is written last if it was sent a reply in that turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Scheduled {
    turn: TurnId,
    answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SideState {
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

/// The socket that the side of a link writes to, and the settings for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a> {
    pub(crate) socket: &'a Socket,
    /// How clients that do not read lines are written to, if not at once.
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

    /// Bytes that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.pending()) + self.transport.ahead()
    }

    pub(crate) fn returnable(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.returnable())
    }

    /// Bytes that were written and that the peer's kernel has not acknowledged. If that cannot be
    /// known, all of them.
    pub(crate) fn unacknowledged(&mut self, reach: Reach<'_>) -> usize {
        self.transport.unacknowledged(reach.socket, self.state == SideState::Finished)
    }

    /// Whether too much output is pending to read the client further: its requests would add
    /// replies.
    pub(crate) fn is_congested(&self, output_bytes_max: usize) -> bool {
        let Some(output) = self.output.as_ref().filter(|_| self.state.writes()) else { return false };
        let max = output_bytes_max / 2;
        match self.is_paced() {
            // Frames from others wait longer for a paced client, which may send requests meanwhile,
            // so only replies count. From this length on, replies are written without a pause, and
            // the owner hears when the socket has room.
            true => output.pending_replies() >= max,
            false => output.pending_replies() >= max.min(REPLIES_BYTES_MAX) || output.pending() >= max,
        }
    }

    /// Takes a frame, and has it written at the end of the turn.
    pub(crate) fn enqueue<L: Listed>(&mut self, link: &Arc<L>, turn: &mut Turn<L>, frame: &[u8], fate: Fate) {
        self.pushes = self.pushes.wrapping_add(u32::from(matches!(fate, Fate::Return(_))));
        let output = self.output.get_or_insert_with(|| turn.pool.get());
        match self.paced && self.writer.is_bare() {
            true => output.push_paced(frame, &mut self.writer, fate, turn.now()),
            false => output.push(frame, &mut self.writer, fate),
        }
        self.list(link, turn, frame.len(), !matches!(fate, Fate::Return(_)));
    }

    /// Lists this link to be written at the end of the turn, unless this turn has listed it
    /// already, its socket is full, or it writes no longer. `answered`: the frame is a reply.
    #[inline]
    fn list<L: Listed>(&mut self, link: &Arc<L>, turn: &mut Turn<L>, len: usize, answered: bool) {
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

    /// No turn has it on its list any more, as far as this one knows.
    pub(crate) fn unlist(&mut self) {
        self.scheduled = None;
    }

    /// Whether this turn has sent it a reply that is not written.
    pub(crate) fn is_answered<L: Listed>(&self, turn: &Turn<L>) -> bool {
        self.scheduled == Some(Scheduled { turn: turn.id(), answered: true })
    }

    /// Whether the turn must write its lists before this link takes a frame. A reply
    /// confirms all earlier frames of its client, so those must be written first.
    pub(crate) fn must_wait_for_others<L: Listed>(
        &self,
        answered: bool,
        output_bytes_max: usize,
        turn: &Turn<L>,
    ) -> bool {
        match answered {
            // Links are written in the order of their first reply. A link further back may hold a
            // frame that this new reply confirms.
            true => self.is_answered(turn) && turn.is_mixed,
            // This link is full and would be written now, with the replies in its output.
            false => self.is_answered(turn) && self.returnable() >= output_bytes_max,
        }
    }

    /// Whether pending output must be written before the link takes a reply. With a reply, the link
    /// is written after the links that were sent a reply earlier in this turn, and those replies
    /// may confirm what is pending here.
    pub(crate) fn is_behind_others<L: Listed>(&self, turn: &Turn<L>) -> bool {
        !self.is_answered(turn) && !self.blocked && turn.has_answered() && self.pending() > 0
    }

    /// Does what the reader of its frames says.
    pub(crate) fn heed<L: Listed>(&mut self, link: &Arc<L>, turn: &mut Turn<L>, notice: Notice) {
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

    /// Writes the last bytes that the framing has. All else is written. If the socket does not take
    /// them, the end of the stream must do.
    pub(crate) fn say_goodbye<L: Listed>(&mut self, reach: Reach<'_>, turn: &mut Turn<L>) {
        if self.state.writes()
            && let Some(bytes) = self.writer.goodbye()
        {
            self.output.get_or_insert_with(|| turn.pool.get()).push_raw(&bytes);
            let _ = self.write_output(reach, turn.now());
        }
    }

    /// Writes what is pending, as far as the socket and the pace let it.
    pub(crate) fn write<L: Listed>(&mut self, reach: Reach<'_>, link: &Arc<L>, turn: &mut Turn<L>) -> Written {
        if !self.state.writes() {
            return Written::All;
        }
        let written = match self.write_ahead(reach) {
            Written::All => self.write_output(reach, turn.now()),
            written => written,
        };
        self.blocked = written == Written::Blocked;
        match written {
            // Most often the next look is planned already, and is soon enough.
            Written::All | Written::Blocked if self.needs_no_look(turn.now()) => {}
            Written::All | Written::Blocked => self.look_after(reach, link, turn),
            Written::Broken => self.state = SideState::Sealed,
        }
        written
    }

    /// Whether nothing need be asked about what was written, and nothing new be planned.
    #[inline]
    fn needs_no_look(&self, now: Instant) -> bool {
        let Some(output) = &self.output else { return true };
        output.only_awaits_errand(now) && !output.is_much_sent() && !self.in_doubt
    }

    /// Writes what the transport keeps ahead.
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

    /// Asks the kernel what has arrived, if that is worthwhile, and plans a second look for what
    /// has not.
    fn look_after<L: Listed>(&mut self, reach: Reach<'_>, link: &Arc<L>, turn: &mut Turn<L>) {
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
        // Otherwise the owner hears when the socket has room.
        let Some(due) = due else { return };
        // One that is long overdue was of a thread that has ended.
        if output.errand.is_none_or(|errand| errand > due || errand + LOOK_AFTER < turn.now()) {
            output.errand = Some(due);
            turn.look_again(due, link);
        }
    }

    /// An errand's time has come.
    pub(crate) fn on_errand<L: Listed>(
        &mut self,
        reach: Reach<'_>,
        link: &Arc<L>,
        turn: &mut Turn<L>,
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

    /// Asks the kernel what the peer's kernel has acknowledged; that it is all, and more than at
    /// the last look, ends the doubt.
    fn ask<L: Listed>(&mut self, reach: Reach<'_>, turn: &mut Turn<L>) {
        let unacknowledged = self.unacknowledged(reach);
        let Some(output) = &mut self.output else { return };
        output.acknowledge(unacknowledged, &mut turn.reports);
        let has_progressed = output.note_progress(unacknowledged, turn.now());
        self.in_doubt &= !(has_progressed && unacknowledged == 0);
    }

    /// Looks now whether a report is due, if one is awaited.
    pub(crate) fn ask_for_reports<L: Listed>(&mut self, reach: Reach<'_>, turn: &mut Turn<L>) {
        if self.output.as_ref().is_some_and(|output| output.awaits_report()) {
            self.ask(reach, turn);
        }
    }

    /// Puts the connection in doubt. Returns whether its peer has already acknowledged nothing for
    /// a while.
    pub(crate) fn doubt<L: Listed>(&mut self, reach: Reach<'_>, link: &Arc<L>, turn: &mut Turn<L>) -> bool {
        if !self.state.writes() {
            return false;
        }
        // Earlier acknowledgements are no sign of life.
        self.ask(reach, turn);
        let stalled = self.output.as_ref().is_some_and(|output| has_stalled(output, turn.now()));
        self.in_doubt = true;
        if !stalled {
            self.look_after(reach, link, turn);
        }
        stalled
    }

    /// Removes the frames with [`Fate::Return`] and a wanted label that the connection will not
    /// bring to its client.
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
            // Those that wait for a report have heard of the end.
            output.acknowledge(unacknowledged, &mut Vec::new());
        }
        let back = output.take_back(wanted, back);
        if output.is_empty() && output.pause.is_none() {
            self.output = None;
        }
        back
    }
}

/// Writes as much as a client is to get at once. A separate function, because few are paced.
#[inline(never)]
fn write_paced(output: &mut Output, transport: &mut Transport, reach: Reach<'_>, pace: &Pace, now: Instant) -> Written {
    // The turn may have begun a while ago, and what is written now is what the client is busy with
    // from now on.
    let now = now.max(Instant::now());
    output.write_paced(|bytes| transport.write(reach.socket, bytes), pace, now, reach.output_bytes_max / 2)
}

fn has_stalled(output: &Output, now: Instant) -> bool {
    output.waits_since().is_some_and(|since| now.saturating_duration_since(since) >= STALLED_AFTER)
}

/// Replies that wait for a client before it is read no further: enough to keep its socket busy, and
/// little where thousands ask and do not read.
const REPLIES_BYTES_MAX: usize = 64 * 1024;
/// When the kernel is asked what has become of frames after which nothing was written.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// The same when somebody waits for the answer: at first soon, for most peers are near, then less
/// often.
const REPORT_PAUSE_MIN: Duration = Duration::from_millis(2);
const REPORT_PAUSE_MAX: Duration = Duration::from_millis(100);
/// A peer that owes an acknowledgement for this long counts as dead if its user has a newer
/// connection. Several times any round trip.
const STALLED_AFTER: Duration = Duration::from_secs(1);
