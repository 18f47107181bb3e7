//! Accounts in the table `User`.

use rusqlite::{OptionalExtension, ffi, named_params};

use super::SqliteStore;
use super::ids::IdKind;
use super::rows::{self, new_id, user_by_id, user_row};
use crate::base::collation::fold;
use crate::base::rows::AccountState;
use crate::protocol::UserId;
use crate::store::{Accounts, StoreError, User};

impl Accounts for SqliteStore {
    fn fits_hashes(&self) -> bool {
        true
    }

    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached("SELECT password FROM User WHERE id = :id")?
                .query_row(named_params! {":id": user.0}, |row| row.get("password"))
                .optional()
        })
    }

    fn credentials(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let users = users.to_vec();
        self.live.read(move |db| {
            let mut query = db.prepare_cached("SELECT password FROM User WHERE id = :id")?;
            let mut find = |user: &UserId| {
                let stored = query.query_row(named_params! {":id": user.0}, |row| row.get("password")).optional()?;
                Ok(stored.map(|stored| (*user, stored)))
            };
            users.iter().filter_map(|user| find(user).transpose()).collect()
        })
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        let (name, name_key, credential) = (name.to_owned(), fold(name), credential.to_owned());
        let (live, ids) = self.live.live()?;
        let ids = ids.clone();
        let id = live.change(move |db| {
            let inserted = db
                .prepare_cached("INSERT INTO User (name, name_key, password) VALUES (:name, :name_key, :password)")?
                .execute(named_params! {":name": name, ":name_key": name_key, ":password": credential});
            match inserted {
                Ok(_) => {
                    let id = new_id(db)?;
                    ids.note(IdKind::User, id)?;
                    Ok(Some(UserId(id)))
                }
                Err(error) if is_duplicate(&error) => Ok(None),
                Err(error) => Err(error),
            }
        })?;
        id.ok_or(StoreError::NameTaken)
    }

    fn replace_credential(&self, user: UserId, old: &str, new: &str) -> Result<(), StoreError> {
        let (old, new) = (old.to_owned(), new.to_owned());
        self.live.change(move |db| {
            db.prepare_cached("UPDATE User SET password = :new WHERE id = :id AND password = :old")?
                .execute(named_params! {":new": new, ":id": user.0, ":old": old})
                .map(drop)
        })
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.live.read(move |db| user_by_id(db, user))
    }

    fn accounts_after(&self, after: UserId, limit: usize) -> Result<Vec<(User, AccountState)>, StoreError> {
        let limit = rows::limit(limit);
        self.live.read(move |db| {
            db.prepare_cached("SELECT id, name, password FROM User WHERE id > :after ORDER BY id LIMIT :limit")?
                .query_map(named_params! {":after": after.0, ":limit": limit}, |row| {
                    Ok((user_row(row)?, AccountState::of(row.get_ref("password")?.as_str()?)))
                })?
                .collect()
        })
    }

    fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        let name_key = fold(name);
        self.live.read(move |db| {
            db.prepare_cached("SELECT id, name FROM User WHERE name_key = :name_key")?
                .query_row(named_params! {":name_key": name_key}, user_row)
                .optional()
        })
    }
}

fn is_duplicate(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|cause| cause.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE)
}
