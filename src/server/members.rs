//! Connections of level 2 on a loop: their logins, step by step, and the effects of each
//! [`Member`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use net::{Fate, Turn};

use super::dispatch::{BUSY, TOO_MANY};
use super::importing;
use super::jobs::{AfterReply, Asker, TokenEnd, Visitor};
use super::jwt_attempt::JwtAttempt;
use super::places::place;
use super::traced;
use super::wiring::ServerParts;
use crate::admission::Holder;
use crate::admission::requests::RequestKind;
use crate::base::trace::Incident;
use crate::delivery::{ClientLink, Posted};
use crate::devices::effects::{MemberEffect, MemberEffects, Outgoing};
use crate::devices::entry::{AdmittedDevice, EntryNews, FirstStep, PendingLogin, WRONG};
use crate::devices::member::Member;
use crate::devices::tasks::{Identity, MemberNews, MemberTask};
use crate::history::answers::Ticket;
use crate::history::pump::{PumpEvent, SendAnswer};
use crate::metrics::{LoginOutcome, LoopTally};
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies::{self, Reason};
use crate::protocol::level2::{Account, Rid};
use crate::protocol::{Id, UserId};
use crate::routing::recorder::{AWAY, RECORDING_BYTES, RecordOwner, RecordedFor, Recording, SendOwed};
use crate::session::password::RightPassword;
use crate::session::{Job, OptIn, Outcome};
use crate::store::history::{NewEntry, SenderCheck};

/// A connection's part in level 2, once it opts in.
pub(super) enum Level2 {
    /// Its login is under way, with the user whose password is being checked.
    Entering(Box<PendingLogin>, UserId),
    /// It is logged in.
    In(Box<Member>),
}

/// The surroundings of one connection of a loop while it is being served.
pub(super) struct Desk<'a> {
    pub(super) shared: &'a ServerParts,
    pub(super) link: &'a Arc<ClientLink>,
    pub(super) holder: Holder,
    pub(super) tally: &'a LoopTally,
    pub(super) now: Instant,
}

impl Desk<'_> {
    /// Begins a login.
    pub(super) fn begin(&self, opt_in: OptIn) -> Result<Level2, Refusal> {
        self.shared.conversations.are_there()?;
        let (entry, step) = PendingLogin::begin(opt_in.login, opt_in.rid);
        let mut entering = Level2::Entering(Box::new(entry), UserId(0));
        match step {
            FirstStep::Find(name) => {
                let conversations = self.shared.conversations.clone();
                self.work_on_entry(move || match conversations.find(&name) {
                    Ok(found) => EntryNews::Found(found),
                    Err(refusal) => EntryNews::Admitted(Err(refusal)),
                })?;
            }
            FirstStep::Check(id, password) => self.check(&mut entering, id, password)?,
            FirstStep::Verify(token) => {
                let Level2::Entering(entry, _) = &entering else { return Err(WRONG) };
                let (conversations, visitor, who) = (self.shared.conversations.clone(), visitor(entry), entry.who());
                self.work_on_entry(move || conversations.admit_by_token(&token, &visitor, &who))?;
            }
            FirstStep::VerifyJwt(jwt) => {
                let Level2::Entering(entry, _) = &entering else { return Err(WRONG) };
                let attempt = JwtAttempt::of(self.shared, jwt, entry.who(), visitor(entry), self.holder.source);
                let attempt = attempt.ok_or(WRONG)?;
                self.work_on_entry(move || attempt.make())?;
            }
            FirstStep::Refuse(refusal) => return Err(refusal),
        }
        Ok(entering)
    }

    /// Continues after the search for a name. An unknown name takes as long as a wrong password.
    pub(super) fn found(&self, entering: &mut Level2, found: Option<UserId>) -> Result<(), Refusal> {
        let Level2::Entering(entry, _) = entering else { return Ok(()) };
        let Some(password) = entry.password_to_check() else { return Err(WRONG) };
        let id = found.map_or_else(|| entry.id_of_unknown_name(), |user| Id(user.0.into()));
        self.check(entering, id, password)
    }

    /// Checks again, because the stored password was replaced during the check.
    pub(super) fn check_again(&self, entering: &mut Level2) -> Result<(), Refusal> {
        let Level2::Entering(entry, user) = entering else { return Ok(()) };
        let Some(password) = entry.password_to_check() else { return Err(WRONG) };
        // The remembered password is outdated as well.
        self.shared.jobs.logins.passwords.forget(*user);
        let id = Id(user.0.into());
        self.check(entering, id, password)
    }

    fn check(&self, entering: &mut Level2, id: Id, password: String) -> Result<(), Refusal> {
        let ServerParts { admission, jobs, metrics, dispatch, .. } = self.shared;
        if let Some(seconds) = admission.login_wait(id, self.holder.source, self.now) {
            metrics.login(LoginOutcome::Delayed);
            return Err(Refusal { retry_after: Some(seconds.saturating_mul(1000)), ..TOO_MANY });
        }
        let user = id.user_or_nobody();
        if let Level2::Entering(_, checked) = entering {
            *checked = user;
        }
        let remembered = jobs.logins.passwords.recognises(user, &password, self.now);
        if let Some(right) = remembered.filter(|_| id.user().is_some()) {
            jobs.logins.stamps.remembered(user, right.stamp);
            metrics.login(LoginOutcome::Remembered);
            admission.recognised(id, self.holder.source);
            return self.admit(entering, user, right);
        }
        dispatch.check_password_of_device(Job::CheckPassword { id, password }, self.link, self.holder, self.now);
        Ok(())
    }

    /// Continues after the check of the password.
    pub(super) fn checked(&self, entering: &mut Level2, outcome: Outcome) -> Result<(), Refusal> {
        let Level2::Entering(_, user) = entering else { return Ok(()) };
        let user = *user;
        match outcome {
            Outcome::Password(Some(right)) => self.admit(entering, user, right),
            Outcome::Password(None) => Err(WRONG),
            _ => Err(BUSY),
        }
    }

    fn admit(&self, entering: &Level2, user: UserId, right: RightPassword) -> Result<(), Refusal> {
        let Level2::Entering(entry, _) = entering else { return Ok(()) };
        let (conversations, visitor) = (self.shared.conversations.clone(), visitor(entry));
        self.work_on_entry(move || conversations.admit(user, right.stamp, TokenEnd::AsSet, &visitor))
    }

    /// Registers a connection whose device's row is written: messages come to it from now on.
    pub(super) fn enter(&self, turn: &mut Turn<Posted>, admitted: AdmittedDevice, entry: PendingLogin) -> Box<Member> {
        let AdmittedDevice { identity, .. } = &admitted;
        let entered = self.shared.router.attendance().enter(identity.user, self.link, identity.device, identity.login);
        for other in &entered.replaced {
            end(other, Reason::Replaced);
        }
        let mut member = Box::new(Member::new(admitted, entry, self.shared.pump_limits, self.now));
        let mut effects = MemberEffects::new();
        if entered.is_replaced {
            member.end(Reason::Replaced, &mut effects);
        } else if entered.is_placed {
            member.placed(&mut effects);
        }
        self.carry_out(turn, &mut member, effects);
        member
    }

    /// Carries out the effects of a member.
    pub(super) fn carry_out(&self, turn: &mut Turn<Posted>, member: &mut Member, effects: MemberEffects) {
        let mut queue = VecDeque::from_iter(effects);
        while let Some(effect) = queue.pop_front() {
            let identity = member.identity();
            // Sending fails only if the client has gone.
            match effect {
                MemberEffect::Write(frame) => {
                    let refused = self.tally.written(&frame);
                    traced::written(&self.shared.tracer, identity, &frame, refused);
                    let _ = self.link.send(turn, frame.as_bytes(), Fate::Drop);
                }
                MemberEffect::WriteAndReport(frame) => {
                    let refused = self.tally.written(&frame);
                    traced::written(&self.shared.tracer, identity, &frame, refused);
                    let _ = self.link.send(turn, frame.as_bytes(), Fate::Report(TAKEN));
                }
                MemberEffect::Do(task) => self.work(identity, task),
                MemberEffect::Send(outgoing) => {
                    // The member learns of a refusal before its next frame is read, so that later
                    // sends to the same conversation are refused too.
                    if let Err(refused) = self.send(identity.user, *outgoing) {
                        let mut more = MemberEffects::new();
                        member.on_news(MemberNews::Pump(vec![refused]), self.now, &mut more);
                        queue.extend(more);
                    }
                }
                MemberEffect::Remind(after) => turn.remind(self.link, after),
                MemberEffect::End(reason) => {
                    self.shared.tracer.happened(identity.user, Incident::Closed(reason.word()));
                    self.shared.router.attendance().leave_device(identity.user, self.link);
                    let _ = self.link.send(turn, farewell(reason).as_bytes(), Fate::Drop);
                    self.link.ends_with(4000 + reason.errno());
                    turn.turn_away(self.link);
                }
            }
        }
    }

    /// Has a thread run a task. Without a place for it, the member is told that it has failed.
    fn work(&self, identity: &Identity, task: MemberTask) {
        if let MemberTask::Account(ticket, rid, request) = task {
            return self.arrange(identity, (ticket, rid), *request);
        }
        let mut answer = TaskAnswer { link: self.link.clone(), task: Some(task) };
        let Some(place) = place(&self.shared.dispatch.requests, self.holder, &self.shared.metrics) else { return };
        let (conversations, identity) = (self.shared.conversations.clone(), identity.clone());
        let (user, begins) = (identity.user, matches!(answer.task, Some(MemberTask::Heads { .. })));
        let work = move || {
            let Some(task) = &answer.task else { return };
            // A closed connection needs no answer, but its changes must be written.
            let done = conversations.run(&identity, &answer.link, task);
            let task = answer.task.take();
            let news = done.or_else(|refusal| task.map(|task| vec![task.failed(refusal)]).ok_or(refusal));
            for news in news.unwrap_or_default() {
                answer.link.post(Posted::Member(Box::new(news)));
            }
        };
        if begins {
            importing::import_first(self.shared, user, (self.holder, place), work);
        } else {
            self.shared.dispatch.requests.submit(RequestKind::Short, place, work);
        }
    }

    /// Has one of 60 to 69 carried out.
    fn arrange(&self, identity: &Identity, (ticket, rid): (Ticket, Option<Rid>), request: Account<'static>) {
        let task = MemberTask::Account(ticket, rid.clone(), Box::new(request.clone()));
        let mut answer = TaskAnswer { link: self.link.clone(), task: Some(task) };
        let user = identity.user;
        let asker = Asker { user, link: self.link.clone(), device: Some(identity.clone()), rid };
        let is_deletion = matches!(request, Account::Delete { .. });
        let arrangements = self.shared.jobs.arrangements.clone();
        self.shared.dispatch.arrange(asker, request, self.holder, self.now, move |arranged| {
            answer.task = None;
            answer.link.post(Posted::Member(Box::new(MemberNews::Answer(ticket, arranged.reply))));
            if arranged.after == AfterReply::End {
                end(&answer.link, Reason::Revoked);
                if is_deletion {
                    arrangements.log_out(user);
                }
            }
        });
    }

    /// Finds the user whose device has this token. No device is logged in.
    pub(super) fn check_token(&self, token: String) -> Result<(), Refusal> {
        self.shared.conversations.are_there()?;
        let place = place(&self.shared.dispatch.requests, self.holder, &self.shared.metrics).ok_or(BUSY)?;
        let (answer, conversations) =
            (EntryAnswer { link: Some(self.link.clone()) }, self.shared.conversations.clone());
        self.shared.dispatch.requests.submit(RequestKind::Short, place, move || {
            answer.send(match conversations.sender_with(&token) {
                Ok(user) => EntryNews::Found(user),
                Err(refusal) => EntryNews::Admitted(Err(refusal)),
            });
        });
        Ok(())
    }

    fn work_on_entry(&self, work: impl FnOnce() -> EntryNews + Send + 'static) -> Result<(), Refusal> {
        let answer = EntryAnswer { link: Some(self.link.clone()) };
        let place = place(&self.shared.dispatch.requests, self.holder, &self.shared.metrics).ok_or(BUSY);
        let place = place.inspect_err(|_| self.shared.metrics.login(LoginOutcome::Refused))?;
        self.shared.dispatch.requests.submit(RequestKind::Short, place, move || answer.send(work()));
        Ok(())
    }

    /// Has a message committed. Without room for it, returns the refusal for the member.
    pub(super) fn send(&self, user: UserId, outgoing: Outgoing) -> Result<(), PumpEvent> {
        let Outgoing { conv, submission, kind, cid, hash, text, forward } = outgoing;
        traced::received(&self.shared.tracer, (conv, &cid), user, 0, text.len());
        let berth = self.shared.router.take_berth(self.holder, text.len() + RECORDING_BYTES);
        let (Some(recorder), Some(berth)) = (&self.shared.recorder, berth) else {
            let event = PumpEvent::Answered { conv, id: submission.id, answer: SendAnswer::Refused(AWAY) };
            return Err(event);
        };
        let entry = NewEntry {
            conv,
            sender: user,
            cid,
            hash,
            kind,
            is_imported: false,
            check: SenderCheck::Whole,
            is_hooked: false,
            change: None,
            text,
        };
        let owner = RecordOwner::Member(SendOwed::new(self.link, conv, submission));
        recorder.submit(Recording { entry, to: RecordedFor::Conversation, forward, owner, berth });
        Ok(())
    }
}

/// Answers a member when a task is done or dropped.
struct TaskAnswer {
    link: Arc<ClientLink>,
    task: Option<MemberTask>,
}

impl Drop for TaskAnswer {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.link.post(Posted::Member(Box::new(task.failed(BUSY))));
        }
    }
}

/// Answers a step of a login when it is done or dropped.
struct EntryAnswer {
    link: Option<Arc<ClientLink>>,
}

impl EntryAnswer {
    fn send(mut self, news: EntryNews) {
        if let Some(link) = self.link.take() {
            link.post(Posted::Entry(news));
        }
    }
}

impl Drop for EntryAnswer {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.post(Posted::Entry(EntryNews::Admitted(Err(BUSY))));
        }
    }
}

/// Ends another connection of level 2.
pub(super) fn end(link: &ClientLink, reason: Reason) {
    link.post(Posted::Member(Box::new(MemberNews::End(reason))));
}

fn visitor(entry: &PendingLogin) -> Visitor {
    Visitor { device: entry.device.clone(), ping: entry.ping, rid: entry.rid.clone() }
}

/// A 55. Clients that may reconnect are told different times.
fn farewell(reason: Reason) -> String {
    let spread = getrandom::u64().unwrap_or_default() % u64::from(RETURN_SPREAD);
    replies::farewell(reason, RETURN_AFTER + spread as u32)
}

/// The label of a frame that reports its arrival; the session's is 0.
pub(super) const TAKEN: u32 = 1;
/// The least time, in milliseconds, after which a client may reconnect, and the range of random
/// time added to it.
const RETURN_AFTER: u32 = 500;
const RETURN_SPREAD: u32 = 2500;
