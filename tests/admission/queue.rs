//! Logins and registrations that wait for a hasher.

use serde_json::json;
use testkit::{LONG_PATIENCE, StoreLock, TestClient};

use crate::{behind_proxy, counting, from, refused};

#[test]
fn a_full_queue_of_logins_says_when_to_come_again() {
    let builder = counting().option("hashers", "1").option("logins_max", "1");
    // A password takes long enough for all requests to arrive while the first one is being hashed.
    let server = builder.option("argon2", "m=65536,t=2,p=1").option("login_failures", "off").start();
    let mut clients: Vec<TestClient> = (0..12).map(|_| TestClient::connect(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.set_patience(LONG_PATIENCE);
        client.send(&match n % 2 {
            0 => json!({"msgType": 2, "name": format!("user {n}"), "password": "x"}),
            _ => json!({"msgType": 1, "USERID": 1, "password": format!("wrong {n}")}),
        });
    }
    let mut later = 0;
    for client in &mut clients {
        let reply = client.recv();
        if reply["errno"] == 503 {
            let text = reply.to_string();
            assert!(text.starts_with(r#"{"errmsg":""#), "{text}");
            assert!((1..=60).contains(&reply["retryAfter"].as_u64().unwrap_or(0)), "{text}");
            later += 1;
        }
        client.ack_barrier();
    }
    assert!(later > 0, "with one place in the queue somebody must be refused");
    assert!((refused(&server, "logins_max") - f64::from(later)).abs() < 0.1);
    clients[0].register("there is room again", "x");
}

#[test]
fn a_client_from_elsewhere_does_not_wait_for_all_that_one_address_has_in_the_queue() {
    let builder = behind_proxy().option("loops", "1").option("hashers", "1").option("logins_max", "20");
    let server = builder.start();
    let come = |address: &str| {
        let mut client = from(&server, address);
        client.ack_barrier();
        client
    };
    let mut others: Vec<TestClient> = (0..5).map(|_| come("203.0.113.7")).collect();
    let (mut client, mut watcher) = (come("203.0.113.8"), come("203.0.113.9"));
    // The first request occupies the hasher until the store can write. The ids of the new accounts
    // then show the order.
    let lock = StoreLock::take(&server);
    let mut nth = 0;
    let mut register = |client: &mut TestClient| {
        nth += 1;
        client.send(&json!({"msgType": 2, "name": format!("user {nth}"), "password": "x"}));
        watcher.ack_barrier();
    };
    others.iter_mut().for_each(&mut register);
    register(&mut client);
    drop(lock);
    let id = |client: &mut TestClient| client.recv()["USERID"].as_i64().expect("an account");
    let ids: Vec<i64> = others.iter_mut().map(id).collect();
    assert!(ids.is_sorted(), "those of one address in the order in which they came: {ids:?}");
    let own = id(&mut client);
    assert!(own < ids[2], "after one of the other address that waited: {own} and {ids:?}");
}
