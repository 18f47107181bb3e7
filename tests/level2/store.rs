//! The checking client without a server: it accepts everything that the contract allows.

use serde_json::json;

use crate::script::*;

#[test]
fn everything_that_the_contract_allows_is_accepted() {
    let asks = |frame: &str| Sent(frame.to_owned());
    let sync = || asks(&format!(r#"{{"msgType":46,"have":{{"u9":"40:{}"}},"rid":"s"}}"#, tag(40)));
    let right: Vec<(&str, Vec<Step>)> = vec![
        ("an own message among others", with(live(), [send("c1", 9), Got(push("u9", 44)), Got(ack("c1", "u9", 45))])),
        ("a message of a conversation without a run, during the runs", with(behind(), [Got(push("g3", 6))])),
        ("a new conversation begins at 1", with(live(), [Got(push("u8", 1)), Got(push("u8", 2))])),
        (
            "again moves no cursor",
            with(
                live(),
                [
                    send("c1", 9),
                    Got(again("c1", "u9", 44)),
                    Got(push_of("u9", 44, 7, r#"{"msgType":4,"TOID":9,"cid":"c1"}"#)),
                    Got(push("u9", 45)),
                ],
            ),
        ),
        (
            "41s of conversations are in no order",
            with(live(), [send("c1", 9), send("c2", 8), Got(ack("c2", "u8", 1)), Got(ack("c1", "u9", 44))]),
        ),
        ("a group joined meanwhile", with(live(), [Got(event("g4", 812, "joined", 7)), Got(push("g4", 813))])),
        (
            "a group left and joined again",
            with(live(), [event("g3", 6, "left", 7), event("g3", 9, "joined", 7), push("g3", 10)].map(Got)),
        ),
        (
            "46: the run comes again, beside what is live",
            with(live(), [sync(), Got(push("u9", 44)), Got(run("u9", 41, 44))])
                .into_iter()
                .chain((41..=44).map(|seq| Got(push("u9", seq))))
                .chain([Got(synced_for("s")), Got(push("u9", 45))])
                .collect(),
        ),
        (
            "those behind a failed send fail, until it is sent again",
            with(
                live(),
                [
                    send("c1", 9),
                    send("c2", 9),
                    Got(refused_for_now("c1")),
                    send("c1", 9),
                    Got(refused_for_now("c2")),
                    send("c2", 9),
                    Got(ack("c1", "u9", 44)),
                    Got(ack("c2", "u9", 45)),
                ],
            ),
        ),
        (
            "replies come among messages",
            with(live(), [ask_page(r#""before":3,"#), Got(push("u9", 44)), Got(page("u9", 1..=2, true, 44))]),
        ),
        (
            "requests without replies, then one with",
            with(
                live(),
                [
                    asks(r#"{"msgType":47,"recv":{"u9":43}}"#),
                    asks(r#"{"msgType":51,"conv":"u9","event":"typing"}"#),
                    asks(r#"{"msgType":53,"rid":5}"#),
                    Got(r#"{"msgType":54,"rid":5}"#.to_owned()),
                ],
            ),
        ),
        ("the end", with(live(), [Got(farewell("drain", 503, r#","retryAfter":1.7"#))])),
    ];
    for (name, steps) in right {
        println!("{name}");
        played(&steps);
    }
}

#[test]
fn a_client_that_was_left_behind_catches_up() {
    let store = held();
    // The cursor of u9 does not fit into the login.
    let have = json!({"g3": store.have()["g3"]});
    let mut talk = Talk::new(store, &login(have));
    let first = overview(&[new_line("u9", 43), line("g3", 5)].join(","));
    talk.play_all(&[welcome(), first, synced(), push("u9", 44)].map(Got));
    assert_eq!(talk.store.cursor("u9"), 41, "what is beyond the cursor is no error and is not kept");
    let have = talk.store.have();
    talk.play_all(&[Sent(json!({"msgType": 46, "have": have, "rid": "s"}).to_string())]);
    talk.play_all(&[run("u9", 42, 44), push("u9", 42), push("u9", 43), push("u9", 44), synced_for("s")].map(Got));
    assert_eq!(talk.store.cursor("u9"), 44);
    assert!(talk.store.logs["u9"].missing(0).is_empty());
}

#[test]
fn a_reset_empties_the_store_of_a_conversation() {
    let overviews = overview(&[line("u9", 12), line("g3", 5)].join(","));
    let run = reset("u9", 1, 12);
    let steps = [welcome(), overviews, run].map(Got).into_iter().chain((1..=12).map(|seq| Got(push("u9", seq))));
    let talk = played(&steps.chain([Got(synced())]).collect::<Vec<_>>());
    assert_eq!((talk.store.cursor("u9"), talk.store.logs["u9"].messages.len()), (12, 12));
    // The conversation may be empty afterwards.
    let overviews = overview(&line("g3", 5));
    let talk = played(&[welcome(), overviews, reset("u9", 1, 0), synced(), push("u9", 1)].map(Got));
    assert_eq!(talk.store.cursor("u9"), 1);
}

#[test]
fn a_gap_is_known_and_paged() {
    let overviews = overview(&[line("u9", 241), line("g3", 5)].join(","));
    let head = [welcome(), overviews, gap_run("u9", (42, 141), 142, 241)].map(Got);
    let steps: Vec<Step> = head.into_iter().chain((142..=241).map(|seq| Got(push("u9", seq)))).collect();
    let mut talk = played(&with(steps, [Got(synced())]));
    assert_eq!(talk.store.logs["u9"].missing(0), (42..=141).collect::<Vec<_>>());
    talk.play_all(&[ask_page(r#""before":142,"limit":200,"#), Got(page("u9", 1..=141, true, 241))]);
    assert!(talk.store.logs["u9"].missing(0).is_empty());
}

#[test]
fn edits_and_recalls_change_what_is_kept() {
    let edit = r#"{"msgType":4,"cid":"e","edit":42,"msg":"new"}"#;
    let mut talk = played(&with(live(), [Got(push_of("u9", 44, 9, edit))]));
    let shown = |talk: &Talk, seq: u64| talk.store.logs["u9"].messages[&seq].m.value()["msg"].clone();
    assert_eq!(shown(&talk, 42), "new");
    let recall = r#"{"msgType":4,"cid":"r","recall":42}"#;
    talk.play_all(&[Got(push_of("u9", 45, 9, recall))]);
    assert!(talk.store.logs["u9"].messages[&42].m.is_null() && talk.store.logs["u9"].messages[&44].m.is_null());
    // An edit of another user's message changes nothing.
    talk.play_all(&[Got(push_of("u9", 46, 7, &edit.replace("\"e\"", "\"f\"").replace("42", "43")))]);
    assert_eq!(shown(&talk, 43), "43");
}
