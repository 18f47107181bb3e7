//! [`Frame`]: a frame of a client of level 2.

use std::borrow::Cow;

use super::Rid;
use super::frames::Refusal;
use super::login::{self, HaveItem, Login, clamp, is_printable};
use super::members::{Level2Members, bad};
use crate::base::conversation::{ConversationName, Seq};
use crate::protocol::parse::MemberValue;
use crate::protocol::{self, BadRequest, Forward, FrameKind, GroupId, Id, Sender};

/// One frame of a client.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame<'f> {
    /// Its kind, for the metrics.
    pub kind: FrameKind,
    /// The client's id of the request, which the reply repeats. Sends are answered with their `cid`
    /// instead.
    pub rid: Option<Rid>,
    /// The request.
    pub request: Level2Request<'f>,
}

/// The request of a client. Texts borrow from the frame.
#[derive(Clone, PartialEq, Debug)]
pub enum Level2Request<'f> {
    /// A request of level 1, answered as there, with `rid`.
    Level1(Result<protocol::Request<'f>, BadRequest>),
    /// 1 with a `level` that opts in.
    Login(Login<'f>),
    /// 4, 5 and 9.
    Send(Send<'f>),
    /// 4, 5 or 9, refused with a 41, in the order of its conversation if that is known.
    BadSend {
        /// The conversation that it was meant for.
        conv: Option<ConversationName>,
        /// Its `cid`, if that can be repeated.
        cid: Option<Cow<'f, str>>,
        /// The reason.
        refusal: Refusal,
    },
    /// A request refused by [`refused`](super::replies::refused) with this type.
    Refused(u16, Refusal),
    /// 46: the runs for these cursors.
    Sync { have: Vec<HaveItem<'f>>, resume: u32 },
    /// 47: this device has stored everything up to these numbers. No reply.
    Report(Vec<(ConversationName, Seq)>),
    /// 48: a page.
    Page { conv: ConversationName, ask: PageAsk, limit: u32 },
    /// 49: read up to this number.
    Read { conv: ConversationName, read: i64 },
    /// 51: typing.
    Typing { conv: ConversationName },
    /// 52: watch these users, and only these.
    Watch(Vec<Id>),
    /// 53: to be answered with 54.
    Ping,
    /// 54, the answer to the server's 53. No reply.
    Pong,
    /// 58: search.
    Find { conv: Option<ConversationName>, text: Cow<'f, str>, before: Option<i64>, limit: u32 },
    /// 60 to 69. `from` is FROMID, which only level 1 needs.
    Account { from: Option<Sender>, what: Account<'f> },
}

/// A message to be committed.
#[derive(Clone, PartialEq, Debug)]
pub struct Send<'f> {
    /// 4, 5 or 9.
    pub msg_type: u16,
    /// FROMID, to be checked as at level 1.
    pub from: Option<Sender>,
    /// TOID or GROUPID.
    pub to: Id,
    /// The conversation; `None` if no user or group can have that id (404).
    pub conv: Option<ConversationName>,
    /// The client's id of the message.
    pub cid: Cow<'f, str>,
    /// The change that it makes to an earlier message.
    pub change: Option<MessageChange>,
    /// The bytes from `{` to `}`, which are compared with those of a retry.
    pub frame: &'f str,
    /// The frame in the form for level 1.
    pub forward: Forward<'f>,
}

/// A change that a send makes to an earlier message of its conversation, whose number may be any
/// integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageChange {
    /// The frame is the new body of this number.
    Edit(i64),
    /// This number is recalled.
    Recall(i64),
}

/// The messages that a page is to show. The numbers may be any integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageAsk {
    /// The newest.
    Newest,
    /// The messages before this number.
    Before(i64),
    /// The messages after this number.
    After(i64),
    /// The messages around this number.
    Around(i64),
}

/// 60 to 69.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Account<'f> {
    /// 60: change the own password.
    ChangePassword { proof: AccountProof<'f>, new: Cow<'f, str> },
    /// 61: the members of a group.
    Members { group: Id },
    /// 62: leave a group.
    Leave { group: Id },
    /// 63: remove a member, add one, or lift a ban.
    Member { group: Id, user: Id, change: MemberAction },
    /// 64: change a group.
    ChangeGroup { group: Id, name: Option<Cow<'f, str>>, description: Option<Cow<'f, str>> },
    /// 65: dissolve a group.
    Dissolve { group: Id },
    /// 66: block or unblock a user.
    Block { user: Id, block: bool },
    /// 66: the blocked users.
    Blocked,
    /// 67: show or change the user's own account.
    Own { name: Option<Cow<'f, str>>, receipts: Option<bool> },
    /// 68: show the devices, after logging out this one.
    Devices { revoke: Option<Cow<'f, str>> },
    /// 69: delete the own account.
    Delete { proof: AccountProof<'f> },
}

/// The proof of the right to 60 and 69. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub enum AccountProof<'f> {
    /// The password.
    Password(Cow<'f, str>),
    /// A fresh JSON web token, for accounts without a password.
    Jwt(Cow<'f, str>),
}

/// The action of a 63.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberAction {
    /// Removes a member, who may not rejoin without being added.
    Remove,
    /// Lifts that ban.
    LiftBan,
    /// Adds a member.
    Add,
}

impl<'f> Frame<'f> {
    /// Parses one frame of a client. A connection at level 1 acts on [`Level2Request::Login`] and
    /// [`Level2Request::Account`] only; everything else is parsed as level 1.
    ///
    /// # Errors
    /// [`BadRequest`] if it is not strict JSON, as at level 1: the 401 of level 1.
    pub fn parse(frame: &'f [u8]) -> Result<Frame<'f>, BadRequest> {
        let text = std::str::from_utf8(frame).map_err(|_| BadRequest)?;
        let mut members = Level2Members::read(text)?;
        let rid = members.rid();
        let Ok(msg_type) = members.integer("msgType") else {
            return Ok(Frame { kind: FrameKind::INVALID, rid, request: Level2Request::Level1(Err(BadRequest)) });
        };
        let request = match u16::try_from(msg_type) {
            Ok(1) if login::opts_in(&members) => or_refused(40, Login::of(&mut members).map(Level2Request::Login)),
            Ok(msg_type @ (4 | 5 | 9)) => Send::of(msg_type, text, &mut members),
            Ok(14) => Level2Request::Refused(14, bad("at level 2 messages come by themselves, use 46")),
            Ok(100) => Level2Request::Level1(Ok(protocol::Request::Fixed(protocol::NO_METHOD))),
            Ok(msg_type @ (46..=49 | 51..=54 | 58)) => or_refused(msg_type, conversation(msg_type, &mut members)),
            Ok(msg_type @ 60..=69) => {
                let from = members.sender();
                let account = Account::of(msg_type, &mut members);
                or_refused(msg_type, account.map(|what| Level2Request::Account { from, what }))
            }
            _ => Level2Request::Level1(protocol::Request::parse(frame).map(|(_, request)| request)),
        };
        Ok(Frame { kind: FrameKind::of(msg_type), rid, request })
    }
}

/// A request of level 2 that a client of level 1 may send.
#[derive(Clone, PartialEq, Debug)]
pub enum ForLevel1<'f> {
    /// A login that opts in.
    OptIn(Frame<'f>),
    /// One of 60 to 69: its FROMID, and the request or its refusal.
    Account { msg_type: u16, from: Option<Sender>, request: Result<Account<'f>, Refusal> },
}

/// The frame, if level 2 answers it also for clients of level 1.
pub fn for_level1(frame: &[u8]) -> Option<ForLevel1<'_>> {
    let text = std::str::from_utf8(frame).ok()?;
    let mut members = Level2Members::read(text).ok()?;
    match u16::try_from(members.integer("msgType").ok()?).ok()? {
        1 if login::opts_in(&members) => {
            let rid = members.rid();
            let request = or_refused(40, Login::of(&mut members).map(Level2Request::Login));
            Some(ForLevel1::OptIn(Frame { kind: FrameKind::LOGIN, rid, request }))
        }
        msg_type @ 60..=69 => {
            let from = members.sender();
            Some(ForLevel1::Account { msg_type, from, request: Account::of(msg_type, &mut members) })
        }
        _ => None,
    }
}

/// Whether a 15 of level 2 searches for the user with this name as well.
pub fn finds_by_name(frame: &[u8]) -> bool {
    let text = std::str::from_utf8(frame).ok();
    text.and_then(|text| Level2Members::read(text).ok())
        .is_some_and(|members| members.maybe_bool("byName") == Ok(Some(true)))
}

fn or_refused(msg_type: u16, request: Result<Level2Request<'_>, Refusal>) -> Level2Request<'_> {
    request.unwrap_or_else(|refusal| Level2Request::Refused(msg_type, refusal))
}

impl<'f> Send<'f> {
    fn of(msg_type: u16, text: &'f str, members: &mut Level2Members<'f>) -> Level2Request<'f> {
        let key = if msg_type == 9 { "GROUPID" } else { "TOID" };
        let to = members.id(key);
        let conv = to.ok().and_then(|to| conversation_of(msg_type, to));
        let cid = members.text("cid").ok().filter(|cid| is_printable(cid));
        let parts = to.map_err(|_| bad("TOID, or GROUPID of a 9, must be an integer")).and_then(|to| {
            let from = members.sender();
            if from == Some(Sender::Malformed) || msg_type == 9 && from.is_none() {
                return Err(bad("FROMID must be your id"));
            }
            Ok((to, from, change(msg_type, members)?))
        });
        match (cid, parts) {
            (Some(cid), Ok((to, from, change))) => {
                let forward = Forward::new(text, members.repeated, false);
                let frame = text.trim_matches([' ', '\t', '\n', '\r']);
                Level2Request::Send(Send { msg_type, from, to, conv, cid, change, frame, forward })
            }
            (None, _) => {
                let refusal = bad("give a cid: 1 to 64 printable ASCII characters without blanks");
                Level2Request::BadSend { conv, cid: None, refusal }
            }
            (cid, Err(refusal)) => Level2Request::BadSend { conv, cid, refusal },
        }
    }

    /// The form that is stored and pushed as `m`: the frame on one line. Line breaks occur only
    /// between tokens, where a blank is equivalent.
    pub fn stored(&self) -> Cow<'f, str> {
        Forward::new(self.frame, false, false).text()
    }
}

fn conversation_of(msg_type: u16, to: Id) -> Option<ConversationName> {
    let id = to.user()?;
    Some(if msg_type == 9 { ConversationName::Group(GroupId(id.0)) } else { ConversationName::User(id) })
}

fn change(msg_type: u16, members: &Level2Members<'_>) -> Result<Option<MessageChange>, Refusal> {
    let wrong = |_| bad("edit and recall must be the number of a message");
    let edit = members.maybe_integer("edit").map_err(wrong)?.map(MessageChange::Edit);
    let recall = members.maybe_integer("recall").map_err(wrong)?.map(MessageChange::Recall);
    match (edit, recall) {
        (Some(_), Some(_)) => Err(bad("give edit or recall, not both")),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) if msg_type == 5 => Err(bad("edit and recall with a 4 or a 9")),
        (change, other) => Ok(change.or(other)),
    }
}

/// Parses 46 to 58.
fn conversation<'f>(msg_type: u16, members: &mut Level2Members<'f>) -> Result<Level2Request<'f>, Refusal> {
    Ok(match msg_type {
        46 => {
            let have = members.pairs("have").map_err(|_| bad("have must be an object of cursors"))?;
            Level2Request::Sync { have: login::cursors(have), resume: login::resume(members)? }
        }
        47 => Level2Request::Report(reported(members)?),
        48 => page(members)?,
        49 => {
            let read = members.integer("read").map_err(|_| bad("read must be the number of a message"))?;
            Level2Request::Read { conv: conv(members)?, read }
        }
        51 => match members.text("event").ok().as_deref() {
            Some("typing") => Level2Request::Typing { conv: conv(members)? },
            _ => return Err(bad("event must be typing")),
        },
        52 => Level2Request::Watch(watched(members)?),
        53 => Level2Request::Ping,
        54 => Level2Request::Pong,
        _ => {
            let text = members.text("text").ok().filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| bad("text must be what to search for"))?;
            let before = members.maybe_integer("before").map_err(|_| bad("before must be the number of a message"))?;
            let conv = if members.has("conv") { Some(conv(members)?) } else { None };
            Level2Request::Find { conv, text, before, limit: limit(members)? }
        }
    })
}

fn conv(members: &mut Level2Members<'_>) -> Result<ConversationName, Refusal> {
    let conv = members.text("conv").ok().and_then(|name| ConversationName::parse(&name));
    conv.ok_or_else(|| bad("conv must be a conversation as the server names it, such as u9 or g3"))
}

fn limit(members: &Level2Members<'_>) -> Result<u32, Refusal> {
    let limit = members.maybe_integer("limit").map_err(|_| bad("limit must be an integer"))?;
    Ok(clamp(limit, LIMIT))
}

fn page<'f>(members: &mut Level2Members<'f>) -> Result<Level2Request<'f>, Refusal> {
    let wrong = |_| bad("before, after and around must be the number of a message");
    let before = members.maybe_integer("before").map_err(wrong)?.map(PageAsk::Before);
    let after = members.maybe_integer("after").map_err(wrong)?.map(PageAsk::After);
    let around = members.maybe_integer("around").map_err(wrong)?.map(PageAsk::Around);
    let mut asks = [before, after, around].into_iter().flatten();
    let ask = asks.next().unwrap_or(PageAsk::Newest);
    if asks.next().is_some() {
        return Err(bad("give one of before, after and around"));
    }
    Ok(Level2Request::Page { conv: conv(members)?, ask, limit: limit(members)? })
}

fn reported(members: &mut Level2Members<'_>) -> Result<Vec<(ConversationName, Seq)>, Refusal> {
    let wrong = || bad("recv must be an object of conversations and numbers of messages");
    let pairs = members.pairs("recv").map_err(|_| wrong())?;
    let pair = |(name, value): (Cow<'_, str>, MemberValue<'_>)| match (ConversationName::parse(&name), value) {
        (Some(name), MemberValue::Integer(seq)) => Ok((name, seq.max(0))),
        _ => Err(wrong()),
    };
    pairs.into_iter().map(pair).collect()
}

fn watched(members: &mut Level2Members<'_>) -> Result<Vec<Id>, Refusal> {
    let list = members.list("watch").map_err(|_| bad("watch must be a list of user ids"))?;
    if list.len() > WATCHED_MAX {
        return Err(bad("watch at most 500 users"));
    }
    let id = |member| match member {
        MemberValue::Integer(id) => Ok(Id(id)),
        _ => Err(bad("watch must be a list of user ids")),
    };
    list.into_iter().map(id).collect()
}

impl Account<'_> {
    /// The `msgType`.
    pub fn msg_type(&self) -> u16 {
        match self {
            Account::ChangePassword { .. } => 60,
            Account::Members { .. } => 61,
            Account::Leave { .. } => 62,
            Account::Member { .. } => 63,
            Account::ChangeGroup { .. } => 64,
            Account::Dissolve { .. } => 65,
            Account::Block { .. } | Account::Blocked => 66,
            Account::Own { .. } => 67,
            Account::Devices { .. } => 68,
            Account::Delete { .. } => 69,
        }
    }

    /// The proof that the request needs, if any.
    pub fn proof(&self) -> Option<&AccountProof<'_>> {
        match self {
            Account::ChangePassword { proof, .. } | Account::Delete { proof } => Some(proof),
            _ => None,
        }
    }

    /// The same request, without borrowing from the frame.
    pub fn into_owned(self) -> Account<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Account::ChangePassword { proof, new } => {
                Account::ChangePassword { proof: proof.into_owned(), new: owned(new) }
            }
            Account::Members { group } => Account::Members { group },
            Account::Leave { group } => Account::Leave { group },
            Account::Member { group, user, change } => Account::Member { group, user, change },
            Account::ChangeGroup { group, name, description } => {
                Account::ChangeGroup { group, name: name.map(owned), description: description.map(owned) }
            }
            Account::Dissolve { group } => Account::Dissolve { group },
            Account::Block { user, block } => Account::Block { user, block },
            Account::Blocked => Account::Blocked,
            Account::Own { name, receipts } => Account::Own { name: name.map(owned), receipts },
            Account::Devices { revoke } => Account::Devices { revoke: revoke.map(owned) },
            Account::Delete { proof } => Account::Delete { proof: proof.into_owned() },
        }
    }
}

impl<'f> Account<'f> {
    fn of(msg_type: u16, members: &mut Level2Members<'f>) -> Result<Account<'f>, Refusal> {
        Ok(match msg_type {
            60 => {
                let new = members.text("new").map_err(|_| bad("new must be the new password"))?;
                Account::ChangePassword { proof: AccountProof::of(members)?, new }
            }
            61 => Account::Members { group: group(members)? },
            62 => Account::Leave { group: group(members)? },
            63 => Account::Member { group: group(members)?, user: user(members)?, change: member_change(members)? },
            64 => {
                let wrong = |_| bad("name and description must be texts");
                let (name, description) = (members.maybe_text("name"), members.maybe_text("description"));
                let (name, description) = (name.map_err(wrong)?, description.map_err(wrong)?);
                Account::ChangeGroup { group: group(members)?, name, description }
            }
            65 => Account::Dissolve { group: group(members)? },
            66 if !members.has("USERID") => Account::Blocked,
            66 => match members.maybe_bool("block") {
                Ok(Some(block)) => Account::Block { user: user(members)?, block },
                Ok(None) | Err(BadRequest) => return Err(bad("block must be true or false")),
            },
            67 => {
                let name = members.maybe_text("name").map_err(|_| bad("name must be a text"))?;
                let receipts = members.maybe_bool("receipts").map_err(|_| bad("receipts must be true or false"))?;
                Account::Own { name, receipts }
            }
            68 => {
                let revoke = members.maybe_text("revoke").map_err(|_| bad("revoke must be the name of a device"))?;
                Account::Devices { revoke }
            }
            _ => Account::Delete { proof: AccountProof::of(members)? },
        })
    }
}

fn group(members: &Level2Members<'_>) -> Result<Id, Refusal> {
    members.id("GROUPID").map_err(|_| bad("GROUPID must be an integer"))
}

fn user(members: &Level2Members<'_>) -> Result<Id, Refusal> {
    members.id("USERID").map_err(|_| bad("USERID must be an integer"))
}

fn member_change(members: &Level2Members<'_>) -> Result<MemberAction, Refusal> {
    let wrong = |_| bad("ban and add must be true or false");
    let (ban, add) = (members.maybe_bool("ban").map_err(wrong)?, members.maybe_bool("add").map_err(wrong)?);
    match (ban, add.unwrap_or(false)) {
        (Some(_), true) => Err(bad("give ban or add, not both")),
        (None, true) => Ok(MemberAction::Add),
        (Some(false), false) => Ok(MemberAction::LiftBan),
        (None | Some(true), false) => Ok(MemberAction::Remove),
    }
}

impl<'f> AccountProof<'f> {
    fn into_owned(self) -> AccountProof<'static> {
        match self {
            AccountProof::Password(password) => AccountProof::Password(Cow::Owned(password.into_owned())),
            AccountProof::Jwt(jwt) => AccountProof::Jwt(Cow::Owned(jwt.into_owned())),
        }
    }

    fn of(members: &mut Level2Members<'f>) -> Result<AccountProof<'f>, Refusal> {
        let wrong = |_| bad("password and jwt must be texts");
        let password = members.maybe_text("password").map_err(wrong)?;
        let jwt = members.maybe_text("jwt").map_err(wrong)?;
        match (password, jwt) {
            (Some(password), None) => Ok(AccountProof::Password(password)),
            (None, Some(jwt)) => Ok(AccountProof::Jwt(jwt)),
            (Some(_), Some(_)) | (None, None) => Err(bad("give the password, or a fresh jwt if there is none")),
        }
    }
}

/// Shows the kind of the proof, not the proof.
impl std::fmt::Debug for AccountProof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The least, most and default `limit`.
const LIMIT: (u32, u32, u32) = (1, super::PAGE_MAX as u32, 50);
const WATCHED_MAX: usize = 500;

#[cfg(test)]
mod tests;
