//! The rights of users.

use super::*;

#[test]
fn a_stranger_may_only_log_in_and_register() {
    let cases = [
        (r#"{"msgType":3,"USERID":1}"#, BAD_REQUEST),
        (r#"{"msgType":4,"TOID":2}"#, LOGIN_FIRST),
        (CHAT, LOGIN_FIRST),
        (r#"{"msgType":4,"FROMID":"1","TOID":2}"#, BAD_REQUEST),
        (r#"{"msgType":5,"TOID":2}"#, LOGIN_FIRST),
        (r#"{"msgType":6,"U1":1,"U2":2}"#, LOGIN_FIRST),
        (r#"{"msgType":7,"FROMID":1,"TOID":2}"#, LOGIN_FIRST),
        (r#"{"msgType":8,"FROMID":1}"#, LOGIN_FIRST),
        (r#"{"msgType":9,"FROMID":1,"GROUPID":1}"#, LOGIN_FIRST),
        (r#"{"msgType":10,"FROMID":1,"GROUPID":1}"#, LOGIN_FIRST),
        (r#"{"msgType":11,"FROMID":1}"#, LOGIN_FIRST),
        (r#"{"msgType":12,"FROMID":1,"name":"g","description":""}"#, LOGIN_FIRST),
        (r#"{"msgType":13,"name":"g"}"#, LOGIN_FIRST),
        (r#"{"msgType":14,"FROMID":1}"#, LOGIN_FIRST),
        (r#"{"msgType":15,"keyword":"g"}"#, LOGIN_FIRST),
        (r#"{"msgType":100,"FROMID":1,"TOID":2}"#, NO_METHOD),
    ];
    let mut stranger = Tester::new(Auth::Strict);
    for (frame, answer) in cases {
        assert_eq!(stranger.frame(frame), reply(answer), "{frame}");
    }
}

#[test]
fn nobody_acts_as_another() {
    let cases = [
        (r#"{"msgType":3,"USERID":2}"#, BAD_REQUEST),
        (r#"{"msgType":4,"FROMID":2,"TOID":1}"#, NOT_YOU),
        (r#"{"msgType":4,"FROMID":4294967297,"TOID":1}"#, NOT_YOU),
        (r#"{"msgType":5,"FROMID":2,"TOID":1}"#, NOT_YOU),
        (r#"{"msgType":6,"U1":2,"U2":1}"#, NOT_YOU),
        (r#"{"msgType":7,"FROMID":2,"TOID":1}"#, NOT_YOU),
        (r#"{"msgType":8,"FROMID":2}"#, NOT_YOU),
        (r#"{"msgType":9,"FROMID":2,"GROUPID":1}"#, NOT_YOU),
        (r#"{"msgType":10,"FROMID":2,"GROUPID":1}"#, NOT_YOU),
        (r#"{"msgType":11,"FROMID":2}"#, NOT_YOU),
        (r#"{"msgType":12,"FROMID":2,"name":"g","description":""}"#, NOT_YOU),
        (r#"{"msgType":14,"FROMID":2}"#, NOT_YOU),
        (r#"{"msgType":100,"FROMID":2,"TOID":1}"#, NOT_YOU),
        (r#"{"msgType":100,"FROMID":1,"TOID":"1"}"#, BAD_REQUEST),
        (r#"{"msgType":100,"FROMID":1}"#, NO_METHOD),
        (r#"{"msgType":100,"TOID":1}"#, NO_METHOD),
    ];
    let mut user = Tester::logged_in();
    for (frame, answer) in cases {
        assert_eq!(user.frame(frame), reply(answer), "{frame}");
    }
    assert_eq!(user.frame(r#"{"msgType":3,"USERID":1}"#), [Effect::Detach(UserId(1)), Effect::Reply(ACK.into())]);
    assert_eq!(user.frame(CHAT), reply(LOGIN_FIRST));
}

#[test]
fn the_compatible_mode_lets_anybody_ask_and_log_others_out() {
    let mut stranger = Tester::new(Auth::Compat);
    let forwarded = vec![Effect::Deliver { id: FIRST, to: UserId(2), text: CHAT.into() }];
    assert_eq!(stranger.frame(CHAT), forwarded);
    assert_eq!(stranger.settled(1, CHAT.len(), 0), []);
    assert_eq!(stranger.frame(r#"{"msgType":3,"USERID":1}"#), reply(BAD_REQUEST));
    let logged_out = [Effect::LogOut { user: UserId(3), shows: false }, Effect::Reply(ACK.into())];
    assert_eq!(stranger.frame(r#"{"msgType":3,"USERID":3}"#), logged_out);
    assert_eq!(stranger.frame(r#"{"msgType":100,"FROMID":1,"TOID":2}"#), reply(NO_METHOD));
    let asked = vec![Effect::Submit(Job::GroupsOf { user: UserId(7) })];
    assert_eq!(stranger.frame(r#"{"msgType":11,"FROMID":7}"#), asked);
}

#[test]
fn nobody_owns_and_joins_groups_in_the_compatible_mode() {
    for id in ["0", "-1", "4294967297", "100000000000000000000"] {
        let create = format!(r#"{{"msgType":12,"FROMID":{id},"name":"g","description":""}}"#);
        let join = format!(r#"{{"msgType":10,"FROMID":{id},"GROUPID":1}}"#);
        let (name, description) = ("g".into(), String::new());
        let created = Job::CreateGroup { owner: UserId(0), name, description };
        let joined = Job::JoinGroup { user: UserId(0), group: GroupId(1), asked: Id(1) };
        for (frame, job) in [(create, created), (join, joined)] {
            let mut stranger = Tester::new(Auth::Compat);
            assert_eq!(stranger.frame(frame.leak()), [Effect::Submit(job)], "{id}");
        }
    }
}

#[test]
fn a_user_that_another_connection_has_logged_out_has_no_rights_left() {
    let mut user = Tester::logged_in();
    assert_eq!(user.on(Input::LoggedOut(UserId(1))), []);
    assert_eq!(user.frame(CHAT), reply(LOGIN_FIRST));
}

#[test]
fn ids_beyond_64_bits_are_answered_with_their_digits() {
    for digits in ["9223372036854775808", "18446744073709551616", "-99999999999999999999"] {
        let mut user = Tester::logged_in();
        let add = format!(r#"{{"msgType":6,"U1":1,"U2":{digits}}}"#).leak();
        let answer = format!(r#"{{"errmsg":"no such user","errno":404,"msgType":6,"userId":{digits}}}"#);
        assert_eq!(user.frame(add), [Effect::Reply(answer.into())]);
        let join = format!(r#"{{"msgType":10,"FROMID":1,"GROUPID":{digits}}}"#).leak();
        let answer = format!(r#"{{"errmsg":"no such group","errno":404,"groupId":{digits},"msgType":10}}"#);
        assert_eq!(user.frame(join), [Effect::Reply(answer.into())]);
    }
}

#[test]
fn a_group_frame_goes_to_the_others_when_its_sender_is_a_member() {
    let mut session = Tester::logged_in();
    let frame = r#"{"msgType":9,"FROMID":1,"GROUPID":1}"#;
    let members: Arc<[UserId]> = [UserId(1), UserId(2)].into();
    let delivered =
        Effect::DeliverAll { id: FIRST, group: GroupId(1), to: members, except: UserId(1), text: frame.into() };
    assert_eq!(session.frame(frame), [delivered]);
    session.settled(1, frame.len(), 0);

    let ask = |group| vec![Effect::Submit(Job::Members { group: GroupId(group), sender: Some(UserId(1)) })];
    let unknown = r#"{"msgType":9,"FROMID":1,"GROUPID":2}"#;
    assert_eq!(session.later(Input::Frame(unknown.as_bytes())), ask(2));
    session.outcome(Outcome::Members([].into()));
    assert_eq!(session.frame(unknown), [], "there is no such group");

    let others = r#"{"msgType":9,"FROMID":1,"GROUPID":3}"#;
    assert_eq!(session.later(Input::Frame(others.as_bytes())), ask(3));
    session.outcome(Outcome::Members([UserId(2)].into()));
    assert_eq!(session.frame(others), reply(NOT_A_MEMBER));

    session.frame(CHAT);
    assert_eq!(session.later(Input::Frame(others.as_bytes())), ask(3));
    session.outcome(Outcome::Refused(BUSY.into()));
    assert_eq!(session.later(Input::Frame(others.as_bytes())), [], "the chat before is not settled");
    session.settled(1, CHAT.len(), 0);
    assert_eq!(session.frame(others), reply(BUSY));
}

#[test]
fn in_a_cluster_a_stranger_to_the_cache_is_looked_up_before_being_refused() {
    struct Stale;
    impl SessionFacts for Stale {
        fn members(&self, _: GroupId) -> Option<Arc<[UserId]>> {
            Some([UserId(1), UserId(2)].into())
        }
        fn login_wait(&self, _: Id) -> Option<u32> {
            None
        }

        fn groups_change_elsewhere(&self) -> bool {
            true
        }
        fn recognises(&self, _: UserId, _: &str) -> Option<Forgotten> {
            Some(Forgotten::NEVER)
        }
        fn is_connected(&self, _: UserId) -> bool {
            true
        }
        fn is_here(&self, _: UserId) -> bool {
            true
        }
        fn pace(&self) -> Option<Duration> {
            None
        }
        fn shown_by(&self) -> Option<Instant> {
            None
        }
    }
    let mut session = Session::new(Auth::Strict, FIRST);
    let mut feed = |input: Input<'static>| {
        let mut effects = Effects::new();
        (session.on(input, &Stale, &mut effects), effects.into_vec())
    };
    feed(Input::Frame(br#"{"msgType":1,"USERID":3,"password":"p"}"#));
    let frame = r#"{"msgType":9,"FROMID":3,"GROUPID":1}"#;
    let asked = vec![Effect::Submit(Job::Members { group: GroupId(1), sender: Some(UserId(3)) })];
    assert_eq!(feed(Input::Frame(frame.as_bytes())), (Flow::Later, asked));
    let members: Arc<[UserId]> = [UserId(1), UserId(2), UserId(3)].into();
    feed(Input::Outcome(Outcome::Members(members.clone())));
    let (flow, effects) = feed(Input::Frame(frame.as_bytes()));
    assert_eq!(flow, Flow::Taken);
    assert_eq!(
        effects,
        [Effect::DeliverAll { id: FIRST, group: GroupId(1), to: members, except: UserId(3), text: frame.into() }]
    );
}
