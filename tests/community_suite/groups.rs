//! Groups: creating, joining, leaving and removing, and the successor of a creator.

use std::thread;

use raybox::protocol::{GroupId, UserId};
use raybox::store::Contacts as _;
use raybox::store::community::{Community as _, Deed, GroupRefusal, Swapped, Visible};
use raybox::store::history::{
    CommitOutcome, Denied, EntryRefusal, History as _, HistoryReads as _, NewEntry, SenderCheck,
};
use serde_json::json;

use super::{
    BYTES, DAY, Opened, act, delete, events, frame, head, joins, leave, members, name, new_group, new_user, now, of,
    text,
};

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

pub(crate) fn joining_and_leaving_are_entries_of_the_group(opened: &impl Opened) {
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
    // Their ids have another order than their joining, because the order of joining must count.
    let (cat, bob, ann) = (new_user(&*store), new_user(&*store), new_user(&*store));
    let (group, _) = new_group(&*store, ann);
    joins(&*store, group, bob).unwrap();
    // The next join must have a later time than the one before.
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
    // A user who comes back counts from the new join.
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

pub(crate) fn a_removed_member_is_out_until_the_creator_relents(opened: &impl Opened) {
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
    // The creator may add a banned user, which lifts the ban.
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
    let more = NewEntry { check: SenderCheck::Whole, ..text(of(group), ann, "more") };
    assert_eq!(store.commit(&[more], DAY).unwrap(), [CommitOutcome::Refused(EntryRefusal::NoSuchGroup)]);
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
                    2 => assert!(matches!(delete(&**store, *user), Swapped::Done(_))),
                    _ => drop(leave(&**store, group, *user)),
                });
            }
        });
        assert_eq!(members(&*stores[1], group, users[5]), [(users[5], true)]);
        let entries = stores[1].run(of(group), 1, i64::MAX, false, BYTES).unwrap();
        assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as i64));
        let of_kind = |kind: &str| {
            let is_it =
                |entry: &&raybox::store::history::HistoryEntry| frame(entry.text.as_deref().unwrap())["event"] == kind;
            entries.iter().filter(is_it).count()
        };
        assert_eq!(of_kind("left"), 5);
        assert!((1..=5).contains(&of_kind("creator")));
    }
}
