//! A turn has a budget, and waiting connections have shares: however many connections keep a loop
//! busy, a quiet one waits for a few items only. All input has arrived before the loop reads it, so
//! the order is the loop's own.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use crate::kit::{Note, PATIENCE, Peer, TestServer, settings, text_of, wait_until};
use net::{Incoming, Link, Turn};

/// The frames of each greedy connection: a few slices.
const FRAMES: usize = 16;

/// Stops the loop of this connection when it opens its letters, until the sender is used.
fn stop_at_letters(peer: &Peer) -> (Receiver<()>, Sender<()>) {
    let (go_on, wait) = mpsc::channel();
    let (stopped, has_stopped) = mpsc::channel();
    peer.link.post(Note::Run(Box::new(move |_| {
        stopped.send(()).expect("the test waits");
        wait.recv().expect("the test goes on");
    })));
    (has_stopped, go_on)
}

/// `greedy` connections of one share have sent frames, and a quiet one sends while the loop serves
/// them. Returns the items that the loop had served then, and those it served before the quiet
/// one's.
fn items_before_the_quiet(greedy: usize) -> (usize, usize) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let react = move |_: &mut Turn<Note>, _: &Arc<Link<Note>>, incoming: Incoming<'_>| {
        seen.lock().expect("no panic").push(text_of(incoming).contains("quiet"));
    };
    let server = TestServer::start(1, settings(), react);
    let mut peers: Vec<Peer> = (0..greedy).map(|_| server.connect()).collect();
    peers.iter().for_each(|peer| peer.link.set_share(1));
    let mut quiet = server.connect();
    quiet.link.set_share(2);

    let (stopped, go_on) = stop_at_letters(&quiet);
    stopped.recv_timeout(PATIENCE).expect("the loop stops");
    let frame = format!("{{\"greedy\":\"{}\"}}", "x".repeat(1000));
    for peer in &mut peers {
        peer.socket.write_all(frame.repeat(FRAMES).as_bytes()).expect("it has room");
    }
    let (stopped, go_on_again) = stop_at_letters(&quiet);
    go_on.send(()).expect("the loop waits");
    stopped.recv_timeout(PATIENCE).expect("letters are opened in every turn");
    let before = order.lock().expect("no panic").len();
    quiet.write(r#"{"quiet":1}"#);
    go_on_again.send(()).expect("the loop waits");
    let position = || order.lock().expect("no panic").iter().position(|quiet| *quiet);
    wait_until(|| position().is_some());
    (before, position().expect("it was waited for") - before)
}

#[test]
fn a_quiet_connection_waits_for_few_items_of_however_many_greedy_ones() {
    for greedy in [40, 600] {
        let (before, meanwhile) = items_before_the_quiet(greedy);
        println!("{greedy} greedy connections: {before} items in their first turn, {meanwhile} before the quiet one's");
        assert!(before < greedy * FRAMES, "one turn took all that {greedy} connections had sent");
        assert!(meanwhile <= FRAMES, "{meanwhile} items of {greedy} connections went before the quiet one's");
    }
}

#[test]
fn everybody_is_served_in_the_end() {
    let taken = Arc::new(Mutex::new(0));
    let count = taken.clone();
    let react = move |_: &mut Turn<Note>, _: &Arc<Link<Note>>, incoming: Incoming<'_>| {
        *count.lock().expect("no panic") += usize::from(matches!(incoming, Incoming::Frame(_)));
    };
    let server = TestServer::start(1, settings(), react);
    let mut peers: Vec<Peer> = (0..50).map(|_| server.connect()).collect();
    for (nth, peer) in peers.iter_mut().enumerate() {
        peer.link.set_share(nth as u64 % 7);
        peer.socket.write_all("{}\n".repeat(2000).as_bytes()).expect("the server reads");
    }
    wait_until(|| *taken.lock().expect("no panic") == 50 * 2000);
}

/// Blanks need no answer, but reading them takes time.
#[test]
fn bytes_that_are_not_items_end_a_turn_too() {
    const GREEDY: usize = 200;
    const BLANKS: usize = 60_000;
    let shown = Arc::new(Mutex::new(0));
    let count = shown.clone();
    let react = move |_: &mut Turn<Note>, _: &Arc<Link<Note>>, incoming: Incoming<'_>| {
        if let Incoming::Blanks { len } = incoming {
            *count.lock().expect("no panic") += len;
        }
    };
    let server = TestServer::start(1, settings(), react);
    let mut peers: Vec<Peer> = (0..GREEDY).map(|_| server.connect()).collect();
    peers.iter().for_each(|peer| peer.link.set_share(1));
    let quiet = server.connect();
    let (stopped, go_on) = stop_at_letters(&quiet);
    stopped.recv_timeout(PATIENCE).expect("the loop stops");
    for peer in &mut peers {
        peer.socket.write_all(" ".repeat(BLANKS).as_bytes()).expect("it has room");
    }
    let (stopped, go_on_again) = stop_at_letters(&quiet);
    go_on.send(()).expect("the loop waits");
    stopped.recv_timeout(PATIENCE).expect("letters are opened in every turn");
    let in_one_turn = *shown.lock().expect("no panic");
    println!("{in_one_turn} of {} bytes in one turn", GREEDY * BLANKS);
    assert!(in_one_turn < GREEDY * BLANKS / 2);
    go_on_again.send(()).expect("the loop waits");
    // A few blanks of each may wait for more.
    wait_until(|| *shown.lock().expect("no panic") >= GREEDY * (BLANKS - 4096));
}
