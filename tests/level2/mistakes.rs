//! The checking client without a server: it notices everything that the contract forbids.

use crate::script::*;
use testkit::level2::Mistake;

/// The name of a mistake, the steps before it, the wrong step, and a part of the error text.
type Case = (&'static str, Vec<Step>, String, &'static str);

fn check(cases: Vec<Case>) {
    let mut missed = Vec::new();
    for (name, steps, wrong, why) in cases {
        match played(&steps).play(&Got(wrong.clone())) {
            Ok(()) => missed.push(format!("{name}: nothing is noticed: {wrong}")),
            Err(Mistake(mistake)) if mistake.contains(why) => {}
            Err(Mistake(mistake)) => missed.push(format!("{name}: {mistake:?} and not {why:?}: {wrong}")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn wrong_numbers_are_noticed() {
    let sent = || with(live(), [send("c1", 9), send("c2", 9), send("c3", 8)]);
    let changed = |seq, from: &str, to: &str| push("u9", seq).replace(from, to);
    check(vec![
        ("a hole", live(), push("u9", 45), "44 is next"),
        ("a double", live(), push("u9", 43), "44 is next"),
        ("a descending number", live(), push("u9", 40), "44 is next"),
        ("a new conversation that begins later", live(), push("u8", 2), "1 is next"),
        ("a group that was not joined", live(), push("g4", 812), "1 is next"),
        ("a hole before an own 41", sent(), ack("c1", "u9", 45), "44 is next"),
        ("an own 41 of a number that was shown", sent(), ack("c1", "u9", 43), "44 is next"),
        ("41s out of order", sent(), ack("c2", "u9", 44), "is next"),
        ("a 41 of another conversation", sent(), ack("c1", "u8", 1), "is next"),
        ("a 41 for nothing", sent(), ack("c9", "u7", 1), "nothing is unanswered"),
        ("a refusal for nothing", sent(), refused("c9", 404), "was not sent"),
        ("a refusal out of order", sent(), refused("c2", 404), "is next"),
        (
            "a second 41",
            with(sent(), [Got(ack("c1", "u9", 44)), Got(ack("c2", "u9", 45))]),
            ack("c2", "u9", 46),
            "nothing is unanswered",
        ),
        (
            "a 42 of what the 41 has acknowledged",
            with(sent(), [Got(ack("c1", "u9", 44))]),
            push_of("u9", 45, 7, r#"{"msgType":4,"TOID":9,"cid":"c1"}"#),
            "was acknowledged as",
        ),
        ("a cid under two numbers", live(), push_of("u9", 44, 9, &body("u9", 43)), "is twice"),
        (
            "success behind a failure",
            with(sent(), [Got(refused_for_now("c1"))]),
            ack("c2", "u9", 44),
            "before it has failed",
        ),
        (
            "another error behind a failure",
            with(sent(), [Got(refused_for_now("c1"))]),
            refused("c2", 503),
            "before it has failed",
        ),
        (
            "an acknowledged cid without again",
            with(sent(), [Got(ack("c1", "u9", 44)), Got(ack("c2", "u9", 45)), send("c1", 9)]),
            ack("c1", "u9", 46),
            "without again",
        ),
        (
            "again with another number",
            with(sent(), [Got(ack("c1", "u9", 44)), Got(ack("c2", "u9", 45)), send("c1", 9)]),
            again("c1", "u9", 43),
            "and is",
        ),
        ("what is not the user's any more", with(live(), [Got(event("g3", 6, "left", 7))]), push("g3", 7), "any more"),
        ("recalled, with a body", live(), changed(44, "\"seq\"", "\"recalled\":45,\"seq\""), "m is null"),
        ("edited by an earlier one", live(), changed(44, "\"from\"", "\"edited\":43,\"from\""), "earlier number"),
    ]);
}

#[test]
fn wrong_synchronisations_are_noticed() {
    let after_43 = |overview: String| vec![Got(welcome()), Got(overview)];
    let two = |u9: String, g3: String| overview(&[u9, g3].join(","));
    let at = |head: u64| after_43(two(line("u9", head), line("g3", 5)));
    let asked = || with(live(), [Sent(r#"{"msgType":46,"have":{"u9":"40:0004d64c"},"rid":"s"}"#.to_owned())]);
    let more = |convs: &str| overview(convs).replace("false", "true");
    check(vec![
        ("a 42 before its run", behind(), push("u9", 44), "before its 44"),
        ("a 42 of a run before its 44", behind(), push("u9", 42), "before its 44"),
        ("an own 41 before the run", with(behind(), [send("c1", 9)]), ack("c1", "u9", 44), "before its 44"),
        ("a 42 before the 43", vec![Got(welcome())], push("u8", 1), "before its 43"),
        ("a 45 before the 43", vec![Got(welcome())], synced(), "before the last 43"),
        ("a 44 before the last 43", after_43(more(&line("u9", 43))), run("u9", 42, 43), "before the last 43"),
        ("a 45 without the 44", behind(), synced(), "without the 44"),
        (
            "a 45 in a run",
            with(behind(), [Got(run("u9", 42, 43)), Got(push("u9", 42))]),
            synced(),
            "the end of the run",
        ),
        ("a live message in a run", with(behind(), [Got(run("u9", 42, 43))]), push("u9", 44), "42 is next"),
        ("a second 45", live(), synced(), "nobody has asked for"),
        ("a 43 after the last", live(), overview(""), "after the last"),
        ("a conversation twice in a 43", vec![Got(welcome())], two(line("u9", 43), line("u9", 43)), "twice"),
        (
            "a 43 that is not of a moment: the message was shown before",
            with(after_43(more(&line("g3", 5))), []),
            push("u8", 1),
            "before its 43",
        ),
        ("a 44 of nothing", live(), run("u9", 42, 43), "nobody has asked for"),
        ("a 44 that begins late", behind(), run("u9", 43, 43), "begins at 43"),
        ("a 44 that begins early", behind(), run("u9", 41, 43), "begins at 41"),
        ("a 44 that ends late", behind(), run("u9", 42, 44), "head is 43"),
        ("a 44 that ends early", behind(), run("u9", 42, 42), "head is 43"),
        ("a 44 with nothing", at(41), run("u9", 42, 41), "nothing is behind"),
        ("a run that is too long", at(142), run("u9", 42, 142), "more than 100"),
        ("a gap that is not needed", at(43), gap_run("u9", (42, 42), 43, 43), "of 100 follow"),
        ("a gap with a hole behind it", at(242), gap_run("u9", (42, 141), 143, 242), "the gap"),
        ("a gap that begins late", at(241), gap_run("u9", (43, 141), 142, 241), "begins at 43"),
        (
            "complete, and a gap",
            at(241),
            gap_run("u9", (42, 141), 142, 241).replace("false", "true"),
            "complete, or a gap",
        ),
        ("no reset for a cursor beyond head", at(40), run("u9", 1, 40), "reset is false"),
        ("a reset of a right cursor", at(43), reset("u9", 1, 43), "reset is true"),
        (
            "no reset for a head with another tag",
            after_43(two(line_of("u9", 0, 41, "deadbeef"), line("g3", 5))),
            synced(),
            "without the 44",
        ),
        ("a refusal of what is the user's", behind(), run_refused("u9", 403), "it is the user's"),
        ("a foreign cursor as malformed", after_43(overview(&line("g3", 5))), run_refused("u9", 400), "errno 400"),
        ("a foreign cursor without a 44", after_43(overview(&line("g3", 5))), synced(), "without the 44"),
        ("a 45 of another rid", asked(), synced_for("x"), "nobody has asked for"),
        ("a 45 of a 46 without its 44", asked(), synced_for("s"), "without the 44"),
        ("a 46's run that leaves out what was shown", asked(), run("u9", 41, 42), "was shown"),
        ("no last", vec![Got(welcome())], overview(&line("u8", 3)), "last is for"),
        ("last of what is in have", vec![Got(welcome())], overview(&new_line("u9", 43)), "last is for"),
        (
            "read beyond head",
            vec![Got(welcome())],
            overview(&line("u9", 43).replace("\"read\":0", "\"read\":44")),
            "beyond",
        ),
        (
            "no tag",
            vec![Got(welcome())],
            overview(&line("u9", 43).replace(",\"tag\":\"", ",\"tah\":\"")),
            "unknown field",
        ),
        (
            "unread beyond head",
            vec![Got(welcome())],
            overview(&line("u9", 43).replace("ad\":0}", "ad\":44}")),
            "unread",
        ),
        (
            "not the most recent first",
            vec![Got(welcome())],
            two(new_line("u8", 3).replace(&TIME.to_string(), "1689891201000"), new_line("u5", 3)),
            "most recently",
        ),
    ]);
}

#[test]
fn a_tag_that_changes_is_noticed() {
    let other = page("u9", 42..=43, true, 43).replace(&tag(43), "deadbeef").replace("\"floor\":0", "\"floor\":41");
    let body =
        page("u9", 42..=43, true, 43).replace("\"msg\":\"43\"", "\"msg\":\"x\"").replace("\"floor\":0", "\"floor\":41");
    let sync = || Sent(format!(r#"{{"msgType":46,"have":{{"u9":"42:{}"}},"rid":"s"}}"#, tag(42)));
    check(vec![
        ("in a page", with(live(), [ask_page("")]), other, "and is"),
        ("another body in a page", with(live(), [ask_page("")]), body, "and is"),
        (
            "in a run of 46",
            with(live(), [sync(), Got(run("u9", 43, 43))]),
            push("u9", 43).replace(&tag(43), "deadbeef"),
            "and is",
        ),
        (
            "the sender in a run of 46",
            with(live(), [sync(), Got(run("u9", 43, 43))]),
            push("u9", 43).replace("\"from\":9", "\"from\":8"),
            "and is",
        ),
    ]);
}

#[test]
fn wrong_forms_are_noticed() {
    let right = || push("u9", 44);
    let changed = |from: &str, to: &str| right().replace(from, to);
    let long = |length: usize| push_of("u9", 44, 9, &format!(r#"{{"msgType":4,"msg":"{}"}}"#, "x".repeat(length)));
    check(vec![
        ("no seq", live(), changed("\"seq\":44,", ""), "missing field"),
        ("no tag", live(), changed(&format!("\"tag\":\"{}\",", tag(44)), ""), "missing field"),
        ("no time", live(), right().replace(&format!(",\"time\":{TIME}"), ""), "missing field"),
        ("no from", live(), changed("\"from\":9,", ""), "missing field"),
        ("no conv", live(), changed("\"conv\":\"u9\",", ""), "missing field"),
        ("an unknown member", live(), changed("\"from\"", "\"extra\":1,\"from\""), "unknown field"),
        ("keys out of order", live(), changed("\"conv\":\"u9\",\"from\":9", "\"from\":9,\"conv\":\"u9\""), "is behind"),
        ("a key twice", live(), changed("\"from\":9", "\"from\":9,\"from\":9"), "is behind"),
        ("a blank behind a colon", live(), changed("\"seq\":44", "\"seq\": 44"), "blank"),
        ("a blank behind a comma", live(), changed("\"seq\":44,", "\"seq\":44, "), "blank"),
        ("a blank at the end", live(), changed(&format!("{TIME}}}"), &format!("{TIME} }}")), "blank"),
        ("null", live(), changed("\"from\"", "\"edited\":null,\"from\""), "null"),
        ("a newline in m", live(), changed("\"TOID\"", "\n\"TOID\""), "newline"),
        ("seq as text", live(), changed("\"seq\":44", "\"seq\":\"44\""), "invalid type"),
        ("seq as a float", live(), changed("\"seq\":44", "\"seq\":44.0"), "invalid type"),
        ("a number of 2^53", live(), changed("\"seq\":44", "\"seq\":9007199254740992"), "2^53"),
        ("a time in seconds", live(), right().replace(&TIME.to_string(), "1789891201"), "milliseconds"),
        ("a tag in upper case", live(), right().replace(&tag(44), "DEADBEEF"), "no tag"),
        ("a conversation with a zero", live(), changed("\"u9\"", "\"u09\""), "no name"),
        ("again that is false", with(live(), [send("c", 9)]), again("c", "u9", 44).replace("true", "false"), "only if"),
        ("a 41 without tag", with(live(), [send("c", 9)]), ack("c", "u9", 44).replace("tag", "tah"), "unknown field"),
        ("a refusal that says nothing", with(live(), [send("c", 9)]), refused("c", 404).replace("no", ""), "errmsg"),
        (
            "retryAfter as text",
            with(live(), [send("c", 9)]),
            refused_for_now("c").replace("2.5", "\"2\""),
            "invalid type",
        ),
        ("a frame of 512 KiB", live(), long(512 * 1024), "a frame of"),
        ("what is no object", live(), "[1]".to_owned(), "no object"),
        ("synced that is false", behind(), synced().replace("true", "false"), "only if"),
    ]);
}

#[test]
fn frames_at_wrong_times_are_noticed() {
    let asked = |frame: &str| with(live(), [Sent(frame.to_owned())]);
    let read = |read: u64, more: &str| {
        format!(r#"{{"conv":"u9","errno":200,"head":43,"msgType":49,"read":{read},{more}"unread":0,"user":7}}"#)
    };
    let peer = |read: u64| format!(r#"{{"conv":"u9","msgType":50,"read":{read},"recv":43,"user":9}}"#);
    let replied = |kind: i64| format!(r#"{{"errno":200,"msgType":{kind},"rid":"r"}}"#);
    check(vec![
        ("a message before the 40", vec![], push("u9", 42), "before the 40"),
        ("a 43 before the 40", vec![], overview(""), "before the 40"),
        ("a second 40", live(), welcome(), "second 40"),
        ("another user's 40", vec![], welcome().replace("\"user\":7", "\"user\":8"), "logged in as 8"),
        ("another device's 40", vec![], welcome().replace("\"device\":\"d\"", "\"device\":\"e\""), "the device"),
        ("a reply to nothing", live(), replied(200), "to nothing"),
        ("a 54 to nothing", live(), r#"{"msgType":54}"#.to_owned(), "to nothing"),
        (
            "a reply with another rid",
            asked(r#"{"msgType":53,"rid":"q"}"#),
            r#"{"msgType":54,"rid":"r"}"#.into(),
            "is next",
        ),
        ("a reply without its rid", asked(r#"{"msgType":53,"rid":"q"}"#), r#"{"msgType":54}"#.into(), "is next"),
        (
            "replies out of order",
            with(asked(r#"{"msgType":53,"rid":"q"}"#), [ask_page("")]),
            page("u9", 1..=43, true, 43),
            "is next",
        ),
        ("a mark with a rid of nothing", live(), read(43, "\"rid\":\"r\","), "rid of nothing"),
        ("a mark that falls", with(live(), [Got(read(43, ""))]), read(42, ""), "falls"),
        ("the mark of somebody else", live(), read(43, "").replace("\"user\":7", "\"user\":8"), "mark of 8"),
        ("a partner's marks that do not rise", with(live(), [Got(peer(40))]), peer(40), "do not rise"),
        ("own marks as a partner's", live(), peer(40).replace("\"user\":9", "\"user\":7"), "for 7"),
        ("own typing", live(), r#"{"conv":"g3","event":"typing","from":7,"msgType":51}"#.to_owned(), "for 7"),
        ("something after the end", with(live(), [Got(farewell("revoked", 403, ""))]), push("u9", 44), "after the 55"),
        ("an end without retryAfter", live(), farewell("drain", 503, ""), "retryAfter"),
        ("an end with retryAfter", live(), farewell("replaced", 409, r#","retryAfter":1"#), "retryAfter"),
        ("an end with another errno", live(), farewell("idle", 503, r#","retryAfter":1"#), "errno 503"),
        ("an end for no reason", live(), farewell("bored", 503, ""), "no reason"),
    ]);
}

#[test]
fn wrong_pages_are_noticed() {
    let asked = |more: &str| with(live(), [ask_page(more)]);
    check(vec![
        ("a page of what was not asked", asked(r#""before":40,"#), page("u9", 30..=40, false, 43), "not the messages"),
        ("not up to before", asked(r#""before":40,"#), page("u9", 1..=38, true, 43), "not the messages"),
        ("not from after on", asked(r#""after":5,"#), page("u9", 7..=43, true, 43), "not the messages"),
        ("without around", asked(r#""around":20,"limit":3,"#), page("u9", 21..=23, false, 43), "not the messages"),
        ("the newest are not", asked(""), page("u9", 1..=42, true, 43), "not the messages"),
        ("complete, and it is not", asked(r#""before":40,"limit":5,"#), page("u9", 35..=39, true, 43), "complete is"),
        ("not complete, and it is", asked(r#""before":40,"#), page("u9", 1..=39, false, 43), "complete is"),
        ("fewer than there are", asked(r#""before":40,"limit":5,"#), page("u9", 38..=39, false, 43), "only 2"),
        ("more than the limit", asked(r#""before":40,"limit":5,"#), page("u9", 1..=39, true, 43), "39 messages"),
        ("a hole in a page", asked(""), page("u9", 1..=43, true, 43).replace("\"seq\":3,", "\"seq\":4,"), "a hole"),
        (
            "from that is not",
            asked(""),
            page("u9", 1..=43, true, 43).replace("\"from\":1,", "\"from\":2,"),
            "from and to",
        ),
        ("another conversation", asked(""), page("u8", 1..=43, true, 43), "a page of u8"),
    ]);
}
