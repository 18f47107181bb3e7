//! [`Dispatch`]: chooses the thread of a job, and the share of the threads that it takes up.

use std::sync::Arc;
use std::time::Instant;

use super::answer::JobReply;
use super::fetching::{Fetcher, Fetching};
use super::hashing::Hashing;
use super::jobs::{self, AfterReply, Arranged, Asker, Jobs, ProofVerdict};
use super::places::place;
use super::plaintext::PlainPasswords;
use crate::admission::audit::AuditEvent;
use crate::admission::requests::{RequestKind, Requests};
use crate::admission::{Admission, Holder};
use crate::config::Paced;
use crate::delivery::{ClientLink, Posted};
use crate::metrics::{LoginOutcome, Metrics};
use crate::protocol::level2::Account;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::{self, Id};
use crate::session::password::ClientKind;
use crate::session::{Job, Outcome};

/// The ways of a job. Any loop may call it.
pub(super) struct Dispatch {
    pub(super) jobs: Arc<Jobs>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) admission: Arc<Admission>,
    pub(super) requests: Arc<Requests>,
    pub(super) hashing: Hashing,
    pub(super) fetching: Fetching,
    pub(super) paced: Paced,
    pub(super) plain_passwords: PlainPasswords,
}

impl Dispatch {
    /// Has a job done for a client; its outcome is posted to the session.
    pub(super) fn submit(&self, job: Job, link: &Arc<ClientLink>, holder: Holder, now: Instant) {
        match job {
            Job::Fetch { user } => self.fetching.begin(user, Fetcher { link: link.clone(), holder }),
            Job::Delete { .. } => {
                let (answer, jobs) = (JobReply::to(link), self.jobs.clone());
                self.requests.submit_anyway(holder, move || answer.send(jobs.run(job)));
            }
            Job::CheckPassword { id, .. } => self.check_password(id, job, (link, self.paced), holder, now),
            Job::Register { .. } => self.register(job, link, holder, now),
            Job::Account { user, request } => {
                let asker = Asker { user, link: link.clone(), device: None, rid: None };
                let busy = jobs::refused(&asker, &request, BUSY);
                let (answer, arrangements, link) =
                    (JobReply::or_else(link, busy), self.jobs.arrangements.clone(), link.clone());
                self.arrange(asker, *request, holder, now, move |arranged| {
                    answer.send(Outcome::Reply(arranged.reply.into()));
                    if arranged.after == AfterReply::End {
                        arrangements.log_out(user);
                        link.post(Posted::AccountChanged(user));
                    }
                });
            }
            _ => {
                let (answer, jobs) = (JobReply::to(link), self.jobs.clone());
                let kind = match job {
                    Job::Search { .. } | Job::GroupsNamed { .. } => RequestKind::Search,
                    _ => RequestKind::Short,
                };
                // Without a place the answer is dropped, which tells the session that the server is
                // busy.
                if let Some(place) = place(&self.requests, holder, &self.metrics) {
                    self.requests.submit(kind, place, move || answer.send(jobs.run(job)));
                }
            }
        }
    }

    /// The same for a login at level 2, whose client is never paced.
    pub(super) fn check_password_of_device(&self, job: Job, link: &Arc<ClientLink>, holder: Holder, now: Instant) {
        if let Job::CheckPassword { id, .. } = job {
            self.check_password(id, job, (link, Paced::Off), holder, now);
        }
    }

    /// Has one of 60 to 69 done. Without a place for it, `answer` is dropped.
    pub(super) fn arrange(
        &self,
        asker: Asker,
        request: Account<'static>,
        holder: Holder,
        now: Instant,
        answer: impl FnOnce(Arranged) + Send + 'static,
    ) {
        let arrangements = self.jobs.arrangements.clone();
        if request.proof().is_none() {
            if let Some(place) = place(&self.requests, holder, &self.metrics) {
                self.requests.submit(RequestKind::Short, place, move || answer(arrangements.run(&asker, &request)));
            }
            return;
        }
        self.plain_passwords.note(&asker.link);
        // Wrong passwords are counted as at a login.
        let id = Id(asker.user.0.into());
        if let Some(seconds) = self.admission.login_wait(id, holder.source, now) {
            let refusal = Refusal { retry_after: Some(seconds.saturating_mul(1000)), ..TOO_MANY };
            return answer(Arranged::refused(jobs::refused(&asker, &request, refusal)));
        }
        let attempt = self.admission.attempt(id, holder.source, false, now);
        let (admission, user) = (self.admission.clone(), asker.user);
        self.hashing.work(&self.admission, holder.source, now, move || {
            let arranged = arrangements.run(&asker, &request);
            match arranged.proof {
                Some(verdict) => attempt.end(verdict == ProofVerdict::Right),
                None => drop(attempt),
            }
            if arranged.proof == Some(ProofVerdict::Right) {
                let event = match request {
                    Account::Delete { .. } => AuditEvent::Deleted(user),
                    _ => AuditEvent::PasswordChanged(user),
                };
                admission.note(event, holder.source, now);
            }
            move || answer(arranged)
        });
    }

    fn check_password(&self, id: Id, job: Job, (link, paced): (&Arc<ClientLink>, Paced), holder: Holder, now: Instant) {
        self.plain_passwords.note(link);
        // A remembered right password would have been recognised.
        let differs = id.user().is_some_and(|user| self.jobs.logins.passwords.remembers(user, now));
        let attempt = self.admission.attempt(id, holder.source, differs, now);
        // This comes before the answer, so that a wrong password is counted when its client learns
        // of it.
        let link_to_pace = link.clone();
        let note = move |outcome: &Outcome| match outcome {
            Outcome::Password(right) => {
                attempt.end(right.is_some());
                if let Some(right) = right {
                    begin_pace(paced, right.client, &link_to_pace);
                }
            }
            _ => drop(attempt),
        };
        let job = (job, self.jobs.clone());
        if !self.hashing.submit(job, &self.admission, (link, holder.source), now, note) {
            self.metrics.login(LoginOutcome::Refused);
        }
    }

    fn register(&self, job: Job, link: &Arc<ClientLink>, holder: Holder, now: Instant) {
        self.plain_passwords.note(link);
        match self.admission.register(holder.source, now) {
            Ok(registration) => {
                let name = match &job {
                    Job::Register { name, .. } => name.clone(),
                    _ => String::new(),
                };
                let admission = self.admission.clone();
                let note = move |outcome: &Outcome| match outcome {
                    Outcome::Reply(reply) => {
                        registration.end();
                        if *reply != protocol::SERVER_ERROR {
                            admission.note(AuditEvent::Registered(&name), holder.source, now);
                        }
                    }
                    _ => drop(registration),
                };
                let job = (job, self.jobs.clone());
                self.hashing.submit(job, &self.admission, (link, holder.source), now, note);
            }
            Err(seconds) => JobReply::to(link).send(Outcome::Refused(protocol::register_later(seconds).into())),
        }
    }

    /// Finishes the jobs that have begun, until `by` at most.
    pub(super) fn close(self, by: Instant) {
        self.requests.close(by);
        self.hashing.close(by);
    }
}

/// Paces the connection on which a user has logged in, if the account belongs to the usual client.
/// The form of the password identifies that client: the form sent now or an earlier one of the
/// account, because the client's automatic relogin sends the other form. A connection that reads
/// lines is never paced.
pub(super) fn begin_pace(paced: Paced, client: ClientKind, link: &ClientLink) {
    if paced == Paced::Auto && client == ClientKind::Usual {
        link.use_pace();
    }
}

/// Too many wrong passwords.
pub(super) const TOO_MANY: Refusal = Refusal::forever(429, "too many wrong logins, wait");
/// There is no place for a request.
pub(super) const BUSY: Refusal =
    Refusal { errno: 503, errmsg: "the server is busy, try again", retry_after: Some(1000) };
