//! Histories that lose their end on a connection that stays.

use super::*;

/// Messages of another history have other tags.
fn other(seq: Seq) -> Committed {
    Committed { seq, tag: Tag(2), time: 5 }
}

fn known(seq: Seq, head: Seq, rows: std::ops::Range<Seq>, tag: u32) -> PumpEvent {
    let rows = rows.map(|seq| Row { at: other(seq), ..row(seq, BOB) }).collect();
    let written = (seq <= head).then_some(Tag(tag));
    PumpEvent::Page(RowPage { extent: Extent { head, floor: 0 }, rows, written })
}

#[test]
fn a_message_of_another_history_is_looked_at_and_the_client_is_told() {
    let push = |at: Committed, before| PumpEvent::Push {
        conv: conv(),
        row: Row { at, ..row(at.seq, BOB) },
        before: Some(Tag(before)),
    };
    let reset = |from: Seq, to: Seq| {
        format!(r#"{{"complete":true,"conv":"u9","from":{from},"msgType":44,"reset":true,"to":{to}}}"#)
    };
    for (what, news) in [
        ("the same number", push(other(45), 2)),
        ("the next number behind another one", push(other(46), 2)),
        ("a lower number, given later", push(other(44), 1)),
        ("the sweep: a lower number", PumpEvent::Last { conv: conv(), at: other(44) }),
        ("the sweep: the same number", PumpEvent::Last { conv: conv(), at: other(45) }),
    ] {
        let mut pump = live(43);
        for seq in 44..46 {
            let before = if seq == 44 { None } else { Some(Tag(1)) };
            let news = PumpEvent::Push { conv: conv(), row: row(seq, BOB), before };
            assert_eq!(on(&mut pump, news), [format!("message {seq}")]);
        }
        assert_eq!(on(&mut pump, news), ["read 46 to None"], "{what}");
        assert_eq!(on(&mut pump, known(45, 2, 0..0, 2)), ["lost", &reset(1, 2), "read 1 to None"], "{what}");
        assert_eq!(on(&mut pump, known(0, 2, 1..3, 0)), ["message 1", "message 2"], "{what}");
        assert_eq!(on(&mut pump, push(other(3), 2)), ["message 3"], "{what}");
    }
}

#[test]
fn news_of_a_history_that_is_lost_change_nothing() {
    let mut pump = live(43);
    assert_eq!(
        on(&mut pump, PumpEvent::Push { conv: conv(), row: row(44, BOB), before: Some(Tag(1)) }),
        ["message 44"]
    );
    let late = PumpEvent::Push { conv: conv(), row: Row { at: other(45), ..row(45, BOB) }, before: Some(Tag(2)) };
    assert_eq!(on(&mut pump, late), ["read 45 to None"]);
    assert_eq!(on(&mut pump, known(44, 44, 0..0, 1)), [""; 0], "what was written is there");
    // The 41 of a message that was committed and is lost stands for nothing.
    let (submission, _) = send(&mut pump, "a");
    let id = submission.expect("it is taken").id;
    let answer = PumpEvent::Answered { conv: conv(), id, answer: SendAnswer::New(other(47), Some(Tag(2))) };
    assert_eq!(on(&mut pump, answer), ["read 45 to None"]);
    let shown = on(&mut pump, known(44, 44, 0..0, 1));
    assert!(shown.len() == 1 && shown[0].contains(r#""again":true"#), "{shown:?}");
}

#[test]
fn a_46_that_finds_a_loss_says_so_with_its_own_44() {
    let mut pump = live(43);
    let other = ConversationId::between(ME, UserId(10));
    pump.on_sync(&mut Commands::new());
    let extent = |head| Extent { head, floor: 0 };
    let convs = vec![(other, extent(5), None), (conv(), extent(2), None)];
    let held = |seq| HeldCursor { seq, tag: Some(HeldTag::Tag(Tag(1))), stored: None };
    let first = HeldCursor { stored: Some(Tag(1)), ..held(4) };
    let cursors = vec![FoundCursor::Own(other, first), FoundCursor::Own(conv(), held(43))];
    let shown = on(&mut pump, PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 }));
    assert_eq!(shown[1..], ["read 5 to Some(5)"], "the run before it has its turn");
    let reset = r#"{"complete":true,"conv":"u9","from":1,"msgType":44,"reset":true,"to":2}"#;
    assert_eq!(on(&mut pump, page(5, 5..6)), ["message 5", "lost", reset, "read 1 to Some(2)"]);
}

#[test]
fn a_login_that_finds_a_loss_has_shown_nothing_of_it() {
    let mut pump = Pump::new(ME, LIMITS);
    let convs = vec![(conv(), Extent { head: 2, floor: 0 }, None)];
    let held = HeldCursor { seq: 43, tag: Some(HeldTag::Tag(Tag(1))), stored: None };
    let heads = Heads { rid: None, convs, cursors: vec![FoundCursor::Own(conv(), held)], resume: 100 };
    on(&mut pump, PumpEvent::Heads(heads));
    let shown = on(&mut pump, PumpEvent::Overview { frame: "43".into(), more: false });
    assert!(shown.iter().all(|shown| shown != "lost"), "the marks of its 43 are those of this history: {shown:?}");
}

#[test]
fn a_late_push_of_a_message_that_is_lost_is_not_shown_behind_the_reset() {
    let mut pump = live(0);
    let push = |at: Committed, before| PumpEvent::Push { conv: conv(), row: Row { at, ..row(at.seq, BOB) }, before };
    assert_eq!(on(&mut pump, push(at(1), None)), ["message 1"]);
    assert_eq!(on(&mut pump, PumpEvent::Last { conv: conv(), at: other(1) }), ["read 2 to None"]);
    let nothing = || PumpEvent::Page(RowPage { extent: Extent { head: 0, floor: 0 }, rows: Vec::new(), written: None });
    let reset = r#"{"complete":true,"conv":"u9","from":1,"msgType":44,"reset":true,"to":0}"#;
    assert_eq!(on(&mut pump, nothing()), ["lost", reset]);
    assert_eq!(on(&mut pump, push(at(1), None)), ["read 1 to None"], "the store says whether it is there");
    assert_eq!(on(&mut pump, nothing()), [""; 0]);
    // The same of an own one: its 41 stands for nothing.
    let id = send(&mut pump, "a").0.expect("it is taken").id;
    let answer = PumpEvent::Answered { conv: conv(), id, answer: SendAnswer::New(at(1), None) };
    assert_eq!(on(&mut pump, answer), ["read 1 to None"]);
    let shown = on(&mut pump, nothing());
    assert!(shown.len() == 1 && shown[0].contains(r#""again":true"#), "{shown:?}");
    assert_eq!(on(&mut pump, push(other(1), None)), ["read 1 to None"]);
    assert_eq!(on(&mut pump, known(0, 1, 1..2, 0)), ["message 1"]);
    assert_eq!(on(&mut pump, push(other(2), Some(Tag(2)))), ["message 2"], "from here on pushes are enough");
}

#[test]
fn news_of_a_membership_are_lost_with_the_history() {
    let left = |pump: &mut Pump| on(pump, PumpEvent::Left { conv: team(), seen: Some((1, 6)) });
    let member = || {
        let mut pump = live(0);
        on(&mut pump, joined(1));
        on(&mut pump, page_of_team(Extent { head: 4, floor: 0 }, 1..5));
        pump
    };
    let push =
        |seq| PumpEvent::Push { conv: team(), row: Row { at: other(seq), ..row(seq, BOB) }, before: Some(Tag(2)) };
    let other_page = |extent: Extent| {
        let rows = (1..=extent.head).map(|seq| Row { at: other(seq), ..row(seq, BOB) }).collect();
        PumpEvent::Page(RowPage { extent, rows, written: None })
    };
    // The 57 with 6 is lost, and so is that the user has left.
    let mut pump = member();
    assert_eq!(left(&mut pump), ["read 5 to Some(6)"]);
    assert_eq!(on(&mut pump, page_of_team(Extent { head: 2, floor: 0 }, 0..0)).last().unwrap(), "read 1 to None");
    on(&mut pump, other_page(Extent { head: 2, floor: 0 }));
    let shown: Vec<_> = (3..8).flat_map(|seq| on(&mut pump, push(seq))).collect();
    assert_eq!(shown, (3..8).map(|seq| format!("message {seq}")).collect::<Vec<_>>(), "6 is another message now");
    // The user is back, behind what the connection was shown, in a membership that is lost.
    let mut pump = member();
    assert_eq!(on(&mut pump, joined(8)), ["read 5 to None"]);
    on(&mut pump, page_of_team(Extent { head: 2, floor: 0 }, 0..0));
    on(&mut pump, other_page(Extent { head: 2, floor: 0 }));
    assert_eq!(on(&mut pump, PumpEvent::Left { conv: team(), seen: Some((1, 3)) }), ["read 3 to Some(3)"]);
    let last = vec![Row { at: other(3), ..row(3, BOB) }];
    let page = RowPage { extent: Extent { head: 3, floor: 0 }, rows: last, written: Some(Tag(2)) };
    assert_eq!(on(&mut pump, PumpEvent::Page(page)), ["message 3"], "nothing is read of a membership from 8 on");
}

#[test]
fn a_46_that_is_older_than_a_reset_begins_behind_what_was_shown_since() {
    let mut pump = live(43);
    pump.on_sync(&mut Commands::new());
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 45 }), ["read 44 to None"]);
    on(&mut pump, page(40, 44..44));
    // The client asked when it held 39, and has dropped it since.
    let held = HeldCursor { seq: 39, tag: Some(HeldTag::Tag(Tag(1))), stored: Some(Tag(1)) };
    let convs = vec![(conv(), Extent { head: 40, floor: 0 }, None)];
    let heads = Heads { rid: None, convs, cursors: vec![FoundCursor::Own(conv(), held)], resume: 100 };
    on(&mut pump, PumpEvent::Heads(heads));
    let shown = on(&mut pump, page(40, 1..41));
    let run = RunHead { from: 1, to: 40, gap: None, reset: false };
    assert_eq!(shown, [frames::run(ConversationName::User(BOB), &run), "read 1 to Some(40)".to_owned()]);
    assert_eq!(on(&mut pump, page(40, 1..41)).len(), 41);
}

#[test]
fn a_reply_with_a_lower_head_is_looked_at() {
    let mut pump = live(43);
    let doubt = |shown| PumpEvent::Doubt { conv: conv(), shown };
    assert_eq!(on(&mut pump, doubt(43)), ["read 44 to None"]);
    assert_eq!(on(&mut pump, page(43, 0..0)), [""; 0], "it is as it was");
    assert_eq!((pump.shown(conv()), pump.shown(team())), (43, 0));
    on(&mut pump, doubt(43));
    assert_eq!(on(&mut pump, page(2, 0..0))[0], "lost");
    assert_eq!(on(&mut pump, page(2, 1..3)).len(), 2);
    assert_eq!(on(&mut pump, doubt(43)), [""; 0], "it is told already");
    assert_eq!(on(&mut pump, PumpEvent::Doubt { conv: team(), shown: 3 }), [""; 0], "nothing of it was shown");
}

/// Found by seeds of the simulation.
#[test]
fn the_run_of_a_46_whose_cursor_is_lost_ends_where_the_history_does() {
    let sync = |pump: &mut Pump, seq, stored: u32, head| {
        pump.on_sync(&mut Commands::new());
        let held = HeldCursor { seq, tag: Some(HeldTag::Tag(Tag(1))), stored: Some(Tag(stored)) };
        let convs = vec![(conv(), Extent { head, floor: 0 }, None)];
        let cursors = vec![FoundCursor::Own(conv(), held)];
        on(pump, PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 }))
    };
    let reset = |to: Seq| format!(r#"{{"complete":true,"conv":"u9","from":1,"msgType":44,"reset":true,"to":{to}}}"#);
    // The messages shown up to 43 are lost, and the cursor was 1.
    let mut pump = live(43);
    assert_eq!(sync(&mut pump, 1, 2, 1)[..2], ["lost".to_owned(), reset(1)]);
    assert_eq!(on(&mut pump, known(0, 1, 1..2, 0)), ["message 1", "read 2 to None"], "is there more?");
    assert_eq!(on(&mut pump, known(1, 1, 0..0, 2)).len(), 1, "the 45");
    // The heads of another one were read when nothing was there.
    assert_eq!(
        on(&mut pump, PumpEvent::Push { conv: conv(), row: Row { at: other(2), ..row(2, BOB) }, before: Some(Tag(2)) })
            .len(),
        1
    );
    let shown = sync(&mut pump, 40, 2, 0);
    assert_eq!(shown, ["lost".to_owned(), reset(2), "read 1 to Some(2)".to_owned()]);
    assert_eq!(on(&mut pump, known(0, 2, 1..3, 0)).len(), 3);
    // Two are on their way, and the first one finds a loss after the heads of both were read.
    let mut pump = live(43);
    sync(&mut pump, 42, 1, 43);
    assert_eq!(sync(&mut pump, 40, 1, 41), [""; 0]);
    assert_eq!(on(&mut pump, known(42, 44, 0..0, 2))[..2], ["lost".to_owned(), reset(44)]);
    let shown = on(&mut pump, known(0, 44, 1..45, 0));
    let run = RunHead { from: 41, to: 44, gap: None, reset: false };
    assert_eq!(shown[45], frames::run(ConversationName::User(BOB), &run));
}

#[test]
fn news_during_a_reset_that_waits_for_its_turn_are_read_behind_it() {
    let mut pump = live(43);
    let first = ConversationId::between(ME, UserId(10));
    pump.on_sync(&mut Commands::new());
    let extent = |head| Extent { head, floor: 0 };
    let convs = vec![(first, extent(5), None), (conv(), extent(2), None)];
    let tag = Some(HeldTag::Tag(Tag(1)));
    let cursors = vec![
        FoundCursor::Own(first, HeldCursor { seq: 4, tag, stored: Some(Tag(1)) }),
        FoundCursor::Own(conv(), HeldCursor { seq: 43, tag, stored: None }),
    ];
    on(&mut pump, PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 }));
    assert_eq!(on(&mut pump, PumpEvent::Hint { conv: conv(), head: 3 }), [""; 0], "3 is lower than what was shown");
    assert_eq!(on(&mut pump, page(5, 5..6)).last().map(String::as_str), Some("read 1 to Some(2)"));
    let shown = on(&mut pump, known(0, 3, 1..3, 0));
    assert_eq!(shown[..3], ["message 1", "message 2", "read 3 to None"], "{shown:?}");
}
