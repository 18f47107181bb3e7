//! Properties: any inputs in any order.

use super::*;

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
                Effect::OptIn(_) | Effect::Hand { .. } | Effect::NoteRequest { .. } => {
                    unreachable!("nobody uses level 2 here")
                }
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
            Job::CheckPassword { .. } => Outcome::Password(Some(RightPassword::OTHER)),
            Job::AddFriends { .. } => {
                let names = FriendNames { a: "a".into(), b: "b".into() };
                Outcome::Friends(MadeFriends::Friends(names, ToldBy::Push))
            }
            Job::Members { .. } => Outcome::Members([UserId(1), UserId(2)].into()),
            Job::Fetch { .. } => Outcome::Messages { reply: "r".into(), ids: vec![MessageId(1)] },
            Job::Delete { .. } => Outcome::Deleted,
            _ => Outcome::Reply("r".into()),
        }
    }
}

proptest! {
    /// For every order and every result of effects: no reply leaves early, at most one job runs,
    /// the session never gets stuck, and no user stays attached.
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
