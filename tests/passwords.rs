//! An account accepts its password in two forms. The usual client (Qt) logs in with the password's
//! SHA-224 in hexadecimal digits. After a lost connection it logs in automatically with the
//! password as typed.

use std::thread;
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use serde_json::json;
use testkit::{Database, LONG_PATIENCE, TestClient, TestServer, WRONG_PASSWORD, wait_until};

const PLAIN: &str = "secret";
/// The SHA-224 of the password.
const DIGITS: &str = "95c7fbca92ac5083afda62a564a3d014fc3b72c9140e3cb99ea6bf12";
/// The SHA-224 of the empty password.
const OTHER_DIGITS: &str = "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f";

/// The reply to a login on a new connection.
fn try_login(server: &TestServer, id: i64, password: &str) -> String {
    let mut client = TestClient::connect(server);
    client.send(&json!({"msgType": 1, "USERID": id, "password": password}));
    client.recv_text()
}

fn log_in(server: &TestServer, id: i64, password: &str) {
    TestClient::connect(server).login(id, password);
}

/// The form in which earlier servers stored passwords: a hash of the received form.
fn older_hash(sent: &str) -> String {
    let cheap = Params::new(64, 1, 1, None).expect("a lawful cost");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap).hash_password(sent.as_bytes()).expect("a hash").to_string()
}

fn stored(server: &TestServer, id: i64) -> String {
    let query = "SELECT password FROM User WHERE id = ?";
    server.database().query_row(query, [id], |row| row.get(0)).expect("the user is there")
}

#[test]
fn both_forms_of_a_password_are_right_whichever_the_account_was_made_with() {
    let mut server = TestServer::builder().option("login_failures", "0").option("admin", "0").start();
    let ids = [("by digits", DIGITS), ("in plain", PLAIN)]
        .map(|(name, password)| TestClient::connect(&server).register(name, password));
    // The first round reads from memory; the second one, after a restart, reads from the store.
    for _ in 0..2 {
        for id in ids {
            for form in [PLAIN, DIGITS, PLAIN, DIGITS] {
                log_in(&server, id, form);
            }
        }
        assert!(server.metric(r#"raybox_logins_total{outcome="wrong"}"#) < 0.5, "no failure was counted");
        server.restart();
    }
    for wrong in [OTHER_DIGITS, "Secret", &DIGITS.to_uppercase()] {
        assert_eq!(try_login(&server, ids[0], wrong), WRONG_PASSWORD);
        server.restart();
    }
}

#[test]
fn a_remembered_password_answers_both_forms() {
    let server = TestServer::builder().option("admin", "0").start();
    let id = TestClient::connect(&server).register("ann", DIGITS);
    let logins = |outcome: &str| server.metric(&format!(r#"raybox_logins_total{{outcome="{outcome}"}}"#)).round();
    log_in(&server, id, DIGITS);
    assert_eq!((logins("accepted"), logins("remembered")), (1.0, 0.0));
    for n in 1..=5 {
        log_in(&server, id, PLAIN);
        log_in(&server, id, DIGITS);
        assert_eq!((logins("accepted"), logins("remembered")), (1.0, f64::from(2 * n)));
    }
}

#[test]
fn a_password_that_is_wrong_in_both_forms_counts_once() {
    const FREE: usize = 3;
    let server = TestServer::builder().option("login_failures", &FREE.to_string()).start();
    let id = TestClient::connect(&server).register("ann", PLAIN);
    server.run_sql(&format!("UPDATE User SET password = '{}' WHERE id = {id}", older_hash(DIGITS)));
    let mut begun = Instant::now();
    for nth in 0..=FREE {
        begun = Instant::now();
        assert_eq!(try_login(&server, id, "wrong"), WRONG_PASSWORD, "failure {nth}");
    }
    // The first guess beyond the free ones has to wait for a second. On a slow machine the second
    // may have passed.
    loop {
        let next = Instant::now();
        let reply = try_login(&server, id, "wrong");
        if reply.contains("429") {
            break;
        }
        assert!(begun.elapsed() >= Duration::from_secs(1), "one more than are free has to wait: {reply}");
        begun = next;
    }
}

#[test]
fn older_hashes_are_right_in_both_forms_and_become_like_new_ones() {
    let mut server = TestServer::builder().option("login_failures", "0").start();
    let id = TestClient::connect(&server).register("ann", DIGITS);
    for (then, first, second) in [(DIGITS, DIGITS, PLAIN), (DIGITS, PLAIN, DIGITS), (PLAIN, PLAIN, DIGITS)] {
        let older = older_hash(then);
        server.run_sql(&format!("UPDATE User SET password = '{older}' WHERE id = {id}"));
        // The restart clears the memory of passwords.
        server.restart();
        log_in(&server, id, first);
        wait_until("the hash is upgraded", || stored(&server, id).contains("keyid="));
        server.restart();
        log_in(&server, id, second);
        log_in(&server, id, first);
    }
}

#[test]
fn rows_of_the_reference_server_are_compared_in_both_forms_and_stay_as_they_are() {
    let database = Database::create_reference();
    database.run(&format!("INSERT INTO User (name, password) VALUES ('ann', '{DIGITS}'), ('bob', '{PLAIN}')"));
    let [ann, bob] = ["ann", "bob"].map(|name| {
        let ids: Vec<i64> = database.rows(&format!("SELECT id FROM User WHERE name = '{name}'"));
        ids[0]
    });
    let mut server = TestServer::builder().mysql(&database).option("login_failures", "0").start();
    for id in [ann, bob] {
        for form in [PLAIN, DIGITS] {
            log_in(&server, id, form);
            server.restart();
        }
        for wrong in [OTHER_DIGITS, "Secret", &DIGITS.to_uppercase()] {
            assert_eq!(try_login(&server, id, wrong), WRONG_PASSWORD);
            server.restart();
        }
    }
    let carol = TestClient::connect(&server).register("carol", PLAIN);
    let rows: Vec<String> = database.rows("SELECT password FROM User ORDER BY id");
    assert_eq!(rows, [DIGITS, PLAIN, PLAIN], "reference servers compare them with what they are sent");
    log_in(&server, carol, DIGITS);
}

#[test]
fn a_storm_of_registrations_leaves_no_memory_behind() {
    let server = TestServer::builder().option("hashers", "4").option("argon2", "m=19456,t=1,p=1").start();
    // The first registration allocates memory that is kept for good.
    TestClient::connect(&server).register("first", PLAIN);
    let before = server.resident_bytes();
    thread::scope(|scope| {
        for storm in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = TestClient::connect(server);
                client.set_patience(LONG_PATIENCE);
                for nth in 0..6 {
                    client.register(&format!("{storm}-{nth}"), PLAIN);
                }
            });
        }
    });
    // The rest must be less than the memory for one hash.
    wait_until("the memory is given back", || server.resident_bytes() < before + (16 << 20));
}
