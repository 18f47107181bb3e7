//! Section 6: UTF-8.
//!
//! The server checks a message when it is whole, so an invalid message in fragments ends the
//! connection after its last fragment. RFC 6455 (8.1) requires no more; the suite calls that
//! "non-strict" in 6.4, where a strict server ends the connection at the first invalid byte.

use testkit::TestServer;

use super::{
    Case, End, FIRST, GOOD, LAST, NEXT, NO_UTF8, Step, TEXT, WHOLE, acked, bad_request, fragments, frame, play,
};

/// Greek text, as most cases have it: five characters of two and three bytes.
const GREEK: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// Texts that are valid. None is a JSON object, so each is answered with a refusal.
#[rustfmt::skip]
const VALID: [(&str, &[u8]); 27] = [
    ("6.2.1", b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!"),
    ("6.5.1", GREEK),
    ("6.5.2", b"hello\x24world"), ("6.5.3", b"hello\xc2\xa2world"),
    ("6.5.4", b"hello\xe2\x82\xacworld"), ("6.5.5", b"hello\xf0\xa4\xad\xa2world"),
    // The prefixes that end between two characters.
    ("6.6.2", b"\xce\xba"), ("6.6.5", b"\xce\xba\xe1\xbd\xb9"), ("6.6.7", b"\xce\xba\xe1\xbd\xb9\xcf\x83"),
    ("6.6.9", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc"), ("6.6.11", GREEK),
    // The first and the last character of each length.
    ("6.7.1", b"\x00"), ("6.7.2", b"\xc2\x80"), ("6.7.3", b"\xe0\xa0\x80"), ("6.7.4", b"\xf0\x90\x80\x80"),
    ("6.9.1", b"\x7f"), ("6.9.2", b"\xdf\xbf"), ("6.9.3", b"\xef\xbf\xbf"), ("6.9.4", b"\xf4\x8f\xbf\xbf"),
    // On both sides of the surrogates, the replacement character, the last character.
    ("6.11.1", b"\xed\x9f\xbf"), ("6.11.2", b"\xee\x80\x80"), ("6.11.3", b"\xef\xbf\xbd"),
    ("6.11.4", b"\xf4\x8f\xbf\xbf"),
    // Interlinear annotations and replacements; the last two of section 6.23 are below.
    ("6.23.1", b"\xef\xbf\xb9"), ("6.23.2", b"\xef\xbf\xba"), ("6.23.3", b"\xef\xbf\xbb"), ("6.23.4", b"\xef\xbf\xbc"),
];

/// Texts that are invalid.
#[rustfmt::skip]
const INVALID: [(&str, &[u8]); 70] = [
    ("6.3.1", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
    // The prefixes that end within a character.
    ("6.6.1", b"\xce"), ("6.6.3", b"\xce\xba\xe1"), ("6.6.4", b"\xce\xba\xe1\xbd"),
    ("6.6.6", b"\xce\xba\xe1\xbd\xb9\xcf"), ("6.6.8", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce"),
    ("6.6.10", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce"),
    // Five and six bytes, and what is too large for four.
    ("6.8.1", b"\xf8\x88\x80\x80\x80"), ("6.8.2", b"\xfc\x84\x80\x80\x80\x80"),
    ("6.10.1", b"\xf7\xbf\xbf\xbf"), ("6.10.2", b"\xfb\xbf\xbf\xbf\xbf"), ("6.10.3", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    ("6.11.5", b"\xf4\x90\x80\x80"),
    // Continuation bytes without a beginning.
    ("6.12.1", b"\x80"), ("6.12.2", b"\xbf"), ("6.12.3", b"\x80\xbf"), ("6.12.4", b"\x80\xbf\x80"),
    ("6.12.5", b"\x80\xbf\x80\xbf"), ("6.12.6", b"\x80\xbf\x80\xbf\x80"), ("6.12.7", b"\x80\xbf\x80\xbf\x80\xbf"),
    ("6.12.8", &every_second::<64>(0x80, 1)),
    // Beginnings alone, each with a blank behind it.
    ("6.13.1", &every_second::<64>(0xc0, 2)), ("6.13.2", &every_second::<32>(0xe0, 2)),
    ("6.13.3", &every_second::<16>(0xf0, 2)), ("6.13.4", &every_second::<8>(0xf8, 2)),
    ("6.13.5", &every_second::<4>(0xfc, 2)),
    // Without their last byte; 6.15.1 is all of them in a row.
    ("6.14.1", b"\xc0"), ("6.14.2", b"\xe0\x80"), ("6.14.3", b"\xf0\x80\x80"), ("6.14.4", b"\xf8\x80\x80\x80"),
    ("6.14.5", b"\xfc\x80\x80\x80\x80"), ("6.14.6", b"\xdf"), ("6.14.7", b"\xef\xbf"), ("6.14.8", b"\xf7\xbf\xbf"),
    ("6.14.9", b"\xfb\xbf\xbf\xbf"), ("6.14.10", b"\xfd\xbf\xbf\xbf\xbf"),
    ("6.15.1", b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf\xfd\xbf\xbf\xbf\xbf"),
    // Bytes that are never there.
    ("6.16.1", b"\xfe"), ("6.16.2", b"\xff"), ("6.16.3", b"\xfe\xfe\xff\xff"),
    // Longer than necessary: a slash, the largest characters of each length, and NUL.
    ("6.17.1", b"\xc0\xaf"), ("6.17.2", b"\xe0\x80\xaf"), ("6.17.3", b"\xf0\x80\x80\xaf"),
    ("6.17.4", b"\xf8\x80\x80\x80\xaf"), ("6.17.5", b"\xfc\x80\x80\x80\x80\xaf"),
    ("6.18.1", b"\xc1\xbf"), ("6.18.2", b"\xe0\x9f\xbf"), ("6.18.3", b"\xf0\x8f\xbf\xbf"),
    ("6.18.4", b"\xf8\x87\xbf\xbf\xbf"), ("6.18.5", b"\xfc\x83\xbf\xbf\xbf\xbf"),
    ("6.19.1", b"\xc0\x80"), ("6.19.2", b"\xe0\x80\x80"), ("6.19.3", b"\xf0\x80\x80\x80"),
    ("6.19.4", b"\xf8\x80\x80\x80\x80"), ("6.19.5", b"\xfc\x80\x80\x80\x80\x80"),
    // Surrogates.
    ("6.20.1", b"\xed\xa0\x80"), ("6.20.2", b"\xed\xad\xbf"), ("6.20.3", b"\xed\xae\x80"), ("6.20.4", b"\xed\xaf\xbf"),
    ("6.20.5", b"\xed\xb0\x80"), ("6.20.6", b"\xed\xbe\x80"), ("6.20.7", b"\xed\xbf\xbf"),
    ("6.21.1", b"\xed\xa0\x80\xed\xb0\x80"), ("6.21.2", b"\xed\xa0\x80\xed\xbf\xbf"),
    ("6.21.3", b"\xed\xad\xbf\xed\xb0\x80"), ("6.21.4", b"\xed\xad\xbf\xed\xbf\xbf"),
    ("6.21.5", b"\xed\xae\x80\xed\xb0\x80"), ("6.21.6", b"\xed\xae\x80\xed\xbf\xbf"),
    ("6.21.7", b"\xed\xaf\xbf\xed\xb0\x80"), ("6.21.8", b"\xed\xaf\xbf\xed\xbf\xbf"),
];

/// `N` bytes: ascending from `first` if `step` is 1; if it is 2, each with a blank behind it.
const fn every_second<const N: usize>(first: u8, step: usize) -> [u8; N] {
    let mut bytes = [b' '; N];
    let mut at = 0;
    while at < N {
        bytes[at] = first + (at / step) as u8;
        at += step;
    }
    bytes
}

/// Steps without an answer but the last: the client waits between them.
fn steps(sent: impl IntoIterator<Item = Vec<u8>>) -> Vec<Step> {
    sent.into_iter().map(|send| Step { send, chop: WHOLE, answer: Vec::new() }).collect()
}

/// The cases in which the pieces matter.
fn in_pieces() -> Vec<Case> {
    let hello = VALID[0].1;
    // Between two characters: behind "ä".
    let (first, second) = hello.split_at(15);
    let two = [frame(FIRST, first), frame(LAST, second)].concat();
    let empty = [frame(FIRST, b""), frame(NEXT, b""), frame(LAST, b"")].concat();
    let around = [frame(FIRST, b""), frame(NEXT, GOOD), frame(LAST, b"")].concat();
    let valid = |number, send| Case::open(number, send, WHOLE, bad_request());
    let large = b"\xf4\x90\x80\x80";
    let fail_fast = |number: &str, pieces: [&[u8]; 3]| {
        let [first, second, third] = pieces;
        let frames = [frame(FIRST, first), frame(NEXT, second), frame(LAST, third)];
        Case { number: number.to_owned(), steps: steps(frames), end: End::Server(NO_UTF8) }
    };
    // 6.4.3 and 6.4.4 are one frame that comes in the same pieces.
    let chopped = |number: &str, pieces: [&[u8]; 3]| {
        let whole = frame(TEXT, &pieces.concat());
        let (begin, rest) = whole.split_at(6 + pieces[0].len());
        let (middle, end) = rest.split_at(pieces[1].len());
        let sent = [begin, middle, end].map(<[u8]>::to_vec);
        Case { number: number.to_owned(), steps: steps(sent), end: End::Server(NO_UTF8) }
    };
    let (in_the_second, cut) = ([GREEK, large, b"edited"], [&[GREEK, &large[..2]].concat(), &large[2..], b"edited"]);
    vec![
        valid("6.1.1", frame(TEXT, b"")),
        valid("6.1.2", empty),
        Case::open("6.1.3", around, WHOLE, acked()),
        valid("6.2.2", two),
        valid("6.2.3", fragments(hello, 1)),
        valid("6.2.4", fragments(GREEK, 1)),
        Case::ends("6.3.2", fragments(INVALID[0].1, 1), WHOLE, NO_UTF8),
        fail_fast("6.4.1", in_the_second),
        fail_fast("6.4.2", cut),
        chopped("6.4.3", in_the_second),
        chopped("6.4.4", cut),
    ]
}

/// Code points without a character (the last two of each plane), and the last two of 6.23, which
/// are the same in the first plane.
fn noncharacters() -> Vec<(String, Vec<u8>)> {
    let points = (0..17_u32).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    let text = |point: u32| char::from_u32(point).expect("a code point").to_string().into_bytes();
    let mut all: Vec<_> = (1..).zip(points).map(|(nth, point)| (format!("6.22.{nth}"), text(point))).collect();
    let special = [("6.23.5", 0xfffd), ("6.23.6", 0xfffe), ("6.23.7", 0xffff)];
    all.extend(special.map(|(number, point)| (number.to_owned(), text(point))));
    all
}

#[test]
fn section_6_utf_8() {
    let valid = VALID.map(|(number, text)| (number.to_owned(), text.to_vec())).into_iter().chain(noncharacters());
    let valid: Vec<(String, Vec<u8>)> = valid.collect();
    let mut cases = in_pieces();
    cases.extend(valid.iter().map(|(number, text)| Case::open(number, frame(TEXT, text), WHOLE, bad_request())));
    cases.extend(INVALID.iter().map(|(number, text)| Case::ends(number, frame(TEXT, text), WHOLE, NO_UTF8)));
    let parts = [
        ("6.1", 3),
        ("6.2", 4),
        ("6.3", 2),
        ("6.4", 4),
        ("6.5", 5),
        ("6.6", 11),
        ("6.7", 4),
        ("6.8", 2),
        ("6.9", 4),
        ("6.10", 3),
        ("6.11", 5),
        ("6.12", 8),
        ("6.13", 5),
        ("6.14", 10),
        ("6.15", 1),
        ("6.16", 3),
        ("6.17", 5),
        ("6.18", 5),
        ("6.19", 5),
        ("6.20", 7),
        ("6.21", 8),
        ("6.22", 34),
        ("6.23", 7),
    ];
    let server = TestServer::start();
    play(&server, &parts, &cases);

    // The same texts in a member of a request, whole and cut anywhere.
    let request = |text: &[u8]| [b"{\"msgType\":200,\"x\":\"", text, b"\"}"].concat();
    for (number, text) in &valid {
        // JSON has no raw control characters.
        let answer = if text == b"\0" { bad_request() } else { acked() };
        Case::open(number, frame(TEXT, &request(text)), WHOLE, answer.clone()).play(&server);
        Case::open(number, fragments(&request(text), 1), WHOLE, answer).play(&server);
    }
    for (number, text) in INVALID {
        Case::ends(number, frame(TEXT, &request(text)), WHOLE, NO_UTF8).play(&server);
        Case::ends(number, fragments(&request(text), 1), WHOLE, NO_UTF8).play(&server);
    }
}
