//! Tables, logs, sessions and accounts that are set up wrongly.

use raybox::config::Secret;
use raybox::protocol::UserId;
use raybox::store::{Contacts as _, Database as _, States as _, UserState};
use serde_json::json;
use testkit::{
    Database, MariaDb, TestClient, TestServer, WRONG_PASSWORD, Workplace, chat, offline_user, password, user,
    wait_until,
};

use crate::mysql_store::open_with;
use crate::store::{append, new_user, open, ordinary, texts};

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
fn accounts_of_mariadb_log_in_or_the_error_names_the_problem() {
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

#[test]
fn settings_that_protect_a_database_from_people_change_nothing() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let ordinary = ordinary(&database);
    database.run(
        "SET GLOBAL init_connect = 'SET completion_type = 2, sql_select_limit = 1, sql_safe_updates = 1,
         sql_big_selects = 0, max_join_size = 1'",
    );
    let store = open_with(&database, ordinary);
    let users = ["ann", "bob", "cy"].map(|name| new_user(&store, name));
    let group = store.create_group(users[0], "group", "").unwrap();
    users.iter().for_each(|user| store.join_group(*user, group, 9).map(drop).unwrap());
    assert_eq!(store.members(group).unwrap(), users);
    users[1..].iter().for_each(|friend| store.add_friends(users[0], *friend).map(drop).unwrap());
    assert_eq!(store.friends(users[0]).unwrap().len(), 2);
    store.set_states(&users.map(|user| (user, UserState::Online))).unwrap();
    ["one", "two", "three"].iter().for_each(|text| append(&store, users[0], text).unwrap());
    assert_eq!(texts(&store, users[0]), ["one", "two", "three"]);
    store.check().unwrap();
    let aborted = database.status("Aborted_clients");
    assert_eq!(aborted, 0, "a commit closes no connection");
}

#[test]
fn statements_of_init_connect_that_fail_are_named() {
    let mariadb = MariaDb::start_with(&["--init-connect=SET no_such_variable = 1"]);
    let database = mariadb.create_database();
    let workplace = Workplace::empty();
    let _ = ordinary(&database);
    workplace.write("mysql.cnf", &cnf_of(&database, "ordinary", "pw"));
    let line = workplace.refused(&["127.0.0.1", "0"]);
    assert!(line.contains("user ordinary cannot log in: ") && line.contains("init_connect in the database"), "{line}");
}

/// The `mysql.cnf` of a server that uses another account.
pub(crate) fn cnf_of(database: &Database, user: &str, password: &str) -> String {
    let (own, secret) = (format!("username={}\n", database.user()), format!("password={}\n", database.password()));
    let cnf = database.cnf().replace(&own, &format!("username={user}\n"));
    cnf.replace(&secret, &format!("password={password}\n"))
}
