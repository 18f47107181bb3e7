//! [`History`]: conversations whose messages have numbers, for clients of level 2.
//!
//! # Numbers
//! A conversation is a sequence 1, 2, 3 … without a hole. A number is given under a lock that lasts
//! until the commit: so the order of the commits is the order of the numbers, and a reader that has
//! seen a number can read all numbers below it. A message is stored once for all members.
//!
//! # What counts as unread
//! `nth` of a message says how many up to it count, and never changes; `Conversation.count` is that
//! of the head. So `count - nth(read)` counts what is behind a mark. The recalled ones among these
//! are bits of a table of their own, 1,024 numbers a row, and the reader's own ones are only there
//! after an import, and counted in the reader's own row ([`unread`](head::unread)). It is exact and
//! costs no row per message.
//!
//! # Edits and recalls
//! An edit or a recall is a message with a number of its own. It also writes its number into the
//! row of its target, so that a page needs no search for the newest edit.
//!
//! A role that is not there ([`MaybeRole::get`]) means tables without these: the server answers
//! logins at level 2 with 501, and everything else goes on.

mod devices;
mod entries;
pub(in crate::store) mod head;
mod names;
pub(in crate::store) mod page;
pub(in crate::store) mod plan;
pub(in crate::store) mod retention;

pub use self::devices::{Device, DeviceId, DeviceLogin, LoggedIn, LoginProof};
pub use self::entries::{
    Committed, Denied, Entry, EntryKind, EntryPlace, EntryRefusal, Marked, MemberChange, NewEntry, RaisedMark, Touched,
};
pub use self::head::Head;
pub use self::names::{Cid, FrameHash, Occurrence, import_cid, tag_of};
pub use self::page::{EntryPage, PageOutcome};
pub use self::retention::{Retention, RetentionClaim, RetentionRules, RetentionStep};
use super::maybe::MaybeRole;
use super::{KeptMessage, MessageId, StoreError};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
pub use crate::protocol::level2::PageAsk;

/// What a login reads. Its methods block.
pub trait HistoryReads {
    /// All conversations of `user` with a message, and all groups of `user`, as of one moment, the
    /// most recently active first. One entry has about 150 bytes. The number of queries does not
    /// depend on that of the conversations, but for those in which something unread is recalled: 64
    /// of them cost one more.
    fn heads(&self, user: UserId) -> Result<Vec<Head>, StoreError>;

    /// Those of the given conversations, in the order given.
    fn heads_of(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Result<Head, Denied>>, StoreError>;

    /// The tags of these numbers, in the order given; `None` where there is no such message.
    fn tags(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Tag>>, StoreError>;

    /// The messages with these numbers, in the order given; `None` where there is no such message. The
    /// number of statements does not depend on that of the messages, but for a few hundred at a time.
    fn messages_at(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Entry>>, StoreError>;

    /// What a device has reported.
    fn cursors(&self, device: DeviceId) -> Result<Vec<(ConversationId, i64)>, StoreError>;

    /// The logins that were written last for these devices, without those that are forgotten. For
    /// the sweep, which finds connections that were replaced or revoked elsewhere.
    fn logins(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, i64)>, StoreError>;
}

/// What waits in `OfflineMessage` for a user whose messages are imported.
#[derive(Debug, Default)]
pub struct WaitingRows {
    /// The user was seen at level 1 lately.
    pub uses_level1: bool,
    /// There are no rows, with a mark or without.
    pub is_empty: bool,
    /// The first rows without one, as of [`History::unmarked`].
    pub unmarked: Vec<KeptMessage>,
}

/// What is asked of a store that has history. Its methods block, as those of all roles.
pub trait History: HistoryReads + Send + Sync + 'static {
    /// Stores messages of any conversations in one transaction: all that are not refused, or
    /// nothing. Returns an outcome for each, in the order given.
    ///
    /// Messages of one conversation get ascending numbers in the order given, the next ones after
    /// its head. A repeat is found by sender and id before any right is looked at. A send raises its
    /// sender's read mark to its own number.
    ///
    /// `edit_window`, ms, is how long after its time a message may be edited or recalled.
    ///
    /// # Errors
    /// Nothing of the batch is stored, or the answer was lost; the same batch again settles it.
    fn commit(&self, batch: &[NewEntry], edit_window: i64) -> Result<Vec<Committed>, StoreError>;

    /// Reads several things for one purpose: on SQLite as of one moment, since each moment that a
    /// reader begins behind a commit costs it the pages that it knows. `read` may be called twice.
    fn read_together(
        &self,
        read: &mut dyn FnMut(&dyn HistoryReads) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// The messages with these numbers, ascending, whoever asks: as many as have `bytes_max` of text
    /// together, but at least one if there is any. `from_end`: these are the last ones, not the
    /// first. The numbers that are there are contiguous.
    fn run(
        &self,
        conv: ConversationId,
        from: i64,
        to: i64,
        from_end: bool,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// A page for `user`: at most `limit` messages and `bytes_max` of text, but at least one message
    /// if there is any.
    fn page(
        &self,
        user: UserId,
        conv: ConversationId,
        ask: PageAsk,
        limit: i64,
        bytes_max: usize,
    ) -> Result<PageOutcome, StoreError> {
        let head = self.heads_of(user, &[conv])?.pop().unwrap_or(Err(Denied::Unknown));
        match head {
            Ok(head) => page::read(&head, ask, limit, bytes_max, |from, to, from_end, bytes| {
                self.run(conv, from, to, from_end, bytes)
            }),
            Err(denied) => Ok(PageOutcome::Denied(denied)),
        }
    }

    /// Raises the read mark of `user` to `read`, or to the head if that is lower.
    fn mark_read(&self, user: UserId, conv: ConversationId, read: i64) -> Result<Result<Marked, Denied>, StoreError>;

    /// Raises what a device of `user` has stored, per conversation; numbers beyond the head count as
    /// the head, lower ones and foreign conversations are passed over. Returns the marks of the user
    /// that rose. Rows of `OfflineMessage` with a mark up to there go.
    fn report(
        &self,
        user: UserId,
        device: DeviceId,
        stored: &[(ConversationId, i64)],
    ) -> Result<Vec<RaisedMark>, StoreError>;

    /// Writes a login, if what was proved still holds in the transaction that writes it; `None` if
    /// not. A device that is new may push out others.
    fn log_in(&self, login: &DeviceLogin) -> Result<Option<LoggedIn>, StoreError>;

    /// A device by its key, `None` if it is forgotten.
    fn device(&self, device: DeviceId) -> Result<Option<Device>, StoreError>;

    /// The devices of `user`, the most recently seen first.
    fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError>;

    /// Writes that these devices are seen now.
    fn seen(&self, devices: &[DeviceId]) -> Result<(), StoreError>;

    /// Forgets devices of `user`, with their cursors; their tokens are worth nothing from then on.
    /// Returns how many there were.
    fn forget(&self, user: UserId, devices: &[DeviceId]) -> Result<usize, StoreError>;

    /// The conversations that got messages within the last `window` ms by the database's clock, in the
    /// order of these messages and behind `after`; at most `limit`. One query by an index on MySQL;
    /// SQLite reads all conversations, since a single process hears of everything anyway.
    fn touched(&self, window: i64, after: Option<Touched>, limit: usize) -> Result<Vec<Touched>, StoreError>;

    /// The marks that devices raised within the last `window` ms, at most `limit`.
    fn raised(&self, window: i64, limit: usize) -> Result<Vec<RaisedMark>, StoreError>;

    /// Writes that `user` uses level 2, with the first time of it. Until then nobody has noted logins
    /// at level 1, so it also counts as one. Returns whether it is the first time.
    fn use_level2(&self, user: UserId) -> Result<bool, StoreError>;

    /// Those who use level 2, after `user`, by ascending id, at most `limit`.
    fn level2_users_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError>;

    /// What waits in `OfflineMessage` for `user` and is in no conversation: the rows without a mark
    /// behind `after`, in their order, at most `rows_max` and as many as have `bytes_max` of text, but
    /// at least one if there is any. Rows that are too long to be read are passed over.
    fn unmarked(
        &self,
        user: UserId,
        after: MessageId,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<KeptMessage>, StoreError>;

    /// The same from the first row on, with what else an import begins with. `window`: see
    /// [`History::uses_level1`].
    fn waiting(&self, user: UserId, window: i64, rows_max: usize, bytes_max: usize) -> Result<WaitingRows, StoreError>;

    /// Writes into these rows of `user` where their messages are.
    fn mark_rows(&self, user: UserId, rows: &[(MessageId, ConversationId, i64)]) -> Result<(), StoreError>;

    /// Deletes the rows of `user` that have a mark.
    fn delete_marked(&self, user: UserId) -> Result<(), StoreError>;

    /// Where the message is that `sender` has called `cid`, and the hash of its frame.
    fn place_of(&self, sender: UserId, cid: &Cid) -> Result<Option<(ConversationId, i64, FrameHash)>, StoreError>;

    /// Writes that `user` is seen at level 1 now.
    fn seen_at_level1(&self, user: UserId) -> Result<(), StoreError>;

    /// Whether `user` was seen at level 1 within the last `window` ms.
    fn uses_level1(&self, user: UserId, window: i64) -> Result<bool, StoreError>;

    /// Those of `users` who were.
    fn level1_users(&self, users: &[UserId], window: i64) -> Result<Vec<UserId>, StoreError> {
        let is_one = |user: &UserId| Ok(self.uses_level1(*user, window)?.then_some(*user));
        users.iter().filter_map(|user| is_one(user).transpose()).collect()
    }

    /// The key of all tokens: `new`, or the one that was stored before.
    fn token_key(&self, new: [u8; 32]) -> Result<[u8; 32], StoreError>;

    /// Whether the caller is to delete old messages now: it is time to, and no other node does it.
    /// Asked again while it works, which it must do before the lease is over.
    fn claim_retention(&self, claim: &RetentionClaim) -> Result<bool, StoreError>;

    /// Writes that the caller is done with it.
    fn end_retention(&self, claim: &RetentionClaim) -> Result<(), StoreError>;

    /// One small step of retention: at most [`RETIRED_MAX`] messages of the conversations behind
    /// `after`, lowest numbers first. Of one with more than that the rest comes in the next round.
    fn retire(&self, retention: &Retention, after: ConversationId) -> Result<RetentionStep, StoreError>;
}

/// The most messages that one step of retention retires, and conversations that it looks at.
pub const RETIRED_MAX: usize = 1000;

/// The way to history.
pub type HistoryRole = MaybeRole<dyn History>;
