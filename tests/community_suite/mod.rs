//! The behaviour of accounts, friends and groups of level 2, tested through the role alone. Every
//! test makes its own users and groups, and asserts nothing about the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use raybox::base::conversation::ConversationId;
use raybox::protocol::{GroupId, UserId};
use raybox::store::community::{
    BLOCKED_MAX, Befriended, BlockOutcome, Community, Deed, FriendPolicy, FriendRequest, GroupAct, GroupChanged,
    GroupRefusal, GroupRole, NewGroup, OwnAccount, PasswordChange, Recorded, Swapped, Trace, Visible,
};
use raybox::store::history::{
    Cid, Committed, Denied, DeviceLogin, EntryKind, EntryRefusal, FrameHash, Head, History, LoggedIn, LoginProof,
    NewEntry,
};
use raybox::store::{Accounts as _, AllRoles, Contacts as _, Messages as _, NewMessage, StoreError};
use serde_json::{Value, json};

/// A store that lives as long as one test.
pub(crate) trait Opened {
    type Store: AllRoles + History + Community;

    fn store(&self) -> Arc<Self::Store>;

    /// Another store on the same database.
    fn second(&self) -> Arc<Self::Store>;
}

/// Makes a `#[test]` of every behaviour, on the stores that `$open` gives.
macro_rules! community_suite {
    ($open:path) => {
        $crate::community_suite::behaviours!($open:
            a_group_begins_with_its_creation,
            who_joins_and_leaves_is_an_entry_of_the_group,
            the_longest_standing_member_follows_the_creator,
            the_last_one_dissolves_the_group,
            who_was_removed_is_out_until_the_creator_relents,
            a_creator_renames_describes_and_dissolves,
            an_event_marks_nothing_as_read,
            friends_are_made_once_and_asked_once,
            who_is_blocked_cannot_send_or_ask,
            a_list_of_blocked_users_is_bounded,
            an_account_has_a_name_and_receipts,
            a_new_password_ends_all_other_devices,
            a_deleted_account_leaves_everything_but_its_messages,
            members_who_leave_at_the_same_time_leave_one_creator,
        );
    };
}
pub(crate) use community_suite;

macro_rules! behaviours {
    ($open:path: $($behaviour:ident,)*) => {
        $(
            #[test]
            fn $behaviour() {
                $crate::community_suite::$behaviour(&$open());
            }
        )*
    };
}
pub(crate) use behaviours;

pub(crate) fn a_group_begins_with_its_creation(opened: &impl Opened) {
    let store = opened.store();
    let ann = new_user(&*store);
    let (group, recorded) = new_group(&*store, ann);
    assert_eq!((recorded.conv, &recorded.members[..], &recorded.gone[..]), (of(group), &[ann][..], &[][..]));
    assert_eq!(
        events(&recorded),
        [json!({"event": "created", "USERID": ann.0, "by": ann.0, "name": name(&*store, ann)})]
    );
    assert_eq!(recorded.entries[0].place.seq, 1);
    assert_eq!(members(&*store, group, ann), [(ann, true)]);
    let found = store.group(group).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.description.as_str()), ("group", "about"));
    assert!(store.groups_named("GROUP", 1000).unwrap().contains(&found));
    assert_eq!(store.run(of(group), 1, 9, false, BYTES).unwrap()[0].text.as_deref(), Some(&*recorded.entries[0].text));
}

pub(crate) fn who_joins_and_leaves_is_an_entry_of_the_group(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let (group, _) = new_group(&*store, ann);
    let joined = joins(&*store, group, bob).unwrap();
    assert_eq!(joined.name, "group");
    let recorded = joined.recorded.unwrap();
    let event = json!({"event": "joined", "USERID": bob.0, "by": bob.0, "name": name(&*store, bob)});
    assert_eq!((events(&recorded), &recorded.members[..]), (vec![event], &[ann, bob][..]));
    assert_eq!(recorded.entries[0].from, bob);
    assert_eq!(joins(&*store, group, bob).unwrap().recorded, None, "a member already");
    let of_bob = head(&*store, bob, group).unwrap();
    assert_eq!((of_bob.floor, of_bob.head, of_bob.unread), (1, 2, 0), "the own entry is the first");
    let recorded = leave(&*store, group, bob);
    let event = json!({"event": "left", "USERID": bob.0, "by": bob.0, "name": name(&*store, bob)});
    assert_eq!(events(&recorded), [event]);
    assert_eq!((&recorded.members[..], &recorded.gone[..]), (&[ann][..], &[bob][..]));
    assert_eq!(head(&*store, bob, group), Err(Denied::NotYours));
    assert_eq!(act(&*store, group, bob, Deed::Leave), Err(GroupRefusal::NotMember));
    assert_eq!(store.members_of(group, bob).unwrap(), Err(GroupRefusal::NotMember));
    let none = GroupId(i32::MAX);
    assert_eq!(act(&*store, none, bob, Deed::Leave), Err(GroupRefusal::NoSuchGroup));
    assert_eq!(joins(&*store, none, bob), Err(GroupRefusal::NoSuchGroup));
    assert_eq!(store.members_of(none, bob).unwrap(), Err(GroupRefusal::NoSuchGroup));
    assert_eq!(act(&*store, group, bob, Deed::Join { members_max: 1 }), Err(GroupRefusal::Full));
    assert_eq!(act(&*store, group, UserId(i32::MAX), Deed::Join { members_max: 9 }), Err(GroupRefusal::NoSuchUser));
}

pub(crate) fn the_longest_standing_member_follows_the_creator(opened: &impl Opened) {
    let store = opened.store();
    // Not by their ids.
    let (cat, bob, ann) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (group, _) = new_group(&*store, ann);
    joins(&*store, group, bob).unwrap();
    // A time apart from that of the one before.
    let before = now();
    while now() <= before {
        thread::yield_now();
    }
    joins(&*store, group, cat).unwrap();
    let recorded = leave(&*store, group, ann);
    let left = json!({"event": "left", "USERID": ann.0, "by": ann.0, "name": name(&*store, ann)});
    let creator = json!({"event": "creator", "USERID": bob.0, "by": ann.0, "name": name(&*store, bob)});
    assert_eq!(events(&recorded), [left, creator]);
    assert_eq!((&recorded.members[..], &recorded.gone[..]), (&[cat, bob][..], &[ann][..]));
    assert_eq!(members(&*store, group, cat), [(cat, false), (bob, true)]);
    // Who comes back has not stood long.
    joins(&*store, group, ann).unwrap();
    leave(&*store, group, bob);
    assert_eq!(members(&*store, group, ann), [(cat, true), (ann, false)]);
    let recorded = leave(&*store, group, ann);
    assert_eq!(recorded.entries.len(), 1, "a normal member has no place to be taken");
}

pub(crate) fn the_last_one_dissolves_the_group(opened: &impl Opened) {
    let store = opened.store();
    let ann = new_user(&*store);
    let (group, _) = new_group(&*store, ann);
    let recorded = leave(&*store, group, ann);
    assert_eq!((&recorded.members[..], &recorded.gone[..]), (&[][..], &[ann][..]));
    assert_eq!(store.group(group).unwrap(), None);
    assert_eq!(head(&*store, ann, group), Err(Denied::Unknown));
    assert_eq!(store.heads(ann).unwrap(), []);
    assert_eq!(joins(&*store, group, ann), Err(GroupRefusal::NoSuchGroup));
    let (next, _) = new_group(&*store, ann);
    assert!(next > group, "no id is given twice");
}

pub(crate) fn who_was_removed_is_out_until_the_creator_relents(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob, cat) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (group, _) = new_group(&*store, ann);
    joins(&*store, group, bob).unwrap();
    assert_eq!(act(&*store, group, bob, Deed::Remove(ann)), Err(GroupRefusal::NotCreator));
    assert_eq!(act(&*store, group, cat, Deed::Remove(bob)), Err(GroupRefusal::NotMember));
    assert_eq!(act(&*store, group, ann, Deed::Remove(cat)), Err(GroupRefusal::NoSuchMember));
    assert_eq!(act(&*store, group, ann, Deed::Remove(ann)), Err(GroupRefusal::Yourself));
    let recorded = act(&*store, group, ann, Deed::Remove(bob)).unwrap().recorded.unwrap();
    let removed = json!({"event": "removed", "USERID": bob.0, "by": ann.0, "name": name(&*store, bob)});
    assert_eq!((events(&recorded), &recorded.gone[..]), (vec![removed], &[bob][..]));
    assert_eq!(joins(&*store, group, bob), Err(GroupRefusal::Banned));
    let lifted = act(&*store, group, ann, Deed::LiftBan(bob)).unwrap();
    assert_eq!(lifted.recorded, None);
    assert_eq!(act(&*store, group, ann, Deed::LiftBan(UserId(i32::MAX))), Err(GroupRefusal::NoSuchUser));
    joins(&*store, group, bob).unwrap();
    act(&*store, group, ann, Deed::Remove(bob)).unwrap();
    // The creator's word is above the ban, and ends it.
    let add = |user, sees| act(&*store, group, ann, Deed::Add { user, members_max: 9, sees });
    let recorded = add(bob, Visible::Hidden).unwrap().recorded.unwrap();
    let joined = json!({"event": "joined", "USERID": bob.0, "by": ann.0, "name": name(&*store, bob)});
    assert_eq!((events(&recorded), recorded.entries[0].from), (vec![joined], ann));
    assert_eq!(head(&*store, bob, group).unwrap().floor, recorded.entries[0].place.seq - 1);
    leave(&*store, group, bob);
    joins(&*store, group, bob).unwrap();
    store.commit(&[text(of(group), bob, "before")], DAY).unwrap();
    add(cat, Visible::Shown).unwrap();
    store.commit(&[text(of(group), bob, "after")], DAY).unwrap();
    let of_cat = head(&*store, cat, group).unwrap();
    assert_eq!((of_cat.floor, of_cat.read, of_cat.unread), (0, of_cat.head - 1, 1), "what was sent before is read");
    assert_eq!(add(cat, Visible::Shown).unwrap().recorded, None);
    assert_eq!(add(UserId(i32::MAX), Visible::Shown), Err(GroupRefusal::NoSuchUser));
    let full = Deed::Add { user: new_user(&*store), members_max: 3, sees: Visible::Shown };
    assert_eq!(act(&*store, group, ann, full), Err(GroupRefusal::Full));
}

pub(crate) fn a_creator_renames_describes_and_dissolves(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let (group, _) = new_group(&*store, ann);
    joins(&*store, group, bob).unwrap();
    let change = |name: Option<&str>, description: Option<&str>| Deed::Change {
        name: name.map(str::to_owned),
        description: description.map(str::to_owned),
    };
    assert_eq!(act(&*store, group, bob, change(Some("x"), None)), Err(GroupRefusal::NotCreator));
    let recorded = act(&*store, group, ann, change(Some("Größe"), Some("new"))).unwrap().recorded.unwrap();
    let renamed = json!({"event": "renamed", "USERID": ann.0, "by": ann.0, "name": "Größe"});
    assert_eq!((events(&recorded), &recorded.members[..]), (vec![renamed], &[ann, bob][..]));
    let found = store.group(group).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.description.as_str()), ("Größe", "new"));
    assert!(store.groups_named("GROSSE", 1000).unwrap().contains(&found), "searches find the new name");
    assert_eq!(act(&*store, group, ann, change(Some("Größe"), None)).unwrap().recorded, None);
    assert_eq!(act(&*store, group, ann, change(None, Some(""))).unwrap().recorded, None);
    assert_eq!(store.group(group).unwrap().unwrap().description, "");
    assert_eq!(act(&*store, group, bob, Deed::Dissolve), Err(GroupRefusal::NotCreator));
    let recorded = act(&*store, group, ann, Deed::Dissolve).unwrap().recorded.unwrap();
    assert_eq!(recorded.gone, [ann, bob]);
    assert_eq!(events(&recorded)[0]["event"], "dissolved");
    assert_eq!((store.group(group).unwrap(), store.members(group).unwrap()), (None, vec![]));
    assert_eq!(head(&*store, bob, group), Err(Denied::Unknown));
    let last = store.run(of(group), recorded.entries[0].place.seq, i64::MAX, false, BYTES).unwrap();
    assert_eq!(last.len(), 1, "a connection that is behind still finds the last entry");
    let more = NewEntry { is_unchecked: true, ..text(of(group), ann, "more") };
    assert_eq!(store.commit(&[more], DAY).unwrap(), [Committed::Refused(EntryRefusal::NoSuchGroup)]);
}

pub(crate) fn an_event_marks_nothing_as_read(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let (group, _) = new_group(&*store, ann);
    joins(&*store, group, bob).unwrap();
    store.commit(&[text(of(group), bob, "hello")], DAY).unwrap();
    act(&*store, group, ann, Deed::Change { name: Some("other".into()), description: None }).unwrap();
    let of_ann = head(&*store, ann, group).unwrap();
    assert_eq!((of_ann.read, of_ann.head, of_ann.unread), (0, 4, 1));
}

pub(crate) fn friends_are_made_once_and_asked_once(opened: &impl Opened) {
    let store = opened.store();
    let [ann, bob, cat, dan] = [(); 4].map(|()| new_user(&*store));
    let befriend =
        |a, b, policy| store.befriend(&FriendRequest { a, b, policy, trace: Trace::Recorded, nonce: nonce() }).unwrap();
    let Befriended::New(names, Some(recorded)) = befriend(bob, ann, FriendPolicy::Open) else { panic!("new") };
    assert_eq!((names.a, names.b), (name(&*store, bob), name(&*store, ann)));
    assert_eq!((recorded.conv, &recorded.members[..]), (ConversationId::between(ann, bob), &[ann, bob][..]));
    let push = json!({"errno": 200, "msgType": 6, "name": name(&*store, bob), "new": true, "userId": bob.0});
    assert_eq!((frame(&recorded.entries[0].text), recorded.entries[0].from), (push, bob));
    assert!(matches!(befriend(ann, bob, FriendPolicy::Ask), Befriended::Already(_)));
    assert_eq!(friend_ids(&*store, ann), [bob]);
    // Who must be asked has to ask, or to have asked, as well.
    let Befriended::Asked(_, Some(recorded)) = befriend(ann, cat, FriendPolicy::Ask) else { panic!("asked") };
    assert_eq!(frame(&recorded.entries[0].text)["ask"], true);
    assert!(matches!(befriend(ann, cat, FriendPolicy::Ask), Befriended::AskedBefore(_)));
    assert_eq!((friend_ids(&*store, ann), friend_ids(&*store, cat)), (vec![bob], vec![]));
    assert!(matches!(befriend(cat, ann, FriendPolicy::Ask), Befriended::New(..)));
    assert_eq!((friend_ids(&*store, ann), friend_ids(&*store, cat)), (vec![bob, cat], vec![ann]));
    // A recorded 5 is a request, and so is one that was noted.
    let five = NewEntry { kind: EntryKind::Other, ..text(ConversationId::between(bob, cat), bob, "five") };
    store.commit(&[five], DAY).unwrap();
    assert!(matches!(befriend(cat, bob, FriendPolicy::Ask), Befriended::New(..)));
    store.note_asked(dan, ann).unwrap();
    store.note_asked(dan, ann).unwrap();
    assert!(matches!(befriend(ann, dan, FriendPolicy::Ask), Befriended::New(..)));
    // Friends who part have to ask again.
    store.remove_friend(ann, dan).unwrap();
    assert!(matches!(befriend(ann, dan, FriendPolicy::Ask), Befriended::Asked(..)));
    assert_eq!(befriend(ann, UserId(i32::MAX), FriendPolicy::Open), Befriended::NoSuchUser);
    // The same without an entry.
    let unrecorded = |a, b, policy| {
        let request = FriendRequest { a, b, policy, trace: Trace::None, nonce: nonce() };
        store.befriend(&request).unwrap()
    };
    assert!(matches!(unrecorded(bob, dan, FriendPolicy::Ask), Befriended::Asked(_, None)));
    assert!(matches!(unrecorded(dan, bob, FriendPolicy::Ask), Befriended::New(_, None)));
    assert_eq!(store.run(ConversationId::between(bob, dan), 1, 9, false, BYTES).unwrap(), []);
}

pub(crate) fn who_is_blocked_cannot_send_or_ask(opened: &impl Opened) {
    let store = opened.store();
    let [ann, bob, cat] = [(); 3].map(|()| new_user(&*store));
    assert_eq!(store.block(ann, UserId(i32::MAX)).unwrap(), BlockOutcome::NoSuchUser);
    assert_eq!(store.unblock(ann, UserId(i32::MAX)).unwrap(), BlockOutcome::NoSuchUser);
    for user in [cat, bob, bob] {
        assert_eq!(store.block(ann, user).unwrap(), BlockOutcome::Done);
    }
    let named = |user| (user, Some(name(&*store, user)));
    assert_eq!(store.blocked_by(ann).unwrap(), [named(bob), named(cat)]);
    assert_eq!(store.blocked_by(bob).unwrap(), []);
    let before = (UserId(ann.0 - 1), UserId(i32::MAX));
    assert_eq!(store.blocks_after(before, 2).unwrap(), [(ann, bob), (ann, cat)]);
    assert_eq!(store.blocks_after((ann, bob), 1).unwrap(), [(ann, cat)]);
    let conv = ConversationId::between(ann, bob);
    let send = |from, body| store.commit(&[NewEntry { is_unchecked: true, ..text(conv, from, body) }], DAY).unwrap()[0];
    assert_eq!(send(bob, "1"), Committed::Refused(EntryRefusal::Blocked));
    assert!(matches!(send(ann, "2"), Committed::New(_)), "the other way is open");
    let request = FriendRequest { a: bob, b: ann, policy: FriendPolicy::Open, trace: Trace::None, nonce: nonce() };
    assert_eq!(store.befriend(&request).unwrap(), Befriended::Blocked);
    store.unblock(ann, bob).unwrap();
    store.unblock(ann, bob).unwrap();
    assert!(matches!(send(bob, "3"), Committed::New(_)));
    assert_eq!(store.blocked_by(ann).unwrap(), [named(cat)]);
}

pub(crate) fn a_list_of_blocked_users_is_bounded(opened: &impl Opened) {
    let store = opened.store();
    let ann = new_user(&*store);
    let others: Vec<UserId> = thread::scope(|scope| {
        let make = || scope.spawn(|| (0..BLOCKED_MAX / 8).map(|_| new_user(&*store)).collect::<Vec<_>>());
        let makers: Vec<_> = (0..8).map(|_| make()).collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    for user in &others {
        assert_eq!(store.block(ann, *user).unwrap(), BlockOutcome::Done);
    }
    let one_more = new_user(&*store);
    assert_eq!(store.block(ann, one_more).unwrap(), BlockOutcome::TooMany);
    assert_eq!(store.block(ann, others[0]).unwrap(), BlockOutcome::Done, "blocked already");
    store.unblock(ann, others[0]).unwrap();
    assert_eq!(store.block(ann, one_more).unwrap(), BlockOutcome::Done);
}

pub(crate) fn an_account_has_a_name_and_receipts(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let own = |name: &str, receipts| Some(OwnAccount { name: name.to_owned(), receipts });
    let first = name(&*store, ann);
    assert_eq!(store.own(ann).unwrap(), own(&first, true));
    let renamed = format!("É-{}", unique());
    assert_eq!(store.change_own(ann, Some(&renamed), None).unwrap(), own(&renamed, true));
    assert_eq!(store.change_own(ann, None, Some(false)).unwrap(), own(&renamed, false));
    // The same but for case and accents is the same.
    let taken = store.change_own(bob, Some(&renamed.replace('É', "e")), Some(false));
    assert!(matches!(taken, Err(StoreError::NameTaken)), "{taken:?}");
    assert_eq!(store.own(bob).unwrap(), own(&name(&*store, bob), true), "nothing of a refused change stays");
    let spelled = renamed.replace('É', "e");
    assert_eq!(
        store.change_own(ann, Some(&spelled), None).unwrap(),
        own(&spelled, false),
        "the own name in another spelling"
    );
    assert_eq!(store.change_own(bob, Some(&first), None).unwrap(), own(&first, true), "a name that is free again");
    // Neither of two is shown the marks of the other.
    let conv = ConversationId::between(ann, bob);
    store.commit(&[text(conv, ann, "hello")], DAY).unwrap();
    let peer = |user| store.heads(user).unwrap()[0].peer;
    assert_eq!((peer(ann), peer(bob), store.hiding_marks(&[bob, ann]).unwrap()), (None, None, vec![ann]));
    store.change_own(ann, None, Some(true)).unwrap();
    assert_eq!((peer(ann), peer(bob), store.hiding_marks(&[bob, ann]).unwrap()), (Some((0, 0)), Some((1, 0)), vec![]));
    assert_eq!(store.own(UserId(i32::MAX)).unwrap(), None);
    assert_eq!(store.change_own(UserId(i32::MAX), None, Some(true)).unwrap(), None);
}

pub(crate) fn a_new_password_ends_all_other_devices(opened: &impl Opened) {
    let store = opened.store();
    let (ann, bob) = (new_user(&*store), new_user(&*store));
    let [phone, web] = ["phone", "web"].map(|name| log_in(&*store, ann, name).device);
    let of_bob = log_in(&*store, bob, "phone").device;
    let change = |old: &str, new: &str, keep| PasswordChange { user: ann, old: old.into(), new: new.into(), keep };
    let stale = store.change_password(&change("y", "z", Some((phone.id, [7; 16])))).unwrap();
    assert_eq!(stale, Swapped::Stale);
    assert_eq!(store.devices(ann).unwrap().len(), 2);
    let done = store.change_password(&change("x", "Y", Some((phone.id, [7; 16])))).unwrap();
    assert_eq!(done, Swapped::Done(vec![web.id]));
    let kept = store.devices(ann).unwrap();
    assert_eq!((kept.len(), kept[0].id, kept[0].secret, kept[0].login), (1, phone.id, [7; 16], phone.login));
    assert_eq!(store.device(web.id).unwrap(), None);
    assert_eq!(store.credential(ann).unwrap().as_deref(), Some("Y"));
    assert_eq!(store.change_password(&change("y", "z", None)).unwrap(), Swapped::Stale, "case counts");
    assert_eq!(store.change_password(&change("Y", "z", None)).unwrap(), Swapped::Done(vec![phone.id]));
    assert_eq!(store.devices(ann).unwrap(), []);
    assert_eq!(store.devices(bob).unwrap(), [of_bob]);
}

pub(crate) fn a_deleted_account_leaves_everything_but_its_messages(opened: &impl Opened) {
    let store = opened.store();
    let [ann, bob, cat] = [(); 3].map(|()| new_user(&*store));
    let own_name = name(&*store, ann);
    let (group, _) = new_group(&*store, ann);
    joins(&*store, group, bob).unwrap();
    let (alone, _) = new_group(&*store, ann);
    let (other, _) = new_group(&*store, bob);
    joins(&*store, other, ann).unwrap();
    let conv = ConversationId::between(ann, bob);
    store.commit(&[text(conv, ann, "hello"), text(conv, bob, "hi")], DAY).unwrap();
    for (a, b) in [(ann, bob), (cat, ann)] {
        store
            .befriend(&FriendRequest { a, b, policy: FriendPolicy::Open, trace: Trace::Recorded, nonce: nonce() })
            .unwrap();
    }
    store.block(bob, ann).unwrap();
    store.block(ann, cat).unwrap();
    let shared: Arc<str> = "{}".into();
    let rows = [ann, bob, ann].map(|to| NewMessage::new(to, shared.clone()));
    store.append(&rows).unwrap();
    let device = log_in(&*store, ann, "phone").device;
    let nonce = nonce();
    assert_eq!(store.delete_account(ann, "wrong", nonce).unwrap(), Swapped::Stale);
    let Swapped::Done(deletion) = store.delete_account(ann, "x", nonce).unwrap() else { panic!("done") };
    assert_eq!(deletion.devices, [device]);
    let left: Vec<_> = deletion.groups.iter().map(|left| (left.conv, left.entries.len())).collect();
    assert_eq!(left, [(of(group), 2), (of(alone), 1), (of(other), 1)]);
    assert_eq!(events(&deletion.groups[0])[0]["name"], own_name);
    assert_eq!(members(&*store, group, bob), [(bob, true)]);
    assert_eq!(store.group(alone).unwrap(), None);
    assert_eq!((store.user(ann).unwrap(), store.credential(ann).unwrap()), (None, None));
    assert_eq!((friend_ids(&*store, bob), friend_ids(&*store, cat)), (vec![], vec![]));
    assert_eq!((store.blocked_by(bob).unwrap(), store.blocked_by(ann).unwrap()), (vec![], vec![]));
    assert_eq!((store.fetch(ann, 1 << 20).unwrap().len(), store.fetch(bob, 1 << 20).unwrap().len()), (0, 1));
    assert_eq!(store.devices(ann).unwrap(), []);
    // The messages stay, as from nobody who can be written to.
    let of_bob = store.heads(bob).unwrap().into_iter().find(|head| head.conv == conv).unwrap();
    assert_eq!((of_bob.name, of_bob.head), (None, 3));
    assert_eq!(store.run(conv, 1, 1, false, BYTES).unwrap()[0].text.as_deref(), Some("hello"));
    let more = NewEntry { is_unchecked: true, ..text(conv, bob, "more") };
    assert_eq!(store.commit(&[more], DAY).unwrap(), [Committed::Refused(EntryRefusal::NoSuchUser)]);
    assert_eq!(store.delete_account(ann, "x", nonce).unwrap(), Swapped::Stale);
    let again = store.register(&own_name, "x").unwrap();
    assert!(again > ann.max(cat), "the name is free, the id is not");
}

pub(crate) fn members_who_leave_at_the_same_time_leave_one_creator(opened: &impl Opened) {
    let stores = [opened.store(), opened.second()];
    for _ in 0..5 {
        let users: Vec<UserId> = (0..6).map(|_| new_user(&*stores[0])).collect();
        let (group, _) = new_group(&*stores[0], users[0]);
        users[1..].iter().for_each(|user| drop(joins(&*stores[0], group, *user).unwrap()));
        thread::scope(|scope| {
            for (nth, user) in users[..5].iter().enumerate() {
                let store = &stores[nth % 2];
                scope.spawn(move || match nth {
                    // One of them deletes the account.
                    2 => assert!(matches!(store.delete_account(*user, "x", nonce()).unwrap(), Swapped::Done(_))),
                    _ => drop(leave(&**store, group, *user)),
                });
            }
        });
        assert_eq!(members(&*stores[1], group, users[5]), [(users[5], true)]);
        let entries = stores[1].run(of(group), 1, i64::MAX, false, BYTES).unwrap();
        assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as i64));
        let of_kind = |kind: &str| {
            let is_it = |entry: &&raybox::store::history::Entry| frame(entry.text.as_deref().unwrap())["event"] == kind;
            entries.iter().filter(is_it).count()
        };
        assert_eq!(of_kind("left"), 5);
        assert!((1..=5).contains(&of_kind("creator")));
    }
}

pub(crate) fn leave(store: &impl Community, group: GroupId, user: UserId) -> Recorded {
    act(store, group, user, Deed::Leave).unwrap().recorded.unwrap()
}

/// The members by ascending id, and whether each is the creator.
pub(crate) fn members(store: &impl Community, group: GroupId, asker: UserId) -> Vec<(UserId, bool)> {
    let members = store.members_of(group, asker).unwrap().unwrap();
    members.iter().map(|member| (member.user, member.role == GroupRole::Creator)).collect()
}

fn act(store: &impl Community, group: GroupId, by: UserId, deed: Deed) -> Result<GroupChanged, GroupRefusal> {
    store.act(&GroupAct { group, by, deed, nonce: nonce() }).unwrap()
}

fn joins(store: &impl Community, group: GroupId, user: UserId) -> Result<GroupChanged, GroupRefusal> {
    act(store, group, user, Deed::Join { members_max: 100 })
}

fn new_group(store: &impl Community, owner: UserId) -> (GroupId, Recorded) {
    let group = NewGroup { owner, name: "group".into(), description: "about".into(), nonce: nonce() };
    store.found_group(&group).unwrap()
}

fn new_user(store: &dyn AllRoles) -> UserId {
    store.register(&format!("user-{}", unique()), "x").unwrap()
}

fn name(store: &dyn AllRoles, user: UserId) -> String {
    store.user(user).unwrap().unwrap().name
}

fn friend_ids(store: &dyn AllRoles, user: UserId) -> Vec<UserId> {
    store.friends(user).unwrap().iter().map(|friend| friend.id).collect()
}

fn head(store: &impl History, user: UserId, group: GroupId) -> Result<Head, Denied> {
    store.heads_of(user, &[of(group)]).unwrap().pop().unwrap()
}

fn of(group: GroupId) -> ConversationId {
    ConversationId::of_group(group)
}

fn log_in(store: &impl History, user: UserId, name: &str) -> LoggedIn {
    let proof = LoginProof::Password("x".to_owned());
    let login = DeviceLogin { user, name: name.to_owned(), proof, nonce: 5, secret: [1; 16], devices_max: 16 };
    store.log_in(&login).unwrap().unwrap()
}

/// The events, without their type.
fn events(recorded: &Recorded) -> Vec<Value> {
    let event = |text: &str| {
        let mut event = frame(text);
        assert_eq!(event.as_object_mut().unwrap().remove("msgType"), Some(json!(57)));
        event
    };
    recorded.entries.iter().map(|entry| event(&entry.text)).collect()
}

fn frame(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A message whose id is new.
fn text(conv: ConversationId, sender: UserId, text: &str) -> NewEntry {
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

fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&FrameHash::of(unique().as_bytes()).0);
    nonce
}

fn now() -> u128 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    format!("{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

const DAY: i64 = 86_400_000;
const BYTES: usize = 256 << 10;
