//! [`Stamp`]: shows whether a stored password has changed.

/// Identifies a stored value: a keyed hash. The values of one account before and after
/// [`Upgrade::Rehash`](super::Upgrade::Rehash) and [`Upgrade::Mark`](super::Upgrade::Mark) have the
/// same stamp, because the salt stays; every new password has a new salt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp(pub(super) u32);
