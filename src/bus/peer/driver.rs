//! [`PeerDriver`] connects a [`Peer`] to its node and to a transport. One thread calls the driver:
//!
//! ```text
//!   open ─▶ turn* ─▶ close ─▶ rest* ─▶ open …
//! ```

use std::sync::Arc;
use std::time::Instant;

use net::Turn;

use super::echo::Deaf;
use super::shared::{BusStage, PeerShared, post_placed};
use super::topic::Topic;
use super::transport::{PeerLine, PeerNews, TransportEvent};
use super::{Consignment, Peer, PeerCommand, PeerRules};
use crate::base::clock::Clock;
use crate::bus::Node;
use crate::delivery::{ClientLink, Posted};
use crate::protocol::UserId;

/// See the [module](self).
pub(crate) struct PeerDriver {
    peer: Peer<Arc<ClientLink>>,
    shared: Arc<PeerShared>,
    node: Arc<dyn Node>,
    turn: Turn<Posted>,
}

impl PeerDriver {
    /// Drives the peer of this node.
    pub(crate) fn new(
        shared: Arc<PeerShared>,
        rules: PeerRules,
        node: Arc<dyn Node>,
        turn: Turn<Posted>,
    ) -> PeerDriver {
        PeerDriver { peer: Peer::new(shared.node(), rules), shared, node, turn }
    }

    /// A connection is open: subscribes for everything that this node wants.
    pub(crate) fn open(&mut self, line: &mut impl PeerLine, now: Instant) {
        // Later logins and logouts are queued as tasks; earlier logins are in the list.
        let old = self.shared.tasks().lock().connect();
        self.peer.drop_tasks(old);
        self.carry_out(line);
        let users = self.node.on_rejoined();
        self.peer.open(&users, now);
        self.carry_out(line);
    }

    /// Handles everything that has arrived, executes the tasks, and does what is due.
    ///
    /// # Errors
    ///
    /// If the connection must be given up. Commands before that are still sent, if possible.
    pub(crate) fn turn<L: PeerLine>(&mut self, line: &mut L, clock: &Clock) -> Result<(), L::Broken> {
        let now = clock.now();
        self.begin(now);
        self.hear(line, now)?;
        let tasks = self.shared.tasks().lock().take();
        self.peer.do_tasks(tasks, clock.now());
        self.carry_out(line);
        let now = clock.now();
        if let Some(doubt) = line.take_doubt() {
            // Received messages are confirmed before the line is given up, so that they are not
            // sent again.
            self.peer.confirm(now);
            self.carry_out(line);
            return Err(doubt);
        }
        let ticked = self.peer.tick(now);
        self.carry_out(line);
        ticked?;
        if self.shared.stage() >= BusStage::Hushing {
            self.peer.hush(now);
            self.carry_out(line);
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant) {
        self.turn.begin(now);
        self.turn.run_errands();
    }

    /// Handles all events that have arrived. Those before an error are handled too.
    fn hear<L: PeerLine>(&mut self, line: &mut L, now: Instant) -> Result<(), L::Broken> {
        let heard = self.hear_all(line, now);
        // Earlier messages are written to the connections before anything later is handled.
        self.turn.flush();
        for (place, sequences) in self.peer.take_confirmed() {
            self.node.on_confirmed(place, sequences);
        }
        heard
    }

    fn hear_all<L: PeerLine>(&mut self, line: &mut L, now: Instant) -> Result<(), L::Broken> {
        let PeerDriver { peer, shared, node, turn } = self;
        while let Some(event) = line.next_event()? {
            match event {
                TransportEvent::Said(topic, payload) => {
                    peer.on_said(topic, payload, now, &mut |consignment, receipt| {
                        let Consignment { to, frames, is_returned } = consignment;
                        let is_with_user = match is_returned {
                            false => node.on_envelope(turn, to, frames, receipt),
                            true => node.on_returned(turn, to, frames, receipt),
                        };
                        turn.relieve();
                        is_with_user
                    })
                }
                TransportEvent::Listening(topic) => peer.on_listening(topic),
                TransportEvent::Ignoring(user) => peer.on_ignored(user),
                TransportEvent::Missed(user) => peer.on_missed(user, now),
                TransportEvent::Silence => peer.on_silence(),
                TransportEvent::Bare(to, frame) => node.on_bare(turn, to, frame),
                TransportEvent::Other => {}
            }
            carry_out(peer, shared, &**node, turn, line);
            turn.relieve();
        }
        Ok(())
    }

    /// There is no connection, so no waiter waits any longer.
    pub(crate) fn close(&mut self) {
        self.shared.on_closed();
        let tasks = self.shared.tasks().lock().disconnect();
        self.peer.close(tasks);
        self.carry_out(&mut NoLine);
    }

    /// One turn without a connection.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.close();
        self.begin(now);
    }

    /// Whether publishing to the other nodes was possible on this connection.
    pub(crate) fn was_up(&self) -> bool {
        self.peer.was_up()
    }

    /// Whether this node stops receiving.
    #[cfg(test)]
    pub(crate) fn is_hushing(&self) -> bool {
        self.peer.is_hushing()
    }

    /// The time of the next call if nothing happens, apart from the probe.
    pub(crate) fn next_due(&mut self) -> Option<Instant> {
        self.peer.next_due().into_iter().chain(self.next_errand()).min()
    }

    /// The time at which to check clients of this node again.
    pub(crate) fn next_errand(&self) -> Option<Instant> {
        self.turn.next_errand()
    }

    /// The time of the next call because of the probe, and whether a probe is on its way.
    pub(crate) fn next_probe(&self) -> Option<(Instant, bool)> {
        self.peer.next_probe()
    }

    fn carry_out(&mut self, line: &mut impl PeerLine) {
        carry_out(&mut self.peer, &self.shared, &*self.node, &mut self.turn, line);
    }
}

/// Lets the transport and the node execute the peer's commands.
fn carry_out(
    peer: &mut Peer<Arc<ClientLink>>,
    shared: &PeerShared,
    node: &dyn Node,
    turn: &mut Turn<Posted>,
    line: &mut impl PeerLine,
) {
    while let Some(command) = peer.next_command() {
        match command {
            PeerCommand::Listen(topics) => line.listen(&topics.iter().map(Topic::as_ref).collect::<Vec<_>>()),
            PeerCommand::Ignore(users) => line.ignore(&users),
            PeerCommand::IgnoreAll => line.ignore_all(),
            PeerCommand::Say(topic, payload) => line.say(topic.as_ref(), &payload),
            PeerCommand::News(news) => {
                // The transport first: it is ready when the gate opens.
                line.on_news(news);
                match news {
                    PeerNews::Heard => {}
                    PeerNews::Up { .. } => {
                        shared.on_open();
                        // Until now other nodes may have taken this node for dead, and its users
                        // for offline.
                        node.on_rejoined();
                    }
                    PeerNews::Resumed => shared.on_open(),
                    PeerNews::Hushed => shared.advance(BusStage::Hushed),
                }
            }
            PeerCommand::Left(user) => node.on_left(user),
            PeerCommand::Elsewhere(user) => node.on_elsewhere(turn, user),
            PeerCommand::Refused(sequence, delivered) => node.on_refused(sequence, delivered),
            PeerCommand::GroupChanged(group) => node.on_group_changed(group),
            PeerCommand::Devices(news) => node.on_device_news(news),
            PeerCommand::Placed(waiters) => post_placed(waiters),
        }
    }
}

/// Stands in for a line while there is no connection: its messages are published after the
/// reconnect, or are not needed then.
struct NoLine;

impl PeerLine for NoLine {
    type Broken = Deaf;

    fn listen(&mut self, _: &[Topic<&str>]) {}

    fn ignore(&mut self, _: &[UserId]) {}

    fn ignore_all(&mut self) {}

    fn say(&mut self, _: Topic<&str>, _: &[u8]) {}

    fn next_event(&mut self) -> Result<Option<TransportEvent<'_>>, Self::Broken> {
        Ok(None)
    }

    fn take_doubt(&mut self) -> Option<Self::Broken> {
        None
    }

    fn on_news(&mut self, _: PeerNews) {}
}
