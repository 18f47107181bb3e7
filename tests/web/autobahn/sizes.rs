//! Sections 9 and 10: long messages, many pieces, and many messages.

use testkit::TestServer;

use super::{
    BINARY, Case, End, FIRST, NO_TEXT, Step, TEXT, WHOLE, acked, bad_request, fragments, frame, head, play, request,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A server that allows the longest messages of the suite, and gives a busy machine time to take
/// them.
fn roomy() -> TestServer {
    TestServer::builder().option("max_frame", "16m").option("frame_timeout", "5m").start()
}

/// A binary message is refused when its head has come, so the rest of it is not sent.
fn binary(number: &str, first: u8, len: usize, chop: usize) -> Case {
    let send = [&head(first, len, 0x80)[..], &[0; 4], &[0xfe; 256][..len.min(256)]].concat();
    Case::ends(number, send, chop, NO_TEXT)
}

#[test]
fn section_9_long_messages_and_their_pieces() {
    let mut cases = Vec::new();
    for (nth, len) in (1..).zip([64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB]) {
        cases.push(Case::open(&format!("9.1.{nth}"), frame(TEXT, &request(len)), WHOLE, acked()));
        cases.push(binary(&format!("9.2.{nth}"), BINARY, len, WHOLE));
    }
    let long = request(4 * MIB);
    for (nth, len) in (1..).zip([64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB]) {
        cases.push(Case::open(&format!("9.3.{nth}"), fragments(&long, len), WHOLE, acked()));
        cases.push(binary(&format!("9.4.{nth}"), BINARY & !0x80, len, WHOLE));
    }
    for (nth, chop) in (1..).zip([64, 128, 256, 512, 1024, 2048]) {
        cases.push(Case::open(&format!("9.5.{nth}"), frame(TEXT, &request(MIB)), chop, acked()));
        cases.push(binary(&format!("9.6.{nth}"), BINARY, MIB, chop));
    }
    let parts = [("9.1", 6), ("9.2", 6), ("9.3", 9), ("9.4", 9), ("9.5", 6), ("9.6", 6)];
    play(&roomy(), &parts, &cases);
}

#[test]
fn section_9_a_thousand_round_trips_of_every_length() {
    let mut cases = Vec::new();
    for (nth, len) in (1..).zip([0, 16, 64, 256, 1024, 4096]) {
        // No request is shorter than 22 bytes. The shorter texts are not objects.
        let (text, answer) = if len < 22 { (vec![b'*'; len], bad_request()) } else { (request(len), acked()) };
        let round = || Step { send: frame(TEXT, &text), chop: WHOLE, answer: answer.clone() };
        let steps = (0..1000).map(|_| round()).collect();
        cases.push(Case { number: format!("9.7.{nth}"), steps, end: End::Open });
        cases.push(binary(&format!("9.8.{nth}"), BINARY, len, WHOLE));
    }
    play(&TestServer::start(), &[("9.7", 6), ("9.8", 6)], &cases);
}

#[test]
fn section_10_one_message_in_segments() {
    let case = Case::open("10.1.1", frame(TEXT, &request(64 * KIB)), 1300, acked());
    play(&TestServer::start(), &[("10.1", 1)], &[case]);
}

#[test]
fn a_message_that_is_longer_than_allowed_ends_with_1009() {
    const TOO_LONG: u16 = 1009;
    let server = TestServer::start();
    for len in [64 * KIB + 1, 256 * KIB] {
        Case::ends("whole", frame(TEXT, &request(len)), WHOLE, TOO_LONG).play(&server);
        Case::ends("in pieces", fragments(&request(len), 10_000), WHOLE, TOO_LONG).play(&server);
    }
    Case::ends("only its head", [&head(FIRST, MIB, 0x80)[..], &[0; 4]].concat(), WHOLE, TOO_LONG).play(&server);
}
