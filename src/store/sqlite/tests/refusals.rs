//! Files and folders that the store refuses to open: damaged, foreign, used by another server, or
//! not its own.

use super::*;

#[test]
fn a_newer_database_is_refused_and_not_changed() {
    let dir = Dir::new();
    drop(SqliteStore::open(&dir.0).unwrap());
    outside(&dir.0).pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(dir.database()).unwrap();
    let error = refusal(&dir.0);
    assert!(matches!(error, SqliteOpenError::Newer { version: 99, .. }), "{error}");
    assert!(error.to_string().contains("raybox.db was written by a later version"), "{error}");
    assert_eq!(fs::read(dir.database()).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_not_changed() {
    for setup in
        ["CREATE TABLE notes (text)", "PRAGMA application_id = 7", "PRAGMA user_version = 1; CREATE TABLE User (id)"]
    {
        let dir = Dir::new();
        Connection::open(dir.database()).unwrap().execute_batch(setup).unwrap();
        let before = fs::read(dir.database()).unwrap();
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::NotOurs { .. }), "{setup}: {error}");
        assert!(error.to_string().contains("raybox.db is a database of another program"), "{error}");
        assert_eq!(fs::read(dir.database()).unwrap(), before);
    }
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_not_changed() {
    for garbage in [b"hello".to_vec(), vec![0x5a; 100_000], b"SQLite format 3\0 and then nothing of it".to_vec()] {
        let dir = Dir::new();
        fs::write(dir.database(), &garbage).unwrap();
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("raybox.db is damaged or no database"), "{error}");
        assert_eq!(fs::read(dir.database()).unwrap(), garbage);
    }
}

#[test]
fn a_truncated_database_is_refused() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let user = new_user(&store);
    append(&store, user, &"x".repeat(65536)).unwrap();
    drop(store);
    let whole = fs::read(dir.database()).unwrap();
    for length in [whole.len() - 4096, whole.len() / 2, 4096, 1000, 60] {
        fs::write(dir.database(), &whole[..length]).unwrap();
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::Damaged { .. }), "{length} of {} bytes: {error}", whole.len());
    }
}

#[test]
fn a_folder_in_place_of_the_database_is_refused() {
    let dir = Dir::new();
    fs::create_dir(dir.database()).unwrap();
    let error = refusal(&dir.0);
    assert!(matches!(error, SqliteOpenError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("raybox.db"), "{error}");
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let dir = Dir::new();
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    for data_dir in [file.clone(), file.join("below")] {
        let error = refusal(&data_dir);
        assert!(matches!(error, SqliteOpenError::Unwritable { .. }), "{error}");
        assert!(error.to_string().contains("file") && error.source().is_some(), "{error}");
    }
}

/// Not by permissions, which do not bind a test run as root: no file can be created there at all.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_takes_no_files_is_refused() {
    let error = refusal(Path::new("/proc/self"));
    assert!(matches!(error, SqliteOpenError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("/proc/self/raybox.db.lock"), "{error}");
}

#[test]
fn a_second_opener_in_this_process_is_refused() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let error = refusal(&dir.0);
    assert!(matches!(error, SqliteOpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    drop(store);
    SqliteStore::open(&dir.0).unwrap();
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_killed() {
    let dir = Dir::new();
    let mut server = Server::start(&dir.0);
    server.next_acknowledgement().expect("the server appends");
    let pid = server.child.id();
    let error = refusal(&dir.0);
    assert!(matches!(error, SqliteOpenError::InUse { pid: Some(owner), .. } if owner == pid), "{error}");
    assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    server.kill();
    SqliteStore::open(&dir.0).unwrap();
}

#[test]
fn a_lock_file_that_is_removed_lets_no_second_opener_in() {
    let dir = Dir::new();
    let mut server = Server::start(&dir.0);
    server.next_acknowledgement().expect("the server appends");
    fs::remove_file(dir.0.join("raybox.db.lock")).unwrap();
    let error = refusal(&dir.0);
    assert!(matches!(error, SqliteOpenError::InUse { pid: None, .. }), "{error}");
    server.kill();
    SqliteStore::open(&dir.0).unwrap();
}

#[test]
fn a_symbolic_link_in_place_of_a_file_of_ours_is_refused_and_leads_nowhere() {
    for name in ["raybox.db.lock", "raybox.db", "raybox.ids"] {
        let dir = Dir::new();
        let other = dir.0.join("somebody's");
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, dir.0.join(name)).unwrap();
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::Link { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{name} is a symbolic link")), "{error}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }
}

#[test]
fn a_file_system_without_shared_memory_is_named() {
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_SHMMAP), None);
    let error = refusal::refused(Path::new("raybox.db"), error);
    assert!(matches!(error, SqliteOpenError::NotLocal { .. }), "{error}");
    assert!(error.to_string().contains("use a local disk"), "{error}");
}

#[test]
fn a_database_held_at_the_start_is_refused() {
    let dir = Dir::new();
    drop(SqliteStore::open(&dir.0).unwrap());
    let holder = outside(&dir.0);
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = SqliteStore::open_with(&dir.0, Duration::from_millis(50)).err().unwrap();
    assert!(matches!(error, SqliteOpenError::InUse { pid: None, .. }), "{error}");
    holder.execute_batch("ROLLBACK").unwrap();
    SqliteStore::open(&dir.0).unwrap();
}
