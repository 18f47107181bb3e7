//! Paths of databases and of the files beside them.

use std::path::{Path, PathBuf};

/// The path in a form that SQLite reads as a path: one that begins with `file:` would be parsed as
/// a URI.
pub(super) fn sqlite_path(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// The path of a file that SQLite creates beside a database.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
