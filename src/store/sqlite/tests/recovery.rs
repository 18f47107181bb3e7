//! Data after a kill, after a restored copy, and after the file was taken away.

use super::*;

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
