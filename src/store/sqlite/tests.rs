//! Tests of this store alone: refusing bad files, surviving a kill, a full disk and a locked
//! database. The behaviour of all stores is tested in `tests/store.rs`.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, unbounded};
use rusqlite::ffi;

use super::*;
use crate::protocol::GroupId;
use crate::store::{Accounts, AppendOutcome, Contacts, MessageId, Messages, NewMessage, States, UserState};

#[test]
fn a_missing_folder_is_made_and_the_schema_with_it() {
    let dir = Dir::new();
    let nested = dir.0.join("a/b");
    let store = SqliteStore::open(&nested).unwrap();
    assert_eq!(store.describe(), format!("SQLite {}/a/b/raybox.db", dir.0.display()));
    let db = outside(&nested);
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), version), ("wal", 2));
}

#[test]
fn a_file_of_the_first_version_keeps_its_messages() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let old = outside(&dir.0);
    old.execute_batch(include_str!("../../../sql/sqlite/0001_init.sql")).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 1383678584; PRAGMA user_version = 1;
         INSERT INTO User (name, name_key, password) VALUES ('old', 'old', 'x');
         INSERT INTO OfflineMessage (userid, message) VALUES (1, 'first');",
    )
    .unwrap();
    drop(old);
    let store = SqliteStore::open(&dir.0).unwrap();
    append(&store, UserId(1), "second").unwrap();
    assert_eq!(texts(&store, UserId(1)), ["first", "second"]);
}

#[test]
fn a_text_for_many_is_there_once_until_the_last_has_fetched_it() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let users: Vec<UserId> = (0..3).map(|_| new_user(&store)).collect();
    let shared: Arc<str> = "for all".into();
    let unknown = UserId(1_000_000);
    let all = users.iter().copied().chain([unknown]);
    let batch: Vec<NewMessage> =
        all.map(|to| NewMessage { to, text: shared.clone() }).chain([message(users[0], "own")]).collect();
    let stored = AppendOutcome::Stored;
    assert_eq!(store.append(&batch).unwrap(), [stored, stored, stored, AppendOutcome::NoSuchUser, stored]);
    let count =
        || outside(&dir.0).query_row("SELECT count(*) FROM MessageText", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(
        (texts(&store, users[0]), texts(&store, users[2])),
        (vec!["for all".into(), "own".into()], vec!["for all".into()])
    );
    for (nth, user) in users.iter().enumerate() {
        assert_eq!(count(), 1, "before user {nth}");
        let ids: Vec<MessageId> = store.fetch(*user, usize::MAX).unwrap().iter().map(|kept| kept.id).collect();
        store.delete(*user, &ids).unwrap();
    }
    assert_eq!(count(), 0);
}

#[test]
fn a_file_becomes_shorter_when_much_was_deleted() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let (user, text) = (new_user(&store), "x".repeat(10_000));
    let batch: Vec<NewMessage> = (0..2000).map(|_| message(user, &text)).collect();
    store.append(&batch).unwrap();
    let ids: Vec<MessageId> = store.fetch(user, usize::MAX).unwrap().iter().map(|kept| kept.id).collect();
    store.delete(user, &ids).unwrap();
    let pages = || outside(&dir.0).query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while pages() > 2048 {
        assert!(Instant::now() < deadline, "{} pages stay", pages());
        thread::sleep(Duration::from_millis(20));
    }
    // It goes on as before.
    append(&store, user, "after").unwrap();
    assert_eq!(texts(&store, user), ["after"]);
}

#[test]
fn an_empty_file_is_filled() {
    let dir = Dir::new();
    fs::write(dir.database(), "").unwrap();
    new_user(&SqliteStore::open(&dir.0).unwrap());
}

#[test]
fn what_was_stored_is_there_after_a_restart_and_everybody_is_offline() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let (user, other) = (new_user(&store), new_user(&store));
    append(&store, user, "kept").unwrap();
    let (online, offline) = (UserState::Online, UserState::Offline);
    store.set_states(&[(user, offline), (other, online), (user, online), (other, offline)]).unwrap();
    let states = || -> Vec<String> {
        let db = outside(&dir.0);
        let mut select = db.prepare("SELECT state FROM User ORDER BY id").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(states(), ["online", "offline"]);
    drop(store);
    let store = SqliteStore::open(&dir.0).unwrap();
    assert_eq!(states(), ["offline", "offline"]);
    assert_eq!(texts(&store, user), ["kept"]);
}

#[test]
fn a_clean_end_leaves_no_log_behind() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let user = new_user(&store);
    append(&store, user, "text").unwrap();
    assert_eq!(texts(&store, user), ["text"]);
    drop(store);
    assert!(!dir.0.join("raybox.db-wal").exists());
}

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
fn a_file_that_is_no_database_is_refused_and_not_changed() {
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
fn a_killed_server_has_every_acknowledged_message() {
    let dir = Dir::new();
    let mut server = Server::start(&dir.0);
    let mut acknowledged = [None; SERVER_THREADS];
    for _ in 0..300 {
        let (thread, number) = server.next_acknowledgement().expect("the server appends until it is killed");
        acknowledged[thread] = Some(number);
    }
    server.kill();
    while let Some((thread, number)) = server.next_acknowledgement() {
        acknowledged[thread] = Some(number);
    }

    let store = SqliteStore::open(&dir.0).unwrap();
    let kept = texts(&store, UserId(1));
    for (thread, acknowledged) in acknowledged.into_iter().enumerate() {
        let prefix = format!("{thread} ");
        let numbers: Vec<usize> = kept.iter().filter_map(|text| text.strip_prefix(&prefix)?.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len()), "thread {thread} has gaps, repeats or disorder");
        assert!(acknowledged < Some(numbers.len()), "{acknowledged:?} was acknowledged, {} are there", numbers.len());
    }
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
fn the_files_are_for_their_owner_alone() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    new_user(&store);
    for entry in fs::read_dir(&dir.0).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

/// A crash leaves the log, and then an operator restores a copy: made while no server ran, or by
/// SQLite while one did.
#[test]
fn a_copy_restored_beside_a_log_is_refused_until_the_log_is_removed() {
    for while_it_runs in [false, true] {
        let dir = Dir::new();
        let copy = dir.0.join("copy");
        let user = new_user(&SqliteStore::open(&dir.0).unwrap());
        if !while_it_runs {
            fs::copy(dir.database(), &copy).unwrap();
        }
        let mut server = Server::start(&dir.0);
        server.next_acknowledgement().expect("the server appends");
        if while_it_runs {
            outside(&dir.0).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        }
        for _ in 0..100 {
            server.next_acknowledgement().expect("the server appends");
        }
        server.kill();
        let crashed = dir.0.join("crashed");
        fs::copy(dir.database(), &crashed).unwrap();
        // In place, like cp, so that it is the same file.
        fs::write(dir.database(), fs::read(&copy).unwrap()).unwrap();
        let log = dir.0.join("raybox.db-wal");
        let before = fs::read(&log).unwrap();
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::ForeignLog { .. }), "{error}");
        assert!(error.to_string().contains("delete ") && error.to_string().contains("raybox.db-wal"), "{error}");
        assert!(fs::read(&log).unwrap() == before, "nothing was changed");
        fs::remove_file(dir.database()).unwrap();
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::OrphanedLog { .. }), "{error}");
        // A log that belongs to the database is applied.
        fs::copy(&crashed, dir.database()).unwrap();
        let store = SqliteStore::open(&dir.0).unwrap();
        assert!(texts(&store, user).len() >= 100);
        drop(store);
        fs::copy(&copy, dir.database()).unwrap();
        SqliteStore::open(&dir.0).unwrap();
    }
}

/// However often it was restarted, and wherever a checkpoint was interrupted, a log belongs to its
/// database.
#[test]
fn a_log_of_its_own_is_never_refused() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let user = new_user(&store);
    let copy = Dir::new();
    for round in 0..40 {
        append(&store, user, &"x".repeat(20_000)).unwrap();
        if round % 7 == 0 {
            store.delete(user, &[store.fetch(user, 1).unwrap()[0].id]).unwrap();
        }
        let mode = ["PASSIVE", "RESTART", "NONE", "TRUNCATE", "NONE"][round % 5];
        if mode != "NONE" {
            let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
            outside(&dir.0).query_row(&checkpoint, [], |_| Ok(())).unwrap();
        }
        // An operator's changes to a live database change page 1.
        let by_operator = ["CREATE INDEX theirs ON User (state)", "ANALYZE", "VACUUM", "DROP INDEX theirs"];
        if round % 3 == 2 {
            outside(&dir.0).execute_batch(by_operator[round / 3 % 4]).unwrap();
        }
        for suffix in ["", "-wal"] {
            let name = format!("raybox.db{suffix}");
            fs::copy(dir.0.join(&name), copy.0.join(&name)).unwrap();
        }
        assert_eq!(wal::look(&copy.database()).unwrap(), wal::Log::Good, "round {round}");
    }
    drop(store);
    // The copy is what a server killed at this moment would leave.
    let store = SqliteStore::open(&copy.0).unwrap();
    assert!(!store.fetch(user, 1).unwrap().is_empty());
}

#[test]
fn queries_go_on_when_no_descriptor_is_left() {
    let Some(data_dir) = env::var_os(WITHOUT_DESCRIPTORS) else {
        // The limit is that of a process.
        let dir = Dir::new();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "store::sqlite::tests::queries_go_on_when_no_descriptor_is_left", "--nocapture"]);
        let output = command.env(WITHOUT_DESCRIPTORS, &dir.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let store = SqliteStore::open(Path::new(&data_dir)).unwrap();
    let user = new_user(&store);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let none = rustix::process::Rlimit { current: Some(0), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, none).unwrap();
    assert!(fs::File::open("/dev/null").is_err(), "no descriptor is left");
    // As many concurrent queries as there are open connections, and one more, which waits.
    let queries = readers::READY + 1;
    let (entered, is_in) = bounded(queries);
    let (go, gate) = bounded::<()>(0);
    thread::scope(|scope| {
        for _ in 0..queries {
            let (entered, gate, store) = (entered.clone(), gate.clone(), &store);
            scope.spawn(move || {
                let found = store.live.read(|db| {
                    entered.send(()).unwrap();
                    let _ = gate.recv();
                    user_by_id(db, user)
                });
                assert!(found.unwrap().is_some());
            });
        }
        for _ in 0..readers::READY {
            is_in.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        drop(go);
    });
    append(&store, user, "stored too").unwrap();
    assert_eq!(texts(&store, user), ["stored too"]);
}

const WITHOUT_DESCRIPTORS: &str = "TEST_WITHOUT_DESCRIPTORS";

#[test]
fn a_small_file_of_an_earlier_version_learns_to_become_shorter() {
    let dir = Dir::new();
    drop(SqliteStore::open(&dir.0).unwrap());
    let mode = |db: &Connection| db.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0)).unwrap();
    let as_before = || outside(&dir.0).execute_batch("PRAGMA auto_vacuum = none; VACUUM").unwrap();
    as_before();
    assert_eq!(mode(&outside(&dir.0)), 0);
    let store = SqliteStore::open(&dir.0).unwrap();
    let user = new_user(&store);
    append(&store, user, &"x".repeat(1_000_000)).unwrap();
    assert_eq!(mode(&outside(&dir.0)), 2, "a little at a time");
    assert!(matches!(compact(&dir.0), Err(SqliteOpenError::InUse { .. })), "a server runs");
    store.delete(user, &[store.fetch(user, 1).unwrap()[0].id]).unwrap();
    drop(store);
    as_before();
    append(&SqliteStore::open(&dir.0).unwrap(), user, "kept").unwrap();
    let (file, sizes) = compact(&dir.0).unwrap();
    assert_eq!(file, dir.database());
    assert!(sizes.after <= sizes.before, "{sizes:?}");
    let store = SqliteStore::open(&dir.0).unwrap();
    assert_eq!((mode(&outside(&dir.0)), texts(&store, user)), (2, vec!["kept".to_owned()]));
}

#[test]
fn a_file_system_without_shared_memory_is_named() {
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_SHMMAP), None);
    let error = refusal::refused(Path::new("raybox.db"), error);
    assert!(matches!(error, SqliteOpenError::NotLocal { .. }), "{error}");
    assert!(error.to_string().contains("use a local disk"), "{error}");
}

/// Not a test of its own: the server that the tests above kill. Until then it appends and prints
/// acknowledgements.
#[test]
fn server_to_kill() {
    let Some(data_dir) = env::var_os(SERVER_DATA_DIR) else { return };
    let store = SqliteStore::open(Path::new(&data_dir)).unwrap();
    if store.user(UserId(1)).unwrap().is_none() {
        assert_eq!(new_user(&store), UserId(1));
    }
    let user = UserId(1);
    thread::scope(|scope| {
        for thread in 0..SERVER_THREADS {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    append(store, user, &format!("{thread} {number}")).unwrap();
                    // In one call, and with a full stop: a line cut by the kill must not be read as
                    // a smaller number.
                    let line = format!("\nacknowledged {thread} {number} .\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_held_database_makes_all_callers_wait_then_fail_then_work_again() {
    let dir = Dir::new();
    let store = SqliteStore::open_with(&dir.0, Duration::from_millis(50)).unwrap();
    let user = new_user(&store);
    append(&store, user, "before").unwrap();
    let holder = outside(&dir.0);
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let failed = append(&store, user, "lost");
                assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
                let failed = store.register("nobody", "x");
                assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
            });
        }
    });
    assert_eq!(texts(&store, user), ["before"], "queries go on");
    holder.execute_batch("ROLLBACK").unwrap();
    append(&store, user, "after").unwrap();
    assert_eq!(texts(&store, user), ["before", "after"]);
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

#[test]
fn a_full_disk_fails_the_call_and_the_store_works_again() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let user = new_user(&store);
    append(&store, user, "before").unwrap();
    limit_pages(&store, 1);
    let batch: Vec<NewMessage> = (0..100).map(|_| message(user, &"x".repeat(10_000))).collect();
    for _ in 0..2 {
        let failed = store.append(&batch);
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    }
    let kept = store.fetch(user, usize::MAX).unwrap();
    assert_eq!(kept.len(), 1, "all or nothing");
    store.delete(user, &[kept[0].id]).unwrap();
    limit_pages(&store, 1_000_000);
    assert_eq!(store.append(&batch).unwrap(), [AppendOutcome::Stored; 100]);
    assert_eq!(store.fetch(user, usize::MAX).unwrap().len(), 100);
}

#[test]
fn a_check_writes_and_leaves_nothing_behind() {
    let dir = Dir::new();
    let store = SqliteStore::open_with(&dir.0, Duration::from_millis(50)).unwrap();
    let user = new_user(&store);
    store.check().unwrap();
    let holder = outside(&dir.0);
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    wait_until(|| store.check().is_err());
    let error = store.check().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    holder.execute_batch("ROLLBACK").unwrap();
    wait_until(|| store.check().is_ok());
    assert_eq!(texts(&store, user), [""; 0]);
    let rows: u32 = outside(&dir.0).query_row("SELECT count(*) FROM OfflineMessage", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn a_disk_that_does_not_answer_fails_the_check_in_time_and_is_asked_once() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let (go, gate) = bounded::<()>(0);
    let (entered, is_in) = bounded(1);
    thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            store.live.write(move |_| {
                let _ = entered.send(());
                let _ = gate.recv();
                Ok(())
            })
        });
        is_in.recv().unwrap();
        // The result from the opening may count for a second.
        wait_until(|| store.check().is_err());
        for _ in 0..100 {
            let error = store.check().unwrap_err();
            assert!(error.to_string().contains("does not answer"), "{error}");
        }
        assert!(store.live.writer().queued() <= 1, "probes pile up");
        drop(go);
    });
    store.check().unwrap();
}

#[test]
fn a_damaged_page_is_told_for_good() {
    // New messages go to the last leaf; only a fetch reads the first.
    for end in ["max", "min"] {
        let dir = Dir::new();
        let store = SqliteStore::open(&dir.0).unwrap();
        let user = new_user(&store);
        store.append(&(0..200).map(|_| message(user, &"x".repeat(500))).collect::<Vec<_>>()).unwrap();
        drop(store);
        let query = format!("SELECT {end}(pageno) FROM dbstat WHERE name = 'OfflineMessage' AND pagetype = 'leaf'");
        let page: u32 = outside(&dir.0).query_row(&query, [], |row| row.get(0)).unwrap();
        let mut bytes = fs::read(dir.database()).unwrap();
        bytes[(page as usize - 1) * 4096..][..4096].fill(0x5a);
        fs::write(dir.database(), bytes).unwrap();
        let store = SqliteStore::open(&dir.0).unwrap();
        if end == "min" {
            let failed = store.fetch(user, usize::MAX);
            assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
        }
        wait_until(|| store.check().is_err_and(|error| error.to_string().contains("damaged")));
        assert!(store.check().unwrap_err().to_string().contains("restore a backup"));
    }
}

/// Moved, deleted or replaced: stored data is rescued, later returned messages too, and nothing
/// else is accepted.
#[test]
fn a_database_that_is_taken_away_is_saved_beside() {
    type Take = fn(&Dir);
    let takes: [(&str, Take); 4] = [
        ("moved", |dir| fs::rename(dir.database(), dir.0.join("elsewhere")).unwrap()),
        ("deleted", |dir| fs::remove_file(dir.database()).unwrap()),
        ("replaced", |dir| {
            fs::write(dir.0.join("other"), "").unwrap();
            fs::rename(dir.0.join("other"), dir.database()).unwrap();
        }),
        ("without its log", |dir| fs::remove_file(dir.0.join("raybox.db-wal")).unwrap()),
    ];
    for (what, take) in takes {
        let dir = Dir::new();
        let store = SqliteStore::open(&dir.0).unwrap();
        let user = new_user(&store);
        append(&store, user, "before").unwrap();
        let (stop, stopped) = bounded(1);
        store.on_lost(Box::new(move || {
            let _ = stop.try_send(());
        }));
        take(&dir);
        append(&store, user, "between").unwrap();
        stopped.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what}: nobody notices"));
        assert!(store.is_lost() && store.check().is_err());
        let refused = store.register("somebody", "x");
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        append(&store, user, "came back").unwrap();
        drop(store);
        let error = refusal(&dir.0);
        assert!(matches!(error, SqliteOpenError::Rescued { .. }), "{what}: {error}");
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(dir.0.join(format!("raybox.db{suffix}")));
        }
        let rescued = dir.0.join("raybox.db.rescued");
        assert_eq!(fs::metadata(&rescued).unwrap().permissions().mode() & 0o777, 0o600);
        fs::rename(rescued, dir.database()).unwrap();
        let store = SqliteStore::open(&dir.0).unwrap();
        assert_eq!(texts(&store, user), ["before", "between", "came back"], "{what}");
    }
}

#[test]
fn a_restored_copy_gives_no_id_again() {
    let dir = Dir::new();
    let copy = dir.0.join("copy");
    let store = SqliteStore::open(&dir.0).unwrap();
    let owner = new_user(&store);
    assert_eq!((owner, store.create_group(owner, "one", "").unwrap()), (UserId(1), GroupId(1)));
    drop(store);
    fs::copy(dir.database(), &copy).unwrap();
    let store = SqliteStore::open(&dir.0).unwrap();
    assert_eq!((new_user(&store), new_user(&store)), (UserId(2), UserId(3)));
    drop(store);
    for (restored, next) in [(Some(&copy), 4), (None, 5)] {
        fs::remove_file(dir.database()).unwrap();
        if let Some(copy) = restored {
            fs::copy(copy, dir.database()).unwrap();
        }
        let store = SqliteStore::open(&dir.0).unwrap();
        assert_eq!(new_user(&store), UserId(next), "{restored:?}");
        assert_eq!(store.create_group(UserId(next), "another", "").unwrap(), GroupId(next - 2));
    }
    // An operator who wants to start from nothing deletes all files; the file's content makes no
    // difference.
    for ids in [None, Some("what?\n")] {
        fs::remove_file(dir.database()).unwrap();
        fs::remove_file(dir.0.join("raybox.ids")).unwrap();
        if let Some(text) = ids {
            fs::write(dir.0.join("raybox.ids"), text).unwrap();
        }
        let store = SqliteStore::open(&dir.0).unwrap();
        assert_eq!((new_user(&store), new_user(&store)), (UserId(1), UserId(2)));
        assert!(fs::read_to_string(dir.0.join("raybox.ids")).unwrap().contains("user 0000000002 group 0000000000"));
    }
}

/// For SQLite, a limit on the database's size is a full disk.
fn limit_pages(store: &SqliteStore, pages: u32) {
    // A number below the present one means no growth.
    let limit = move |db: &Connection| db.query_row(&format!("PRAGMA max_page_count = {}", pages), [], |_| Ok(()));
    store.live.writer().write(limit).unwrap();
}

#[test]
fn a_failing_operation_is_undone_alone() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    let user = new_user(&store);
    // Blocks the writer until both operations are queued, so that they share a batch.
    let (go, gate) = bounded::<()>(1);
    thread::scope(|scope| {
        let store = &store;
        let (entered, is_in) = bounded(1);
        scope.spawn(move || {
            store.live.writer().write(move |_| {
                let _ = entered.send(());
                let _ = gate.recv();
                Ok(())
            })
        });
        is_in.recv().unwrap();
        let failing = scope.spawn(move || {
            store.live.writer().write(move |db| {
                db.execute("INSERT INTO OfflineMessage (userid, message) VALUES (:user, 'half')", [user.0])?;
                db.execute("INSERT INTO User (name) VALUES ('without a key')", [])
            })
        });
        let beside = scope.spawn(move || append(store, user, "whole"));
        let deadline = Instant::now() + DEADLINE;
        while store.live.writer().queued() < 2 {
            assert!(Instant::now() < deadline, "both are queued behind the first");
            thread::yield_now();
        }
        go.send(()).unwrap();
        let failed = failing.join().unwrap();
        assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
        assert_eq!(beside.join().unwrap().unwrap(), AppendOutcome::Stored);
    });
    assert_eq!(texts(&store, user), ["whole"]);
}

const SERVER_DATA_DIR: &str = "RAYBOX_TEST_SERVER_DATA_DIR";
const SERVER_THREADS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(60);

/// This test program in another process, running only `server_to_kill`. Killed at the latest when
/// dropped.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    fn start(data_dir: &Path) -> Server {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::server_to_kill", "--nocapture"])
            .env(SERVER_DATA_DIR, data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = unbounded();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Server { child, lines }
    }

    /// The next acknowledged thread and number; `None` once the process has exited and all its
    /// output was read.
    fn next_acknowledgement(&mut self) -> Option<(usize, usize)> {
        loop {
            let line = match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("the server neither appends nor ends"),
            };
            if let ["acknowledged", thread, number, "."] = line.split(' ').collect::<Vec<_>>()[..] {
                return Some((thread.parse().unwrap(), number.parse().unwrap()));
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn refusal(data_dir: &Path) -> SqliteOpenError {
    SqliteStore::open(data_dir).err().expect("must be refused")
}

/// A connection like that of another program.
fn outside(data_dir: &Path) -> Connection {
    Connection::open(data_dir.join("raybox.db")).unwrap()
}

fn new_user(store: &SqliteStore) -> UserId {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    store.register(&format!("user {}", COUNT.fetch_add(1, Ordering::Relaxed)), "x").unwrap()
}

fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage { to, text: Arc::from(text) }
}

fn append(store: &SqliteStore, to: UserId, text: &str) -> Result<AppendOutcome, StoreError> {
    store.append(&[message(to, text)]).map(|kept| kept[0])
}

fn texts(store: &SqliteStore, user: UserId) -> Vec<String> {
    store.fetch(user, usize::MAX).unwrap().into_iter().map(|kept| kept.text).collect()
}

/// A folder for one test, removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("raybox-sqlite-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("raybox.db")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
