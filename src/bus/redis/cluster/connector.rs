//! [`ClusterConnector`]: connects to the primaries of a Redis Cluster and waits for their sockets,
//! for the thread that drives this node's peer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::core::ClusterCore;
use super::line::ClusterLine;
use crate::bus::peer::{Connector, PeerRules};
use crate::bus::redis::ended::SessionError;

/// See the [module](self).
pub(super) struct ClusterConnector {
    core: Arc<ClusterCore>,
    name: String,
    poll: Poll,
    events: Events,
}

impl ClusterConnector {
    /// `poll` must be the one that wakes the core's peer.
    pub(super) fn new(core: Arc<ClusterCore>, name: String, poll: Poll) -> ClusterConnector {
        ClusterConnector { core, name, poll, events: Events::with_capacity(64) }
    }

    fn poll(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl Connector for ClusterConnector {
    type Line = ClusterLine;

    /// The channels of a user and of a place may be on different primaries, in no common order.
    fn rules() -> PeerRules {
        PeerRules { names_places: false, ..PeerRules::default() }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn connect(&mut self) -> Result<ClusterLine, SessionError> {
        let line = ClusterLine::open(&self.core, self.poll.registry())?;
        self.core.state.take_loss();
        Ok(line)
    }

    fn wait(&mut self, line: &mut ClusterLine, until: Instant) -> Result<(), SessionError> {
        line.flush()?;
        let until = line.sign_due().map_or(until, |due| due.min(until));
        let timeout = if line.is_ready() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        self.poll(timeout)?;
        self.events.iter().for_each(|event| line.on_event(event.token()));
        line.fill()
    }

    fn flush(&mut self, line: &mut ClusterLine) -> Result<bool, SessionError> {
        line.flush()?;
        Ok(line.is_answered())
    }

    fn rest(&mut self, until: Instant) {
        if let Err(error) = self.poll(until.saturating_duration_since(Instant::now())) {
            log::debug!("the bus cannot wait for events: {error}");
        }
    }
}
