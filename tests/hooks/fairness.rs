//! One sender writes very much, and others are posted in between. The queue is bounded.

use testkit::wait_until;

use crate::receiver::{Mood, Receiver};
use crate::stage::{enter, failed_requests, fate, hooked, make_due, on_both, waiting, with};

#[test]
fn a_quiet_sender_is_posted_in_the_first_request_behind_thousands_of_another() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(200));
        let server = start(hooked(&receiver, "1h"));
        let [mut greedy, mut quiet, bob] = ["greedy", "quiet", "bob"].map(|name| enter(&server, name));
        greedy.talk(&with(&bob), 3_000);
        quiet.say(&with(&bob), "quiet");
        assert_eq!(waiting(&server), 3_001);
        make_due(&server, &receiver);
        wait_until("nothing waits", || waiting(&server) == 0);
        let of_quiet = |request: usize| {
            receiver.requests()[request].messages().iter().any(|message| message["from"] == quiet.store.me)
        };
        assert!(of_quiet(0), "in its turn");
        assert_eq!(receiver.messages().len(), 3_001);
        let greedy = receiver.messages().into_iter().filter(|message| message["from"] != quiet.store.me);
        let numbers: Vec<u64> = greedy.map(|message| message["seq"].as_u64().expect("a number")).collect();
        assert!(numbers.is_sorted(), "one sender's messages stay in order");
    });
}

#[test]
fn a_full_queue_drops_the_oldest_of_those_who_have_written_most() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(500));
        let server = start(hooked(&receiver, "0").option("hook_waiting", "100"));
        let [mut greedy, mut quiet, bob] = ["greedy", "quiet", "bob"].map(|name| enter(&server, name));
        quiet.say(&with(&bob), "quiet");
        greedy.talk(&with(&bob), 500);
        wait_until("what is too much is dropped", || waiting(&server) <= 100);
        let left = waiting(&server);
        assert!((80..=100).contains(&left), "{left}");
        wait_until("it is counted", || fate(&server, "dropped") == (501 - left) as f64);
        let log = server.logs_with("(hook_waiting)");
        assert_eq!(log.matches("(hook_waiting)").count(), 1, "{log}");
        wait_until("it has failed", || failed_requests(&server) > 0.0);
        receiver.becomes(Mood::Answers(200));
        wait_until("nothing waits", || waiting(&server) == 0);
        let posted = receiver.taken();
        assert_eq!(posted.len(), left);
        assert!(posted.iter().any(|message| message["from"] == quiet.store.me), "the quiet one keeps its place");
        let numbers = posted.iter().filter(|message| message["from"] == greedy.store.me).map(|message| &message["seq"]);
        assert!(
            numbers.clone().all(|seq| seq.as_u64() > Some(400)),
            "the newest stay: {:?}",
            numbers.collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_message_that_waits_for_three_days_is_dropped() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(500));
        let server = start(hooked(&receiver, "0"));
        let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
        ann.say(&with(&bob), "old");
        ann.say(&with(&bob), "new");
        server.run_sql(&format!("UPDATE HookQueue SET time = time - {} WHERE seq = 1", 73 * 60 * 60 * 1000));
        wait_until("the old one is dropped", || waiting(&server) == 1);
        wait_until("it is counted", || fate(&server, "expired") == 1.0);
        assert_eq!(server.count("SELECT seq FROM HookQueue"), 2);
    });
}
