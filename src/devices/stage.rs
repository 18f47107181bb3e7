//! [`Stage`]: how far the connection of a member is.

use std::time::Instant;

use crate::protocol::level2::Have;

/// See the [module](self).
#[derive(Debug)]
pub(super) enum Stage {
    /// The other nodes are being told to send messages here.
    Placing(Box<FirstFrames>),
    Open,
    /// The device has logged out, and sends are still without a 41. Nothing more is read. The
    /// connection ends at this time at the latest.
    LoggedOut(Instant),
    Ended,
}

/// The data for the first frames, which follow once other nodes send here.
#[derive(Debug)]
pub(super) struct FirstFrames {
    pub(super) welcome: String,
    pub(super) have: Have<'static>,
    pub(super) resume: u32,
}
