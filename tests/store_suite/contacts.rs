//! Friends, groups, and the search for groups.

use std::collections::HashSet;

use raybox::protocol::{GroupId, UserId};
use raybox::store::{AllRoles, FriendNames, Group, Joined, Membership, User};

use super::{UNKNOWN, ids, new_user, unique};

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
    assert_eq!([0, 1, 2].map(|count| store.is_in_groups(user, count).unwrap()), [true, true, false]);
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
    // Several groups at once are returned in the order asked.
    let asked = [groups[3], GroupId(UNKNOWN), groups[0], groups[1]];
    let each: Vec<Vec<UserId>> = asked.iter().map(|group| store.members(*group).unwrap()).collect();
    assert_eq!((each[0].len(), each[1].len(), each[2].len()), (2, 0, 4));
    assert_eq!(store.members_of_each(&asked).unwrap(), each);
    // The same, seen from some of the members, whether few groups are asked about or many.
    let some: Vec<GroupId> = asked.to_vec();
    for asked in [some.clone(), some.into_iter().chain((0..600).map(|n| GroupId(UNKNOWN - 1 - n))).collect()] {
        let mut found = store.memberships(&asked, &[users[1], users[0], UserId(UNKNOWN)]).unwrap();
        found.sort_unstable();
        let mut expected =
            vec![(groups[0], users[0]), (groups[0], users[1]), (groups[1], users[0]), (groups[3], users[0])];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
    assert_eq!(store.memberships(&[], &users).unwrap(), []);
    assert_eq!(store.memberships(&groups, &[]).unwrap(), []);
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

/// The groups of the test that owns `tag` whose names contain `text`.
fn search(store: &dyn AllRoles, text: &str, tag: &str) -> Vec<GroupId> {
    let found = store.groups_named(text, usize::MAX).unwrap();
    found.into_iter().filter(|group| group.name.ends_with(tag)).map(|group| group.id).collect()
}
