//! All other frames of the server. Keys are in byte order.

use std::borrow::Cow;

use serde::Deserialize;

use super::frames::Refusal;
use super::object::Object;
use super::{LEVEL, PAGE_MAX, Rid};
use crate::base::conversation::ConversationName;
use crate::protocol::{Id, UserId, forward};

/// The reply to a login that succeeds (40).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome<'w> {
    /// The device, as the client calls it: printable ASCII.
    pub device: &'w str,
    /// The longest frame of a client, in bytes.
    pub frame_max: usize,
    /// The most sends that may be unacknowledged.
    pub inflight: usize,
    /// The user's name.
    pub name: &'w str,
    /// The heartbeat in seconds.
    pub ping: u32,
    /// A token of this device, in base64url, which needs no escapes in JSON.
    pub token: &'w str,
    /// The time at which it expires, in ms since 1970.
    pub token_expires: i64,
    /// The user.
    pub user: UserId,
}

/// The reason of a 55.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The server shuts down.
    Drain,
    /// The client's kernel has acknowledged nothing for too long.
    Slow,
    /// The client was silent for too long.
    Idle,
    /// There are too many connections.
    Limit,
    /// The server has no room.
    Overload,
    /// Another login of the same device.
    Replaced,
    /// The device or the user was logged out.
    Revoked,
    /// The client has logged out.
    Logout,
    /// The client breaks the protocol.
    Protocol,
    /// A frame was longer than `limits.frame`.
    TooLong,
}

/// 40: the reply to a login that succeeds.
pub fn welcome(welcome: &Welcome<'_>, rid: Option<&Rid>) -> String {
    let limits =
        Object::new().value("frame", welcome.frame_max).value("inflight", welcome.inflight).value("page", PAGE_MAX);
    let object = Object::with_capacity(384).text("device", welcome.device).value("errno", 200).value("level", LEVEL);
    let object = object.json("limits", &limits.end()).value("msgType", 40).text("name", welcome.name);
    let object = object.value("ping", welcome.ping).maybe("rid", rid).plain("token", welcome.token);
    object.value("tokenExpires", welcome.token_expires).value("user", welcome.user).end()
}

/// An error with the msgType of the request. Errors of sends are
/// [`send_refused`](super::frames::send_refused).
pub fn refused(msg_type: u16, refusal: Refusal, rid: Option<&Rid>) -> String {
    let object = Object::new().plain("errmsg", refusal.errmsg).value("errno", refusal.errno);
    object.value("msgType", msg_type).maybe("retryAfter", refusal.retry_seconds()).maybe("rid", rid).end()
}

/// The success of a 52, or of one of 60 to 69 that returns nothing.
pub fn done(msg_type: u16, rid: Option<&Rid>) -> String {
    Object::new().value("errno", 200).value("msgType", msg_type).maybe("rid", rid).end()
}

/// A reply of level 1 with `rid` inserted in order. `reply` is one of this server's: a compact
/// object with its keys in byte order.
pub fn with_rid(reply: &str, rid: Option<&Rid>) -> String {
    let Some(rid) = rid else { return reply.to_owned() };
    let at = forward::place_for(reply, "rid");
    // Every reply has an `errno` and a `msgType`, which sort before it.
    format!("{},\"rid\":{rid}{}", &reply[..at], &reply[at..])
}

/// 51: typing, for the other members.
pub fn typing(conv: ConversationName, from: UserId) -> String {
    Object::new().plain("conv", conv).plain("event", "typing").value("from", from).value("msgType", 51).end()
}

/// 52: whether a watched user is online.
pub fn presence(Id(user): Id, online: bool) -> String {
    Object::new().value("msgType", 52).value("online", online).value("user", user).end()
}

/// 53, from the server.
pub const PING: &str = r#"{"msgType":53}"#;

/// 54, the answer to a client's 53.
pub fn pong(rid: Option<&Rid>) -> String {
    Object::new().value("msgType", 54).maybe("rid", rid).end()
}

/// 55, the last frame. `retry_after` in ms, for the reasons that have one.
pub fn farewell(reason: Reason, retry_after: u32) -> String {
    let (errno, name, errmsg) = reason.shown();
    let refusal = Refusal { errno, errmsg, retry_after: reason.may_return().then_some(retry_after) };
    let object = Object::new().plain("errmsg", errmsg).value("errno", errno).value("msgType", 55);
    object.plain("reason", name).maybe("retryAfter", refusal.retry_seconds()).end()
}

/// 60: the password is changed; the reply has a new token of this device.
pub fn password_changed(token: &str, expires: i64, rid: Option<&Rid>) -> String {
    let object = Object::new().value("errno", 200).value("msgType", 60).maybe("rid", rid);
    object.plain("token", token).value("tokenExpires", expires).end()
}

/// 61: id, name (`None` of a deleted account) and whether it is the creator. If they do not fit
/// into `bytes_max`, there are several frames, each on a line; all but the last have `more`.
pub fn members(members: &[(UserId, Option<String>, bool)], bytes_max: usize, rid: Option<&Rid>) -> String {
    let line = |(user, name, is_creator): &(UserId, Option<String>, bool)| {
        let object = named(*user, name.as_deref());
        object.plain("role", if *is_creator { "creator" } else { "member" }).end()
    };
    let frame = |lines: &[String], more: bool| {
        let object = Object::new().value("errno", 200).list("members", lines).flag("more", more);
        object.value("msgType", 61).maybe("rid", rid).end()
    };
    let (mut frames, mut lines, mut bytes) = (Vec::new(), Vec::new(), 0);
    for line in members.iter().map(line) {
        if bytes + line.len() >= bytes_max && !lines.is_empty() {
            frames.push(frame(&std::mem::take(&mut lines), true));
            bytes = 0;
        }
        bytes += line.len() + 1;
        lines.push(line);
    }
    frames.push(frame(&lines, false));
    frames.join("\n")
}

/// The most text in one frame of a reply.
pub const MEMBERS_BYTES: usize = 256 << 10;

/// 66: the blocked users.
pub fn blocked(users: &[(UserId, Option<String>)], rid: Option<&Rid>) -> String {
    let lines = users.iter().map(|(user, name)| named(*user, name.as_deref()).end());
    Object::new().list("blocked", lines).value("errno", 200).value("msgType", 66).maybe("rid", rid).end()
}

/// 67: the user's own account.
pub fn account(user: UserId, name: &str, receipts: bool, rid: Option<&Rid>) -> String {
    let object = Object::new().value("errno", 200).value("msgType", 67).text("name", name);
    object.value("receipts", receipts).maybe("rid", rid).value("user", user).end()
}

/// 68: the devices, each with its name, the time when it was last seen in ms since 1970, and
/// whether it is online.
pub fn devices(devices: &[(String, i64, bool)], rid: Option<&Rid>) -> String {
    let lines = devices.iter().map(|(device, seen, online)| {
        Object::new().text("device", device).value("online", online).value("seen", seen).end()
    });
    Object::new().list("devices", lines).value("errno", 200).value("msgType", 68).maybe("rid", rid).end()
}

/// 57: the `m` of an event of a group. `event` is one of the words in the contract.
pub fn group_event(event: &'static str, user: UserId, by: UserId, name: &str) -> String {
    let object = Object::new().value("USERID", user).value("by", by).plain("event", event);
    object.value("msgType", 57).text("name", name).end()
}

/// Whether this `m` of a group is an event that ends the membership of `user`.
pub fn ends_membership(text: &str, user: UserId) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Event<'t> {
        #[serde(rename = "USERID")]
        user: i32,
        #[serde(rename = "by")]
        _by: i32,
        event: &'t str,
        msg_type: u16,
        #[serde(rename = "name", borrow)]
        _name: Cow<'t, str>,
    }
    serde_json::from_str(text).is_ok_and(|Event { user: whom, event, msg_type, .. }| {
        msg_type == 57 && (event == "dissolved" || whom == user.0 && matches!(event, "left" | "removed"))
    })
}

fn named(user: UserId, name: Option<&str>) -> Object {
    let object = Object::new().value("id", user);
    match name {
        Some(name) => object.text("name", name),
        None => object.json("name", "null"),
    }
}

impl Reason {
    /// The reason's errno. Over WebSocket the close code is 4000 more.
    pub fn errno(self) -> u16 {
        self.shown().0
    }

    /// The reason's word in the 55.
    pub fn word(self) -> &'static str {
        self.shown().1
    }

    /// Whether the client may reconnect without the user: the 55 has a `retryAfter`.
    pub fn may_return(self) -> bool {
        matches!(self, Reason::Drain | Reason::Slow | Reason::Idle | Reason::Limit | Reason::Overload)
    }

    fn shown(self) -> (u16, &'static str, &'static str) {
        match self {
            Reason::Drain => (503, "drain", "the server is being restarted, connect again"),
            Reason::Slow => (503, "slow", "nothing was acknowledged for too long, connect again"),
            Reason::Idle => (408, "idle", "nothing was heard for too long, connect again and answer 53 with 54"),
            Reason::Limit => (429, "limit", "too many connections, connect again later"),
            Reason::Overload => (503, "overload", "the server has no room, connect again later"),
            Reason::Replaced => (409, "replaced", "this device has logged in on another connection"),
            Reason::Revoked => (403, "revoked", "this device was logged out, log in with the password"),
            Reason::Logout => (200, "logout", "logged out"),
            Reason::Protocol => (400, "protocol", "this is not the protocol, see docs/protocol.md"),
            Reason::TooLong => (413, "protocol", "the frame is too long, send shorter ones"),
        }
    }
}
