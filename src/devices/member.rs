//! [`Member`]: a connection that is logged in at level 2, without I/O.
//!
//! Frames of the client, news of threads and the time go in; effects come out. What it is shown of
//! conversations is up to its [`Pump`]; requests of level 1 are answered by the session, and only
//! put into their order here.
//!
//! # Order
//! 41s have an order of their own in each conversation, which the pump keeps. All other requests
//! take effect in the order in which they were sent, and their replies leave in that order. A 47 has
//! no reply, but those behind it wait until it is noted. Frames that nobody has asked for have no
//! order among these.
//!
//! # Bounds
//! - A number of requests without an answer; then the connection is not read.
//! - Those of the pump: sends without a 41, synchronisations, output.
//! - A number of conversations in reports that wait to be noted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::effects::{MemberEffect, MemberEffects};
use super::entry::{Admitted, Entry};
use super::heart::{Beat, Heart};
use super::in_turn::{Does, InTurn, Waiting};
use super::marks::ShownMarks;
use super::outlet::Outlet;
use super::reply_order::ReplyOrder;
use super::reports::Reports;
use super::tasks::{Ahead, Identity, MemberNews, MemberTask, Overview};
use super::typing::Typing;
use super::watch::Watch;
use crate::history::answers::Ticket;
use crate::history::pump::{Commands, Pump, PumpEvent, PumpLimits};
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies::{self, Reason};
use crate::protocol::level2::{Frame, Have, HaveItem, Request, Rid};
use crate::protocol::{self, UserId};

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It was processed.
    Taken,
    /// The session is to process it; [`Member::on_reply`] follows for each reply.
    ForSession,
    /// It is for the session, behind a change that is not done yet: it is to be shown again.
    Later,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Member {
    identity: Identity,
    stage: Stage,
    pump: Pump,
    commands: Commands,
    takes_requests: bool,
    replies: ReplyOrder,
    tasks: InTurn<Waiting>,
    /// The conversations that are not shown in a 43 yet, when no thread has them.
    overview: Option<Overview>,
    reports: Reports,
    marks: ShownMarks,
    heart: Heart,
    /// 46s whose heads are not read yet; of one they are being read.
    syncs: VecDeque<MemberTask>,
    is_syncing: bool,
    /// When a frame that has to wait for the limits is shown again.
    paused_until: Option<Instant>,
    outlet: Outlet,
    watch: Watch,
    typing: Typing,
    /// What is tried again when the next reminder comes.
    retry: Option<Retry>,
    /// While the pump is given the heads: what was read with them.
    ahead: Option<Box<Ahead>>,
}

/// A read that has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Retry {
    Pump,
    Overview,
}

#[derive(Debug)]
enum Stage {
    /// Other nodes are being told that messages go here now.
    Placing(Box<Opening>),
    Open,
    Ended,
}

/// What follows once the connection is placed.
#[derive(Debug)]
struct Opening {
    welcome: String,
    have: Have<'static>,
    resume: u32,
}

impl Member {
    /// A device whose row is written. Pushes may come from now on.
    pub fn new(admitted: Admitted, entry: Entry, limits: PumpLimits, now: Instant) -> Member {
        let Admitted { identity, welcome, .. } = admitted;
        let opening = Opening { welcome, have: entry.have, resume: entry.resume };
        Member {
            pump: Pump::new(identity.user, limits),
            identity,
            stage: Stage::Placing(Box::new(opening)),
            commands: Commands::new(),
            takes_requests: false,
            replies: ReplyOrder::default(),
            tasks: InTurn::default(),
            overview: None,
            reports: Reports::default(),
            marks: ShownMarks::default(),
            heart: Heart::new(Duration::from_secs(entry.ping.into()), now),
            syncs: VecDeque::new(),
            is_syncing: false,
            paused_until: None,
            outlet: Outlet::new(limits.output_high),
            watch: Watch::default(),
            typing: Typing::default(),
            retry: None,
            ahead: None,
        }
    }

    /// Its user and device.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Messages of all nodes arrive here: the client is told, and the heads are read.
    pub fn placed(&mut self, effects: &mut MemberEffects) {
        if !matches!(self.stage, Stage::Placing(_)) {
            return;
        }
        let Stage::Placing(opening) = std::mem::replace(&mut self.stage, Stage::Open) else { return };
        let Opening { welcome, have, resume } = *opening;
        self.outlet.write(welcome.into(), effects);
        effects.push(MemberEffect::Do(MemberTask::Heads { have, resume }));
        effects.push(MemberEffect::Remind(self.heart.first()));
    }

    /// The users whom it watches.
    pub fn watched(&self) -> &[UserId] {
        self.watch.users()
    }

    /// Whether the next frame may be processed now.
    pub fn takes_requests(&self) -> bool {
        self.takes_requests && !self.watch.is_under_way() && !self.outlet.is_full() && self.replies.has_room()
    }

    /// A frame was received.
    pub fn on_frame(&mut self, frame: Frame<'_>, now: Instant, effects: &mut MemberEffects) -> Heard {
        self.heart.hear(now);
        let Frame { rid, request, .. } = frame;
        match request {
            Request::Send(send) => self.on_send(send, effects),
            Request::BadSend { conv, cid, refusal } => self.on_bad_send(conv, cid.as_deref(), refusal, effects),
            Request::Level1(Ok(protocol::Request::Login { .. })) | Request::Login(_) => {
                self.refuse(40, LOGGED_IN, rid.as_ref(), effects);
            }
            Request::Level1(Ok(protocol::Request::Fixed(reply))) => self.reply(reply, rid.as_ref(), effects),
            Request::Level1(Ok(protocol::Request::Logout { user })) if user.user() == Some(self.identity.user) => {
                let ticket = self.replies.open();
                self.do_in_turn(ticket, Does::Change, MemberTask::LogOut(ticket, rid), effects);
            }
            Request::Level1(Ok(_)) if self.tasks.is_changing() => return Heard::Later,
            Request::Level1(Ok(_)) => {
                self.replies.open_for_session(rid);
                return Heard::ForSession;
            }
            Request::Level1(Err(protocol::BadRequest)) => self.reply(protocol::BAD_REQUEST, rid.as_ref(), effects),
            Request::Refused(msg_type, refusal) => self.refuse(msg_type, refusal, rid.as_ref(), effects),
            Request::Sync { have, resume } => {
                self.pump.on_sync(&mut self.commands);
                let have = have.into_iter().map(HaveItem::into_owned).collect();
                self.syncs.push_back(MemberTask::Sync { have, resume, rid });
                self.sync_next(effects);
            }
            Request::Report(stored) => {
                self.reports.add(stored);
                let ticket = self.replies.open();
                self.note_in_turn(ticket, effects);
            }
            Request::Page { conv, ask, limit } => {
                let ticket = self.replies.open_page();
                self.do_in_turn(ticket, Does::Read, MemberTask::Page(ticket, rid, conv, ask, limit), effects);
            }
            Request::Read { conv, read } => {
                let ticket = self.replies.open();
                self.marks.asks(ticket, conv.for_user(self.identity.user));
                let task = MemberTask::MarkRead(ticket, rid, conv, read.max(0));
                self.do_in_turn(ticket, Does::Change, task, effects);
            }
            Request::Typing { conv } if self.typing.is_due(conv, now) => {
                effects.push(MemberEffect::Do(MemberTask::Typing(conv)));
            }
            Request::Typing { .. } => {}
            Request::Ping => self.answer(replies::pong(rid.as_ref()), effects),
            Request::Pong => {}
            Request::Watch(users) => self.on_watch(users, rid, effects),
            Request::Find { .. } => self.refuse(58, NOT_HERE, rid.as_ref(), effects),
            Request::Account { what, .. } => {
                let ticket = self.replies.open();
                let task = MemberTask::Account(ticket, rid, Box::new(what.into_owned()));
                self.do_in_turn(ticket, Does::Change, task, effects);
            }
        }
        self.carry_out(effects);
        Heard::Taken
    }

    /// Bytes were received.
    pub fn hear(&mut self, now: Instant) {
        self.heart.hear(now);
    }

    /// Its next frame has to wait for this time, because of the limits. Returns whether it is to be
    /// shown again then: not if that is so already.
    pub fn pauses(&mut self, now: Instant, pause: Duration) -> bool {
        let is_new = self.paused_until.is_none_or(|until| until <= now);
        if is_new {
            self.paused_until = Some(now + pause);
        }
        is_new
    }

    /// Input was received that is no frame.
    pub fn on_garbage(&mut self, now: Instant, effects: &mut MemberEffects) {
        self.heart.hear(now);
        self.reply(protocol::BAD_REQUEST, None, effects);
    }

    /// The session has answered a request of level 1.
    pub fn on_reply(&mut self, reply: &str, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        self.replies.settle_of_session(reply);
        self.write_replies(effects);
    }

    /// Something has happened that concerns the pump alone.
    pub fn on_event(&mut self, event: PumpEvent, effects: &mut MemberEffects) {
        if !matches!(self.stage, Stage::Ended) {
            self.pump.on(event, &mut self.commands);
            self.carry_out(effects);
        }
    }

    /// Something has happened elsewhere.
    pub fn on_news(&mut self, news: MemberNews, effects: &mut MemberEffects) {
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
            MemberNews::Pump(events) => {
                for event in events {
                    self.pump.on(event, &mut self.commands);
                }
            }
            MemberNews::Heads(heads, overview, ahead) => {
                self.overview = Some(overview);
                self.ahead = Some(Box::new(ahead));
                self.pump.on(PumpEvent::Heads(heads), &mut self.commands);
                self.carry_out(effects);
                self.ahead = None;
            }
            MemberNews::Overview(frame, rest) => {
                self.on_overview(frame, rest, effects);
            }
            MemberNews::OverviewFailed(rest) => {
                self.overview = Some(rest);
                self.retry_later(Retry::Overview, effects);
            }
            MemberNews::Answer(ticket, text) => self.settle(ticket, text, effects),
            MemberNews::MarkAnswer(ticket, text, found) => {
                self.marks.found(found);
                self.settle(ticket, text, effects);
            }
            MemberNews::Marks(conv, news) => self.marks.hear(conv, news),
            MemberNews::Reported(ticket, stored, noted) => {
                self.reports.noted(stored, noted);
                self.settle(ticket, NO_REPLY, effects);
            }
            // They are the first to be dropped for a client that does not take its output, and nothing
            // comes before the 40.
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
            MemberNews::End(reason) => return self.end(reason, effects),
        }
        self.carry_out(effects);
        self.show_marks(effects);
    }

    /// A watched user has come or gone.
    fn on_presence(&mut self, user: UserId, online: bool, effects: &mut MemberEffects) {
        if self.watch.shows(user, online) && !self.outlet.is_full() {
            self.outlet.write(replies::presence(user, online).into(), effects);
        }
    }

    /// A frame that reports its arrival has arrived; this number of bytes have not.
    pub fn on_taken(&mut self, waiting: usize, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        self.outlet.taken(waiting);
        self.do_next(effects);
        self.pump.on(PumpEvent::Output(waiting), &mut self.commands);
        self.carry_out(effects);
        self.show_marks(effects);
    }

    /// Some time has passed. `waiting`: bytes that have not arrived at the client.
    pub fn on_time(&mut self, now: Instant, waiting: usize, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        match self.heart.beat(now, waiting > 0) {
            None => {}
            Some(Beat::Wait(after)) => effects.push(MemberEffect::Remind(after)),
            Some(Beat::Ask(after)) => {
                self.outlet.write(replies::PING.into(), effects);
                effects.push(MemberEffect::Remind(after));
            }
            Some(Beat::Stop) => return self.end(Reason::Idle, effects),
        }
        match self.retry.take() {
            None => {}
            Some(Retry::Pump) => self.pump.on(PumpEvent::Retry, &mut self.commands),
            Some(Retry::Overview) => {
                effects.extend(self.overview.take().map(|rest| MemberEffect::Do(MemberTask::Overview(rest))));
            }
        }
        self.carry_out(effects);
    }

    /// The connection ends.
    pub fn end(&mut self, reason: Reason, effects: &mut MemberEffects) {
        if !matches!(self.stage, Stage::Ended) {
            self.stage = Stage::Ended;
            self.takes_requests = false;
            effects.push(MemberEffect::End(reason));
        }
    }

    /// Whether everything that it was asked is answered.
    pub fn is_settled(&self) -> bool {
        self.replies.is_empty() && self.pump.open_sends() == 0
    }

    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Whether its last frame is written.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Answers a request at once, behind the answers of earlier ones.
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
        for (conv, news) in self.marks.release(|ticket| self.replies.has_left(ticket)) {
            self.outlet.write(news.frame(conv.name_for(user), user).into(), effects);
        }
    }

    fn settle(&mut self, ticket: Ticket, text: String, effects: &mut MemberEffects) {
        self.replies.settle(ticket, text);
        self.done(ticket, effects);
    }

    fn write_replies(&mut self, effects: &mut MemberEffects) {
        // A reply of several frames goes on when the client has taken those before.
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

    /// Their heads are read one after the other.
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

/// In the place of the reply to a 47.
const NO_REPLY: String = String::new();
/// The pause after the store could not be read.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// 404 for a recipient who does not exist.
pub const NO_SUCH_USER: Refusal = Refusal::forever(404, "there is no such user");
/// 404 for a group that does not exist.
pub const NO_SUCH_GROUP: Refusal = Refusal::forever(404, "there is no such group");
/// 403 for a message in another user's name.
pub const NOT_YOU: Refusal = Refusal::forever(403, "FROMID must be your id");
const LOGGED_IN: Refusal = Refusal::forever(400, "you are logged in, open another connection for another login");
const NOT_HERE: Refusal = Refusal::forever(404, "this server does not do that");

mod sending;
mod showing;
#[cfg(test)]
mod tests;
mod turns;
