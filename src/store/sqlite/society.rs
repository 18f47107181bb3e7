//! Accounts, friends and groups of level 2. `groups.rs` changes groups, `friends.rs` makes friends,
//! `accounts.rs` changes accounts. Each change is one operation of the writer, so no other change
//! comes between its reads and its writes.

mod accounts;
mod friends;
mod groups;
mod recording;

use rusqlite::params;

use super::SqliteStore;
use super::conversations::commit::note_asked;
use super::rows::{limit, user_by_id};
use crate::protocol::{GroupId, UserId};
use crate::store::StoreError;
use crate::store::community::{
    AccountDeletion, BLOCKED_MAX, Befriended, BlockOutcome, Community, Deletion, FriendRequest, GroupAct, GroupChanged,
    GroupMember, GroupRefusal, NewGroup, OwnAccount, PasswordChange, Recorded, Swapped,
};
use crate::store::history::DeviceId;

impl Community for SqliteStore {
    fn found_group(&self, group: &NewGroup) -> Result<(GroupId, Recorded), StoreError> {
        let (live, ids) = self.live.live()?;
        let (ids, group) = (ids.clone(), group.clone());
        live.change(move |db| groups::create(db, &ids, &group))
    }

    fn act(&self, act: &GroupAct) -> Result<Result<GroupChanged, GroupRefusal>, StoreError> {
        // A request that changes nothing does not wait for a write.
        match self.live.read(|db| groups::facts(db, act).map(|facts| act.decide(&facts)))? {
            Err(refusal) => Ok(Err(refusal)),
            Ok(_) => {
                let act = act.clone();
                self.live.change(move |db| groups::act(db, &act))
            }
        }
    }

    fn members_of(&self, group: GroupId, asker: UserId) -> Result<Result<Vec<GroupMember>, GroupRefusal>, StoreError> {
        self.live.read(|db| groups::members(db, group, asker))
    }

    fn befriend(&self, request: &FriendRequest) -> Result<Befriended, StoreError> {
        let request = *request;
        self.live.change(move |db| friends::befriend(db, &request))
    }

    fn note_asked(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.live.change(move |db| note_asked(db, from, to))
    }

    fn block(&self, user: UserId, other: UserId) -> Result<BlockOutcome, StoreError> {
        self.live.change(move |db| {
            if user_by_id(db, other)?.is_none() {
                return Ok(BlockOutcome::NoSuchUser);
            }
            let others: i64 = db
                .prepare_cached("SELECT count(*) FROM Blocked WHERE user = ?1 AND blocked <> ?2")?
                .query_row([user.0, other.0], |row| row.get(0))?;
            if others >= limit(BLOCKED_MAX) {
                return Ok(BlockOutcome::TooMany);
            }
            db.prepare_cached("INSERT INTO Blocked (user, blocked) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                .execute([user.0, other.0])?;
            Ok(BlockOutcome::Done)
        })
    }

    fn unblock(&self, user: UserId, other: UserId) -> Result<BlockOutcome, StoreError> {
        self.live.change(move |db| {
            if user_by_id(db, other)?.is_none() {
                return Ok(BlockOutcome::NoSuchUser);
            }
            db.prepare_cached("DELETE FROM Blocked WHERE user = ?1 AND blocked = ?2")?.execute([user.0, other.0])?;
            Ok(BlockOutcome::Done)
        })
    }

    fn blocked_by(&self, user: UserId) -> Result<Vec<(UserId, Option<String>)>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached(
                "SELECT blocked, name FROM Blocked LEFT JOIN User ON User.id = blocked WHERE user = ?1 ORDER BY blocked",
            )?
            .query_map([user.0], |row| Ok((UserId(row.get(0)?), row.get(1)?)))?
            .collect()
        })
    }

    fn blocks_after(&self, after: (UserId, UserId), max: usize) -> Result<Vec<(UserId, UserId)>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached(
                "SELECT user, blocked FROM Blocked WHERE (user, blocked) > (?1, ?2) ORDER BY user, blocked LIMIT ?3",
            )?
            .query_map(params![after.0.0, after.1.0, limit(max)], |row| Ok((UserId(row.get(0)?), UserId(row.get(1)?))))?
            .collect()
        })
    }

    fn own(&self, user: UserId) -> Result<Option<OwnAccount>, StoreError> {
        self.live.read(|db| accounts::own(db, user))
    }

    fn change_own(
        &self,
        user: UserId,
        name: Option<&str>,
        receipts: Option<bool>,
    ) -> Result<Option<OwnAccount>, StoreError> {
        let name = name.map(str::to_owned);
        let changed = self.live.change(move |db| accounts::change_own(db, user, name.as_deref(), receipts))?;
        changed.ok_or(StoreError::NameTaken)
    }

    fn hiding_marks(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        self.live.read(|db| {
            let mut hides = db.prepare_cached("SELECT 1 FROM User WHERE id = ?1 AND receipts = 0")?;
            let mut hiding = Vec::new();
            for user in users {
                if hides.exists([user.0])? {
                    hiding.push(*user);
                }
            }
            Ok(hiding)
        })
    }

    fn change_password(&self, change: &PasswordChange) -> Result<Swapped<Vec<DeviceId>>, StoreError> {
        let change = change.clone();
        self.live.change(move |db| accounts::change_password(db, &change))
    }

    fn delete_account(&self, request: &AccountDeletion<'_>) -> Result<Swapped<Deletion>, StoreError> {
        let AccountDeletion { user, hooked, nonce, .. } = *request;
        let stored = request.stored.to_owned();
        self.live.change(move |db| accounts::delete(db, &AccountDeletion { user, stored: &stored, hooked, nonce }))
    }
}
