//! A database that answers but does not do what it is asked.

use std::sync::mpsc;

use mysql::prelude::Queryable as _;
use raybox::store::Database as _;
use testkit::{MariaDb, PATIENCE, TestServer, chat, offline_user, user, wait_until};

use crate::mysql_store::open_with;
use crate::store::{append, is_down, kill_connections, new_user, open, ordinary, texts};
use crate::tables::cnf_of;

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
    // A MyISAM table can really be full, here at 64 KiB.
    database.run("ALTER TABLE OfflineMessage ENGINE = MyISAM MAX_ROWS = 1 AVG_ROW_LENGTH = 1");
    let store = open(&database);
    let (tell, told) = mpsc::channel();
    store.on_trouble(Box::new(move || {
        let _ = tell.send(());
    }));
    wait_until("it is ready", || store.check().is_ok());
    // Another session fills the table, so that no call of the store notices it first.
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
    // The store stays unavailable while the database is checked repeatedly.
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
    // This account has all privileges.
    let store = open(&database);
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    wait_until("a look has written", || next() > 2);
    database.run("SET GLOBAL read_only = 1");
    wait_until("it is not ready", || store.check().is_err());
    let count = next();
    // Both on connections that were open before and on new ones.
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
    // Each commit waits for the confirmation of a replica, but there is no replica.
    database.run(
        "SET GLOBAL rpl_semi_sync_master_timeout = 600000; SET GLOBAL rpl_semi_sync_master_wait_no_slave = 1;
         SET GLOBAL rpl_semi_sync_master_enabled = 1",
    );
    let stalls = || {
        store.check().is_err_and(|error| error.to_string().contains("the database answers, but stores nothing in time"))
    };
    wait_until("it is not ready", stalls);
    // The store stays not ready, although checks that write nothing succeed.
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
fn a_database_that_stays_locked_is_not_ready_until_it_is_free() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    // A backup; changes of the tables of level 1 and 2.
    for lock in [
        "FLUSH TABLES WITH READ LOCK",
        "LOCK TABLES OfflineMessage READ",
        "LOCK TABLES Message READ",
        "LOCK TABLES Conversation WRITE",
    ] {
        wait_until("it is ready", || store.check().is_ok());
        let mut locker = database.connect();
        locker.query_drop(lock).unwrap();
        let is_locked = || store.check().is_err_and(|error| error.to_string().contains("keeps a table"));
        wait_until(&format!("it is not ready after {lock}"), is_locked);
        locker.query_drop("UNLOCK TABLES").unwrap();
    }
    wait_until("it is ready again", || store.check().is_ok());
    append(&store, ann, "after").unwrap();
}

#[test]
fn a_missing_table_of_level_2_makes_the_store_unready_as_long_as_it_is_missing() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    wait_until("it is ready", || store.check().is_ok());
    database.run("RENAME TABLE Message TO Elsewhere");
    // No call meets it: the check finds it by itself, again and again.
    let is_missing = || store.check().is_err_and(|error| error.to_string().contains("Message"));
    wait_until("it is not ready", is_missing);
    let looks = || database.status("Com_delete");
    let before = looks();
    while looks() < before + 10 {
        assert!(is_missing(), "{:?}", store.check());
    }
    database.run("RENAME TABLE Elsewhere TO Message");
    wait_until("it is ready again", || store.check().is_ok());
}

#[test]
fn a_check_fires_no_visible_trigger_and_rolls_back_where_triggers_may_be_hidden() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let of = |name: &str| database.status(name);
    // An account with the TRIGGER privilege is shown all triggers. There are none, so the check
    // commits its write.
    let (commits, rollbacks) = (of("Com_commit"), of("Com_rollback"));
    drop({
        let store = open(&database);
        wait_until("a look has written", || of("Com_commit") > commits);
        store
    });
    // A check that has begun is completed.
    wait_until("the store has gone", || database.connections() == 0);
    assert_eq!(of("Com_rollback"), rollbacks);
    // An account without this privilege may not be shown the triggers, so the check rolls its write
    // back.
    let ordinary = ordinary(&database);
    drop({
        let store = open_with(&database, &ordinary);
        let commits = of("Com_commit");
        wait_until("a look has written, and undone it", || of("Com_rollback") > rollbacks);
        assert_eq!(of("Com_commit"), commits);
        store
    });
    // This table has no transactions, so a rollback could not undo a row.
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
fn a_column_that_somebody_has_added_without_a_default_is_not_about_messages() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    database.run("ALTER TABLE OfflineMessage ADD COLUMN tag INTEGER NOT NULL");
    assert!(is_down(append(&store, ann, "lost")), "the message is not at fault, so it would wait");
    wait_until("it is not ready", || store.check().is_err_and(|error| error.to_string().contains("'tag'")));
    database.run("ALTER TABLE OfflineMessage MODIFY tag INTEGER NOT NULL DEFAULT 0");
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
    // Open connections keep the privileges that they began with.
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
