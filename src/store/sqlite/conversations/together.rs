//! Several reads as of one moment.
//!
//! SQLite caches the pages that a connection has read until another connection commits. The reads
//! of a login begin with the same tables, so together they read these pages once.

use std::cell::RefCell;

use rusqlite::Connection;

use super::moments::in_one_moment;
use super::{devices, marks, reading};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::{Denied, DeviceId, Head, HistoryEntry, HistoryReads};
use crate::store::sqlite::late::Late;

/// The reads of one moment.
struct Moment<'a> {
    db: &'a Connection,
    /// The failure of a read, which ends them all.
    failed: RefCell<Option<rusqlite::Error>>,
    /// Users with groups in which they have no row, see [`reading::unknown_groups`].
    unknown: RefCell<Vec<(UserId, Vec<ConversationId>)>>,
}

pub(super) fn read(
    live: &Late,
    read: &mut dyn FnMut(&dyn HistoryReads) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut attempt = || {
        live.read(|db| {
            in_one_moment(db, |db| {
                let moment = Moment { db, failed: RefCell::default(), unknown: RefCell::default() };
                let outcome = read(&moment);
                match moment.failed.into_inner() {
                    Some(error) => Err(error),
                    None => Ok((outcome, moment.unknown.into_inner())),
                }
            })
        })
    };
    let (outcome, unknown) = attempt()?;
    if unknown.is_empty() {
        return outcome;
    }
    live.change(move |db| unknown.iter().try_for_each(|(user, groups)| marks::adopt(db, *user, groups)))?;
    attempt()?.0
}

impl Moment<'_> {
    fn ask<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        query(self.db).map_err(|error| {
            let failed = StoreError::Failed(error.to_string().into());
            self.failed.borrow_mut().get_or_insert(error);
            failed
        })
    }
}

impl HistoryReads for Moment<'_> {
    fn heads(&self, user: UserId) -> Result<Vec<Head>, StoreError> {
        let unknown = self.ask(|db| reading::unknown_groups(db, user))?;
        if !unknown.is_empty() {
            self.unknown.borrow_mut().push((user, unknown));
        }
        self.ask(|db| reading::heads(db, user))
    }

    fn heads_of(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Result<Head, Denied>>, StoreError> {
        self.ask(|db| convs.iter().map(|conv| reading::head(db, user, *conv)).collect())
    }

    fn tags(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Tag>>, StoreError> {
        self.ask(|db| reading::tags(db, places))
    }

    fn messages_at(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<HistoryEntry>>, StoreError> {
        self.ask(|db| reading::messages_at(db, places))
    }

    fn cursors(&self, device: DeviceId) -> Result<Vec<(ConversationId, i64)>, StoreError> {
        self.ask(|db| marks::cursors(db, device))
    }

    fn logins(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        self.ask(|db| devices::logins(db, devices))
    }
}
