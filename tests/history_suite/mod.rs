//! The behaviour of history, tested through its role alone. Every test makes its own users and
//! groups, and asserts nothing about the rest.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use raybox::base::conversation::ConversationId;
use raybox::protocol::{GroupId, UserId};
use raybox::store::history::{
    Cid, Committed, Denied, DeviceId, DeviceLogin, EntryKind, EntryPlace, EntryRefusal, FrameHash, Head, History,
    LoginProof, MemberChange, NewEntry, PageAsk, PageOutcome, Retention, RetentionClaim, RetentionRules,
};
use raybox::store::{AllRoles, AppendOutcome, Contacts as _, KeptMessage, MessageId, Messages as _, NewMessage};

/// A store that lives as long as one test.
pub(crate) trait Opened {
    type Store: AllRoles + History;

    fn store(&self) -> Arc<Self::Store>;

    /// Another store on the same database.
    fn second(&self) -> Arc<Self::Store>;
}

/// Makes a `#[test]` of every behaviour, on the stores that `$open` gives.
macro_rules! history_suite {
    ($open:path) => {
        $crate::history_suite::behaviours!($open:
            numbers_are_dense_and_tags_stay,
            a_repeat_is_the_same_answer_and_another_content_a_conflict,
            rights_are_looked_at_after_repeats,
            an_edit_shows_in_its_place_and_a_recall_empties_all,
            what_may_not_be_changed_is_refused,
            what_is_unread_is_exact,
            marks_rise_and_reports_are_cumulative,
            who_joins_sees_a_group_from_there,
            pages_keep_to_their_bounds,
            retention_raises_the_floor_and_still_knows_repeats,
            retention_lets_conversations_take_turns,
            one_node_at_a_time_has_the_retention,
            devices_come_and_go,
            a_login_is_written_only_if_what_was_proved_still_holds,
            heads_are_the_users_own,
            what_waits_is_read_and_marked_until_it_is_reported,
            no_reader_ever_sees_a_hole,
            one_id_at_two_stores_is_stored_once,
            random_batches_are_as_the_model_says,
        );
    };
}
pub(crate) use history_suite;

macro_rules! behaviours {
    ($open:path: $($behaviour:ident,)*) => {
        $(
            #[test]
            fn $behaviour() {
                $crate::history_suite::$behaviour(&$open());
            }
        )*
    };
}
pub(crate) use behaviours;

pub(crate) use self::model::random_batches_are_as_the_model_says;

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
    // A repeat within the batch, as after a reconnect.
    let outcomes = store.commit(&[first.clone(), first.clone()], DAY).unwrap();
    let place = new_place(outcomes[0]);
    assert_eq!(outcomes[1], Committed::Again(place));
    assert_eq!(other.commit(std::slice::from_ref(&first), DAY).unwrap(), [Committed::Again(place)]);
    let changed = NewEntry { hash: FrameHash::of(b"other"), ..first.clone() };
    let moved = NewEntry { conv: ac, ..first.clone() };
    let of_another = NewEntry { sender: bob, ..first.clone() };
    let outcomes = other.commit(&[changed, moved, of_another], DAY).unwrap();
    assert_eq!(outcomes[..2], [Committed::Refused(EntryRefusal::Conflict); 2]);
    assert_eq!(new_place(outcomes[2]).seq, 2, "an id is its sender's");
    // A recalled message is still known.
    let recall = NewEntry { kind: EntryKind::Recall(1), ..text(ab, ann, "recall") };
    assert_eq!(new_place(store.commit(&[recall], DAY).unwrap()[0]).seq, 3);
    assert_eq!(store.commit(&[first], DAY).unwrap(), [Committed::Again(place)]);
}

pub(crate) fn rights_are_looked_at_after_repeats(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, stranger) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let group = store.create_group(ann, "g", "").unwrap();
    let (of_group, none) = (ConversationId::of_group(group), ConversationId::of_group(GroupId(i32::MAX)));
    let unchecked = |conv, sender, body| NewEntry { is_unchecked: true, ..text(conv, sender, body) };
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
    let refused = Committed::Refused;
    let outcomes = store.commit(&batch, DAY).unwrap();
    let place = new_place(outcomes[0]);
    assert_eq!(
        outcomes[1..4],
        [EntryRefusal::NotMember, EntryRefusal::NoSuchGroup, EntryRefusal::NoSuchUser].map(refused)
    );
    assert!(outcomes[4..].iter().all(|outcome| matches!(outcome, Committed::New(_))), "{outcomes:?}");
    assert_eq!(store.members(group).unwrap(), []);
    let outcomes = store.commit(&[mine, unchecked(of_group, ann, "more")], DAY).unwrap();
    assert_eq!(outcomes, [Committed::Again(place), refused(EntryRefusal::NotMember)]);
    assert_eq!(store.heads_of(ann, &[of_group]).unwrap(), [Err(Denied::NotYours)]);
    assert_eq!(store.heads_of(ann, &[none]).unwrap(), [Err(Denied::Unknown)]);
}

pub(crate) fn an_edit_shows_in_its_place_and_a_recall_empties_all(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let edit = |target, body| NewEntry { kind: EntryKind::Edit(target), ..text(conv, ann, body) };
    store.commit(&[text(conv, ann, "a"), text(conv, ann, "b"), edit(1, "a1"), edit(2, "b1")], DAY).unwrap();
    store.commit(&[edit(1, "a2")], DAY).unwrap();
    let before = store.run(conv, 1, 9, false, BYTES).unwrap();
    let shown = |entries: &[raybox::store::history::Entry]| {
        let show = |e: &raybox::store::history::Entry| (e.text.clone(), e.edited, e.recalled);
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
    // An edit of the same batch goes with it.
    let outcomes = store.commit(&[edit(1, "a3"), recall, again, edit(1, "late")], DAY).unwrap();
    assert_eq!(outcomes[2..], [Committed::Refused(EntryRefusal::NotYours); 2]);
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

pub(crate) fn what_may_not_be_changed_is_refused(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let request = NewEntry { kind: EntryKind::Other, ..text(conv, ann, "request") };
    let edit = |target| NewEntry { kind: EntryKind::Edit(target), ..text(conv, ann, "edit") };
    store.commit(&[text(conv, bob, "bob's"), request, text(conv, ann, "mine"), edit(3)], DAY).unwrap();
    let batch = [edit(1), edit(2), edit(4), edit(0), edit(-1), edit(5), edit(i64::MAX)];
    let [not_yours, none] = [EntryRefusal::NotYours, EntryRefusal::NoSuchTarget].map(Committed::Refused);
    let expected = [not_yours, not_yours, not_yours, none, none, none, none];
    assert_eq!(store.commit(&batch, DAY).unwrap(), expected);
    assert_eq!(store.commit(&[edit(3)], -1).unwrap(), [Committed::Refused(EntryRefusal::TooLate)]);
    let head = head(&*store, ann, conv);
    assert_eq!((head.head, head.read), (4, 4), "what is refused takes no number");
}

pub(crate) fn what_is_unread_is_exact(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    let recall = |target| NewEntry { kind: EntryKind::Recall(target), ..text(conv, ann, "recall") };
    let unread = |user| head(&*store, user, conv).unread;
    let other = NewEntry { kind: EntryKind::Other, ..text(conv, ann, "other") };
    store.commit(&[text(conv, ann, "1"), other, text(conv, ann, "3"), text(conv, ann, "4")], DAY).unwrap();
    assert_eq!((unread(ann), unread(bob)), (0, 3));
    store.commit(&[recall(3)], DAY).unwrap();
    assert_eq!(unread(bob), 2);
    for (read, expected) in [(1, 1), (2, 1), (3, 1), (4, 0)] {
        let marked = store.mark_read(bob, conv, read).unwrap().unwrap();
        assert_eq!((marked.read, marked.unread, marked.has_risen), (read, expected, true), "{read}");
    }
    store.commit(&[recall(1), text(conv, ann, "7")], DAY).unwrap();
    assert_eq!(unread(bob), 1, "what was read and then recalled counts no more than before");
    store.commit(&[text(conv, bob, "8")], DAY).unwrap();
    assert_eq!((unread(bob), unread(ann)), (0, 1));
    // An imported message moves no mark of its sender, and is not unread to the sender.
    let imported = NewEntry { is_imported: true, ..text(conv, ann, "9") };
    store.commit(&[imported], DAY).unwrap();
    assert_eq!((unread(bob), unread(ann)), (1, 1));
    assert!(store.run(conv, 9, 9, false, BYTES).unwrap()[0].is_imported);
    store.mark_read(ann, conv, 8).unwrap().unwrap();
    assert_eq!((unread(bob), unread(ann)), (1, 0));
    store.mark_read(ann, conv, i64::MAX).unwrap().unwrap();
    assert_eq!(unread(ann), 0);
}

pub(crate) fn marks_rise_and_reports_are_cumulative(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (conv, foreign) = (ConversationId::between(ann, bob), ConversationId::between(ann, cat));
    store.commit(&[text(conv, ann, "1"), text(conv, ann, "2"), text(foreign, ann, "1")], DAY).unwrap();
    let mark = |read| store.mark_read(bob, conv, read).unwrap().unwrap();
    let seen = |marked: raybox::store::history::Marked| (marked.read, marked.has_risen, marked.unread);
    assert_eq!(
        [1, 0, -5, 100, 2].map(|read| seen(mark(read))),
        [(1, true, 1), (1, false, 1), (1, false, 1), (2, true, 0), (2, false, 0)]
    );
    assert_eq!(store.mark_read(bob, foreign, 1).unwrap(), Err(Denied::NotYours));
    let device = store.log_in(&login(bob, "phone", 1)).unwrap().unwrap().device.id;
    let raised = store.report(bob, device, &[(conv, 1), (foreign, 1), (conv, 0)]).unwrap();
    assert_eq!(raised.iter().map(|mark| (mark.conv, mark.recv, mark.read)).collect::<Vec<_>>(), [(conv, 1, 2)]);
    assert_eq!(store.report(bob, device, &[(conv, 99)]).unwrap()[0].recv, 2);
    assert_eq!(store.report(bob, device, &[(conv, 1)]).unwrap(), []);
    assert_eq!(store.cursors(device).unwrap(), [(conv, 2)]);
    assert_eq!(head(&*store, ann, conv).peer, Some((2, 2)));
    let swept = store.raised(60_000, 10_000).unwrap();
    assert!(swept.iter().any(|mark| (mark.conv, mark.user, mark.read, mark.recv) == (conv, bob, 2, 2)), "{swept:?}");
    assert_eq!(found_by_pages_of_two(&*store, conv), Some(2));
}

/// The head of a conversation that was touched within the last minute, as pages tell it.
fn found_by_pages_of_two(store: &dyn History, conv: ConversationId) -> Option<i64> {
    let (mut found, mut last) = (None, None);
    loop {
        let page = store.touched(60_000, last, 2).unwrap();
        let times = last.iter().chain(&page).map(|touched| (touched.at, touched.conv.column()));
        assert!(times.is_sorted_by(|one, other| one < other), "{last:?} {page:?}");
        found = found.or(page.iter().find(|touched| touched.conv == conv).map(|touched| touched.head));
        if page.len() < 2 {
            return found;
        }
        last = page.last().copied();
    }
}

pub(crate) fn who_joins_sees_a_group_from_there(opened: &impl Opened) {
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
    // The latest membership counts.
    let leaves = NewEntry { change: Some(MemberChange::Leaves(bob)), ..text(conv, bob, "left") };
    store.commit(&[leaves, text(conv, ann, "7")], DAY).unwrap();
    let denied = PageOutcome::Denied(Denied::NotYours);
    assert_eq!(store.page(bob, conv, PageAsk::Newest, 10, BYTES).unwrap(), denied);
    store.commit(&[joins(bob, false)], DAY).unwrap();
    assert_eq!(page_seqs(&*store, bob, conv, PageAsk::Newest), [8]);
    // A node that knows no history lets somebody in.
    let dan = new_user(&*store);
    store.join_group(dan, group, 100).unwrap();
    assert_eq!(head(&*store, dan, conv).floor, 8);
    assert_eq!(store.heads(dan).unwrap()[0].floor, 8);
    store.commit(&[text(conv, ann, "9")], DAY).unwrap();
    assert_eq!(page_seqs(&*store, dan, conv, PageAsk::Newest), [9]);
    // Another one speaks before logging in.
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
    let seqs = |entries: Vec<raybox::store::history::Entry>| entries.iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.run(conv, 3, 9, false, 350).unwrap()), [3, 4, 5]);
    assert_eq!(seqs(store.run(conv, 3, 9, true, 350).unwrap()), [7, 8, 9]);
    assert_eq!(seqs(store.run(conv, 3, 9, true, 0).unwrap()), [9]);
    assert_eq!(seqs(store.run(conv, 21, 30, false, BYTES).unwrap()), [0; 0]);
    let PageOutcome::Page(page) = store.page(bob, conv, PageAsk::Around(10), 5, BYTES).unwrap() else { panic!() };
    assert_eq!((seqs(page.entries), page.is_complete, page.head), (vec![8, 9, 10, 11, 12], false, 20));
    let nobody = ConversationId::between(bob, UserId(i32::MAX));
    assert_eq!(store.page(bob, nobody, PageAsk::Newest, 5, BYTES).unwrap(), PageOutcome::Denied(Denied::Unknown));
}

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
    let keep = Retention { before: 0, newest: 200, ids_before: 0 };
    let step = store.retire(&keep, before).unwrap();
    assert_eq!((step.retired, step.deleted, step.next), (1_000, 0, None), "small steps");
    assert_eq!(head(&*store, bob, conv).floor, 1_000);
    let step = store.retire(&keep, before).unwrap();
    assert!(step.retired >= 301, "{step:?}");
    let of_bob = head(&*store, bob, conv);
    assert_eq!((of_bob.floor, of_bob.head, of_bob.unread), (1_301, 1_501, 198));
    assert_eq!(store.run(conv, 1, 2_000, false, BYTES).unwrap()[0].seq, 1_302);
    assert_eq!(store.commit(std::slice::from_ref(&first), DAY).unwrap(), [Committed::Again(place)]);
    let step = store.retire(&keep, before).unwrap();
    assert_eq!((step.retired, step.deleted), (0, 0), "nothing is left to do");
    // Later the ids go as well, and the rest after its time.
    let ids_go = Retention { ids_before: i64::MAX, ..keep };
    let deleted: Vec<u64> = (0..3).map(|_| store.retire(&ids_go, before).unwrap().deleted).collect();
    assert_eq!(deleted, [1_000, 301, 0]);
    assert_eq!(store.tags(&[(conv, 1_301)]).unwrap(), [None]);
    store.retire(&Retention { before: i64::MAX, newest: i64::MAX, ids_before: 0 }, before).unwrap();
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
    let keep = Retention { before: 0, newest: 100, ids_before: 0 };
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
    let key = store.token_key([7; 32]).unwrap();
    assert_eq!((key, second.token_key([8; 32]).unwrap()), ([7; 32], [7; 32]), "the key of tokens is another row");
}

pub(crate) fn devices_come_and_go(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let log_in = |login: &DeviceLogin| store.log_in(login).unwrap().unwrap();
    let phone = log_in(&login(ann, "phone", 11));
    assert_eq!((phone.replaced, phone.forgotten.len()), (None, 0));
    let again = log_in(&DeviceLogin { secret: [9; 16], ..login(ann, "phone", 12) });
    assert_eq!((again.replaced, again.device.id), (Some(phone.device.login), phone.device.id));
    assert!(again.device.login > phone.device.login, "a later login has a higher number");
    assert_eq!(again.device.secret, phone.device.secret, "older tokens go on");
    let upper = log_in(&login(ann, "PHONE", 13));
    assert_ne!(upper.device.id, phone.device.id);
    store.seen(&[phone.device.id]).unwrap();
    let conv = ConversationId::between(ann, bob);
    store.commit(&[text(conv, bob, "1")], DAY).unwrap();
    store.report(ann, upper.device.id, &[(conv, 1)]).unwrap();
    let third = log_in(&DeviceLogin { devices_max: 1, ..login(ann, "third", 14) });
    assert_eq!(third.forgotten.len(), 2);
    assert_eq!(store.devices(ann).unwrap(), std::slice::from_ref(&third.device));
    assert_eq!(store.device(phone.device.id).unwrap(), None);
    assert_eq!(store.cursors(upper.device.id).unwrap(), []);
    let logins = store.logins(&[phone.device.id, third.device.id]).unwrap();
    assert_eq!(logins, [(third.device.id, third.device.login)]);
    assert_eq!(store.forget(bob, &[third.device.id]).unwrap(), 0, "another's");
    assert_eq!(store.forget(ann, &[third.device.id, DeviceId(-1)]).unwrap(), 1);
    let back = log_in(&login(ann, "third", 15));
    assert!(back.device.id > third.device.id, "no id is given twice");
    let key = store.token_key([1; 32]).unwrap();
    assert_eq!(opened.second().token_key([2; 32]).unwrap(), key);
    store.use_level2(bob).unwrap();
    store.use_level2(bob).unwrap();
    let before = UserId(ann.0.min(bob.0) - 1);
    let users = store.level2_users_after(before, 100).unwrap();
    assert!(users.contains(&bob) && !users.contains(&ann), "{users:?}");
}

pub(crate) fn a_login_is_written_only_if_what_was_proved_still_holds(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let proved = |proof| DeviceLogin { proof, ..login(ann, "phone", 1) };
    let other_password = proved(LoginProof::Password("X".to_owned()));
    assert_eq!(store.log_in(&other_password).unwrap(), None);
    assert_eq!(store.devices(ann).unwrap(), [], "nothing is written");
    let phone = store.log_in(&login(ann, "phone", 1)).unwrap().unwrap().device;
    let token = |device, secret| proved(LoginProof::Token(device, secret));
    let again = store.log_in(&token(phone.id, phone.secret)).unwrap().unwrap().device;
    assert_eq!(again.id, phone.id);
    let web = DeviceLogin { name: "web".to_owned(), ..token(phone.id, phone.secret) };
    let of_bob = DeviceLogin { user: bob, ..token(phone.id, phone.secret) };
    for stale in [token(phone.id, [9; 16]), token(DeviceId(phone.id.0 + 1), phone.secret), web, of_bob] {
        assert_eq!(store.log_in(&stale).unwrap(), None, "{stale:?}");
    }
    assert_eq!(store.forget(ann, &[phone.id]).unwrap(), 1);
    assert_eq!(store.log_in(&token(phone.id, phone.secret)).unwrap(), None, "it is logged out");
    assert_eq!(store.log_in(&DeviceLogin { user: UserId(i32::MAX), ..login(ann, "d", 1) }).unwrap(), None);
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

pub(crate) fn what_waits_is_read_and_marked_until_it_is_reported(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    store.commit(&[text(conv, ann, "1"), text(conv, ann, "2"), text(conv, ann, "3")], DAY).unwrap();
    let recorded = |text: &str| NewMessage { recorded: Some(conv), ..NewMessage::new(bob, text) };
    // Some share a text, and rows with and without a mark are of one batch.
    let (shared, wide) = (Arc::<str>::from("shared"), "x".repeat(1_000));
    let of_ann = NewMessage::new(ann, "of another");
    let batch = [
        NewMessage::new(bob, shared.clone()),
        recorded("3"),
        NewMessage { recorded: Some(conv), ..NewMessage::new(bob, shared.clone()) },
        NewMessage::new(bob, wide.as_str()),
        of_ann,
        NewMessage::new(bob, "last"),
    ];
    assert!(store.append(&batch).unwrap().iter().all(|outcome| *outcome == AppendOutcome::Stored));
    let first = MessageId(i64::MIN);
    let unmarked = |after, rows, bytes| store.unmarked(bob, after, rows, bytes).unwrap();
    let texts = |kept: &[KeptMessage]| kept.iter().map(|message| message.text.clone()).collect::<Vec<_>>();
    let all = unmarked(first, 10, BYTES);
    assert_eq!(texts(&all), ["shared", &wide, "last"]);
    assert_eq!(texts(&unmarked(first, 2, BYTES)), ["shared", &wide]);
    assert_eq!(texts(&unmarked(first, 10, 10)), ["shared"]);
    assert_eq!(texts(&unmarked(all[0].id, 10, 1)), std::slice::from_ref(&wide), "at least one");
    assert_eq!(texts(&unmarked(all[2].id, 10, BYTES)), [""; 0]);
    // Type 14 makes no difference between them.
    assert_eq!(texts(&store.fetch(bob, BYTES).unwrap()), ["shared", "3", "shared", &wide, "last"]);
    store.mark_rows(bob, &[(all[0].id, conv, 1), (all[1].id, conv, 2)]).unwrap();
    assert_eq!(texts(&unmarked(first, 10, BYTES)), ["last"]);
    let device = store.log_in(&login(bob, "phone", 1)).unwrap().unwrap().device.id;
    store.report(bob, device, &[(conv, 1)]).unwrap();
    assert_eq!(texts(&store.fetch(bob, BYTES).unwrap()), ["3", "shared", &wide, "last"]);
    store.report(bob, device, &[(conv, 2)]).unwrap();
    assert_eq!(texts(&store.fetch(bob, BYTES).unwrap()), ["3", "shared", "last"], "a mark is the head of its time");
    store.delete_marked(bob).unwrap();
    assert_eq!(texts(&store.fetch(bob, BYTES).unwrap()), ["last"]);
    assert_eq!(texts(&store.fetch(ann, BYTES).unwrap()), ["of another"]);
    // Of several conversations at once, each up to its own number.
    let others = [(); 3].map(|()| ConversationId::between(new_user(&*store), bob));
    for (nth, conv) in others.into_iter().enumerate() {
        store.commit(&[text(conv, bob, "1")], DAY).unwrap();
        let row = NewMessage { recorded: Some(conv), ..NewMessage::new(bob, format!("of {nth}")) };
        assert_eq!(store.append(&[row]).unwrap(), [AppendOutcome::Stored]);
    }
    store.report(bob, device, &[(others[2], 0), (others[1], 1), (conv, 3)]).unwrap();
    assert_eq!(texts(&store.fetch(bob, BYTES).unwrap()), ["last", "of 0", "of 2"]);
    store.report(bob, device, &[(others[2], 1), (others[0], 1)]).unwrap();
    assert_eq!(texts(&store.fetch(bob, BYTES).unwrap()), ["last"]);
    // What its sender has called so.
    let named = text(conv, ann, "4");
    assert_eq!(store.place_of(ann, &named.cid).unwrap(), None);
    store.commit(std::slice::from_ref(&named), DAY).unwrap();
    assert_eq!(store.place_of(ann, &named.cid).unwrap(), Some((conv, 4)));
    assert_eq!(store.place_of(bob, &named.cid).unwrap(), None);
    // The first login at level 2 counts as one at level 1.
    assert!(!store.uses_level1(bob, 60_000).unwrap());
    store.use_level2(bob).unwrap();
    assert!(store.uses_level1(bob, 60_000).unwrap() && !store.uses_level1(bob, -60_000).unwrap());
    store.seen_at_level1(ann).unwrap();
    assert!(store.uses_level1(ann, 60_000).unwrap());
}

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
        let outcomes: Vec<Committed> = thread::scope(|scope| {
            let send = |(nth, entry): (usize, NewEntry)| {
                let store = &stores[nth % 2];
                scope.spawn(move || store.commit(&[entry], DAY).unwrap()[0])
            };
            let sending: Vec<_> = [same.clone(), same.clone(), elsewhere].into_iter().enumerate().map(send).collect();
            sending.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let stored = outcomes.iter().filter(|outcome| matches!(outcome, Committed::New(_))).count();
        assert_eq!(stored, 1, "{outcomes:?}");
        let conflict = Committed::Refused(EntryRefusal::Conflict);
        match outcomes[2] {
            Committed::New(_) => assert_eq!(outcomes[..2], [conflict; 2]),
            other => assert_eq!(other, conflict),
        }
    }
}

pub(crate) const DAY: i64 = 86_400_000;
pub(crate) const BYTES: usize = 256 << 10;

pub(crate) fn new_user(store: &dyn AllRoles) -> UserId {
    store.register(&format!("user-{}", unique()), "x").unwrap()
}

/// A message whose id is new.
pub(crate) fn text(conv: ConversationId, sender: UserId, text: &str) -> NewEntry {
    NewEntry {
        conv,
        sender,
        cid: Cid::of_client(&unique()).unwrap(),
        hash: FrameHash::of(text.as_bytes()),
        kind: EntryKind::Message,
        is_imported: false,
        is_unchecked: false,
        change: None,
        text: text.into(),
    }
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    format!("{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn login(user: UserId, name: &str, nonce: u32) -> DeviceLogin {
    let proof = LoginProof::Password("x".to_owned());
    DeviceLogin { user, name: name.to_owned(), proof, nonce, secret: [nonce as u8; 16], devices_max: 16 }
}

pub(crate) fn new_place(outcome: Committed) -> EntryPlace {
    match outcome {
        Committed::New(place) => place,
        other => panic!("{other:?}"),
    }
}

fn head(store: &dyn History, user: UserId, conv: ConversationId) -> Head {
    store.heads_of(user, &[conv]).unwrap().pop().unwrap().unwrap()
}

fn page_seqs(store: &dyn History, user: UserId, conv: ConversationId, ask: PageAsk) -> Vec<i64> {
    match store.page(user, conv, ask, 100, BYTES).unwrap() {
        PageOutcome::Page(page) => page.entries.iter().map(|entry| entry.seq).collect(),
        other => panic!("{other:?}"),
    }
}
