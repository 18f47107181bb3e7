//! [`ShownMarks`]: the marks that a client has been shown. They never fall, even if news overtake
//! each other on the way here.
//!
//! News of marks come from several threads and nodes, so an older one may come later. It is
//! ignored. News that come before the last 43 wait for it; so do news while the client does not
//! take its output. News of the user's own mark in a conversation wait until the open 49s of this
//! connection in it are answered, so that the answers tell the marks that they found. Nothing comes
//! between a 44 and the 42s of its run.
//!
//! Marks fall only with a lost history: then the client is told the present ones, those of at most
//! [`ASKED_MAX`](super::void_marks::ASKED_MAX) conversations at a time.
//!
//! Bounds: 20 bytes for each conversation in which somebody has read something, see [`MarkTable`],
//! and 80 more while news of it wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::mark_table::{KnownMarks, MarkTable};
use super::void_marks::{NextAnswer, VoidMarks};
use crate::base::conversation::{ConversationId, Seq};
use crate::history::answers::Ticket;
use crate::protocol::level2::frames::{MarkNews, Marks};
use crate::store::history::Head;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct ShownMarks {
    /// Whether the last 43 is written.
    is_open: bool,
    /// The number of heads that were shown.
    overviewed: usize,
    known: MarkTable,
    /// Marks that are not shown yet, merged for the user and for the partner.
    held: BTreeMap<(ConversationId, Whose), MarkNews>,
    /// Marks that are shown even if they are not above the last ones: they are the first since the
    /// history was lost.
    anew: BTreeSet<(ConversationId, Whose)>,
    /// The conversations whose marks are void.
    void: VoidMarks,
    /// The 49s whose answer has not left.
    open: VecDeque<(Ticket, ConversationId)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Whose {
    Own,
    Partners,
}

impl ShownMarks {
    /// Takes the marks that the 43s show of the conversations up to `shown`.
    pub(super) fn overview(&mut self, heads: &[Head], shown: usize) {
        let new = heads.iter().take(shown).skip(self.overviewed);
        self.known.fill(new.map(|head| {
            let (read, recv) = head.peer.unwrap_or_default();
            (head.conv, KnownMarks { own: head.read, partner: Marks { read, recv } })
        }));
        self.overviewed = shown;
    }

    /// Notes that the last 43 is written.
    pub(super) fn open(&mut self) {
        self.known.shrink();
        self.is_open = true;
    }

    /// Notes that the history of a conversation is lost. Its new marks are lower and must be read
    /// from the store.
    pub(super) fn lose(&mut self, conv: ConversationId) {
        self.known.forget(conv);
        self.held.retain(|(held, _), _| *held != conv);
        self.anew.retain(|(anew, _)| *anew != conv);
        self.void.add(conv);
    }

    /// The conversations whose marks must be read from the store now; none while the client has not
    /// taken the last ones.
    pub(super) fn next_void(&mut self) -> Option<Vec<ConversationId>> {
        if self.anew.is_empty() { self.void.next() } else { None }
    }

    /// Takes the present marks of those conversations. Returns whether the store must be read again
    /// after a pause.
    #[must_use]
    pub(super) fn restate(&mut self, now: Vec<(ConversationId, MarkNews)>) -> bool {
        let answer = self.void.answered();
        for (conv, news) in now {
            match answer.convs.get(&conv) {
                None => continue,
                Some(NextAnswer::First) => _ = self.anew.insert((conv, whose(&news))),
                Some(NextAnswer::Another) => {}
            }
            self.held.insert((conv, whose(&news)), news);
        }
        answer.pauses
    }

    /// Notes that the marks could not be read.
    pub(super) fn restate_later(&mut self) {
        self.void.failed();
    }

    /// Resumes reading them.
    pub(super) fn go_on(&mut self) {
        self.void.go_on();
    }

    /// Notes that a 49 was read.
    pub(super) fn asks(&mut self, ticket: Ticket, conv: ConversationId) {
        self.open.push_back((ticket, conv));
    }

    /// Notes the user's mark that a 49 has found. Returns whether it is valid: it may belong to a
    /// history that was lost meanwhile, and then the store must be read.
    #[must_use]
    pub(super) fn found(&mut self, conv: ConversationId, read: Seq) -> bool {
        if self.void.hear(conv) {
            return false;
        }
        let mut known = self.known.get(conv);
        known.own = known.own.max(read);
        self.known.set(conv, known);
        true
    }

    /// Takes marks that have risen, perhaps not above the shown ones.
    pub(super) fn hear(&mut self, conv: ConversationId, news: MarkNews) {
        if self.void.hear(conv) {
            return;
        }
        let held = self.held.entry((conv, whose(&news))).or_insert(news);
        if news.is_above(held) {
            *held = news;
        }
    }

    /// Takes the marks that may be shown now. `has_left`: whether this answer has left. `has_run`:
    /// whether messages of a run of this conversation are still to come.
    pub(super) fn release(
        &mut self,
        has_left: impl Fn(Ticket) -> bool,
        has_run: impl Fn(ConversationId) -> bool,
    ) -> Vec<(ConversationId, MarkNews)> {
        if !self.is_open || self.held.is_empty() && self.open.is_empty() {
            return Vec::new();
        }
        while self.open.front().is_some_and(|(ticket, _)| has_left(*ticket)) {
            self.open.pop_front();
        }
        let (free, held) = std::mem::take(&mut self.held).into_iter().partition(|((conv, whose), _)| {
            let is_asked = *whose == Whose::Own && self.open.iter().any(|(_, asked)| asked == conv);
            !is_asked && !has_run(*conv)
        });
        let free: BTreeMap<_, _> = free;
        self.held = held;
        free.into_iter().filter_map(|((conv, _), news)| Some((conv, self.risen(conv, news)?))).collect()
    }

    /// The part of these news that is above the shown marks; `None` if nothing is.
    fn risen(&mut self, conv: ConversationId, news: MarkNews) -> Option<MarkNews> {
        let is_anew = self.anew.remove(&(conv, whose(&news)));
        let before = self.known.get(conv);
        let mut known = before;
        let shown = match news {
            MarkNews::Own { read, .. } => {
                let rises = read > known.own || is_anew && read == known.own;
                known.own = if rises { read } else { known.own };
                rises.then_some(news)
            }
            // If the database has lost one of the two marks, the other may rise all the same.
            MarkNews::Partner(Marks { read, recv }) => {
                let Marks { read: shown_read, recv: shown_recv } = known.partner;
                known.partner = Marks { read: read.max(shown_read), recv: recv.max(shown_recv) };
                (known != before || is_anew).then_some(MarkNews::Partner(known.partner))
            }
        };
        if known != before {
            self.known.set(conv, known);
        }
        shown
    }
}

fn whose(news: &MarkNews) -> Whose {
    match news {
        MarkNews::Own { .. } => Whose::Own,
        MarkNews::Partner(_) => Whose::Partners,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::answers::Answers;
    use crate::protocol::UserId;

    const PARTNER: MarkNews = MarkNews::Partner(Marks { read: 1, recv: 2 });

    fn own(read: Seq) -> MarkNews {
        MarkNews::Own { read, head: 9, unread: 9 - read }
    }

    #[test]
    fn an_own_mark_waits_for_the_answers_and_a_partners_does_not() {
        let conv = ConversationId::between(UserId(7), UserId(9));
        let (mut marks, ticket) = (ShownMarks::default(), Answers::<()>::default().open());
        marks.open();
        marks.asks(ticket, conv);
        marks.hear(conv, own(4));
        marks.hear(conv, PARTNER);
        assert_eq!(marks.release(|_| false, |_| false), [(conv, PARTNER)]);
        assert_eq!(marks.release(|_| true, |_| false), [(conv, own(4))]);
    }

    #[test]
    fn a_mark_in_an_answer_is_not_shown_again() {
        let conv = ConversationId::between(UserId(7), UserId(9));
        let mut marks = ShownMarks::default();
        marks.open();
        assert!(marks.found(conv, 5));
        marks.hear(conv, own(5));
        assert_eq!(marks.release(|_| true, |_| false), []);
        marks.hear(conv, own(6));
        assert_eq!(marks.release(|_| true, |_| false), [(conv, own(6))]);
    }

    /// Found by a seed of the simulation: the database had lost how far the partner had read.
    #[test]
    fn one_mark_of_a_partner_does_not_fall_when_the_other_rises() {
        let conv = ConversationId::between(UserId(7), UserId(9));
        let mut marks = ShownMarks::default();
        marks.open();
        let partner = |read, recv| MarkNews::Partner(Marks { read, recv });
        for (news, shown) in [((3, 0), Some((3, 0))), ((2, 3), Some((3, 3))), ((2, 2), None)] {
            marks.hear(conv, partner(news.0, news.1));
            let shown: Vec<_> = shown.into_iter().map(|(read, recv)| (conv, partner(read, recv))).collect();
            assert_eq!(marks.release(|_| true, |_| false), shown);
        }
    }
}
