//! [`SessionFacts`]: the facts that a session may ask for while it decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::password::Forgotten;
use crate::protocol::{GroupId, Id, UserId};

/// Facts that are known without querying the store.
pub trait SessionFacts {
    /// The members of a group, ascending, if they are cached.
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>>;

    /// Whether this user was recently found not to be a member of a group.
    fn is_stranger(&self, _user: UserId, _group: GroupId) -> bool {
        false
    }

    /// Whether a user may have joined a group without this node knowing yet.
    fn groups_change_elsewhere(&self) -> bool;

    /// Whether `to` has blocked `sender`. Called for every message.
    fn is_blocked(&self, _sender: Option<UserId>, _to: UserId) -> bool {
        false
    }

    /// Whether nobody uses level 2 and nobody has blocked anybody, as far as this node knows.
    /// Called for every message, to save the other calls.
    fn is_plain(&self) -> bool {
        true
    }

    /// Whether friend requests are noted, because only their recipient may agree.
    fn notes_requests(&self) -> bool {
        false
    }

    /// Whether messages between these users are recorded, because one of them uses level 2. Called
    /// for every message.
    fn is_recorded(&self, _sender: Option<UserId>, _to: UserId) -> bool {
        false
    }

    /// Whether a message to these members of a group is recorded.
    fn is_recorded_for(&self, _members: &[UserId]) -> bool {
        false
    }

    /// Whether the database has the tables of level 2, so that clients of level 1 may send 60 to
    /// 69.
    fn has_level2(&self) -> bool {
        false
    }

    /// The seconds that a login with this id has to wait, if any.
    fn login_wait(&self, id: Id) -> Option<u32>;

    /// If this is remembered as the user's password: how often the user had been forgotten.
    fn recognises(&self, user: UserId, password: &str) -> Option<Forgotten>;

    /// Whether this user is logged in on some connection of this node.
    fn is_connected(&self, user: UserId) -> bool;

    /// Whether messages of other nodes for this user arrive at this node.
    fn is_here(&self, user: UserId) -> bool;

    /// The time that the client is busy with each message it shows, if nothing may be sent to it
    /// meanwhile.
    fn pace(&self) -> Option<Duration>;

    /// The time until which the answer to a login or logout waits for `User.state`; `None` if no
    /// node relies on that column.
    fn shown_by(&self) -> Option<Instant>;
}
