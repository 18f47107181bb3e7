//! [`PeerDriver`]: a [`Peer`] between its node and a transport, and what a transport is: [`Line`] and [`Courier`].
//!
//! A transport hands on what is said about a topic to every node that listens to it, in the order in which one line has said
//! it, and may lose it. It calls the driver from one thread:
//!
//! ```text
//!   open ─▶ ( hear ─▶ do_tasks ─▶ tick )*  ─▶ close, rest*  ─▶ open …
//! ```

use std::sync::Arc;
use std::time::Instant;

use net::Turn;
use parking_lot::Mutex;

use super::{Consignment, Deaf, Peer, PeerCommand, PeerRules, PeerTasks, Post, Topic};
use crate::bus::{Node, Published};
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::session::Outcome;

/// One connection to the other nodes, which says and hears. It does not block: what cannot be sent at once waits in it. A
/// connection that fails says so in [`Line::next_event`], sooner or later.
pub(crate) trait Line {
    /// Why there is no connection any more.
    type Broken;

    /// From now on this node wants to hear these topics; for each, [`Event::Listening`] follows, in order.
    fn listen(&mut self, topics: &[Topic<&str>]);

    /// It no longer wants to hear of these users; for each, [`Event::Ignoring`] follows.
    fn ignore(&mut self, users: &[UserId]);

    /// It wants to hear nothing more. [`Event::Ignoring`] follows for each user, and then [`Event::Silence`].
    fn ignore_all(&mut self);

    /// Says something to all nodes that listen to the topic, this one included.
    fn say(&mut self, topic: Topic<&str>, payload: &[u8]);

    /// What has come; `None` when nothing more has come yet.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    fn next_event(&mut self) -> Result<Option<Event<'_>>, Self::Broken>;

    /// What the transport itself must know.
    fn on_news(&mut self, news: PeerNews);
}

/// The way on which envelopes are published. Any thread may call it.
pub(crate) trait Courier {
    /// Whether something that is published arrives, as far as is known.
    fn is_open(&self) -> bool;

    /// Publishes these posts in order, and says what became of each. Blocks, for at most a few seconds.
    ///
    /// # Errors
    /// When none of them was sent.
    fn post(&self, posts: &[Post<'_>]) -> Result<Vec<Published>, NotSent>;
}

/// What comes through a [`Line`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event<'e> {
    /// Somebody has said this.
    Said(Topic<&'e str>, &'e [u8]),
    /// This node hears the topic from now on.
    Listening(Topic<&'e str>),
    /// It no longer hears of this user.
    Ignoring(UserId),
    /// It hears nothing any more.
    Silence,
    /// A message for a user, from a node of the reference server.
    Bare(UserId, &'e str),
    /// Nothing that concerns a peer.
    Other,
}

/// What a transport must know of its own connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerNews {
    /// A probe has just come back.
    Heard,
    /// The other nodes can be published to: all that this node wants is subscribed to, and its first probe is back. It is
    /// the connection of this number.
    Up {
        /// Counted from 1.
        session: u64,
    },
    /// They can be published to again, after a command had failed.
    Resumed,
    /// Nothing more comes.
    Hushed,
}

/// Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotSent;

/// What this node tells the thread that drives its peer.
pub(crate) type NodeTasks = PeerTasks<Arc<ClientLink>>;

/// See the [module](self).
pub(crate) struct PeerDriver {
    peer: Peer<Arc<ClientLink>>,
    node: Arc<dyn Node>,
    turn: Turn<Posted>,
}

impl PeerDriver {
    /// Drives the peer of a node that is called `name`.
    pub(crate) fn new(name: &str, rules: PeerRules, node: Arc<dyn Node>, turn: Turn<Posted>) -> PeerDriver {
        PeerDriver { peer: Peer::new(name, rules), node, turn }
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.turn.begin(now);
        self.turn.run_errands();
    }

    /// There is a connection: everything that this node wants is subscribed to.
    pub(crate) fn open(&mut self, line: &mut impl Line, tasks: &Mutex<NodeTasks>, now: Instant) {
        // A user who comes or leaves after this is a task; one who has come before is in the list.
        let old = tasks.lock().connect();
        self.peer.drop_tasks(old);
        self.carry_out(line);
        let users = self.node.on_rejoined();
        self.peer.open(&users, now);
        self.carry_out(line);
    }

    /// Hands on all that has come.
    ///
    /// # Errors
    /// When the connection is of no use any more. What had come before is handed on.
    pub(crate) fn hear<L: Line>(&mut self, line: &mut L, now: Instant) -> Result<(), L::Broken> {
        let heard = self.hear_all(line, now);
        // What was handed to connections is written before anything that came after it.
        self.turn.flush();
        for (place, sequences) in self.peer.take_confirmed() {
            self.node.on_confirmed(place, sequences);
        }
        heard
    }

    fn hear_all<L: Line>(&mut self, line: &mut L, now: Instant) -> Result<(), L::Broken> {
        let PeerDriver { peer, node, turn } = self;
        while let Some(event) = line.next_event()? {
            match event {
                Event::Said(topic, payload) => peer.on_said(topic, payload, now, &mut |consignment, receipt| {
                    let Consignment { to, frames, is_returned } = consignment;
                    let is_with_user = match is_returned {
                        false => node.on_envelope(turn, to, frames, receipt),
                        true => node.on_returned(turn, to, frames, receipt),
                    };
                    turn.relieve();
                    is_with_user
                }),
                Event::Listening(topic) => peer.on_listening(topic),
                Event::Ignoring(user) => peer.on_ignored(user),
                Event::Silence => peer.on_silence(),
                Event::Bare(to, frame) => node.on_bare(turn, to, frame),
                Event::Other => {}
            }
            carry_out(peer, &**node, turn, line);
            turn.relieve();
        }
        Ok(())
    }

    /// Does what the rest of the node wants.
    pub(crate) fn do_tasks(&mut self, line: &mut impl Line, tasks: &Mutex<NodeTasks>, now: Instant) {
        let tasks = tasks.lock().take();
        self.peer.do_tasks(tasks, now);
        self.carry_out(line);
    }

    /// Confirms what has come, because the connection is about to be given up.
    pub(crate) fn confirm(&mut self, line: &mut impl Line, now: Instant) {
        self.peer.confirm(now);
        self.carry_out(line);
    }

    /// Nothing more shall come.
    pub(crate) fn hush(&mut self, line: &mut impl Line, now: Instant) {
        self.peer.hush(now);
        self.carry_out(line);
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`Deaf`] when the connection must be given up.
    pub(crate) fn tick(&mut self, line: &mut impl Line, now: Instant) -> Result<(), Deaf> {
        let ticked = self.peer.tick(now);
        self.carry_out(line);
        ticked
    }

    /// There is no connection, and nobody waits for one.
    pub(crate) fn close(&mut self, tasks: &Mutex<NodeTasks>) {
        let tasks = tasks.lock().disconnect();
        self.peer.close(tasks);
        self.carry_out(&mut NoLine);
    }

    /// When to come again if nothing happens, but for a probe.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        self.peer.next_due().into_iter().chain(self.next_errand()).min()
    }

    /// When to look at clients of this node again.
    pub(crate) fn next_errand(&self) -> Option<Instant> {
        self.turn.next_errand()
    }

    /// When to come again because of a probe, and whether that is under way.
    pub(crate) fn next_probe(&self) -> Option<(Instant, bool)> {
        self.peer.next_probe()
    }

    fn carry_out(&mut self, line: &mut impl Line) {
        carry_out(&mut self.peer, &*self.node, &mut self.turn, line);
    }
}

/// Has the transport and the node do what the peer wants.
fn carry_out(peer: &mut Peer<Arc<ClientLink>>, node: &dyn Node, turn: &mut Turn<Posted>, line: &mut impl Line) {
    while let Some(command) = peer.next_command() {
        match command {
            PeerCommand::Listen(topics) => line.listen(&topics.iter().map(Topic::as_ref).collect::<Vec<_>>()),
            PeerCommand::Ignore(users) => line.ignore(&users),
            PeerCommand::IgnoreAll => line.ignore_all(),
            PeerCommand::Say(topic, payload) => line.say(topic.as_ref(), &payload),
            PeerCommand::News(news) => {
                line.on_news(news);
                if let PeerNews::Up { .. } = news {
                    // Others may have taken this node for dead until now, and its users for offline.
                    node.on_rejoined();
                }
            }
            PeerCommand::Left(user) => node.on_left(user),
            PeerCommand::Elsewhere(user) => node.on_elsewhere(turn, user),
            PeerCommand::Refused(sequence, delivered) => node.on_refused(sequence, delivered),
            PeerCommand::GroupChanged(group) => node.on_group_changed(group),
            PeerCommand::Placed(waiters) => post_placed(waiters),
        }
    }
}

fn post_placed(waiters: Vec<Arc<ClientLink>>) {
    let posts = waiters.into_iter().map(|link| (link, Posted::Outcome(Outcome::Placed)));
    ClientLink::post_all(posts.collect());
}

/// Has users subscribed to, or tells a waiter at once that this cannot be; true if the thread that does it must be woken.
pub(crate) fn subscribe(tasks: &Mutex<NodeTasks>, user: UserId, waiter: Option<&Arc<ClientLink>>) -> bool {
    let added = tasks.lock().subscribe(user, waiter.cloned());
    added.unwrap_or_else(|waiter| {
        post_placed(waiter.into_iter().collect());
        false
    })
}

/// There is no connection. What would be said is said when there is one, or is not needed then.
struct NoLine;

impl Line for NoLine {
    type Broken = std::convert::Infallible;

    fn listen(&mut self, _: &[Topic<&str>]) {}

    fn ignore(&mut self, _: &[UserId]) {}

    fn ignore_all(&mut self) {}

    fn say(&mut self, _: Topic<&str>, _: &[u8]) {}

    fn next_event(&mut self) -> Result<Option<Event<'_>>, Self::Broken> {
        Ok(None)
    }

    fn on_news(&mut self, _: PeerNews) {}
}
