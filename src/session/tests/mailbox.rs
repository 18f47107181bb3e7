//! Stored messages: fetched, deleted, handed out with pauses.

use super::*;

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

/// A paced client that takes 40 ms to show each message.
struct Paced;

impl SessionFacts for Paced {
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
