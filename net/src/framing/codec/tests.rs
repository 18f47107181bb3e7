use proptest::prelude::*;

use super::super::flat::flat_object_plain;
use super::*;

/// Feeds each of `pieces` as one read; the flag says that the received data ends after it. Returns
/// the taken items as text.
fn decode<'a>(pieces: impl IntoIterator<Item = (&'a [u8], bool)>, frame_bytes_max: usize) -> Vec<String> {
    let mut decoder = Decoder::new(frame_bytes_max);
    let mut received = Vec::new();
    let mut taken = Vec::new();
    for (piece, ended) in pieces {
        received.extend_from_slice(piece);
        loop {
            let item = decoder.look(&received, ended);
            assert_eq!(
                item,
                if matches!(item, Item::Incomplete | Item::Blank { .. }) {
                    item
                } else {
                    decoder.look(&received, ended)
                }
            );
            let consumed = match item {
                Item::Frame { len, line } => {
                    let text = String::from_utf8_lossy(&received[..len]);
                    taken.push(format!("{text}{}", if line { "\\n" } else { "" }));
                    len
                }
                Item::Garbage { len, line } => {
                    taken.push(if line { "bad\\n".into() } else { "bad".into() });
                    len
                }
                Item::LineEnd { len } => {
                    taken.push("\\n".into());
                    len
                }
                Item::Http => {
                    taken.push("http".into());
                    return taken;
                }
                Item::Foreign(foreign) => {
                    taken.push(format!("{foreign:?}"));
                    return taken;
                }
                Item::Oversize => {
                    taken.push("oversize".into());
                    return taken;
                }
                Item::Blank { len } => {
                    received.drain(..len);
                    continue;
                }
                Item::Incomplete => break,
            };
            received.drain(..consumed);
            decoder.taken();
        }
        assert!(received.len() <= frame_bytes_max, "what is kept is bounded");
    }
    taken
}

fn whole(text: &str) -> Vec<String> {
    decode([(text.as_bytes(), true)], 1000)
}

#[test]
fn frames_stand_back_to_back() {
    assert_eq!(whole(r#"{"a":"}{\\\""} {}"#), [r#"{"a":"}{\\\""}"#, "{}"]);
    assert_eq!(whole("{}\n{}\r\n\0{ }"), ["{}\\n", "{}\\n", "{ }"]);
    assert_eq!(whole(" \t\r\n\0"), [""; 0]);
}

#[test]
fn garbage_ends_before_a_brace_with_a_newline_or_with_the_data() {
    assert_eq!(whole("keep this socket alive"), ["bad"]);
    assert_eq!(whole("keep this socket alive{}"), ["bad", "{}"]);
    assert_eq!(whole("one\ntwo\n{}\n"), ["bad\\n", "bad\\n", "{}\\n"]);
    assert_eq!(whole("[{},\"]\"]{}"), ["bad", "{}"]);
    assert_eq!(whole("[{}\n{}"), ["bad\\n", "{}"]);
    assert_eq!(whole("\"{}\"{}"), ["bad", "{}"]);
    assert_eq!(whole("1[{}]"), ["bad", "{}", "bad"]);
    assert_eq!(decode([(b"one".as_slice(), true), (b"two", true)], 100), ["bad", "bad"]);
    assert_eq!(decode([(b"one".as_slice(), false), (b"two", false), (b"", true)], 100), ["bad"]);
}

#[test]
fn a_broken_object_ends_with_its_brace_its_line_or_the_data() {
    assert_eq!(whole(r#"{"a":1,}{}"#), [r#"{"a":1,}"#, "{}"]);
    assert_eq!(whole("{\"a\":\"b\nc\"}{}"), ["{\"a\":\"b\nc\"}", "{}"]);
    assert_eq!(whole("{\"a\":\"open\n{\"b\":2}\n"), ["bad\\n", "{\"b\":2}\\n"]);
    assert_eq!(whole("{a:1,\n{}"), ["bad\\n", "{}"]);
    assert_eq!(whole("{a:1,"), ["bad"]);
    assert_eq!(decode([(b"{a:".as_slice(), true), (b"{}", true)], 100), ["bad", "{}"]);
    assert_eq!(whole(&format!("{{\"a\":{}", "[".repeat(500))), ["bad"]);
}

#[test]
fn a_flat_object_is_seen_at_once() {
    let long = "{\"a\":\"long enough for more than one step\",\"b\":2}";
    for (bytes, len) in [
        ("{\"a\":1}", Some(7)),
        ("{}", Some(2)),
        (long, Some(long.len())),
        (&format!("{long} {{"), Some(long.len())),
        ("{\"a\":{}}", None),
        ("{\"a\":\"}\"}", None),
        ("{\"a\":\"\\\"}", None),
        ("{\"a\":\"\\n\"}", None),
        ("{\"a\"", None),
        ("{", None),
    ] {
        assert_eq!(flat_object(bytes.as_bytes()), len, "{bytes:?}");
    }
}

#[test]
fn a_line_that_ends_late_is_reported() {
    assert_eq!(decode([(b"{}".as_slice(), true), (b" \r", true), (b"\n\n{}", true)], 100), ["{}", "\\n", "{}"]);
}

#[test]
fn a_frame_has_a_greatest_length() {
    assert_eq!(decode([(b"{\"a\":1234}".as_slice(), true)], 10), ["{\"a\":1234}"]);
    assert_eq!(decode([(b"{\"a\":12345}".as_slice(), true)], 10), ["oversize"]);
    assert_eq!(decode([(b"{\"12345678".as_slice(), true), (b"9", true)], 10), ["oversize"]);
}

#[test]
fn a_frame_that_breaks_beyond_the_greatest_length_is_too_long_however_it_is_cut() {
    let stream = b"{\"a\":\"123456\" oops\n{}";
    for cut in 0..=stream.len() {
        let pieces = [(&stream[..cut], false), (&stream[cut..], true)];
        assert_eq!(decode(pieces, 10), ["oversize"], "{cut}");
    }
}

#[test]
fn a_broken_line_costs_no_other_however_much_follows() {
    let stream = format!("{{bad\n{}", "{\"a\":1}\n".repeat(500));
    let mut expected = vec!["bad\\n".to_owned()];
    expected.extend(std::iter::repeat_n("{\"a\":1}\\n".to_owned(), 500));
    assert_eq!(decode([(stream.as_bytes(), true)], 1000), expected);
    assert_eq!(decode([(&stream.as_bytes()[..1504], false), (&stream.as_bytes()[1504..], true)], 1000), expected);
    assert_eq!(decode([(b"{bad".as_slice(), false), (&[b'x'; 1000], false), (b"{\n{}", true)], 1000), ["bad\\n", "{}"]);
}

#[test]
fn a_flood_of_objects_without_end_is_not_looked_at_again_for_each() {
    for line in ["{a\n", "{a\n{}\n", "{\"\n"] {
        let stream = line.repeat(200_000 / line.len());
        let taken = decode([(stream.as_bytes(), true), (b"\n{\"after\":1}", true)], 1 << 16);
        assert!(taken.ends_with(&["{\"after\":1}".to_owned()]), "{line}: {:?}", taken.last());
        // Some are reported one by one, but not each of many thousands.
        assert!((5..100).contains(&taken.len()), "{line}: {}", taken.len());
    }
}

#[test]
fn giving_up_shows_garbage_once() {
    let mut decoder = Decoder::new(100);
    assert_eq!(decoder.look(b"{\"a\":", true), Item::Incomplete);
    assert!(decoder.is_inside());
    decoder.give_up();
    assert_eq!(decoder.look(b"", true), Item::Garbage { len: 0, line: false });
    decoder.taken();
    assert_eq!(decoder.look(b"", true), Item::Incomplete);
    assert!(!decoder.is_inside());
}

fn object() -> impl Strategy<Value = String> {
    let text =
        prop_oneof![r#"[a-z{}\[\]:, 你\t]{0,12}"#.prop_map(|text| text.replace('\t', "\\\"\\\\")), Just(String::new())];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        (-100i64..100).prop_map(|n| n.to_string()),
        text.prop_map(|text| format!("\"{text}\""))
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec(inner, 0..3).prop_map(|items| format!(
                "{{{}}}",
                items.iter().map(|v| format!("\"k\":{v}")).collect::<Vec<_>>().join(",\n")
            )),
        ]
    });
    value.prop_map(|value| format!("{{\"v\":{value}}}"))
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn good_frames_are_the_same_however_they_are_cut(
        frames in prop::collection::vec((object(), "[ \t\r\n\0]{0,3}"), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream: String = frames.iter().map(|(frame, blanks)| format!("{frame}{blanks}")).collect();
        let pieces = cut(stream.as_bytes(), &cuts);
        let taken = decode(pieces.into_iter().map(|piece| (piece, true)), 1000);
        let texts: Vec<_> = taken.iter().map(|text| text.trim_end_matches("\\n")).filter(|text| !text.is_empty()).collect();
        let sent: Vec<_> = frames.iter().map(|(frame, _)| frame.as_str()).collect();
        prop_assert_eq!(texts, sent);
    }

    #[test]
    fn the_quick_look_sees_what_the_braces_say(
        bytes in prop::collection::vec(prop::sample::select(b"{}\"\"\"\\,a".to_vec()), 0..60),
    ) {
        let bytes = [b"{".as_slice(), &bytes].concat();
        if let Some(len) = flat_object(&bytes) {
            let mut scan = Scan { looked_at: 0, depth: 0, place: ScanPlace::Outside, prefix: None };
            prop_assert_eq!(scan.find_end(&bytes), Some(len));
        }
    }

    #[test]
    fn sixteen_bytes_at_once_show_the_same_as_one_after_the_other(
        bytes in prop::collection::vec(prop::sample::select(b"\"\"aaaaaaaaaaaaaaaaaa\xa2}{\\".to_vec()), 1..100),
    ) {
        prop_assert_eq!(flat_object(&bytes), flat_object_plain(&bytes));
    }

    #[test]
    fn any_bytes_give_the_same_however_one_reading_is_cut(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\":,\\\n a1\0".to_vec())], 0..80),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut pieces: Vec<_> = cut(&bytes, &cuts).into_iter().map(|piece| (piece, false)).collect();
        pieces.push((b"", true));
        let joined = |taken: Vec<String>| taken.concat().replace("\\n", "");
        prop_assert_eq!(joined(decode(pieces, 1000)), joined(decode([(bytes.as_slice(), true)], 1000)));
    }

    #[test]
    fn a_broken_line_before_a_good_one_is_answered_once_it_has_ended(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\":,\\ a1\0".to_vec())], 0..80),
    ) {
        // A closing quote and a stray brace end or break any object that the bytes may have begun.
        let stream = [&bytes, b"\"}\x01\n{\"good\":1}\n".as_slice()].concat();
        let taken = decode([(stream.as_slice(), true), (b"{\"after\":1}", true)], 1000);
        prop_assert!(taken.iter().any(|text| text.contains("good") || text.contains("after")), "{:?}", taken);
    }
}
