//! [`Peer`]: the protocol between the nodes of a cluster, without sockets, threads or a clock.
//!
//! Events and the time go in, [`PeerCommand`]s come out, and waiters are tickets of any type.
//! [`PeerDriver`](driver::PeerDriver) drives it over any [`BusTransport`]: Redis (`bus/redis`), the
//! simulated wires, and the transport in memory of the tests.
//!
//! ```text
//!   tasks     users who come and leave, refusals ─▶ ┌──────┐ ─▶ topics to listen to, messages to other nodes
//!   events    what the transport has brought    ─▶ │ Peer │ ─▶ news for the node: confirmed, refused, left, elsewhere
//!   the time  probes, confirmations, patience   ─▶ └──────┘ ─▶ tickets that need wait no longer
//! ```
//! When a user logs in, the node announces that on the user's topic (hello). Other nodes with a
//! connection of the user note it (elsewhere). For as long as some node may not know, they refuse
//! envelopes that are addressed to them alone. A node confirms each envelope whose messages are all
//! written to the user's connection. The confirmation also says whether the user is only here: then
//! the sender may address the next envelopes to this place. After each reconnect a node is another
//! place, because it may have missed a hello in between. It sends a probe to itself, and gives up
//! its connection if the probe does not come back.

mod command;
mod deadline;
mod devices;
mod driver;
mod echo;
pub(crate) mod envelope;
mod exchange;
mod gate;
#[cfg(test)]
mod memory;
mod pause;
mod places;
mod post;
mod receipts;
mod rules;
mod shared;
mod tasks;
mod thread;
mod topic;
mod transport;
mod waiting;

use std::collections::VecDeque;
use std::time::Instant;

use rustc_hash::{FxHashMap, FxHashSet};

pub(crate) use self::command::{Consignment, Deliver, PeerCommand};
pub use self::deadline::CONFIRMED_WITHIN;
use self::deadline::HUSH_PATIENCE;
pub(crate) use self::deadline::confirmed_by;
#[cfg(test)]
pub(crate) use self::driver::PeerDriver;
pub(crate) use self::echo::Deaf;
pub(in crate::bus) use self::echo::PROBE_AGE_MAX;
use self::echo::{Echo, EchoDue};
pub use self::envelope::Frames;
use self::envelope::{Items, PeerMessage};
#[cfg(test)]
pub(crate) use self::pause::Pauses;
pub(crate) use self::places::KnownPlaces;
pub use self::places::PLACE_LEASE;
#[cfg(test)]
pub(crate) use self::places::UNKNOWN_FOR;
pub(in crate::bus) use self::post::POSTS_MAX;
use self::receipts::Receipts;
pub(crate) use self::rules::PeerRules;
pub(crate) use self::shared::{BusStage, PeerShared};
use self::tasks::PeerTask;
pub(in crate::bus) use self::thread::{Connector, PeerThread};
pub(crate) use self::topic::Topic;
pub(crate) use self::transport::{BusTransport, NotSent, PeerLine, PeerNews, Publication, Reached, TransportEvent};
use self::waiting::Waiters;
use super::{Place, Receipt};
use crate::protocol::UserId;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Peer<W> {
    node: Box<str>,
    rules: PeerRules,
    /// Waiters until the other nodes know of a user.
    waiting: Waiters<W>,
    /// Users who were unsubscribed, and for whom messages may still arrive.
    leaving: FxHashSet<UserId>,
    /// The number of connections until now.
    sessions: u64,
    /// The state of the connection; `None` without one.
    session: Option<PeerSession>,
    commands: VecDeque<PeerCommand<W>>,
    /// Envelopes of this node that others have delivered, by the place that confirms them. The name
    /// is empty if the user is not at a single place.
    confirmed: FxHashMap<Box<str>, Vec<u64>>,
}

/// The state of one connection.
#[derive(Debug)]
struct PeerSession {
    /// The node's name during this connection, in which it misses nothing and knows which of its
    /// users are elsewhere.
    place: Place,
    /// Users who were here before: they are subscribed again, and then all of them are announced.
    rejoined: FxHashSet<UserId>,
    /// Pending answers until all users are subscribed.
    initial: usize,
    echo: Echo,
    /// Whether the first probe has come back.
    is_up: bool,
    /// Whether a command has failed and the probe that was sent then has not come back yet.
    is_in_doubt: bool,
    receipts: Receipts,
    /// The node shuts down, and waits for arriving messages until this time at most.
    hushes_by: Option<Instant>,
}

impl<W> Peer<W> {
    /// A node without a connection.
    pub(crate) fn new(node: &str, rules: PeerRules) -> Peer<W> {
        Peer {
            node: node.into(),
            rules,
            waiting: Waiters::new(),
            leaving: FxHashSet::default(),
            sessions: 0,
            session: None,
            commands: VecDeque::new(),
            confirmed: FxHashMap::default(),
        }
    }

    /// The next command. All are executed after each event, before the next.
    pub(crate) fn next_command(&mut self) -> Option<PeerCommand<W>> {
        self.commands.pop_front()
    }

    /// Takes the confirmations of other nodes, by the place that confirms.
    pub(crate) fn take_confirmed(&mut self) -> impl Iterator<Item = (Option<Place>, Vec<u64>)> + use<'_, W> {
        let confirmed = self.confirmed.drain();
        confirmed.map(|(place, sequences)| (Some(Place::from(place)).filter(|place| !place.is_empty()), sequences))
    }

    /// A connection is open, and these users are here. Logins and logouts from now on are queued as
    /// tasks.
    pub(crate) fn open(&mut self, users: &[UserId], now: Instant) {
        self.sessions += 1;
        let place: Place = format!("{}-{}", self.node, self.sessions).into();
        let own = [
            Topic::Node(self.node.clone()),
            Topic::Groups,
            Topic::Hellos,
            Topic::Level2,
            Topic::Place((&*place).into()),
        ];
        self.session = Some(PeerSession {
            place,
            rejoined: users.iter().copied().collect(),
            initial: own.len() + users.len(),
            echo: Echo::new(now),
            is_up: false,
            is_in_doubt: false,
            receipts: Receipts::new(self.rules, now),
            hushes_by: None,
        });
        self.commands.push_back(PeerCommand::Listen(own.into()));
        self.listen(users.to_vec());
    }

    /// The connection is closed, or could not be opened, so these tasks cannot be done: their
    /// waiters stop waiting.
    pub(crate) fn close(&mut self, tasks: Vec<PeerTask<W>>) {
        self.session = None;
        let waiters = self.waiting.take_all();
        self.placed(waiters);
        self.commands.extend(self.leaving.drain().map(PeerCommand::Left));
        self.drop_tasks(tasks);
    }

    /// Drops tasks from before the connection. The list of users contains earlier logins and leaves
    /// out earlier logouts, so a stale unsubscribe would undo a newer login.
    pub(crate) fn drop_tasks(&mut self, tasks: Vec<PeerTask<W>>) {
        for task in tasks {
            match task {
                PeerTask::Subscribe(_, waiter) => self.placed(waiter.into_iter().collect()),
                PeerTask::Unsubscribe(user) => self.commands.push_back(PeerCommand::Left(user)),
                // The sender gets no answer, and stores the message after its deadline.
                PeerTask::Refuse(..) | PeerTask::Probe => {}
            }
        }
    }

    /// Whether publishing to the other nodes was possible on this connection.
    pub(crate) fn was_up(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_up)
    }

    /// Whether this node stops receiving.
    #[cfg(test)]
    pub(crate) fn is_hushing(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.hushes_by.is_some())
    }

    /// The subscription to a topic is confirmed.
    pub(crate) fn on_listening(&mut self, topic: Topic<&str>) {
        let Some(session) = &mut self.session else { return };
        session.initial = session.initial.saturating_sub(1);
        if let Topic::User(user) = topic
            && !session.rejoined.contains(&user)
        {
            let hello = envelope::hello(&session.place);
            self.commands.push_back(PeerCommand::Say(Topic::User(user), hello));
        }
    }

    /// The user is unsubscribed.
    pub(crate) fn on_ignored(&mut self, user: UserId) {
        self.leaving.remove(&user);
        self.commands.push_back(PeerCommand::Left(user));
    }

    /// The transport has lost the subscription of a user who is here. This node subscribes again.
    /// The user may have logged in elsewhere meanwhile, without this node knowing.
    pub(crate) fn on_missed(&mut self, user: UserId, now: Instant) {
        let Some(session) = self.session.as_mut().filter(|session| session.hushes_by.is_none()) else { return };
        if self.leaving.contains(&user) {
            return;
        }
        session.receipts.note_elsewhere([user].into_iter(), now);
        // The answer announces the user, also one who was to be announced together with others.
        session.rejoined.remove(&user);
        session.initial += 1;
        self.listen(vec![user]);
    }

    /// Everything is unsubscribed, as requested.
    pub(crate) fn on_silence(&mut self) {
        self.commands.push_back(PeerCommand::News(PeerNews::Hushed));
    }

    /// A message has arrived. Messages for users are handed to `deliver`.
    pub(crate) fn on_said(&mut self, topic: Topic<&str>, payload: &[u8], now: Instant, deliver: &mut Deliver<'_>) {
        let Some(session) = &mut self.session else { return };
        let message = PeerMessage::parse(topic, payload);
        match message {
            // The user has logged in here since it was sent, and may have received newer messages
            // of this node directly.
            Some(PeerMessage::Envelope { sender, sequence, .. } | PeerMessage::Returned { sender, sequence, .. })
                if *sender == *self.node =>
            {
                self.commands.push_back(PeerCommand::Refused(sequence, 0));
            }
            Some(
                PeerMessage::Envelope { to, sender, sequence, frames }
                | PeerMessage::Returned { to, sender, sequence, frames },
            ) => {
                let is_returned = matches!(message, Some(PeerMessage::Returned { .. }));
                let consignment = Consignment { to, frames, is_returned };
                if deliver(consignment, &|| Receipt { node: sender.into(), sequence }) {
                    session.receipts.note(to, sender, sequence, now);
                }
            }
            Some(PeerMessage::Bundle { sender, items }) => self.on_bundle(sender, items, now, deliver),
            Some(PeerMessage::Hello { user, place }) => self.on_hello(place, [user].into_iter(), now),
            Some(PeerMessage::Hellos { place, users }) => self.on_hello(place, envelope::users(users), now),
            Some(PeerMessage::Confirmations { place, sequences }) => {
                receipts::append(&mut self.confirmed, place.unwrap_or_default(), envelope::sequences(sequences));
            }
            Some(PeerMessage::Refusal { sequence, delivered }) => {
                self.commands.push_back(PeerCommand::Refused(sequence, delivered));
            }
            Some(PeerMessage::Probe(number)) => {
                if session.echo.on_back(number, now) {
                    self.commands.push_back(PeerCommand::News(PeerNews::Heard));
                }
            }
            Some(PeerMessage::GroupChanged(group)) => self.commands.push_back(PeerCommand::GroupChanged(group)),
            Some(PeerMessage::Devices { to, payload }) => {
                self.commands.extend(devices::read(&self.node, to, payload).map(PeerCommand::Devices));
            }
            None => log::debug!("a message about {topic} that no node writes"),
        }
    }

    /// Messages addressed to this place are for users who are only here, as far as the sender
    /// knows.
    fn on_bundle(&mut self, sender: &str, items: Items<'_>, now: Instant, deliver: &mut Deliver<'_>) {
        let Some(PeerSession { receipts, .. }) = &mut self.session else { return };
        for item in items {
            for (to, sequence) in item.envelopes() {
                if receipts.is_elsewhere(to, now) {
                    let refusal = envelope::refusal(sequence, 0);
                    self.commands.push_back(PeerCommand::Say(Topic::Node(sender.into()), refusal));
                    continue;
                }
                let consignment = Consignment { to, frames: item.frames, is_returned: false };
                if deliver(consignment, &|| Receipt { node: sender.into(), sequence }) {
                    receipts.note(to, sender, sequence, now);
                }
            }
        }
    }

    /// Users are announced at a place. If it is this one, the announcement has reached every node
    /// with a connection of theirs, so the waiters need not wait any longer.
    fn on_hello(&mut self, place: &str, users: impl Iterator<Item = UserId> + Clone, now: Instant) {
        let Some(session) = &mut self.session else { return };
        if *place == *session.place {
            let waiters = users.flat_map(|user| self.waiting.take(user)).collect();
            self.placed(waiters);
        } else {
            session.receipts.note_elsewhere(users.clone(), now);
            self.commands.extend(users.map(PeerCommand::Elsewhere));
        }
    }

    /// Executes the tasks from the rest of the node.
    pub(crate) fn do_tasks(&mut self, tasks: Vec<PeerTask<W>>, now: Instant) {
        let (mut arriving, mut leaving) = (Vec::new(), Vec::new());
        let mut in_doubt = false;
        for task in tasks {
            match task {
                PeerTask::Subscribe(user, waiter) => {
                    // In the order of the logins and logouts.
                    self.ignore(std::mem::take(&mut leaving), now);
                    arriving.push(user);
                    if let Some(waiter) = waiter {
                        self.waiting.add(user, waiter, now);
                    }
                }
                PeerTask::Unsubscribe(user) => {
                    self.listen(std::mem::take(&mut arriving));
                    leaving.push(user);
                }
                PeerTask::Refuse(Receipt { node, sequence }, delivered) => {
                    let refusal = envelope::refusal(sequence, delivered);
                    self.commands.push_back(PeerCommand::Say(Topic::Node(node), refusal));
                }
                PeerTask::Probe => in_doubt = true,
            }
        }
        self.ignore(leaving, now);
        self.listen(arriving);
        if in_doubt {
            self.doubt(now);
        }
    }

    /// Sends a new probe: one that is on its way says nothing about a failure after it.
    fn doubt(&mut self, now: Instant) {
        if let Some(session) = self.session.as_mut().filter(|session| session.is_up && session.hushes_by.is_none()) {
            session.is_in_doubt = true;
            self.probe(now);
        }
    }

    fn listen(&mut self, users: Vec<UserId>) {
        if !users.is_empty() {
            self.commands.push_back(PeerCommand::Listen(users.into_iter().map(Topic::User).collect()));
        }
    }

    fn ignore(&mut self, users: Vec<UserId>, now: Instant) {
        if users.is_empty() {
            return;
        }
        self.leaving.extend(&users);
        if let Some(session) = &mut self.session {
            // A user who comes back may have been elsewhere meanwhile, without this node knowing.
            session.receipts.note_elsewhere(users.iter().copied(), now);
        }
        self.commands.push_back(PeerCommand::Ignore(users));
    }

    /// Sends the confirmations, whether or not they are due.
    pub(crate) fn confirm(&mut self, now: Instant) {
        let Some(PeerSession { place, receipts, .. }) = &mut self.session else { return };
        for confirmation in receipts.take(now) {
            let place = confirmation.of_residents.then_some(&**place);
            for sequences in confirmation.sequences.chunks(RECEIPTS_AT_ONCE) {
                let topic = Topic::Node(confirmation.sender.clone());
                self.commands.push_back(PeerCommand::Say(topic, envelope::confirmations(place, sequences)));
            }
        }
    }

    /// Stops receiving. [`PeerNews::Hushed`] follows. Messages that others have sent meanwhile are
    /// refused, so that their senders need not wait for a timeout.
    pub(crate) fn hush(&mut self, now: Instant) {
        if let Some(session) = self.session.as_mut().filter(|session| session.hushes_by.is_none()) {
            session.hushes_by = Some(now + HUSH_PATIENCE);
            self.commands.push_back(PeerCommand::IgnoreAll);
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    ///
    /// [`Deaf`] if the connection must be given up.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Deaf> {
        let Some(session) = &self.session else { return Ok(()) };
        let hushes_by = session.hushes_by;
        if hushes_by.is_some() || session.receipts.next_due().is_some_and(|due| due <= now) {
            self.confirm(now);
        }
        // These clients do not wait any longer. Their messages arrive a little later.
        let late = self.waiting.take_late(now);
        self.placed(late);
        if let Some(by) = hushes_by {
            if by <= now {
                self.on_silence();
            }
            return Ok(());
        }
        self.look_at_probe(now)
    }

    fn look_at_probe(&mut self, now: Instant) -> Result<(), Deaf> {
        let number = self.sessions;
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.initial == 0 && !session.echo.has_begun() {
            self.say_who_is_here();
            self.probe(now);
            return Ok(());
        }
        match session.echo.look(now) {
            EchoDue::Wait => {}
            EchoDue::Deaf => return Err(Deaf),
            EchoDue::Send => {
                session.receipts.forget_expired(now);
                self.probe(now);
                return Ok(());
            }
        }
        if session.echo.is_back() {
            let was_in_doubt = std::mem::take(&mut session.is_in_doubt);
            if !std::mem::replace(&mut session.is_up, true) {
                self.commands.push_back(PeerCommand::News(PeerNews::Up { session: number }));
            } else if was_in_doubt {
                self.commands.push_back(PeerCommand::News(PeerNews::Resumed));
            }
        }
        Ok(())
    }

    /// Announces the users who were here before the connection was made, in few messages.
    fn say_who_is_here(&mut self) {
        let Some(PeerSession { place, rejoined, .. }) = &mut self.session else { return };
        let users: Vec<UserId> = rejoined.drain().collect();
        let hellos = users.chunks(USERS_AT_ONCE).map(|users| envelope::hellos(place, users));
        self.commands.extend(hellos.map(|hellos| PeerCommand::Say(Topic::Hellos, hellos)));
    }

    fn probe(&mut self, now: Instant) {
        let Some(PeerSession { echo, .. }) = &mut self.session else { return };
        let probe = envelope::probe(echo.send(now));
        self.commands.push_back(PeerCommand::Say(Topic::Node(self.node.clone()), probe));
    }

    fn placed(&mut self, waiters: Vec<W>) {
        if !waiters.is_empty() {
            self.commands.push_back(PeerCommand::Placed(waiters));
        }
    }

    /// The time of the next call of [`Peer::tick`] if nothing happens, apart from the probe.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        let session = self.session.as_ref();
        let of_session =
            session.and_then(|session| [session.receipts.next_due(), session.hushes_by].into_iter().flatten().min());
        self.waiting.next_due().into_iter().chain(of_session).min()
    }

    /// The time of the next call because of the probe, and whether a probe is on its way.
    pub(crate) fn next_probe(&self) -> Option<(Instant, bool)> {
        let session = self.session.as_ref().filter(|session| session.hushes_by.is_none())?;
        Some((session.echo.due(), !session.echo.is_back()))
    }
}

/// The most users in one message, and the most envelopes in one confirmation.
pub(in crate::bus) const USERS_AT_ONCE: usize = 500;
const RECEIPTS_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests;
