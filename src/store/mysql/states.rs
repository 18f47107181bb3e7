//! The column `User.state`.

use std::collections::BTreeMap;

use mysql::params;
use mysql::prelude::Queryable;

use super::MysqlStore;
use super::calls::Repeat;
use super::rows::ids_of;
use super::shapes::{self, LIST_MAX};
use crate::protocol::UserId;
use crate::store::{States, StoreError, UserState};

impl States for MysqlStore {
    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError> {
        // The last change of a user counts. By ascending id, so that nodes lock rows in the same
        // order.
        let last: BTreeMap<UserId, UserState> = changes.iter().copied().collect();
        let mut statements = Vec::new();
        for (state, text) in [(UserState::Online, "online"), (UserState::Offline, "offline")] {
            let users: Vec<i32> = last.iter().filter(|(_, s)| **s == state).map(|(user, _)| user.0).collect();
            for users in users.chunks(LIST_MAX) {
                let ids = shapes::padded(users.iter().map(|id| (*id).into()));
                let statement = format!("UPDATE User SET state = '{text}' WHERE id IN {}", shapes::list(ids.len()));
                statements.push((statement, ids));
            }
        }
        match statements.as_slice() {
            [] => Ok(()),
            [(statement, ids)] => self.base.calls.call(|db, _| db.exec_drop(statement, ids)),
            many => self.base.calls.transaction(Repeat::Freely, |db| {
                many.iter().try_for_each(|(statement, ids)| db.exec_drop(statement, ids))
            }),
        }
    }

    fn set_all_offline(&self) -> Result<(), StoreError> {
        self.base.calls.call(|db, _| db.query_drop("UPDATE User SET state = 'offline' WHERE state <> 'offline'"))
    }

    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let mut online = Vec::new();
        for users in users.chunks(LIST_MAX) {
            let ids = shapes::padded(users.iter().map(|user| user.0.into()));
            let statement = format!("SELECT id FROM User WHERE id IN {} AND state = 'online'", shapes::list(ids.len()));
            online.extend(self.base.calls.call(|db, _| ids_of(db.exec(&statement, &ids)?))?);
        }
        Ok(online)
    }

    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.base.calls.call(|db, _| {
            let statement = "SELECT id FROM User WHERE id > :user AND state = 'online' ORDER BY id LIMIT :limit";
            ids_of(db.exec(statement, params! {"user" => user.0, limit})?)
        })
    }
}
