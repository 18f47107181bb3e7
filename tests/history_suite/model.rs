//! Random batches, compared with a model that keeps every message in memory and counts one by one.

use std::collections::BTreeMap;

use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::Contacts as _;
use raybox::store::history::{
    CommitOutcome, EntryKind, EntryRefusal, History as _, HistoryReads as _, NewEntry, SenderCheck,
};

use super::{BYTES, DAY, Opened, head, new_user, text};

/// A message of the model.
struct Kept {
    from: UserId,
    kind: EntryKind,
    text: String,
    edited: Option<i64>,
    recalled: Option<i64>,
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Kept>,
    read: BTreeMap<UserId, i64>,
}

impl Conversation {
    fn send(&mut self, entry: &NewEntry) -> Result<i64, EntryRefusal> {
        if let EntryKind::Edit(target) | EntryKind::Recall(target) = entry.kind {
            let found = usize::try_from(target - 1).ok().and_then(|index| self.messages.get(index));
            let found = found.ok_or(EntryRefusal::NoSuchTarget)?;
            if found.from != entry.sender || found.kind != EntryKind::Message || found.recalled.is_some() {
                return Err(EntryRefusal::NotYours);
            }
        }
        let seq = self.messages.len() as i64 + 1;
        let kept = |kind| Kept { from: entry.sender, kind, text: (*entry.text).into(), edited: None, recalled: None };
        self.messages.push(kept(entry.kind));
        match entry.kind {
            EntryKind::Edit(target) => self.messages[target as usize - 1].edited = Some(seq),
            EntryKind::Recall(target) => {
                for (index, message) in self.messages.iter_mut().enumerate() {
                    if index as i64 + 1 == target || message.kind == EntryKind::Edit(target) {
                        message.recalled = Some(seq);
                    }
                }
            }
            EntryKind::Message | EntryKind::Other => {}
        }
        // An event of a group does not count as a send.
        if entry.kind != EntryKind::Other || entry.conv.group().is_none() {
            self.read.insert(entry.sender, seq);
        }
        Ok(seq)
    }

    fn unread(&self, user: UserId) -> i64 {
        let read = self.read.get(&user).copied().unwrap_or_default();
        let counts = |(index, message): &(usize, &Kept)| {
            *index as i64 >= read
                && message.kind == EntryKind::Message
                && message.from != user
                && message.recalled.is_none()
        };
        self.messages.iter().enumerate().filter(counts).count() as i64
    }

    fn shown(&self, seq: usize) -> (Option<String>, Option<i64>, Option<i64>) {
        let message = &self.messages[seq - 1];
        match (message.recalled, message.edited) {
            (Some(recall), _) => (None, None, Some(recall)),
            (None, Some(edit)) => (Some(self.messages[edit as usize - 1].text.clone()), Some(edit), None),
            (None, None) => (Some(message.text.clone()), None, None),
        }
    }
}

pub(crate) fn random_batches_are_as_the_model_says(opened: &impl Opened) {
    let store = opened.store();
    let users: Vec<UserId> = (0..3).map(|_| new_user(&*store)).collect();
    let group = store.create_group(users[0], "g", "").unwrap_or_else(|error| panic!("{error}"));
    users[1..].iter().for_each(|user| drop(store.join_group(*user, group, 100).unwrap()));
    let members: Vec<(ConversationId, Vec<UserId>)> = vec![
        (ConversationId::of_group(group), users.clone()),
        (ConversationId::between(users[0], users[1]), users[..2].to_vec()),
        (ConversationId::between(users[2], users[2]), users[2..].to_vec()),
    ];
    let mut model: BTreeMap<ConversationId, Conversation> = BTreeMap::new();
    let mut dice = Dice(7);
    for round in 0..60 {
        let mut batch = Vec::new();
        for _ in 0..=dice.below(12) {
            let (conv, members) = &members[dice.below(members.len())];
            let sender = members[dice.below(members.len())];
            let target = dice.below(40) as i64;
            let kind = match dice.below(10) {
                0 | 1 => EntryKind::Edit(target),
                2 | 3 => EntryKind::Recall(target),
                4 => EntryKind::Other,
                _ => EntryKind::Message,
            };
            batch.push(NewEntry {
                kind,
                check: SenderCheck::Whole,
                ..text(*conv, sender, &format!("{round} {target}"))
            });
        }
        let outcomes = store.commit(&batch, DAY).unwrap();
        for (entry, outcome) in batch.iter().zip(&outcomes) {
            let expected = model.entry(entry.conv).or_default().send(entry);
            let found = match outcome {
                CommitOutcome::New(place, _) => Ok(place.seq),
                CommitOutcome::Refused(refusal) => Err(*refusal),
                CommitOutcome::Again(_) => panic!("{outcome:?}"),
            };
            assert_eq!(found, expected, "round {round}: {entry:?}");
        }
        let (conv, members) = &members[dice.below(members.len())];
        let reader = members[dice.below(members.len())];
        let kept = model.entry(*conv).or_default();
        if !kept.messages.is_empty() {
            let read = dice.below(kept.messages.len() + 2) as i64;
            let marked = store.mark_read(reader, *conv, read).unwrap().unwrap();
            let stands = kept.read.entry(reader).or_default();
            *stands = (*stands).max(read.min(kept.messages.len() as i64));
            assert_eq!((marked.read, marked.unread), (*stands, kept.unread(reader)), "round {round}");
        }
    }
    for (conv, members) in &members {
        let kept = &model[conv];
        let entries = store.run(*conv, 1, i64::MAX, false, BYTES).unwrap();
        assert_eq!(entries.len(), kept.messages.len());
        for (seq, entry) in (1..).zip(&entries) {
            assert_eq!((entry.text.clone(), entry.edited, entry.recalled), kept.shown(seq), "{seq}");
        }
        for user in members {
            let found = head(&*store, *user, *conv);
            let expected = (kept.messages.len() as i64, kept.unread(*user), kept.read.get(user).copied().unwrap_or(0));
            assert_eq!((found.head, found.unread, found.read), expected);
            assert!(store.heads(*user).unwrap().contains(&found), "one by one as all together");
        }
    }
}

/// A random number generator (xorshift) that returns the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
