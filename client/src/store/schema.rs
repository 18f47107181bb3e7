//! The tables of a data file.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::{Error, Result};

/// The version of the tables.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE account (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    device TEXT NOT NULL,
    user INTEGER, name TEXT, token TEXT, token_expires INTEGER,
    frame_max INTEGER NOT NULL DEFAULT 65536
);
-- cursor and tag: the last message that was shown in order. wanted: a read mark that the server has not confirmed.
CREATE TABLE convs (
    conv TEXT PRIMARY KEY, name TEXT,
    cursor INTEGER NOT NULL DEFAULT 0, tag TEXT,
    head INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0,
    read INTEGER NOT NULL DEFAULT 0, wanted INTEGER, unread INTEGER NOT NULL DEFAULT 0,
    peer_read INTEGER NOT NULL DEFAULT 0, peer_recv INTEGER NOT NULL DEFAULT 0,
    closed INTEGER, time INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
-- m: the sender's frame, NULL if recalled. target: the number of the message that it edits or recalls.
CREATE TABLE messages (
    conv TEXT NOT NULL, seq INTEGER NOT NULL,
    sender INTEGER NOT NULL, time INTEGER NOT NULL, tag TEXT NOT NULL,
    m TEXT, edited INTEGER, recalled INTEGER, target INTEGER,
    PRIMARY KEY (conv, seq)
) WITHOUT ROWID;
CREATE INDEX messages_target ON messages (conv, target) WHERE target IS NOT NULL;
CREATE INDEX messages_recalled ON messages (conv, recalled, seq) WHERE recalled IS NOT NULL;
-- Numbers between floor and cursor that are not in messages.
CREATE TABLE gaps (conv TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (conv, first)) WITHOUT ROWID;
-- errno: the server refuses it for good.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conv TEXT NOT NULL, cid TEXT NOT NULL UNIQUE, frame TEXT NOT NULL,
    errno INTEGER, errmsg TEXT
);
CREATE INDEX outbox_conv ON outbox (conv, id);
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// Opens a data file, and creates it for its owner only if it is missing. The lock keeps other
/// processes out.
pub(super) fn open(path: &Path) -> Result<(Connection, File)> {
    let lock = private(&path.with_added_extension("lock"))?;
    lock_soon(&lock)?;
    // SQLite gives its other files the permissions of this one.
    private(path)?.set_permissions(Permissions::from_mode(0o600))?;
    let connection = Connection::open(path)?;
    prepare(&connection)?;
    Ok((connection, lock))
}

/// Opens a data file in memory, for clients that store nothing.
pub(super) fn in_memory() -> Result<Connection> {
    let connection = Connection::open_in_memory()?;
    prepare(&connection)?;
    Ok(connection)
}

/// Takes the lock, with patience: a process that ends, and a child that a program is just starting,
/// hold it for a moment longer.
fn lock_soon(lock: &File) -> Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(Error::Io(error)),
        }
    }
    Err(Error::InUse)
}

const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

fn private(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?)
}

fn prepare(connection: &Connection) -> Result<()> {
    connection.busy_timeout(Duration::from_secs(10))?;
    // An accepted message survives a power cut: each commit waits for the disk.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        VERSION => Ok(()),
        0 => {
            let create = format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT");
            Ok(connection.execute_batch(&create)?)
        }
        _ => Err(Error::NewerFile),
    }
}
