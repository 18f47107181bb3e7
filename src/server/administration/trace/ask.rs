//! The message that a request asks for.

use super::node::{Question, USERS_MAX};
use super::time::now;
use crate::base::conversation::{ConversationId, ConversationName, SEQ_END};
use crate::base::trace::{Wanted, hash};
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::UserId;
use crate::server::administration::call::Call;
use crate::server::jobs::{MessageFacts, Sought};
use crate::store::history::Cid;

/// See the [module](self).
pub(super) struct TraceRequest {
    /// The user from whose side conversations are named.
    pub(super) user: UserId,
    pub(super) sought: Sought,
    /// The sender's id of the message.
    pub(super) cid: Option<u64>,
    /// The time at which it was sent, ms since 1970, if given.
    around: Option<i64>,
}

impl TraceRequest {
    /// A message by `user`, the sender, and `cid`.
    pub(super) fn by_cid(call: &Call<'_>) -> Result<TraceRequest, ApiAnswer> {
        let user = needed(call.number(BY_CID, "user", (1, i32::MAX))?, BY_CID).map(UserId)?;
        let cid = Cid::of_client(needed(call.query(BY_CID, "cid")?, BY_CID)?);
        let cid = cid.ok_or_else(|| refused("cid must have 1 to 64 printable characters"))?;
        let hash = hash(cid.bytes());
        Ok(TraceRequest { user, sought: Sought::Cid(user, cid), cid: Some(hash), around: None })
    }

    /// A message by `user`, from whose side the conversation is named, `conv` and `seq`.
    pub(super) fn by_place(call: &Call<'_>) -> Result<TraceRequest, ApiAnswer> {
        let user = needed(call.number(BY_PLACE, "user", (1, i32::MAX))?, BY_PLACE).map(UserId)?;
        let name = ConversationName::parse(needed(call.query(BY_PLACE, "conv")?, BY_PLACE)?);
        let name = name.ok_or_else(|| refused("conv must be such as u9 or g3"))?;
        let seq = Some(needed(call.long(BY_PLACE, "seq")?, BY_PLACE)?).filter(|seq| (1..SEQ_END).contains(seq));
        let seq = seq.ok_or_else(|| refused("seq must be a number from 1 to 9007199254740991"))?;
        let sought = Sought::Place(user, name.for_user(user), seq);
        Ok(TraceRequest { user, sought, cid: None, around: None })
    }

    /// A message of level 1 by `user`, the sender, `to` and `at`.
    pub(super) fn at_level1(call: &Call<'_>) -> Result<TraceRequest, ApiAnswer> {
        let user = |name| needed(call.number(AT_LEVEL1, name, (1, i32::MAX))?, AT_LEVEL1).map(UserId);
        let (user, to) = (user("user")?, user("to")?);
        Ok(TraceRequest { user, sought: Sought::To(to), cid: None, around: call.long(AT_LEVEL1, "at")? })
    }

    /// The query for the nodes, given the facts of the database.
    pub(super) fn question(&self, facts: Option<&MessageFacts>) -> Question {
        let place = facts.and_then(|facts| facts.place).or(match &self.sought {
            Sought::Place(_, conv, seq) => Some((*conv, *seq)),
            Sought::Cid(..) | Sought::To(_) => None,
        });
        // In a conversation of two, the second user may be at level 1, where messages have no
        // number.
        let partner =
            place.and_then(|(conv, _)| conv.users()).map(|(low, high)| if low == self.user { high } else { low });
        let sent = facts.and_then(|facts| facts.stored);
        // A cid says nothing without its sender.
        let from = sent.map(|sent| sent.from).or(match self.sought {
            Sought::To(_) | Sought::Cid(..) => Some(self.user),
            Sought::Place(..) => None,
        });
        let to = match self.sought {
            Sought::To(to) => Some(to),
            _ if sent.is_none() => None,
            _ if from == Some(self.user) => partner,
            _ => Some(self.user),
        };
        let (since, until) = match (self.around.or(sent.map(|sent| sent.time)), &self.sought) {
            (Some(at), _) => (at.saturating_sub(AROUND), at.saturating_add(AROUND)),
            (None, Sought::To(_)) => (now() - LATELY, now() + AROUND),
            (None, _) => (0, i64::MAX),
        };
        let recipients = facts.into_iter().flat_map(|facts| &facts.recipients).map(|recipient| recipient.user);
        let mut users: Vec<UserId> = recipients.chain(to).chain([self.user]).collect();
        users.dedup();
        users.truncate(USERS_MAX);
        Question { wanted: Wanted { place, cid: self.cid, to, from, since: since.max(0), until }, users }
    }

    /// The user's name for a conversation.
    pub(super) fn name(&self, conv: ConversationId) -> String {
        conv.name_for(self.user).to_string()
    }
}

fn needed<T>(value: Option<T>, names: &[&str]) -> Result<T, ApiAnswer> {
    let [all @ .., last] = names else { return value.ok_or_else(|| refused("")) };
    value.ok_or_else(|| {
        let names = format!("{} and {last}", all.join(", "));
        let is_optional = if *last == "at" { " (at, ms since 1970, may be left out for the last minute)" } else { "" };
        refused(&format!("say which message: {names}{is_optional}"))
    })
}

fn refused(why: &str) -> ApiAnswer {
    ApiAnswer::refused(400, why)
}

const BY_CID: &[&str] = &["user", "cid"];
const BY_PLACE: &[&str] = &["user", "conv", "seq"];
const AT_LEVEL1: &[&str] = &["user", "to", "at"];
/// The tolerance around a given or known time, ms.
const AROUND: i64 = 10_000;
/// How far back a message of level 1 is searched for without a time, ms.
const LATELY: i64 = 60_000;
