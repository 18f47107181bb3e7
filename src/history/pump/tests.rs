//! Cases that the simulation does not name.

use super::*;
use crate::base::conversation::{HeldTag, Seq, Tag};
use crate::history::cursor::{Extent, HeldCursor};
use crate::protocol::GroupId;
use crate::protocol::level2::frames::{Committed, RunHead};

mod losses;

const ME: UserId = UserId(7);
const BOB: UserId = UserId(9);
const LIMITS: PumpLimits = PumpLimits { output_high: 1000, inflight: 3 };

fn conv() -> ConversationId {
    ConversationId::between(ME, BOB)
}

fn row(seq: Seq, from: UserId) -> Row {
    Row { at: at(seq), from, frame: format!("message {seq}").into() }
}

fn at(seq: Seq) -> Committed {
    Committed { seq, tag: Tag(1), time: 1 }
}

/// A pump that is live, with this head in the one conversation.
fn live(head: Seq) -> Pump {
    let mut pump = Pump::new(ME, LIMITS);
    let convs = vec![(conv(), Extent { head, floor: 0 }, None)];
    let heads = Heads { rid: None, convs, cursors: Vec::new(), resume: 100 };
    assert_eq!(on(&mut pump, PumpEvent::Heads(heads)), ["43?", "take"]);
    let shown = on(&mut pump, PumpEvent::Overview { frame: "43".into(), more: false });
    assert_eq!(shown, ["43", "{\"msgType\":45,\"synced\":true}"]);
    pump
}

/// The commands for an event, in short.
fn on(pump: &mut Pump, event: PumpEvent) -> Vec<String> {
    let mut out = Commands::new();
    pump.on(event, &mut out);
    shown(out)
}

fn shown(out: Commands) -> Vec<String> {
    let show = |command| match command {
        Command::Write(frame) => frame.to_string(),
        Command::Overview => "43?".to_owned(),
        Command::Read { from, to, .. } => format!("read {from} to {to:?}"),
        Command::Lost(_) => "lost".to_owned(),
        Command::Pause => "pause".to_owned(),
        Command::StopRequests => "stop".to_owned(),
        Command::TakeRequests => "take".to_owned(),
        Command::Close(reason) => format!("close {reason:?}"),
    };
    out.into_iter().map(show).collect()
}

fn send(pump: &mut Pump, cid: &str) -> (Option<Submission>, Vec<String>) {
    let mut out = Commands::new();
    let submission = pump.on_send(conv(), cid, &mut out);
    (submission, shown(out))
}

fn page(head: Seq, rows: std::ops::Range<Seq>) -> PumpEvent {
    PumpEvent::Page(RowPage {
        extent: Extent { head, floor: 0 },
        rows: rows.map(|seq| row(seq, BOB)).collect(),
        written: Some(Tag(1)),
    })
}

#[test]
fn the_next_number_is_written_and_others_are_read() {
    let mut pump = live(43);
    let push = |seq| PumpEvent::Push { conv: conv(), row: row(seq, BOB), before: Some(Tag(1)) };
    assert_eq!(on(&mut pump, push(44)), ["message 44"]);
    assert_eq!(on(&mut pump, push(44)), [""; 0]);
    assert_eq!(on(&mut pump, push(46)), ["read 45 to None"]);
    assert_eq!(on(&mut pump, page(46, 45..47)), ["message 45", "message 46"]);
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 46 }), [""; 0]);
}

#[test]
fn a_slow_reader_is_pushed_nothing_until_its_kernel_acknowledges() {
    let mut pump = live(0);
    on(&mut pump, PumpEvent::Output(1001));
    for seq in 1..=500 {
        assert_eq!(on(&mut pump, PumpEvent::Push { conv: conv(), row: row(seq, BOB), before: Some(Tag(1)) }), [""; 0]);
    }
    assert_eq!(on(&mut pump, PumpEvent::Output(1000)), ["read 1 to None"]);
    let written = on(&mut pump, page(500, 1..201));
    assert_eq!((written.len(), written.last().map(String::as_str)), (200, Some("message 200")));
    assert_eq!(on(&mut pump, PumpEvent::Output(0)), ["read 201 to None"]);
}

#[test]
fn a_41_takes_the_place_of_its_message() {
    let mut pump = live(43);
    let (first, _) = send(&mut pump, "a");
    let first = first.expect("it is to be committed").id;
    // Its own push comes before its answer: no read is needed.
    assert_eq!(on(&mut pump, PumpEvent::Push { conv: conv(), row: row(44, ME), before: Some(Tag(1)) }), [""; 0]);
    let answer = PumpEvent::Answered { conv: conv(), id: first, answer: SendAnswer::New(at(44), None) };
    assert_eq!(on(&mut pump, answer), [frames::acknowledged("a", ConversationName::User(BOB), at(44), false)]);

    let (second, _) = send(&mut pump, "b");
    let id = second.expect("it is to be committed").id;
    let answer = PumpEvent::Answered { conv: conv(), id, answer: SendAnswer::New(at(46), None) };
    assert_eq!(on(&mut pump, answer), ["read 45 to None"]);
    let rows = vec![row(45, BOB), row(46, ME)];
    let shown =
        on(&mut pump, PumpEvent::Page(RowPage { extent: Extent { head: 46, floor: 0 }, rows, written: Some(Tag(1)) }));
    assert_eq!(shown, ["message 45".to_owned(), frames::acknowledged("b", ConversationName::User(BOB), at(46), false)]);
}

fn team() -> ConversationId {
    ConversationId::of_group(GroupId(5))
}

fn joined(from: Seq) -> PumpEvent {
    PumpEvent::Joined { conv: team(), from }
}

fn page_of_team(extent: Extent, rows: std::ops::Range<Seq>) -> PumpEvent {
    PumpEvent::Page(RowPage { extent, rows: rows.map(|seq| row(seq, BOB)).collect(), written: Some(Tag(1)) })
}

/// Found by a seed of the simulation: a member who had left repeated the first message of the
/// group, and the user's other devices were shown it.
#[test]
fn a_message_of_a_group_that_the_connection_knows_nothing_of_is_read_before_it_is_shown() {
    let mut pump = live(0);
    let push = |seq| PumpEvent::Push { conv: team(), row: row(seq, ME), before: Some(Tag(1)) };
    assert_eq!(on(&mut pump, push(1)), ["read 1 to None"]);
    assert_eq!(on(&mut pump, PumpEvent::PageDenied(Refusal::forever(403, "gone"))), [""; 0]);
    assert_eq!(on(&mut pump, joined(1)), ["read 1 to None"]);
    assert_eq!(on(&mut pump, page_of_team(Extent { head: 1, floor: 0 }, 1..2)), ["message 1"]);
    assert_eq!(on(&mut pump, push(2)), ["message 2"]);
}

/// Found by seeds of the simulation: a member who left and came back while the news of it was late
/// got a 44 that nobody had asked for, in place of the 57 that ended the first membership.
#[test]
fn a_membership_is_shown_to_its_end_before_the_next_one() {
    let mut pump = live(0);
    on(&mut pump, joined(3));
    on(&mut pump, page_of_team(Extent { head: 4, floor: 2 }, 3..5));
    // Left with 6, back with 8; the news of the one is lost.
    assert_eq!(on(&mut pump, joined(8)), ["read 5 to None"]);
    let left = PumpEvent::Left { conv: team(), seen: Some((5, 6)) };
    assert_eq!(on(&mut pump, left), [""; 0]);
    let shown = on(&mut pump, page_of_team(Extent { head: 6, floor: 4 }, 5..7));
    assert_eq!(shown, ["message 5", "message 6", "read 8 to None"]);
    assert_eq!(on(&mut pump, page_of_team(Extent { head: 8, floor: 7 }, 8..9)), ["message 8"]);
}

/// Found by a seed of the simulation: the page was asked for before the user was back.
#[test]
fn a_page_that_was_denied_before_the_user_came_back_is_asked_for_again() {
    let mut pump = live(0);
    let push = PumpEvent::Push { conv: team(), row: row(8, BOB), before: Some(Tag(1)) };
    assert_eq!(on(&mut pump, push), ["read 1 to None"]);
    on(&mut pump, joined(8));
    assert_eq!(on(&mut pump, PumpEvent::PageDenied(Refusal::forever(403, "gone"))), ["read 8 to None"]);
}

/// Found by a seed of the simulation: nobody read what was pushed while a page was on its way whose
/// first message waited for its answer.
#[test]
fn a_message_pushed_during_a_page_that_waits_for_an_answer_is_read_behind_it() {
    let mut pump = live(43);
    let first = send(&mut pump, "a").0.expect("it is to be committed").id;
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 44 }), ["read 44 to None"]);
    for seq in [45, 46] {
        assert_eq!(on(&mut pump, PumpEvent::Push { conv: conv(), row: row(seq, BOB), before: Some(Tag(1)) }), [""; 0]);
    }
    let rows = vec![row(44, ME)];
    let shown =
        on(&mut pump, PumpEvent::Page(RowPage { extent: Extent { head: 44, floor: 0 }, rows, written: Some(Tag(1)) }));
    assert_eq!(shown, [""; 0], "it may be the own message");
    let answer = PumpEvent::Answered { conv: conv(), id: first, answer: SendAnswer::New(at(44), None) };
    let acknowledged = frames::acknowledged("a", ConversationName::User(BOB), at(44), false);
    assert_eq!(on(&mut pump, answer), [acknowledged, "read 45 to None".to_owned()]);
}

/// Found by a seed of the simulation: the same of what is pushed while no page is on its way.
#[test]
fn a_message_pushed_behind_one_that_waits_for_its_answer_is_read_behind_it() {
    let mut pump = live(43);
    let first = send(&mut pump, "a").0.expect("it is to be committed").id;
    for (seq, from) in [(44, ME), (45, BOB)] {
        assert_eq!(on(&mut pump, PumpEvent::Push { conv: conv(), row: row(seq, from), before: Some(Tag(1)) }), [""; 0]);
    }
    let answer = PumpEvent::Answered { conv: conv(), id: first, answer: SendAnswer::New(at(44), None) };
    let acknowledged = frames::acknowledged("a", ConversationName::User(BOB), at(44), false);
    assert_eq!(on(&mut pump, answer), [acknowledged, "read 45 to None".to_owned()]);
}

/// Found by a seed of the simulation: a 44 led back behind what the client had been shown.
#[test]
fn the_run_of_a_46_goes_at_least_as_far_as_what_was_written_since_its_heads_were_read() {
    let mut pump = live(43);
    let mut out = Commands::new();
    pump.on_sync(&mut out);
    on(&mut pump, PumpEvent::Push { conv: conv(), row: row(44, BOB), before: Some(Tag(1)) });
    let held = HeldCursor { seq: 42, tag: Some(HeldTag::Tag(Tag(1))), stored: Some(Tag(1)) };
    let convs = vec![(conv(), Extent { head: 43, floor: 0 }, None)];
    let heads = Heads { rid: None, convs, cursors: vec![FoundCursor::Own(conv(), held)], resume: 100 };
    let run = RunHead { from: 43, to: 44, gap: None, reset: false };
    let name = ConversationName::User(BOB);
    assert_eq!(on(&mut pump, PumpEvent::Heads(heads)), [frames::run(name, &run), "read 43 to Some(44)".to_owned()]);
}

/// The client drops them with the 44. They come again at once, and not with the next news.
#[test]
fn messages_written_since_the_heads_were_read_follow_a_run_that_resets() {
    let mut pump = live(43);
    pump.on_sync(&mut Commands::new());
    on(&mut pump, PumpEvent::Push { conv: conv(), row: row(44, BOB), before: Some(Tag(1)) });
    let held = HeldCursor { seq: 42, tag: Some(HeldTag::Tag(Tag(7))), stored: Some(Tag(1)) };
    let convs = vec![(conv(), Extent { head: 43, floor: 0 }, None)];
    let heads = Heads { rid: None, convs, cursors: vec![FoundCursor::Own(conv(), held)], resume: 100 };
    let run = RunHead { from: 1, to: 43, gap: None, reset: true };
    let name = ConversationName::User(BOB);
    let shown = on(&mut pump, PumpEvent::Heads(heads));
    assert_eq!(shown.last().map(String::as_str), Some("read 1 to Some(43)"));
    assert!(shown.contains(&frames::run(name, &run)), "{shown:?}");
    let shown = on(&mut pump, page(44, 1..44));
    assert_eq!(shown[42..], ["message 43", "read 44 to None"]);
    assert_eq!(on(&mut pump, page(44, 44..45)), ["message 44", r#"{"msgType":45,"synced":true}"#]);
}

#[test]
fn behind_a_failure_all_fails_until_it_comes_again() {
    let away = Refusal { errno: 503, errmsg: "try again", retry_after: Some(2400) };
    let refused = |cid| frames::send_refused(Some(cid), away);
    let mut pump = live(43);
    let [a, b] = ["a", "b"].map(|cid| send(&mut pump, cid).0.expect("it is to be committed"));
    assert!(!a.resumes);
    let answer = PumpEvent::Answered { conv: conv(), id: a.id, answer: SendAnswer::Refused(away) };
    assert_eq!(on(&mut pump, answer), [refused("a")]);
    assert_eq!(send(&mut pump, "c"), (None, vec![]));
    // The second fails, no matter what became of it, and so does the third after it.
    let answer = PumpEvent::Answered { conv: conv(), id: b.id, answer: SendAnswer::New(at(44), None) };
    assert_eq!(on(&mut pump, answer), [refused("b"), refused("c")]);
    let other = ConversationId::of_group(GroupId(3));
    assert!(pump.on_send(other, "d", &mut Commands::new()).is_some(), "another conversation");
    let (again, _) = send(&mut pump, "a");
    assert!(again.is_some_and(|again| again.resumes));
}

#[test]
fn a_failure_in_too_many_conversations_closes_the_connection() {
    let away = Refusal { errno: 503, errmsg: "try again", retry_after: Some(2400) };
    let mut pump = live(0);
    for user in 1..=1 + crate::history::sends::FAILED_MAX as i32 {
        let conv = ConversationId::between(ME, UserId(100 + user));
        let id = pump.on_send(conv, "a", &mut Commands::new()).expect("it is to be committed").id;
        let shown = on(&mut pump, PumpEvent::Answered { conv, id, answer: SendAnswer::Refused(away) });
        let is_last = user as usize > crate::history::sends::FAILED_MAX;
        assert_eq!(shown.last().is_some_and(|last| last == "close Overload"), is_last, "{user}");
    }
}

#[test]
fn requests_wait_for_room() {
    let mut pump = live(0);
    assert_eq!(send(&mut pump, "a").1, [""; 0]);
    assert_eq!(send(&mut pump, "b").1, [""; 0]);
    let (third, shown) = send(&mut pump, "c");
    assert_eq!((third.is_some(), shown), (true, vec!["stop".to_owned()]));
    let id = third.expect("it is to be committed").id;
    let refusal = Refusal::forever(404, "there is no such user");
    assert_eq!(on(&mut pump, PumpEvent::Answered { conv: conv(), id, answer: SendAnswer::Refused(refusal) }), [""; 0]);
}

#[test]
fn a_floor_that_rises_beyond_the_place_is_reported() {
    let mut pump = live(43);
    on(&mut pump, PumpEvent::Output(1001));
    on(&mut pump, PumpEvent::Push { conv: conv(), row: row(50, BOB), before: Some(Tag(1)) });
    on(&mut pump, PumpEvent::Output(0));
    let rows = (49..=50).map(|seq| row(seq, BOB)).collect();
    let shown =
        on(&mut pump, PumpEvent::Page(RowPage { extent: Extent { head: 50, floor: 48 }, rows, written: Some(Tag(1)) }));
    let head = r#"{"complete":true,"conv":"u9","from":49,"msgType":44,"to":50}"#;
    assert_eq!(shown, [head, "message 49", "message 50"]);
}

#[test]
fn a_history_that_has_lost_its_end_is_reported() {
    let mut pump = live(43);
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 45 }), ["read 44 to None"]);
    let shown = on(&mut pump, page(40, 44..44));
    assert_eq!(
        shown,
        ["lost", r#"{"complete":true,"conv":"u9","from":1,"msgType":44,"reset":true,"to":40}"#, "read 1 to None"]
    );
    assert_eq!(on(&mut pump, page(40, 1..41)).len(), 40);
}

#[test]
fn a_hole_in_the_store_is_never_shown() {
    let mut pump = live(43);
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 46 }), ["read 44 to None"]);
    let rows = vec![row(44, BOB), row(46, BOB)];
    let shown =
        on(&mut pump, PumpEvent::Page(RowPage { extent: Extent { head: 46, floor: 0 }, rows, written: Some(Tag(1)) }));
    assert_eq!(shown, ["message 44", "pause"]);
    assert_eq!(on(&mut pump, PumpEvent::Retry), ["read 45 to None"]);
    assert_eq!(on(&mut pump, page(46, 45..45)), ["pause"]);
}

#[test]
fn a_46_that_cannot_be_answered_says_when_to_try_again() {
    let mut pump = live(43);
    pump.on_sync(&mut Commands::new());
    let refusal = Refusal { errno: 503, errmsg: "try again", retry_after: Some(500) };
    let shown = on(&mut pump, PumpEvent::HeadsFailed { rid: Rid::text("s"), refusal });
    assert_eq!(shown, [r#"{"errmsg":"try again","errno":503,"msgType":46,"retryAfter":0.5,"rid":"s"}"#]);
}

#[test]
fn messages_before_an_own_one_that_waits_are_read_at_once() {
    let mut pump = live(43);
    send(&mut pump, "a");
    assert_eq!(
        on(&mut pump, PumpEvent::Push { conv: conv(), row: row(46, ME), before: None }),
        [""; 0],
        "it may be the own message"
    );
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 45 }), ["read 44 to None"]);
}

#[test]
fn synchronisations_whose_frames_wait_for_room_count_too() {
    let mut pump = live(43);
    on(&mut pump, PumpEvent::Output(1001));
    let heads = || Heads { rid: None, convs: Vec::new(), cursors: Vec::new(), resume: 100 };
    for nth in 1..=SYNCS_MAX {
        let mut out = Commands::new();
        pump.on_sync(&mut out);
        assert_eq!(shown(out), if nth < SYNCS_MAX { vec![] } else { vec!["stop"] }, "{nth}");
        assert_eq!(on(&mut pump, PumpEvent::Heads(heads())), [""; 0], "the output is full");
    }
    let shown = on(&mut pump, PumpEvent::Output(0));
    assert_eq!((shown.len(), shown.last().map(String::as_str)), (SYNCS_MAX + 1, Some("take")));
}

#[test]
fn news_of_a_conversation_during_a_page_are_looked_at_behind_it() {
    let mut pump = live(43);
    let hint = |head| PumpEvent::Hint { conv: conv(), head };
    assert_eq!(on(&mut pump, hint(44)), ["read 44 to None"]);
    assert_eq!(on(&mut pump, hint(46)), [""; 0]);
    assert_eq!(
        on(&mut pump, page(44, 44..45)),
        ["message 44", "read 45 to None"],
        "the page was read before 46 was there"
    );
    assert_eq!(on(&mut pump, hint(47)), [""; 0]);
    assert_eq!(
        on(&mut pump, PumpEvent::PageDenied(Refusal::forever(403, "gone"))),
        ["read 45 to None"],
        "the page was denied before 47 was there"
    );
}

#[test]
fn runs_and_conversations_that_are_behind_take_turns() {
    let mut pump = live(43);
    pump.on_sync(&mut Commands::new());
    let held = HeldCursor { seq: 0, tag: None, stored: None };
    let convs = vec![(conv(), Extent { head: 43, floor: 0 }, None)];
    let heads = Heads { rid: None, convs, cursors: vec![FoundCursor::Own(conv(), held)], resume: 100 };
    assert_eq!(on(&mut pump, PumpEvent::Heads(heads)).last().map(String::as_str), Some("read 1 to Some(43)"));
    let other = ConversationId::between(ME, UserId(10));
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: other, head: 5 }), [""; 0]);
    let shown = on(&mut pump, page(43, 1..11));
    assert_eq!(shown[9..], ["message 10", "read 1 to None"], "the other one, before the next page of the run");
    let shown = on(&mut pump, page(5, 1..6));
    assert_eq!(shown[4..], ["message 5", "read 11 to Some(43)"]);
}

#[test]
fn the_page_of_a_run_that_has_ended_with_its_membership_is_not_the_next_runs() {
    let mut pump = live(0);
    sync_team(&mut pump, 2, Extent { head: 10, floor: 0 });
    let shown = on(&mut pump, PumpEvent::Left { conv: team(), seen: Some((13, 15)) });
    assert_eq!(shown.len(), 1, "the 44 of the membership that has ended, which had begun meanwhile: {shown:?}");
    let shown = on(&mut pump, page_of_team(Extent { head: 10, floor: 0 }, 3..11));
    assert_eq!(shown.last().map(String::as_str), Some("read 13 to Some(15)"));
}

#[test]
fn a_run_that_waits_for_its_turn_ends_with_its_membership() {
    let mut pump = live(43);
    pump.on_sync(&mut Commands::new());
    let extent = |head| Extent { head, floor: 0 };
    let convs = vec![(conv(), extent(43), None), (team(), extent(10), None)];
    let held = |seq| HeldCursor { seq, tag: Some(HeldTag::Tag(Tag(1))), stored: Some(Tag(1)) };
    let cursors = vec![FoundCursor::Own(conv(), held(42)), FoundCursor::Own(team(), held(2))];
    on(&mut pump, PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 }));
    let later = r#"{"complete":true,"conv":"g5","from":13,"msgType":44,"to":15}"#;
    assert_eq!(on(&mut pump, PumpEvent::Left { conv: team(), seen: Some((13, 15)) }), [later]);
    let shown = on(&mut pump, page(43, 43..44));
    assert_eq!(shown, ["message 43", "read 13 to Some(15)"], "no 44 of the membership before");
}

#[test]
fn the_client_is_told_of_the_end_of_a_membership_of_which_nothing_is_left() {
    let mut pump = live(0);
    sync_team(&mut pump, 2, Extent { head: 10, floor: 0 });
    assert_eq!(on(&mut pump, PumpEvent::Left { conv: team(), seen: Some((1, 10)) }), [""; 0]);
    let shown = on(&mut pump, page_of_team(Extent { head: 10, floor: 10 }, 0..0));
    let empty = r#"{"complete":true,"conv":"g5","from":11,"msgType":44,"to":10}"#;
    assert_eq!((&*shown[0], shown.last().map(String::as_str)), (empty, Some("read 11 to None")), "{shown:?}");
    let shown = on(&mut pump, PumpEvent::PageDenied(Refusal::forever(403, "gone")));
    assert_eq!(shown[0], r#"{"conv":"g5","errmsg":"gone","errno":403,"msgType":44}"#);
}

/// A 46 for the team, and its run, which is read.
fn sync_team(pump: &mut Pump, seq: Seq, extent: Extent) {
    pump.on_sync(&mut Commands::new());
    let held = HeldCursor { seq, tag: Some(HeldTag::Tag(Tag(1))), stored: Some(Tag(1)) };
    let convs = vec![(team(), extent, None)];
    let cursors = vec![FoundCursor::Own(team(), held)];
    let shown = on(pump, PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 }));
    assert_eq!(shown.last(), Some(&format!("read {} to Some({})", seq + 1, extent.head)));
}

#[test]
fn a_push_that_comes_before_older_heads_is_read_behind_the_43() {
    let mut pump = Pump::new(ME, LIMITS);
    let push = PumpEvent::Push { conv: conv(), row: row(44, BOB), before: Some(Tag(1)) };
    assert_eq!(on(&mut pump, push), [""; 0]);
    let convs = vec![(conv(), Extent { head: 43, floor: 0 }, None)];
    on(&mut pump, PumpEvent::Heads(Heads { rid: None, convs, cursors: Vec::new(), resume: 100 }));
    let shown = on(&mut pump, PumpEvent::Overview { frame: "43".into(), more: false });
    assert_eq!(shown.last().map(String::as_str), Some("read 44 to None"), "{shown:?}");
}

#[test]
fn too_many_changes_of_memberships_before_the_last_43_close_the_connection() {
    let mut pump = Pump::new(ME, LIMITS);
    on(&mut pump, PumpEvent::Heads(Heads { rid: None, convs: Vec::new(), cursors: Vec::new(), resume: 100 }));
    for _ in 0..POSTPONED_MAX {
        assert_eq!(on(&mut pump, joined(1)), [""; 0]);
    }
    assert_eq!(on(&mut pump, joined(1)), ["close Overload"]);
}

#[test]
fn a_new_conversation_begins_above_its_floor_without_a_44() {
    let mut pump = live(0);
    let other = ConversationId::between(ME, UserId(10));
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: other, head: 50 }), ["read 1 to None"]);
    let rows = (49..=50).map(|seq| row(seq, BOB)).collect();
    let shown = on(&mut pump, PumpEvent::Page(RowPage { extent: Extent { head: 50, floor: 48 }, rows, written: None }));
    assert_eq!(shown, ["message 49", "message 50"]);
}
