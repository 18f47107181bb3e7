//! Conversations of level 2. `commit.rs` stores messages, `reading.rs` reads them and the marks,
//! and `together.rs` does all reads of a login at once. `marks.rs` raises marks. `devices.rs`
//! handles devices, `mailbox.rs` the rows of `OfflineMessage`, and `retention.rs` the deletion of
//! old messages.

pub(super) mod commit;
pub(super) mod devices;
mod mailbox;
mod marks;
pub(super) mod moments;
mod reading;
mod retention;
mod together;

use rusqlite::{Connection, OptionalExtension, params};

use self::moments::{in_one_moment, now};
use super::SqliteStore;
use super::rows::limit;
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::{
    Cid, CommitOutcome, CommitRules, Denied, Device, DeviceId, EntryRefusal, FrameHash, Head, History, HistoryEntry,
    HistoryReads, HistoryRetention, LoggedIn, Marked, NewDeviceLogin, NewEntry, RaisedMark, RetentionClaim,
    RetentionStep, SharedKey, Touched, WaitingRows,
};
use crate::store::{KeptMessage, MessageId, StoreError};

impl HistoryReads for SqliteStore {
    fn heads(&self, user: UserId) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::new();
        self.read_together(&mut |reads| reads.heads(user).map(|found| heads = found))?;
        Ok(heads)
    }

    fn heads_of(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Result<Head, Denied>>, StoreError> {
        self.live.read(|db| in_one_moment(db, |db| convs.iter().map(|conv| reading::head(db, user, *conv)).collect()))
    }

    fn tags(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Tag>>, StoreError> {
        self.live.read(|db| reading::tags(db, places))
    }

    fn messages_at(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<HistoryEntry>>, StoreError> {
        self.live.read(|db| reading::messages_at(db, places))
    }

    fn cursors(&self, device: DeviceId) -> Result<Vec<(ConversationId, i64)>, StoreError> {
        self.live.read(|db| marks::cursors(db, device))
    }

    fn logins(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        self.live.read(|db| devices::logins(db, devices))
    }
}

impl History for SqliteStore {
    fn commit(&self, batch: &[NewEntry], rules: CommitRules) -> Result<Vec<CommitOutcome>, StoreError> {
        let entries = batch.to_vec();
        match self.live.write(move |db| commit::commit(db, &entries, rules)) {
            // One of the messages is the cause, and must not make the others fail.
            Err(StoreError::Failed(_)) if batch.len() > 1 => {
                let each = batch.iter().map(|entry| Ok(self.commit(std::slice::from_ref(entry), rules)?[0]));
                each.collect()
            }
            Err(StoreError::Failed(cause)) if !batch.is_empty() => {
                log::error!("a message of user {} cannot be stored: {cause}", batch[0].sender);
                Ok(vec![CommitOutcome::Refused(EntryRefusal::Unstorable)])
            }
            other => other,
        }
    }

    fn read_together(
        &self,
        read: &mut dyn FnMut(&dyn HistoryReads) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        together::read(&self.live, read)
    }

    fn run(
        &self,
        conv: ConversationId,
        from: i64,
        to: i64,
        from_end: bool,
        bytes_max: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.live.read(|db| reading::run(db, conv, from, to, from_end, bytes_max))
    }

    fn mark_read(&self, user: UserId, conv: ConversationId, read: i64) -> Result<Result<Marked, Denied>, StoreError> {
        // Most requests find the mark in place, or are not allowed. They change nothing.
        let head = match self.live.read(|db| in_one_moment(db, |db| reading::head(db, user, conv)))? {
            Ok(head) if head.read < read.min(head.head) => {
                return self.live.change(move |db| marks::read(db, user, conv, read));
            }
            Ok(head) => head,
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(Ok(Marked { read: head.read, recv: head.recv, has_risen: false, head: head.head, unread: head.unread }))
    }

    fn report(
        &self,
        user: UserId,
        device: DeviceId,
        stored: &[(ConversationId, i64)],
    ) -> Result<Vec<RaisedMark>, StoreError> {
        let stored = stored.to_vec();
        self.live.change(move |db| marks::report(db, user, device, &stored))
    }

    fn log_in(&self, login: &NewDeviceLogin) -> Result<Option<LoggedIn>, StoreError> {
        let login = login.clone();
        self.live.change_apart(move |db| devices::log_in(db, &login))
    }

    fn device(&self, device: DeviceId) -> Result<Option<Device>, StoreError> {
        self.live.read(|db| devices::device(db, device))
    }

    fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError> {
        self.live.read(|db| devices::of(db, user))
    }

    fn seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        let devices = devices.to_vec();
        self.live.change_apart(move |db| {
            let mut update = db.prepare_cached("UPDATE Device SET seen = max(seen, ?2) WHERE id = ?1")?;
            let now = now();
            devices.iter().try_for_each(|device| update.execute(params![device.0, now]).map(drop))
        })
    }

    fn forget(&self, user: UserId, devices: &[DeviceId]) -> Result<usize, StoreError> {
        let devices = devices.to_vec();
        self.live.change(move |db| devices.iter().map(|device| devices::forget(db, user, *device)).sum())
    }

    fn touched(&self, window: i64, after: Option<Touched>, max: usize) -> Result<Vec<Touched>, StoreError> {
        let (at, id) = after.map_or((0, 0), |after| (after.at, after.conv.column()));
        self.live.read(|db| {
            db.prepare_cached(
                "SELECT id, head, head_tag, touched FROM Conversation WHERE touched > ?1 AND (touched, id) > (?2, ?3)
                 ORDER BY touched, id LIMIT ?4",
            )?
            .query_map(params![now() - window, at, id, limit(max)], |row| {
                let conv = ConversationId::from_column(row.get(0)?);
                Ok(Touched { conv, head: row.get(1)?, tag: Tag(row.get::<_, i64>(2)? as u32), at: row.get(3)? })
            })?
            .collect()
        })
    }

    fn raised(&self, window: i64, max: usize) -> Result<Vec<RaisedMark>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached("SELECT conv, user, read, recv FROM Member WHERE marked > ?1 LIMIT ?2")?
                .query_map(params![now() - window, limit(max)], |row| {
                    let conv = ConversationId::from_column(row.get(0)?);
                    Ok(RaisedMark { conv, user: UserId(row.get(1)?), read: row.get(2)?, recv: row.get(3)? })
                })?
                .collect()
        })
    }

    fn use_level2(&self, user: UserId) -> Result<bool, StoreError> {
        self.live.change_apart(move |db| {
            db.prepare_cached("UPDATE User SET level2 = ?2, level1_seen = ?2 WHERE id = ?1 AND level2 = 0")?
                .execute(params![user.0, now()])
                .map(|changed| changed > 0)
        })
    }

    fn level2_users_after(&self, user: UserId, max: usize) -> Result<Vec<UserId>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached("SELECT id FROM User WHERE id > ?1 AND level2 > 0 ORDER BY id LIMIT ?2")?
                .query_map(params![user.0, limit(max)], |row| Ok(UserId(row.get(0)?)))?
                .collect()
        })
    }

    fn unmarked(
        &self,
        user: UserId,
        after: MessageId,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<KeptMessage>, StoreError> {
        self.live.settle()?;
        self.live.read(|db| mailbox::unmarked(db, user, after, rows_max, bytes_max))
    }

    fn waiting(&self, user: UserId, window: i64, rows_max: usize, bytes_max: usize) -> Result<WaitingRows, StoreError> {
        self.live.settle()?;
        self.live.read(|db| {
            in_one_moment(db, |db| {
                let unmarked = mailbox::unmarked(db, user, MessageId(i64::MIN), rows_max, bytes_max)?;
                let is_empty = unmarked.is_empty() && !mailbox::has_marked(db, user)?;
                Ok(WaitingRows { is_empty, uses_level1: uses_level1(db, user, window)?, unmarked })
            })
        })
    }

    fn waits(&self, user: UserId, text: &str) -> Result<bool, StoreError> {
        self.live.settle()?;
        self.live.read(|db| {
            db.prepare_cached("SELECT 1 FROM OfflineMessage WHERE userid = ?1 AND message = ?2")?
                .exists(params![user.0, text])
        })
    }

    fn mark_rows(&self, user: UserId, rows: &[(MessageId, ConversationId, i64)]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        self.live.change(move |db| mailbox::mark(db, user, &rows))
    }

    fn delete_marked(&self, user: UserId) -> Result<(), StoreError> {
        self.live.change(move |db| mailbox::delete_marked(db, user))
    }

    fn place_of(&self, sender: UserId, cid: &Cid) -> Result<Option<(ConversationId, i64, FrameHash)>, StoreError> {
        self.live.read(|db| {
            db.prepare_cached("SELECT conv, seq, hash FROM Message WHERE sender = ?1 AND cid = ?2")?
                .query_row(params![sender.0, cid.bytes()], |row| {
                    let hash = FrameHash::stored(row.get_ref(2)?.as_blob()?);
                    Ok((ConversationId::from_column(row.get(0)?), row.get(1)?, hash))
                })
                .optional()
        })
    }

    fn seen_at_level1(&self, user: UserId) -> Result<(), StoreError> {
        self.live.change(move |db| {
            db.prepare_cached("UPDATE User SET level1_seen = max(level1_seen, ?2) WHERE id = ?1")?
                .execute(params![user.0, now()])
                .map(drop)
        })
    }

    fn uses_level1(&self, user: UserId, window: i64) -> Result<bool, StoreError> {
        self.live.read(|db| uses_level1(db, user, window))
    }

    fn shared_key(&self, key: SharedKey, new: [u8; 32]) -> Result<[u8; 32], StoreError> {
        // Usually it is there, and this answer needs no turn of the writer.
        if let Some(stored) = self.stored_key(key)? {
            return Ok(stored);
        }
        self.live.change(move |db| {
            let insert = "INSERT INTO Meta (id, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            db.execute(insert, params![key.row(), &new[..]])?;
            db.query_row("SELECT value FROM Meta WHERE id = ?1", [key.row()], |row| row.get(0))
        })
    }

    fn stored_key(&self, key: SharedKey) -> Result<Option<[u8; 32]>, StoreError> {
        let select = "SELECT value FROM Meta WHERE id = ?1";
        self.live.read(|db| db.query_row(select, [key.row()], |row| row.get(0)).optional())
    }

    fn claim_retention(&self, claim: &RetentionClaim) -> Result<bool, StoreError> {
        let granted = self.live.read(|db| retention::claimed(db, claim))?;
        if let Some(turn) = granted {
            self.live.change(move |db| retention::write_turn(db, &turn))?;
        }
        Ok(granted.is_some())
    }

    fn end_retention(&self, claim: &RetentionClaim) -> Result<(), StoreError> {
        let claim = claim.clone();
        self.live.change(move |db| retention::end(db, &claim))
    }

    fn retire(&self, retention: &HistoryRetention, after: ConversationId) -> Result<RetentionStep, StoreError> {
        retention::step(&self.live, retention, after)
    }
}

fn uses_level1(db: &Connection, user: UserId, window: i64) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM User WHERE id = ?1 AND level1_seen > ?2")?.exists(params![user.0, now() - window])
}
