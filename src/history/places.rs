//! [`ShownPlaces`]: the last message written in each conversation, in 24 bytes a conversation.

use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::protocol::level2::frames::Committed;

/// The last numbers written to one connection, one for each conversation: a sorted list.
#[derive(Debug, Default)]
pub(super) struct ShownPlaces(Vec<ShownPlace>);

/// The place of one conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ShownPlace {
    pub(super) conv: ConversationId,
    /// The last number written, shifted, and the marks.
    packed: u64,
    /// The tag of the last message, if known.
    tag: Tag,
    /// The lower half of the message's time: enough to compare times that are less than 24 days
    /// apart.
    time: u32,
}

/// A mark on the place of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PlaceMark {
    /// There are messages that were not written: the conversation is in the queue to be read.
    Behind = 1,
    /// A run waits or is being written.
    Run = 2,
    /// A push has come since the page was requested, or since the run was planned.
    Dirty = 4,
    /// The heads have not been read: the number is the greatest one that was pushed.
    Early = 8,
    /// The first number is not known yet: 1, or the first above the floor.
    Fresh = 16,
    /// The last frame written is a 44: the message with this number was not written.
    Moved = 32,
    /// The tag and the time belong to the message with this number.
    Known = 64,
    /// A 44 of this connection has told the client to drop what it held.
    Reset = 128,
}

const MARK_BITS: u32 = 8;

impl ShownPlace {
    pub(super) fn new(conv: ConversationId, sent: Seq) -> ShownPlace {
        let mut place = ShownPlace { conv, packed: 0, tag: Tag(0), time: 0 };
        place.set_sent(sent);
        place
    }

    /// The place of a conversation that continues after this head.
    pub(super) fn of_head(conv: ConversationId, head: Seq, last: Option<Committed>) -> ShownPlace {
        let mut place = ShownPlace::new(conv, head);
        place.learn(last);
        place
    }

    pub(super) fn sent(&self) -> Seq {
        (self.packed >> MARK_BITS) as Seq
    }

    /// Notes that the next message was written.
    pub(super) fn advance(&mut self, at: Committed) {
        self.set_sent(at.seq);
        self.learn(Some(at));
        self.put(PlaceMark::Fresh, false);
        self.put(PlaceMark::Moved, false);
    }

    /// Notes that a 44 was written: the next message is above this number.
    pub(super) fn move_to(&mut self, sent: Seq) {
        self.set_sent(sent);
        self.put(PlaceMark::Fresh, false);
        self.put(PlaceMark::Moved, true);
    }

    /// Sets the number of a message whose tag and time are not known.
    pub(super) fn set_sent(&mut self, sent: Seq) {
        debug_assert!((0..1 << 53).contains(&sent), "{sent}");
        self.packed = (sent as u64) << MARK_BITS | self.packed & ((1 << MARK_BITS) - 1);
        self.put(PlaceMark::Known, false);
    }

    /// Takes the tag and the time of the last written message from the store.
    pub(super) fn learn(&mut self, last: Option<Committed>) {
        if let Some(at) = last.filter(|at| at.seq == self.sent()) {
            (self.tag, self.time) = (at.tag, at.time as u32);
            self.put(PlaceMark::Known, true);
        }
    }

    /// Whether the last frame written is a 44, so that the message before the next one is not
    /// known. Then a push cannot show whether it belongs to this history.
    pub(super) fn is_unproven(&self) -> bool {
        self.has(PlaceMark::Moved) && !self.has(PlaceMark::Known)
    }

    /// The number and the tag of the last message, if they are known.
    pub(super) fn known(&self) -> Option<(Seq, Tag)> {
        self.has(PlaceMark::Known).then(|| (self.sent(), self.tag))
    }

    /// Whether the history with this message cannot be the one that was written: it has another
    /// message with the same number, or a later message with a lower number (times ascend with the
    /// numbers). `before`: the tag of the message before it, if known.
    pub(super) fn contradicts(&self, at: Committed, before: Option<Tag>) -> bool {
        let Some((sent, tag)) = self.known() else { return false };
        match at.seq - sent {
            ..0 => (at.time as u32).wrapping_sub(self.time) as i32 > 0,
            0 => at.tag != tag,
            1 => before.is_some_and(|before| before != tag),
            2.. => false,
        }
    }

    /// Whether the store may have lost messages that were written, if its history ends with `head`
    /// and this message. A history that goes on after them can only be told by a page.
    pub(super) fn may_be_lost(&self, head: Seq, last: Option<Committed>) -> bool {
        let is_another = || last.is_some_and(|last| self.contradicts(last, None));
        !self.has(PlaceMark::Fresh) && (self.sent() != head || is_another())
    }

    pub(super) fn has(&self, mark: PlaceMark) -> bool {
        self.packed & mark as u64 != 0
    }

    pub(super) fn put(&mut self, mark: PlaceMark, on: bool) {
        self.packed = if on { self.packed | mark as u64 } else { self.packed & !(mark as u64) };
    }
}

impl ShownPlaces {
    pub(super) fn get(&self, conv: ConversationId) -> Option<ShownPlace> {
        self.find(conv).ok().map(|at| self.0[at])
    }

    pub(super) fn get_mut(&mut self, conv: ConversationId) -> Option<&mut ShownPlace> {
        self.find(conv).ok().map(|at| &mut self.0[at])
    }

    /// The place of `conv`; a new one is fresh.
    pub(super) fn entry(&mut self, conv: ConversationId) -> &mut ShownPlace {
        let at = self.find(conv).unwrap_or_else(|at| {
            let mut place = ShownPlace::new(conv, 0);
            place.put(PlaceMark::Fresh, true);
            self.0.insert(at, place);
            at
        });
        &mut self.0[at]
    }

    pub(super) fn remove(&mut self, conv: ConversationId) {
        if let Ok(at) = self.find(conv) {
            self.0.remove(at);
        }
    }

    /// Adds many places at once. Existing places stay as they are.
    pub(super) fn fill(&mut self, places: impl Iterator<Item = ShownPlace>) {
        let known = std::mem::take(&mut self.0);
        let mut all: Vec<ShownPlace> = known.into_iter().chain(places).collect();
        // The sort is stable, so existing places come first.
        all.sort_by_key(|place| place.conv);
        all.dedup_by_key(|place| place.conv);
        all.shrink_to_fit();
        self.0 = all;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ShownPlace> {
        self.0.iter().copied()
    }

    fn find(&self, conv: ConversationId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&conv, |place| place.conv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_24_bytes_and_numbers_do_not_touch_marks() {
        assert_eq!(size_of::<ShownPlace>(), 24);
        let mut place = ShownPlace::new(ConversationId::from_column(1), (1 << 53) - 1);
        for mark in [
            PlaceMark::Behind,
            PlaceMark::Run,
            PlaceMark::Dirty,
            PlaceMark::Early,
            PlaceMark::Fresh,
            PlaceMark::Moved,
            PlaceMark::Known,
            PlaceMark::Reset,
        ] {
            assert!(!place.has(mark));
            place.put(mark, true);
            assert!(place.has(mark));
            assert_eq!(place.sent(), (1 << 53) - 1);
        }
        place.set_sent(7);
        place.put(PlaceMark::Run, false);
        assert!(place.has(PlaceMark::Behind) && !place.has(PlaceMark::Run) && place.sent() == 7);
    }

    #[test]
    fn another_history_is_told_by_tags_and_times() {
        let at = |seq, tag, time| Committed { seq, tag: Tag(tag), time };
        let mut place = ShownPlace::new(ConversationId::from_column(1), 0);
        assert!(!place.contradicts(at(0, 9, 9), None), "nothing is known");
        // The lower half of the time is about to begin anew.
        let time = (1 << 40) - 2;
        place.advance(at(10, 5, time));
        for (what, other, before, is_other) in [
            ("the same again", at(10, 5, time), Some(4), false),
            ("another one", at(10, 6, time), Some(4), true),
            ("the next one", at(11, 6, time + 5), Some(5), false),
            ("the next one of which nothing is known", at(11, 6, time), None, false),
            ("the next one of another", at(11, 6, time), Some(4), true),
            ("one beyond it", at(12, 7, time), Some(4), false),
            ("an earlier one", at(9, 4, time - 1), None, false),
            ("one of the same batch", at(9, 4, time), None, false),
            ("a lower number that is given later", at(9, 4, time + 5), None, true),
        ] {
            assert_eq!(place.contradicts(other, before.map(Tag)), is_other, "{what}");
        }
        place.move_to(10);
        assert_eq!((place.known(), place.contradicts(at(10, 6, 1), None)), (None, false));
    }

    #[test]
    fn known_places_stay_when_many_are_added() {
        let conv = ConversationId::from_column;
        let mut places = ShownPlaces::default();
        places.entry(conv(5)).set_sent(50);
        places.fill([9, 5, 1].into_iter().map(|id| ShownPlace::new(conv(id), id)));
        assert_eq!(places.iter().map(|place| place.sent()).collect::<Vec<_>>(), [1, 50, 9]);
        places.remove(conv(5));
        assert_eq!((places.get(conv(5)), places.get(conv(9)).map(|place| place.sent())), (None, Some(9)));
    }
}
