//! Marks: unread, read and waiting messages.

use std::sync::Arc;

use raybox::base::conversation::ConversationId;
use raybox::store::history::{Denied, EntryKind, History, HistoryReads as _, NewEntry};
use raybox::store::{AppendOutcome, KeptMessage, MessageId, Messages as _, NewMessage};

use super::{BYTES, DAY, Opened, head, login, new_user, text};

pub(crate) fn the_unread_count_is_exact(opened: &impl Opened) {
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
    // An imported message moves no mark of its sender, and does not count as unread for the sender.
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

/// The head of a conversation as the pages of recently touched conversations tell it.
fn found_by_pages_of_two(store: &dyn History, conv: ConversationId) -> Option<i64> {
    let (mut found, mut last) = (None, None);
    loop {
        let page = store.touched(60_000, last, 2).unwrap();
        let times = last.iter().chain(&page).map(|touched| (touched.at, touched.conv.column()));
        assert!(times.is_sorted_by(|one, other| one < other), "{last:?} {page:?}");
        let here = page.iter().find(|touched| touched.conv == conv);
        if let Some(touched) = here {
            assert_eq!(
                store.tags(&[(conv, touched.head)]).unwrap(),
                [Some(touched.tag)],
                "the tag of the last message"
            );
        }
        found = found.or(here.map(|touched| touched.head));
        if page.len() < 2 {
            return found;
        }
        last = page.last().copied();
    }
}

pub(crate) fn waiting_messages_are_read_and_marked_until_they_are_reported(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let conv = ConversationId::between(ann, bob);
    store.commit(&[text(conv, ann, "1"), text(conv, ann, "2"), text(conv, ann, "3")], DAY).unwrap();
    let recorded = |text: &str| NewMessage { recorded: Some(conv), ..NewMessage::new(bob, text) };
    // Some rows share a text. The batch has rows with and without a mark.
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
    // A fetch (type 14) returns both kinds of rows.
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
    // A report may name several conversations, each with its own number.
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
    // A message is found by the id that its sender gave it.
    let named = text(conv, ann, "4");
    assert_eq!(store.place_of(ann, &named.cid).unwrap(), None);
    store.commit(std::slice::from_ref(&named), DAY).unwrap();
    assert_eq!(store.place_of(ann, &named.cid).unwrap(), Some((conv, 4, named.hash)));
    assert_eq!(store.place_of(bob, &named.cid).unwrap(), None);
    // The first login at level 2 counts as a use of level 1.
    assert!(!store.uses_level1(bob, 60_000).unwrap());
    store.use_level2(bob).unwrap();
    assert!(store.uses_level1(bob, 60_000).unwrap() && !store.uses_level1(bob, -60_000).unwrap());
    store.seen_at_level1(ann).unwrap();
    assert!(store.uses_level1(ann, 60_000).unwrap());
}
