//! Sections 1 to 5: messages of all lengths, pings, reserved bits and opcodes, fragments.

use testkit::TestServer;

use super::{
    BINARY, CLOSE, Case, End, FIRST, GOOD, LAST, NEXT, NO_TEXT, PING, PONG, Step, TEXT, VIOLATION, WHOLE, acked,
    bad_request, fragments, frame, play, reply, request,
};

#[test]
fn section_1_messages_of_every_length() {
    let mut cases = vec![Case::open("1.1.1", frame(TEXT, b""), WHOLE, bad_request())];
    for (number, len, chop) in [
        ("1.1.2", 125, WHOLE),
        ("1.1.3", 126, WHOLE),
        ("1.1.4", 127, WHOLE),
        ("1.1.5", 128, WHOLE),
        ("1.1.6", 65_535, WHOLE),
        ("1.1.7", 65_536, WHOLE),
        ("1.1.8", 65_536, 997),
    ] {
        cases.push(Case::open(number, frame(TEXT, &request(len)), chop, acked()));
    }
    for (number, len, chop) in [
        ("1.2.1", 0, WHOLE),
        ("1.2.2", 125, WHOLE),
        ("1.2.3", 126, WHOLE),
        ("1.2.4", 127, WHOLE),
        ("1.2.5", 128, WHOLE),
        ("1.2.6", 65_535, WHOLE),
        ("1.2.7", 65_536, WHOLE),
        ("1.2.8", 65_536, 997),
    ] {
        cases.push(Case::ends(number, frame(BINARY, &vec![0xfe; len]), chop, NO_TEXT));
    }
    play(&TestServer::start(), &[("1.1", 8), ("1.2", 8)], &cases);
}

#[test]
fn section_2_pings_and_pongs() {
    let (long, ten) = ([0xfe; 125], (0..10_u8).map(|nth| [nth]));
    let pings: Vec<u8> = ten.clone().flat_map(|nth| frame(PING, &nth)).collect();
    let pongs: Vec<u8> = ten.flat_map(|nth| reply(PONG, &nth)).collect();
    let pinged = |number, payload: &[u8], chop| Case::open(number, frame(PING, payload), chop, reply(PONG, payload));
    let unsolicited = frame(PONG, b"unsolicited pong payload");
    let cases = [
        pinged("2.1", b"", WHOLE),
        pinged("2.2", b"Hello, world!", WHOLE),
        pinged("2.3", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", WHOLE),
        pinged("2.4", &long, WHOLE),
        Case::ends("2.5", frame(PING, &[0xfe; 126]), WHOLE, VIOLATION),
        pinged("2.6", &long, 1),
        Case::open("2.7", frame(PONG, b""), WHOLE, Vec::new()),
        Case::open("2.8", unsolicited.clone(), WHOLE, Vec::new()),
        Case::open("2.9", [unsolicited, frame(PING, b"ping")].concat(), WHOLE, reply(PONG, b"ping")),
        Case::open("2.10", pings.clone(), WHOLE, pongs.clone()),
        Case::open("2.11", pings, 1, pongs),
    ];
    play(&TestServer::start(), &[("2", 11)], &cases);
}

/// A case in which a good message comes before the bytes that end the connection, and a ping after
/// them, which is not answered.
fn behind_a_message(number: &str, bad: Vec<u8>, chop: usize) -> Case {
    let send = [frame(TEXT, GOOD), bad, frame(PING, b"")].concat();
    Case::answered_and_ends(number, send, chop, acked(), VIOLATION)
}

#[test]
fn section_3_reserved_bits() {
    let alone = |number, first: u8, payload: &[u8]| Case::ends(number, frame(first, payload), WHOLE, VIOLATION);
    let cases = [
        alone("3.1", TEXT | 0x10, GOOD),
        behind_a_message("3.2", frame(TEXT | 0x20, GOOD), WHOLE),
        behind_a_message("3.3", frame(TEXT | 0x30, GOOD), frame(TEXT, GOOD).len()),
        behind_a_message("3.4", frame(TEXT | 0x40, GOOD), 1),
        alone("3.5", BINARY | 0x50, b"\x00\xff\xfe"),
        alone("3.6", PING | 0x60, b"Hello, world!"),
        alone("3.7", CLOSE | 0x70, b""),
    ];
    play(&TestServer::start(), &[("3", 7)], &cases);
}

#[test]
fn section_4_reserved_opcodes() {
    let mut cases = Vec::new();
    // 4.1: opcodes of messages; 4.2: opcodes of control frames.
    for (part, opcode) in [("4.1", 3), ("4.2", 11)] {
        let number = |nth: u8| format!("{part}.{nth}");
        let bad = |nth: u8, payload: &[u8]| frame(LAST | (opcode + nth - 1), payload);
        cases.push(Case::ends(&number(1), bad(1, b""), WHOLE, VIOLATION));
        cases.push(Case::ends(&number(2), bad(2, b"reserved opcode payload"), WHOLE, VIOLATION));
        cases.push(behind_a_message(&number(3), bad(3, b""), WHOLE));
        cases.push(behind_a_message(&number(4), bad(4, b"reserved opcode payload"), WHOLE));
        cases.push(behind_a_message(&number(5), bad(5, b"reserved opcode payload"), 1));
    }
    play(&TestServer::start(), &[("4.1", 5), ("4.2", 5)], &cases);
}

/// The same frames at once, frame by frame, and byte by byte.
fn three_ways(numbers: [&str; 3], frames: &[Vec<u8>], case: impl Fn(&str, Vec<u8>, usize) -> Case) -> Vec<Case> {
    let mut cases: Vec<Case> =
        [WHOLE, WHOLE, 1].into_iter().zip(numbers).map(|(chop, number)| case(number, frames.concat(), chop)).collect();
    let by_frame = cases[1].steps.remove(0);
    let last = frames.len() - 1;
    cases[1].steps = frames
        .iter()
        .enumerate()
        .map(|(nth, frame)| Step {
            send: frame.clone(),
            chop: WHOLE,
            answer: if nth == last { by_frame.answer.clone() } else { Vec::new() },
        })
        .collect();
    cases
}

#[test]
fn section_5_fragments() {
    let two = |first: u8, second: u8| [frame(first, b"fragment1"), frame(second, b"fragment2")].concat();
    let text = request(40);
    let (begin, end) = text.split_at(9);
    let [begin, end] = [frame(FIRST, begin), frame(LAST, end)];
    let ping = frame(PING, b"ping payload");
    let alone = |first: u8| [frame(first, b"non-continuation payload"), frame(TEXT, GOOD)];
    let nothing_begun = |number: &str, send, chop| Case::ends(number, send, chop, VIOLATION);
    let mut cases = vec![
        Case::ends("5.1", two(0x09, LAST), WHOLE, VIOLATION),
        Case::ends("5.2", two(0x0a, LAST), WHOLE, VIOLATION),
    ];
    cases.extend(three_ways(["5.3", "5.4", "5.5"], &[begin.clone(), end.clone()], |number, send, chop| {
        Case::open(number, send, chop, acked())
    }));
    cases.extend(three_ways(["5.6", "5.7", "5.8"], &[begin.clone(), ping, end.clone()], |number, send, chop| {
        Case::open(number, send, chop, [reply(PONG, b"ping payload"), acked()].concat())
    }));
    cases.extend(three_ways(["5.9", "5.10", "5.11"], &alone(LAST), nothing_begun));
    cases.extend(three_ways(["5.12", "5.13", "5.14"], &alone(NEXT), nothing_begun));
    let behind = [begin, end, frame(NEXT, b"fragment3"), frame(TEXT, GOOD)].concat();
    cases.push(Case::answered_and_ends("5.15", behind, WHOLE, acked(), VIOLATION));
    for (number, lonely) in [("5.16", NEXT), ("5.17", LAST)] {
        let once = [frame(lonely, b"fragment1"), frame(FIRST, b"fragment2"), frame(LAST, b"fragment3")].concat();
        cases.push(Case::ends(number, once.repeat(2), WHOLE, VIOLATION));
    }
    cases.push(Case::ends("5.18", two(FIRST, TEXT), WHOLE, VIOLATION));
    // 5.19 and 5.20: five fragments, with a ping after the second and the fourth one. In 5.19 the
    // client waits for its pongs.
    let pieces = fragments(&request(50), 10);
    let pieces: Vec<&[u8]> = pieces.chunks(16).collect();
    let pinged = |nth: usize, payload: &[u8]| Step {
        send: [pieces[nth], pieces[nth + 1], &frame(PING, payload)].concat(),
        chop: WHOLE,
        answer: reply(PONG, payload),
    };
    let last = Step { send: pieces[4].to_vec(), chop: WHOLE, answer: acked() };
    let steps = [pinged(0, b"pongme 1!"), pinged(2, b"pongme 2!"), last];
    let at_once = |part: fn(&Step) -> &Vec<u8>| steps.iter().flat_map(|step| part(step).clone()).collect();
    cases.push(Case::open("5.20", at_once(|step| &step.send), WHOLE, at_once(|step| &step.answer)));
    cases.push(Case { number: "5.19".into(), steps: steps.into(), end: End::Open });
    play(&TestServer::start(), &[("5", 20)], &cases);
}
