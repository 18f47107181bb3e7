//! [`Service`]: the open connections of a loop, and the work for them in its turns.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry};

use crate::closing::{Closing, Conn};
use crate::connection::{Connection, ConnectionPhase, InputState, Way};
use crate::framing::{FrameReader, FrameWriter};
use crate::handler::{CloseReason, Handler, Settings};
use crate::link::{Link, Turn};
use crate::loop_handle::LoopHandle;
use crate::opening::Manner;
use crate::readiness::Readiness;
use crate::rounds::Rounds;
use crate::showing::{READ_BYTES, ShowOutcome, read_and_show, tell_hang_up, tell_reports};
use crate::slots::{ConnId, Slots};
use crate::socket::Socket;
use crate::stats::LoopStats;
use crate::timer::{Deadline, Timers, earlier};
use crate::tokens;
use crate::turn::Listed;
use crate::waiting::News;

/// The connections, and the order in which they are served.
pub(crate) struct Service<H: Handler> {
    pub(crate) handler: H,
    pub(crate) settings: Settings,
    pub(crate) handle: LoopHandle<H::Message>,
    pub(crate) turn: Turn<H::Message>,
    /// The buffer that one read fills.
    pub(crate) scratch: Vec<u8>,
    pub(crate) stats: Arc<LoopStats>,
    connections: Slots<Connection<H::Conn, H::Message>>,
    timers: Timers,
    /// Connections with something to do before the loop sleeps.
    ready: Rounds<ConnId>,
    /// Connections that wait to begin TLS.
    hellos: Rounds<ConnId>,
    dead: Vec<ConnId>,
}

/// The parts of a new connection.
pub(crate) struct NewConnection<A> {
    pub(crate) socket: Socket,
    pub(crate) peer: SocketAddr,
    /// The client's address if it is not the peer's.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) manner: Manner,
    pub(crate) app: A,
}

impl<H: Handler> Service<H> {
    pub(crate) fn new(handler: H, settings: Settings, handle: LoopHandle<H::Message>) -> Service<H> {
        Service {
            handler,
            settings,
            handle,
            turn: Turn::new(),
            scratch: vec![0; READ_BYTES],
            stats: Arc::new(LoopStats::new()),
            connections: Slots::new(),
            timers: Timers::default(),
            ready: Rounds::new(),
            hellos: Rounds::new(),
            dead: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.connections.ids()
    }

    /// Whether no connection waits for its turn.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.hellos.is_empty() && self.turn.hellos.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        earlier(self.timers.next(), self.turn.next_errand())
    }

    /// Begins to serve a connection.
    pub(crate) fn open(&mut self, registry: &Registry, entry: NewConnection<H::Arrival>) {
        let NewConnection { socket, peer, client, manner: Manner { framing, transport, left }, app } = entry;
        let Service { handler, settings, handle, turn, connections, .. } = self;
        let now = turn.now();
        let json = || (FrameReader::json(settings.frame_bytes_max), FrameWriter::json());
        let (reader, writer) = framing.unwrap_or_else(json);
        let is_plain = transport.is_plain();
        let opened = connections.insert_with(|id| {
            // Without notice of an urgent byte, the loop would take the short read before it for
            // the end of the available bytes. Writable events come only after the socket was full
            // (epoll reports edges), so always requesting them costs nothing, while requesting them
            // when needed would be a system call each time.
            let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
            socket.register(registry, tokens::of_connection(id), interest)?;
            let link = Arc::new(Link::new(id, socket, client, writer, transport, handle.clone()));
            let app = handler.on_open(turn, &link, app);
            let way = match is_plain {
                true if link.has_tls() => Way::Undecided { may_be_plain: handler.may_be_plain(&link, &app) },
                true => Way::Plain,
                false => Way::Transport,
            };
            Ok::<_, io::Error>(Connection::new(link, app, reader, way, now))
        });
        match opened {
            Ok(id) => {
                self.timers.set(now + self.settings.idle_timeout, id, Deadline::Idle);
                self.stats.on_open();
                self.show_left(id, &left);
            }
            Err(error) => log::error!("cannot watch the connection from {peer}: {error}"),
        }
    }

    /// Shows bytes that the last opening has read and that belong to the connection.
    fn show_left(&mut self, id: ConnId, left: &[u8]) {
        if !left.is_empty()
            && let Some(conn) = self.connections.get_mut(id)
        {
            conn.keep(left);
            conn.queue(&mut self.ready, self.turn.now());
        }
    }

    /// Handles an event of a socket. If no connection waits and time is left, the socket's
    /// connection is served at once.
    pub(crate) fn hear(&mut self, id: ConnId, event: Readiness) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        let to_end = event.read_closed || event.error || event.urgent;
        if (event.readable || to_end)
            && let InputState::Dry | InputState::Flowing { to_end: false } = conn.input
        {
            conn.input = InputState::Flowing { to_end };
        }
        let news = News { writable: event.writable, gone: event.error || event.write_closed };
        if self.ready.is_empty() && !self.turn.is_spent() && self.turn.budget.has_left(conn.link.share()) {
            self.attend_to(id, news);
        } else {
            conn.queue(&mut self.ready, self.turn.now());
            conn.waiting.tell(news);
        }
    }

    /// Serves the waiting connections, in turn.
    pub(crate) fn serve_those_who_wait(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        while !self.turn.is_spent()
            && let Some(id) = self.ready.next(|share| self.turn.budget.has_left(share))
        {
            let Some(conn) = self.connections.get_mut(id) else { continue };
            let (news, show_again) = conn.waiting.take_turn();
            if show_again {
                self.show_again(id);
            }
            self.attend_to(id, news);
        }
    }

    /// Begins TLS with waiting connections, in turn. They have rounds and a step of their own, so a
    /// storm of handshakes delays no open connection.
    pub(crate) fn serve_hellos(&mut self) {
        for id in self.turn.hellos.drain(..) {
            if let Some(conn) = self.connections.get_mut(id) {
                self.hellos.push(conn.link.share(), id, false);
            }
        }
        if self.hellos.is_empty() {
            return;
        }
        self.turn.budget.next_step();
        while !self.turn.is_spent()
            && let Some(id) = self.hellos.next(|_| true)
        {
            if self.connections.get_mut(id).is_some_and(Connection::begin_tls) {
                self.serve_unless_waiting(id);
            }
        }
    }

    /// Handles the news of a socket.
    fn attend_to(&mut self, id: ConnId, news: News) {
        if news.gone {
            self.hang_up(id);
        } else if news.writable
            && let Some(conn) = self.connections.get_mut(id)
        {
            conn.link.on_writable(&mut self.turn);
            if conn.waiting.is_for_client() && !conn.link.is_congested() {
                conn.waiting.end();
            }
        }
        self.serve_unless_waiting(id);
    }

    /// Passes a message that another thread has posted to its connection.
    pub(crate) fn deliver(&mut self, id: ConnId, message: H::Message) {
        let conn = self.connections.get_mut(id);
        let Some(Connection { phase: ConnectionPhase::Open(app), link, .. }) = conn else {
            self.handler.on_stray(&mut self.turn, message);
            return;
        };
        self.turn.budget.begin_serving(link.share());
        self.handler.on_message(&mut self.turn, link, app, message);
        self.turn.budget.end_serving();
        self.show_again(id);
    }

    /// Reports that the frame with this label has arrived.
    pub(crate) fn report(&mut self, id: ConnId, label: u32) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        let ConnectionPhase::Open(app) = &mut conn.phase else { return };
        self.handler.on_sent(&mut self.turn, &conn.link, app, label);
        self.show_again(id);
    }

    /// Serves the connection, unless it waits: an event of the socket does not repeat an item that
    /// the application answered with "later", and a connection that has used up its budget is
    /// served in the next turn.
    fn serve_unless_waiting(&mut self, id: ConnId) {
        let is_over =
            |service: &mut Service<H>| service.connections.get_mut(id).is_some_and(|conn| conn.waiting.is_over());
        if is_over(self) {
            return self.serve(id);
        }
        self.hear_reports(id);
        if is_over(self) {
            self.serve(id);
        }
    }

    /// Asks for acknowledgements while the application holds earlier input: a client that sends
    /// something has acknowledged what it has read.
    fn hear_reports(&mut self, id: ConnId) {
        let Service { handler, turn, connections, .. } = self;
        let Some(conn) = connections.get_mut(id).filter(|conn| conn.waiting.is_for_application()) else { return };
        if tell_reports(handler, turn, conn) {
            self.show_again(id);
        }
    }

    /// Shows the application again the item that it answered with "later", if there is one, because
    /// it was called for this connection.
    fn show_again(&mut self, id: ConnId) {
        let held = self.connections.get_mut(id).filter(|conn| conn.waiting.is_for_application());
        let Some(conn) = held else { return };
        if self.turn.is_spent() || !self.turn.budget.has_left(conn.link.share()) {
            conn.queue(&mut self.ready, self.turn.now());
            conn.waiting.show_again();
        } else {
            self.serve(id);
        }
    }

    /// Does the pending work for a connection, within its budget.
    fn serve(&mut self, id: ConnId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some((conn, mut closing)) = self.closing(id) else {
            self.scratch = scratch;
            return;
        };
        let was_held = conn.waiting.is_for_application();
        closing.turn.budget.begin_serving(conn.link.share());
        match conn.phase {
            ConnectionPhase::Open(_) => read(&mut closing, conn, &mut scratch),
            ConnectionPhase::Draining(_) => closing.drain_on(conn),
            ConnectionPhase::Lingering => closing.discard(conn, &mut scratch),
            ConnectionPhase::Dead => {}
        }
        closing.turn.budget.end_serving();
        let is_held = conn.waiting.is_for_application();
        self.scratch = scratch;
        if is_held && !was_held {
            self.hear_reports(id);
        }
        self.turn.relieve();
    }

    /// A connection, with the parts needed to end it.
    fn closing(&mut self, id: ConnId) -> Option<(&mut Conn<H>, Closing<'_, H>)> {
        let Service { handler, turn, settings, timers, ready, dead, stats, connections, .. } = self;
        let conn = connections.get_mut(id)?;
        Some((conn, Closing { handler, turn, settings, timers, ready, dead, stats }))
    }

    /// Ends a connection that can no longer be written to: shows its earlier input, and its end.
    pub(crate) fn hang_up(&mut self, id: ConnId) {
        let Some((conn, mut closing)) = self.closing(id) else { return };
        match conn.phase {
            ConnectionPhase::Open(_) if !conn.hung_up => {
                conn.end_input(CloseReason::Broken);
                tell_hang_up(closing.handler, closing.turn, conn);
                self.serve(id);
            }
            ConnectionPhase::Draining(_) => closing.kill(conn),
            // A lingering connection is read up to its end, and then ends by itself.
            ConnectionPhase::Open(_) | ConnectionPhase::Lingering | ConnectionPhase::Dead => {}
        }
    }

    /// Ends a connection because the server shuts down: shows the input that has arrived until now,
    /// and then the end. Returns whether the connection was open.
    pub(crate) fn stop(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.connections.get_mut(id) else { return false };
        let ConnectionPhase::Open(_) = conn.phase else { return false };
        conn.end_input(CloseReason::Stopped);
        self.serve_unless_waiting(id);
        true
    }

    /// Breaks off all connections.
    pub(crate) fn stop_all(&mut self) {
        for id in self.connections.ids() {
            if let Some((conn, mut closing)) = self.closing(id) {
                closing.close(conn, CloseReason::Stopped);
                closing.kill(conn);
            }
        }
    }

    /// Handles the deadlines that are due, within the budget.
    pub(crate) fn look_at_deadlines(&mut self) {
        self.turn.budget.next_step();
        self.turn.run_errands();
        self.turn.budget.next_step();
        while !self.turn.is_spent()
            && let Some((id, deadline)) = self.timers.pop(self.turn.now())
        {
            self.turn.budget.spend(TIMER_WORK);
            match deadline {
                Deadline::Idle => self.on_idle(id),
                Deadline::Frame => self.on_frame_late(id),
                Deadline::Close | Deadline::Write | Deadline::Reminder => self.on_deadline(id, deadline),
            }
        }
    }

    /// Handles an idle deadline: nothing had arrived for some time at the last check.
    fn on_idle(&mut self, id: ConnId) {
        let now = self.turn.now();
        let Some(conn) = self.connections.get_mut(id) else { return };
        let due = conn.heard_by(now) + self.settings.idle_timeout;
        let stays = matches!(&conn.phase, ConnectionPhase::Open(app) if self.handler.watches_silence(app));
        match due > now {
            true => self.timers.set(due, id, Deadline::Idle),
            false if stays => self.timers.set(now + self.settings.idle_timeout, id, Deadline::Idle),
            false => {
                conn.end_input(CloseReason::Idle);
                self.serve(id);
            }
        }
    }

    /// Handles a frame deadline: a frame was incomplete some time ago.
    fn on_frame_late(&mut self, id: ConnId) {
        let now = self.turn.now();
        let Some(conn) = self.connections.get_mut(id) else { return };
        conn.frame_timer_set = false;
        let Some(begun) = conn.frame_begun() else { return };
        let mut due = begun + self.settings.frame_timeout;
        if due <= now && conn.waiting.is_for_turn() {
            // The rest may have been read without having been processed yet.
            due = now + LOOK_AGAIN;
        }
        if due > now {
            conn.frame_timer_set = true;
            self.timers.set(due, id, Deadline::Frame);
        } else {
            conn.give_up_frame();
            self.serve(id);
        }
    }

    fn on_deadline(&mut self, id: ConnId, deadline: Deadline) {
        let now = self.turn.now();
        let Some((conn, mut closing)) = self.closing(id) else { return };
        let heard = conn.heard_by(now);
        match (deadline, &mut conn.phase) {
            (Deadline::Close, _) => closing.kill(conn),
            (Deadline::Write, phase) => {
                conn.write_timer_set = false;
                // The output may have progressed meanwhile.
                if let ConnectionPhase::Draining(_) = phase {
                    closing.drain_on(conn);
                }
            }
            (_, ConnectionPhase::Open(app)) => closing.handler.on_reminder(closing.turn, &conn.link, app, heard),
            (_, ConnectionPhase::Draining(_) | ConnectionPhase::Lingering | ConnectionPhase::Dead) => {}
        }
    }

    /// Removes dead connections, returns the frames that they did not take, and sets the reminders
    /// that the application asked for.
    pub(crate) fn bury(&mut self, registry: &Registry) {
        if self.dead.is_empty() && self.turn.turned_away.is_empty() && self.turn.reminders.is_empty() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for id in std::mem::take(&mut self.turn.turned_away) {
            if let Some((conn, mut closing)) = self.closing(id) {
                closing.turn_away(conn, &mut scratch);
            }
        }
        self.scratch = scratch;
        for id in std::mem::take(&mut self.dead) {
            let Some(conn) = self.connections.remove(id) else { continue };
            if let Err(error) = conn.link.socket.deregister(registry) {
                log::debug!("cannot deregister a connection: {error}");
            }
            for (tag, frame) in conn.link.close() {
                self.handler.on_unsent(&mut self.turn, tag, frame);
            }
        }
        let Service { timers, connections, turn, .. } = self;
        for (at, id) in turn.reminders.drain(..) {
            timers.set(at, id, Deadline::Reminder);
        }
        timers.sweep(connections.len(), |id| connections.get_mut(id).is_some());
    }
}

/// Shows the application the received input, and notes the reason why the connection then waits.
fn read<H: Handler>(closing: &mut Closing<'_, H>, conn: &mut Conn<H>, scratch: &mut [u8]) {
    let now = closing.turn.now();
    let shown = read_and_show(closing.handler, closing.turn, conn, scratch);
    match shown {
        ShowOutcome::All | ShowOutcome::Over(_) => conn.waiting.end(),
        ShowOutcome::Held => conn.waiting.await_application(),
        ShowOutcome::Congested => conn.waiting.await_client(),
        ShowOutcome::Costly | ShowOutcome::More => conn.queue(closing.ready, now),
    }
    match shown {
        // A held item was not shown because there was nothing new, so it must still be shown.
        ShowOutcome::Costly if conn.waiting.is_for_application() => conn.waiting.show_again(),
        ShowOutcome::Costly | ShowOutcome::More => conn.waiting.end(),
        ShowOutcome::All | ShowOutcome::Over(_) | ShowOutcome::Held | ShowOutcome::Congested => {}
    }
    let kept = conn.kept_bytes();
    if let ConnectionPhase::Open(app) = &mut conn.phase
        && !closing.handler.on_kept(app, kept)
    {
        conn.refuse_input();
        conn.queue(closing.ready, now);
    }
    if conn.watch_frame(now) {
        closing.timers.set(now + closing.settings.frame_timeout, conn.link.id, Deadline::Frame);
    }
    if let ShowOutcome::Over(reason) = shown {
        closing.close(conn, reason);
    }
}

/// The cost of checking a deadline.
const TIMER_WORK: usize = 256;
/// How soon to check a frame's deadline again when bytes that may complete it are already queued.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
