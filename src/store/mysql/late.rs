//! [`LateStore`]: a database that does not answer yet when the server starts.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{APPENDERS, Joined, Membership, MysqlStore, OpenError};
use crate::config::MysqlSettings;
use crate::metrics::PoolUse;
use crate::protocol::{GroupId, UserId};
use crate::store::{FriendNames, Group, Kept, KeptMessage, Message, MessageId, Store, StoreError, User, UserState};

/// A [`MysqlStore`] that is opened as soon as that is possible, by a thread of its own, `store-open`. Until then it is not
/// available. Dropping it ends the thread.
pub struct LateStore {
    shared: Arc<Shared>,
}

struct Shared {
    settings: MysqlSettings,
    store: OnceLock<MysqlStore>,
    /// What the store is to call, until it is open. Held while it is handed on.
    on_trouble: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
    is_closing: Mutex<bool>,
    closing: Condvar,
}

impl LateStore {
    /// Begins to try. `error` is why it could not be opened just now.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(settings: &MysqlSettings, error: &OpenError) -> io::Result<LateStore> {
        log::error!("{error}; starting without it, and trying again every {RETRY_AFTER:?}");
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            store: OnceLock::new(),
            on_trouble: Mutex::new(None),
            is_closing: Mutex::new(false),
            closing: Condvar::new(),
        });
        let (opener, known) = (shared.clone(), error.to_string());
        thread::Builder::new().name("store-open".to_owned()).spawn(move || opener.run(known))?;
        Ok(LateStore { shared })
    }

    fn opened(&self) -> Result<&MysqlStore, StoreError> {
        self.shared.store.get().ok_or_else(|| StoreError::Unavailable("the database has not answered yet".into()))
    }
}

impl Drop for LateStore {
    fn drop(&mut self) {
        // An attempt under way is not waited for; its bounds are seconds.
        *self.shared.is_closing.lock() = true;
        self.shared.closing.notify_one();
    }
}

impl Shared {
    /// `known` is the trouble that was logged last.
    fn run(&self, mut known: String) {
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
            let opened = catch_unwind(AssertUnwindSafe(|| MysqlStore::open(&self.settings)));
            let Ok(opened) = opened else { continue };
            match opened {
                Ok(store) => {
                    log::warn!("the database answers: {}", store.describe());
                    let mut on_trouble = self.on_trouble.lock();
                    if let Some(look) = on_trouble.take() {
                        store.on_trouble(look);
                    }
                    let _ = self.store.set(store);
                    return;
                }
                Err(error) => {
                    let trouble = error.to_string();
                    if trouble != known {
                        log::error!("{trouble}");
                        known = trouble;
                    }
                }
            }
        }
    }
}

impl Store for LateStore {
    fn describe(&self) -> String {
        let MysqlSettings { host, port, database, .. } = &self.shared.settings;
        let missing = || format!("MySQL at {host}:{port}/{database}, which does not answer yet");
        self.shared.store.get().map_or_else(missing, MysqlStore::describe)
    }

    fn fits_hashes(&self) -> bool {
        // Whoever asks before it is known gets no further anyway.
        self.shared.store.get().is_none_or(MysqlStore::fits_hashes)
    }

    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.opened()?.credential(user)
    }

    fn credentials(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        self.opened()?.credentials(users)
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        self.opened()?.register(name, credential)
    }

    fn replace_credential(&self, user: UserId, old: &str, new: &str) -> Result<(), StoreError> {
        self.opened()?.replace_credential(user, old, new)
    }

    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError> {
        self.opened()?.set_states(changes)
    }

    fn set_all_offline(&self) -> Result<(), StoreError> {
        self.opened()?.set_all_offline()
    }

    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        self.opened()?.online(users)
    }

    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.opened()?.online_after(user, limit)
    }

    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.opened()?.add_friends(a, b)
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.opened()?.remove_friend(from, to)
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.opened()?.friends(user)
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.opened()?.user(user)
    }

    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError> {
        self.opened()?.create_group(owner, name, description)
    }

    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError> {
        self.opened()?.join_group(user, group, members_max)
    }

    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        self.opened()?.membership(user, group)
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.opened()?.groups_of(user)
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.opened()?.group(group)
    }

    fn groups_named(&self, text: &str, limit: usize) -> Result<Vec<Group>, StoreError> {
        self.opened()?.groups_named(text, limit)
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.opened()?.members(group)
    }

    fn append(&self, messages: &[Message]) -> Result<Vec<Kept>, StoreError> {
        self.opened()?.append(messages)
    }

    fn fits(&self, text: &str) -> bool {
        // What is accepted must be kept, and nothing is known of the tables yet.
        self.shared.store.get().is_some_and(|store| store.fits(text))
    }

    fn mailbox_bytes(&self, user: UserId) -> Result<usize, StoreError> {
        self.opened()?.mailbox_bytes(user)
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        self.opened()?.fetch(user, bytes_max)
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        self.opened()?.delete(user, ids)
    }

    fn appenders(&self) -> usize {
        APPENDERS
    }

    fn connections(&self) -> Option<PoolUse> {
        Some(self.shared.store.get().and_then(MysqlStore::connections).unwrap_or_default())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.opened()?.check()
    }

    fn on_trouble(&self, look: Box<dyn Fn() + Send + Sync>) {
        let mut on_trouble = self.shared.on_trouble.lock();
        match self.shared.store.get() {
            Some(store) => store.on_trouble(look),
            None => *on_trouble = Some(look),
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
