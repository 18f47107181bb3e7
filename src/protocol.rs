//! What travels on the wire: requests, replies and pushes, and their JSON. The only file that knows it.
//!
//! # What a reply acknowledges
//! Requests of one connection are answered in the order sent, and a reply leaves only after every earlier frame of that
//! connection is settled: written towards an online recipient, or committed to the store. So any reply acknowledges all
//! that was sent before it. Chat itself is not answered; a client that wants to be sure sends a cheap request (a search
//! for its own id, say) and waits for the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

mod parse;

use parse::{Member, Members};

use crate::store::{Group, KeptMessage, User};

/// A user's id: positive for every real user.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UserId(pub i32);

/// A group's id: positive for every real group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GroupId(pub i32);

/// An id as a client sent it: any integer. Those beyond 64 bits become the nearest that fits, nobody's id either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id(pub i64);

/// What a client asks for. Texts borrow from the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'f> {
    /// 1: be `user` on this connection.
    Login { user: Id, password: Cow<'f, str> },
    /// 2: a new account.
    Register { name: Cow<'f, str>, password: Cow<'f, str> },
    /// 3: no longer be `user` on this connection.
    Logout { user: Id },
    /// 4 and 5: forward `text` to `to`. `from` is what the client claims, if it does.
    Chat { from: Option<Sender>, to: Id, text: Cow<'f, str> },
    /// 100: an old alias of 4, for those who are logged in only; to others it does not exist. `text` has msgType 4.
    OldChat { from: Id, to: Result<Id, BadRequest>, text: Cow<'f, str> },
    /// 6: `a` and `b` become friends.
    AddFriend { a: Id, b: Id },
    /// 7: `friend` is no longer in the list of `user`.
    DeleteFriend { user: Id, friend: Id },
    /// 8: the friends and groups of `user`.
    Contacts { user: Id },
    /// 9: forward `text` to every other member of `group`.
    GroupChat { from: Id, group: Id, text: Cow<'f, str> },
    /// 10: `user` becomes a member of `group`.
    JoinGroup { user: Id, group: Id },
    /// 11: the groups of `user`.
    GroupsOf { user: Id },
    /// 12: a new group.
    CreateGroup { user: Id, name: Cow<'f, str>, description: Cow<'f, str> },
    /// 13: groups whose name contains `name`.
    GroupsNamed { name: Cow<'f, str> },
    /// 14: the messages kept for `user`.
    FetchMessages { user: Id },
    /// 15: users and groups by id or name.
    Search { keyword: Cow<'f, str> },
    /// 200, 401, 404, 500 and every unknown number: answered with a fixed reply.
    Fixed(&'static str),
}

/// Who a chat claims to be from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// This id.
    Claimed(Id),
    /// Something that is no id.
    Malformed,
}

/// Not JSON, or no request: the 401 reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRequest;

impl Id {
    /// The user who has this id, if one can.
    pub fn user(self) -> Option<UserId> {
        i32::try_from(self.0).ok().filter(|id| *id > 0).map(UserId)
    }

    /// The user who has this id, or the one who never exists.
    pub fn user_or_nobody(self) -> UserId {
        self.user().unwrap_or(UserId(0))
    }

    /// The group that has this id, or the one that never exists.
    pub fn group_or_none(self) -> GroupId {
        GroupId(self.user_or_nobody().0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'f> Request<'f> {
    /// Reads one frame.
    ///
    /// # Errors
    /// [`BadRequest`] when it is not strict JSON (RFC 8259, at most 128 levels), has no integer `msgType`, or lacks a
    /// member that its type needs, or has it with a wrong type.
    pub fn parse(frame: &'f [u8]) -> Result<Request<'f>, BadRequest> {
        let text = std::str::from_utf8(frame).map_err(|_| BadRequest)?;
        let mut members = Members::parse(text)?;
        let msg_type = members.msg_type.id(text, "msgType")?;
        let id = |member: &Member<'f>, key| member.id(text, key);
        Ok(match msg_type.0 {
            1 => Request::Login { user: id(&members.user_id, "USERID")?, password: members.password.text()? },
            2 => Request::Register { name: members.name.text()?, password: members.password.text()? },
            3 => Request::Logout { user: id(&members.user_id, "USERID")? },
            4 | 5 => Request::Chat {
                from: members.sender(text),
                to: id(&members.to, "TOID")?,
                text: forwarded(text, members.repeated, None),
            },
            6 => Request::AddFriend { a: id(&members.u1, "U1")?, b: id(&members.u2, "U2")? },
            7 => Request::DeleteFriend { user: id(&members.from, "FROMID")?, friend: id(&members.to, "TOID")? },
            8 => Request::Contacts { user: id(&members.from, "FROMID")? },
            9 => Request::GroupChat {
                from: id(&members.from, "FROMID")?,
                group: id(&members.group, "GROUPID")?,
                text: forwarded(text, members.repeated, None),
            },
            10 => Request::JoinGroup { user: id(&members.from, "FROMID")?, group: id(&members.group, "GROUPID")? },
            11 => Request::GroupsOf { user: id(&members.from, "FROMID")? },
            12 => Request::CreateGroup {
                user: id(&members.from, "FROMID")?,
                name: members.name.text()?,
                description: members.description.text()?,
            },
            13 => Request::GroupsNamed { name: members.name.text()? },
            14 => Request::FetchMessages { user: id(&members.from, "FROMID")? },
            15 => Request::Search { keyword: members.keyword.text()? },
            100 => match (members.sender(text), &members.to) {
                (Some(Sender::Claimed(from)), to) if !matches!(to, Member::Missing) => {
                    Request::OldChat { from, to: id(to, "TOID"), text: forwarded(text, members.repeated, Some(4)) }
                }
                _ => Request::Fixed(NO_METHOD),
            },
            200 => Request::Fixed(ACK),
            401 => Request::Fixed(BAD_REQUEST),
            500 => Request::Fixed(SERVER_ERROR),
            _ => Request::Fixed(NO_METHOD),
        })
    }
}

/// The text to forward for a frame: the same JSON value without a raw newline. Nearly always the frame itself.
///
/// A member that was `repeated` is sent on once, as the last one counts here but the first one may count to its reader.
fn forwarded(frame: &str, repeated: bool, msg_type: Option<i64>) -> Cow<'_, str> {
    let text = if repeated || msg_type.is_some() {
        let mut members: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(frame).expect("it was read as an object before");
        let number = msg_type.map(|number| RawValue::from_string(number.to_string()).expect("an integer is JSON"));
        if let Some(number) = &number {
            members.insert(Cow::Borrowed("msgType"), number);
        }
        Cow::Owned(json(&members))
    } else {
        Cow::Borrowed(frame)
    };
    // Strings cannot hold raw newlines in JSON, so these stand between tokens, where a blank does as well.
    let has_newline = memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some();
    if has_newline { Cow::Owned(text.replace(['\n', '\r'], " ")) } else { text }
}

/// NORMAL_ACK: done.
pub const ACK: &str = r#"{"errno":200,"msgType":200}"#;
/// Login refused: says the same whether the id or the password is wrong.
pub const WRONG_LOGIN: &str = r#"{"errno":302,"msg":"wrong id or wrong password, try again.","msgType":200}"#;
/// 401.
pub const BAD_REQUEST: &str = r#"{"errmsg":"Failed to parse the json string!","errno":401,"msgType":401}"#;
/// 403 for a connection that is not logged in.
pub const LOGIN_FIRST: &str = r#"{"errmsg":"log in on this connection first","errno":403,"msgType":403}"#;
/// 403 for a request in another user's name.
pub const NOT_YOU: &str = r#"{"errmsg":"log in as the user that the request names","errno":403,"msgType":403}"#;
/// 403 for a message to a group by somebody else.
pub const NOT_A_MEMBER: &str = r#"{"errmsg":"join the group before you write to it","errno":403,"msgType":403}"#;
/// 404.
pub const NO_METHOD: &str = r#"{"errmsg":"No such method, failed to process your request!","errno":404,"msgType":404}"#;
/// 413.
pub const TOO_LONG: &str = r#"{"errmsg":"the frame is too long, send shorter ones","errno":413,"msgType":413}"#;
/// 500.
pub const SERVER_ERROR: &str = r#"{"errmsg":"server error, try again later!","errno":500,"msgType":500}"#;
/// 503 for a request: too much to do, or the database is away.
pub const BUSY: &str = r#"{"errmsg":"the server is busy, try again later","errno":503,"msgType":503}"#;
/// 503 for a message that could neither be delivered nor kept.
pub const NOT_KEPT: &str = r#"{"errmsg":"a message could not be kept, send it again later","errno":503,"msgType":503}"#;

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

/// Push to the other side of 6.
pub fn new_friend(friend: UserId, name: &str) -> String {
    json(&NewFriend { errno: 200, msg_type: 6, name, new: Some(true), user_id: friend.0 })
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

/// Refusal of 6: nobody has that id.
pub fn no_such_user(friend: Id) -> String {
    format!(r#"{{"errmsg":"no such user","errno":404,"msgType":6,"userId":{}}}"#, friend.0)
}

/// Refusal of 6: one's own id.
pub fn not_yourself(friend: Id) -> String {
    format!(r#"{{"errmsg":"cannot add yourself","errno":400,"msgType":6,"userId":{}}}"#, friend.0)
}

/// Refusal of 10.
pub fn no_such_group(group: Id) -> String {
    format!(r#"{{"errmsg":"no such group","errno":404,"groupId":{},"msgType":10}}"#, group.0)
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
    #[derive(Serialize)]
    struct Reply<'a> {
        errno: u16,
        #[serde(rename = "msgType")]
        msg_type: u16,
        msgs: Vec<&'a str>,
    }
    json(&Reply { errno: 200, msg_type: 14, msgs: messages.iter().map(|message| message.text.as_str()).collect() })
}

/// Reply to 15.
pub fn search_results(user: Option<&User>, groups: &[Group]) -> String {
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
    let user = user.map(|user| Found { desc: None, id: user.id.to_string(), is_group: "0", name: &user.name });
    let groups = groups.iter().map(|group| Found {
        desc: Some(&group.description),
        id: group.id.to_string(),
        is_group: "1",
        name: &group.name,
    });
    json(&Reply { errno: 200, msg_type: 15, results: user.into_iter().chain(groups).collect() })
}

/// Compact JSON with the members in the order of the struct, which is their byte order here as in the reference server.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists of them are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request<'_>, BadRequest> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn a_chat_borrows_its_frame() {
        let frame = r#"{"msgType":4,"FROMID":1,"TOID":2,"msg":"\u4f60 \"x\"","more":[{"TOID":3}]}"#;
        let Ok(Request::Chat { from, to, text }) = parse(frame) else { panic!("a chat") };
        assert_eq!((from, to), (Some(Sender::Claimed(Id(1))), Id(2)));
        assert!(matches!(text, Cow::Borrowed(text) if text == frame));
    }

    #[test]
    fn what_is_forwarded_has_no_raw_newline_and_each_known_member_once() {
        let chat = |frame| match parse(frame) {
            Ok(Request::Chat { text, .. } | Request::OldChat { text, .. }) => text.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(chat("{\r\n\"msgType\":4,\n\"TOID\":2}"), "{  \"msgType\":4, \"TOID\":2}");
        let forged = r#"{"FROMID":7,"msgType":4,"TOID":2,"n":18446744073709551616,"FROM\u0049D":1}"#;
        assert_eq!(chat(forged), r#"{"FROMID":1,"TOID":2,"msgType":4,"n":18446744073709551616}"#);
        assert_eq!(
            chat(r#"{"msgType":100,"TOID":2,"FROMID":1,"n":1.50}"#),
            r#"{"FROMID":1,"TOID":2,"msgType":4,"n":1.50}"#
        );
    }

    #[test]
    fn ids_are_integers_of_any_size() {
        let user = |text: &str| match parse(&format!(r#"{{"msgType":3,"USERID":{text}}}"#)) {
            Ok(Request::Logout { user }) => Some(user.0),
            Ok(other) => panic!("{other:?}"),
            Err(BadRequest) => None,
        };
        let cases = [
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("4294967303", Some(4_294_967_303)),
            ("18446744073709551615", Some(i64::MAX)),
            ("18446744073709551616", Some(i64::MAX)),
            ("-9223372036854775809", Some(i64::MIN)),
            ("99999999999999999999999999", Some(i64::MAX)),
            ("-0", Some(0)),
            ("-0.0", None),
            ("0.0", None),
            ("7.0", None),
            ("1e2", None),
            ("1e300", None),
            ("true", None),
            ("null", None),
            ("\"7\"", None),
            ("[7]", None),
            ("{}", None),
        ];
        for (text, id) in cases {
            assert_eq!(user(text), id, "{text}");
        }
        assert_eq!(Id(4_294_967_303).user(), None);
        assert_eq!((Id(0).user(), Id(-1).user(), Id(7).user()), (None, None, Some(UserId(7))));
    }

    #[test]
    fn json_is_strict() {
        let cases = [
            r#"{"msgType":200,}"#,
            r#"{"msgType":200} x"#,
            r#"{"msgType":0200}"#,
            r#"{"msgType":200,"x":1e400}"#,
            r#"{"msgType":200,"x":-1e400}"#,
            r#"{"msgType":200,"x":"\ud83d"}"#,
            r#"{"msgType":200,"x":["\ude00\ud83d"]}"#,
            r#"{"msgType":200,"\ud83d":1}"#,
            r#"{"msgType":200,"x":{"\ud83d":1}}"#,
            r#"{"msgType":200,"x":"\x41"}"#,
            "{\"msgType\":200,\"x\":\"\t\"}",
            r#"{"msgType":200,"x":NaN}"#,
            r#"{"msgType":200 /* */}"#,
            r#"[{"msgType":200}]"#,
        ];
        for text in cases {
            assert_eq!(parse(text), Err(BadRequest), "{text}");
        }
        assert_eq!(Request::parse(b"{\"msgType\":200,\"x\":\"\xff\"}"), Err(BadRequest));
        assert_eq!(parse(r#"{"msgType":200,"x":"\ud83d\ude00\u0000"}"#), Ok(Request::Fixed(ACK)));
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            Request::parse(format!(r#"{{"msgType":200,"x":{open}{close}}}"#).as_bytes()).is_ok()
        };
        assert_eq!((nested(net::NESTING_MAX), nested(net::NESTING_MAX + 1), nested(10_000)), (true, false, false));
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        assert_eq!(parse(r#"{"msgType":99,"msgType":200}"#), Ok(Request::Fixed(ACK)));
        assert_eq!(parse(r#"{"msgType":11,"FROMID":1,"FROMID":"x"}"#), Err(BadRequest));
        assert_eq!(parse(r#"{"msgType":11,"FROMID":"x","FROMID":1}"#), Ok(Request::GroupsOf { user: Id(1) }));
    }

    #[test]
    fn replies_are_the_reference_servers_to_the_byte() {
        let user = User { id: UserId(7), name: "张\"三\u{1}".into() };
        let group = Group { id: GroupId(3), name: "g/\\".into(), description: String::new() };
        let kept = KeptMessage { id: crate::store::MessageId(1), text: r#"{"msgType":4}"#.into() };
        let cases = [
            (registered(UserId(5)), r#"{"USERID":5,"errno":200,"msgType":200}"#),
            (friend_added(UserId(7), "b"), r#"{"errno":200,"msgType":6,"name":"b","userId":7}"#),
            (new_friend(UserId(7), "b"), r#"{"errno":200,"msgType":6,"name":"b","new":true,"userId":7}"#),
            (no_such_user(Id(9)), r#"{"errmsg":"no such user","errno":404,"msgType":6,"userId":9}"#),
            (not_yourself(Id(9)), r#"{"errmsg":"cannot add yourself","errno":400,"msgType":6,"userId":9}"#),
            (no_such_group(Id(9)), r#"{"errmsg":"no such group","errno":404,"groupId":9,"msgType":10}"#),
            (
                contacts(std::slice::from_ref(&user), std::slice::from_ref(&group)),
                r#"{"errno":200,"friends":[{"id":"7","isGroup":"0","name":"张\"三\u0001"},{"id":"3","isGroup":"1","name":"g/\\"}],"msgType":8}"#,
            ),
            (joined(GroupId(3), "g"), r#"{"errno":200,"groupId":3,"msgType":10,"name":"g"}"#),
            (
                groups(std::slice::from_ref(&group)),
                r#"{"errno":200,"groups":[{"desc":"","gUsers":[],"id":"3","name":"g/\\"}],"msgType":200}"#,
            ),
            (group_created(GroupId(3), "g"), r#"{"GROUPID":3,"errno":200,"msgType":12,"name":"g"}"#),
            (messages(&[kept]), r#"{"errno":200,"msgType":14,"msgs":["{\"msgType\":4}"]}"#),
            (
                search_results(Some(&user), &[group]),
                r#"{"errno":200,"msgType":15,"results":[{"id":"7","isGroup":"0","name":"张\"三\u0001"},{"desc":"","id":"3","isGroup":"1","name":"g/\\"}]}"#,
            ),
        ];
        for (reply, expected) in cases {
            assert_eq!(reply, expected);
        }
    }
}
