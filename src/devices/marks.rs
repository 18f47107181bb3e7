//! [`ShownMarks`]: the marks that a client has been shown. They never fall, whatever overtakes what on
//! its way here.
//!
//! News of marks come from several threads and nodes, so an older one may come later. It is passed
//! over. What comes before the last 43 waits for it, and so does what comes while the client does not
//! take its output. News of the user's own mark in a conversation wait until the 49s of this
//! connection in it are answered, so that the answers say what they found.
//!
//! Bounds: 32 bytes for each conversation in which somebody has read something, and once more while
//! news of it wait.

use std::collections::{BTreeMap, VecDeque};

use crate::base::conversation::{ConversationId, Seq};
use crate::history::answers::Ticket;
use crate::protocol::level2::frames::{MarkNews, Marks};
use crate::store::history::Head;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct ShownMarks {
    /// The last 43 is written.
    is_open: bool,
    /// How many heads were shown.
    overviewed: usize,
    /// By conversation.
    known: Vec<Known>,
    /// What is not shown yet, merged: of the user, and of the partner.
    held: BTreeMap<(ConversationId, Whose), MarkNews>,
    /// 49s whose answer has not left.
    open: VecDeque<(Ticket, ConversationId)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Whose {
    Own,
    Partners,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    conv: ConversationId,
    own: Seq,
    partner: Marks,
}

impl ShownMarks {
    /// The 43s show these conversations up to `shown`.
    pub(super) fn overview(&mut self, heads: &[Head], shown: usize) {
        let new = heads.iter().take(shown).skip(self.overviewed);
        self.known.extend(new.filter_map(|head| {
            let (read, recv) = head.peer.unwrap_or_default();
            let has_marks = head.read > 0 || read > 0 || recv > 0;
            has_marks.then_some(Known { conv: head.conv, own: head.read, partner: Marks { read, recv } })
        }));
        self.overviewed = shown;
    }

    /// The last 43 is written.
    pub(super) fn open(&mut self) {
        self.known.sort_by_key(|known| known.conv);
        self.known.shrink_to_fit();
        self.is_open = true;
    }

    /// The history of a conversation is lost, and the marks with it: those that come are lower.
    pub(super) fn forget(&mut self, conv: ConversationId) {
        self.known.retain(|known| known.conv != conv);
        self.held.retain(|(held, _), _| *held != conv);
    }

    /// A 49 was read.
    pub(super) fn asks(&mut self, ticket: Ticket, conv: ConversationId) {
        self.open.push_back((ticket, conv));
    }

    /// A 49 has found the user's mark here, if it was not refused.
    pub(super) fn found(&mut self, found: Option<(ConversationId, Seq)>) {
        if let Some((conv, read)) = found {
            let known = self.entry(conv);
            known.own = known.own.max(read);
        }
    }

    /// Marks have risen, perhaps not above what was shown.
    pub(super) fn hear(&mut self, conv: ConversationId, news: MarkNews) {
        let held = self.held.entry((conv, whose(&news))).or_insert(news);
        if news.is_above(held) {
            *held = news;
        }
    }

    /// What may be shown now. `has_left`: whether this answer has left.
    pub(super) fn release(&mut self, has_left: impl Fn(Ticket) -> bool) -> Vec<(ConversationId, MarkNews)> {
        if !self.is_open || self.held.is_empty() && self.open.is_empty() {
            return Vec::new();
        }
        while self.open.front().is_some_and(|(ticket, _)| has_left(*ticket)) {
            self.open.pop_front();
        }
        let (free, held) = std::mem::take(&mut self.held).into_iter().partition(|((conv, whose), _)| {
            *whose == Whose::Partners || self.open.iter().all(|(_, asked)| asked != conv)
        });
        let free: BTreeMap<_, _> = free;
        self.held = held;
        free.into_iter()
            .filter(|((conv, _), news)| self.rises(*conv, news))
            .map(|((conv, _), news)| (conv, news))
            .collect()
    }

    fn rises(&mut self, conv: ConversationId, news: &MarkNews) -> bool {
        let known = self.entry(conv);
        match news {
            MarkNews::Own { read, .. } => {
                let rises = *read > known.own;
                known.own = known.own.max(*read);
                rises
            }
            MarkNews::Partner(marks) => {
                let rises = marks.read > known.partner.read || marks.recv > known.partner.recv;
                let (read, recv) = (marks.read.max(known.partner.read), marks.recv.max(known.partner.recv));
                known.partner = Marks { read, recv };
                rises
            }
        }
    }

    fn entry(&mut self, conv: ConversationId) -> &mut Known {
        let at = self.known.binary_search_by_key(&conv, |known| known.conv).unwrap_or_else(|at| {
            self.known.insert(at, Known { conv, own: 0, partner: Marks { read: 0, recv: 0 } });
            at
        });
        &mut self.known[at]
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
        assert_eq!(marks.release(|_| false), [(conv, PARTNER)]);
        assert_eq!(marks.release(|_| true), [(conv, own(4))]);
    }

    #[test]
    fn what_an_answer_has_said_is_not_said_again() {
        let conv = ConversationId::between(UserId(7), UserId(9));
        let mut marks = ShownMarks::default();
        marks.open();
        marks.found(Some((conv, 5)));
        marks.hear(conv, own(5));
        assert_eq!(marks.release(|_| true), []);
        marks.hear(conv, own(6));
        assert_eq!(marks.release(|_| true), [(conv, own(6))]);
    }
}
