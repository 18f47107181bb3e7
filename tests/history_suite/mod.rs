//! The behaviour of history, tested through its trait alone. Every test makes its own users and
//! groups, and asserts nothing about others.

mod devices;
mod entries;
mod marks;
mod model;
mod races;
mod retention;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::AllRoles;
use raybox::store::history::{
    Cid, CommitOutcome, CommitRules, EntryKind, EntryPlace, FrameHash, Head, History, LoginProof, NewDeviceLogin,
    NewEntry, SenderCheck,
};

pub(crate) use self::devices::{a_login_is_written_only_if_what_was_proved_still_holds, devices_come_and_go};
pub(crate) use self::entries::{
    a_forbidden_change_is_refused, a_new_member_sees_a_group_from_there,
    a_repeat_is_the_same_answer_and_another_content_a_conflict, an_edit_shows_in_its_place_and_a_recall_empties_all,
    heads_are_the_users_own, numbers_are_dense_and_tags_stay, pages_keep_to_their_bounds,
    rights_are_looked_at_after_repeats, strangers_use_up_half_of_the_room_for_conversations,
};
pub(crate) use self::marks::{
    marks_rise_and_reports_are_cumulative, the_unread_count_is_exact,
    waiting_messages_are_read_and_marked_until_they_are_reported,
};
pub(crate) use self::races::{no_reader_ever_sees_a_hole, one_id_at_two_stores_is_stored_once};
pub(crate) use self::retention::{
    one_node_at_a_time_has_the_retention, retention_lets_conversations_take_turns,
    retention_raises_the_floor_and_still_knows_repeats,
};

/// A store that lives as long as one test.
pub(crate) trait Opened {
    type Store: AllRoles + History;

    fn store(&self) -> Arc<Self::Store>;

    /// Another store on the same database.
    fn second(&self) -> Arc<Self::Store>;
}

/// Makes a `#[test]` of every behaviour, on the stores that `$open` opens.
macro_rules! history_suite {
    ($open:path) => {
        $crate::history_suite::behaviours!($open:
            numbers_are_dense_and_tags_stay,
            a_repeat_is_the_same_answer_and_another_content_a_conflict,
            rights_are_looked_at_after_repeats,
            strangers_use_up_half_of_the_room_for_conversations,
            an_edit_shows_in_its_place_and_a_recall_empties_all,
            a_forbidden_change_is_refused,
            the_unread_count_is_exact,
            marks_rise_and_reports_are_cumulative,
            a_new_member_sees_a_group_from_there,
            pages_keep_to_their_bounds,
            retention_raises_the_floor_and_still_knows_repeats,
            retention_lets_conversations_take_turns,
            one_node_at_a_time_has_the_retention,
            devices_come_and_go,
            a_login_is_written_only_if_what_was_proved_still_holds,
            heads_are_the_users_own,
            waiting_messages_are_read_and_marked_until_they_are_reported,
            no_reader_ever_sees_a_hole,
            one_id_at_two_stores_is_stored_once,
            random_batches_are_as_the_model_says,
        );
    };
}

pub(crate) use history_suite;

macro_rules! behaviours {
    ($open:path: $($behaviour:ident,)*) => {
        $(
            #[test]
            fn $behaviour() {
                $crate::history_suite::$behaviour(&$open());
            }
        )*
    };
}

pub(crate) use behaviours;

pub(crate) use self::model::random_batches_are_as_the_model_says;

pub(crate) const DAY: CommitRules = CommitRules { edit_window: 86_400_000, conversations_max: 1000 };

pub(crate) const BYTES: usize = 256 << 10;

pub(crate) fn new_user(store: &dyn AllRoles) -> UserId {
    store.register(&format!("user-{}", unique()), "x").unwrap()
}

/// A message with a new id.
pub(crate) fn text(conv: ConversationId, sender: UserId, text: &str) -> NewEntry {
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

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    format!("{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn login(user: UserId, name: &str, nonce: u32) -> NewDeviceLogin {
    let proof = LoginProof::Password("x".to_owned());
    NewDeviceLogin {
        user,
        name: name.to_owned(),
        proof,
        nonce,
        secret: [nonce as u8; 16],
        renews_secret: false,
        devices_max: 16,
    }
}

pub(crate) fn new_place(outcome: CommitOutcome) -> EntryPlace {
    match outcome {
        CommitOutcome::New(place, _) => place,
        other => panic!("{other:?}"),
    }
}

fn head(store: &dyn History, user: UserId, conv: ConversationId) -> Head {
    store.heads_of(user, &[conv]).unwrap().pop().unwrap().unwrap()
}
