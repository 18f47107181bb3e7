//! [`PeerDriver`] connects a [`Peer`] to its node and to a transport. One thread calls the driver:
//!
//! ```text
//!   open ─▶ ( hear ─▶ do_tasks ─▶ tick )*  ─▶ close, rest*  ─▶ open …
//! ```

use std::sync::Arc;
use std::time::Instant;

use net::Turn;
use parking_lot::Mutex;

use super::tasks::PeerTasks;
use super::topic::Topic;
use super::transport::{Event, Line, PeerNews};
use super::{Consignment, Deaf, Peer, PeerCommand, PeerRules};
use crate::bus::Node;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;
use crate::session::Outcome;

/// Tasks from the node for the thread that drives its peer.
pub(crate) type NodeTasks = PeerTasks<Arc<ClientLink>>;

/// See the [module](self).
pub(crate) struct PeerDriver {
    peer: Peer<Arc<ClientLink>>,
    node: Arc<dyn Node>,
    turn: Turn<Posted>,
}

impl PeerDriver {
    /// Drives the peer of the node with this name.
    pub(crate) fn new(name: &str, rules: PeerRules, node: Arc<dyn Node>, turn: Turn<Posted>) -> PeerDriver {
        PeerDriver { peer: Peer::new(name, rules), node, turn }
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.turn.begin(now);
        self.turn.run_errands();
    }

    /// A connection is open: subscribes for everything that this node wants.
    pub(crate) fn open(&mut self, line: &mut impl Line, tasks: &Mutex<NodeTasks>, now: Instant) {
        // Later logins and logouts are queued as tasks; earlier logins are in the list.
        let old = tasks.lock().connect();
        self.peer.drop_tasks(old);
        self.carry_out(line);
        let users = self.node.on_rejoined();
        self.peer.open(&users, now);
        self.carry_out(line);
    }

    /// Handles all events that have arrived.
    ///
    /// # Errors
    ///
    /// If the connection can no longer be used. Events that arrived before are handled.
    pub(crate) fn hear<L: Line>(&mut self, line: &mut L, now: Instant) -> Result<(), L::Broken> {
        let heard = self.hear_all(line, now);
        // Earlier messages are written to the connections before anything later is handled.
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

    /// Executes the tasks from the rest of the node.
    pub(crate) fn do_tasks(&mut self, line: &mut impl Line, tasks: &Mutex<NodeTasks>, now: Instant) {
        let tasks = tasks.lock().take();
        self.peer.do_tasks(tasks, now);
        self.carry_out(line);
    }

    /// Sends the confirmations, because the connection is about to be given up.
    pub(crate) fn confirm(&mut self, line: &mut impl Line, now: Instant) {
        self.peer.confirm(now);
        self.carry_out(line);
    }

    /// Stops receiving.
    pub(crate) fn hush(&mut self, line: &mut impl Line, now: Instant) {
        self.peer.hush(now);
        self.carry_out(line);
    }

    /// Does what is due.
    ///
    /// # Errors
    ///
    /// [`Deaf`] if the connection must be given up.
    pub(crate) fn tick(&mut self, line: &mut impl Line, now: Instant) -> Result<(), Deaf> {
        let ticked = self.peer.tick(now);
        self.carry_out(line);
        ticked
    }

    /// There is no connection, so no waiter waits any longer.
    pub(crate) fn close(&mut self, tasks: &Mutex<NodeTasks>) {
        let tasks = tasks.lock().disconnect();
        self.peer.close(tasks);
        self.carry_out(&mut NoLine);
    }

    /// When to call again if nothing happens, apart from the probe.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        self.peer.next_due().into_iter().chain(self.next_errand()).min()
    }

    /// When to look at clients of this node again.
    pub(crate) fn next_errand(&self) -> Option<Instant> {
        self.turn.next_errand()
    }

    /// When to call again because of the probe, and whether a probe is on its way.
    pub(crate) fn next_probe(&self) -> Option<(Instant, bool)> {
        self.peer.next_probe()
    }

    fn carry_out(&mut self, line: &mut impl Line) {
        carry_out(&mut self.peer, &*self.node, &mut self.turn, line);
    }
}

/// Lets the transport and the node execute the peer's commands.
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
                    // Until now other nodes may have taken this node for dead, and its users for
                    // offline.
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

/// Queues a subscription, or notifies the waiter immediately if that is impossible. Returns true if
/// the thread that does it must be woken.
pub(crate) fn subscribe(tasks: &Mutex<NodeTasks>, user: UserId, waiter: Option<&Arc<ClientLink>>) -> bool {
    let added = tasks.lock().subscribe(user, waiter.cloned());
    added.unwrap_or_else(|waiter| {
        post_placed(waiter.into_iter().collect());
        false
    })
}

/// Stands in while there is no connection: messages are published after the reconnect, or are not
/// needed then.
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
