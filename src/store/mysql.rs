//! The store of a cluster: a MySQL or MariaDB database that all nodes share, perhaps with reference servers.
//!
//! Calls use connections of a pool (`pool::ConnectionPool`) and prepared statements. `calls.rs` says what happens when a
//! statement fails, `dial.rs` how connections are opened, `health.rs` how calls fail at once while the database is gone, `schema.rs` which tables it works
//! on, `messages.rs` how messages are kept with and without ids.
//!
//! A call whose answer was lost is made again where that does no harm. For messages that means at least once: an append
//! in doubt is repeated, for twice is better than never.
//!
//! Unlike the embedded store this one is not alone: `User.state` is left as it is when the database is opened.

mod calls;
mod dial;
mod error;
mod health;
mod late;
pub mod maintenance;
mod messages;
mod open;
mod probe;
mod schema;
mod shapes;
pub mod target;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mysql::prelude::{FromValue, Queryable};
use mysql::{Conn, Row, Value, params};
use rustc_hash::FxHashSet;

use self::calls::{Attempt, Calls, Repeat, TooLarge};
use self::dial::Limits;
pub use self::late::LateStore;
pub use self::maintenance::Maintenance;
pub use self::open::{Fault, OpenError, Site};
use self::schema::Schema;
use self::shapes::LIST_MAX;
use super::{
    FriendNames, Group, Joined, Kept, KeptMessage, Membership, Message, MessageId, SEARCH_PAGE, SEARCH_TIME, Store,
    StoreError, User, UserState,
};
use crate::collation::fold;
use crate::config::MysqlSettings;
use crate::metrics::PoolUse;
use crate::protocol::{GroupId, UserId};
use crate::quotas::MESSAGE_BYTES;

/// A [`Store`] in a MySQL or MariaDB database.
pub struct MysqlStore {
    name: String,
    calls: Calls,
    schema: Schema,
    limits: Limits,
    /// It is logged that there are messages that no reply can hold.
    has_unreadable: AtomicBool,
    /// For the ids of messages in a table without.
    hashes: RandomState,
}

impl MysqlStore {
    /// Connects and looks at the tables, which it logs.
    ///
    /// # Errors
    /// Whatever the operator has to put right; see [`OpenError`]. Once it is open, the store survives the database.
    pub fn open(settings: &MysqlSettings) -> Result<MysqlStore, OpenError> {
        let open::Opened { calls, schema, limits, name } = open::open(settings)?;
        log::info!("{name}: {}", schema.describe());
        for warning in schema.warnings() {
            log::warn!("{name}: {warning}");
        }
        let text_bytes = limits.text_bytes();
        if text_bytes < SMALL_TEXT_BYTES {
            log::warn!(
                "{name}: max_allowed_packet is small: messages over {text_bytes} bytes cannot be stored; raise it"
            );
        }
        let has_unreadable = AtomicBool::new(false);
        Ok(MysqlStore { name, calls, schema, limits, has_unreadable, hashes: RandomState::new() })
    }

    /// Fills the folded names of groups that somebody else made. Usually none, and then this is one look at an index.
    fn fill_name_keys(&self) -> Result<(), StoreError> {
        loop {
            let unfilled = self.calls.call(|db, _| {
                let rows = db.exec("SELECT id, groupname FROM AllGroup WHERE name_key IS NULL LIMIT 500", ())?;
                collect(rows, |row| Ok((column::<i32>(row, "id")?, text(row, "groupname")?)))
            })?;
            if unfilled.is_empty() {
                return Ok(());
            }
            self.calls.transaction(Repeat::Freely, |db| {
                for (id, name) in &unfilled {
                    let key = fold(name);
                    db.exec_drop("UPDATE AllGroup SET name_key = :key WHERE id = :id", params! {key, id})?;
                }
                Ok(())
            })?;
        }
    }
}

impl Store for MysqlStore {
    fn describe(&self) -> String {
        format!("{}, {}", self.name, self.schema.describe())
    }

    fn fits_hashes(&self) -> bool {
        self.schema.fits_hashes()
    }

    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.calls.call(|db, _| {
            let row = db.exec_first("SELECT password FROM User WHERE id = :id", params! {"id" => user.0})?;
            // Nobody can log in without a password, which the reference server's tables allow, as nobody can without an id.
            let password: Option<Option<String>> = row.map(|mut row: Row| column(&mut row, "password")).transpose()?;
            Ok(password.flatten())
        })
    }

    fn credentials(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        let mut all = Vec::new();
        for users in users.chunks(LIST_MAX) {
            let ids = shapes::padded(users.iter().map(|user| user.0.into()));
            let statement = format!("SELECT id, password FROM User WHERE id IN {}", shapes::list(ids.len()));
            let rows = self.calls.call(|db, _| {
                collect(db.exec(&statement, &ids)?, |row| {
                    Ok((UserId(column(row, "id")?), column::<Option<String>>(row, "password")?))
                })
            })?;
            all.extend(rows.into_iter().filter_map(|(user, stored)| Some((user, stored?))));
        }
        Ok(all)
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        let id = self.calls.call(|db, attempt| {
            let inserted = db.exec_drop(
                "INSERT INTO User (name, password, state) VALUES (:name, :credential, 'offline')",
                params! {name, credential},
            );
            match inserted {
                Ok(()) => new_id(db.last_insert_id()).map(Some),
                Err(error) if error::code(&error) != Some(error::DUPLICATE_ENTRY) => Err(error),
                Err(_) if attempt == Attempt::First => Ok(None),
                // The name may be taken by the attempt before, whose answer was lost. Hashes have random salts.
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
        self.calls.call(|db, _| {
            // Byte by byte: the reference server's column would ignore case.
            db.exec_drop(
                "UPDATE User SET password = :new
                 WHERE id = :id AND CAST(password AS BINARY) = CAST(:old AS BINARY)",
                params! {"id" => user.0, old, new},
            )
        })
    }

    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError> {
        // The last change of a user counts. By ascending id, so that nodes lock rows in the same order.
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
            [(statement, ids)] => self.calls.call(|db, _| db.exec_drop(statement, ids)),
            many => self.calls.transaction(Repeat::Freely, |db| {
                many.iter().try_for_each(|(statement, ids)| db.exec_drop(statement, ids))
            }),
        }
    }

    fn appenders(&self) -> usize {
        APPENDERS
    }

    fn connections(&self) -> Option<PoolUse> {
        Some(self.calls.connections())
    }

    fn set_all_offline(&self) -> Result<(), StoreError> {
        self.calls.call(|db, _| db.query_drop("UPDATE User SET state = 'offline' WHERE state <> 'offline'"))
    }

    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let mut online = Vec::new();
        for users in users.chunks(LIST_MAX) {
            let ids = shapes::padded(users.iter().map(|user| user.0.into()));
            let statement = format!("SELECT id FROM User WHERE id IN {} AND state = 'online'", shapes::list(ids.len()));
            online.extend(self.calls.call(|db, _| ids_of(db.exec(&statement, &ids)?))?);
        }
        Ok(online)
    }

    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.calls.call(|db, _| {
            let statement = "SELECT id FROM User WHERE id > :user AND state = 'online' ORDER BY id LIMIT :limit";
            ids_of(db.exec(statement, params! {"user" => user.0, limit})?)
        })
    }

    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.calls.call(|db, _| {
            let rows = db.exec("SELECT id, name FROM User WHERE id IN (:a, :b)", params! {"a" => a.0, "b" => b.0})?;
            let users = collect(rows, user_row)?;
            let name_of = |id| users.iter().find(|user| user.id == id).map(|user| user.name.clone());
            let (Some(name_a), Some(name_b)) = (name_of(a), name_of(b)) else { return Ok(None) };
            let (first, second) = (a.min(b).0, a.max(b).0);
            db.exec_drop(
                "INSERT INTO Friend (userid, friendid) VALUES (:first, :second), (:second, :first)
                 ON DUPLICATE KEY UPDATE friendid = friendid",
                params! {first, second},
            )?;
            Ok(Some(FriendNames { a: name_a, b: name_b }))
        })
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.calls.call(|db, _| {
            db.exec_drop(
                "DELETE FROM Friend WHERE userid = :user AND friendid = :friend",
                params! {"user" => from.0, "friend" => to.0},
            )
        })
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT User.id AS id, User.name AS name FROM Friend JOIN User ON User.id = Friend.friendid
                 WHERE Friend.userid = :user ORDER BY Friend.friendid",
                params! {"user" => user.0},
            )?;
            collect(rows, user_row)
        })
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.calls.call(|db, _| {
            let row = db.exec_first("SELECT id, name FROM User WHERE id = :id", params! {"id" => user.0})?;
            row.map(|mut row: Row| user_row(&mut row)).transpose()
        })
    }

    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError> {
        self.calls.transaction(Repeat::IfUndone, |db| {
            if self.schema.has_name_keys {
                let key = fold(name);
                db.exec_drop(
                    "INSERT INTO AllGroup (groupname, name_key, groupdesc) VALUES (:name, :key, :description)",
                    params! {name, key, description},
                )?;
            } else {
                db.exec_drop(
                    "INSERT INTO AllGroup (groupname, groupdesc) VALUES (:name, :description)",
                    params! {name, description},
                )?;
            }
            let group = new_id(db.last_insert_id().unwrap_or_default())?;
            db.exec_drop(
                "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (:group, :user, 'creator')",
                params! {group, "user" => owner.0},
            )?;
            Ok(GroupId(group))
        })
    }

    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError> {
        let max = i64::try_from(members_max).unwrap_or(i64::MAX);
        self.calls.call(|db, attempt| {
            let row = db.exec_first("SELECT groupname FROM AllGroup WHERE id = :id", params! {"id" => group.0})?;
            let Some(mut row): Option<Row> = row else { return Ok(Joined::NoSuchGroup) };
            let name = text(&mut row, "groupname")?;
            if is_member(db, group, user)? {
                // The answer to the insert may have been lost.
                return Ok(if attempt == Attempt::Again { Joined::New(name) } else { Joined::Already(name) });
            }
            let members: Option<Row> = db.exec_first(
                "SELECT COUNT(*) AS members FROM (SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT :max) AS some",
                params! {"group" => group.0, max},
            )?;
            let members = members.map(|mut row| column::<i64>(&mut row, "members")).transpose()?;
            if members.is_some_and(|members| members >= max) {
                return Ok(Joined::Full);
            }
            db.exec_drop(
                "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (:group, :user, 'normal')
                 ON DUPLICATE KEY UPDATE userid = userid",
                params! {"group" => group.0, "user" => user.0},
            )?;
            Ok(Joined::New(name))
        })
    }

    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        self.calls.call(|db, _| {
            if is_member(db, group, user)? {
                return Ok(Membership::Member);
            }
            let statement = "SELECT userid AS id FROM GroupUser WHERE groupid = :group LIMIT 1";
            let any: Option<Row> = db.exec_first(statement, params! {"group" => group.0})?;
            Ok(if any.is_some() { Membership::Stranger } else { Membership::NoSuchGroup })
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT AllGroup.id AS id, groupname, groupdesc
                 FROM GroupUser JOIN AllGroup ON AllGroup.id = GroupUser.groupid
                 WHERE GroupUser.userid = :user ORDER BY GroupUser.groupid",
                params! {"user" => user.0},
            )?;
            collect(rows, group_row)
        })
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.calls.call(|db, _| {
            let statement = "SELECT id, groupname, groupdesc FROM AllGroup WHERE id = :id";
            let row = db.exec_first(statement, params! {"id" => group.0})?;
            row.map(|mut row: Row| group_row(&mut row)).transpose()
        })
    }

    fn groups_named(&self, text: &str, limit: usize) -> Result<Vec<Group>, StoreError> {
        let (condition, text) = if self.schema.has_name_keys {
            self.fill_name_keys()?;
            ("INSTR(name_key, :text) > 0", fold(text))
        } else {
            let escaped = text.replace('!', "!!").replace('%', "!%").replace('_', "!_");
            ("groupname LIKE :text ESCAPE '!'", format!("%{escaped}%"))
        };
        let page = format!(
            "SELECT MAX(id) AS last FROM
             (SELECT id FROM AllGroup WHERE id > :after ORDER BY id LIMIT {SEARCH_PAGE}) AS page"
        );
        let search = format!(
            "SELECT id, groupname, groupdesc FROM AllGroup
             WHERE id > :after AND id <= :last AND {condition} ORDER BY id LIMIT :limit"
        );
        self.calls.call(|db, _| {
            let (begun, mut found, mut after) = (Instant::now(), Vec::new(), i64::MIN);
            while found.len() < limit && begun.elapsed() < SEARCH_TIME {
                let last: Option<Row> = db.exec_first(&page, params! {after})?;
                let last = last.map(|mut row| column::<Option<i64>>(&mut row, "last")).transpose()?;
                let Some(last) = last.flatten() else { break };
                let limit = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
                found.extend(collect(db.exec(&search, params! {after, last, "text" => &text, limit})?, group_row)?);
                after = last;
            }
            Ok(found)
        })
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.calls.call(|db, _| {
            let statement = "SELECT userid AS id FROM GroupUser WHERE groupid = :group ORDER BY userid";
            ids_of(db.exec(statement, params! {"group" => group.0})?)
        })
    }

    fn append(&self, messages: &[Message]) -> Result<Vec<Kept>, StoreError> {
        let recipients: BTreeSet<UserId> = messages.iter().map(|message| message.to).collect();
        let existing: FxHashSet<UserId> = self.calls.call(|db, _| messages::existing(db, &recipients))?;
        let mut bytes_max = usize::MAX;
        loop {
            // What the database takes is known since a connection is open, and may have changed since.
            let outcome = |message: &Message| match existing.contains(&message.to) {
                false => Kept::NoSuchUser,
                true if self.fits(&message.text) => Kept::Stored,
                true => Kept::TooLong,
            };
            let kept: Vec<Kept> = messages.iter().map(outcome).collect();
            let stored = messages.iter().zip(&kept).filter(|(_, kept)| **kept == Kept::Stored);
            let rows: Vec<&Message> = stored.map(|(message, _)| message).collect();
            bytes_max = bytes_max.min(self.limits.text_bytes()).min(shapes::RUN_BYTES_MAX);
            let runs = messages::runs(&rows, bytes_max);
            let inserted = match runs.as_slice() {
                [] => Ok(()),
                [run] => self.calls.call(|db, _| messages::insert(db, run)),
                runs => self
                    .calls
                    .transaction(Repeat::Freely, |db| runs.iter().try_for_each(|run| messages::insert(db, run))),
            };
            match inserted {
                Ok(()) => return Ok(kept),
                // The database takes less than it says, or less than it did: it is given less until it takes it.
                Err(StoreError::Failed(cause)) if cause.is::<TooLarge>() && runs.iter().any(|run| run.len() > 1) => {
                    bytes_max /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn fits(&self, text: &str) -> bool {
        text.len() <= self.limits.text_bytes() && self.schema.fits(text)
    }

    fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        let bytes: Option<u64> = self.calls.call(|db, _| {
            let statement = "SELECT CAST(COALESCE(SUM(LENGTH(message) + :each), 0) AS UNSIGNED) AS bytes
                             FROM OfflineMessage WHERE userid = :user";
            let row = db.exec_first(statement, params! {"user" => user.0, "each" => MESSAGE_BYTES})?;
            row.map(|mut row: Row| column(&mut row, "bytes")).transpose()
        })?;
        Ok(usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX))
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        if !self.schema.has_message_ids {
            return self.calls.call(|db, _| messages::fetch_keyless(db, user, bytes_max, &self.hashes));
        }
        let (kept, unreadable) =
            self.calls.call(|db, _| messages::fetch(db, user, bytes_max, self.limits.text_bytes()))?;
        if unreadable > 0 && !self.has_unreadable.swap(true, Ordering::Relaxed) {
            log::error!(
                "{}: {unreadable} messages for user {} are larger than max_allowed_packet and stay in the table until it is \
                 raised; others like them are not logged",
                self.name,
                user.0
            );
        }
        Ok(kept)
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        if !self.schema.has_message_ids {
            // Done twice it would delete an equal message that was not returned.
            return self.calls.transaction(Repeat::IfUndone, |db| {
                messages::delete_keyless(db, user, ids, &self.hashes, self.limits.text_bytes())
            });
        }
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        match ids.as_slice() {
            [] => Ok(()),
            few if few.len() <= LIST_MAX => self.calls.call(|db, _| messages::delete(db, user, few)),
            many => self.calls.transaction(Repeat::Freely, |db| {
                many.chunks(LIST_MAX).try_for_each(|ids| messages::delete(db, user, ids))
            }),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        self.calls.check()
    }

    fn on_trouble(&self, look: Box<dyn Fn() + Send + Sync>) {
        self.calls.on_trouble(look);
    }
}

/// A value of a row by the name of its column. A value of another type, or none, is an error and no panic.
fn column<T: FromValue>(row: &mut Row, name: &str) -> mysql::Result<T> {
    match row.take_opt(name) {
        Some(value) => Ok(value?),
        None => Err(mysql::Error::FromValueError(Value::NULL)),
    }
}

/// A text, which is `NULL` where the reference server's tables allow it and nobody has given any.
fn text(row: &mut Row, name: &str) -> mysql::Result<String> {
    Ok(column::<Option<String>>(row, name)?.unwrap_or_default())
}

fn collect<T>(rows: Vec<Row>, mut read: impl FnMut(&mut Row) -> mysql::Result<T>) -> mysql::Result<Vec<T>> {
    rows.into_iter().map(|mut row| read(&mut row)).collect()
}

fn is_member(db: &mut Conn, group: GroupId, user: UserId) -> mysql::Result<bool> {
    let statement = "SELECT userid AS id FROM GroupUser WHERE groupid = :group AND userid = :user";
    let row: Option<Row> = db.exec_first(statement, params! {"group" => group.0, "user" => user.0})?;
    Ok(row.is_some())
}

/// The column `id` of users.
fn ids_of(rows: Vec<Row>) -> mysql::Result<Vec<UserId>> {
    collect(rows, |row| column(row, "id").map(UserId))
}

fn user_row(row: &mut Row) -> mysql::Result<User> {
    Ok(User { id: UserId(column(row, "id")?), name: text(row, "name")? })
}

fn group_row(row: &mut Row) -> mysql::Result<Group> {
    Ok(Group { id: GroupId(column(row, "id")?), name: text(row, "groupname")?, description: text(row, "groupdesc")? })
}

/// An id that the database has given out; the columns keep it within 32 bits.
fn new_id(id: u64) -> mysql::Result<i32> {
    i32::try_from(id).map_err(|_| mysql::Error::FromValueError(Value::UInt(id)))
}

/// Commits that a database flushes together.
const APPENDERS: usize = 4;

/// The longest frame that clients may send, unless told otherwise.
const SMALL_TEXT_BYTES: usize = 64 * 1024;
