//! Opting in to level 2. What follows is not the session's: it only waits, and serves the requests of
//! level 1 that the client makes later.

use net::Flow;

use crate::config::Auth;
use crate::protocol::UserId;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies;
use crate::protocol::level2::{Frame, Login, Request};
use crate::session::phase::{Awaited, Phase};
use crate::session::{Effect, Effects, OptIn, Session};

impl Session {
    pub(crate) fn opt_in(&mut self, frame: Frame<'_>, effects: &mut Effects<'_>) -> Flow {
        let rid = frame.rid;
        let refusal = match frame.request {
            Request::Login(_) if self.is_logged_in() => LOGGED_IN,
            Request::Login(login) => {
                let login: Login<'static> = login.into_owned();
                effects.push(Effect::OptIn(Box::new(OptIn { login, rid })));
                self.phase = Phase::Waiting(Awaited::OptIn);
                return Flow::Taken;
            }
            Request::Refused(_, refusal) => refusal,
            _ => LOGGED_IN,
        };
        self.reply(replies::refused(40, refusal, rid.as_ref()), effects)
    }

    /// The login is over. A client of level 2 is always checked strictly.
    pub(crate) fn on_opted_in(&mut self, user: Option<UserId>) -> Flow {
        if let Phase::Waiting(Awaited::OptIn) = self.phase {
            self.phase = Phase::Ready;
        }
        if let Some(user) = user.filter(|_| !self.has_ended()) {
            self.auth = Auth::Strict;
            self.add_user(user);
        }
        Flow::Taken
    }
}

const LOGGED_IN: Refusal = Refusal::forever(400, "this connection is logged in at level 1, open another one");
