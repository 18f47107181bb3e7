//! [`Known`]: what a session may ask while it decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::{GroupId, Id, UserId};

/// What is known without asking the store.
pub trait Known {
    /// The members of a group, ascending, if they are known.
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>>;

    /// Whether this user was found not to be a member of a group a short time ago.
    fn is_stranger(&self, _user: UserId, _group: GroupId) -> bool {
        false
    }

    /// Whether a user may have joined a group without this node having heard of it yet.
    fn groups_change_elsewhere(&self) -> bool;

    /// Seconds that a login with this id has to wait, if it has to.
    fn login_wait(&self, id: Id) -> Option<u32>;

    /// Whether this was found to be the user's password not long ago.
    fn recognises(&self, user: UserId, password: &str) -> bool;

    /// Whether this user is logged in on some connection of this node.
    fn is_connected(&self, user: UserId) -> bool;

    /// Whether messages that others send to this user come to this node.
    fn is_here(&self, user: UserId) -> bool;

    /// How long the client is busy with each message that it shows, if it must not be sent anything meanwhile.
    fn pace(&self) -> Option<Duration>;

    /// Until when the answer to a login or logout waits for `User.state`; `None` when no node goes by that.
    fn shown_by(&self) -> Option<Instant>;
}
