//! [`VoidMarks`]: the conversations of a connection whose marks are void because their history is
//! lost, until the present marks are read from the store.
//!
//! At a login, a 43 tells the client the present marks. A client that stays connected gets no 43,
//! so it gets a 49 and a 50. News that come before the store's answer are not shown, since it is
//! unknown to which history they belong. The answer is shown in any case, so frequent news cannot
//! delay it. But if there were news meanwhile, the store is read again after a pause, because the
//! answer may be older than they are. Only after a second loss the answer is dropped: it may be of
//! the history that is lost.
//!
//! Bounds: one query at a time, of at most [`ASKED_MAX`] conversations, and after news one for each
//! pause. 17 to 22 bytes for each conversation that waits (measured with 20,000); only those that
//! the connection has shown can wait.

use std::collections::BTreeMap;

use crate::base::conversation::ConversationId;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct VoidMarks {
    /// The conversations to be read.
    due: BTreeMap<ConversationId, NextAnswer>,
    /// The conversations being read.
    asked: BTreeMap<ConversationId, (NextAnswer, SinceAsked)>,
    /// Whether the store could not be read.
    is_pausing: bool,
}

/// Whether the client was told the marks of the new history before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NextAnswer {
    /// The client was not told: any answer is shown.
    First,
    /// The client was told: the answer is shown if it is higher.
    Another,
}

/// Whether anything has changed since the store was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SinceAsked {
    Nothing,
    /// The store must be asked again.
    News,
    /// The answer may be of a lost history.
    Loss,
}

/// The conversations for which an answer of the store is valid, and whether to ask again.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct ValidAnswer {
    pub(super) convs: BTreeMap<ConversationId, NextAnswer>,
    /// Whether there were news, so that the store is read again after a pause.
    pub(super) pauses: bool,
}

impl VoidMarks {
    /// Notes that the marks of a conversation are void.
    pub(super) fn add(&mut self, conv: ConversationId) {
        match self.asked.get_mut(&conv) {
            Some((_, since)) => *since = SinceAsked::Loss,
            None => _ = self.due.insert(conv, NextAnswer::First),
        }
    }

    /// Notes that news of marks have come. Returns whether they must not be shown.
    pub(super) fn hear(&mut self, conv: ConversationId) -> bool {
        match self.asked.get_mut(&conv) {
            Some((_, since)) => {
                if *since == SinceAsked::Nothing {
                    *since = SinceAsked::News;
                }
                true
            }
            None => self.due.contains_key(&conv),
        }
    }

    /// The conversations to read from the store now.
    pub(super) fn next(&mut self) -> Option<Vec<ConversationId>> {
        if self.is_pausing || !self.asked.is_empty() || self.due.is_empty() {
            return None;
        }
        // Conversations that are read again because of frequent news do not delay the others.
        let due = |wanted: NextAnswer| self.due.iter().filter(move |(_, next)| **next == wanted).map(|(conv, _)| *conv);
        let convs: Vec<_> = due(NextAnswer::First).chain(due(NextAnswer::Another)).take(ASKED_MAX).collect();
        for conv in &convs {
            let next = self.due.remove(conv).unwrap_or(NextAnswer::First);
            self.asked.insert(*conv, (next, SinceAsked::Nothing));
        }
        Some(convs)
    }

    /// Notes that the store has answered.
    pub(super) fn answered(&mut self) -> ValidAnswer {
        let asked = std::mem::take(&mut self.asked);
        let mut answer = ValidAnswer { convs: BTreeMap::new(), pauses: false };
        for (conv, (next, since)) in asked {
            match since {
                SinceAsked::Nothing => {}
                SinceAsked::News => _ = self.due.insert(conv, NextAnswer::Another),
                SinceAsked::Loss => {
                    self.due.insert(conv, NextAnswer::First);
                    continue;
                }
            }
            answer.pauses |= since == SinceAsked::News;
            answer.convs.insert(conv, next);
        }
        self.is_pausing |= answer.pauses;
        answer
    }

    /// Notes that the store could not be read. It is read again after a pause.
    pub(super) fn failed(&mut self) {
        for (conv, (next, since)) in std::mem::take(&mut self.asked) {
            self.due.insert(conv, if since == SinceAsked::Loss { NextAnswer::First } else { next });
        }
        self.is_pausing = true;
    }

    /// Ends the pause.
    pub(super) fn go_on(&mut self) {
        self.is_pausing = false;
    }
}

/// The most conversations of one query.
pub(super) const ASKED_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn convs(count: usize) -> Vec<ConversationId> {
        (1..=count as i64).map(ConversationId::from_column).collect()
    }

    #[test]
    fn news_after_the_question_have_it_asked_again() {
        let convs = convs(ASKED_MAX + 1);
        let mut marks = VoidMarks::default();
        convs.iter().for_each(|conv| marks.add(*conv));
        assert!(marks.hear(convs[0]), "before the question nothing is said twice");
        assert_eq!((marks.next(), marks.next()), (Some(convs[..ASKED_MAX].to_vec()), None), "one question at a time");
        assert!(marks.hear(convs[1]) && !marks.hear(ConversationId::from_column(1 << 40)));
        let answer = marks.answered();
        assert_eq!((answer.convs.len(), answer.pauses), (ASKED_MAX, true), "the answer is shown all the same");
        assert_eq!(marks.next(), None, "news cause at most one question for each pause");
        marks.go_on();
        assert_eq!(marks.next(), Some(vec![convs[ASKED_MAX], convs[1]]), "what was not asked yet is asked first");
        marks.failed();
        assert_eq!(marks.next(), None);
        marks.go_on();
        assert_eq!(marks.next().map(|convs| convs.len()), Some(2));
        let answer = marks.answered();
        assert_eq!((answer.convs.len(), answer.pauses), (2, false));
        assert_eq!((marks.next(), marks.hear(convs[1])), (None, false));
    }

    #[test]
    fn an_answer_is_dropped_if_the_history_was_lost_again() {
        let convs = convs(2);
        let mut marks = VoidMarks::default();
        convs.iter().for_each(|conv| marks.add(*conv));
        marks.next();
        marks.add(convs[0]);
        marks.hear(convs[0]);
        assert_eq!(marks.answered(), ValidAnswer { convs: [(convs[1], NextAnswer::First)].into(), pauses: false });
        assert_eq!(marks.next(), Some(vec![convs[0]]));
    }
}
