//! The behaviour of a store, tested through its traits alone.
//!
//! A store may be shared by many tests, and may contain the rows of earlier runs: every test makes
//! its own users and groups, with names that no other test uses, and asserts nothing about the
//! rest.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use raybox::protocol::{GroupId, UserId};
use raybox::store::ROW_BYTES;
use raybox::store::{
    AllRoles, AppendOutcome, FriendNames, Group, Joined, KeptMessage, Membership, MessageId, NewMessage, StoreError,
    User, UserState,
};

/// A store that lives as long as one test.
pub(crate) trait Opened {
    fn store(&self) -> &dyn AllRoles;
}

/// Makes a `#[test]` of every behaviour, on the stores that `$open` gives.
macro_rules! store_suite {
    ($open:path) => {
        $crate::store_suite::narrow_store_suite!($open);
        $crate::store_suite::behaviours!($open:
            names_are_unique_without_regard_to_case_and_accents,
            the_search_ignores_case_and_accents,
            strange_names_come_back_byte_for_byte,
            messages_are_fetched_in_order_and_exactly,
            message_ids_are_never_used_again,
            long_messages_survive,
            a_search_of_any_size_and_content_is_harmless,
        );
    };
}
pub(crate) use store_suite;

/// Like [`store_suite`], without what the reference server's tables cannot do.
macro_rules! narrow_store_suite {
    ($open:path) => {
        $crate::store_suite::behaviours!($open:
            a_new_user_is_found,
            a_refused_name_changes_nothing,
            unknown_ids_have_nothing,
            a_credential_is_replaced_only_where_it_is_still_the_old_one,
            states_of_unknown_users_are_passed_over,
            online_users_are_listed_in_pages,
            the_online_are_told_from_the_others,
            friends_are_friends_both_ways,
            adding_a_friend_twice_adds_once,
            friends_come_by_ascending_id,
            adding_an_unknown_friend_adds_nothing,
            removing_a_friend_removes_one_direction,
            a_group_has_its_creator,
            group_names_need_not_be_unique,
            joining_twice_joins_once,
            a_full_group_takes_nobody_more,
            joining_an_unknown_group_joins_nothing,
            groups_and_members_come_by_ascending_id,
            the_search_takes_wildcards_literally,
            the_search_is_limited_and_ordered,
            an_empty_search_finds_every_group,
            a_fetch_deletes_nothing,
            a_delete_spares_what_came_after_the_fetch,
            one_user_cannot_touch_the_messages_of_another,
            a_fetch_keeps_to_its_bytes,
            messages_for_unknown_users_are_not_kept,
            empty_batches_are_fine,
            ten_thousand_messages_are_deleted_at_once,
            a_mailbox_weighs_what_is_in_it,
            concurrent_appends_keep_the_order_of_each_thread,
            one_name_is_given_once_however_many_ask,
            a_refused_operation_does_not_harm_those_beside_it,
        );
    };
}
pub(crate) use narrow_store_suite;

macro_rules! behaviours {
    ($open:path: $($behaviour:ident,)*) => {
        $(
            #[test]
            fn $behaviour() {
                let opened = $open();
                $crate::store_suite::$behaviour($crate::store_suite::Opened::store(&opened));
            }
        )*
    };
}
pub(crate) use behaviours;

pub(crate) fn a_new_user_is_found(store: &dyn AllRoles) {
    let name = unique("alice");
    let id = store.register(&name, "secret").unwrap();
    assert!(id.0 > 0);
    assert_eq!(store.user(id).unwrap(), Some(User { id, name }));
    assert_eq!(store.credential(id).unwrap().as_deref(), Some("secret"));
    let empty_password = store.register(&unique("bob"), "").unwrap();
    assert_ne!(empty_password, id);
    assert_eq!(store.credential(empty_password).unwrap().as_deref(), Some(""));
}

pub(crate) fn names_are_unique_without_regard_to_case_and_accents(store: &dyn AllRoles) {
    let tag = unique("");
    for (taken, also_taken) in [
        ("Harper", "hARPER"),
        ("Zoë", "ZOE"),
        ("Straße", "STRASSE"),
        ("第１２组", "第12组"),
        ("Ёлка", "елка"),
        ("same", "same"),
    ] {
        store.register(&format!("{taken}{tag}"), "x").unwrap();
        let second = store.register(&format!("{also_taken}{tag}"), "x");
        assert!(matches!(second, Err(StoreError::NameTaken)), "{taken} and {also_taken}: {second:?}");
    }
    for free in ["Harpe", "Harper ", " Harper", "張", "张", "😀", "😁"] {
        store.register(&format!("{free}{tag}"), "x").unwrap();
    }
}

pub(crate) fn a_refused_name_changes_nothing(store: &dyn AllRoles) {
    let name = unique("mason");
    let id = store.register(&name, "first").unwrap();
    assert!(matches!(store.register(&name.to_uppercase(), "second"), Err(StoreError::NameTaken)));
    assert_eq!(store.credential(id).unwrap().as_deref(), Some("first"));
    assert_eq!(store.user(id).unwrap(), Some(User { id, name }));
}

pub(crate) fn strange_names_come_back_byte_for_byte(store: &dyn AllRoles) {
    let tag = unique("");
    let owner = new_user(store);
    for strange in STRANGE {
        let name = format!("{strange}{tag}");
        let user = store.register(&name, strange).unwrap();
        assert_eq!(store.user(user).unwrap().unwrap().name, name);
        assert_eq!(store.credential(user).unwrap().as_deref(), Some(strange));

        let group = store.create_group(owner, &name, strange).unwrap();
        let expected = Group { id: group, name: name.clone(), description: strange.to_owned() };
        assert_eq!(store.group(group).unwrap(), Some(expected.clone()));
        assert!(store.groups_named(&name, 100).unwrap().contains(&expected), "{name:?}");
        assert_eq!(store.join_group(user, group, usize::MAX).unwrap(), Joined::New(name));
    }
}

pub(crate) fn unknown_ids_have_nothing(store: &dyn AllRoles) {
    for id in [UNKNOWN, 0, -1, i32::MIN] {
        let (user, group) = (UserId(id), GroupId(id));
        assert_eq!(store.credential(user).unwrap(), None);
        assert_eq!(store.user(user).unwrap(), None);
        assert_eq!(store.friends(user).unwrap(), []);
        assert_eq!(store.groups_of(user).unwrap(), []);
        assert_eq!(store.group(group).unwrap(), None);
        assert_eq!(store.members(group).unwrap(), []);
        assert_eq!(store.fetch(user, usize::MAX).unwrap(), []);
        store.delete(user, &[MessageId(1), MessageId(0), MessageId(-1), MessageId(i64::MAX)]).unwrap();
        store.remove_friend(user, user).unwrap();
        store.replace_credential(user, "", "x").unwrap();
        assert_eq!(store.credential(user).unwrap(), None);
    }
}

pub(crate) fn a_credential_is_replaced_only_where_it_is_still_the_old_one(store: &dyn AllRoles) {
    let user = store.register(&unique("carol"), "old").unwrap();
    let bystander = store.register(&unique("dave"), "old").unwrap();
    store.replace_credential(user, "other", "new").unwrap();
    store.replace_credential(user, "OLD", "new").unwrap();
    assert_eq!(store.credential(user).unwrap().as_deref(), Some("old"));
    store.replace_credential(user, "old", "new").unwrap();
    assert_eq!(store.credential(user).unwrap().as_deref(), Some("new"));
    assert_eq!(store.credential(bystander).unwrap().as_deref(), Some("old"));
}

pub(crate) fn online_users_are_listed_in_pages(store: &dyn AllRoles) {
    let users: Vec<UserId> = (0..5).map(|_| new_user(store)).collect();
    let online = [users[0], users[2], users[3]];
    store.set_states(&online.map(|user| (user, UserState::Online))).unwrap();
    let of_these = |page: Vec<UserId>| page.into_iter().filter(|user| users.contains(user)).collect::<Vec<_>>();
    let before = UserId(users[0].0 - 1);
    assert_eq!(of_these(store.online_after(before, 1).unwrap()), online[..1]);
    assert_eq!(of_these(store.online_after(before, 100).unwrap()), online);
    assert_eq!(of_these(store.online_after(users[0], 100).unwrap()), online[1..]);
    assert_eq!(of_these(store.online_after(users[3], 100).unwrap()), []);
}

pub(crate) fn states_of_unknown_users_are_passed_over(store: &dyn AllRoles) {
    let user = new_user(store);
    store
        .set_states(&[
            (UserId(UNKNOWN), UserState::Online),
            (user, UserState::Online),
            (UserId(-1), UserState::Offline),
            (user, UserState::Offline),
        ])
        .unwrap();
    assert_eq!(store.user(UserId(UNKNOWN)).unwrap(), None);
}

pub(crate) fn the_online_are_told_from_the_others(store: &dyn AllRoles) {
    let users = [new_user(store), new_user(store), new_user(store)];
    assert_eq!(store.online(&users).unwrap(), []);
    store.set_states(&[(users[0], UserState::Online), (users[2], UserState::Online)]).unwrap();
    let mut online = store.online(&[users[2], users[1], users[0], UserId(i32::MAX)]).unwrap();
    online.sort();
    assert_eq!(online, [users[0], users[2]]);
    store.set_states(&[(users[0], UserState::Offline)]).unwrap();
    assert_eq!(store.online(&users).unwrap(), [users[2]]);
    assert_eq!(store.online(&[]).unwrap(), []);
    store.check().unwrap();
}

pub(crate) fn friends_are_friends_both_ways(store: &dyn AllRoles) {
    let (a_name, b_name) = (unique("a"), unique("b"));
    let a = store.register(&a_name, "x").unwrap();
    let b = store.register(&b_name, "x").unwrap();
    let names = store.add_friends(a, b).unwrap();
    assert_eq!(names, Some(FriendNames { a: a_name.clone(), b: b_name.clone() }));
    assert_eq!(store.friends(a).unwrap(), [User { id: b, name: b_name }]);
    assert_eq!(store.friends(b).unwrap(), [User { id: a, name: a_name }]);
}

pub(crate) fn adding_a_friend_twice_adds_once(store: &dyn AllRoles) {
    let (a, b) = (new_user(store), new_user(store));
    let first = store.add_friends(a, b).unwrap().unwrap();
    assert_eq!(store.add_friends(a, b).unwrap(), Some(first.clone()));
    let from_the_other_side = store.add_friends(b, a).unwrap();
    assert_eq!(from_the_other_side, Some(FriendNames { a: first.b, b: first.a }));
    assert_eq!(ids(&store.friends(a).unwrap()), [b]);
    assert_eq!(ids(&store.friends(b).unwrap()), [a]);
}

pub(crate) fn friends_come_by_ascending_id(store: &dyn AllRoles) {
    let users: Vec<UserId> = (0..5).map(|_| new_user(store)).collect();
    for index in [3, 1, 4, 2] {
        store.add_friends(users[0], users[index]).unwrap();
    }
    assert_eq!(ids(&store.friends(users[0]).unwrap()), users[1..]);
}

pub(crate) fn adding_an_unknown_friend_adds_nothing(store: &dyn AllRoles) {
    let user = new_user(store);
    assert_eq!(store.add_friends(user, UserId(UNKNOWN)).unwrap(), None);
    assert_eq!(store.add_friends(UserId(-5), user).unwrap(), None);
    assert_eq!(store.friends(user).unwrap(), []);
    assert_eq!(store.friends(UserId(UNKNOWN)).unwrap(), []);
}

pub(crate) fn removing_a_friend_removes_one_direction(store: &dyn AllRoles) {
    let (a, b) = (new_user(store), new_user(store));
    store.add_friends(a, b).unwrap();
    store.remove_friend(a, b).unwrap();
    store.remove_friend(a, b).unwrap();
    assert_eq!(store.friends(a).unwrap(), []);
    assert_eq!(ids(&store.friends(b).unwrap()), [a]);
    store.add_friends(a, b).unwrap();
    assert_eq!(ids(&store.friends(a).unwrap()), [b]);
}

pub(crate) fn a_group_has_its_creator(store: &dyn AllRoles) {
    let (owner, name) = (new_user(store), unique("rust"));
    let id = store.create_group(owner, &name, "").unwrap();
    assert!(id.0 > 0);
    let group = Group { id, name, description: String::new() };
    assert_eq!(store.group(id).unwrap().as_ref(), Some(&group));
    assert_eq!(store.groups_of(owner).unwrap(), [group]);
    assert_eq!(store.members(id).unwrap(), [owner]);
}

pub(crate) fn group_names_need_not_be_unique(store: &dyn AllRoles) {
    let (owner, name) = (new_user(store), unique("twin"));
    let first = store.create_group(owner, &name, "first").unwrap();
    let second = store.create_group(owner, &name, "second").unwrap();
    assert!(second > first);
    let descriptions: Vec<String> = store.groups_of(owner).unwrap().into_iter().map(|g| g.description).collect();
    assert_eq!(descriptions, ["first", "second"]);
}

pub(crate) fn joining_twice_joins_once(store: &dyn AllRoles) {
    let (owner, user, name) = (new_user(store), new_user(store), unique("go"));
    let group = store.create_group(owner, &name, "d").unwrap();
    let (new, already) = (Joined::New(name.clone()), Joined::Already(name));
    assert_eq!(store.membership(user, group).unwrap(), Membership::Stranger);
    for (member, joined) in [(user, &new), (user, &already), (owner, &already)] {
        assert_eq!(store.join_group(member, group, usize::MAX).unwrap(), *joined);
        assert_eq!(store.membership(member, group).unwrap(), Membership::Member);
    }
    assert_eq!(store.members(group).unwrap(), [owner, user]);
    assert_eq!(store.groups_of(user).unwrap().len(), 1);
}

pub(crate) fn a_full_group_takes_nobody_more(store: &dyn AllRoles) {
    let (owner, name) = (new_user(store), unique("full"));
    let group = store.create_group(owner, &name, "d").unwrap();
    let users: Vec<UserId> = (0..3).map(|_| new_user(store)).collect();
    let joined: Vec<Joined> = users.iter().map(|user| store.join_group(*user, group, 3).unwrap()).collect();
    assert_eq!(joined, [Joined::New(name.clone()), Joined::New(name.clone()), Joined::Full]);
    assert_eq!(store.join_group(users[0], group, 3).unwrap(), Joined::Already(name));
    assert_eq!(store.members(group).unwrap().len(), 3);
}

pub(crate) fn joining_an_unknown_group_joins_nothing(store: &dyn AllRoles) {
    let user = new_user(store);
    assert_eq!(store.join_group(user, GroupId(UNKNOWN), usize::MAX).unwrap(), Joined::NoSuchGroup);
    assert_eq!(store.membership(user, GroupId(UNKNOWN)).unwrap(), Membership::NoSuchGroup);
    assert_eq!(store.groups_of(user).unwrap(), []);
    assert_eq!(store.members(GroupId(UNKNOWN)).unwrap(), []);
}

pub(crate) fn groups_and_members_come_by_ascending_id(store: &dyn AllRoles) {
    let users: Vec<UserId> = (0..4).map(|_| new_user(store)).collect();
    let groups: Vec<GroupId> = (0..4).map(|_| store.create_group(users[3], &unique("g"), "d").unwrap()).collect();
    for index in [2, 0, 1] {
        store.join_group(users[index], groups[0], usize::MAX).unwrap();
    }
    for index in [3, 1, 2] {
        store.join_group(users[0], groups[index], usize::MAX).unwrap();
    }
    assert_eq!(store.members(groups[0]).unwrap(), users);
    let joined: Vec<GroupId> = store.groups_of(users[0]).unwrap().iter().map(|group| group.id).collect();
    assert_eq!(joined, groups);
    // Of several at once, in the order asked.
    let asked = [groups[3], GroupId(UNKNOWN), groups[0], groups[1]];
    let each: Vec<Vec<UserId>> = asked.iter().map(|group| store.members(*group).unwrap()).collect();
    assert_eq!((each[0].len(), each[1].len(), each[2].len()), (2, 0, 4));
    assert_eq!(store.members_of_each(&asked).unwrap(), each);
    let many: Vec<GroupId> = (0..600).map(|n| GroupId(UNKNOWN - n)).chain(groups).collect();
    assert_eq!(store.members_of_each(&many).unwrap().iter().filter(|members| !members.is_empty()).count(), 4);
    assert!(store.members_of_each(&[]).unwrap().is_empty());
}

pub(crate) fn the_search_ignores_case_and_accents(store: &dyn AllRoles) {
    let (owner, tag) = (new_user(store), unique(""));
    let group = store.create_group(owner, &format!("Café № １２ Straße{tag}"), "d").unwrap();
    for text in ["CAFE", "café", "ＣＡＦＥ", "é № 12", "STRASSE", "aße"] {
        assert_eq!(search(store, text, &tag), [group], "{text}");
    }
    assert_eq!(search(store, "cafe12", &tag), []);
}

pub(crate) fn the_search_takes_wildcards_literally(store: &dyn AllRoles) {
    let (owner, tag) = (new_user(store), unique(""));
    let group = |name: &str| store.create_group(owner, &format!("{name}{tag}"), "d").unwrap();
    let (plain, percent, underscore) = (group("abc"), group("a%c"), group("a_c"));
    let (backslash, quotes, asterisk) = (group(r"a\c"), group(r#"'a"c'"#), group("a*?[c]"));
    for (text, found) in [
        ("abc", plain),
        ("a%c", percent),
        ("%", percent),
        ("a_c", underscore),
        ("_", underscore),
        (r"\", backslash),
        (r"a\c", backslash),
        (r#"'a"c'"#, quotes),
        ("'", quotes),
        ("a*?[c]", asterisk),
    ] {
        assert_eq!(search(store, text, &tag), [found], "{text}");
    }
    assert_eq!(search(store, "nothing' OR '1'='1", &tag), []);
}

pub(crate) fn the_search_is_limited_and_ordered(store: &dyn AllRoles) {
    let (owner, tag) = (new_user(store), unique("many"));
    let groups: Vec<GroupId> = (0..5).map(|_| store.create_group(owner, &tag, "d").unwrap()).collect();
    for limit in [0, 1, 3, 5, 100, usize::MAX] {
        let found: Vec<GroupId> = store.groups_named(&tag, limit).unwrap().iter().map(|group| group.id).collect();
        assert_eq!(found, groups[..limit.min(5)], "at most {limit}");
    }
}

pub(crate) fn an_empty_search_finds_every_group(store: &dyn AllRoles) {
    let owner = new_user(store);
    let named = store.create_group(owner, &unique("any"), "d").unwrap();
    let unnamed = store.create_group(owner, "", "d").unwrap();
    let found: HashSet<GroupId> = store.groups_named("", usize::MAX).unwrap().iter().map(|group| group.id).collect();
    assert!(found.contains(&named) && found.contains(&unnamed));
    assert_eq!(store.groups_named("", 1).unwrap().len(), 1);
}

pub(crate) fn a_search_of_any_size_and_content_is_harmless(store: &dyn AllRoles) {
    let (owner, tag) = (new_user(store), unique(""));
    let group = store.create_group(owner, &format!("a\0b{tag}"), "d").unwrap();
    assert_eq!(search(store, "a\0b", &tag), [group]);
    assert_eq!(search(store, &"x".repeat(65536), &tag), []);
    assert_eq!(search(store, &"\u{fdfa}".repeat(20000), &tag), []);
    assert_eq!(search(store, &"\0x".repeat(30000), &tag), []);
}

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

pub(crate) fn concurrent_appends_keep_the_order_of_each_thread(store: &dyn AllRoles) {
    const THREADS: usize = 8;
    const EACH: usize = 50;
    let user = new_user(store);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..EACH {
                    append(store, user, &[format!("{thread} {number}")]);
                    let seen = store.fetch(user, usize::MAX).unwrap();
                    assert!(seen.iter().any(|message| message.text == format!("{thread} {number}")));
                }
            });
        }
    });
    let kept = store.fetch(user, usize::MAX).unwrap();
    assert_eq!(kept.len(), THREADS * EACH);
    for thread in 0..THREADS {
        let prefix = format!("{thread} ");
        let numbers = kept.iter().filter_map(|message| message.text.strip_prefix(&prefix)?.parse::<usize>().ok());
        assert!(numbers.eq(0..EACH), "thread {thread}");
    }
}

pub(crate) fn one_name_is_given_once_however_many_ask(store: &dyn AllRoles) {
    let name = unique("wanted");
    let ask = || match store.register(&name, "x") {
        Ok(_) => 1,
        Err(StoreError::NameTaken) => 0,
        Err(other) => panic!("{other}"),
    };
    let given: u32 = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(given, 1);
}

pub(crate) fn a_refused_operation_does_not_harm_those_beside_it(store: &dyn AllRoles) {
    const EACH: usize = 50;
    let name = unique("taken");
    let user = store.register(&name, "x").unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let name = &name;
            scope.spawn(move || {
                for _ in 0..EACH {
                    assert!(matches!(store.register(name, "x"), Err(StoreError::NameTaken)));
                }
            });
            scope.spawn(move || {
                for number in 0..EACH {
                    assert_eq!(append(store, user, &[format!("{thread} {number}")]), [AppendOutcome::Stored]);
                }
            });
        }
    });
    assert_eq!(store.fetch(user, usize::MAX).unwrap().len(), 4 * EACH);
}

/// An id that no store has given out.
const UNKNOWN: i32 = i32::MAX;

const STRANGE: [&str; 10] = [
    "",
    "cat🐱👩‍👩‍👧",
    "张伟",
    r#"the "best""#,
    "it's",
    "100%_",
    r"back\slash\",
    "nul\0inside",
    "x'); DROP TABLE User; --",
    "e\u{301} \u{200f}rtl\u{200e}",
];

fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    // Digits only: a tag in hexadecimal would contain "abc" or "cafe" some day, and a search would
    // find it.
    format!("{name}-{}-{count}", now.as_nanos() as u64)
}

fn new_user(store: &dyn AllRoles) -> UserId {
    store.register(&unique("user"), "x").unwrap()
}

fn ids(users: &[User]) -> Vec<UserId> {
    users.iter().map(|user| user.id).collect()
}

fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage::new(to, text)
}

fn append(store: &dyn AllRoles, to: UserId, texts: &[impl AsRef<str>]) -> Vec<AppendOutcome> {
    let batch: Vec<NewMessage> = texts.iter().map(|text| message(to, text.as_ref())).collect();
    store.append(&batch).unwrap()
}

fn texts(kept: &[KeptMessage]) -> Vec<&str> {
    kept.iter().map(|message| message.text.as_str()).collect()
}

/// The groups of the test that owns `tag` whose names contain `text`.
fn search(store: &dyn AllRoles, text: &str, tag: &str) -> Vec<GroupId> {
    let found = store.groups_named(text, usize::MAX).unwrap();
    found.into_iter().filter(|group| group.name.ends_with(tag)).map(|group| group.id).collect()
}
