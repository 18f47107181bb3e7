//! The embedded store: one SQLite file, `raybox.db`, that belongs to one server at a time.
//!
//! Changes go to one writer thread, which commits whatever is queued in one transaction (`writer.rs`); queries use
//! connections of their own and never wait for the disk's writes (`readers.rs`). `open.rs` decides whether a file is
//! ours and in order.
//!
//! A write is in the write-ahead log and synced before its call returns, so a killed process or a power cut loses
//! nothing that was acknowledged.

mod condition;
mod guard;
mod ids;
mod late;
mod live;
mod open;
mod readers;
mod refusal;
mod rescue;
mod shrinking;
mod source;
mod spool;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ffi, named_params};
use rustc_hash::FxHashMap;

use self::condition::Condition;
use self::ids::Numbered;
use self::late::Late;
pub use self::refusal::OpenError;
pub use self::shrinking::{Compacted, compact};
pub use self::source::Source;
pub use self::spool::SpoolFile;
use super::{
    FriendNames, Group, Joined, Kept, KeptMessage, Membership, Message, MessageId, SEARCH_PAGE, SEARCH_TIME, Store,
    StoreError, User, UserState,
};
use crate::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::quotas::MESSAGE_BYTES;

/// A [`Store`] in a SQLite file. Dropping it finishes what is queued and leaves a single file without a log beside it.
pub struct SqliteStore {
    file: PathBuf,
    condition: Arc<Condition>,
    live: Late,
}

impl SqliteStore {
    /// Opens `raybox.db` in the folder `data_dir`, creating and migrating what is missing, and marks every user offline. On
    /// a disk that is full it only reads what is there, and does the rest when there is room.
    ///
    /// # Errors
    /// Whatever the operator has to put right; see [`OpenError`]. A file that is refused is not changed.
    pub fn open(data_dir: &Path) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_with(data_dir, BUSY_TIMEOUT)
    }

    /// As [`SqliteStore::open`]; another program that holds the file is waited for no longer than `busy_timeout`.
    fn open_with(data_dir: &Path, busy_timeout: Duration) -> Result<SqliteStore, OpenError> {
        let file = data_dir.join(open::STORE.name);
        let condition = Arc::new(Condition::new(file.display().to_string()));
        let live = Late::open(data_dir, busy_timeout, condition.clone())?;
        Ok(SqliteStore { file, condition, live })
    }
}

/// How long a call waits for another program, a backup say, that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Store for SqliteStore {
    fn describe(&self) -> String {
        format!("SQLite {}", self.file.display())
    }

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
                    ids.note(Numbered::User, id)?;
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

    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError> {
        let changes = changes.to_vec();
        self.live.write(move |db| {
            let mut update = db.prepare_cached("UPDATE User SET state = :state WHERE id = :id AND state <> :state")?;
            for (user, state) in &changes {
                update.execute(named_params! {":state": state_text(*state), ":id": user.0})?;
            }
            Ok(())
        })
    }

    fn set_all_offline(&self) -> Result<(), StoreError> {
        self.live.write(|db| db.execute("UPDATE User SET state = 'offline' WHERE state <> 'offline'", []).map(drop))
    }

    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let users = users.to_vec();
        self.live.read(move |db| {
            let mut query = db.prepare_cached("SELECT 1 FROM User WHERE id = :id AND state = 'online'")?;
            let mut online = Vec::new();
            for user in &users {
                if query.exists(named_params! {":id": user.0})? {
                    online.push(*user);
                }
            }
            Ok(online)
        })
    }

    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.live.read(move |db| {
            let statement = "SELECT id FROM User WHERE id > :user AND state = 'online' ORDER BY id LIMIT :limit";
            let mut query = db.prepare_cached(statement)?;
            let ids = query
                .query_map(named_params! {":user": user.0, ":limit": limit as i64}, |row| row.get(0).map(UserId))?;
            ids.collect()
        })
    }

    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.live.change(move |db| {
            let (Some(user_a), Some(user_b)) = (user_by_id(db, a)?, user_by_id(db, b)?) else { return Ok(None) };
            let mut insert = db.prepare_cached(
                "INSERT INTO Friend (userid, friendid) VALUES (:user, :friend) ON CONFLICT DO NOTHING",
            )?;
            insert.execute(named_params! {":user": a.0, ":friend": b.0})?;
            insert.execute(named_params! {":user": b.0, ":friend": a.0})?;
            Ok(Some(FriendNames { a: user_a.name, b: user_b.name }))
        })
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.live.change(move |db| {
            db.prepare_cached("DELETE FROM Friend WHERE userid = :user AND friendid = :friend")?
                .execute(named_params! {":user": from.0, ":friend": to.0})
                .map(drop)
        })
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached(
                "SELECT User.id, User.name FROM Friend JOIN User ON User.id = Friend.friendid
                 WHERE Friend.userid = :user ORDER BY Friend.friendid",
            )?
            .query_map(named_params! {":user": user.0}, user_row)?
            .collect()
        })
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.live.read(move |db| user_by_id(db, user))
    }

    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError> {
        let (name, name_key, description) = (name.to_owned(), fold(name), description.to_owned());
        let (live, ids) = self.live.live()?;
        let ids = ids.clone();
        live.change(move |db| {
            db.prepare_cached(
                "INSERT INTO AllGroup (groupname, name_key, groupdesc) VALUES (:name, :name_key, :description)",
            )?
            .execute(named_params! {":name": name, ":name_key": name_key, ":description": description})?;
            let group = GroupId(new_id(db)?);
            ids.note(Numbered::Group, group.0)?;
            add_member(db, group, owner, "creator")?;
            Ok(group)
        })
    }

    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError> {
        let join = move |db: &Connection, add: bool| {
            let Some(found) = group_by_id(db, group)? else { return Ok(Joined::NoSuchGroup) };
            if is_member(db, group, user)? {
                return Ok(Joined::Already(found.name));
            }
            let members: i64 = db
                .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT :max)")?
                .query_row(named_params! {":group": group.0, ":max": limit(members_max)}, |row| row.get(0))?;
            if members >= limit(members_max) {
                return Ok(Joined::Full);
            }
            if add {
                add_member(db, group, user, "normal")?;
            }
            Ok(Joined::New(found.name))
        };
        // One that changes nothing waits for no write.
        match self.live.read(|db| join(db, false))? {
            Joined::New(_) => self.live.change(move |db| join(db, true)),
            unchanged => Ok(unchanged),
        }
    }

    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        self.live.read(move |db| {
            if is_member(db, group, user)? {
                return Ok(Membership::Member);
            }
            let has_members = db
                .prepare_cached("SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT 1")?
                .exists(named_params! {":group": group.0})?;
            Ok(if has_members { Membership::Stranger } else { Membership::NoSuchGroup })
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached(
                "SELECT AllGroup.id, groupname, groupdesc FROM GroupUser JOIN AllGroup ON AllGroup.id = GroupUser.groupid
                 WHERE GroupUser.userid = :user ORDER BY GroupUser.groupid",
            )?
            .query_map(named_params! {":user": user.0}, group_row)?
            .collect()
        })
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.live.read(move |db| group_by_id(db, group))
    }

    fn groups_named(&self, text: &str, max: usize) -> Result<Vec<Group>, StoreError> {
        let text = fold(text);
        self.live.read(move |db| {
            let (begun, mut found, mut after) = (Instant::now(), Vec::new(), i64::MIN);
            let mut page = db.prepare_cached(
                "SELECT max(id) FROM (SELECT id FROM AllGroup WHERE id > :after ORDER BY id LIMIT :page)",
            )?;
            // Not LIKE, which has wildcards. Folded text holds no NUL, at which some of SQLite's text functions stop.
            let mut search = db.prepare_cached(
                "SELECT id, groupname, groupdesc FROM AllGroup
                 WHERE id > :after AND id <= :last AND instr(name_key, :text) > 0 ORDER BY id LIMIT :limit",
            )?;
            while found.len() < max && begun.elapsed() < SEARCH_TIME {
                let last: Option<i64> =
                    page.query_row(named_params! {":after": after, ":page": limit(SEARCH_PAGE)}, |row| row.get(0))?;
                let Some(last) = last else { break };
                let limit = limit(max - found.len());
                let rows = named_params! {":after": after, ":last": last, ":text": text, ":limit": limit};
                for group in search.query_map(rows, group_row)? {
                    found.push(group?);
                }
                after = last;
            }
            Ok(found)
        })
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached("SELECT userid FROM GroupUser WHERE groupid = :group ORDER BY userid")?
                .query_map(named_params! {":group": group.0}, |row| Ok(UserId(row.get("userid")?)))?
                .collect()
        })
    }

    fn append(&self, messages: &[Message]) -> Result<Vec<Kept>, StoreError> {
        let messages = messages.to_vec();
        self.live.write(move |db| {
            let mut exists = db.prepare_cached("SELECT 1 FROM User WHERE id = :id")?;
            let mut insert =
                db.prepare_cached("INSERT INTO OfflineMessage (userid, message) VALUES (:user, :message)")?;
            let mut shared = SharedTexts::of(&messages);
            let mut keep = |message: &Message| {
                if !exists.exists(named_params! {":id": message.to.0})? {
                    return Ok(Kept::NoSuchUser);
                }
                match shared.id_of(db, message)? {
                    Some(text) => db
                        .prepare_cached(
                            "INSERT INTO OfflineMessage (userid, message, textid) VALUES (:user, '', :text)",
                        )?
                        .execute(named_params! {":user": message.to.0, ":text": text})?,
                    None => insert.execute(named_params! {":user": message.to.0, ":message": &*message.text})?,
                };
                Ok(Kept::Stored)
            };
            messages.iter().map(&mut keep).collect()
        })
    }

    fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        self.live.read(move |db| {
            let bytes: i64 = db
                .prepare_cached(
                    "SELECT coalesce(sum(octet_length(coalesce(MessageText.message, OfflineMessage.message)) + :each), 0)
                     FROM OfflineMessage LEFT JOIN MessageText ON MessageText.id = textid WHERE userid = :user",
                )?
                .query_row(named_params! {":user": user.0, ":each": MESSAGE_BYTES as i64}, |row| row.get(0))?;
            Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
        })
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        self.live.settle()?;
        self.live.read(move |db| {
            let mut select =
                db.prepare_cached("SELECT id, message, textid FROM OfflineMessage WHERE userid = :user ORDER BY id")?;
            // Few messages have a text that others have too: a join would cost all of them.
            let mut shared = db.prepare_cached("SELECT message FROM MessageText WHERE id = :id")?;
            let mut rows = select.query(named_params! {":user": user.0})?;
            let (mut kept, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let text: String = match row.get("textid")? {
                    None::<i64> => row.get("message")?,
                    Some(id) => shared.query_row(named_params! {":id": id}, |row| row.get(0))?,
                };
                bytes += text.len();
                if bytes > bytes_max && !kept.is_empty() {
                    break;
                }
                kept.push(KeptMessage { id: MessageId(row.get("id")?), text });
            }
            Ok(kept)
        })
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.live.write(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM OfflineMessage WHERE id = :id AND userid = :user")?;
            let mut text_of =
                db.prepare_cached("SELECT textid FROM OfflineMessage WHERE id = :id AND userid = :user")?;
            let any_shared = db.prepare_cached("SELECT 1 FROM MessageText LIMIT 1")?.exists([])?;
            let mut texts = BTreeSet::new();
            for id in &ids {
                let row = named_params! {":id": id.0, ":user": user.0};
                if any_shared {
                    texts.extend(text_of.query_row(row, |row| row.get::<_, Option<i64>>(0)).optional()?.flatten());
                }
                delete.execute(row)?;
            }
            let mut forget = db.prepare_cached(
                "DELETE FROM MessageText
                 WHERE id = :id AND NOT EXISTS (SELECT 1 FROM OfflineMessage WHERE textid = :id)",
            )?;
            for text in texts {
                forget.execute(named_params! {":id": text})?;
            }
            Ok(())
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        self.live.check()
    }

    fn is_lost(&self) -> bool {
        self.condition.is_lost()
    }

    fn on_lost(&self, stop: Box<dyn Fn() + Send + Sync>) {
        self.condition.on_lost(stop);
    }

    fn on_trouble(&self, look: Box<dyn Fn() + Send + Sync>) {
        self.condition.on_trouble(look);
    }
}

/// The texts of a batch that several of its messages have, each stored once.
struct SharedTexts {
    /// Where a text lies in memory -> how many messages have it, and its id when it is stored.
    texts: FxHashMap<*const u8, (u32, Option<i64>)>,
}

impl SharedTexts {
    fn of(messages: &[Message]) -> SharedTexts {
        let mut texts: FxHashMap<_, (u32, Option<i64>)> = FxHashMap::default();
        for message in messages.iter().filter(|_| messages.len() > 1) {
            texts.entry(message.text.as_ptr()).or_default().0 += 1;
        }
        texts.retain(|_, (count, _)| *count > 1);
        SharedTexts { texts }
    }

    /// The id of the message's text, if that is shared.
    fn id_of(&mut self, db: &Connection, message: &Message) -> rusqlite::Result<Option<i64>> {
        let Some((_, id)) = self.texts.get_mut(&message.text.as_ptr()) else { return Ok(None) };
        if id.is_none() {
            db.prepare_cached("INSERT INTO MessageText (message) VALUES (:message)")?
                .execute(named_params! {":message": &*message.text})?;
            *id = Some(db.last_insert_rowid());
        }
        Ok(*id)
    }
}

fn user_by_id(db: &Connection, user: UserId) -> rusqlite::Result<Option<User>> {
    db.prepare_cached("SELECT id, name FROM User WHERE id = :id")?
        .query_row(named_params! {":id": user.0}, user_row)
        .optional()
}

fn group_by_id(db: &Connection, group: GroupId) -> rusqlite::Result<Option<Group>> {
    db.prepare_cached("SELECT id, groupname, groupdesc FROM AllGroup WHERE id = :id")?
        .query_row(named_params! {":id": group.0}, group_row)
        .optional()
}

fn is_member(db: &Connection, group: GroupId, user: UserId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM GroupUser WHERE groupid = :group AND userid = :user")?
        .exists(named_params! {":group": group.0, ":user": user.0})
}

/// For a LIMIT.
fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add_member(db: &Connection, group: GroupId, user: UserId, role: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (:group, :user, :role) ON CONFLICT DO NOTHING",
    )?
    .execute(named_params! {":group": group.0, ":user": user.0, ":role": role})
    .map(drop)
}

fn user_row(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { id: UserId(row.get("id")?), name: row.get("name")? })
}

fn group_row(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group { id: GroupId(row.get("id")?), name: row.get("groupname")?, description: row.get("groupdesc")? })
}

/// The id of the row inserted last; the schema keeps it within 32 bits.
fn new_id(db: &Connection) -> rusqlite::Result<i32> {
    let id = db.last_insert_rowid();
    i32::try_from(id).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, id))
}

fn state_text(state: UserState) -> &'static str {
    match state {
        UserState::Online => "online",
        UserState::Offline => "offline",
    }
}

fn is_duplicate(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|cause| cause.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// Whether the cause is around the database rather than in the statement: the same call may work later, and whatever
/// else was in the transaction is lost with it.
fn is_environmental(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
        )
    )
}

fn store_error(error: rusqlite::Error) -> StoreError {
    if is_environmental(&error) {
        StoreError::Unavailable(Box::new(error))
    } else {
        StoreError::Failed(Box::new(error))
    }
}
