//! The store of a cluster when its database answers and cannot do what it is asked: it is
//! read-only, out of prepared statements, limits the size of a packet, or a privilege is missing.
//! None of that is caused by a message, and all of it is temporary. Also tables and accounts that
//! are not as they should be.

mod mysql_store;

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use mysql::prelude::Queryable;
use mysql_store::open_with;
use raybox::config::{MysqlSettings, Secret};
use raybox::protocol::UserId;
use raybox::store::mysql::MysqlStore;
use raybox::store::{
    Accounts, AppendOutcome, Contacts, Database as _, MessageId, Messages, NewMessage, States, StoreError, UserState,
};
use serde_json::json;
use testkit::{Database, MariaDb, PATIENCE, TestClient, TestServer, WRONG_PASSWORD, Workplace};
use testkit::{chat, offline_user, password, user, wait_until};

#[test]
fn after_a_failover_the_new_primary_is_used_though_the_old_one_lives_on() {
    let (old, new) = (MariaDb::start(), MariaDb::start());
    let database = old.create_database();
    let copy = new.create_namesake(&database);
    let switch = Switch::to(database.address());
    let account = ordinary(&database);
    let _ = ordinary(&copy);
    let store = open_with(&database, |settings| {
        account(settings);
        settings.port = switch.port;
    });
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    copy.run("INSERT INTO User (id, name, password) VALUES (1, 'ann', 'x')");
    wait_until("one connection for calls and one for checks", || database.connections() >= 2);
    database.run("SET GLOBAL read_only = 1");
    switch.lead_to(copy.address());
    wait_until("the new primary takes messages", || append(&store, ann, "after").is_ok());
    wait_until("the node is ready", || store.check().is_ok());
    store.register("bob", "x").unwrap();
    assert_eq!(texts(&store, ann), ["after"]);
    assert_eq!(copy.count("SELECT COUNT(*) FROM OfflineMessage"), 1);
    assert_eq!(database.rows::<String>("SELECT message FROM OfflineMessage"), ["before"]);
    wait_until("nobody stays with the old one", || database.connections() == 0);
}

#[test]
fn connections_that_are_closed_during_looks_are_no_outage_unless_all_are() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let switch = Switch::to(database.address());
    let store = open_with(&database, |settings| settings.port = switch.port);
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    // Now each look opens a connection, to find a server that takes writes.
    database.run("SET GLOBAL read_only = 1");
    wait_until("it is not ready", || store.check().is_err());
    let trouble = || store.check().unwrap_err().to_string();
    let is_read_only = || trouble().contains("read-only");
    for closed in [1, 2, 4] {
        // The one connection that reads use is open.
        assert_eq!(texts(&store, ann), ["before"]);
        switch.close_next(closed);
        wait_until("they are closed, and another one is not", || {
            assert_eq!(texts(&store, ann), ["before"], "what is there can be read");
            assert!(is_read_only(), "{}", trouble());
            switch.has_opened_since()
        });
    }
    switch.close_next(usize::MAX);
    wait_until("it is noticed", || !is_read_only());
    assert!(store.fetch(ann, 1).is_err());
    switch.close_next(0);
    wait_until("it answers again", is_read_only);
    assert_eq!(texts(&store, ann), ["before"]);
}

#[test]
fn a_database_that_stays_read_only_is_not_knocked_at_by_every_call() {
    const CALLS: usize = 2000;
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open_with(&database, ordinary(&database));
    let ann = new_user(&store, "ann");
    database.run("SET GLOBAL read_only = 1");
    let before = database.status("Connections");
    for _ in 0..CALLS {
        assert!(is_down(append(&store, ann, "lost")));
    }
    assert!(store.check().is_err());
    let connections = database.status("Connections") - before;
    println!("{connections} connections for {CALLS} calls");
    assert!(connections < 200, "{connections} connections for {CALLS} calls");
    database.run("SET GLOBAL read_only = 0");
    wait_until("it is ready", || store.check().is_ok());
    append(&store, ann, "kept").unwrap();
}

#[test]
fn a_table_that_is_full_is_not_ready_until_there_is_room() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    // A table of this kind can really be full: 64 KiB.
    database.run("ALTER TABLE OfflineMessage ENGINE = MyISAM MAX_ROWS = 1 AVG_ROW_LENGTH = 1");
    let store = open(&database);
    let (tell, told) = mpsc::channel();
    store.on_trouble(Box::new(move || {
        let _ = tell.send(());
    }));
    wait_until("it is ready", || store.check().is_ok());
    // Another session fills it, and no call of the store notices.
    while database
        .connect()
        .query_drop("INSERT INTO OfflineMessage (userid, message) VALUES (7, REPEAT('x', 1000))")
        .is_ok()
    {}
    while database.connect().query_drop("INSERT INTO OfflineMessage (userid, message) VALUES (7, '')").is_ok() {}
    wait_until("it is not ready", || store.check().is_err());
    told.recv_timeout(PATIENCE).expect("the node was told at once");
    let ann = new_user(&store, "ann");
    assert!(is_down(append(&store, ann, "lost")));
    // The store stays unavailable while the database is probed again and again.
    let looks = || database.status("Com_delete");
    let before = looks();
    while looks() < before + 10 {
        assert!(store.check().is_err());
    }
    database.run("DELETE FROM OfflineMessage");
    wait_until("it is ready again", || store.check().is_ok());
    append(&store, ann, "kept").unwrap();
    assert_eq!(
        database.rows::<String>("SELECT message FROM OfflineMessage"),
        ["kept"],
        "no look leaves anything behind"
    );
}

#[test]
fn an_account_that_may_write_to_a_read_only_server_writes_nothing_there() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let next =
        || database.count("SELECT auto_increment FROM information_schema.tables WHERE table_name = 'OfflineMessage'");
    // This account has all rights.
    let store = open(&database);
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    wait_until("a look has written", || next() > 2);
    database.run("SET GLOBAL read_only = 1");
    wait_until("it is not ready", || store.check().is_err());
    let count = next();
    // On connections that were open before, and on new ones.
    assert!(is_down(append(&store, ann, "lost")));
    kill_connections(&database);
    assert!(is_down(append(&store, ann, "lost")));
    assert_eq!(texts(&store, ann), ["before"], "what is there can be read");
    let looks = || database.status("Com_set_option");
    let before = looks();
    wait_until("more looks than come between two that write", || looks() > before + 10);
    assert_eq!(next(), count, "no look has written");
    database.run("SET GLOBAL read_only = 0");
    wait_until("it is ready", || store.check().is_ok());
    append(&store, ann, "after").unwrap();
    assert_eq!(texts(&store, ann), ["before", "after"]);
}

#[test]
fn a_database_that_answers_and_does_not_commit_is_not_ready_until_it_does() {
    let mariadb = MariaDb::start_with(&["--log-bin=log", "--server-id=1"]);
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    wait_until("it is ready", || store.check().is_ok());
    // Each transaction waits for a replica to confirm it, and there is none.
    database.run(
        "SET GLOBAL rpl_semi_sync_master_timeout = 600000; SET GLOBAL rpl_semi_sync_master_wait_no_slave = 1;
         SET GLOBAL rpl_semi_sync_master_enabled = 1",
    );
    let stalls = || {
        store.check().is_err_and(|error| error.to_string().contains("the database answers, but stores nothing in time"))
    };
    wait_until("it is not ready", stalls);
    // It stays so while looks that write nothing are answered.
    let looks = || database.status("Com_delete");
    let before = looks();
    while looks() < before + 10 {
        assert!(stalls(), "{:?}", store.check());
        assert_eq!(texts(&store, ann), ["before"], "what is there can be read");
    }
    database.run("SET GLOBAL rpl_semi_sync_master_enabled = 0");
    wait_until("it is ready again", || store.check().is_ok());
    append(&store, ann, "after").unwrap();
    assert_eq!(texts(&store, ann), ["before", "after"]);
}

#[test]
fn a_look_sets_off_no_trigger_that_it_is_shown_and_undoes_what_another_one_might_have_done() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let of = |name: &str| database.status(name);
    // It has the right to make triggers, and so is shown all of them. There is none: what a look
    // writes is committed.
    let (commits, rollbacks) = (of("Com_commit"), of("Com_rollback"));
    drop({
        let store = open(&database);
        wait_until("a look has written", || of("Com_commit") > commits);
        store
    });
    // A look that has begun is completed.
    wait_until("the store has gone", || database.connections() == 0);
    assert_eq!(of("Com_rollback"), rollbacks);
    // An account without that right may not be shown what is there.
    let ordinary = ordinary(&database);
    drop({
        let store = open_with(&database, &ordinary);
        let commits = of("Com_commit");
        wait_until("a look has written, and undone it", || of("Com_rollback") > rollbacks);
        assert_eq!(of("Com_commit"), commits);
        store
    });
    // A row that is not part of a transaction, as in this table, could not be undone.
    database.run("CREATE TABLE Seen (count INTEGER) ENGINE = MyISAM; INSERT INTO Seen VALUES (0)");
    database.run("CREATE TRIGGER see AFTER INSERT ON OfflineMessage FOR EACH ROW UPDATE Seen SET count = count + 1");
    let seen = || database.count("SELECT count FROM Seen");
    let (store, before) = (open(&database), of("Com_delete"));
    wait_until("more looks than come before one that writes", || of("Com_delete") > before + 3);
    assert_eq!(seen(), 0);
    store.check().unwrap();
    let ann = new_user(&store, "ann");
    append(&store, ann, "a message").unwrap();
    assert_eq!(seen(), 1, "the trigger works");
}

#[test]
fn a_fetch_takes_little_more_from_the_database_than_it_returns() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    let batch: Vec<NewMessage> = (0..256).map(|n| message(ann, &numbered(n, 60_000))).collect();
    store.append(&batch).unwrap();
    let before = database.status("Bytes_sent");
    assert_eq!(store.fetch(ann, 100_000).unwrap().len(), 1);
    let sent = database.status("Bytes_sent") - before;
    println!("{sent} bytes for one message of 60,000");
    assert!(sent < 3_000_000, "{sent} bytes");
    let all = store.fetch(ann, usize::MAX).unwrap();
    assert!(all.iter().enumerate().all(|(n, kept)| kept.text == numbered(n, 60_000)) && all.len() == 256);
}

#[test]
fn a_database_out_of_statements_is_not_ready_and_takes_everything_later() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    database.run("SET GLOBAL max_prepared_stmt_count = 0");
    kill_connections(&database);
    assert!(is_down(append(&store, ann, "lost")));
    assert!(store.check().is_err(), "a node that stores nothing is not ready");
    database.run("SET GLOBAL max_prepared_stmt_count = 16382");
    wait_until("it is ready", || store.check().is_ok());
    append(&store, ann, "kept").unwrap();
    assert_eq!(texts(&store, ann), ["kept"]);
}

#[test]
fn a_missing_right_is_not_about_messages_and_they_are_stored_as_soon_as_it_is_back() {
    const MESSAGES: usize = 50;
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let name = database.name();
    database.run(&format!("CREATE USER ordinary@'%' IDENTIFIED BY 'pw'; GRANT ALL ON {name}.* TO ordinary@'%'"));
    let builder = TestServer::builder().mysql(&database).file("mysql.cnf", cnf_of(&database, "ordinary", "pw"));
    let server = builder.option("admin", "127.0.0.1:0").start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    wait_until("it is ready", || server.is_ready());
    database.run(&format!("REVOKE INSERT ON {name}.* FROM ordinary@'%'"));
    // Open connections have the privileges that they began with.
    kill_connections(&database);
    wait_until("it is not ready", || !server.is_ready());
    for n in 0..MESSAGES {
        ann.send(&chat(a, b, &n.to_string()));
    }
    ann.ack_barrier();
    assert_eq!(server.metric("raybox_spool_messages") as usize, MESSAGES);
    assert!(!server.is_ready());
    database.run(&format!("GRANT INSERT ON {name}.* TO ordinary@'%'"));
    wait_until("everything is stored", || server.stored_for(b) == MESSAGES);
    wait_until("it is ready again", || server.is_ready());
}

#[test]
fn statements_are_no_longer_than_the_database_takes() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=256K"]);
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    let batch: Vec<NewMessage> = (0..60).map(|n| message(ann, &numbered(n, 40_000))).collect();
    assert_eq!(store.append(&batch).unwrap(), [AppendOutcome::Stored; 60]);
    // A message that never fits is refused by itself.
    let too_long = "x".repeat(256 * 1024);
    assert!(!store.fits(&too_long));
    let mixed = [message(ann, "short"), message(ann, &too_long)];
    assert_eq!(store.append(&mixed).unwrap(), [AppendOutcome::Stored, AppendOutcome::TooLong]);
    let texts = texts(&store, ann);
    assert_eq!(texts.len(), 61);
    assert!(texts[..60].iter().enumerate().all(|(n, text)| *text == numbered(n, 40_000)));
    store.check().unwrap();
}

#[test]
fn a_database_that_takes_less_than_before_is_given_less() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=4M"]);
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    append(&store, ann, &numbered(0, 300_000)).unwrap();
    append(&store, ann, "first").unwrap();
    database.run("SET GLOBAL max_allowed_packet = 262144");
    kill_connections(&database);
    let batch: Vec<NewMessage> = (0..60).map(|n| message(ann, &numbered(n, 40_000))).collect();
    assert_eq!(store.append(&batch).unwrap(), [AppendOutcome::Stored; 60]);
    // A message that the database can no longer send does not block the others, and is not lost.
    let texts = texts(&store, ann);
    assert_eq!((texts[0].as_str(), texts.len()), ("first", 61));
    assert_eq!(database.count("SELECT COUNT(*) FROM OfflineMessage"), 62);
}

#[test]
fn on_the_reference_servers_tables_small_statements_delete_too() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=64K"]);
    let database = mariadb.create_reference();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    let batch: Vec<NewMessage> = (0..200).map(|n| message(ann, &numbered(n, 480))).collect();
    store.append(&batch).unwrap();
    let ids: Vec<MessageId> = store.fetch(ann, usize::MAX).unwrap().iter().map(|kept| kept.id).collect();
    assert_eq!(ids.len(), 200);
    store.delete(ann, &ids).unwrap();
    assert_eq!(texts(&store, ann), [""; 0]);
}

#[test]
fn a_database_that_logs_statements_works_and_the_operator_hears_of_it() {
    let mariadb = MariaDb::start_with(&["--log-bin=log", "--server-id=1", "--binlog-format=STATEMENT"]);
    let database = mariadb.create_empty();
    assert!(Workplace::on(&database).succeed(&["migrate"]).contains("all tables are made"));
    let server = TestServer::builder().mysql(&database).start();
    wait_until("the operator is told", || server.logs().contains("set binlog_format to ROW or MIXED"));
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    ann.send(&chat(a, b, "kept"));
    ann.barrier();
    let mut bob = testkit::login(&server, "bob", b);
    assert_eq!(bob.fetch(b).len(), 1);
    wait_until("it is deleted", || server.stored_for(b) == 0);
    let store = open(&database);
    store.set_states(&[(UserId(1), UserState::Online), (UserId(2), UserState::Offline)]).unwrap();
    store.create_group(UserId(1), "group", "").unwrap();
}

#[test]
fn names_of_tables_in_another_case_are_refused_with_the_statement_that_helps() {
    const STATEMENT: &str = "RENAME TABLE `user` TO `User`, `offlinemessage` TO `OfflineMessage`";
    let database = Database::create_reference();
    database.run("RENAME TABLE User TO user, OfflineMessage TO offlinemessage");
    let line = Workplace::on(&database).refused(&["127.0.0.1", "0"]);
    assert!(line.starts_with("server: mysql.cnf, ") && line.ends_with(&format!("run {STATEMENT}")), "{line}");
    let line = Workplace::on(&database).refused(&["migrate"]);
    assert!(line.ends_with(&format!("run {STATEMENT}")), "{line}");
    database.run(STATEMENT);
    open(&database);
}

#[test]
fn tables_that_take_less_are_named_at_the_start_and_what_does_not_fit_is_refused() {
    let database = Database::create_reference();
    database.run(
        "ALTER TABLE Friend ENGINE = MyISAM; ALTER TABLE GroupUser ENGINE = Aria;
         ALTER TABLE OfflineMessage CONVERT TO CHARACTER SET utf8mb3;
         ALTER TABLE AllGroup CONVERT TO CHARACTER SET latin1",
    );
    let server = TestServer::builder().mysql(&database).start();
    let logs = server.logs_with("OfflineMessage.message (utf8mb3);");
    for part in [
        "these tables know no transactions: Friend (MyISAM), GroupUser (Aria);",
        "AllGroup.groupname (latin1), AllGroup.groupdesc (latin1), OfflineMessage.message (utf8mb3);",
    ] {
        assert_eq!(logs.lines().filter(|line| line.contains(part)).count(), 1, "{part}: {logs}");
    }
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    ann.send(&chat(a, b, "🔑"));
    ann.expect_refusal(503);
    ann.send(&chat(a, b, "小"));
    ann.barrier();
    assert_eq!(server.stored_for(b), 1);
}

#[test]
fn missing_values_in_the_reference_servers_tables_break_nothing() {
    let database = Database::create_reference();
    database.run(
        "ALTER TABLE User MODIFY name VARCHAR(50) NULL, MODIFY password VARCHAR(56) NULL;
         ALTER TABLE AllGroup MODIFY groupname VARCHAR(50) NULL;
         ALTER TABLE OfflineMessage MODIFY message VARCHAR(500) NULL;
         INSERT INTO User (id, name, password, state) VALUES (1, 'ann', 'pw-ann', NULL), (2, NULL, NULL, NULL);
         INSERT INTO Friend VALUES (1, 2);
         INSERT INTO AllGroup (id, groupname, groupdesc) VALUES (3, NULL, NULL);
         INSERT INTO GroupUser VALUES (3, 1, NULL);
         INSERT INTO OfflineMessage VALUES (1, NULL), (1, '{\"msgType\":4}')",
    );
    let server = TestServer::builder().mysql(&database).start();
    let mut client = TestClient::connect(&server);
    for wrong in ["NULL", "pw"] {
        client.send(&json!({"msgType": 1, "USERID": 2, "password": wrong}));
        client.expect_text(WRONG_PASSWORD);
    }
    client.login(1, &password("ann"));
    let friends = client.ask(&json!({"msgType": 8, "FROMID": 1}));
    let expected = json!([{"id": "2", "isGroup": "0", "name": ""}, {"id": "3", "isGroup": "1", "name": ""}]);
    assert_eq!(friends["friends"], expected);
    assert_eq!(client.ask(&json!({"msgType": 10, "FROMID": 1, "GROUPID": 3}))["name"], "");
    assert_eq!(client.fetch_texts(1), [r#"{"msgType":4}"#]);
    wait_until("it is deleted", || database.count("SELECT COUNT(*) FROM OfflineMessage WHERE message <> ''") == 0);
}

#[test]
fn accounts_of_mariadb_log_in_or_the_line_leads_to_what_is_wrong() {
    let mariadb = MariaDb::start_with(&["--plugin-load-add=auth_ed25519"]);
    let database = mariadb.create_database();
    let name = database.name();
    for (account, how) in [
        ("curve", "IDENTIFIED VIA ed25519 USING PASSWORD('pw')"),
        ("nothing", "IDENTIFIED BY ''"),
        ("sealed", "IDENTIFIED BY 'pw' REQUIRE SSL"),
        ("shut", "IDENTIFIED BY 'pw' ACCOUNT LOCK"),
        ("old", "IDENTIFIED BY 'pw' PASSWORD EXPIRE"),
        ("socket", "IDENTIFIED VIA unix_socket"),
    ] {
        database.run(&format!("CREATE USER {account}@'%' {how}; GRANT ALL ON {name}.* TO {account}@'%'"));
    }
    for (account, password) in [("curve", "pw"), ("nothing", "")] {
        let store = open_with(&database, |settings| {
            (settings.username, settings.password) = (account.to_owned(), Secret::new(password));
        });
        new_user(&store, account);
    }
    for (account, parts) in [
        ("sealed", ["user sealed is refused: Access denied", "set ssl=on if the account requires encryption"]),
        ("shut", ["user shut cannot log in: ", "unlock it by ALTER USER"]),
        ("old", ["user old cannot log in: ", "give it a new password by ALTER USER"]),
        ("socket", ["user socket is refused: ", "correct the keys username and password"]),
    ] {
        let workplace = Workplace::empty();
        workplace.write("mysql.cnf", &cnf_of(&database, account, "pw"));
        let line = workplace.refused(&["127.0.0.1", "0"]);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

/// An account with the privileges that the server needs and no more; above all it may not write
/// while the server is read-only.
fn ordinary(database: &Database) -> impl Fn(&mut MysqlSettings) + use<> {
    database.run(
        "CREATE USER ordinary@'%' IDENTIFIED BY 'pw'; GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO ordinary@'%'",
    );
    |settings: &mut MysqlSettings| {
        (settings.username, settings.password) = ("ordinary".to_owned(), Secret::new("pw"));
    }
}

/// The `mysql.cnf` of a server that uses another account.
fn cnf_of(database: &Database, user: &str, password: &str) -> String {
    let (own, secret) = (format!("username={}\n", database.user()), format!("password={}\n", database.password()));
    let cnf = database.cnf().replace(&own, &format!("username={user}\n"));
    cnf.replace(&secret, &format!("password={password}\n"))
}

/// Kills the server's connections. Returns when they are gone, so that the next call opens another.
fn kill_connections(database: &Database) {
    let query = format!(
        "SELECT id FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
        database.name()
    );
    let ours: Vec<u64> = database.rows(&query);
    ours.iter().for_each(|id| database.kill(*id));
    wait_until("the connections are gone", || !database.rows::<u64>(&query).iter().any(|id| ours.contains(id)));
}

/// A port that leads to one server, and later leads new connections to another.
struct Switch {
    port: u16,
    target: Arc<Mutex<SocketAddr>>,
    /// The number of new connections to close at once, and whether one was opened since.
    closing: Arc<Mutex<(usize, bool)>>,
}

impl Switch {
    fn to(target: SocketAddr) -> Switch {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(target)));
        let closing: Arc<Mutex<(usize, bool)>> = Arc::default();
        let (shared, to_close) = (target.clone(), closing.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                match &mut *to_close.lock().unwrap() {
                    (0, has_opened) => *has_opened = true,
                    (left, _) => {
                        *left -= 1;
                        continue;
                    }
                }
                let server = TcpStream::connect(*shared.lock().unwrap());
                let (Ok(client), Ok(server)) = (client, server) else { continue };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (mut from, mut to) in [(client, server), back] {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Switch { port, target, closing }
    }

    /// Closes the next `count` connections as soon as they are made.
    fn close_next(&self, count: usize) {
        *self.closing.lock().unwrap() = (count, false);
    }

    /// Whether those are closed, and one that came after them is not.
    fn has_opened_since(&self) -> bool {
        self.closing.lock().unwrap().1
    }

    fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
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

fn numbered(n: usize, length: usize) -> String {
    format!("{n:0>5}{}", "x".repeat(length - 5))
}

fn append(store: &MysqlStore, to: UserId, text: &str) -> Result<(), StoreError> {
    store.append(&[message(to, text)]).map(|kept| assert_eq!(kept, [AppendOutcome::Stored]))
}

fn texts(store: &MysqlStore, user: UserId) -> Vec<String> {
    store.fetch(user, usize::MAX).unwrap().into_iter().map(|kept| kept.text).collect()
}

fn is_down(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}
