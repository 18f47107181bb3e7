//! [`Frame::parse`] of level 2: as strict as level 1, never a panic, and every answer to it is
//! valid JSON.

use serde_json::Value;

use super::request::WrittenMembers;
use crate::protocol::level2::frames::{Refusal, send_refused};
use crate::protocol::level2::replies::{refused, with_rid};
use crate::protocol::level2::{Frame, Level2Request};
use crate::protocol::{self, BadRequest, FrameKind};

/// Takes the bytes as a frame.
pub fn level2(frame: &[u8]) {
    let parsed = Frame::parse(frame);
    let Some(members) = WrittenMembers::read(frame) else {
        assert_eq!(parsed, Err(BadRequest), "this is no good JSON");
        return;
    };
    let Some(msg_type) = members.id("msgType") else {
        assert_eq!(parsed.map(|frame| frame.request), Ok(Level2Request::Level1(Err(BadRequest))), "this is no request");
        return;
    };
    let Frame { kind, rid, request } = parsed.expect("it is JSON with a msgType");
    assert_eq!(kind, FrameKind::of(msg_type));
    let given: Value = serde_json::from_slice(frame).unwrap_or_default();
    let answer = |text: &str| -> Value { serde_json::from_str(text).expect("an answer is JSON") };
    if let Some(rid) = &rid {
        let reply = answer(&with_rid(protocol::ACK, Some(rid)));
        // Only this parser reads a frame that is nested deeper than the library's limit.
        let is_repeated = match (reply["rid"].as_f64(), given["rid"].as_f64()) {
            // Minus zero is the integer 0, which the library reads as a fraction.
            (Some(repeated), Some(asked)) => repeated == asked,
            _ => reply["rid"] == given["rid"],
        };
        assert!(given.is_null() || is_repeated, "{rid}");
    }
    match request {
        Level2Request::Level1(request) => {
            let expected = protocol::Request::parse(frame).map(|(_, request)| request);
            assert!(request == expected || request == Ok(protocol::Request::Fixed(protocol::NO_METHOD)));
        }
        Level2Request::Send(send) => {
            assert!(matches!(send.msg_type, 4 | 5 | 9));
            let bytes = send.frame.as_bytes();
            assert!(bytes.first() == Some(&b'{') && bytes.last() == Some(&b'}'));
            let stored = send.stored();
            assert!(!stored.contains(['\n', '\r']) && stored.len() == send.frame.len());
            assert!(matches!(send.cid.len(), 1..=64));
            let refusal = Refusal::forever(403, "no");
            assert_eq!(answer(&send_refused(Some(&send.cid), refusal))["cid"], Value::from(&*send.cid));
        }
        Level2Request::BadSend { cid, refusal, .. } => {
            assert_eq!(answer(&send_refused(cid.as_deref(), refusal))["errno"], 400);
        }
        Level2Request::Refused(msg_type, refusal) => {
            assert_eq!(answer(&refused(msg_type, refusal, rid.as_ref()))["errno"], 400);
        }
        Level2Request::Login(login) => {
            assert!((15..=300).contains(&login.ping) && (1..=5000).contains(&login.resume));
        }
        Level2Request::Page { limit, .. } | Level2Request::Find { limit, .. } => assert!((1..=200).contains(&limit)),
        Level2Request::Watch(watched) => assert!(watched.len() <= 500),
        Level2Request::Report(marks) => assert!(marks.iter().all(|(_, seq)| *seq >= 0)),
        Level2Request::Sync { .. }
        | Level2Request::Read { .. }
        | Level2Request::Typing { .. }
        | Level2Request::Ping
        | Level2Request::Pong
        | Level2Request::Account { .. } => {}
    }
}
