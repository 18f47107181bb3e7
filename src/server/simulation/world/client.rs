//! [`Client`]: a client's requests, the replies that the server owes it, and those it has got.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::protocol::UserId;
use crate::server::simulation::socket::Pipe;

/// A client and its one connection.
pub(super) struct Client {
    pub(super) pipe: Arc<Pipe>,
    pub(super) home: Home,
    pub(super) line: bool,
    /// The user that it logs in as at first.
    pub(super) first: UserId,
    /// Bytes on their way to the node, and all bytes up to them.
    pub(super) outgoing: VecDeque<u8>,
    pub(super) sent: usize,
    pub(super) state: Life,
    /// The step at which it stopped being [`Life::Open`], and the one at which its node learned
    /// that.
    pub(super) ended_at: Option<usize>,
    pub(super) gone_at: Option<usize>,
    pub(super) stalled: bool,
    /// The users that it may act as, to its knowledge.
    pub(super) users: Vec<UserId>,
    /// The users for whom it receives, according to what the server has written; and those for whom
    /// it ever did.
    pub(super) receives: BTreeSet<UserId>,
    pub(super) ever: BTreeSet<UserId>,
    /// When its last login was sent, and whom the other nodes know to be here since.
    pub(super) asked_at: usize,
    pub(super) placed: BTreeSet<UserId>,
    pub(super) expected: VecDeque<Expected>,
    pub(super) windows: u32,
    pub(super) messages: u32,
    /// Errors that it may still get for messages that were sent without a right.
    parsed: usize,
    partial: Vec<u8>,
    pub(super) frames: VecDeque<(usize, Frame)>,
    pub(super) last: BTreeMap<(usize, UserId), u32>,
    pub(super) seen: BTreeSet<(u32, UserId)>,
}

/// The node and the loop that a connection is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    pub(super) node: usize,
    /// The number of the node's life.
    pub(super) life: usize,
    pub(super) of_loop: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Open,
    /// It has closed its side, and continues to read.
    HalfClosed,
    /// It has closed, and takes nothing more.
    Closed,
    /// It answers nothing, and nobody knows.
    Silent,
    Over,
}

/// A reply that the server owes a client.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Nothing, or an error.
    Message(u32),
    Forged,
    Login(UserId),
    WrongLogin,
    Logout(UserId),
    Fetch(UserId),
    /// A reply that no other request has, and for which everything before it is settled.
    Barrier(u32),
    /// Some reply or other.
    Answer,
}

/// One thing that the server has written.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    Push(u32),
    Friend,
    /// The effect of a reply, for when the client gets it.
    LoggedIn(UserId),
    Fetched(UserId, Vec<u32>),
    Settled(u32),
    Nothing,
}

impl Client {
    pub(super) fn new(pipe: Arc<Pipe>, home: Home, line: bool, first: UserId) -> Client {
        Client {
            pipe,
            home,
            line,
            first,
            outgoing: VecDeque::new(),
            sent: 0,
            state: Life::Open,
            ended_at: None,
            gone_at: None,
            stalled: false,
            users: Vec::new(),
            receives: BTreeSet::new(),
            ever: BTreeSet::new(),
            asked_at: 0,
            placed: BTreeSet::new(),
            expected: VecDeque::new(),
            windows: 0,
            messages: 0,
            parsed: 0,
            partial: Vec::new(),
            frames: VecDeque::new(),
            last: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Sends a frame to the node, which then owes the client a reply.
    pub(super) fn send(&mut self, frame: &str, expected: Expected) {
        self.expected.push_back(expected);
        self.outgoing.extend(frame.as_bytes());
        self.sent += frame.len();
        if self.line {
            self.outgoing.push_back(b'\n');
            self.sent += 1;
        }
    }

    /// Whether its node may have this user on it.
    pub(super) fn may_be_here(&self, user: UserId) -> bool {
        let logs_in = |expected: &Expected| matches!(expected, Expected::Login(other) if *other == user);
        !self.pipe.is_closed() && (self.receives.contains(&user) || self.expected.iter().any(logs_in))
    }

    /// The users for whom it has received, or will receive when the answer to its login is read.
    pub(super) fn may_receive(&self) -> BTreeSet<UserId> {
        let logins = self.expected.iter().filter_map(|expected| match expected {
            Expected::Login(user) => Some(*user),
            _ => None,
        });
        self.ever.iter().copied().chain(logins).collect()
    }

    /// Whether it may hold a message for this user that was sent then. A connection that does not
    /// take its messages, or returns them, holds them for a while.
    pub(super) fn may_hold(&self, user: UserId, sent_at: usize) -> bool {
        let gives_back = self.ended_at.is_some()
            || self.pipe.is_starved()
            || self.pipe.is_broken()
            || !self.receives.contains(&user)
            || self.leaves(user);
        gives_back && self.was_on(user, sent_at)
    }

    /// Whether it may have received for this user since then.
    pub(super) fn was_on(&self, user: UserId, sent_at: usize) -> bool {
        let gone_at = self.gone_at.max(self.ended_at);
        let was_there = self.pipe.is_registered() || gone_at.is_none_or(|at| at >= sent_at);
        self.may_receive().contains(&user) && was_there
    }

    /// Whether it has asked to be logged out as this user.
    pub(super) fn leaves(&self, user: UserId) -> bool {
        self.expected.iter().any(|expected| matches!(expected, Expected::Logout(other) if *other == user))
    }

    /// The frames that were written since the last look.
    pub(super) fn new_frames(&mut self) -> Vec<(usize, String)> {
        if self.pipe.written() == self.parsed {
            return Vec::new();
        }
        let start = self.parsed - self.partial.len();
        self.partial.extend(self.pipe.written_after(self.parsed));
        self.parsed = self.pipe.written();
        let mut frames = Vec::new();
        let mut done = 0;
        loop {
            let rest = &self.partial[done..];
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<serde::de::IgnoredAny>();
            match values.next() {
                Some(Ok(_)) => {
                    let len = values.byte_offset();
                    let text = String::from_utf8(rest[blank..len].to_vec()).expect("the server writes text");
                    frames.push((start + done + len, text));
                    done += len;
                }
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => panic!("a client is sent what is not JSON: {error}"),
                None => break,
            }
        }
        self.partial.drain(..done);
        frames
    }
}
