//! [`RedisLine`]: two connections to Redis as one [`PeerLine`], because a connection that
//! subscribes may not publish.
//!
//! ```text
//!   ears   SUBSCRIBE ▶   ◀ what others have published
//!   mouth  PUBLISH ▶     answers that nobody waits for
//! ```

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use super::core::RedisCore;
use super::dial::Stream;
use super::ended::SessionError;
use super::names::Channel;
use super::wire::{RedisReply, RedisWire};
use crate::bus::peer::{PeerLine, PeerNews, Topic, TransportEvent, USERS_AT_ONCE};
use crate::protocol::UserId;

/// See the [module](self).
pub(super) struct RedisLine {
    shared: Arc<RedisCore>,
    ears: RedisWire<Stream>,
    mouth: RedisWire<Stream>,
    /// Whether more may be readable though no event will report it.
    ears_ready: bool,
    mouth_ready: bool,
    /// The time at which the connection for publishing needs traffic, so that Redis does not close
    /// it as idle.
    sign_due: Instant,
}

impl RedisLine {
    /// Connects. Blocks, for a few seconds at most.
    pub(super) fn open(shared: &Arc<RedisCore>, registry: &Registry) -> Result<RedisLine, SessionError> {
        let mut ears = shared.dialer.connect()?;
        let mut mouth = shared.dialer.connect()?;
        registry.register(ears.stream_mut(), EARS, Interest::READABLE | Interest::WRITABLE)?;
        registry.register(mouth.stream_mut(), MOUTH, Interest::READABLE | Interest::WRITABLE)?;
        Ok(RedisLine {
            shared: shared.clone(),
            ears,
            mouth,
            ears_ready: true,
            mouth_ready: true,
            sign_due: Instant::now() + SIGN_EVERY,
        })
    }

    /// Writes what the sockets take.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.ears.flush()?;
        self.mouth.flush()
    }

    /// Whether more may be readable though no event will report it.
    pub(super) fn is_ready(&self) -> bool {
        self.ears_ready || self.mouth_ready
    }

    /// Notes an event of one of the sockets.
    pub(super) fn on_event(&mut self, token: Token) {
        self.ears_ready |= token == EARS;
        self.mouth_ready |= token == MOUTH;
    }

    /// Reads published messages, up to a budget.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        if self.ears_ready {
            self.ears_ready = self.ears.fill()?;
        }
        Ok(())
    }

    /// Reads the answers to this node's publications.
    fn take_answers(&mut self) -> Result<(), SessionError> {
        if self.mouth_ready {
            self.mouth_ready = self.mouth.fill()?;
            while let Some(reply) = self.mouth.next()? {
                if let RedisReply::Error(text) = reply {
                    return Err(SessionError::refused(text));
                }
            }
        }
        Ok(())
    }

    /// Whether Redis has answered all publications.
    pub(super) fn is_answered(&self) -> bool {
        self.mouth.is_answered()
    }

    /// Sends something if the connection has been idle for long.
    pub(super) fn give_sign(&mut self, now: Instant) {
        if self.sign_due <= now {
            self.sign_due = now + SIGN_EVERY;
            command(&mut self.mouth, "PING", &[] as &[&str]);
        }
    }

    /// The time at which it will have been idle for too long.
    pub(super) fn sign_due(&self) -> Instant {
        self.sign_due
    }

    fn channels(&self, topics: &[Topic<&str>]) -> Vec<String> {
        let names = &self.shared.names;
        let mut channels = Vec::with_capacity(2 * topics.len());
        for topic in topics {
            match topic {
                // This server's own channel comes last: its answer confirms both subscriptions.
                Topic::User(user) => channels.extend(names.channels_of(*user)),
                other => channels.push(names.channel(*other)),
            }
        }
        channels
    }
}

impl PeerLine for RedisLine {
    type Broken = SessionError;

    fn listen(&mut self, topics: &[Topic<&str>]) {
        for topics in topics.chunks(USERS_AT_ONCE) {
            let channels = self.channels(topics);
            command(&mut self.ears, "SUBSCRIBE", &channels);
        }
    }

    fn ignore(&mut self, users: &[UserId]) {
        for users in users.chunks(USERS_AT_ONCE) {
            let topics: Vec<_> = users.iter().copied().map(Topic::User).collect();
            let channels = self.channels(&topics);
            command(&mut self.ears, "UNSUBSCRIBE", &channels);
        }
    }

    fn ignore_all(&mut self) {
        // This node's channel has no subscriber here any more, so it no longer shows where a
        // connection leads.
        self.shared.state.forget();
        // Without an argument, UNSUBSCRIBE ends all subscriptions. The answer to the next command
        // then shows that no more messages arrive.
        command(&mut self.ears, "UNSUBSCRIBE", &[] as &[&str]);
        command(&mut self.ears, "PING", &[] as &[&str]);
    }

    fn say(&mut self, topic: Topic<&str>, payload: &[u8]) {
        let channel = self.shared.names.channel(topic);
        self.mouth.push(&redis::cmd("PUBLISH").arg(channel).arg(payload).get_packed_command());
    }

    fn next_event(&mut self) -> Result<Option<TransportEvent<'_>>, SessionError> {
        let names = &self.shared.names;
        let Some(reply) = self.ears.next()? else { return Ok(None) };
        Ok(Some(match reply {
            RedisReply::Message { channel, payload } => match names.read(channel) {
                Some(Channel::Topic(topic)) => TransportEvent::Said(topic, payload),
                Some(Channel::Reference(to)) => {
                    str::from_utf8(payload).map_or(TransportEvent::Other, |frame| TransportEvent::Bare(to, frame))
                }
                None => {
                    log::debug!("a message on {} that no node writes", channel.escape_ascii());
                    TransportEvent::Other
                }
            },
            RedisReply::Subscribed(channel) => match names.read(channel) {
                Some(Channel::Topic(topic)) => TransportEvent::Listening(topic),
                Some(Channel::Reference(_)) | None => TransportEvent::Other,
            },
            RedisReply::Unsubscribed(channel) => match names.read(channel) {
                Some(Channel::Topic(Topic::User(user))) => TransportEvent::Ignoring(user),
                Some(_) | None => TransportEvent::Other,
            },
            RedisReply::Error(text) => return Err(SessionError::refused(text)),
            // The answer to the command after the last UNSUBSCRIBE, the only command that is
            // answered like this.
            RedisReply::Done => TransportEvent::Silence,
        }))
    }

    fn take_doubt(&mut self) -> Option<SessionError> {
        let answers = self.take_answers();
        answers.err().or_else(|| self.shared.state.take_loss().map(SessionError::Lost))
    }

    fn on_news(&mut self, news: PeerNews) {
        match news {
            PeerNews::Heard => self.shared.state.on_probe(),
            PeerNews::Up { session } => {
                self.shared.pool.renew();
                self.shared.state.begin(session);
            }
            PeerNews::Resumed | PeerNews::Hushed => {}
        }
    }
}

impl Drop for RedisLine {
    fn drop(&mut self) {
        self.shared.state.forget();
    }
}

fn command(wire: &mut RedisWire<Stream>, name: &str, arguments: &[impl AsRef<[u8]>]) {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    wire.push(&command.get_packed_command());
}

const EARS: Token = Token(1);
const MOUTH: Token = Token(2);
/// The interval of traffic on a connection that Redis may close when it is idle: `timeout` is at
/// least a second.
const SIGN_EVERY: Duration = Duration::from_millis(800);
