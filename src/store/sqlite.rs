//! [`SqliteStore`]: the embedded store, one file and no service.
//!
//! All that is written goes through one thread ([`writer`]), which commits whatever waits as one transaction. Reads have
//! connections of their own and do not wait for it (WAL), but for the fetch of kept messages, which must see every
//! message that was on its way before it.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, named_params};

use crate::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::store::{FriendNames, Group, Kept, KeptMessage, Message, MessageId, Store, StoreError, User, UserState};

mod writer;

use writer::Writer;

/// The store in `raybox.db`.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    options: Options,
    // Dropped in this order: the writer ends, the readers close, the lock is given up.
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    _lock: File,
}

/// What a test may want otherwise.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// How long to wait for another program that holds the database.
    busy_timeout: Duration,
    /// Pages that the file may have, as if the disk were full then.
    pages_max: Option<u32>,
}

/// Why the database cannot be used. The text names the file and says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Another server uses it.
    InUse { path: PathBuf, process: String },
    /// It is the file of another program.
    NotOurs { path: PathBuf },
    /// A later version of this server has changed its tables.
    Newer { path: PathBuf, found: i64 },
    /// It is damaged, or no database.
    Corrupt { path: PathBuf, cause: String },
    /// It cannot be read or written.
    Unusable { path: PathBuf, cause: Box<dyn Error + Send + Sync> },
}

impl SqliteStore {
    /// Opens `raybox.db` in `data_dir`, and makes or migrates it if need be. All users are offline then, since no other
    /// server has the file.
    ///
    /// # Errors
    /// [`OpenError`]; the operator must act.
    pub fn open(data_dir: &Path) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_with(data_dir, Options { busy_timeout: BUSY_TIMEOUT, pages_max: None })
    }

    fn open_with(data_dir: &Path, options: Options) -> Result<SqliteStore, OpenError> {
        let path = data_dir.join(FILE_NAME);
        let unusable = |cause: io::Error| OpenError::Unusable { path: path.clone(), cause: Box::new(cause) };
        fs::create_dir_all(data_dir).map_err(unusable)?;
        let lock = lock(&path)?;
        let db = open_database(&path, options).map_err(|error| open_error(&path, error))?;
        prepare(&db, &path)?;
        if let Some(pages) = options.pages_max {
            db.pragma_update(None, "max_page_count", pages).map_err(|error| open_error(&path, error))?;
        }
        let writer = Writer::start(db).map_err(unusable)?;
        Ok(SqliteStore { path, options, writer, readers: Mutex::new(Vec::new()), _lock: lock })
    }

    /// Reads on a connection that nobody else uses meanwhile. There are as many as there were readers at a time.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let spare = self.readers.lock().pop();
        let db = match spare {
            Some(db) => db,
            None => open_database(&self.path, self.options).map_err(store_error)?,
        };
        let result = work(&db).map_err(store_error);
        self.readers.lock().push(db);
        result
    }
}

impl Store for SqliteStore {
    fn describe(&self) -> String {
        format!("SQLite {}", self.path.display())
    }

    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT password FROM User WHERE id = :id")?;
            statement.query_row(named_params! {":id": user.0}, |row| row.get("password")).optional()
        })
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        let (name, key, credential) = (name.to_owned(), fold(name), credential.to_owned());
        self.writer.write(move |db| {
            let mut insert = db.prepare_cached(
                "INSERT INTO User (name, name_key, password) VALUES (:name, :key, :password) RETURNING id",
            )?;
            let values = named_params! {":name": name, ":key": key, ":password": credential};
            insert.query_row(values, |row| row.get("id").map(UserId))
        })
    }

    fn replace_credential(&self, user: UserId, old: &str, new: &str) -> Result<(), StoreError> {
        let (old, new) = (old.to_owned(), new.to_owned());
        self.writer.write(move |db| {
            let mut update = db.prepare_cached("UPDATE User SET password = :new WHERE id = :id AND password = :old")?;
            update.execute(named_params! {":new": new, ":id": user.0, ":old": old}).map(drop)
        })
    }

    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError> {
        let changes = changes.to_vec();
        self.writer.write(move |db| {
            let mut update = db.prepare_cached("UPDATE User SET state = :state WHERE id = :id AND state <> :state")?;
            for (user, state) in changes {
                let state = match state {
                    UserState::Online => "online",
                    UserState::Offline => "offline",
                };
                update.execute(named_params! {":state": state, ":id": user.0})?;
            }
            Ok(())
        })
    }

    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.writer.write(move |db| {
            let (Some(a_user), Some(b_user)) = (user(db, a)?, user(db, b)?) else { return Ok(None) };
            let mut insert =
                db.prepare_cached("INSERT OR IGNORE INTO Friend (userid, friendid) VALUES (:user, :friend)")?;
            insert.execute(named_params! {":user": a.0, ":friend": b.0})?;
            insert.execute(named_params! {":user": b.0, ":friend": a.0})?;
            Ok(Some(FriendNames { a: a_user.name, b: b_user.name }))
        })
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.writer.write(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM Friend WHERE userid = :user AND friendid = :friend")?;
            delete.execute(named_params! {":user": from.0, ":friend": to.0}).map(drop)
        })
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT User.id, User.name FROM Friend JOIN User ON User.id = Friend.friendid
                 WHERE Friend.userid = :user ORDER BY User.id",
            )?;
            select.query_map(named_params! {":user": user.0}, user_of)?.collect()
        })
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read(|db| user(db, id))
    }

    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError> {
        let (name, key, description) = (name.to_owned(), fold(name), description.to_owned());
        self.writer.write(move |db| {
            let mut insert = db.prepare_cached(
                "INSERT INTO AllGroup (groupname, name_key, groupdesc) VALUES (:name, :key, :description) RETURNING id",
            )?;
            let values = named_params! {":name": name, ":key": key, ":description": description};
            let group = insert.query_row(values, |row| row.get("id").map(GroupId))?;
            add_member(db, group, owner, "creator")?;
            Ok(group)
        })
    }

    fn join_group(&self, user: UserId, id: GroupId) -> Result<Option<String>, StoreError> {
        self.writer.write(move |db| {
            let Some(group) = group(db, id)? else { return Ok(None) };
            add_member(db, id, user, "normal")?;
            Ok(Some(group.name))
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT AllGroup.id, groupname, groupdesc FROM GroupUser JOIN AllGroup ON AllGroup.id = groupid
                 WHERE userid = :user ORDER BY AllGroup.id",
            )?;
            select.query_map(named_params! {":user": user.0}, group_of)?.collect()
        })
    }

    fn group(&self, id: GroupId) -> Result<Option<Group>, StoreError> {
        self.read(|db| group(db, id))
    }

    fn groups_named(&self, text: &str, limit: usize) -> Result<Vec<Group>, StoreError> {
        self.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT id, groupname, groupdesc FROM AllGroup WHERE instr(name_key, :key) > 0 ORDER BY id LIMIT :limit",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            select.query_map(named_params! {":key": fold(text), ":limit": limit}, group_of)?.collect()
        })
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.read(|db| {
            let mut select =
                db.prepare_cached("SELECT userid FROM GroupUser WHERE groupid = :group ORDER BY userid")?;
            select.query_map(named_params! {":group": group.0}, |row| row.get("userid").map(UserId))?.collect()
        })
    }

    fn append(&self, messages: &[Message]) -> Result<Vec<Kept>, StoreError> {
        let messages = messages.to_vec();
        self.writer.write(move |db| {
            let mut insert = db.prepare_cached(
                "INSERT INTO OfflineMessage (userid, message)
                 SELECT :user, :message WHERE EXISTS (SELECT 1 FROM User WHERE id = :user)",
            )?;
            let mut keep = |message: &Message| {
                let inserted = insert.execute(named_params! {":user": message.to.0, ":message": &*message.text})?;
                Ok(if inserted == 1 { Kept::Stored } else { Kept::NoSuchUser })
            };
            messages.iter().map(&mut keep).collect()
        })
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        self.writer.write(move |db| {
            let mut select =
                db.prepare_cached("SELECT id, message FROM OfflineMessage WHERE userid = :user ORDER BY id")?;
            let mut rows = select.query(named_params! {":user": user.0})?;
            let (mut messages, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let message = KeptMessage { id: MessageId(row.get("id")?), text: row.get("message")? };
                bytes += message.text.len();
                if bytes > bytes_max && !messages.is_empty() {
                    break;
                }
                messages.push(message);
            }
            Ok(messages)
        })
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.writer.write(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM OfflineMessage WHERE id = :id AND userid = :user")?;
            for id in ids {
                delete.execute(named_params! {":id": id.0, ":user": user.0})?;
            }
            Ok(())
        })
    }
}

fn user(db: &Connection, id: UserId) -> rusqlite::Result<Option<User>> {
    let mut select = db.prepare_cached("SELECT id, name FROM User WHERE id = :id")?;
    select.query_row(named_params! {":id": id.0}, user_of).optional()
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { id: UserId(row.get("id")?), name: row.get("name")? })
}

fn group(db: &Connection, id: GroupId) -> rusqlite::Result<Option<Group>> {
    let mut select = db.prepare_cached("SELECT id, groupname, groupdesc FROM AllGroup WHERE id = :id")?;
    select.query_row(named_params! {":id": id.0}, group_of).optional()
}

fn group_of(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group { id: GroupId(row.get("id")?), name: row.get("groupname")?, description: row.get("groupdesc")? })
}

fn add_member(db: &Connection, group: GroupId, user: UserId, role: &str) -> rusqlite::Result<()> {
    let mut insert = db
        .prepare_cached("INSERT OR IGNORE INTO GroupUser (groupid, userid, grouprole) VALUES (:group, :user, :role)")?;
    insert.execute(named_params! {":group": group.0, ":user": user.0, ":role": role}).map(drop)
}

/// Takes the lock that one server at a time has. It lies on a file of its own, because closing any descriptor of the
/// database itself would drop SQLite's own locks (fcntl(2), "record locks are not inherited"); the system gives it up
/// when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let unusable = |cause: io::Error| OpenError::Unusable { path: path.to_owned(), cause: Box::new(cause) };
    let lock_path = path.with_extension("db.lock");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(lock_path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // The number only helps the reader of the message.
            let _ = file.read_to_string(&mut process);
            return Err(OpenError::InUse { path: path.to_owned(), process: process.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let note = || -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    let mut note = note;
    note().map_err(unusable)?;
    Ok(file)
}

fn open_database(path: &Path, options: Options) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(options.busy_timeout)?;
    db.set_prepared_statement_cache_capacity(64);
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

/// Checks that the file is ours and whole, brings its tables up to date, and marks everybody offline.
fn prepare(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let error = |error| open_error(path, error);
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(error);
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if application != APPLICATION_ID && (application != 0 || tables > 0) {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: version });
    }
    check(db, path)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(error)?;
    if mode != "wal" {
        let cause = format!("its journal mode stays {mode}, the file system may lack shared memory").into();
        return Err(OpenError::Unusable { path: path.to_owned(), cause });
    }
    let migrate = || -> rusqlite::Result<()> {
        db.execute_batch("BEGIN IMMEDIATE")?;
        for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            db.execute_batch(migration)?;
        }
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        db.pragma_update(None, "user_version", known)?;
        db.execute_batch("UPDATE User SET state = 'offline' WHERE state = 'online'; COMMIT")
    };
    migrate().map_err(error)
}

/// Reads every page of a small database; for a large one this would take longer than an operator waits for a start.
fn check(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    if bytes > CHECK_BYTES_MAX {
        return Ok(());
    }
    let found: String =
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| open_error(path, error))?;
    if found == "ok" { Ok(()) } else { Err(OpenError::Corrupt { path: path.to_owned(), cause: found }) }
}

fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Corrupt { path, cause: error.to_string() }
        }
        _ => OpenError::Unusable { path, cause: Box::new(error) },
    }
}

fn store_error(error: rusqlite::Error) -> StoreError {
    let unique =
        error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE);
    if unique {
        // The only such constraint is that of user names.
        return StoreError::NameTaken;
    }
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly,
        ) => StoreError::Unavailable(Box::new(error)),
        _ => StoreError::Failed(Box::new(error)),
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse { path, process } => write!(
                f,
                "{} is in use by another server (process {process}); stop it, or give this one a folder of its own with --data",
                path.display()
            ),
            OpenError::NotOurs { path } => write!(
                f,
                "{} belongs to another program; move it away, or choose another folder with --data",
                path.display()
            ),
            OpenError::Newer { path, found } => write!(
                f,
                "{} was written by a later version of this server (tables {found}, known here {}); start that version",
                path.display(),
                MIGRATIONS.len()
            ),
            OpenError::Corrupt { path, cause } => write!(
                f,
                "{} is damaged ({cause}); restore a backup, or rescue what can be read with 'sqlite3 {} .recover'",
                path.display(),
                path.display()
            ),
            OpenError::Unusable { path, cause } => write!(
                f,
                "{} cannot be used: {cause}; check the folder's permissions and free space, or choose another with --data",
                path.display()
            ),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenError::Unusable { cause, .. } => Some(&**cause),
            OpenError::InUse { .. }
            | OpenError::NotOurs { .. }
            | OpenError::Newer { .. }
            | OpenError::Corrupt { .. } => None,
        }
    }
}

const FILE_NAME: &str = "raybox.db";
/// "RayB", so that file(1) and others can tell whose database it is.
const APPLICATION_ID: i64 = 0x5261_7942;
const MIGRATIONS: [&str; 1] = [include_str!("../../sql/sqlite/0001_init.sql")];
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// About a second's reading.
const CHECK_BYTES_MAX: u64 = 256 * 1024 * 1024;
