//! [`EventLoop`]: poll, read, inbox, timers, flush, over and over.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec;

use mio::{Events, Interest, Poll, Token, Waker};

use crate::arrivals::{Arrival, ArrivalId, Arrivals, Preface, Verdict};
use crate::connection::{Connection, Input, News, Phase, Read1};
use crate::event::Event;
use crate::handler::{CloseReason, Handler, Settings};
use crate::link::Link;
use crate::loop_handle::{Letter, LoopHandle};
use crate::rounds::Rounds;
use crate::showing::{Shown, show, show_received, tell_hang_up, tell_reports};
use crate::slots::{ConnId, Slots};
use crate::socket::Socket;
use crate::stats::{LoopStats, LoopWatch};
use crate::timer::{Deadline, Timers};
use crate::turn::Turn;

pub(crate) struct EventLoop<H: Handler> {
    handler: H,
    settings: Settings,
    poll: Poll,
    handle: LoopHandle<H::Message>,
    arrivals: Arrivals<H::Arrival>,
    connections: Slots<Connection<H::Conn, H::Message>>,
    timers: Timers,
    turn: Turn<H::Message>,
    /// Connections with something to do before the loop sleeps.
    ready: Rounds<ConnId>,
    /// The same for those that are not open yet.
    newcomers: Rounds<Newcomer>,
    dead: Vec<ConnId>,
    letters: VecDeque<Letter<H::Message>>,
    scratch: Vec<u8>,
    stats: Arc<LoopStats>,
    stop: Stop,
}

/// What may become a connection.
enum Newcomer {
    /// It was accepted.
    Accepted(Socket, SocketAddr, Preface),
    /// It has sent something; if so, no more is waited for.
    Spoke(ArrivalId, bool),
}

/// Whether the loop is to stop.
#[derive(Debug)]
enum Stop {
    No,
    /// These connections are told one after the other, the next one then.
    Telling {
        left: vec::IntoIter<ConnId>,
        next: Instant,
        pause: Duration,
        timeout: Duration,
    },
    /// All are told: everything ends by then.
    By(Instant),
}

impl<H: Handler> EventLoop<H> {
    pub(crate) fn new(handler: H, settings: Settings) -> io::Result<EventLoop<H>> {
        let poll = Poll::new()?;
        let handle = LoopHandle::new(Waker::new(poll.registry(), WAKE)?, settings.output_bytes_max, settings.pace);
        Ok(EventLoop {
            handler,
            settings,
            poll,
            handle,
            arrivals: Arrivals::new(),
            connections: Slots::new(),
            timers: Timers::default(),
            turn: Turn::new(),
            ready: Rounds::new(),
            newcomers: Rounds::new(),
            dead: Vec::new(),
            letters: VecDeque::new(),
            scratch: vec![0; READ_BYTES],
            stats: Arc::new(LoopStats::new()),
            stop: Stop::No,
        })
    }

    pub(crate) fn handle(&self) -> LoopHandle<H::Message> {
        self.handle.clone()
    }

    pub(crate) fn watch(&self) -> LoopWatch<H::Message> {
        LoopWatch::new(self.handle.clone(), self.stats.clone())
    }

    /// Turns until told to drain and done with it.
    ///
    /// # Panics
    /// When the kernel refuses to poll: half a server is worse than none.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.turn.budget.watch_clock(Instant::now);
        self.begin(Instant::now());
        while !self.is_over() {
            self.poll(&mut events, Instant::now());
            self.turn(Instant::now(), events.iter().map(Event::from));
        }
        self.end();
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.turn.begin(now);
    }

    /// All that is left is to [`EventLoop::end`] it.
    pub(crate) fn is_over(&self) -> bool {
        match self.stop {
            Stop::No => false,
            Stop::Telling { .. } | Stop::By(_) => self.connections.len() == 0,
        }
    }

    /// One turn, which begins now, with what the poller has told. Each step has a budget, and what it leaves waits for the next
    /// turn, which follows without sleep.
    pub(crate) fn turn(&mut self, now: Instant, events: impl Iterator<Item = Event>) {
        self.turn.begin(now);
        self.hear(events);
        self.serve_those_who_wait();
        self.open_letters();
        self.let_in();
        self.look_at_timers();
        self.bury();
        self.turn.flush();
    }

    pub(crate) fn end(mut self) {
        // The last closings may have made the application post something; it goes to on_stray.
        loop {
            self.open_letters();
            if self.letters.is_empty() {
                break;
            }
        }
        self.turn.flush();
        self.stats.on_end();
    }

    /// The turn is over by `now`: sleeps until there is something to do.
    fn poll(&mut self, events: &mut Events, now: Instant) {
        self.stats
            .on_turn(now.saturating_duration_since(self.turn.now()), self.connections.len() + self.arrivals.len());
        match self.poll.poll(events, self.sleep(now)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            result => result.expect("epoll_wait fails only for a programming error"),
        }
    }

    /// How long the loop may sleep if no socket and no letter wakes it; `None` is for ever.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        match self.ready.is_empty() && self.newcomers.is_empty() && self.letters.is_empty() {
            true => self.next_deadline().map(|due| due.saturating_duration_since(now)),
            false => Some(Duration::ZERO),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stop = match self.stop {
            Stop::No => None,
            Stop::Telling { next: at, .. } | Stop::By(at) => Some(at),
        };
        [self.timers.next(), self.arrivals.next_deadline(), self.turn.next_errand(), stop].into_iter().flatten().min()
    }

    /// Notes what sockets have told. While nobody waits and there is time, their connections are served at once.
    fn hear(&mut self, events: impl Iterator<Item = Event>) {
        for event in events.filter(|event| event.token != WAKE.0) {
            if let Some(id) = arrival_id(event.token) {
                let newcomer = Newcomer::Spoke(id, event.read_closed || event.error);
                if let Some(arrival) = self.arrivals.get_mut(id) {
                    self.newcomers.push(network_of(arrival.peer.ip()), newcomer, false);
                }
                continue;
            }
            let id = conn_id(event.token);
            let Some(conn) = self.connections.get_mut(id) else { continue };
            let to_end = event.read_closed || event.error || event.urgent;
            if (event.readable || to_end)
                && let Input::Dry | Input::Flowing { to_end: false } = conn.input
            {
                conn.input = Input::Flowing { to_end };
            }
            let news = News { writable: event.writable, gone: event.error || event.write_closed };
            if self.ready.is_empty() && !self.turn.is_spent() && self.turn.budget.has_left(conn.link.share()) {
                self.attend_to(id, news);
            } else {
                conn.news = News { writable: conn.news.writable | news.writable, gone: conn.news.gone | news.gone };
                queue(&mut self.ready, conn, self.turn.now());
            }
        }
    }

    /// Serves the connections whose turn it is.
    fn serve_those_who_wait(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        while !self.turn.is_spent()
            && let Some(id) = self.ready.next(|share| self.turn.budget.has_left(share))
        {
            let Some(conn) = self.connections.get_mut(id) else { continue };
            conn.queued = false;
            let news = std::mem::take(&mut conn.news);
            if std::mem::take(&mut conn.show_again) {
                self.serve_if_held(id);
            }
            self.attend_to(id, news);
        }
    }

    /// Does what follows from what a socket has told.
    fn attend_to(&mut self, id: ConnId, news: News) {
        if news.gone {
            self.hang_up(id);
        } else if news.writable
            && let Some(conn) = self.connections.get_mut(id)
        {
            conn.link.on_writable(&mut self.turn);
            conn.congested &= conn.link.is_congested();
        }
        self.serve_unless_waiting(id);
    }

    fn open_letters(&mut self) {
        if self.handle.is_notified() {
            self.take_letters();
        }
        if self.letters.is_empty() {
            return;
        }
        self.turn.budget.next_step();
        // Many who come at once wait in rounds of their own, and let other letters pass.
        let is_flood = self.letters.len() > LETTERS_FEW || !self.newcomers.is_empty();
        while let Some(letter) = self.letters.pop_front() {
            match letter {
                Letter::Accepted(socket, peer, preface) if !is_flood => self.arrive(socket, peer, preface),
                Letter::Accepted(socket, peer, preface) => {
                    let newcomer = Newcomer::Accepted(socket, peer, preface);
                    self.newcomers.push(network_of(peer.ip()), newcomer, false);
                }
                Letter::Message(id, message) => self.deliver(id, message),
                Letter::Sent(id, label) => self.report(id, label),
                Letter::HangUp(id) => self.hang_up(id),
                Letter::Drain { pause, timeout } => self.drain(pause, timeout),
                Letter::Beat => self.stats.on_beat(),
            }
            self.turn.relieve();
            self.turn.budget.spend(LETTER_WORK);
            if self.turn.is_spent() {
                return;
            }
        }
    }

    /// Takes what is in the inbox, behind what was left of it. A sign of life that is asked for does not wait for that.
    fn take_letters(&mut self) {
        if self.letters.is_empty() {
            let mut letters = Vec::from(std::mem::take(&mut self.letters));
            self.handle.take(&mut letters);
            self.letters = letters.into();
            return;
        }
        let mut letters = Vec::new();
        self.handle.take(&mut letters);
        for letter in letters {
            match letter {
                Letter::Beat => self.stats.on_beat(),
                letter => self.letters.push_back(letter),
            }
        }
    }

    fn report(&mut self, id: ConnId, label: u32) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        let Phase::Open(app) = &mut conn.phase else { return };
        self.handler.on_sent(&mut self.turn, &conn.link, app, label);
        self.serve_if_held(id);
    }

    /// Opens the connections whose turn it is, or looks what has come before that.
    fn let_in(&mut self) {
        if self.newcomers.is_empty() {
            return;
        }
        self.turn.budget.next_step();
        while !self.turn.is_spent()
            && let Some(newcomer) = self.newcomers.next(|_| true)
        {
            match newcomer {
                Newcomer::Accepted(socket, peer, preface) => self.arrive(socket, peer, preface),
                Newcomer::Spoke(id, over) => self.look_at_arrival(id, over),
            }
            self.turn.budget.spend(NEWCOMER_WORK);
        }
    }

    fn look_at_timers(&mut self) {
        let now = self.turn.now();
        if self.next_deadline().is_none_or(|due| due > now) {
            return;
        }
        self.turn.budget.next_step();
        self.turn.run_errands();
        self.turn.budget.next_step();
        while !self.turn.is_spent()
            && let Some((id, deadline)) = self.timers.pop(now)
        {
            self.turn.budget.spend(TIMER_WORK);
            let Some(conn) = self.connections.get_mut(id) else { continue };
            match deadline {
                Deadline::Idle => {
                    // A held client may well have sent something since: nobody has looked.
                    let heard = if conn.held || conn.congested { now } else { conn.heard };
                    match heard + self.settings.idle_timeout {
                        due if due > now => self.timers.set(due, id, deadline),
                        _ => {
                            conn.end_input(CloseReason::Idle);
                            self.serve(id);
                        }
                    }
                }
                Deadline::Frame => {
                    conn.frame_timer_set = false;
                    match conn.frame_begun().map(|begun| begun + self.settings.frame_timeout) {
                        Some(due) if due > now => {
                            conn.frame_timer_set = true;
                            self.timers.set(due, id, deadline);
                        }
                        // The rest may have been read and not looked at yet.
                        Some(_) if conn.queued => {
                            conn.frame_timer_set = true;
                            self.timers.set(now + LOOK_AGAIN, id, deadline);
                        }
                        Some(_) => {
                            conn.give_up_frame();
                            self.serve(id);
                        }
                        None => {}
                    }
                }
                Deadline::Close => self.kill(id),
                Deadline::Write => {
                    conn.write_timer_set = false;
                    // It may have got further meanwhile.
                    if let Phase::Draining(_) = conn.phase {
                        self.drain_on(id);
                    }
                }
                Deadline::Reminder => {
                    if let Phase::Open(app) = &mut conn.phase {
                        self.handler.on_reminder(&mut self.turn, &conn.link, app);
                    }
                }
            }
        }
        while !self.turn.is_spent()
            && let Some(id) = self.arrivals.overdue(now)
        {
            self.look_at_arrival(id, true);
            self.turn.budget.spend(NEWCOMER_WORK);
        }
        self.tell_to_stop();
        if let Stop::By(by) = self.stop
            && by <= now
        {
            for id in self.connections.ids() {
                self.close(id, CloseReason::Stopped);
                self.kill(id);
            }
        }
    }

    /// Removes the dead, gives back what they did not take, and sets the deadlines that the application asked for.
    fn bury(&mut self) {
        if self.dead.is_empty() && self.turn.turned_away.is_empty() && self.turn.reminders.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.turn.turned_away) {
            self.turn_away(id);
        }
        for id in std::mem::take(&mut self.dead) {
            let Some(conn) = self.connections.remove(id) else { continue };
            if let Err(error) = conn.link.socket.deregister(self.poll.registry()) {
                log::debug!("cannot deregister a connection: {error}");
            }
            for (label, frame) in conn.link.close() {
                self.handler.on_unsent(&mut self.turn, label, frame);
            }
        }
        let EventLoop { timers, connections, turn, .. } = self;
        for (at, id) in turn.reminders.drain(..) {
            timers.set(at, id, Deadline::Reminder);
        }
        timers.sweep(connections.len(), |id| connections.get_mut(id).is_some());
    }

    /// Opens a connection, or has it wait until its first bytes have told who is behind it.
    fn arrive(&mut self, socket: Socket, peer: SocketAddr, preface: Preface) {
        if !matches!(self.stop, Stop::No) {
            return;
        }
        let app = match self.handler.on_arrival(&mut self.turn, peer, preface) {
            Ok(app) => app,
            Err(text) => return turn_away(&socket, text, &mut self.scratch),
        };
        if preface == Preface::None {
            self.open(socket, peer, None, app);
            return;
        }
        let due = self.turn.now() + self.settings.frame_timeout;
        let EventLoop { poll, arrivals, .. } = self;
        let arrived = arrivals.insert_with(due, |id| {
            socket.register(poll.registry(), arrival_token(id), Interest::READABLE)?;
            Ok(Arrival { socket, peer, preface, app })
        });
        if let Err(error) = arrived {
            log::error!("cannot watch the connection from {peer}: {error}");
        }
    }

    /// Looks whether enough has arrived to know what to do with it; if `over`, that is decided now.
    fn look_at_arrival(&mut self, id: ArrivalId, over: bool) {
        let Some(arrival) = self.arrivals.get_mut(id) else { return };
        let verdict = arrival.look(&mut self.scratch, over);
        if verdict == Verdict::Wait {
            return;
        }
        let Some(Arrival { socket, peer, preface, app }) = self.arrivals.remove(id) else { return };
        // Registered again, it is reported at once if more than the preface has arrived.
        if let Err(error) = socket.deregister(self.poll.registry()) {
            log::debug!("cannot deregister a connection: {error}");
        }
        match verdict {
            Verdict::Open(client) if preface == Preface::ProxyHeader => {
                match self.handler.on_introduced(&mut self.turn, app, client.unwrap_or(peer)) {
                    Ok(app) => self.open(socket, peer, client, app),
                    Err(text) => turn_away(&socket, text, &mut self.scratch),
                }
            }
            Verdict::Open(client) => self.open(socket, peer, client, app),
            Verdict::Refuse(reason) => self.arrivals.complain(peer, reason, self.turn.now()),
            Verdict::Wait | Verdict::Gone => {}
        }
    }

    /// Begins to serve a connection; `client` is the client's address if it is not the peer's.
    fn open(&mut self, socket: Socket, peer: SocketAddr, client: Option<SocketAddr>, arrival: H::Arrival) {
        let EventLoop { handler, settings, poll, handle, turn, connections, .. } = self;
        let now = turn.now();
        let opened = connections.insert_with(|id| {
            // Without being told of an urgent byte, the loop would take the short read that ends before it for the end of what
            // is there. Writable events come only after the socket was full (epoll reports edges), so asking for them always
            // costs nothing, while asking when they are needed would be a system call each time.
            let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
            socket.register(poll.registry(), token(id), interest)?;
            let link = Arc::new(Link::new(id, socket, client, handle.clone()));
            let app = handler.on_open(turn, &link, arrival);
            Ok::<_, io::Error>(Connection::new(link, app, settings.frame_bytes_max, now))
        });
        match opened {
            Ok(id) => {
                self.timers.set(now + self.settings.idle_timeout, id, Deadline::Idle);
                self.stats.on_open();
            }
            Err(error) => log::error!("cannot watch the connection from {peer}: {error}"),
        }
    }

    fn deliver(&mut self, id: ConnId, message: H::Message) {
        let conn = self.connections.get_mut(id);
        let Some(Connection { phase: Phase::Open(app), link, .. }) = conn else {
            self.handler.on_stray(&mut self.turn, message);
            return;
        };
        self.turn.budget.begin_serving(link.share());
        self.handler.on_message(&mut self.turn, link, app, message);
        self.turn.budget.end_serving();
        self.serve_if_held(id);
    }

    /// What the application holds is not shown again because the socket has something to tell, and a connection that
    /// has used up its budget is served in the next turn.
    fn serve_unless_waiting(&mut self, id: ConnId) {
        self.hear_reports(id);
        if self.connections.get_mut(id).is_some_and(|conn| !conn.held && !conn.queued && !conn.congested) {
            self.serve(id);
        }
    }

    /// A client that sends something while the application holds what came before has acknowledged what it has read.
    fn hear_reports(&mut self, id: ConnId) {
        let EventLoop { handler, turn, connections, .. } = self;
        let Some(conn) = connections.get_mut(id).filter(|conn| conn.held) else { return };
        if tell_reports(handler, turn, conn) {
            self.serve_if_held(id);
        }
    }

    fn serve_if_held(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get_mut(id).filter(|conn| conn.held) else { return };
        if self.turn.is_spent() || !self.turn.budget.has_left(conn.link.share()) {
            conn.show_again = true;
            queue(&mut self.ready, conn, self.turn.now());
        } else {
            self.serve(id);
        }
    }

    /// Does what there is to do for a connection, within its budget.
    fn serve(&mut self, id: ConnId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some(conn) = self.connections.get_mut(id) else {
            self.scratch = scratch;
            return;
        };
        let was_held = conn.held;
        self.turn.budget.begin_serving(conn.link.share());
        match conn.phase {
            Phase::Open(_) => self.read_and_show(id, &mut scratch),
            Phase::Draining(_) => self.drain_on(id),
            Phase::Lingering => self.discard(id, &mut scratch),
            Phase::Dead => {}
        }
        self.scratch = scratch;
        self.turn.budget.end_serving();
        if !was_held {
            self.hear_reports(id);
        }
        self.turn.relieve();
    }

    fn read_and_show(&mut self, id: ConnId, scratch: &mut [u8]) {
        let EventLoop { handler, turn, connections, settings, timers, ready, .. } = self;
        let Some(conn) = connections.get_mut(id) else { return };
        let now = turn.now();
        let mut budget = READ_BYTES;
        let mut shown = match conn.held || conn.owes() {
            true => show_received(handler, turn, conn),
            false => Shown::All,
        };
        while matches!(shown, Shown::All) && conn.input.flows() {
            if budget == 0 {
                queue(ready, conn, now);
                break;
            }
            let read = conn.read(scratch, now);
            if conn.input == Input::Ended && conn.link.is_sealed() {
                tell_hang_up(handler, turn, conn);
            }
            // Bytes that are never shown, blanks or a frame without an end, cost the reading and the search.
            let (Read1::Fresh(count) | Read1::Appended(count)) = read;
            turn.budget.spend(count / DISCARDED_PER_WORK);
            let (count, outcome) = match read {
                Read1::Fresh(count) => {
                    let (consumed, outcome) = show(handler, turn, conn, &scratch[..count]);
                    if consumed < count {
                        conn.keep(&scratch[consumed..count]);
                    }
                    (count, outcome)
                }
                Read1::Appended(count) => (count, show_received(handler, turn, conn)),
            };
            budget = budget.saturating_sub(count);
            shown = outcome;
        }
        // What is held is not looked at for want of something new, so it is still to be shown.
        let is_held_on = conn.held && matches!(shown, Shown::Costly);
        conn.show_again |= is_held_on;
        conn.held = is_held_on || matches!(shown, Shown::Held);
        conn.congested = matches!(shown, Shown::Congested);
        if let Shown::Costly = shown {
            queue(ready, conn, now);
        }
        let kept = conn.kept_bytes();
        if let Phase::Open(app) = &mut conn.phase
            && !handler.on_kept(app, kept)
        {
            conn.refuse_input(settings.frame_bytes_max);
            queue(ready, conn, now);
        }
        if conn.watch_frame(now) {
            timers.set(now + settings.frame_timeout, id, Deadline::Frame);
        }
        if let Shown::Over(reason) = shown {
            self.close(id, reason);
        }
    }

    fn discard(&mut self, id: ConnId, scratch: &mut [u8]) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        let mut budget = READ_BYTES;
        while conn.input.flows() {
            let Read1::Fresh(count) = conn.read(scratch, self.turn.now()) else { unreachable!("nothing is kept") };
            self.turn.budget.spend(count / DISCARDED_PER_WORK);
            budget = budget.saturating_sub(count);
            if budget == 0 {
                queue(&mut self.ready, conn, self.turn.now());
                return;
            }
        }
        if conn.input == Input::Ended {
            self.kill(id);
        }
    }

    /// The connection can no longer be written to: shows what it sent before, and its end.
    fn hang_up(&mut self, id: ConnId) {
        let EventLoop { handler, turn, connections, .. } = self;
        let Some(conn) = connections.get_mut(id) else { return };
        match conn.phase {
            Phase::Open(_) if !conn.hung_up => {
                conn.end_input(CloseReason::Broken);
                tell_hang_up(handler, turn, conn);
                self.serve(id);
            }
            Phase::Draining(_) => self.kill(id),
            // What lingers is read up to its end and then ends by itself.
            Phase::Open(_) | Phase::Lingering | Phase::Dead => {}
        }
    }

    /// Shows nothing more of the connection; what was sent to it is still written.
    fn close(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        match std::mem::replace(&mut conn.phase, Phase::Dead) {
            Phase::Open(app) => {
                self.stats.on_close(reason);
                conn.phase = Phase::Draining(Some((app, reason)));
            }
            other => {
                conn.phase = other;
                return;
            }
        }
        conn.forget_kept();
        self.drain_on(id);
        if self.connections.get_mut(id).is_some_and(|conn| matches!(conn.phase, Phase::Draining(_))) {
            self.timers.set(self.turn.now() + self.settings.drain_timeout, id, Deadline::Close);
        }
    }

    /// Goes on with a connection that is draining, if it has got there.
    fn drain_on(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        if conn.link.is_sealed() {
            self.kill(id);
            return;
        }
        // What the replies here confirm goes first.
        self.turn.flush();
        // Another loop may have been writing when this one did, and then no event would tell.
        conn.link.flush(&mut self.turn);
        if !conn.link.is_flushed() {
            // What is held is written then; what the socket does not take, when an event tells that it has room.
            if let Some(at) = conn.link.held_until(self.turn.now())
                && !std::mem::replace(&mut conn.write_timer_set, true)
            {
                self.timers.set(at, id, Deadline::Write);
            }
            return;
        }
        if let Phase::Draining(app) = &mut conn.phase
            && let Some((app, reason)) = app.take()
        {
            self.handler.on_close(&mut self.turn, &conn.link, app, reason);
        }
        // Another loop may have sent something in the last moment.
        if conn.link.is_flushed() {
            self.finish(id);
        }
    }

    /// Everything is written: tell the peer, and wait for its end unless it has come.
    fn finish(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        conn.link.finish();
        if conn.input == Input::Ended && !matches!(conn.ends, CloseReason::Stopped | CloseReason::TurnedAway) {
            self.kill(id);
            return;
        }
        conn.phase = Phase::Lingering;
        // There may be bytes that were never asked for, even after the known end of the input.
        conn.input = Input::Flowing { to_end: false };
        queue(&mut self.ready, conn, self.turn.now());
        self.timers.set(self.turn.now() + LINGER, id, Deadline::Close);
    }

    /// Closes a connection whose descriptor is needed: what the socket takes at once is written, and nothing is waited for.
    fn turn_away(&mut self, id: ConnId) {
        self.close(id, CloseReason::TurnedAway);
        if let Some(conn) = self.connections.get_mut(id) {
            take_out(&conn.link.socket, &mut self.scratch);
            self.kill(id);
        }
    }

    /// The end, whatever is left to write.
    fn kill(&mut self, id: ConnId) {
        let Some(conn) = self.connections.get_mut(id) else { return };
        conn.link.seal();
        match std::mem::replace(&mut conn.phase, Phase::Dead) {
            Phase::Draining(Some((app, reason))) => self.handler.on_close(&mut self.turn, &conn.link, app, reason),
            Phase::Open(_) => unreachable!("it is closed first"),
            Phase::Draining(None) | Phase::Lingering | Phase::Dead => {}
        }
        self.dead.push(id);
    }

    /// Opens no more connections, and begins to close those that are there.
    fn drain(&mut self, pause: Duration, timeout: Duration) {
        // Those that were accepted before are told like all others.
        while let Some(newcomer) = self.newcomers.next(|_| true) {
            if let Newcomer::Accepted(socket, peer, preface) = newcomer {
                self.arrive(socket, peer, preface);
            }
        }
        // Nothing was read of those, so nothing was promised.
        self.arrivals.clear();
        let left = self.connections.ids().into_iter();
        self.stop = Stop::Telling { left, next: self.turn.now(), pause, timeout };
        self.tell_to_stop();
    }

    /// Shows the connections whose turn it is what has arrived up to now, and then their end.
    fn tell_to_stop(&mut self) {
        let now = self.turn.now();
        while let Stop::Telling { left, next, pause, timeout } = &mut self.stop {
            if *next > now {
                return;
            }
            let Some(id) = left.next() else {
                self.stop = Stop::By(now + *timeout);
                return;
            };
            let Some(conn) = self.connections.get_mut(id) else { continue };
            if let Phase::Open(_) = conn.phase {
                *next += *pause;
                conn.end_input(CloseReason::Stopped);
                self.serve_unless_waiting(id);
            }
        }
    }
}

/// Tells a client why it may not come in. What it has sent already is taken out, because closing a socket with unread bytes
/// makes the kernel throw away what the peer has not received (RFC 2525, 2.17); that it sends no more is not waited for.
fn turn_away(socket: &Socket, text: &[u8], scratch: &mut [u8]) {
    if let Err(error) = socket.write(text).and_then(|_| socket.shutdown(Shutdown::Write)) {
        log::debug!("cannot tell a client that it may not come in: {error}");
    }
    take_out(socket, scratch);
}

/// Reads what has arrived and drops it.
fn take_out(socket: &Socket, scratch: &mut [u8]) {
    let _ = socket.read(scratch);
}

/// Has the connection served when its turn has come, in the next turn of the loop at the earliest if this one has done enough.
fn queue<A, M>(ready: &mut Rounds<ConnId>, conn: &mut Connection<A, M>, now: Instant) {
    if !std::mem::replace(&mut conn.queued, true) {
        ready.push(conn.link.share(), conn.link.id, conn.is_quiet(now));
    }
}

/// The address that a newcomer counts as: an IPv4 address, or the first half of an IPv6 one, whose rest one host may choose.
fn network_of(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

fn token(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.index as usize)
}

/// Connections and arrivals are numbered apart; the highest bit of an index, which needs fewer, tells which it is.
fn arrival_token(ArrivalId(id): ArrivalId) -> Token {
    Token(token(id).0 | ARRIVAL)
}

fn arrival_id(token: usize) -> Option<ArrivalId> {
    (token & ARRIVAL != 0).then(|| ArrivalId(conn_id(token & !ARRIVAL)))
}

fn conn_id(token: usize) -> ConnId {
    ConnId { index: token as u32, generation: (token >> 32) as u32 }
}

/// No connection has it: there are never 2³² − 1 of them.
const WAKE: Token = Token(usize::MAX);
/// Marks the token of an arrival.
const ARRIVAL: usize = 1 << 31;
/// Events that one turn takes from the kernel.
const EVENTS_PER_TURN: usize = 1024;
/// What one read asks for: the usual longest frame.
const READ_BYTES: usize = 64 * 1024;
/// As many letters as hardly cost anything.
const LETTERS_FEW: usize = 64;
/// What opening one letter costs, beside what it causes: in bytes of a frame, as all work of a turn is counted.
const LETTER_WORK: usize = 256;
/// What it costs to open a connection, or to look at one that is not open: several system calls.
const NEWCOMER_WORK: usize = 4096;
/// What a look at a deadline costs.
const TIMER_WORK: usize = 256;
/// Bytes that are read and dropped cost less than those that are looked at.
const DISCARDED_PER_WORK: usize = 4;
/// How soon to check a frame's deadline again when bytes that may complete it are already queued.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a connection that has told its end waits for the peer's.
const LINGER: Duration = Duration::from_secs(1);
