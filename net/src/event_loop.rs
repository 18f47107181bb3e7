//! [`EventLoop`]: poll, read, inbox, timers, flush, over and over.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use crate::door::Door;
use crate::handler::{Handler, Settings};
use crate::loop_handle::{Letter, LoopHandle};
use crate::readiness::Readiness;
use crate::service::Service;
use crate::stats::LoopWatch;
use crate::stopping::Stop;
use crate::timer::earlier;
use crate::tokens::{TokenOwner, WAKE};

pub(crate) struct EventLoop<H: Handler> {
    poll: Poll,
    service: Service<H>,
    door: Door<H::Arrival>,
    letters: VecDeque<Letter<H::Message>>,
    stop: Stop,
}

impl<H: Handler> EventLoop<H> {
    pub(crate) fn new(handler: H, settings: Settings) -> io::Result<EventLoop<H>> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let handle = LoopHandle::new(waker, settings.output_bytes_max, settings.pace, handler.tls());
        let service = Service::new(handler, settings, handle);
        Ok(EventLoop { poll, service, door: Door::new(), letters: VecDeque::new(), stop: Stop::No })
    }

    pub(crate) fn handle(&self) -> LoopHandle<H::Message> {
        self.service.handle.clone()
    }

    pub(crate) fn watch(&self) -> LoopWatch<H::Message> {
        LoopWatch::new(self.handle(), self.service.stats.clone())
    }

    /// Runs turns until the loop was told to drain and has done so.
    ///
    /// # Panics
    ///
    /// If the kernel refuses to poll: half a server is worse than none.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.service.handler.on_start();
        self.service.turn.budget.watch_clock(Instant::now);
        self.begin(Instant::now());
        while !self.is_over() {
            self.poll(&mut events, Instant::now());
            self.turn(Instant::now(), events.iter().map(Readiness::from));
        }
        self.end();
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.service.turn.begin(now);
    }

    /// Only [`EventLoop::end`] is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.has_begun() && self.service.len() == 0
    }

    /// Runs one turn, which begins at `now`, with the poller's events. Each step has a budget; work
    /// beyond it waits for the next turn, which follows without sleep.
    pub(crate) fn turn(&mut self, now: Instant, events: impl Iterator<Item = Readiness>) {
        self.service.turn.begin(now);
        self.hear(events);
        self.service.serve_those_who_wait();
        self.open_letters();
        self.door.serve(&mut self.service, self.poll.registry());
        self.service.serve_hellos();
        self.look_at_timers();
        self.service.bury(self.poll.registry());
        self.service.turn.flush();
    }

    pub(crate) fn end(mut self) {
        // The last closings may have made the application post messages, which go to `on_stray`.
        loop {
            self.open_letters();
            if self.letters.is_empty() {
                break;
            }
        }
        self.service.turn.flush();
        self.service.stats.on_end();
    }

    /// Ends the turn at `now`: sleeps until there is something to do.
    fn poll(&mut self, events: &mut Events, now: Instant) {
        let took = now.saturating_duration_since(self.service.turn.now());
        self.service.stats.on_turn(took, self.service.len() + self.door.len());
        match self.poll.poll(events, self.sleep(now)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            result => result.expect("epoll_wait fails only for a programming error"),
        }
    }

    /// How long the loop may sleep if no socket and no letter wakes it; `None` means without limit.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        match self.service.is_idle() && self.door.is_clear() && self.letters.is_empty() {
            true => self.next_deadline().map(|due| due.saturating_duration_since(now)),
            false => Some(Duration::ZERO),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        earlier(earlier(self.service.next_deadline(), self.door.next_deadline()), self.stop.next_deadline())
    }

    /// Handles the events of sockets.
    fn hear(&mut self, events: impl Iterator<Item = Readiness>) {
        for event in events {
            match TokenOwner::by(event.token) {
                TokenOwner::Waker => {}
                TokenOwner::Arrival(id) => self.door.hear(id, event.read_closed || event.error),
                TokenOwner::Connection(id) => self.service.hear(id, event),
            }
        }
    }

    fn open_letters(&mut self) {
        if self.service.handle.is_notified() {
            self.take_letters();
        }
        if self.letters.is_empty() {
            return;
        }
        self.service.turn.budget.next_step();
        // A flood of newcomers waits in rounds of its own, so that other letters pass.
        let is_flood = self.letters.len() > LETTERS_FEW || !self.door.is_clear();
        while let Some(letter) = self.letters.pop_front() {
            self.open_letter(letter, is_flood);
            self.service.turn.relieve();
            self.service.turn.budget.spend(LETTER_WORK);
            if self.service.turn.is_spent() {
                return;
            }
        }
    }

    fn open_letter(&mut self, letter: Letter<H::Message>, is_flood: bool) {
        match letter {
            Letter::Accepted(socket, peer, preface) if is_flood => self.door.queue(socket, peer, preface),
            Letter::Accepted(socket, peer, preface) => {
                self.door.arrive(&mut self.service, self.poll.registry(), socket, peer, preface);
            }
            Letter::Message(id, message) => self.service.deliver(id, message),
            Letter::Sent(id, label) => self.service.report(id, label),
            Letter::HangUp(id) => self.service.hang_up(id),
            Letter::Drain { pause, timeout } => self.drain(pause, timeout),
            Letter::Beat => self.service.stats.on_beat(),
        }
    }

    /// Takes the letters from the inbox and puts them behind those left from before. A requested
    /// heartbeat does not wait for those.
    fn take_letters(&mut self) {
        if self.letters.is_empty() {
            let mut letters = Vec::from(std::mem::take(&mut self.letters));
            self.service.handle.take(&mut letters);
            self.letters = letters.into();
            return;
        }
        let mut letters = Vec::new();
        self.service.handle.take(&mut letters);
        for letter in letters {
            match letter {
                Letter::Beat => self.service.stats.on_beat(),
                letter => self.letters.push_back(letter),
            }
        }
    }

    fn look_at_timers(&mut self) {
        let now = self.service.turn.now();
        if self.next_deadline().is_none_or(|due| due > now) {
            return;
        }
        self.service.look_at_deadlines();
        self.door.serve_overdue(&mut self.service, self.poll.registry());
        self.tell_to_stop();
        if self.stop.is_due(now) {
            self.service.stop_all();
        }
    }

    /// Opens no more connections, and begins to close the existing ones.
    fn drain(&mut self, pause: Duration, timeout: Duration) {
        self.door.shut(&mut self.service, self.poll.registry());
        self.stop = Stop::begin(self.service.ids(), self.service.turn.now(), pause, timeout);
        self.tell_to_stop();
    }

    /// Shows connections, each in its turn, the input that has arrived until now, and then their
    /// end.
    fn tell_to_stop(&mut self) {
        while let Some(id) = self.stop.next(self.service.turn.now()) {
            if self.service.stop(id) {
                self.stop.pause();
            }
        }
    }
}

/// The most events that one turn takes from the kernel.
const EVENTS_PER_TURN: usize = 1024;
/// A number of letters that costs hardly anything.
const LETTERS_FEW: usize = 64;
/// The cost of opening one letter, besides its effects, in bytes of a frame like all work of a
/// turn.
const LETTER_WORK: usize = 256;
