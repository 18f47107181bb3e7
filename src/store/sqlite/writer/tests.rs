//! Tests of the writer's thread: one operation that fails, and a disk that does not answer.

use std::time::Instant;

use super::super::SqliteStore;
use super::super::tests::{DEADLINE, Dir, append, new_user, texts, wait_until};
use super::*;
use crate::store::{AppendOutcome, Database};

/// The number of jobs that wait for the batch after the current one.
fn queued(store: &SqliteStore) -> usize {
    let (live, _) = store.live.live().expect("the database is open");
    live.writer.queue().len()
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
        assert!(queued(store) <= 1, "probes pile up");
        drop(go);
    });
    store.check().unwrap();
}

#[test]
fn a_reader_of_mailboxes_waits_for_their_changes_and_not_for_changes_apart() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.0).unwrap();
    for settling in [Settling::Apart, Settling::AwaitedAnswer] {
        let (go, gate) = bounded::<()>(0);
        let (entered, is_in) = bounded(1);
        thread::scope(|scope| {
            let store = &store;
            let blocks = move |_: &Connection| {
                let _ = entered.send(());
                let _ = gate.recv();
                Ok(())
            };
            scope.spawn(move || match settling {
                Settling::Apart => store.live.write_apart(blocks),
                Settling::AwaitedAnswer => store.live.write(blocks),
            });
            is_in.recv_timeout(DEADLINE).unwrap();
            let (done, is_done) = bounded(1);
            scope.spawn(move || done.send(store.live.settle()));
            match settling {
                Settling::Apart => is_done.recv_timeout(DEADLINE).expect("it waits for a login").unwrap(),
                Settling::AwaitedAnswer => {
                    wait_until(|| queued(store) == 1);
                    assert!(is_done.is_empty(), "a fetch may show what is being deleted");
                }
            }
            drop(go);
        });
    }
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
            store.live.write(move |_| {
                let _ = entered.send(());
                let _ = gate.recv();
                Ok(())
            })
        });
        is_in.recv().unwrap();
        let failing = scope.spawn(move || {
            store.live.write(move |db| {
                db.execute("INSERT INTO OfflineMessage (userid, message) VALUES (:user, 'half')", [user.0])?;
                db.execute("INSERT INTO User (name) VALUES ('without a key')", [])
            })
        });
        let beside = scope.spawn(move || append(store, user, "whole"));
        let deadline = Instant::now() + DEADLINE;
        while queued(store) < 2 {
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
