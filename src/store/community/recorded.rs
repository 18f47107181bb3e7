//! The entries that a change has recorded.

use std::sync::Arc;

use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::{CommitOutcome, EntryPlace, NewEntry};

/// The entries that one transaction has recorded in one conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The conversation.
    pub conv: ConversationId,
    /// The entries, by ascending numbers.
    pub entries: Vec<RecordedEntry>,
    /// The users in the conversation afterwards, by ascending id.
    pub members: Vec<UserId>,
    /// The users who are no longer in it. The first entry is the last one that they see.
    pub gone: Vec<UserId>,
}

/// The outcome of entries that are neither edits nor unchecked; `None` if there are no entries.
pub(in crate::store) fn recorded(
    entries: &[NewEntry],
    outcomes: &[CommitOutcome],
    members: Vec<UserId>,
    gone: Vec<UserId>,
) -> Option<Recorded> {
    let entry = |(entry, outcome): (&NewEntry, &CommitOutcome)| {
        let (place, before) = match *outcome {
            CommitOutcome::New(place, before) => (place, before),
            CommitOutcome::Again(place) => (place, None),
            CommitOutcome::Refused(_) => return None,
        };
        Some(RecordedEntry { place, before, from: entry.sender, text: entry.text.clone() })
    };
    let conv = entries.first()?.conv;
    Some(Recorded { conv, entries: entries.iter().zip(outcomes).filter_map(entry).collect(), members, gone })
}

/// An entry that was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedEntry {
    /// Its place.
    pub place: EntryPlace,
    /// The tag of the message before it, if known.
    pub before: Option<Tag>,
    /// The user who has made the change.
    pub from: UserId,
    /// The frame: JSON text.
    pub text: Arc<str>,
}
