//! One sender writes very much, and others are posted in between. The queue is bounded.

use testkit::wait_until;

use crate::everyday::{group_of, join};
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

/// Whether a request had this message of a sender, and no other.
fn was_alone(receiver: &Receiver, sender: i64) -> bool {
    let is_alone = |messages: &[serde_json::Value]| messages.len() == 1 && messages[0]["from"] == sender;
    receiver.requests().iter().any(|request| is_alone(&request.messages()))
}

#[test]
fn senders_whose_messages_are_refused_delay_no_others() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Refuses(422));
        let server = start(hooked(&receiver, "0"));
        let [mut quiet, bob] = ["quiet", "bob"].map(|name| enter(&server, name));
        // Few enough for a web server that works.
        let mut greedy: Vec<_> = (0..7).map(|nth| enter(&server, &format!("greedy{nth}"))).collect();
        for sender in &mut greedy {
            sender.say(&with(&bob), "bad");
            sender.say(&with(&bob), "good");
        }
        let refused: Vec<i64> = greedy.iter().map(|sender| sender.store.me).collect();
        wait_until("each was refused alone", || refused.iter().all(|sender| was_alone(&receiver, *sender)));
        for nth in 1..=3 {
            quiet.say(&with(&bob), "quiet");
            wait_until("it is posted", || receiver.taken().len() == nth);
        }
        assert!(receiver.taken().iter().all(|message| message["from"] == quiet.store.me), "the others wait in order");
        let logs = server.logs_with("later ones of this sender wait");
        assert_eq!(logs.matches("later ones of this sender wait").count(), 1, "{logs}");
        assert!(!logs.contains("its messages wait"), "the web server works: {logs}");
        // They are tried again.
        receiver.becomes(Mood::Answers(200));
        wait_until("nothing waits", || waiting(&server) == 0);
        for sender in refused {
            let taken = receiver.taken().into_iter().filter(|message| message["from"] == sender);
            let texts: Vec<_> = taken.map(|message| message["m"]["msg"].clone()).collect();
            assert_eq!(texts, ["bad", "good"]);
        }
    });
}

#[test]
fn a_refusal_of_everything_slows_all() {
    let receiver = Receiver::start(Mood::Answers(401));
    let server = hooked(&receiver, "0").start();
    let [mut ann, mut bob] = ["ann", "bob"].map(|name| enter(&server, name));
    ann.say(&with(&bob), "one");
    bob.say(&with(&ann), "two");
    wait_until("it is tried again", || failed_requests(&server) >= 2.0);
    let logs = server.logs_with("its messages wait");
    assert!(!logs.contains("later ones of this sender wait"), "{logs}");
    receiver.becomes(Mood::Answers(200));
    wait_until("nothing waits", || waiting(&server) == 0);
}

#[test]
fn refusals_of_many_senders_in_a_row_slow_all_until_a_message_is_taken() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(400));
        let server = start(hooked(&receiver, "0"));
        let [mut quiet, bob] = ["quiet", "bob"].map(|name| enter(&server, name));
        for nth in 0..8 {
            enter(&server, &format!("greedy{nth}")).say(&with(&bob), "bad");
        }
        let logs = server.logs_with("its messages wait");
        assert!(logs.contains("it answers 400; its messages wait"), "{logs}");
        // The messages of the eight are still refused.
        receiver.becomes(Mood::Refuses(400));
        quiet.say(&with(&bob), "quiet");
        wait_until("it is posted", || receiver.taken().len() == 1);
        server.logs_with("takes messages again");
        receiver.becomes(Mood::Answers(200));
        wait_until("nothing waits", || waiting(&server) == 0);
    });
}

#[test]
fn a_refused_message_to_a_group_is_tried_for_one_member_beside_steady_others() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Refuses(422));
        let server = start(hooked(&receiver, "0"));
        let [mut ann, mut bob, mut carl, mut quiet] = ["ann", "bob", "carl", "quiet"].map(|name| enter(&server, name));
        let group = group_of(&mut ann);
        [&mut bob, &mut carl].into_iter().for_each(|client| join(client, group));
        wait_until("nothing waits", || waiting(&server) == 0);
        ann.say(&format!("g{group}"), "bad");
        wait_until("it was refused alone", || was_alone(&receiver, ann.store.me));
        let trials = || {
            let sizes = receiver.requests().into_iter().filter(|request| request.body.contains(r#""msg":"bad""#));
            let sizes: Vec<usize> = sizes.map(|request| request.messages().len()).collect();
            let first = sizes.iter().position(|size| *size == 1).expect("alone");
            sizes[first + 1..].to_vec()
        };
        let to_bob = with(&bob);
        wait_until("it is tried twice again, and the others are posted", || {
            let before = receiver.taken().len();
            quiet.say(&to_bob, "quiet");
            wait_until("the other one is posted", || receiver.taken().len() > before);
            trials().len() >= 2
        });
        assert!(trials().iter().all(|size| *size == 1), "{:?}", trials());
        receiver.becomes(Mood::Answers(200));
        wait_until("nothing waits", || waiting(&server) == 0);
        let bad = receiver.taken().into_iter().filter(|message| message["m"]["msg"] == "bad").count();
        assert_eq!(bad, 2, "once for each member");
    });
}
