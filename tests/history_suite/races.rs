//! Several stores on one database.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::Contacts as _;
use raybox::store::history::{CommitOutcome, EntryRefusal, History as _, NewEntry};

use super::{BYTES, DAY, Opened, new_place, new_user, text};

pub(crate) fn no_reader_ever_sees_a_hole(opened: &impl Opened) {
    const WRITERS: usize = 4;
    const BATCHES: usize = 40;
    let stores = [opened.store(), opened.second()];
    let users: Vec<UserId> = (0..WRITERS).map(|_| new_user(&*stores[0])).collect();
    let group = stores[0].create_group(users[0], "g", "").unwrap();
    users[1..].iter().for_each(|user| drop(stores[0].join_group(*user, group, 100).unwrap()));
    let conv = ConversationId::of_group(group);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = users
            .iter()
            .enumerate()
            .map(|(nth, user)| {
                let store = &stores[nth % 2];
                let own = ConversationId::between(*user, users[(nth + 1) % WRITERS]);
                scope.spawn(move || {
                    for number in 0..BATCHES {
                        let batch = [
                            text(conv, *user, &format!("{nth} {number}")),
                            text(own, *user, "x"),
                            text(conv, *user, &format!("{nth} {number}+")),
                        ];
                        let places = store.commit(&batch, DAY).unwrap();
                        assert!(new_place(places[0]).seq < new_place(places[2]).seq);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut last = 0;
            loop {
                let ends = is_over.load(Ordering::SeqCst);
                for entry in stores[1].run(conv, last + 1, i64::MAX, false, BYTES).unwrap() {
                    assert_eq!(entry.seq, last + 1, "a hole");
                    last = entry.seq;
                }
                if ends {
                    return last;
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(reader.join().unwrap(), (WRITERS * BATCHES * 2) as i64);
    });
    let entries = stores[0].run(conv, 1, i64::MAX, false, usize::MAX).unwrap();
    assert!(entries.is_sorted_by_key(|entry| entry.time));
    for nth in 0..WRITERS {
        let prefix = format!("{nth} ");
        let texts: Vec<&str> = entries.iter().filter_map(|e| e.text.as_deref()?.strip_prefix(&prefix)).collect();
        let expected: Vec<String> = (0..BATCHES).flat_map(|n| [n.to_string(), format!("{n}+")]).collect();
        assert_eq!(texts, expected, "the order of sending");
    }
}

pub(crate) fn one_id_at_two_stores_is_stored_once(opened: &impl Opened) {
    let stores = [opened.store(), opened.second()];
    let (ann, bob, cat) = (new_user(&*stores[0]), new_user(&*stores[0]), new_user(&*stores[0]));
    let (ab, ac) = (ConversationId::between(ann, bob), ConversationId::between(ann, cat));
    for _ in 0..20 {
        let same = text(ab, ann, "same");
        let elsewhere = NewEntry { conv: ac, ..same.clone() };
        let outcomes: Vec<CommitOutcome> = thread::scope(|scope| {
            let send = |(nth, entry): (usize, NewEntry)| {
                let store = &stores[nth % 2];
                scope.spawn(move || store.commit(&[entry], DAY).unwrap()[0])
            };
            let sending: Vec<_> = [same.clone(), same.clone(), elsewhere].into_iter().enumerate().map(send).collect();
            sending.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let stored = outcomes.iter().filter(|outcome| matches!(outcome, CommitOutcome::New(..))).count();
        assert_eq!(stored, 1, "{outcomes:?}");
        let conflict = CommitOutcome::Refused(EntryRefusal::Conflict);
        match outcomes[2] {
            CommitOutcome::New(..) => assert_eq!(outcomes[..2], [conflict; 2]),
            other => assert_eq!(other, conflict),
        }
    }
}
