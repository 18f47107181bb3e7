//! What a change has recorded.

use std::sync::Arc;

use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::{Committed, EntryPlace, NewEntry};

/// What was recorded in one conversation, in one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The conversation.
    pub conv: ConversationId,
    /// The entries, by ascending numbers.
    pub entries: Vec<RecordedEntry>,
    /// Those who are in it afterwards, by ascending id.
    pub members: Vec<UserId>,
    /// Those who are not in it any more. The first entry is the last that they see.
    pub gone: Vec<UserId>,
}

/// What became of entries that are neither edits nor unchecked: `None` without entries.
pub(in crate::store) fn recorded(
    entries: &[NewEntry],
    outcomes: &[Committed],
    members: Vec<UserId>,
    gone: Vec<UserId>,
) -> Option<Recorded> {
    let entry = |(entry, outcome): (&NewEntry, &Committed)| {
        let (place, before) = match *outcome {
            Committed::New(place, before) => (place, before),
            Committed::Again(place) => (place, None),
            Committed::Refused(_) => return None,
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
    /// The tag of the message before it, if that is known.
    pub before: Option<Tag>,
    /// Who did what it says.
    pub from: UserId,
    /// The frame: JSON text.
    pub text: Arc<str>,
}
