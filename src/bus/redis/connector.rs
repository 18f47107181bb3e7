//! [`RedisConnector`]: connects to Redis and waits for its sockets, for the thread that drives this
//! node's peer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::core::RedisCore;
use super::ended::SessionError;
use super::line::RedisLine;
use crate::bus::peer::Connector;

/// See the [module](self).
pub(super) struct RedisConnector {
    core: Arc<RedisCore>,
    poll: Poll,
    events: Events,
}

impl RedisConnector {
    /// `poll` must be the one that the core's waker wakes.
    pub(super) fn new(core: Arc<RedisCore>, poll: Poll) -> RedisConnector {
        RedisConnector { core, poll, events: Events::with_capacity(8) }
    }

    fn poll(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl Connector for RedisConnector {
    type Line = RedisLine;

    fn name(&self) -> String {
        format!("Redis at {}", self.core.dialer.address())
    }

    fn connect(&mut self) -> Result<RedisLine, SessionError> {
        let line = RedisLine::open(&self.core, self.poll.registry())?;
        self.core.state.take_loss();
        Ok(line)
    }

    fn wait(&mut self, line: &mut RedisLine, until: Instant) -> Result<(), SessionError> {
        line.give_sign(Instant::now());
        line.flush()?;
        let until = until.min(line.sign_due());
        let timeout = if line.is_ready() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        self.poll(timeout)?;
        self.events.iter().for_each(|event| line.on_event(event.token()));
        line.fill()?;
        Ok(())
    }

    fn flush(&mut self, line: &mut RedisLine) -> Result<bool, SessionError> {
        line.flush()?;
        Ok(line.is_answered())
    }

    fn rest(&mut self, until: Instant) {
        if let Err(error) = self.poll(until.saturating_duration_since(Instant::now())) {
            log::debug!("the bus cannot wait for events: {error}");
        }
    }
}
