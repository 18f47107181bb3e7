//! [`Closing`]: how a connection ends, after the application was shown the last of its input.
//!
//! ```text
//!   open ── close ──▶ draining ── finish ──▶ lingering ──▶ dead
//!                        └───────── kill ───────┴───────────▲
//! ```

use std::time::Duration;

use crate::connection::{Connection, ConnectionPhase, InputState, Read1};
use crate::handler::{CloseReason, Handler, Settings};
use crate::link::Turn;
use crate::rounds::Rounds;
use crate::showing::{READ_BYTES, spend_on_unshown};
use crate::slots::ConnId;
use crate::stats::LoopStats;
use crate::timer::{Deadline, Timers};

/// The parts of a loop that are needed to end one of its connections.
pub(crate) struct Closing<'a, H: Handler> {
    pub(crate) handler: &'a mut H,
    pub(crate) turn: &'a mut Turn<H::Message>,
    pub(crate) settings: &'a Settings,
    pub(crate) timers: &'a mut Timers,
    pub(crate) ready: &'a mut Rounds<ConnId>,
    pub(crate) dead: &'a mut Vec<ConnId>,
    pub(crate) stats: &'a LoopStats,
}

/// A connection of this handler.
pub(crate) type Conn<H> = Connection<<H as Handler>::Conn, <H as Handler>::Message>;

impl<H: Handler> Closing<'_, H> {
    /// Shows no more of the connection. Output that was sent to it is still written.
    pub(crate) fn close(&mut self, conn: &mut Conn<H>, reason: CloseReason) {
        match std::mem::replace(&mut conn.phase, ConnectionPhase::Dead) {
            ConnectionPhase::Open(app) => {
                self.stats.on_close(reason);
                conn.phase = ConnectionPhase::Draining(Some((app, reason)));
            }
            other => {
                conn.phase = other;
                return;
            }
        }
        conn.forget_kept();
        if conn.reader.is_websocket() {
            conn.link.ends_with(code_of(reason));
        }
        self.drain_on(conn);
        if let ConnectionPhase::Draining(_) = conn.phase {
            self.timers.set(self.turn.now() + self.settings.drain_timeout, conn.link.id, Deadline::Close);
        }
    }

    /// Continues with a connection that is draining.
    pub(crate) fn drain_on(&mut self, conn: &mut Conn<H>) {
        // A client whose handshake is not finished cannot be sent anything.
        if conn.link.is_sealed() || conn.link.is_handshaking() {
            self.kill(conn);
            return;
        }
        // Earlier frames that these replies confirm are written first.
        self.turn.flush();
        // Another loop may have been writing at the same time, and then no event would report that
        // the socket has room.
        conn.link.flush(self.turn);
        if !conn.link.is_flushed() {
            // Held bytes are written at `at`. Bytes that the socket does not take are written when
            // an event reports room.
            if let Some(at) = conn.link.held_until(self.turn.now())
                && !std::mem::replace(&mut conn.write_timer_set, true)
            {
                self.timers.set(at, conn.link.id, Deadline::Write);
            }
            return;
        }
        if let ConnectionPhase::Draining(app) = &mut conn.phase
            && let Some((app, reason)) = app.take()
        {
            self.handler.on_close(self.turn, &conn.link, app, reason);
        }
        // Another loop may have sent something at the last moment.
        if conn.link.is_flushed() {
            self.finish(conn);
        }
    }

    /// Shuts the sending side down, because everything is written, and waits for the peer's end
    /// unless it has come.
    fn finish(&mut self, conn: &mut Conn<H>) {
        conn.link.finish(self.turn);
        if conn.input == InputState::Ended && conn.ends.is_of_client() {
            self.kill(conn);
            return;
        }
        conn.phase = ConnectionPhase::Lingering;
        // Unread bytes may be there, even after the known end of the input.
        conn.input = InputState::Flowing { to_end: false };
        conn.queue(self.ready, self.turn.now());
        self.timers.set(self.turn.now() + LINGER, conn.link.id, Deadline::Close);
    }

    /// Drops what a lingering connection still sends, up to its end.
    pub(crate) fn discard(&mut self, conn: &mut Conn<H>, scratch: &mut [u8]) {
        let mut budget = READ_BYTES;
        while conn.input.flows() {
            // Not every read brings payload, so the cost of all reads is limited as well.
            if budget == 0 || self.turn.is_spent() {
                conn.queue(self.ready, self.turn.now());
                return;
            }
            let Read1::Fresh(count) = conn.read(scratch, self.turn) else { unreachable!("nothing is kept") };
            spend_on_unshown(self.turn, count);
            budget = budget.saturating_sub(count);
        }
        if conn.input == InputState::Ended {
            self.kill(conn);
        }
    }

    /// Closes a connection whose descriptor is needed: writes what the socket takes immediately,
    /// and does not wait.
    pub(crate) fn turn_away(&mut self, conn: &mut Conn<H>, scratch: &mut [u8]) {
        self.close(conn, CloseReason::TurnedAway);
        conn.link.socket.take_out(scratch);
        self.kill(conn);
    }

    /// Ends the connection, whatever is left to write.
    pub(crate) fn kill(&mut self, conn: &mut Conn<H>) {
        conn.link.seal();
        match std::mem::replace(&mut conn.phase, ConnectionPhase::Dead) {
            ConnectionPhase::Draining(Some((app, reason))) => self.handler.on_close(self.turn, &conn.link, app, reason),
            ConnectionPhase::Open(_) => unreachable!("it is closed first"),
            ConnectionPhase::Draining(None) | ConnectionPhase::Lingering | ConnectionPhase::Dead => {}
        }
        self.dead.push(conn.link.id);
    }
}

/// The close code of a WebSocket if neither its framing nor the application has set one.
fn code_of(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::Ended | CloseReason::Broken => 1000,
        // RFC 6455, 7.4.1: the endpoint is going away.
        CloseReason::Idle | CloseReason::Stopped | CloseReason::Excess | CloseReason::TurnedAway => 1001,
        CloseReason::Foreign | CloseReason::Answered | CloseReason::Violation => 1002,
        CloseReason::Oversize => 1009,
    }
}

/// The time for which a connection waits for the peer's end after its sending side was shut down.
const LINGER: Duration = Duration::from_secs(1);
