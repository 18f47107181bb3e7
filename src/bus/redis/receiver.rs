//! [`Receiver`]: the thread that keeps this node's subscriptions, takes what comes, and confirms it.
//!
//! It has two connections, because one that subscribes may not publish, and waits for neither:
//!
//! ```text
//!   ears   SUBSCRIBE ▶   ◀ envelopes for our users, confirmations, who comes elsewhere, our own probe
//!   mouth  PUBLISH ▶     confirmations, refusals, who has come here, probes
//! ```
//! A turn: poll, take what has come and hand it on, write to the clients, confirm, do the tasks, look at the clock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use net::Turn;
use rustc_hash::{FxHashMap, FxHashSet};

use super::dial::{DialError, Stream};
use super::envelope::{self, Incoming};
use super::names::Names;
use super::scout::Loss;
use super::wire::{Malformed, Reply, Wire};
use super::{HUSH_PATIENCE, Shared, Stage, Task, registry};
use crate::bus::waiting::Waiting;
use crate::bus::{Node, Place, Receipt};
use crate::delivery::{ClientLink, Posted};
use crate::outbox::PLACE_LEASE;
use crate::protocol::UserId;
use crate::session::Outcome;

/// See the [module](self).
pub(super) struct Receiver {
    shared: Arc<Shared>,
    node: Arc<dyn Node>,
    poll: Poll,
    turn: Turn<Posted>,
    /// Who waits for a subscription.
    waiting: Waiting<Arc<ClientLink>>,
    /// Who was unsubscribed from, and may still be sent something.
    leaving: FxHashSet<UserId>,
    /// Since when Redis fails, after it was said.
    failing: Option<Instant>,
    was_up: bool,
    /// How often it has connected.
    sessions: u64,
}

/// Both connections, and what is expected of them.
struct Talk {
    ears: Wire<Stream>,
    mouth: Wire<Stream>,
    names: Names,
    own_channel: String,
    /// This node, as long as these connections last: whoever misses nothing on them knows who else has its users.
    place: Place,
    /// Who was here already: they are subscribed to again, and then all of them are said to be here.
    rejoined: FxHashSet<UserId>,
    /// Something may still be read, though no event will say so.
    ears_ready: bool,
    mouth_ready: bool,
    /// Answers to come until all users are subscribed to.
    initial: usize,
    probe: Probe,
    /// A command has failed, and the probe that was sent then is not back yet.
    is_in_doubt: bool,
    /// When something is said on the mouth, lest Redis close it for being idle.
    sign_due: Instant,
    /// This node stops, and waits no longer than this for what is still under way.
    hushing: Option<Instant>,
    stopping: Option<Instant>,
    receipts: Receipts,
}

/// Envelopes that have found their users here, to be confirmed to the nodes that sent them.
struct Receipts {
    of_residents: FxHashMap<Box<str>, Vec<u64>>,
    /// Of users who may be elsewhere as well.
    of_others: FxHashMap<Box<str>, Vec<u64>>,
    /// Users who have come to another place, or left this one, and when: what is for them must not come here alone, as long
    /// as somebody may think that this is their only place.
    elsewhere: FxHashMap<UserId, Instant>,
    /// When they are confirmed: at once after a pause, together while many come.
    due: Instant,
}

/// The message of this node to itself.
#[derive(Debug)]
struct Probe {
    number: u64,
    /// It is under way, and must be back by then; otherwise the next one is due then.
    under_way: bool,
    due: Instant,
}

/// Envelopes of this node that others have delivered, by the place that says so.
type Confirmed = FxHashMap<Box<str>, Vec<u64>>;

/// Why the connections are given up.
#[derive(Debug)]
enum Ended {
    Dial(DialError),
    Io(io::Error),
    Malformed(Malformed),
    Refused(String),
    /// The probe did not come back.
    Deaf,
    /// They lead to the wrong place.
    Lost(Loss),
    Stopping,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, node: Arc<dyn Node>, poll: Poll) -> Receiver {
        Receiver {
            shared,
            node,
            poll,
            turn: Turn::new(),
            waiting: Waiting::new(),
            leaving: FxHashSet::default(),
            failing: None,
            was_up: false,
            sessions: 0,
        }
    }

    pub(super) fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while self.shared.stage() == Stage::Running {
            self.was_up = false;
            let Err(ended) = self.session();
            self.shared.set_down(!matches!(ended, Ended::Stopping));
            self.let_go();
            if matches!(ended, Ended::Stopping) {
                break;
            }
            if self.was_up {
                pause = PAUSE_MIN;
            }
            self.complain(&ended);
            self.rest(pause.mul_f64(0.5 + jitter()), Stage::Running);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        // Without a connection nothing comes, and what is left to do is done at the end.
        while self.shared.stage() < Stage::Stopping {
            self.shared.set_stage(Stage::Hushed);
            self.rest(PAUSE_MAX, Stage::Hushed);
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
            self.turn.begin(Instant::now());
            self.turn.run_errands();
            for event in &events {
                talk.ears_ready |= event.token() == EARS;
                talk.mouth_ready |= event.token() == MOUTH;
            }
            if talk.ears_ready {
                talk.ears_ready = talk.ears.fill()?;
                let mut confirmed = Confirmed::default();
                let taken = self.take(&mut talk, &mut confirmed);
                // Whatever came after it: what was handed to connections is written.
                self.turn.flush();
                for (place, sequences) in confirmed {
                    self.node.on_confirmed(Some(Place::from(&*place)).filter(|place| !place.is_empty()), sequences);
                }
                taken?;
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
            if talk.receipts.due <= Instant::now() || self.shared.stage() != Stage::Running {
                talk.confirm();
            }
            self.look_at_clock(&mut talk)?;
        }
    }

    /// Connects, and subscribes to everything that this node wants.
    fn open(&mut self) -> Result<Talk, Ended> {
        let mut ears = self.shared.dialer.connect()?;
        let mut mouth = self.shared.dialer.connect()?;
        self.poll.registry().register(ears.stream_mut(), EARS, Interest::READABLE | Interest::WRITABLE)?;
        self.poll.registry().register(mouth.stream_mut(), MOUTH, Interest::READABLE | Interest::WRITABLE)?;
        // Whoever comes or leaves after this is a task; whoever came before is in the list, and who left before has left:
        // an old task would undo a newer arrival.
        let mut tasks = self.shared.tasks.lock();
        tasks.connected = true;
        let list = std::mem::take(&mut tasks.list);
        drop(tasks);
        self.drop_tasks(list);
        let users = self.node.on_rejoined();
        let names = self.shared.names.clone();
        let own_channel = names.node_channel(&self.shared.node);
        self.sessions += 1;
        let place: Place = format!("{}-{}", self.shared.node, self.sessions).into();
        let own_channels =
            [own_channel.clone(), names.groups_channel(), names.hellos_channel(), names.place_channel(&place)];
        command(&mut ears, "SUBSCRIBE", &own_channels);
        let probe = Probe { number: 0, under_way: true, due: Instant::now() + PROBE_PATIENCE };
        let mut talk = Talk {
            ears,
            mouth,
            names,
            own_channel,
            place,
            rejoined: users.iter().copied().collect(),
            ears_ready: true,
            mouth_ready: true,
            initial: own_channels.len(),
            probe,
            is_in_doubt: false,
            sign_due: Instant::now() + SIGN_EVERY,
            hushing: None,
            stopping: None,
            receipts: Receipts::new(),
        };
        talk.initial += talk.subscribe(&users);
        Ok(talk)
    }

    /// Hands on what has come.
    fn take(&mut self, talk: &mut Talk, confirmed: &mut Confirmed) -> Result<(), Ended> {
        while let Some(reply) = talk.ears.next()? {
            match reply {
                Reply::Message { channel, payload } => match Incoming::parse(&self.shared.names, channel, payload) {
                    // The user has come here since it was sent, and may have got newer messages of this node directly.
                    Some(Incoming::Envelope { sender, sequence, .. } | Incoming::Returned { sender, sequence, .. })
                        if sender == self.shared.node =>
                    {
                        self.node.on_refused(sequence, 0);
                    }
                    Some(Incoming::Envelope { to, sender, sequence, frames }) => {
                        let receipt = || Receipt { node: sender.into(), sequence };
                        if self.node.on_envelope(&mut self.turn, to, frames, &receipt) {
                            talk.receipts.note(to, sender, sequence);
                        }
                    }
                    Some(Incoming::Returned { to, sender, sequence, frames }) => {
                        let receipt = || Receipt { node: sender.into(), sequence };
                        if self.node.on_returned(&mut self.turn, to, frames, &receipt) {
                            talk.receipts.note(to, sender, sequence);
                        }
                    }
                    Some(Incoming::Bundle { sender, items }) => {
                        for item in items {
                            for (to, sequence) in item.envelopes() {
                                let receipt = || Receipt { node: sender.into(), sequence };
                                if talk.receipts.is_elsewhere(to) {
                                    let channel = self.shared.names.node_channel(sender);
                                    publish(&mut talk.mouth, &channel, &envelope::refusal(sequence, 0));
                                } else if self.node.on_envelope(&mut self.turn, to, item.frames, &receipt) {
                                    talk.receipts.note(to, sender, sequence);
                                }
                                self.turn.relieve();
                            }
                        }
                    }
                    // Back from Redis: whoever had the user before has been told.
                    Some(Incoming::Hello { user, place }) if *place == *talk.place => {
                        post_placed(self.waiting.take(user));
                    }
                    Some(Incoming::Hello { user, .. }) => {
                        talk.receipts.elsewhere.insert(user, Instant::now());
                        self.node.on_elsewhere(&mut self.turn, user);
                    }
                    Some(Incoming::Hellos { place, users }) if *place == *talk.place => {
                        post_placed(envelope::users(users).flat_map(|user| self.waiting.take(user)).collect());
                    }
                    Some(Incoming::Hellos { users, .. }) => {
                        let now = Instant::now();
                        talk.receipts.elsewhere.extend(envelope::users(users).map(|user| (user, now)));
                        envelope::users(users).for_each(|user| self.node.on_elsewhere(&mut self.turn, user));
                    }
                    Some(Incoming::Bare { to, frame }) => self.node.on_bare(&mut self.turn, to, frame),
                    Some(Incoming::Confirmations { place, sequences }) => {
                        note_all(confirmed, place.unwrap_or_default(), envelope::sequences(sequences));
                    }
                    Some(Incoming::Refusal { sequence, delivered }) => self.node.on_refused(sequence, delivered),
                    Some(Incoming::Probe(number)) => talk.probe.on_back(number, &self.shared),
                    Some(Incoming::GroupChanged(group)) => self.node.on_group_changed(group),
                    None => log::debug!("a message on {} that no node writes", channel.escape_ascii()),
                },
                Reply::Subscribed(channel) => {
                    talk.initial = talk.initial.saturating_sub(1);
                    if self.shared.names.user_of(channel).is_some_and(|user| !talk.rejoined.contains(&user)) {
                        publish(&mut talk.mouth, channel, &envelope::hello(&talk.place));
                    }
                }
                Reply::Unsubscribed(channel) => {
                    if let Some(user) = self.shared.names.user_of(channel) {
                        self.leaving.remove(&user);
                        self.node.on_left(user);
                    }
                }
                Reply::Error(text) => return Err(Ended::Refused(String::from_utf8_lossy(text).into_owned())),
                // To the only command that has such an answer, the one after the last UNSUBSCRIBE.
                Reply::Done => self.shared.set_stage(Stage::Hushed),
            }
            self.turn.relieve();
        }
        Ok(())
    }

    fn do_tasks(&mut self, talk: &mut Talk) -> Result<(), Ended> {
        let tasks = std::mem::take(&mut self.shared.tasks.lock().list);
        let (mut arriving, mut leaving) = (Vec::new(), Vec::new());
        // Whatever else there is to do is done first, so that nobody waits in vain.
        let (mut lost, mut in_doubt) = (None, false);
        for task in tasks {
            match task {
                Task::Subscribe(user, waiter) => {
                    // In the order in which they came and left.
                    self.unsubscribe(talk, &std::mem::take(&mut leaving));
                    arriving.push(user);
                    if let Some(waiter) = waiter {
                        self.waiting.add(user, waiter, Instant::now());
                    }
                }
                Task::Unsubscribe(user) => {
                    talk.subscribe(&std::mem::take(&mut arriving));
                    leaving.push(user);
                }
                Task::Refuse(receipt, delivered) => {
                    let payload = envelope::refusal(receipt.sequence, delivered);
                    publish(&mut talk.mouth, self.shared.names.node_channel(&receipt.node), &payload);
                }
                Task::Probe => in_doubt = true,
                Task::Lost(loss) => lost = Some(loss),
            }
        }
        self.unsubscribe(talk, &leaving);
        talk.subscribe(&arriving);
        if let Some(loss) = lost {
            // What has arrived need not come again, if it can still be said.
            talk.confirm();
            talk.mouth.flush()?;
            return Err(Ended::Lost(loss));
        }
        // Sent now: one that is under way says nothing about what has failed since.
        if in_doubt && self.was_up && talk.hushing.is_none() {
            talk.is_in_doubt = true;
            talk.probe(Instant::now());
        }
        Ok(())
    }

    fn unsubscribe(&mut self, talk: &mut Talk, users: &[UserId]) {
        self.leaving.extend(users);
        // Who comes back may have been elsewhere meanwhile, which is not heard here.
        let now = Instant::now();
        talk.receipts.elsewhere.extend(users.iter().map(|user| (*user, now)));
        for users in users.chunks(registry::USERS_AT_ONCE) {
            command(&mut talk.ears, "UNSUBSCRIBE", &channels(&talk.names, users));
        }
    }

    fn look_at_clock(&mut self, talk: &mut Talk) -> Result<(), Ended> {
        let now = Instant::now();
        // These clients would not wait longer. Their messages come a little later.
        post_placed(self.waiting.take_late(now));
        if talk.initial == 0 && talk.probe.number == 0 {
            talk.say_who_is_here();
            talk.probe(now);
        }
        if talk.sign_due <= now && talk.hushing.is_none() {
            talk.sign_due = now + SIGN_EVERY;
            command(&mut talk.mouth, "PING", &[] as &[&str]);
        }
        if talk.probe.due <= now && talk.hushing.is_none() {
            if talk.probe.under_way {
                return Err(Ended::Deaf);
            }
            talk.receipts.elsewhere.retain(|_, since| since.elapsed() < ELSEWHERE_FOR);
            talk.probe(now);
        }
        if !self.was_up && talk.probe.number > 0 && !talk.probe.under_way {
            self.was_up = true;
            talk.is_in_doubt = false;
            self.shared.pool.renew();
            self.shared.set_up(self.sessions);
            // Others may have taken this node for dead until now, and its users for offline.
            self.node.on_rejoined();
            if let Some(since) = self.failing.take() {
                log::warn!("Redis works again after {:.1} s", since.elapsed().as_secs_f32());
            }
        }
        if talk.is_in_doubt && self.was_up && !talk.probe.under_way {
            talk.is_in_doubt = false;
            self.shared.resume();
        }
        self.hush(talk, now)
    }

    /// When the node stops: first nothing more shall come, then what is left is said. What others have sent in the meantime
    /// is still refused, so that they need not wait for it to be late.
    fn hush(&mut self, talk: &mut Talk, now: Instant) -> Result<(), Ended> {
        let stage = self.shared.stage();
        if stage == Stage::Running {
            return Ok(());
        }
        let Some(by) = talk.hushing else {
            talk.hushing = Some(now + HUSH_PATIENCE);
            // From now on nobody listens to this node's channel either, which says nothing about where it is.
            self.shared.session.store(0, Ordering::Release);
            // No channel named: all of them. The answer to what follows says that nothing will come any more.
            command(&mut talk.ears, "UNSUBSCRIBE", &[] as &[&str]);
            command(&mut talk.ears, "PING", &[] as &[&str]);
            return Ok(());
        };
        if now >= by {
            self.shared.set_stage(Stage::Hushed);
        }
        if stage < Stage::Stopping {
            return Ok(());
        }
        let by = *talk.stopping.get_or_insert(now + HUSH_PATIENCE);
        talk.mouth.flush()?;
        if talk.mouth.is_answered() || now >= by { Err(Ended::Stopping) } else { Ok(()) }
    }

    fn until_next(&mut self, talk: &Talk) -> Duration {
        if talk.hushing.is_some() {
            return HUSH_STEP;
        }
        let dues = [self.waiting.next_due(), self.turn.next_errand(), talk.receipts.next_due()];
        let next = dues.into_iter().flatten().fold(talk.probe.due.min(talk.sign_due), Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    /// Nothing is subscribed to any more, and nobody needs to wait.
    fn let_go(&mut self) {
        let mut tasks = self.shared.tasks.lock();
        tasks.connected = false;
        let list = std::mem::take(&mut tasks.list);
        drop(tasks);
        post_placed(self.waiting.take_all());
        self.leaving.drain().for_each(|user| self.node.on_left(user));
        self.drop_tasks(list);
    }

    fn drop_tasks(&self, list: Vec<Task>) {
        for task in list {
            match task {
                Task::Subscribe(_, waiter) => post_placed(waiter.into_iter().collect()),
                Task::Unsubscribe(user) => self.node.on_left(user),
                // The sender hears nothing and stores it in a while.
                Task::Refuse(..) | Task::Probe | Task::Lost(_) => {}
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

    fn rest(&mut self, pause: Duration, stage: Stage) {
        let (mut events, until) = (Events::with_capacity(8), Instant::now() + pause);
        while Instant::now() < until && self.shared.stage() == stage {
            let next = self.turn.next_errand().map_or(until, |errand| errand.min(until));
            let left = next.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(left)) {
                log::debug!("the bus rests badly: {error}");
            }
            self.let_go();
            self.turn.begin(Instant::now());
            self.turn.run_errands();
        }
    }
}

impl Talk {
    /// Returns how many answers will come.
    fn subscribe(&mut self, users: &[UserId]) -> usize {
        let mut answers = 0;
        for users in users.chunks(registry::USERS_AT_ONCE) {
            // The channel of our own comes last: its answer says that both are subscribed to.
            let channels = channels(&self.names, users);
            answers += channels.len();
            command(&mut self.ears, "SUBSCRIBE", &channels);
        }
        answers
    }

    fn probe(&mut self, now: Instant) {
        self.probe = Probe { number: self.probe.number + 1, under_way: true, due: now + PROBE_PATIENCE };
        publish(&mut self.mouth, &self.own_channel, &envelope::probe(self.probe.number));
    }

    /// Those who were here before the connection was made, in few messages.
    fn say_who_is_here(&mut self) {
        let users: Vec<UserId> = self.rejoined.drain().collect();
        for users in users.chunks(registry::USERS_AT_ONCE) {
            publish(&mut self.mouth, self.names.hellos_channel(), &envelope::hellos(&self.place, users));
        }
    }

    fn confirm(&mut self) {
        let Receipts { of_residents, of_others, due, .. } = &mut self.receipts;
        if !of_residents.is_empty() || !of_others.is_empty() {
            *due = Instant::now() + CONFIRM_EVERY;
        }
        let of_residents = of_residents.drain().map(|receipts| (Some(&*self.place), receipts));
        let of_others = of_others.drain().map(|receipts| (None, receipts));
        for (place, (node, sequences)) in of_residents.chain(of_others) {
            for sequences in sequences.chunks(RECEIPTS_AT_ONCE) {
                publish(&mut self.mouth, self.names.node_channel(&node), &envelope::confirmations(place, sequences));
            }
        }
    }
}

impl Receipts {
    fn new() -> Receipts {
        Receipts {
            of_residents: FxHashMap::default(),
            of_others: FxHashMap::default(),
            elsewhere: FxHashMap::default(),
            due: Instant::now(),
        }
    }

    /// Whether the user may be somewhere else as well, without all others knowing that.
    fn is_elsewhere(&self, user: UserId) -> bool {
        self.elsewhere.get(&user).is_some_and(|since| since.elapsed() < ELSEWHERE_FOR)
    }

    fn note(&mut self, user: UserId, sender: &str, sequence: u64) {
        let receipts = if self.is_elsewhere(user) { &mut self.of_others } else { &mut self.of_residents };
        note_all(receipts, sender, std::iter::once(sequence));
    }

    fn next_due(&self) -> Option<Instant> {
        (!self.of_residents.is_empty() || !self.of_others.is_empty()).then_some(self.due)
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

fn channels(names: &Names, users: &[UserId]) -> Vec<String> {
    users.iter().flat_map(|user| names.channels_of(*user)).collect()
}

fn command(wire: &mut Wire<Stream>, name: &str, arguments: &[impl AsRef<[u8]>]) {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    wire.push(&command.get_packed_command());
}

fn publish(wire: &mut Wire<Stream>, channel: impl AsRef<[u8]>, payload: &[u8]) {
    wire.push(&redis::cmd("PUBLISH").arg(channel.as_ref()).arg(payload).get_packed_command());
}

fn note_all(receipts: &mut FxHashMap<Box<str>, Vec<u64>>, node: &str, sequences: impl Iterator<Item = u64>) {
    match receipts.get_mut(node) {
        Some(noted) => noted.extend(sequences),
        None => drop(receipts.insert(node.into(), sequences.collect())),
    }
}

fn post_placed(waiters: Vec<Arc<ClientLink>>) {
    let posts = waiters.into_iter().map(|link| (link, Posted::Outcome(Outcome::Placed)));
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
            Ended::Refused(text) => write!(f, "it refused: {}", pool::without_arguments(text)),
            Ended::Deaf => f.write_str("a message of this node to itself did not come back in time"),
            Ended::Lost(Loss::Demoted) => f.write_str("it has become a replica"),
            Ended::Lost(Loss::Moved) => f.write_str("its name leads to another Redis now"),
            Ended::Stopping => f.write_str("this node stops"),
        }
    }
}

const EARS: Token = Token(1);
const MOUTH: Token = Token(2);
/// How often a node writes to itself, and how long that may take.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// How often something is said on a connection that Redis may close when it is idle: `timeout` is a second at least.
const SIGN_EVERY: Duration = Duration::from_millis(800);
/// A probe that is older than this should have been followed by another.
pub(super) const PROBE_AGE_MAX: Duration = Duration::from_millis(4500);
/// How often a node that stops looks whether it may.
const HUSH_STEP: Duration = Duration::from_millis(20);
/// The pause between attempts to connect grows from the first to the second; half of it is left to chance.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longer than anybody believes in a place that has confirmed before the user came elsewhere.
const ELSEWHERE_FOR: Duration = PLACE_LEASE.saturating_mul(2);
/// Confirmations are sent no more often: each wakes three threads of the node that gets it, and nobody waits for one but a
/// sender who asks whether all has arrived.
const CONFIRM_EVERY: Duration = Duration::from_millis(1);
/// Envelopes confirmed in one message.
const RECEIPTS_AT_ONCE: usize = 4096;
