//! [`Login`]: a login that opts in to level 2.

use std::borrow::Cow;

use super::frames::Refusal;
use super::members::{HaveValue, Level2Members, Pairs, bad};
use crate::base::conversation::{ConversationName, Cursor};
use crate::protocol::Id;
use crate::protocol::parse::MemberValue;

/// A login at level 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login<'f> {
    /// The user. Needed only with a password; with a token, it must be the token's user.
    pub who: Option<Who<'f>>,
    /// The proof that the client is this user.
    pub proof: Proof<'f>,
    /// The device: 1 to 64 printable ASCII characters without blanks.
    pub device: Cow<'f, str>,
    /// The heartbeat in seconds.
    pub ping: u32,
    /// The messages that the client holds, as cursors.
    pub have: Have<'f>,
    /// The most messages of each run.
    pub resume: u32,
}

/// The user as the client names them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who<'f> {
    /// `USERID`.
    Id(Id),
    /// `name`.
    Name(Cow<'f, str>),
}

/// The proof of a login. It is never logged.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof<'f> {
    /// The password.
    Password(Cow<'f, str>),
    /// A token from an earlier 40.
    Token(Cow<'f, str>),
    /// A JSON web token.
    Jwt(Cow<'f, str>),
}

/// The cursors and marks that a client holds of its conversations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Have<'f> {
    /// These cursors, each conversation once.
    Cursors(Vec<HaveItem<'f>>),
    /// The marks that the device has reported with 47.
    Device,
}

/// One cursor of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HaveItem<'f> {
    /// A well-formed cursor.
    Cursor(ConversationName, Cursor),
    /// An entry whose name or cursor is malformed, answered with a 44 of errno 400 that repeats
    /// this name.
    Malformed(Cow<'f, str>),
}

impl<'f> Login<'f> {
    /// The login in these members of a 1 whose `level` opts in.
    pub(super) fn of(members: &mut Level2Members<'f>) -> Result<Login<'f>, Refusal> {
        let device = members.text("device").ok().filter(|device| is_printable(device));
        let device = device.ok_or_else(|| bad("give a device: 1 to 64 printable ASCII characters without blanks"))?;
        let proof = proof(members)?;
        let who = match (members.has("USERID"), members.has("name")) {
            (true, true) => return Err(bad("give USERID or name, not both")),
            (true, false) => Some(Who::Id(members.id("USERID").map_err(|_| bad("USERID must be an integer"))?)),
            (false, true) => Some(Who::Name(members.text("name").map_err(|_| bad("name must be a text"))?)),
            (false, false) => None,
        };
        if who.is_none() && matches!(proof, Proof::Password(_)) {
            return Err(bad("give USERID or name with the password"));
        }
        let ping = members.maybe_integer("ping").map_err(|_| bad("ping must be an integer of seconds"))?;
        let have = Have::of(members)?;
        let resume = resume(members)?;
        Ok(Login { who, proof, device, ping: clamp(ping, PING), have, resume })
    }
}

impl Login<'_> {
    /// The same login, without borrowing from the frame.
    pub fn into_owned(self) -> Login<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Login {
            who: self.who.map(|who| match who {
                Who::Id(id) => Who::Id(id),
                Who::Name(name) => Who::Name(owned(name)),
            }),
            proof: match self.proof {
                Proof::Password(password) => Proof::Password(owned(password)),
                Proof::Token(token) => Proof::Token(owned(token)),
                Proof::Jwt(jwt) => Proof::Jwt(owned(jwt)),
            },
            device: owned(self.device),
            ping: self.ping,
            have: match self.have {
                Have::Cursors(items) => Have::Cursors(items.into_iter().map(HaveItem::into_owned).collect()),
                Have::Device => Have::Device,
            },
            resume: self.resume,
        }
    }
}

impl HaveItem<'_> {
    /// The same item, without borrowing from the frame.
    pub fn into_owned(self) -> HaveItem<'static> {
        match self {
            HaveItem::Cursor(name, cursor) => HaveItem::Cursor(name, cursor),
            HaveItem::Malformed(name) => HaveItem::Malformed(Cow::Owned(name.into_owned())),
        }
    }
}

fn proof<'f>(members: &mut Level2Members<'f>) -> Result<Proof<'f>, Refusal> {
    let wrong = |_| bad("password, token and jwt must be texts");
    let password = members.maybe_text("password").map_err(wrong)?.map(Proof::Password);
    let token = members.maybe_text("token").map_err(wrong)?.map(Proof::Token);
    let jwt = members.maybe_text("jwt").map_err(wrong)?.map(Proof::Jwt);
    match (password, token, jwt) {
        (Some(proof), None, None) | (None, Some(proof), None) | (None, None, Some(proof)) => Ok(proof),
        _ => Err(bad("give exactly one of password, token and jwt")),
    }
}

impl<'f> Have<'f> {
    fn of(members: &mut Level2Members<'f>) -> Result<Have<'f>, Refusal> {
        match members.have() {
            HaveValue::Missing => Ok(Have::Cursors(Vec::new())),
            HaveValue::Pairs(pairs) => Ok(Have::Cursors(cursors(pairs))),
            HaveValue::Text(text) if text == "device" => Ok(Have::Device),
            HaveValue::Text(_) | HaveValue::Wrong => Err(bad("have must be an object of cursors, or the text device")),
        }
    }
}

/// Cursors in the order of the frame. If a conversation is named more than once, the last counts.
pub(super) fn cursors(pairs: Pairs<'_>) -> Vec<HaveItem<'_>> {
    let mut seen = std::collections::HashSet::with_capacity(pairs.len());
    let mut last_first: Vec<_> = pairs.into_iter().rev().filter(|(name, _)| seen.insert(name.clone())).collect();
    last_first.reverse();
    let item = |(name, value): (Cow<'_, str>, MemberValue<'_>)| {
        let cursor = match &value {
            MemberValue::Text(text) => Cursor::parse(text),
            _ => None,
        };
        match (ConversationName::parse(&name), cursor) {
            (Some(name), Some(cursor)) => HaveItem::Cursor(name, cursor),
            (None, _) | (_, None) => HaveItem::Malformed(Cow::Owned(name.into_owned())),
        }
    };
    last_first.into_iter().map(item).collect()
}

/// The member `resume`.
pub(super) fn resume(members: &Level2Members<'_>) -> Result<u32, Refusal> {
    let resume = members.maybe_integer("resume").map_err(|_| bad("resume must be an integer"))?;
    Ok(clamp(resume, RESUME))
}

/// The value clamped to the allowed range, or the default if there is none.
pub(super) fn clamp(value: Option<i64>, (least, most, default): (u32, u32, u32)) -> u32 {
    value.map_or(default, |value| u32::try_from(value.clamp(least.into(), most.into())).unwrap_or(most))
}

/// Whether this device or cid has 1 to 64 characters from 0x21 to 0x7E.
pub(super) fn is_printable(text: &str) -> bool {
    matches!(text.len(), 1..=64) && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e))
}

/// Shows the kind of the proof, not the proof.
impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Proof::Password(_) => "Password(***)",
            Proof::Token(_) => "Token(***)",
            Proof::Jwt(_) => "Jwt(***)",
        })
    }
}

/// Whether `level` opts in: an integer from 2 on.
pub(super) fn opts_in(members: &Level2Members<'_>) -> bool {
    members.integer("level").is_ok_and(|level| level >= 2)
}

/// Least, most and default.
const PING: (u32, u32, u32) = (15, 300, 60);
const RESUME: (u32, u32, u32) = (1, 5000, 100);
