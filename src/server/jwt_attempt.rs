//! [`JwtAttempt`]: a login at level 2 with a JSON web token. A worker checks the token and writes
//! the login in one go, because both are short.

use std::sync::Arc;

use super::dispatch::{BUSY, TOO_MANY};
use super::jobs::{Conversations, Jobs, JwtDenial, TokenEnd, Visitor, refusal_of};
use super::wiring::ServerParts;
use crate::admission::audit::AuditEvent;
use crate::admission::{Admission, Source};
use crate::devices::entry::{EntryNews, NamedUser, WRONG};
use crate::metrics::LoginOutcome;
use crate::protocol::level2::frames::Refusal;

/// A login with a JSON web token, to be made by a worker.
pub(super) struct JwtAttempt {
    jwt: String,
    /// The user whom the client names.
    who: NamedUser,
    visitor: Visitor,
    source: Source,
    jobs: Arc<Jobs>,
    conversations: Arc<Conversations>,
    admission: Arc<Admission>,
}

impl JwtAttempt {
    /// `None` if no one may log in with such tokens.
    pub(super) fn of(
        shared: &ServerParts,
        jwt: String,
        who: NamedUser,
        visitor: Visitor,
        source: Source,
    ) -> Option<JwtAttempt> {
        let ServerParts { jobs, conversations, admission, .. } = shared;
        jobs.jwt.is_on().then(|| JwtAttempt {
            jwt,
            who,
            visitor,
            source,
            jobs: jobs.clone(),
            conversations: conversations.clone(),
            admission: admission.clone(),
        })
    }

    /// Makes it. Wrong tokens are counted as wrong passwords are. Blocks.
    pub(super) fn make(&self) -> EntryNews {
        let (id, now) = (self.jobs.jwt.counted_as(&self.jwt), self.admission.now());
        if let Some(seconds) = self.admission.login_wait(id, self.source, now) {
            self.jobs.metrics.login(LoginOutcome::Delayed);
            return wait(seconds);
        }
        let attempt = self.admission.attempt(id, self.source, false, now).noted_by_caller();
        for _ in 0..OUTDATED_MAX {
            let register = || self.admission.register(self.source, now);
            let opened = self.jobs.jwt.open(&self.jwt, &self.who, register);
            self.jobs.outages.note("checking JSON web tokens", opened.as_ref().err());
            let opened = match opened {
                Ok(Ok(opened)) => opened,
                Ok(Err(JwtDenial::Refused(refusal))) => {
                    self.admission.note(AuditEvent::WrongJwt(&refusal.to_string()), self.source, now);
                    self.jobs.metrics.login(LoginOutcome::Wrong);
                    attempt.end(false);
                    return EntryNews::Admitted(Err(WRONG));
                }
                Ok(Err(JwtDenial::Later(seconds))) => return wait(seconds),
                Err(error) => {
                    self.jobs.metrics.login(LoginOutcome::Refused);
                    return EntryNews::Admitted(Err(refusal_of(&error)));
                }
            };
            let (user, stamp) = (opened.account.id, self.jobs.logins.passwords.stamp(&opened.stored));
            if opened.is_new {
                self.admission.note(AuditEvent::Registered(&opened.account.name), self.source, now);
            }
            self.jobs.logins.stamps.verified(user, stamp);
            match self.conversations.admit(user, stamp, TokenEnd::WithJwt(opened.expires), &self.visitor) {
                // The account was disabled, or the like, after the check.
                EntryNews::Outdated => {}
                news => {
                    self.jobs.metrics.login(LoginOutcome::Accepted);
                    attempt.end(true);
                    return news;
                }
            }
        }
        EntryNews::Admitted(Err(BUSY))
    }
}

fn wait(seconds: u32) -> EntryNews {
    EntryNews::Admitted(Err(Refusal { retry_after: Some(seconds.saturating_mul(1000)), ..TOO_MANY }))
}

/// The most repeats of a login whose account changes meanwhile.
const OUTDATED_MAX: usize = 3;
