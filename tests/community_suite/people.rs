//! Friends, blocked users and accounts.

use std::sync::Arc;
use std::thread;

use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::community::{
    AccountDeletion, BLOCKED_MAX, Befriended, BlockOutcome, Community as _, FriendPolicy, FriendRequest, OwnAccount,
    PasswordChange, Swapped, Trace,
};
use raybox::store::history::{
    CommitOutcome, EntryKind, EntryRefusal, History as _, HistoryReads as _, NewEntry, SenderCheck,
};
use raybox::store::hooks::Hooked;
use raybox::store::{Accounts as _, Contacts as _, Messages as _, NewMessage, StoreError};
use serde_json::json;

use super::{
    BYTES, DAY, Opened, events, frame, friend_ids, joins, log_in, members, name, new_group, new_user, nonce, of, text,
    unique,
};

pub(crate) fn friends_are_made_once_and_asked_once(opened: &impl Opened) {
    let store = opened.store();
    let [ann, bob, cat, dan] = [(); 4].map(|()| new_user(&*store));
    let befriend = |a, b, policy| {
        store
            .befriend(&FriendRequest {
                a,
                b,
                policy,
                trace: Trace::Recorded,
                hooked: Hooked::No,
                conversations_max: 1000,
                nonce: nonce(),
            })
            .unwrap()
    };
    let Befriended::New(names, Some(recorded)) = befriend(bob, ann, FriendPolicy::Open) else { panic!("new") };
    assert_eq!((names.a, names.b), (name(&*store, bob), name(&*store, ann)));
    assert_eq!((recorded.conv, &recorded.members[..]), (ConversationId::between(ann, bob), &[ann, bob][..]));
    let push = json!({"errno": 200, "msgType": 6, "name": name(&*store, bob), "new": true, "userId": bob.0});
    assert_eq!((frame(&recorded.entries[0].text), recorded.entries[0].from), (push, bob));
    assert!(matches!(befriend(ann, bob, FriendPolicy::Ask), Befriended::Already(_)));
    assert_eq!(friend_ids(&*store, ann), [bob]);
    // If a user must be asked, the other one becomes a friend only after both have asked.
    let Befriended::Asked(_, Some(recorded)) = befriend(ann, cat, FriendPolicy::Ask) else { panic!("asked") };
    assert_eq!(frame(&recorded.entries[0].text)["ask"], true);
    assert!(matches!(befriend(ann, cat, FriendPolicy::Ask), Befriended::AskedBefore(_)));
    assert_eq!((friend_ids(&*store, ann), friend_ids(&*store, cat)), (vec![bob], vec![]));
    assert!(matches!(befriend(cat, ann, FriendPolicy::Ask), Befriended::New(..)));
    assert_eq!((friend_ids(&*store, ann), friend_ids(&*store, cat)), (vec![bob, cat], vec![ann]));
    // A recorded frame of type 5 is a request, and so is a noted one.
    let five = NewEntry { kind: EntryKind::Other, ..text(ConversationId::between(bob, cat), bob, "five") };
    store.commit(&[five], DAY).unwrap();
    assert!(matches!(befriend(cat, bob, FriendPolicy::Ask), Befriended::New(..)));
    store.note_asked(dan, ann).unwrap();
    store.note_asked(dan, ann).unwrap();
    assert!(matches!(befriend(ann, dan, FriendPolicy::Ask), Befriended::New(..)));
    // After friends have parted, they have to ask again.
    store.remove_friend(ann, dan).unwrap();
    assert!(matches!(befriend(ann, dan, FriendPolicy::Ask), Befriended::Asked(..)));
    assert_eq!(befriend(ann, UserId(i32::MAX), FriendPolicy::Open), Befriended::NoSuchUser);
    // A request that is recorded needs room for a conversation.
    let crowded = FriendRequest {
        a: dan,
        b: cat,
        policy: FriendPolicy::Open,
        trace: Trace::Recorded,
        hooked: Hooked::No,
        conversations_max: 2,
        nonce: nonce(),
    };
    assert_eq!(store.befriend(&crowded).unwrap(), Befriended::NoRoom);
    assert_eq!(friend_ids(&*store, dan), [ann]);
    // The same for requests that are not recorded as entries.
    let unrecorded = |a, b, policy| {
        let request = FriendRequest {
            a,
            b,
            policy,
            trace: Trace::None,
            hooked: Hooked::No,
            conversations_max: 1000,
            nonce: nonce(),
        };
        store.befriend(&request).unwrap()
    };
    assert!(matches!(unrecorded(bob, dan, FriendPolicy::Ask), Befriended::Asked(_, None)));
    assert!(matches!(unrecorded(dan, bob, FriendPolicy::Ask), Befriended::New(_, None)));
    assert_eq!(store.run(ConversationId::between(bob, dan), 1, 9, false, BYTES).unwrap(), []);
}

pub(crate) fn a_blocked_user_cannot_send_or_ask(opened: &impl Opened) {
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
    let send =
        |from, body| store.commit(&[NewEntry { check: SenderCheck::Whole, ..text(conv, from, body) }], DAY).unwrap()[0];
    assert_eq!(send(bob, "1"), CommitOutcome::Refused(EntryRefusal::Blocked));
    assert!(matches!(send(ann, "2"), CommitOutcome::New(..)), "the other way is open");
    let request = FriendRequest {
        a: bob,
        b: ann,
        policy: FriendPolicy::Open,
        trace: Trace::None,
        hooked: Hooked::No,
        conversations_max: 1000,
        nonce: nonce(),
    };
    assert_eq!(store.befriend(&request).unwrap(), Befriended::Blocked);
    store.unblock(ann, bob).unwrap();
    store.unblock(ann, bob).unwrap();
    assert!(matches!(send(bob, "3"), CommitOutcome::New(..)));
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
    // A name that differs only in case or accents is the same name.
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
    // Each of the two users is shown no marks of the other one.
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
            .befriend(&FriendRequest {
                a,
                b,
                policy: FriendPolicy::Open,
                trace: Trace::Recorded,
                hooked: Hooked::No,
                conversations_max: 1000,
                nonce: nonce(),
            })
            .unwrap();
    }
    store.block(bob, ann).unwrap();
    store.block(ann, cat).unwrap();
    let shared: Arc<str> = "{}".into();
    let rows = [ann, bob, ann].map(|to| NewMessage::new(to, shared.clone()));
    store.append(&rows).unwrap();
    let device = log_in(&*store, ann, "phone").device;
    let nonce = nonce();
    let delete = |user, stored| store.delete_account(&AccountDeletion { user, stored, hooked: Hooked::No, nonce });
    assert_eq!(delete(ann, "wrong").unwrap(), Swapped::Stale);
    let Swapped::Done(deletion) = delete(ann, "x").unwrap() else { panic!("done") };
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
    // The messages stay, but their partner has no name and cannot be written to.
    let of_bob = store.heads(bob).unwrap().into_iter().find(|head| head.conv == conv).unwrap();
    assert_eq!((of_bob.name, of_bob.head), (None, 3));
    assert_eq!(store.run(conv, 1, 1, false, BYTES).unwrap()[0].text.as_deref(), Some("hello"));
    let more = NewEntry { check: SenderCheck::Whole, ..text(conv, bob, "more") };
    assert_eq!(store.commit(&[more], DAY).unwrap(), [CommitOutcome::Refused(EntryRefusal::NoSuchUser)]);
    assert_eq!(delete(ann, "x").unwrap(), Swapped::Stale);
    let again = store.register(&own_name, "x").unwrap();
    assert!(again > ann.max(cat), "the name is free, the id is not");
}
