//! `server copy`: an embedded installation moves into a database, complete, whatever fails on the
//! way.

use std::fs;
use std::process;

use mysql::prelude::Queryable;
use rusqlite::Connection;
use serde_json::json;
use testkit::{
    Database, LONG_PATIENCE, Running, TestClient, TestServer, Workplace, login, number_of, numbered, offline_user,
    signal, user, wait_within,
};

const COPY: [&str; 5] = ["copy", "--from", "raybox.db", "--to", "mysql.cnf"];

#[test]
fn everything_moves_and_the_server_goes_on_with_it() {
    let old = TestServer::start();
    let (mut ann, a) = user(&old, "Ann");
    let b = offline_user(&old, "bob");
    let (mut carl, c) = user(&old, "小明");
    ann.ask(&json!({"msgType": 6, "U1": a, "U2": b}));
    let group = ann.create_group(a, "Größe");
    carl.join_group(c, group);
    for n in 0..50 {
        ann.send(&numbered(a, b, n));
    }
    ann.send(&json!({"msgType": 4, "FROMID": a, "TOID": b, "n": 50, "msg": "x".repeat(60_000) + "'\"\\\u{1F600}"}));
    ann.barrier();
    let workplace = stopped(old);
    let source = workplace.open();
    add_the_rest(&source, a, b, c);
    let before = dump(&source);
    drop(source);

    let database = Database::create();
    workplace.write("mysql.cnf", &database.cnf());
    let shown = workplace.succeed(&COPY);
    assert_equal_tables(&shown, [52, 2, 3, 1, 4]);
    for (table, rows) in
        [("Conversation", 2), ("Message", 4), ("Edit", 1), ("Recalled", 1), ("Member", 3), ("Device", 1)]
    {
        assert!(has_equal(&shown, table, rows), "{table}: {shown}");
    }
    for table in ["DeviceCursor", "Blocked", "Banned", "Asked", "HookQueue", "Meta"] {
        assert!(has_equal(&shown, table, 1), "{table}: {shown}");
    }
    assert_eq!(database.count("SELECT COUNT(*) FROM User WHERE level2 = 7 AND receipts = 1"), 1);
    assert_eq!(dump(&workplace.open()), before, "the source is left as it was");
    assert_eq!(database.count("SELECT COUNT(*) FROM User WHERE state <> 'offline'"), 0);
    let roles: Vec<(i64, String)> = database.rows("SELECT userid, grouprole FROM GroupUser ORDER BY userid");
    assert_eq!(roles, [(a, "creator".to_owned()), (c, "normal".to_owned())]);

    let new = TestServer::builder().mysql(&database).start();
    let mut bob = login(&new, "bob", b);
    let mut kept = bob.fetch(b);
    assert_eq!(kept.remove(0)["msgType"], 6, "Ann's friendship");
    assert!(kept.iter().map(number_of).eq(0..51));
    assert_eq!(kept[50]["msg"].as_str().unwrap(), "x".repeat(60_000) + "'\"\\\u{1F600}");
    let mut ann = login(&new, "Ann", a);
    let friends = ann.ask(&json!({"msgType": 8, "FROMID": a}));
    assert_eq!(friends["friends"][0], json!({"id": b.to_string(), "isGroup": "0", "name": "bob"}));
    let found = ann.ask(&json!({"msgType": 13, "name": "GROSSE"}));
    assert_eq!(found["groups"][0], json!({"desc": "d", "gUsers": [], "id": group.to_string(), "name": "Größe"}));
    TestClient::connect(&new).login(c + 1, "as it was");
    assert_eq!(ann.register("next", "x"), c + 6);
    assert_eq!(ann.create_group(a, "next"), 78);
}

/// Adds rows that the conversation above does not make, to every table.
fn add_the_rest(source: &Connection, a: i64, b: i64, c: i64) {
    // The last user and the last group were deleted. Their ids must not be given to new ones.
    source.execute_batch(&format!(
        "INSERT INTO User (id, name, name_key, password) VALUES ({c} + 5, 'x', 'x', 'x'); DELETE FROM User WHERE name = 'x';
         INSERT INTO AllGroup (id, groupname, name_key, groupdesc) VALUES (77, 'x', 'x', ''); DELETE FROM AllGroup WHERE id = 77;
         INSERT INTO User (id, name, name_key, password) VALUES ({c} + 1, 'plain', 'plain', 'as it was');
         INSERT INTO Friend VALUES ({c}, 99999);
         UPDATE User SET state = 'online', level2 = 7 WHERE id = {a};
         INSERT INTO Conversation VALUES ({c}, 2, 4294967295, 1, 1, 0, 0, 1000);
         INSERT INTO Message VALUES (1001, {c}, 1, 1, {a}, 900, 0, 0, 0, 2, x'000102ff', x'00112233445566778899aabbccddeeff', ''),
             (1002, {c}, 2, 1, {a}, 1000, 2, 1, 0, 0, x'78', x'ff112233445566778899aabbccddeeff', '{{\"é\":1}}');
         INSERT INTO Edit VALUES ({c}, 5, 4);
         INSERT INTO Recalled VALUES ({c}, 0, 1, zeroblob(128));
         INSERT INTO Member VALUES ({c}, {a}, 1, 0, 2, 1, 0, 1, 950);
         INSERT INTO Device VALUES (4, {a}, 'phone', -5, zeroblob(16), 990);
         INSERT INTO DeviceCursor VALUES (4, {c}, 2);
         INSERT INTO Blocked VALUES ({a}, {b});
         INSERT INTO Banned VALUES (1, {b});
         INSERT INTO Asked VALUES ({b}, {a});
         INSERT INTO HookQueue VALUES (3, 1, 7, 2, 2000, 0);
         INSERT INTO Meta VALUES (1, x'00ff')"
    )).unwrap();
}

#[test]
fn a_second_run_changes_nothing_and_a_used_copy_is_never_written_to() {
    let (workplace, database) = small();
    workplace.succeed(&COPY);
    // The copy must not need to write: this account has no right to.
    let keeper = format!("reader{}", process::id());
    let forget = format!("DROP USER IF EXISTS {keeper}@'%'");
    database.run(&format!(
        "{forget}; CREATE USER {keeper}@'%' IDENTIFIED BY 'pw'; GRANT SELECT ON {}.* TO {keeper}@'%'",
        database.name()
    ));
    let cnf = database.cnf();
    let cnf = cnf.replace(&format!("username={}", database.user()), &format!("username={keeper}"));
    workplace.write("mysql.cnf", &cnf.replace(&format!("password={}", database.password()), "password=pw"));
    let shown = workplace.succeed(&COPY);
    assert!(shown.ends_with("nothing to do: all of raybox.db is copied already\n"), "{shown}");
    assert_equal_tables(&shown, [40, 3, 4, 2, 5]);
    database.run(&forget);
    workplace.write("mysql.cnf", &database.cnf());

    // Fetched messages must not come back, not even the last ones, whose absence leaves a prefix of
    // the source.
    database.run("DELETE FROM OfflineMessage ORDER BY id DESC LIMIT 10");
    let line = workplace.refused(&COPY);
    assert!(line.contains("a copy that is in use: what differs from raybox.db is in OfflineMessage; "), "{line}");
    assert_eq!(database.count("SELECT COUNT(*) FROM OfflineMessage"), 30);
}

#[test]
fn a_database_with_other_data_is_refused_whichever_table_it_is_in() {
    let (workplace, database) = small();
    for (table, tables, insert) in [
        ("OfflineMessage", "OfflineMessage", "INSERT INTO OfflineMessage (userid, message) VALUES (1, 'other')"),
        ("GroupUser", "GroupUser", "INSERT INTO GroupUser VALUES (1, 2, 'normal')"),
        ("Friend", "Friend", "INSERT INTO Friend VALUES (8, 9)"),
        ("AllGroup", "AllGroup", "INSERT INTO AllGroup (groupname, groupdesc) VALUES ('other', '')"),
        (
            "User",
            "OfflineMessage, GroupUser, Friend, AllGroup, User",
            "INSERT INTO User (name, password) VALUES ('other', '')",
        ),
    ] {
        database.run(insert);
        let line = workplace.refused(&COPY);
        assert!(
            line.contains(&format!(
                "holds other data, or a copy that is in use: what differs from raybox.db is in {tables}; "
            )),
            "{line}"
        );
        assert!(line.contains("name an empty database by the key dbname in mysql.cnf"), "{line}");
        database.run(&format!("DELETE FROM {table}"));
    }
    assert_eq!(rows(&database), [0; 5]);
    workplace.succeed(&COPY);
}

#[test]
fn killed_in_the_middle_of_any_table_it_is_completed_by_the_next_run() {
    let (workplace, database) = small();
    // A transaction has inserted rows without committing them. They are invisible, but inserting
    // the same rows waits.
    for (block, copied) in [
        ("INSERT INTO OfflineMessage (id, userid, message) VALUES (20, 1, 'x')", [0, 0, 0, 0, 0]),
        ("INSERT INTO GroupUser VALUES (2, 3, 'normal')", [40, 0, 0, 0, 0]),
        ("INSERT INTO Friend VALUES (2, 1)", [40, 3, 0, 0, 0]),
        ("INSERT INTO AllGroup (id, groupname) VALUES (2, 'x')", [40, 3, 4, 0, 0]),
    ] {
        let mut blocker = database.connect();
        blocker.query_drop("START TRANSACTION").unwrap();
        blocker.query_drop(block).unwrap();
        let running = workplace.start(&COPY);
        wait_for_lock(&running, &database);
        running.kill9();
        blocker.query_drop("ROLLBACK").unwrap();
        // The database still executes what was sent before the kill. After that, the lock of the
        // killed process is free.
        let locks = format!("SELECT IS_FREE_LOCK(CONCAT('raybox ', LEFT(SHA2('{}', 256), 32)))", database.name());
        wait_within(LONG_PATIENCE, "the dead one is gone", || database.count(&locks) == 1);
        let there = rows(&database);
        assert!(there.iter().zip(copied).all(|(there, copied)| *there >= copied), "{there:?}");
        assert_eq!(there[4], 0, "no users before all is there: {there:?}");
    }
    let shown = workplace.succeed(&COPY);
    assert!(shown.contains("which were missing"), "{shown}");
    assert_equal_tables(&shown, [40, 3, 4, 2, 5]);
    assert!(workplace.succeed(&COPY).contains("nothing to do"));
}

#[test]
fn killed_in_the_middle_of_a_table_it_goes_on_after_the_copied_rows() {
    let (workplace, database) = many(3_000, 20_000);
    let mut blocker = database.connect();
    blocker.query_drop("START TRANSACTION").unwrap();
    blocker.query_drop("INSERT INTO OfflineMessage (id, userid, message) VALUES (10000, 1, 'x')").unwrap();
    let running = workplace.start(&COPY);
    wait_for_lock(&running, &database);
    let there = database.count("SELECT COUNT(*) FROM OfflineMessage");
    assert!((5_000..10_000).contains(&there), "{there}");
    running.kill9();
    blocker.query_drop("ROLLBACK").unwrap();
    let shown = workplace.succeed(&COPY);
    assert!(shown.contains("rows are copied, which were missing"), "{shown}");
    assert!(!shown.contains("OfflineMessage: 20,000 rows are copied"), "{shown}");
    assert_equal_tables(&shown, [20_000, 0, 0, 0, 3_000]);
}

#[test]
fn users_come_all_at_once() {
    let (workplace, database) = many(3_000, 0);
    let mut observer = database.connect();
    let running = workplace.start(&COPY);
    let seen = std::cell::RefCell::new(Vec::new());
    wait_within(LONG_PATIENCE, "all users", || {
        let users: u64 = observer.query_first("SELECT COUNT(*) FROM User").unwrap().unwrap();
        seen.borrow_mut().push(users);
        users == 3_000
    });
    assert_eq!(running.wait().code, Some(0));
    assert!(seen.into_inner().iter().all(|users| *users == 0 || *users == 3_000), "none or all");
}

#[test]
fn a_source_that_a_server_uses_is_refused() {
    let server = TestServer::start();
    offline_user(&server, "ann");
    let database = Database::create();
    let workplace = Workplace::on(&database);
    let path = server.folder().join("raybox.db");
    let line = workplace.refused(&["copy", "--from", path.to_str().unwrap(), "--to", "mysql.cnf"]);
    let expected = format!("is in use by another server, process {}; stop that one", server.pid());
    assert!(line.contains(&expected), "{line}");
    // The path may be that of the folder as well as that of the file.
    let line = workplace.refused(&["copy", "--from", server.folder().to_str().unwrap(), "--to", "mysql.cnf"]);
    assert!(line.contains(&expected), "{line}");
    assert_eq!(rows(&database), [0; 5]);
}

#[test]
fn a_killed_servers_log_is_copied_too() {
    let mut server = TestServer::start();
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    ann.send(&numbered(a, b, 0));
    ann.barrier();
    server.kill9();
    assert!(fs::metadata(server.folder().join("raybox.db-wal")).unwrap().len() > 0, "it did not get to work it in");
    let database = Database::create();
    let workplace = Workplace::on(&database);
    let shown = workplace.succeed(&["copy", "--from", server.folder().to_str().unwrap(), "--to", "mysql.cnf"]);
    assert_equal_tables(&shown, [1, 0, 0, 0, 2]);
    let new = TestServer::builder().mysql(&database).start();
    assert_eq!(login(&new, "bob", b).fetch(b).len(), 1);
}

#[test]
fn names_that_only_the_database_takes_for_the_same_are_named_before_anything_is_copied() {
    let (workplace, database) = small();
    let source = workplace.open();
    for (id, name) in [(20, "あ"), (21, "ア"), (22, "ぃ"), (23, "い")] {
        let key = raybox::base::collation::fold(name);
        let insert = "INSERT INTO User (id, name, name_key, password) VALUES (?1, ?2, ?3, '')";
        source.execute(insert, (id, name, key)).expect("different names to the source");
    }
    let line = workplace.refused(&COPY);
    assert!(
        line.contains(r#"these users have the same name: 20 "あ" and 21 "ア"; 22 "ぃ" and 23 "い"; nothing was"#),
        "{line}"
    );
    assert_eq!(rows(&database), [0; 5]);
    source.execute("UPDATE User SET name = name || id, name_key = name_key || id WHERE id IN (21, 23)", []).unwrap();
    drop(source);
    workplace.succeed(&COPY);
    assert_eq!(rows(&database), [40, 3, 4, 2, 9]);
}

#[test]
fn data_that_cannot_be_copied_is_refused_in_one_line() {
    let (workplace, _database) = small();
    for (database, hint) in [
        (Database::create_empty(), "has no tables; make them with: server migrate --mysql other.cnf"),
        (
            Database::create_reference(),
            "has tables of the reference server; bring them up to date with: server migrate",
        ),
    ] {
        workplace.write("other.cnf", &database.cnf());
        let line = workplace.refused(&["copy", "--from", "raybox.db", "--to", "other.cnf"]);
        assert!(line.contains(hint), "{line}");
    }
    workplace.write("empty.db", "");
    workplace.write("text.db", &"this is a text, not a database\n".repeat(100));
    for (file, part) in [
        ("none.db", "cannot open "),
        ("empty.db", "empty.db is damaged or no database"),
        ("text.db", "is damaged or no database"),
    ] {
        let line = workplace.refused(&["copy", "--from", file, "--to", "mysql.cnf"]);
        assert!(line.contains(part), "{line}");
    }
    assert!(!workplace.path().join("none.db").exists() && !workplace.path().join("none.db.lock").exists());
    let line = workplace.refused(&["copy", "--from", "raybox.db"]);
    assert!(line.contains("--to <FILE>") && line.contains("usage: server copy --from FILE --to FILE"), "{line}");
}

#[test]
fn ten_thousand_users_with_a_hundred_thousand_messages_have_equal_checksums() {
    let (workplace, database) = many(10_000, 100_000);
    let shown = workplace.succeed(&COPY);
    assert_equal_tables(&shown, [100_000, 0, 0, 0, 10_000]);
    println!("{shown}");
    // The checksums cover the contents: one changed letter must show.
    database
        .run("UPDATE OfflineMessage SET message = REPLACE(message, '\"n\":99999', '\"n\":99998') WHERE id = 100000");
    let line = workplace.refused(&COPY);
    assert!(line.contains("what differs from raybox.db is in OfflineMessage; "), "{line}");
}

#[test]
fn a_database_that_stops_answering_is_said_and_the_copy_completed_later() {
    let mut mariadb = testkit::MariaDb::start();
    let database = mariadb.create_database();
    let workplace = source_of(2_000, 50_000);
    workplace.write("mysql.cnf", &database.cnf());
    let running = workplace.start(&COPY);
    wait_within(LONG_PATIENCE, "the copy has begun", || database.count("SELECT COUNT(*) FROM OfflineMessage") > 0);
    signal(running.pid(), "STOP");
    mariadb.kill();
    signal(running.pid(), "CONT");
    let ended = running.wait();
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.starts_with("server: copy: not finished: mysql.cnf, "), "{ended:?}");
    assert!(ended.stderr.contains("run the same command again"), "{ended:?}");
    mariadb.restart();
    let shown = workplace.succeed(&COPY);
    assert!(shown.contains("which were missing"), "{shown}");
    assert_equal_tables(&shown, [50_000, 0, 0, 0, 2_000]);
}

/// Waits until the copy is blocked by a row that another transaction has inserted.
fn wait_for_lock(running: &Running, database: &Database) {
    // The table innodb_trx will not do: it shows the same snapshot to everyone who asks again
    // within a tenth of a second.
    let inserting = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'INSERT%'";
    let waits = |thread: &u64| {
        let status: Vec<(String, String, String)> = database.rows("SHOW ENGINE INNODB STATUS");
        let mut transactions = status[0].2.split("---TRANSACTION");
        transactions.any(|one| one.contains("LOCK WAIT") && one.contains(&format!("thread id {thread},")))
    };
    wait_within(LONG_PATIENCE, &format!("a lock; it said {}", running.stdout()), || {
        database.rows::<u64>(inserting).iter().any(waits)
    });
}

/// Shuts a server down gracefully, and returns its files.
fn stopped(mut server: TestServer) -> CopySource {
    server.terminate();
    assert!(server.wait_exit(testkit::PATIENCE).success());
    let workplace = Workplace::empty();
    fs::copy(server.folder().join("raybox.db"), workplace.path().join("raybox.db")).expect("copy the database");
    CopySource(workplace)
}

/// A workplace with a `raybox.db`.
struct CopySource(Workplace);

impl std::ops::Deref for CopySource {
    type Target = Workplace;

    fn deref(&self) -> &Workplace {
        &self.0
    }
}

impl CopySource {
    fn open(&self) -> Connection {
        Connection::open(self.path().join("raybox.db")).expect("open the source")
    }
}

/// A source with five users, two groups and forty messages, and a database with empty tables.
fn small() -> (CopySource, Database) {
    let source = source_of(5, 40);
    source
        .open()
        .execute_batch(
            "INSERT INTO AllGroup (id, groupname, name_key, groupdesc) VALUES (1, 'one', 'one', 'd'), (2, 'two', 'two', '');
             INSERT INTO GroupUser VALUES (1, 1, 'creator', 0), (2, 2, 'creator', 5), (2, 3, 'normal', 7);
             INSERT INTO Friend VALUES (1, 2), (2, 1), (2, 3), (3, 2)",
        )
        .unwrap();
    let database = Database::create();
    source.write("mysql.cnf", &database.cnf());
    (source, database)
}

/// A source with this number of users and messages, and a database with empty tables.
fn many(users: usize, messages: usize) -> (CopySource, Database) {
    let (source, database) = (source_of(users, messages), Database::create());
    source.write("mysql.cnf", &database.cnf());
    (source, database)
}

fn source_of(users: usize, messages: usize) -> CopySource {
    let source = stopped(TestServer::start());
    source
        .open()
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {users})
             INSERT INTO User (id, name, name_key, password) SELECT i, 'User ' || i, 'user ' || i, '$argon2id$' || i FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {messages})
             INSERT INTO OfflineMessage (id, userid, message)
             SELECT i, 1 + i * 7919 % {users},
                 '{{\"FROMID\":1,\"msgType\":4,\"msg\":\"' || hex(zeroblob(20)) || '\",\"n\":' || (i - 1) || '}}'
             FROM n WHERE {messages} > 0;
             COMMIT"
        ))
        .unwrap();
    source
}

/// Checks the printed table: the numbers of messages, members, friends, groups and users, which
/// must be equal on both sides.
fn assert_equal_tables(shown: &str, rows: [u64; 5]) {
    for (table, rows) in ["OfflineMessage", "GroupUser", "Friend", "AllGroup", "User"].iter().zip(rows) {
        let of_table = |line: &&str| line.starts_with(&format!("{table} ")) && line.contains("equal");
        let line = shown.lines().find(of_table).unwrap_or_else(|| panic!("{table} is not equal: {shown}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, there, here, sum_there, sum_here, "equal"] = words[..] else { panic!("{line}") };
        assert_eq!((there.replace(',', ""), there), (rows.to_string(), here), "{line}");
        assert_eq!((sum_there, sum_there.len()), (sum_here, 16), "{line}");
    }
    assert!(!shown.contains("DIFFERENT"), "{shown}");
}

/// Whether the printed table shows this number of rows in both databases, and that they are equal.
fn has_equal(shown: &str, table: &str, rows: u64) -> bool {
    let rows = rows.to_string();
    shown.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [name, there, here, sum, same, "equal"]
            if name == table && there == rows && here == rows && sum == same)
    })
}

/// The numbers of messages, members, friends, groups and users in a database.
fn rows(database: &Database) -> [usize; 5] {
    ["OfflineMessage", "GroupUser", "Friend", "AllGroup", "User"]
        .map(|table| database.count(&format!("SELECT COUNT(*) FROM {table}")))
}

/// All rows of a source.
fn dump(source: &Connection) -> Vec<String> {
    let mut all = Vec::new();
    for query in [
        "SELECT concat_ws('|', id, name, name_key, password, state) FROM User ORDER BY 1",
        "SELECT concat_ws('|', userid, friendid) FROM Friend ORDER BY 1",
        "SELECT concat_ws('|', id, groupname, groupdesc) FROM AllGroup ORDER BY 1",
        "SELECT concat_ws('|', groupid, userid, grouprole) FROM GroupUser ORDER BY 1",
        "SELECT concat_ws('|', id, userid, message) FROM OfflineMessage ORDER BY 1",
        "SELECT concat_ws('|', name, seq) FROM sqlite_sequence ORDER BY 1",
    ] {
        let mut select = source.prepare(query).unwrap();
        let rows = select.query_map([], |row| row.get::<_, String>(0)).unwrap();
        all.extend(rows.map(Result::unwrap));
    }
    all
}
