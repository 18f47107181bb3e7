//! [`Session`]: the state of one client, and the effects of every event.
//!
//! A state machine without I/O: an [`Input`] goes in, [`Effect`]s come out, and the caller (the
//! server, a test) carries them out and reports the results. Its states are in `phase`, the
//! decision about each request is in `handlers`. Nothing here knows sockets, threads or the store:
//! the folders above call it, and read its types.
//!
//! ```text
//!            a request needs the store                      its outcome
//!   Ready ───────────────────────────▶ Waiting(for what) ───────────────▶ Ready, having replied
//!     │                                     │ outcome that others must receive first
//!     │                                     ├──▶ Settling ── all settled ─▶ Ready, having replied
//!     │                                     │ stored messages
//!     │                                     └──▶ Sending ── acknowledged ─▶ Waiting(deletion) ─▶ Ready
//!     └─ the end of the input, or the server stops ─▶ Ended
//! ```
//! Chat does not leave `Ready`: it is forwarded, and only counted until it is settled. A request
//! with an answer waits until the count is zero, and input that arrives while the session is not
//! ready waits in the connection's buffer.

mod effect;
mod facts;
mod handlers;
mod input;
mod job;
pub mod jwt;
pub mod password;
mod phase;
mod pieces;
mod unsettled;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use net::Flow;
use smallvec::SmallVec;

pub use self::effect::{Effect, Effects, OptIn, Recipients, ToRecord};
pub use self::facts::SessionFacts;
pub use self::handlers::{DESCRIPTION_MAX, NAME_MAX, PASSWORD_MAX};
pub use self::input::{FailedFrame, Input, Settled};
pub use self::job::{Job, MadeFriends, Outcome, ToldBy};
use self::password::Forgotten;
use self::phase::{Awaited, Finding, Phase};
pub use self::pieces::{MEMBER_WORK, members_at_once};
use self::unsettled::{Failures, Unsettled};
use crate::admission::{Payer, Source};
use crate::base::ids::FrameId;
use crate::config::Auth;
use crate::protocol::level2::ForLevel1;
use crate::protocol::{self, BadRequest, FrameKind, Request, UserId, level2};
use crate::store::UserState;

/// One client. See the [module](self).
#[derive(Debug)]
pub struct Session {
    auth: Auth,
    /// The users that it is logged in as, the latest last.
    users: SmallVec<[UserId; 1]>,
    phase: Phase,
    unsettled: Unsettled,
    /// The id of the next frame that it forwards.
    next_id: FrameId,
    /// The account that pays: the one of the earliest login. It does not change while frames are
    /// under way, because the frames of one payer keep their order.
    paying: Option<UserId>,
    /// How often the user of the latest login had been forgotten when the password was checked.
    forgotten: Forgotten,
    /// The kind of the last frame.
    frame_kind: FrameKind,
    /// Whether the connection is dead: only input that it sent before is still processed.
    hung_up: bool,
    /// Whether a reminder will come.
    reminder_set: bool,
    /// Whether it is logged in at level 2.
    opted_in: bool,
    /// The user whose remaining stored messages follow in a further frame, after the client's
    /// pause.
    more: Option<UserId>,
    /// The result that the frame at the front of the input has waited for.
    found: Option<Box<Finding>>,
}

impl Session {
    /// The session of a client that has just connected. `next_id` is the id of the first frame that
    /// it will forward.
    pub fn new(auth: Auth, next_id: FrameId) -> Session {
        let (users, phase, unsettled) = (SmallVec::new(), Phase::Ready, Unsettled::default());
        let frame_kind = FrameKind::INVALID;
        Session {
            auth,
            users,
            phase,
            unsettled,
            next_id,
            paying: None,
            forgotten: Forgotten::default(),
            frame_kind,
            hung_up: false,
            reminder_set: false,
            opted_in: false,
            more: None,
            found: None,
        }
    }

    /// The kind of the last frame.
    pub fn frame_kind(&self) -> FrameKind {
        self.frame_kind
    }

    /// Handles one input. [`Flow::Later`] means that nothing was done: the input must come again
    /// after the next outcome, settlement or [`Input::Sent`].
    pub fn on<'f>(&mut self, input: Input<'f>, known: &dyn SessionFacts, effects: &mut Effects<'f>) -> Flow {
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
                Ok(parsed) => self.on_parsed(frame, parsed, known, effects),
                Err(BadRequest) => self.on_unfit(frame, known, effects),
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
            Input::OptedIn(user) => self.on_opted_in(user),
            Input::Settled(settled) => {
                self.settle(&settled, effects);
                Flow::Taken
            }
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

    /// Whether a frame may be processed: nothing that it must wait for is pending, and not too much
    /// is on its way.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready) && self.unsettled.has_room()
    }

    /// Whether stored messages are on their way to the client.
    fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Sending { .. })
    }

    /// Whether all forwarded frames are settled.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    pub(crate) fn note_kind(&mut self, kind: FrameKind) {
        self.frame_kind = kind;
    }

    /// Inlined, so that chat messages are not copied once more.
    #[inline(always)]
    fn on_parsed<'f>(
        &mut self,
        frame: &'f [u8],
        (kind, request): (FrameKind, Request<'f>),
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        self.frame_kind = kind;
        match request {
            Request::Chat { from, to, text } => self.chat(from, to, text, known, effects),
            Request::OldChat { from, to, text } => self.old_chat(from, to, text, known, effects),
            Request::GroupChat { from, group, text } => self.group_chat(from, group, text, known, effects),
            // Every other request has an answer, so everything before it must be settled.
            _ if !self.is_settled() => Flow::Later,
            request => self.on_request(frame, request, known, effects),
        }
    }

    #[inline(never)]
    fn on_request<'f>(
        &mut self,
        frame: &'f [u8],
        request: Request<'f>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'f>,
    ) -> Flow {
        let may_be_of_level2 = match request {
            Request::Login { has_level, .. } => has_level,
            _ => self.frame_kind == FrameKind::OTHER && known.has_level2(),
        };
        if may_be_of_level2 && let Some(flow) = self.on_level2(frame, known, effects) {
            return flow;
        }
        match request {
            Request::Chat { .. } | Request::OldChat { .. } | Request::GroupChat { .. } => Flow::Later,
            Request::Login { user, password, .. } => self.login(user, password, known, effects),
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
            Request::Search { keyword } => {
                let by_name = self.opted_in && level2::finds_by_name(frame);
                self.search(keyword, by_name, effects)
            }
            Request::Fixed(reply) => self.reply(reply, effects),
        }
    }

    /// Handles a frame that is not a request of level 1. It may be a login at level 2, which has
    /// other members.
    #[inline(never)]
    fn on_unfit<'f>(&mut self, frame: &'f [u8], known: &dyn SessionFacts, effects: &mut Effects<'f>) -> Flow {
        if !self.is_settled() {
            return Flow::Later;
        }
        if let Some(flow) = self.on_level2(frame, known, effects) {
            return flow;
        }
        self.frame_kind = FrameKind::INVALID;
        self.reply(protocol::BAD_REQUEST, effects)
    }

    /// Handles a login that opts in to level 2, or one of 60 to 69; `None` for any other frame.
    fn on_level2<'f>(&mut self, frame: &'f [u8], known: &dyn SessionFacts, effects: &mut Effects<'f>) -> Option<Flow> {
        match level2::for_level1(frame)? {
            ForLevel1::OptIn(login) => {
                self.frame_kind = FrameKind::LOGIN;
                Some(self.opt_in(login, effects))
            }
            ForLevel1::Account { msg_type, from, request } if known.has_level2() => {
                self.frame_kind = FrameKind::of(msg_type.into());
                Some(self.account_request(msg_type, from, request, effects))
            }
            ForLevel1::Account { .. } => None,
        }
    }

    fn on_outcome(&mut self, outcome: Outcome, known: &dyn SessionFacts, effects: &mut Effects<'_>) -> Flow {
        if let Outcome::Shown(user, state) = outcome {
            self.shown(user, state, effects);
            return Flow::Taken;
        }
        let Phase::Waiting(awaited) = std::mem::replace(&mut self.phase, Phase::Ready) else {
            unreachable!("an outcome comes to a session that waits for it")
        };
        match (awaited, outcome) {
            (Awaited::Password(user), Outcome::Password(right)) => {
                self.password_checked(user, right.map(|right| right.forgotten), known, effects);
            }
            (Awaited::Place(user), Outcome::Placed) => self.placed(user, known, effects),
            (Awaited::Friends { a, b }, Outcome::Friends(made)) => self.friends_made(a, b, made, effects),
            (Awaited::Members(group), Outcome::Members(members)) => {
                self.found = Some(Box::new(Finding::Members(group, members)))
            }
            (Awaited::Members(_), Outcome::Refused(reply)) => self.found = Some(Box::new(Finding::Refusal(reply))),
            (Awaited::Messages(user), Outcome::Messages { reply, ids }) => self.fetched(user, reply, ids, effects),
            (Awaited::Messages(user), Outcome::Refused(reply)) => self.not_fetched(user, reply, effects),
            (Awaited::MoreMessages(user), Outcome::Messages { reply, ids }) if !ids.is_empty() => {
                self.fetched(user, reply, ids, effects);
            }
            // The client has not requested these, so it gets no answer.
            (Awaited::MoreMessages(user), Outcome::Messages { .. }) => effects.push(Effect::ReleaseMailbox(user)),
            (Awaited::MoreMessages(user), Outcome::Refused(_)) => self.fetch_more_later(user, effects),
            // If the messages could not be deleted, the next fetch returns them again; this client
            // has its answer.
            (Awaited::Deletion(user, count), Outcome::Deleted) => self.deleted(user, count, known, effects),
            (Awaited::Deletion(user, _), Outcome::Refused(_)) => effects.push(Effect::ReleaseMailbox(user)),
            (Awaited::Reply, Outcome::Reply(reply)) => effects.push(Effect::Reply(reply)),
            (Awaited::Password(_) | Awaited::Friends { .. } | Awaited::Reply, Outcome::Refused(reply)) => {
                effects.push(Effect::Reply(reply));
            }
            // The outcome is not printed, because it may contain messages.
            (awaited, _) => unreachable!("{awaited:?} has the outcome of something else"),
        }
        Flow::Taken
    }

    fn on_spread(&mut self) -> Flow {
        // The session may have ended meanwhile.
        if let Phase::Spreading = self.phase {
            self.phase = Phase::Ready;
        }
        Flow::Taken
    }

    /// The same as [`Input::Settled`], for frames whose fate is known as soon as they are
    /// forwarded.
    pub fn settle(&mut self, settled: &Settled, effects: &mut Effects<'_>) {
        let Some(Failures { failed, full }) = self.unsettled.settle(settled) else { return };
        if failed == 0 && !matches!(self.phase, Phase::Settling { .. }) {
            return;
        }
        let refusal = |nth| if nth < full { protocol::MAILBOX_FULL } else { protocol::NOT_KEPT };
        match std::mem::replace(&mut self.phase, Phase::Ready) {
            // Only its own push was on its way.
            Phase::Settling { reply } if failed == 0 => effects.push(Effect::Reply(reply.into())),
            Phase::Settling { .. } => effects.push(Effect::Reply(refusal(0).into())),
            phase => {
                self.phase = phase;
                effects.extend((0..failed).map(|nth| Effect::Reply(refusal(nth).into())));
            }
        }
        self.check_invariants();
    }

    fn on_reminder(&mut self, now: Instant, known: &dyn SessionFacts, effects: &mut Effects<'_>) -> Flow {
        match self.phase {
            // The reminder may belong to another wait.
            Phase::Waiting(Awaited::State { user, state, by }) if by <= now => self.shown(user, state, effects),
            _ => self.on_mailbox_reminder(known, effects),
        }
        Flow::Taken
    }

    /// Handles the end of the input. A client that has closed will hardly read the messages that it
    /// has not received, so they go elsewhere.
    fn on_end(&mut self, effects: &mut Effects<'_>) -> Flow {
        if !self.is_settled() {
            return Flow::Later;
        }
        effects.extend(self.users.drain(..).map(Effect::Detach));
        self.choose_payer();
        self.phase = Phase::Ended;
        Flow::Taken
    }

    /// Handles the shutdown. The client is still there, so its users stay until its output is
    /// written.
    fn on_stop(&mut self) -> Flow {
        if !self.is_settled() {
            return Flow::Later;
        }
        self.phase = Phase::Ended;
        Flow::Taken
    }

    /// Handles a dead connection. Messages for its users go elsewhere immediately. Its rights stay,
    /// because input that it sent before is still processed.
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
        self.choose_payer();
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

    /// Answers, or returns `Later` if an earlier frame is not settled.
    fn reply(&mut self, reply: impl Into<Cow<'static, str>>, effects: &mut Effects<'_>) -> Flow {
        if !self.is_settled() {
            return Flow::Later;
        }
        effects.push(Effect::Reply(reply.into()));
        Flow::Taken
    }

    /// Submits a job for the current request.
    fn submit(&mut self, job: Job, awaited: Awaited, effects: &mut Effects<'_>) -> Flow {
        effects.push(Effect::Submit(job));
        self.phase = Phase::Waiting(awaited);
        Flow::Taken
    }

    /// Counts a frame that is on its way, and returns its id.
    fn count_unsettled(&mut self, bytes: usize) -> FrameId {
        self.unsettled.add(bytes);
        let next = self.next_id.next();
        std::mem::replace(&mut self.next_id, next)
    }

    fn is_compat(&self) -> bool {
        self.auth == Auth::Compat
    }

    pub(crate) fn is_logged_in(&self) -> bool {
        !self.users.is_empty()
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether the client is logged in as the user with this id, possibly among others.
    pub(crate) fn is(&self, id: protocol::Id) -> bool {
        id.user().is_some_and(|user| self.users.contains(&user))
    }

    /// Whether the client may make requests that need any login.
    fn may_ask(&self) -> Result<(), &'static str> {
        if self.is_compat() || self.is_logged_in() { Ok(()) } else { Err(protocol::LOGIN_FIRST) }
    }

    /// Whether the client may act as the user with this id.
    fn may_act_as(&self, id: protocol::Id) -> Result<(), &'static str> {
        self.may_ask()?;
        if self.is_compat() || self.is(id) { Ok(()) } else { Err(protocol::NOT_YOU) }
    }

    pub(crate) fn add_user(&mut self, user: UserId) {
        self.users.retain(|other| *other != user);
        self.users.push(user);
        self.choose_payer();
    }

    fn remove_user(&mut self, user: UserId) {
        self.users.retain(|other| *other != user);
        self.choose_payer();
    }

    fn choose_payer(&mut self) {
        if self.unsettled.is_empty() || self.users.is_empty() {
            self.paying = self.user();
        }
    }

    /// The user with the earliest login of those that the client still is.
    pub fn user(&self) -> Option<UserId> {
        self.users.first().copied()
    }

    /// How often the user of the latest login had been forgotten when the password was checked.
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// The payer of everything that the session uses; `source` is its client's address. It does not
    /// change while frames are under way, even if another connection logs its user out meanwhile.
    pub fn payer(&self, source: Source) -> Payer {
        self.paying.map_or(Payer::Address(source), Payer::Account)
    }

    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            self.unsettled.check_invariants();
            let settling = matches!(self.phase, Phase::Settling { .. });
            assert!(!settling || !self.is_settled(), "a reply waits for something");
        }
    }
}

/// How long a fetch waits for another connection of the same user whose reply makes no progress,
/// and the interval of its checks.
pub const MAILBOX_PATIENCE: Duration = Duration::from_secs(2);
/// How long the answer to a login or logout waits for `User.state`. The client gives up after a
/// second.
pub const STATE_PATIENCE: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests;
