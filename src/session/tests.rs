//! The state machine by table: inputs and the expected effects.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::protocol::{
    ACK, BAD_REQUEST, BUSY, GroupId, HAD_ENOUGH, Id, LOGIN_FIRST, NO_METHOD, NOT_A_MEMBER, NOT_KEPT, NOT_YOU,
    SLOW_DOWN, WRONG_LOGIN,
};
use crate::session::password::ClientKind;
use crate::store::{FriendNames, MessageId};

/// Knows the members of group 1 (users 1 and 2) and the password "known" of user 1.
struct Facts;

const LARGE_GROUP: GroupId = GroupId(1000);
/// The first frame that a session forwards.
const FIRST: FrameId = FrameId::UNNAMED;

impl SessionFacts for Facts {
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>> {
        match group {
            GroupId(1) => Some([UserId(1), UserId(2)].into()),
            LARGE_GROUP => Some((1..=1000).map(UserId).collect()),
            _ => None,
        }
    }

    fn recognises(&self, user: UserId, password: &str) -> bool {
        (user, password) == (UserId(1), "known")
    }

    /// The password of user 5 was guessed too often.
    fn login_wait(&self, id: Id) -> Option<u32> {
        (id == Id(5)).then_some(8)
    }

    fn groups_change_elsewhere(&self) -> bool {
        false
    }

    /// User 3 is on another connection.
    fn is_connected(&self, user: UserId) -> bool {
        user == UserId(3)
    }

    /// User 4 must first be announced to the other nodes.
    fn is_here(&self, user: UserId) -> bool {
        user != UserId(4)
    }

    fn pace(&self) -> Option<Duration> {
        None
    }

    fn shown_by(&self) -> Option<Instant> {
        None
    }
}

/// The same with nodes of the reference server in the cluster.
struct Beside;

impl SessionFacts for Beside {
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>> {
        Facts.members(group)
    }

    fn recognises(&self, user: UserId, password: &str) -> bool {
        Facts.recognises(user, password)
    }

    fn login_wait(&self, id: Id) -> Option<u32> {
        Facts.login_wait(id)
    }

    fn groups_change_elsewhere(&self) -> bool {
        false
    }

    fn is_connected(&self, user: UserId) -> bool {
        Facts.is_connected(user)
    }

    fn is_here(&self, user: UserId) -> bool {
        Facts.is_here(user)
    }

    fn shown_by(&self) -> Option<Instant> {
        Some(Instant::now() + STATE_PATIENCE)
    }

    fn pace(&self) -> Option<Duration> {
        None
    }
}

struct Tester {
    session: Session,
}

impl Tester {
    fn new(auth: Auth) -> Tester {
        Tester { session: Session::new(auth, FIRST) }
    }

    /// A session that is logged in as user 1.
    fn logged_in() -> Tester {
        let mut tester = Tester::new(Auth::Strict);
        let login = r#"{"msgType":1,"USERID":1,"password":"known"}"#;
        assert_eq!(tester.frame(login), [Effect::Reply(ACK.into()), Effect::Attach(UserId(1))]);
        tester
    }

    /// Returns the effects of an input that must be taken.
    fn on(&mut self, input: Input<'static>) -> Vec<Effect<'static>> {
        self.on_knowing(input, &Facts)
    }

    fn on_knowing(&mut self, input: Input<'static>, known: &dyn SessionFacts) -> Vec<Effect<'static>> {
        let mut effects = Effects::new();
        assert_eq!(self.session.on(input, known, &mut effects), Flow::Taken);
        effects.into_vec()
    }

    fn frame(&mut self, frame: &'static str) -> Vec<Effect<'static>> {
        self.on(Input::Frame(frame.as_bytes()))
    }

    fn outcome(&mut self, outcome: Outcome) -> Vec<Effect<'static>> {
        self.on(Input::Outcome(outcome))
    }

    fn settled(&mut self, frames: u32, bytes: usize, failed: u32) -> Vec<Effect<'static>> {
        let failures = vec![FailedFrame { id: FIRST, reason: Undelivered::Unstored }; failed as usize];
        self.on(Input::Settled(Settled { frames, bytes, failures }))
    }

    /// Checks that an input must wait, and has no effects except the jobs it needs.
    fn later(&mut self, input: Input<'static>) -> Vec<Effect<'static>> {
        let mut effects = Effects::new();
        assert_eq!(self.session.on(input, &Facts, &mut effects), Flow::Later);
        effects.into_vec()
    }
}

fn reply(text: &'static str) -> Vec<Effect<'static>> {
    vec![Effect::Reply(text.into())]
}

#[test]
fn a_client_that_must_wait_for_a_login_learns_nothing_else() {
    let mut session = Tester::new(Auth::Strict);
    let later = crate::protocol::login_later(8);
    assert_eq!(session.frame(r#"{"msgType":1,"USERID":5,"password":"any"}"#), [Effect::Reply(later.into())]);
}

#[test]
fn a_frame_beyond_the_limit_is_refused_in_its_place() {
    let mut user = Tester::logged_in();
    user.frame(CHAT);
    user.later(Input::Excess { last: false });
    user.settled(1, CHAT.len(), 0);
    assert_eq!(user.on(Input::Excess { last: false }), reply(SLOW_DOWN));
    user.frame(CHAT);
    user.later(Input::Excess { last: true });
    user.settled(1, CHAT.len(), 0);
    let mut effects = Effects::new();
    assert_eq!(user.session.on(Input::Excess { last: true }, &Facts, &mut effects), Flow::Last);
    assert_eq!(effects.into_vec(), reply(HAD_ENOUGH));
}

const CHAT: &str = r#"{"msgType":4,"FROMID":1,"TOID":2}"#;
const PING: &str = r#"{"msgType":200}"#;

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
fn every_forwarded_frame_has_an_id_and_a_refused_one_has_none() {
    let mut user = Tester::logged_in();
    let mut ids = Vec::new();
    for frame in [CHAT, r#"{"msgType":4,"FROMID":2,"TOID":1}"#, r#"{"msgType":9,"FROMID":1,"GROUPID":1}"#, CHAT] {
        for effect in user.frame(frame) {
            if let Effect::Deliver { id, text, .. } | Effect::DeliverAll { id, text, .. } = effect {
                ids.push(id);
                user.settled(1, text.len(), 0);
            }
        }
    }
    assert_eq!(ids, [FIRST, FIRST.next(), FIRST.next().next()]);
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
fn a_client_that_is_both_new_friends_is_answered_before_the_push() {
    let mut session = Tester::logged_in();
    session.session.add_user(UserId(2));
    session.frame(r#"{"msgType":6,"U1":1,"U2":2}"#);
    let push = protocol::new_friend(UserId(1), "ann");
    let done = protocol::friend_added(UserId(2), "bob");
    let names = FriendNames { a: "ann".into(), b: "bob".into() };
    let expected =
        [Effect::Reply(done.into()), Effect::Deliver { id: FIRST, to: UserId(2), text: push.clone().into() }];
    assert_eq!(session.outcome(Outcome::Friends(Some(names))), expected);
    assert_eq!(session.settled(1, push.len(), 0), []);
}

#[test]
fn values_that_do_not_fit_are_refused_without_asking_the_store() {
    let long = |count| "x".repeat(count);
    let register = |name: String, password: String| {
        let frame = format!(r#"{{"msgType":2,"name":"{name}","password":"{password}"}}"#);
        Tester::new(Auth::Strict).frame(frame.leak()).remove(0)
    };
    let refused = Effect::Reply(protocol::SERVER_ERROR.into());
    assert_eq!(register(String::new(), long(1)), refused);
    assert_eq!(register(long(51), long(1)), refused);
    assert_eq!(register("界".repeat(51), long(1)), refused);
    assert_eq!(register(long(1), long(57)), refused);
    assert!(matches!(register("界".repeat(50), long(56)), Effect::Submit(Job::Register { .. })));
    let create = |name: String, description: String| {
        let frame = format!(r#"{{"msgType":12,"FROMID":1,"name":"{name}","description":"{description}"}}"#);
        Tester::logged_in().frame(frame.leak()).remove(0)
    };
    assert_eq!(create(long(51), String::new()), refused);
    assert_eq!(create(long(1), long(201)), refused);
    assert!(matches!(create(long(50), long(200)), Effect::Submit(Job::CreateGroup { .. })));
}

#[test]
fn a_login_is_answered_before_messages_can_come() {
    let mut session = Tester::new(Auth::Strict);
    let login = r#"{"msgType":1,"USERID":3,"password":"p"}"#;
    let check = Job::CheckPassword { id: Id(3), password: "p".into() };
    assert_eq!(session.frame(login), [Effect::Submit(check.clone())]);
    assert_eq!(session.later(Input::Frame(PING.as_bytes())), []);
    assert_eq!(session.outcome(Outcome::Password(None)), reply(WRONG_LOGIN));
    assert_eq!(session.frame(login), [Effect::Submit(check)]);
    let granted = [Effect::Reply(ACK.into()), Effect::Attach(UserId(3))];
    assert_eq!(session.outcome(Outcome::Password(Some(ClientKind::Other))), granted);
    let nobody = Job::CheckPassword { id: Id(4_294_967_299), password: "p".into() };
    let out_of_range = r#"{"msgType":1,"USERID":4294967299,"password":"p"}"#;
    assert_eq!(session.frame(out_of_range), [Effect::Submit(nobody)]);
    assert_eq!(session.outcome(Outcome::Refused(BUSY.into())), reply(BUSY));
}

#[test]
fn a_reply_waits_until_all_that_was_sent_before_is_settled() {
    let mut session = Tester::logged_in();
    session.frame(CHAT);
    session.frame(CHAT);
    for input in [Input::Frame(PING.as_bytes()), Input::Garbage, Input::Oversize, Input::End, Input::Stop] {
        assert_eq!(session.later(input), []);
    }
    assert_eq!(session.settled(1, CHAT.len(), 0), []);
    assert_eq!(session.later(Input::Frame(PING.as_bytes())), []);
    assert_eq!(session.frame(CHAT).len(), 1, "chat goes on");
    assert_eq!(session.settled(2, 2 * CHAT.len(), 0), []);
    assert_eq!(session.frame(PING), reply(ACK));
}

#[test]
fn messages_that_could_not_be_stored_are_answered_once_each_and_before_anything_else() {
    let mut session = Tester::logged_in();
    for _ in 0..3 {
        session.frame(CHAT);
    }
    assert_eq!(session.settled(1, CHAT.len(), 1), []);
    assert_eq!(session.later(Input::Frame(CHAT.as_bytes())), [], "it is read no further");
    assert_eq!(session.settled(2, 2 * CHAT.len(), 1), [reply(NOT_KEPT), reply(NOT_KEPT)].concat());
    assert_eq!(session.frame(PING), reply(ACK));
}

#[test]
fn too_much_on_its_way_stops_the_reading() {
    let mut session = Tester::logged_in();
    for _ in 0..UNSETTLED_MAX {
        session.frame(CHAT);
    }
    assert_eq!(session.later(Input::Frame(CHAT.as_bytes())), []);
    session.settled(1, CHAT.len(), 0);
    session.frame(CHAT);
}

#[test]
fn frames_after_one_for_a_large_group_wait_until_it_is_on_its_way_to_all() {
    let mut session = Tester::logged_in();
    let frame = r#"{"msgType":9,"FROMID":1,"GROUPID":1000}"#;
    let members: Arc<[UserId]> = (1..=1000).map(UserId).collect();
    let delivered =
        Effect::DeliverAll { id: FIRST, group: LARGE_GROUP, to: members, except: UserId(1), text: frame.into() };
    assert_eq!(session.frame(frame), [delivered]);
    let chat = r#"{"msgType":4,"FROMID":1,"TOID":2}"#;
    let mut effects = Effects::new();
    assert_eq!(session.session.on(Input::Frame(chat.as_bytes()), &Facts, &mut effects), Flow::Later);
    assert_eq!(session.on(Input::Spread), []);
    assert_eq!(session.frame(chat), [Effect::Deliver { id: FIRST.next(), to: UserId(2), text: chat.into() }]);
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
fn new_friends_are_told_before_the_reply() {
    let mut session = Tester::logged_in();
    let frame = r#"{"msgType":6,"U1":1,"U2":2}"#;
    let names = || Some(FriendNames { a: "ann".into(), b: "bob".into() });
    session.frame(frame);
    let push = protocol::new_friend(UserId(1), "ann");
    let told = [Effect::Deliver { id: FIRST, to: UserId(2), text: push.clone().into() }];
    assert_eq!(session.outcome(Outcome::Friends(names())), told);
    assert_eq!(session.later(Input::Frame(CHAT.as_bytes())), []);
    let done = Effect::Reply(protocol::friend_added(UserId(2), "bob").into());
    assert_eq!(session.settled(1, push.len(), 0), [done]);

    session.frame(frame);
    session.outcome(Outcome::Friends(names()));
    assert_eq!(session.settled(1, push.len(), 1), reply(NOT_KEPT));

    session.frame(frame);
    assert!(matches!(&session.outcome(Outcome::Friends(None))[..], [Effect::Reply(text)] if text.contains("404")));
}

#[test]
fn kept_messages_are_deleted_when_they_are_out_and_not_before() {
    let fetch = r#"{"msgType":14,"FROMID":1}"#;
    let (user, ids) = (UserId(1), vec![MessageId(7), MessageId(8)]);
    let found = || Outcome::Messages { reply: "two".into(), ids: vec![MessageId(7), MessageId(8)] };
    let mut session = Tester::logged_in();
    assert_eq!(session.frame(fetch), [Effect::Remind(MAILBOX_PATIENCE), Effect::Submit(Job::Fetch { user })]);
    assert_eq!(session.outcome(found()), [Effect::ReplyAndReport("two".into())]);
    assert_eq!(session.later(Input::Frame(fetch.as_bytes())), []);
    assert_eq!(session.on(Input::Sent), [Effect::Submit(Job::Delete { user, ids })]);
    assert_eq!(session.later(Input::Frame(fetch.as_bytes())), []);
    assert_eq!(session.outcome(Outcome::Deleted), [Effect::ReleaseMailbox(user)]);

    session.frame(fetch);
    let none = Outcome::Messages { reply: "none".into(), ids: Vec::new() };
    assert_eq!(session.outcome(none), [Effect::ReleaseMailbox(user), Effect::Reply("none".into())]);

    session.frame(fetch);
    session.outcome(found());
    assert_eq!(session.on(Input::HangUp), [Effect::Detach(user), Effect::ReleaseMailbox(user)]);
    assert_eq!(session.on(Input::Sent), [], "too late to matter");
    assert_eq!(session.on(Input::End), [Effect::Detach(user)]);

    let mut session = Tester::logged_in();
    session.frame(fetch);
    session.on(Input::HangUp);
    assert_eq!(session.outcome(found()).first(), Some(&Effect::ReleaseMailbox(user)), "nothing is deleted");
}

#[test]
fn a_client_that_does_not_take_its_messages_gives_way_to_another() {
    let fetch = r#"{"msgType":14,"FROMID":1}"#;
    let (user, start) = (UserId(1), Instant::now());
    let wanted = |seconds, undelivered_bytes| Input::MailboxWanted {
        now: start + Duration::from_secs(seconds),
        undelivered_bytes,
    };
    let mut session = Tester::logged_in();
    assert_eq!(session.frame(fetch), [Effect::Remind(MAILBOX_PATIENCE), Effect::Submit(Job::Fetch { user })]);
    assert_eq!(session.on(wanted(0, 9)), [], "the store takes its time");
    let now = Instant::now();
    assert_eq!(session.on(Input::Reminder { now }), [Effect::WantMailbox(user), Effect::Remind(MAILBOX_PATIENCE)]);
    session.outcome(Outcome::Messages { reply: "one".into(), ids: vec![MessageId(7)] });
    assert_eq!(session.on(Input::Reminder { now }), []);
    assert_eq!(session.on(wanted(0, 9)), []);
    assert_eq!(session.on(wanted(1, 9)), [], "asked by two, but not for long");
    assert_eq!(session.on(wanted(2, 8)), [], "it goes on");
    assert_eq!(session.on(wanted(3, 8)), []);
    assert_eq!(session.on(wanted(4, 8)), [Effect::HangUp]);
    assert_eq!(session.on(Input::HangUp), [Effect::Detach(user), Effect::ReleaseMailbox(user)]);
}

#[test]
fn a_dead_connection_receives_nothing_but_what_it_sent_still_counts() {
    let mut session = Tester::logged_in();
    assert_eq!(session.on(Input::HangUp), [Effect::Detach(UserId(1))]);
    assert_eq!(session.frame(CHAT).len(), 1);
    assert_eq!(session.later(Input::End), []);
    session.settled(1, CHAT.len(), 0);
    let login = session.frame(r#"{"msgType":1,"USERID":1,"password":"known"}"#);
    assert_eq!(login, reply(ACK), "nobody is attached to a dead connection");
    session.on(Input::End);
    assert_eq!(session.later(Input::Frame(CHAT.as_bytes())), [], "nothing after the end");
}

#[test]
fn messages_come_after_a_stop_of_the_server_and_not_after_the_end_of_the_client() {
    let mut client_ends = Tester::logged_in();
    assert_eq!(client_ends.on(Input::End), [Effect::Detach(UserId(1))]);
    assert_eq!(client_ends.on(Input::Closed), []);
    let mut server_stops = Tester::logged_in();
    assert_eq!(server_stops.on(Input::Stop), []);
    assert_eq!(server_stops.on(Input::Closed), [Effect::Detach(UserId(1))]);
}

#[test]
fn a_login_is_answered_when_the_other_nodes_know_of_it() {
    let user = UserId(4);
    let waiting = || {
        let mut tester = Tester::new(Auth::Strict);
        let asked = tester.frame(r#"{"msgType":1,"USERID":4,"password":"p"}"#);
        let job = Job::CheckPassword { id: Id(user.0.into()), password: "p".into() };
        assert_eq!(asked, [Effect::Submit(job)]);
        assert_eq!(tester.outcome(Outcome::Password(Some(ClientKind::Other))), [Effect::Join(user)]);
        assert_eq!(tester.later(Input::Frame(PING.as_bytes())), []);
        tester
    };
    assert_eq!(waiting().outcome(Outcome::Placed), [Effect::Reply(ACK.into()), Effect::Attach(user)]);
    assert_eq!(waiting().on(Input::Closed), [Effect::Detach(user)]);
    let mut hung_up = waiting();
    hung_up.on(Input::HangUp);
    assert_eq!(hung_up.outcome(Outcome::Placed), [Effect::Reply(ACK.into()), Effect::Detach(user)]);
}

#[test]
fn beside_the_reference_server_a_login_is_answered_when_the_state_is_written() {
    let user = UserId(1);
    let remind = Effect::Remind(STATE_PATIENCE);
    let waiting = || {
        let mut tester = Tester::new(Auth::Strict);
        let login = br#"{"msgType":1,"USERID":1,"password":"known"}"#;
        assert_eq!(tester.on_knowing(Input::Frame(login), &Beside), [Effect::Join(user)]);
        let placed = Input::Outcome(Outcome::Placed);
        assert_eq!(tester.on_knowing(placed, &Beside), [Effect::Show(user), remind.clone()]);
        assert_eq!(tester.later(Input::Frame(PING.as_bytes())), []);
        tester
    };
    let shown = Outcome::Shown(user, UserState::Online);
    let arrived = [Effect::Reply(ACK.into()), Effect::Attach(user)];
    assert_eq!(waiting().outcome(shown), arrived);
    let mut late = waiting();
    let now = Instant::now();
    assert_eq!(late.on(Input::Reminder { now }), [], "it is for something else");
    assert_eq!(late.outcome(Outcome::Shown(user, UserState::Offline)), [], "it is of an earlier logout");
    assert_eq!(late.on(Input::Reminder { now: now + 2 * STATE_PATIENCE }), arrived);
    assert_eq!(late.outcome(Outcome::Shown(user, UserState::Online)), [], "it has been answered");
    assert_eq!(waiting().on(Input::Closed), [Effect::Detach(user)]);
}

#[test]
fn beside_the_reference_server_a_logout_is_answered_when_the_state_is_written() {
    let user = UserId(1);
    let waiting = || {
        let mut tester = Tester::logged_in();
        let logout = Input::Frame(br#"{"msgType":3,"USERID":1}"#);
        let asked = [Effect::DetachAndShow(user), Effect::Remind(STATE_PATIENCE)];
        assert_eq!(tester.on_knowing(logout, &Beside), asked);
        assert_eq!(tester.later(Input::Frame(PING.as_bytes())), []);
        tester
    };
    assert_eq!(waiting().outcome(Outcome::Shown(user, UserState::Offline)), reply(ACK));
    assert_eq!(waiting().on(Input::Reminder { now: Instant::now() + 2 * STATE_PATIENCE }), reply(ACK));
    assert_eq!(waiting().on(Input::Closed), []);
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
        fn recognises(&self, _: UserId, _: &str) -> bool {
            true
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

/// A paced client that takes 40 ms to show each message.
struct Paced;

impl SessionFacts for Paced {
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>> {
        Facts.members(group)
    }
    fn recognises(&self, user: UserId, password: &str) -> bool {
        Facts.recognises(user, password)
    }
    fn login_wait(&self, id: Id) -> Option<u32> {
        Facts.login_wait(id)
    }
    fn groups_change_elsewhere(&self) -> bool {
        false
    }
    fn is_connected(&self, user: UserId) -> bool {
        Facts.is_connected(user)
    }
    fn is_here(&self, user: UserId) -> bool {
        Facts.is_here(user)
    }
    fn shown_by(&self) -> Option<Instant> {
        None
    }

    fn pace(&self) -> Option<Duration> {
        Some(Duration::from_millis(40))
    }
}

#[test]
fn a_client_that_is_paced_gets_its_kept_messages_in_frames_with_pauses() {
    let mut session = Tester::logged_in().session;
    let mut on = |input: Input<'static>| {
        let mut effects = Effects::new();
        let flow = session.on(input, &Paced, &mut effects);
        (flow, effects.into_vec())
    };
    let (user, ids) = (UserId(1), vec![MessageId(7), MessageId(8)]);
    let taken = |effects: Vec<Effect<'static>>| (Flow::Taken, effects);
    let found =
        |reply: &str, ids: &[MessageId]| Input::Outcome(Outcome::Messages { reply: reply.into(), ids: ids.to_vec() });
    let fetch = Effect::Submit(Job::Fetch { user });
    let pause = |messages| Effect::Remind(Duration::from_millis(40) * messages);
    let asked = on(Input::Frame(br#"{"msgType":14,"FROMID":1}"#));
    assert_eq!(asked, taken(vec![Effect::Remind(MAILBOX_PATIENCE), fetch.clone()]));
    assert_eq!(on(found("two", &ids)), taken(vec![Effect::ReplyAndReport("two".into())]));
    assert_eq!(on(Input::Sent), taken(vec![Effect::Submit(Job::Delete { user, ids })]));
    assert_eq!(on(Input::Outcome(Outcome::Deleted)), taken(vec![Effect::ReleaseMailbox(user), pause(3)]));
    // Its requests meanwhile are answered.
    assert_eq!(on(Input::Frame(PING.as_bytes())), taken(reply(ACK)));
    assert_eq!(on(Input::Frame(CHAT.as_bytes())).0, Flow::Taken);
    assert_eq!(on(Input::Reminder { now: Instant::now() }), taken(vec![pause(1)]), "what it has sent is not settled");
    on(Input::Settled(Settled::one(FIRST, CHAT.len(), Ok(()))));
    assert_eq!(
        on(Input::Reminder { now: Instant::now() }),
        taken(vec![Effect::Remind(MAILBOX_PATIENCE), fetch.clone()])
    );
    assert_eq!(on(found("one", &[MessageId(9)])), taken(vec![Effect::ReplyAndReport("one".into())]));
    on(Input::Sent);
    assert_eq!(on(Input::Outcome(Outcome::Deleted)), taken(vec![Effect::ReleaseMailbox(user), pause(2)]));
    assert_eq!(
        on(Input::Reminder { now: Instant::now() }),
        taken(vec![Effect::Remind(MAILBOX_PATIENCE), fetch.clone()])
    );
    let later = vec![Effect::ReleaseMailbox(user), Effect::Remind(MAILBOX_PATIENCE)];
    assert_eq!(on(Input::Outcome(Outcome::Refused(BUSY.into()))), taken(later));
    assert_eq!(on(Input::Reminder { now: Instant::now() }), taken(vec![Effect::Remind(MAILBOX_PATIENCE), fetch]));
    assert_eq!(on(found("none", &[])), taken(vec![Effect::ReleaseMailbox(user)]), "nobody has asked for it");
}

#[test]
fn the_logout_of_a_client_that_is_paced_does_not_wait_for_its_kept_messages() {
    let user = UserId(1);
    let logout = r#"{"msgType":3,"USERID":1}"#.as_bytes();
    for (known, flow) in [(&Paced as &dyn SessionFacts, Flow::Taken), (&Facts, Flow::Later)] {
        let mut session = Tester::logged_in().session;
        let mut on = |input: Input<'static>| {
            let mut effects = Effects::new();
            let flow = session.on(input, known, &mut effects);
            (flow, effects.into_vec())
        };
        on(Input::Frame(br#"{"msgType":14,"FROMID":1}"#));
        on(Input::Outcome(Outcome::Messages { reply: "one".into(), ids: vec![MessageId(9)] }));
        assert_eq!(on(Input::Frame(PING.as_bytes())), (Flow::Later, vec![]));
        let answer = on(Input::Frame(logout));
        assert_eq!(answer.0, flow);
        if flow == Flow::Taken {
            assert_eq!(answer.1, [Effect::Detach(user), Effect::Reply(ACK.into())]);
            on(Input::Sent);
            on(Input::Outcome(Outcome::Deleted));
            assert_eq!(on(Input::Reminder { now: Instant::now() }), (Flow::Taken, vec![]), "no more for who has left");
        }
    }
}

/// A step of a script that a property test chooses.
#[derive(Clone, Debug)]
enum Act {
    Show(&'static str),
    SettleOne { failed: bool },
    FinishJob { refused: bool },
    Sent,
    HangUp,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let frames = [
        CHAT,
        PING,
        r#"{"msgType":1,"USERID":1,"password":"known"}"#,
        r#"{"msgType":1,"USERID":2,"password":"p"}"#,
        r#"{"msgType":1,"USERID":4,"password":"p"}"#,
        r#"{"msgType":3,"USERID":1}"#,
        r#"{"msgType":3,"USERID":4}"#,
        r#"{"msgType":6,"U1":1,"U2":2}"#,
        r#"{"msgType":9,"FROMID":1,"GROUPID":1}"#,
        r#"{"msgType":9,"FROMID":1,"GROUPID":2}"#,
        r#"{"msgType":11,"FROMID":1}"#,
        r#"{"msgType":14,"FROMID":1}"#,
        "nonsense",
    ];
    let act = prop_oneof![
        6 => prop::sample::select(frames.to_vec()).prop_map(Act::Show),
        3 => any::<bool>().prop_map(|failed| Act::SettleOne { failed }),
        3 => any::<bool>().prop_map(|refused| Act::FinishJob { refused }),
        1 => Just(Act::Sent),
        1 => Just(Act::HangUp),
    ];
    prop::collection::vec(act, 0..60)
}

/// A world that carries effects out in its own time.
#[derive(Default)]
struct World {
    on_their_way: Vec<usize>,
    job: Option<Job>,
    reporting: bool,
    /// Whether a join is under way.
    joining: bool,
    /// The state that is being written.
    showing: Option<(UserId, UserState)>,
    /// The users whose messages the other nodes send here.
    joined: Vec<UserId>,
    attached: Vec<UserId>,
}

impl World {
    fn carry_out(&mut self, effects: Vec<Effect<'static>>) {
        for effect in effects {
            match effect {
                Effect::Reply(_) => {
                    assert!(self.on_their_way.is_empty(), "a reply left before what was sent is settled");
                }
                Effect::ReplyAndReport(_) => {
                    assert!(self.on_their_way.is_empty(), "a reply left before what was sent is settled");
                    self.reporting = true;
                }
                Effect::Deliver { text, .. } | Effect::DeliverAll { text, .. } => self.on_their_way.push(text.len()),
                Effect::Record(recorded) => self.on_their_way.push(recorded.text.len()),
                Effect::OptIn(_) => unreachable!("nobody opts in here"),
                Effect::Submit(job) => assert!(self.job.replace(job).is_none(), "one job at a time"),
                Effect::Join(user) => {
                    assert!(!std::mem::replace(&mut self.joining, true), "one join at a time");
                    self.joined.push(user);
                }
                Effect::Attach(user) => self.attached.push(user),
                Effect::Show(user) => self.showing = Some((user, UserState::Online)),
                Effect::DetachAndShow(user) => {
                    self.attached.retain(|other| *other != user);
                    self.joined.retain(|other| *other != user);
                    self.showing = Some((user, UserState::Offline));
                }
                Effect::Detach(user) => {
                    self.attached.retain(|other| *other != user);
                    self.joined.retain(|other| *other != user);
                }
                Effect::LogOut { .. }
                | Effect::ReleaseMailbox(_)
                | Effect::WantMailbox(_)
                | Effect::Remind(_)
                | Effect::HangUp => {}
            }
        }
    }

    fn outcome(job: Job) -> Outcome {
        match job {
            Job::CheckPassword { .. } => Outcome::Password(Some(ClientKind::Other)),
            Job::AddFriends { .. } => Outcome::Friends(Some(FriendNames { a: "a".into(), b: "b".into() })),
            Job::Members { .. } => Outcome::Members([UserId(1), UserId(2)].into()),
            Job::Fetch { .. } => Outcome::Messages { reply: "r".into(), ids: vec![MessageId(1)] },
            Job::Delete { .. } => Outcome::Deleted,
            _ => Outcome::Reply("r".into()),
        }
    }
}

proptest! {
    /// In whatever order and with whatever results effects are carried out: no reply leaves early,
    /// at most one job runs, the session never gets stuck, and no user stays attached.
    #[test]
    fn whatever_happens_the_promises_hold(acts in acts(), has_neighbours in any::<bool>()) {
        let known: &dyn SessionFacts = if has_neighbours { &Beside } else { &Facts };
        let mut session = Session::new(Auth::Strict, FIRST);
        let mut world = World::default();
        let feed = |session: &mut Session, world: &mut World, input: Input<'static>| {
            let mut effects = Effects::new();
            let flow = session.on(input, known, &mut effects);
            world.carry_out(effects.into_vec());
            flow
        };
        let settle = |world: &mut World, failed: bool| {
            let bytes = world.on_their_way.pop()?;
            Some(Input::Settled(Settled::one(FIRST, bytes, if failed { Err(Undelivered::Unstored) } else { Ok(()) })))
        };
        let mut hung_up = false;
        for act in acts {
            match act {
                Act::Show(frame) => {
                    feed(&mut session, &mut world, Input::Frame(frame.as_bytes()));
                }
                Act::SettleOne { failed } => {
                    if let Some(input) = settle(&mut world, failed) {
                        feed(&mut session, &mut world, input);
                    }
                }
                Act::FinishJob { refused } => {
                    if let Some(job) = world.job.take() {
                        let outcome = if refused { Outcome::Refused(BUSY.into()) } else { World::outcome(job) };
                        feed(&mut session, &mut world, Input::Outcome(outcome));
                    } else if std::mem::take(&mut world.joining) {
                        feed(&mut session, &mut world, Input::Outcome(Outcome::Placed));
                    } else if refused && world.showing.is_some() {
                        let now = Instant::now() + 2 * STATE_PATIENCE;
                        feed(&mut session, &mut world, Input::Reminder { now });
                    } else if let Some((user, state)) = world.showing.take() {
                        feed(&mut session, &mut world, Input::Outcome(Outcome::Shown(user, state)));
                    }
                }
                Act::Sent if std::mem::take(&mut world.reporting) => {
                    feed(&mut session, &mut world, Input::Sent);
                }
                Act::HangUp if !hung_up => {
                    hung_up = true;
                    feed(&mut session, &mut world, Input::HangUp);
                    prop_assert!(world.attached.is_empty());
                }
                Act::Sent | Act::HangUp => {}
            }
        }
        // Everything ends, and the session with it.
        for _ in 0..200 {
            if feed(&mut session, &mut world, Input::End) == Flow::Taken {
                feed(&mut session, &mut world, Input::Closed);
                prop_assert!(world.attached.is_empty() && world.joined.is_empty());
                return Ok(());
            }
            if let Some(input) = settle(&mut world, false) {
                feed(&mut session, &mut world, input);
            } else if let Some(job) = world.job.take() {
                feed(&mut session, &mut world, Input::Outcome(World::outcome(job)));
            } else if std::mem::take(&mut world.joining) {
                feed(&mut session, &mut world, Input::Outcome(Outcome::Placed));
            } else if let Some((user, state)) = world.showing.take() {
                feed(&mut session, &mut world, Input::Outcome(Outcome::Shown(user, state)));
            } else if std::mem::take(&mut world.reporting) && !hung_up {
                feed(&mut session, &mut world, Input::Sent);
            }
        }
        prop_assert!(false, "the session is stuck: {session:?}");
    }
}
