//! [`Member`]: a connection that is logged in at level 2, without I/O.
//!
//! Frames of the client, news of threads and the time go in; effects come out. What it is shown of
//! conversations is up to its [`Pump`]; requests of level 1 are answered by the session, and only
//! put into their order here.
//!
//! # Order
//! 41s have an order of their own in each conversation, which the pump keeps. All other replies
//! leave in the order of their requests. Frames that nobody has asked for have no order among these.
//!
//! # Bounds
//! - [`ANSWERS_MAX`] requests without an answer; then the connection is not read.
//! - Those of the pump: sends without a 41, synchronisations, output.
//! - [`REPORTED_MAX`] conversations in reports that wait to be noted. A report beyond that is
//!   passed over, which delivers nothing less.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::entry::{Admitted, Entry};
use super::heart::{Beat, Heart};
use super::tasks::{Identity, MemberNews, MemberTask, Noted, Overview};
use crate::base::conversation::{ConversationId, ConversationName, Seq};
use crate::history::answers::{Answers, Ticket};
use crate::history::pump::{Command, Commands, Pump, PumpEvent, PumpLimits, Submission};
use crate::protocol::level2::frames::{self, Refusal};
use crate::protocol::level2::replies::{self, Reason};
use crate::protocol::level2::{Change, Frame, Have, HaveItem, Request, Rid, Send};
use crate::protocol::{self, Id, Sender, UserId};
use crate::store::history::{Cid, EntryKind, FrameHash};

/// The most requests of a connection without an answer.
pub const ANSWERS_MAX: usize = 64;
/// The most 48s of a connection at work: each page has up to 256 KiB.
pub const PAGES_MAX: usize = 4;
/// The most conversations in reports that wait to be noted.
pub const REPORTED_MAX: usize = 4096;

/// What is to be done, in this order.
#[derive(Debug)]
pub enum MemberEffect {
    /// Send a frame.
    Write(Arc<str>),
    /// The same, and report [`Member::on_taken`] when it has arrived.
    WriteAndReport(Arc<str>),
    /// Do this on a thread.
    Do(MemberTask),
    /// Commit this.
    Send(Box<Outgoing>),
    /// Call [`Member::on_time`] after this time.
    Remind(Duration),
    /// Write the 55 and close the connection.
    End(Reason),
}

/// Effects, in their order.
pub type MemberEffects = SmallVec<[MemberEffect; 4]>;

/// A message to be committed.
#[derive(Debug)]
pub struct Outgoing {
    /// The conversation.
    pub conv: ConversationId,
    /// Its number on this connection.
    pub submission: Submission,
    /// What it is.
    pub kind: EntryKind,
    /// The client's id of it.
    pub cid: Cid,
    /// Of its bytes.
    pub hash: FrameHash,
    /// What is stored.
    pub text: Arc<str>,
    /// What recipients at level 1 get, if anything.
    pub forward: Option<Arc<str>>,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It was processed.
    Taken,
    /// The session is to process it; [`Member::on_reply`] follows for each reply.
    ForSession,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Member {
    identity: Identity,
    stage: Stage,
    pump: Pump,
    commands: Commands,
    takes_requests: bool,
    answers: Answers<String>,
    /// Requests that the session answers next.
    asked_of_session: VecDeque<(Ticket, Option<Rid>)>,
    /// The conversations that are not shown in a 43 yet, when no thread has them.
    overview: Option<Overview>,
    reports: Reports,
    heart: Heart,
    /// 46s whose heads are not read yet; of one they are being read.
    syncs: VecDeque<MemberTask>,
    is_syncing: bool,
    /// 48s at work.
    pages: usize,
    /// When a frame that has to wait for the limits is shown again.
    paused_until: Option<Instant>,
    /// Bytes that the client has not taken, as far as is known.
    waiting: usize,
    output_high: usize,
    /// The users who are watched; a change of them is under way.
    watched: Arc<[UserId]>,
    is_watching: bool,
    /// When a typing was last passed on, per conversation.
    typed: SmallVec<[(ConversationName, Instant); 2]>,
    /// What is tried again when the next reminder comes.
    retry: Option<Retry>,
    /// Bytes written since a frame that reports its arrival.
    unmarked: usize,
    mark_every: usize,
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

/// 47s that wait to be noted.
#[derive(Debug, Default)]
struct Reports {
    waiting: BTreeMap<ConversationName, Seq>,
    is_noting: bool,
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
            answers: Answers::default(),
            asked_of_session: VecDeque::new(),
            overview: None,
            reports: Reports::default(),
            heart: Heart::new(Duration::from_secs(entry.ping.into()), now),
            syncs: VecDeque::new(),
            is_syncing: false,
            pages: 0,
            paused_until: None,
            waiting: 0,
            output_high: limits.output_high,
            watched: [].into(),
            is_watching: false,
            typed: SmallVec::new(),
            retry: None,
            unmarked: 0,
            mark_every: limits.output_high / 2,
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
        self.write(welcome.into(), effects);
        effects.push(MemberEffect::Do(MemberTask::Heads { have, resume }));
        effects.push(MemberEffect::Remind(self.heart.first()));
    }

    /// The users whom it watches.
    pub fn watched(&self) -> &[UserId] {
        &self.watched
    }

    /// Whether the next frame may be processed now.
    pub fn takes_requests(&self) -> bool {
        self.takes_requests
            && !self.is_watching
            && self.pages < PAGES_MAX
            && self.waiting <= self.output_high
            && self.answers.open_count() < ANSWERS_MAX
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
                let ticket = self.answers.open();
                effects.push(MemberEffect::Do(MemberTask::LogOut(ticket, rid)));
            }
            Request::Level1(Ok(_)) => {
                let ticket = self.answers.open();
                self.asked_of_session.push_back((ticket, rid));
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
            Request::Report(stored) => self.on_report(stored, effects),
            Request::Page { conv, ask, limit } => {
                let ticket = self.answers.open();
                self.pages += 1;
                effects.push(MemberEffect::Do(MemberTask::Page(ticket, rid, conv, ask, limit)));
            }
            Request::Read { conv, read } => {
                let ticket = self.answers.open();
                effects.push(MemberEffect::Do(MemberTask::MarkRead(ticket, rid, conv, read.max(0))));
            }
            Request::Typing { conv } => self.on_typing(conv, now, effects),
            Request::Ping => self.answer(replies::pong(rid.as_ref()), effects),
            Request::Pong => {}
            Request::Watch(users) => self.on_watch(users, rid, effects),
            Request::Find { .. } => self.refuse(58, NOT_HERE, rid.as_ref(), effects),
            Request::Account { what, .. } => {
                let ticket = self.answers.open();
                effects.push(MemberEffect::Do(MemberTask::Account(ticket, rid, Box::new(what.into_owned()))));
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
        let Some((ticket, rid)) = self.asked_of_session.pop_front() else { return };
        self.settle(ticket, replies::with_rid(reply, rid.as_ref()), effects);
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
                self.pages = self.pages.saturating_sub(1);
                self.settle(ticket, text, effects);
            }
            MemberNews::Pump(events) => {
                for event in events {
                    self.pump.on(event, &mut self.commands);
                }
            }
            MemberNews::Heads(heads, overview) => {
                self.overview = Some(overview);
                self.pump.on(PumpEvent::Heads(heads), &mut self.commands);
            }
            MemberNews::Overview(frame, rest) => {
                let more = rest.shown < rest.heads.len();
                self.overview = more.then_some(rest);
                self.pump.on(PumpEvent::Overview { frame, more }, &mut self.commands);
            }
            MemberNews::OverviewFailed(rest) => {
                self.overview = Some(rest);
                self.retry_later(Retry::Overview, effects);
            }
            MemberNews::Answer(ticket, text) => self.settle(ticket, text, effects),
            MemberNews::Reported(stored, noted) => self.on_reported(stored, noted, effects),
            // They are the first to be dropped for a client that does not take its output.
            MemberNews::Show(frame) if self.waiting <= self.output_high => self.write(frame, effects),
            MemberNews::Show(_) => {}
            MemberNews::Watching => self.is_watching = false,
            MemberNews::NotWatching(ticket, text, before) => {
                (self.is_watching, self.watched) = (false, before);
                self.settle(ticket, text, effects);
            }
            MemberNews::End(reason) => return self.end(reason, effects),
        }
        self.carry_out(effects);
    }

    /// A frame that reports its arrival has arrived; this number of bytes have not.
    pub fn on_taken(&mut self, waiting: usize, effects: &mut MemberEffects) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        self.waiting = waiting;
        self.pump.on(PumpEvent::Output(waiting), &mut self.commands);
        self.carry_out(effects);
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
                self.write(replies::PING.into(), effects);
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
        self.answers.open_count() == 0 && self.pump.open_sends() == 0
    }

    /// Whether its last frame is written.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    fn on_send(&mut self, send: Send<'_>, effects: &mut MemberEffects) {
        let (user, cid) = (self.identity.user, &*send.cid);
        let Some(name) = send.conv else {
            let refusal = if send.msg_type == 9 { NO_SUCH_GROUP } else { NO_SUCH_USER };
            return self.write(frames::send_refused(Some(cid), refusal).into(), effects);
        };
        let conv = name.for_user(user);
        let is_own = match send.from {
            None => true,
            Some(Sender::Claimed(id)) => id.user() == Some(user),
            Some(Sender::Malformed) => false,
        };
        if !is_own {
            return self.on_bad_send(Some(name), Some(cid), NOT_YOU, effects);
        }
        let Some(stored_cid) = Cid::of_client(cid) else { return };
        let Some(submission) = self.pump.on_send(conv, cid, &mut self.commands) else { return };
        let kind = match send.change {
            Some(Change::Edit(target)) => EntryKind::Edit(target),
            Some(Change::Recall(target)) => EntryKind::Recall(target),
            None if send.msg_type == 5 => EntryKind::Other,
            None => EntryKind::Message,
        };
        let text: Arc<str> = send.stored().into();
        let forward = send.change.is_none().then(|| match send.forward.text() {
            forward if *forward == *text => text.clone(),
            forward => forward.into(),
        });
        let hash = FrameHash::of(send.frame.as_bytes());
        let outgoing = Outgoing { conv, submission, kind, cid: stored_cid, hash, text, forward };
        effects.push(MemberEffect::Send(Box::new(outgoing)));
    }

    fn on_bad_send(
        &mut self,
        conv: Option<ConversationName>,
        cid: Option<&str>,
        refusal: Refusal,
        effects: &mut MemberEffects,
    ) {
        match conv {
            Some(name) => {
                let conv = name.for_user(self.identity.user);
                self.pump.on_bad_send(conv, cid, refusal, &mut self.commands);
            }
            None => self.write(frames::send_refused(cid, refusal).into(), effects),
        }
    }

    fn on_typing(&mut self, conv: ConversationName, now: Instant, effects: &mut MemberEffects) {
        self.typed.retain(|(_, at)| now.saturating_duration_since(*at) < TYPING_EVERY);
        if self.typed.len() < TYPED_MAX && self.typed.iter().all(|(typed, _)| *typed != conv) {
            self.typed.push((conv, now));
            effects.push(MemberEffect::Do(MemberTask::Typing(conv)));
        }
    }

    fn on_watch(&mut self, users: Vec<Id>, rid: Option<Rid>, effects: &mut MemberEffects) {
        let mut seen = FxHashSet::default();
        let users: Arc<[UserId]> = users.into_iter().filter_map(Id::user).filter(|user| seen.insert(*user)).collect();
        let before = std::mem::replace(&mut self.watched, users.clone());
        self.is_watching = true;
        let ticket = self.answers.open();
        effects.push(MemberEffect::Do(MemberTask::Watch(ticket, rid, before, users)));
    }

    fn on_report(&mut self, stored: Vec<(ConversationName, Seq)>, effects: &mut MemberEffects) {
        self.reports.add(stored);
        self.note_reports(effects);
    }

    fn on_reported(&mut self, stored: Vec<(ConversationName, Seq)>, noted: Noted, effects: &mut MemberEffects) {
        self.reports.is_noting = false;
        match noted {
            Noted::Stored => self.note_reports(effects),
            Noted::Failed => self.reports.add(stored),
        }
    }

    fn note_reports(&mut self, effects: &mut MemberEffects) {
        if !self.reports.is_noting && !self.reports.waiting.is_empty() {
            self.reports.is_noting = true;
            let stored = std::mem::take(&mut self.reports.waiting).into_iter().collect();
            effects.push(MemberEffect::Do(MemberTask::Report(stored)));
        }
    }

    /// Answers a request at once, behind the answers of earlier ones.
    fn answer(&mut self, text: String, effects: &mut MemberEffects) {
        let ticket = self.answers.open();
        self.settle(ticket, text, effects);
    }

    fn reply(&mut self, reply: &str, rid: Option<&Rid>, effects: &mut MemberEffects) {
        self.answer(replies::with_rid(reply, rid), effects);
    }

    fn refuse(&mut self, msg_type: u16, refusal: Refusal, rid: Option<&Rid>, effects: &mut MemberEffects) {
        self.answer(replies::refused(msg_type, refusal, rid), effects);
    }

    fn settle(&mut self, ticket: Ticket, text: String, effects: &mut MemberEffects) {
        self.answers.settle(ticket, text);
        while let Some(text) = self.answers.next_ready() {
            self.write(text.into(), effects);
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

    fn write(&mut self, frame: Arc<str>, effects: &mut MemberEffects) {
        self.waiting += frame.len();
        self.unmarked += frame.len();
        if self.unmarked >= self.mark_every {
            self.unmarked = 0;
            effects.push(MemberEffect::WriteAndReport(frame));
        } else {
            effects.push(MemberEffect::Write(frame));
        }
    }

    fn retry_later(&mut self, retry: Retry, effects: &mut MemberEffects) {
        self.retry = Some(retry);
        effects.push(MemberEffect::Remind(RETRY_AFTER));
    }

    /// Does what the pump wants.
    fn carry_out(&mut self, effects: &mut MemberEffects) {
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Write(frame) => self.write(frame, effects),
                Command::Overview => {
                    let overview = self.overview.take().unwrap_or_default();
                    effects.push(MemberEffect::Do(MemberTask::Overview(overview)));
                }
                Command::Read { conv, from, to } => effects.push(MemberEffect::Do(MemberTask::Read { conv, from, to })),
                Command::Pause => self.retry_later(Retry::Pump, effects),
                Command::StopRequests => self.takes_requests = false,
                Command::TakeRequests => self.takes_requests = true,
                Command::Close(reason) => return self.end(reason, effects),
            }
        }
    }
}

impl Reports {
    /// Of each conversation the highest number counts.
    fn add(&mut self, stored: Vec<(ConversationName, Seq)>) {
        for (name, seq) in stored {
            if let Some(known) = self.waiting.get_mut(&name) {
                *known = seq.max(*known);
            } else if self.waiting.len() < REPORTED_MAX {
                self.waiting.insert(name, seq);
            }
        }
    }
}

const TYPING_EVERY: Duration = Duration::from_secs(3);
/// The most conversations in which one connection types within that time.
const TYPED_MAX: usize = 16;
/// The pause after the store could not be read.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// 404 for a recipient who does not exist.
pub const NO_SUCH_USER: Refusal = Refusal::forever(404, "there is no such user");
/// 404 for a group that does not exist.
pub const NO_SUCH_GROUP: Refusal = Refusal::forever(404, "there is no such group");
const NOT_YOU: Refusal = Refusal::forever(403, "FROMID must be your id");
const LOGGED_IN: Refusal = Refusal::forever(400, "you are logged in, open another connection for another login");
const NOT_HERE: Refusal = Refusal::forever(404, "this server does not do that");

#[cfg(test)]
mod tests;
