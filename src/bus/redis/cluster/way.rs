//! [`ShardWay`]: the two connections to one primary, and what was asked on them.
//!
//! Answers come in the order of the commands, and `MOVED` names only the slot. So each command
//! waits in a queue for its answer, and can be sent again to the primary that has the slot now.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use mio::{Interest, Registry, Token};

use super::core::ClusterPrimary;
use super::pings::Pings;
use super::slots::MovedSlot;
use crate::bus::redis::dial::Stream;
use crate::bus::redis::ended::SessionError;
use crate::bus::redis::wire::{RedisReply, RedisWire};
use crate::config::ServerAddress;
use crate::protocol::UserId;

/// See the [module](self).
pub(super) struct ShardWay {
    pub(super) at: ServerAddress,
    pub(super) ears: RedisWire<Stream>,
    mouth: RedisWire<Stream>,
    /// Whether more may be readable though no event will report it.
    ears_ready: bool,
    mouth_ready: bool,
    /// The commands on the subscribing connection that are not answered.
    pub(super) asked: AskedQueue,
    /// The publications that are not answered.
    said: VecDeque<Said>,
    pub(super) pings: Pings,
}

/// The commands on a subscribing connection that are not answered, in order.
#[derive(Default)]
pub(super) struct AskedQueue(VecDeque<Asked>);

/// A command on the subscribing connection.
pub(super) enum Asked {
    /// Subscribe to these channels of one slot; this number of answers is missing.
    Listen(SlotChannels, usize),
    /// Unsubscribe these users of one slot.
    Ignore(u16, Vec<UserId>),
    Ping,
    /// Unsubscribe everything. The `PING` after it is answered last.
    IgnoreAll,
}

/// Channels of one slot, and how often they have followed it.
pub(super) struct SlotChannels {
    pub(super) slot: u16,
    pub(super) channels: Vec<String>,
    pub(super) moves: u8,
}

/// A publication.
pub(super) struct Said {
    /// `None` for a `PING`.
    pub(super) packed: Option<Vec<u8>>,
    pub(super) slot: u16,
    pub(super) moves: u8,
}

/// The answer to a publication.
pub(super) enum Heard {
    /// It was published.
    Taken,
    /// It must be sent to another primary.
    Moved(Said, MovedSlot),
}

impl ShardWay {
    /// Connects to the primary with this index. Blocks until `by` at most.
    pub(super) fn open(
        primary: &ClusterPrimary,
        index: usize,
        registry: &Registry,
        by: Instant,
    ) -> Result<ShardWay, SessionError> {
        let mut ears = primary.dialer.connect_by(by)?;
        let mut mouth = primary.dialer.connect_by(by)?;
        let [of_ears, of_mouth] = tokens(index);
        registry.register(ears.stream_mut(), of_ears, Interest::READABLE | Interest::WRITABLE)?;
        registry.register(mouth.stream_mut(), of_mouth, Interest::READABLE | Interest::WRITABLE)?;
        Ok(ShardWay {
            at: primary.at.clone(),
            ears,
            mouth,
            ears_ready: true,
            mouth_ready: true,
            asked: AskedQueue::default(),
            said: VecDeque::new(),
            pings: Pings::new(primary.doubt.clone(), Instant::now()),
        })
    }

    /// The error, with the address of this server.
    pub(super) fn broken(&self, error: impl Into<SessionError>) -> SessionError {
        SessionError::At(self.at.clone(), Box::new(error.into()))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.ears.flush()?;
        self.mouth.flush()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ears_ready || self.mouth_ready
    }

    /// Notes an event of one of the sockets.
    pub(super) fn on_event(&mut self, token: Token, index: usize) {
        let [of_ears, of_mouth] = tokens(index);
        self.ears_ready |= token == of_ears;
        self.mouth_ready |= token == of_mouth;
    }

    /// Reads published messages, up to a budget.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        if self.ears_ready {
            self.ears_ready = self.ears.fill()?;
        }
        Ok(())
    }

    /// Sends a command on the subscribing connection.
    pub(super) fn ask(&mut self, name: &str, arguments: &[impl AsRef<[u8]>], asked: Asked) {
        let mut command = redis::cmd(name);
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        self.ears.push(&command.get_packed_command());
        self.asked.0.push_back(asked);
    }

    pub(super) fn listen(&mut self, wanted: SlotChannels) {
        let missing = wanted.channels.len();
        let mut command = redis::cmd("SSUBSCRIBE");
        command.arg(&wanted.channels);
        self.ears.push(&command.get_packed_command());
        self.asked.0.push_back(Asked::Listen(wanted, missing));
    }

    pub(super) fn say(&mut self, said: Said) {
        match &said.packed {
            Some(packed) => self.mouth.push(packed),
            None => self.mouth.push(&redis::cmd("PING").get_packed_command()),
        }
        self.said.push_back(said);
    }

    /// Whether all publications are answered.
    pub(super) fn is_answered(&self) -> bool {
        self.said.iter().all(|said| said.packed.is_none())
    }

    /// Reads the answers to publications.
    pub(super) fn read_answers(&mut self) -> io::Result<()> {
        if self.mouth_ready {
            self.mouth_ready = self.mouth.fill()?;
        }
        Ok(())
    }

    /// The next answer to a publication that was read.
    pub(super) fn next_answer(&mut self) -> Result<Option<Heard>, SessionError> {
        let Some(reply) = self.mouth.next()? else { return Ok(None) };
        let refused = match reply {
            RedisReply::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        let Some(said) = self.said.pop_front() else { return Err(unexpected()) };
        match refused {
            None => {
                if said.packed.is_none() {
                    self.pings.on_pong();
                }
                Ok(Some(Heard::Taken))
            }
            Some(text) => match moved(&text, &self.at) {
                Some(moved) if moved.slot == said.slot && said.packed.is_some() => Ok(Some(Heard::Moved(said, moved))),
                _ => Err(SessionError::Refused(text)),
            },
        }
    }

    /// Checks both connections with a `PING`, when that is due. Answers that were read must have
    /// been handled before.
    ///
    /// # Errors
    ///
    /// If an earlier one is not answered in time.
    pub(super) fn give_sign(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.pings.are_due(now, self.is_ready())? {
            self.ask("PING", &[] as &[&str], Asked::Ping);
            self.say(Said { packed: None, slot: 0, moves: 0 });
        }
        Ok(())
    }
}

impl AskedQueue {
    /// A channel is subscribed.
    pub(super) fn on_subscribed(&mut self) -> Result<(), SessionError> {
        match self.0.front_mut() {
            Some(Asked::Listen(_, missing)) if *missing > 1 => *missing -= 1,
            Some(Asked::Listen(..)) => drop(self.0.pop_front()),
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    /// The channel of this user, or one of this node's own, is no longer subscribed. Returns
    /// whether a command has asked for that.
    pub(super) fn on_unsubscribed(&mut self, user: Option<UserId>) -> bool {
        match (self.0.front_mut(), user) {
            (Some(Asked::IgnoreAll), _) => true,
            (Some(Asked::Ignore(_, users)), Some(user)) if users.contains(&user) => {
                users.retain(|other| *other != user);
                if users.is_empty() {
                    self.0.pop_front();
                }
                true
            }
            _ => false,
        }
    }

    /// A `PING` is answered. Returns whether it was the one after which nothing arrives.
    pub(super) fn on_done(&mut self) -> Result<bool, SessionError> {
        match self.0.pop_front() {
            Some(Asked::Ping) => Ok(false),
            Some(Asked::IgnoreAll) => Ok(true),
            Some(Asked::Listen(..) | Asked::Ignore(..)) | None => Err(unexpected()),
        }
    }

    /// Takes the command that was refused.
    pub(super) fn take(&mut self) -> Option<Asked> {
        self.0.pop_front()
    }
}

/// Reads an error that says where a slot is now.
pub(super) fn moved(error: &str, asked: &ServerAddress) -> Option<MovedSlot> {
    MovedSlot::read(error.strip_prefix("MOVED ")?, asked)
}

/// An answer to no command.
fn unexpected() -> SessionError {
    SessionError::Refused("an answer that no command has asked for".to_owned())
}

/// The tokens of the two connections to the primary with this index; 0 is the waker's.
fn tokens(index: usize) -> [Token; 2] {
    [Token(2 * index + 1), Token(2 * index + 2)]
}
