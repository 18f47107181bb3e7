//! The web server or this one fails.

use testkit::{PATIENCE, wait_until, wait_within};

use crate::receiver::{Mood, Receiver};
use crate::stage::{enter, failed_requests, fate, hooked, on_both, waiting, with};

#[test]
fn messages_wait_while_the_web_server_fails_and_the_log_says_it_once() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(500));
        let server = start(hooked(&receiver, "0"));
        let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
        for mood in [Mood::Answers(500), Mood::Answers(410), Mood::Answers(302), Mood::Answers(404)] {
            receiver.becomes(mood);
            let before = failed_requests(&server);
            ann.say(&with(&bob), &format!("{mood:?}"));
            wait_until("it has failed", || failed_requests(&server) > before);
        }
        assert_eq!(waiting(&server), 4);
        let log = server.logs_with("its messages wait");
        assert!(log.contains("it answers 500; its messages wait"), "{log}");
        assert_eq!(log.matches("its messages wait").count(), 1, "{log}");
        receiver.becomes(Mood::Answers(204));
        wait_until("nothing waits", || waiting(&server) == 0);
        let log = server.logs_with("takes messages again");
        assert_eq!(log.matches("takes messages again").count(), 1, "{log}");
        assert_eq!(fate(&server, "delivered"), 4.0);
        assert!(!log.contains("Answers("), "no text of a message: {log}");
        assert!(!log.contains(crate::stage::KEY), "{log}");
    });
}

#[test]
fn waiting_messages_survive_a_killed_server() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Answers(503));
        let mut server = start(hooked(&receiver, "0"));
        let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
        let texts: Vec<String> = (0..20).map(|n| format!("text {n}")).collect();
        for text in &texts {
            ann.say(&with(&bob), text);
        }
        wait_until("it has failed", || failed_requests(&server) > 0.0);
        server.kill9();
        receiver.becomes(Mood::Answers(200));
        server.restart();
        // On MySQL the lease of the killed server may have to end first.
        wait_within(3 * PATIENCE, "nothing waits", || waiting(&server) == 0);
        let taken = receiver.taken();
        let posted: Vec<&str> = taken.iter().filter_map(|message| message["m"]["msg"].as_str()).collect();
        // The last request of the killed server may also have got the new answer.
        assert!(posted.ends_with(&texts.iter().map(String::as_str).collect::<Vec<_>>()), "{posted:?}");
    });
}

#[test]
fn a_web_server_that_hangs_delays_nobody_but_the_hook() {
    on_both(|start| {
        let receiver = Receiver::start(Mood::Hangs);
        let mut server = start(hooked(&receiver, "0").option("workers", "1"));
        let (mut ann, mut bob) = (enter(&server, "ann"), enter(&server, "bob"));
        ann.say(&with(&bob), "first");
        let (to_ann, mut last) = (with(&ann), 1);
        for _ in 0..18 {
            // The same request hangs before the message is sent and after it has arrived.
            wait_until("a message comes while the request hangs", || {
                let hanging = receiver.hanging();
                last = ann.say(&with(&bob), "more");
                bob.until_at(&to_ann, last);
                hanging.is_some() && receiver.hanging() == hanging
            });
        }
        drop((ann, bob));
        server.terminate();
        server.wait_exit(PATIENCE);
        receiver.becomes(Mood::Answers(200));
        server.restart();
        wait_until("nothing waits", || waiting(&server) == 0);
        assert_eq!(fate(&server, "delivered"), last as f64);
    });
}

#[test]
fn a_success_that_the_database_does_not_take_is_not_posted_again_and_again() {
    let receiver = Receiver::start(Mood::Answers(200));
    let server = hooked(&receiver, "0").option("log_level", "debug").start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    // Deletions fail from now on, and nothing else does.
    server.run_sql("CREATE TRIGGER no BEFORE DELETE ON HookQueue BEGIN SELECT RAISE(FAIL, 'no'); END");
    ann.say(&with(&bob), "once");
    let again = "reading messages for the hook fails again";
    wait_until("the deletion has failed in three rounds", || server.logs_with(again).matches(again).count() >= 2);
    server.run_sql("DROP TRIGGER no");
    wait_until("nothing waits", || waiting(&server) == 0);
    assert_eq!(receiver.requests().len(), 1);
}
