//! History on a database that several nodes use and that fails in the middle of calls: deadlocks,
//! lost connections, commits whose answer is lost.

mod ear;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mysql::Conn;
use mysql::prelude::Queryable;
use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::history::{
    CommitOutcome, EntryPlace, EntryRefusal, History, HistoryReads, NewEntry, PageAsk, PageOutcome,
};
use raybox::store::mysql::MysqlStore;
use raybox::store::{Contacts as _, StoreError};
use testkit::{Database, MariaDb, wait_until};

use self::ear::Ear;
use crate::history_suite::{BYTES, DAY, login, new_place, new_user, text};
use crate::mysql_store::open_with;

/// With numbers from AUTO_INCREMENT, a reader that asks for messages after its last number would
/// miss a quarter of them here: a number is assigned at the insert, but visible only after the
/// commit.
#[test]
fn a_reader_that_pages_by_number_misses_nothing_of_four_writers() {
    const WRITERS: usize = 4;
    const BATCHES: usize = 60;
    let database = Database::create();
    let stores: Vec<MysqlStore> = (0..WRITERS).map(|_| open(&database)).collect();
    let (users, convs) = three_groups(&stores[0], WRITERS);
    let is_over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let writers: Vec<_> = (stores.iter().zip(&users).enumerate())
            .map(|(nth, (store, user))| {
                let convs = &convs;
                scope.spawn(move || {
                    for batch in 0..BATCHES {
                        // Every writer and every batch has another order of conversations.
                        let order = [0, 1, 2].map(|at| convs[(at * (nth % 2 + 1) + batch + nth) % 3]);
                        let entries: Vec<NewEntry> = (order.iter().chain(&order))
                            .enumerate()
                            .map(|(at, conv)| text(*conv, *user, &format!("{nth} {:06}", batch * 6 + at)))
                            .collect();
                        store.commit(&entries, DAY).unwrap().into_iter().map(new_place).for_each(|_| ());
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let store = open(&database);
            let mut seen: BTreeMap<ConversationId, Vec<(i64, String)>> = BTreeMap::new();
            loop {
                let ends = is_over.load(Ordering::SeqCst);
                for conv in &convs {
                    let seen = seen.entry(*conv).or_default();
                    let last = seen.last().map_or(0, |(seq, _)| *seq);
                    let page = store.page(users[0], *conv, PageAsk::After(last), 50, BYTES).unwrap();
                    let PageOutcome::Page(page) = page else { panic!("{page:?}") };
                    seen.extend(page.entries.into_iter().map(|entry| (entry.seq, entry.text.unwrap())));
                }
                let count: usize = seen.values().map(Vec::len).sum();
                if ends && count >= WRITERS * BATCHES * 6 {
                    return seen;
                }
                assert!(!ends || seen.values().all(|seen| seen.is_sorted()), "a reader that never ends");
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    for conv in &convs {
        let (seen, rows) = (&seen[conv], rows(&database, *conv));
        assert_eq!(*seen, rows, "all is seen, once and in its place");
        assert!(seen.iter().map(|(seq, _)| *seq).eq(1..=rows.len() as i64), "no number is missing");
        for nth in 0..WRITERS {
            let own = seen.iter().filter(|(_, text)| text.starts_with(&format!("{nth} ")));
            assert!(own.map(|(_, text)| text).is_sorted(), "the order of sending");
        }
    }
}

#[test]
fn the_victim_of_a_deadlock_begins_from_the_top() {
    let database = Database::create();
    let store = open(&database);
    let (users, convs) = three_groups(&store, 2);
    let both: Vec<NewEntry> = [0, 1].map(|nth| text(convs[nth], users[0], "a")).into();
    store.commit(&both, DAY).unwrap();
    let mut other = database.connect();
    // This transaction has changed more than the store's will have, so the database rolls back the
    // store's.
    other.query_drop("START TRANSACTION").unwrap();
    for device in 0..50 {
        other.query_drop(format!("INSERT INTO DeviceCursor VALUES ({device}, 1, 1)")).unwrap();
    }
    lock(&mut other, convs[1]);
    let again: Vec<NewEntry> = [1, 0].map(|nth| text(convs[nth], users[1], "b")).into();
    thread::scope(|scope| {
        let commit = scope.spawn(|| store.commit(&again, DAY));
        wait_until("the store holds the one and waits for the other", || waiting(&database).len() == 1);
        lock(&mut other, convs[0]);
        other.query_drop("COMMIT").unwrap();
        let places: Vec<i64> = commit.join().unwrap().unwrap().into_iter().map(|new| new_place(new).seq).collect();
        assert_eq!(places, [2, 2]);
    });
}

#[test]
fn a_connection_that_is_lost_in_the_middle_costs_nothing() {
    let database = Database::create();
    let store = open(&database);
    let (users, convs) = three_groups(&store, 2);
    let first = text(convs[0], users[0], "a");
    store.commit(&[first], DAY).unwrap();
    let mut other = database.connect();
    other.query_drop("START TRANSACTION").unwrap();
    lock(&mut other, convs[0]);
    let second = [text(convs[0], users[0], "b")];
    thread::scope(|scope| {
        let commit = scope.spawn(|| store.commit(&second, DAY));
        wait_until("the store waits", || waiting(&database).len() == 1);
        let lost = waiting(&database)[0];
        database.kill(lost);
        wait_until("it waits again, on another connection", || matches!(&*waiting(&database), [id] if *id != lost));
        other.query_drop("COMMIT").unwrap();
        assert_eq!(new_place(commit.join().unwrap().unwrap()[0]).seq, 2);
    });
    assert_eq!(texts(&database, convs[0]), ["a", "b"]);
}

#[test]
fn a_conversation_that_stays_locked_is_an_outage_and_nothing_is_stored() {
    let database = Database::create();
    let store = open_with(&database, |settings| settings.read_timeout = std::time::Duration::from_secs(2));
    let (users, convs) = three_groups(&store, 1);
    store.commit(&[text(convs[0], users[0], "a")], DAY).unwrap();
    let mut other = database.connect();
    other.query_drop("START TRANSACTION").unwrap();
    lock(&mut other, convs[0]);
    let second = [text(convs[1], users[0], "b"), text(convs[0], users[0], "b")];
    assert!(matches!(store.commit(&second, DAY), Err(StoreError::Unavailable(_))));
    // Conversations that are not locked are not affected.
    assert_eq!(new_place(store.commit(&[text(convs[1], users[0], "c")], DAY).unwrap()[0]).seq, 1);
    other.query_drop("ROLLBACK").unwrap();
    let places: Vec<i64> = store.commit(&second, DAY).unwrap().into_iter().map(|new| new_place(new).seq).collect();
    assert_eq!(places, [2, 2]);
}

#[test]
fn a_commit_whose_answer_is_lost_is_settled_by_its_own_repeat() {
    let database = Database::create();
    let ear = Ear::to(database.address());
    let store = open_with(&database, |settings| settings.servers[0].port = ear.port());
    let (users, convs) = three_groups(&store, 2);
    let edit = |body| text(convs[0], users[0], body);
    store.commit(&[edit("a")], DAY).unwrap();
    for (is_stored, from) in [(true, 2), (false, 4)] {
        let batch = [edit("b"), edit("c"), text(convs[1], users[1], "d")];
        let twice = [&batch[..], &batch[..1]].concat();
        ear.lose_next_commit(is_stored);
        let outcomes = store.commit(&twice, DAY).unwrap();
        assert_eq!(ear.lost(), 1, "the fault has happened");
        let places: Vec<EntryPlace> = outcomes[..3].iter().map(|outcome| new_place(*outcome)).collect();
        assert_eq!(places[..2].iter().map(|place| place.seq).collect::<Vec<_>>(), [from, from + 1]);
        assert_eq!(outcomes[3], CommitOutcome::Again(places[0]), "the repeat in the same batch is one");
        let again: Vec<CommitOutcome> = places.into_iter().map(CommitOutcome::Again).collect();
        assert_eq!(store.commit(&batch, DAY).unwrap(), again, "of another call it is a repeat");
    }
    assert_eq!(texts(&database, convs[0]), ["a", "b", "c", "b", "c"]);
}

#[test]
fn a_login_whose_answer_is_lost_still_says_whom_it_replaces() {
    let database = Database::create();
    let ear = Ear::to(database.address());
    let store = open_with(&database, |settings| settings.servers[0].port = ear.port());
    let ann = new_user(&store);
    ear.lose_next_commit(true);
    let first = store.log_in(&login(ann, "phone", 1)).unwrap().unwrap();
    assert_eq!((ear.lost(), first.replaced), (1, None));
    ear.lose_next_commit(true);
    let second = store.log_in(&login(ann, "phone", 2)).unwrap().unwrap();
    let replaced = Some(first.device.login);
    assert_eq!((ear.lost(), second.replaced, second.device.id), (1, replaced, first.device.id));
    let forgotten = {
        ear.lose_next_commit(true);
        store.forget(ann, &[first.device.id]).unwrap()
    };
    assert_eq!((ear.lost(), forgotten), (1, 1));
}

#[test]
fn a_small_packet_takes_a_large_batch_and_refuses_one_message_by_itself() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=256K"]);
    let database = mariadb.create_database();
    let store = open(&database);
    let (users, convs) = three_groups(&store, 1);
    let sized = |bytes: usize| text(convs[0], users[0], &"\"".repeat(bytes));
    let mut batch: Vec<NewEntry> = (0..40).map(|_| sized(30_000)).collect();
    let outcomes = store.commit(&batch, DAY).unwrap();
    assert!(outcomes.iter().zip(1..).all(|(outcome, seq)| new_place(*outcome).seq == seq));
    batch = vec![sized(10), sized(300_000), sized(10)];
    let outcomes = store.commit(&batch, DAY).unwrap();
    assert_eq!(outcomes[1], CommitOutcome::Refused(EntryRefusal::Unstorable));
    assert_eq!([outcomes[0], outcomes[2]].map(|outcome| new_place(outcome).seq), [41, 42]);
    assert_eq!(store.run(convs[0], 1, 42, false, usize::MAX).unwrap().len(), 42);
}

#[test]
fn a_login_costs_as_many_queries_with_many_conversations_as_with_few() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let store = open(&database);
    let (ann, others) = (new_user(&store), (0..40).map(|_| new_user(&store)).collect::<Vec<_>>());
    database.run("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 1");
    let mut counts = Vec::new();
    store.log_in(&login(ann, "phone", 1)).unwrap();
    for count in [2, 40] {
        let sends = others[..count].iter().map(|other| text(ConversationId::between(ann, *other), *other, "x"));
        store.commit(&sends.collect::<Vec<_>>(), DAY).unwrap();
        store.create_group(ann, "g", "").unwrap();
        database.run("TRUNCATE mysql.general_log");
        let device = store.log_in(&login(ann, "phone", 1)).unwrap().unwrap().device;
        let heads = store.heads(ann).unwrap();
        let places: Vec<_> = heads.iter().map(|head| (head.conv, head.head)).collect();
        store.tags(&places).unwrap();
        store.cursors(device.id).unwrap();
        assert!(heads.len() > count, "{}", heads.len());
        // The statements of health checks change nothing.
        counts.push(database.count(
            "SELECT COUNT(*) FROM mysql.general_log WHERE command_type IN ('Query', 'Execute')
                 AND argument NOT LIKE '%general_log%' AND argument NOT LIKE '%WHERE 1 = 0%'
                 AND argument REGEXP 'Member|Device|Message AS|FROM Message |User'",
        ));
    }
    println!(
        "{counts:?} queries {:?}",
        database.rows::<String>("SELECT CONCAT(command_type, ' ', argument) FROM mysql.general_log")
    );
    assert!(counts[0] == counts[1] && counts[0] <= 7, "{counts:?}");
}

#[test]
fn the_reference_servers_tables_have_no_history() {
    let database = Database::create_reference();
    let store = std::sync::Arc::new(open(&database));
    assert!(raybox::store::Store::of(store).history.get().unwrap().is_none());
    let own = std::sync::Arc::new(open(&Database::create()));
    assert!(raybox::store::Store::of(own).history.get().unwrap().is_some());
}

fn open(database: &Database) -> MysqlStore {
    open_with(database, |_| ())
}

/// Users, and three groups of which all of them are members.
fn three_groups(store: &MysqlStore, members: usize) -> (Vec<UserId>, [ConversationId; 3]) {
    let users: Vec<UserId> = (0..members).map(|_| new_user(store)).collect();
    let groups = [(); 3].map(|()| store.create_group(users[0], "g", "").unwrap());
    for group in groups {
        users[1..].iter().for_each(|user| drop(store.join_group(*user, group, 100).unwrap()));
    }
    (users, groups.map(ConversationId::of_group))
}

fn lock(connection: &mut Conn, conv: ConversationId) {
    let id: Option<i64> =
        connection.exec_first("SELECT id FROM Conversation WHERE id = ? FOR UPDATE", (conv.column(),)).unwrap();
    assert_eq!(id, Some(conv.column()));
}

/// The connections to this database that wait for a lock. The tables of information_schema will not
/// do: they may show the state of another test's last query.
fn waiting(database: &Database) -> Vec<u64> {
    let of_database: Vec<u64> =
        database.rows(&format!("SELECT id FROM information_schema.processlist WHERE db = '{}'", database.name()));
    let status: Vec<(String, String, String)> = database.rows("SHOW ENGINE INNODB STATUS");
    let transactions = status[0].2.split("---TRANSACTION ").filter(|text| text.contains("LOCK WAIT"));
    let ids = transactions.filter_map(|text| {
        let id = text.split_once("thread id ")?.1;
        id.split(',').next()?.parse().ok()
    });
    ids.filter(|id| of_database.contains(id)).collect()
}

fn rows(database: &Database, conv: ConversationId) -> Vec<(i64, String)> {
    database.rows(&format!("SELECT seq, text FROM Message WHERE conv = {} ORDER BY seq", conv.column()))
}

fn texts(database: &Database, conv: ConversationId) -> Vec<String> {
    rows(database, conv).into_iter().map(|(_, text)| text).collect()
}
