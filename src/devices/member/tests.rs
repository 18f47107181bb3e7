use super::*;
use crate::base::conversation::{ConversationId, ConversationName, HeldTag, Tag};
use crate::devices::reply_order::{ANSWERS_MAX, PAGES_MAX};
use crate::devices::tasks::{Ahead, Identity, Noted};
use crate::devices::typing::TYPING_EVERY;
use crate::history::cursor::{Extent, HeldCursor};
use crate::history::pump::{FoundCursor, Heads, Row, RowPage, SendAnswer};
use crate::protocol::level2::frames::{Committed, MarkNews, Marks};
use crate::protocol::level2::{FRAME_MAX, Login};
use crate::store::history::{DeviceId, Head};

mod logout;
mod marks;

/// A member, and what it wants.
struct Scene {
    member: Member,
    now: Instant,
    effects: MemberEffects,
}

impl Scene {
    /// Logged in, before its heads are read.
    fn entered() -> Scene {
        let login = br#"{"msgType":1,"USERID":7,"password":"p","level":2,"device":"d","ping":20}"#;
        let Level2Request::Login(login) = Frame::parse(login).unwrap().request else { panic!("a login") };
        let login: Login<'static> = login.into_owned();
        let (entry, _) = PendingLogin::begin(login, None);
        let identity = Identity { user: UserId(7), device: DeviceId(1), device_name: "d".into(), login: 1 };
        let admitted = AdmittedDevice { identity, welcome: "welcome".to_owned() };
        let (now, limits) = (Instant::now(), PumpLimits { output_high: 1 << 20, inflight: 4 });
        let mut scene = Scene { member: Member::new(admitted, entry, limits, now), now, effects: MemberEffects::new() };
        assert!(!scene.member.takes_requests(), "nothing is read before the heads are");
        scene.hear(MemberNews::Show("50".into()));
        assert_eq!(scene.written(), [""; 0], "nothing comes before the 40");
        scene.member.placed(&mut scene.effects);
        assert_eq!(scene.written(), ["welcome"]);
        scene
    }

    /// Logged in and synchronised, with nothing in its conversations.
    fn live() -> Scene {
        let mut scene = Scene::entered();
        let heads = Heads { rid: None, convs: Vec::new(), cursors: Vec::new(), resume: 100 };
        scene.hear(MemberNews::Heads(heads, Overview::default(), Ahead::default()));
        scene.hear(MemberNews::Overview("43".into(), Overview::default()));
        assert_eq!(scene.written(), ["43", r#"{"msgType":45,"synced":true}"#]);
        assert!(scene.member.takes_requests());
        scene
    }

    fn say(&mut self, frame: &str) {
        let parsed = Frame::parse(frame.as_bytes()).unwrap();
        self.member.on_frame(parsed, frame.as_bytes(), self.now, &mut self.effects);
    }

    fn hear(&mut self, news: MemberNews) {
        self.member.on_news(news, self.now, &mut self.effects);
    }

    /// The frames written since the last call; other effects are dropped.
    fn written(&mut self) -> Vec<String> {
        let frame = |effect| match effect {
            MemberEffect::Write(frame) | MemberEffect::WriteAndReport(frame) => Some(frame.to_string()),
            _ => None,
        };
        self.effects.drain(..).filter_map(frame).collect()
    }

    fn tasks(&mut self) -> Vec<MemberTask> {
        let task = |effect| if let MemberEffect::Do(task) = effect { Some(task) } else { None };
        self.effects.drain(..).filter_map(task).collect()
    }
}

#[test]
fn replies_leave_in_the_order_of_their_requests_and_sends_wait_for_none_of_them() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":8,"FROMID":7,"rid":1}"#);
    let first = scene.member.next_for_session().expect("a frame of level 1");
    assert!(first.ends_with(br#""rid":1}"#));
    scene.say(r#"{"msgType":8,"FROMID":7,"rid":2}"#);
    scene.say(r#"{"msgType":48,"conv":"u9","rid":3}"#);
    scene.say(r#"{"msgType":53,"rid":4}"#);
    assert!(scene.tasks().is_empty() && scene.member.next_for_session().is_none(), "the session is at work");
    scene.say(r#"{"msgType":4,"TOID":9,"cid":"a","msg":"x"}"#);
    let Some(MemberEffect::Send(sent)) = scene.effects.pop() else { panic!("a send") };
    let at = Committed { seq: 1, tag: Tag(5), time: 6 };
    let answer = PumpEvent::Answered { conv: sent.conv, id: sent.submission.id, answer: SendAnswer::New(at, None) };
    scene.hear(MemberNews::Pump(vec![answer]));
    let acknowledged = r#"{"cid":"a","conv":"u9","errno":200,"msgType":41,"seq":1,"tag":"00000005","time":6}"#;
    assert_eq!(scene.written(), [acknowledged]);
    let contacts = r#"{"errno":200,"friends":[],"msgType":8}"#;
    scene.member.on_reply(contacts, &mut scene.effects);
    assert_eq!(scene.written(), [r#"{"errno":200,"friends":[],"msgType":8,"rid":1}"#]);
    let second = scene.member.next_for_session().expect("the second one");
    scene.member.session_is_busy(second);
    assert!(scene.member.next_for_session().is_some(), "it is shown again");
    scene.member.on_reply(contacts, &mut scene.effects);
    let tasks = scene.effects.iter().filter_map(|effect| match effect {
        MemberEffect::Do(MemberTask::Page(ticket, ..)) => Some(*ticket),
        _ => None,
    });
    let pages: Vec<_> = tasks.collect();
    assert_eq!(scene.written(), [r#"{"errno":200,"friends":[],"msgType":8,"rid":2}"#]);
    scene.member.on_reply(contacts, &mut scene.effects);
    assert_eq!(scene.written(), [""; 0], "nobody has asked the session");
    scene.hear(MemberNews::PageAnswer(pages[0], "page".to_owned()));
    assert_eq!(scene.written(), ["page", r#"{"msgType":54,"rid":4}"#]);
}

#[test]
fn frames_of_level_1_that_wait_are_bounded() {
    for (padding, most) in [(0, ANSWERS_MAX), (5_000, 5), (FRAME_MAX - 100, 2)] {
        let mut scene = Scene::live();
        let long = format!(r#"{{"msgType":8,"FROMID":7,"x":"{}"}}"#, "x".repeat(padding));
        let mut taken = 0;
        while scene.member.takes_requests() {
            scene.say(&long);
            // The first one is at work, the others wait.
            scene.member.next_for_session();
            taken += 1;
        }
        assert_eq!(taken, most, "{padding}: one at work, and 16 KiB or one frame");
        scene.member.on_reply("{}", &mut scene.effects);
        let next = scene.member.next_for_session().expect("the next one");
        assert!(scene.member.takes_requests());
        scene.member.session_is_busy(next);
        assert_eq!(scene.member.takes_requests(), padding == 0, "{padding}: it waits still");
    }
}

#[test]
fn a_connection_that_stops_waits_for_replies_and_for_sends() {
    let mut scene = Scene::live();
    assert!(scene.member.is_settled());
    scene.say(r#"{"msgType":4,"TOID":9,"cid":"a","msg":"x"}"#);
    let Some(MemberEffect::Send(sent)) = scene.effects.pop() else { panic!("a send") };
    assert!(!scene.member.is_settled(), "the 41");
    scene.say(r#"{"msgType":48,"conv":"u9"}"#);
    let tasks = scene.tasks();
    let [MemberTask::Page(ticket, ..)] = &tasks[..] else { panic!("{tasks:?}") };
    let (conv, id) = (sent.conv, sent.submission.id);
    let at = Committed { seq: 1, tag: Tag(5), time: 6 };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Answered { conv, id, answer: SendAnswer::New(at, None) }]));
    assert!(!scene.member.is_settled(), "the page");
    scene.hear(MemberNews::PageAnswer(*ticket, "page".to_owned()));
    assert!(scene.member.is_settled());
}

#[test]
fn requests_without_an_answer_are_bounded() {
    let mut scene = Scene::live();
    for (request, most) in
        [(r#"{"msgType":49,"conv":"u9","read":1}"#, ANSWERS_MAX), (r#"{"msgType":48,"conv":"u9"}"#, PAGES_MAX)]
    {
        for nth in 0..most {
            assert!(scene.member.takes_requests(), "{nth}");
            scene.say(request);
        }
        assert!(!scene.member.takes_requests(), "{request}");
        let mut tasks = scene.tasks();
        while !tasks.is_empty() {
            tasks.into_iter().for_each(|task| scene.hear(task.failed(Refusal::forever(500, "away"))));
            tasks = scene.tasks();
        }
        assert!(scene.member.takes_requests(), "{request}");
    }
}

#[test]
fn unrequested_frames_are_dropped_while_the_client_does_not_take_its_output() {
    let mut scene = Scene::live();
    scene.hear(MemberNews::Show("x".repeat(1 << 20).into()));
    assert_eq!(scene.written().len(), 1);
    scene.hear(MemberNews::Show("too many".into()));
    assert!(scene.written().is_empty() && !scene.member.takes_requests());
    scene.member.on_taken(0, &mut scene.effects);
    scene.hear(MemberNews::Show("again".into()));
    assert_eq!(scene.written(), ["again"]);
    assert!(scene.member.takes_requests());
}

#[test]
fn heads_are_read_for_one_46_after_the_other() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":46,"have":{},"rid":1}"#);
    scene.say(r#"{"msgType":46,"have":{},"rid":2}"#);
    let mut tasks = scene.tasks();
    assert_eq!(tasks.len(), 1);
    let away = Refusal { errno: 503, errmsg: "away", retry_after: Some(500) };
    scene.hear(tasks.remove(0).failed(away));
    let next = scene.effects.iter().any(|effect| matches!(effect, MemberEffect::Do(MemberTask::Sync { .. })));
    assert!(next && scene.written().concat().contains(r#""msgType":46"#));
}

#[test]
fn a_watch_that_fails_is_answered_and_the_connection_goes_on() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":52,"watch":[9,9,12],"rid":1}"#);
    assert!(!scene.member.takes_requests(), "watches do not overtake each other");
    let task = scene.tasks().pop().unwrap();
    assert!(matches!(&task, MemberTask::Watch(_, _, before, now) if before.is_empty() && now.len() == 2));
    scene.hear(task.failed(Refusal { errno: 503, errmsg: "away", retry_after: Some(500) }));
    assert!(scene.member.takes_requests() && scene.member.watched().is_empty());
    assert_eq!(scene.written(), [r#"{"errmsg":"away","errno":503,"msgType":52,"retryAfter":0.5,"rid":1}"#]);
}

#[test]
fn the_states_of_watched_users_come_behind_the_reply_each_once() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":48,"conv":"u9"}"#);
    scene.say(r#"{"msgType":52,"watch":[9,12],"rid":1}"#);
    let tasks = scene.tasks();
    let [MemberTask::Page(page, ..), MemberTask::Watch(watch, ..)] = &tasks[..] else { panic!("{tasks:?}") };
    scene.hear(MemberNews::Answer(*watch, "watching".to_owned()));
    for (user, online) in [(9, false), (12, true)] {
        scene.hear(MemberNews::Presence(UserId(user), online));
    }
    scene.hear(MemberNews::Watching);
    scene.hear(MemberNews::Presence(UserId(9), true));
    assert_eq!(scene.written(), [""; 0], "the reply waits for the one before it");
    scene.hear(MemberNews::PageAnswer(*page, "page".to_owned()));
    let states = [9, 12].map(|user| replies::presence(Id(user), true));
    assert_eq!(scene.written(), ["page", "watching", &states[0], &states[1]]);
    scene.hear(MemberNews::Presence(UserId(12), false));
    assert_eq!(scene.written(), [replies::presence(Id(12), false)], "and then changes");
}

#[test]
fn reports_are_noted_one_after_the_other_and_none_is_lost_by_a_failure() {
    let mut scene = Scene::live();
    let report = |scene: &mut Scene| match &scene.tasks()[..] {
        [MemberTask::Report(ticket, stored)] => (*ticket, stored.clone()),
        others => panic!("{others:?}"),
    };
    scene.say(r#"{"msgType":47,"recv":{"u9":3}}"#);
    scene.say(r#"{"msgType":47,"recv":{"u9":5,"g1":2}}"#);
    scene.say(r#"{"msgType":47,"recv":{"u9":4}}"#);
    scene.say(r#"{"msgType":53}"#);
    let (first, stored) = report(&mut scene);
    scene.hear(MemberNews::Reported(first, stored, Noted::Failed));
    let (second, stored) = report(&mut scene);
    let named = |(name, seq): &(ConversationName, i64)| (name.to_string(), *seq);
    let all = [("u9".to_owned(), 5), ("g1".to_owned(), 2)];
    assert_eq!(stored.iter().map(named).collect::<Vec<_>>(), all, "those that came meanwhile too");
    scene.hear(MemberNews::Reported(second, stored, Noted::Stored));
    assert_eq!(scene.written(), [r#"{"msgType":54}"#], "a reply behind them waits until they are noted");
    assert!(scene.member.is_settled());
    scene.say(r#"{"msgType":47,"recv":{"u9":6}}"#);
    let (third, stored) = report(&mut scene);
    assert!(!scene.member.is_settled(), "the end of the connection waits as well");
    scene.hear(MemberNews::Reported(third, stored, Noted::Failed));
    assert!(scene.tasks().is_empty(), "it is tried again with the next one");
    scene.say(r#"{"msgType":47,"recv":{"u9":1}}"#);
    assert_eq!(report(&mut scene).1.iter().map(named).collect::<Vec<_>>(), [("u9".to_owned(), 6)]);
}

#[test]
fn a_change_is_done_alone_and_requests_behind_it_wait() {
    let mut scene = Scene::live();
    for frame in [
        r#"{"msgType":48,"conv":"u9"}"#,
        r#"{"msgType":48,"conv":"u8"}"#,
        r#"{"msgType":49,"conv":"u9","read":3}"#,
        r#"{"msgType":67,"name":"x"}"#,
        r#"{"msgType":48,"conv":"u9"}"#,
    ] {
        scene.say(frame);
    }
    scene.say(r#"{"msgType":8,"FROMID":7}"#);
    let tasks = scene.tasks();
    let [MemberTask::Page(first, ..), MemberTask::Page(second, ..)] = &tasks[..] else { panic!("{tasks:?}") };
    scene.hear(MemberNews::PageAnswer(*second, "2".to_owned()));
    assert!(scene.tasks().is_empty());
    scene.hear(MemberNews::PageAnswer(*first, "1".to_owned()));
    let next = |scene: &mut Scene| match &scene.tasks()[..] {
        [MemberTask::MarkRead(ticket, ..) | MemberTask::Account(ticket, ..) | MemberTask::Page(ticket, ..)] => *ticket,
        others => panic!("{others:?}"),
    };
    let marked = next(&mut scene);
    scene.hear(MemberNews::MarkAnswer(marked, "3".to_owned(), None));
    let changed = next(&mut scene);
    scene.hear(MemberNews::Answer(changed, "4".to_owned()));
    let page = next(&mut scene);
    assert_eq!(scene.member.next_for_session(), None, "the session has its turn behind them");
    scene.hear(MemberNews::PageAnswer(page, "5".to_owned()));
    assert!(scene.member.next_for_session().is_some());
}

const BOB: i64 = 7 << 32 | 9;

#[test]
fn pages_read_with_the_heads_are_shown_without_another_read() {
    let conv = ConversationId::from_column(BOB);
    let extent = Extent { head: 5, floor: 0 };
    let at = |seq: i64| Committed { seq, tag: Tag(seq as u32), time: seq };
    let heads = || {
        let cursor = FoundCursor::Own(conv, HeldCursor { seq: 3, tag: None, stored: None });
        Heads { rid: None, convs: vec![(conv, extent, Some(at(5)))], cursors: vec![cursor], resume: 100 }
    };
    let row = |seq: i64| Row { at: at(seq), from: UserId(9), frame: format!("row {seq}").into() };
    let ahead = |from: i64| Ahead {
        overview: Some(("43".into(), Overview::default())),
        pages: [(conv, from, RowPage { extent, rows: (from..=5).map(row).collect(), written: Some(at(5).tag) })].into(),
    };
    let mut scene = Scene::entered();
    scene.hear(MemberNews::Heads(heads(), Overview::default(), ahead(4)));
    assert!(!scene.effects.iter().any(|effect| matches!(effect, MemberEffect::Do(_))), "{:?}", scene.effects);
    let written = scene.written();
    assert_eq!((written.len(), &written[0], written[1].contains(r#""msgType":44"#)), (5, &"43".to_owned(), true));
    assert_eq!(written[2..], ["row 4", "row 5", r#"{"msgType":45,"synced":true}"#]);

    let mut scene = Scene::entered();
    scene.hear(MemberNews::Heads(heads(), Overview::default(), ahead(5)));
    let tasks = scene.tasks();
    assert!(matches!(tasks[..], [MemberTask::Read { from: 4, .. }]), "another page than it needs: {tasks:?}");
    let page = RowPage { extent, rows: vec![row(4)], written: Some(at(5).tag) };
    scene.hear(MemberNews::Pump(vec![PumpEvent::Page(page)]));
    let tasks = scene.tasks();
    assert!(matches!(tasks[..], [MemberTask::Read { from: 5, .. }]), "it counts with the heads alone: {tasks:?}");

    let mut scene = Scene::entered();
    let mut short = ahead(4);
    short.pages[0].2.rows.pop();
    scene.hear(MemberNews::Heads(heads(), Overview::default(), short));
    let tasks = scene.tasks();
    assert!(matches!(tasks[..], [MemberTask::Read { written: Some(5), .. }]), "it tells another tag: {tasks:?}");
}

#[test]
fn typing_is_passed_on_at_most_every_three_seconds_in_each_conversation() {
    let mut scene = Scene::live();
    let typing = r#"{"conv":"u9","event":"typing","msgType":51}"#;
    scene.say(typing);
    scene.say(typing);
    scene.say(r#"{"conv":"u8","event":"typing","msgType":51}"#);
    assert_eq!(scene.tasks().len(), 2);
    scene.now += TYPING_EVERY;
    scene.say(typing);
    assert_eq!(scene.tasks().len(), 1);
}

#[test]
fn a_silent_client_is_asked_and_then_closed() {
    let mut scene = Scene::live();
    let now = scene.now;
    scene.member.on_time(now + Duration::from_secs(20), now, 0, &mut scene.effects);
    assert_eq!(scene.written(), [replies::PING]);
    scene.member.on_time(now + Duration::from_secs(40), now, 0, &mut scene.effects);
    assert!(matches!(scene.effects.pop(), Some(MemberEffect::End(Reason::Idle))));
    assert!(scene.member.has_ended() && !scene.member.takes_requests());
    scene.hear(MemberNews::Show("late".into()));
    assert_eq!(scene.written(), [""; 0], "nothing follows the 55");
}

#[test]
fn a_second_login_and_a_foreign_sender_are_refused() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":1,"USERID":7,"password":"p","rid":"r"}"#);
    let refused = scene.written().concat();
    assert!(refused.contains(r#""errno":400,"msgType":40,"rid":"r""#), "{refused}");
    scene.say(r#"{"msgType":4,"FROMID":8,"TOID":9,"cid":"a","msg":"x"}"#);
    let refused = scene.written().concat();
    assert!(refused.contains(r#""cid":"a""#) && refused.contains(r#""errno":403,"msgType":41"#), "{refused}");
}

#[test]
fn a_reply_of_several_frames_goes_on_when_the_client_takes_it() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":61,"GROUPID":3}"#);
    scene.say(r#"{"msgType":61,"GROUPID":4}"#);
    scene.say(r#"{"msgType":53}"#);
    let ticket = |scene: &mut Scene| match &scene.tasks()[..] {
        [MemberTask::Account(ticket, ..)] => *ticket,
        others => panic!("{others:?}"),
    };
    let (first, long) = (ticket(&mut scene), "x".repeat(1 << 20));
    scene.hear(MemberNews::Answer(first, format!("a\n{long}\nb\nc")));
    assert!(scene.effects.iter().all(|effect| !matches!(effect, MemberEffect::Do(_))), "one such reply at a time");
    assert_eq!(scene.written().iter().map(String::len).collect::<Vec<_>>(), [1, 1 << 20]);
    assert!(!scene.member.is_settled());
    scene.member.on_taken(1 << 19, &mut scene.effects);
    let effects = std::mem::take(&mut scene.effects);
    let tasks = effects.into_iter().filter(|effect| match effect {
        MemberEffect::Write(frame) => !["b", "c"].contains(&&**frame),
        _ => true,
    });
    let [MemberEffect::Do(MemberTask::Account(second, ..))] = &tasks.collect::<Vec<_>>()[..] else {
        panic!("the next request, behind the rest of the reply")
    };
    scene.hear(MemberNews::Answer(*second, "d".to_owned()));
    assert_eq!(scene.written(), ["d", r#"{"msgType":54}"#]);
}

#[test]
fn a_frame_that_waits_for_the_limits_is_shown_again_once() {
    let mut scene = Scene::live();
    let (now, second) = (scene.now, Duration::from_secs(1));
    assert!(scene.member.pauses(now, second));
    assert!(!scene.member.pauses(now + second / 2, second), "that is planned already");
    assert!(scene.member.pauses(now + second, second));
}

#[test]
fn a_mark_below_all_numbers_is_0() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":49,"conv":"u9","read":-5,"rid":1}"#);
    let tasks = scene.tasks();
    assert!(matches!(&tasks[..], [MemberTask::MarkRead(.., 0)]), "{tasks:?}");
}
