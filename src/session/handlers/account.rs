//! Accounts: 1 login, 2 register, 3 logout, 15 search.

use std::borrow::Cow;
use std::time::Instant;

use net::Flow;

use crate::protocol::{self, Id, UserId};
use crate::session::password::Forgotten;
use crate::session::phase::{Awaited, Phase};
use crate::session::{Effect, Effects, Job, STATE_PATIENCE, Session, SessionFacts};
use crate::store::UserState;

impl Session {
    pub(crate) fn login(
        &mut self,
        id: Id,
        password: Cow<'_, str>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'_>,
    ) -> Flow {
        if self.users() == USERS_MAX && !self.is(id) {
            return self.reply(protocol::BUSY, effects);
        }
        // This comes before any check: a client that has to wait must not learn that the password
        // is right.
        if let Some(seconds) = known.login_wait(id) {
            return self.reply(protocol::login_later(seconds), effects);
        }
        let recognised = id.user().and_then(|user| Some((user, known.recognises(user, &password)?)));
        if let Some((user, forgotten)) = recognised {
            self.password_checked(user, Some(forgotten), known, effects);
            return Flow::Taken;
        }
        let job = Job::CheckPassword { id, password: password.into_owned() };
        self.submit(job, Awaited::Password(id.user_or_nobody()), effects)
    }

    pub(crate) fn password_checked(
        &mut self,
        user: UserId,
        right: Option<Forgotten>,
        known: &dyn SessionFacts,
        effects: &mut Effects<'_>,
    ) {
        let Some(forgotten) = right else {
            effects.push(Effect::Reply(protocol::WRONG_LOGIN.into()));
            return;
        };
        self.forgotten = forgotten;
        if self.hung_up {
            self.add_user(user);
            effects.push(Effect::Reply(protocol::ACK.into()));
        } else if known.is_here(user) && known.shown_by().is_none() {
            self.arrived(user, effects);
        } else {
            effects.push(Effect::Join(user));
            self.phase = Phase::Waiting(Awaited::Place(user));
        }
    }

    /// Messages of our other nodes now arrive here, so a client that sees the user online can write
    /// to them. Nodes of the reference server rely on `User.state`, so while any runs, that is
    /// written first.
    pub(crate) fn placed(&mut self, user: UserId, known: &dyn SessionFacts, effects: &mut Effects<'_>) {
        match known.shown_by().filter(|_| !self.hung_up) {
            Some(by) => {
                effects.push(Effect::Show(user));
                self.wait_until_shown(user, UserState::Online, by, effects);
            }
            None => self.arrived(user, effects),
        }
    }

    fn wait_until_shown(&mut self, user: UserId, state: UserState, by: Instant, effects: &mut Effects<'_>) {
        effects.push(Effect::Remind(STATE_PATIENCE));
        self.phase = Phase::Waiting(Awaited::State { user, state, by });
    }

    /// `User.state` is written, or no longer waited for.
    pub(crate) fn shown(&mut self, user: UserId, state: UserState, effects: &mut Effects<'_>) {
        match self.phase {
            Phase::Waiting(Awaited::State { user: whose, state: awaited, .. }) if (user, state) == (whose, awaited) => {
            }
            // This comes too late: the client has been answered.
            _ => return,
        }
        self.phase = Phase::Ready;
        match state {
            UserState::Online => self.arrived(user, effects),
            UserState::Offline => effects.push(Effect::Reply(protocol::ACK.into())),
        }
    }

    /// The reply goes first: the client takes the very next bytes as the answer to its login.
    fn arrived(&mut self, user: UserId, effects: &mut Effects<'_>) {
        self.add_user(user);
        effects.push(Effect::Reply(protocol::ACK.into()));
        effects.push(if self.hung_up { Effect::Detach(user) } else { Effect::Attach(user) });
    }

    pub(crate) fn register(&mut self, name: Cow<'_, str>, password: Cow<'_, str>, effects: &mut Effects<'_>) -> Flow {
        let fits = (1..=NAME_MAX).contains(&name.chars().count()) && password.chars().count() <= PASSWORD_MAX;
        if !fits {
            return self.reply(protocol::SERVER_ERROR, effects);
        }
        let job = Job::Register { name: name.into_owned(), password: password.into_owned() };
        self.submit(job, Awaited::Reply, effects)
    }

    pub(crate) fn logout(&mut self, id: Id, known: &dyn SessionFacts, effects: &mut Effects<'_>) -> Flow {
        // A reply with messages may be on its way. The client waits only for the answer to its
        // logout, and not for long.
        let by = known.shown_by().filter(|_| matches!(self.phase, Phase::Ready));
        match id.user() {
            Some(user) if self.is(id) => {
                self.remove_user(user);
                effects.push(if by.is_some() { Effect::DetachAndShow(user) } else { Effect::Detach(user) });
            }
            // The reference server logs out any user on its node.
            Some(user) if self.is_compat() && known.is_connected(user) => {
                effects.push(Effect::LogOut { user, shows: by.is_some() });
            }
            Some(_) | None => return self.reply(protocol::BAD_REQUEST, effects),
        }
        match by {
            Some(by) => self.wait_until_shown(id.user_or_nobody(), UserState::Offline, by, effects),
            None => effects.push(Effect::Reply(protocol::ACK.into())),
        }
        Flow::Taken
    }

    /// Handles that another connection has logged this user out.
    pub(crate) fn logged_out(&mut self, user: UserId) -> Flow {
        self.remove_user(user);
        Flow::Taken
    }

    pub(crate) fn search(&mut self, keyword: Cow<'_, str>, by_name: bool, effects: &mut Effects<'_>) -> Flow {
        match self.may_ask() {
            Ok(()) => self.submit(Job::Search { keyword: keyword.into_owned(), by_name }, Awaited::Reply, effects),
            Err(reply) => self.reply(reply, effects),
        }
    }
}

/// The most characters in a name of a user or group, as in the table.
pub const NAME_MAX: usize = 50;
/// The most characters in a password: the client sends 56 hexadecimal digits.
pub const PASSWORD_MAX: usize = 56;
/// The most users that one connection may be logged in as.
const USERS_MAX: usize = 1000;
