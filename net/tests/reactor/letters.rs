//! Messages that other threads post to connections, and their fate when these are closed.

use std::thread;

use net::{CloseReason, Fate, Link, Refused};

use crate::kit::{Astray, Note, Seen, TestServer, echo, ignore, next, settings, taken};

#[test]
fn every_letter_arrives_in_the_order_of_its_poster() {
    const POSTERS: usize = 6;
    const ROUNDS: usize = 300;
    let server = TestServer::start(3, settings(), ignore);
    let peers: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let posters: Vec<_> = (0..POSTERS)
        .map(|poster| {
            let links: Vec<_> = peers.iter().map(|peer| peer.link.clone()).collect();
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    let text = || Note::Text(format!("{poster} {round}"));
                    if round % 2 == poster % 2 {
                        links.iter().for_each(|link| link.post(text()));
                    } else {
                        Link::post_all(links.iter().map(|link| (link.clone(), text())).collect());
                    }
                }
            })
        })
        .collect();
    for peer in &peers {
        let mut rounds = [0; POSTERS];
        for _ in 0..POSTERS * ROUNDS {
            let Seen::Note(text) = next(&peer.seen) else { panic!("only letters were posted") };
            let (poster, round) = text.split_once(' ').expect("two numbers");
            let expected = &mut rounds[poster.parse::<usize>().expect("a number")];
            assert_eq!(round.parse(), Ok(*expected), "letter of poster {poster}");
            *expected += 1;
        }
        assert_eq!(rounds, [ROUNDS; POSTERS]);
    }
    posters.into_iter().for_each(|poster| poster.join().expect("no panic"));
}

#[test]
fn letters_of_one_batch_to_one_connection_stay_in_order() {
    let server = TestServer::start(2, settings(), ignore);
    let peers = [server.connect(), server.connect()];
    let letters = (0..100).map(|n| (peers[n % 2].link.clone(), Note::Text(n.to_string()))).collect();
    Link::post_all(letters);
    for (first, peer) in peers.iter().enumerate() {
        peer.expect((first..100).step_by(2).map(|n| Seen::Note(n.to_string())));
    }
}

#[test]
fn a_link_of_the_past_does_not_reach_the_next_connection_in_its_slot() {
    let server = TestServer::start(1, settings(), echo);
    for _ in 0..20 {
        let mut gone = server.connect();
        gone.end();
        assert_eq!(gone.rest(), "");
        gone.expect([taken("<end>"), Seen::Closed(CloseReason::Ended)]);
        // Two letters, one after the other: after the second one, the turn that closed the
        // connection is over.
        for text in ["one", "two"] {
            gone.link.post(Note::Text(text.into()));
            assert_eq!(server.astray(), Astray::Note(text.into()));
        }
        let mut present = server.connect();
        Link::post_all(vec![(gone.link.clone(), Note::Text("late".into()))]);
        gone.link.hang_up();
        assert_eq!(gone.send("{}", Fate::Drop), Err(Refused::Closed));
        assert_eq!(server.astray(), Astray::Note("late".into()));
        present.sync();
        present.write(r#"{"mine":1}"#);
        present.expect_bytes(r#"{"mine":1}"#);
        present.expect([taken(r#"{"mine":1}"#)]);
    }
}
