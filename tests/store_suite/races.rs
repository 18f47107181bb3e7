//! Many callers at the same time.

use std::thread;

use raybox::store::{AllRoles, AppendOutcome, StoreError};

use super::{append, new_user, unique};

pub(crate) fn concurrent_appends_keep_the_order_of_each_thread(store: &dyn AllRoles) {
    const THREADS: usize = 8;
    const EACH: usize = 50;
    let user = new_user(store);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..EACH {
                    append(store, user, &[format!("{thread} {number}")]);
                    let seen = store.fetch(user, usize::MAX).unwrap();
                    assert!(seen.iter().any(|message| message.text == format!("{thread} {number}")));
                }
            });
        }
    });
    let kept = store.fetch(user, usize::MAX).unwrap();
    assert_eq!(kept.len(), THREADS * EACH);
    for thread in 0..THREADS {
        let prefix = format!("{thread} ");
        let numbers = kept.iter().filter_map(|message| message.text.strip_prefix(&prefix)?.parse::<usize>().ok());
        assert!(numbers.eq(0..EACH), "thread {thread}");
    }
}

pub(crate) fn one_name_is_given_once_however_many_ask(store: &dyn AllRoles) {
    let name = unique("wanted");
    let ask = || match store.register(&name, "x") {
        Ok(_) => 1,
        Err(StoreError::NameTaken) => 0,
        Err(other) => panic!("{other}"),
    };
    let given: u32 = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(given, 1);
}

pub(crate) fn a_refused_operation_does_not_harm_those_beside_it(store: &dyn AllRoles) {
    const EACH: usize = 50;
    let name = unique("taken");
    let user = store.register(&name, "x").unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let name = &name;
            scope.spawn(move || {
                for _ in 0..EACH {
                    assert!(matches!(store.register(name, "x"), Err(StoreError::NameTaken)));
                }
            });
            scope.spawn(move || {
                for number in 0..EACH {
                    assert_eq!(append(store, user, &[format!("{thread} {number}")]), [AppendOutcome::Stored]);
                }
            });
        }
    });
    assert_eq!(store.fetch(user, usize::MAX).unwrap().len(), 4 * EACH);
}
