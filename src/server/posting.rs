//! [`Posting`]: a message of level 2 without a connection of level 2 (`POST /v2/send`).
//!
//! ```text
//!   body is a frame of type 4 or 9 ──▶ row of the token's device ──▶ committed ──▶ 41
//! ```
//! This is not a login: no connection is replaced, and no device counts as seen. The check of the
//! token is paid for by the address, and the message by the account, like a message of its
//! connections.

use super::members::Desk;
use crate::admission::{Holder, Payer};
use crate::devices::effects::Outgoing;
use crate::devices::entry::EntryNews;
use crate::devices::refusals::{NO_SUCH_GROUP, NO_SUCH_USER, NOT_YOU};
use crate::history::pump::{PumpEvent, SendAnswer, Submission};
use crate::protocol::level2::frames::{self, Refusal};
use crate::protocol::level2::{self, Level2Request, Send};
use crate::protocol::{Sender, UserId};
use crate::store::history::Cid;
use crate::web::answer::WebAnswer;
use crate::web::post;

/// A message that is on its way. Its bytes stay with the connection, which shows them again at each
/// step.
pub(super) enum Posting {
    /// Nothing has been done yet.
    New {
        /// The proof of the sender.
        token: String,
    },
    /// A thread checks the token.
    Checking,
    /// The sender is this user.
    Known(UserId),
    /// It is being committed.
    Sending,
    /// The outcome is known.
    Answered(SendAnswer),
    /// The token is wrong.
    WrongToken,
}

/// The next step for a post.
pub(super) enum PostStep {
    /// Wait, and continue with the same bytes.
    Wait,
    /// Answer.
    Answer(WebAnswer),
}

impl Posting {
    /// Takes the next step.
    pub(super) fn go_on(&mut self, desk: &Desk<'_>, body: &[u8]) -> PostStep {
        let send = match send_of(body) {
            Ok(send) => send,
            Err((cid, refusal)) => return PostStep::Answer(refused(cid.as_deref(), refusal)),
        };
        if let Posting::New { token } = self {
            *self = match desk.check_token(std::mem::take(token)) {
                Ok(()) => Posting::Checking,
                Err(refusal) => Posting::Answered(SendAnswer::Refused(refusal)),
            };
        } else if let Posting::Known(user) = *self {
            *self = match commit(desk, user, &send) {
                Ok(()) => Posting::Sending,
                Err(refusal) => Posting::Answered(SendAnswer::Refused(refusal)),
            };
        }
        match self {
            Posting::New { .. } | Posting::Checking | Posting::Known(_) | Posting::Sending => PostStep::Wait,
            Posting::Answered(answer) => PostStep::Answer(answer_of(&send, *answer)),
            Posting::WrongToken => PostStep::Answer(post::wrong_token()),
        }
    }

    /// Takes the result of the check of the token.
    pub(super) fn checked(&mut self, news: EntryNews) {
        if let Posting::Checking = self {
            *self = match news {
                EntryNews::Found(Some(user)) => Posting::Known(user),
                // A post is not a login.
                EntryNews::Found(None) | EntryNews::Outdated | EntryNews::Admitted(Ok(_)) => Posting::WrongToken,
                EntryNews::Admitted(Err(refusal)) => Posting::Answered(SendAnswer::Refused(refusal)),
            };
        }
    }

    /// Takes the outcome of the commit.
    pub(super) fn committed(&mut self, event: PumpEvent) {
        if let (Posting::Sending, PumpEvent::Answered { answer, .. }) = (&*self, event) {
            *self = Posting::Answered(answer);
        }
    }
}

/// The message in a body.
fn send_of(body: &[u8]) -> Result<Send<'_>, (Option<String>, Refusal)> {
    match level2::Frame::parse(body).map(|frame| frame.request) {
        Ok(Level2Request::Send(send)) if matches!(send.msg_type, 4 | 9) => Ok(send),
        Ok(Level2Request::Send(send)) => Err((Some(send.cid.into_owned()), NO_MESSAGE)),
        Ok(Level2Request::BadSend { cid, refusal, .. }) => Err((cid.map(|cid| cid.into_owned()), refusal)),
        _ => Err((None, NO_MESSAGE)),
    }
}

/// Has the message committed, at the expense of its sender's account.
fn commit(desk: &Desk<'_>, user: UserId, send: &Send<'_>) -> Result<(), Refusal> {
    let nobody = if send.msg_type == 9 { NO_SUCH_GROUP } else { NO_SUCH_USER };
    let conv = send.conv.ok_or(nobody)?.for_user(user);
    let is_own = match send.from {
        None => true,
        Some(Sender::Claimed(id)) => id.user() == Some(user),
        Some(Sender::Malformed) => false,
    };
    if !is_own {
        return Err(NOT_YOU);
    }
    let cid = Cid::of_client(&send.cid).ok_or(NO_MESSAGE)?;
    let holder = Holder { payer: Payer::Account(user), source: desk.holder.source };
    let outgoing = Outgoing::of(send, conv, Submission::ALONE, cid);
    match (Desk { holder, ..*desk }).send(user, outgoing) {
        Ok(()) => Ok(()),
        Err(PumpEvent::Answered { answer: SendAnswer::Refused(refusal), .. }) => Err(refusal),
        Err(_) => Err(NO_MESSAGE),
    }
}

fn answer_of(send: &Send<'_>, answer: SendAnswer) -> WebAnswer {
    let (at, again) = match answer {
        SendAnswer::New(at, _) => (at, false),
        SendAnswer::Again(at) => (at, true),
        SendAnswer::Refused(refusal) => return refused(Some(&send.cid), refusal),
    };
    match send.conv {
        Some(name) => post::acknowledged(200, &frames::acknowledged(&send.cid, name, at, again), None),
        // A message without a conversation is not committed.
        None => refused(Some(&send.cid), NO_SUCH_USER),
    }
}

fn refused(cid: Option<&str>, refusal: Refusal) -> WebAnswer {
    post::acknowledged(refusal.errno, &frames::send_refused(cid, refusal), refusal.retry_after)
}

const NO_MESSAGE: Refusal = Refusal::forever(400, "send one frame of type 4 or 9 with a cid");
