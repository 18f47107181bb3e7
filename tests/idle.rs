//! Thousands of clients are logged in and silent. The test measures the cost of each, and checks
//! that all of it is released.
//!
//! `IDLE_CONNECTIONS` sets the number of connections, and `IDLE_USERS` the number of their users.
//! More than 14,000 connections use two addresses of the loopback interface, because each
//! connection to one address needs a port of its own.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process;

use testkit::{LONG_PATIENCE, TestClient, TestServer};
use testkit::{chat, offline_user, password, raise_descriptor_limit, wait_until, wait_within};

const CONNECTIONS: usize = 2_000;
const CONNECTIONS_PER_ADDRESS: usize = 14_000;
const USERS: usize = 100;

/// A generous bound; the measured value is printed.
const MEMORY_PER_CONNECTION_MAX: usize = 2 * 1024;

#[test]
fn idle_connections_are_cheap_and_leave_nothing_behind() {
    let connections = number("IDLE_CONNECTIONS", CONNECTIONS);
    let count_of_users = number("IDLE_USERS", USERS);
    let needed = connections + 200;
    raise_descriptor_limit(process::id(), needed);
    let server = TestServer::builder().host("0.0.0.0").start();
    raise_descriptor_limit(server.pid(), needed);
    let sockets_at_rest = server.sockets();
    let users: Vec<i64> = (0..count_of_users).map(|n| offline_user(&server, &name(n))).collect();
    // One round comes first, so that one-time allocations are not counted.
    for (n, id) in users.iter().enumerate() {
        connect(&server, n, n, *id);
    }
    wait_until("the first ones are gone", || server.sockets() == sockets_at_rest);
    let descriptors_at_rest = server.descriptors();
    let before = Memory::of(&server);

    let mut clients: Vec<TestClient> =
        (0..connections).map(|n| connect(&server, n, n % count_of_users, users[n % count_of_users])).collect();
    let after = Memory::of(&server);
    let per_connection = |before: usize, after: usize| after.saturating_sub(before) / connections.max(1);
    let resident = per_connection(before.resident, after.resident);
    let heap = per_connection(before.heap, after.heap);
    // Written to stderr directly, so that the numbers appear although the test passes.
    let line = format!("{connections} idle connections: {resident} bytes resident and {heap} bytes of heap for each");
    writeln!(io::stderr(), "{line}").expect("print the result");
    assert!(resident <= MEMORY_PER_CONNECTION_MAX, "{resident} bytes for each connection");

    // All connections are still open. A message reaches the newest one of its user.
    let (first, last) = (0, connections - 1);
    let to = users[last % count_of_users];
    clients[first].send(&chat(users[first], to, "awake?"));
    clients[first].barrier();
    assert_eq!(clients[last].recv_pushes().len(), 1);
    for client in &mut clients {
        client.ack_barrier();
    }
    drop(clients);
    wait_all_offline(&server);
    wait_within(LONG_PATIENCE, "all descriptors are closed", || {
        server.sockets() == sockets_at_rest && server.descriptors() <= descriptors_at_rest
    });
}

/// A logged-in connection with the number `n`.
fn connect(server: &TestServer, n: usize, user: usize, id: i64) -> TestClient {
    let host = if n < CONNECTIONS_PER_ADDRESS { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 0, 0, 2) };
    let mut client = TestClient::connect_to(SocketAddr::from((host, server.address().port())));
    client.set_patience(LONG_PATIENCE);
    client.login(id, &password(&name(user)));
    client
}

fn number(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
        Err(_) => default,
    }
}

fn name(user: usize) -> String {
    format!("user {user}")
}

fn wait_all_offline(server: &TestServer) {
    wait_within(LONG_PATIENCE, "all are offline", || {
        server.count("SELECT count(*) FROM User WHERE state = 'online'") == 0
    });
}

/// The server's memory in bytes, as the kernel reports it.
struct Memory {
    resident: usize,
    heap: usize,
}

impl Memory {
    fn of(server: &TestServer) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("read /proc/PID/status");
        let resident = kilobytes(&status, "VmRSS:");
        let maps = fs::read_to_string(format!("/proc/{}/smaps", server.pid())).expect("read /proc/PID/smaps");
        // Private pages without a file: the heap, and stacks, which do not grow with connections.
        let heap =
            maps.lines().filter(|line| line.starts_with("Anonymous:")).map(|line| kilobytes(line, "Anonymous:")).sum();
        Memory { resident, heap }
    }
}

/// The value of the line that starts with `key`, in bytes.
fn kilobytes(text: &str, key: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
    let value = line.trim().trim_end_matches("kB").trim();
    value.parse::<usize>().unwrap_or_else(|error| panic!("{error}: {line}")) * 1024
}
