//! A database that does not answer when the server starts. A thread, `store-open`, opens it as soon
//! as possible. Until then none of its roles is available.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{APPENDERS, MysqlOpenError, MysqlStore};
use crate::base::loads::PoolUse;
use crate::config::MysqlSettings;
use crate::config::servers::in_words;
use crate::store::outages::RepeatedTrouble;
use crate::store::roles::Opener;
use crate::store::{Database, Store, StoreCallback, StoreError};

/// A store whose roles open later. `error` is the reason why the database could not be opened
/// just now. The thread ends when the last clone is dropped.
///
/// # Errors
/// When the system has no thread left.
pub fn open_later(settings: &MysqlSettings, error: &MysqlOpenError) -> io::Result<Store> {
    log::error!("{error}; starting without it, and trying again every {RETRY_AFTER:?}");
    let shared = Arc::new(MysqlOpening::default());
    let (store, opener) = Store::late(Arc::new(LateDatabase { settings: settings.clone(), shared: shared.clone() }));
    let (settings, trouble) = (settings.clone(), RepeatedTrouble::logged(error.to_string()));
    let run = move || shared.run(&settings, &opener, trouble);
    thread::Builder::new().name("store-open".to_owned()).spawn(run)?;
    Ok(store)
}

struct LateDatabase {
    settings: MysqlSettings,
    shared: Arc<MysqlOpening>,
}

/// A thread's work of opening a database, for a store that waits.
#[derive(Default)]
struct MysqlOpening {
    store: OnceLock<Arc<MysqlStore>>,
    /// The callbacks for the store, until it is open. Locked while they are passed on.
    on_trouble: Mutex<Option<StoreCallback>>,
    is_closing: Mutex<bool>,
    closing: Condvar,
}

impl MysqlOpening {
    fn run(&self, settings: &MysqlSettings, opener: &Opener, mut trouble: RepeatedTrouble) {
        loop {
            let mut is_closing = self.is_closing.lock();
            if !*is_closing {
                self.closing.wait_for(&mut is_closing, RETRY_AFTER);
            }
            if *is_closing {
                return;
            }
            drop(is_closing);
            // Without this thread the database would never be opened.
            let opened = catch_unwind(AssertUnwindSafe(|| MysqlStore::open(settings)));
            let Ok(opened) = opened else { continue };
            match opened {
                Ok(store) => {
                    log::warn!("the database answers: {}", store.describe());
                    let (store, mut on_trouble) = (Arc::new(store), self.on_trouble.lock());
                    if let Some(look) = on_trouble.take() {
                        store.on_trouble(look);
                    }
                    opener.open(&store);
                    let _ = self.store.set(store);
                    return;
                }
                Err(error) => {
                    trouble.note(error.to_string());
                }
            }
        }
    }
}

impl Database for LateDatabase {
    fn describe(&self) -> String {
        let MysqlSettings { servers, database, .. } = &self.settings;
        let missing = || format!("MySQL at {}/{database}, which does not answer yet", in_words(servers));
        self.shared.store.get().map_or_else(missing, |store| store.describe())
    }

    fn appenders(&self) -> usize {
        APPENDERS
    }

    fn connections(&self) -> Option<PoolUse> {
        let none = PoolUse { open: 0, idle: 0, max: self.settings.max_size };
        Some(self.shared.store.get().and_then(|store| store.connections()).unwrap_or(none))
    }

    fn check(&self) -> Result<(), StoreError> {
        let missing = || StoreError::Unavailable("the database has not answered yet".into());
        self.shared.store.get().ok_or_else(missing)?.check()
    }

    fn on_trouble(&self, look: StoreCallback) {
        let mut on_trouble = self.shared.on_trouble.lock();
        match self.shared.store.get() {
            Some(store) => store.on_trouble(look),
            None => *on_trouble = Some(look),
        }
    }
}

impl Drop for LateDatabase {
    fn drop(&mut self) {
        // An attempt under way is not waited for; its bounds are seconds.
        *self.shared.is_closing.lock() = true;
        self.shared.closing.notify_one();
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
