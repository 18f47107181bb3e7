//! The replies: constant ones, and those made from data of the store. Every reply that the
//! reference server has too is identical to it, byte for byte.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{EchoedId, FrameKind, GroupId, Request, UserId};
use crate::base::rows::{Group, KeptMessage, User};

/// NORMAL_ACK: success.
pub const ACK: &str = r#"{"errno":200,"msgType":200}"#;
/// Login refused: the same text whether the id or the password is wrong.
pub const WRONG_LOGIN: &str = r#"{"errno":302,"msg":"wrong id or wrong password, try again.","msgType":200}"#;
/// 401.
pub const BAD_REQUEST: &str = r#"{"errmsg":"Failed to parse the json string!","errno":401,"msgType":401}"#;
/// 403 for a connection that is not logged in.
pub const LOGIN_FIRST: &str = r#"{"errmsg":"log in on this connection first","errno":403,"msgType":403}"#;
/// 403 for a request in another user's name.
pub const NOT_YOU: &str = r#"{"errmsg":"log in as the user that the request names","errno":403,"msgType":403}"#;
/// 403 for a user whose account was changed or deleted while connected.
pub const ACCOUNT_CHANGED: &str =
    r#"{"errmsg":"your account was changed or deleted, log in again","errno":403,"msgType":403}"#;
/// 403 for a message to a group from a user who is not a member.
pub const NOT_A_MEMBER: &str = r#"{"errmsg":"join the group before you write to it","errno":403,"msgType":403}"#;
/// 403 for a message to a user who has blocked its sender.
pub const BLOCKED: &str = r#"{"errmsg":"this user does not take messages from you","errno":403,"msgType":403}"#;
/// 404.
pub const NO_METHOD: &str = r#"{"errmsg":"No such method, failed to process your request!","errno":404,"msgType":404}"#;
/// 413.
pub const TOO_LONG: &str = r#"{"errmsg":"the frame is too long, send shorter ones","errno":413,"msgType":413}"#;
/// 413 for a message to a user of level 2 that is too long to be recorded.
pub const TOO_LONG_TO_RECORD: &str =
    r#"{"errmsg":"at most 256 KiB can be recorded, send shorter messages","errno":413,"msgType":413}"#;
/// 429 for a client that may not connect. Its mode is not known yet; a newline does no harm in bare
/// mode.
pub const TURNED_AWAY: &str = "{\"errmsg\":\"too many connections, try again later\",\"errno\":429,\"msgType\":429}\n";
/// 429 for a client that has to make room for others. It may be in either mode.
pub const MAKE_ROOM: &str =
    r#"{"errmsg":"too many connections, connect again and log in at once","errno":429,"msgType":429}"#;
/// 403 for a client that did not log in within `login_timeout`.
pub const LOGIN_LATE: &str =
    r#"{"errmsg":"not logged in for too long, connect again and log in","errno":403,"msgType":403}"#;
/// 429 for a frame beyond the limits of its connection.
pub const SLOW_DOWN: &str =
    r#"{"errmsg":"too much at once, send it again later and slower","errno":429,"msgType":429}"#;
/// The last 429: the input after it is not processed.
pub const HAD_ENOUGH: &str =
    r#"{"errmsg":"too much for too long, connect again later and send slower","errno":429,"msgType":429}"#;
/// 500.
pub const SERVER_ERROR: &str = r#"{"errmsg":"server error, try again later!","errno":500,"msgType":500}"#;
/// 503 for a request: the server is busy, or the database is unavailable.
pub const BUSY: &str = r#"{"errmsg":"the server is busy, try again later","errno":503,"msgType":503}"#;
/// 503 for a frame that needs more memory than is free. The rest of the input is not processed.
pub const CROWDED: &str =
    r#"{"errmsg":"too many long frames at once, connect again and send this one later","errno":503,"msgType":503}"#;
/// 503 for a message to a user, or to a member of a group, whose mailbox has no room for more
/// messages of this sender.
pub const MAILBOX_FULL: &str = r#"{"errmsg":"the mailbox of a recipient is full, try again when messages have been fetched","errno":503,"msgType":503}"#;
/// 503 for a message that could neither be delivered nor stored.
pub const NOT_KEPT: &str = r#"{"errmsg":"a message could not be kept, send it again later","errno":503,"msgType":503}"#;

/// 429 for a login after too many wrong ones.
pub fn login_later(seconds: u32) -> String {
    later("too many wrong passwords, try again later", 429, seconds)
}

/// 429 for a registration after too many others.
pub fn register_later(seconds: u32) -> String {
    later("too many new accounts, try again later", 429, seconds)
}

/// 503 for a login or a registration while too many others wait.
pub fn busy_for(seconds: u32) -> String {
    later("the server is busy, try again later", 503, seconds)
}

/// A refusal that says when to try again.
fn later(errmsg: &str, errno: u16, seconds: u32) -> String {
    format!(r#"{{"errmsg":"{errmsg}","errno":{errno},"msgType":{errno},"retryAfter":{seconds}}}"#)
}

/// Reply to 2.
pub fn registered(user: UserId) -> String {
    #[derive(Serialize)]
    #[expect(non_snake_case)]
    struct Reply {
        USERID: i32,
        errno: u16,
        msgType: u16,
    }
    json(&Reply { USERID: user.0, errno: 200, msgType: 200 })
}

/// Reply to 6.
pub fn friend_added(friend: UserId, name: &str) -> String {
    json(&NewFriend { errno: 200, msg_type: 6, name, new: None, user_id: friend.0 })
}

/// Reply to 6 if the other user has to agree.
pub fn friend_asked(friend: UserId, name: &str) -> String {
    json(&NewFriend { errno: 202, msg_type: 6, name, new: None, user_id: friend.0 })
}

/// Refusal of 6: the other user has blocked the requester.
pub fn friend_blocked(friend: UserId) -> String {
    format!(r#"{{"errmsg":"this user does not take requests from you","errno":403,"msgType":6,"userId":{friend}}}"#)
}

/// Refusal of 6: one of them has too many conversations for another one.
pub fn friend_no_room(friend: UserId) -> String {
    format!(
        r#"{{"errmsg":"you or this user have too many conversations for another one","errno":403,"msgType":6,"userId":{friend}}}"#
    )
}

/// Push to the other side of 6.
pub fn new_friend(friend: UserId, name: &str) -> String {
    json(&NewFriend { errno: 200, msg_type: 6, name, new: Some(true), user_id: friend.0 })
}

/// Push to a user who is asked to become a friend: the same as [`new_friend`], marked.
pub fn friend_request(friend: UserId, name: &str) -> String {
    let push = new_friend(friend, name);
    format!("{{\"ask\":true,{}", &push[1..])
}

#[derive(Serialize)]
struct NewFriend<'a> {
    errno: u16,
    #[serde(rename = "msgType")]
    msg_type: u16,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<bool>,
    #[serde(rename = "userId")]
    user_id: i32,
}

/// Refusal of 6: no user has that id.
pub fn no_such_user(friend: EchoedId<'_>) -> String {
    format!(r#"{{"errmsg":"no such user","errno":404,"msgType":6,"userId":{}}}"#, friend)
}

/// Refusal of 6: the user's own id.
pub fn not_yourself(friend: EchoedId<'_>) -> String {
    format!(r#"{{"errmsg":"cannot add yourself","errno":400,"msgType":6,"userId":{}}}"#, friend)
}

/// Refusal of 10.
pub fn no_such_group(group: EchoedId<'_>) -> String {
    format!(r#"{{"errmsg":"no such group","errno":404,"groupId":{},"msgType":10}}"#, group)
}

/// Refusal of 10 for a full group.
pub fn group_full(group: EchoedId<'_>) -> String {
    format!(r#"{{"errmsg":"the group has as many members as it may","errno":403,"groupId":{},"msgType":10}}"#, group)
}

/// Refusal of 10 for a user who is in as many groups as a user may be.
pub fn too_many_groups_to_join(group: EchoedId<'_>) -> String {
    format!(r#"{{"errmsg":"you are in too many groups for another one","errno":403,"groupId":{},"msgType":10}}"#, group)
}

/// Refusal of 12 for a user who is in as many groups as a user may be.
pub const TOO_MANY_GROUPS: &str = r#"{"errmsg":"you are in too many groups for another one","errno":403,"msgType":12}"#;

/// Refusal of 10 for a user whom the creator has to let in.
pub fn may_not_join(group: EchoedId<'_>) -> String {
    format!(r#"{{"errmsg":"only the creator of the group can add you","errno":403,"groupId":{},"msgType":10}}"#, group)
}

/// Reply to 8.
pub fn contacts(friends: &[User], groups: &[Group]) -> String {
    #[derive(Serialize)]
    struct Contact<'a> {
        id: String,
        #[serde(rename = "isGroup")]
        is_group: &'static str,
        name: &'a str,
    }
    #[derive(Serialize)]
    struct Reply<'a> {
        errno: u16,
        friends: Vec<Contact<'a>>,
        #[serde(rename = "msgType")]
        msg_type: u16,
    }
    let friends = friends.iter().map(|user| Contact { id: user.id.to_string(), is_group: "0", name: &user.name });
    let groups = groups.iter().map(|group| Contact { id: group.id.to_string(), is_group: "1", name: &group.name });
    json(&Reply { errno: 200, friends: friends.chain(groups).collect(), msg_type: 8 })
}

/// Reply to 10.
pub fn joined(group: GroupId, name: &str) -> String {
    #[derive(Serialize)]
    struct Reply<'a> {
        errno: u16,
        #[serde(rename = "groupId")]
        group_id: i32,
        #[serde(rename = "msgType")]
        msg_type: u16,
        name: &'a str,
    }
    json(&Reply { errno: 200, group_id: group.0, msg_type: 10, name })
}

/// Reply to 11 and 13.
pub fn groups(groups: &[Group]) -> String {
    #[derive(Serialize)]
    struct Item<'a> {
        desc: &'a str,
        #[serde(rename = "gUsers")]
        users: [(); 0],
        id: String,
        name: &'a str,
    }
    #[derive(Serialize)]
    struct Reply<'a> {
        errno: u16,
        groups: Vec<Item<'a>>,
        #[serde(rename = "msgType")]
        msg_type: u16,
    }
    let items = groups.iter().map(|group| Item {
        desc: &group.description,
        users: [],
        id: group.id.to_string(),
        name: &group.name,
    });
    json(&Reply { errno: 200, groups: items.collect(), msg_type: 200 })
}

/// Reply to 12.
pub fn group_created(group: GroupId, name: &str) -> String {
    #[derive(Serialize)]
    #[expect(non_snake_case)]
    struct Reply<'a> {
        GROUPID: i32,
        errno: u16,
        msgType: u16,
        name: &'a str,
    }
    json(&Reply { GROUPID: group.0, errno: 200, msgType: 12, name })
}

/// Reply to 14.
pub fn messages(messages: &[KeptMessage]) -> String {
    kept(messages.iter().map(|message| message.text.as_str()))
}

/// The number of messages that fit into one reply for a client whose frames are joined, counted
/// from the first: at least one.
pub fn fit_a_frame(messages: &[KeptMessage]) -> usize {
    let mut bytes = as_kept(&[]).len();
    let fits = messages.iter().take(net::JOINED_MAX).take_while(|message| {
        bytes += quoted_len(message.text.as_bytes()) + 1;
        bytes <= net::JOINED_BYTES_MAX
    });
    fits.count().max(1).min(messages.len())
}

/// The length of a text as a JSON string.
fn quoted_len(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.iter().map(escaped).sum::<usize>()
}

fn kept<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    #[derive(Serialize)]
    struct Reply<'a> {
        errno: u16,
        #[serde(rename = "msgType")]
        msg_type: u16,
        msgs: Vec<&'a str>,
    }
    json(&Reply { errno: 200, msg_type: 14, msgs: texts.collect() })
}

/// The length of this frame among stored messages, with its comma. `None` unless the usual client
/// also shows it there: only chat and group chat.
pub fn len_as_kept(frame: &[u8]) -> Option<usize> {
    let kind = Request::parse(frame).map(|(kind, _)| kind);
    let may = kind.is_ok_and(|kind| kind == FrameKind::of(4) || kind == FrameKind::of(9));
    may.then(|| quoted_len(frame) + 1)
}

/// The number of messages that the usual client shows for a reply: those in the reply to 14.
pub fn messages_shown(reply: &[u8]) -> usize {
    #[derive(Deserialize)]
    struct FetchReply<'a> {
        #[serde(borrow)]
        msgs: Vec<&'a RawValue>,
    }
    let is_kept = reply.starts_with(br#"{"errno":200,"msgType":14,"#);
    let kept = is_kept.then(|| serde_json::from_slice::<FetchReply<'_>>(reply).ok()).flatten();
    kept.map_or(1, |kept| kept.msgs.len())
}

/// Several such frames in the form of a reply with stored messages, which the usual client accepts
/// at any time.
pub fn as_kept(frames: &[&[u8]]) -> Vec<u8> {
    kept(frames.iter().map(|frame| str::from_utf8(frame).expect("what is sent is text"))).into_bytes()
}

/// Reply to 15.
pub fn search_results(users: &[User], groups: &[Group]) -> String {
    #[derive(Serialize)]
    struct Found<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        desc: Option<&'a str>,
        id: String,
        #[serde(rename = "isGroup")]
        is_group: &'static str,
        name: &'a str,
    }
    #[derive(Serialize)]
    struct Reply<'a> {
        errno: u16,
        #[serde(rename = "msgType")]
        msg_type: u16,
        results: Vec<Found<'a>>,
    }
    let users = users.iter().map(|user| Found { desc: None, id: user.id.to_string(), is_group: "0", name: &user.name });
    let groups = groups.iter().map(|group| Found {
        desc: Some(&group.description),
        id: group.id.to_string(),
        is_group: "1",
        name: &group.name,
    });
    json(&Reply { errno: 200, msg_type: 15, results: users.chain(groups).collect() })
}

/// Compact JSON with the members in the order of the struct, which must be their byte order, as in
/// the reference server.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists of them are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Id;
    use crate::store::MessageId;

    #[test]
    fn stored_messages_in_a_reply_are_measured_and_counted() {
        for text in
            [r#"{"msgType":4,"TOID":2,"msg":"\"x\" \u0001 \\ 你好"}"#, "{\"msgType\":9,\t\"FROMID\":1,\"GROUPID\":3}"]
        {
            let (one, two) = (as_kept(&[text.as_bytes()]), as_kept(&[text.as_bytes(), text.as_bytes()]));
            assert_eq!(len_as_kept(text.as_bytes()), Some(two.len() - one.len()), "{text}");
            assert_eq!((messages_shown(&one), messages_shown(&two)), (1, 2));
        }
        for other in [r#"{"msgType":5,"TOID":2}"#, r#"{"errno":200,"msgType":6,"name":"b","userId":7}"#, "{"] {
            assert_eq!((len_as_kept(other.as_bytes()), messages_shown(other.as_bytes())), (None, 1), "{other}");
        }
        assert_eq!(quoted_len("a\u{1}\u{8}\u{c}\n\"".as_bytes()), json(&"a\u{1}\u{8}\u{c}\n\"").len());
    }

    #[test]
    fn a_frame_of_kept_messages_is_short_but_holds_at_least_one() {
        let message = |n: i64, len: usize| KeptMessage { id: MessageId(n), text: "\"".repeat(len) };
        let fitting = |lens: &[usize]| {
            let messages: Vec<_> = lens.iter().zip(0..).map(|(len, n)| message(n, *len)).collect();
            let count = fit_a_frame(&messages);
            assert!(count <= 1 || super::messages(&messages[..count]).len() <= net::JOINED_BYTES_MAX);
            count
        };
        assert_eq!(
            [fitting(&[]), fitting(&[5000]), fitting(&[300, 300, 300]), fitting(&[1; 50])],
            [0, 1, 2, net::JOINED_MAX]
        );
    }

    #[test]
    fn replies_are_the_reference_servers_to_the_byte() {
        let user = User { id: UserId(7), name: "张\"三\u{1}".into() };
        let group = Group { id: GroupId(3), name: "g/\\".into(), description: String::new() };
        let kept = KeptMessage { id: MessageId(1), text: r#"{"msgType":4}"#.into() };
        let cases = [
            (registered(UserId(5)), r#"{"USERID":5,"errno":200,"msgType":200}"#),
            (friend_added(UserId(7), "b"), r#"{"errno":200,"msgType":6,"name":"b","userId":7}"#),
            (new_friend(UserId(7), "b"), r#"{"errno":200,"msgType":6,"name":"b","new":true,"userId":7}"#),
            (
                friend_request(UserId(7), "b"),
                r#"{"ask":true,"errno":200,"msgType":6,"name":"b","new":true,"userId":7}"#,
            ),
            (friend_asked(UserId(7), "b"), r#"{"errno":202,"msgType":6,"name":"b","userId":7}"#),
            (
                friend_blocked(UserId(7)),
                r#"{"errmsg":"this user does not take requests from you","errno":403,"msgType":6,"userId":7}"#,
            ),
            (
                friend_no_room(UserId(7)),
                r#"{"errmsg":"you or this user have too many conversations for another one","errno":403,"msgType":6,"userId":7}"#,
            ),
            (
                may_not_join(Id(9).into()),
                r#"{"errmsg":"only the creator of the group can add you","errno":403,"groupId":9,"msgType":10}"#,
            ),
            (no_such_user(Id(9).into()), r#"{"errmsg":"no such user","errno":404,"msgType":6,"userId":9}"#),
            (not_yourself(Id(9).into()), r#"{"errmsg":"cannot add yourself","errno":400,"msgType":6,"userId":9}"#),
            (no_such_group(Id(9).into()), r#"{"errmsg":"no such group","errno":404,"groupId":9,"msgType":10}"#),
            (
                contacts(std::slice::from_ref(&user), std::slice::from_ref(&group)),
                r#"{"errno":200,"friends":[{"id":"7","isGroup":"0","name":"张\"三\u0001"},{"id":"3","isGroup":"1","name":"g/\\"}],"msgType":8}"#,
            ),
            (
                busy_for(7),
                r#"{"errmsg":"the server is busy, try again later","errno":503,"msgType":503,"retryAfter":7}"#,
            ),
            (joined(GroupId(3), "g"), r#"{"errno":200,"groupId":3,"msgType":10,"name":"g"}"#),
            (
                groups(std::slice::from_ref(&group)),
                r#"{"errno":200,"groups":[{"desc":"","gUsers":[],"id":"3","name":"g/\\"}],"msgType":200}"#,
            ),
            (group_created(GroupId(3), "g"), r#"{"GROUPID":3,"errno":200,"msgType":12,"name":"g"}"#),
            (messages(&[kept]), r#"{"errno":200,"msgType":14,"msgs":["{\"msgType\":4}"]}"#),
            (
                search_results(std::slice::from_ref(&user), &[group]),
                r#"{"errno":200,"msgType":15,"results":[{"id":"7","isGroup":"0","name":"张\"三\u0001"},{"desc":"","id":"3","isGroup":"1","name":"g/\\"}]}"#,
            ),
        ];
        for (reply, expected) in cases {
            assert_eq!(reply, expected);
        }
    }
}
