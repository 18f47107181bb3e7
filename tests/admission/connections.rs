//! Too many connections, in all and from one address.

use serde_json::json;
use testkit::{TestClient, user, wait_until};

use crate::{PING, behind_proxy, complaints, counting, from, header_of, refused};

#[test]
fn a_connection_beyond_the_limit_gets_a_reason_and_is_closed() {
    let server = counting().option("max_connections", "2").start();
    // Both are logged in, because a connection without a login would be closed to make room.
    let (mut first, _) = user(&server, "first");
    let (mut second, _) = user(&server, "second");
    for _ in 0..20 {
        let mut third = TestClient::connect(&server);
        third.expect_refusal(429);
        third.expect_eof();
    }
    assert!((refused(&server, "max_connections") - 20.0).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "max_connections") > 0);
    assert_eq!(complaints(&server, "max_connections"), 1, "and not for each of them");
    first.barrier();
    second.barrier();
    // A connection that ends makes room for another one.
    drop(first);
    wait_until("there is room", || {
        let mut next = TestClient::connect(&server);
        next.try_send(&json!({"msgType": 200})) && next.recv()["errno"] == 200
    });
}

#[test]
fn a_connection_without_a_login_makes_room_and_the_log_names_the_limit() {
    let server = counting().option("max_connections", "4").start();
    // They connect one after the other, so that the first is the oldest.
    let mut strangers: Vec<_> = (0..3)
        .map(|_| {
            let mut stranger = TestClient::connect(&server);
            stranger.ack_barrier();
            stranger
        })
        .collect();
    let mut newcomer = TestClient::connect(&server);
    newcomer.ack_barrier();
    strangers[0].expect_refusal(429);
    strangers[0].expect_eof();
    wait_until("the log says so", || complaints(&server, "max_connections") == 1);
    assert!((refused(&server, "max_connections") - 1.0).abs() < 0.1);
    assert!(refused(&server, "descriptors").abs() < 0.1, "there are enough of them");
    strangers[1].ack_barrier();
}

#[test]
fn the_addresses_that_a_proxy_tells_count_apart_and_ipv6_by_network() {
    let server = behind_proxy().option("connections_per_address", "2").start();
    let enter = |address| {
        let mut client = from(&server, address);
        client.send_text(PING);
        let reply = client.recv();
        (reply["errno"] == 200).then_some(client)
    };
    let mut clients = Vec::new();
    for address in
        ["203.0.113.7", "203.0.113.7", "203.0.113.8", "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"]
    {
        clients.push(enter(address).unwrap_or_else(|| panic!("{address} may come in")));
    }
    for address in ["203.0.113.7", "2001:db8:1:2::5"] {
        assert!(enter(address).is_none(), "{address} has enough");
    }
    assert!((refused(&server, "connections_per_address") - 2.0).abs() < 0.1);
    assert!(enter("203.0.113.8").is_some());
    drop(clients.remove(0));
    wait_until("there is room", || enter("203.0.113.7").is_some());
}

#[test]
fn a_connection_that_waits_for_its_proxy_header_counts() {
    const MAX: usize = 20;
    // A single loop accepts them in the order in which they connect.
    let builder = behind_proxy().option("loops", "1").option("max_connections", &MAX.to_string());
    let server = builder.option("frame_timeout", "1h").start();
    let mut silent: Vec<TestClient> = (0..MAX).map(|_| TestClient::connect(&server)).collect();
    let expect_full = || {
        let mut client = TestClient::connect(&server);
        client.expect_refusal(429);
        client.expect_eof();
    };
    (0..5).for_each(|_| expect_full());
    assert!((refused(&server, "max_connections") - 5.0).abs() < 0.1);
    assert!((server.metric(r#"raybox_connections_open{loop="0"}"#) - MAX as f64).abs() < 0.1);
    wait_until("the log says so", || complaints(&server, "max_connections") == 1);
    // The header turns a waiting connection into a client, which is not counted twice. A logged-in
    // connection does not make room.
    silent[0].send_raw(header_of("203.0.113.7").as_bytes());
    let alice = silent[0].register("alice", "secret");
    silent[0].login(alice, "secret");
    expect_full();
    // A client that gives up makes room, whether its header has arrived or not.
    for _ in 0..2 {
        drop(silent.remove(0));
        wait_until("there is room", || {
            let mut next = from(&server, "203.0.113.8");
            let is_in = next.try_send(&json!({"msgType": 200})) && next.recv()["errno"] == 200;
            if is_in {
                next.login(alice, "secret");
                silent.push(next);
            }
            is_in
        });
        expect_full();
    }
}

#[test]
fn a_connection_without_a_proxy_header_in_time_makes_room() {
    const MAX: usize = 20;
    let builder = behind_proxy().option("max_connections", &MAX.to_string()).option("frame_timeout", "200ms");
    let server = builder.start();
    for _ in 0..3 {
        let silent: Vec<TestClient> = (0..MAX).map(|_| TestClient::connect(&server)).collect();
        silent.into_iter().for_each(|mut client| {
            // The server closes it because its header did not come, or because earlier ones still
            // occupy their places.
            client.read_to_end();
        });
    }
    wait_until("there is room", || {
        let mut next = from(&server, "203.0.113.8");
        next.try_send(&json!({"msgType": 200})) && next.recv()["errno"] == 200
    });
}

#[test]
fn a_client_that_is_not_a_proxy_counts_for_its_address_before_it_says_anything() {
    let builder = behind_proxy().option("proxy_from", "127.0.0.9").option("loops", "1").option("frame_timeout", "1h");
    let server = builder.option("connections_per_address", "2").start();
    let mut silent = [TestClient::connect(&server), TestClient::connect(&server)];
    let mut third = TestClient::connect(&server);
    third.expect_refusal(429);
    third.expect_eof();
    silent.iter_mut().for_each(TestClient::ack_barrier);
}
