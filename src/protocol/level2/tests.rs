//! Frames of the server: valid JSON, keys in byte order, and the contract's examples.

use proptest::prelude::*;
use serde_json::Value;

use super::frames::{self, Committed, ConversationSummary, Marks, Message, Refusal, RunHead};
use super::replies::{self, Reason, Welcome};
use super::*;
use crate::base::conversation::{ConversationName, Tag};
use crate::protocol::{self, GroupId, Id, UserId};

const BOB: ConversationName = ConversationName::User(UserId(9));
const TEAM: ConversationName = ConversationName::Group(GroupId(3));

fn message<'m>(seq: i64, frame: &'m str) -> Message<'m> {
    let at = Committed { seq, tag: Tag(0x77aa_01fe), time: 1_789_891_201_000 };
    Message { at, from: UserId(9), frame: Some(frame), edited: None, recalled: None, imported: false }
}

#[test]
fn the_frames_are_those_of_the_contract() {
    let at = Committed { seq: 42, tag: Tag(0x5be0_717c), time: 1_789_891_200_123 };
    let welcome = Welcome {
        frame_max: 65536,
        device: "web-3f9a",
        inflight: 256,
        name: "ann",
        ping: 25,
        token: "eyJ1Ijo3",
        token_expires: 1_790_600_000_000,
        user: UserId(7),
    };
    let away = Refusal { errno: 503, errmsg: "the database is away, try again", retry_after: Some(2400) };
    let m = r#"{"msgType":4,"FROMID":9,"TOID":7,"cid":"c","msg":"hi"}"#;
    let bob = ConversationSummary {
        conv: BOB,
        name: Some("bob"),
        floor: 0,
        head: 43,
        tag: Some(Tag(1)),
        last: None,
        read: 41,
        peer: Some(Marks { read: 40, recv: 43 }),
        unread: 2,
    };
    let team = ConversationSummary { conv: TEAM, name: None, head: 0, peer: None, ..bob };
    let rid = Rid::text("h1");
    let gap = RunHead { from: 1108, to: 1207, gap: Some((1008, 1107)), reset: false };
    let recalled = Message { frame: None, recalled: Some(50), imported: true, ..message(43, m) };
    let edited = Message { edited: Some(44), ..message(43, m) };
    let cases = [
        (
            replies::welcome(&welcome, None),
            r#"{"device":"web-3f9a","errno":200,"level":2,"limits":{"frame":65536,"inflight":256,"page":200},"msgType":40,"name":"ann","ping":25,"token":"eyJ1Ijo3","tokenExpires":1790600000000,"user":7}"#.to_owned(),
        ),
        (
            frames::acknowledged("0198c5", BOB, at, false),
            r#"{"cid":"0198c5","conv":"u9","errno":200,"msgType":41,"seq":42,"tag":"5be0717c","time":1789891200123}"#.to_owned(),
        ),
        (
            frames::send_refused(Some("0198c5"), away),
            r#"{"cid":"0198c5","errmsg":"the database is away, try again","errno":503,"msgType":41,"retryAfter":2.4}"#.to_owned(),
        ),
        (
            frames::pushed(BOB, &message(43, m)),
            format!(r#"{{"conv":"u9","from":9,"m":{m},"msgType":42,"seq":43,"tag":"77aa01fe","time":1789891201000}}"#),
        ),
        (
            frames::pushed(BOB, &recalled),
            r#"{"conv":"u9","from":9,"imported":true,"m":null,"msgType":42,"recalled":50,"seq":43,"tag":"77aa01fe","time":1789891201000}"#.to_owned(),
        ),
        (
            frames::overview(&[bob, team], false).0,
            r#"{"convs":[{"conv":"u9","floor":0,"head":43,"kind":"user","name":"bob","peerRead":40,"peerRecv":43,"read":41,"tag":"00000001","unread":2},{"conv":"g3","floor":0,"head":0,"kind":"group","name":null,"read":41,"unread":2}],"more":false,"msgType":43}"#.to_owned(),
        ),
        (
            frames::run(TEAM, &gap),
            r#"{"complete":false,"conv":"g3","from":1108,"gap":[1008,1107],"msgType":44,"to":1207}"#.to_owned(),
        ),
        (frames::synced(None), r#"{"msgType":45,"synced":true}"#.to_owned()),
        (
            frames::page(TEAM, &[edited], true, 0, 50, rid.as_ref()),
            format!(
                r#"{{"complete":true,"conv":"g3","errno":200,"floor":0,"from":43,"head":50,"msgType":48,"msgs":[{{"edited":44,"from":9,"m":{m},"seq":43,"tag":"77aa01fe","time":1789891201000}}],"rid":"h1","to":43}}"#
            ),
        ),
        (
            frames::page(TEAM, &[], true, 0, 0, None),
            r#"{"complete":true,"conv":"g3","errno":200,"floor":0,"head":0,"msgType":48,"msgs":[]}"#.to_owned(),
        ),
        (
            frames::read(TEAM, UserId(7), 1207, 1207, 0, rid.as_ref()),
            r#"{"conv":"g3","errno":200,"head":1207,"msgType":49,"read":1207,"rid":"h1","unread":0,"user":7}"#.to_owned(),
        ),
        (
            frames::peer_marks(BOB, UserId(9), Marks { read: 41, recv: 43 }),
            r#"{"conv":"u9","msgType":50,"read":41,"recv":43,"user":9}"#.to_owned(),
        ),
        (
            replies::typing(BOB, UserId(9)),
            r#"{"conv":"u9","event":"typing","from":9,"msgType":51}"#.to_owned(),
        ),
        (replies::presence(Id(9), true), r#"{"msgType":52,"online":true,"user":9}"#.to_owned()),
        (
            replies::farewell(Reason::Drain, 1700),
            r#"{"errmsg":"the server is being restarted, connect again","errno":503,"msgType":55,"reason":"drain","retryAfter":1.7}"#.to_owned(),
        ),
        (
            replies::farewell(Reason::Replaced, 1700),
            r#"{"errmsg":"this device has logged in on another connection","errno":409,"msgType":55,"reason":"replaced"}"#.to_owned(),
        ),
        (
            replies::group_event("joined", UserId(7), UserId(9), "ann"),
            r#"{"USERID":7,"by":9,"event":"joined","msgType":57,"name":"ann"}"#.to_owned(),
        ),
    ];
    for (frame, expected) in cases {
        assert_eq!(frame, expected);
        check(&frame);
    }
}

#[test]
fn a_long_list_of_members_has_several_frames() {
    let members: Vec<_> = (1..=9).map(|id| (UserId(id), Some("x".repeat(60)), id == 1)).collect();
    let rid = Rid::integer(5);
    let (whole, parts) = (replies::members(&members, 9999, None), replies::members(&members, 300, rid.as_ref()));
    assert!(!whole.contains('\n') && !whole.contains("more"), "{whole}");
    let parts: Vec<Value> = parts.lines().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    let shown = |frame: &Value| (frame["members"].as_array().unwrap().len(), frame.get("more").cloned());
    let more = Some(Value::from(true));
    assert_eq!(parts.iter().map(shown).collect::<Vec<_>>(), [(3, more.clone()), (3, more), (3, None)]);
    assert!(parts.iter().all(|frame| frame["rid"] == 5 && frame["errno"] == 200));
    let ids = parts.iter().flat_map(|frame| frame["members"].as_array().unwrap()).map(|member| member["id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), (1..=9).map(Value::from).collect::<Vec<_>>());
    assert_eq!(replies::members(&[], 1, None), r#"{"errno":200,"members":[],"msgType":61}"#);
}

#[test]
fn every_other_reply_has_its_keys_in_order() {
    let rid = Rid::integer(-7);
    let user = (UserId(7), Some("a\"b".to_owned()));
    for rid in [rid.as_ref(), None] {
        let all = [
            replies::done(52, rid),
            replies::pong(rid),
            replies::PING.to_owned(),
            replies::password_changed("t", 1, rid),
            replies::members(&[(UserId(7), None, true), (UserId(8), user.1.clone(), false)], 999, rid),
            replies::blocked(std::slice::from_ref(&user), rid),
            replies::account(UserId(7), "ann", true, rid),
            replies::devices(&[("d\\".to_owned(), 1, false)], rid),
            replies::refused(48, Refusal { errno: 503, errmsg: "later", retry_after: Some(1) }, rid),
            frames::run_refused("\u{1}\"", Refusal::forever(400, "no")),
            frames::run(BOB, &RunHead { from: 1, to: 0, gap: None, reset: true }),
            frames::send_refused(None, Refusal::forever(400, "no")),
            frames::acknowledged("a\"\\", TEAM, message(1, "{}").at, true),
        ];
        for frame in all {
            check(&frame);
        }
    }
    for reason in [
        Reason::Drain,
        Reason::Slow,
        Reason::Idle,
        Reason::Limit,
        Reason::Overload,
        Reason::Replaced,
        Reason::Revoked,
        Reason::Logout,
        Reason::Protocol,
        Reason::TooLong,
    ] {
        check(&replies::farewell(reason, 1));
        assert_eq!(replies::farewell(reason, 1).contains("retryAfter"), reason.may_return());
    }
}

#[test]
fn level_1s_replies_get_their_rid_in_its_place() {
    let rid = Rid::text("h\"1");
    let with_rid = |reply: &str| replies::with_rid(reply, rid.as_ref());
    assert_eq!(with_rid(protocol::ACK), r#"{"errno":200,"msgType":200,"rid":"h\"1"}"#);
    let friend = protocol::friend_added(UserId(7), "b");
    assert_eq!(with_rid(&friend), r#"{"errno":200,"msgType":6,"name":"b","rid":"h\"1","userId":7}"#);
    for reply in [&friend, protocol::WRONG_LOGIN, protocol::BAD_REQUEST, &protocol::busy_for(7), &protocol::groups(&[])]
    {
        check(&with_rid(reply));
        assert_eq!(replies::with_rid(reply, None), *reply);
    }
}

#[test]
fn a_43_has_its_bounds() {
    let text = format!(r#"{{"msg":"{}"}}"#, "x".repeat(60_000));
    let bob = ConversationSummary {
        conv: BOB,
        name: Some("\u{1}"),
        floor: 0,
        head: 43,
        tag: Some(Tag(1)),
        last: None,
        read: 41,
        peer: None,
        unread: 2,
    };
    let (frame, count) = frames::overview(&vec![bob; 201], false);
    assert_eq!(count, PAGE_MAX);
    assert!(frame.contains("\"more\":true"));
    let with_last = ConversationSummary { last: Some(message(43, &text)), ..bob };
    let (frame, count) = frames::overview(&vec![with_last; 10], false);
    assert_eq!(count, PAGE_BYTES_MAX / text.len());
    assert!(frame.len() < SERVER_FRAME_END);
    let huge = format!(r#"{{"msg":"{}"}}"#, "x".repeat(300_000));
    assert_eq!(frames::overview(&[ConversationSummary { last: Some(message(43, &huge)), ..bob }; 2], false).1, 1);
    assert_eq!(frames::overview(&[], false), (r#"{"convs":[],"more":false,"msgType":43}"#.to_owned(), 0));
}

#[test]
fn the_longest_page_is_below_the_bound() {
    let text = format!(r#"{{"msg":"{}"}}"#, "x".repeat(PAGE_BYTES_MAX / PAGE_MAX - 10));
    let all = [Some(i64::MAX), None];
    let longest = Message { edited: all[0], recalled: all[0], imported: true, ..message(i64::MAX, &text) };
    let page =
        frames::page(TEAM, &[longest; PAGE_MAX], false, i64::MAX, i64::MAX, Rid::text(&"\u{1}".repeat(64)).as_ref());
    assert!(page.len() < SERVER_FRAME_END, "{}", page.len());
}

proptest! {
    #[test]
    fn a_composed_frame_says_what_was_given(
        name in any::<String>(),
        cid in "[!-~]{1,64}",
        seq in 1..1_i64 << 53,
        tag: u32,
        text in any::<String>(),
    ) {
        let m = serde_json::json!({ "msg": text }).to_string();
        let mut sent = message(seq, &m);
        sent.at.tag = Tag(tag);
        let pushed = frames::pushed(BOB, &sent);
        check(&pushed);
        let value: Value = serde_json::from_str(&pushed).expect("it is JSON");
        prop_assert_eq!(&value["m"]["msg"], &Value::from(text));
        prop_assert_eq!(&value["seq"], &Value::from(seq));
        prop_assert_eq!(value["tag"].as_str().and_then(Tag::parse), Some(Tag(tag)));
        prop_assert!(pushed.contains(&m), "m is as it was sent");
        let ack: Value = serde_json::from_str(&frames::acknowledged(&cid, TEAM, sent.at, true)).expect("it is JSON");
        prop_assert_eq!(ack["cid"].as_str(), Some(&*cid));
        prop_assert_eq!(ack["conv"].as_str().and_then(ConversationName::parse), Some(TEAM));
        let account = replies::account(UserId(7), &name, false, None);
        check(&account);
        let account: Value = serde_json::from_str(&account).expect("it is JSON");
        prop_assert_eq!(account["name"].as_str(), Some(&*name));
    }
}

/// Compact JSON, with the keys of every object that the server composes in byte order.
fn check(frame: &str) {
    let value: Value = serde_json::from_str(frame).unwrap_or_else(|error| panic!("{error}: {frame}"));
    // A `Value` has its keys in byte order, without blanks. The contract's `m` is as it was sent.
    let sorted = serde_json::to_string(&without_m(value)).expect("it is JSON");
    let own: Value = serde_json::from_str(frame).expect("it is JSON");
    let m = serde_json::to_string(&own["m"]).expect("it is JSON");
    if own["m"].is_null() && !frame.contains("\"m\":{") {
        assert_eq!(frame, sorted);
    } else if own.get("m").is_some() {
        let at = frame.find("\"m\":").expect("it is there") + 4;
        let end = frame.rfind(",\"msgType\"").expect("it is there");
        assert_eq!([&frame[..at], "null", &frame[end..]].concat(), sorted, "{m}");
    }
}

fn without_m(mut value: Value) -> Value {
    if let Some(m) = value.get_mut("m") {
        *m = Value::Null;
    }
    value
}
