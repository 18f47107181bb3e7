//! Rescues the data of a database whose file was removed, into a new file beside its original
//! place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::paths::{beside, sqlite_path};

/// The path of the copy.
pub(super) fn place(database: &Path) -> PathBuf {
    beside(database, ".rescued")
}

/// Copies everything that `connection` sees: it has the file open, whatever the file's present
/// name. The copy gets its name when it is complete.
pub(super) fn save(connection: &Connection, database: &Path) {
    let (place, unfinished) = (place(database), beside(database, ".rescued.tmp"));
    match copy(connection, &unfinished, &place) {
        Ok(()) => log::error!(
            "all that was stored is in {0}: rename it to {1}, or move it away if you do not need it, and start the server again",
            place.display(),
            database.display()
        ),
        Err(error) => {
            log::error!("cannot save what was stored in {}: {error}", place.display());
        }
    }
}

fn copy(connection: &Connection, unfinished: &Path, place: &Path) -> Result<(), Box<dyn std::error::Error>> {
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // SQLite fills an empty file. A file that SQLite creates would be readable by all users.
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?);
    connection.execute("VACUUM INTO ?1", [sqlite_path(unfinished).to_string_lossy()])?;
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, place)?;
    sync_folder(place)?;
    Ok(())
}

fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
