//! Accounts, credentials and states.

use raybox::protocol::{GroupId, UserId};
use raybox::store::{AllRoles, Group, Joined, MessageId, StoreError, User, UserState};

use super::{STRANGE, UNKNOWN, new_user, unique};

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

pub(crate) fn users_online_are_distinguished_from_the_others(store: &dyn AllRoles) {
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
