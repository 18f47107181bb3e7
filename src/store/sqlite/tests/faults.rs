//! Faults while the store is open: a database held by another program, a full, slow or damaged
//! disk, no descriptor left.

use super::*;

#[test]
fn queries_go_on_when_no_descriptor_is_left() {
    let Some(data_dir) = env::var_os(WITHOUT_DESCRIPTORS) else {
        // The limit is that of a process.
        let dir = Dir::new();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([
            "--exact",
            "store::sqlite::tests::faults::queries_go_on_when_no_descriptor_is_left",
            "--nocapture",
        ]);
        let output = testkit::output_within(testkit::PATIENCE, command.env(WITHOUT_DESCRIPTORS, &dir.0)).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
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
fn a_damaged_page_is_reported_for_good() {
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

/// For SQLite, a limit on the database's size is a full disk.
fn limit_pages(store: &SqliteStore, pages: u32) {
    // A number below the present one means no growth.
    let limit = move |db: &Connection| db.query_row(&format!("PRAGMA max_page_count = {}", pages), [], |_| Ok(()));
    store.live.write(limit).unwrap();
}
