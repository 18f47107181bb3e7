//! The messages that are lost when a node is killed: it has acknowledged them, but they are only in
//! its memory, because the recipient's connection has not taken them yet. No server can close this
//! window at level 1, where recipients do not acknowledge. These tests measure it. [`level2`] shows
//! that level 2 closes it.
//!
//! `WINDOW_TRIES=n` sets how often each node is killed (5).

mod level2;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::schedule::Dice;
use crate::{number, say};
use testkit::{Cluster, LONG_PATIENCE, SetOnDrop, TestClient};
use testkit::{login, number_of, numbered_with_text, offline_user, password, wait_within};

#[test]
fn a_killed_node_loses_next_to_nothing_of_recipients_who_read() {
    const RECIPIENTS: usize = 8;
    let mut cluster = cluster();
    let tries = number("WINDOW_TRIES").unwrap_or(TRIES);
    let mut dice = Dice::new(number("CHAOS_SEED").unwrap_or(1));
    let (mut settled, mut lost, mut most) = (0, 0, 0);
    for attempt in 0..tries {
        let names: Vec<String> = (0..RECIPIENTS).map(|n| format!("reader {attempt} {n}")).collect();
        let ids: Vec<i64> = names.iter().map(|name| offline_user(&cluster.nodes[0], name)).collect();
        let addresses = cluster.addresses();
        let stop = AtomicBool::new(false);
        let (stop, ids) = (&stop, &ids);
        let (acknowledged, read): (Vec<Vec<usize>>, Vec<Vec<usize>>) = thread::scope(|scope| {
            let stop_at_the_end = SetOnDrop(stop);
            let readers: Vec<_> =
                names.iter().zip(ids).map(|(name, id)| login(&cluster.nodes[VICTIM], name, *id)).collect();
            let readers: Vec<_> =
                readers.into_iter().map(|mut client| scope.spawn(move || read_to_end(&mut client))).collect();
            // Every other sender is on the node that is killed, and gets its acknowledgements from
            // there.
            let senders: Vec<_> = (0..RECIPIENTS)
                .map(|n| {
                    let name = format!("writer {attempt} {n}");
                    let id = offline_user(&cluster.nodes[0], &name);
                    let to = ids[n];
                    let node = addresses[if n % 2 == 0 { VICTIM } else { 1 - VICTIM }];
                    scope.spawn(move || write(node, &name, id, to, stop))
                })
                .collect();
            thread::sleep(Duration::from_millis(dice.between(200, 600)));
            cluster.nodes[VICTIM].kill9();
            drop(stop_at_the_end);
            let acknowledged = senders.into_iter().map(|sender| sender.join().expect("a sender")).collect();
            (acknowledged, readers.into_iter().map(|reader| reader.join().expect("a reader")).collect())
        });
        let mut lost_now = 0;
        for (n, id) in ids.iter().enumerate() {
            let mut come: HashSet<usize> = read[n].iter().copied().collect();
            come.extend(login(&cluster.nodes[1 - VICTIM], &names[n], *id).fetch_all(*id).iter().map(number_of));
            settled += acknowledged[n].len();
            lost_now += acknowledged[n].iter().filter(|number| !come.contains(number)).count();
        }
        lost += lost_now;
        most = most.max(lost_now);
        cluster.nodes[VICTIM].restart();
    }
    say(&format!(
        "a node killed {tries} times under the traffic of {RECIPIENTS} recipients who read: {settled} messages acknowledged, \
         {lost} lost, at most {most} at a time"
    ));
    // A recipient's connection holds less than this. If the recipient reads, it holds next to
    // nothing.
    assert!(most <= RECIPIENTS * OUTPUT_MAX / TEXT, "{most} at a time");
}

#[test]
fn a_killed_node_loses_at_most_the_output_of_a_recipient_who_does_not_read() {
    let mut cluster = cluster();
    let tries = number("WINDOW_TRIES").unwrap_or(TRIES);
    let mut report = String::new();
    let mut most = 0;
    for attempt in 0..tries {
        // The load grows with each attempt, until the kernel's buffers and the connection's output
        // limit are full.
        let messages = (attempt as usize + 1) * MESSAGES_MAX / tries as usize;
        let (sleeper, writer) = (format!("sleeper {attempt}"), format!("writer {attempt}"));
        let to = offline_user(&cluster.nodes[0], &sleeper);
        let from = offline_user(&cluster.nodes[0], &writer);
        let mut client = connect_with_little_room(cluster.nodes[VICTIM].address());
        client.login(to, &password(&sleeper));
        let mut sender = login(&cluster.nodes[1 - VICTIM], &writer, from);
        sender.set_patience(LONG_PATIENCE);
        for n in 0..messages {
            sender.send(&numbered_with_text(from, to, n, TEXT));
        }
        sender.ack_barrier();
        cluster.nodes[VICTIM].kill9();
        let mut come: HashSet<usize> = read_to_end(&mut client).into_iter().collect();
        let read = come.len();
        let mut back = login(&cluster.nodes[1 - VICTIM], &sleeper, to);
        come.extend(back.fetch_all(to).iter().map(number_of));
        let lost = messages - come.len();
        let frame = numbered_with_text(from, to, messages, TEXT).to_string().len();
        most = most.max(lost * frame);
        report.push_str(&format!(
            "  {messages} messages of {frame} bytes acknowledged: {read} read afterwards, {} stored, {lost} lost ({} KiB)\n",
            come.len() - read,
            lost * frame / 1024
        ));
        cluster.nodes[VICTIM].restart();
    }
    say(&format!(
        "a node killed with messages for a recipient who does not read, output_max {} KiB:\n{report}",
        OUTPUT_MAX / 1024
    ));
    assert!(most <= OUTPUT_MAX + TEXT, "a connection holds at most {OUTPUT_MAX} bytes, and {most} are lost");
}

fn cluster() -> Cluster {
    Cluster::start_with(2, |builder| builder.fixed_port().option("output_max", &OUTPUT_MAX.to_string()))
}

/// Writes until `stop` is set or the connection ends. Returns the numbers that were acknowledged.
fn write(node: SocketAddr, name: &str, from: i64, to: i64, stop: &AtomicBool) -> Vec<usize> {
    let mut client = TestClient::connect_to(node);
    client.set_patience(LONG_PATIENCE);
    client.login(from, &password(name));
    let mut acknowledged = Vec::new();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let numbers = next..next + LOT;
        next = numbers.end;
        let mut bytes = String::new();
        for number in numbers.clone() {
            bytes.push_str(&numbered_with_text(from, to, number, TEXT).to_string());
        }
        bytes.push_str(&json!({"msgType": 200}).to_string());
        let answer = client.try_send_raw(bytes.as_bytes()).then(|| client.recv_within(LONG_PATIENCE)).flatten();
        match answer {
            Some(answer) => assert_eq!(answer, json!({"errno": 200, "msgType": 200})),
            None => break,
        }
        acknowledged.extend(numbers);
    }
    acknowledged
}

fn read_to_end(client: &mut TestClient) -> Vec<usize> {
    let mut numbers = Vec::new();
    wait_within(LONG_PATIENCE, "the end of a connection to a killed node", || {
        while let Some(frame) = client.recv_within(Duration::from_millis(100)) {
            numbers.push(number_of(&frame));
        }
        client.has_ended()
    });
    numbers
}

/// A client whose kernel accepts only little that is not read, so that the server's output fills
/// soon.
fn connect_with_little_room(address: SocketAddr) -> TestClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("set SO_RCVBUF");
    socket.connect(&address.into()).expect("connect to the server");
    TestClient::on(socket.into())
}

/// The node that is killed.
const VICTIM: usize = 1;

const TRIES: u64 = 5;
const LOT: usize = 10;

/// More messages than the kernel accepts for a client that does not read.
const MESSAGES_MAX: usize = 1_400;
const TEXT: usize = 1_000;

/// The `output_max` of these tests.
const OUTPUT_MAX: usize = 256 * 1024;
