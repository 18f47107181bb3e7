//! The limits on the size of what a database takes at a time.

use raybox::store::{AppendOutcome, Database as _, MessageId, Messages as _, NewMessage};
use testkit::MariaDb;

use crate::store::{append, kill_connections, message, new_user, open, texts};

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
fn statements_are_no_longer_than_the_database_takes() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=256K"]);
    let database = mariadb.create_database();
    let store = open(&database);
    let ann = new_user(&store, "ann");
    let batch: Vec<NewMessage> = (0..60).map(|n| message(ann, &numbered(n, 40_000))).collect();
    assert_eq!(store.append(&batch).unwrap(), [AppendOutcome::Stored; 60]);
    // A message that can never fit is refused, but only that message.
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
    // A message that the database can no longer send neither blocks the others nor is lost.
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

pub(crate) fn numbered(n: usize, length: usize) -> String {
    format!("{n:0>5}{}", "x".repeat(length - 5))
}
