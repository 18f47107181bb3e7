//! Tables of this server and of reference servers: reading, writing, migrating, and the refusals at
//! the start.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

use raybox::protocol::UserId;
use raybox::store::{
    Accounts as _, Contacts as _, Database as _, MessageId, Messages as _, NewMessage, States as _, StoreError,
    UserState,
};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use testkit::{Database, LONG_PATIENCE, MariaDb, TestClient, TestServer};
use testkit::{chat, login, offline_user, output_within, wait_until};

use crate::store::{append, message, new_user, open, texts};

#[test]
fn batches_cost_few_statements_and_few_prepared_ones() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let users: Vec<UserId> = (0..1000).map(|n| new_user(&store, &format!("user {n}"))).collect();
    // A check of the store may execute more statements meanwhile, so the least of three counts is
    // used.
    let executed = |work: &dyn Fn()| {
        let count = |_| {
            let before = database.status("Com_stmt_execute");
            work();
            database.status("Com_stmt_execute") - before
        };
        (0..3).map(count).min().expect("three counts")
    };
    let batch: Vec<NewMessage> = users.iter().map(|user| message(*user, "text")).collect();
    // One statement finds the recipients; the others insert 512, 256, 128, 64, 32 and 8 rows.
    assert_eq!(executed(&|| assert_eq!(store.append(&batch).unwrap().len(), 1000)), 7);
    assert_eq!(executed(&|| assert_eq!(store.append(&batch[..16]).unwrap().len(), 16)), 2);
    let states: Vec<_> = users.iter().map(|user| (*user, UserState::Online)).collect();
    assert_eq!(executed(&|| store.set_states(&states).unwrap()), 1);
    assert_eq!(executed(&|| assert_eq!(store.online(&users).unwrap().len(), 1000)), 1);
    assert_eq!(executed(&|| drop(store.credential(users[0]).unwrap())), 1);
    let many: Vec<NewMessage> = (0..1000).map(|_| message(users[0], "text")).collect();
    store.append(&many).unwrap();
    let ids: Vec<MessageId> = store.fetch(users[0], usize::MAX).unwrap().iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 1000 + 3 * 2);
    assert_eq!(executed(&|| store.delete(users[0], &ids).unwrap()), 1);

    for length in 0..600 {
        store.append(&batch[..length]).unwrap();
        store.online(&users[..length]).unwrap();
    }
    let prepared = database.status("Prepared_stmt_count");
    assert!(prepared <= 64, "{prepared} statements on one connection");
}

#[test]
fn a_text_that_does_not_fit_is_refused_in_every_mode_of_the_database() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_reference();
    database.run("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'");
    let store = open(&database);
    let refused = store.register("ann", &"x".repeat(57));
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    let user = new_user(&store, r#"back\slash "quoted""#);
    assert_eq!(store.user(user).unwrap().unwrap().name, r#"back\slash "quoted""#);
    assert_eq!(database.count("SELECT COUNT(*) FROM User"), 1);
}

#[test]
fn rows_of_reference_servers_are_read() {
    let database = Database::create();
    let store = open(&database);
    // The forms that occur in reference installations, some with a list of columns and some
    // without.
    database.run(
        "INSERT INTO User (name, password, state) VALUES ('ann', 'secret', 'offline');
         INSERT INTO OfflineMessage VALUES (1, 'first');
         INSERT INTO OfflineMessage (userid, message) VALUES (1, 'second');
         INSERT INTO AllGroup (groupname, groupdesc) VALUES ('Café', 'd');
         INSERT INTO GroupUser VALUES (1, 1, 'creator');
         INSERT INTO Friend VALUES (1, 1)",
    );
    let user = UserId(1);
    assert_eq!(store.credential(user).unwrap().as_deref(), Some("secret"));
    assert_eq!(texts(&store, user), ["first", "second"]);
    let found = store.groups_named("CAFE", 10).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(store.groups_of(user).unwrap(), found);
    database.run("UPDATE AllGroup SET groupname = 'renamed', name_key = NULL");
    assert_eq!(store.groups_named("CAFE", 10).unwrap(), []);
    assert_eq!(store.groups_named("NAMED", 10).unwrap().len(), 1);
}

#[test]
fn the_reference_servers_tables_are_migrated_with_their_rows() {
    let database = Database::create_reference();
    {
        let store = open(&database);
        let user = new_user(&store, "ann");
        for text in ["b", "a", "b"] {
            append(&store, user, text).unwrap();
        }
        store.create_group(user, "Straße", "d").unwrap();
    }
    let mut files: Vec<PathBuf> = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/mysql"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    // The second run has the same effect as one after an interruption.
    for _ in 0..2 {
        for file in &files {
            database.run(&fs::read_to_string(file).unwrap());
        }
    }
    let versions: Vec<usize> = database.rows("SELECT version FROM SchemaMigration ORDER BY version");
    assert!(versions.iter().copied().eq(1..=files.len()));
    let of_new = Database::create();
    assert_eq!(of_new.rows::<usize>("SELECT version FROM SchemaMigration ORDER BY version"), versions);

    let store = open(&database);
    assert!(store.describe().ends_with(", tables of this server"), "{}", store.describe());
    assert!(store.fits_hashes());
    let user = UserId(1);
    assert_eq!(texts(&store, user), ["b", "a", "b"]);
    append(&store, user, &"x".repeat(65536)).unwrap();
    assert_eq!(texts(&store, user).len(), 4);
    assert_eq!(store.groups_named("STRASSE", 10).unwrap().len(), 1);
}

#[test]
fn opening_leaves_the_states_of_users_alone() {
    let database = Database::create();
    let store = open(&database);
    let user = new_user(&store, "ann");
    store.set_states(&[(user, UserState::Online)]).unwrap();
    drop(open(&database));
    assert_eq!(store.online(&[user]).unwrap(), [user]);
}

#[test]
fn a_fault_at_the_start_is_one_line_with_the_file_the_address_and_what_to_do() {
    let database = Database::create();
    let cnf = database.cnf();
    let address = database.address().to_string();
    // The port is bound, so that nobody else gets it, but nothing listens on it.
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let closed = holder.local_addr().unwrap().as_socket().unwrap().port();
    let empty = Database::create_empty();
    let half = Database::create();
    half.run("DROP TABLE GroupUser; ALTER TABLE User DROP COLUMN state");
    let line = |name: &str, value: &str| {
        let other = cnf.lines().map(|line| match line.split_once('=') {
            Some((key, _)) if key == name => format!("{key}={value}\n"),
            _ => format!("{line}\n"),
        });
        refused(&other.collect::<String>())
    };
    for (line, parts) in [
        (line("port", &closed.to_string()), ["no database answers: ", "start it, or correct the keys ip and port"]),
        (line("password", "wrong"), ["is refused: Access denied", "correct the keys username and password"]),
        (line("dbname", "raybox_test_none"), ["no database raybox_test_none", "create it and load sql/chat.sql"]),
        (
            line("dbname", empty.name()),
            ["lacks User, Friend, AllGroup, GroupUser, OfflineMessage", "load sql/chat.sql"],
        ),
        (line("dbname", half.name()), ["lacks User.state, GroupUser;", "load sql/chat.sql"]),
        (line("ip", "no-such-host.invalid"), ["no database answers: ", "correct the keys ip and port"]),
    ] {
        assert!(line.starts_with("server: mysql.cnf, "), "{line}");
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert!(line.contains(&address) || line.contains(&format!(":{closed}")) || line.contains(".invalid"), "{line}");
        assert!(!line.contains("wrong") && !line.contains(database.password()), "no secrets: {line}");
    }
}

#[test]
fn on_the_reference_servers_tables_passwords_stay_as_they_are_and_long_messages_are_refused() {
    let database = Database::create_reference();
    let server = TestServer::builder().mysql(&database).start();
    let mut ann = TestClient::connect(&server);
    let id = ann.register("ann", "secret");
    let stored = || database.rows::<String>("SELECT password FROM User");
    assert_eq!(stored(), ["secret"]);
    let wrong = ann.ask(&json!({"msgType": 1, "USERID": id, "password": "SECRET"}));
    assert_eq!(wrong["errno"], 302);
    ann.login(id, "secret");
    assert_eq!(stored(), ["secret"]);
    let bob = offline_user(&server, "bob");
    ann.send(&chat(id, bob, &"x".repeat(500)));
    ann.expect_refusal(503);
    ann.send(&chat(id, bob, "short"));
    ann.barrier();
    assert_eq!(database.count("SELECT COUNT(*) FROM OfflineMessage"), 1);
    assert_eq!(login(&server, "bob", bob).fetch(bob).len(), 1);
    wait_until("it is deleted", || database.count("SELECT COUNT(*) FROM OfflineMessage") == 0);
}

#[test]
fn on_tables_of_this_server_passwords_become_hashes() {
    let database = Database::create();
    database.run("INSERT INTO User (name, password) VALUES ('old', 'plain')");
    let server = TestServer::builder().mysql(&database).start();
    let mut client = TestClient::connect(&server);
    client.register("new", "secret");
    client.login(1, "plain");
    // The plain-text password of the first user is hashed after the login is answered.
    wait_until("both are hashed", || {
        let stored: Vec<String> = database.rows("SELECT password FROM User ORDER BY id");
        stored.len() == 2 && stored.iter().all(|password| password.starts_with("$argon2id$"))
    });
    TestClient::connect(&server).login(1, "plain");
}

/// Starts a server with this `mysql.cnf`. It must exit with code 2 and one line on stderr; returns
/// the line.
fn refused(cnf: &str) -> String {
    let folder = Folder::new();
    fs::write(folder.0.join("mysql.cnf"), cnf).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["127.0.0.1", "0", "--log-dir", "logs"]).current_dir(&folder.0);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
        command.env_remove(name);
    }
    let output = output_within(LONG_PATIENCE, &mut command).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    stderr.trim_end().to_owned()
}

/// A folder that is removed when its test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("raybox-mysql-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
