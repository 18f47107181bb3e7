//! The behaviour of accounts, friends and groups of level 2, tested through the store's trait
//! alone. Every test makes its own users and groups, and asserts nothing about others.

mod groups;
mod people;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use raybox::base::conversation::ConversationId;
use raybox::protocol::{GroupId, UserId};
use raybox::store::AllRoles;
use raybox::store::community::{
    AccountDeletion, Community, Deed, Deletion, GroupAct, GroupChanged, GroupRefusal, GroupRole, NewGroup, Recorded,
    Right, Swapped,
};
use raybox::store::history::{
    Cid, CommitRules, Denied, EntryKind, FrameHash, Head, History, LoggedIn, LoginProof, NewDeviceLogin, NewEntry,
    SenderCheck,
};
use raybox::store::hooks::Hooked;
use serde_json::{Value, json};

pub(crate) use self::groups::{
    a_creator_renames_describes_and_dissolves, a_group_begins_with_its_creation,
    a_removed_member_is_out_until_the_creator_relents, an_event_marks_nothing_as_read,
    joining_and_leaving_are_entries_of_the_group, members_who_leave_at_the_same_time_leave_one_creator,
    the_last_one_dissolves_the_group, the_longest_standing_member_follows_the_creator,
};
pub(crate) use self::people::{
    a_blocked_user_cannot_send_or_ask, a_deleted_account_leaves_everything_but_its_messages,
    a_list_of_blocked_users_is_bounded, a_new_password_ends_all_other_devices, an_account_has_a_name_and_receipts,
    friends_are_made_once_and_asked_once,
};

/// A store that lives as long as one test.
pub(crate) trait Opened {
    type Store: AllRoles + History + Community;

    fn store(&self) -> Arc<Self::Store>;

    /// Another store on the same database.
    fn second(&self) -> Arc<Self::Store>;
}

/// Makes a `#[test]` of every behaviour, on the stores that `$open` opens.
macro_rules! community_suite {
    ($open:path) => {
        $crate::community_suite::behaviours!($open:
            a_group_begins_with_its_creation,
            joining_and_leaving_are_entries_of_the_group,
            the_longest_standing_member_follows_the_creator,
            the_last_one_dissolves_the_group,
            a_removed_member_is_out_until_the_creator_relents,
            a_creator_renames_describes_and_dissolves,
            an_event_marks_nothing_as_read,
            friends_are_made_once_and_asked_once,
            a_blocked_user_cannot_send_or_ask,
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

pub(crate) fn leave(store: &impl Community, group: GroupId, user: UserId) -> Recorded {
    act(store, group, user, Deed::Leave).unwrap().recorded.unwrap()
}

/// The members by ascending id. The flag says whether a member is the creator.
pub(crate) fn members(store: &impl Community, group: GroupId, asker: UserId) -> Vec<(UserId, bool)> {
    let members = store.members_of(group, asker).unwrap().unwrap();
    members.iter().map(|member| (member.user, member.role == GroupRole::Creator)).collect()
}

fn act(store: &impl Community, group: GroupId, by: UserId, deed: Deed) -> Result<GroupChanged, GroupRefusal> {
    store.act(&GroupAct { group, by, right: Right::Standing, deed, hooked: Hooked::No, nonce: nonce() }).unwrap()
}

fn delete(store: &impl Community, user: UserId) -> Swapped<Deletion> {
    let request = AccountDeletion { user, stored: "x", hooked: Hooked::No, nonce: nonce() };
    store.delete_account(&request).unwrap()
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
    let login = NewDeviceLogin {
        user,
        name: name.to_owned(),
        proof,
        nonce: 5,
        secret: [1; 16],
        renews_secret: false,
        devices_max: 16,
    };
    store.log_in(&login).unwrap().unwrap()
}

/// The recorded events, without their type.
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

/// A message with a new id.
fn text(conv: ConversationId, sender: UserId, text: &str) -> NewEntry {
    NewEntry {
        conv,
        sender,
        cid: Cid::of_client(&unique()).unwrap(),
        hash: FrameHash::of(text.as_bytes()),
        kind: EntryKind::Message,
        is_imported: false,
        check: SenderCheck::None,
        is_hooked: false,
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

const DAY: CommitRules = CommitRules { edit_window: 86_400_000, conversations_max: 1000 };

const BYTES: usize = 256 << 10;
