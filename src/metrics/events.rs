//! Events that are counted by kind: logins, limits that were hit, batches, messages in the spool,
//! and events of conversations.

/// The outcome of a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoginOutcome {
    /// The password was hashed and is right.
    Accepted,
    /// The password is remembered as right.
    Remembered,
    /// The id or the password is wrong.
    Wrong,
    /// Too many logins waited, or the store was unavailable.
    Refused,
    /// Too many had failed before, so the password was not checked.
    Delayed,
}

/// A limit that was hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hit {
    /// All connections.
    MaxConnections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// Frames of one connection.
    Frames,
    /// Bytes of one connection.
    Bytes,
    /// Wrong passwords for one account from one address.
    LoginFailures,
    /// Wrong passwords from one address.
    LoginFailuresPerAddress,
    /// New accounts from one address.
    RegistrationsPerAddress,
    /// Logins and registrations that wait for a hasher.
    LoginsMax,
    /// Requests that wait for a worker.
    RequestsMax,
    /// Messages on their way to other nodes and to the store.
    LaneMax,
    /// Messages stored for one user.
    MailboxMax,
    /// Members of a group.
    GroupMembersMax,
    /// Groups of a user.
    GroupsMax,
    /// Descriptors for clients, of which almost none are left.
    Descriptors,
    /// The time within which a connection must log in.
    LoginTimeout,
    /// Memory for unfinished frames, and for replies on their way.
    MemoryMax,
    /// Not a limit: a client speaks TLS, and the port does not.
    Tls,
    /// Not a limit: a client does not speak TLS, and must.
    Plain,
    /// Wrong keys of the administration.
    AdminKey,
    /// Requests to the administration at the same time.
    AdminRequests,
}

/// The statuses of HTTP answers that are counted separately.
pub(super) const HTTP_STATUSES: [u16; 21] =
    [101, 200, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 417, 421, 426, 429, 431, 500, 501, 503, 505];

/// A stage that takes messages in batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchStage {
    /// The bus.
    Publish,
    /// The store.
    Store,
    /// Conversations.
    Record,
}

/// An event of messages in the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpoolMove {
    /// They were put in.
    Spooled,
    /// They were moved to the database.
    Drained,
    /// They were for ids that no user has.
    Dropped,
    /// The database refused them although it works.
    SetAside,
}

/// An event of messages that are to be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordedEvent {
    /// They are in their conversations.
    Committed,
    /// The database was unavailable. Messages of level 1 were forwarded without being recorded.
    Unrecorded,
}

/// The kind of a read of conversations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryRead {
    /// The heads for a login, which is a resume if the client has cursors.
    Login,
    /// The heads for a 46.
    Sync,
    /// A page for a connection that is behind.
    Behind,
    /// A page that a client requested (48).
    Page,
}

/// An event of the sweeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SweepEvent {
    /// One was done.
    Done,
    /// One has failed.
    Failed,
    /// Connections were told the head of one of their conversations.
    Told,
    /// Connections ended, because their device had logged in or out elsewhere.
    Ended,
}

/// An event of messages that waited in a mailbox when their user came to level 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImportEvent {
    /// They are in their conversations now.
    New,
    /// They were there before.
    Known,
    /// They stay in the mailbox: nobody can read them, or their conversation is not the user's.
    Left,
}

/// An event of old messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetentionEvent {
    /// They are no longer visible.
    Retired,
    /// Their rows are deleted.
    Deleted,
}

/// The fate of a message in the queue of the hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookEvent {
    /// The web server has it, for one recipient.
    Delivered,
    /// It needed no post: its recipients have received it, or it is recalled or deleted.
    Received,
    /// It could not be posted for 3 days.
    Expired,
    /// It was dropped, because too many waited.
    Dropped,
}

/// The outcome of a request to the hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookRequest {
    /// The web server has taken the messages.
    Worked,
    /// It has not, or did not answer.
    Failed,
}

impl HookEvent {
    pub(super) const NAMES: [&'static str; 4] = ["delivered", "received", "expired", "dropped"];
}

impl HookRequest {
    pub(super) const NAMES: [&'static str; 2] = ["worked", "failed"];
}

impl RecordedEvent {
    pub(super) const NAMES: [&'static str; 2] = ["committed", "unrecorded"];
}

impl HistoryRead {
    pub(super) const NAMES: [&'static str; 4] = ["login", "sync", "behind", "page"];
}

impl SweepEvent {
    pub(super) const NAMES: [&'static str; 4] = ["done", "failed", "told", "ended"];
}

impl ImportEvent {
    pub(super) const NAMES: [&'static str; 3] = ["new", "known", "left"];
}

impl RetentionEvent {
    pub(super) const NAMES: [&'static str; 2] = ["retired", "deleted"];
}

impl Hit {
    /// The settings of the limits.
    pub(super) const KEYS: &'static [&'static str] = &[
        "max_connections",
        "connections_per_address",
        "frames_per_second",
        "bytes_per_second",
        "login_failures",
        "login_failures_per_address",
        "registrations_per_address",
        "logins_max",
        "requests_max",
        "lane_max",
        "mailbox_max",
        "group_members_max",
        "groups_max",
        "descriptors",
        "login_timeout",
        "memory_max",
        "tls",
        "plain",
        "admin_key",
        "admin_requests",
    ];

    /// The number of limits.
    pub const COUNT: usize = Hit::KEYS.len();

    /// Advice for the end of a log line, if the limit is not a setting.
    pub fn remedy(self) -> &'static str {
        if self == Hit::Descriptors { ": raise it (ulimit -Hn, LimitNOFILE in systemd)" } else { "" }
    }

    /// The setting of the limit.
    pub fn key(self) -> &'static str {
        Hit::KEYS[self as usize]
    }
}

impl LoginOutcome {
    pub(super) const NAMES: [&'static str; 5] = ["accepted", "remembered", "wrong", "refused", "delayed"];
}

impl BatchStage {
    pub(super) const NAMES: [&'static str; 3] = ["publish", "store", "record"];
}

impl SpoolMove {
    pub(super) const NAMES: [&'static str; 4] = ["spooled", "drained", "dropped", "aside"];
}
