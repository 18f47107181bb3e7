//! The rules for friends and groups.

/// The way in which users become friends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FriendsBecome {
    /// By one user's request.
    #[default]
    Open,
    /// By requests of both users.
    Ask,
}

/// The way in which users become members of groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GroupJoin {
    /// By their own request.
    #[default]
    Open,
    /// By invitation: the creator adds them.
    Closed,
}

/// The part of a group's history that a new member is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GroupHistory {
    /// Only messages sent after the member has joined.
    #[default]
    Joined,
    /// Everything, if the creator has added the member to a closed group.
    All,
}
