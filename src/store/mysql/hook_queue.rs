//! The queue of the hook. The nodes of a cluster take turns: one of them posts, and holds a lease.

use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Transaction};
use rustc_hash::FxHashSet;

use super::MysqlStore;
use super::calls::Repeat;
use super::conversations::moments::{NOW, now};
use super::conversations::script::{LIST_MAX, list};
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::plan::partner_of;
use crate::store::hooks::{HOOK_TURN_ROW, HookQueue, HookRecipients, HookRow, HookTurn, HooksWaiting};

impl HookQueue for MysqlStore {
    fn claim(&self, owner: u64, lease: Duration) -> Result<Option<i64>, StoreError> {
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        // Usually a read without a lock is enough.
        let (may_post, written, now) = self.base.calls.call(|db, _| {
            let query = format!("SELECT {NOW}, (SELECT value FROM Meta WHERE id = {HOOK_TURN_ROW})");
            let (now, found): (i64, Option<Vec<u8>>) = db.query_first(query)?.unwrap_or_default();
            let (may_post, written) = stored(found).claimed(owner, lease, now);
            Ok((may_post, written.is_some(), now))
        })?;
        if !may_post || !written {
            return Ok(may_post.then_some(now));
        }
        self.base.calls.transaction(Repeat::Freely, |db| claim(db, owner, lease))
    }

    fn release(&self, owner: u64) -> Result<(), StoreError> {
        self.base.calls.transaction(Repeat::Freely, |db| match locked_turn(db)?.released(owner) {
            Some(turn) => write_turn(db, &turn),
            None => Ok(()),
        })
    }

    fn oldest(&self, max: usize) -> Result<Vec<HookRow>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM HookQueue ORDER BY id LIMIT ?");
        let rows: Vec<Columns> = self.base.calls.call(|db, _| db.exec(&statement, (max,)))?;
        Ok(rows.into_iter().map(hook_row).collect())
    }

    fn senders_after(&self, after: UserId, max: usize) -> Result<Vec<UserId>, StoreError> {
        // The index skips from one sender to the next.
        let statement = "SELECT sender FROM HookQueue WHERE sender > ? GROUP BY sender ORDER BY sender LIMIT ?";
        let rows: Vec<i32> = self.base.calls.call(|db, _| db.exec(statement, (after.0, max)))?;
        Ok(rows.into_iter().map(UserId).collect())
    }

    fn oldest_of(&self, senders: &[UserId], each: usize) -> Result<Vec<HookRow>, StoreError> {
        if senders.is_empty() {
            return Ok(Vec::new());
        }
        let one = |sender: &UserId| {
            format!("(SELECT {COLUMNS} FROM HookQueue WHERE sender = {} ORDER BY id LIMIT {each})", sender.0)
        };
        let statement = senders.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
        let rows: Vec<Columns> = self.base.calls.call(|db, _| db.query(&statement))?;
        Ok(rows.into_iter().map(hook_row).collect())
    }

    fn recipients(&self, rows: &[HookRow], max: usize) -> Result<Vec<HookRecipients>, StoreError> {
        self.base.calls.call(|db, _| {
            let waiting = partners_without(db, rows)?;
            let of = |row: &HookRow| match row.conv.group() {
                Some(_) => members_without(db, row, max),
                None => {
                    let partner = partner(row).filter(|partner| waiting.contains(&(row.id, *partner)));
                    Ok(HookRecipients { users: partner.into_iter().collect(), has_more: false })
                }
            };
            rows.iter().map(of).collect()
        })
    }

    fn settle(&self, done: &[i64], reached: &[(i64, UserId)]) -> Result<(), StoreError> {
        self.base.calls.transaction(Repeat::Freely, |db| {
            for ids in done.chunks(LIST_MAX) {
                db.query_drop(format!("DELETE FROM HookQueue WHERE id IN ({})", list(ids)))?;
            }
            for (id, member) in reached {
                db.exec_drop("UPDATE HookQueue SET member = ? WHERE id = ? AND member < ?", (member.0, id, member.0))?;
            }
            Ok(())
        })
    }

    fn waiting(&self) -> Result<HooksWaiting, StoreError> {
        let query = "SELECT (SELECT COUNT(*) FROM HookQueue), (SELECT time FROM HookQueue ORDER BY id LIMIT 1)";
        let found: Option<(u64, Option<i64>)> = self.base.calls.call(|db, _| db.query_first(query))?;
        let (rows, oldest) = found.unwrap_or_default();
        Ok(HooksWaiting { rows, oldest })
    }

    fn largest(&self, max: usize) -> Result<Vec<(UserId, u64)>, StoreError> {
        let statement =
            "SELECT sender, COUNT(*) AS number FROM HookQueue GROUP BY sender ORDER BY number DESC, sender LIMIT ?";
        let rows: Vec<(i32, u64)> = self.base.calls.call(|db, _| db.exec(statement, (max,)))?;
        Ok(rows.into_iter().map(|(sender, rows)| (UserId(sender), rows)).collect())
    }

    fn drop_oldest(&self, sender: Option<UserId>, max: u64) -> Result<u64, StoreError> {
        let of_sender = sender.map_or_else(String::new, |sender| format!("WHERE sender = {}", sender.0));
        self.base.calls.transaction(Repeat::Freely, |db| {
            db.query_drop(format!("DELETE FROM HookQueue {of_sender} ORDER BY id LIMIT {max}"))?;
            Ok(db.affected_rows())
        })
    }
}

fn claim(db: &mut Transaction<'_>, owner: u64, lease: i64) -> mysql::Result<Option<i64>> {
    // Without this row, nodes would not wait for each other.
    let first = HookTurn::default().bytes();
    let insert = "INSERT INTO Meta (id, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE id = id";
    db.exec_drop(insert, (HOOK_TURN_ROW, &first[..]))?;
    let turn = locked_turn(db)?;
    let now = now(db)?;
    let (may_post, written) = turn.claimed(owner, lease, now);
    if let Some(turn) = written {
        write_turn(db, &turn)?;
    }
    Ok(may_post.then_some(now))
}

fn locked_turn(db: &mut Transaction<'_>) -> mysql::Result<HookTurn> {
    Ok(stored(db.exec_first("SELECT value FROM Meta WHERE id = ? FOR UPDATE", (HOOK_TURN_ROW,))?))
}

fn stored(found: Option<Vec<u8>>) -> HookTurn {
    found.map_or_else(HookTurn::default, |found| HookTurn::stored(&found))
}

fn write_turn(db: &mut Transaction<'_>, turn: &HookTurn) -> mysql::Result<()> {
    db.exec_drop("UPDATE Meta SET value = ? WHERE id = ?", (&turn.bytes()[..], HOOK_TURN_ROW))
}

fn partner(row: &HookRow) -> Option<UserId> {
    partner_of(row.conv, row.sender).filter(|partner| *partner != row.sender)
}

/// The rows between two users, each with its recipient, that the recipient has not received.
fn partners_without(db: &mut Conn, rows: &[HookRow]) -> mysql::Result<FxHashSet<(i64, UserId)>> {
    let pairs: Vec<&HookRow> = rows.iter().filter(|row| row.conv.group().is_none()).collect();
    let mut found = FxHashSet::default();
    for pairs in pairs.chunks(LIST_MAX) {
        let ids = list(pairs.iter().map(|row| row.id));
        let users: FxHashSet<i32> = pairs.iter().filter_map(|row| partner(row)).map(|user| user.0).collect();
        if users.is_empty() {
            continue;
        }
        let users = list(users);
        let rows: Vec<(i64, i32)> = db.query(format!(
            "SELECT HookQueue.id, Member.user FROM HookQueue JOIN Member ON Member.conv = HookQueue.conv
             JOIN User ON User.id = Member.user
             WHERE HookQueue.id IN ({ids}) AND Member.user <> HookQueue.sender AND User.id IN ({users})
                 AND User.level2 > 0 AND Member.recv < HookQueue.seq"
        ))?;
        found.extend(rows.into_iter().map(|(id, user)| (id, UserId(user))));
    }
    Ok(found)
}

fn members_without(db: &mut Conn, row: &HookRow, max: usize) -> mysql::Result<HookRecipients> {
    let (group, seq) = (row.conv.column(), row.seq);
    let users: Vec<i32> = db.exec(
        "SELECT GroupUser.userid FROM GroupUser JOIN User ON User.id = GroupUser.userid
         LEFT JOIN Member ON Member.conv = GroupUser.groupid AND Member.user = GroupUser.userid
         WHERE GroupUser.groupid = ? AND GroupUser.userid > ? AND GroupUser.userid <> ? AND User.level2 > 0
             AND COALESCE(Member.recv, 0) < ? AND COALESCE(Member.joined, 0) <= ?
         ORDER BY GroupUser.userid LIMIT ?",
        (group, row.member.0, row.sender.0, seq, seq, max),
    )?;
    Ok(HookRecipients { has_more: users.len() == max, users: users.into_iter().map(UserId).collect() })
}

fn hook_row((id, sender, conv, seq, time, member): Columns) -> HookRow {
    let (sender, conv, member) = (UserId(sender), ConversationId::from_column(conv), UserId(member));
    HookRow { id, sender, conv, seq, time, member }
}

type Columns = (i64, i32, i64, i64, i64, i32);
const COLUMNS: &str = "id, sender, conv, seq, time, member";
