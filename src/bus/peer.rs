//! [`Peer`]: the protocol between the nodes of a cluster, without sockets, threads or a clock.
//!
//! Events and the time go in, [`PeerCommand`]s come out, and waiters are tickets of any type.
//! [`PeerDriver`] drives it over any [`Transport`]: Redis (`bus/redis`), the simulated wires, and
//! the transport in memory of the tests.
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

mod deadline;
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
mod shared;
mod tasks;
mod thread;
mod topic;
mod transport;
mod waiting;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

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
pub(crate) use self::shared::{BusStage, PeerShared};
use self::tasks::PeerTask;
pub(in crate::bus) use self::thread::{Connector, PeerThread};
pub(crate) use self::topic::Topic;
pub(crate) use self::transport::{NotSent, PeerLine, PeerNews, Post, Reached, Transport, TransportEvent};
use self::waiting::Waiting;
use super::{Place, Receipt};
use crate::protocol::{GroupId, UserId};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Peer<W> {
    node: Box<str>,
    rules: PeerRules,
    /// Waiters until the other nodes know of a user.
    waiting: Waiting<W>,
    /// Users who were unsubscribed, and for whom messages may still arrive.
    leaving: FxHashSet<UserId>,
    /// The number of connections until now.
    sessions: u64,
    /// While there is a connection.
    session: Option<PeerSession>,
    commands: VecDeque<PeerCommand<W>>,
    /// Envelopes of this node that others have delivered, by the place that confirms them; the name
    /// is empty if the user is not at a single place.
    confirmed: FxHashMap<Box<str>, Vec<u64>>,
}

/// How long a peer relies on what it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerRules {
    /// How long a user who has logged in at another place counts as being there.
    pub(crate) elsewhere_for: Duration,
}

impl Default for PeerRules {
    fn default() -> PeerRules {
        // Longer than any node relies on a place that has confirmed before the user logged in
        // elsewhere.
        PeerRules { elsewhere_for: PLACE_LEASE.saturating_mul(2) }
    }
}

/// The state of one connection.
#[derive(Debug)]
struct PeerSession {
    /// The node's name during this connection. While the connection lasts, the node misses nothing,
    /// and knows which of its users are elsewhere.
    place: Place,
    /// Users who were here already: they are subscribed again, and then all of them are announced.
    rejoined: FxHashSet<UserId>,
    /// Pending answers until all users are subscribed.
    initial: usize,
    echo: Echo,
    /// Whether the first probe has come back.
    is_up: bool,
    /// A command has failed, and the probe that was sent then has not come back yet.
    is_in_doubt: bool,
    receipts: Receipts,
    /// The node shuts down, and waits for arriving messages until this time at most.
    hushes_by: Option<Instant>,
}

/// Commands, to be executed in this order.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum PeerCommand<W> {
    /// To the transport: subscribe to these topics.
    Listen(Vec<Topic<Box<str>>>),
    /// To the transport: unsubscribe these users.
    Ignore(Vec<UserId>),
    /// To the transport: unsubscribe everything, and report when no more messages arrive.
    IgnoreAll,
    /// To the transport: publish this.
    Say(Topic<Box<str>>, Vec<u8>),
    /// To the transport and its node.
    News(PeerNews),
    /// To the node: no more messages arrive for the user.
    Left(UserId),
    /// To the node: the user has logged in at another place.
    Elsewhere(UserId),
    /// To the node: this number of messages of the envelope were delivered, and the rest was not.
    Refused(u64, usize),
    /// To the node: the members of a group have changed.
    GroupChanged(GroupId),
    /// These waiters need not wait any longer.
    Placed(Vec<W>),
}

/// Messages that have arrived for a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Consignment<'b> {
    /// The user they are for.
    pub(crate) to: UserId,
    pub(crate) frames: Frames<'b>,
    /// A dead connection of another node has returned them, see
    /// [`Node::on_returned`](super::Node::on_returned).
    pub(crate) is_returned: bool,
}

/// Takes messages for a user; false if not all are written to the user's connection.
pub(crate) type Deliver<'d> = dyn FnMut(Consignment<'_>, &dyn Fn() -> Receipt) -> bool + 'd;

impl<W> Peer<W> {
    /// A node without a connection.
    pub(crate) fn new(node: &str, rules: PeerRules) -> Peer<W> {
        Peer {
            node: node.into(),
            rules,
            waiting: Waiting::new(),
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
        let own = [Topic::Node(self.node.clone()), Topic::Groups, Topic::Hellos, Topic::Place((&*place).into())];
        self.session = Some(PeerSession {
            place,
            rejoined: users.iter().copied().collect(),
            initial: own.len() + users.len(),
            echo: Echo::new(now),
            is_up: false,
            is_in_doubt: false,
            receipts: Receipts::new(self.rules.elsewhere_for, now),
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

    /// Drops tasks from before the connection. Later logins are in the list of users, and users who
    /// have left are not. A stale unsubscribe would undo a newer login.
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

    /// Sends a new probe: one that is on its way says nothing about a later failure.
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

    /// Announces, in few messages, the users who were here before the connection was made.
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

    /// When [`Peer::tick`] must be called next if nothing happens, apart from the probe.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        let session = self.session.as_ref();
        let of_session =
            session.and_then(|session| [session.receipts.next_due(), session.hushes_by].into_iter().flatten().min());
        self.waiting.next_due().into_iter().chain(of_session).min()
    }

    /// When it must be called because of the probe, and whether a probe is on its way.
    pub(crate) fn next_probe(&self) -> Option<(Instant, bool)> {
        let session = self.session.as_ref().filter(|session| session.hushes_by.is_none())?;
        Some((session.echo.due(), !session.echo.is_back()))
    }
}

/// The most users in one message, and the most envelopes confirmed in one.
pub(in crate::bus) const USERS_AT_ONCE: usize = 500;
const RECEIPTS_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer whose waiters are tickets, and its commands.
    struct Bench {
        peer: Peer<&'static str>,
        now: Instant,
        /// Users with a connection here.
        here: Vec<UserId>,
        /// The messages delivered to them.
        delivered: Vec<(UserId, String)>,
    }

    type TicketCommand = PeerCommand<&'static str>;

    impl Bench {
        fn new() -> Bench {
            let peer = Peer::new("me", PeerRules::default());
            Bench { peer, now: Instant::now(), here: Vec::new(), delivered: Vec::new() }
        }

        /// A peer that is subscribed for its users, and whose probe has come back.
        fn up(users: &[UserId]) -> Bench {
            let mut bench = Bench { here: users.to_vec(), ..Bench::new() };
            bench.peer.open(users, bench.now);
            bench.listen_to_all();
            bench.peer.tick(bench.now).expect("it is in time");
            bench.said(Topic::Node("me"), b"p 1");
            bench.peer.tick(bench.now).expect("it is in time");
            bench.commands();
            bench
        }

        fn commands(&mut self) -> Vec<TicketCommand> {
            std::iter::from_fn(|| self.peer.next_command()).collect()
        }

        /// The messages that it publishes.
        fn says(&mut self) -> Vec<(String, String)> {
            let say = |command| match command {
                PeerCommand::Say(topic, payload) => {
                    Some((topic.to_string(), String::from_utf8(payload).expect("text")))
                }
                _ => None,
            };
            self.commands().into_iter().filter_map(say).collect()
        }

        /// Confirms all its subscriptions, in order.
        fn listen_to_all(&mut self) -> Vec<String> {
            let mut topics = Vec::new();
            for command in self.commands() {
                if let PeerCommand::Listen(listened) = command {
                    listened.iter().for_each(|topic| self.peer.on_listening(topic.as_ref()));
                    topics.extend(listened.iter().map(Topic::to_string));
                }
            }
            topics
        }

        fn said(&mut self, topic: Topic<&str>, payload: &[u8]) {
            let Bench { peer, now, here, delivered } = self;
            peer.on_said(topic, payload, *now, &mut |Consignment { to, frames, .. }, _| {
                let is_here = here.contains(&to);
                if is_here {
                    delivered.push((to, frames.collect::<Vec<_>>().join("\n")));
                }
                is_here
            });
        }

        fn after(&mut self, pause: Duration) -> Result<(), Deaf> {
            self.now += pause;
            self.peer.tick(self.now)
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
    }

    const ALICE: UserId = UserId(1);
    const BOB: UserId = UserId(2);

    #[test]
    fn a_node_that_connects_says_who_is_here_before_its_probe() {
        let mut bench = Bench::new();
        bench.peer.open(&[ALICE, BOB], bench.now);
        assert_eq!(bench.listen_to_all(), ["n:me", "g", "h", "p:me-1", "u:1", "u:2"]);
        bench.peer.tick(bench.now).expect("it is in time");
        let said = bench.says();
        assert!(
            said == pairs(&[("h", "me-1 1,2"), ("n:me", "p 1")])
                || said == pairs(&[("h", "me-1 2,1"), ("n:me", "p 1")])
        );
        bench.said(Topic::Node("me"), b"p 1");
        bench.peer.tick(bench.now).expect("it is in time");
        let up = [PeerCommand::News(PeerNews::Heard), PeerCommand::News(PeerNews::Up { session: 1 })];
        assert_eq!(bench.commands(), up);
        // The next connection makes it another place.
        bench.peer.close(Vec::new());
        bench.peer.open(&[], bench.now);
        assert_eq!(bench.listen_to_all(), ["n:me", "g", "h", "p:me-2"]);
    }

    #[test]
    fn a_login_waits_for_its_own_hello() {
        let mut bench = Bench::up(&[]);
        bench.peer.do_tasks(vec![PeerTask::Subscribe(ALICE, Some("alice"))], bench.now);
        assert_eq!(bench.commands(), [PeerCommand::Listen(vec![Topic::User(ALICE)])]);
        bench.peer.on_listening(Topic::User(ALICE));
        assert_eq!(bench.says(), pairs(&[("u:1", "h me-1")]));
        bench.said(Topic::User(ALICE), b"h me-1");
        assert_eq!(bench.commands(), [PeerCommand::Placed(vec!["alice"])]);
    }

    #[test]
    fn an_envelope_is_confirmed_with_the_place_unless_the_user_is_elsewhere_too() {
        let mut bench = Bench::up(&[ALICE, BOB]);
        bench.said(Topic::User(BOB), b"h other-1");
        assert_eq!(bench.commands(), [PeerCommand::Elsewhere(BOB)]);
        bench.said(Topic::User(ALICE), b"1 other 7\n{}");
        bench.said(Topic::User(BOB), b"1 other 8\n{}\n[]");
        bench.after(Duration::from_millis(1)).expect("it is in time");
        assert_eq!(bench.says(), pairs(&[("n:other", "c me-1 7"), ("n:other", "c - 8")]));
        assert_eq!(bench.delivered, [(ALICE, "{}".to_owned()), (BOB, "{}\n[]".to_owned())]);
        // Envelopes for this place alone: one of the users is also elsewhere.
        bench.said(Topic::Place("me-1"), b"1 other\n1 1:9,2:10\n{}");
        assert_eq!(bench.says(), pairs(&[("n:other", "r 10 0")]));
        bench.after(PeerRules::default().elsewhere_for).unwrap_or_default();
        bench.said(Topic::Place("me-1"), b"1 other\n1 2:11\n{}");
        assert_eq!(bench.delivered.len(), 4, "everybody knows by now");
    }

    #[test]
    fn an_envelope_that_finds_nobody_is_neither_confirmed_nor_refused_by_the_peer() {
        let mut bench = Bench::up(&[]);
        bench.said(Topic::User(ALICE), b"1 other 7\n{}");
        bench.after(Duration::from_millis(1)).expect("it is in time");
        assert_eq!(bench.says(), [], "the node refuses it when it may");
        bench.peer.do_tasks(vec![PeerTask::Refuse(Receipt { node: "other".into(), sequence: 7 }, 0)], bench.now);
        assert_eq!(bench.says(), pairs(&[("n:other", "r 7 0")]));
    }

    #[test]
    fn users_who_come_and_leave_do_so_in_order_and_one_who_leaves_may_be_elsewhere() {
        let mut bench = Bench::up(&[ALICE]);
        let tasks = vec![
            PeerTask::Unsubscribe(ALICE),
            PeerTask::Subscribe(ALICE, None),
            PeerTask::Subscribe(BOB, None),
            PeerTask::Unsubscribe(BOB),
        ];
        bench.peer.do_tasks(tasks, bench.now);
        let expected: [TicketCommand; 3] = [
            PeerCommand::Ignore(vec![ALICE]),
            PeerCommand::Listen(vec![Topic::User(ALICE), Topic::User(BOB)]),
            PeerCommand::Ignore(vec![BOB]),
        ];
        assert_eq!(bench.commands(), expected);
        bench.peer.on_ignored(ALICE);
        assert_eq!(bench.commands(), [PeerCommand::Left(ALICE)]);
        bench.said(Topic::Place("me-1"), b"1 other\n1 1:9\n{}");
        assert_eq!(bench.says(), pairs(&[("n:other", "r 9 0")]), "nobody here has heard where the user was meanwhile");
        // For a closed connection there are no more answers.
        let late = UserId(3);
        bench.peer.close(vec![PeerTask::Subscribe(ALICE, Some("alice")), PeerTask::Unsubscribe(late)]);
        let expected = [PeerCommand::Left(BOB), PeerCommand::Placed(vec!["alice"]), PeerCommand::Left(late)];
        assert_eq!(bench.commands(), expected);
    }

    #[test]
    fn a_probe_that_does_not_come_back_ends_the_connection_and_one_that_does_ends_a_doubt() {
        let mut bench = Bench::up(&[]);
        bench.peer.do_tasks(vec![PeerTask::Probe], bench.now);
        assert_eq!(bench.says(), pairs(&[("n:me", "p 2")]));
        bench.said(Topic::Node("me"), b"p 2");
        bench.peer.tick(bench.now).expect("it is in time");
        assert_eq!(bench.commands(), [PeerCommand::News(PeerNews::Heard), PeerCommand::News(PeerNews::Resumed)]);
        bench.after(Duration::from_secs(2)).expect("the next one is sent");
        assert_eq!(bench.says(), pairs(&[("n:me", "p 3")]));
        assert_eq!(bench.after(Duration::from_secs(2)), Err(Deaf));
    }

    #[test]
    fn a_node_that_hushes_confirms_at_once_and_does_not_wait_for_long() {
        let mut bench = Bench::up(&[ALICE]);
        bench.peer.hush(bench.now);
        assert_eq!(bench.commands(), [PeerCommand::IgnoreAll]);
        bench.said(Topic::User(ALICE), b"1 other 7\n{}");
        bench.said(Topic::User(ALICE), b"1 other 8\n{}");
        bench.peer.tick(bench.now).expect("it needs no probe");
        assert_eq!(bench.says(), pairs(&[("n:other", "c me-1 7 8")]));
        bench.after(HUSH_PATIENCE).expect("it needs no probe");
        assert_eq!(bench.commands(), [PeerCommand::News(PeerNews::Hushed)]);
    }

    #[test]
    fn logins_elsewhere_are_forgotten_when_they_expire() {
        let mut bench = Bench::up(&[BOB]);
        bench.said(Topic::User(BOB), b"h other-1");
        let remembered = |bench: &Bench| bench.peer.session.as_ref().map(|session| session.receipts.remembered());
        let expired = bench.now + PeerRules::default().elsewhere_for;
        let mut probe = 1;
        while bench.now < expired {
            assert_eq!(remembered(&bench), Some(1));
            bench.after(Duration::from_secs(2)).expect("the last probe has come back");
            probe += 1;
            bench.said(Topic::Node("me"), format!("p {probe}").as_bytes());
        }
        assert_eq!(remembered(&bench), Some(0));
    }

    #[test]
    fn answers_to_this_node_are_handed_on() {
        let mut bench = Bench::up(&[]);
        for payload in [&b"c other-1 1 2"[..], b"c other-1 3", b"c - 4", b"r 5 1"] {
            bench.said(Topic::Node("me"), payload);
        }
        bench.said(Topic::User(ALICE), b"1 me 6\n{}");
        bench.said(Topic::Groups, b"9");
        let expected: [TicketCommand; 3] =
            [PeerCommand::Refused(5, 1), PeerCommand::Refused(6, 0), PeerCommand::GroupChanged(GroupId(9))];
        assert_eq!(bench.commands(), expected);
        let mut confirmed: Vec<_> = bench.peer.take_confirmed().collect();
        confirmed.sort();
        assert_eq!(confirmed, [(None, vec![4]), (Some("other-1".into()), vec![1, 2, 3])]);
    }

    #[test]
    fn nobody_waits_for_a_connection_that_is_gone_or_for_longer_than_a_login_may_take() {
        let mut bench = Bench::up(&[]);
        let login = || vec![PeerTask::Subscribe(ALICE, Some("alice"))];
        bench.peer.do_tasks(login(), bench.now);
        bench.commands();
        let due = bench.peer.next_due().expect("somebody waits");
        bench.after(due - bench.now).expect("it is in time");
        assert_eq!(bench.commands(), [PeerCommand::Placed(vec!["alice"])], "the client would not wait longer");
        bench.peer.do_tasks(login(), bench.now);
        bench.commands();
        bench.peer.close(Vec::new());
        assert_eq!(bench.commands(), [PeerCommand::Placed(vec!["alice"])]);
    }

    #[test]
    fn an_envelope_for_nobody_in_a_bundle_is_not_confirmed() {
        let mut bench = Bench::up(&[]);
        bench.said(Topic::Place("me-1"), b"1 other\n1 1:9\n{}");
        bench.after(Duration::from_millis(1)).expect("it is in time");
        assert_eq!(bench.says(), []);
    }

    #[test]
    fn a_node_probes_only_when_it_hears_all_that_it_wants_to_hear() {
        let mut bench = Bench::new();
        bench.peer.open(&[ALICE], bench.now);
        bench.commands();
        for topic in [Topic::Node("me"), Topic::Groups, Topic::Hellos, Topic::Place("me-1")] {
            bench.peer.on_listening(topic);
        }
        bench.peer.do_tasks(vec![PeerTask::Probe], bench.now);
        bench.peer.tick(bench.now).expect("it is in time");
        assert_eq!(bench.says(), [], "it would say that it is up");
    }

    #[test]
    fn many_users_are_said_to_be_here_in_several_messages() {
        let users: Vec<UserId> = (1..=USERS_AT_ONCE as i32 + 1).map(UserId).collect();
        let mut bench = Bench::new();
        bench.peer.open(&users, bench.now);
        bench.listen_to_all();
        bench.peer.tick(bench.now).expect("it is in time");
        let said = bench.says();
        let named = |payload: &str| payload.split_once(' ').expect("a place and users").1.split(',').count();
        let hellos = said.iter().filter(|(topic, _)| topic == "h").map(|(_, payload)| named(payload));
        assert_eq!(hellos.collect::<Vec<_>>(), [USERS_AT_ONCE, 1]);
    }

    #[test]
    fn a_node_that_hushes_waits_for_what_is_on_its_way_confirms_without_a_pause_and_needs_no_probe() {
        let mut bench = Bench::up(&[ALICE]);
        bench.peer.hush(bench.now);
        bench.commands();
        for payload in [&b"1 other 7\n{}"[..], b"1 other 8\n{}"] {
            bench.said(Topic::User(ALICE), payload);
            bench.peer.tick(bench.now).expect("it needs no probe");
            let commands = bench.commands();
            assert!(matches!(commands[..], [PeerCommand::Say(..)]), "{commands:?}");
        }
        assert_eq!(bench.peer.next_probe(), None);
    }
}
