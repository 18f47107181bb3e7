//! [`History`]: conversations whose messages have numbers, for clients of level 2.
//!
//! # Numbers
//! A conversation is a sequence 1, 2, 3 … without a hole. A number is assigned under a lock that is
//! held until the commit. So numbers ascend in the order of commits, and a reader that has seen a
//! number can read all numbers below it. A message is stored once for all members.
//!
//! # What counts as unread
//! The column `nth` of a message is the count of messages up to it that count as unread, and never
//! changes. `Conversation.count` is that of the head, so `count - nth(read)` is the count above a
//! mark. The recalled ones of these are bits in a table, 1,024 numbers a row. The reader's own
//! messages are above the mark only after an import, and counted in the reader's own row
//! ([`unread`](head::unread)). The result is exact and needs no row per message.
//!
//! # Edits and recalls
//! An edit or a recall is a message with a number of its own. It also writes its number into the
//! row of its target, so that a page needs no search for the newest edit.
//!
//! If the role is missing ([`MaybeRole::get`]), the tables lack all this: the server answers logins
//! at level 2 with 501, and everything else works.

mod devices;
mod entries;
pub(in crate::store) mod head;
mod names;
pub(in crate::store) mod page;
pub(in crate::store) mod plan;
pub(in crate::store) mod retention;

pub use self::devices::{Device, DeviceId, LoggedIn, LoginProof, NewDeviceLogin};
pub use self::entries::{
    CommitOutcome, CommitRules, Denied, EntryKind, EntryPlace, EntryRefusal, HistoryEntry, Marked, MemberChange,
    NewEntry, RaisedMark, SenderCheck, Touched,
};
pub use self::head::Head;
pub use self::names::{Cid, FrameHash, Occurrence, import_cid, tag_of};
pub use self::page::{EntryPage, PageOutcome};
pub use self::retention::{HistoryRetention, RetentionClaim, RetentionRules, RetentionStep};
use super::maybe::MaybeRole;
use super::{KeptMessage, MessageId, StoreError};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
pub use crate::protocol::level2::PageAsk;

/// The reads of a login. Its methods block.
pub trait HistoryReads {
    /// All conversations of `user` with a message, and all groups of `user`, as of one moment, the
    /// most recently active first. One entry takes about 150 bytes. The number of queries does not
    /// depend on the number of conversations, except that each 64 of them with an unread recalled
    /// message cost one more.
    fn heads(&self, user: UserId) -> Result<Vec<Head>, StoreError>;

    /// The heads of the given conversations, in the order given.
    fn heads_of(&self, user: UserId, convs: &[ConversationId]) -> Result<Vec<Result<Head, Denied>>, StoreError>;

    /// The tags of these numbers, in the order given; `None` where there is no such message.
    fn tags(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<Tag>>, StoreError>;

    /// The messages with these numbers, in the order given; `None` where there is no such message.
    /// A few hundred messages are read by one statement.
    fn messages_at(&self, places: &[(ConversationId, i64)]) -> Result<Vec<Option<HistoryEntry>>, StoreError>;

    /// The reports of a device.
    fn cursors(&self, device: DeviceId) -> Result<Vec<(ConversationId, i64)>, StoreError>;

    /// The last logins of these devices, except forgotten ones. The sweep needs them to find
    /// connections that were replaced or revoked elsewhere.
    fn logins(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, i64)>, StoreError>;
}

/// The rows of `OfflineMessage` that wait for a user whose messages are imported.
#[derive(Debug, Default)]
pub struct WaitingRows {
    /// Whether the user was seen at level 1 recently.
    pub uses_level1: bool,
    /// Whether there are no rows at all.
    pub is_empty: bool,
    /// The first rows without a mark, as of [`History::unmarked`].
    pub unmarked: Vec<KeptMessage>,
}

/// The calls of a store with history. Its methods block, as those of all roles do.
pub trait History: HistoryReads + Send + Sync + 'static {
    /// Stores messages of any conversations in one transaction: all that are not refused, or
    /// nothing. Returns an outcome for each, in the order given.
    ///
    /// Messages of one conversation get ascending numbers in the order given, the next ones after
    /// its head. A repeat is found by sender and id before any right is checked. A send raises its
    /// sender's read mark to its own number.
    ///
    /// # Errors
    /// Nothing of the batch is stored, or the answer was lost; the same batch again settles it.
    fn commit(&self, batch: &[NewEntry], rules: CommitRules) -> Result<Vec<CommitOutcome>, StoreError>;

    /// Runs several reads together: on SQLite as of one moment, because each new moment after a
    /// commit costs a reader its cached pages. `read` may be called twice.
    fn read_together(
        &self,
        read: &mut dyn FnMut(&dyn HistoryReads) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// The messages with these numbers, ascending, without a check of rights: as many as have
    /// `bytes_max` of text together, but at least one if there is any. `from_end`: these are the
    /// last ones, not the first. Their numbers are contiguous.
    fn run(
        &self,
        conv: ConversationId,
        from: i64,
        to: i64,
        from_end: bool,
        bytes_max: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError>;

    /// A page for `user`: at most `limit` messages and `bytes_max` of text, but at least one
    /// message if there is any.
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

    /// Raises the numbers that a device of `user` has stored. Numbers above the head count as the
    /// head; lower ones and foreign conversations are ignored. Returns the marks of the user that
    /// rose. Deletes rows of `OfflineMessage` with a mark up to there.
    fn report(
        &self,
        user: UserId,
        device: DeviceId,
        stored: &[(ConversationId, i64)],
    ) -> Result<Vec<RaisedMark>, StoreError>;

    /// Writes a login, if its proof is still valid in the transaction that writes it; otherwise
    /// `None`. A new device may displace others.
    fn log_in(&self, login: &NewDeviceLogin) -> Result<Option<LoggedIn>, StoreError>;

    /// A device by its key, `None` if it is forgotten.
    fn device(&self, device: DeviceId) -> Result<Option<Device>, StoreError>;

    /// The devices of `user`, the most recently seen first.
    fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError>;

    /// Notes that these devices are seen now.
    fn seen(&self, devices: &[DeviceId]) -> Result<(), StoreError>;

    /// Forgets devices of `user`, with their cursors; their tokens become invalid. Returns how many
    /// there were.
    fn forget(&self, user: UserId, devices: &[DeviceId]) -> Result<usize, StoreError>;

    /// The conversations that got messages within the last `window` ms by the database's clock, in
    /// the order of these messages and after `after`; at most `limit`. On MySQL this is one query
    /// by an index. SQLite reads all conversations, since a single process is told of everything
    /// anyway.
    fn touched(&self, window: i64, after: Option<Touched>, limit: usize) -> Result<Vec<Touched>, StoreError>;

    /// The marks that devices raised within the last `window` ms, at most `limit`.
    fn raised(&self, window: i64, limit: usize) -> Result<Vec<RaisedMark>, StoreError>;

    /// Notes that `user` uses level 2. The first time also counts as a use of level 1, because
    /// nobody has noted such logins before. Returns whether it is the first time.
    fn use_level2(&self, user: UserId) -> Result<bool, StoreError>;

    /// The users of level 2 after `user`, by ascending id, at most `limit`.
    fn level2_users_after(&self, user: UserId, limit: usize) -> Result<Vec<UserId>, StoreError>;

    /// The rows of `OfflineMessage` that wait for `user` and are in no conversation: those without
    /// a mark after `after`, in their order, at most `rows_max` and as many as have `bytes_max` of
    /// text, but at least one if there is any. Rows that are too long to be read are skipped.
    fn unmarked(
        &self,
        user: UserId,
        after: MessageId,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<KeptMessage>, StoreError>;

    /// The same from the first row on, with the other facts that an import begins with. `window`:
    /// see [`History::uses_level1`].
    fn waiting(&self, user: UserId, window: i64, rows_max: usize, bytes_max: usize) -> Result<WaitingRows, StoreError>;

    /// Whether a row of `OfflineMessage` with this text waits for `user`.
    fn waits(&self, user: UserId, text: &str) -> Result<bool, StoreError>;

    /// Writes into these rows of `user` where their messages are.
    fn mark_rows(&self, user: UserId, rows: &[(MessageId, ConversationId, i64)]) -> Result<(), StoreError>;

    /// Deletes the rows of `user` that have a mark.
    fn delete_marked(&self, user: UserId) -> Result<(), StoreError>;

    /// The place of the message to which `sender` has given the id `cid`, and the hash of its
    /// frame.
    fn place_of(&self, sender: UserId, cid: &Cid) -> Result<Option<(ConversationId, i64, FrameHash)>, StoreError>;

    /// Notes that `user` is seen at level 1 now.
    fn seen_at_level1(&self, user: UserId) -> Result<(), StoreError>;

    /// Whether `user` was seen at level 1 within the last `window` ms.
    fn uses_level1(&self, user: UserId, window: i64) -> Result<bool, StoreError>;

    /// The users of these who were seen at level 1 within the last `window` ms.
    fn level1_users(&self, users: &[UserId], window: i64) -> Result<Vec<UserId>, StoreError> {
        let is_one = |user: &UserId| Ok(self.uses_level1(*user, window)?.then_some(*user));
        users.iter().filter_map(|user| is_one(user).transpose()).collect()
    }

    /// A key that the servers of a cluster share: `new`, unless one was stored before.
    fn shared_key(&self, key: SharedKey, new: [u8; 32]) -> Result<[u8; 32], StoreError>;

    /// This key, if one is stored.
    fn stored_key(&self, key: SharedKey) -> Result<Option<[u8; 32]>, StoreError>;

    /// Whether the caller should delete old messages now: it is due, and no other node does it. The
    /// caller must call this again before its lease ends.
    fn claim_retention(&self, claim: &RetentionClaim) -> Result<bool, StoreError>;

    /// Notes that the caller has finished.
    fn end_retention(&self, claim: &RetentionClaim) -> Result<(), StoreError>;

    /// One small step of retention: retires at most [`RETIRED_MAX`] messages of the conversations
    /// after `after`, lowest numbers first. If a conversation has more, the rest follows in the
    /// next round.
    fn retire(&self, retention: &HistoryRetention, after: ConversationId) -> Result<RetentionStep, StoreError>;
}

/// The most messages that one step of retention retires, and the most conversations that it
/// examines.
pub const RETIRED_MAX: usize = 1000;

/// A key that the servers of a cluster share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedKey {
    /// Signs the tokens of devices.
    Tokens,
    /// Proves the marks of accounts that a JSON web token has made.
    JwtMarks,
    /// A key that has proved such marks before: the database has lost it, and servers that did not
    /// know it have made another one.
    EarlierJwtMarks,
}

impl SharedKey {
    /// Its row in the table `Meta`. Rows 2 and 3 are turns of servers.
    pub(in crate::store) fn row(self) -> i64 {
        match self {
            SharedKey::Tokens => 1,
            SharedKey::JwtMarks => 4,
            SharedKey::EarlierJwtMarks => 5,
        }
    }
}

/// The way to the role.
pub type HistoryRole = MaybeRole<dyn History>;
