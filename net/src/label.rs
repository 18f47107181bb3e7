//! [`Label`]: names a frame that is returned if it does not arrive.

/// Names a frame that is returned to the application if the connection does not bring it to its
/// client. The reactor does not interpret it: [`Link::take_back`](crate::Link::take_back) and
/// [`Link::relabel`](crate::Link::relabel) leave the choice of frames to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Label {
    /// The application's name for the frame.
    pub id: u64,
    /// The user whom the frame is for; a connection may have several users.
    pub user: u32,
    /// Whether the user has left the connection since the frame was sent.
    pub user_has_left: bool,
}

impl Label {
    /// The label of a frame without a name for this user.
    pub const fn of(user: u32) -> Label {
        Label { id: 0, user, user_has_left: false }
    }
}
