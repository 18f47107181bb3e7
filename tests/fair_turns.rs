//! Greedy clients beside a quiet pair on one event loop. The pair is answered while input of the
//! greedy clients waits, and the loop reports itself alive. The speed of the pair is printed but
//! not asserted, because it depends on the machine.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::SockRef;
use testkit::{
    LONG_PATIENCE, NOBODY, SetOnDrop, TestClient, TestServer, numbered, password, raise_descriptor_limit, user,
    wait_until,
};

/// The number of messages that the quiet pair exchanges in each direction.
const ROUNDS: usize = 50;

/// The longest allowed frame, of the type that is most expensive.
fn heavy_frame(from: i64) -> String {
    let (pairs, text) = (vec![[1, 2]; 5500], "x".repeat(30_000));
    json!({"msgType": 100, "FROMID": from, "TOID": NOBODY, "pairs": pairs, "msg": text}).to_string()
}

/// A cheaper long frame, for use in large numbers.
fn long_frame() -> String {
    json!({"msgType": 100, "FROMID": 1, "TOID": NOBODY, "msg": "x".repeat(60_000)}).to_string()
}

fn frames_of_the_greedy(server: &TestServer) -> usize {
    let metrics = server.metrics();
    let count = metrics.lines().find_map(|line| line.strip_prefix("raybox_frames_total{type=\"100\"} "));
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// Keeps these connections full of this frame and reads their replies, until `is_over`. Returns how
/// often a connection took more bytes.
fn flood(mut streams: Vec<TcpStream>, frame: &[u8], is_flooding: &Barrier, is_over: &AtomicBool) -> usize {
    let mut begun: Vec<usize> = vec![0; streams.len()];
    let mut taken = 0;
    let mut replies = [0; 4096];
    for stream in &streams {
        stream.set_nonblocking(true).expect("an option");
        // Large enough to be greedy, without taking all the memory of the kernel.
        SockRef::from(stream).set_send_buffer_size(64 * 1024).expect("an option");
    }
    let mut first = true;
    while !is_over.load(Ordering::Relaxed) {
        let mut idle = true;
        for (stream, at) in streams.iter_mut().zip(&mut begun) {
            match stream.write(&frame[*at..]) {
                Ok(count) => {
                    *at = (*at + count) % frame.len();
                    idle = false;
                    taken += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the server closed a greedy connection: {error}"),
            }
            let _ = stream.read(&mut replies);
        }
        if std::mem::take(&mut first) {
            is_flooding.wait();
        }
        if idle {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    taken
}

/// Lets a pair chat while `streams` are kept full of `frame`, and checks that the loop is alive.
/// `beside` runs at the end.
fn chat_beside(server: &TestServer, what: &str, streams: Vec<TcpStream>, frame: &str, beside: impl FnOnce()) {
    const FLOODERS: usize = 4;
    let (mut left, l) = user(server, "quiet left");
    let (mut right, r) = user(server, "quiet right");
    left.set_patience(LONG_PATIENCE);
    right.set_patience(LONG_PATIENCE);
    let (is_over, is_flooding, taken) = (AtomicBool::new(false), Barrier::new(FLOODERS + 1), AtomicUsize::new(0));
    let mut shares: Vec<Vec<TcpStream>> = (0..FLOODERS).map(|_| Vec::new()).collect();
    let connections = streams.len();
    streams.into_iter().enumerate().for_each(|(nth, stream)| shares[nth % FLOODERS].push(stream));
    thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        for share in shares {
            let (is_over, is_flooding, taken) = (&is_over, &is_flooding, &taken);
            scope.spawn(move || {
                let count = flood(share, frame.as_bytes(), is_flooding, is_over);
                taken.fetch_add(count, Ordering::Relaxed);
            });
        }
        is_flooding.wait();
        let mut times: Vec<Duration> = Vec::new();
        let before = frames_of_the_greedy(server);
        for n in 0..ROUNDS {
            let begun = Instant::now();
            left.send(&numbered(l, r, n));
            right.expect(&numbered(l, r, n));
            right.send(&numbered(r, l, n));
            left.expect(&numbered(r, l, n));
            times.push(begun.elapsed());
            if n % 10 == 0 {
                assert!(server.is_alive(), "the loop gave no sign of life beside {what}");
            }
        }
        // A turn that served every connection once would handle several frames of each greedy one
        // in each round.
        let frames = (frames_of_the_greedy(server) - before) / ROUNDS;
        println!("beside {what}: {frames} of their frames in each round");
        assert!(frames < connections * 4, "the pair waited for all of {what}");
        // A client that sends a request is answered, too.
        left.barrier();
        beside();
        drop(over);
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!("beside {what}: p50 {:?}, p99 {:?} for there and back", at(50), at(99));
    });
    assert!(taken.into_inner() > 0, "nobody was greedy");
}

fn stands_still(server: &TestServer) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("list the threads");
    let mut states = threads.map(|thread| fs::read_to_string(thread.expect("a thread").path().join("status")));
    states.all(|status| status.is_ok_and(|status| status.contains("State:\tT")))
}

/// A frame for thousands of members is delivered to some of them at a time. Frames of other clients
/// are served in between. Later frames of the same sender are not.
#[test]
fn a_frame_for_a_large_group_lets_others_pass_and_nothing_of_its_sender() {
    const MEMBERS: usize = 5000;
    let server = TestServer::builder().option("loops", "1").start();
    let (mut greedy, g) = user(&server, "greedy");
    let (mut quiet, q) = user(&server, "quiet");
    let group = greedy.create_group(g, "large");
    server.run_sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 100 + {MEMBERS})
         INSERT INTO User (id, name, name_key, password) SELECT i, 'user ' || i, 'user ' || i, '' FROM n;
         INSERT INTO GroupUser (groupid, userid, grouprole) SELECT {group}, id, 'normal' FROM User WHERE id >= 100"
    ));
    // Members are served in the order of their ids, so this one is the last.
    let (mut last, l) = user(&server, "last");
    assert!(l > 100);
    last.join_group(l, group);
    let message = |nth: i64| json!({"msgType": 9, "FROMID": g, "GROUPID": group, "msg": "x".repeat(2000), "n": nth});
    // This message makes the node load the members.
    greedy.send(&message(0));
    last.expect(&message(0));
    greedy.barrier();
    // While the server is frozen, both frames arrive, the large one first.
    server.stop();
    wait_until("every thread stands still", || stands_still(&server));
    greedy.send(&message(1));
    greedy.send(&numbered(g, l, 2));
    quiet.send(&numbered(q, l, 3));
    server.cont();
    last.expect(&numbered(q, l, 3));
    last.expect(&message(1));
    last.expect(&numbered(g, l, 2));
    greedy.barrier();
    assert_eq!(server.stored(), 2 * (MEMBERS + 1));
}

#[test]
fn many_connections_of_one_user_do_not_keep_others_waiting() {
    let server = TestServer::builder().option("loops", "1").option("admin", "127.0.0.1:0").start();
    let (mut greedy, id) = user(&server, "greedy");
    let streams = (0..20).map(|_| {
        let mut client = TestClient::connect(&server);
        client.login(id, &password("greedy"));
        client.into_stream()
    });
    // The frames name another user as sender, so the server refuses them before it rewrites them.
    chat_beside(&server, "20 connections of one user", streams.collect(), &heavy_frame(id + 1), || {
        // A new client is accepted.
        TestClient::connect(&server).barrier();
    });
    greedy.barrier();
}

#[test]
fn many_strangers_do_not_keep_others_waiting() {
    const STRANGERS: usize = 600;
    raise_descriptor_limit(std::process::id(), 2 * STRANGERS);
    let server = TestServer::builder().option("loops", "1").option("admin", "127.0.0.1:0").start();
    raise_descriptor_limit(server.pid(), 2 * STRANGERS);
    let streams = (0..STRANGERS).map(|_| TcpStream::connect(server.address()).expect("connect to the server"));
    chat_beside(&server, "600 strangers", streams.collect(), &long_frame(), || ());
}
