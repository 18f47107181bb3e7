//! [`Member`]: a connection that is logged in at level 2, without I/O.
//!
//! Frames of the client, news from threads and the time go in; effects come out. Its [`Pump`]
//! decides which messages of conversations the client is shown. Requests of level 1 are answered by
//! the session, one after the other, and only put into order here.
//!
//! # Order
//! 41s have their own order in each conversation, which the pump keeps. All other requests take
//! effect in the order sent, and their replies leave in that order. A 47 has no reply, but later
//! requests wait until it is noted. Nothing behind a 3 is read unless the 3 fails. Frames that
//! nobody requested have no order among these.
//!
//! # Bounds
//! - A number of unanswered requests; beyond it, the connection is not read.
//! - The bounds of the pump: sends without a 41, synchronisations, output.
//! - A number of conversations in reports that wait to be noted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::effects::{MemberEffect, MemberEffects};
use super::entry::{AdmittedDevice, PendingLogin};
use super::for_session::ForSession;
use super::heart::{Beat, Heart};
use super::in_turn::{Does, InTurn, QueuedRequest};
use super::marks::ShownMarks;
use super::outlet::Outlet;
use super::reply_order::ReplyOrder;
use super::reports::Reports;
use super::stage::{FirstFrames, Stage};
use super::tasks::{Ahead, FoundMark, Identity, MemberNews, MemberTask, NamedConversation, Overview};
use super::typing::Typing;
use super::watch::StateWatch;
use crate::base::conversation::{ConversationId, ConversationName};
use crate::history::answers::Ticket;
use crate::history::pump::{Commands, Pump, PumpEvent, PumpLimits};
use crate::protocol::level2::frames::{MarkNews, Refusal};
use crate::protocol::level2::replies::{self, Reason};
use crate::protocol::level2::{Frame, HaveItem, Level2Request, Rid};
use crate::protocol::{self, Id, UserId};

/// See the [module](self).
#[derive(Debug)]
pub struct Member {
    identity: Identity,
    stage: Stage,
    pump: Pump,
    commands: Commands,
    takes_requests: bool,
    replies: ReplyOrder,
    tasks: InTurn<QueuedRequest>,
    for_session: ForSession,
    /// The conversations that no 43 has shown yet, unless a thread is using them.
    overview: Option<Overview>,
    reports: Reports,
    marks: ShownMarks,
    heart: Heart,
    /// The 46s whose heads are not read yet. Those of one are being read.
    syncs: VecDeque<MemberTask>,
    is_syncing: bool,
    /// The time at which a frame that waits for the limits is shown again.
    paused_until: Option<Instant>,
    outlet: Outlet,
    watch: StateWatch,
    typing: Typing,
    /// The read to retry at the next reminder.
    retry: Option<Retry>,
    /// The last 3 of this device that was read.
    logout: Option<Ticket>,
    /// The data that was read with the heads, while the pump handles the heads.
    ahead: Option<Box<Ahead>>,
}

/// A read that has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Retry {
    Pump,
    Overview,
}

impl Member {
    /// The connection of a device whose row is written. Pushes may come from now on.
    pub fn new(admitted: AdmittedDevice, entry: PendingLogin, limits: PumpLimits, now: Instant) -> Member {
        let AdmittedDevice { identity, welcome, .. } = admitted;
        let opening = FirstFrames { welcome, have: entry.have, resume: entry.resume };
        Member {
            pump: Pump::new(identity.user, limits),
            identity,
            stage: Stage::Placing(Box::new(opening)),
            commands: Commands::new(),
            takes_requests: false,
            replies: ReplyOrder::default(),
            tasks: InTurn::default(),
            for_session: ForSession::default(),
            overview: None,
            reports: Reports::default(),
            marks: ShownMarks::default(),
            heart: Heart::new(Duration::from_secs(entry.ping.into()), now),
            syncs: VecDeque::new(),
            is_syncing: false,
            paused_until: None,
            outlet: Outlet::new(limits.output_high),
            watch: StateWatch::default(),
            typing: Typing::default(),
            retry: None,
            logout: None,
            ahead: None,
        }
    }

    /// The user and the device.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Notes that messages of all nodes arrive here: the client gets its reply, and the heads are
    /// read.
    pub fn placed(&mut self, effects: &mut MemberEffects) {
        if !matches!(self.stage, Stage::Placing(_)) {
            return;
        }
        let Stage::Placing(opening) = std::mem::replace(&mut self.stage, Stage::Open) else { return };
        let FirstFrames { welcome, have, resume } = *opening;
        self.outlet.write(welcome.into(), effects);
        effects.push(MemberEffect::Do(MemberTask::Heads { have, resume }));
        effects.push(MemberEffect::Remind(self.heart.first()));
    }

    /// The users whom the client watches.
    pub fn watched(&self) -> &[UserId] {
        self.watch.users()
    }

    /// Whether the next frame may be processed now.
    pub fn takes_requests(&self) -> bool {
        self.takes_requests
            && !self.is_logging_out()
            && !self.watch.is_under_way()
            && !self.outlet.is_full()
            && self.replies.has_room()
            && self.for_session.has_room()
    }

    /// Handles a frame of the client, which has these bytes.
    pub fn on_frame(&mut self, frame: Frame<'_>, bytes: &[u8], now: Instant, effects: &mut MemberEffects) {
        let Frame { rid, request, .. } = frame;
        match request {
            Level2Request::Send(send) => self.on_send(send, effects),
            Level2Request::BadSend { conv, cid, refusal } => self.on_bad_send(conv, cid.as_deref(), refusal, effects),
            Level2Request::Level1(Ok(protocol::Request::Login { .. })) | Level2Request::Login(_) => {
                self.refuse(40, LOGGED_IN, rid.as_ref(), effects);
            }
            Level2Request::Level1(Ok(protocol::Request::Fixed(reply))) => self.reply(reply, rid.as_ref(), effects),
            Level2Request::Level1(Ok(protocol::Request::Logout { user }))
                if user.user() == Some(self.identity.user) =>
            {
                self.on_log_out(rid, effects);
            }
            Level2Request::Level1(Ok(_)) => self.have_session_process(bytes.into(), rid, effects),
            Level2Request::Level1(Err(protocol::BadRequest)) => {
                self.reply(protocol::BAD_REQUEST, rid.as_ref(), effects)
            }
            Level2Request::Refused(msg_type, refusal) => self.refuse(msg_type, refusal, rid.as_ref(), effects),
            Level2Request::Sync { have, resume } => {
                self.pump.on_sync(&mut self.commands);
                let have = have.into_iter().map(HaveItem::into_owned).collect();
                self.syncs.push_back(MemberTask::Sync { have, resume, rid });
                self.sync_next(effects);
            }
            Level2Request::Report(stored) => {
                self.reports.add(stored);
                let ticket = self.replies.open();
                self.note_in_turn(ticket, effects);
            }
            Level2Request::Page { conv, ask, limit } => {
                let ticket = self.replies.open_page();
                let task = MemberTask::Page(ticket, rid, self.named(conv), ask, limit);
                self.do_in_turn(ticket, Does::Read, task, effects);
            }
            Level2Request::Read { conv, read } => self.on_read(conv, read, rid, effects),
            Level2Request::Typing { conv } if self.typing.is_due(conv, now) => {
                effects.push(MemberEffect::Do(MemberTask::Typing(conv)));
            }
            Level2Request::Typing { .. } => {}
            Level2Request::Ping => self.answer(replies::pong(rid.as_ref()), effects),
            Level2Request::Pong => {}
            Level2Request::Watch(users) => self.on_watch(users, rid, effects),
            Level2Request::Find { .. } => self.refuse(58, NOT_HERE, rid.as_ref(), effects),
            Level2Request::Account { what, .. } => {
                let ticket = self.replies.open();
                let task = MemberTask::Account(ticket, rid, Box::new(what.into_owned()));
                self.do_in_turn(ticket, Does::Change, task, effects);
            }
        }
        self.carry_out(effects);
    }

    /// Notes that the next frame has to wait this long because of the limits. Returns whether the
    /// caller must arrange to show it again: not if that is arranged already.
    pub fn pauses(&mut self, now: Instant, pause: Duration) -> bool {
        let is_new = self.paused_until.is_none_or(|until| until <= now);
        if is_new {
            self.paused_until = Some(now + pause);
        }
        is_new
    }

    /// Handles input that is not a frame.
    pub fn on_garbage(&mut self, effects: &mut MemberEffects) {
        self.reply(protocol::BAD_REQUEST, None, effects);
    }

    /// Takes the session's reply to a request of level 1.
    pub fn on_reply(&mut self, reply: &str, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        if let Some(ticket) = self.replies.settle_of_session(reply) {
            self.done(ticket, effects);
        }
    }

    /// Handles an event that concerns only the pump.
    pub fn on_event(&mut self, event: PumpEvent, effects: &mut MemberEffects) {
        if !matches!(self.stage, Stage::Ended) {
            self.pump.on(event, &mut self.commands);
            self.carry_out(effects);
            // The event may have ended a run for which marks have waited.
            self.show_marks(effects);
            self.end_after_logout(effects);
        }
    }

    /// Handles news from elsewhere.
    pub fn on_news(&mut self, news: MemberNews, now: Instant, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        match news {
            MemberNews::Synced(event) => {
                self.is_syncing = false;
                self.pump.on(event, &mut self.commands);
                self.sync_next(effects);
            }
            MemberNews::PageAnswer(ticket, text) => {
                self.replies.settle_page(ticket, text);
                self.done(ticket, effects);
            }
            MemberNews::Pump(events) => events.into_iter().for_each(|event| self.pump.on(event, &mut self.commands)),
            MemberNews::Heads(heads, overview, ahead) => {
                self.overview = Some(overview);
                self.ahead = Some(Box::new(ahead));
                self.pump.on(PumpEvent::Heads(heads), &mut self.commands);
                self.carry_out(effects);
                self.ahead = None;
            }
            MemberNews::Overview(frame, rest) => self.on_overview(frame, rest, effects),
            MemberNews::OverviewFailed(rest) => {
                self.overview = Some(rest);
                self.retry_later(Retry::Overview, effects);
            }
            MemberNews::Answer(ticket, text) => self.settle(ticket, text, effects),
            MemberNews::MarkAnswer(ticket, text, found) => self.on_mark_answer(ticket, text, found, effects),
            MemberNews::Marks(conv, news) => self.marks.hear(conv, news),
            MemberNews::MarksRead(now) => self.on_marks_read(now, effects),
            MemberNews::Reported(ticket, stored, noted) => {
                self.reports.noted(stored, noted);
                self.settle(ticket, NO_REPLY, effects);
            }
            // These frames are the first to be dropped for a client that does not take its output.
            // Nothing comes before the 40.
            MemberNews::Show(frame) if self.is_open() && !self.outlet.is_full() => self.outlet.write(frame, effects),
            MemberNews::Show(_) => {}
            MemberNews::Presence(user, online) => self.on_presence(user, online, effects),
            MemberNews::Watching => {
                self.watch.known();
                self.show_held(effects);
            }
            MemberNews::NotWatching(ticket, text, before) => {
                self.watch.undo(before);
                self.settle(ticket, text, effects);
            }
            MemberNews::LoggedOut(ticket, text) => self.on_logged_out(ticket, text, now, effects),
            MemberNews::End(reason) => return self.on_end(reason, effects),
        }
        self.carry_out(effects);
        self.show_marks(effects);
        self.end_after_logout(effects);
    }

    /// Settles a request of a read mark; the mark that was found may be void by now.
    fn on_mark_answer(&mut self, ticket: Ticket, text: String, found: Option<FoundMark>, effects: &mut MemberEffects) {
        let text = match found {
            Some(FoundMark { conv, read, rid }) if !self.marks.found(conv, read) => {
                replies::refused(49, MARK_IS_VOID, rid.as_ref())
            }
            _ => text,
        };
        self.settle(ticket, text, effects);
    }

    /// Takes the requested marks; `None` if they could not be read.
    fn on_marks_read(&mut self, now: Option<Vec<(ConversationId, MarkNews)>>, effects: &mut MemberEffects) {
        match now {
            Some(now) => {
                if self.marks.restate(now) {
                    effects.push(MemberEffect::Remind(RETRY_AFTER));
                }
            }
            None => {
                self.marks.restate_later();
                effects.push(MemberEffect::Remind(RETRY_AFTER));
            }
        }
    }

    /// Handles a change of a watched user's state.
    fn on_presence(&mut self, user: UserId, online: bool, effects: &mut MemberEffects) {
        if self.watch.shows(user, online) && !self.outlet.is_full() {
            self.outlet.write(replies::presence(Id(user.0.into()), online).into(), effects);
        }
    }

    /// Notes that a frame that reports its arrival has arrived, and that this number of bytes have
    /// not.
    pub fn on_taken(&mut self, waiting: usize, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        self.outlet.taken(waiting);
        self.do_next(effects);
        self.pump.on(PumpEvent::Output(waiting), &mut self.commands);
        self.carry_out(effects);
        self.show_marks(effects);
        self.end_after_logout(effects);
    }

    /// Handles a reminder. `heard`: the time at which bytes last arrived from the client.
    /// `waiting`: the bytes that have not arrived at the client.
    pub fn on_time(&mut self, now: Instant, heard: Instant, waiting: usize, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        if let Stage::LoggedOut(ends_by) = self.stage
            && ends_by <= now
        {
            return self.end(Reason::Logout, effects);
        }
        match self.heart.beat(now, heard, waiting > 0) {
            None => {}
            Some(Beat::Wait(after)) => effects.push(MemberEffect::Remind(after)),
            Some(Beat::Ask(after)) => {
                self.outlet.write(replies::PING.into(), effects);
                effects.push(MemberEffect::Remind(after));
            }
            Some(Beat::Stop) => return self.end(Reason::Idle, effects),
        }
        self.marks.go_on();
        self.ask_for_marks(effects);
        match self.retry.take() {
            None => {}
            Some(Retry::Pump) => self.pump.on(PumpEvent::Retry, &mut self.commands),
            Some(Retry::Overview) => {
                effects.extend(self.overview.take().map(|rest| MemberEffect::Do(MemberTask::Overview(rest))));
            }
        }
        self.carry_out(effects);
    }

    /// Ends the connection.
    pub fn end(&mut self, reason: Reason, effects: &mut MemberEffects) {
        if !matches!(self.stage, Stage::Ended) {
            self.stage = Stage::Ended;
            self.takes_requests = false;
            effects.push(MemberEffect::End(reason));
        }
    }

    /// Whether every request is answered.
    pub fn is_settled(&self) -> bool {
        self.replies.is_empty() && self.pump.open_sends() == 0
    }

    /// The conversation that a request names.
    fn named(&self, name: ConversationName) -> NamedConversation {
        NamedConversation { name, shown: self.pump.shown(name.for_user(self.identity.user)) }
    }

    /// Whether the login is complete, and the last frame is not written.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Whether the last frame is written.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Answers a request at once, after the answers to earlier ones.
    fn answer(&mut self, text: String, effects: &mut MemberEffects) {
        let ticket = self.replies.open();
        self.settle(ticket, text, effects);
    }

    fn reply(&mut self, reply: &str, rid: Option<&Rid>, effects: &mut MemberEffects) {
        self.answer(replies::with_rid(reply, rid), effects);
    }

    fn refuse(&mut self, msg_type: u16, refusal: Refusal, rid: Option<&Rid>, effects: &mut MemberEffects) {
        self.answer(replies::refused(msg_type, refusal, rid), effects);
    }

    /// Shows the marks that have risen, unless the client does not take its output.
    fn show_marks(&mut self, effects: &mut MemberEffects) {
        if self.outlet.is_full() {
            return;
        }
        let user = self.identity.user;
        for (conv, news) in self.marks.release(|ticket| self.replies.has_left(ticket), |conv| self.pump.has_run(conv)) {
            self.outlet.write(news.frame(conv.name_for(user), user).into(), effects);
        }
        self.ask_for_marks(effects);
    }

    fn settle(&mut self, ticket: Ticket, text: String, effects: &mut MemberEffects) {
        self.replies.settle(ticket, text);
        self.done(ticket, effects);
    }

    fn write_replies(&mut self, effects: &mut MemberEffects) {
        // A reply of several frames continues when the client has taken the earlier ones.
        while !(self.replies.is_amid_a_reply() && self.outlet.is_full())
            && let Some(frame) = self.replies.next_frame()
        {
            self.outlet.write(frame, effects);
        }
        self.show_held(effects);
    }

    /// Shows the states that have waited for the reply to their 52.
    fn show_held(&mut self, effects: &mut MemberEffects) {
        for (user, online) in self.watch.release(|ticket| self.replies.has_left(ticket)) {
            self.outlet.write(replies::presence(user, online).into(), effects);
        }
    }

    /// Reads the heads of the next 46, one after the other.
    fn sync_next(&mut self, effects: &mut MemberEffects) {
        if !self.is_syncing
            && let Some(task) = self.syncs.pop_front()
        {
            self.is_syncing = true;
            effects.push(MemberEffect::Do(task));
        }
    }

    fn retry_later(&mut self, retry: Retry, effects: &mut MemberEffects) {
        self.retry = Some(retry);
        effects.push(MemberEffect::Remind(RETRY_AFTER));
    }
}

mod leaving;
mod sending;
mod showing;
#[cfg(test)]
mod tests;
mod turns;

/// Stands in for the reply to a 47.
const NO_REPLY: String = String::new();
/// The pause after a failed read of the store.
const RETRY_AFTER: Duration = Duration::from_millis(500);

const LOGGED_IN: Refusal = Refusal::forever(400, "you are logged in, open another connection for another login");
const NOT_HERE: Refusal = Refusal::forever(404, "this server does not do that");
/// The refusal of a 49 during which the database has lost messages of the conversation.
const MARK_IS_VOID: Refusal =
    Refusal { errno: 503, errmsg: "messages were lost meanwhile, try again", retry_after: Some(1000) };
