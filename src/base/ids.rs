//! [`UserId`], [`GroupId`] and [`FrameId`]: the ids of users, groups and forwarded frames.

use std::fmt;

/// A user's id: positive for every real user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UserId(pub i32);

/// A group's id: positive for every real group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GroupId(pub i32);

/// Names a forwarded frame inside this process, from the moment when its sender's session forwards
/// it until its fate is known for every recipient. It is never sent or stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameId {
    /// The sender's connection, numbered in the order of opening. 0: it has no connection here.
    connection: u32,
    /// The frames of a connection are numbered from 0.
    nth: u32,
}

impl FrameId {
    /// A frame whose sender is not a connection of this process: it was on another node or in the
    /// spool.
    pub const UNNAMED: FrameId = FrameId { connection: 0, nth: 0 };

    /// A frame that is in a conversation already.
    pub const RECORDED: FrameId = FrameId { connection: 0, nth: 1 };

    /// The first frame of a connection before which this number of others were opened. Both numbers
    /// wrap around: after 4 billion connections, ids are used again.
    pub fn first_of(others: u32) -> FrameId {
        FrameId { connection: others.checked_add(1).unwrap_or(1), nth: 0 }
    }

    /// The next frame of the same connection.
    #[must_use]
    pub fn next(self) -> FrameId {
        FrameId { nth: self.nth.wrapping_add(1), ..self }
    }
}

impl From<FrameId> for u64 {
    fn from(id: FrameId) -> u64 {
        u64::from(id.connection) << 32 | u64::from(id.nth)
    }
}

impl From<u64> for FrameId {
    fn from(id: u64) -> FrameId {
        FrameId { connection: (id >> 32) as u32, nth: id as u32 }
    }
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connection {
            0 if *self == FrameId::RECORDED => f.write_str("recorded frame"),
            0 => f.write_str("unnamed frame"),
            connection => write!(f, "frame {connection}/{}", self.nth),
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
