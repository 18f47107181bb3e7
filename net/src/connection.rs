//! [`Connection`]: the reading side of one socket, which its loop owns, and its state.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framing::{FrameReader, looks_like_http};
use crate::handler::CloseReason;
use crate::link::{Link, Turn};
use crate::rounds::Rounds;
use crate::slots::ConnId;
use crate::tls;
use crate::transport::{Got, read_plain};
use crate::turn::Listed;
use crate::waiting::WaitReason;

/// One connection of a loop. `A` is the application's data of the connection.
pub(crate) struct Connection<A, M> {
    pub(crate) link: Arc<Link<M>>,
    pub(crate) phase: ConnectionPhase<A>,
    pub(crate) input: InputState,
    pub(crate) reader: FrameReader,
    pub(crate) way: Way,
    /// Received bytes that were not consumed, if any. Behind a pointer, because an idle connection
    /// has none.
    kept: Option<Box<HeldInput>>,
    /// The memory in bytes for input that the transport holds.
    held: usize,
    /// The number of skipped bytes that were not shown yet.
    pub(crate) blanks: usize,
    /// The reason why an event of the socket does not lead to serving the connection.
    pub(crate) waiting: WaitReason,
    /// The reason why the input ends, once it does.
    pub(crate) ends: CloseReason,
    /// Whether the application was notified that nothing sent will arrive.
    pub(crate) hung_up: bool,
    /// The time at which bytes last arrived.
    pub(crate) heard: Instant,
    /// Whether no bytes have arrived yet.
    pub(crate) is_new: bool,
    pub(crate) frame_timer_set: bool,
    pub(crate) write_timer_set: bool,
}

/// The beginning of a frame, or items that the application is not ready for.
pub(crate) struct HeldInput {
    bytes: Vec<u8>,
    /// The number of consumed bytes at the front; never all.
    consumed: usize,
    /// The time at which the incomplete frame at the front began, if there is one.
    begun: Option<Instant>,
}

/// How the socket is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Without the lock of the link, because no transport has to look at the bytes.
    Plain,
    /// Through the transport.
    Transport,
    /// Nothing was read yet. The first byte shows whether the client speaks TLS.
    Undecided {
        /// Whether the client may do without TLS.
        may_be_plain: bool,
    },
    /// The client begins with TLS, and the handshake has not started.
    Hello {
        /// Whether the whole first message is there and waits for its turn.
        is_queued: bool,
    },
    /// Not read any more: the client does not speak TLS, though it must.
    Refused {
        /// Whether the first bytes look like HTTP.
        http: bool,
    },
}

/// The life of a connection; it only moves forward.
#[derive(Debug)]
pub(crate) enum ConnectionPhase<A> {
    /// Frames go to the application.
    Open(A),
    /// No more is shown to the application, and the output is being written. Until the output is
    /// written the application's data stays, so that anything sent meanwhile is written too.
    Draining(Option<(A, CloseReason)>),
    /// Everything is written and the sending side is shut down. Bytes that the peer still sends are
    /// dropped until it closes too, because closing a socket with unread bytes makes the kernel
    /// discard bytes that the peer has not received (RFC 2525, 2.17).
    Lingering,
    /// To be removed at the end of the turn.
    Dead,
}

/// The state of a socket's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InputState {
    /// Everything was read; an event will report more.
    Dry,
    /// There may be more. `to_end`: the peer is known to have closed, or to have sent an urgent
    /// byte. A read ends before either, so a short read does not mean that everything was read.
    Flowing { to_end: bool },
    /// Only bytes that had arrived at some moment are still read, at most this number.
    Rest { bytes_max: usize },
    /// No more will come.
    Ended,
}

/// The place of the bytes after one read.
pub(crate) enum Read1 {
    /// This number of bytes in the scratch buffer; none were kept before.
    Fresh(usize),
    /// This number was appended to the bytes received before.
    Appended(usize),
}

impl<A, M> Connection<A, M> {
    pub(crate) fn new(link: Arc<Link<M>>, app: A, reader: FrameReader, way: Way, now: Instant) -> Connection<A, M> {
        Connection {
            link,
            phase: ConnectionPhase::Open(app),
            input: InputState::Dry,
            reader,
            way,
            kept: None,
            held: 0,
            blanks: 0,
            waiting: WaitReason::Nothing,
            ends: CloseReason::Ended,
            hung_up: false,
            heard: now,
            is_new: true,
            frame_timer_set: false,
            write_timer_set: false,
        }
    }

    /// Reads once. If the connection keeps no bytes, the new ones stay in `scratch`, so most frames
    /// are never copied.
    pub(crate) fn read(&mut self, scratch: &mut [u8], turn: &mut Turn<M>) -> Read1 {
        let got = match self.way {
            Way::Plain => read_plain(&self.link.socket, scratch),
            way => self.read_otherwise(way, scratch, turn),
        };
        let count = match got {
            Ok(Got { wire: 0, .. }) => {
                self.input = InputState::Ended;
                0
            }
            Ok(Got { count, wire, is_short }) => {
                self.input = self.input.after_read(wire, is_short);
                self.heard = turn.now();
                self.is_new = false;
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.input = if let InputState::Rest { .. } = self.input { InputState::Ended } else { InputState::Dry };
                0
            }
            Err(_) => {
                self.input = InputState::Ended;
                if self.ends == CloseReason::Ended {
                    self.ends = CloseReason::Broken;
                }
                self.link.seal();
                0
            }
        };
        match &mut self.kept {
            None => Read1::Fresh(count),
            Some(kept) => {
                kept.bytes.extend_from_slice(&scratch[..count]);
                Read1::Appended(count)
            }
        }
    }

    #[inline(never)]
    fn read_otherwise(&mut self, way: Way, scratch: &mut [u8], turn: &mut Turn<M>) -> io::Result<Got> {
        let got = match way {
            Way::Plain => read_plain(&self.link.socket, scratch),
            Way::Transport => self.link.read(turn, scratch),
            Way::Undecided { may_be_plain } => self.look_first(may_be_plain, scratch, turn),
            Way::Hello { is_queued: true } => Err(io::ErrorKind::WouldBlock.into()),
            Way::Hello { is_queued: false } => self.await_hello(scratch, turn),
            Way::Refused { .. } => {
                let got = read_plain(&self.link.socket, scratch)?;
                turn.budget.spend(got.wire / REFUSED_PER_WORK);
                Ok(Got { count: 0, ..got })
            }
        };
        if self.way == Way::Transport {
            self.held = self.link.held_input();
        }
        got
    }

    /// Reads for the first time: the first byte shows whether the client speaks TLS.
    fn look_first(&mut self, may_be_plain: bool, scratch: &mut [u8], turn: &mut Turn<M>) -> io::Result<Got> {
        let is_tls = self.link.socket.peek(&mut scratch[..1])? == 1 && tls::is_first_byte(scratch[0]);
        if is_tls && let ConnectionPhase::Open(_) = self.phase {
            self.way = Way::Hello { is_queued: false };
            return self.await_hello(scratch, turn);
        }
        let got = read_plain(&self.link.socket, scratch)?;
        self.way = match &scratch[..got.count] {
            [] => return Ok(got),
            _ if may_be_plain => Way::Plain,
            bytes => {
                self.ends = CloseReason::Foreign;
                Way::Refused { http: looks_like_http(bytes) }
            }
        };
        Ok(if self.way == Way::Plain { got } else { Got::END })
    }

    /// Waits until the first message of TLS has arrived. The message stays in the kernel until its
    /// turn among those of other connections.
    fn await_hello(&mut self, scratch: &mut [u8], turn: &mut Turn<M>) -> io::Result<Got> {
        let count = self.link.socket.peek(&mut scratch[..tls::HELLO_BYTES_MAX])?;
        if !tls::is_whole_record(&scratch[..count]) {
            let is_ended = count == 0 || matches!(self.input, InputState::Flowing { to_end: true });
            return if is_ended { Ok(Got::END) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        self.way = Way::Hello { is_queued: true };
        turn.hellos.push(self.link.id);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Begins TLS, in the connection's turn. Returns whether that is possible.
    pub(crate) fn begin_tls(&mut self) -> bool {
        let ConnectionPhase::Open(_) = self.phase else { return false };
        if self.way != (Way::Hello { is_queued: true }) || !self.link.begin_tls() {
            return false;
        }
        self.way = Way::Transport;
        if self.input == InputState::Dry {
            self.input = InputState::Flowing { to_end: true };
        }
        true
    }

    /// Queues the connection to be served when its turn comes. If this turn of the loop has used up
    /// its budget, that is the next turn at the earliest.
    pub(crate) fn queue(&mut self, rounds: &mut Rounds<ConnId>, now: Instant) {
        if self.waiting.await_turn() {
            rounds.push(self.link.share(), self.link.id, self.is_quiet(now));
        }
    }

    /// The time at which bytes last arrived; `now` if the client is not being read, because some
    /// may have arrived.
    pub(crate) fn heard_by(&self, now: Instant) -> Instant {
        let is_unread = self.waiting.is_for_application() || self.waiting.is_for_client();
        if is_unread { now } else { self.heard }
    }

    /// Whether nothing has arrived recently.
    fn is_quiet(&self, now: Instant) -> bool {
        self.is_new || now.saturating_duration_since(self.heard) >= QUIET_AFTER
    }

    /// Reads no more than what has arrived until now, which fits into the kernel's buffer. So a
    /// peer that never stops sending is not read for ever.
    pub(crate) fn end_input(&mut self, reason: CloseReason) {
        self.ends = reason;
        if let InputState::Dry | InputState::Flowing { .. } = self.input {
            let bytes_max = self.link.socket.receive_buffer_bytes().unwrap_or(0);
            self.input = InputState::Rest { bytes_max };
        }
    }

    /// Whether something is to be shown without reading: bytes, the garbage of a given-up frame, or
    /// the end.
    pub(crate) fn owes(&self) -> bool {
        self.kept.is_some() || self.reader.has_shown() || self.input == InputState::Ended
    }

    /// Keeps the rest of a fresh read. The rest must not be empty.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        debug_assert!(self.kept.is_none() && !rest.is_empty());
        self.kept = Some(Box::new(HeldInput { bytes: rest.to_vec(), consumed: 0, begun: None }));
    }

    /// Takes the kept bytes.
    pub(crate) fn take_kept(&mut self) -> Option<Box<HeldInput>> {
        self.kept.take()
    }

    /// Puts taken bytes back, `consumed` more of which are consumed now. An idle connection holds
    /// no buffer, and consumed bytes are removed soon.
    pub(crate) fn put_back(&mut self, mut kept: Box<HeldInput>, consumed: usize) {
        if consumed > 0 && !self.reader.goes_on() {
            kept.begun = None;
        }
        kept.consumed += consumed;
        debug_assert!(kept.consumed <= kept.bytes.len());
        if kept.consumed == kept.bytes.len() {
            return;
        }
        if kept.consumed > kept.bytes.len() / 2 {
            kept.bytes.drain(..kept.consumed);
            kept.bytes.shrink_to(2 * kept.bytes.len());
            kept.consumed = 0;
        }
        self.kept = Some(kept);
    }

    /// Drops the received bytes: they will not be read or completed.
    pub(crate) fn forget_kept(&mut self) {
        self.kept = None;
        self.waiting.forget_application();
    }

    /// The memory of the received bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.held + self.kept.as_ref().map_or(0, |kept| kept.bytes.capacity())
    }

    /// Drops the received bytes, and reads no more: only the end of the input is still to be shown.
    pub(crate) fn refuse_input(&mut self) {
        self.forget_kept();
        self.reader.forget();
        (self.blanks, self.input) = (0, InputState::Ended);
        if self.ends == CloseReason::Ended {
            self.ends = CloseReason::TurnedAway;
        }
    }

    /// The time at which the incomplete frame began, if there is one.
    pub(crate) fn frame_begun(&self) -> Option<Instant> {
        self.kept.as_ref()?.begun
    }

    /// Notes whether a frame is incomplete. Returns true if a deadline for it must be set.
    pub(crate) fn watch_frame(&mut self, now: Instant) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        if self.waiting.is_for_application() || !self.reader.is_inside() {
            kept.begun = None;
            return false;
        }
        kept.begun.get_or_insert(now);
        !std::mem::replace(&mut self.frame_timer_set, true)
    }

    /// Gives up on the incomplete frame; garbage is at the front now.
    pub(crate) fn give_up_frame(&mut self) {
        self.reader.give_up();
        self.blanks += self.kept.as_ref().map_or(0, |kept| kept.rest().len());
        self.forget_kept();
        self.waiting.await_application();
    }
}

impl HeldInput {
    /// The bytes that were not consumed.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    /// The bytes that were not consumed, writable for the reader that finds the frames in them.
    pub(crate) fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.consumed..]
    }
}

impl InputState {
    /// Whether the socket may have something to read.
    pub(crate) fn flows(self) -> bool {
        matches!(self, InputState::Flowing { .. } | InputState::Rest { .. })
    }

    fn after_read(self, count: usize, short: bool) -> InputState {
        match self {
            InputState::Rest { bytes_max } if count < bytes_max => InputState::Rest { bytes_max: bytes_max - count },
            InputState::Rest { .. } | InputState::Ended => InputState::Ended,
            // A short read has emptied the socket (epoll(7), question 9), unless the end is still
            // to be read, or the read has stopped before an urgent byte.
            InputState::Dry | InputState::Flowing { to_end: false } if short => InputState::Dry,
            InputState::Dry => InputState::Flowing { to_end: false },
            InputState::Flowing { to_end } => InputState::Flowing { to_end },
        }
    }
}

/// Bytes of a refused client, which are dropped, cost this many times less than processed ones.
const REFUSED_PER_WORK: usize = 4;
/// A client that sends at most once in this time is not greedy.
const QUIET_AFTER: Duration = Duration::from_secs(1);
