use proptest::prelude::*;

use super::*;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame with this first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..126 => bytes.push(MASKED | len as u8),
        len @ ..0x1_0000 => {
            bytes.push(MASKED | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(MASKED | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn text(payload: &str) -> Vec<u8> {
    frame(LAST | TEXT, payload.as_bytes())
}

/// One found item, in a form that tests can compare.
#[derive(PartialEq, Eq, Clone, Debug)]
enum Seen {
    Frame(String),
    Garbage,
    Answer(Vec<u8>),
    End(FramingEnd, u16),
}

const MAX: usize = 1000;

/// Reads these bytes as they arrive, `step` at a time. Unconsumed bytes stay.
fn read_in(bytes: &[u8], step: usize) -> Vec<Seen> {
    let (mut reader, mut kept, mut seen) = (WebSocketReader::new(MAX), Vec::new(), Vec::new());
    for part in bytes.chunks(step.max(1)) {
        kept.extend_from_slice(part);
        loop {
            let found = reader.find(&mut kept);
            let notice = reader.notice();
            if let Some(Notice::Answer(bytes)) = &notice {
                seen.push(Seen::Answer(bytes.clone()));
            }
            let len = match found {
                FoundItem::Frame(piece) => {
                    assert_eq!(reader.find(&mut kept), found, "the same until it is taken");
                    seen.push(Seen::Frame(String::from_utf8(kept[piece.payload()].to_vec()).expect("it is text")));
                    reader.taken();
                    piece.total()
                }
                FoundItem::Garbage { len } => {
                    seen.push(Seen::Garbage);
                    reader.taken();
                    len
                }
                FoundItem::Skip { len } => len,
                FoundItem::Ended(ending) => {
                    let Some(Notice::EndsWith(code)) = notice else { panic!("an end has a code") };
                    seen.push(Seen::End(ending, code));
                    return seen;
                }
                FoundItem::Incomplete => break,
                found => panic!("{found:?}"),
            };
            kept.drain(..len);
        }
        assert_eq!(reader.is_inside(), !kept.is_empty() || reader.begun.is_some());
    }
    seen
}

/// Reads the bytes, which must give the same however they are cut.
fn read(bytes: &[u8]) -> Vec<Seen> {
    let whole = read_in(bytes, bytes.len());
    for step in [1, 2, 3, 7, 64] {
        assert_eq!(read_in(bytes, step), whole, "{step} bytes at a time");
    }
    whole
}

fn shown(text: &str) -> Seen {
    Seen::Frame(text.into())
}

fn violates(code: u16) -> Vec<Seen> {
    vec![Seen::End(FramingEnd::Violation, code)]
}

#[test]
fn messages_are_frames() {
    assert_eq!(read(&text("{}")), [shown("{}")]);
    let bytes = [text(r#"{"a":1}"#), text(r#" {"b":"}{"} "#), text("\r\n{\"c\":{\"d\":[]}}\n")].concat();
    assert_eq!(read(&bytes), [shown(r#"{"a":1}"#), shown(r#"{"b":"}{"}"#), shown("{\"c\":{\"d\":[]}}")]);
    for len in [117, 118, 119, 120, 992] {
        let object = format!("{{\"a\":\"{}\"}}", "x".repeat(len));
        assert_eq!(read(&text(&object)), [shown(&object)]);
    }
}

#[test]
fn a_message_that_is_not_one_object_is_garbage() {
    for message in ["", " ", "[]", "{}{}", "{", "}", "{} x", "x{}", "1", "\"{}\"", "{\"a\":\"}", "{\"a\":{}", "{}\0{}"]
    {
        assert_eq!(read(&[text(message), text("{}")].concat()), [Seen::Garbage, shown("{}")], "{message:?}");
    }
}

#[test]
fn messages_in_pieces_are_put_together() {
    for pieces in
        [&["{\"a\"", ":1}"][..], &["", "{\"a\":1}"], &["{", "\"a\"", ":", "1", "", "}", ""], &["{\"a\":1}", ""]]
    {
        let mut bytes = Vec::new();
        for (nth, piece) in pieces.iter().enumerate() {
            let opcode = if nth == 0 { TEXT } else { CONTINUATION };
            let last = if nth == pieces.len() - 1 { LAST } else { 0 };
            bytes.extend(frame(last | opcode, piece.as_bytes()));
        }
        bytes.extend(text("{}"));
        assert_eq!(read(&bytes), [shown("{\"a\":1}"), shown("{}")], "{pieces:?}");
    }
    // A character may be cut in two.
    let (first, second) = "{\"a\":\"你\"}".as_bytes().split_at(7);
    let bytes = [frame(TEXT, first), frame(LAST | CONTINUATION, second)].concat();
    assert_eq!(read(&bytes), [shown("{\"a\":\"你\"}")]);
}

#[test]
fn control_frames_may_stand_between_the_pieces() {
    let pong = |payload: &[u8]| Seen::Answer([&[LAST | PONG, payload.len() as u8], payload].concat());
    let bytes = [
        frame(LAST | PING, b""),
        frame(TEXT, b"{\"a\""),
        frame(LAST | PING, b"hello"),
        frame(LAST | PONG, b"unasked"),
        frame(CONTINUATION, b":"),
        frame(LAST | PING, &[b'x'; 125]),
        frame(LAST | CONTINUATION, b"1}"),
        text("{}"),
    ];
    let expected = [pong(b""), pong(b"hello"), pong(&[b'x'; 125]), shown("{\"a\":1}"), shown("{}")];
    assert_eq!(read(&bytes.concat()), expected);
}

#[test]
fn a_violation_ends_with_its_code() {
    let cases: [(&str, Vec<u8>, u16); 22] = [
        ("not masked", vec![LAST | TEXT, 2, b'{', b'}'], 1002),
        ("reserved bit 1", frame(LAST | 0x40 | TEXT, b"{}"), 1002),
        ("reserved bit 2", frame(LAST | 0x20 | TEXT, b"{}"), 1002),
        ("reserved bit 3", frame(LAST | 0x10 | TEXT, b"{}"), 1002),
        ("reserved opcode 3", frame(LAST | 3, b""), 1002),
        ("reserved opcode 7", frame(LAST | 7, b"{}"), 1002),
        ("reserved opcode 11", frame(LAST | 11, b""), 1002),
        ("reserved opcode 15", frame(LAST | 15, b""), 1002),
        ("a ping in pieces", frame(PING, b""), 1002),
        ("a pong in pieces", frame(PONG, b""), 1002),
        ("a close in pieces", frame(CLOSE, b""), 1002),
        ("too long a ping", frame(LAST | PING, &[0; 126]), 1002),
        ("a piece without a first one", frame(LAST | CONTINUATION, b"{}"), 1002),
        ("a first piece inside of a message", [frame(TEXT, b"{"), text("}")].concat(), 1002),
        ("a binary message", frame(LAST | BINARY, b"{}"), 1003),
        ("a binary piece inside of a message", [frame(TEXT, b"{"), frame(LAST | BINARY, b"}")].concat(), 1002),
        ("bytes that are no text", frame(LAST | TEXT, b"{\"a\":\"\xff\"}"), 1007),
        ("half a character", frame(LAST | TEXT, b"{\"a\":\"\xe4\xbd\"}"), 1007),
        ("a surrogate", frame(LAST | TEXT, b"\xed\xa0\x80"), 1007),
        ("an overlong form", frame(LAST | TEXT, b"\xc0\xaf"), 1007),
        (
            "half a character in pieces",
            [frame(TEXT, b"{\"a\":\"\xe4"), frame(LAST | CONTINUATION, b"\"}")].concat(),
            1007,
        ),
        ("a length of more than 63 bits", vec![LAST | TEXT, MASKED | 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(read(&bytes), violates(code), "{what}");
        let behind = [text("{}"), bytes, text("{}")].concat();
        assert_eq!(read(&behind), [shown("{}"), Seen::End(FramingEnd::Violation, code)], "{what}, behind a message");
    }
}

#[test]
fn a_message_has_a_longest_length() {
    let object = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - 8));
    let too_long = [Seen::End(FramingEnd::TooLong, 1009)];
    assert_eq!(read(&text(&object(MAX))), [shown(&object(MAX))]);
    assert_eq!(read(&text(&object(MAX + 1))), too_long);
    assert_eq!(read(&frame(LAST | TEXT, &vec![0; 0x1_0000])), too_long);
    assert_eq!(read(&[LAST | TEXT, MASKED | 127, 0x7f, 0, 0, 0, 0, 0, 0, 0]), too_long, "its key need not come");
    let long = object(MAX + 1);
    let (half, rest) = long.as_bytes().split_at(MAX / 2);
    assert_eq!(read(&[frame(TEXT, half), frame(LAST | CONTINUATION, rest)].concat()), too_long);
    let pieces = frame(TEXT, b"{");
    assert_eq!(read(&[pieces, frame(CONTINUATION, &[b'x'; 10]).repeat(100)].concat()), too_long);
}

#[test]
fn many_small_pieces_take_up_little_memory() {
    let (mut reader, mut kept, mut most) = (WebSocketReader::new(100_000), Vec::new(), 0);
    let object = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    let pieces = object.len();
    let mut expect = |kept: &mut Vec<u8>, reader: &mut WebSocketReader| loop {
        most = most.max(kept.len());
        match reader.find(kept) {
            FoundItem::Skip { len } => _ = kept.drain(..len),
            found => break found,
        }
    };
    for (nth, byte) in object.bytes().enumerate() {
        kept.extend(frame(if nth == 0 { TEXT } else { CONTINUATION }, &[byte]));
        // None of their bytes is text.
        kept.extend(frame(CONTINUATION, b""));
        assert_eq!(expect(&mut kept, &mut reader), FoundItem::Incomplete);
    }
    kept.extend(frame(LAST | CONTINUATION, b""));
    let FoundItem::Frame(piece) = expect(&mut kept, &mut reader) else { panic!("it is whole") };
    assert_eq!(&kept[piece.payload()], object.as_bytes());
    assert!(most <= 2 * pieces + 2 * GAP_BYTES_MAX as usize, "{most}");
}

#[test]
fn a_close_is_answered_with_its_code() {
    let close = |payload: &[u8]| read(&[frame(LAST | CLOSE, payload), text("{}")].concat());
    for (payload, code) in [
        (&b""[..], 1000),
        (b"\x03\xe8", 1000),
        (b"\x03\xe9bye", 1001),
        (b"\x03\xf3", 1011),
        (b"\x0b\xb8", 3000),
        (b"\x13\x87", 4999),
    ] {
        assert_eq!(close(payload), [Seen::End(FramingEnd::Peer, code)], "{}", payload.escape_ascii());
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16] {
        assert_eq!(close(&code.to_be_bytes()), violates(1002), "{code}");
    }
    assert_eq!(close(b"\x03"), violates(1002));
    assert_eq!(close(b"\x03\xe8\xff"), violates(1007));
}

#[test]
fn a_message_that_was_given_up_is_the_end() {
    let mut reader = WebSocketReader::new(MAX);
    assert_eq!(reader.find(&mut frame(LAST | TEXT, b"{}")[..5]), FoundItem::Incomplete);
    assert!(reader.is_inside());
    reader.give_up();
    assert_eq!(reader.find(&mut []), FoundItem::Ended(FramingEnd::Violation));
    assert_eq!(reader.notice(), Some(Notice::EndsWith(LATE)));
    reader.forget();
    assert!(!reader.has_shown() && !reader.is_inside());
    assert_eq!(reader.find(&mut []), FoundItem::Incomplete);
}

#[test]
fn a_sent_frame_has_the_shortest_head() {
    for (len, head) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
        let (text, mut out) = (vec![b'x'; len], vec![b'#']);
        let wrapping = WebSocketWriter::default().wrap(&text, &mut out);
        assert_eq!(wrapping, Wrapping { head, tail: 0 });
        assert_eq!(out.len(), 1 + usize::from(head) + len);
        assert!(out[1] == 0x81 && out[1 + usize::from(head)..] == text);
        assert_eq!(
            usize::from(out[2]),
            if len < 126 {
                len
            } else if len < 65536 {
                126
            } else {
                127
            }
        );
    }
}

#[test]
fn the_first_code_counts() {
    let mut writer = WebSocketWriter::default();
    assert_eq!(writer.goodbye(), [0x88, 2, 3, 0xe8]);
    writer.ends_with(4409);
    writer.ends_with(1001);
    assert_eq!(writer.goodbye(), [0x88, 2, 0x11, 0x39]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn any_frames_are_read_the_same_however_they_are_cut(
        frames in prop::collection::vec(
            (prop::sample::select(vec![0x81, 1, 0, 0x80, 0x89, 0x8a, 0x88, 0x82]), "[{}\"ab ]{0,20}"),
            0..12,
        ),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload.as_bytes())).collect();
        read(&bytes);
    }
}
