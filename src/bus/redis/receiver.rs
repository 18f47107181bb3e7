//! [`Receiver`]: the thread that keeps this node's subscriptions, takes what comes, and confirms it.
//!
//! It has two connections, because one that subscribes may not publish, and waits for neither:
//!
//! ```text
//!   ears   SUBSCRIBE ▶   ◀ envelopes for our users, confirmations, our own probe
//!   mouth  PUBLISH ▶     confirmations, probes; the set of our users
//! ```
//! A turn: poll, take what has come and hand it on, write to the clients, confirm, do the tasks, look at the clock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use net::Turn;
use rustc_hash::FxHashMap;

use super::dial::{DialError, Stream};
use super::envelope::{self, Incoming};
use super::wire::{Malformed, Reply, Wire};
use super::{Shared, Task, registry};
use crate::bus::{Node, Receipt};
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::session::Outcome;

/// See the [module](self).
pub(super) struct Receiver {
    shared: Arc<Shared>,
    node: Arc<dyn Node>,
    poll: Poll,
    turn: Turn<Posted>,
    /// Who waits for a subscription, and until when.
    waiting: FxHashMap<UserId, Vec<Arc<ClientLink>>>,
    patience: Option<Instant>,
    /// Since when Redis fails, after it was said.
    failing: Option<Instant>,
    was_up: bool,
}

/// Both connections, and what is expected of them.
struct Talk {
    ears: Wire<Stream>,
    mouth: Wire<Stream>,
    own_channel: String,
    /// Something may still be read, though no event will say so.
    ears_ready: bool,
    mouth_ready: bool,
    /// Answers to come until all users are subscribed to.
    initial: usize,
    probe: Probe,
    /// This node stops, and waits no longer than this for what is still under way.
    leaving: Option<Instant>,
    /// Nothing comes any more, and nothing more will be said.
    is_deaf: bool,
    is_mute: bool,
    /// Envelopes to confirm, by the node that sent them.
    receipts: FxHashMap<Box<str>, Vec<u64>>,
}

/// The message of this node to itself.
#[derive(Debug)]
struct Probe {
    number: u64,
    /// It is under way, and must be back by then; otherwise the next one is due then.
    under_way: bool,
    due: Instant,
}

/// Why the connections are given up.
#[derive(Debug)]
enum Ended {
    Dial(DialError),
    Io(io::Error),
    Malformed(Malformed),
    Refused(String),
    /// The probe did not come back.
    Deaf,
    /// Publishing failed, or this node is not registered any more.
    Doubt,
    Stopping,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, node: Arc<dyn Node>, poll: Poll) -> Receiver {
        let (turn, waiting) = (Turn::new(), FxHashMap::default());
        Receiver { shared, node, poll, turn, waiting, patience: None, failing: None, was_up: false }
    }

    pub(super) fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while !self.shared.is_stopping() {
            self.was_up = false;
            let Err(ended) = self.session();
            self.shared.up.store(false, Ordering::Release);
            self.let_go();
            if matches!(ended, Ended::Stopping) {
                break;
            }
            if self.was_up {
                pause = PAUSE_MIN;
            }
            self.complain(&ended);
            self.rest(pause.mul_f64(0.5 + jitter()));
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.let_go();
    }

    /// One life of the connections.
    fn session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let mut talk = self.open()?;
        let mut events = Events::with_capacity(8);
        loop {
            talk.ears.flush()?;
            talk.mouth.flush()?;
            let ready = talk.ears_ready || talk.mouth_ready;
            let timeout = if ready { Duration::ZERO } else { self.until_next(&talk) };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                talk.ears_ready |= event.token() == EARS;
                talk.mouth_ready |= event.token() == MOUTH;
            }
            if talk.ears_ready {
                talk.ears_ready = talk.ears.fill()?;
                self.take(&mut talk)?;
            }
            if talk.mouth_ready {
                talk.mouth_ready = talk.mouth.fill()?;
                while let Some(reply) = talk.mouth.next()? {
                    if let Reply::Error(text) = reply {
                        return Err(Ended::Refused(String::from_utf8_lossy(text).into_owned()));
                    }
                }
            }
            self.do_tasks(&mut talk)?;
            talk.confirm();
            self.look_at_clock(&mut talk)?;
        }
    }

    /// Connects, and subscribes to everything that this node wants.
    fn open(&mut self) -> Result<Talk, Ended> {
        let mut ears = self.shared.dialer.connect()?;
        let mut mouth = self.shared.dialer.connect()?;
        self.poll.registry().register(ears.stream_mut(), EARS, Interest::READABLE | Interest::WRITABLE)?;
        self.poll.registry().register(mouth.stream_mut(), MOUTH, Interest::READABLE | Interest::WRITABLE)?;
        // Whoever comes after this is a task; whoever came before is in the list.
        self.shared.tasks.lock().connected = true;
        let users = self.node.on_rejoined();
        let node = &self.shared.node;
        let own_channel = envelope::node_channel(node);
        command(&mut ears, "SUBSCRIBE", &[own_channel.as_str(), envelope::GROUPS]);
        command(&mut mouth, "DEL", &[registry::users_key(node)]);
        let probe = Probe { number: 0, under_way: true, due: Instant::now() + PROBE_PATIENCE };
        let mut talk = Talk {
            ears,
            mouth,
            own_channel,
            ears_ready: true,
            mouth_ready: true,
            initial: 2,
            probe,
            leaving: None,
            is_deaf: false,
            is_mute: false,
            receipts: FxHashMap::default(),
        };
        talk.initial += talk.subscribe(&self.shared.node, &users);
        Ok(talk)
    }

    /// Hands on what has come.
    fn take(&mut self, talk: &mut Talk) -> Result<(), Ended> {
        let mut confirmed = Vec::new();
        while let Some(reply) = talk.ears.next()? {
            match reply {
                Reply::Message { channel, payload } => match Incoming::parse(channel, payload) {
                    // The user has come here since it was sent, and may have got newer messages of this node directly.
                    Some(Incoming::Envelope { sender, sequence, .. }) if sender == self.shared.node => {
                        self.node.on_refused(sequence, 0);
                    }
                    Some(Incoming::Envelope { to, sender, sequence, frames }) => {
                        let receipt = || Receipt { node: sender.into(), sequence };
                        if self.node.on_envelope(&mut self.turn, to, frames, &receipt) {
                            note(&mut talk.receipts, sender, sequence);
                        }
                    }
                    Some(Incoming::Bare { to, frame }) => self.node.on_bare(&mut self.turn, to, frame),
                    Some(Incoming::Confirmations(text)) => confirmed.extend(envelope::sequences(text)),
                    Some(Incoming::Refusal { sequence, delivered }) => self.node.on_refused(sequence, delivered),
                    Some(Incoming::Probe(number)) => talk.probe.on_back(number, &self.shared),
                    Some(Incoming::GroupChanged(group)) => self.node.on_group_changed(group),
                    None => log::debug!("a message on {} that no node writes", channel.escape_ascii()),
                },
                Reply::Subscribed(channel) => {
                    talk.initial = talk.initial.saturating_sub(1);
                    if channel == talk.own_channel.as_bytes() {
                        // Not before: who is registered and does not listen counts as dead.
                        command(&mut talk.mouth, "SADD", &[registry::NODES, &self.shared.node]);
                    }
                    if let Some(user) = envelope::user_of(channel) {
                        post_placed(self.waiting.remove(&user));
                    }
                }
                Reply::Unsubscribed(channel) => {
                    if let Some(user) = envelope::user_of(channel) {
                        self.node.on_left(user);
                    }
                }
                Reply::Error(text) => return Err(Ended::Refused(String::from_utf8_lossy(text).into_owned())),
                Reply::Done => talk.is_deaf = true,
            }
            self.turn.relieve();
        }
        self.turn.flush();
        if !confirmed.is_empty() {
            self.node.on_confirmed(confirmed);
        }
        Ok(())
    }

    fn do_tasks(&mut self, talk: &mut Talk) -> Result<(), Ended> {
        let tasks = std::mem::take(&mut self.shared.tasks.lock().list);
        let (mut arriving, mut leaving) = (Vec::new(), Vec::new());
        for task in tasks {
            match task {
                Task::Subscribe(user, waiter) => {
                    // In the order in which they came and left.
                    talk.unsubscribe(&self.shared.node, &std::mem::take(&mut leaving));
                    arriving.push(user);
                    if let Some(waiter) = waiter {
                        self.waiting.entry(user).or_default().push(waiter);
                        self.patience.get_or_insert_with(|| Instant::now() + LOGIN_PATIENCE);
                    }
                }
                Task::Unsubscribe(user) => {
                    talk.subscribe(&self.shared.node, &std::mem::take(&mut arriving));
                    leaving.push(user);
                }
                Task::Refuse(receipt, delivered) => {
                    let payload = envelope::refusal(receipt.sequence, delivered);
                    publish(&mut talk.mouth, &envelope::node_channel(&receipt.node), &payload);
                }
                Task::Check => return Err(Ended::Doubt),
            }
        }
        talk.unsubscribe(&self.shared.node, &leaving);
        talk.subscribe(&self.shared.node, &arriving);
        Ok(())
    }

    fn look_at_clock(&mut self, talk: &mut Talk) -> Result<(), Ended> {
        let now = Instant::now();
        if self.patience.is_some_and(|by| by <= now) {
            // The client would not wait longer. Its messages come a little later.
            self.waiting.drain().for_each(|(_, links)| post_placed(Some(links)));
        }
        if self.waiting.is_empty() {
            self.patience = None;
        }
        if talk.initial == 0 && talk.probe.number == 0 {
            talk.probe(now);
        }
        if talk.probe.due <= now {
            if talk.probe.under_way {
                return Err(Ended::Deaf);
            }
            talk.probe(now);
        }
        if !self.was_up && talk.probe.number > 0 && !talk.probe.under_way {
            self.was_up = true;
            self.shared.pool.renew();
            self.shared.set_up();
            if let Some(since) = self.failing.take() {
                log::warn!("Redis works again after {:.1} s", since.elapsed().as_secs_f32());
            }
        }
        if self.shared.is_stopping() { self.say_goodbye(talk, now) } else { Ok(()) }
    }

    /// The node leaves. What others have sent in the meantime is still refused, so that they need not wait for it to be
    /// late, and nobody has to find out that the node is gone.
    fn say_goodbye(&mut self, talk: &mut Talk, now: Instant) -> Result<(), Ended> {
        let Some(by) = talk.leaving else {
            talk.leaving = Some(now + GOODBYE_PATIENCE);
            // No channel named: all of them. The answer to what follows says that nothing will come any more.
            command(&mut talk.ears, "UNSUBSCRIBE", &[] as &[&str]);
            command(&mut talk.ears, "PING", &[] as &[&str]);
            return Ok(());
        };
        if talk.is_deaf && !talk.is_mute {
            talk.is_mute = true;
            command(&mut talk.mouth, "SREM", &[registry::NODES, &self.shared.node]);
            command(&mut talk.mouth, "DEL", &[registry::users_key(&self.shared.node)]);
        }
        let is_said = talk.is_mute && talk.mouth.is_answered();
        if is_said || now >= by { Err(Ended::Stopping) } else { Ok(()) }
    }

    fn until_next(&self, talk: &Talk) -> Duration {
        let times = [Some(talk.probe.due), self.patience, talk.leaving];
        let next = times.into_iter().flatten().min().unwrap_or(talk.probe.due);
        next.saturating_duration_since(Instant::now())
    }

    /// Nothing is subscribed to any more, and nobody needs to wait.
    fn let_go(&mut self) {
        let mut tasks = self.shared.tasks.lock();
        tasks.connected = false;
        let list = std::mem::take(&mut tasks.list);
        drop(tasks);
        self.waiting.drain().for_each(|(_, links)| post_placed(Some(links)));
        for task in list {
            match task {
                Task::Subscribe(_, waiter) => post_placed(waiter.map(|waiter| vec![waiter])),
                Task::Unsubscribe(user) => self.node.on_left(user),
                // The sender hears nothing and stores it in a while.
                Task::Refuse(..) | Task::Check => {}
            }
        }
    }

    /// One line when it begins to fail, one when it works again.
    fn complain(&mut self, ended: &Ended) {
        if self.failing.is_none() {
            self.failing = Some(Instant::now());
            let address = self.shared.dialer.address();
            log::error!(
                "Redis at {address}: {ended}; messages for users of other nodes are stored until it works again"
            );
        }
    }

    fn rest(&mut self, pause: Duration) {
        let (mut events, until) = (Events::with_capacity(8), Instant::now() + pause);
        while Instant::now() < until && !self.shared.is_stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(left)) {
                log::debug!("the bus rests badly: {error}");
            }
            self.let_go();
        }
    }
}

impl Talk {
    /// Returns how many answers will come.
    fn subscribe(&mut self, node: &str, users: &[UserId]) -> usize {
        for users in users.chunks(registry::USERS_AT_ONCE) {
            // The channel of our own comes last: its answer says that both are subscribed to.
            command(&mut self.ears, "SUBSCRIBE", &channels(users));
            add_members(&mut self.mouth, "SADD", node, users);
        }
        2 * users.len()
    }

    fn unsubscribe(&mut self, node: &str, users: &[UserId]) {
        for users in users.chunks(registry::USERS_AT_ONCE) {
            command(&mut self.ears, "UNSUBSCRIBE", &channels(users));
            add_members(&mut self.mouth, "SREM", node, users);
        }
    }

    fn probe(&mut self, now: Instant) {
        self.probe = Probe { number: self.probe.number + 1, under_way: true, due: now + PROBE_PATIENCE };
        publish(&mut self.mouth, &self.own_channel, &envelope::probe(self.probe.number));
    }

    fn confirm(&mut self) {
        for (node, sequences) in self.receipts.drain() {
            for sequences in sequences.chunks(RECEIPTS_AT_ONCE) {
                publish(&mut self.mouth, &envelope::node_channel(&node), &envelope::confirmations(sequences));
            }
        }
    }
}

impl Probe {
    fn on_back(&mut self, number: u64, shared: &Shared) {
        if number == self.number && self.under_way {
            self.under_way = false;
            let now = Instant::now();
            self.due = now + PROBE_EVERY;
            *shared.probed.lock() = Some(now);
        }
    }
}

fn channels(users: &[UserId]) -> Vec<String> {
    users.iter().flat_map(|user| [envelope::reference_channel(*user), envelope::user_channel(*user)]).collect()
}

fn add_members(wire: &mut Wire<Stream>, name: &str, node: &str, users: &[UserId]) {
    let ids: Vec<i32> = users.iter().map(|user| user.0).collect();
    wire.push(&redis::cmd(name).arg(registry::users_key(node)).arg(ids).get_packed_command());
}

fn command(wire: &mut Wire<Stream>, name: &str, arguments: &[impl AsRef<[u8]>]) {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    wire.push(&command.get_packed_command());
}

fn publish(wire: &mut Wire<Stream>, channel: &str, payload: &[u8]) {
    wire.push(&redis::cmd("PUBLISH").arg(channel).arg(payload).get_packed_command());
}

fn note(receipts: &mut FxHashMap<Box<str>, Vec<u64>>, node: &str, sequence: u64) {
    match receipts.get_mut(node) {
        Some(sequences) => sequences.push(sequence),
        None => drop(receipts.insert(node.into(), vec![sequence])),
    }
}

fn post_placed(waiting: Option<Vec<Arc<ClientLink>>>) {
    let posts = waiting.into_iter().flatten().map(|link| (link, Posted::Outcome(Outcome::Placed)));
    ClientLink::post_all(posts.collect());
}

/// From 0 to 1, so that the nodes of a cluster do not all come back in the same moment.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Io(error)
    }
}

impl From<Malformed> for Ended {
    fn from(malformed: Malformed) -> Ended {
        Ended::Malformed(malformed)
    }
}

impl From<DialError> for Ended {
    fn from(error: DialError) -> Ended {
        Ended::Dial(error)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Dial(error) => error.fmt(f),
            Ended::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it has closed the connection")
            }
            Ended::Io(error) => error.fmt(f),
            Ended::Malformed(malformed) => malformed.fmt(f),
            Ended::Refused(text) => write!(f, "it refused: {text}"),
            Ended::Deaf => f.write_str("a message of this node to itself did not come back in time"),
            Ended::Doubt => f.write_str("publishing failed, or the register of nodes was lost"),
            Ended::Stopping => f.write_str("this node stops"),
        }
    }
}

const EARS: Token = Token(1);
const MOUTH: Token = Token(2);
/// How often a node writes to itself, and how long that may take.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// A probe that is older than this should have been followed by another.
pub(super) const PROBE_AGE_MAX: Duration = Duration::from_millis(4500);
/// How long a login waits for its subscription. The real client gives up after a second.
const LOGIN_PATIENCE: Duration = Duration::from_millis(500);
/// How long a node that stops waits for what others are just sending it.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// The pause between attempts to connect grows from the first to the second; half of it is left to chance.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Envelopes confirmed in one message.
const RECEIPTS_AT_ONCE: usize = 4096;
