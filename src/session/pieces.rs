//! The number of group members to whom a frame is delivered in one piece; a larger group needs
//! several.

/// The number of members in one piece for a frame of this length.
pub fn members_at_once(bytes: usize) -> usize {
    (WORK_AT_ONCE / (bytes + MEMBER_WORK)).clamp(MEMBERS_MIN, MEMBERS_MAX)
}

/// The work of one piece, in bytes, as all work of a turn is counted: about half a millisecond of a
/// loop's time.
const WORK_AT_ONCE: usize = 128 * 1024;
/// The cost of a member in addition to the bytes.
pub const MEMBER_WORK: usize = 512;
/// The fewest members in a piece. The longest frames therefore take more time.
const MEMBERS_MIN: usize = 16;
const MEMBERS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_are_handed_to_fewer_members_at_once() {
        assert_eq!([0, 100, 2000, 65_536].map(members_at_once), [200, 200, 52, 16]);
    }
}
