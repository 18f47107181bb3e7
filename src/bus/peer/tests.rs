use std::time::Duration;

use super::*;
use crate::protocol::GroupId;

/// A peer whose waiters are tickets, and its commands.
struct Bench {
    peer: Peer<&'static str>,
    now: Instant,
    /// Users with a connection here.
    here: Vec<UserId>,
    /// The messages delivered to them.
    delivered: Vec<(UserId, String)>,
}

type TicketCommand = PeerCommand<&'static str>;

impl Bench {
    fn new() -> Bench {
        Bench::with(PeerRules::default())
    }

    fn with(rules: PeerRules) -> Bench {
        let peer = Peer::new("me", rules);
        Bench { peer, now: Instant::now(), here: Vec::new(), delivered: Vec::new() }
    }

    /// A peer that is subscribed for its users, and whose probe has come back.
    fn up(users: &[UserId]) -> Bench {
        Bench::up_with(PeerRules::default(), users)
    }

    fn up_with(rules: PeerRules, users: &[UserId]) -> Bench {
        let mut bench = Bench { here: users.to_vec(), ..Bench::with(rules) };
        bench.peer.open(users, bench.now);
        bench.listen_to_all();
        bench.peer.tick(bench.now).expect("it is in time");
        bench.said(Topic::Node("me"), b"p 1");
        bench.peer.tick(bench.now).expect("it is in time");
        bench.commands();
        bench
    }

    fn commands(&mut self) -> Vec<TicketCommand> {
        std::iter::from_fn(|| self.peer.next_command()).collect()
    }

    /// The messages that it publishes.
    fn says(&mut self) -> Vec<(String, String)> {
        let say = |command| match command {
            PeerCommand::Say(topic, payload) => Some((topic.to_string(), String::from_utf8(payload).expect("text"))),
            _ => None,
        };
        self.commands().into_iter().filter_map(say).collect()
    }

    /// Confirms all its subscriptions, in order.
    fn listen_to_all(&mut self) -> Vec<String> {
        let mut topics = Vec::new();
        for command in self.commands() {
            if let PeerCommand::Listen(listened) = command {
                listened.iter().for_each(|topic| self.peer.on_listening(topic.as_ref()));
                topics.extend(listened.iter().map(Topic::to_string));
            }
        }
        topics
    }

    fn said(&mut self, topic: Topic<&str>, payload: &[u8]) {
        let Bench { peer, now, here, delivered } = self;
        peer.on_said(topic, payload, *now, &mut |Consignment { to, frames, .. }, _| {
            let is_here = here.contains(&to);
            if is_here {
                delivered.push((to, frames.collect::<Vec<_>>().join("\n")));
            }
            is_here
        });
    }

    fn after(&mut self, pause: Duration) -> Result<(), Deaf> {
        self.now += pause;
        self.peer.tick(self.now)
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
}

const ALICE: UserId = UserId(1);
const BOB: UserId = UserId(2);

#[test]
fn a_node_that_connects_says_who_is_here_before_its_probe() {
    let mut bench = Bench::new();
    bench.peer.open(&[ALICE, BOB], bench.now);
    assert_eq!(bench.listen_to_all(), ["n:me", "g", "h", "l", "p:me-1", "u:1", "u:2"]);
    bench.peer.tick(bench.now).expect("it is in time");
    let said = bench.says();
    assert!(
        said == pairs(&[("h", "me-1 1,2"), ("n:me", "p 1")]) || said == pairs(&[("h", "me-1 2,1"), ("n:me", "p 1")])
    );
    bench.said(Topic::Node("me"), b"p 1");
    bench.peer.tick(bench.now).expect("it is in time");
    let up = [PeerCommand::News(PeerNews::Heard), PeerCommand::News(PeerNews::Up { session: 1 })];
    assert_eq!(bench.commands(), up);
    // The next connection makes it another place.
    bench.peer.close(Vec::new());
    bench.peer.open(&[], bench.now);
    assert_eq!(bench.listen_to_all(), ["n:me", "g", "h", "l", "p:me-2"]);
}

#[test]
fn a_login_waits_for_its_own_hello() {
    let mut bench = Bench::up(&[]);
    bench.peer.do_tasks(vec![PeerTask::Subscribe(ALICE, Some("alice"))], bench.now);
    assert_eq!(bench.commands(), [PeerCommand::Listen(vec![Topic::User(ALICE)])]);
    bench.peer.on_listening(Topic::User(ALICE));
    assert_eq!(bench.says(), pairs(&[("u:1", "h me-1")]));
    bench.said(Topic::User(ALICE), b"h me-1");
    assert_eq!(bench.commands(), [PeerCommand::Placed(vec!["alice"])]);
}

#[test]
fn a_subscription_that_the_transport_has_lost_is_made_again_and_announced() {
    let mut bench = Bench::up(&[ALICE, BOB]);
    bench.peer.on_missed(ALICE, bench.now);
    assert_eq!(bench.commands(), [PeerCommand::Listen(vec![Topic::User(ALICE)])]);
    // The user may have logged in elsewhere meanwhile.
    bench.said(Topic::Place("me-1"), b"1 other\n1 1:9,2:10\n{}");
    assert_eq!(bench.says(), pairs(&[("n:other", "r 9 0")]));
    bench.peer.on_listening(Topic::User(ALICE));
    assert_eq!(bench.says(), pairs(&[("u:1", "h me-1")]));
    // A user who leaves is not subscribed again.
    bench.peer.do_tasks(vec![PeerTask::Unsubscribe(BOB)], bench.now);
    assert_eq!(bench.commands(), [PeerCommand::Ignore(vec![BOB])]);
    bench.peer.on_missed(BOB, bench.now);
    assert_eq!(bench.commands(), []);
}

#[test]
fn a_subscription_that_is_lost_at_the_start_delays_the_first_probe() {
    let mut bench = Bench::new();
    bench.peer.open(&[ALICE, BOB], bench.now);
    bench.listen_to_all();
    bench.peer.on_missed(ALICE, bench.now);
    bench.peer.tick(bench.now).expect("it is in time");
    assert_eq!(bench.commands(), [PeerCommand::Listen(vec![Topic::User(ALICE)])]);
    bench.peer.on_listening(Topic::User(ALICE));
    bench.peer.tick(bench.now).expect("it is in time");
    assert_eq!(bench.says(), pairs(&[("u:1", "h me-1"), ("h", "me-1 2"), ("n:me", "p 1")]));
}

#[test]
fn no_place_is_named_on_a_transport_that_does_not_keep_the_order_of_topics() {
    let mut bench = Bench::up_with(PeerRules { names_places: false, ..PeerRules::default() }, &[ALICE, BOB]);
    bench.said(Topic::User(BOB), b"h other-1");
    bench.said(Topic::User(ALICE), b"1 other 7\n{}");
    bench.said(Topic::User(BOB), b"1 other 8\n{}");
    bench.after(Duration::from_millis(1)).expect("it is in time");
    assert_eq!(bench.says(), pairs(&[("n:other", "c - 7 8")]), "one confirmation, though only one may be elsewhere");
}

#[test]
fn an_envelope_is_confirmed_with_the_place_unless_the_user_is_elsewhere_too() {
    let mut bench = Bench::up(&[ALICE, BOB]);
    bench.said(Topic::User(BOB), b"h other-1");
    assert_eq!(bench.commands(), [PeerCommand::Elsewhere(BOB)]);
    bench.said(Topic::User(ALICE), b"1 other 7\n{}");
    bench.said(Topic::User(BOB), b"1 other 8\n{}\n[]");
    bench.after(Duration::from_millis(1)).expect("it is in time");
    assert_eq!(bench.says(), pairs(&[("n:other", "c me-1 7"), ("n:other", "c - 8")]));
    assert_eq!(bench.delivered, [(ALICE, "{}".to_owned()), (BOB, "{}\n[]".to_owned())]);
    // Envelopes for this place alone: one of the users is also elsewhere.
    bench.said(Topic::Place("me-1"), b"1 other\n1 1:9,2:10\n{}");
    assert_eq!(bench.says(), pairs(&[("n:other", "r 10 0")]));
    bench.after(PeerRules::default().elsewhere_for).unwrap_or_default();
    bench.said(Topic::Place("me-1"), b"1 other\n1 2:11\n{}");
    assert_eq!(bench.delivered.len(), 4, "everybody knows by now");
}

#[test]
fn an_envelope_that_finds_nobody_is_neither_confirmed_nor_refused_by_the_peer() {
    let mut bench = Bench::up(&[]);
    bench.said(Topic::User(ALICE), b"1 other 7\n{}");
    bench.after(Duration::from_millis(1)).expect("it is in time");
    assert_eq!(bench.says(), [], "the node refuses it when it may");
    bench.peer.do_tasks(vec![PeerTask::Refuse(Receipt { node: "other".into(), sequence: 7 }, 0)], bench.now);
    assert_eq!(bench.says(), pairs(&[("n:other", "r 7 0")]));
}

#[test]
fn users_who_come_and_leave_do_so_in_order_and_one_who_leaves_may_be_elsewhere() {
    let mut bench = Bench::up(&[ALICE]);
    let tasks = vec![
        PeerTask::Unsubscribe(ALICE),
        PeerTask::Subscribe(ALICE, None),
        PeerTask::Subscribe(BOB, None),
        PeerTask::Unsubscribe(BOB),
    ];
    bench.peer.do_tasks(tasks, bench.now);
    let expected: [TicketCommand; 3] = [
        PeerCommand::Ignore(vec![ALICE]),
        PeerCommand::Listen(vec![Topic::User(ALICE), Topic::User(BOB)]),
        PeerCommand::Ignore(vec![BOB]),
    ];
    assert_eq!(bench.commands(), expected);
    bench.peer.on_ignored(ALICE);
    assert_eq!(bench.commands(), [PeerCommand::Left(ALICE)]);
    bench.said(Topic::Place("me-1"), b"1 other\n1 1:9\n{}");
    assert_eq!(bench.says(), pairs(&[("n:other", "r 9 0")]), "nobody here has heard where the user was meanwhile");
    // For a closed connection there are no more answers.
    let late = UserId(3);
    bench.peer.close(vec![PeerTask::Subscribe(ALICE, Some("alice")), PeerTask::Unsubscribe(late)]);
    let expected = [PeerCommand::Left(BOB), PeerCommand::Placed(vec!["alice"]), PeerCommand::Left(late)];
    assert_eq!(bench.commands(), expected);
}

#[test]
fn a_probe_that_does_not_come_back_ends_the_connection_and_one_that_does_ends_a_doubt() {
    let mut bench = Bench::up(&[]);
    bench.peer.do_tasks(vec![PeerTask::Probe], bench.now);
    assert_eq!(bench.says(), pairs(&[("n:me", "p 2")]));
    bench.said(Topic::Node("me"), b"p 2");
    bench.peer.tick(bench.now).expect("it is in time");
    assert_eq!(bench.commands(), [PeerCommand::News(PeerNews::Heard), PeerCommand::News(PeerNews::Resumed)]);
    bench.after(Duration::from_secs(2)).expect("the next one is sent");
    assert_eq!(bench.says(), pairs(&[("n:me", "p 3")]));
    assert_eq!(bench.after(Duration::from_secs(2)), Err(Deaf));
}

#[test]
fn a_node_that_hushes_confirms_at_once_and_does_not_wait_for_long() {
    let mut bench = Bench::up(&[ALICE]);
    bench.peer.hush(bench.now);
    assert_eq!(bench.commands(), [PeerCommand::IgnoreAll]);
    bench.said(Topic::User(ALICE), b"1 other 7\n{}");
    bench.said(Topic::User(ALICE), b"1 other 8\n{}");
    bench.peer.tick(bench.now).expect("it needs no probe");
    assert_eq!(bench.says(), pairs(&[("n:other", "c me-1 7 8")]));
    bench.after(HUSH_PATIENCE).expect("it needs no probe");
    assert_eq!(bench.commands(), [PeerCommand::News(PeerNews::Hushed)]);
}

#[test]
fn logins_elsewhere_are_forgotten_when_they_expire() {
    let mut bench = Bench::up(&[BOB]);
    bench.said(Topic::User(BOB), b"h other-1");
    let remembered = |bench: &Bench| bench.peer.session.as_ref().map(|session| session.receipts.remembered());
    let expired = bench.now + PeerRules::default().elsewhere_for;
    let mut probe = 1;
    while bench.now < expired {
        assert_eq!(remembered(&bench), Some(1));
        bench.after(Duration::from_secs(2)).expect("the last probe has come back");
        probe += 1;
        bench.said(Topic::Node("me"), format!("p {probe}").as_bytes());
    }
    assert_eq!(remembered(&bench), Some(0));
}

#[test]
fn answers_to_this_node_are_handed_on() {
    let mut bench = Bench::up(&[]);
    for payload in [&b"c other-1 1 2"[..], b"c other-1 3", b"c - 4", b"r 5 1"] {
        bench.said(Topic::Node("me"), payload);
    }
    bench.said(Topic::User(ALICE), b"1 me 6\n{}");
    bench.said(Topic::Groups, b"9");
    let expected: [TicketCommand; 3] =
        [PeerCommand::Refused(5, 1), PeerCommand::Refused(6, 0), PeerCommand::GroupChanged(GroupId(9))];
    assert_eq!(bench.commands(), expected);
    let mut confirmed: Vec<_> = bench.peer.take_confirmed().collect();
    confirmed.sort();
    assert_eq!(confirmed, [(None, vec![4]), (Some("other-1".into()), vec![1, 2, 3])]);
}

#[test]
fn nobody_waits_for_a_connection_that_is_gone_or_for_longer_than_a_login_may_take() {
    let mut bench = Bench::up(&[]);
    let login = || vec![PeerTask::Subscribe(ALICE, Some("alice"))];
    bench.peer.do_tasks(login(), bench.now);
    bench.commands();
    let due = bench.peer.next_due().expect("somebody waits");
    bench.after(due - bench.now).expect("it is in time");
    assert_eq!(bench.commands(), [PeerCommand::Placed(vec!["alice"])], "the client would not wait longer");
    bench.peer.do_tasks(login(), bench.now);
    bench.commands();
    bench.peer.close(Vec::new());
    assert_eq!(bench.commands(), [PeerCommand::Placed(vec!["alice"])]);
}

#[test]
fn an_envelope_for_nobody_in_a_bundle_is_not_confirmed() {
    let mut bench = Bench::up(&[]);
    bench.said(Topic::Place("me-1"), b"1 other\n1 1:9\n{}");
    bench.after(Duration::from_millis(1)).expect("it is in time");
    assert_eq!(bench.says(), []);
}

#[test]
fn a_node_probes_only_when_it_hears_all_that_it_wants_to_hear() {
    let mut bench = Bench::new();
    bench.peer.open(&[ALICE], bench.now);
    bench.commands();
    for topic in [Topic::Node("me"), Topic::Groups, Topic::Hellos, Topic::Place("me-1")] {
        bench.peer.on_listening(topic);
    }
    bench.peer.do_tasks(vec![PeerTask::Probe], bench.now);
    bench.peer.tick(bench.now).expect("it is in time");
    assert_eq!(bench.says(), [], "it would say that it is up");
}

#[test]
fn many_users_are_said_to_be_here_in_several_messages() {
    let users: Vec<UserId> = (1..=USERS_AT_ONCE as i32 + 1).map(UserId).collect();
    let mut bench = Bench::new();
    bench.peer.open(&users, bench.now);
    bench.listen_to_all();
    bench.peer.tick(bench.now).expect("it is in time");
    let said = bench.says();
    let named = |payload: &str| payload.split_once(' ').expect("a place and users").1.split(',').count();
    let hellos = said.iter().filter(|(topic, _)| topic == "h").map(|(_, payload)| named(payload));
    assert_eq!(hellos.collect::<Vec<_>>(), [USERS_AT_ONCE, 1]);
}

#[test]
fn a_node_that_hushes_waits_for_what_is_on_its_way_confirms_without_a_pause_and_needs_no_probe() {
    let mut bench = Bench::up(&[ALICE]);
    bench.peer.hush(bench.now);
    bench.commands();
    for payload in [&b"1 other 7\n{}"[..], b"1 other 8\n{}"] {
        bench.said(Topic::User(ALICE), payload);
        bench.peer.tick(bench.now).expect("it needs no probe");
        let commands = bench.commands();
        assert!(matches!(commands[..], [PeerCommand::Say(..)]), "{commands:?}");
    }
    assert_eq!(bench.peer.next_probe(), None);
}
