//! The store of a cluster when its database fails: killed, frozen, restarted, out of connections,
//! deadlocked. Also the error texts for operators when a database cannot be used at all.

mod mysql_store;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql_store::open_with;
use raybox::config::{MysqlSettings, Secret};
use raybox::protocol::UserId;
use raybox::store::mysql::MysqlStore;
use raybox::store::{
    Accounts, AppendOutcome, Contacts, Database as _, MessageId, Messages, NewMessage, States, StoreError, UserState,
};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use testkit::{Database, MariaDb, SetOnDrop, TestClient, TestServer, chat, login, offline_user, wait_until};

#[test]
fn a_killed_database_is_noticed_and_used_again_when_it_is_back() {
    let mut mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let user = new_user(&store, "ann");
    append(&store, user, "before").unwrap();
    let last = store.fetch(user, usize::MAX).unwrap()[0].id;
    store.delete(user, &[last]).unwrap();

    mariadb.kill();
    wait_until("no sign of life", || is_down(store.check()));
    assert!(is_down(append(&store, user, "lost").map(drop)));
    assert!(is_down(store.register("bob", "x").map(drop)));
    assert!(is_down(store.fetch(user, 1).map(drop)));

    mariadb.restart();
    wait_until("it is back", || store.check().is_ok());
    append(&store, user, "after").unwrap();
    let kept = store.fetch(user, usize::MAX).unwrap();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].id > last, "an id is not given out again after a restart");
}

#[test]
fn a_stopped_database_is_noticed_without_any_call_and_used_again_when_it_goes_on() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let user = new_user(&store, "ann");
    for _ in 0..2 {
        mariadb.stop();
        wait_until("no sign of life", || is_down(store.check()));
        // If each of these waited for its whole timeout, the test would take hours.
        for _ in 0..10_000 {
            assert!(is_down(append(&store, user, "lost").map(drop)));
        }
        mariadb.cont();
        wait_until("it is back", || store.check().is_ok());
        append(&store, user, "kept").unwrap();
    }
    assert_eq!(texts(&store, user), ["kept", "kept"]);
}

#[test]
fn messages_acknowledged_under_kills_and_stops_are_there() {
    const THREADS: usize = 4;
    let mut mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open_with(&database, |settings| settings.read_timeout = Duration::from_secs(1));
    let user = new_user(&store, "ann");
    let acknowledged = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let kept: Vec<Vec<usize>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (store, stop, acknowledged) = (&store, &stop, &acknowledged);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        match append(store, user, &format!("{thread} {number}")) {
                            Ok(outcome) => {
                                assert_eq!(outcome, AppendOutcome::Stored);
                                acknowledged.fetch_add(1, Ordering::Relaxed);
                                kept.push(number);
                            }
                            Err(StoreError::Unavailable(_)) => wait_until("the database", || store.check().is_ok()),
                            Err(other) => panic!("{other}"),
                        }
                    }
                    kept
                })
            })
            .collect();
        let _stop = SetOnDrop(&stop);
        let some_more = || {
            let enough = acknowledged.load(Ordering::Relaxed) + 100;
            wait_until("appends", || acknowledged.load(Ordering::Relaxed) >= enough);
        };
        for _ in 0..3 {
            some_more();
            mariadb.kill();
            mariadb.restart();
            some_more();
            mariadb.stop();
            wait_until("no sign of life", || is_down(store.check()));
            mariadb.cont();
        }
        some_more();
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let texts = texts(&store, user);
    for (thread, kept) in kept.iter().enumerate() {
        let prefix = format!("{thread} ");
        let stored: Vec<usize> = texts.iter().filter_map(|text| text.strip_prefix(&prefix)?.parse().ok()).collect();
        // A message whose sender got an error may arrive twice or late: a frozen database executes
        // in the end what it was sent.
        let places: Vec<Option<usize>> =
            kept.iter().map(|number| stored.iter().position(|stored| stored == number)).collect();
        assert!(places.iter().all(Option::is_some), "thread {thread}: all that was acknowledged is there");
        assert!(places.is_sorted(), "thread {thread}: what is appended later is fetched later");
    }
}

#[test]
fn a_database_restarted_between_two_calls_costs_no_error() {
    let mut mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let user = new_user(&store, "ann");
    mariadb.restart();
    wait_until("it is back", || store.check().is_ok());
    append(&store, user, "kept").unwrap();
    assert_eq!(texts(&store, user), ["kept"]);
}

#[test]
fn killed_connections_cost_no_error() {
    let database = Database::create();
    let store = open(&database);
    let user = new_user(&store, "ann");
    for round in 0..5 {
        let query = format!(
            "SELECT id FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
            database.name()
        );
        let mut ours: Vec<u64> = Vec::new();
        wait_until("a connection for calls and one for checks", || {
            ours = database.rows(&query);
            ours.len() >= 2
        });
        for id in &ours {
            // A connection that has just ended by itself no longer exists.
            let _ = database.connect().query_drop(format!("KILL {id}"));
        }
        // A connection that dies in the middle of a call or check does cost an error: the call may
        // be done. So the next call comes when all have died, and a check has been answered since.
        wait_until("a new connection for checks", || {
            let now: Vec<u64> = database.rows(&query);
            !now.is_empty() && !now.iter().any(|id| ours.contains(id)) && store.check().is_ok()
        });
        append(&store, user, &round.to_string()).unwrap();
    }
    assert_eq!(texts(&store, user), ["0", "1", "2", "3", "4"]);
}

#[test]
fn a_database_without_connections_to_spare_is_busy_until_it_has_some() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    database.run(
        "CREATE USER ordinary@'%' IDENTIFIED BY 'pw'; GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO ordinary@'%'",
    );
    let ordinary = |settings: &mut MysqlSettings| {
        (settings.username, settings.password) = ("ordinary".to_owned(), Secret::new("pw"));
        settings.connect_timeout = Duration::from_millis(300);
    };
    let store = open_with(&database, ordinary);
    let user = new_user(&store, "ann");
    // Only the test, whose account has all privileges, gets a connection now.
    database.run("SET GLOBAL max_connections = 10");
    let mut others = Vec::new();
    let connect = || {
        let options = mysql::OptsBuilder::new()
            .ip_or_hostname(Some(database.address().ip().to_string()))
            .tcp_port(database.address().port())
            .user(Some("ordinary"))
            .pass(Some("pw"))
            .prefer_socket(false);
        mysql::Conn::new(options)
    };
    while let Ok(connection) = connect() {
        others.push(connection);
    }
    let kill_ours = || {
        let ours: Vec<u64> = database.rows(&format!(
            "SELECT id FROM information_schema.processlist WHERE db = '{}' AND user = 'ordinary'",
            database.name()
        ));
        for id in ours {
            database.kill(id);
            others.extend(connect());
        }
    };
    {
        let mut kill_ours = kill_ours;
        wait_until("no connection is left", || {
            kill_ours();
            is_down(append(&store, user, "lost").map(drop))
        });
    }
    drop(others);
    wait_until("there are connections again", || append(&store, user, "kept").is_ok());
    assert_eq!(texts(&store, user).last().map(String::as_str), Some("kept"));
}

#[test]
fn a_database_without_its_table_is_not_ready_fills_no_log_and_gets_everything_later() {
    let database = Database::create();
    let server = TestServer::builder().mysql(&database).option("admin", "127.0.0.1:0").start();
    let (mut ann, b) = (TestClient::connect_lines(&server), offline_user(&server, "bob"));
    let a = ann.register("ann", "pw-ann");
    ann.login(a, "pw-ann");
    wait_until("it is ready", || server.is_ready());
    database.run("RENAME TABLE OfflineMessage TO Elsewhere");
    wait_until("it is not ready", || !server.is_ready());
    let before = server.logs().lines().count();
    const MESSAGES: usize = 300;
    for n in 0..MESSAGES {
        ann.send(&chat(a, b, &format!("message {n}")));
    }
    ann.ack_barrier();
    assert_eq!(server.metric("raybox_spool_messages") as usize, MESSAGES);
    // Requests that need other tables still work.
    let groups = ann.ask(&json!({"msgType": 11, "FROMID": a}));
    assert_eq!(groups["errno"], 200, "{groups}");
    let lines = server.logs().lines().count() - before;
    assert!(lines < 10, "{lines} lines for one trouble");
    database.run("RENAME TABLE Elsewhere TO OfflineMessage");
    wait_until("it is ready again", || server.is_ready());
    ann.send(&chat(a, b, "now"));
    ann.barrier();
    wait_until("the spool drains", || server.stored_for(b) == MESSAGES + 1);
}

#[test]
fn nodes_in_each_others_way_lose_nothing() {
    const NODES: usize = 4;
    const ROUNDS: usize = 30;
    let database = Database::create();
    let stores: Vec<MysqlStore> = (0..NODES).map(|_| open(&database)).collect();
    let users: Vec<UserId> = (0..20).map(|n| new_user(&stores[0], &format!("user {n}"))).collect();
    thread::scope(|scope| {
        for (node, store) in stores.iter().enumerate() {
            let users = &users;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // Every node writes in another order.
                    let mut users = users.clone();
                    users.rotate_left((7 * node + round) % 20);
                    let state = |n| if (n + node) % 2 == 0 { UserState::Online } else { UserState::Offline };
                    let states: Vec<_> = users.iter().enumerate().map(|(n, user)| (*user, state(n))).collect();
                    store.set_states(&states).unwrap();
                    let batch: Vec<NewMessage> =
                        users.iter().map(|user| message(*user, &format!("{node} {round}"))).collect();
                    assert_eq!(store.append(&batch).unwrap(), [AppendOutcome::Stored; 20]);
                    let friend = users[0];
                    store.add_friends(users[1], friend).unwrap().unwrap();
                    let kept = store.fetch(friend, usize::MAX).unwrap();
                    let own = kept.iter().filter(|message| message.text.starts_with(&format!("{node} ")));
                    let ids: Vec<MessageId> = own.map(|message| message.id).collect();
                    assert!(!ids.is_empty());
                    store.delete(friend, &ids).unwrap();
                }
            });
        }
    });
    let left: usize = users.iter().map(|user| stores[0].fetch(*user, usize::MAX).unwrap().len()).sum();
    let in_table = database.count("SELECT COUNT(*) FROM OfflineMessage");
    assert_eq!(left, in_table);
}

#[test]
fn a_lock_that_somebody_holds_makes_a_call_fail_and_not_the_store() {
    let database = Database::create();
    let store = open(&database);
    let user = new_user(&store, "ann");
    let mut holder = database.connect();
    holder.query_drop("START TRANSACTION").unwrap();
    holder.query_drop("SELECT * FROM User FOR UPDATE").unwrap();
    let failed = store.set_states(&[(user, UserState::Online)]);
    assert!(is_down(failed));
    store.check().unwrap();
    assert_eq!(append(&store, user, "kept").unwrap(), AppendOutcome::Stored);
    holder.query_drop("ROLLBACK").unwrap();
    store.set_states(&[(user, UserState::Online)]).unwrap();
    assert_eq!(store.online(&[user]).unwrap(), [user]);
}

#[test]
fn batches_cost_few_statements_and_few_prepared_ones() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let users: Vec<UserId> = (0..1000).map(|n| new_user(&store, &format!("user {n}"))).collect();
    // A check of the store may execute some more meanwhile, so the least of three counts.
    let executed = |work: &dyn Fn()| {
        let count = |_| {
            let before = database.status("Com_stmt_execute");
            work();
            database.status("Com_stmt_execute") - before
        };
        (0..3).map(count).min().expect("three counts")
    };
    let batch: Vec<NewMessage> = users.iter().map(|user| message(*user, "text")).collect();
    // One to find the recipients, one each of 512, 256, 128, 64, 32 and 8 rows.
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
    // The forms that occur there: some with a list of columns, some without.
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
fn the_reference_servers_tables_are_migrated_with_what_is_in_them() {
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
    // The second run is like one after an interruption.
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
    // Bound, so that nobody else gets the port, and not listening.
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
    // The password that the other server checks is hashed after its login is answered.
    wait_until("both are hashed", || {
        let stored: Vec<String> = database.rows("SELECT password FROM User ORDER BY id");
        stored.len() == 2 && stored.iter().all(|password| password.starts_with("$argon2id$"))
    });
    TestClient::connect(&server).login(1, "plain");
}

/// Starts a server with this `mysql.cnf`; it must exit with code 2 and one line on stderr.
fn refused(cnf: &str) -> String {
    let folder = Folder::new();
    fs::write(folder.0.join("mysql.cnf"), cnf).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["127.0.0.1", "0", "--log-dir", "logs"]).current_dir(&folder.0);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    stderr.trim_end().to_owned()
}

/// A folder that is removed with its test.
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

fn open(database: &Database) -> MysqlStore {
    open_with(database, |_| ())
}

fn new_user(store: &MysqlStore, name: &str) -> UserId {
    store.register(name, "x").unwrap()
}

fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage::new(to, text)
}

fn append(store: &MysqlStore, to: UserId, text: &str) -> Result<AppendOutcome, StoreError> {
    store.append(&[message(to, text)]).map(|kept| kept[0])
}

fn texts(store: &MysqlStore, user: UserId) -> Vec<String> {
    store.fetch(user, usize::MAX).unwrap().into_iter().map(|kept| kept.text).collect()
}

fn is_down(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}
