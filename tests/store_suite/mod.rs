//! The behaviour of a store, tested through its traits alone.
//!
//! Many tests may share a store, and it may contain rows of earlier runs. So every test makes its
//! own users and groups, with names that no other test uses, and asserts nothing about others.

mod contacts;
mod messages;
mod races;
mod users;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use raybox::protocol::UserId;
use raybox::store::{AllRoles, AppendOutcome, NewMessage, User};

pub(crate) use self::contacts::{
    a_full_group_takes_nobody_more, a_group_has_its_creator, a_search_of_any_size_and_content_is_harmless,
    adding_a_friend_twice_adds_once, adding_an_unknown_friend_adds_nothing, an_empty_search_finds_every_group,
    friends_are_friends_both_ways, friends_come_by_ascending_id, group_names_need_not_be_unique,
    groups_and_members_come_by_ascending_id, joining_an_unknown_group_joins_nothing, joining_twice_joins_once,
    removing_a_friend_removes_one_direction, the_search_ignores_case_and_accents, the_search_is_limited_and_ordered,
    the_search_takes_wildcards_literally,
};
pub(crate) use self::messages::{
    a_delete_spares_what_came_after_the_fetch, a_fetch_deletes_nothing, a_fetch_keeps_to_its_bytes,
    a_mailbox_weighs_what_is_in_it, empty_batches_are_fine, long_messages_survive, message_ids_are_never_used_again,
    messages_are_fetched_in_order_and_exactly, messages_for_unknown_users_are_not_kept,
    one_user_cannot_touch_the_messages_of_another, ten_thousand_messages_are_deleted_at_once,
};
pub(crate) use self::races::{
    a_refused_operation_does_not_harm_those_beside_it, concurrent_appends_keep_the_order_of_each_thread,
    one_name_is_given_once_however_many_ask,
};
pub(crate) use self::users::{
    a_credential_is_replaced_only_where_it_is_still_the_old_one, a_new_user_is_found, a_refused_name_changes_nothing,
    names_are_unique_without_regard_to_case_and_accents, online_users_are_listed_in_pages,
    states_of_unknown_users_are_passed_over, strange_names_come_back_byte_for_byte, unknown_ids_have_nothing,
    users_online_are_distinguished_from_the_others,
};

/// A store that lives as long as one test.
pub(crate) trait Opened {
    fn store(&self) -> &dyn AllRoles;
}

/// Makes a `#[test]` of every behaviour, on the stores that `$open` opens.
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

/// Like [`store_suite`], without the behaviour that the reference server's tables cannot have.
macro_rules! narrow_store_suite {
    ($open:path) => {
        $crate::store_suite::behaviours!($open:
            a_new_user_is_found,
            a_refused_name_changes_nothing,
            unknown_ids_have_nothing,
            a_credential_is_replaced_only_where_it_is_still_the_old_one,
            states_of_unknown_users_are_passed_over,
            online_users_are_listed_in_pages,
            users_online_are_distinguished_from_the_others,
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
    // Only digits: a hexadecimal tag would contain "abc" or "cafe" one day, and a search would find
    // it.
    format!("{name}-{}-{count}", now.as_nanos() as u64)
}

fn new_user(store: &dyn AllRoles) -> UserId {
    store.register(&unique("user"), "x").unwrap()
}

fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage::new(to, text)
}

fn append(store: &dyn AllRoles, to: UserId, texts: &[impl AsRef<str>]) -> Vec<AppendOutcome> {
    let batch: Vec<NewMessage> = texts.iter().map(|text| message(to, text.as_ref())).collect();
    store.append(&batch).unwrap()
}

fn ids(users: &[User]) -> Vec<UserId> {
    users.iter().map(|user| user.id).collect()
}
