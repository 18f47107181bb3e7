//! Requests that are understood, and the answer to each mistake.

use proptest::prelude::*;

use super::super::{Have, HaveItem, Login, Proof, Who};
use super::*;
use crate::base::conversation::{Cursor, HeldTag, Tag};
use crate::protocol::UserId;

fn parse(text: &str) -> Level2Request<'_> {
    Frame::parse(text.as_bytes()).unwrap_or_else(|BadRequest| panic!("{text}")).request
}

/// The type and the text of a refusal.
fn refused(text: &str) -> Option<(u16, &'static str)> {
    match parse(text) {
        Level2Request::Refused(msg_type, refusal) => {
            assert_eq!((refusal.errno, refusal.retry_after), (400, None));
            Some((msg_type, refusal.errmsg))
        }
        _ => None,
    }
}

fn u(id: i32) -> ConversationName {
    ConversationName::User(UserId(id))
}

fn g(id: i32) -> ConversationName {
    ConversationName::Group(GroupId(id))
}

#[test]
fn a_login_is_read_with_its_defaults() {
    let frame = r#"{"msgType":1,"USERID":7,"password":"p","level":2,"device":"web-3f9a","ping":25,"rid":"a",
        "have":{"u9":"41:9f3ac1d0","g3":"1007:02be11aa","u9":"42:9f3ac1d0","x":"1:00000000","u8":7}}"#;
    let Ok(Frame { rid, request: Level2Request::Login(login), .. }) = Frame::parse(frame.as_bytes()) else {
        panic!("a login");
    };
    assert_eq!(rid, Rid::text("a"));
    assert_eq!(login.who, Some(Who::Id(Id(7))));
    assert_eq!((login.ping, login.resume, &*login.device), (25, 100, "web-3f9a"));
    let cursors = [
        HaveItem::Cursor(g(3), Cursor { seq: 1007, tag: HeldTag::Tag(Tag(0x02be_11aa)) }),
        HaveItem::Cursor(u(9), Cursor { seq: 42, tag: HeldTag::Tag(Tag(0x9f3a_c1d0)) }),
        HaveItem::Malformed("x".into()),
        HaveItem::Malformed("u8".into()),
    ];
    assert_eq!(login.have, Have::Cursors(cursors.into()));
    assert!(!format!("{login:?}").contains("\"p\""), "a password is not shown");

    let login = |rest: &str| match parse(&format!(r#"{{"msgType":1,"level":3,"device":"d","token":"t"{rest}}}"#)) {
        Level2Request::Login(login) => (login.ping, login.resume),
        other => panic!("{other:?}"),
    };
    assert_eq!(login(""), (60, 100));
    assert_eq!(login(r#","ping":1,"resume":-9"#), (15, 1));
    assert_eq!(login(r#","ping":99999999999999999999,"resume":5001"#), (300, 5000));
    let text = r#"{"msgType":1,"level":99999999999999999999,"device":"d","name":"ann","jwt":"t","have":"device"}"#;
    let Level2Request::Login(Login { who, proof, have, .. }) = parse(text) else { panic!("a login") };
    assert_eq!((who, proof, have), (Some(Who::Name("ann".into())), Proof::Jwt("t".into()), Have::Device));
}

#[test]
fn a_level_that_is_none_is_not_looked_at() {
    for level in ["1", "0", "-2", "2.0", "\"2\"", "null", "[2]", "1e3"] {
        let text = format!(r#"{{"msgType":1,"USERID":7,"password":"p","level":{level}}}"#);
        assert!(matches!(parse(&text), Level2Request::Level1(Ok(protocol::Request::Login { .. }))), "{level}");
    }
}

#[test]
fn a_malformed_login_says_what_is_missing() {
    let login = |rest: &str| {
        refused(&format!(r#"{{"msgType":1,"level":2,{rest}}}"#)).map(|(msg_type, errmsg)| {
            assert_eq!(msg_type, 40);
            errmsg
        })
    };
    let device = "give a device: 1 to 64 printable ASCII characters without blanks";
    let long = format!(r#""device":"{}","token":"t""#, "x".repeat(65));
    for rest in [
        r#""token":"t""#,
        r#""device":"","token":"t""#,
        r#""device":"a b","token":"t""#,
        r#""device":"é","token":"t""#,
        &long,
    ] {
        assert_eq!(login(rest), Some(device), "{rest}");
    }
    let proof = Some("give exactly one of password, token and jwt");
    assert_eq!(login(r#""device":"d","USERID":7"#), proof);
    assert_eq!(login(r#""device":"d","USERID":7,"password":"p","token":"t""#), proof);
    assert_eq!(login(r#""device":"d","token":null"#), Some("password, token and jwt must be texts"));
    assert_eq!(login(r#""device":"d","password":"p""#), Some("give USERID or name with the password"));
    assert_eq!(login(r#""device":"d","USERID":7,"name":"ann","token":"t""#), Some("give USERID or name, not both"));
    assert_eq!(login(r#""device":"d","USERID":"7","token":"t""#), Some("USERID must be an integer"));
    assert_eq!(login(r#""device":"d","token":"t","ping":25.5"#), Some("ping must be an integer of seconds"));
    assert_eq!(login(r#""device":"d","token":"t","resume":"9""#), Some("resume must be an integer"));
    for have in ["[]", "\"devices\"", "1", "true", "null"] {
        let errmsg = login(&format!(r#""device":"d","token":"t","have":{have}"#));
        assert_eq!(errmsg, Some("have must be an object of cursors, or the text device"), "{have}");
    }
}

#[test]
fn a_send_keeps_its_bytes() {
    let text = " {\"msgType\":4,\n\"FROMID\":7,\"TOID\":9,\"cid\":\"a-1\",\"msg\":\"hi\",\"rid\":5} ";
    let Level2Request::Send(send) = parse(text) else { panic!("a send") };
    assert_eq!((send.msg_type, send.to, send.conv), (4, Id(9), Some(u(9))));
    assert_eq!((&*send.cid, send.change, send.from), ("a-1", None, Some(Sender::Claimed(Id(7)))));
    assert_eq!(send.frame, text.trim());
    assert_eq!(send.stored(), text.trim().replace('\n', " "));
    let Level2Request::Send(send) = parse(r#"{"msgType":9,"FROMID":7,"GROUPID":3,"cid":"a","recall":-1}"#) else {
        panic!("a send");
    };
    assert_eq!((send.conv, send.change), (Some(g(3)), Some(MessageChange::Recall(-1))));
    let Level2Request::Send(send) = parse(r#"{"msgType":4,"TOID":4294967305,"cid":"a","edit":42}"#) else {
        panic!("a send");
    };
    assert_eq!((send.conv, send.change, send.from), (None, Some(MessageChange::Edit(42)), None));
}

#[test]
fn a_bad_send_is_answered_among_the_41s_of_its_conversation() {
    let bad = |text: &str| match parse(text) {
        Level2Request::BadSend { conv, cid, refusal } => (conv, cid.map(Cow::into_owned), refusal.errmsg),
        other => panic!("{other:?}"),
    };
    let cid = "give a cid: 1 to 64 printable ASCII characters without blanks";
    for wrong in [r#""x":1"#, r#""cid":"""#, r#""cid":"a b""#, r#""cid":7"#, r#""cid":null"#, r#""cid":"é""#] {
        assert_eq!(bad(&format!(r#"{{"msgType":4,"TOID":9,{wrong}}}"#)), (Some(u(9)), None, cid), "{wrong}");
    }
    let cid = Some("a".to_owned());
    let to = "TOID, or GROUPID of a 9, must be an integer";
    assert_eq!(bad(r#"{"msgType":4,"TOID":"9","cid":"a"}"#), (None, cid.clone(), to));
    assert_eq!(bad(r#"{"msgType":9,"TOID":9,"cid":"a"}"#), (None, cid.clone(), to));
    let from = "FROMID must be your id";
    assert_eq!(bad(r#"{"msgType":9,"GROUPID":3,"cid":"a"}"#), (Some(g(3)), cid.clone(), from));
    assert_eq!(bad(r#"{"msgType":4,"TOID":9,"FROMID":"7","cid":"a"}"#), (Some(u(9)), cid.clone(), from));
    let both = bad(r#"{"msgType":4,"TOID":9,"cid":"a","edit":1,"recall":1}"#);
    assert_eq!(both, (Some(u(9)), cid.clone(), "give edit or recall, not both"));
    let target = bad(r#"{"msgType":4,"TOID":9,"cid":"a","edit":null}"#);
    assert_eq!(target, (Some(u(9)), cid.clone(), "edit and recall must be the number of a message"));
    let kind = bad(r#"{"msgType":5,"TOID":9,"cid":"a","edit":1}"#);
    assert_eq!(kind, (Some(u(9)), cid, "edit and recall with a 4 or a 9"));
}

#[test]
fn requests_are_read() {
    let have = vec![HaveItem::Cursor(u(9), Cursor { seq: 43, tag: HeldTag::Tag(Tag(1)) })];
    let cases = [
        (r#"{"msgType":46,"have":{"u9":"43:00000001"},"resume":7}"#, Level2Request::Sync { have, resume: 7 }),
        (r#"{"msgType":47,"recv":{"u9":43,"g3":-1}}"#, Level2Request::Report(vec![(u(9), 43), (g(3), 0)])),
        (r#"{"msgType":48,"conv":"g3"}"#, Level2Request::Page { conv: g(3), ask: PageAsk::Newest, limit: 50 }),
        (
            r#"{"msgType":48,"conv":"g3","before":1108,"limit":1000}"#,
            Level2Request::Page { conv: g(3), ask: PageAsk::Before(1108), limit: 200 },
        ),
        (
            r#"{"msgType":48,"conv":"u9","after":-5,"limit":0}"#,
            Level2Request::Page { conv: u(9), ask: PageAsk::After(-5), limit: 1 },
        ),
        (
            r#"{"msgType":48,"conv":"u9","around":99999999999999999999}"#,
            Level2Request::Page { conv: u(9), ask: PageAsk::Around(i64::MAX), limit: 50 },
        ),
        (r#"{"msgType":49,"conv":"g3","read":1207}"#, Level2Request::Read { conv: g(3), read: 1207 }),
        (r#"{"msgType":51,"conv":"u9","event":"typing"}"#, Level2Request::Typing { conv: u(9) }),
        (r#"{"msgType":52,"watch":[9,-12]}"#, Level2Request::Watch(vec![Id(9), Id(-12)])),
        (r#"{"msgType":53}"#, Level2Request::Ping),
        (r#"{"msgType":54}"#, Level2Request::Pong),
        (
            r#"{"msgType":58,"text":"你"}"#,
            Level2Request::Find { conv: None, text: "你".into(), before: None, limit: 50 },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), expected, "{text}");
    }
    let member = |change| Account::Member { group: Id(3), user: Id(9), change };
    let password = AccountProof::Password("p".into());
    let cases = [
        (
            r#"{"msgType":60,"password":"p","new":"n"}"#,
            Account::ChangePassword { proof: password.clone(), new: "n".into() },
        ),
        (r#"{"msgType":61,"GROUPID":3}"#, Account::Members { group: Id(3) }),
        (r#"{"msgType":62,"GROUPID":3}"#, Account::Leave { group: Id(3) }),
        (r#"{"msgType":63,"GROUPID":3,"USERID":9}"#, member(MemberAction::Remove)),
        (r#"{"msgType":63,"GROUPID":3,"USERID":9,"ban":false}"#, member(MemberAction::LiftBan)),
        (r#"{"msgType":63,"GROUPID":3,"USERID":9,"add":true}"#, member(MemberAction::Add)),
        (
            r#"{"msgType":64,"GROUPID":3,"name":"n"}"#,
            Account::ChangeGroup { group: Id(3), name: Some("n".into()), description: None },
        ),
        (r#"{"msgType":65,"GROUPID":3}"#, Account::Dissolve { group: Id(3) }),
        (r#"{"msgType":66,"USERID":9,"block":true}"#, Account::Block { user: Id(9), block: true }),
        (r#"{"msgType":66}"#, Account::Blocked),
        (r#"{"msgType":67,"receipts":false}"#, Account::Own { name: None, receipts: Some(false) }),
        (r#"{"msgType":68,"revoke":"web"}"#, Account::Devices { revoke: Some("web".into()) }),
        (r#"{"msgType":69,"password":"p"}"#, Account::Delete { proof: password }),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Level2Request::Account { from: None, what: expected }, "{text}");
    }
}

#[test]
fn every_malformed_member_has_a_reply_of_its_type() {
    let cases = [
        (46, r#""x":1"#),
        (46, r#""have":"device""#),
        (46, r#""have":{},"resume":true"#),
        (47, r#""recv":[]"#),
        (47, r#""recv":{"u9":"43"}"#),
        (47, r#""recv":{"u09":43}"#),
        (47, r#""recv":{"u9":4.5}"#),
        (48, r#""before":1"#),
        (48, r#""conv":"u09""#),
        (48, r#""conv":9"#),
        (48, r#""conv":"u9","before":1,"after":1"#),
        (48, r#""conv":"u9","before":"1""#),
        (48, r#""conv":"u9","limit":1.5"#),
        (49, r#""conv":"u9""#),
        (49, r#""read":1"#),
        (49, r#""conv":"u9","read":true"#),
        (51, r#""conv":"u9""#),
        (51, r#""event":"typing""#),
        (51, r#""conv":"u9","event":"dancing""#),
        (52, r#""watch":9"#),
        (52, r#""watch":["9"]"#),
        (52, r#""watch":[[9]]"#),
        (58, r#""text":"""#),
        (58, r#""text":"a","conv":"9""#),
        (58, r#""text":"a","before":null"#),
        (60, r#""password":"p""#),
        (60, r#""new":"n""#),
        (60, r#""password":"p","jwt":"j","new":"n""#),
        (61, r#""GROUPID":"3""#),
        (62, r#""x":3"#),
        (63, r#""GROUPID":3"#),
        (63, r#""GROUPID":3,"USERID":9,"ban":1"#),
        (63, r#""GROUPID":3,"USERID":9,"ban":false,"add":true"#),
        (64, r#""GROUPID":3,"name":7"#),
        (65, r#""GROUPID":null"#),
        (66, r#""USERID":9"#),
        (66, r#""USERID":9,"block":"true""#),
        (67, r#""receipts":"on""#),
        (68, r#""revoke":7"#),
        (69, r#""x":1"#),
    ];
    for (msg_type, rest) in cases {
        let answer = refused(&format!(r#"{{"msgType":{msg_type},{rest}}}"#));
        assert_eq!(answer.map(|(msg_type, _)| msg_type), Some(msg_type), "{msg_type}: {rest}");
    }
    let watch: Vec<String> = (0..501).map(|id| id.to_string()).collect();
    let text = |count: usize| format!(r#"{{"msgType":52,"watch":[{}]}}"#, watch[..count].join(","));
    assert!(matches!(parse(&text(500)), Level2Request::Watch(watch) if watch.len() == 500));
    assert_eq!(refused(&text(501)), Some((52, "watch at most 500 users")));
}

#[test]
fn a_frame_that_is_not_of_level_2_is_level_1s() {
    for msg_type in [40, 41, 42, 43, 44, 45, 50, 55, 56, 57, 59, 70, 100, -46, 65_582] {
        let text = format!(r#"{{"msgType":{msg_type},"FROMID":7,"TOID":9}}"#);
        assert_eq!(parse(&text), Level2Request::Level1(Ok(protocol::Request::Fixed(protocol::NO_METHOD))), "{text}");
    }
    assert_eq!(refused(r#"{"msgType":14,"FROMID":7}"#).map(|(msg_type, _)| msg_type), Some(14));
    assert_eq!(parse(r#"{"msgType":11}"#), Level2Request::Level1(Err(BadRequest)));
    for text in ["", "[]", r#"{"msgType":53,"x":"\ud800"}"#, r#"{"msgType":53,"have":{"a":[1}}"#] {
        assert_eq!(Frame::parse(text.as_bytes()), Err(BadRequest), "{text}");
    }
    for text in ["{}", r#"{"msgType":"46"}"#, r#"{"msgType":46.5}"#, r#"{"msgType":null}"#] {
        assert_eq!(parse(text), Level2Request::Level1(Err(BadRequest)), "{text}");
    }
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        Frame::parse(format!(r#"{{"msgType":53,"watch":{open}{close}}}"#).as_bytes()).is_ok()
    };
    assert_eq!((nested(net::NESTING_MAX), nested(net::NESTING_MAX + 1)), (true, false));
}

#[test]
fn rids_are_repeated_if_they_may_be() {
    let rid = |rid: &str| {
        let frame = Frame::parse(format!(r#"{{"msgType":53,"rid":{rid}}}"#).as_bytes()).ok()?.rid?;
        Some(frame.to_string())
    };
    for same in [r#""a""#, "7", "-7", "9007199254740992", r#""你 \"""#] {
        assert_eq!(rid(same).as_deref(), Some(same));
    }
    for odd in ["9007199254740993", "1.0", "null", "true", "[]", "{}", r#""""#, "99999999999999999999"] {
        assert_eq!(rid(odd), None, "{odd}");
    }
}

proptest! {
    #[test]
    fn any_members_are_read_without_a_panic(
        msg_type in prop_oneof![Just(1_u16), Just(4), Just(5), Just(9), 40..70_u16],
        members in prop::collection::vec((key(), value()), 0..8),
    ) {
        let members: Vec<String> = members.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let text = format!(r#"{{"msgType":{msg_type},"level":2,{}"z":0}}"#, members.join(",") + if members.is_empty() { "" } else { "," });
        let parsed = Frame::parse(text.as_bytes());
        prop_assert!(parsed.is_ok(), "{}", text);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::parse(&bytes);
    }
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        [
            "have", "recv", "watch", "conv", "before", "limit", "read", "event", "text", "cid", "TOID", "GROUPID",
            "device", "token", "USERID", "block", "rid", "edit",
        ]
        .as_slice(),
    )
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        [
            "1",
            "-0",
            "9007199254740993",
            "\"u9\"",
            "\"43:00000001\"",
            "null",
            "true",
            "[]",
            "[1,\"a\",[{}]]",
            "{}",
            r#"{"u9":"1:00000000","u9":2,"":{"a":[]}}"#,
            "\"\\u0000\"",
            "18446744073709551616",
        ]
        .as_slice(),
    )
}
