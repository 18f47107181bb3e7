//! From a client's bytes to the handler: frames, holding back, time and size limits, and all kinds
//! of ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use net::{CloseReason, Fate, Incoming, Label, Link, Settings, Turn};
use socket2::SockRef;

use crate::kit::{
    Astray, Gate, Note, Peer, Seen, TestServer, echo, expect, ignore, later, next, note, settings, taken, wait_until,
};

#[test]
fn frames_are_the_same_however_they_are_cut() {
    let frames = [r#"{"a":"}{"}"#, "{}", r#"{"你":[1,{"b":"\"\\"}]}"#, "{ }"];
    let stream = frames.join(" ").into_bytes();
    let server = TestServer::start(2, settings(), ignore);
    for size in [1, 2, 3, 7, stream.len()] {
        let mut peer = server.connect();
        for piece in stream.chunks(size) {
            peer.socket.write_all(piece).expect("the server reads");
        }
        peer.expect(frames.map(taken));
        peer.sync();
    }
}

#[test]
fn garbage_is_shown_once_and_does_no_harm() {
    let server = TestServer::start(1, settings(), echo);
    let mut peer = server.connect();
    peer.write("keep this socket alive");
    peer.expect_bytes("<garbage>");
    peer.write(r#"{"a":1}[{}]"#);
    peer.expect_bytes(r#"{"a":1}<garbage>"#);
}

#[test]
fn a_held_item_is_shown_again_after_every_message_and_the_rest_in_order() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.write(r#"{"a":1}{"b":2} oops"#);
    peer.expect([later(r#"{"a":1}"#)]);
    peer.link.post(Note::Text("first".into()));
    peer.expect([note("first"), later(r#"{"a":1}"#)]);
    peer.permit(1);
    peer.expect([taken(r#"{"a":1}"#), later(r#"{"b":2}"#)]);
    peer.end();
    peer.permit(2);
    peer.expect([taken(r#"{"b":2}"#), taken("<garbage>"), later("<end>")]);
    peer.permit(1);
    peer.expect([taken("<end>"), Seen::Closed(CloseReason::Ended)]);
    assert_eq!(peer.rest(), "");
}

#[test]
fn blanks_are_shown_when_they_are_many() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    // In one write, so that nothing depends on segmentation.
    let write = |peer: &mut Peer, text: &str| {
        let gate = Gate::close(&peer.link);
        peer.write(text);
        peer.wait_until_unread(text.len());
        drop(gate);
    };
    write(&mut peer, &format!("{{}}{}{{}}{}{{}}\n{{}}", " ".repeat(4000), "\n".repeat(95)));
    peer.expect([taken("{}"), taken("{}"), taken("{}"), taken("<4096 blanks>"), taken("{}")]);
    peer.hold();
    write(&mut peer, &format!("{}{{}}", "\0".repeat(5000)));
    peer.expect([later("<5000 blanks>")]);
    peer.permit(1);
    peer.expect([taken("<5000 blanks>"), later("{}")]);
    peer.permit(1);
    peer.expect([taken("{}")]);
}

#[test]
fn a_held_item_is_not_shown_again_because_more_arrives() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.write(r#"{"a":1}"#);
    peer.expect([later(r#"{"a":1}"#)]);
    peer.write(r#"{"b":2}"#);
    peer.wait_until_unread(7);
    peer.link.post(Note::Text("now".into()));
    peer.expect([note("now"), later(r#"{"a":1}"#)]);
}

#[test]
fn a_held_connection_is_not_read_and_nothing_of_it_is_lost() {
    const FRAMES: usize = 8 * 1024;
    const LEN: usize = 999;
    let frame = |n: usize| format!(r#"{{"n":"{n:0991}"}}"#);
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.socket.set_write_timeout(Some(Duration::from_millis(200))).expect("an option");
    SockRef::from(&peer.socket).set_send_buffer_size(100_000).expect("an option");
    let stream: Vec<u8> = (0..FRAMES).flat_map(|n| frame(n).into_bytes()).collect();
    let mut written = 0;
    let blocked = loop {
        match peer.socket.write(&stream[written..]) {
            Ok(0) => break None,
            Ok(count) => written += count,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(blocked, Some(ErrorKind::WouldBlock), "the client is slowed down");
    peer.expect([later(&frame(0))]);
    peer.permit(usize::MAX);
    peer.end();
    for n in 0..written / LEN {
        peer.expect([taken(&frame(n))]);
    }
    let torn = if written % LEN > 0 { Some(taken("<garbage>")) } else { None };
    peer.expect(torn.into_iter().chain([taken("<end>"), Seen::Closed(CloseReason::Ended)]));
}

#[test]
fn a_half_closed_client_gets_its_answers_and_then_the_end() {
    let server = TestServer::start(1, settings(), echo);
    let mut peer = server.connect();
    peer.write(r#"{"a":1}{"half":"#);
    peer.end();
    assert_eq!(peer.rest(), r#"{"a":1}<garbage>"#);
    peer.expect([taken(r#"{"a":1}"#), taken("<garbage>"), taken("<end>"), Seen::Closed(CloseReason::Ended)]);
}

#[test]
fn a_frame_that_does_not_complete_in_time_is_garbage_even_when_it_trickles() {
    let settings = Settings { frame_timeout: Duration::from_millis(100), frame_bytes_max: 1 << 20, ..settings() };
    let server = TestServer::start(1, settings, ignore);
    let mut silent = server.connect();
    silent.write(r#"{"a":"#);
    silent.expect([taken("<garbage>")]);
    silent.write(r#"{"b":2}"#);
    silent.expect([taken(r#"{"b":2}"#)]);

    let mut trickling = server.connect();
    trickling.write(r#"{"a":""#);
    let deadline = Instant::now() + crate::kit::PATIENCE;
    let seen = loop {
        assert!(Instant::now() < deadline, "the frame is given up");
        match trickling.seen.recv_timeout(Duration::from_millis(1)) {
            Ok(seen) => break seen,
            Err(_) => trickling.write("x"),
        }
    };
    assert_eq!(seen, taken("<garbage>"));
}

#[test]
fn a_partial_frame_behind_each_good_one_is_not_out_of_time() {
    // Far longer than this thread may have to wait for the processor.
    let settings = Settings { frame_timeout: Duration::from_secs(2), ..settings() };
    let server = TestServer::start(1, settings, ignore);
    let mut peer = server.connect();
    peer.write(r#"{"a":"#);
    let begin = Instant::now();
    while begin.elapsed() < 2 * settings.frame_timeout {
        peer.write(r#"1}{"a":"#);
        peer.expect([taken(r#"{"a":1}"#)]);
    }
}

#[test]
fn a_silent_client_is_closed_but_not_one_that_is_held() {
    let settings = Settings { idle_timeout: Duration::from_secs(1), ..settings() };
    let server = TestServer::start(1, settings, ignore);
    let mut held = server.connect();
    held.hold();
    held.write(r#"{"a":1}"#);
    held.expect([later(r#"{"a":1}"#)]);
    for _ in 0..2 {
        let mut silent = server.connect();
        silent.expect([taken("<end>"), Seen::Closed(CloseReason::Idle)]);
        assert_eq!(silent.rest(), "");
    }
    held.permit(1);
    held.expect([taken(r#"{"a":1}"#), later("<end>")]);
    held.permit(1);
    held.expect([taken("<end>"), Seen::Closed(CloseReason::Idle)]);
}

#[test]
fn too_long_a_frame_is_answered_and_ends_the_connection_in_order() {
    let settings = Settings { frame_bytes_max: 1000, ..settings() };
    let server = TestServer::start(1, settings, echo);
    for megabytes in [0, 1, 8] {
        for half_close in [false, true] {
            let mut peer = server.connect();
            let mut socket = peer.socket.try_clone().expect("a descriptor");
            let writing = thread::spawn(move || {
                let frame = format!(r#"{{}}{{"a":"{}"#, "x".repeat(2000 + megabytes * 1024 * 1024));
                socket.write_all(frame.as_bytes()).expect("the server takes it all");
            });
            if half_close {
                writing.join().expect("all is written");
                peer.end();
            }
            assert_eq!(peer.rest(), "{}<oversize>", "{megabytes} MiB, half-closed: {half_close}");
            peer.expect([taken("{}"), taken("<oversize>"), Seen::Closed(CloseReason::Oversize)]);
        }
    }
}

#[test]
fn a_peer_closed_for_excess_reads_its_output_and_nothing_more_of_it_is_shown() {
    let server = TestServer::start(1, settings(), echo);
    let mut peer = server.connect();
    peer.socket.write_all(br#"{}{"last":1}{"never":1}"#).expect("the server reads");
    assert_eq!(peer.rest(), r#"{}{"last":1}"#);
    peer.expect([taken("{}"), taken(r#"{"last":1}"#), Seen::Closed(CloseReason::Excess)]);
}

#[test]
fn frames_before_a_reset_are_shown_and_then_the_end() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.write(r#"{"a":1}"#);
    peer.expect([later(r#"{"a":1}"#)]);
    peer.write(r#"{"b":2}"#);
    peer.wait_until_unread(7);
    let (link, seen) = peer.reset();
    expect(&seen, [Seen::HangUp, later(r#"{"a":1}"#)]);
    link.post(Note::Permit(2));
    expect(&seen, [taken(r#"{"a":1}"#), taken(r#"{"b":2}"#), later("<end>")]);
    link.post(Note::Permit(1));
    expect(&seen, [taken("<end>"), Seen::Closed(CloseReason::Broken)]);
}

#[test]
fn frames_before_a_hang_up_are_shown_and_then_the_end() {
    let server = TestServer::start(1, settings(), ignore);
    let mut peer = server.connect();
    peer.hold();
    peer.write(r#"{"a":1}"#);
    peer.expect([later(r#"{"a":1}"#)]);
    peer.write(r#"{"b":2}"#);
    peer.wait_until_unread(7);
    peer.link.hang_up();
    peer.expect([Seen::HangUp, later(r#"{"a":1}"#)]);
    peer.permit(2);
    peer.expect([taken(r#"{"a":1}"#), taken(r#"{"b":2}"#), later("<end>")]);
    peer.permit(1);
    peer.expect([taken("<end>"), Seen::Closed(CloseReason::Broken)]);
}

#[test]
fn a_hang_up_is_reported_once() {
    let server = TestServer::start(1, settings(), ignore);
    let peer = server.connect();
    peer.hold();
    peer.link.hang_up();
    peer.link.hang_up();
    peer.expect([Seen::HangUp, later("<end>")]);
    peer.link.post(Note::Text("now".into()));
    peer.expect([note("now"), later("<end>")]);
    let (link, seen) = peer.reset();
    link.post(Note::Permit(1));
    expect(&seen, [taken("<end>"), Seen::Closed(CloseReason::Broken)]);
}

/// A client that floods the server may be hung up meanwhile, and must not survive by flooding.
#[test]
fn a_flood_does_not_outlive_a_hang_up() {
    let server = TestServer::start(1, settings(), ignore);
    let Peer { mut socket, link, seen } = server.connect();
    let flooding = thread::spawn(move || while socket.write_all(&b"{}".repeat(10_000)).is_ok() {});
    expect(&seen, [taken("{}")]);
    link.hang_up();
    // Holding the link would keep its socket: the flood would not see the end.
    drop(link);
    let end = std::iter::repeat_with(|| next(&seen)).find(|seen| matches!(seen, Seen::Closed(_)));
    assert_eq!(end, Some(Seen::Closed(CloseReason::Broken)));
    flooding.join().expect("the flood ends with the connection");
}

/// The flood is counted from the moment when the other client has written its one frame: the loop's
/// thread itself writes it, in the middle of the flood, again and again.
#[test]
fn a_flood_does_not_starve_another_client() {
    const FRAME_BYTES: usize = 100;
    /// The rest of one turn and the whole of the next: each may read 256 KiB and what is left over
    /// of a read.
    const TURNS_BYTES_MAX: usize = 2 * (256 + 64) * 1024;
    const ROUNDS: usize = 40;

    let other = Arc::new(Mutex::new(None::<TcpStream>));
    let (flooded, waiting) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worst = Arc::new(AtomicUsize::new(0));
    let react = {
        let (other, worst) = (other.clone(), worst.clone());
        move |_: &mut _, _: &Arc<_>, incoming: Incoming<'_>| match incoming {
            Incoming::Frame(b"{}") => {
                waiting.store(false, Ordering::Relaxed);
                worst.fetch_max(flooded.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            }
            _ if waiting.load(Ordering::Relaxed) => {
                flooded.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                if let Some(socket) = &mut *other.lock().expect("no panic") {
                    socket.write_all(b"{}").expect("the server reads");
                    waiting.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let server = TestServer::start_with(1, settings(), react, roomy);
    let flood = server.connect();
    let single = server.connect();
    *other.lock().expect("no panic") = Some(single.socket.try_clone().expect("a descriptor"));
    let mut socket = flood.socket.try_clone().expect("a descriptor");
    let frames = format!(r#"{{"a":{}}}"#, "1".repeat(FRAME_BYTES - 6)).repeat(10_000);
    let flooding = thread::spawn(move || while socket.write_all(frames.as_bytes()).is_ok() {});
    for _ in 0..ROUNDS {
        single.expect([taken("{}")]);
    }
    flood.socket.shutdown(Shutdown::Both).expect("connected");
    flooding.join().expect("the flood ends");
    let worst = worst.load(Ordering::Relaxed) * FRAME_BYTES;
    assert!(worst <= TURNS_BYTES_MAX, "{worst} bytes of the flood came first");
}

/// The end of a broken connection may be found by the poll, by a write or by a read: the calls are
/// the same.
#[test]
fn a_reset_is_reported_once_and_before_the_end_however_it_is_found() {
    let victim = Arc::new(Mutex::new(None::<TcpStream>));
    let react = {
        let victim = victim.clone();
        move |_: &mut _, _: &Arc<_>, _: Incoming<'_>| drop(victim.lock().expect("no panic").take())
    };
    let server = TestServer::start_with(1, settings(), react, roomy);
    for found_by in ["poll", "write", "read"] {
        let mut peer = server.connect();
        let gate = Gate::close(&peer.link);
        // The loop reads it with full reads, of which the last does not show that the socket is
        // empty.
        peer.write(&r#"{"a":1} "#.repeat(64 * 1024 / 8));
        peer.wait_until_unread(64 * 1024);
        let Peer { socket, link, seen } = peer;
        SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("an option");
        // Dropping the socket resets the connection; the handler does it after the poll and before
        // the last read.
        *victim.lock().expect("no panic") = (found_by == "read").then(|| socket.try_clone().expect("a descriptor"));
        drop(socket);
        if found_by == "write" {
            link.send(&mut Turn::new(), b"{}", Fate::Drop).expect("nobody knows of the reset yet");
        }
        drop(gate);
        let tale: Vec<_> =
            std::iter::repeat_with(|| next(&seen)).take_while(|s| !matches!(s, Seen::Closed(_))).collect();
        let frames = tale.iter().filter(|seen| **seen == taken(r#"{"a":1}"#)).count();
        let hang_ups = tale.iter().filter(|seen| **seen == Seen::HangUp).count();
        assert_eq!((frames, hang_ups, tale.last()), (8192, 1, Some(&taken("<end>"))), "found by a {found_by}");
    }
}

/// The kernel still has to send a part of the reply when the loop has finished with the connection;
/// a reset, which unread bytes would cause, would discard it.
#[test]
fn the_last_reply_outlives_the_connection_though_much_was_unread() {
    let react = |turn: &mut Turn<Note>, link: &Arc<Link<Note>>, _: Incoming<'_>| {
        link.send(turn, &[b'x'; 200_000], Fate::Drop).expect("it is open");
    };
    let settings = Settings { frame_bytes_max: 1000, ..settings() };
    let server = TestServer::start_with(1, settings, react, |socket| {
        socket.set_send_buffer_size(1024 * 1024).expect("an option");
        roomy(socket);
    });
    let mut peer = server.connect();
    let gate = Gate::close(&peer.link);
    peer.socket.set_nonblocking(true).expect("an option");
    // More than the loop reads in a turn, so that it notices the client's end before it has read
    // everything.
    let written = peer.socket.write(&[br#"{"a":""#.as_slice(), &[b'x'; 1024 * 1024]].concat()).expect("there is room");
    peer.socket.set_nonblocking(false).expect("an option");
    peer.end();
    peer.wait_until_unread(written);
    drop(gate);
    let Peer { mut socket, link, seen } = peer;
    expect(&seen, [taken("<oversize>"), Seen::Closed(CloseReason::Oversize)]);
    // The test's link is the last: the loop has finished with the connection.
    wait_until(|| Arc::strong_count(&link) == 1);
    drop(link);
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).expect("an end, not a reset");
    assert_eq!(reply.len(), 200_000);
}

#[test]
fn a_frame_for_a_lingering_connection_comes_back_and_does_not_break_it() {
    let settings = Settings { frame_bytes_max: 1000, ..settings() };
    let server = TestServer::start(1, settings, echo);
    let mut peer = server.connect();
    peer.write(&format!(r#"{{"a":"{}"#, "x".repeat(1001)));
    assert_eq!(peer.rest(), "<oversize>");
    peer.send("{}", Fate::Return(Label::of(5))).expect("the connection is still there");
    peer.write("more");
    peer.end();
    assert_eq!(server.astray(), Astray::Unsent(5, "{}".into()));
    assert_eq!(peer.rest(), "", "no reset");
}

/// Gives a connection a receive buffer that holds more than a loop reads from it in one turn.
fn roomy(socket: SockRef<'_>) {
    socket.set_recv_buffer_size(4 * 1024 * 1024).expect("an option");
}

/// Occupies the loop's thread until the test releases it: what is sent meanwhile has arrived when
/// the loop reads.
fn pause_the_loop(peer: &Peer) -> std::sync::mpsc::Sender<()> {
    let (go_on, wait) = std::sync::mpsc::channel();
    let (paused, has_paused) = std::sync::mpsc::channel();
    peer.link.post(Note::Run(Box::new(move |_| {
        paused.send(()).expect("the test waits");
        wait.recv().expect("the test goes on");
    })));
    has_paused.recv_timeout(crate::kit::PATIENCE).expect("the loop pauses");
    go_on
}

#[test]
fn an_urgent_byte_hides_nothing_of_what_is_behind_it() {
    let server = TestServer::start(1, settings(), ignore);
    for _ in 0..5 {
        let mut peer = server.connect();
        peer.write("{}");
        peer.expect([taken("{}")]);
        let go_on = pause_the_loop(&peer);
        peer.write(r#"{"before":1}"#);
        SockRef::from(&peer.socket).send_out_of_band(b"!").expect("one byte has room");
        peer.write(r#"{"behind":1}"#);
        go_on.send(()).expect("the loop waits");
        peer.expect([taken(r#"{"before":1}"#), taken(r#"{"behind":1}"#)]);
    }
}

#[test]
fn a_beginning_that_turns_out_to_be_no_method_is_garbage_as_ever() {
    let server = TestServer::start(1, settings(), echo);
    let mut peer = server.connect();
    peer.write("PO");
    peer.write("ST{}");
    peer.expect_bytes("<garbage>{}");
    let soon = Settings { frame_timeout: Duration::from_millis(50), ..settings() };
    let server = TestServer::start(1, soon, echo);
    let mut peer = server.connect();
    peer.write("P");
    peer.expect_bytes("<garbage>");
    peer.write(r#"{"a":1}GET / {"b":2}"#);
    peer.expect_bytes(r#"{"a":1}<garbage>{"b":2}"#);
    let mut peer = server.connect();
    peer.write("G");
    peer.end();
    peer.expect_bytes("<garbage>");
}
