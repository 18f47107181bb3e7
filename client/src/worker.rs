//! The thread of a client: a socket, a clock and a store around the [`Machine`], which makes all
//! decisions.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Interest, Poll, Token, Waker};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use crate::conv::Conv;
use crate::dial::{Dialled, dial};
use crate::error::{Error, Result};
use crate::event::{End, Event, Events, State};
use crate::machine::{Done, Machine};
use crate::server::Servers;
use crate::store::Store;
use crate::ticket::Tickets;
use crate::transport::Transport;

/// The state that a client and its thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Mutex<Store>,
    pub(crate) state: Mutex<State>,
    pub(crate) state_changed: Condvar,
    pub(crate) events: Events,
    pub(crate) tickets: Tickets,
}

/// A wish of the application.
pub(crate) enum Wish {
    OutboxHasGrown(Conv),
    Ask(Value, SyncSender<Result<Value>>),
    /// A page below a number. Its answer may have no recipient.
    Page(Conv, Option<u64>, u64, Option<SyncSender<Result<Value>>>),
    MarkRead(Conv, u64),
    Typing(Conv),
    Watch(Vec<i64>),
    Hurry,
    Close,
}

/// The queue from the application to the thread. It is bounded, so a busy thread makes the
/// application wait.
pub(crate) struct Wishes {
    queue: SyncSender<Wish>,
    waker: Arc<Waker>,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    machine: Machine,
    servers: Servers,
    wishes: Receiver<Wish>,
    poll: Poll,
    waker: Arc<Waker>,
    dialled: Option<Receiver<io::Result<Box<dyn Transport>>>>,
    transport: Option<Box<dyn Transport>>,
    /// Whether the socket may have more to read, and takes bytes.
    readable: bool,
    writable: bool,
    answers: HashMap<u64, SyncSender<Result<Value>>>,
    next_ask: u64,
    is_closing: bool,
}

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// Wishes that wait.
const WISHES_MAX: usize = 256;

/// The most bytes that one transaction stores. More bytes wait in the kernel, so a fast server
/// cannot fill the memory.
const TURN: usize = 256 * 1024;

impl Wishes {
    pub(crate) fn make(&self, wish: Wish) -> Result<()> {
        self.queue.send(wish).map_err(|_| Error::Closed)?;
        Ok(self.waker.wake()?)
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, machine: Machine, mut servers: Servers) -> Result<(Worker, Wishes)> {
        servers.begin_anywhere(chance());
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (queue, wishes) = mpsc::sync_channel(WISHES_MAX);
        let worker = Worker {
            shared,
            machine,
            servers,
            wishes,
            poll,
            waker: waker.clone(),
            dialled: None,
            transport: None,
            readable: false,
            writable: false,
            answers: HashMap::new(),
            next_ask: 0,
            is_closing: false,
        };
        Ok((worker, Wishes { queue, waker }))
    }

    /// Runs until the client is closed.
    pub(crate) fn run(mut self) {
        let mut events = mio::Events::with_capacity(8);
        let mut bytes = vec![0; TURN];
        while !self.is_closing {
            self.take_wishes();
            self.take_connection();
            self.read(&mut bytes);
            // One instant for the rest of the turn: everything due now is done now, and the wait
            // ends with the next deadline.
            let now = Instant::now();
            self.machine.tick(now, chance());
            self.settle();
            self.send(now);
            self.write();
            self.settle();
            self.connect(now);
            self.wait(now, &mut events);
        }
    }

    fn wait(&mut self, now: Instant, events: &mut mio::Events) {
        let timeout = match self.machine.deadline(now) {
            _ if self.readable || self.is_closing => Some(Duration::ZERO),
            Some(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            None => None,
        };
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // The descriptor of the poll itself is broken, so the client cannot go on.
            self.machine.close();
            self.settle();
            self.is_closing = true;
        }
        for event in events.iter().filter(|event| event.token() == SOCKET) {
            self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            self.writable |= event.is_writable();
        }
    }

    fn take_wishes(&mut self) {
        for _ in 0..WISHES_MAX {
            match self.wishes.try_recv() {
                Ok(wish) => self.take_wish(wish),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.take_wish(Wish::Close),
            }
        }
        // More bytes may be there, so the wait must not be long.
        let _ = self.waker.wake();
    }

    fn take_wish(&mut self, wish: Wish) {
        let now = Instant::now();
        match wish {
            Wish::OutboxHasGrown(conv) => self.machine.outbox_has_grown(conv),
            Wish::Ask(request, answer) => {
                let ask = self.await_answer(Some(answer));
                self.machine.ask(ask, request);
            }
            Wish::Page(conv, before, limit, answer) => {
                let ask = self.await_answer(answer);
                self.machine.ask_for_page(ask, conv, before, limit);
            }
            Wish::MarkRead(conv, seq) => self.machine.mark_read(conv, seq),
            Wish::Typing(conv) => self.machine.typing(conv, now),
            Wish::Watch(users) => self.machine.watch(users),
            Wish::Hurry => self.machine.hurry(now),
            Wish::Close => {
                self.machine.close();
                self.is_closing = true;
            }
        }
    }

    fn await_answer(&mut self, answer: Option<SyncSender<Result<Value>>>) -> u64 {
        self.next_ask += 1;
        if let Some(answer) = answer {
            self.answers.insert(self.next_ask, answer);
        }
        self.next_ask
    }

    // The connection

    /// Begins to connect to the next address, in a thread of its own because looking up a name
    /// blocks.
    fn connect(&mut self, now: Instant) {
        if !self.machine.wants_connection(now) {
            return;
        }
        let (dialled, connection) = mpsc::sync_channel(1);
        let (server, waker) = (self.servers.take_turn().clone(), self.waker.clone());
        let dialler = thread::Builder::new().name("dial".to_owned()).spawn(move || {
            // A client that was closed meanwhile needs no connection.
            let _ = dialled.send(dial(&server).and_then(Dialled::into_transport));
            let _ = waker.wake();
        });
        match dialler {
            Ok(_) => self.dialled = Some(connection),
            Err(error) => self.machine.lost(&error.to_string(), now, chance()),
        }
        self.settle();
    }

    fn take_connection(&mut self) {
        let Some(connection) = self.dialled.as_ref().and_then(|dialled| dialled.try_recv().ok()) else { return };
        self.dialled = None;
        let now = Instant::now();
        if !matches!(self.machine.state(), State::Connecting) {
            return;
        }
        let known = self.shared.store.lock().known();
        match (connection, known) {
            (Ok(mut transport), Ok(known)) => {
                let both = Interest::READABLE | Interest::WRITABLE;
                match self.poll.registry().register(transport.source(), SOCKET, both) {
                    Ok(()) => {
                        self.transport = Some(transport);
                        (self.readable, self.writable) = (true, true);
                        self.machine.connected(known, now, chance());
                    }
                    Err(error) => self.machine.lost(&error.to_string(), now, chance()),
                }
            }
            (Err(error), _) => self.machine.lost(&why(&error), now, chance()),
            (_, Err(error)) => self.fail(&error),
        }
        self.settle();
    }

    fn read(&mut self, bytes: &mut [u8]) {
        let Some(transport) = self.transport.as_mut().filter(|_| self.readable) else { return };
        let mut read = 0;
        let mut end = None;
        while read < bytes.len() && end.is_none() {
            match transport.read(&mut bytes[read..]) {
                Ok(0) => end = Some(None),
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) => end = Some(Some(error)),
            }
        }
        let now = Instant::now();
        if read > 0 {
            self.machine.received(&bytes[..read], now, chance());
            self.settle();
        }
        match end {
            None => return,
            Some(None) => self.machine.closed(now, chance()),
            Some(Some(error)) => self.machine.lost(&why(&error), now, chance()),
        }
        self.settle();
    }

    /// Gives the machine what it wants from the outbox.
    fn send(&mut self, now: Instant) {
        while let Some(wanted) = self.machine.wanted(now) {
            let rows = self.shared.store.lock().to_send(wanted);
            match rows {
                Ok(rows) => self.machine.send(wanted, rows),
                Err(error) => return self.fail(&error),
            }
        }
    }

    fn write(&mut self) {
        let Some(transport) = self.transport.as_mut().filter(|_| self.writable) else { return };
        let out = self.machine.out();
        let mut written = 0;
        let failed = loop {
            // The transport may still hold back bytes that it has taken, or have bytes of its own
            // to send.
            let is_all = written == out.len();
            let step = if is_all { transport.flush().map(|()| 0) } else { transport.write(&out[written..]) };
            match step {
                Ok(_) if is_all => break None,
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        out.drain(..written);
        match failed {
            // The last frames of a server that has closed must still be read.
            Some(_) => (self.readable, self.writable) = (true, false),
            // There is room for more of the outbox.
            None if written > 0 && self.writable => drop(self.waker.wake()),
            None => {}
        }
    }

    // The results

    /// Stores changes, then passes on events and answers.
    fn settle(&mut self) {
        let done = self.machine.done();
        let stored = self.shared.store.lock().apply(&done.changes);
        match stored {
            Ok(()) => self.tell(done),
            Err(error) => {
                // These results are dropped: the next connection begins with the stored state.
                self.fail(&error);
                let mut lost = self.machine.done();
                lost.answers.extend(done.answers.into_iter().map(|(ask, _)| (ask, Err(Error::Interrupted))));
                lost.close = true;
                self.tell(lost);
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        let error = error.to_string();
        self.machine.lost(&error, Instant::now(), chance());
        self.shared.events.push(Event::StoreFailed(error));
    }

    fn tell(&mut self, done: Done) {
        if done.close {
            self.transport = None;
            (self.readable, self.writable) = (false, false);
        }
        for (ask, answer) in done.answers {
            if let Some(waiting) = self.answers.remove(&ask) {
                // The application may have stopped waiting.
                let _ = waiting.try_send(answer);
            }
        }
        done.outcomes.into_iter().for_each(|outcome| self.shared.tickets.answer(outcome));
        let state = self.machine.state();
        let mut shown = self.shared.state.lock();
        if *shown != state {
            if matches!(state, State::Ended(End::WrongPassword | End::Revoked | End::LoggedOut)) {
                // If this fails, the next login is refused as well, and reports it.
                let _ = self.shared.store.lock().forget_token();
            }
            *shown = state;
            self.shared.state_changed.notify_all();
        }
        drop(shown);
        done.events.into_iter().for_each(|event| self.shared.events.push(event));
    }
}

impl std::fmt::Debug for Wishes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wishes").finish_non_exhaustive()
    }
}

/// A fault of the network in words that a user understands.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens at the server's address".to_owned(),
        io::ErrorKind::TimedOut => "the server does not answer".to_owned(),
        _ => error.to_string(),
    }
}

/// A random number from 0 to 1, to spread clients that reconnect.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without random bytes, clients reconnect at the same moment, which is tolerable.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}
