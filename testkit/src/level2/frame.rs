//! [`Frame`]: a server's frame to a connection of level 2.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Checked, Mistake, SERVER_FRAME_END, ensure, shape};

/// The id of a request, which the reply repeats: a text or an integer.
pub type Rid = Value;

/// One frame of a server. It must have all its members and no others.
#[derive(Clone, Debug)]
pub enum Frame {
    /// 40: the login was accepted.
    Welcome(Welcome),
    /// 41: a message is committed.
    Ack(Ack),
    /// 41 with an error.
    SendRefused(Refusal),
    /// 42: a message.
    Push(Push),
    /// 43: conversations.
    Overview(Overview),
    /// 44: the messages that follow in a conversation.
    Run(Run),
    /// 44 with an error: nothing follows.
    RunRefused(Refusal),
    /// 45: the synchronisation is over.
    Synced(Option<Rid>),
    /// 48: a page.
    Page(Page),
    /// 49: the own read mark.
    Read(Read),
    /// 50: the partner's marks.
    Peer(Peer),
    /// 51: somebody is typing.
    Typing(Typing),
    /// 52: whether a user is online.
    Presence(Presence),
    /// 53.
    Ping,
    /// 54.
    Pong(Option<Rid>),
    /// 55: the last frame.
    Farewell(Farewell),
    /// Any other reply: of level 1, of 52, 58 or 60 to 69, or an error of 40 to 69.
    Reply(Value),
}

/// 40.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Welcome {
    pub device: String,
    pub errno: i64,
    pub level: i64,
    pub limits: Limits,
    pub msg_type: i64,
    pub name: String,
    pub ping: i64,
    pub rid: Option<Rid>,
    pub token: String,
    pub token_expires: i64,
    pub user: i64,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub frame: usize,
    pub inflight: usize,
    pub page: u64,
}

/// 41 of a message that is committed.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ack {
    #[serde(default)]
    pub again: OnlyTrue,
    pub cid: String,
    pub conv: Conv,
    pub errno: i64,
    pub msg_type: i64,
    pub seq: Seq,
    pub tag: Tag,
    pub time: Time,
}

/// An error: of a send (41) or of a cursor (44).
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Refusal {
    pub cid: Option<String>,
    pub conv: Option<String>,
    pub errmsg: String,
    pub errno: i64,
    pub msg_type: i64,
    pub retry_after: Option<f64>,
}

/// A message in its conversation, in whichever frame it was shown.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub edited: Option<Seq>,
    pub from: i64,
    #[serde(default)]
    pub imported: OnlyTrue,
    pub m: Body,
    pub recalled: Option<Seq>,
    pub seq: Seq,
    pub tag: Tag,
    pub time: Time,
}

/// 42.
#[derive(Clone, Debug)]
pub struct Push {
    pub conv: Conv,
    pub message: Message,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPush {
    conv: Conv,
    edited: Option<Seq>,
    from: i64,
    #[serde(default)]
    imported: OnlyTrue,
    m: Body,
    #[serde(rename = "msgType")]
    _msg_type: i64,
    recalled: Option<Seq>,
    seq: Seq,
    tag: Tag,
    time: Time,
}

/// 43.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Overview {
    pub convs: Vec<OverviewLine>,
    pub more: bool,
    pub msg_type: i64,
}

/// A conversation in a 43.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OverviewLine {
    pub conv: Conv,
    pub floor: Seq,
    pub head: Seq,
    pub kind: String,
    pub last: Option<Message>,
    #[serde(deserialize_with = "maybe_null")]
    pub name: Option<String>,
    pub peer_read: Option<Seq>,
    pub peer_recv: Option<Seq>,
    pub read: Seq,
    pub tag: Option<Tag>,
    pub unread: Seq,
}

/// 44.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Run {
    pub complete: bool,
    pub conv: Conv,
    pub from: Seq,
    pub gap: Option<(Seq, Seq)>,
    pub msg_type: i64,
    #[serde(default)]
    pub reset: OnlyTrue,
    pub to: Seq,
}

/// 45.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Synced {
    #[serde(rename = "msgType")]
    _msg_type: i64,
    rid: Option<Rid>,
    #[serde(rename = "synced")]
    _synced: OnlyTrue,
}

/// 48.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Page {
    pub complete: bool,
    pub conv: Conv,
    pub errno: i64,
    pub floor: Seq,
    pub from: Option<Seq>,
    pub head: Seq,
    pub msg_type: i64,
    pub msgs: Vec<Message>,
    pub rid: Option<Rid>,
    pub to: Option<Seq>,
}

/// 49.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Read {
    pub conv: Conv,
    pub errno: i64,
    pub head: Seq,
    pub msg_type: i64,
    pub read: Seq,
    pub rid: Option<Rid>,
    pub unread: Seq,
    pub user: i64,
}

/// 50.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peer {
    pub conv: Conv,
    pub msg_type: i64,
    pub read: Seq,
    pub recv: Seq,
    pub user: i64,
}

/// 51.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Typing {
    pub conv: Conv,
    pub event: String,
    pub from: i64,
    pub msg_type: i64,
}

/// 52.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Presence {
    pub msg_type: i64,
    pub online: bool,
    pub user: i64,
}

/// 53 and 54.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Heartbeat {
    #[serde(rename = "msgType")]
    _msg_type: i64,
    rid: Option<Rid>,
}

/// 55.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Farewell {
    pub errmsg: String,
    pub errno: i64,
    pub msg_type: i64,
    pub reason: String,
    pub retry_after: Option<f64>,
}

/// The members by which frames are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    msg_type: i64,
    errno: Option<i64>,
}

impl Frame {
    /// Reads a frame and checks its form.
    ///
    /// # Errors
    /// A [`Mistake`] if a member is missing, unknown or of a wrong kind, if the text is not compact
    /// or its keys are not in byte order, or if it is too long.
    pub fn read(text: &str) -> Checked<Frame> {
        ensure(text.len() < SERVER_FRAME_END, || format!("a frame of {} bytes", text.len()))?;
        ensure(text.starts_with('{'), || "no object".to_owned())?;
        let head: Head = read(text)?;
        shape::check(text)?;
        Ok(match (head.msg_type, head.errno) {
            (40, Some(200)) => Frame::Welcome(read(text)?),
            (41, Some(200)) => Frame::Ack(read(text)?),
            (41, _) => Frame::SendRefused(read::<Refusal>(text)?.checked()?),
            (42, None) => Frame::Push(read::<RawPush>(text)?.push()?),
            (43, None) => Frame::Overview(read(text)?),
            (44, None) => Frame::Run(read(text)?),
            (44, _) => Frame::RunRefused(read::<Refusal>(text)?.checked()?),
            (45, None) => Frame::Synced(read::<Synced>(text)?.rid),
            (48, Some(200)) => Frame::Page(read::<Page>(text)?.checked()?),
            (49, Some(200)) => Frame::Read(read(text)?),
            (50, None) => Frame::Peer(read(text)?),
            (51, None) => Frame::Typing(read(text)?),
            (52, None) => Frame::Presence(read(text)?),
            (53, None) => {
                let ping: Heartbeat = read(text)?;
                ensure(ping.rid.is_none(), || "a 53 of the server with a rid".to_owned())?;
                Frame::Ping
            }
            (54, None) => Frame::Pong(read::<Heartbeat>(text)?.rid),
            (55, _) => Frame::Farewell(read::<Farewell>(text)?.checked()?),
            (_, Some(_)) => Frame::Reply(read_reply(text)?),
            (other, None) => return Err(Mistake(format!("a {other} without errno"))),
        })
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Checked<T> {
    serde_json::from_str(text).map_err(|error| Mistake(error.to_string()))
}

/// A reply of level 1, or of 40 to 69. An error of 40 to 69 must have an `errmsg`.
fn read_reply(text: &str) -> Checked<Value> {
    let reply: Value = read(text)?;
    let is_error = reply["errno"] != 200 && reply["msgType"].as_i64().is_some_and(|kind| (40..70).contains(&kind));
    let says_what = reply["errmsg"].as_str().is_some_and(|text| !text.is_empty());
    // A request that waits for the consent of another user is accepted with 202.
    ensure(!is_error || says_what || reply["errno"] == 202, || "an error without errmsg".to_owned())?;
    ensure(is_delay(reply.get("retryAfter").map(|delay| delay.as_f64().unwrap_or(-1.0))), || "retryAfter".to_owned())?;
    Ok(reply)
}

/// Whether a `retryAfter` is absent or a number of seconds.
fn is_delay(seconds: Option<f64>) -> bool {
    seconds.is_none_or(|seconds| (0.0..=86_400.0).contains(&seconds))
}

impl Refusal {
    fn checked(self) -> Checked<Refusal> {
        ensure(!self.errmsg.is_empty(), || "an error without errmsg".to_owned())?;
        ensure(is_delay(self.retry_after), || "retryAfter is no delay".to_owned())?;
        let is_ack = self.msg_type == 41;
        ensure(!is_ack || self.conv.is_none(), || "a refused send has no conv".to_owned())?;
        ensure(is_ack || (self.conv.is_some() && self.cid.is_none()), || "a refused cursor has its conv".to_owned())?;
        Ok(self)
    }
}

impl Message {
    fn checked(self) -> Checked<Message> {
        ensure(self.m.is_null() == self.recalled.is_some(), || "m is null exactly if recalled".to_owned())?;
        ensure(self.edited.is_none() || self.recalled.is_none(), || "edited and recalled".to_owned())?;
        let later = |by: Option<Seq>| by.is_none_or(|by| by.0 > self.seq.0);
        ensure(later(self.edited) && later(self.recalled), || "changed by an earlier number".to_owned())?;
        Ok(self)
    }
}

impl RawPush {
    fn push(self) -> Checked<Push> {
        let RawPush { conv, edited, from, imported, m, recalled, seq, tag, time, .. } = self;
        let message = Message { edited, from, imported, m, recalled, seq, tag, time };
        Ok(Push { conv, message: message.checked()? })
    }
}

impl Page {
    fn checked(mut self) -> Checked<Page> {
        self.msgs = self.msgs.into_iter().map(Message::checked).collect::<Checked<_>>()?;
        Ok(self)
    }
}

impl OverviewLine {
    /// The last message, checked.
    pub(super) fn last(&self) -> Checked<Option<Message>> {
        self.last.clone().map(Message::checked).transpose()
    }
}

impl Farewell {
    fn checked(self) -> Checked<Farewell> {
        let (errnos, may_return): (&[i64], bool) = match self.reason.as_str() {
            "drain" | "slow" | "overload" => (&[503], true),
            "idle" => (&[408], true),
            "limit" => (&[429], true),
            "replaced" => (&[409], false),
            "revoked" => (&[403], false),
            "logout" => (&[200], false),
            "protocol" => (&[400, 413], false),
            other => return Err(Mistake(format!("no reason: {other}"))),
        };
        ensure(errnos.contains(&self.errno), || format!("{} with errno {}", self.reason, self.errno))?;
        ensure(self.retry_after.is_some() == may_return, || format!("retryAfter of {}", self.reason))?;
        ensure(is_delay(self.retry_after) && !self.errmsg.is_empty(), || "retryAfter or errmsg".to_owned())?;
        Ok(self)
    }
}

/// The sender's frame, exactly as it was sent; `null` if the message is recalled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body(pub String);

impl Body {
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// The frame as a value.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Body, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let is_body = text.get() == "null" || text.get().starts_with('{');
        if is_body { Ok(Body(text.get().to_owned())) } else { Err(D::Error::custom("m is no object")) }
    }
}

/// The name of a conversation, exactly as the server writes it.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "String")]
pub struct Conv(pub String);

/// A tag: eight lower-case hexadecimal digits.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(try_from = "String")]
pub struct Tag(pub String);

/// The number of a message, or a number of messages.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(try_from = "u64")]
pub struct Seq(pub u64);

/// Milliseconds since 1970.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(try_from = "i64")]
pub struct Time(pub i64);

/// A flag that is present only if it is true.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(try_from = "bool")]
pub struct OnlyTrue(pub bool);

impl TryFrom<String> for Conv {
    type Error = String;

    fn try_from(text: String) -> Result<Conv, String> {
        let id = text.strip_prefix(['u', 'g']).unwrap_or_default();
        let is_canonical = id.parse::<i32>().is_ok_and(|number| number > 0 && number.to_string() == id);
        if is_canonical { Ok(Conv(text)) } else { Err(format!("{text:?} is no name of a conversation")) }
    }
}

impl TryFrom<String> for Tag {
    type Error = String;

    fn try_from(text: String) -> Result<Tag, String> {
        let is_tag = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_tag { Ok(Tag(text)) } else { Err(format!("{text:?} is no tag")) }
    }
}

impl TryFrom<u64> for Seq {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Seq, &'static str> {
        if number < 1 << 53 { Ok(Seq(number)) } else { Err("a number of 2^53 or more") }
    }
}

impl TryFrom<i64> for Time {
    type Error = &'static str;

    fn try_from(time: i64) -> Result<Time, &'static str> {
        // Between 2001 and 2286, so it is neither in seconds nor in microseconds.
        let is_milliseconds = (1_000_000_000_000..10_000_000_000_000).contains(&time);
        if is_milliseconds { Ok(Time(time)) } else { Err("a time that is not in milliseconds") }
    }
}

impl TryFrom<bool> for OnlyTrue {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<OnlyTrue, &'static str> {
        if value { Ok(OnlyTrue(true)) } else { Err("it is there only if it is true") }
    }
}

fn maybe_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}
