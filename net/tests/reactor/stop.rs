//! Starting to listen, and stopping gracefully.

use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use net::{CloseReason, Fate, Label};

use crate::kit::{
    Astray, Gate, Note, PATIENCE, Seen, TestServer, echo, ignore, later, listen_settings, settings, taken,
};

#[test]
fn accepted_sockets_have_the_options_of_the_listening_one() {
    let (sender, options) = mpsc::channel();
    let server = TestServer::start_with(1, settings(), ignore, move |socket| {
        let options =
            (socket.tcp_nodelay(), socket.keepalive(), socket.tcp_user_timeout(), socket.tcp_keepalive_time());
        sender.send(options).expect("the test waits");
    });
    let _peer = server.connect();
    let (nodelay, keepalive, user_timeout, keepalive_time) = options.recv_timeout(PATIENCE).expect("one was accepted");
    assert!(nodelay.expect("an option") && keepalive.expect("an option"));
    assert_eq!(user_timeout.expect("an option"), Some(listen_settings().user_timeout));
    assert_eq!(keepalive_time.expect("an option"), Duration::from_secs(60));
}

#[test]
fn a_drain_shows_what_has_arrived_answers_it_and_closes() {
    let mut server = TestServer::start(2, settings(), echo);
    let mut peers = [server.connect(), server.connect(), server.connect()];
    // The loops are blocked while the clients write, so that the turn that drains finds all of it.
    let gates = [Gate::close(&peers[0].link), Gate::close(&peers[1].link)];
    for peer in &mut peers {
        peer.write(r#"{"a":1}{"b":2}{"half":"#);
        peer.wait_until_unread(21);
    }
    let drained = server.drain(PATIENCE);
    drop(gates);
    for mut peer in peers {
        assert_eq!(peer.rest(), r#"{"a":1}{"b":2}<garbage>"#);
        let items = [r#"{"a":1}"#, r#"{"b":2}"#, "<garbage>", "<stop>"].map(taken);
        peer.expect(items.into_iter().chain([Seen::Closed(CloseReason::Stopped)]));
    }
    drained.join().expect("the loops end");
}

#[test]
fn a_drain_waits_for_what_is_held_and_for_what_arrived_behind_it() {
    let mut server = TestServer::start(1, settings(), echo);
    let (mut peer, witness) = (server.connect(), server.connect());
    peer.hold();
    peer.write(r#"{"a":1}"#);
    peer.expect([later(r#"{"a":1}"#)]);
    peer.write(r#"{"b":2}"#);
    peer.wait_until_unread(7);
    let drained = server.drain(PATIENCE);
    witness.expect([taken("<stop>"), Seen::Closed(CloseReason::Stopped)]);
    peer.permit(1);
    peer.expect([taken(r#"{"a":1}"#), later(r#"{"b":2}"#)]);
    peer.permit(2);
    peer.expect([taken(r#"{"b":2}"#), taken("<stop>"), Seen::Closed(CloseReason::Stopped)]);
    assert_eq!(peer.rest(), r#"{"a":1}{"b":2}"#);
    drop((peer, witness));
    drained.join().expect("the loop ends");
}

#[test]
fn a_drain_shows_more_than_one_turn_reads() {
    const FRAME: &str =
        r#"{"a":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"}"#;
    // A receive buffer that is bigger than what a loop reads from one connection in one turn.
    let mut server = TestServer::start_with(1, settings(), ignore, |socket| {
        socket.set_recv_buffer_size(4 * 1024 * 1024).expect("an option");
    });
    let mut peer = server.connect();
    let frames = 10_000;
    // The window opens as the loop reads.
    peer.write(&FRAME.repeat(frames));
    peer.expect((0..frames).map(|_| taken(FRAME)));
    let gate = Gate::close(&peer.link);
    peer.socket.set_nonblocking(true).expect("an option");
    let stream = FRAME.repeat(frames);
    let mut written = 0;
    while let Ok(count) = std::io::Write::write(&mut peer.socket, &stream.as_bytes()[written..]) {
        written += count;
        if written == stream.len() {
            break;
        }
    }
    let arrived = peer.unread();
    assert!(arrived > 300 * 1024, "{arrived} bytes are less than one turn reads");
    let drained = server.drain(PATIENCE);
    drop(gate);
    peer.expect((0..arrived / FRAME.len()).map(|_| taken(FRAME)));
    drop(peer);
    drained.join().expect("the loop ends");
}

#[test]
fn a_drain_breaks_off_a_client_that_never_reads_and_returns_what_it_was_sent() {
    let mut server = TestServer::start(1, settings(), ignore);
    let peer = server.connect();
    let long = format!("{{{}}}", "1".repeat(20_000_000));
    peer.send(&long, Fate::Return(Label::of(1))).expect("one frame may pass the mark");
    let begin = Instant::now();
    server.drain(Duration::from_millis(100)).join().expect("the loop ends");
    assert!(begin.elapsed() < PATIENCE);
    peer.expect([taken("<stop>"), Seen::Closed(CloseReason::Stopped)]);
    assert_eq!(server.astray(), Astray::Unsent(1, long));
}

#[test]
fn a_drain_breaks_off_what_is_held_for_too_long() {
    let mut server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    server.drain(Duration::from_millis(100)).join().expect("the loop ends");
    peer.expect([later("<stop>"), Seen::Closed(CloseReason::Stopped)]);
    let mut byte = [0];
    assert_eq!(peer.socket.read(&mut byte).expect("an end, not a reset"), 0);
}

/// Messages that the loop's last turn makes the application post still reach it.
#[test]
fn letters_posted_in_the_last_turn_are_opened() {
    let mut server = TestServer::start(1, settings(), ignore);
    let peer = server.connect();
    peer.hold();
    peer.link.post(Note::AtClose(Box::new(|link| link.post(Note::Text("last words".into())))));
    server.drain(Duration::ZERO).join().expect("the loop ends");
    assert_eq!(server.astray(), Astray::Note("last words".into()));
}
