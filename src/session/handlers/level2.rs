//! Opting in to level 2. After that, the connection does not belong to the session: the session
//! only waits, and serves the requests of level 1 that the client makes later. Also 60 to 69 for
//! clients of level 1.

use net::Flow;

use crate::config::Auth;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies;
use crate::protocol::level2::{Account, Frame, Level2Request, Login};
use crate::protocol::{Sender, UserId};
use crate::session::phase::{Awaited, Phase};
use crate::session::{Effect, Effects, Job, OptIn, Session};

impl Session {
    pub(crate) fn opt_in(&mut self, frame: Frame<'_>, effects: &mut Effects<'_>) -> Flow {
        let rid = frame.rid;
        let refusal = match frame.request {
            Level2Request::Login(_) if self.is_logged_in() => LOGGED_IN,
            Level2Request::Login(login) => {
                let login: Login<'static> = login.into_owned();
                effects.push(Effect::OptIn(Box::new(OptIn { login, rid })));
                self.phase = Phase::Waiting(Awaited::OptIn);
                return Flow::Taken;
            }
            Level2Request::Refused(_, refusal) => refusal,
            _ => LOGGED_IN,
        };
        self.reply(replies::refused(40, refusal, rid.as_ref()), effects)
    }

    /// Handles one of 60 to 69 of a client of level 1, in the name of a user. The client must be
    /// logged in as this user even in compat mode.
    pub(crate) fn account_request(
        &mut self,
        msg_type: u16,
        from: Option<Sender>,
        request: Result<Account<'_>, Refusal>,
        effects: &mut Effects<'_>,
    ) -> Flow {
        let user = match from {
            _ if !self.is_logged_in() => Err(LOGIN_FIRST),
            Some(Sender::Claimed(id)) => id.user().filter(|_| self.is(id)).ok_or(NOT_YOU),
            None | Some(Sender::Malformed) => Err(NO_SENDER),
        };
        match user.and_then(|user| Ok((user, request?))) {
            Ok((user, request)) => {
                let job = Job::Account { user, request: Box::new(request.into_owned()) };
                self.submit(job, Awaited::Reply, effects)
            }
            Err(refusal) => self.reply(replies::refused(msg_type, refusal, None), effects),
        }
    }

    /// Ends a login at level 2. A client of level 2 is always checked strictly.
    pub(crate) fn on_opted_in(&mut self, user: Option<UserId>) -> Flow {
        if let Phase::Waiting(Awaited::OptIn) = self.phase {
            self.phase = Phase::Ready;
        }
        if let Some(user) = user.filter(|_| !self.has_ended()) {
            self.auth = Auth::Strict;
            self.opted_in = true;
            self.add_user(user);
        }
        Flow::Taken
    }
}

const LOGGED_IN: Refusal = Refusal::forever(400, "this connection is logged in at level 1, open another one");
const LOGIN_FIRST: Refusal = Refusal::forever(403, "log in on this connection first");
const NOT_YOU: Refusal = Refusal::forever(403, "log in as the user that FROMID names");
const NO_SENDER: Refusal = Refusal::forever(400, "FROMID must be your id");
