//! Tests of this store alone: its file, and what is in it after a restart. The behaviour of all
//! stores is tested in `tests/store.rs`.

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
use rusqlite::{Connection, ffi};

use super::rows::user_by_id;
use super::*;
use crate::protocol::{GroupId, UserId};

use crate::store::{Accounts, AppendOutcome, Contacts, MessageId, Messages, NewMessage, States, UserState};

mod faults;
mod recovery;
mod refusals;

#[test]
fn a_missing_folder_is_made_and_the_schema_with_it() {
    let dir = Dir::new();
    let nested = dir.0.join("a/b");
    let store = SqliteStore::open(&nested).unwrap();
    assert_eq!(store.describe(), format!("SQLite {}/a/b/raybox.db (new, empty)", dir.0.display()));
    let db = outside(&nested);
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), version), ("wal", 4));
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
        all.map(|to| NewMessage::new(to, shared.clone())).chain([message(users[0], "own")]).collect();
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
fn stored_rows_are_there_after_a_restart_and_everybody_is_offline() {
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
fn the_files_are_for_their_owner_alone() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    new_user(&store);
    for entry in fs::read_dir(&dir.0).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

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

const SERVER_DATA_DIR: &str = "RAYBOX_TEST_SERVER_DATA_DIR";
const SERVER_THREADS: usize = 4;
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

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

pub(super) fn wait_until(condition: impl Fn() -> bool) {
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

pub(super) fn new_user(store: &SqliteStore) -> UserId {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    store.register(&format!("user {}", COUNT.fetch_add(1, Ordering::Relaxed)), "x").unwrap()
}

fn message(to: UserId, text: &str) -> NewMessage {
    NewMessage::new(to, text)
}

pub(super) fn append(store: &SqliteStore, to: UserId, text: &str) -> Result<AppendOutcome, StoreError> {
    store.append(&[message(to, text)]).map(|kept| kept[0])
}

pub(super) fn texts(store: &SqliteStore, user: UserId) -> Vec<String> {
    store.fetch(user, usize::MAX).unwrap().into_iter().map(|kept| kept.text).collect()
}

/// A folder for one test, removed when dropped.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new() -> Dir {
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
