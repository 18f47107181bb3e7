//! Marks: what a client is told of them, and when.

use super::*;

fn found(read: i64) -> FoundMark {
    FoundMark { conv: ConversationId::from_column(BOB), read, rid: None }
}

fn marks(read: i64, recv: i64) -> MemberNews {
    MemberNews::Marks(ConversationId::from_column(BOB), MarkNews::Partner(Marks { read, recv }))
}

fn own(read: i64) -> MemberNews {
    MemberNews::Marks(ConversationId::from_column(BOB), MarkNews::Own { read, head: 9, unread: 9 - read })
}

fn of_partner(read: i64, recv: i64) -> String {
    format!(r#"{{"conv":"u9","msgType":50,"read":{read},"recv":{recv},"user":9}}"#)
}

#[test]
fn marks_that_come_late_are_passed_over() {
    let mut scene = Scene::live();
    [marks(13, 6), marks(13, 5), marks(13, 6), marks(12, 6)].into_iter().for_each(|news| scene.hear(news));
    assert_eq!(scene.written(), [of_partner(13, 6)]);
    [marks(13, 7), own(4), own(3), own(4)].into_iter().for_each(|news| scene.hear(news));
    let own = r#"{"conv":"u9","errno":200,"head":9,"msgType":49,"read":4,"unread":5,"user":7}"#;
    assert_eq!(scene.written(), [of_partner(13, 7), own.to_owned()]);
}

#[test]
fn marks_of_a_history_that_is_lost_are_forgotten() {
    let mut scene = Scene::live();
    let conv = ConversationId::from_column(BOB);
    let at = |tag| Committed { seq: 1, tag: Tag(tag), time: 6 };
    let row = Row { at: at(5), from: UserId(9), frame: "message".into() };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Push { conv, row, before: None }]));
    [marks(13, 6), own(4)].into_iter().for_each(|news| scene.hear(news));
    assert_eq!(scene.written().len(), 3);
    scene.hear(MemberNews::Pump(vec![PumpEvent::Last { conv, at: at(7) }]));
    let tasks = scene.tasks();
    assert!(matches!(tasks[..], [MemberTask::Read { written: Some(1), .. }]), "{tasks:?}");
    let page = RowPage { extent: Extent { head: 1, floor: 0 }, rows: Vec::new(), written: Some(Tag(7)) };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Page(page)]));
    let asked = |effects: &MemberEffects| {
        effects.iter().any(|effect| matches!(effect, MemberEffect::Do(MemberTask::Marks(convs)) if *convs == [conv]))
    };
    assert!(asked(&scene.effects), "the client has no 43 that says where they are now");
    let reset = scene.written();
    assert!(reset.len() == 1 && reset[0].contains(r#""reset":true"#), "{reset:?}");
    // News may be of either history.
    scene.hear(marks(13, 6));
    let now = |read, peer| {
        let own = MarkNews::Own { read, head: 1, unread: 1 - read };
        MemberNews::MarksRead(Some(vec![(conv, own), (conv, MarkNews::Partner(Marks { read: peer, recv: peer }))]))
    };
    scene.hear(MemberNews::MarksRead(None));
    assert!(matches!(scene.effects[..], [MemberEffect::Remind(RETRY_AFTER)]));
    scene.member.on_time(scene.now, scene.now, 0, &mut scene.effects);
    assert!(asked(&scene.effects));
    scene.written();
    // The lowest marks are shown as well, although other marks arrive meanwhile.
    scene.hear(marks(13, 6));
    scene.hear(now(0, 0));
    assert!(!asked(&scene.effects) && has_reminder(&scene.effects), "news cause no query without a pause");
    let own = r#"{"conv":"u9","errno":200,"head":1,"msgType":49,"read":0,"unread":1,"user":7}"#;
    assert_eq!(scene.written(), [own.to_owned(), of_partner(0, 0)]);
    // The answer may be older than the news, so the store is asked again.
    scene.hear(marks(1, 1));
    assert_eq!(scene.written(), [""; 0]);
    scene.member.on_time(scene.now, scene.now, 0, &mut scene.effects);
    assert!(asked(&scene.effects));
    scene.written();
    scene.hear(now(0, 1));
    assert_eq!(scene.written(), [of_partner(1, 1)], "and they rise from there");
    scene.hear(marks(2, 1));
    assert_eq!(scene.written(), [of_partner(2, 1)]);
}

/// Found by a review.
#[test]
fn a_49_that_was_answered_before_a_loss_is_to_be_asked_again() {
    let mut scene = Scene::live();
    let conv = ConversationId::from_column(BOB);
    scene.say(r#"{"msgType":49,"conv":"u9","read":50,"rid":"r"}"#);
    let tasks = scene.tasks();
    let [MemberTask::MarkRead(ticket, ..)] = &tasks[..] else { panic!("{tasks:?}") };
    let at = |tag| Committed { seq: 1, tag: Tag(tag), time: 6 };
    let row = Row { at: at(5), from: UserId(9), frame: "message".into() };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Push { conv, row, before: None }]));
    scene.hear(MemberNews::Pump(vec![PumpEvent::Last { conv, at: at(7) }]));
    let page = RowPage { extent: Extent { head: 1, floor: 0 }, rows: Vec::new(), written: Some(Tag(7)) };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Page(page)]));
    scene.written();
    let mark = FoundMark { conv, read: 50, rid: Rid::text("r") };
    scene.hear(MemberNews::MarkAnswer(*ticket, "read up to 50".to_owned(), Some(mark)));
    let refused =
        r#"{"errmsg":"messages were lost meanwhile, try again","errno":503,"msgType":49,"retryAfter":1,"rid":"r"}"#;
    assert_eq!(scene.written(), [refused]);
    let news = || MemberNews::MarksRead(Some(vec![(conv, MarkNews::Own { read: 30, head: 40, unread: 10 })]));
    scene.hear(news());
    let own = r#"{"conv":"u9","errno":200,"head":40,"msgType":49,"read":30,"unread":10,"user":7}"#;
    assert_eq!(scene.written(), [own]);
    // That answer may be older than the 49.
    scene.member.on_time(scene.now, scene.now, 0, &mut scene.effects);
    assert!(scene.effects.iter().any(|effect| matches!(effect, MemberEffect::Do(MemberTask::Marks(_)))));
    scene.written();
    scene.hear(news());
    assert_eq!(scene.written(), [""; 0], "the same again says nothing");
}

/// A database that was restored loses the end of many conversations at once.
#[test]
fn void_marks_of_many_conversations_are_read_as_the_client_takes_them() {
    let mut marks = crate::devices::marks::ShownMarks::default();
    marks.open();
    let convs: Vec<ConversationId> = (1..=1000).map(|n| ConversationId::between(UserId(7), UserId(100 + n))).collect();
    convs.iter().for_each(|conv| marks.lose(*conv));
    let (mut told, mut queries) = (0, 0);
    while let Some(asked) = marks.next_void() {
        queries += 1;
        assert!(asked.len() <= 64);
        let own = MarkNews::Own { read: 1, head: 9, unread: 8 };
        assert!(!marks.restate(asked.iter().map(|conv| (*conv, own)).collect()));
        assert_eq!(marks.next_void(), None, "the client has not taken the last ones");
        told += marks.release(|_| true, |_| false).len();
    }
    assert_eq!((told, queries), (1000, 16));
}

fn has_reminder(effects: &MemberEffects) -> bool {
    effects.iter().any(|effect| matches!(effect, MemberEffect::Remind(RETRY_AFTER)))
}

#[test]
fn marks_are_kept_until_a_46_tells_of_its_loss() {
    let mut scene = Scene::live();
    let (conv, other) = (ConversationId::from_column(BOB), ConversationId::from_column(7 << 32 | 10));
    let row = Row { at: Committed { seq: 1, tag: Tag(1), time: 1 }, from: UserId(9), frame: "message".into() };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Push { conv, row, before: None }]));
    scene.hear(marks(13, 13));
    scene.say(r#"{"msgType":46,"have":{"u10":"4:00000001","u9":"9:00000001"}}"#);
    scene.written();
    let extent = |head| Extent { head, floor: 0 };
    let held = |seq| HeldCursor { seq, tag: None, stored: None };
    let cursors = vec![FoundCursor::Own(other, held(4)), FoundCursor::Own(conv, held(9))];
    let convs = vec![(other, extent(5), None), (conv, extent(2), None)];
    scene.hear(MemberNews::Synced(PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 })));
    assert!(scene.written()[0].contains(r#""conv":"u10""#), "the run before it has its turn");
    scene.hear(marks(1, 1));
    assert_eq!(scene.written(), [""; 0], "the client does not know yet why they fall");
    let at = Committed { seq: 5, tag: Tag(5), time: 5 };
    let rows = vec![Row { at, from: UserId(10), frame: "message".into() }];
    scene.hear(MemberNews::Pump(vec![PumpEvent::Page(RowPage { extent: extent(5), rows, written: None })]));
    let asks = scene.effects.iter().any(|effect| matches!(effect, MemberEffect::Do(MemberTask::Marks(_))));
    let written = scene.written();
    assert!(asks && written.iter().any(|frame| frame.contains(r#""reset":true"#)), "{written:?}");
}

#[test]
fn nothing_comes_between_the_44_of_a_46_and_its_42s_and_a_foreign_cursor_voids_no_marks() {
    let mut scene = Scene::live();
    let conv = ConversationId::from_column(BOB);
    let at = |seq| Committed { seq, tag: Tag(1), time: seq };
    let row = |seq| Row { at: at(seq), from: UserId(9), frame: format!("message {seq}").into() };
    let push = |seq, before| PumpEvent::Push { conv, row: row(seq), before };
    scene.hear(MemberNews::Pump(vec![push(1, None), push(2, Some(Tag(1)))]));
    scene.say(r#"{"msgType":46,"have":{"u9":"2:0000000f"}}"#);
    scene.written();
    let extent = Extent { head: 2, floor: 0 };
    let held = HeldCursor { seq: 2, tag: Some(HeldTag::Tag(Tag(15))), stored: Some(Tag(1)) };
    let (convs, cursors) = (vec![(conv, extent, Some(at(2)))], vec![FoundCursor::Own(conv, held)]);
    scene.hear(MemberNews::Synced(PumpEvent::Heads(Heads { rid: None, convs, cursors, resume: 100 })));
    let asks = scene.effects.iter().any(|effect| matches!(effect, MemberEffect::Do(MemberTask::Marks(_))));
    assert!(!asks, "the messages that were shown are still there, and so are the marks");
    let reset = r#"{"complete":true,"conv":"u9","from":1,"msgType":44,"reset":true,"to":2}"#;
    assert_eq!(scene.written(), [reset]);
    [marks(2, 2), own(1)].into_iter().for_each(|news| scene.hear(news));
    assert_eq!(scene.written(), [""; 0], "the run comes first");
    scene.hear(MemberNews::Pump(vec![PumpEvent::Page(RowPage { extent, rows: vec![row(1), row(2)], written: None })]));
    let own = r#"{"conv":"u9","errno":200,"head":9,"msgType":49,"read":1,"unread":8,"user":7}"#;
    let synced = r#"{"msgType":45,"synced":true}"#;
    assert_eq!(scene.written(), ["message 1", "message 2", synced, own, &of_partner(2, 2)]);
}

#[test]
fn marks_wait_for_the_43_and_for_a_client_that_takes_nothing() {
    let mut scene = Scene::entered();
    [marks(3, 3), marks(5, 5)].into_iter().for_each(|news| scene.hear(news));
    let heads = Heads { rid: None, convs: Vec::new(), cursors: Vec::new(), resume: 100 };
    scene.hear(MemberNews::Heads(heads, Overview::default(), Ahead::default()));
    assert_eq!(scene.written(), [""; 0]);
    let head = |peer| Head {
        conv: ConversationId::from_column(BOB),
        name: None,
        head: 9,
        tag: None,
        floor: 0,
        read: 4,
        recv: 0,
        unread: 0,
        peer: Some(peer),
        touched: 0,
    };
    let shown = |peer| Overview { heads: [head(peer)].into(), shown: 1, ..Overview::default() };
    scene.hear(MemberNews::Overview("43".into(), shown((5, 4))));
    assert_eq!(scene.written(), ["43", r#"{"msgType":45,"synced":true}"#, &of_partner(5, 5)]);
    [marks(5, 5), own(4), own(3)].into_iter().for_each(|news| scene.hear(news));
    assert_eq!(scene.written(), [""; 0], "the 43 has said so");
    scene.hear(MemberNews::Show("x".repeat(1 << 20).into()));
    scene.written();
    [marks(7, 6), marks(6, 6)].into_iter().for_each(|news| scene.hear(news));
    assert_eq!(scene.written(), [""; 0]);
    scene.member.on_taken(0, &mut scene.effects);
    assert_eq!(scene.written(), [of_partner(7, 6)]);
}

#[test]
fn requests_to_raise_a_mark_are_done_one_after_the_other_and_answered_before_news_of_it() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":49,"conv":"u9","read":6,"rid":1}"#);
    scene.say(r#"{"msgType":49,"conv":"u9","read":2,"rid":2}"#);
    let tasks = scene.tasks();
    let [MemberTask::MarkRead(first, ..)] = &tasks[..] else { panic!("{tasks:?}") };
    scene.hear(own(8));
    scene.hear(MemberNews::MarkAnswer(*first, "first".to_owned(), Some(found(6))));
    let next = |effect: &MemberEffect| match effect {
        MemberEffect::Do(MemberTask::MarkRead(ticket, ..)) => Some(*ticket),
        _ => None,
    };
    let second = scene.effects.iter().find_map(next).expect("the second 49 is done next");
    assert_eq!(scene.written(), ["first"], "another device has raised it to 8, and the second asks");
    scene.hear(MemberNews::MarkAnswer(second, "second".to_owned(), Some(found(7))));
    let own = r#"{"conv":"u9","errno":200,"head":9,"msgType":49,"read":8,"unread":1,"user":7}"#;
    assert_eq!(scene.written(), ["second", own]);
}
