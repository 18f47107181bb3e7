//! [`plan`]: the messages that a client with a cursor is missing.

use crate::base::conversation::{HeldTag, Seq, Tag};
use crate::protocol::level2::frames::RunHead;

/// A conversation as one of its users sees it, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The last number; 0 without a message.
    pub head: Seq,
    /// Messages up to this number were deleted, or precede the user's membership. Never above
    /// `head`.
    pub floor: Seq,
}

/// A client's cursor in a conversation of its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldCursor {
    /// The last number that the client has.
    pub seq: Seq,
    /// The tag that the client gives, if it gives one (`"have":"device"` does not).
    pub tag: Option<HeldTag>,
    /// The tag of that message in the store, if it is there. Read only where [`needs_tag`] is true.
    pub stored: Option<Tag>,
}

/// Whether the tag at `seq` must be read from the store. The tag of the head is in the
/// conversation's row.
pub fn needs_tag(seq: Seq, extent: Extent) -> bool {
    seq >= extent.floor && seq > 0 && seq <= extent.head
}

/// The run for a cursor: the newest `resume` messages after it, and the gap before them. `None` if
/// the client has everything.
pub fn plan(held: HeldCursor, extent: Extent, resume: Seq) -> Option<RunHead> {
    let reset = !is_of_this_history(held, extent);
    let from = if reset { extent.floor } else { held.seq.max(extent.floor) };
    let run = run_after(from, extent, resume, reset);
    (reset || run.from <= run.to).then_some(run)
}

/// The run for everything after `after`.
pub fn run_after(after: Seq, extent: Extent, resume: Seq, reset: bool) -> RunHead {
    let from = (extent.head - resume.max(1)).max(after) + 1;
    let gap = (from > after + 1).then_some((after + 1, from - 1));
    RunHead { from, to: extent.head, gap, reset }
}

fn is_of_this_history(held: HeldCursor, extent: Extent) -> bool {
    if held.seq > extent.head {
        return false;
    }
    match (held.tag, held.stored) {
        _ if held.seq < extent.floor => true,
        (Some(given), Some(stored)) => given == HeldTag::Tag(stored),
        // At the floor, and at 0, there is no message to compare with. Above it there is always
        // one.
        (Some(_), None) => held.seq == extent.floor,
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_is_missing() {
        let tag = Tag(5);
        let cursor = |seq| HeldCursor { seq, tag: Some(HeldTag::Tag(tag)), stored: Some(tag) };
        let run = |from, to| Some(RunHead { from, to, gap: None, reset: false });
        let gap = |first, last, to| Some(RunHead { from: last + 1, to, gap: Some((first, last)), reset: false });
        let reset = |from, to, gap| Some(RunHead { from, to, gap, reset: true });
        let other = |seq| HeldCursor { stored: Some(Tag(6)), ..cursor(seq) };
        let gone = |seq| HeldCursor { stored: None, ..cursor(seq) };
        let foreign = |seq| HeldCursor { tag: Some(HeldTag::Foreign), ..cursor(seq) };
        let device = |seq| HeldCursor { seq, tag: None, stored: None };
        let cases = [
            ("has everything", cursor(43), 43, 0, 100, None),
            ("is behind", cursor(41), 43, 0, 100, run(42, 43)),
            ("just as much as is resumed", cursor(40), 43, 0, 3, run(41, 43)),
            ("more than is resumed", cursor(39), 43, 0, 3, gap(40, 40, 43)),
            ("much more", cursor(0), 1207, 0, 100, gap(1, 1107, 1207)),
            ("one is always resumed", cursor(0), 9, 0, 0, gap(1, 8, 9)),
            ("another tag", other(41), 43, 0, 100, reset(1, 43, None)),
            ("another tag, much lost", other(41), 43, 10, 3, reset(41, 43, Some((11, 40)))),
            ("another tag of the head", other(43), 43, 0, 100, reset(1, 43, None)),
            ("a tag that is none", foreign(41), 43, 0, 100, reset(1, 43, None)),
            ("a tag that is none, below the floor", foreign(9), 43, 10, 100, run(11, 43)),
            ("beyond the head", cursor(44), 43, 0, 100, reset(1, 43, None)),
            ("beyond the head, all below the floor", cursor(44), 43, 43, 100, reset(44, 43, None)),
            ("beyond nothing", cursor(1), 0, 0, 100, reset(1, 0, None)),
            ("no such message any more", gone(41), 43, 0, 100, reset(1, 43, None)),
            ("below the floor, whatever the tag", other(9), 43, 10, 100, run(11, 43)),
            ("at the floor, nothing to compare with", gone(10), 43, 10, 100, run(11, 43)),
            ("at the floor, another tag", other(10), 43, 10, 100, reset(11, 43, None)),
            ("the floor is no gap", gone(2), 43, 40, 2, gap(41, 41, 43)),
            ("nothing held", gone(0), 2, 0, 100, run(1, 2)),
            ("nothing there", gone(0), 0, 0, 100, None),
            ("a device without tags", device(41), 43, 0, 100, run(42, 43)),
            ("a device that reported nothing", device(0), 43, 40, 100, run(41, 43)),
            ("a device beyond the head", device(44), 43, 0, 100, reset(1, 43, None)),
        ];
        for (case, held, head, floor, resume, expected) in cases {
            assert_eq!(plan(held, Extent { head, floor }, resume), expected, "{case}");
        }
    }

    #[test]
    fn tags_are_read_where_they_count() {
        let extent = Extent { head: 9, floor: 3 };
        assert_eq!([0, 2, 3, 9, 10].map(|seq| needs_tag(seq, extent)), [false, false, true, true, false]);
        assert!(!needs_tag(0, Extent { head: 0, floor: 0 }));
    }
}
