//! Accounts, friends and groups of level 2. `recording.rs` locks conversations and records entries,
//! `groups.rs` changes groups, `friends.rs` makes friends, `accounts.rs` changes accounts.
//!
//! A change locks its conversations first, by ascending ids as everywhere, and is decided under
//! these locks. If the connection is lost at the commit, the next attempt gives the same answer:
//! it finds the first entry that the previous attempt has recorded, or the account as that attempt
//! left it.

mod accounts;
mod friends;
mod groups;
mod recording;

use mysql::prelude::Queryable;
use mysql::{Row, params};

use self::recording::Attempts;
use super::MysqlStore;
use super::conversations::script::{LIST_MAX, list};
use super::rows::{collect, column, user_row};
use crate::protocol::{GroupId, UserId};
use crate::store::StoreError;
use crate::store::community::{
    AccountDeletion, BLOCKED_MAX, Befriended, BlockOutcome, Community, Deletion, FriendDecision, FriendRequest,
    GroupAct, GroupChanged, GroupMember, GroupRefusal, NewGroup, OwnAccount, PasswordChange, Recorded, Swapped,
};
use crate::store::history::DeviceId;

impl Community for MysqlStore {
    fn found_group(&self, group: &NewGroup) -> Result<(GroupId, Recorded), StoreError> {
        let mut attempts = Attempts::default();
        self.base.calls.call(|db, _| groups::create(db, &self.base, group, &mut attempts))
    }

    fn act(&self, act: &GroupAct) -> Result<Result<GroupChanged, GroupRefusal>, StoreError> {
        // A request that is refused locks nothing.
        let facts = self.base.calls.call(|db, _| groups::facts(db, act))?;
        if let Err(refusal) = act.decide(&facts) {
            return Ok(Err(refusal));
        }
        let mut attempts = Attempts::default();
        self.base.calls.call(|db, _| groups::act(db, &self.base, act, &mut attempts))
    }

    fn members_of(&self, group: GroupId, asker: UserId) -> Result<Result<Vec<GroupMember>, GroupRefusal>, StoreError> {
        self.base.calls.call(|db, _| groups::members(db, group, asker))
    }

    fn befriend(&self, request: &FriendRequest) -> Result<Befriended, StoreError> {
        let facts = self.base.calls.call(|db, _| friends::facts(db, &self.base, request))?;
        if let FriendDecision::Unchanged(outcome) = request.decide(facts) {
            return Ok(outcome);
        }
        let mut attempts = Attempts::default();
        self.base.calls.call(|db, _| friends::befriend(db, &self.base, request, &mut attempts))
    }

    fn note_asked(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.base.calls.call(|db, _| {
            let insert = "INSERT INTO Asked (userid, friendid) VALUES (?, ?) ON DUPLICATE KEY UPDATE userid = userid";
            db.exec_drop(insert, (from.0, to.0))
        })
    }

    fn block(&self, user: UserId, other: UserId) -> Result<BlockOutcome, StoreError> {
        self.base.calls.call(|db, _| {
            let known: Option<(i64, i64)> = db.exec_first(
                "SELECT (SELECT COUNT(*) FROM User WHERE id = :other),
                     (SELECT COUNT(*) FROM Blocked WHERE user = :user AND blocked <> :other)",
                params! {"user" => user.0, "other" => other.0},
            )?;
            let (exists, others) = known.unwrap_or_default();
            if exists == 0 {
                return Ok(BlockOutcome::NoSuchUser);
            }
            // Concurrent requests may exceed the limit by their number.
            if others >= BLOCKED_MAX as i64 {
                return Ok(BlockOutcome::TooMany);
            }
            let insert = "INSERT INTO Blocked (user, blocked) VALUES (?, ?) ON DUPLICATE KEY UPDATE user = user";
            db.exec_drop(insert, (user.0, other.0))?;
            Ok(BlockOutcome::Done)
        })
    }

    fn unblock(&self, user: UserId, other: UserId) -> Result<BlockOutcome, StoreError> {
        self.base.calls.call(|db, _| {
            let row: Option<Row> = db.exec_first("SELECT id, name FROM User WHERE id = ?", (other.0,))?;
            if row.map(|mut row| user_row(&mut row)).transpose()?.is_none() {
                return Ok(BlockOutcome::NoSuchUser);
            }
            db.exec_drop("DELETE FROM Blocked WHERE user = ? AND blocked = ?", (user.0, other.0))?;
            Ok(BlockOutcome::Done)
        })
    }

    fn blocked_by(&self, user: UserId) -> Result<Vec<(UserId, Option<String>)>, StoreError> {
        self.base.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT blocked, name FROM Blocked LEFT JOIN User ON User.id = blocked
                 WHERE user = ? ORDER BY blocked",
                (user.0,),
            )?;
            collect(rows, |row| Ok((UserId(column(row, "blocked")?), column(row, "name")?)))
        })
    }

    fn blocks_after(&self, after: (UserId, UserId), limit: usize) -> Result<Vec<(UserId, UserId)>, StoreError> {
        self.base.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT user, blocked FROM Blocked WHERE user > :user OR (user = :user AND blocked > :blocked)
                 ORDER BY user, blocked LIMIT :limit",
                params! {"user" => after.0.0, "blocked" => after.1.0, limit},
            )?;
            collect(rows, |row| Ok((UserId(column(row, "user")?), UserId(column(row, "blocked")?))))
        })
    }

    fn own(&self, user: UserId) -> Result<Option<OwnAccount>, StoreError> {
        self.base.calls.call(|db, _| accounts::own(db, user))
    }

    fn change_own(
        &self,
        user: UserId,
        name: Option<&str>,
        receipts: Option<bool>,
    ) -> Result<Option<OwnAccount>, StoreError> {
        let changed = self.base.calls.call(|db, _| accounts::change_own(db, user, name, receipts))?;
        changed.ok_or(StoreError::NameTaken)
    }

    fn hiding_marks(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let mut hiding = Vec::new();
        for users in users.chunks(LIST_MAX) {
            let query = format!("SELECT id FROM User WHERE id IN ({}) AND receipts = 0", list(users));
            let found: Vec<i32> = self.base.calls.call(|db, _| db.query(&query))?;
            hiding.extend(found.into_iter().map(UserId));
        }
        Ok(hiding)
    }

    fn change_password(&self, change: &PasswordChange) -> Result<Swapped<Vec<DeviceId>>, StoreError> {
        let mut forgotten = Vec::new();
        self.base.calls.call(|db, _| accounts::change_password(db, change, &mut forgotten))
    }

    fn delete_account(&self, request: &AccountDeletion<'_>) -> Result<Swapped<Deletion>, StoreError> {
        let mut planned = None;
        self.base.calls.call(|db, _| accounts::delete(db, &self.base, request, &mut planned))
    }
}
