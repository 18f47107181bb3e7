//! Section 7: closes.

use testkit::TestServer;

use super::{
    CLOSE, Case, FIRST, GOOD, LAST, NO_UTF8, NORMAL, PING, TEXT, VIOLATION, WHOLE, acked, frame, play, request,
};

#[test]
fn section_7_closes() {
    let (good, closed) = (frame(TEXT, GOOD), frame(CLOSE, &NORMAL.to_be_bytes()));
    let after = |number, more: &[u8]| {
        // What comes after a close is not answered.
        Case::answered_and_ends(number, [&good[..], &closed, more].concat(), WHOLE, acked(), NORMAL)
    };
    let of_code = |number: &str, code: u16, end| Case::ends(number, frame(CLOSE, &code.to_be_bytes()), WHOLE, end);
    let close = |number, payload: &[u8], end| Case::ends(number, frame(CLOSE, payload), WHOLE, end);
    let long = [frame(TEXT, &request(65_536)), good.clone(), closed.clone(), frame(PING, b"ping")].concat();
    let mut cases = vec![
        after("7.1.1", b""),
        after("7.1.2", &closed),
        after("7.1.3", &frame(PING, b"ping")),
        after("7.1.4", &good),
        Case::ends(
            "7.1.5",
            [frame(FIRST, b"fragment1"), closed.clone(), frame(LAST, b"fragment2")].concat(),
            WHOLE,
            NORMAL,
        ),
        // The suite's long message has 256 KiB; here the longest one allowed.
        Case::answered_and_ends("7.1.6", long, WHOLE, acked().repeat(2), NORMAL),
        close("7.3.1", b"", NORMAL),
        close("7.3.2", b"a", VIOLATION),
        close("7.3.3", b"\x03\xe8", NORMAL),
        close("7.3.4", b"\x03\xe8Hello World!", NORMAL),
        close("7.3.5", &[&b"\x03\xe8"[..], &[b'*'; 123]].concat(), NORMAL),
        close("7.3.6", &[&b"\x03\xe8"[..], &[b'*'; 124]].concat(), VIOLATION),
        close("7.5.1", b"\x03\xe8\xce\xba\xed\xa0\x80edited", NO_UTF8),
        // 65,536 does not fit into the two bytes of a code; 65,535 is the largest one.
        of_code("7.13.1", 5000, VIOLATION),
        of_code("7.13.2", 65_535, VIOLATION),
    ];
    let may_be_sent = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let must_not_be_sent = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    for (nth, code) in (1..).zip(may_be_sent) {
        cases.push(of_code(&format!("7.7.{nth}"), code, code));
    }
    for (nth, code) in (1..).zip(must_not_be_sent) {
        cases.push(of_code(&format!("7.9.{nth}"), code, VIOLATION));
    }
    let parts = [("7.1", 6), ("7.3", 6), ("7.5", 1), ("7.7", 13), ("7.9", 9), ("7.13", 2)];
    play(&TestServer::start(), &parts, &cases);
}
