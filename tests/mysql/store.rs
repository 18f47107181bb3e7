//! A store on a database without a server, and the calls that tests make.

use crate::mysql_store::open_with;
use raybox::protocol::UserId;
use raybox::store::mysql::MysqlStore;
use raybox::store::{Accounts as _, AppendOutcome, Messages as _, NewMessage, StoreError};
use testkit::Database;

pub(crate) fn open(database: &Database) -> MysqlStore {
    open_with(database, |_| ())
}

pub(crate) fn new_user(store: &MysqlStore, name: &str) -> UserId {
    store.register(name, "x").unwrap()
}

pub(crate) fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage::new(to, text)
}

pub(crate) fn append(store: &MysqlStore, to: UserId, text: &str) -> Result<AppendOutcome, StoreError> {
    store.append(&[message(to, text)]).map(|kept| kept[0])
}

pub(crate) fn texts(store: &MysqlStore, user: UserId) -> Vec<String> {
    store.fetch(user, usize::MAX).unwrap().into_iter().map(|kept| kept.text).collect()
}

pub(crate) fn is_down(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}
