//! Conversations of level 2. `commit.rs` stores messages: it reads `facts.rs` under locks, and
//! `writing.rs` writes the plan. `reading.rs` reads the heads of conversations and `runs.rs` their
//! messages. `marks.rs` raises marks, `devices.rs` handles devices and `mailbox.rs` the rows of
//! `OfflineMessage`, and `retention.rs` deletes. `script.rs` sends several statements at once.
//!
//! Every operation may be repeated after a deadlock or a lost connection. Where the repeat would
//! give another answer than the first attempt, the first answer is remembered.

mod commit;
pub(super) mod devices;
pub(super) mod facts;
mod mailbox;
mod marks;
pub(super) mod moments;
mod reading;
mod retention;
mod runs;
pub(super) mod script;
pub(super) mod writing;

use std::slice;

use mysql::prelude::Queryable;
use mysql::{from_row_opt, params};
use rustc_hash::FxHashMap;

use self::moments::{NOW, in_one_moment};
use self::script::list;
use super::MysqlStore;
use super::base::Base;
use super::calls::Repeat;
use super::shapes::RUN_BYTES_MAX;
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::store::history::head::HeadRow;
use crate::store::history::{
    Cid, CommitOutcome, CommitRules, Denied, Device, DeviceId, EntryRefusal, FrameHash, Head, History, HistoryEntry,
    HistoryReads, HistoryRetention, LoggedIn, Marked, NewDeviceLogin, NewEntry, RaisedMark, RetentionClaim,
    RetentionStep, SharedKey, Touched, WaitingRows,
};
use crate::store::{KeptMessage, MessageId, StoreError};

impl HistoryReads for MysqlStore {
    fn heads(&self, user: UserId) -> Result<Vec<Head>, StoreError> {
        let calls = &self.base.calls;
        let mut all = calls.call(|db, _| reading::all(db, user))?;
        if !all.unknown.is_empty() {
            calls.call(|db, _| marks::adopt(db, user, &all.unknown))?;
            all = calls.call(|db, _| reading::all(db, user))?;
        }
        if !all.has_recalled() {
            return Ok(all.into_heads(&[]));
        }
        calls.call(|db, _| {
            in_one_moment(db, |db| {
                let all = reading::all(db, user)?;
                let recalled = all.recalled(db)?;
                Ok(all.into_heads(&recalled))
            })
        })
    }

    fn heads_of(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Result<Head, Denied>>, StoreError> {
        let (calls, bytes_max) = (&self.base.calls, self.base.script_bytes());
        let into_heads = |rows: Vec<Result<HeadRow, Denied>>, recalled: &[_]| {
            let head = |row: Result<HeadRow, Denied>| row.map(|row| row.into_head(recalled));
            rows.into_iter().map(head).collect()
        };
        // One conversation needs only one statement, which sees one moment.
        if let [_] = convs {
            let rows = calls.call(|db, _| reading::some(db, user, convs, bytes_max))?;
            if rows.iter().flatten().all(|row| row.block().is_none()) {
                return Ok(into_heads(rows, &[]));
            }
        }
        calls.call(|db, _| {
            in_one_moment(db, |db| {
                let rows = reading::some(db, user, convs, bytes_max)?;
                let known: Vec<HeadRow> = rows.iter().flatten().cloned().collect();
                let recalled = reading::recalled(db, &known)?;
                Ok(into_heads(rows, &recalled))
            })
        })
    }

    fn tags(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Tag>>, StoreError> {
        self.base.calls.call(|db, _| runs::tags(db, places, self.base.script_bytes()))
    }

    fn messages_at(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<HistoryEntry>>, StoreError> {
        self.base.calls.call(|db, _| runs::messages_at(db, places, self.base.script_bytes()))
    }

    fn cursors(&self, device: DeviceId) -> Result<Vec<(ConversationId, i64)>, StoreError> {
        self.base.calls.call(|db, _| marks::cursors(db, device))
    }

    fn logins(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        let mut found = Vec::new();
        for devices in devices.chunks(script::LIST_MAX) {
            let ids = list(devices.iter().map(|device| device.0));
            let rows: Vec<(i64, i64)> =
                self.base.calls.call(|db, _| db.query(format!("SELECT id, login FROM Device WHERE id IN ({ids})")))?;
            found.extend(rows.into_iter().map(|(id, login)| (DeviceId(id), login)));
        }
        Ok(found)
    }
}

impl History for MysqlStore {
    fn commit(&self, batch: &[NewEntry], rules: CommitRules) -> Result<Vec<CommitOutcome>, StoreError> {
        match commit::commit(&self.base, batch, rules) {
            // One of the messages is the cause, and must not make the others fail.
            Err(StoreError::Failed(_)) if batch.len() > 1 => {
                let each = batch.iter().map(|entry| Ok(self.commit(slice::from_ref(entry), rules)?[0]));
                each.collect()
            }
            Err(StoreError::Failed(cause)) if !batch.is_empty() => {
                let Base { name, .. } = &*self.base;
                log::error!("{name}: a message of user {} cannot be stored: {cause}", batch[0].sender);
                Ok(vec![CommitOutcome::Refused(EntryRefusal::Unstorable)])
            }
            other => other,
        }
    }

    fn read_together(
        &self,
        read: &mut dyn FnMut(&dyn HistoryReads) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        read(self)
    }

    fn run(
        &self,
        conv: ConversationId,
        from: i64,
        to: i64,
        from_end: bool,
        bytes_max: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        self.base.calls.call(|db, _| runs::run(db, conv, from, to, from_end, bytes_max))
    }

    fn mark_read(&self, user: UserId, conv: ConversationId, read: i64) -> Result<Result<Marked, Denied>, StoreError> {
        // Most requests find the mark in place, or are not allowed. They change nothing.
        let head = match self.heads_of(user, &[conv])?.pop().unwrap_or(Err(Denied::Unknown)) {
            Ok(head) if head.read < read.min(head.head) => {
                let mut has_risen = false;
                return self.base.calls.transaction(Repeat::Freely, |db| {
                    marks::read(db, user, conv, read, &mut has_risen, self.base.script_bytes())
                });
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
        let mut raised = FxHashMap::default();
        self.base.calls.transaction(Repeat::Freely, |db| marks::report(db, user, device, stored, &mut raised))?;
        Ok(raised.into_values().collect())
    }

    fn log_in(&self, login: &NewDeviceLogin) -> Result<Option<LoggedIn>, StoreError> {
        let mut planned = None;
        self.base.calls.transaction(Repeat::Freely, |db| devices::log_in(db, login, &mut planned))
    }

    fn device(&self, device: DeviceId) -> Result<Option<Device>, StoreError> {
        self.base.calls.call(|db, _| devices::device(db, device))
    }

    fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError> {
        self.base.calls.call(|db, _| devices::of(db, user))
    }

    fn seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        for devices in devices.chunks(script::LIST_MAX) {
            let ids = list(devices.iter().map(|device| device.0));
            let update = format!("UPDATE Device SET seen = GREATEST(seen, {NOW}) WHERE id IN ({ids})");
            self.base.calls.call(|db, _| db.query_drop(&update))?;
        }
        Ok(())
    }

    fn forget(&self, user: UserId, devices: &[DeviceId]) -> Result<usize, StoreError> {
        let mut gone = 0;
        self.base.calls.transaction(Repeat::Freely, |db| {
            // An attempt whose answer was lost may have deleted the rows.
            gone = gone.max(devices::forget(db, user, devices)?);
            Ok(gone)
        })
    }

    fn touched(&self, window: i64, after: Option<Touched>, limit: usize) -> Result<Vec<Touched>, StoreError> {
        let (at, id) = after.map_or((0, 0), |after| (after.at, after.conv.column()));
        let statement = format!(
            "SELECT id, head, head_tag, touched FROM Conversation
             WHERE touched > {NOW} - :window AND touched >= :at AND (touched > :at OR id > :id)
             ORDER BY touched, id LIMIT :limit"
        );
        let rows: Vec<(i64, i64, i64, i64)> =
            self.base.calls.call(|db, _| db.exec(&statement, params! {window, at, id, limit}))?;
        let touched = |(id, head, tag, at): (i64, i64, i64, i64)| Touched {
            conv: ConversationId::from_column(id),
            head,
            tag: Tag(tag as u32),
            at,
        };
        Ok(rows.into_iter().map(touched).collect())
    }

    fn raised(&self, window: i64, limit: usize) -> Result<Vec<RaisedMark>, StoreError> {
        let statement =
            format!("SELECT conv, user, `read`, recv FROM Member WHERE marked > {NOW} - :window LIMIT :limit");
        self.base.calls.call(|db, _| {
            let rows = db.exec_iter(&statement, params! {window, limit})?;
            rows.map(|row| {
                let (conv, user, read, recv) = from_row_opt(row?)?;
                Ok(RaisedMark { conv: ConversationId::from_column(conv), user: UserId(user), read, recv })
            })
            .collect()
        })
    }

    fn use_level2(&self, user: UserId) -> Result<bool, StoreError> {
        let update = format!("UPDATE User SET level2 = {NOW}, level1_seen = {NOW} WHERE id = ? AND level2 = 0");
        self.base.calls.call(|db, _| {
            db.exec_drop(&update, (user.0,))?;
            Ok(db.affected_rows() > 0)
        })
    }

    fn level2_users_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        let statement = "SELECT id FROM User WHERE id > ? AND level2 > 0 ORDER BY id LIMIT ?";
        let ids: Vec<i32> = self.base.calls.call(|db, _| db.exec(statement, (user.0, limit)))?;
        Ok(ids.into_iter().map(UserId).collect())
    }

    fn unmarked(
        &self,
        user: UserId,
        after: MessageId,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<KeptMessage>, StoreError> {
        let Base { calls, limits, .. } = &*self.base;
        calls.call(|db, _| mailbox::unmarked(db, user, after, rows_max, bytes_max, limits.text_bytes()))
    }

    fn waiting(&self, user: UserId, window: i64, rows_max: usize, bytes_max: usize) -> Result<WaitingRows, StoreError> {
        let Base { calls, limits, .. } = &*self.base;
        calls.call(|db, _| mailbox::waiting(db, user, window, (rows_max, bytes_max, limits.text_bytes())))
    }

    fn waits(&self, user: UserId, text: &str) -> Result<bool, StoreError> {
        let statement = "SELECT 1 FROM OfflineMessage WHERE userid = ? AND message = ? LIMIT 1";
        let found: Option<i64> = self.base.calls.call(|db, _| db.exec_first(statement, (user.0, text)))?;
        Ok(found.is_some())
    }

    fn mark_rows(&self, user: UserId, rows: &[(MessageId, ConversationId, i64)]) -> Result<(), StoreError> {
        self.base.calls.transaction(Repeat::Freely, |db| mailbox::mark(db, user, rows, self.base.script_bytes()))
    }

    fn delete_marked(&self, user: UserId) -> Result<(), StoreError> {
        let statement = "DELETE FROM OfflineMessage WHERE userid = ? AND seq > 0";
        self.base.calls.call(|db, _| db.exec_drop(statement, (user.0,)))
    }

    fn place_of(&self, sender: UserId, cid: &Cid) -> Result<Option<(ConversationId, i64, FrameHash)>, StoreError> {
        let statement = "SELECT conv, seq, hash FROM Message WHERE sender = ? AND cid = ?";
        let found: Option<(i64, i64, Vec<u8>)> =
            self.base.calls.call(|db, _| db.exec_first(statement, (sender.0, cid.bytes())))?;
        Ok(found.map(|(conv, seq, hash)| (ConversationId::from_column(conv), seq, FrameHash::stored(&hash))))
    }

    fn seen_at_level1(&self, user: UserId) -> Result<(), StoreError> {
        let update = format!("UPDATE User SET level1_seen = GREATEST(level1_seen, {NOW}) WHERE id = ?");
        self.base.calls.call(|db, _| db.exec_drop(&update, (user.0,)))
    }

    fn uses_level1(&self, user: UserId, window: i64) -> Result<bool, StoreError> {
        let statement = format!("SELECT 1 FROM User WHERE id = ? AND level1_seen > {NOW} - ?");
        let found: Option<i64> = self.base.calls.call(|db, _| db.exec_first(&statement, (user.0, window)))?;
        Ok(found.is_some())
    }

    fn level1_users(&self, users: &[UserId], window: i64) -> Result<Vec<UserId>, StoreError> {
        let mut found = Vec::new();
        for users in users.chunks(script::LIST_MAX) {
            let ids = list(users);
            let statement = format!("SELECT id FROM User WHERE id IN ({ids}) AND level1_seen > {NOW} - {window}");
            let rows: Vec<i32> = self.base.calls.call(|db, _| db.query(&statement))?;
            found.extend(rows.into_iter().map(UserId));
        }
        Ok(found)
    }

    fn shared_key(&self, key: SharedKey, new: [u8; 32]) -> Result<[u8; 32], StoreError> {
        // Usually it is there, and this answer needs no lock.
        if let Some(stored) = self.stored_key(key)? {
            return Ok(stored);
        }
        self.base.calls.call(|db, _| {
            let insert = "INSERT INTO Meta (id, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE id = id";
            db.exec_drop(insert, (key.row(), &new[..]))
        })?;
        self.stored_key(key)?.ok_or_else(|| StoreError::Failed("the table Meta has lost a key again".into()))
    }

    fn stored_key(&self, key: SharedKey) -> Result<Option<[u8; 32]>, StoreError> {
        let row = key.row();
        let select = "SELECT value FROM Meta WHERE id = ?";
        let stored: Option<Vec<u8>> = self.base.calls.call(|db, _| db.exec_first(select, (row,)))?;
        let malformed = || StoreError::Failed(format!("the key in the table Meta (row {row}) has not 32 bytes").into());
        stored.map(|stored| <[u8; 32]>::try_from(stored).map_err(|_| malformed())).transpose()
    }

    fn claim_retention(&self, claim: &RetentionClaim) -> Result<bool, StoreError> {
        // Usually it is not due, and this answer needs no lock.
        if !self.base.calls.call(|db, _| retention::may_claim(db, claim))? {
            return Ok(false);
        }
        self.base.calls.transaction(Repeat::Freely, |db| retention::claim(db, claim))
    }

    fn end_retention(&self, claim: &RetentionClaim) -> Result<(), StoreError> {
        self.base.calls.transaction(Repeat::Freely, |db| retention::end(db, claim))
    }

    fn retire(&self, retention: &HistoryRetention, after: ConversationId) -> Result<RetentionStep, StoreError> {
        retention::step(&self.base.calls, retention, after)
    }
}

impl Base {
    /// The most bytes of statements that are sent at once.
    pub(super) fn script_bytes(&self) -> usize {
        self.limits.text_bytes().min(RUN_BYTES_MAX)
    }
}
