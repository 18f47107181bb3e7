//! `server migrate`: it turns the reference server's tables into ours with all their contents, even
//! if other sessions hold locks.

use std::process;

use mysql::prelude::Queryable;
use serde_json::json;
use testkit::{
    Database, LONG_PATIENCE, MariaDb, Neighbour, Redis, TestClient, TestServer, Workplace, chat, login, numbered,
    offline_user, password, user, wait_until, wait_within,
};

#[test]
fn everything_survives_and_the_server_goes_on_with_it() {
    let database = Database::create_reference();
    database.run(
        "INSERT INTO User (id, name, password, state) VALUES
             (1, 'Ann', 'plain-a', 'online'), (2, 'Jörg', 'plain-j', 'offline'), (7, '小明', 'plain-m', 'offline');
         INSERT INTO Friend VALUES (1, 2), (2, 1), (7, 1);
         INSERT INTO AllGroup (id, groupname, groupdesc) VALUES (3, 'Straße', 'lang'), (4, 'leer', NULL);
         INSERT INTO GroupUser VALUES (3, 1, 'creator'), (3, 7, 'normal');
         INSERT INTO OfflineMessage VALUES (2, 'z'), (7, 'b'), (2, 'a'), (2, 'a'), (1, 'm'), (2, 'A');
         DELETE FROM OfflineMessage WHERE userid = 1;
         INSERT INTO OfflineMessage VALUES (2, 'a'), (7, 'a'), (7, '😀')",
    );
    let workplace = Workplace::on(&database);

    let shown = workplace.succeed(&["migrate", "--dry-run"]);
    assert!(shown.contains("6 of 6 migrations are missing") && shown.ends_with("nothing was changed\n"), "{shown}");
    for part in ["1. Messages get ids", "2. Room for hashed", "ALTER TABLE User MODIFY password", "0004_names.sql"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(database.count(&table_count("SchemaMigration")), 0, "a dry run");

    let shown = workplace.succeed(&["migrate"]);
    assert!(shown.contains("migration 1 (OfflineMessage: 8 rows) is applied ("), "{shown}");
    assert!(shown.contains("migration 3 (AllGroup: 2 rows, GroupUser: 2 rows) is applied ("), "{shown}");
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
    let users: Vec<(i64, String, String)> = database.rows("SELECT id, name, password FROM User ORDER BY id");
    let expected = [(1, "Ann", "plain-a"), (2, "Jörg", "plain-j"), (7, "小明", "plain-m")];
    assert!(users.iter().map(|(id, name, password)| (*id, name.as_str(), password.as_str())).eq(expected), "{users:?}");
    let messages: Vec<(i64, String)> = database.rows("SELECT userid, message FROM OfflineMessage ORDER BY id");
    let expected = [(2, "z"), (7, "b"), (2, "a"), (2, "a"), (2, "A"), (2, "a"), (7, "a"), (7, "😀")];
    assert!(messages.iter().map(|(user, text)| (*user, text.as_str())).eq(expected), "{messages:?}");

    let server = TestServer::builder().mysql(&database).start();
    let mut client = TestClient::connect(&server);
    client.login(2, "plain-j");
    assert_eq!(client.fetch_texts(2), ["z", "a", "a", "A", "a"]);
    let friends = client.ask(&json!({"msgType": 8, "FROMID": 2}));
    assert_eq!(friends["friends"], json!([{"id": "1", "isGroup": "0", "name": "Ann"}]));
    let found = client.ask(&json!({"msgType": 13, "name": "STRASSE"}));
    assert_eq!(found["groups"][0]["id"], "3");
    assert_eq!(client.ask(&json!({"msgType": 13, "name": "leer"}))["groups"][0]["desc"], "");
    assert!(client.register("new", "secret") > 7);

    let shown = workplace.succeed(&["migrate"]);
    assert!(shown.contains(": nothing to do, all 6 migrations are applied"), "{shown}");
}

#[test]
fn an_empty_database_gets_all_tables_even_if_that_was_interrupted() {
    let new = Database::create();
    let columns = "SELECT CONCAT_WS(' ', table_name, column_name, column_type, collation_name, extra)
                   FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY 1";
    let empty = Database::create_empty();
    let workplace = Workplace::on(&empty);
    assert!(workplace.succeed(&["migrate", "--dry-run"]).ends_with("nothing was changed\n"));
    assert_eq!(empty.rows::<String>("SHOW TABLES"), [""; 0]);
    assert!(workplace.succeed(&["migrate"]).contains("all tables are made"));
    assert_eq!(empty.rows::<String>(columns), new.rows::<String>(columns));
    assert_eq!(versions(&empty), versions(&new));
    assert!(workplace.succeed(&["migrate"]).contains("nothing to do"));

    let begun = Database::create();
    begun.run("DELETE FROM SchemaMigration; DROP TABLE GroupUser; DROP TABLE OfflineMessage");
    let workplace = Workplace::on(&begun);
    assert!(workplace.succeed(&["migrate"]).contains("all tables are made"));
    assert_eq!(begun.rows::<String>(columns), new.rows::<String>(columns));
    assert_eq!(versions(&begun), versions(&new));
}

#[test]
fn a_database_of_another_kind_is_refused_in_one_line() {
    let foreign = Database::create_empty();
    foreign.run("CREATE TABLE User (id INT, email TEXT)");
    let line = Workplace::on(&foreign).refused(&["migrate"]);
    assert!(line.contains(" lacks User.name, User.password, User.state, Friend, "), "{line}");
    assert!(line.contains("name an empty database"), "{line}");

    let newer = Database::create();
    newer.run("INSERT INTO SchemaMigration (version) VALUES (99)");
    let line = Workplace::on(&newer).refused(&["migrate"]);
    assert!(line.contains("has migration 99, which this version of the server does not know"), "{line}");

    let workplace = Workplace::empty();
    assert_eq!(
        workplace.refused(&["migrate"]),
        "server: migrate: there is no mysql.cnf here; name one with --mysql FILE"
    );
    let line = workplace.refused(&["migrate", "--frce"]);
    assert!(line.contains("'--frce'") && line.contains("usage: server migrate [OPTIONS]"), "{line}");
    workplace.write("here.cnf", &newer.cnf().replace(newer.password(), "wrong"));
    let line = workplace.refused(&["migrate", "--mysql", "here.cnf"]);
    assert!(line.contains("here.cnf, ") && line.contains("correct the keys username and password"), "{line}");
}

#[test]
fn rows_that_lack_what_they_need_are_named_before_anything_is_changed() {
    let database = Database::create_reference();
    database.run(
        "ALTER TABLE User MODIFY name VARCHAR(50) NULL, MODIFY password VARCHAR(56) NULL;
         ALTER TABLE AllGroup MODIFY groupname VARCHAR(50) NULL;
         ALTER TABLE OfflineMessage MODIFY message VARCHAR(500) NULL;
         INSERT INTO User (id, name, password) VALUES (3, 'ann', NULL), (5, 'bob', 'x'), (7, NULL, NULL);
         INSERT INTO AllGroup (id, groupname) VALUES (4, NULL);
         INSERT INTO OfflineMessage VALUES (3, NULL), (3, NULL), (3, 'a')",
    );
    let workplace = Workplace::on(&database);
    let line = workplace.refused(&["migrate"]);
    for part in [
        "1 rows of User (id 7) have no name (NULL); ",
        "2 rows of User (id 3, 7) have no password (NULL); ",
        "1 rows of AllGroup (id 4) have no groupname (NULL); ",
        "2 rows of OfflineMessage have no message (NULL); ",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(database.count(&table_count("SchemaMigration")), 0, "nothing was changed");
    // The statements are taken from the line exactly as it gives them.
    let statements = line.split("or run ").skip(1).map(|rest| rest.split("; ").next().expect("a statement"));
    let statements: Vec<&str> = statements.collect();
    assert_eq!(statements.len(), 4, "{line}");
    statements.iter().for_each(|statement| database.run(statement));
    workplace.succeed(&["migrate"]);
    let server = TestServer::builder().mysql(&database).start();
    let mut client = TestClient::connect(&server);
    assert_eq!(client.ask(&json!({"msgType": 1, "USERID": 3, "password": "x"}))["errno"], 302);
    client.login(5, "x");
}

#[test]
fn it_is_refused_while_reference_nodes_are_there_unless_forced() {
    let database = Database::create_reference();
    let mut redis = Redis::start();
    let workplace = Workplace::on(&database);
    redis.write_cnf(workplace.path());
    let nodes = [Neighbour::start(&database, &redis), Neighbour::start(&database, &redis)];
    let line = workplace.refused(&["migrate"]);
    assert!(line.starts_with("server: migrate: 2 nodes of the reference server (127.0.0.1:"), "{line}");
    assert!(line.ends_with("stop them first, or go on nevertheless with --force"), "{line}");
    assert_eq!(database.count(&table_count("SchemaMigration")), 0);
    let shown = workplace.succeed(&["migrate", "--dry-run"]);
    assert!(shown.contains("warning: 2 nodes of the reference server"), "{shown}");
    drop(nodes);
    redis.kill();
    let line = workplace.refused(&["migrate"]);
    assert!(line.contains("nodes of the reference server may be running: redis.cnf: Redis at "), "{line}");
    redis.restart();
    let _node = Neighbour::start(&database, &redis);
    let line = workplace.refused(&["migrate"]);
    assert!(line.contains("migrate: 1 node of the reference server ("), "{line}");
    assert_eq!(database.count(&table_count("SchemaMigration")), 0);
    let shown = workplace.succeed(&["migrate", "--force"]);
    assert!(shown.contains("warning: 1 node of the reference server"), "{shown}");
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn names_that_would_become_the_same_are_named_before_anything_is_changed() {
    let database = Database::create_reference();
    database.run(
        "ALTER TABLE User MODIFY name VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL;
         INSERT INTO User (name, password) VALUES ('Ann', ''), ('Strasse', ''), ('Straße', ''), ('ANN', ''), ('ann ', '')",
    );
    let workplace = Workplace::on(&database);
    let line = workplace.refused(&["migrate"]);
    assert!(line.contains(r#"1 "Ann" and 4 "ANN""#) && line.contains(r#"2 "Strasse" and 3 "Straße""#), "{line}");
    assert!(!line.contains(r#""ann ""#), "blanks count: {line}");
    assert_eq!(database.count(&table_count("SchemaMigration")), 0);
    database.run("UPDATE User SET name = CONCAT(name, ' ', id) WHERE id IN (3, 4)");
    workplace.succeed(&["migrate"]);
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn killed_in_the_middle_it_is_finished_by_the_next_run() {
    let database = Database::create_reference();
    database.run("INSERT INTO User (name, password) VALUES ('ann', 'plain')");
    let workplace = Workplace::on(&database);
    // A transaction that has read a table blocks changes of its structure.
    let mut reader = database.connect();
    reader.query_drop("START TRANSACTION").unwrap();
    reader.query_drop("SELECT * FROM GroupUser").unwrap();
    let running = workplace.start(&["migrate"]);
    wait_until("it waits for the table", || is_waiting_to_change(&database, "GroupUser"));
    running.kill9();
    assert_eq!(versions(&database), [1, 2]);
    assert_eq!(database.count(&column_count("AllGroup", "name_key")), 1, "the half of migration 3");
    reader.query_drop("COMMIT").unwrap();
    let shown = workplace.succeed(&["migrate"]);
    assert!(shown.contains("4 of 6 migrations are missing") && shown.contains("migration 3 ("), "{shown}");
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
    let server = TestServer::builder().mysql(&database).start();
    TestClient::connect(&server).login(1, "plain");
}

#[test]
fn a_table_that_is_in_use_for_too_long_stops_it_without_harm() {
    let database = Database::create_reference();
    let workplace = Workplace::on(&database);
    let mut reader = database.connect();
    reader.query_drop("START TRANSACTION").unwrap();
    reader.query_drop("SELECT * FROM User").unwrap();
    let ended = workplace.run(&["migrate"]);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    let line = &ended.stderr;
    assert!(line.contains("migration 2 (0002_hashed_passwords.sql) is not applied: mysql.cnf, "), "{line}");
    assert!(line.contains("Lock wait timeout exceeded") && line.contains("run the same command again"), "{line}");
    assert_eq!(versions(&database), [1]);
    reader.query_drop("COMMIT").unwrap();
    workplace.succeed(&["migrate"]);
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_database_killed_while_it_rewrites_a_table_loses_nothing() {
    let mut mariadb = MariaDb::start();
    let database = mariadb.create_reference();
    database.run("INSERT INTO OfflineMessage VALUES (1, REPEAT('x', 400))");
    for _ in 0..17 {
        database.run("INSERT INTO OfflineMessage SELECT userid + 1, message FROM OfflineMessage");
    }
    let sum = "SELECT CONCAT(COUNT(*), ' ', SUM(userid), ' ', SUM(CRC32(message))) FROM OfflineMessage";
    let before: Vec<String> = database.rows(sum);
    let workplace = Workplace::on(&database);
    let running = workplace.start(&["migrate"]);
    let rewriting = "SELECT COUNT(*) FROM information_schema.processlist
                     WHERE info LIKE 'ALTER TABLE OfflineMessage%' AND state = 'copy to tmp table'";
    let mut observer = database.connect();
    wait_until("it rewrites the table", || observer.query_first::<u64, _>(rewriting).unwrap() == Some(1));
    mariadb.kill();
    let ended = running.wait();
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.contains("migration 1 (0001_message_ids.sql) is not applied"), "{ended:?}");
    mariadb.restart();
    assert_eq!(database.rows::<String>(sum), before);
    assert_eq!(database.count(&column_count("OfflineMessage", "id")), 0, "it was in the middle");
    workplace.succeed(&["migrate"]);
    assert_eq!(database.rows::<String>(sum), before);
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_second_of_two_runs_waits_and_finds_nothing_to_do() {
    let database = Database::create_reference();
    let workplace = Workplace::on(&database);
    let mut reader = database.connect();
    reader.query_drop("START TRANSACTION").unwrap();
    reader.query_drop("SELECT * FROM AllGroup").unwrap();
    let first = workplace.start(&["migrate"]);
    wait_until("the first waits for the table", || is_waiting_to_change(&database, "AllGroup"));
    let second = workplace.start(&["migrate"]);
    wait_until("the second waits for the first", || second.stdout().contains("waiting for its end"));
    reader.query_drop("COMMIT").unwrap();
    let (first, second) = (first.wait(), second.wait());
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{first:?} {second:?}");
    assert!(second.stdout.contains("nothing to do"), "{second:?}");
}

#[test]
fn it_needs_the_rights_that_its_help_names_and_no_others() {
    let database = Database::create_reference();
    database
        .run("INSERT INTO User (name, password) VALUES ('ann', 'plain'); INSERT INTO OfflineMessage VALUES (1, 'm')");
    let user = format!("keeper{}", process::id());
    let (name, redo) = (database.name(), format!("DROP USER IF EXISTS {user}@'%'"));
    let grant = |rights: &str| {
        database.run(&redo);
        database.run(&format!("CREATE USER {user}@'%' IDENTIFIED BY 'pw'; GRANT {rights} ON {name}.* TO {user}@'%'"));
    };
    let cnf = database.cnf();
    let cnf = cnf.replace(&format!("username={}", database.user()), &format!("username={user}"));
    let workplace = Workplace::empty();
    workplace.write("mysql.cnf", &cnf.replace(&format!("password={}", database.password()), "password=pw"));
    let help = workplace.succeed(&["migrate", "--help"]);
    let rights = ["SELECT", "INSERT", "CREATE", "ALTER"];
    assert!(help.contains("the rights SELECT, INSERT, CREATE and ALTER on the database"), "{help}");
    for missing in &rights[1..] {
        let others: Vec<&str> = rights.iter().filter(|right| *right != missing).copied().collect();
        grant(&others.join(", "));
        let ended = workplace.run(&["migrate"]);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "without {missing}: {ended:?}");
        assert!(ended.stderr.contains(&format!("{missing} command denied")), "{ended:?}");
    }
    grant(&rights.join(", "));
    workplace.succeed(&["migrate"]);
    assert_eq!(versions(&database), [1, 2, 3, 4, 5, 6]);
    database.run(&redo);
}

#[test]
fn nodes_of_this_server_go_on_while_their_tables_change() {
    let database = Database::create_reference();
    let redis = Redis::start();
    let node = TestServer::builder().mysql(&database).redis(&redis).start();
    let (mut ann, a) = user(&node, "ann");
    let b = offline_user(&node, "bob");
    let stored = |n: usize| wait_until("it is stored", || database.count("SELECT COUNT(*) FROM OfflineMessage") == n);
    ann.send(&numbered(a, b, 0));
    stored(1);

    let workplace = Workplace::on(&database);
    redis.write_cnf(workplace.path());
    let shown = workplace.succeed(&["migrate"]);
    assert!(shown.contains("note: nodes of this server that are running: 1. Servers"), "{shown}");

    ann.send(&numbered(a, b, 1));
    ann.send(&chat(a, b, &"x".repeat(501)));
    ann.expect_refusal(503);
    stored(2);
    let group = ann.create_group(a, "Größe");
    let new = TestServer::builder().mysql(&database).redis(&redis).start();
    // A login at the new node replaces the password by a hash, which the old node accepts.
    drop(login(&new, "ann", a));
    let hashed = format!("SELECT COUNT(*) FROM User WHERE id = {a} AND password LIKE '$argon2id$%'");
    wait_until("it is hashed", || database.count(&hashed) == 1);
    TestClient::connect(&node).login(a, &password("ann"));
    let mut carl = TestClient::connect(&node);
    let c = carl.register("carl", "plain-c");
    TestClient::connect(&new).login(c, "plain-c");
    let found = login(&new, "ann", a).ask(&json!({"msgType": 13, "name": "große"}));
    assert_eq!(found["groups"][0]["id"], group.to_string());

    let mut bob = login(&node, "bob", b);
    let kept: Vec<_> = bob.fetch(b).iter().map(testkit::number_of).collect();
    assert_eq!(kept, [0, 1]);
    wait_within(LONG_PATIENCE, "they are deleted", || database.count("SELECT COUNT(*) FROM OfflineMessage") == 0);
}

fn versions(database: &Database) -> Vec<u32> {
    database.rows("SELECT version FROM SchemaMigration ORDER BY version")
}

fn table_count(table: &str) -> String {
    format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{table}'")
}

fn column_count(table: &str, column: &str) -> String {
    format!(
        "SELECT COUNT(*) FROM information_schema.columns
         WHERE table_schema = DATABASE() AND table_name = '{table}' AND column_name = '{column}'"
    )
}

/// Whether a change of this table waits for another session.
fn is_waiting_to_change(database: &Database, table: &str) -> bool {
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.processlist
         WHERE db = DATABASE() AND state LIKE 'Waiting for table metadata lock' AND info LIKE '%ALTER TABLE {table}%'"
    );
    database.count(&waiting) > 0
}
