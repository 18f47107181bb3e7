//! Messages, edits and recalls, and the users who may read them.

use raybox::base::conversation::ConversationId;
use raybox::protocol::{GroupId, UserId};
use raybox::store::Contacts as _;
use raybox::store::history::{
    CommitOutcome, CommitRules, Denied, EntryKind, EntryPlace, EntryRefusal, FrameHash, History, HistoryReads as _,
    MemberChange, NewEntry, PageAsk, PageOutcome, SenderCheck,
};

use super::{BYTES, DAY, Opened, head, new_place, new_user, text};

pub(crate) fn numbers_are_dense_and_tags_stay(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (ab, ac) = (ConversationId::between(ann, bob), ConversationId::between(ann, cat));
    let batch = [text(ab, ann, "1"), text(ac, ann, "2"), text(ab, bob, "3"), text(ab, ann, "4"), text(ac, cat, "5")];
    let places: Vec<EntryPlace> = store.commit(&batch, DAY).unwrap().into_iter().map(new_place).collect();
    assert_eq!(places.iter().map(|place| place.seq).collect::<Vec<_>>(), [1, 1, 2, 3, 2]);
    assert!(places.is_sorted_by_key(|place| place.time));
    let entries = store.run(ab, 1, 10, false, BYTES).unwrap();
    let seen: Vec<_> = entries.iter().map(|e| (e.seq, e.from, e.text.clone().unwrap(), e.tag, e.time)).collect();
    let expected = [(0, ann, "1"), (2, bob, "3"), (3, ann, "4")];
    let expected: Vec<_> = expected
        .map(|(nth, from, text)| (places[nth].seq, from, text.to_owned(), places[nth].tag, places[nth].time))
        .to_vec();
    assert_eq!(seen, expected);
    let found = store.messages_at(&[(ab, 3), (ab, 4), (ac, 1), (ab, 1)]).unwrap();
    let expected = |conv, seq| store.run(conv, seq, seq, false, 1000).unwrap().pop();
    assert_eq!(found, [expected(ab, 3), None, expected(ac, 1), expected(ab, 1)]);
    assert!(found[0].is_some() && found[3].is_some());
    let tags = store.tags(&[(ab, 3), (ab, 4), (ac, 1)]).unwrap();
    assert_eq!(tags, [Some(places[3].tag), None, Some(places[1].tag)]);
    assert_eq!(store.commit(&[], DAY).unwrap(), []);
}

pub(crate) fn a_repeat_is_the_same_answer_and_another_content_a_conflict(opened: &impl Opened) {
    let (store, other) = (opened.store(), opened.second());
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (ab, ac) = (ConversationId::between(ann, bob), ConversationId::between(ann, cat));
    let first = text(ab, ann, "first");
    // A repeat within one batch, as after a reconnect.
    let outcomes = store.commit(&[first.clone(), first.clone()], DAY).unwrap();
    let place = new_place(outcomes[0]);
    assert_eq!(outcomes, [CommitOutcome::New(place, None), CommitOutcome::Again(place)]);
    assert_eq!(other.commit(std::slice::from_ref(&first), DAY).unwrap(), [CommitOutcome::Again(place)]);
    let changed = NewEntry { hash: FrameHash::of(b"other"), ..first.clone() };
    let moved = NewEntry { conv: ac, ..first.clone() };
    let of_another = NewEntry { sender: bob, ..first.clone() };
    let outcomes = other.commit(&[changed, moved, of_another], DAY).unwrap();
    assert_eq!(outcomes[..2], [CommitOutcome::Refused(EntryRefusal::Conflict); 2]);
    assert_eq!(new_place(outcomes[2]).seq, 2, "an id is its sender's");
    // The id of a recalled message is still known.
    let recall = NewEntry { kind: EntryKind::Recall(1), ..text(ab, ann, "recall") };
    let recalled = store.commit(&[recall], DAY).unwrap()[0];
    assert_eq!(new_place(recalled).seq, 3);
    let before = new_place(outcomes[2]).tag;
    assert_eq!(recalled, CommitOutcome::New(new_place(recalled), Some(before)), "it says which one is before it");
    assert_eq!(store.commit(&[first], DAY).unwrap(), [CommitOutcome::Again(place)]);
}

pub(crate) fn rights_are_looked_at_after_repeats(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, stranger) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let group = store.create_group(ann, "g", "").unwrap();
    let (of_group, none) = (ConversationId::of_group(group), ConversationId::of_group(GroupId(i32::MAX)));
    let unchecked = |conv, sender, body| NewEntry { check: SenderCheck::Whole, ..text(conv, sender, body) };
    let leaves = NewEntry { change: Some(MemberChange::Leaves(ann)), ..text(of_group, bob, "removed") };
    let mine = unchecked(of_group, ann, "mine");
    let batch = [
        mine.clone(),
        unchecked(of_group, stranger, "no"),
        unchecked(none, ann, "no"),
        unchecked(ConversationId::between(ann, UserId(i32::MAX)), ann, "no"),
        unchecked(ConversationId::between(ann, bob), ann, "yes"),
        unchecked(ConversationId::between(ann, ann), ann, "notes"),
        leaves,
    ];
    let refused = CommitOutcome::Refused;
    let outcomes = store.commit(&batch, DAY).unwrap();
    let place = new_place(outcomes[0]);
    assert_eq!(
        outcomes[1..4],
        [EntryRefusal::NotMember, EntryRefusal::NoSuchGroup, EntryRefusal::NoSuchUser].map(refused)
    );
    assert!(outcomes[4..].iter().all(|outcome| matches!(outcome, CommitOutcome::New(..))), "{outcomes:?}");
    assert_eq!(store.members(group).unwrap(), []);
    let outcomes = store.commit(&[mine, unchecked(of_group, ann, "more")], DAY).unwrap();
    assert_eq!(outcomes, [CommitOutcome::Again(place), refused(EntryRefusal::NotMember)]);
    assert_eq!(store.heads_of(ann, &[of_group]).unwrap(), [Err(Denied::NotYours)]);
    assert_eq!(store.heads_of(ann, &[none]).unwrap(), [Err(Denied::Unknown)]);
}

pub(crate) fn strangers_use_up_half_of_the_room_for_conversations(opened: &impl Opened) {
    let store = opened.store();
    let rules = CommitRules { conversations_max: 4, ..DAY };
    let [victim, known, friend, other] = [(); 4].map(|()| new_user(&*store));
    let crowd = [(); 3].map(|()| new_user(&*store));
    let send = |from, to| NewEntry { check: SenderCheck::Whole, ..text(ConversationId::between(from, to), from, "hi") };
    let commit = |batch: &[NewEntry]| -> Vec<bool> {
        let outcomes = store.commit(batch, rules).unwrap();
        let full = CommitOutcome::Refused(EntryRefusal::NoRoom);
        assert!(outcomes.iter().all(|outcome| *outcome == full || matches!(outcome, CommitOutcome::New(..))));
        outcomes.iter().map(|outcome| *outcome != full).collect()
    };
    store.add_friends(victim, friend).unwrap();
    assert_eq!(commit(&[send(known, victim)]), [true]);
    // There is room for one more stranger, whether the others come in the same batch or later.
    assert_eq!(commit(&crowd.map(|stranger| send(stranger, victim))), [true, false, false]);
    assert_eq!(commit(&[send(crowd[1], victim)]), [false]);
    // The others are served: in open conversations, as friends, and in those that the victim opens.
    assert_eq!(commit(&[send(known, victim), send(crowd[0], victim), send(friend, victim)]), [true; 3]);
    assert_eq!(commit(&[send(victim, other), send(victim, other), send(other, victim)]), [true; 3]);
    // Now there is no room for anybody.
    let notes = ConversationId::between(victim, victim);
    let late = new_user(&*store);
    store.add_friends(victim, late).unwrap();
    assert_eq!(commit(&[send(victim, late), send(late, victim), send(victim, victim)]), [false; 3]);
    assert_eq!(commit(&[send(victim, known), send(friend, victim)]), [true; 2]);
    // The server itself and an operator are not refused.
    let announced = NewEntry { check: SenderCheck::Rights, ..text(notes, victim, "news") };
    assert_eq!(commit(&[announced, text(ConversationId::between(late, victim), late, "imported")]), [true; 2]);
    // A repeat is recognised all the same.
    let first = send(victim, known);
    let place = new_place(store.commit(std::slice::from_ref(&first), rules).unwrap()[0]);
    assert_eq!(store.commit(&[first], rules).unwrap(), [CommitOutcome::Again(place)]);
}

pub(crate) fn an_edit_shows_in_its_place_and_a_recall_empties_all(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let edit = |target, body| NewEntry { kind: EntryKind::Edit(target), ..text(conv, ann, body) };
    store.commit(&[text(conv, ann, "a"), text(conv, ann, "b"), edit(1, "a1"), edit(2, "b1")], DAY).unwrap();
    store.commit(&[edit(1, "a2")], DAY).unwrap();
    let before = store.run(conv, 1, 9, false, BYTES).unwrap();
    let shown = |entries: &[raybox::store::history::HistoryEntry]| {
        let show = |e: &raybox::store::history::HistoryEntry| (e.text.clone(), e.edited, e.recalled);
        entries.iter().map(show).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        shown(&before),
        [
            (some("a2"), Some(5), None),
            (some("b1"), Some(4), None),
            (some("a1"), None, None),
            (some("b1"), None, None),
            (some("a2"), None, None)
        ]
    );
    let recall = NewEntry { kind: EntryKind::Recall(1), ..text(conv, ann, "gone") };
    let again = NewEntry { kind: EntryKind::Recall(1), ..text(conv, ann, "twice") };
    // An edit in the batch of the recall is emptied with the message.
    let outcomes = store.commit(&[edit(1, "a3"), recall, again, edit(1, "late")], DAY).unwrap();
    assert_eq!(outcomes[2..], [CommitOutcome::Refused(EntryRefusal::NotYours); 2]);
    let after = store.run(conv, 1, 9, false, BYTES).unwrap();
    assert_eq!(
        shown(&after),
        [
            (None, None, Some(7)),
            (some("b1"), Some(4), None),
            (None, None, Some(7)),
            (some("b1"), None, None),
            (None, None, Some(7)),
            (None, None, Some(7)),
            (some("gone"), None, None)
        ]
    );
    assert!(before.iter().zip(&after).all(|(before, after)| (before.tag, before.time) == (after.tag, after.time)));
}

pub(crate) fn a_forbidden_change_is_refused(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let request = NewEntry { kind: EntryKind::Other, ..text(conv, ann, "request") };
    let edit = |target| NewEntry { kind: EntryKind::Edit(target), ..text(conv, ann, "edit") };
    store.commit(&[text(conv, bob, "bob's"), request, text(conv, ann, "mine"), edit(3)], DAY).unwrap();
    let batch = [edit(1), edit(2), edit(4), edit(0), edit(-1), edit(5), edit(i64::MAX)];
    let [not_yours, none] = [EntryRefusal::NotYours, EntryRefusal::NoSuchTarget].map(CommitOutcome::Refused);
    let expected = [not_yours, not_yours, not_yours, none, none, none, none];
    assert_eq!(store.commit(&batch, DAY).unwrap(), expected);
    assert_eq!(
        store.commit(&[edit(3)], CommitRules { edit_window: -1, ..DAY }).unwrap(),
        [CommitOutcome::Refused(EntryRefusal::TooLate)]
    );
    let head = head(&*store, ann, conv);
    assert_eq!((head.head, head.read), (4, 4), "what is refused takes no number");
}

pub(crate) fn a_new_member_sees_a_group_from_there(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let group = store.create_group(ann, "g", "").unwrap();
    let conv = ConversationId::of_group(group);
    let joins = |user, sees_all| {
        let change = Some(MemberChange::Joins { user, sees_all });
        NewEntry { kind: EntryKind::Other, change, ..text(conv, user, "joined") }
    };
    store.commit(&[text(conv, ann, "1"), text(conv, ann, "2"), joins(bob, false), text(conv, ann, "4")], DAY).unwrap();
    let of_bob = head(&*store, bob, conv);
    assert_eq!((of_bob.floor, of_bob.head, of_bob.unread), (2, 4, 1));
    store.commit(&[joins(cat, true)], DAY).unwrap();
    let of_cat = head(&*store, cat, conv);
    assert_eq!((of_cat.floor, of_cat.head, of_cat.unread), (0, 5, 0), "what was sent before joining is read");
    assert_eq!(page_seqs(&*store, bob, conv, PageAsk::Newest), [3, 4, 5]);
    assert_eq!(store.page(bob, conv, PageAsk::Before(3), 10, BYTES).unwrap(), PageOutcome::Gone { floor: 2 });
    // If a user has joined more than once, the latest membership counts.
    let leaves = NewEntry { change: Some(MemberChange::Leaves(bob)), ..text(conv, bob, "left") };
    store.commit(&[leaves, text(conv, ann, "7")], DAY).unwrap();
    let denied = PageOutcome::Denied(Denied::NotYours);
    assert_eq!(store.page(bob, conv, PageAsk::Newest, 10, BYTES).unwrap(), denied);
    store.commit(&[joins(bob, false)], DAY).unwrap();
    assert_eq!(page_seqs(&*store, bob, conv, PageAsk::Newest), [8]);
    // A node without history lets a user join.
    let dan = new_user(&*store);
    store.join_group(dan, group, 100).unwrap();
    assert_eq!(head(&*store, dan, conv).floor, 8);
    assert_eq!(store.heads(dan).unwrap()[0].floor, 8);
    store.commit(&[text(conv, ann, "9")], DAY).unwrap();
    assert_eq!(page_seqs(&*store, dan, conv, PageAsk::Newest), [9]);
    // Another user writes before a login at level 2.
    let eve = new_user(&*store);
    store.join_group(eve, group, 100).unwrap();
    store.commit(&[text(conv, eve, "10")], DAY).unwrap();
    assert_eq!(page_seqs(&*store, eve, conv, PageAsk::Newest), [10]);
}

pub(crate) fn pages_keep_to_their_bounds(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let batch: Vec<NewEntry> = (1..=20).map(|_| text(conv, ann, &"x".repeat(100))).collect();
    store.commit(&batch, DAY).unwrap();
    let seqs = |entries: Vec<raybox::store::history::HistoryEntry>| entries.iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.run(conv, 3, 9, false, 350).unwrap()), [3, 4, 5]);
    assert_eq!(seqs(store.run(conv, 3, 9, true, 350).unwrap()), [7, 8, 9]);
    assert_eq!(seqs(store.run(conv, 3, 9, true, 0).unwrap()), [9]);
    assert_eq!(seqs(store.run(conv, 21, 30, false, BYTES).unwrap()), [0; 0]);
    let PageOutcome::Page(page) = store.page(bob, conv, PageAsk::Around(10), 5, BYTES).unwrap() else { panic!() };
    assert_eq!((seqs(page.entries), page.is_complete, page.head), (vec![8, 9, 10, 11, 12], false, 20));
    let nobody = ConversationId::between(bob, UserId(i32::MAX));
    assert_eq!(store.page(bob, nobody, PageAsk::Newest, 5, BYTES).unwrap(), PageOutcome::Denied(Denied::Unknown));
}

pub(crate) fn heads_are_the_users_own(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (ab, bc) = (ConversationId::between(ann, bob), ConversationId::between(bob, cat));
    let (quiet, loud) = (store.create_group(ann, "quiet", "").unwrap(), store.create_group(bob, "loud", "").unwrap());
    store.join_group(ann, loud, 100).unwrap();
    let notes = ConversationId::between(ann, ann);
    let loud = ConversationId::of_group(loud);
    let batch = [text(ab, bob, "1"), text(bc, bob, "1"), text(loud, bob, "1"), text(notes, ann, "1")];
    store.commit(&batch, DAY).unwrap();
    let heads = store.heads(ann).unwrap();
    let mut convs: Vec<ConversationId> = heads.iter().map(|head| head.conv).collect();
    assert_eq!(convs.pop(), Some(ConversationId::of_group(quiet)), "the least active comes last");
    convs.sort();
    assert_eq!(convs, [loud, notes, ab], "groups have the lower ids");
    for head in &heads {
        assert_eq!(store.heads_of(ann, &[head.conv]).unwrap(), [Ok(head.clone())]);
    }
    let of = |conv| heads.iter().find(|head| head.conv == conv).unwrap();
    assert_eq!((of(ab).unread, of(notes).unread, of(loud).unread), (1, 0, 1));
    assert_eq!((of(ab).peer, of(loud).peer), (Some((1, 0)), None));
    assert_eq!(of(loud).name.as_deref(), Some("loud"));
    assert_eq!(of(ab).tag, store.tags(&[(ab, 1)]).unwrap()[0]);
    assert_eq!(of(ConversationId::of_group(quiet)).tag, None);
}

fn page_seqs(store: &dyn History, user: UserId, conv: ConversationId, ask: PageAsk) -> Vec<i64> {
    match store.page(user, conv, ask, 100, BYTES).unwrap() {
        PageOutcome::Page(page) => page.entries.iter().map(|entry| entry.seq).collect(),
        other => panic!("{other:?}"),
    }
}
