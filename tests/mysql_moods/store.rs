//! A store on a database without a server, and the calls that tests make.

use crate::mysql_store::open_with;
use raybox::config::{MysqlSettings, Secret};
use raybox::protocol::UserId;
use raybox::store::mysql::MysqlStore;
use raybox::store::{Accounts as _, AppendOutcome, Messages as _, NewMessage, StoreError};
use testkit::{Database, wait_until};

/// An account with exactly the privileges that the server needs. In particular it cannot write
/// while the database server is read-only.
pub(crate) fn ordinary(database: &Database) -> impl Fn(&mut MysqlSettings) + use<> {
    database.run(
        "CREATE USER ordinary@'%' IDENTIFIED BY 'pw'; GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO ordinary@'%'",
    );
    |settings: &mut MysqlSettings| {
        (settings.username, settings.password) = ("ordinary".to_owned(), Secret::new("pw"));
    }
}

/// Kills the store's connections. Returns when they are gone, so the next call opens a new one.
pub(crate) fn kill_connections(database: &Database) {
    let query = format!(
        "SELECT id FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
        database.name()
    );
    let ours: Vec<u64> = database.rows(&query);
    ours.iter().for_each(|id| database.kill(*id));
    wait_until("the connections are gone", || !database.rows::<u64>(&query).iter().any(|id| ours.contains(id)));
}

pub(crate) fn open(database: &Database) -> MysqlStore {
    open_with(database, |_| ())
}

pub(crate) fn new_user(store: &MysqlStore, name: &str) -> UserId {
    store.register(name, "x").unwrap()
}

pub(crate) fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage::new(to, text)
}

pub(crate) fn append(store: &MysqlStore, to: UserId, text: &str) -> Result<(), StoreError> {
    store.append(&[message(to, text)]).map(|kept| assert_eq!(kept, [AppendOutcome::Stored]))
}

pub(crate) fn texts(store: &MysqlStore, user: UserId) -> Vec<String> {
    store.fetch(user, usize::MAX).unwrap().into_iter().map(|kept| kept.text).collect()
}

pub(crate) fn is_down(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}
