//! The refusals of messages that are not committed, for their senders.

use crate::protocol::level2::frames::Refusal;
use crate::store::history::EntryRefusal;

pub(super) fn refusal_of(refusal: EntryRefusal) -> Refusal {
    match refusal {
        EntryRefusal::Conflict => Refusal::forever(409, "this cid was used for another message"),
        EntryRefusal::NoSuchUser => Refusal::forever(404, "there is no such user"),
        EntryRefusal::NoSuchGroup => Refusal::forever(404, "there is no such group"),
        EntryRefusal::NotMember => Refusal::forever(403, "you are not a member of this group"),
        EntryRefusal::Blocked => Refusal::forever(403, "this user does not take messages from you"),
        EntryRefusal::NoRoom => Refusal::forever(403, "you or this user have too many conversations for another one"),
        EntryRefusal::NoSuchTarget => Refusal::forever(404, "there is no such message to edit or recall"),
        EntryRefusal::NotYours => Refusal::forever(403, "only own messages that are not recalled can be changed"),
        EntryRefusal::TooLate => Refusal::forever(403, "the message is too old to be changed"),
        EntryRefusal::Unstorable => Refusal::forever(500, "the database does not take this message"),
    }
}

/// The database is unavailable, or the server stops.
pub const AWAY: Refusal = Refusal { errno: 503, errmsg: "the database is away, try again", retry_after: Some(1000) };
/// The conversation has it, but the recipient at level 1 does not get it.
pub(super) const NOT_KEPT: Refusal = Refusal::forever(507, "the mailbox does not take this message");
pub(super) const BROKEN: Refusal = Refusal::forever(500, "the database refuses, see the log of the server");
