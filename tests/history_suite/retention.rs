//! Retention: the deletion of old messages, and the choice of the node that deletes.

use raybox::base::conversation::ConversationId;
use raybox::store::history::{
    CommitOutcome, EntryKind, History as _, HistoryReads as _, HistoryRetention, NewEntry, RetentionClaim,
    RetentionRules, SharedKey,
};

use super::{BYTES, DAY, Opened, head, new_place, new_user, text};

pub(crate) fn retention_raises_the_floor_and_still_knows_repeats(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let before = ConversationId::from_column(conv.column() - 1);
    let first = text(conv, ann, "0");
    let batch: Vec<NewEntry> =
        std::iter::once(first.clone()).chain((1..1_500).map(|nth| text(conv, ann, &nth.to_string()))).collect();
    let place = new_place(store.commit(&batch, DAY).unwrap()[0]);
    let recall = NewEntry { kind: EntryKind::Recall(1_400), ..text(conv, ann, "recall") };
    store.commit(&[recall], DAY).unwrap();
    assert_eq!(head(&*store, bob, conv).unread, 1_499);
    let keep = HistoryRetention { before: 0, newest: 200, ids_before: 0 };
    let step = store.retire(&keep, before).unwrap();
    assert_eq!((step.retired, step.deleted, step.next), (1_000, 0, None), "small steps");
    assert_eq!(head(&*store, bob, conv).floor, 1_000);
    let step = store.retire(&keep, before).unwrap();
    assert!(step.retired >= 301, "{step:?}");
    let of_bob = head(&*store, bob, conv);
    assert_eq!((of_bob.floor, of_bob.head, of_bob.unread), (1_301, 1_501, 198));
    assert_eq!(store.run(conv, 1, 2_000, false, BYTES).unwrap()[0].seq, 1_302);
    assert_eq!(store.commit(std::slice::from_ref(&first), DAY).unwrap(), [CommitOutcome::Again(place)]);
    let step = store.retire(&keep, before).unwrap();
    assert_eq!((step.retired, step.deleted), (0, 0), "nothing is left to do");
    // Later the ids are deleted as well, and then everything that is old enough.
    let ids_go = HistoryRetention { ids_before: i64::MAX, ..keep };
    let deleted: Vec<u64> = (0..3).map(|_| store.retire(&ids_go, before).unwrap().deleted).collect();
    assert_eq!(deleted, [1_000, 301, 0]);
    assert_eq!(store.tags(&[(conv, 1_301)]).unwrap(), [None]);
    store.retire(&HistoryRetention { before: i64::MAX, newest: i64::MAX, ids_before: 0 }, before).unwrap();
    let of_bob = head(&*store, bob, conv);
    assert_eq!((of_bob.floor, of_bob.unread), (1_501, 0));
    assert_eq!(new_place(store.commit(&[text(conv, ann, "next")], DAY).unwrap()[0]).seq, 1_502);
    assert_eq!(head(&*store, bob, conv).unread, 1);
}

pub(crate) fn retention_lets_conversations_take_turns(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let convs =
        [ConversationId::between(ann, bob), ConversationId::between(ann, cat), ConversationId::between(bob, cat)];
    for (conv, sender) in convs.into_iter().zip([ann, ann, bob]) {
        for _ in 0..5 {
            let batch: Vec<NewEntry> = (0..500).map(|nth| text(conv, sender, &nth.to_string())).collect();
            store.commit(&batch, DAY).unwrap();
        }
    }
    let keep = HistoryRetention { before: 0, newest: 100, ids_before: 0 };
    let (mut after, mut floors) = (ConversationId::from_column(i64::MIN), Vec::new());
    for _ in 0..3 {
        let step = store.retire(&keep, after).unwrap();
        assert_eq!(step.retired, 1_000, "small steps");
        after = step.next.unwrap_or(convs[2]);
        floors.push(convs.map(|conv| head(&*store, if conv == convs[2] { bob } else { ann }, conv).floor));
    }
    assert_eq!(floors, [[1_000, 0, 0], [1_000, 1_000, 0], [1_000, 1_000, 1_000]]);
}

pub(crate) fn one_node_at_a_time_has_the_retention(opened: &impl Opened) {
    let (store, second) = (opened.store(), opened.second());
    let rules = RetentionRules { days: 30, newest: 0, id_days: 7 };
    let claim = |owner, due_before| RetentionClaim { owner, due_before, rules, minds_rules: false, lease: 1_000_000 };
    let (one, two) = (claim(1, i64::MAX), claim(2, i64::MAX));
    assert!(store.claim_retention(&one).unwrap(), "it was never done");
    assert!(!second.claim_retention(&two).unwrap(), "another node has it");
    assert!(store.claim_retention(&one).unwrap(), "it goes on");
    second.end_retention(&two).unwrap();
    assert!(!second.claim_retention(&two).unwrap(), "it is not this node's to end");
    store.end_retention(&one).unwrap();
    assert!(!second.claim_retention(&claim(2, 1)).unwrap(), "it was done since");
    assert!(second.claim_retention(&two).unwrap(), "it is due again");
    let key = store.shared_key(SharedKey::Tokens, [7; 32]).unwrap();
    assert_eq!(
        (key, second.shared_key(SharedKey::Tokens, [8; 32]).unwrap()),
        ([7; 32], [7; 32]),
        "the key of tokens is another row"
    );
}
