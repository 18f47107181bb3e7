//! Stored messages.

use raybox::protocol::UserId;
use raybox::store::{AllRoles, AppendOutcome, KeptMessage, MessageId, ROW_BYTES};

use super::{STRANGE, UNKNOWN, append, message, new_user};

pub(crate) fn messages_are_fetched_in_order_and_exactly(store: &dyn AllRoles) {
    let user = new_user(store);
    let texts: Vec<String> = STRANGE.iter().map(|s| format!(r#"{{"msg":"{s}"}}"#)).collect();
    let (first, rest) = texts.split_at(2);
    assert_eq!(append(store, user, first), [AppendOutcome::Stored; 2]);
    assert_eq!(append(store, user, rest), vec![AppendOutcome::Stored; rest.len()]);
    assert_eq!(append(store, user, first), [AppendOutcome::Stored; 2]);
    let kept = store.fetch(user, usize::MAX).unwrap();
    let expected: Vec<&String> = texts.iter().chain(first).collect();
    assert_eq!(kept.iter().map(|message| &message.text).collect::<Vec<_>>(), expected);
    assert!(kept.is_sorted_by(|a, b| a.id < b.id));
}

pub(crate) fn a_fetch_deletes_nothing(store: &dyn AllRoles) {
    let user = new_user(store);
    append(store, user, &["1", "2"]);
    let kept = store.fetch(user, usize::MAX).unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(store.fetch(user, usize::MAX).unwrap(), kept);
}

pub(crate) fn a_delete_spares_what_came_after_the_fetch(store: &dyn AllRoles) {
    let user = new_user(store);
    append(store, user, &["1", "2", "3"]);
    let kept = store.fetch(user, usize::MAX).unwrap();
    append(store, user, &["4"]);
    let done = [kept[0].id, kept[2].id];
    store.delete(user, &done).unwrap();
    store.delete(user, &done).unwrap();
    assert_eq!(texts(&store.fetch(user, usize::MAX).unwrap()), ["2", "4"]);
}

pub(crate) fn message_ids_are_never_used_again(store: &dyn AllRoles) {
    let user = new_user(store);
    let mut last = MessageId(i64::MIN);
    for _ in 0..3 {
        append(store, user, &["text"]);
        let kept = store.fetch(user, usize::MAX).unwrap();
        assert!(kept[0].id > last);
        last = kept[0].id;
        store.delete(user, &[last]).unwrap();
    }
}

pub(crate) fn one_user_cannot_touch_the_messages_of_another(store: &dyn AllRoles) {
    let (a, b) = (new_user(store), new_user(store));
    let batch = [message(a, "for a"), message(b, "for b"), message(a, "again for a")];
    assert_eq!(store.append(&batch).unwrap(), [AppendOutcome::Stored; 3]);
    let of_a = store.fetch(a, usize::MAX).unwrap();
    assert_eq!(texts(&of_a), ["for a", "again for a"]);
    let ids: Vec<MessageId> = of_a.iter().map(|message| message.id).collect();
    store.delete(b, &ids).unwrap();
    assert_eq!(store.fetch(a, usize::MAX).unwrap(), of_a);
    store.delete(a, &ids).unwrap();
    assert_eq!(store.fetch(a, usize::MAX).unwrap(), []);
    assert_eq!(texts(&store.fetch(b, usize::MAX).unwrap()), ["for b"]);
}

pub(crate) fn a_fetch_keeps_to_its_bytes(store: &dyn AllRoles) {
    let user = new_user(store);
    append(store, user, &["1234567890", "éé", "12345678901", ""]);
    for (bytes_max, count) in [(0, 1), (9, 1), (10, 1), (13, 1), (14, 2), (24, 2), (25, 4), (usize::MAX, 4)] {
        assert_eq!(store.fetch(user, bytes_max).unwrap().len(), count, "{bytes_max} bytes");
    }
}

pub(crate) fn long_messages_survive(store: &dyn AllRoles) {
    let user = new_user(store);
    let long = ["x".repeat(65536), "界".repeat(65536 / 3), "\\\"".repeat(32768)];
    assert_eq!(append(store, user, &long), [AppendOutcome::Stored; 3]);
    assert_eq!(texts(&store.fetch(user, usize::MAX).unwrap()), long);
    assert_eq!(store.fetch(user, 65536).unwrap().len(), 1);
}

pub(crate) fn messages_for_unknown_users_are_not_kept(store: &dyn AllRoles) {
    let user = new_user(store);
    let batch = [
        message(UserId(UNKNOWN), "lost"),
        message(user, "1"),
        message(UserId(-1), "lost"),
        message(UserId(0), "lost"),
        message(user, "2"),
    ];
    let (stored, unknown) = (AppendOutcome::Stored, AppendOutcome::NoSuchUser);
    assert_eq!(store.append(&batch).unwrap(), [unknown, stored, unknown, unknown, stored]);
    assert_eq!(texts(&store.fetch(user, usize::MAX).unwrap()), ["1", "2"]);
    assert_eq!(store.fetch(UserId(UNKNOWN), usize::MAX).unwrap(), []);
}

pub(crate) fn empty_batches_are_fine(store: &dyn AllRoles) {
    assert_eq!(store.append(&[]).unwrap(), []);
    store.delete(new_user(store), &[]).unwrap();
    store.set_states(&[]).unwrap();
}

pub(crate) fn a_mailbox_weighs_what_is_in_it(store: &dyn AllRoles) {
    let (user, other) = (new_user(store), new_user(store));
    assert_eq!(store.mailbox_bytes(user).unwrap(), 0);
    append(store, user, &["{\"a\":1}", "{\"b\":\"é\"}"]);
    append(store, other, &["{}"]);
    assert_eq!(store.mailbox_bytes(user).unwrap(), 7 + 10 + 2 * ROW_BYTES);
}

pub(crate) fn ten_thousand_messages_are_deleted_at_once(store: &dyn AllRoles) {
    let user = new_user(store);
    let texts_in: Vec<String> = (0..10_001).map(|number| number.to_string()).collect();
    append(store, user, &texts_in);
    let kept = store.fetch(user, usize::MAX).unwrap();
    let ids: Vec<MessageId> = kept[..10_000].iter().map(|message| message.id).collect();
    store.delete(user, &ids).unwrap();
    assert_eq!(texts(&store.fetch(user, usize::MAX).unwrap()), ["10000"]);
}

fn texts(kept: &[KeptMessage]) -> Vec<&str> {
    kept.iter().map(|message| message.text.as_str()).collect()
}
