//! [`SessionFacts`]: what a session may ask while it decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

    /// Whether `to` has blocked `sender`. Asked for every message.
    fn is_blocked(&self, _sender: Option<UserId>, _to: UserId) -> bool {
        false
    }

    /// Whether nobody uses level 2 and nobody has blocked anybody, as far as this node knows. Asked for
    /// every message, so that nothing else need be asked.
    fn is_plain(&self) -> bool {
        true
    }

    /// Whether requests to be friends are noted, because only who was asked may agree.
    fn notes_requests(&self) -> bool {
        false
    }

    /// Whether messages between these users are recorded, because one of them uses level 2. Asked for
    /// every message.
    fn is_recorded(&self, _sender: Option<UserId>, _to: UserId) -> bool {
        false
    }

    /// The same of a message to a group.
    fn is_recorded_for(&self, _members: &[UserId]) -> bool {
        false
    }

    /// Whether the tables have level 2, so that clients of level 1 may ask for 60 to 69.
    fn has_level2(&self) -> bool {
        false
    }

    /// The seconds that a login with this id has to wait, if any.
    fn login_wait(&self, id: Id) -> Option<u32>;

    /// Whether this is remembered as the user's password.
    fn recognises(&self, user: UserId, password: &str) -> bool;

    /// Whether this user is logged in on some connection of this node.
    fn is_connected(&self, user: UserId) -> bool;

    /// Whether messages of other nodes for this user arrive at this node.
    fn is_here(&self, user: UserId) -> bool;

    /// How long the client is busy with each message that it shows, if it must not be sent anything
    /// meanwhile.
    fn pace(&self) -> Option<Duration>;

    /// Until when the answer to a login or logout waits for `User.state`; `None` if no node relies
    /// on that.
    fn shown_by(&self) -> Option<Instant>;
}
