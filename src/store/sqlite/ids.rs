//! [`Ids`]: the highest ids ever assigned to users and groups, in a file of their own,
//! `raybox.ids`.
//!
//! An id is never reused: otherwise messages on their way to its old owner, and the local data of
//! other users' clients, would refer to the new one. The database ensures this (AUTOINCREMENT), but
//! a database restored from a backup lacks the ids assigned since. So the file is written before
//! the transaction that assigns an id is committed, and the next start reads it. It is one line of
//! fixed length, written in place: that needs no room on the disk, and a sector is written
//! completely or not at all.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, ffi, named_params};
use rustix::fs::OFlags;

use super::refusal::{SqliteOpenError, refused, refused_by_system};

/// See the [module](self).
pub(super) struct Ids {
    path: PathBuf,
    file: File,
    /// Used only by the writer, which locks it while it writes the file.
    highest: Mutex<Highest>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Highest {
    users: i64,
    groups: i64,
}

/// The kinds of things with ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IdKind {
    User,
    Group,
}

impl Ids {
    /// Opens or creates `raybox.ids` in the folder `data_dir`, and raises the ids of the database
    /// and of the file to the higher of both. Called before any id is assigned, by the only server
    /// that uses the folder.
    pub(super) fn open(data_dir: &Path, db: &Connection) -> Result<Ids, SqliteOpenError> {
        let path = data_dir.join("raybox.ids");
        let failed = |cause| refused_by_system(&path, cause);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let options = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(&path).map_err(failed)?;
        let ids = Ids { path, file, highest: Mutex::default() };
        ids.reconcile(db).map_err(|error| refused(&ids.path, error))?;
        Ok(ids)
    }

    fn reconcile(&self, db: &Connection) -> rusqlite::Result<()> {
        let (mut text, mut highest) = (String::new(), self.highest.lock());
        // A file with any other content is rewritten.
        let read = (&self.file).read_to_string(&mut text);
        let found = read.ok().and_then(|_| Highest::parse(&text));
        *highest = found.unwrap_or_default();
        let Highest { users, groups } = &mut *highest;
        for (table, known) in [("User", users), ("AllGroup", groups)] {
            let given: Option<i64> = db
                .query_row(
                    "SELECT seq FROM sqlite_sequence WHERE name = :table",
                    named_params! {":table": table},
                    |row| row.get(0),
                )
                .optional()?;
            if given.unwrap_or_default() >= *known {
                *known = given.unwrap_or_default();
                continue;
            }
            let statement = match given {
                Some(_) => "UPDATE sqlite_sequence SET seq = :known WHERE name = :table",
                None => "INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :known)",
            };
            db.execute(statement, named_params! {":table": table, ":known": *known})?;
            log::warn!(
                "{} says that table {table} has given ids up to {known}, and the database, which was perhaps restored, up to {}: \
                 new ones begin after {known}",
                self.path.display(),
                given.unwrap_or_default()
            );
        }
        if found == Some(*highest) {
            return Ok(());
        }
        self.write(*highest)?;
        // Bytes after the line would make it unreadable. If they cannot be cut off, the next start
        // notices.
        let _ = self.file.set_len(highest.line().len() as u64);
        Ok(())
    }

    /// Records an id that is about to be assigned. Called within the transaction that assigns it.
    pub(super) fn note(&self, who: IdKind, id: i32) -> rusqlite::Result<()> {
        let mut highest = self.highest.lock();
        let before = *highest;
        let known = match who {
            IdKind::User => &mut highest.users,
            IdKind::Group => &mut highest.groups,
        };
        *known = (*known).max(id.into());
        if *highest == before {
            return Ok(());
        }
        self.write(*highest).inspect_err(|_| *highest = before)
    }

    fn write(&self, highest: Highest) -> rusqlite::Result<()> {
        let written = self.file.write_all_at(highest.line().as_bytes(), 0).and_then(|()| self.file.sync_data());
        // The disk has a problem, which the database would have as well.
        written.map_err(|cause| {
            let text = format!("{}: {cause}", self.path.display());
            rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), Some(text))
        })
    }
}

impl Highest {
    fn line(self) -> String {
        let Highest { users, groups } = self;
        format!("highest user {users:010} group {groups:010}\n")
    }

    fn parse(text: &str) -> Option<Highest> {
        let (users, groups) = text.trim_end().strip_prefix("highest user ")?.split_once(" group ")?;
        Some(Highest { users: users.parse().ok()?, groups: groups.parse().ok()? })
    }
}
