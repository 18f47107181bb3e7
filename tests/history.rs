//! Tests of history, on every store that has it.

mod history_faults;
mod history_suite;
mod mysql_store;

mod sqlite {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use raybox::store::sqlite::SqliteStore;

    use crate::history_suite;

    /// A new store in a folder of its own, which is removed with it.
    struct Fresh {
        store: Option<Arc<SqliteStore>>,
        data_dir: PathBuf,
    }

    impl history_suite::Opened for Fresh {
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
        let data_dir = std::env::temp_dir().join(format!("raybox-history-{}-{count}", std::process::id()));
        Fresh { store: Some(Arc::new(SqliteStore::open(&data_dir).expect("a new store opens"))), data_dir }
    }

    history_suite::history_suite!(open);
}

mod mysql {
    use std::sync::Arc;

    use raybox::store::mysql::MysqlStore;
    use testkit::Database;

    use crate::history_suite;
    use crate::mysql_store::open_with;

    /// A store on a database of its own, which is removed with it.
    struct Fresh {
        store: Arc<MysqlStore>,
        second: Arc<MysqlStore>,
        _database: Database,
    }

    impl history_suite::Opened for Fresh {
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
        Fresh { store, second, _database: database }
    }

    history_suite::history_suite!(open);
}
