//! From the server to a client: lines, slow consumers, reports, and returned frames.

use std::collections::HashSet;
use std::io::Read;
use std::iter;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use net::{CloseReason, Fate, Incoming, Label, Link, Refused, Settings, Turn};

use crate::kit::{
    Astray, Note, Peer, Seen, TestServer, echo, expect, ignore, later, next, settings, taken, wait_until,
};

/// A server with small buffers between itself and its clients.
fn narrow_server() -> TestServer {
    let settings = Settings { output_bytes_max: 100_000, ..settings() };
    TestServer::start_with(1, settings, ignore, |socket| socket.set_send_buffer_size(20_000).expect("an option"))
}

fn numbered(n: usize) -> String {
    format!(r#"{{"n":{n}}}"#)
}

/// Sends numbered returnable frames until the link accepts no more. Returns the accepted ones.
fn send_until_full(peer: &Peer) -> Vec<String> {
    let mut frames = (0..).map(|n| format!("{{\"n\":{n},\"a\":\"{}\"}}", "x".repeat(1000)));
    let mut sent = Vec::new();
    loop {
        let frame = frames.next().expect("endless");
        match peer.send(&frame, Fate::Return(Label::of(7))) {
            Ok(()) => sent.push(frame),
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                return sent;
            }
        }
    }
}

/// The whole frames at the front of `text`; the rest must be the beginning of the next.
fn whole_frames(text: &str, next: &[String]) -> usize {
    let mut rest = text;
    for (count, frame) in next.iter().enumerate() {
        match rest.strip_prefix(frame.as_str()) {
            Some(behind) => rest = behind,
            None => {
                assert!(frame.starts_with(rest), "the client reads the frames in order");
                return count;
            }
        }
    }
    assert_eq!(rest, "");
    next.len()
}

#[test]
fn replies_are_bare_until_the_client_ends_a_line() {
    let server = TestServer::start(1, settings(), echo);
    let mut peer = server.connect();
    peer.write(r#"{"a":1}{"b":2}"#);
    peer.expect_bytes(r#"{"a":1}{"b":2}"#);
    peer.write("\r\n");
    peer.expect_bytes("\n");
    peer.write("{}\noops\n{}");
    peer.expect_bytes("{}\n<garbage>\n{}\n");
    peer.end();
    assert_eq!(peer.rest(), "");

    let mut lines_from_the_start = server.connect();
    lines_from_the_start.write("{}\n");
    lines_from_the_start.end();
    assert_eq!(lines_from_the_start.rest(), "{}\n");
}

#[test]
fn a_slow_consumer_is_refused_and_what_it_did_not_take_comes_back() {
    let server = narrow_server();
    let mut peer = server.connect();
    peer.hold();
    let sent = send_until_full(&peer);
    assert_eq!(peer.send("{}", Fate::Return(Label::of(7))), Err(Refused::Full), "it stays full");
    peer.link.hang_up();
    peer.expect([Seen::HangUp, later("<end>")]);
    let back: Vec<_> = peer
        .link
        .take_back(|label| label.user == 7)
        .iter()
        .map(|(_, frame)| String::from_utf8_lossy(frame).into_owned())
        .collect();
    assert!(back.iter().map(String::len).sum::<usize>() >= 100_000, "the high-water mark was reached");
    assert_eq!(peer.link.take_back(|label| label.user == 7), [], "they come back once");
    peer.permit(1);
    let read = whole_frames(&peer.rest(), &sent);
    assert!(sent.ends_with(&back), "they come back in order, up to the last");
    assert!(sent.len() - back.len() <= read, "what was not read comes back");
    peer.expect([taken("<end>"), Seen::Closed(CloseReason::Broken)]);
}

#[test]
fn frames_that_nobody_takes_back_are_given_back_at_the_end() {
    let server = narrow_server();
    let mut peer = server.connect();
    let sent = send_until_full(&peer);
    peer.link.hang_up();
    let read = whole_frames(&peer.rest(), &sent);
    // A frame that was being written when the connection was hung up may be both read and returned.
    let Astray::Unsent(7, first) = server.astray() else { panic!("nothing else goes astray") };
    let from = sent.iter().position(|frame| *frame == first).expect("it was sent");
    assert!(from <= read && read < sent.len());
    for frame in &sent[from + 1..] {
        assert_eq!(server.astray(), Astray::Unsent(7, frame.clone()));
    }
    assert!(server.astray.try_recv().is_err());
}

/// The client's kernel has room for a few frames, which it acknowledges; the rest is in the
/// server's kernel, written and never to arrive. The frames that the client can read and those that
/// are returned are all frames, and meet at one frame.
#[test]
fn frames_that_a_dead_peer_has_not_acknowledged_come_back() {
    for how in ["hang up", "reset"] {
        let server = TestServer::start_with(1, settings(), ignore, |socket| {
            socket.set_send_buffer_size(200_000).expect("an option");
        });
        let mut peer = server.connect_with(|socket| socket.set_recv_buffer_size(4_000).expect("an option"));
        let sent: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n},\"a\":\"{}\"}}", "x".repeat(1000))).collect();
        for frame in &sent {
            peer.send(frame, Fate::Return(Label::of(7))).expect("there is room");
        }
        peer.sync();
        assert_eq!(peer.link.pending_bytes(), 0, "the server's kernel has taken all");
        let undelivered = peer.link.undelivered_bytes();
        assert!(undelivered > 50_000, "the client's has not: {undelivered}");
        let link = peer.link.clone();
        let end = [Seen::HangUp, taken("<end>"), Seen::Closed(CloseReason::Broken)];
        let (back, read) = if how == "reset" {
            let (_, seen) = peer.reset();
            expect(&seen, end);
            (come_back(&server, &link), sent.len())
        } else {
            link.hang_up();
            peer.expect(end);
            // It reads on only when all have been returned, because it acknowledges what it reads.
            (come_back(&server, &link), whole_frames(&peer.arrived(), &sent))
        };
        let back: Vec<String> = back.into_iter().map(|(_, frame)| frame).collect();
        assert!(sent.ends_with(&back), "they come back in order, up to the last");
        let arrived = sent.len() - back.len();
        assert!(0 < arrived && arrived < sent.len() / 2, "what was acknowledged stays away, and no more: {arrived}");
        assert!(arrived <= read, "what was not acknowledged comes back: {arrived} did not, {read} were read");
    }
}

/// The frames returned by a closed connection.
fn come_back(server: &TestServer, link: &Arc<Link<Note>>) -> Vec<(u32, String)> {
    // After the second of two letters, posted one after the other, the turn that closed the
    // connection is over.
    let mut back = Vec::new();
    for text in ["one", "two"] {
        link.post(Note::Text(text.into()));
        back.extend(iter::from_fn(|| match server.astray() {
            Astray::Unsent(label, frame) => Some((label, frame)),
            Astray::Note(_) => None,
        }));
    }
    back
}

#[test]
fn frames_that_have_arrived_do_not_come_back() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    for n in 0..100 {
        peer.send(&numbered(n), Fate::Return(Label::of(7))).expect("it is open");
    }
    peer.sync();
    peer.expect_bytes(&(0..100).map(numbered).collect::<String>());
    let link = peer.link.clone();
    let (_, seen) = peer.reset();
    expect(&seen, [Seen::HangUp, taken("<end>"), Seen::Closed(CloseReason::Broken)]);
    assert_eq!(come_back(&server, &link), []);
}

#[test]
fn a_frame_taken_back_from_a_living_connection_is_not_written_and_the_others_are() {
    let server = narrow_server();
    let mut peer = server.connect();
    let sent = send_until_full(&peer);
    let back = peer.link.take_back(|label| label.user == 7);
    assert!(!back.is_empty());
    peer.send(r#"{"last":1}"#, Fate::Drop).expect("there is room again");
    let written = sent.len() - back.len();
    for (frame, back) in sent[written..].iter().zip(&back) {
        assert_eq!(frame.as_bytes(), &*back.1);
    }
    let expected = sent[..written].concat() + r#"{"last":1}"#;
    peer.expect_bytes(&expected);
}

#[test]
fn a_report_comes_when_the_frame_has_left_and_not_before() {
    let server = narrow_server();
    let mut peer = server.connect();
    let long = format!("{{{}}}", "1".repeat(1_000_000));
    peer.send(&long, Fate::Report(3)).expect("the mark is for what others send");
    peer.sync();
    peer.send("{}", Fate::Report(4)).expect("likewise");
    peer.sync();
    peer.expect_bytes(&(long + "{}"));
    peer.expect([Seen::Sent(3), Seen::Sent(4)]);
}

#[test]
fn a_report_comes_before_the_hang_up_that_followed() {
    let server = TestServer::start(1, settings(), ignore);
    let peer = server.connect();
    peer.hold();
    peer.send("{}", Fate::Report(1)).expect("it is open");
    peer.link.hang_up();
    peer.expect([Seen::Sent(1), Seen::HangUp, later("<end>")]);
}

#[test]
fn no_report_comes_when_the_client_dies_first() {
    let server = narrow_server();
    let peer = server.connect();
    let long = format!("{{{}}}", "1".repeat(1_000_000));
    peer.send(&long, Fate::Report(3)).expect("one frame may pass the mark");
    let (_, seen) = peer.reset();
    expect(&seen, [Seen::HangUp, taken("<end>"), Seen::Closed(CloseReason::Broken)]);
    let more = seen.recv_timeout(crate::kit::PATIENCE);
    assert_eq!(more.err(), Some(RecvTimeoutError::Disconnected), "nothing comes after the close");
}

#[test]
fn a_held_item_is_shown_again_after_a_report() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.write("{}");
    peer.expect([later("{}")]);
    peer.send("{}", Fate::Report(9)).expect("it is open");
    peer.expect([Seen::Sent(9), later("{}")]);
}

#[test]
fn a_handler_sends_to_a_connection_of_another_loop() {
    let target = Arc::new(Mutex::new(None::<Arc<Link<Note>>>));
    let react = {
        let target = target.clone();
        move |turn: &mut Turn<Note>, _: &Arc<_>, incoming: Incoming<'_>| {
            if let (Incoming::Frame(frame), Some(link)) = (incoming, &*target.lock().expect("no panic")) {
                link.send(turn, frame, Fate::Drop).expect("it is open");
            }
        }
    };
    let server = TestServer::start(2, settings(), react);
    let (mut from, mut to) = (server.connect(), server.connect());
    *target.lock().expect("no panic") = Some(to.link.clone());
    for n in 0..100 {
        from.write(&numbered(n));
    }
    to.expect_bytes(&(0..100).map(numbered).collect::<String>());
}

#[test]
fn a_long_reply_is_finished_by_the_owner_of_the_connection() {
    let server = TestServer::start(2, settings(), ignore);
    let mut peer = server.connect();
    let long = format!("{{{}}}", "1".repeat(20_000_000));
    peer.send(&long, Fate::Drop).expect("it is open");
    peer.expect_bytes(&long);
    peer.send("{}", Fate::Drop).expect("there is room again");
    peer.expect_bytes("{}");
}

/// A worker whose job panics does not reach its flush.
#[test]
fn a_turn_that_is_dropped_writes_what_it_was_given() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.link.send(&mut Turn::new(), br#"{"a":1}"#, Fate::Drop).expect("it is open");
    peer.send(r#"{"b":2}"#, Fate::Drop).expect("it is open");
    peer.expect_bytes(r#"{"a":1}{"b":2}"#);
}

#[test]
fn a_client_sees_the_end_though_somebody_still_holds_its_link() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    let link = peer.link.clone();
    link.hang_up();
    assert_eq!(peer.rest(), "");
    // Two letters, one after the other: after the second one, the turn that closed the connection
    // is over.
    for text in ["one", "two"] {
        link.post(Note::Text(text.into()));
        assert_eq!(server.astray(), Astray::Note(text.into()));
    }
    assert_eq!(peer.send("{}", Fate::Return(Label::of(1))), Err(Refused::Closed));
}

/// Threads send while the connection is hung up: accepted frames are read by the client or
/// returned.
#[test]
fn no_frame_is_lost_between_the_last_write_and_the_close() {
    const SENDERS: u32 = 3;
    let server = TestServer::start(2, settings(), ignore);
    for _ in 0..100 {
        let mut peer = server.connect();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let link = peer.link.clone();
                thread::spawn(move || {
                    let mut turn = Turn::new();
                    let taken = (0..).take_while(|n| {
                        let outcome = link.send(
                            &mut turn,
                            format!("{{{sender}:{n}}}").as_bytes(),
                            Fate::Return(Label::of(sender)),
                        );
                        turn.flush();
                        // Without a reader it may also be full; then it is about to be hung up.
                        outcome.is_ok()
                    });
                    taken.count()
                })
            })
            .collect();
        peer.socket.read_exact(&mut [0]).expect("somebody sends");
        peer.link.hang_up();
        let accepted: Vec<usize> = senders.into_iter().map(|sender| sender.join().expect("no panic")).collect();
        let text = format!("{{{}", peer.rest());
        let read: HashSet<&str> = text.split_inclusive('}').collect();
        let link = peer.link.clone();
        peer.expect([Seen::HangUp, taken("<end>"), Seen::Closed(CloseReason::Broken)]);
        let back = come_back(&server, &link);
        for (sender, accepted) in (0..SENDERS).zip(accepted) {
            let frames: Vec<String> = (0..accepted).map(|n| format!("{{{sender}:{n}}}")).collect();
            let read = frames.iter().filter(|frame| read.contains(frame.as_str())).count();
            let back: Vec<_> = back.iter().filter(|(label, _)| *label == sender).map(|(_, frame)| frame).collect();
            let count = back.len();
            assert!(read + count >= accepted, "{sender}: {read} read, {count} came back of {accepted}");
            assert!(back.into_iter().rev().eq(frames.iter().rev().take(count)), "{sender}: the last, in order");
        }
    }
}

#[test]
fn an_answer_to_the_end_is_written_before_the_end() {
    let react = |turn: &mut Turn<Note>, link: &Arc<Link<Note>>, incoming: Incoming<'_>| {
        if incoming == Incoming::End {
            link.send(turn, b"{\"bye\":1}", Fate::Drop).expect("it is open");
        }
    };
    let server = TestServer::start(1, settings(), react);
    let mut peer = server.connect();
    peer.end();
    assert_eq!(peer.rest(), "{\"bye\":1}");
    assert_eq!(next(&peer.seen), taken("<end>"));
}

#[test]
fn a_closing_client_that_does_not_read_is_given_up() {
    let settings = Settings { drain_timeout: Duration::from_millis(100), ..settings() };
    let server = TestServer::start(1, settings, ignore);
    let peer = server.connect();
    let long = format!("{{{}}}", "1".repeat(20_000_000));
    peer.send(&long, Fate::Return(Label::of(1))).expect("one frame may pass the mark");
    peer.end();
    peer.expect([taken("<end>"), Seen::Closed(CloseReason::Ended)]);
    assert_eq!(server.astray(), Astray::Unsent(1, long));
}

/// Its earlier requests are still answered, by an application that does not know or does not care.
#[test]
fn answers_to_a_connection_that_is_dead_take_no_memory() {
    let server = TestServer::start(1, settings(), ignore);
    let peer = server.connect();
    peer.hold();
    peer.link.hang_up();
    peer.expect([Seen::HangUp, later("<end>")]);
    let answer = format!("{{{}}}", "1".repeat(60_000));
    (0..10).for_each(|_| peer.send(&answer, Fate::Drop).expect("it is not closed"));
    assert_eq!(peer.link.pending_bytes(), 0);
    // A returnable frame is accepted.
    peer.send("{}", Fate::Return(Label::of(1))).expect("it is not closed");
    peer.permit(1);
    assert_eq!(server.astray(), Astray::Unsent(1, "{}".into()));
}

/// Replies that a client does not read are bounded, because it is not read on either.
#[test]
fn a_client_that_does_not_read_its_answers_is_not_read() {
    const ANSWER: usize = 10_000;
    const QUESTIONS: usize = 5_000;
    /// Far below `output_bytes_max`.
    const REPLIES_BYTES_MAX: usize = 64 * 1024;
    let react = |turn: &mut Turn<Note>, link: &Arc<Link<Note>>, incoming: Incoming<'_>| {
        if let Incoming::Frame(_) = incoming {
            link.send(turn, &[b'x'; ANSWER], Fate::Drop).expect("it is open");
        }
    };
    for hold in [false, true] {
        let settings = settings();
        let server = TestServer::start(1, settings, react);
        let (mut peer, witness) = (server.connect(), server.connect());
        if hold {
            // Shown one at a time, as for an application that needs a job for each answer.
            peer.hold();
        }
        peer.write(&"{}".repeat(QUESTIONS));
        let is_full = || peer.link.pending_bytes() >= REPLIES_BYTES_MAX;
        if hold {
            peer.expect([later("{}")]);
            for _ in 0..QUESTIONS {
                if is_full() {
                    break;
                }
                peer.permit(1);
                witness.sync();
            }
            (0..QUESTIONS / 10).for_each(|_| peer.permit(1));
        }
        wait_until(is_full);
        witness.sync();
        witness.sync();
        let pending = peer.link.pending_bytes();
        assert!(pending <= REPLIES_BYTES_MAX + 65 * ANSWER, "{pending} bytes wait");
        peer.permit(QUESTIONS);
        let mut answers = vec![0; QUESTIONS * ANSWER];
        std::io::Read::read_exact(&mut peer.socket, &mut answers).expect("every answer comes");
    }
}
