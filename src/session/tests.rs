//! The state machine by table: inputs and the expected effects.

mod logins;
mod mailbox;
mod properties;
mod rights;

use std::sync::Arc;

use proptest::prelude::*;

use super::unsettled::UNSETTLED_MAX;
use super::*;
use crate::base::ending::Undelivered;
use crate::protocol::{
    ACK, BAD_REQUEST, BUSY, GroupId, HAD_ENOUGH, Id, LOGIN_FIRST, NO_METHOD, NOT_A_MEMBER, NOT_KEPT, NOT_YOU,
    SLOW_DOWN, WRONG_LOGIN,
};
use crate::session::password::{Forgotten, RightPassword};
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

    fn recognises(&self, user: UserId, password: &str) -> Option<Forgotten> {
        ((user, password) == (UserId(1), "known")).then_some(Forgotten::NEVER)
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

    fn recognises(&self, user: UserId, password: &str) -> Option<Forgotten> {
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
fn a_client_that_is_both_new_friends_is_answered_before_the_push() {
    let mut session = Tester::logged_in();
    session.session.add_user(UserId(2));
    session.frame(r#"{"msgType":6,"U1":1,"U2":2}"#);
    let push = protocol::new_friend(UserId(1), "ann");
    let done = protocol::friend_added(UserId(2), "bob");
    let names = FriendNames { a: "ann".into(), b: "bob".into() };
    let expected =
        [Effect::Reply(done.into()), Effect::Deliver { id: FIRST, to: UserId(2), text: push.clone().into() }];
    assert_eq!(session.outcome(Outcome::Friends(MadeFriends::Friends(names, ToldBy::Push))), expected);
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
fn new_friends_are_told_before_the_reply() {
    let mut session = Tester::logged_in();
    let frame = r#"{"msgType":6,"U1":1,"U2":2}"#;
    let names = || FriendNames { a: "ann".into(), b: "bob".into() };
    let friends = |told| Outcome::Friends(MadeFriends::Friends(names(), told));
    session.frame(frame);
    let push = protocol::new_friend(UserId(1), "ann");
    let told = [Effect::Deliver { id: FIRST, to: UserId(2), text: push.clone().into() }];
    assert_eq!(session.outcome(friends(ToldBy::Push)), told);
    assert_eq!(session.later(Input::Frame(CHAT.as_bytes())), []);
    let done = Effect::Reply(protocol::friend_added(UserId(2), "bob").into());
    assert_eq!(session.settled(1, push.len(), 0), [done]);

    session.frame(frame);
    session.outcome(friends(ToldBy::Push));
    assert_eq!(session.settled(1, push.len(), 1), reply(NOT_KEPT));

    session.frame(frame);
    let refused = session.outcome(Outcome::Friends(MadeFriends::NoSuchUser));
    assert!(matches!(&refused[..], [Effect::Reply(text)] if text.contains("404")));
    for refusal in [MadeFriends::Blocked, MadeFriends::NoRoom] {
        session.frame(frame);
        let refused = session.outcome(Outcome::Friends(refusal));
        assert!(matches!(&refused[..], [Effect::Reply(text)] if text.contains("403")));
    }

    // A user of level 2 is told by the conversation, and at level 1 as far as the user is there.
    let done = Effect::Reply(protocol::friend_added(UserId(2), "bob").into());
    session.frame(frame);
    let hand = Effect::Hand { from: UserId(1), to: UserId(2), text: push };
    assert_eq!(session.outcome(friends(ToldBy::Conversation)), [done.clone(), hand]);
    session.frame(frame);
    assert_eq!(session.outcome(friends(ToldBy::Nothing)), [done]);
    session.frame(frame);
    let asked = session.outcome(Outcome::Friends(MadeFriends::Asked(names(), ToldBy::Nothing)));
    assert_eq!(asked, [Effect::Reply(protocol::friend_asked(UserId(2), "bob").into())]);
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
