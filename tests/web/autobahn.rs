//! The cases of the Autobahn test suite, sections 1 to 7, 9 and 10, by their numbers. The client is
//! `tungstenite` where it can send what a case needs, and raw bytes otherwise. (Sections 12 and 13
//! test compression, which this server does not support; 8 does not exist; 11 measures nothing
//! here.)
//!
//! The suite expects an echo server. Here a message is one JSON object, and the echo is replaced by
//! a request: `{"msgType":200}` with a member of the wanted length. An empty or random text is not
//! an object, so such cases get one 401. All binary messages end with 1003.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::{ACK, BAD_REQUEST, TestServer};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};

use crate::people::Socket;

/// A request of at least this length, which is answered with [`ACK`].
fn request(len: usize) -> String {
    let plain = r#"{"msgType":200,"x":""}"#.len();
    format!(r#"{{"msgType":200,"x":"{}"}}"#, "*".repeat(len.saturating_sub(plain)))
}

impl Socket {
    #[track_caller]
    fn expect_ack(&mut self) {
        assert_eq!(self.recv_text(), ACK);
    }

    fn frame(&mut self, opcode: OpCode, is_last: bool, payload: &[u8]) {
        let frame = Frame::message(payload.to_vec(), opcode, is_last);
        self.0.send(Message::Frame(frame)).expect("the server reads");
    }

    fn ping(&mut self, payload: &[u8]) {
        self.0.send(Message::Ping(payload.to_vec().into())).expect("the server reads");
    }

    /// Sends a message in fragments of this length.
    fn pieces(&mut self, text: &str, len: usize) {
        let count = text.len().div_ceil(len);
        for (nth, piece) in text.as_bytes().chunks(len).enumerate() {
            let opcode = if nth == 0 { Data::Text } else { Data::Continue };
            self.frame(OpCode::Data(opcode), nth + 1 == count, piece);
        }
    }

    #[track_caller]
    fn expect_pong(&mut self, payload: &[u8]) {
        match self.0.read().expect("a pong") {
            Message::Pong(bytes) => assert_eq!(bytes, payload),
            other => panic!("{other:?}"),
        }
    }
}

/// A raw connection after its handshake.
fn raw(server: &TestServer) -> TcpStream {
    let mut socket = Socket::connect(server);
    socket.0.get_mut().try_clone().expect("a descriptor")
}

/// A frame with a mask of zeros, so that its bytes are readable here. `first` is the whole first
/// byte.
fn bytes(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// The server's answer to these bytes, up to the end of the connection.
fn answer(server: &TestServer, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = raw(server);
    for piece in pieces {
        // The server may close the connection before the last piece.
        let _ = stream.write_all(piece);
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, and then the end");
    answer
}

/// The server's close frame with this code.
fn close(code: u16) -> Vec<u8> {
    [&[0x88, 2][..], &code.to_be_bytes()].concat()
}

#[track_caller]
fn ends(server: &TestServer, case: &str, pieces: &[&[u8]], code: u16) {
    let answer = answer(server, pieces);
    assert_eq!(answer.escape_ascii().to_string(), close(code).escape_ascii().to_string(), "{case}");
}

const GOOD: &[u8] = br#"{"msgType":200}"#;

#[test]
fn section_1_messages_of_every_length() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server);
    // 1.1.1: the empty message is not an object.
    socket.send_text("");
    assert_eq!(socket.recv_text(), BAD_REQUEST);
    // 1.1.2 to 1.1.7: lengths at which the form of the head changes.
    for len in [125, 126, 127, 128, 65_535, 65_536] {
        let text = request(len);
        assert_eq!(text.len(), len);
        socket.send_text(&text);
        socket.expect_ack();
    }
    // 1.1.8: in chops of 997 bytes.
    let mut stream = raw(&server);
    let text = request(65_000);
    let head = [&[0x81, 0x80 | 126][..], &(text.len() as u16).to_be_bytes(), &[0; 4]].concat();
    for chop in [&head[..], text.as_bytes()].concat().chunks(997) {
        stream.write_all(chop).expect("the server reads");
    }
    let mut answer = vec![0; 2 + ACK.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer[2..], ACK.as_bytes());
    // 1.2.1 to 1.2.8: binary messages are refused.
    for len in [0, 125, 126, 65_536] {
        let mut socket = Socket::connect(&server);
        socket.0.send(Message::binary(vec![0xfe; len])).expect("the server reads");
        assert_eq!(socket.closed(), 1003, "{len} bytes");
    }
}

#[test]
fn section_2_pings_and_pongs() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server);
    // 2.1 to 2.4: without a payload, with text, with bytes, with 125 bytes.
    for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
        socket.ping(payload);
        socket.expect_pong(payload);
    }
    // 2.5: a payload that is too long.
    ends(&server, "2.5", &[&[&[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0][..], &[0xfe; 126]].concat()], 1002);
    // 2.6: in chops of one byte.
    let mut stream = raw(&server);
    for byte in bytes(0x89, &[0xfe; 125]) {
        stream.write_all(&[byte]).expect("the server reads");
    }
    let mut answer = [0; 127];
    stream.read_exact(&mut answer).expect("a pong");
    assert!(answer[..2] == [0x8a, 125] && answer[2..].iter().all(|byte| *byte == 0xfe));
    // 2.7 to 2.9: unsolicited pongs, without and with a payload, before a ping.
    for payload in [&b""[..], b"unsolicited pong payload"] {
        socket.0.send(Message::Pong(payload.to_vec().into())).expect("the server reads");
    }
    socket.ping(b"ping");
    socket.expect_pong(b"ping");
    // 2.10: ten pings; 2.11: the same in chops.
    for nth in 0..10_u8 {
        socket.ping(&[nth]);
    }
    (0..10_u8).for_each(|nth| socket.expect_pong(&[nth]));
    let mut stream = raw(&server);
    for byte in (0..10_u8).flat_map(|nth| bytes(0x89, &[nth])) {
        stream.write_all(&[byte]).expect("the server reads");
    }
    let mut answers = [0; 30];
    stream.read_exact(&mut answers).expect("ten pongs");
    assert!(answers.chunks(3).enumerate().all(|(nth, pong)| pong == [0x8a, 1, nth as u8]));
}

#[test]
fn section_3_reserved_bits() {
    let server = TestServer::start();
    let text = bytes(0x81, GOOD);
    let acked = [&[0x81, ACK.len() as u8][..], ACK.as_bytes()].concat();
    // 3.1: bit 3 in the first frame.
    ends(&server, "3.1", &[&bytes(0x81 | 0x10, GOOD)], 1002);
    // 3.2 to 3.4: other bits after a good message, then a ping; whole, in chops, byte by byte.
    for (case, bits, chop) in [("3.2", 0x20, 1000), ("3.3", 0x30, 7), ("3.4", 0x40, 1)] {
        let stream = [&text[..], &bytes(0x81 | bits, GOOD), &bytes(0x89, b"")].concat();
        let answer = answer(&server, &stream.chunks(chop).collect::<Vec<_>>());
        assert_eq!(answer, [&acked[..], &close(1002)].concat(), "{case}");
    }
    // 3.5 to 3.7: in a binary frame, in a ping, in a close.
    for (case, first) in [("3.5", 0x82 | 0x50), ("3.6", 0x89 | 0x60), ("3.7", 0x88 | 0x70)] {
        ends(&server, case, &[&bytes(first, b"")], 1002);
    }
}

#[test]
fn section_4_reserved_opcodes() {
    let server = TestServer::start();
    let text = bytes(0x81, GOOD);
    let acked = [&[0x81, ACK.len() as u8][..], ACK.as_bytes()].concat();
    // 4.1.1 to 4.1.5 and 4.2.1 to 4.2.5: alone, with a payload, after a message.
    for (case, opcode) in [
        ("4.1.1", 3),
        ("4.1.2", 4),
        ("4.1.3", 5),
        ("4.1.4", 6),
        ("4.1.5", 7),
        ("4.2.1", 11),
        ("4.2.2", 12),
        ("4.2.3", 13),
        ("4.2.4", 14),
        ("4.2.5", 15),
    ] {
        ends(&server, case, &[&bytes(0x80 | opcode, b"")], 1002);
        ends(&server, case, &[&bytes(0x80 | opcode, b"reserved")], 1002);
        let behind = answer(&server, &[&text, &bytes(0x80 | opcode, b""), &bytes(0x89, b"")]);
        assert_eq!(behind, [&acked[..], &close(1002)].concat(), "{case}, behind a message");
    }
}

#[test]
fn section_5_fragments() {
    let server = TestServer::start();
    // 5.1 and 5.2: a ping and a pong in two frames.
    ends(&server, "5.1", &[&bytes(0x09, b"fragment1"), &bytes(0x80, b"fragment2")], 1002);
    ends(&server, "5.2", &[&bytes(0x0a, b"fragment1"), &bytes(0x80, b"fragment2")], 1002);
    let mut socket = Socket::connect(&server);
    // 5.3 to 5.5: text in two frames. The unit tests of the reader do the same in chops.
    socket.pieces(&request(40), 20);
    socket.expect_ack();
    // 5.6 to 5.8: with a ping between them.
    let text = request(40);
    let (first, second) = text.as_bytes().split_at(9);
    socket.frame(OpCode::Data(Data::Text), false, first);
    socket.ping(b"ping payload");
    socket.frame(OpCode::Data(Data::Continue), true, second);
    socket.expect_pong(b"ping payload");
    socket.expect_ack();
    // 5.9 to 5.14: a continuation frame without a beginning.
    ends(&server, "5.9", &[&bytes(0x80, b"non-continuation payload"), &bytes(0x81, GOOD)], 1002);
    ends(&server, "5.12", &[&bytes(0x00, b"non-continuation payload"), &bytes(0x81, GOOD)], 1002);
    // 5.15: such a frame after a message in two frames.
    let behind = [bytes(0x01, &GOOD[..5]), bytes(0x80, &GOOD[5..]), bytes(0x00, b"fragment3"), bytes(0x81, GOOD)];
    let acked = [&[0x81, ACK.len() as u8][..], ACK.as_bytes()].concat();
    assert_eq!(answer(&server, &[&behind.concat()]), [&acked[..], &close(1002)].concat(), "5.15");
    // 5.16 and 5.17: the same repeatedly. 5.18: a second first frame.
    ends(&server, "5.16", &[&bytes(0x00, b"fragment1"), &bytes(0x01, b"fragment2"), &bytes(0x80, b"fragment3")], 1002);
    ends(&server, "5.17", &[&bytes(0x80, b"fragment1"), &bytes(0x01, b"fragment2"), &bytes(0x80, b"fragment3")], 1002);
    ends(&server, "5.18", &[&bytes(0x01, b"fragment1"), &bytes(0x81, b"fragment2")], 1002);
    // 5.19 and 5.20: five frames with two pings between them.
    let text = request(50);
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(10).collect();
    for (nth, piece) in pieces.iter().enumerate() {
        let opcode = if nth == 0 { Data::Text } else { Data::Continue };
        socket.frame(OpCode::Data(opcode), nth == 4, piece);
        if nth == 1 || nth == 3 {
            socket.ping(format!("pongme {nth}!").as_bytes());
        }
    }
    socket.expect_pong(b"pongme 1!");
    socket.expect_pong(b"pongme 3!");
    socket.expect_ack();
}

#[test]
fn section_6_utf_8() {
    let server = TestServer::start();
    let message = |text: &[u8]| [b"{\"msgType\":200,\"x\":\"", text, b"\"}"].concat();
    // 6.1: empty fragments. 6.2: characters, whole and cut anywhere.
    let mut socket = Socket::connect(&server);
    socket.frame(OpCode::Data(Data::Text), false, b"");
    socket.frame(OpCode::Data(Data::Continue), false, GOOD);
    socket.frame(OpCode::Data(Data::Continue), true, b"");
    socket.expect_ack();
    for text in ["Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "𝄞 \u{10ffff} \u{fffd} \u{feff}"] {
        let text = String::from_utf8(message(text.as_bytes())).expect("text");
        socket.send_text(&text);
        socket.expect_ack();
        socket.pieces(&text, 1);
        socket.expect_ack();
    }
    // 6.3 and 6.4: invalid UTF-8 at some place. 6.6 to 6.14, 6.16 to 6.18: incomplete, overlong,
    // too large. 6.19 to 6.21: surrogates.
    for (case, text) in [
        ("6.3.1", &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..]),
        ("6.4.1", b"\xce\xba\xf4\x90\x80\x80edited"),
        ("6.6.1", b"\xce"),
        ("6.6.3", b"\xce\xba\xe1"),
        ("6.6.4", b"\xce\xba\xe1\xbd"),
        ("6.8.1", b"\xf8\x88\x80\x80\x80"),
        ("6.8.2", b"\xfc\x84\x80\x80\x80\x80"),
        ("6.10.1", b"\xf7\xbf\xbf\xbf"),
        ("6.11.5", b"\xf4\x90\x80\x80"),
        ("6.12.1", b"\x80"),
        ("6.12.2", b"\xbf"),
        ("6.13.1", b"\xc0\x20\xc1\x20"),
        ("6.13.5", b"\xfc\x20\xfd\x20"),
        ("6.14.1", b"\xc0"),
        ("6.14.10", b"\xfd\xbf\xbf\xbf\xbf"),
        ("6.16.1", b"\xfe"),
        ("6.16.2", b"\xff"),
        ("6.17.1", b"\xc0\xaf"),
        ("6.17.5", b"\xfc\x80\x80\x80\x80\xaf"),
        ("6.18.1", b"\xc1\xbf"),
        ("6.18.5", b"\xfc\x83\xbf\xbf\xbf\xbf"),
        ("6.20.1", b"\xed\xa0\x80"),
        ("6.20.7", b"\xed\xbf\xbf"),
        ("6.21.8", b"\xed\xaf\xbf\xed\xbf\xbf"),
    ] {
        let text = message(text);
        ends(&server, case, &[&bytes(0x81, &text)], 1007);
        let (first, rest) = text.split_at(21);
        ends(&server, case, &[&bytes(0x01, first), &bytes(0x80, rest)], 1007);
    }
    // 6.7, 6.9, 6.11, 6.22, 6.23: the first and the last character of each length, and
    // noncharacters (U+FFFE and others), are valid.
    for text in [
        "\0",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{ffff}",
        "\u{10000}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffe}",
        "\u{1fffe}",
        "\u{10fffe}",
    ] {
        // The text is part of a message that is not an object, so that JSON's own rules are not
        // tested.
        socket.send_text(&format!("[{text}]"));
        assert_eq!(socket.recv_text(), BAD_REQUEST, "{text:?}");
    }
}

#[test]
fn section_7_closes() {
    let server = TestServer::start();
    // 7.1.1 to 7.1.4: a message, then a close; frames after it are not answered.
    let acked = [&[0x81, ACK.len() as u8][..], ACK.as_bytes()].concat();
    let stream = [bytes(0x81, GOOD), bytes(0x88, b""), bytes(0x88, b""), bytes(0x89, b"ping"), bytes(0x81, GOOD)];
    assert_eq!(answer(&server, &[&stream.concat()]), [&acked[..], &close(1000)].concat(), "7.1.1");
    // 7.1.5: a close after the beginning of a message. 7.1.6: a close after a long message.
    ends(&server, "7.1.5", &[&bytes(0x01, b"fragment1"), &bytes(0x88, b""), &bytes(0x80, b"fragment2")], 1000);
    let mut socket = Socket::connect(&server);
    socket.send_text(&request(65_536));
    socket.0.close(None).expect("the server reads");
    socket.expect_ack();
    assert_eq!(socket.closed(), 1000, "7.1.6");
    // 7.3.1 to 7.3.6: no payload, one byte, a code, a code with a reason, the longest reason, a
    // longer one.
    ends(&server, "7.3.1", &[&bytes(0x88, b"")], 1000);
    ends(&server, "7.3.2", &[&bytes(0x88, b"a")], 1002);
    ends(&server, "7.3.3", &[&bytes(0x88, &1000_u16.to_be_bytes())], 1000);
    ends(&server, "7.3.4", &[&bytes(0x88, b"\x03\xe8Hello World!")], 1000);
    ends(&server, "7.3.5", &[&bytes(0x88, &[&b"\x03\xe8"[..], &[b'*'; 123]].concat())], 1000);
    let long = [&[0x88, 0x80 | 126, 0, 126, 0, 0, 0, 0, 0x03, 0xe8][..], &[b'*'; 124]].concat();
    ends(&server, "7.3.6", &[&long], 1002);
    // 7.5.1: a reason that is not UTF-8.
    ends(&server, "7.5.1", &[&bytes(0x88, b"\x03\xe8\xce\xba\xed\xa0\x80")], 1007);
    // 7.7.1 to 7.7.13: codes that a client may send.
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut socket = Socket::connect(&server);
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        socket.0.close(Some(frame)).expect("the server reads");
        assert_eq!(socket.closed(), code, "7.7");
    }
    // 7.9.1 to 7.9.11, 7.13: codes that must not be sent.
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        ends(&server, "7.9", &[&bytes(0x88, &code.to_be_bytes())], 1002);
    }
}

#[test]
fn section_9_long_messages_and_many_pieces() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server);
    // 9.1.1, 9.5, 9.7: 64 KiB, in one frame, in chops, and many of them.
    let text = request(65_536);
    for _ in 0..50 {
        socket.send_text(&text);
    }
    (0..50).for_each(|_| socket.expect_ack());
    // 9.3: in fragments of 64 bytes up to 64 KiB.
    for len in [64, 256, 1024, 4096, 16_384, 65_536] {
        socket.pieces(&text, len);
        socket.expect_ack();
    }
    // 9.1.2 and later: beyond `max_frame`.
    for len in [65_537, 256 * 1024] {
        let mut socket = Socket::connect(&server);
        let _ = socket.0.send(Message::text(request(len)));
        assert_eq!(socket.closed(), 1009, "{len} bytes");
    }
    let mut socket = Socket::connect(&server);
    let long = request(80_000);
    for (nth, piece) in long.as_bytes().chunks(10_000).enumerate() {
        let opcode = if nth == 0 { Data::Text } else { Data::Continue };
        let _ = socket.0.send(Message::Frame(Frame::message(piece.to_vec(), OpCode::Data(opcode), false)));
    }
    assert_eq!(socket.closed(), 1009, "in pieces");
}

#[test]
fn section_10_one_message_in_segments() {
    // 10.1.1: 65,536 bytes in segments of 1,300.
    let server = TestServer::start();
    let mut stream = raw(&server);
    let text = request(65_536);
    let head = [&[0x81, 0x80 | 127][..], &(text.len() as u64).to_be_bytes(), &[0; 4]].concat();
    for segment in [&head[..], text.as_bytes()].concat().chunks(1300) {
        stream.write_all(segment).expect("the server reads");
    }
    let mut answer = vec![0; 2 + ACK.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer[2..], ACK.as_bytes());
}
