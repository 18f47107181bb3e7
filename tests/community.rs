//! Tests of accounts, friends and groups of level 2, on every store that has them.

mod community_suite;
mod mysql_store;

mod sqlite {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use raybox::store::sqlite::SqliteStore;

    use crate::community_suite;

    /// A new store in a folder of its own, which is removed with it.
    struct Fresh {
        store: Option<Arc<SqliteStore>>,
        data_dir: PathBuf,
    }

    impl community_suite::Opened for Fresh {
        type Store = SqliteStore;

        fn store(&self) -> Arc<SqliteStore> {
            self.store.clone().expect("open until dropped")
        }

        /// A file belongs to one process, so there is only one store on it.
        fn second(&self) -> Arc<SqliteStore> {
            self.store()
        }
    }

    impl Drop for Fresh {
        fn drop(&mut self) {
            drop(self.store.take());
            let _ = fs::remove_dir_all(&self.data_dir);
        }
    }

    fn open() -> Fresh {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let data_dir = std::env::temp_dir().join(format!("raybox-community-{}-{count}", std::process::id()));
        Fresh { store: Some(Arc::new(SqliteStore::open(&data_dir).expect("a new store opens"))), data_dir }
    }

    community_suite::community_suite!(open);
}

mod mysql {
    use std::sync::Arc;

    use raybox::store::mysql::MysqlStore;
    use raybox::store::{Accounts as _, Contacts as _};
    use testkit::Database;

    use crate::community_suite::{self, members};
    use crate::mysql_store::open_with;

    /// A store on a database of its own, which is removed with it.
    struct Fresh {
        store: Arc<MysqlStore>,
        second: Arc<MysqlStore>,
        database: Database,
    }

    impl community_suite::Opened for Fresh {
        type Store = MysqlStore;

        fn store(&self) -> Arc<MysqlStore> {
            self.store.clone()
        }

        /// The store of another node.
        fn second(&self) -> Arc<MysqlStore> {
            self.second.clone()
        }
    }

    fn open() -> Fresh {
        let database = Database::create();
        let [store, second] = [(); 2].map(|()| Arc::new(open_with(&database, |_| ())));
        Fresh { store, second, database }
    }

    community_suite::community_suite!(open);

    #[test]
    fn a_member_whom_another_program_lets_in_has_a_time_too() {
        let opened = open();
        let store = &opened.store;
        let [ann, bob, cat] = ["ann", "bob", "cat"].map(|name| store.register(name, "x").unwrap());
        let group = store.create_group(ann, "g", "").unwrap();
        // Without a list of columns, MySQL stores 0 in an invisible column even if its default is
        // an expression.
        let join = format!("INSERT INTO GroupUser (groupid, userid, grouprole) VALUES ({group}, {cat}, 'normal')");
        opened.database.run(&join);
        assert_eq!(opened.database.count("SELECT COUNT(*) FROM GroupUser WHERE since < 1000000000000"), 0);
        opened.database.run(&format!("UPDATE GroupUser SET since = 5 WHERE userid = {cat}"));
        store.join_group(bob, group, 9).unwrap();
        community_suite::leave(&**store, group, ann);
        assert_eq!(members(&**store, group, bob), [(bob, false), (cat, true)]);
    }
}
