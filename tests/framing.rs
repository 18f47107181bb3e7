//! How the server finds frames in the stream of bytes, and how it separates replies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{ACK, BAD_REQUEST, NO_SUCH_METHOD, PATIENCE, TestClient, TestServer};
use testkit::{chat, login, offline_user, password, user};

/// A request that every client may send; the reply is [`NO_SUCH_METHOD`].
const GOOD: &str = r#"{"msgType":99}"#;

const HEARTBEAT: &str = "keep this socket alive";

/// The largest frame of a server with default settings.
const FRAME_BYTES_MAX: usize = 64 * 1024;

// Segmentation

/// A whole conversation, from registering to fetching stored messages.
fn conversation(a: i64, b: i64) -> Vec<String> {
    let pw = password("alice");
    vec![
        json!({"msgType": 1, "USERID": a, "password": pw}).to_string(),
        json!({"msgType": 15, "keyword": a.to_string()}).to_string(),
        chat(a, a, "to myself: 你好 😀 \"quoted\" \\ }{").to_string(),
        format!(r#"{{ "msgType" : 6 , "U1" : {a} , "U2" : {b} }}"#),
        json!({"msgType": 8, "FROMID": a}).to_string(),
        chat(a, b, "for later").to_string(),
        json!({"msgType": 12, "FROMID": a, "name": "gröup", "description": "é"}).to_string(),
        json!({"msgType": 11, "FROMID": a}).to_string(),
        json!({"msgType": 7, "FROMID": a, "TOID": b}).to_string(),
        GOOD.to_owned(),
        json!({"msgType": 4, "FROMID": a}).to_string(),
        json!({"msgType": 14, "FROMID": a}).to_string(),
        json!({"msgType": 3, "USERID": a}).to_string(),
    ]
}

/// The replies of [`conversation`] on a new server, whose first two users are alice and bob.
fn converse(send: impl FnOnce(&mut TestClient, &[String])) -> Vec<String> {
    let server = TestServer::start();
    let a = offline_user(&server, "alice");
    let b = offline_user(&server, "bob");
    let frames = conversation(a, b);
    let mut client = TestClient::connect(&server);
    send(&mut client, &frames);
    // Every request but the chat to bob is answered. The order among pushes is guaranteed, but not
    // their position among the replies. So the test sorts the pushes to the front.
    let mut replies: Vec<String> = (1..frames.len()).map(|_| client.recv_text()).collect();
    replies.sort_by_key(|reply| !reply.contains("to myself"));
    client.barrier();
    let stored = login(&server, "bob", b).fetch(b);
    assert_eq!(stored.len(), 2, "the friend's notice and the message: {stored:?}");
    replies
}

#[test]
fn any_segmentation_gives_the_same_replies() {
    let one_by_one = converse(|client, frames| frames.iter().for_each(|frame| client.send_text(frame)));
    assert!(one_by_one[0].contains("to myself"), "{one_by_one:?}");
    assert_eq!(one_by_one[1], ACK);
    assert_eq!(one_by_one.last().map(String::as_str), Some(ACK));
    let all_at_once = converse(|client, frames| client.send_raw(frames.concat().as_bytes()));
    assert_eq!(all_at_once, one_by_one, "all in one segment");
    let byte_by_byte = converse(|client, frames| {
        for byte in frames.concat().as_bytes() {
            client.send_raw(&[*byte]);
        }
    });
    assert_eq!(byte_by_byte, one_by_one, "each byte its own segment");
    let cut_anywhere = converse(|client, frames| {
        // The sizes of the pieces differ from the sizes of the frames, so the cuts move along the
        // frames.
        let bytes = frames.concat().into_bytes();
        let mut rest = bytes.as_slice();
        for size in (1..).map(|n| 1 + (n * 37) % 61) {
            let (segment, after) = rest.split_at(size.min(rest.len()));
            client.send_raw(segment);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    });
    assert_eq!(cut_anywhere, one_by_one, "cut anywhere");
}

#[test]
fn whitespace_and_nul_between_frames_mean_nothing() {
    let server = TestServer::start();
    for between in ["", " ", "\t", "\r", "\n", "\r\n", " \t\r\n \n", "\0", "\0\0 \0", "\n\0\n"] {
        let mut client = TestClient::connect(&server);
        client.send_raw([GOOD, between, GOOD, between, r#"{"msgType":500}"#, between].concat().as_bytes());
        assert_eq!(client.recv()["errno"], 404, "before {between:?}");
        assert_eq!(client.recv()["errno"], 404, "after {between:?}");
        assert_eq!(client.recv()["errno"], 500, "after {between:?}");
        client.barrier();
    }
}

// Line mode

#[test]
fn replies_are_bare_for_a_client_that_sends_no_newline() {
    let server = TestServer::start();
    let mut client = TestClient::connect(&server);
    for _ in 0..3 {
        client.send_text(GOOD);
        client.expect_bytes(NO_SUCH_METHOD.as_bytes());
        client.expect_no_bytes();
    }
    // Whitespace other than a newline does not start line mode, wherever it stands.
    client.send_raw(format!(" \t{GOOD} \t{GOOD}\0").as_bytes());
    client.expect_bytes([NO_SUCH_METHOD, NO_SUCH_METHOD].concat().as_bytes());
    client.send_text(r#"{"msgType":200}"#);
    client.expect_bytes(ACK.as_bytes());
    client.half_close();
    client.expect_eof();
    client.expect_no_bytes();
}

#[test]
fn newlines_inside_a_frame_do_not_end_it() {
    let server = TestServer::start();
    let mut client = TestClient::connect(&server);
    client.send_raw(b"{\n\"msgType\"\r\n:\n99\n}");
    client.expect_bytes(NO_SUCH_METHOD.as_bytes());
    client.send_text(r#"{"msgType":200}"#);
    client.expect_bytes(ACK.as_bytes());
    client.expect_no_bytes();
}

#[test]
fn replies_end_with_a_newline_for_a_client_that_sends_lines() {
    let server = TestServer::start();
    for end in ["\n", "\r\n"] {
        let mut client = TestClient::connect(&server);
        client.send_raw(format!("{GOOD}{end}").as_bytes());
        client.expect_bytes(format!("{NO_SUCH_METHOD}\n").as_bytes());
        client.send_raw(format!("{GOOD}{end}{GOOD}{end}").as_bytes());
        client.expect_bytes(format!("{NO_SUCH_METHOD}\n{NO_SUCH_METHOD}\n").as_bytes());
        client.send_raw(format!("{HEARTBEAT}{end}").as_bytes());
        client.expect_bytes(format!("{BAD_REQUEST}\n").as_bytes());
        // A connection in line mode stays in it.
        client.send_text(GOOD);
        client.expect_bytes(format!("{NO_SUCH_METHOD}\n").as_bytes());
        client.half_close();
        client.expect_eof();
        client.expect_no_bytes();
    }
}

#[test]
fn pushes_end_as_the_recipient_likes_it() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let c = offline_user(&server, "carol");
    let mut bob = TestClient::connect_lines(&server);
    bob.send(&json!({"msgType": 1, "USERID": b, "password": password("bob")}));
    bob.expect_bytes(format!("{ACK}\n").as_bytes());
    let mut carol = TestClient::connect(&server);
    carol.send(&json!({"msgType": 1, "USERID": c, "password": password("carol")}));
    carol.expect_bytes(ACK.as_bytes());
    // The sender's own mode does not matter.
    for end in ["", "\n"] {
        let to_bob = chat(a, b, "hi").to_string();
        let to_carol = chat(a, c, "hi").to_string();
        alice.send_raw(format!("{to_bob}{end}{to_carol}{end}").as_bytes());
        let got = bob.recv_text();
        assert_eq!(serde_json::from_str::<Value>(&got).expect("JSON"), chat(a, b, "hi"));
        bob.expect_bytes(b"\n");
        let got = carol.recv_text();
        assert_eq!(serde_json::from_str::<Value>(&got).expect("JSON"), chat(a, c, "hi"));
        carol.expect_no_bytes();
    }
    carol.send_text(r#"{"msgType":200}"#);
    carol.expect_bytes(ACK.as_bytes());
}

#[test]
fn a_first_newline_midway_is_answered_by_one_at_once() {
    let server = TestServer::start();
    let mut client = TestClient::connect(&server);
    client.send_text(GOOD);
    client.expect_bytes(NO_SUCH_METHOD.as_bytes());
    client.send_raw(b"\n");
    client.expect_bytes(b"\n");
    client.send_raw(format!("{GOOD}\n").as_bytes());
    client.expect_bytes(format!("{NO_SUCH_METHOD}\n").as_bytes());
    client.half_close();
    client.expect_eof();
    client.expect_no_bytes();

    // The newline may also arrive together with the next frame: a client that reads lines must be
    // able to tell the replies apart.
    let mut client = TestClient::connect(&server);
    client.send_text(GOOD);
    client.expect_bytes(NO_SUCH_METHOD.as_bytes());
    client.send_raw(b"{\"msgType\":200}\r\n");
    client.expect_bytes(format!("\n{ACK}\n").as_bytes());
    client.half_close();
    client.expect_eof();
    client.expect_no_bytes();
}

// Bad frames

#[test]
fn a_bad_run_gets_one_401_and_ends_where_it_should() {
    let server = TestServer::start();
    let cases: &[(&str, &[&str])] = &[
        ("text\n{\"msgType\":99}", &["401", "404"]),
        ("text\r\n{\"msgType\":99}", &["401", "404"]),
        ("text{\"msgType\":99}", &["401", "404"]),
        ("keep this socket alive{\"msgType\":99}", &["401", "404"]),
        ("keep this socket alive\n{\"msgType\":99}\n", &["401", "404"]),
        ("{\"msgType\":99}keep this socket alive", &["404", "401"]),
        ("some more text, with [brackets] and \"quotes\"\n{\"msgType\":99}", &["401", "404"]),
        ("one\ntwo\n{\"msgType\":99}", &["401", "401", "404"]),
        ("[1,2,3]\n{\"msgType\":99}", &["401", "404"]),
        ("123 456\n{\"msgType\":99}", &["401", "404"]),
        ("}\n{\"msgType\":99}", &["401", "404"]),
        ("}}}{\"msgType\":99}", &["401", "404"]),
        ("\"text\"{\"msgType\":99}", &["401", "404"]),
        ("{\"a\":tru}\n{\"msgType\":99}", &["401", "404"]),
        ("{\"msgType\":99,}\n{\"msgType\":99}", &["401", "404"]),
        ("{msgType:99}\n\n{\"msgType\":99}", &["401", "404"]),
        ("{}{\"msgType\":99}", &["401", "404"]),
        ("{\"msgType\":null}{\"msgType\":99}", &["401", "404"]),
        ("text", &["401"]),
    ];
    for (bytes, expected) in cases {
        let mut client = TestClient::connect(&server);
        client.send_raw(bytes.as_bytes());
        let got: Vec<String> = expected.iter().map(|_| client.recv()["errno"].to_string()).collect();
        assert_eq!(got, *expected, "{bytes:?}");
        client.barrier();
    }
}

#[test]
fn heartbeats_cost_nobody_the_session() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    for _ in 0..20 {
        bob.send_raw(HEARTBEAT.as_bytes());
        bob.expect_text(BAD_REQUEST);
    }
    alice.send(&chat(a, b, "alive?"));
    bob.expect(&chat(a, b, "alive?"));
    bob.barrier();
}

#[test]
fn any_first_byte_but_that_of_tls_leaves_the_connection_usable() {
    let server = TestServer::builder().option("frame_timeout", "300ms").start();
    for byte in 0..=u8::MAX {
        let mut client = TestClient::connect(&server);
        client.send_raw(&[&[byte], b"\n".as_slice(), GOOD.as_bytes(), b"\n"].concat());
        match byte {
            b'\0' | b'\t' | b'\n' | b'\r' | b' ' => (),
            0x16 => {
                client.expect_eof();
                continue;
            }
            b'{' => {
                // This brace opens an object, which the next brace makes invalid. The following
                // bytes belong to the invalid run.
                client.expect_text(BAD_REQUEST);
                client.send_text(GOOD);
            }
            _ => client.expect_text(BAD_REQUEST),
        }
        let got = client.recv_text();
        assert_eq!(got, NO_SUCH_METHOD, "after the byte {byte:#04x}");
        client.barrier();
    }
}

#[test]
fn a_frame_that_is_never_completed_is_given_up() {
    let server = TestServer::builder().option("frame_timeout", "300ms").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    for start in ["{", r#"{"msgType""#, r#"{"msgType":99,"x":"abc"#, "{\"x\":\"\u{4f60}", r#"{"x":[[[{"#] {
        alice.send_raw(start.as_bytes());
        alice.expect_text(BAD_REQUEST);
        alice.send_text(GOOD);
        alice.expect_text(NO_SUCH_METHOD);
        alice.barrier();
    }
    // Bob is still logged in.
    bob.send(&chat(b, a, "there?"));
    alice.expect(&chat(b, a, "there?"));
}

#[test]
fn a_trickled_frame_is_given_up_and_harms_nobody() {
    let server = TestServer::builder().option("frame_timeout", "300ms").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let mut slow = TestClient::connect(&server);
    slow.send_raw(br#"{"msgType":99,"pad":""#);
    let deadline = Instant::now() + PATIENCE;
    let reply = loop {
        assert!(Instant::now() < deadline, "a byte now and then must not keep a frame alive for ever");
        slow.send_raw(b"x");
        alice.send(&chat(a, b, "meanwhile"));
        bob.expect(&chat(a, b, "meanwhile"));
        if let Some(reply) = slow.recv_within(Duration::from_millis(20)) {
            break reply;
        }
    };
    assert_eq!(reply.to_string(), BAD_REQUEST);
    // A byte that was in flight when the server gave the frame up is an invalid run of its own.
    slow.send_raw(format!("\n{GOOD}").as_bytes());
    let mut reply = slow.recv_text();
    if reply == BAD_REQUEST {
        reply = slow.recv_text();
    }
    assert_eq!(reply, NO_SUCH_METHOD);
    slow.barrier();
}

#[test]
fn numbers_keep_to_their_meaning() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    for (frame, errno) in [
        (r#"{"msgType":99,"n":1e308}"#.to_owned(), 404),
        (r#"{"msgType":99,"n":1e400}"#.to_owned(), 401),
        (r#"{"msgType":99,"n":-1e400}"#.to_owned(), 401),
        (r#"{"msgType":99,"n":123456789012345678901234567890}"#.to_owned(), 404),
        (format!(r#"{{"msgType":99,"n":{}}}"#, "9".repeat(300)), 404),
        (r#"{"msgType":99,"n":1e-999999}"#.to_owned(), 404),
        (r#"{"msgType":99,"n":-0}"#.to_owned(), 404),
        (r#"{"msgType":99,"n":01}"#.to_owned(), 401),
        (r#"{"msgType":99.0}"#.to_owned(), 401),
        (r#"{"msgType":9.9e1}"#.to_owned(), 401),
        (format!(r#"{{"msgType":11,"FROMID":{a}.0}}"#), 401),
        (format!(r#"{{"msgType":11,"FROMID":{a}e0}}"#), 401),
        (r#"{"msgType":true}"#.to_owned(), 401),
    ] {
        alice.send_text(&frame);
        let reply = alice.recv();
        assert_eq!(reply["errno"], errno, "{frame}: {reply}");
    }
    alice.barrier();
}

#[test]
fn the_last_of_repeated_keys_counts() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    for (frame, errno) in [
        (r#"{"msgType":99,"msgType":200}"#.to_owned(), 200),
        (r#"{"msgType":200,"msgType":"x"}"#.to_owned(), 401),
        (r#"{"msgType":"x","msgType":200}"#.to_owned(), 200),
        (r#"{"msgType":99,"\u006dsgType":200}"#.to_owned(), 200),
        (format!(r#"{{"msgType":11,"FROMID":{b},"FROMID":{a}}}"#), 200),
        (format!(r#"{{"msgType":11,"FROMID":{a},"FROMID":{b}}}"#), 403),
    ] {
        alice.send_text(&frame);
        let reply = alice.recv();
        assert_eq!(reply["errno"], errno, "{frame}: {reply}");
    }
    alice.send_text(&format!(r#"{{"msgType":4,"TOID":{a},"FROMID":{a},"msg":"one","msg":"two","TOID":{b}}}"#));
    bob.expect(&json!({"msgType": 4, "TOID": b, "FROMID": a, "msg": "two"}));
    alice.expect_silence_until_barrier();
}

// Limits

#[test]
fn a_frame_of_the_greatest_length_is_a_frame_like_any_other() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let frame = padded(r#"{"msgType":99,"pad":""#, FRAME_BYTES_MAX);
    for _ in 0..3 {
        alice.send_text(&frame);
        alice.expect_text(NO_SUCH_METHOD);
    }
    let frame = padded(&format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{b},"msg":""#), FRAME_BYTES_MAX);
    alice.send_text(&frame);
    let got = bob.recv();
    assert_eq!(got, serde_json::from_str::<Value>(&frame).expect("JSON"));
    // Bytes between frames do not count.
    alice.send_raw(format!("{}{frame}\n", " ".repeat(1000)).as_bytes());
    assert_eq!(bob.recv(), got);
    alice.barrier();
}

#[test]
fn a_longer_frame_is_refused_and_ends_the_connection() {
    let server = TestServer::start();
    let (mut bystander, _) = user(&server, "alice");
    let mut client = TestClient::connect(&server);
    client.send_text(&padded(r#"{"msgType":99,"pad":""#, FRAME_BYTES_MAX + 1));
    client.expect_refusal(413);
    client.expect_eof();
    // The server does not wait for the end of a frame that is already too long.
    let mut client = TestClient::connect(&server);
    client.try_send_raw(&[br#"{"pad":""#.as_slice(), &[b'x'; FRAME_BYTES_MAX]].concat());
    client.expect_refusal(413);
    client.expect_eof();
    bystander.barrier();
}

#[test]
fn the_greatest_length_is_a_setting() {
    let server = TestServer::builder().option("max_frame", "1k").start();
    let mut client = TestClient::connect(&server);
    client.send_text(&padded(r#"{"msgType":99,"pad":""#, 1024));
    client.expect_text(NO_SUCH_METHOD);
    client.send_text(&padded(r#"{"msgType":99,"pad":""#, 1025));
    client.expect_refusal(413);
    client.expect_eof();
}

#[test]
fn nesting_is_allowed_128_levels_deep() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    // The frame itself is the first level.
    for (open, close) in [("[", "]"), (r#"{"k":"#, "}")] {
        let filler = if open == "[" { "" } else { "0" };
        let nested = |levels: usize| format!("{}{filler}{}", open.repeat(levels), close.repeat(levels));
        alice.send_text(&format!(r#"{{"msgType":99,"x":{}}}"#, nested(127)));
        alice.expect_text(NO_SUCH_METHOD);
        alice.send_text(&format!(r#"{{"msgType":99,"x":{}}}"#, nested(128)));
        alice.expect_text(BAD_REQUEST);
        alice.send_text(&format!(r#"{{"msgType":4,"FROMID":{a},"TOID":{b},"x":{}}}"#, nested(127)));
        let text = bob.recv_text();
        assert!(text.contains(&nested(127)), "{text}");
        alice.barrier();
    }
}

#[test]
fn ten_thousand_brackets_are_just_a_bad_frame() {
    let server = TestServer::start();
    let mut client = TestClient::connect(&server);
    for (open, close) in [("[", "]"), (r#"{"k":"#, "}")] {
        client.send_text(&format!(r#"{{"msgType":99,"x":{}0{}}}"#, open.repeat(10_000), close.repeat(10_000)));
        client.expect_text(BAD_REQUEST);
        // The frame may arrive in several segments. An invalid run ends where the received bytes
        // end, so there may be several.
        let more = client.recv_until_barrier();
        assert!(more.iter().all(|reply| reply["errno"] == 401), "{more:?}");
        client.barrier();
    }
}

// Forwarding

#[test]
fn forwarded_frames_have_no_raw_newline() {
    let server = TestServer::start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let c = offline_user(&server, "carol");
    let value =
        |to: i64| json!({"msgType": 4, "FROMID": a, "TOID": to, "msg": "one\ntwo\r\n", "list": [1, {"k": [2]}]});
    for to in [b, c] {
        alice.send_raw(
            format!(
                "{{\n  \"msgType\":\r\n4 ,\n\t\"FROMID\" : {a},\n  \"TOID\": {to},\r\"msg\": \"one\\ntwo\\r\\n\",\n\n  \
                 \"list\": [\n1,\n{{\n\"k\"\n:\n[\n2\n]\n}}\n]\n}}"
            )
            .as_bytes(),
        );
    }
    let text = bob.recv_text();
    assert!(!text.contains('\n'), "a forwarded frame is one line: {text:?}");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value(b));
    alice.barrier();
    let stored = login(&server, "carol", c).fetch_texts(c);
    assert_eq!(stored.len(), 1);
    assert!(!stored[0].contains('\n'), "a stored frame is one line: {:?}", stored[0]);
    assert_eq!(serde_json::from_str::<Value>(&stored[0]).expect("JSON"), value(c));
}

/// `start`, padded inside its last string and closed, with a total of `length` bytes.
fn padded(start: &str, length: usize) -> String {
    let end = r#""}"#;
    format!("{start}{}{end}", "p".repeat(length - start.len() - end.len()))
}
