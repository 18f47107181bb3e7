//! [`Session`]: what the server knows of one client, and what follows from everything that happens to it.
//!
//! A state machine without I/O: an [`Input`] goes in, [`Effect`]s come out, and whoever runs it (the server, a test)
//! carries them out and reports back what became of them. What the decisions are is in `handlers`.
//!
//! ```text
//!            a request needs the store                      its outcome
//!   Ready ───────────────────────────▶ Waiting(for what) ───────────────▶ Ready, having replied
//!     │                                     │ outcome, and others must be told first
//!     │                                     ├──▶ Settling ── all settled ─▶ Ready, having replied
//!     │                                     │ kept messages
//!     │                                     └──▶ Sending ── it is there ──▶ Waiting(deletion) ─▶ Ready
//!     └─ the end of the input, or the server stops ─▶ Ended
//! ```
//! Chat does not leave `Ready`: it is forwarded, and only counted until it is settled. Whatever is answered waits until
//! the count is zero, and whatever comes while the session is not ready waits in the connection's input.

mod handlers;
pub mod password;
mod pieces;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Flow;
use smallvec::SmallVec;

pub use self::pieces::{MEMBER_WORK, members_at_once};
use crate::admission::{Payer, Source};
use crate::config::Auth;
use crate::protocol::{self, BadRequest, FrameKind, GroupId, Id, Request, UserId};
use crate::session::password::Client;
use crate::store::{FriendNames, MessageId, UserState};

/// One client. See the [module](self).
#[derive(Debug)]
pub struct Session {
    auth: Auth,
    /// The users that it has logged in as, the latest last.
    users: SmallVec<[UserId; 1]>,
    pub(crate) phase: Phase,
    unsettled: Settled,
    /// The account that pays for these: frames of one payer keep their order on their way.
    paying: Option<UserId>,
    /// Of what kind the frame was that was looked at last.
    frame_kind: FrameKind,
    /// The connection is dead, only what it sent before is still looked at.
    pub(crate) hung_up: bool,
    /// A reminder will come.
    pub(crate) reminder_set: bool,
    /// The user whose stored messages go on in a further frame, after the client's pause.
    pub(crate) more: Option<UserId>,
    /// What the frame that waits at the front of the input has been waiting for.
    pub(crate) found: Option<Box<Found>>,
}

/// Where a session stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Takes whatever comes.
    Ready,
    /// For a job's outcome.
    Waiting(Awaited),
    /// A frame is being handed to the members of a large group: what comes after it must not overtake it.
    Spreading,
    /// The request is done, but its push is not settled yet.
    Settling { reply: String },
    /// Kept messages are on their way to the client; they are deleted when they have arrived.
    /// `wanted` is when another connection asked for the mailbox, and how much had not arrived then.
    Sending { user: UserId, ids: Box<[MessageId]>, wanted: Option<Box<(Instant, usize)>> },
    /// Over.
    Ended,
}

/// Which outcome a session waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// Whether the password of this user is right.
    Password(UserId),
    /// The bus to confirm that this node is subscribed for the user.
    Place(UserId),
    /// That this is the user's `User.state`: of a login or logout, which is answered then, at the latest `by` this time.
    State { user: UserId, state: UserState, by: Instant },
    /// The members of a group, for the frame that still stands in the input.
    Members(GroupId),
    /// That these are friends.
    Friends { a: UserId, b: UserId },
    /// Just the reply.
    Reply,
    /// The messages kept for this user.
    Messages(UserId),
    /// The same, for a further frame with them that nobody has asked for.
    MoreMessages(UserId),
    /// That so many messages of this user are deleted.
    Deletion(UserId, u32),
}

/// What was found out for a frame while it waited.
#[derive(Debug)]
pub(crate) enum Found {
    Members(GroupId, Arc<[UserId]>),
    /// Nothing can be found out: this is the answer.
    Refusal(Cow<'static, str>),
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input<'f> {
    /// A frame was received.
    Frame(&'f [u8]),
    /// Something was received that is no frame.
    Garbage,
    /// A frame was received, or something that is none, which is beyond what the client may send; with the `last` one the
    /// connection closes when this is taken.
    Excess { last: bool },
    /// The client sends too long a frame; the connection closes when this is taken.
    Oversize,
    /// The client will send nothing more; the connection closes when this is taken.
    End,
    /// The server stops; the connection closes when this is taken and what was sent to it is written.
    Stop,
    /// There is no memory for what the client has begun to send; the connection closes when this is taken.
    Crowded,
    /// A job is done.
    Outcome(Outcome),
    /// A frame for a large group is on its way to all members.
    Spread,
    /// What became of forwarded frames.
    Settled(Settled),
    /// The reply with kept messages has arrived at the peer's kernel.
    Sent,
    /// The time of an [`Effect::Remind`] has come.
    Reminder { now: Instant },
    /// Another connection waits to fetch the messages of the same user; so many bytes have not arrived at this client.
    MailboxWanted { now: Instant, undelivered_bytes: usize },
    /// Another connection has logged this user out, see [`Effect::LogOut`].
    LoggedOut(UserId),
    /// The connection is dead. What was received before is still shown.
    HangUp,
    /// The connection is gone.
    Closed,
}

/// Forwarded frames of which it is known, or not yet, what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Settled {
    /// How many frames.
    pub frames: u32,
    /// Their length in all.
    pub bytes: usize,
    /// How many of them could neither be delivered nor kept for some recipient.
    pub failed: u32,
    /// How many of these because a recipient's mailbox is full.
    pub full: u32,
}

/// What a session wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect<'f> {
    /// Send this to the client.
    Reply(Cow<'static, str>),
    /// Send this to the client and report [`Input::Sent`] when it has arrived.
    ReplyAndReport(String),
    /// Forward a frame to one user; [`Input::Settled`] tells what became of it.
    Deliver { to: UserId, text: Cow<'f, str> },
    /// Forward a frame to all of these members of a group but one; settled as one frame. If they are more than
    /// [`members_at_once`], [`Input::Spread`] comes before that.
    DeliverAll { group: GroupId, to: Arc<[UserId]>, except: UserId, text: Cow<'f, str> },
    /// Have a job done; its [`Outcome`] comes as an input.
    Submit(Job),
    /// Have the other nodes send messages for this user here; [`Outcome::Placed`] comes as an input.
    Join(UserId),
    /// From now on messages for this user go to this connection.
    Attach(UserId),
    /// They no longer do.
    Detach(UserId),
    /// Log this user out of every connection of this node; theirs hear [`Input::LoggedOut`]. If it `shows`,
    /// [`Outcome::Shown`] comes as an input when the user's `User.state` says so.
    LogOut { user: UserId, shows: bool },
    /// The same; [`Outcome::Shown`] comes as an input when the user's `User.state` says so.
    DetachAndShow(UserId),
    /// Have the user's `User.state` say online; [`Outcome::Shown`] comes as an input.
    Show(UserId),
    /// The messages kept for this user may be fetched by another connection.
    ReleaseMailbox(UserId),
    /// Ask the connection that has this user's mailbox whether it still needs it.
    WantMailbox(UserId),
    /// Report [`Input::Reminder`] after this time.
    Remind(Duration),
    /// Close the connection: it cannot be waited for any longer.
    HangUp,
}

/// Effects in the order in which they are to be carried out.
pub type Effects<'f> = SmallVec<[Effect<'f>; 4]>;

/// Blocking work that a session wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// Is this the password of the user with this id? If that is nobody, it must take as long to find out.
    CheckPassword { id: Id, password: String },
    /// Make an account.
    Register { name: String, password: String },
    /// Make two users friends.
    AddFriends { a: UserId, b: UserId },
    /// Take one from a user's list.
    RemoveFriend { user: UserId, friend: UserId },
    /// List friends and groups.
    Contacts { user: UserId },
    /// The members of a group, if this user is one of them or no user is named.
    Members { group: GroupId, sender: Option<UserId> },
    /// Become a member.
    JoinGroup { user: UserId, group: GroupId, asked: protocol::Id },
    /// List a user's groups.
    GroupsOf { user: UserId },
    /// Make a group.
    CreateGroup { owner: UserId, name: String, description: String },
    /// Find groups.
    GroupsNamed { name: String },
    /// Find users and groups.
    Search { keyword: String },
    /// Get kept messages, as many as one reply holds. The user's mailbox is claimed until it is released.
    Fetch { user: UserId },
    /// The same, as many as a frame for a client holds that is paced.
    FetchFrame { user: UserId },
    /// Delete kept messages.
    Delete { user: UserId, ids: Vec<MessageId> },
}

/// What became of a [`Job`].
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Job::CheckPassword`]: whose account it is if the password is right.
    Password(Option<Client>),
    /// Of [`Effect::Join`]: messages come, or it is known that they cannot for now.
    Placed,
    /// Of [`Effect::Show`] and [`Effect::DetachAndShow`]: this is written, or overtaken, or cannot be written now. It may
    /// come when nobody waits for it any more.
    Shown(UserId, UserState),
    /// Of [`Job::AddFriends`]; `None` if one of them does not exist.
    Friends(Option<FriendNames>),
    /// Of [`Job::Members`], ascending; none for an unknown group.
    Members(Arc<[UserId]>),
    /// Of [`Job::Fetch`].
    Messages { reply: String, ids: Vec<MessageId> },
    /// Of [`Job::Delete`].
    Deleted,
    /// Of every other job: the answer. Of [`Job::Register`] also that what was asked for cannot be.
    Reply(Cow<'static, str>),
    /// Of any job: it could not be done, for no fault of the client, and this is the answer.
    Refused(Cow<'static, str>),
}

/// What is known without asking the store.
pub trait Known {
    /// The members of a group, ascending, if they are known.
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>>;

    /// Whether this user was found not to be a member of a group a short time ago.
    fn is_stranger(&self, _user: UserId, _group: GroupId) -> bool {
        false
    }

    /// Whether a user may have joined a group without this node having heard of it yet.
    fn groups_change_elsewhere(&self) -> bool;

    /// Seconds that a login with this id has to wait, if it has to.
    fn login_wait(&self, id: Id) -> Option<u32>;

    /// Whether this was found to be the user's password not long ago.
    fn recognises(&self, user: UserId, password: &str) -> bool;

    /// Whether this user is logged in on some connection of this node.
    fn is_connected(&self, user: UserId) -> bool;

    /// Whether messages that others send to this user come to this node.
    fn is_here(&self, user: UserId) -> bool;

    /// How long the client is busy with each message that it shows, if it must not be sent anything meanwhile.
    fn pace(&self) -> Option<Duration>;

    /// Until when the answer to a login or logout waits for `User.state`; `None` when no node goes by that.
    fn shown_by(&self) -> Option<Instant>;
}

impl Session {
    /// A client that has just connected.
    pub fn new(auth: Auth) -> Session {
        let (users, phase, unsettled) = (SmallVec::new(), Phase::Ready, Settled::default());
        let frame_kind = FrameKind::INVALID;
        Session {
            auth,
            users,
            phase,
            unsettled,
            paying: None,
            frame_kind,
            hung_up: false,
            reminder_set: false,
            more: None,
            found: None,
        }
    }

    /// Of what kind the frame was that was looked at last.
    pub fn frame_kind(&self) -> FrameKind {
        self.frame_kind
    }

    /// Takes one input. [`Flow::Later`] means that nothing was done about it, and it is to come again after the next
    /// outcome, settlement or [`Input::Sent`].
    pub fn on<'f>(&mut self, input: Input<'f>, known: &dyn Known, effects: &mut Effects<'f>) -> Flow {
        let flow = match input {
            Input::Frame(frame) if self.is_sending() && known.pace().is_some() => {
                self.logout_only(frame, known, effects)
            }
            Input::Frame(_)
            | Input::Garbage
            | Input::Excess { .. }
            | Input::Oversize
            | Input::Crowded
            | Input::End
            | Input::Stop
                if !self.is_ready() =>
            {
                Flow::Later
            }
            Input::Frame(frame) => match Request::parse(frame) {
                Ok(parsed) => self.on_parsed(parsed, known, effects),
                Err(BadRequest) => {
                    self.frame_kind = FrameKind::INVALID;
                    self.reply(protocol::BAD_REQUEST, effects)
                }
            },
            Input::Garbage => self.reply(protocol::BAD_REQUEST, effects),
            Input::Excess { last: false } => self.reply(protocol::SLOW_DOWN, effects),
            Input::Excess { last: true } => match self.reply(protocol::HAD_ENOUGH, effects) {
                Flow::Taken => Flow::Last,
                flow => flow,
            },
            Input::Oversize => self.reply(protocol::TOO_LONG, effects),
            Input::Crowded => self.reply(protocol::CROWDED, effects),
            Input::End => self.on_end(effects),
            Input::Stop => self.on_stop(),
            Input::Outcome(outcome) => self.on_outcome(outcome, known, effects),
            Input::Spread => self.on_spread(),
            Input::Settled(settled) => self.on_settled(settled, effects),
            Input::Sent => self.on_sent(effects),
            Input::Reminder { now } => self.on_reminder(now, known, effects),
            Input::MailboxWanted { now, undelivered_bytes } => self.on_mailbox_wanted(now, undelivered_bytes, effects),
            Input::LoggedOut(user) => self.logged_out(user),
            Input::HangUp => self.on_hang_up(effects),
            Input::Closed => self.on_closed(effects),
        };
        self.check_invariants();
        flow
    }

    /// Whether a frame may be looked at: nothing is pending that it must wait for, and not too much is on its way.
    fn is_ready(&self) -> bool {
        let Settled { frames, bytes, failed, .. } = self.unsettled;
        matches!(self.phase, Phase::Ready) && failed == 0 && frames < UNSETTLED_MAX && bytes < UNSETTLED_BYTES_MAX
    }

    /// Kept messages are on their way to the client.
    fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Sending { .. })
    }

    /// Of all that was forwarded it is known what became of it.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.frames == 0
    }

    pub(crate) fn note_kind(&mut self, kind: FrameKind) {
        self.frame_kind = kind;
    }

    fn on_parsed<'f>(
        &mut self,
        (kind, request): (FrameKind, Request<'f>),
        known: &dyn Known,
        effects: &mut Effects<'f>,
    ) -> Flow {
        self.frame_kind = kind;
        match request {
            Request::Chat { from, to, text } => self.chat(from, to, text, effects),
            Request::OldChat { from, to, text } => self.old_chat(from, to, text, effects),
            Request::GroupChat { from, group, text } => self.group_chat(from, group, text, known, effects),
            // Everything else is answered, so everything before it must be settled.
            _ if self.unsettled.frames > 0 => Flow::Later,
            Request::Login { user, password } => self.login(user, password, known, effects),
            Request::Register { name, password } => self.register(name, password, effects),
            Request::Logout { user } => self.logout(user, known, effects),
            Request::AddFriend { a, b } => self.add_friend(a, b, effects),
            Request::DeleteFriend { user, friend } => self.delete_friend(user, friend, effects),
            Request::Contacts { user } => self.contacts(user, effects),
            Request::JoinGroup { user, group } => self.join_group(user, group, effects),
            Request::GroupsOf { user } => self.groups_of(user, effects),
            Request::CreateGroup { user, name, description } => self.create_group(user, name, description, effects),
            Request::GroupsNamed { name } => self.groups_named(name, effects),
            Request::FetchMessages { user } => self.fetch(user, effects),
            Request::Search { keyword } => self.search(keyword, effects),
            Request::Fixed(reply) => self.reply(reply, effects),
        }
    }

    fn on_outcome(&mut self, outcome: Outcome, known: &dyn Known, effects: &mut Effects<'_>) -> Flow {
        if let Outcome::Shown(user, state) = outcome {
            self.shown(user, state, effects);
            return Flow::Taken;
        }
        let Phase::Waiting(awaited) = std::mem::replace(&mut self.phase, Phase::Ready) else {
            unreachable!("an outcome comes to a session that waits for it")
        };
        match (awaited, outcome) {
            (Awaited::Password(user), Outcome::Password(right)) => {
                self.password_checked(user, right.is_some(), known, effects);
            }
            (Awaited::Place(user), Outcome::Placed) => self.placed(user, known, effects),
            (Awaited::Friends { a, b }, Outcome::Friends(names)) => self.friends_added(a, b, names, effects),
            (Awaited::Members(group), Outcome::Members(members)) => {
                self.found = Some(Box::new(Found::Members(group, members)))
            }
            (Awaited::Members(_), Outcome::Refused(reply)) => self.found = Some(Box::new(Found::Refusal(reply))),
            (Awaited::Messages(user), Outcome::Messages { reply, ids }) => self.fetched(user, reply, ids, effects),
            (Awaited::Messages(user), Outcome::Refused(reply)) => self.not_fetched(user, reply, effects),
            (Awaited::MoreMessages(user), Outcome::Messages { reply, ids }) if !ids.is_empty() => {
                self.fetched(user, reply, ids, effects);
            }
            // Nobody has asked, so nobody is answered.
            (Awaited::MoreMessages(user), Outcome::Messages { .. }) => effects.push(Effect::ReleaseMailbox(user)),
            (Awaited::MoreMessages(user), Outcome::Refused(_)) => self.fetch_more_later(user, effects),
            // When they could not be deleted, the next fetch returns them again, and this client got its answer.
            (Awaited::Deletion(user, count), Outcome::Deleted) => self.deleted(user, count, known, effects),
            (Awaited::Deletion(user, _), Outcome::Refused(_)) => effects.push(Effect::ReleaseMailbox(user)),
            (Awaited::Reply, Outcome::Reply(reply)) => effects.push(Effect::Reply(reply)),
            (Awaited::Password(_) | Awaited::Friends { .. } | Awaited::Reply, Outcome::Refused(reply)) => {
                effects.push(Effect::Reply(reply));
            }
            // The outcome is not shown: it may hold messages.
            (awaited, _) => unreachable!("{awaited:?} has the outcome of something else"),
        }
        Flow::Taken
    }

    fn on_spread(&mut self) -> Flow {
        // It may have ended meanwhile.
        if let Phase::Spreading = self.phase {
            self.phase = Phase::Ready;
        }
        Flow::Taken
    }

    fn on_settled(&mut self, settled: Settled, effects: &mut Effects<'_>) -> Flow {
        self.unsettled.frames -= settled.frames;
        self.unsettled.bytes -= settled.bytes;
        self.unsettled.failed += settled.failed;
        self.unsettled.full += settled.full;
        if self.unsettled.frames > 0 {
            return Flow::Taken;
        }
        let failed = std::mem::take(&mut self.unsettled.failed);
        let full = std::mem::take(&mut self.unsettled.full);
        let refusal = |nth| if nth < full { protocol::MAILBOX_FULL } else { protocol::NOT_KEPT };
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            // Its own push is all that was on its way.
            Phase::Settling { reply } if failed == 0 => effects.push(Effect::Reply(reply.into())),
            Phase::Settling { .. } => effects.push(Effect::Reply(refusal(0).into())),
            phase => {
                self.phase = phase;
                effects.extend((0..failed).map(|nth| Effect::Reply(refusal(nth).into())));
            }
        }
        Flow::Taken
    }

    fn on_reminder(&mut self, now: Instant, known: &dyn Known, effects: &mut Effects<'_>) -> Flow {
        match self.phase {
            // Perhaps it was set for another wait.
            Phase::Waiting(Awaited::State { user, state, by }) if by <= now => self.shown(user, state, effects),
            _ => self.on_mailbox_reminder(known, effects),
        }
        Flow::Taken
    }

    /// A client that has closed will hardly read what it was sent and has not received: that goes elsewhere.
    fn on_end(&mut self, effects: &mut Effects<'_>) -> Flow {
        if self.unsettled.frames > 0 {
            return Flow::Later;
        }
        effects.extend(self.users.drain(..).map(Effect::Detach));
        self.phase = Phase::Ended;
        Flow::Taken
    }

    /// The client is still there: its users stay until what they were sent is written.
    fn on_stop(&mut self) -> Flow {
        if self.unsettled.frames > 0 {
            return Flow::Later;
        }
        self.phase = Phase::Ended;
        Flow::Taken
    }

    /// Messages for its users go elsewhere at once; its rights stay, because what it sent before is still shown.
    fn on_hang_up(&mut self, effects: &mut Effects<'_>) -> Flow {
        self.hung_up = true;
        effects.extend(self.users.iter().map(|user| Effect::Detach(*user)));
        if let Phase::Sending { user, .. } = self.phase {
            effects.push(Effect::ReleaseMailbox(user));
            self.phase = Phase::Ready;
        }
        Flow::Taken
    }

    fn on_closed(&mut self, effects: &mut Effects<'_>) -> Flow {
        effects.extend(self.users.drain(..).map(Effect::Detach));
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Sending { user, .. }
            | Phase::Waiting(Awaited::Deletion(user, _) | Awaited::Messages(user) | Awaited::MoreMessages(user)) => {
                effects.push(Effect::ReleaseMailbox(user));
            }
            Phase::Waiting(Awaited::Place(user) | Awaited::State { user, state: UserState::Online, .. }) => {
                effects.push(Effect::Detach(user));
            }
            Phase::Ready | Phase::Spreading | Phase::Waiting(_) | Phase::Settling { .. } | Phase::Ended => {}
        }
        Flow::Taken
    }

    /// Answers at once, or not yet if something before is not settled.
    pub(crate) fn reply(&mut self, reply: impl Into<Cow<'static, str>>, effects: &mut Effects<'_>) -> Flow {
        if self.unsettled.frames > 0 {
            return Flow::Later;
        }
        effects.push(Effect::Reply(reply.into()));
        Flow::Taken
    }

    /// Has a job done for the request that is being looked at.
    pub(crate) fn submit(&mut self, job: Job, awaited: Awaited, effects: &mut Effects<'_>) -> Flow {
        effects.push(Effect::Submit(job));
        self.phase = Phase::Waiting(awaited);
        Flow::Taken
    }

    /// Counts a frame that is on its way.
    pub(crate) fn count_unsettled(&mut self, bytes: usize) {
        if self.unsettled.frames == 0 {
            self.paying = self.user();
        }
        self.unsettled.frames += 1;
        self.unsettled.bytes += bytes;
    }

    pub(crate) fn is_compat(&self) -> bool {
        self.auth == Auth::Compat
    }

    pub(crate) fn is_logged_in(&self) -> bool {
        !self.users.is_empty()
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether it is logged in as the user with this id, among others perhaps.
    pub(crate) fn is(&self, id: protocol::Id) -> bool {
        id.user().is_some_and(|user| self.users.contains(&user))
    }

    /// Whether it may ask things that need any login.
    pub(crate) fn may_ask(&self) -> Result<(), &'static str> {
        if self.is_compat() || self.is_logged_in() { Ok(()) } else { Err(protocol::LOGIN_FIRST) }
    }

    /// Whether it may act as the user with this id.
    pub(crate) fn may_act_as(&self, id: protocol::Id) -> Result<(), &'static str> {
        self.may_ask()?;
        if self.is_compat() || self.is(id) { Ok(()) } else { Err(protocol::NOT_YOU) }
    }

    pub(crate) fn add_user(&mut self, user: UserId) {
        self.users.retain(|other| *other != user);
        self.users.push(user);
    }

    pub(crate) fn remove_user(&mut self, user: UserId) {
        self.users.retain(|other| *other != user);
    }

    /// The user it logged in as first, of those it is.
    pub fn user(&self) -> Option<UserId> {
        self.users.first().copied()
    }

    /// The payer of everything it uses; `source` is where it comes from. It stays the same while frames are under way, though
    /// somebody else may log its user out meanwhile.
    pub fn payer(&self, source: Source) -> Payer {
        let user = if self.unsettled.frames > 0 { self.paying } else { self.user() };
        user.map_or(Payer::Address(source), Payer::Account)
    }

    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let Settled { frames, bytes, failed, full } = self.unsettled;
            assert!(full <= failed, "each has failed");
            assert!(frames > 0 || (bytes, failed) == (0, 0), "nothing on its way, nothing to tell of it");
            let settling = matches!(self.phase, Phase::Settling { .. });
            assert!(!settling || frames > 0, "a reply waits for something");
        }
    }
}

/// How long a fetch waits for another connection of the same user whose reply makes no progress, and how often it asks.
pub const MAILBOX_PATIENCE: Duration = Duration::from_secs(2);
/// How long the answer to a login or logout waits for `User.state`. The client gives up after a second.
pub const STATE_PATIENCE: Duration = Duration::from_millis(400);
/// Frames of one client that may be on their way before it is read no further.
const UNSETTLED_MAX: u32 = 4096;
/// The same in bytes.
const UNSETTLED_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
