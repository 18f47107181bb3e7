//! A database that is killed, frozen or restarted, has lock conflicts, or runs out of connections.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable as _;
use raybox::config::{MysqlSettings, Secret};
use raybox::protocol::UserId;
use raybox::store::mysql::MysqlStore;
use raybox::store::{
    Accounts as _, AppendOutcome, Contacts as _, Database as _, MessageId, Messages as _, NewMessage, States as _,
    StoreError, UserState,
};
use serde_json::json;
use testkit::{Database, MariaDb, SetOnDrop, TestClient, TestServer, chat, offline_user, wait_until};

use crate::mysql_store::open_with;
use crate::store::{append, is_down, message, new_user, open, texts};

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
        // If each of these waited for a whole timeout, the test would take hours.
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
        // If a sender got an error, its message may arrive twice or late: a frozen database
        // executes everything that it was sent.
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
            // The KILL fails if a connection has just ended by itself.
            let _ = database.connect().query_drop(format!("KILL {id}"));
        }
        // If a connection dies during a call or a check, this does cost an error, because the call
        // may have been executed. So the next call waits until all have died, and until a check has
        // succeeded since.
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
    // Now only the test gets a connection, because its account has all privileges.
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
    // Requests that need only other tables still work.
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
