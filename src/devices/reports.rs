//! [`Reports`]: the 47s of a connection. They are noted one after the other, and those that come
//! meanwhile are merged.

use std::collections::BTreeMap;

use super::tasks::Noted;
use crate::base::conversation::{ConversationName, Seq};

/// 47s that wait to be noted.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: BTreeMap<ConversationName, Seq>,
}

impl Reports {
    /// Adds a 47. The highest number of each conversation counts.
    pub(super) fn add(&mut self, stored: Vec<(ConversationName, Seq)>) {
        for (name, seq) in stored {
            if let Some(known) = self.waiting.get_mut(&name) {
                *known = seq.max(*known);
            } else if self.waiting.len() < REPORTED_MAX {
                self.waiting.insert(name, seq);
            }
        }
    }

    /// The report to note now.
    pub(super) fn next(&mut self) -> Option<Vec<(ConversationName, Seq)>> {
        let stored: Vec<_> = std::mem::take(&mut self.waiting).into_iter().collect();
        (!stored.is_empty()).then_some(stored)
    }

    /// Takes the outcome of the report. After a failure it waits for the next 47, because the
    /// database is unavailable.
    pub(super) fn noted(&mut self, stored: Vec<(ConversationName, Seq)>, noted: Noted) {
        match noted {
            Noted::Stored => {}
            Noted::Failed => self.add(stored),
        }
    }
}

/// The most conversations in waiting reports. Further ones are ignored, which loses no message.
const REPORTED_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::UserId;

    #[test]
    fn of_more_conversations_than_may_wait_the_first_are_noted() {
        let name = |nth: usize| ConversationName::User(UserId(nth as i32));
        let mut reports = Reports::default();
        reports.add((1..=REPORTED_MAX + 1).map(|nth| (name(nth), 1)).collect());
        reports.add(vec![(name(1), 2)]);
        let noted = reports.next().expect("they wait");
        assert_eq!((noted.len(), noted[0]), (REPORTED_MAX, (name(1), 2)));
    }
}
