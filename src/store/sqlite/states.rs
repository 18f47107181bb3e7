//! The column `User.state`.

use rusqlite::named_params;

use super::SqliteStore;
use super::rows;
use crate::protocol::UserId;
use crate::store::{States, StoreError, UserState};

impl States for SqliteStore {
    fn set_states(&self, changes: &[(UserId, UserState)]) -> Result<(), StoreError> {
        let changes = changes.to_vec();
        self.live.write_apart(move |db| {
            let mut update = db.prepare_cached("UPDATE User SET state = :state WHERE id = :id AND state <> :state")?;
            for (user, state) in &changes {
                update.execute(named_params! {":state": state_text(*state), ":id": user.0})?;
            }
            Ok(())
        })
    }

    fn set_all_offline(&self) -> Result<(), StoreError> {
        self.live.write(|db| db.execute("UPDATE User SET state = 'offline' WHERE state <> 'offline'", []).map(drop))
    }

    fn online(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let users = users.to_vec();
        self.live.read(move |db| {
            let mut query = db.prepare_cached("SELECT 1 FROM User WHERE id = :id AND state = 'online'")?;
            let mut online = Vec::new();
            for user in &users {
                if query.exists(named_params! {":id": user.0})? {
                    online.push(*user);
                }
            }
            Ok(online)
        })
    }

    fn online_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.live.read(move |db| {
            let statement = "SELECT id FROM User WHERE id > :user AND state = 'online' ORDER BY id LIMIT :limit";
            let mut query = db.prepare_cached(statement)?;
            let ids = query.query_map(named_params! {":user": user.0, ":limit": rows::limit(limit)}, |row| {
                row.get(0).map(UserId)
            })?;
            ids.collect()
        })
    }
}

fn state_text(state: UserState) -> &'static str {
    match state {
        UserState::Online => "online",
        UserState::Offline => "offline",
    }
}
