//! Tests of the behaviour that every store must have, on each kind of store.

mod mysql_store;
mod store_suite;

mod sqlite {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use raybox::store::AllRoles;
    use raybox::store::sqlite::SqliteStore;

    use crate::store_suite;

    /// A new store in a folder of its own, which is removed with it.
    struct Fresh {
        store: Option<SqliteStore>,
        data_dir: PathBuf,
    }

    impl store_suite::Opened for Fresh {
        fn store(&self) -> &dyn AllRoles {
            self.store.as_ref().expect("open until dropped")
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
        let data_dir = std::env::temp_dir().join(format!("raybox-suite-{}-{count}", std::process::id()));
        let store = SqliteStore::open(&data_dir).expect("a new store opens");
        Fresh { store: Some(store), data_dir }
    }

    store_suite::store_suite!(open);
}

mod mysql {
    use raybox::store::AllRoles;
    use raybox::store::mysql::MysqlStore;
    use testkit::Database;

    use crate::mysql_store::open_with;
    use crate::store_suite;

    /// A store on a database of its own, which is removed with it.
    pub(super) struct Fresh {
        pub(super) store: MysqlStore,
        pub(super) database: Database,
    }

    impl Fresh {
        pub(super) fn on(database: Database) -> Fresh {
            Fresh { store: open_with(&database, |_| ()), database }
        }
    }

    impl store_suite::Opened for Fresh {
        fn store(&self) -> &dyn AllRoles {
            &self.store
        }
    }

    fn open() -> Fresh {
        Fresh::on(Database::create())
    }

    store_suite::store_suite!(open);
}

/// The reference server's tables. They cannot do everything that the full suite tests, so these
/// tests cover the differences.
mod mysql_reference {

    use raybox::store::{Accounts, AppendOutcome, Database as _, MessageId, Messages, NewMessage, StoreError};
    use testkit::Database;

    use super::mysql::Fresh;
    use crate::store_suite;

    fn open() -> Fresh {
        Fresh::on(Database::create_reference())
    }

    store_suite::narrow_store_suite!(open);

    #[test]
    fn it_says_which_tables_it_found() {
        let opened = open();
        assert!(opened.store.describe().ends_with(", tables of the reference server"), "{}", opened.store.describe());
        assert!(!opened.store.fits_hashes());
    }

    #[test]
    fn a_message_over_500_characters_is_not_kept() {
        let opened = open();
        let user = opened.store.register("ann", "x").unwrap();
        let batch: Vec<NewMessage> = [("é", 500), ("é", 501), ("x", 500), ("😀", 500), ("x", 501)]
            .map(|(text, times)| NewMessage::new(user, text.repeat(times)))
            .to_vec();
        let (stored, too_long) = (AppendOutcome::Stored, AppendOutcome::TooLong);
        assert_eq!(opened.store.append(&batch).unwrap(), [stored, too_long, stored, stored, too_long]);
        let texts: Vec<String> = opened.store.fetch(user, usize::MAX).unwrap().into_iter().map(|m| m.text).collect();
        assert_eq!(texts, ["é".repeat(500), "x".repeat(500), "😀".repeat(500)]);
    }

    #[test]
    fn equal_messages_are_deleted_one_by_one() {
        let opened = open();
        let store = &opened.store;
        let (user, other) = (store.register("ann", "x").unwrap(), store.register("bob", "x").unwrap());
        let message = |to, text: &str| NewMessage::new(to, text);
        let batch = ["same", "SAME", "same", "last", "same "].map(|text| message(user, text));
        store.append(&batch).unwrap();
        store.append(&[message(other, "same")]).unwrap();
        let texts = || -> Vec<String> {
            store.fetch(user, usize::MAX).unwrap().into_iter().map(|message| message.text).collect()
        };
        let kept = store.fetch(user, 8).unwrap();
        let ids: Vec<MessageId> = kept.iter().map(|message| message.id).collect();
        assert_eq!(ids.len(), 2);
        // An equal message that came later stays, even if it came between the fetch and the delete.
        store.append(&[message(user, "SAME")]).unwrap();
        store.delete(user, &ids).unwrap();
        assert_eq!(texts(), ["same", "last", "same ", "SAME"]);
        let all: Vec<MessageId> = store.fetch(user, usize::MAX).unwrap().iter().map(|message| message.id).collect();
        assert_eq!(all.len(), 4);
        store.delete(user, &all).unwrap();
        assert_eq!(texts(), [""; 0]);
        assert_eq!(store.fetch(other, usize::MAX).unwrap().len(), 1);
        // A text that is equal only to the database's collation is another message.
        store.append(&["CASE", "case"].map(|text| message(user, text))).unwrap();
        let kept = store.fetch(user, usize::MAX).unwrap();
        store.delete(user, &[kept[1].id]).unwrap();
        assert_eq!(texts(), ["CASE"]);
    }

    #[test]
    fn a_password_that_does_not_fit_is_refused() {
        let opened = open();
        opened.store.register("ann", &"x".repeat(56)).unwrap();
        let refused = opened.store.register("bob", &"x".repeat(57));
        assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
        assert_eq!(opened.database.count("SELECT COUNT(*) FROM User"), 1, "nothing was cut off to fit");
    }
}
