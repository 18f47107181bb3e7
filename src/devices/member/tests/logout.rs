//! A member whose device logs out.

use super::super::leaving::LOGS_OUT_WITHIN;
use super::*;
use crate::devices::effects::Outgoing;

const AWAY: Refusal = Refusal::forever(503, "away");

impl Scene {
    fn send(&mut self) -> Box<Outgoing> {
        self.say(r#"{"msgType":4,"TOID":9,"cid":"a","msg":"x"}"#);
        match self.effects.pop() {
            Some(MemberEffect::Send(sent)) => sent,
            other => panic!("{other:?}"),
        }
    }

    fn acknowledge(&mut self, sent: &Outgoing) {
        let answer = SendAnswer::New(Committed { seq: 1, tag: Tag(5), time: 6 }, None);
        let event = PumpEvent::Answered { conv: sent.conv, id: sent.submission.id, answer };
        self.hear(MemberNews::Pump(vec![event]));
    }

    /// Asks for the logout. Returns the task of the thread that carries it out.
    fn log_out(&mut self) -> MemberTask {
        self.say(r#"{"msgType":3,"USERID":7,"rid":1}"#);
        self.logout_task()
    }

    fn logout_task(&mut self) -> MemberTask {
        let mut tasks = self.tasks();
        let task = tasks.pop().expect("a task");
        assert!(tasks.is_empty() && matches!(task, MemberTask::LogOut(..)), "{tasks:?} {task:?}");
        task
    }

    fn succeed(&mut self, task: &MemberTask) {
        let MemberTask::LogOut(ticket, _) = task else { panic!("{task:?}") };
        self.hear(MemberNews::LoggedOut(*ticket, "bye".to_owned()));
    }

    fn ended_with(&self) -> Option<Reason> {
        let ends = self.effects.iter().filter_map(|effect| match effect {
            MemberEffect::End(reason) => Some(*reason),
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        assert!(ends.len() <= 1, "{ends:?}");
        ends.first().copied()
    }
}

#[test]
fn a_logout_ends_the_connection_when_the_sends_before_it_are_answered() {
    let mut scene = Scene::live();
    let sent = scene.send();
    let task = scene.log_out();
    scene.succeed(&task);
    assert_eq!((scene.written(), scene.ended_with()), (vec!["bye".to_owned()], None));
    scene.acknowledge(&sent);
    assert_eq!(scene.ended_with(), Some(Reason::Logout));
    assert!(scene.written()[0].contains(r#""cid":"a""#));
}

/// Requests before it, and a busy database, take some of the time.
#[test]
fn sends_before_a_logout_have_a_while_for_their_41s_after_it_has_happened() {
    let mut scene = Scene::live();
    scene.send();
    let task = scene.log_out();
    scene.now += 2 * LOGS_OUT_WITHIN;
    scene.succeed(&task);
    for (later, ends) in [(LOGS_OUT_WITHIN - Duration::from_millis(1), None), (LOGS_OUT_WITHIN, Some(Reason::Logout))] {
        scene.member.on_time(scene.now + later, scene.now, 0, &mut scene.effects);
        assert_eq!(scene.ended_with(), ends, "{later:?}");
    }
}

#[test]
fn nothing_behind_a_logout_is_read_unless_it_fails() {
    for fails in [false, true] {
        let mut scene = Scene::live();
        scene.say(r#"{"msgType":8,"FROMID":7,"rid":0}"#);
        let sent = scene.send();
        scene.say(r#"{"msgType":3,"USERID":7,"rid":1}"#);
        assert!(!scene.member.takes_requests() && scene.tasks().is_empty(), "while the 3 waits for its turn");
        scene.member.next_for_session().expect("the request before it");
        scene.member.on_reply(r#"{"msgType":8}"#, &mut scene.effects);
        let task = scene.logout_task();
        assert!(!scene.member.takes_requests(), "while a thread logs the device out");
        if fails {
            scene.hear(task.failed(AWAY));
            assert!(scene.member.takes_requests() && scene.member.is_open(), "it goes on as before");
            scene.acknowledge(&sent);
            assert_eq!(scene.ended_with(), None);
            scene.send();
            let again = scene.log_out();
            scene.succeed(&again);
        } else {
            scene.succeed(&task);
        }
        assert!(!scene.member.takes_requests() && !scene.member.has_ended(), "while a send is without its 41");
    }
}

#[test]
fn a_logout_that_names_another_user_stops_nothing() {
    let mut scene = Scene::live();
    scene.say(r#"{"msgType":3,"USERID":8}"#);
    assert!(scene.member.takes_requests() && scene.tasks().is_empty());
    assert!(scene.member.next_for_session().is_some(), "the session refuses it");
}

/// The row of a device that logs out is gone, and others notice.
#[test]
fn a_logout_is_not_cut_short_by_the_revocation_that_it_is() {
    // When the news comes, and what becomes of the connection.
    let (waits, at_work, done, failed) = (0, 1, 2, 3);
    for (when, reason, ends) in [
        // A request before the logout does not delay a revocation.
        (waits, Reason::Revoked, Some(Reason::Revoked)),
        (at_work, Reason::Revoked, None),
        (at_work, Reason::Replaced, Some(Reason::Replaced)),
        (done, Reason::Revoked, None),
        (done, Reason::Replaced, Some(Reason::Replaced)),
        (failed, Reason::Revoked, Some(Reason::Revoked)),
    ] {
        let mut scene = Scene::live();
        let sent = scene.send();
        scene.say(r#"{"msgType":8,"FROMID":7}"#);
        scene.member.next_for_session();
        scene.say(r#"{"msgType":3,"USERID":7}"#);
        if when > waits {
            scene.member.on_reply(r#"{"msgType":8}"#, &mut scene.effects);
            let task = scene.logout_task();
            match when {
                _ if when == done => scene.succeed(&task),
                _ if when == failed => scene.hear(task.failed(AWAY)),
                _ => {}
            }
        }
        scene.hear(MemberNews::End(reason));
        assert_eq!(scene.ended_with(), ends, "{when} {reason:?}");
        if ends.is_none() && when == done {
            scene.acknowledge(&sent);
            assert_eq!(scene.ended_with(), Some(Reason::Logout));
        }
    }
}
