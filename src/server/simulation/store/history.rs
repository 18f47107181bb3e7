//! The roles that level 2 needs, on the same database.

use super::{MailRow, NodeStore, Tables};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::{GroupId, UserId};
use crate::store::community::{
    AccountDeletion, Befriended, BlockOutcome, Community, Deletion, FriendRequest, GroupAct, GroupChanged, GroupMember,
    GroupRefusal, NewGroup, OwnAccount, PasswordChange, Recorded, Swapped,
};
use crate::store::history::{
    Cid, CommitOutcome, CommitRules, Denied, Device, DeviceId, FrameHash, Head, History, HistoryEntry, HistoryReads,
    HistoryRetention, LoggedIn, Marked, NewDeviceLogin, NewEntry, PageAsk, PageOutcome, RaisedMark, RetentionClaim,
    RetentionStep, SharedKey, Touched, WaitingRows,
};
use crate::store::memory::not_here;
use crate::store::{KeptMessage, MessageId, StoreError};

impl NodeStore {
    fn of_history<T>(&self, work: impl FnOnce(&mut Tables, i64) -> T) -> Result<T, StoreError> {
        self.call(|tables| {
            let now = tables.now();
            work(tables, now)
        })
    }
}

impl HistoryReads for NodeStore {
    fn heads(&self, user: UserId) -> Result<Vec<Head>, StoreError> {
        self.of_history(|tables, _| match tables.early_heads.remove(&user) {
            Some(early) => early,
            None => tables.history.heads(&tables.people, user),
        })
    }

    fn heads_of(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Result<Head, Denied>>, StoreError> {
        self.of_history(|Tables { history, people, .. }, _| {
            convs.iter().map(|conv| history.head(people, user, *conv)).collect()
        })
    }

    fn tags(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Tag>>, StoreError> {
        self.of_history(|tables, _| {
            let tag = |(conv, seq): &(ConversationId, i64)| {
                let remembered = tables.remembered_tags.get(&(*conv, *seq)).copied();
                remembered.or_else(|| tables.history.tag(*conv, *seq))
            };
            places.iter().map(tag).collect()
        })
    }

    fn messages_at(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<HistoryEntry>>, StoreError> {
        self.of_history(|tables, _| places.iter().map(|(conv, seq)| tables.history.entry(*conv, *seq)).collect())
    }

    fn cursors(&self, device: DeviceId) -> Result<Vec<(ConversationId, i64)>, StoreError> {
        self.of_history(|tables, _| tables.history.devices.cursors(device))
    }

    fn logins(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        self.of_history(|tables, _| tables.history.devices.logins(devices))
    }
}

impl History for NodeStore {
    fn commit(&self, batch: &[NewEntry], rules: CommitRules) -> Result<Vec<CommitOutcome>, StoreError> {
        let done = self.of_history(|tables, now| {
            let Tables { history, people, .. } = tables;
            history.commit(people, batch, rules, now)
        });
        // The databases find the one that is to blame, and store the others.
        done.map_err(|error| match error {
            StoreError::Failed(cause) => StoreError::Unavailable(cause),
            other => other,
        })
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
        // Little text in one page, so that a run has several.
        self.of_history(|tables, _| tables.history.run(conv, from, to, from_end, bytes_max.min(PAGE_BYTES)))
    }

    fn page(
        &self,
        user: UserId,
        conv: ConversationId,
        ask: PageAsk,
        limit: i64,
        bytes_max: usize,
    ) -> Result<PageOutcome, StoreError> {
        self.of_history(|tables, _| tables.history.page(&tables.people, user, conv, ask, (limit, bytes_max)))?
    }

    fn mark_read(&self, user: UserId, conv: ConversationId, read: i64) -> Result<Result<Marked, Denied>, StoreError> {
        self.of_history(|Tables { history, people, .. }, now| history.mark_read(people, user, conv, read, now))
    }

    fn report(
        &self,
        user: UserId,
        device: DeviceId,
        stored: &[(ConversationId, i64)],
    ) -> Result<Vec<RaisedMark>, StoreError> {
        self.of_history(|tables, now| {
            let raised = tables.history.report(user, device, stored, now);
            for mark in &raised {
                let is_reported = |row: &MailRow| {
                    row.to == user && row.mark.is_some_and(|(conv, seq)| conv == mark.conv && seq <= mark.recv)
                };
                tables.messages.retain(|_, row| !is_reported(row));
            }
            raised
        })
    }

    fn log_in(&self, login: &NewDeviceLogin) -> Result<Option<LoggedIn>, StoreError> {
        self.of_history(|tables, now| {
            if tables.reads_heads_early {
                let heads = tables.history.heads(&tables.people, login.user);
                tables.early_heads.insert(login.user, heads);
            }
            let Tables { history, people, .. } = tables;
            history.devices.log_in(people, login, now)
        })
    }

    fn device(&self, device: DeviceId) -> Result<Option<Device>, StoreError> {
        self.of_history(|tables, _| tables.history.devices.find(device))
    }

    fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError> {
        self.of_history(|tables, _| tables.history.devices.of(user))
    }

    fn seen(&self, devices: &[DeviceId]) -> Result<(), StoreError> {
        self.of_history(|tables, now| tables.history.devices.seen(devices, now))
    }

    fn forget(&self, user: UserId, devices: &[DeviceId]) -> Result<usize, StoreError> {
        self.of_history(|tables, _| tables.history.devices.forget(user, devices))
    }

    /// All are on the first page.
    fn touched(&self, window: i64, after: Option<Touched>, _: usize) -> Result<Vec<Touched>, StoreError> {
        if after.is_some() {
            return Ok(Vec::new());
        }
        self.of_history(|tables, now| tables.history.touched(now - window))
    }

    fn raised(&self, window: i64, _: usize) -> Result<Vec<RaisedMark>, StoreError> {
        self.of_history(|tables, now| tables.history.raised(now - window))
    }

    fn use_level2(&self, user: UserId) -> Result<bool, StoreError> {
        self.of_history(|tables, now| tables.history.use_level2(user, now))
    }

    fn level2_users_after(&self, user: UserId, _: usize) -> Result<Vec<UserId>, StoreError> {
        self.of_history(|tables, _| tables.history.level2_users_after(user))
    }

    fn unmarked(
        &self,
        user: UserId,
        after: MessageId,
        rows_max: usize,
        _: usize,
    ) -> Result<Vec<KeptMessage>, StoreError> {
        self.of_history(|tables, _| {
            let rows = tables.messages.iter().filter(|(id, row)| row.to == user && **id > after && row.mark.is_none());
            rows.take(rows_max).map(|(id, row)| KeptMessage { id: *id, text: row.text.to_string() }).collect()
        })
    }

    fn waiting(&self, user: UserId, window: i64, rows_max: usize, bytes_max: usize) -> Result<WaitingRows, StoreError> {
        let uses_level1 = self.uses_level1(user, window)?;
        let unmarked = self.unmarked(user, MessageId(i64::MIN), rows_max, bytes_max)?;
        let is_empty = self.of_history(|tables, _| !tables.messages.values().any(|row| row.to == user))?;
        Ok(WaitingRows { uses_level1, is_empty, unmarked })
    }

    fn waits(&self, user: UserId, text: &str) -> Result<bool, StoreError> {
        self.of_history(|tables, _| tables.messages.values().any(|row| row.to == user && *row.text == *text))
    }

    fn mark_rows(&self, user: UserId, rows: &[(MessageId, ConversationId, i64)]) -> Result<(), StoreError> {
        self.of_history(|tables, _| {
            for (id, conv, seq) in rows {
                if let Some(row) = tables.messages.get_mut(id).filter(|row| row.to == user) {
                    row.mark = Some((*conv, *seq));
                }
            }
        })
    }

    fn delete_marked(&self, user: UserId) -> Result<(), StoreError> {
        self.of_history(|tables, _| tables.messages.retain(|_, row| row.to != user || row.mark.is_none()))
    }

    fn place_of(&self, sender: UserId, cid: &Cid) -> Result<Option<(ConversationId, i64, FrameHash)>, StoreError> {
        self.of_history(|tables, _| tables.history.place_of(sender, cid))
    }

    fn seen_at_level1(&self, user: UserId) -> Result<(), StoreError> {
        self.of_history(|tables, now| tables.history.seen_at_level1(user, now))
    }

    fn uses_level1(&self, user: UserId, window: i64) -> Result<bool, StoreError> {
        self.of_history(|tables, now| tables.history.uses_level1(user, now - window))
    }

    fn shared_key(&self, key: SharedKey, new: [u8; 32]) -> Result<[u8; 32], StoreError> {
        self.of_history(|tables, _| tables.history.shared_key(key, new))
    }

    fn stored_key(&self, key: SharedKey) -> Result<Option<[u8; 32]>, StoreError> {
        self.of_history(|tables, _| tables.history.stored_key(key))
    }

    fn retire(&self, _: &HistoryRetention, _: ConversationId) -> Result<RetentionStep, StoreError> {
        not_here()
    }

    fn claim_retention(&self, _: &RetentionClaim) -> Result<bool, StoreError> {
        not_here()
    }

    fn end_retention(&self, _: &RetentionClaim) -> Result<(), StoreError> {
        not_here()
    }
}

impl Community for NodeStore {
    fn found_group(&self, _: &NewGroup) -> Result<(GroupId, Recorded), StoreError> {
        not_here()
    }

    fn act(&self, act: &GroupAct) -> Result<Result<GroupChanged, GroupRefusal>, StoreError> {
        self.of_history(|Tables { history, people, .. }, now| history.act(people, act, now))
    }

    fn members_of(&self, group: GroupId, asker: UserId) -> Result<Result<Vec<GroupMember>, GroupRefusal>, StoreError> {
        self.of_history(|tables, _| tables.people.members_of(group, asker))
    }

    fn befriend(&self, _: &FriendRequest) -> Result<Befriended, StoreError> {
        not_here()
    }

    fn note_asked(&self, _: UserId, _: UserId) -> Result<(), StoreError> {
        not_here()
    }

    fn block(&self, _: UserId, _: UserId) -> Result<BlockOutcome, StoreError> {
        not_here()
    }

    fn unblock(&self, _: UserId, _: UserId) -> Result<BlockOutcome, StoreError> {
        not_here()
    }

    fn blocked_by(&self, _: UserId) -> Result<Vec<(UserId, Option<String>)>, StoreError> {
        self.of_history(|_, _| Vec::new())
    }

    fn blocks_after(&self, _: (UserId, UserId), _: usize) -> Result<Vec<(UserId, UserId)>, StoreError> {
        self.of_history(|_, _| Vec::new())
    }

    fn own(&self, _: UserId) -> Result<Option<OwnAccount>, StoreError> {
        not_here()
    }

    fn change_own(&self, _: UserId, _: Option<&str>, _: Option<bool>) -> Result<Option<OwnAccount>, StoreError> {
        not_here()
    }

    fn hiding_marks(&self, _: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        self.of_history(|_, _| Vec::new())
    }

    fn change_password(&self, _: &PasswordChange) -> Result<Swapped<Vec<DeviceId>>, StoreError> {
        not_here()
    }

    fn delete_account(&self, _: &AccountDeletion<'_>) -> Result<Swapped<Deletion>, StoreError> {
        not_here()
    }
}

const PAGE_BYTES: usize = 400;
