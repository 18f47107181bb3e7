//! The queue of the hook. The file belongs to one process, so that process posts.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::conversations::moments::now;
use super::rows::limit;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::plan::partner_of;
use crate::store::hooks::{HookQueue, HookRecipients, HookRow, HooksWaiting};

impl HookQueue for SqliteStore {
    fn claim(&self, _owner: u64, _lease: Duration) -> Result<Option<i64>, StoreError> {
        Ok(Some(now()))
    }

    fn release(&self, _owner: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn oldest(&self, max: usize) -> Result<Vec<HookRow>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached("SELECT id, sender, conv, seq, time, member FROM HookQueue ORDER BY id LIMIT ?1")?
                .query_map([limit(max)], hook_row)?
                .collect()
        })
    }

    fn senders_after(&self, after: UserId, max: usize) -> Result<Vec<UserId>, StoreError> {
        self.live.read(|db| {
            let mut next = db.prepare_cached("SELECT min(sender) FROM HookQueue WHERE sender > ?1")?;
            let (mut senders, mut after) = (Vec::new(), after);
            while senders.len() < max {
                let Some(sender) = next.query_row([after.0], |row| row.get::<_, Option<i32>>(0))? else { break };
                after = UserId(sender);
                senders.push(after);
            }
            Ok(senders)
        })
    }

    fn oldest_of(&self, senders: &[UserId], each: usize) -> Result<Vec<HookRow>, StoreError> {
        self.live.read(|db| {
            let mut query = db.prepare_cached(
                "SELECT id, sender, conv, seq, time, member FROM HookQueue WHERE sender = ?1 ORDER BY id LIMIT ?2",
            )?;
            let mut rows = Vec::new();
            for sender in senders {
                for row in query.query_map([i64::from(sender.0), limit(each)], hook_row)? {
                    rows.push(row?);
                }
            }
            Ok(rows)
        })
    }

    fn recipients(&self, rows: &[HookRow], max: usize) -> Result<Vec<HookRecipients>, StoreError> {
        self.live.read(|db| rows.iter().map(|row| recipients(db, row, max)).collect())
    }

    fn settle(&self, done: &[i64], reached: &[(i64, UserId)]) -> Result<(), StoreError> {
        let (done, reached) = (done.to_vec(), reached.to_vec());
        self.live.change(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM HookQueue WHERE id = ?1")?;
            done.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
            let mut note = db.prepare_cached("UPDATE HookQueue SET member = ?2 WHERE id = ?1 AND member < ?2")?;
            reached.iter().try_for_each(|(id, member)| note.execute(params![id, member.0]).map(drop))
        })
    }

    fn waiting(&self) -> Result<HooksWaiting, StoreError> {
        self.live.read(|db| {
            let rows: i64 = db.prepare_cached("SELECT count(*) FROM HookQueue")?.query_row([], |row| row.get(0))?;
            let oldest = db
                .prepare_cached("SELECT time FROM HookQueue ORDER BY id LIMIT 1")?
                .query_row([], |row| row.get(0))
                .optional()?;
            Ok(HooksWaiting { rows: rows.unsigned_abs(), oldest })
        })
    }

    fn largest(&self, max: usize) -> Result<Vec<(UserId, u64)>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached("SELECT sender, count(*) FROM HookQueue GROUP BY sender ORDER BY 2 DESC, 1 LIMIT ?1")?
                .query_map([limit(max)], |row| Ok((UserId(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs())))?
                .collect()
        })
    }

    fn drop_oldest(&self, sender: Option<UserId>, max: u64) -> Result<u64, StoreError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.live.change(move |db| {
            let deleted = match sender {
                Some(sender) => db
                    .prepare_cached(
                        "DELETE FROM HookQueue
                         WHERE id IN (SELECT id FROM HookQueue WHERE sender = ?1 ORDER BY id LIMIT ?2)",
                    )?
                    .execute(params![sender.0, max])?,
                None => db
                    .prepare_cached(
                        "DELETE FROM HookQueue WHERE id IN (SELECT id FROM HookQueue ORDER BY id LIMIT ?1)",
                    )?
                    .execute([max])?,
            };
            Ok(deleted as u64)
        })
    }
}

fn recipients(db: &Connection, row: &HookRow, max: usize) -> rusqlite::Result<HookRecipients> {
    if row.conv.group().is_none() {
        let partner = partner_of(row.conv, row.sender).filter(|partner| *partner != row.sender);
        let Some(partner) = partner else { return Ok(HookRecipients::default()) };
        let is_due = db
            .prepare_cached(
                "SELECT 1 FROM User LEFT JOIN Member ON Member.conv = ?1 AND Member.user = User.id
                 WHERE User.id = ?2 AND User.level2 > 0 AND coalesce(Member.recv, 0) < ?3",
            )?
            .exists(params![row.conv.column(), partner.0, row.seq])?;
        return Ok(HookRecipients { users: is_due.then_some(partner).into_iter().collect(), has_more: false });
    }
    let users: Vec<UserId> = db
        .prepare_cached(
            "SELECT GroupUser.userid FROM GroupUser JOIN User ON User.id = GroupUser.userid
             LEFT JOIN Member ON Member.conv = ?1 AND Member.user = GroupUser.userid
             WHERE GroupUser.groupid = ?1 AND GroupUser.userid > ?2 AND GroupUser.userid <> ?3 AND User.level2 > 0
                 AND coalesce(Member.recv, 0) < ?4 AND coalesce(Member.joined, 0) <= ?4
             ORDER BY GroupUser.userid LIMIT ?5",
        )?
        .query_map(params![row.conv.column(), row.member.0, row.sender.0, row.seq, limit(max)], |row| {
            Ok(UserId(row.get(0)?))
        })?
        .collect::<Result<_, _>>()?;
    Ok(HookRecipients { has_more: users.len() == max, users })
}

fn hook_row(row: &Row<'_>) -> rusqlite::Result<HookRow> {
    Ok(HookRow {
        id: row.get(0)?,
        sender: UserId(row.get(1)?),
        conv: ConversationId::from_column(row.get(2)?),
        seq: row.get(3)?,
        time: row.get(4)?,
        member: UserId(row.get(5)?),
    })
}
