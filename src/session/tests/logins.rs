//! Logins and logouts, and what they wait for.

use super::*;

#[test]
fn a_client_that_must_wait_for_a_login_learns_nothing_else() {
    let mut session = Tester::new(Auth::Strict);
    let later = crate::protocol::login_later(8);
    assert_eq!(session.frame(r#"{"msgType":1,"USERID":5,"password":"any"}"#), [Effect::Reply(later.into())]);
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
    assert_eq!(session.outcome(Outcome::Password(Some(RightPassword::OTHER))), granted);
    let nobody = Job::CheckPassword { id: Id(4_294_967_299), password: "p".into() };
    let out_of_range = r#"{"msgType":1,"USERID":4294967299,"password":"p"}"#;
    assert_eq!(session.frame(out_of_range), [Effect::Submit(nobody)]);
    assert_eq!(session.outcome(Outcome::Refused(BUSY.into())), reply(BUSY));
}

#[test]
fn a_login_is_answered_when_the_other_nodes_know_of_it() {
    let user = UserId(4);
    let waiting = || {
        let mut tester = Tester::new(Auth::Strict);
        let asked = tester.frame(r#"{"msgType":1,"USERID":4,"password":"p"}"#);
        let job = Job::CheckPassword { id: Id(user.0.into()), password: "p".into() };
        assert_eq!(asked, [Effect::Submit(job)]);
        assert_eq!(tester.outcome(Outcome::Password(Some(RightPassword::OTHER))), [Effect::Join(user)]);
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
