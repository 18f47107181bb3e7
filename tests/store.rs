//! What every store must do, checked on each store there is.

mod store_suite;

mod sqlite {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use raybox::store::Store;
    use raybox::store::sqlite::SqliteStore;

    use crate::store_suite;

    /// A fresh store in a folder of its own, which goes with it.
    struct Fresh {
        store: Option<SqliteStore>,
        data_dir: PathBuf,
    }

    impl store_suite::Opened for Fresh {
        fn store(&self) -> &dyn Store {
            self.store.as_ref().expect("open until dropped")
        }
    }

    impl Drop for Fresh {
        fn drop(&mut self) {
            drop(self.store.take());
            let _ = fs::remove_dir_all(&self.data_dir);
        }
    }

    fn open() -> Option<Fresh> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let data_dir = std::env::temp_dir().join(format!("raybox-suite-{}-{count}", std::process::id()));
        let store = SqliteStore::open(&data_dir).expect("a new store opens");
        Some(Fresh { store: Some(store), data_dir })
    }

    store_suite::store_suite!(open);
}
