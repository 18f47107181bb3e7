//! [`ClusterLine`]: two connections to each primary of a Redis Cluster as one [`PeerLine`].
//!
//! ```text
//!   ears   SSUBSCRIBE at the primary of the channel's slot ▶   ◀ what others have published there
//!   mouth  SPUBLISH likewise ▶                                 answers that nobody waits for
//! ```
//! When a slot moves, its old primary ends the subscriptions of its channels. A user's channel is
//! subscribed again at the new one. If one of this node's own channels has moved, if a connection
//! is lost, or if there is a new primary, all connections are replaced: the node may have missed an
//! announcement about any of its users, so it becomes another place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use mio::{Registry, Token};
use rustc_hash::FxHashMap;

use super::core::{ClusterCore, ClusterPrimary, Shards};
use super::servers::is_whole;
use super::slots::slot_of;
use super::way::{Asked, Heard, Said, ShardWay, SlotChannels, moved};
use crate::bus::peer::{PeerLine, PeerNews, Topic, TransportEvent};
use crate::bus::redis::dial::{CALL_TIMEOUT, DialError};
use crate::bus::redis::ended::{Loss, SessionError};
use crate::bus::redis::names::Channel;
use crate::bus::redis::wire::RedisReply;
use crate::protocol::UserId;

/// See the [module](self).
pub(super) struct ClusterLine {
    core: Arc<ClusterCore>,
    shards: Arc<Shards>,
    /// In the order of the shards.
    ways: Vec<ShardWay>,
    /// The way whose events are handled now.
    at: usize,
    /// The way on which each user is subscribed, or will be.
    users: FxHashMap<UserId, usize>,
    /// Users who are unsubscribed without an answer that says so.
    ignored: VecDeque<UserId>,
    /// The answer of the current way that has just refused a command.
    refused: Option<String>,
    /// The number of ways on which nothing arrives any more.
    silent: usize,
}

impl ClusterLine {
    /// Finds the primaries and connects to each. Blocks, for a few seconds at most.
    pub(super) fn open(core: &Arc<ClusterCore>, registry: &Registry) -> Result<ClusterLine, SessionError> {
        let shards = core.look_up(Instant::now() + CALL_TIMEOUT)?;
        let by = Instant::now() + CALL_TIMEOUT;
        let open = |(index, primary)| {
            let way = check(primary, by).and_then(|()| ShardWay::open(primary, index, registry, by));
            way.map_err(|error| SessionError::At(primary.at.clone(), Box::new(error)))
        };
        let ways = shards.primaries.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(ClusterLine {
            core: core.clone(),
            shards,
            ways,
            at: 0,
            users: FxHashMap::default(),
            ignored: VecDeque::new(),
            refused: None,
            silent: 0,
        })
    }

    /// Writes what the sockets take.
    pub(super) fn flush(&mut self) -> Result<(), SessionError> {
        self.ways.iter_mut().try_for_each(|way| way.flush().map_err(|error| way.broken(error)))
    }

    /// Whether there is more to do though no event will report it.
    pub(super) fn is_ready(&self) -> bool {
        !self.ignored.is_empty() || self.ways.iter().any(ShardWay::is_ready)
    }

    /// Notes an event of one of the sockets.
    pub(super) fn on_event(&mut self, token: Token) {
        self.ways.iter_mut().enumerate().for_each(|(index, way)| way.on_event(token, index));
    }

    /// Reads published messages, up to a budget.
    pub(super) fn fill(&mut self) -> Result<(), SessionError> {
        self.ways.iter_mut().try_for_each(|way| way.fill().map_err(|error| way.broken(error)))
    }

    /// Whether all publications are answered.
    pub(super) fn is_answered(&self) -> bool {
        self.ways.iter().all(ShardWay::is_answered)
    }

    /// Checks the connections, when that is due.
    fn give_sign(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.silent > 0 {
            return Ok(());
        }
        self.ways.iter_mut().try_for_each(|way| way.give_sign(now).map_err(|error| way.broken(error)))
    }

    /// The time at which that is due next; `None` while this node stops receiving.
    pub(super) fn sign_due(&self) -> Option<Instant> {
        if self.silent > 0 {
            return None;
        }
        self.ways.iter().map(|way| way.pings.due()).min()
    }

    /// Reads the answers to publications. One whose slot has moved is sent to its new primary.
    fn take_answers(&mut self) -> Result<(), SessionError> {
        for index in 0..self.ways.len() {
            let way = &mut self.ways[index];
            way.read_answers().map_err(|error| way.broken(error))?;
            loop {
                let way = &mut self.ways[index];
                match way.next_answer().map_err(|error| way.broken(error))? {
                    None => break,
                    Some(Heard::Taken) => {}
                    Some(Heard::Moved(said, moved)) => {
                        let owner = self.shards.move_slot(&moved).filter(|_| said.moves < MOVES_MAX);
                        let owner = owner.ok_or(SessionError::Lost(Loss::Reshaped))?;
                        self.ways[owner].say(Said { moves: said.moves + 1, ..said });
                    }
                }
            }
        }
        Ok(())
    }

    /// A command on the subscribing connection was refused.
    fn on_refused(&mut self, text: &str) -> Result<(), SessionError> {
        let way = &mut self.ways[self.at];
        let refused = || SessionError::Refused(text.to_owned());
        let (asked, moved) = (way.asked.take(), moved(text, &way.at));
        let Some((asked, moved)) = asked.zip(moved) else { return Err(way.broken(refused())) };
        match asked {
            Asked::Listen(mut wanted, missing)
                if wanted.slot == moved.slot && missing == wanted.channels.len() && wanted.moves < MOVES_MAX =>
            {
                let owner = self.shards.move_slot(&moved).ok_or(SessionError::Lost(Loss::Reshaped))?;
                wanted.moves += 1;
                self.listen_at(owner, wanted);
                Ok(())
            }
            // The old primary has ended the subscription already.
            Asked::Ignore(slot, users) if slot == moved.slot => {
                self.shards.move_slot(&moved);
                self.ignored.extend(users);
                Ok(())
            }
            _ => Err(way.broken(refused())),
        }
    }

    fn listen_at(&mut self, owner: usize, wanted: SlotChannels) {
        for channel in &wanted.channels {
            if let Some(user) = self.user_of(channel.as_bytes()) {
                self.users.insert(user, owner);
            }
        }
        self.ways[owner].listen(wanted);
    }

    fn user_of(&self, channel: &[u8]) -> Option<UserId> {
        match self.core.names.read(channel) {
            Some(Channel::Topic(Topic::User(user))) => Some(user),
            _ => None,
        }
    }

    /// The way that has an event, beginning with the last one that had one.
    fn next_way(&mut self) -> Result<bool, SessionError> {
        for _ in 0..self.ways.len() {
            let way = &self.ways[self.at];
            if way.ears.has_next().map_err(|error| way.broken(error))? {
                return Ok(true);
            }
            self.at = (self.at + 1) % self.ways.len();
        }
        Ok(false)
    }
}

impl PeerLine for ClusterLine {
    type Broken = SessionError;

    fn listen(&mut self, topics: &[Topic<&str>]) {
        let mut by_slot: FxHashMap<u16, Vec<String>> = FxHashMap::default();
        for topic in topics {
            let channel = self.core.names.channel(*topic);
            by_slot.entry(slot_of(channel.as_bytes())).or_default().push(channel);
        }
        for (slot, channels) in by_slot {
            self.listen_at(self.shards.owner(slot), SlotChannels { slot, channels, moves: 0 });
        }
    }

    fn ignore(&mut self, users: &[UserId]) {
        let mut by_slot: FxHashMap<(usize, u16), Vec<UserId>> = FxHashMap::default();
        for user in users {
            let slot = slot_of(self.core.names.user_channel(*user).as_bytes());
            match self.users.remove(user) {
                Some(way) => by_slot.entry((way, slot)).or_default().push(*user),
                None => self.ignored.push_back(*user),
            }
        }
        for ((way, slot), users) in by_slot {
            let channels: Vec<String> = users.iter().map(|user| self.core.names.user_channel(*user)).collect();
            self.ways[way].ask("SUNSUBSCRIBE", &channels, Asked::Ignore(slot, users));
        }
    }

    fn ignore_all(&mut self) {
        // This node's channel has no subscriber here any more, so commands do not doubt the
        // connections any longer.
        self.core.state.forget();
        for way in &mut self.ways {
            // Without an argument, SUNSUBSCRIBE ends all subscriptions. The answer to the next
            // command then shows that no more messages arrive.
            way.ask("SUNSUBSCRIBE", &[] as &[&str], Asked::IgnoreAll);
            way.ears.push(&redis::cmd("PING").get_packed_command());
        }
    }

    fn say(&mut self, topic: Topic<&str>, payload: &[u8]) {
        let channel = self.core.names.channel(topic);
        let slot = slot_of(channel.as_bytes());
        let packed = redis::cmd("SPUBLISH").arg(channel).arg(payload).get_packed_command();
        self.ways[self.shards.owner(slot)].say(Said { packed: Some(packed), slot, moves: 0 });
    }

    fn next_event(&mut self) -> Result<Option<TransportEvent<'_>>, SessionError> {
        if let Some(text) = self.refused.take() {
            self.on_refused(&text)?;
        }
        if let Some(user) = self.ignored.pop_front() {
            return Ok(Some(TransportEvent::Ignoring(user)));
        }
        if !self.next_way()? {
            return Ok(None);
        }
        let (count, names) = (self.ways.len(), &self.core.names);
        let ShardWay { ears, asked, pings, .. } = &mut self.ways[self.at];
        let Some(reply) = ears.next()? else { return Ok(None) };
        Ok(Some(match reply {
            RedisReply::Message { channel, payload } => match names.read(channel) {
                Some(Channel::Topic(topic)) => TransportEvent::Said(topic, payload),
                Some(Channel::Reference(_)) | None => TransportEvent::Other,
            },
            RedisReply::Subscribed(channel) => {
                asked.on_subscribed()?;
                match names.read(channel) {
                    Some(Channel::Topic(topic)) => TransportEvent::Listening(topic),
                    Some(Channel::Reference(_)) | None => TransportEvent::Other,
                }
            }
            RedisReply::Unsubscribed(channel) => match names.read(channel) {
                Some(Channel::Topic(Topic::User(user))) if asked.on_unsubscribed(Some(user)) => {
                    TransportEvent::Ignoring(user)
                }
                // Nobody has asked for it: the slot has moved.
                Some(Channel::Topic(Topic::User(user))) if self.users.get(&user) == Some(&self.at) => {
                    self.users.remove(&user);
                    TransportEvent::Missed(user)
                }
                Some(Channel::Topic(Topic::User(_)) | Channel::Reference(_)) | None => TransportEvent::Other,
                Some(Channel::Topic(_)) if asked.on_unsubscribed(None) => TransportEvent::Other,
                Some(Channel::Topic(_)) => return Err(SessionError::Lost(Loss::Reshaped)),
            },
            RedisReply::Error(text) => {
                self.refused = Some(String::from_utf8_lossy(text).into_owned());
                TransportEvent::Other
            }
            RedisReply::Done if asked.on_done()? => {
                self.silent += 1;
                if self.silent == count { TransportEvent::Silence } else { TransportEvent::Other }
            }
            RedisReply::Done => {
                pings.on_pong();
                TransportEvent::Other
            }
        }))
    }

    fn take_doubt(&mut self) -> Option<SessionError> {
        let checked = self.take_answers().and_then(|()| self.give_sign(Instant::now()));
        checked.err().or_else(|| self.core.state.take_loss().map(SessionError::Lost))
    }

    fn on_news(&mut self, news: PeerNews) {
        match news {
            PeerNews::Heard => self.core.state.on_probe(),
            PeerNews::Up { session } => {
                self.shards.primaries.iter().for_each(|primary| primary.pool.renew());
                self.core.state.begin(session);
            }
            PeerNews::Resumed | PeerNews::Hushed => {}
        }
    }
}

impl Drop for ClusterLine {
    fn drop(&mut self) {
        self.core.state.forget();
    }
}

/// Refuses a primary that is cut off from the others: they may have promoted its replica.
fn check(primary: &ClusterPrimary, by: Instant) -> Result<(), SessionError> {
    let mut connection = primary.dialer.commands(by)?;
    if is_whole(&mut connection).map_err(DialError::from)? { Ok(()) } else { Err(SessionError::Lost(Loss::CutOff)) }
}

/// How often a command follows its slot: two primaries that name each other must not go on for
/// ever.
const MOVES_MAX: u8 = 5;
