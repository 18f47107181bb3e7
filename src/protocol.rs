//! Requests, replies and pushes as JSON. Everything on the wire is parsed and composed here. Any
//! folder above may call it; only [`session`](crate::session) parses requests.
//!
//! # What a reply acknowledges
//!
//! Requests of one connection are answered in the order sent, and a reply leaves only after every
//! earlier frame of that connection is settled: written towards an online recipient, or committed
//! to the store. So any reply acknowledges all that was sent before it. Chat itself is not
//! answered; a client that wants to be sure sends a cheap request (a search for its own id, say)
//! and waits for the answer.

use std::borrow::Cow;

mod claims;
mod flat;
mod forward;
mod kinds;
pub mod level2;
mod parse;
mod reply;
mod waiting;

pub use claims::{BadRequest, EchoedId, Id, Sender};
pub use forward::Forward;
pub use kinds::{FrameKind, ReplyKind, SendOutcome, WrittenKind};
use parse::{Level1Members, MemberValue};
pub use reply::*;
pub use waiting::{StoredFrame, is_object};

pub use crate::base::ids::{GroupId, UserId};

/// A request of a client. Texts borrow from the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'f> {
    /// 1: log in as `user` on this connection. With a `level`, it may be a login at level 2.
    Login { user: Id, password: Cow<'f, str>, has_level: bool },
    /// 2: create an account.
    Register { name: Cow<'f, str>, password: Cow<'f, str> },
    /// 3: log out `user` on this connection.
    Logout { user: Id },
    /// 4 and 5: forward `text` to `to`. `from` is the sender that the client claims, if any.
    Chat { from: Option<Sender>, to: Id, text: Forward<'f> },
    /// 100: an old alias of 4. Only clients that are logged in may use it; for others it does not
    /// exist. `text` has msgType 4.
    OldChat { from: Id, to: Result<Id, BadRequest>, text: Forward<'f> },
    /// 6: `a` and `b` become friends.
    AddFriend { a: Id, b: EchoedId<'f> },
    /// 7: remove `friend` from the list of `user`.
    DeleteFriend { user: Id, friend: Id },
    /// 8: the friends and groups of `user`.
    Contacts { user: Id },
    /// 9: forward `text` to every other member of `group`.
    GroupChat { from: Id, group: Id, text: Forward<'f> },
    /// 10: `user` becomes a member of `group`.
    JoinGroup { user: Id, group: EchoedId<'f> },
    /// 11: the groups of `user`.
    GroupsOf { user: Id },
    /// 12: a new group.
    CreateGroup { user: Id, name: Cow<'f, str>, description: Cow<'f, str> },
    /// 13: groups whose name contains `name`.
    GroupsNamed { name: Cow<'f, str> },
    /// 14: the messages stored for `user`.
    FetchMessages { user: Id },
    /// 15: users and groups by id or name.
    Search { keyword: Cow<'f, str> },
    /// 200, 401, 404, 500 and every unknown number: answered with a fixed reply.
    Fixed(&'static str),
}

impl<'f> Request<'f> {
    /// Parses one frame, and returns its kind as well.
    ///
    /// # Errors
    ///
    /// [`BadRequest`] if it is not strict JSON (RFC 8259, at most 128 levels), has no integer
    /// `msgType`, or if a member that its type needs is missing or has a wrong type.
    pub fn parse(frame: &'f [u8]) -> Result<(FrameKind, Request<'f>), BadRequest> {
        let text = std::str::from_utf8(frame).map_err(|_| BadRequest)?;
        let mut members = Level1Members::default();
        members.read(text)?;
        let msg_type = members.msg_type.id(text, "msgType")?;
        let id = |member: &MemberValue<'f>, key| member.id(text, key);
        let Level1Members { repeated, is_one_line, .. } = members;
        let forward = |as_chat| Forward::new(text, repeated, as_chat).on_one_line(is_one_line);
        let request = match msg_type.0 {
            1 => Request::Login {
                user: id(&members.user_id, "USERID")?,
                password: members.password.text()?,
                has_level: members.has_level,
            },
            2 => Request::Register { name: members.name.text()?, password: members.password.text()? },
            3 => Request::Logout { user: id(&members.user_id, "USERID")? },
            4 | 5 => Request::Chat { from: members.sender(text), to: id(&members.to, "TOID")?, text: forward(false) },
            6 => Request::AddFriend { a: id(&members.u1, "U1")?, b: members.u2.asked(text, "U2")? },
            7 => Request::DeleteFriend { user: id(&members.from, "FROMID")?, friend: id(&members.to, "TOID")? },
            8 => Request::Contacts { user: id(&members.from, "FROMID")? },
            9 => Request::GroupChat {
                from: id(&members.from, "FROMID")?,
                group: id(&members.group, "GROUPID")?,
                text: forward(false),
            },
            10 => {
                Request::JoinGroup { user: id(&members.from, "FROMID")?, group: members.group.asked(text, "GROUPID")? }
            }
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
                (Some(Sender::Claimed(from)), to) if !matches!(to, MemberValue::Missing) => {
                    Request::OldChat { from, to: id(to, "TOID"), text: forward(true) }
                }
                _ => Request::Fixed(NO_METHOD),
            },
            200 => Request::Fixed(ACK),
            401 => Request::Fixed(BAD_REQUEST),
            500 => Request::Fixed(SERVER_ERROR),
            _ => Request::Fixed(NO_METHOD),
        };
        Ok((FrameKind::of(msg_type.0), request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request<'_>, BadRequest> {
        Request::parse(text.as_bytes()).map(|(_, request)| request)
    }

    #[test]
    fn a_chat_borrows_its_frame() {
        let frame = r#"{"msgType":4,"FROMID":1,"TOID":2,"msg":"\u4f60 \"x\"","more":[{"TOID":3}]}"#;
        let Ok(Request::Chat { from, to, text }) = parse(frame) else { panic!("a chat") };
        assert_eq!((from, to), (Some(Sender::Claimed(Id(1))), Id(2)));
        assert!(matches!(text.text(), Cow::Borrowed(text) if text == frame));
    }

    #[test]
    fn a_forwarded_frame_has_no_raw_newline_and_each_known_member_once() {
        let chat = |frame| match parse(frame) {
            Ok(Request::Chat { text, .. } | Request::OldChat { text, .. }) => text.text().into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(chat("{\r\n\"msgType\":4,\n\"TOID\":2}"), "{  \"msgType\":4, \"TOID\":2}");
        let forged = r#"{"FROMID":7,"msgType":4,"TOID":2,"n":18446744073709551616,"FROM\u0049D":1}"#;
        assert_eq!(chat(forged), r#"{"msgType":4,"TOID":2,"n":18446744073709551616,"FROM\u0049D":1}"#);
        assert_eq!(
            chat(r#"{"msgType":100,"TOID":2,"FROMID":1,"n":1.50}"#),
            r#"{"msgType":4,"TOID":2,"FROMID":1,"n":1.50}"#
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
    fn a_login_says_whether_it_has_a_level_and_a_chat_may_have_several() {
        let has_level = |more: &str| match parse(&format!(r#"{{"msgType":1,"USERID":1,"password":"p"{more}}}"#)) {
            Ok(Request::Login { has_level, .. }) => has_level,
            other => panic!("{other:?}"),
        };
        assert!(!has_level(""));
        assert!(!has_level(r#","x":{"level":2}"#));
        assert!(has_level(r#","level":2"#));
        assert!(has_level(r#","lev\u0065l":"x""#));
        let frame = r#"{"msgType":4,"TOID":2,"level":1,"level":2}"#;
        let Ok(Request::Chat { text, .. }) = parse(frame) else { panic!("a chat") };
        assert_eq!(text.text(), frame, "level 1 does not know it");
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        assert_eq!(parse(r#"{"msgType":99,"msgType":200}"#), Ok(Request::Fixed(ACK)));
        assert_eq!(parse(r#"{"msgType":11,"FROMID":1,"FROMID":"x"}"#), Err(BadRequest));
        assert_eq!(parse(r#"{"msgType":11,"FROMID":"x","FROMID":1}"#), Ok(Request::GroupsOf { user: Id(1) }));
    }
}
