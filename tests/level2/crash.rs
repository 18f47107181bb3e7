//! Servers that die while clients send, a database that is unreachable, and slow readers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::people::{pair, with};
use testkit::level2::{Level2Client, LoginAs, Store, assert_agree};
use testkit::{
    Builder, PATIENCE, SetOnDrop, StoreLock, TestClient, TestServer, login, offline_user, password, wait_until,
};

/// A device that writes to conversations until it is stopped, whatever happens to servers.
pub struct Writer<'t> {
    pub name: &'t str,
    pub device: &'t str,
    pub convs: Vec<String>,
    pub store: Store,
    pub sent: usize,
}

impl Writer<'_> {
    /// Writes and reads until `stop`, and then until everything is acknowledged. Each connection
    /// goes to the next node.
    pub fn run(mut self, nodes: &[SocketAddr], stop: &AtomicBool, acked: &AtomicUsize) -> Store {
        for address in nodes.iter().copied().cycle() {
            let (store, has_finished) = self.connection(address, stop, acked);
            self.store = store;
            if has_finished {
                break;
            }
        }
        self.store
    }

    /// One connection. Returns the store afterwards, and whether everything is acknowledged.
    fn connection(&mut self, address: SocketAddr, stop: &AtomicBool, acked: &AtomicUsize) -> (Store, bool) {
        let store = std::mem::take(&mut self.store);
        let Some(tcp) = TestClient::try_connect_to(address) else {
            thread::yield_now();
            return (store, false);
        };
        let login = LoginAs::password(store.me, &password(self.name), self.device);
        let mut client = match Level2Client::try_login(tcp, store, login) {
            Ok(client) => client,
            Err(refused) => return (refused.store, false),
        };
        while !client.is_synced() {
            if client.read(PATIENCE).is_none() {
                return (client.leave(), false);
            }
        }
        client.send_outbox();
        loop {
            while client.unanswered() < 30 && !stop.load(Ordering::Relaxed) {
                let conv = &self.convs[self.sent % self.convs.len()];
                client.try_send(conv, &format!("{} {}", self.device, self.sent));
                self.sent += 1;
            }
            if stop.load(Ordering::Relaxed) && client.unanswered() == 0 {
                return (client.leave(), true);
            }
            let before = client.unanswered();
            if client.read(PATIENCE).is_none() {
                return (client.leave(), false);
            }
            acked.fetch_add(before - client.unanswered(), Ordering::Relaxed);
            // Failed sends are retried on a new connection.
            if client.unanswered() == 0 && !client.store.outbox.is_empty() {
                return (client.leave(), false);
            }
        }
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_sends_loses_and_doubles_nothing() {
    let mut server = TestServer::builder().fixed_port().start();
    let names = ["ann", "bob", "carol"];
    let ids: Vec<i64> = names.iter().map(|name| offline_user(&server, name)).collect();
    let devices = [("ann", "a1", 0), ("ann", "a2", 0), ("bob", "b1", 1), ("carol", "c1", 2)];
    let group = login(&server, "ann", ids[0]).create_group(ids[0], "team");
    for (name, id) in names.iter().zip(&ids).skip(1) {
        login(&server, name, *id).join_group(*id, group);
    }
    let (stop, acked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = server.address();
    let stores: Vec<Store> = thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .map(|(name, device, who)| {
                let convs = ids.iter().map(|id| format!("u{id}")).chain([format!("g{group}")]).collect();
                let writer = Writer { name, device, convs, store: Store::new(ids[*who]), sent: 0 };
                let (stop, acked) = (&stop, &acked);
                scope.spawn(move || writer.run(&[address], stop, acked))
            })
            .collect();
        let _stop = SetOnDrop(&stop);
        for kill in 1..=4 {
            wait_until("hundreds of acknowledgements", || acked.load(Ordering::Relaxed) > kill * 400);
            server.kill9();
            server.restart();
        }
        wait_until("hundreds of acknowledgements", || acked.load(Ordering::Relaxed) > 5 * 400);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("a device")).collect()
    });
    check(&server, &devices.map(|(name, device, _)| (name, device)), stores);
}

/// Reconnects all devices once more and compares everything: no acknowledged message is lost or
/// duplicated, no number is missing, and all devices hold the same.
pub fn check(server: &TestServer, devices: &[(&str, &str)], stores: Vec<Store>) {
    let come_back = |(store, (name, device)): (Store, &(&str, &str))| {
        let mut client = Level2Client::resume(server, name, device, store);
        client.settle();
        let convs: Vec<String> = client.store.logs.keys().cloned().collect();
        for conv in &convs {
            let count = client.page_through(conv);
            let log = &client.store.logs[conv];
            // Messages below the floor are not shown.
            assert_eq!(log.missing(log.cursor - count), Vec::<u64>::new(), "{device} {conv}");
        }
        assert!(client.store.outbox.is_empty());
        client.leave()
    };
    let stores: Vec<Store> = stores.into_iter().zip(devices).map(come_back).collect();
    for one in &stores {
        for other in &stores {
            let (mine, theirs) = (format!("u{}", other.me), format!("u{}", one.me));
            if one.me != other.me {
                assert_agree(one, &mine, other, &theirs);
                assert_eq!(one.cursor(&mine), other.cursor(&theirs));
            }
        }
        one.assert_all_acked_are_held();
    }
}

#[test]
fn sends_after_a_failed_one_fail_until_it_is_retried() {
    let server = TestServer::start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    ann.say(&to_bob, "before");
    let lock = StoreLock::take(&server);
    let cids: Vec<String> = (0..5).map(|n| ann.send(&to_bob, &n.to_string())).collect();
    let first = ann.answer(&cids[0]);
    assert_eq!(first["errno"], 503, "{first}");
    assert!(first["retryAfter"].is_number(), "{first}");
    ann.settle();
    drop(lock);
    // The messages that failed must be sent first, so a new send is refused before that.
    let late = ann.send(&to_bob, "late");
    let answer = ann.answer(&late);
    assert_eq!(answer["errno"], 503, "{answer}");
    assert!(answer["retryAfter"].is_number(), "{answer}");
    // Other conversations are not affected.
    let notes = with(&ann);
    testkit::wait_until("the database is there again", || {
        let cid = ann.send(&notes, "note");
        ann.answer(&cid)["errno"] == 200
    });
    ann.send_outbox();
    ann.settle();
    for (n, cid) in cids.iter().chain([&late]).enumerate() {
        assert_eq!(ann.number(cid), n as u64 + 2);
    }
    bob.until_at(&to_ann, 7);
    assert_eq!(bob.store.texts(&to_ann), ["before", "0", "1", "2", "3", "4", "late"]);
}

#[test]
fn a_slow_reader_costs_little_and_misses_nothing_beside_a_quick_one() {
    const COUNT: u64 = 20_000;
    let rates = |builder: Builder| builder.option("frames_per_second", "off").option("bytes_per_second", "off");
    // The slow reader reads nothing until everything is sent, which takes a busy machine more than
    // 30 seconds.
    // Few workers, whose connections to the database soon have full caches.
    let builder = rates(TestServer::builder().may_keep(24)).option("user_timeout", "10m");
    let server = builder.option("workers", "4").start();
    let (mut ann, mut bob) = pair(&server);
    let (to_bob, to_ann) = (with(&bob), with(&ann));
    let mut quick = Level2Client::enter(&server, "bob", bob.store.me, "b2");
    let text = "x".repeat(1_000);
    let mut resident = Vec::new();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            (0..=COUNT).step_by(1_000).for_each(|seq| quick.until_at(&to_ann, seq));
        });
        for n in 0..COUNT {
            ann.send(&to_bob, &text);
            if ann.unanswered() >= 200 {
                ann.until("answers", |ann| ann.unanswered() < 100);
            }
            if n % 1_000 == 0 {
                resident.push(server.resident_bytes());
            }
        }
        ann.settle();
        reader.join().expect("the quick reader");
    });
    // By this sample the caches of the database are full. At the end 7 MB more are unread.
    let (filled, most) = (resident[13], resident.iter().max().copied().unwrap_or_default());
    assert!(most < filled + 4 * 1024 * 1024, "it grows with what is unread: {resident:?}");
    (0..=COUNT).step_by(1_000).for_each(|seq| bob.until_at(&to_ann, seq));
    assert_eq!(bob.store.logs[&to_ann].messages.len() as u64, COUNT);
    // From now on messages are live again.
    ann.say(&to_bob, "on");
    bob.until_at(&to_ann, COUNT + 1);
    assert!(bob.store.logs[&to_ann].missing(0).is_empty());
}

#[test]
fn a_thousand_conversations_come_in_pieces_of_one_moment() {
    let server = TestServer::start();
    let a = offline_user(&server, "ann");
    // The two thousand conversations are written into the database in the form that a server
    // writes.
    let ids: Vec<i64> = (0..2_000).map(|n| 1_000_000 + n).collect();
    let mut users = String::from("BEGIN;");
    for id in &ids {
        users += &format!("INSERT INTO User (id, name, name_key, password) VALUES ({id}, 'n{id}', 'n{id}', 'x');");
    }
    server.run_sql(&(users + "COMMIT;"));
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    for part in ids.chunks(200) {
        for id in part {
            ann.send(&format!("u{id}"), "x");
        }
        ann.settle();
    }
    let store = ann.leave();
    // All conversations are known and nothing was missed, so only the 43s mention them.
    let mut ann = Level2Client::resume(&server, "ann", "a1", store);
    let overviews = ann.inbox().filter(|frame| frame["msgType"] == 43).count();
    assert_eq!(overviews, 10);
    assert!(!ann.inbox().any(|frame| frame["msgType"] == 44));
    ann.say(&format!("u{}", ids[77]), "y");
    // Another device knows none of the conversations.
    let mut other = Level2Client::enter(&server, "ann", a, "a2");
    assert_eq!(other.store.logs.len(), 2_000);
    ann.say(&format!("u{}", ids[1_999]), "z");
    other.until_at(&format!("u{}", ids[1_999]), 2);
    // A device that knows all of them, each at 0, gets a run for each.
    let have: serde_json::Map<String, serde_json::Value> =
        ids.iter().map(|id| (format!("u{id}"), json!("0:00000000"))).collect();
    let login = LoginAs::password(a, &password("ann"), "a3").with("have", json!(have));
    let mut all = Level2Client::login(TestClient::connect(&server), Store::new(a), login);
    all.sync();
    assert_eq!(all.inbox().filter(|frame| frame["msgType"] == 44).count(), 2_000);
    assert!(all.store.logs.values().all(|log| log.missing(0).is_empty()));
}
