//! While the database is unreachable, messages that must be stored wait in `spool.db`. MariaDB is
//! killed and frozen, and so is the server.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;
use testkit::{LONG_PATIENCE, MariaDb, Neighbour, PATIENCE, Redis, TestClient, TestServer, Workplace, assert_refusal};
use testkit::{
    limit_files, login, number_of, numbered, numbered_with_text, offline_user, output_within, user, wait_within,
};

/// A server on a MariaDB of its own, a sender, and a recipient who was online before and is offline
/// now.
struct Scene {
    // Dropped first: the server exits before its services.
    server: TestServer,
    ann: TestClient,
    a: i64,
    b: i64,
    sent: usize,
    mariadb: MariaDb,
}

impl Scene {
    fn new(options: impl FnOnce(testkit::Builder) -> testkit::Builder) -> Scene {
        let mariadb = MariaDb::start();
        let builder = TestServer::builder().mysql(&mariadb.create_database()).option("admin", "127.0.0.1:0");
        let server = options(builder).start();
        let (mut bob, b) = user(&server, "bob");
        bob.logout(b);
        let (mut ann, a) = user(&server, "ann");
        ann.set_patience(LONG_PATIENCE);
        Scene { server, ann, a, b, sent: 0, mariadb }
    }

    /// Sends this number of messages from Ann to Bob, all of which must be acknowledged.
    fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.ann.send(&numbered(self.a, self.b, self.sent));
            self.sent += 1;
        }
        // The answer to this request needs no database, and comes after any refusal.
        self.ann.ack_barrier();
    }

    fn spooled(&self) -> usize {
        self.server.metric("raybox_spool_messages") as usize
    }

    /// Waits until the spool is empty, sending the server only health checks.
    fn wait_drained(&self) {
        wait_within(LONG_PATIENCE, "the spool drains", || self.spooled() == 0);
    }

    /// The messages that Bob fetches.
    fn fetch(&self) -> Vec<usize> {
        let mut bob = login(&self.server, "bob", self.b);
        bob.set_patience(LONG_PATIENCE);
        bob.fetch_all(self.b).iter().map(number_of).collect()
    }

    fn assert_all_in_order(&self) {
        assert_eq!(self.fetch(), (0..self.sent).collect::<Vec<_>>());
    }
}

#[test]
fn messages_sent_while_the_database_is_dead_come_in_order_when_it_is_back() {
    let mut scene = Scene::new(|builder| builder);
    scene.send(10);
    scene.mariadb.kill();
    scene.send(30);
    // A user who was online before can log in, but gets no partial fetch.
    let mut bob = login(&scene.server, "bob", scene.b);
    bob.send(&json!({"msgType": 14, "FROMID": scene.b}));
    bob.expect_refusal(503);
    bob.logout(scene.b);
    scene.send(30);
    assert_eq!(scene.spooled(), 60);
    for name in ["spool.db", "spool.db-wal"] {
        let mode = fs::metadata(scene.server.folder().join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    scene.mariadb.restart();
    scene.send(10);
    scene.wait_drained();
    scene.send(10);
    scene.assert_all_in_order();
    for line in ["messages are stored in ./spool.db until the database is back", "spool.db has drained: "] {
        scene.server.logs_with(line);
    }
}

#[test]
fn messages_sent_while_the_database_is_frozen_come_in_order_when_it_goes_on() {
    let mut scene = Scene::new(|builder| builder);
    scene.send(10);
    scene.mariadb.stop();
    scene.send(30);
    let mut bob = login(&scene.server, "bob", scene.b);
    bob.set_patience(LONG_PATIENCE);
    bob.send(&json!({"msgType": 14, "FROMID": scene.b}));
    bob.expect_refusal(503);
    bob.logout(scene.b);
    scene.send(30);
    assert!(scene.spooled() >= 30);
    scene.mariadb.cont();
    scene.wait_drained();
    scene.send(10);
    // A frozen database executes everything that it was sent, so messages in doubt at that moment
    // may be stored twice.
    assert_first_ones_in_order(&scene.fetch(), scene.sent);
}

#[test]
fn a_server_that_is_killed_meanwhile_starts_without_its_database_and_drains_without_traffic() {
    let mut scene = Scene::new(|builder| builder);
    scene.send(10);
    scene.mariadb.kill();
    scene.send(50);
    scene.server.kill9();
    scene.server.restart();
    assert!(!scene.server.is_ready(), "it cannot be");
    assert_eq!(scene.spooled(), 50);
    // The new process remembers no user, and cannot look any up.
    let mut bob = TestClient::connect(&scene.server);
    assert!(!bob.try_login(scene.b, "pw-bob"));
    // Once more, now with a graceful shutdown.
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(3), "something waits");
    assert!(scene.server.logs().contains("50 messages (") && scene.server.logs().contains("start the server again"));
    scene.server.restart();
    scene.mariadb.restart();
    scene.wait_drained();
    wait_within(LONG_PATIENCE, "it is ready", || scene.server.is_ready());
    scene.assert_all_in_order();
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(0));
}

#[test]
fn a_server_that_is_killed_while_it_drains_loses_nothing() {
    const MANY: usize = 6000;
    let mut scene = Scene::new(|builder| builder);
    // The trigger slows inserts down, so that the kill comes in the middle.
    scene.server.run_sql("CREATE TRIGGER slow BEFORE INSERT ON OfflineMessage FOR EACH ROW DO SLEEP(0.001)");
    scene.mariadb.kill();
    for _ in 0..6 {
        scene.send(MANY / 6);
    }
    assert_eq!(scene.spooled(), MANY);
    scene.mariadb.restart();
    let mut before = MANY;
    for _ in 0..2 {
        wait_within(LONG_PATIENCE, "it drains", || scene.spooled() < before);
        scene.server.kill9();
        scene.server.restart();
        before = scene.spooled();
        assert!((1..MANY).contains(&before), "killed when {before} were left");
    }
    scene.server.run_sql("DROP TRIGGER slow");
    scene.wait_drained();
    assert_first_ones_in_order(&scene.fetch(), MANY);
}

#[test]
fn a_server_with_a_spool_starts_though_the_database_has_no_connection_to_spare() {
    let mut scene = Scene::new(|builder| builder);
    let database = scene.mariadb.create_database();
    scene.mariadb.kill();
    scene.send(20);
    scene.server.kill9();
    scene.mariadb.restart();
    database.run(&format!("ALTER USER {}@'%' WITH MAX_USER_CONNECTIONS 1", database.user()));
    // Connections from before the limit do not count.
    let _the_one = database.connect();
    scene.server.restart();
    assert_eq!(scene.spooled(), 20);
    scene.server.logs_with("starting without it");
    database.run(&format!("ALTER USER {}@'%' WITH MAX_USER_CONNECTIONS 0", database.user()));
    scene.wait_drained();
    scene.assert_all_in_order();
}

#[test]
fn a_full_spool_refuses_and_keeps_what_it_has() {
    // One sender may use half of the spool.
    let mut scene = Scene::new(|builder| builder.option("spool_max", "32k"));
    scene.mariadb.kill();
    let mut accepted = Vec::new();
    let mut refused = 0;
    for n in 0..40 {
        scene.ann.send(&numbered_with_text(scene.a, scene.b, n, 1000));
        scene.ann.send(&json!({"msgType": 200}));
        let mut reply = scene.ann.recv();
        if reply["errno"] == 503 {
            assert_refusal(&reply.to_string(), 503);
            refused += 1;
            reply = scene.ann.recv();
        } else {
            accepted.push(n);
        }
        assert_eq!(reply["errno"], 200);
    }
    assert!((10..16).contains(&accepted.len()) && refused == 40 - accepted.len(), "{accepted:?}");
    assert!(scene.server.metric("raybox_spool_bytes") <= 18.0 * 1024.0);
    scene.mariadb.restart();
    scene.wait_drained();
    assert_eq!(scene.fetch(), accepted);
}

#[test]
fn without_a_spool_it_is_refused_at_once() {
    let mut scene = Scene::new(|builder| builder.option("spool_max", "0"));
    scene.mariadb.kill();
    scene.ann.send(&numbered(scene.a, scene.b, 0));
    scene.ann.expect_refusal(503);
    assert!(!scene.server.folder().join("spool.db").exists());
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let mut scene = Scene::new(|builder| builder);
    scene.mariadb.kill();
    scene.send(10);
    // No file may grow beyond this size, not even the spool's log.
    limit_files(&scene.server, "200000");
    let mut refused = 0;
    let mut n = 1000;
    while refused == 0 {
        assert!(n < 2000, "the limit does nothing");
        scene.ann.send(&numbered_with_text(scene.a, scene.b, n, 10_000));
        scene.ann.send(&json!({"msgType": 200}));
        let mut reply = scene.ann.recv();
        if reply["errno"] == 503 {
            refused += 1;
            reply = scene.ann.recv();
        }
        assert_eq!(reply["errno"], 200);
        n += 1;
    }
    limit_files(&scene.server, "unlimited");
    scene.ann.send(&numbered(scene.a, scene.b, n));
    scene.ann.ack_barrier();
    scene.mariadb.restart();
    scene.wait_drained();
    let expected: Vec<usize> = (0..10).chain(1000..n - 1).chain([n]).collect();
    assert_eq!(scene.fetch(), expected);
}

#[test]
fn a_full_disk_does_not_outlive_the_outage() {
    let mut scene = Scene::new(|builder| builder);
    scene.mariadb.kill();
    scene.send(50);
    limit_files(&scene.server, "1");
    scene.mariadb.restart();
    // Now messages are stored, but cannot be deleted from the spool.
    scene.wait_drained();
    scene.send(20);
    assert_eq!(scene.server.metric(r#"raybox_deliveries_total{path="stored"}"#), 20.0);
    wait_within(LONG_PATIENCE, "the disk is told", || !scene.server.is_ready());
    scene.assert_all_in_order();
    limit_files(&scene.server, "unlimited");
    wait_within(LONG_PATIENCE, "it is ready again", || scene.server.is_ready());
    // The spool works as before.
    scene.mariadb.kill();
    scene.send(10);
    scene.mariadb.restart();
    scene.wait_drained();
    assert_eq!(scene.fetch(), (70..80).collect::<Vec<_>>());
}

#[test]
fn a_server_that_stops_on_a_full_disk_stores_nothing_again() {
    let mut scene = Scene::new(|builder| builder);
    scene.mariadb.kill();
    scene.send(50);
    limit_files(&scene.server, "1");
    scene.mariadb.restart();
    scene.wait_drained();
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(0));
    scene.server.restart();
    assert_eq!(scene.spooled(), 0);
    scene.assert_all_in_order();
}

/// A small disk of its own, which is full to the last byte until it is freed. It needs root.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Mounts a disk, or returns the reason why it cannot.
    fn mount() -> Result<SmallDisk, String> {
        let path = std::env::temp_dir().join(format!("raybox-small-disk-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&path);
        match output_within(LONG_PATIENCE, &mut mount) {
            Ok(ended) if ended.status.success() => Ok(SmallDisk(path)),
            Ok(ended) => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).expect("a file");
        for size in [1 << 16, 512] {
            while std::io::Write::write_all(&mut filler, &vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).expect("remove what fills the disk");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = output_within(PATIENCE, Command::new("umount").arg("-l").arg(&self.0));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_server_starts_though_the_disk_of_its_spool_is_full() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("NOT TESTED: a start on a full disk needs a small one, and mount says: {reason}");
            return;
        }
    };
    let data = disk.0.to_str().expect("a path").to_owned();
    let mut scene = Scene::new(|builder| builder.option("data", &data));
    scene.mariadb.kill();
    scene.send(10);
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(3), "something waits");
    disk.fill();
    scene.mariadb.restart();
    scene.server.restart();
    assert_eq!(scene.spooled(), 10);
    assert!(!scene.server.is_ready(), "it cannot be");
    disk.empty();
    // The spool drains without traffic.
    scene.wait_drained();
    wait_within(LONG_PATIENCE, "it is ready", || scene.server.is_ready());
    scene.assert_all_in_order();
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(0));
}

/// A client that read nothing has gone, and messages come back from its connection while the
/// database is down and the disk is full. Returns the number of these messages.
fn with_messages_that_nothing_can_store(scene: &mut Scene) -> usize {
    const SENT: usize = 300;
    let (carol, c) = user(&scene.server, "carol");
    for n in 0..SENT {
        // More than the sockets hold.
        scene.ann.send(&numbered_with_text(scene.a, c, n, 50_000));
    }
    scene.ann.ack_barrier();
    scene.mariadb.kill();
    limit_files(&scene.server, "1");
    drop(carol);
    let unstored = || scene.server.metric("raybox_unstored_messages") as usize;
    let returned = || scene.server.metric("raybox_deliveries_returned_total") as usize;
    // A closed connection has returned all its messages.
    wait_within(LONG_PATIENCE, "carol's connection is closed", || scene.server.open_connections() == 1);
    wait_within(LONG_PATIENCE, "all that came back is counted", || unstored() > 100 && unstored() == returned());
    assert!(!scene.server.is_ready(), "it cannot be");
    unstored()
}

#[test]
fn messages_that_nothing_can_store_are_counted_until_shutdown() {
    let mut scene = Scene::new(|builder| builder.option("output_max", "64m").option("drain_timeout", "1s"));
    let unstored = with_messages_that_nothing_can_store(&mut scene);
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(1));
    // The disk of the log is full, too, so this goes to the output.
    let said = scene.server.output();
    assert!(said.contains(&format!("about {unstored} messages could not be stored")), "{unstored}: {said}");
}

#[test]
fn messages_that_nothing_could_store_are_stored_at_shutdown_when_there_is_room() {
    let mut scene = Scene::new(|builder| builder.option("output_max", "64m"));
    let unstored = with_messages_that_nothing_can_store(&mut scene);
    scene.server.terminate();
    limit_files(&scene.server, "unlimited");
    assert_eq!(scene.server.wait_exit(LONG_PATIENCE).code(), Some(3), "something waits");
    scene.server.restart();
    assert_eq!(scene.spooled(), unstored);
    scene.mariadb.restart();
    scene.wait_drained();
}

#[test]
fn a_neighbours_user_gets_them_live_when_the_database_is_back() {
    let (mariadb, redis) = (MariaDb::start(), Redis::start());
    let database = mariadb.create_database();
    let neighbour = Neighbour::start(&database, &redis);
    let server = TestServer::builder().mysql(&database).redis(&redis).option("admin", "127.0.0.1:0").start();
    let c = offline_user(&server, "carol");
    let mut carol = TestClient::connect_to(neighbour.address());
    carol.set_patience(LONG_PATIENCE);
    carol.login(c, "it does not look at passwords");
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    ann.send(&numbered(a, c, 0));
    carol.expect(&numbered(a, c, 0));
    mariadb.stop();
    for n in 1..20 {
        ann.send(&numbered(a, c, n));
    }
    ann.ack_barrier();
    assert!(server.metric("raybox_spool_messages") > 0.0);
    mariadb.cont();
    for n in 1..20 {
        carol.expect(&numbered(a, c, n));
    }
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let database = testkit::Database::create();
    let first = TestServer::builder().mysql(&database).start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["127.0.0.1", "0", "--log-dir", "logs"]).current_dir(first.folder());
    let second = output_within(LONG_PATIENCE, &mut command).expect("run the server");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    let line = format!("server: ./spool.db is in use by another server, process {};", first.pid());
    assert!(said.starts_with(&line), "{said}");
}

#[test]
fn a_server_that_was_never_there_does_not_start_without_its_database() {
    let mut mariadb = MariaDb::start();
    let database = mariadb.create_database();
    mariadb.kill();
    let workplace = Workplace::empty();
    database.write_cnf(workplace.path());
    let line = workplace.refused(&["127.0.0.1", "0"]);
    assert!(line.contains("no database answers"), "{line}");
    assert!(!workplace.path().join("spool.db").exists());
}

/// Checks that all messages arrived. The first arrivals must be in order; repeats are allowed.
fn assert_first_ones_in_order(got: &[usize], count: usize) {
    let mut seen = BTreeSet::new();
    let first: Vec<usize> = got.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert_eq!(first, (0..count).collect::<Vec<_>>());
}
