//! Accounts in the table `User`.

use mysql::prelude::Queryable;
use mysql::{Row, params};

use super::calls::CallAttempt;
use super::rows::{collect, column, new_id, user_row};
use super::shapes::{self, LIST_MAX};
use super::{MysqlStore, error};
use crate::base::rows::AccountState;
use crate::protocol::UserId;
use crate::store::{Accounts, StoreError, User};

impl Accounts for MysqlStore {
    fn fits_hashes(&self) -> bool {
        self.base.schema.fits_hashes()
    }

    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.base.calls.call(|db, _| {
            let row = db.exec_first("SELECT password FROM User WHERE id = :id", params! {"id" => user.0})?;
            // The reference server's tables allow an account without a password. Nobody can log in
            // to it, as to one without an id.
            let password: Option<Option<String>> = row.map(|mut row: Row| column(&mut row, "password")).transpose()?;
            Ok(password.flatten())
        })
    }

    fn credentials(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let mut all = Vec::new();
        for users in users.chunks(LIST_MAX) {
            let ids = shapes::padded(users.iter().map(|user| user.0.into()));
            let statement = format!("SELECT id, password FROM User WHERE id IN {}", shapes::list(ids.len()));
            let rows = self.base.calls.call(|db, _| {
                collect(db.exec(&statement, &ids)?, |row| {
                    Ok((UserId(column(row, "id")?), column::<Option<String>>(row, "password")?))
                })
            })?;
            all.extend(rows.into_iter().filter_map(|(user, stored)| Some((user, stored?))));
        }
        Ok(all)
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        let id = self.base.calls.call(|db, attempt| {
            let inserted = db.exec_drop(
                "INSERT INTO User (name, password, state) VALUES (:name, :credential, 'offline')",
                params! {name, credential},
            );
            match inserted {
                Ok(()) => new_id(db.last_insert_id()).map(Some),
                Err(error) if error::code(&error) != Some(error::DUPLICATE_ENTRY) => Err(error),
                Err(_) if attempt == CallAttempt::First => Ok(None),
                // The name may be taken by the previous attempt, whose answer was lost. Hashes have
                // random salts.
                Err(_) => {
                    let ours = db.exec_first(
                        "SELECT id FROM User WHERE name = :name AND CAST(password AS BINARY) = CAST(:credential AS BINARY)",
                        params! {name, credential},
                    )?;
                    ours.map(|mut row: Row| column(&mut row, "id")).transpose()
                }
            }
        })?;
        id.map(UserId).ok_or(StoreError::NameTaken)
    }

    fn replace_credential(&self, user: UserId, old: &str, new: &str) -> Result<(), StoreError> {
        self.base.calls.call(|db, _| {
            // Compared byte by byte: the reference server's column would ignore case.
            db.exec_drop(
                "UPDATE User SET password = :new
                 WHERE id = :id AND CAST(password AS BINARY) = CAST(:old AS BINARY)",
                params! {"id" => user.0, old, new},
            )
        })
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.base.calls.call(|db, _| {
            let row = db.exec_first("SELECT id, name FROM User WHERE id = :id", params! {"id" => user.0})?;
            row.map(|mut row: Row| user_row(&mut row)).transpose()
        })
    }

    fn accounts_after(&self, after: UserId, limit: usize) -> Result<Vec<(User, AccountState)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.base.calls.call(|db, _| {
            let statement = "SELECT id, name, password FROM User WHERE id > :after ORDER BY id LIMIT :limit";
            collect(db.exec(statement, params! {"after" => after.0, limit})?, |row| {
                let stored: Option<String> = column(row, "password")?;
                Ok((user_row(row)?, stored.map(|stored| AccountState::of(&stored)).unwrap_or_default()))
            })
        })
    }

    fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        self.base.calls.call(|db, _| {
            let row = db.exec_first("SELECT id, name FROM User WHERE name = :name", params! {name})?;
            row.map(|mut row: Row| user_row(&mut row)).transpose()
        })
    }
}
