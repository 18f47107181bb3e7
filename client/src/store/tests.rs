//! The store: order, gaps, edits, and its state after a crash.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

use super::*;
use crate::error::Error;
use crate::frame::{Message, Page, Peer};
use crate::machine::Wanted;
use crate::view::Content;

const BOB: Conv = Conv::User(9);
const TEAM: Conv = Conv::Group(3);

fn store() -> Store {
    let mut store = Store::in_memory(|| Ok("d".to_owned())).expect("a store");
    store.apply(&[account()]).expect("an account");
    store
}

fn account() -> Change {
    let (name, token) = ("ann".to_owned(), "t".to_owned());
    Change::Account(Account { user: 7, name, token, token_expires: 9, frame_max: 65_536 })
}

fn message(seq: u64, from: i64, m: &str) -> Message {
    let (tag, m) = (format!("{seq:02x}"), Some(m.to_owned()));
    Message { seq, from, time: 1000 + seq as i64, tag, m, edited: None, recalled: None }
}

fn chat(seq: u64, text: &str) -> Message {
    message(seq, 9, &format!(r#"{{"msgType":4,"msg":"{text}"}}"#))
}

fn take(conv: Conv, message: Message) -> Change {
    Change::Take { conv, message }
}

fn line(conv: Conv, head: u64, floor: u64) -> Line {
    let last = (head > floor).then(|| chat(head, "last"));
    let (tag, name) = (Some(format!("{head:02x}")), Some("bob".to_owned()));
    Line { conv, head, floor, tag, name, read: 0, unread: head, peer_read: 0, peer_recv: 0, last }
}

fn page(conv: Conv, seqs: std::ops::RangeInclusive<u64>, floor: u64, complete: bool) -> Change {
    let before = Some(seqs.end() + 1);
    let msgs = seqs.map(|seq| chat(seq, "of a page")).collect();
    Change::Page { page: Page { conv, complete, floor, msgs }, before }
}

fn gaps(store: &Store, conv: Conv) -> Vec<(u64, u64)> {
    let (mut gaps, mut before) = (Vec::new(), 1 << 53);
    while let Some(gap) = store.gap_below(conv, before).expect("gaps") {
        gaps.insert(0, gap);
        before = gap.0;
    }
    gaps
}

fn shown(store: &Store, conv: Conv) -> Vec<(u64, String)> {
    let history = store.history(conv, None, 100).expect("history");
    let text = |message: &crate::Message| match message.content() {
        Content::Text(text) => text,
        other => format!("{other:?}"),
    };
    history.messages.iter().map(|message| (message.seq, text(message))).collect()
}

fn row(store: &Store, conv: Conv) -> Conversation {
    store.conversation(conv).expect("conversations").expect("it is there")
}

fn cursor(store: &Store, conv: Conv) -> Option<u64> {
    let known = store.known().expect("cursors");
    known.cursors.iter().find(|(known, _)| *known == conv).map(|(_, cursor)| cursor.seq)
}

#[test]
fn a_message_from_before_the_first_login_gets_its_sender() {
    let mut store = Store::in_memory(|| Ok("d".to_owned())).expect("a store");
    let frame = r#"{"FROMID":0,"TOID":9,"cid":"c1","msg":"1.50 \u0000 \"","msgType":4}"#;
    store.enqueue(BOB, "c1", frame, 1).expect("queued");
    store.apply(&[account()]).expect("logged in");
    let rows = store.to_send(Wanted { conv: BOB, after: 0, count: 9 }).expect("rows");
    assert_eq!(rows[0].2, frame.replace("\"FROMID\":0", "\"FROMID\":7"));
    store.enqueue(BOB, "c2", &frame.replace("c1", "c2"), 1).expect("queued");
    store.apply(&[account()]).expect("logged in again");
    let rows = store.to_send(Wanted { conv: BOB, after: rows[0].0, count: 9 }).expect("rows");
    assert!(rows[0].2.contains("\"FROMID\":0"), "only the first login signs");
}

#[test]
fn a_message_is_stored_with_its_cursor_and_counted() {
    let mut store = store();
    let own = message(3, 7, r#"{"msgType":4,"msg":"mine"}"#);
    store.apply(&[take(BOB, chat(1, "a")), take(BOB, chat(2, "b"))]).expect("stored");
    assert_eq!((cursor(&store, BOB), row(&store, BOB).unread), (Some(2), 2));
    store.apply(&[take(BOB, own), take(BOB, chat(4, "c")), take(BOB, chat(4, "c"))]).expect("stored");
    let bob = row(&store, BOB);
    assert_eq!((bob.unread, bob.read, bob.head, bob.held), (1, 3, 4, 4), "sending marks all before it as read");
    let texts = shown(&store, BOB);
    assert_eq!(texts.iter().map(|(_, text)| &**text).collect::<Vec<_>>(), ["a", "b", "mine", "c"]);
}

#[test]
fn the_server_has_counted_what_a_run_brings() {
    let mut store = store();
    store.apply(&[take(BOB, chat(1, "a"))]).expect("stored");
    let counted = Line { unread: 2, read: 2, ..line(BOB, 4, 0) };
    let own = message(2, 7, r#"{"msgType":4,"msg":"from another device"}"#);
    let run = [take(BOB, own), take(BOB, chat(3, "b")), take(BOB, chat(4, "c"))];
    store.apply(&[Change::Line { line: counted, adopt: false }]).expect("a 43");
    store.apply(&run).expect("a run");
    assert_eq!(row(&store, BOB).unread, 2);
    store.apply(&[take(BOB, chat(5, "d"))]).expect("live");
    assert_eq!(row(&store, BOB).unread, 3);
}

#[test]
fn missing_messages_are_a_gap_until_a_page_fills_it() {
    let mut store = store();
    store.apply(&[Change::Line { line: line(TEAM, 40, 10), adopt: true }]).expect("adopted");
    assert_eq!((cursor(&store, TEAM), gaps(&store, TEAM)), (Some(40), vec![(11, 39)]));
    store.apply(&[take(TEAM, chat(41, "x")), take(TEAM, chat(52, "y"))]).expect("stored");
    assert_eq!(gaps(&store, TEAM), [(11, 39), (42, 51)]);
    let history = store.history(TEAM, None, 100).expect("history");
    assert_eq!((history.messages.len(), history.has_gap, history.is_start), (1, true, false), "down to the gap");
    let after = |seq| store.after(TEAM, seq, 100).expect("messages").len();
    assert_eq!([after(10), after(25), after(39), after(41), after(45), after(51)], [0, 0, 2, 0, 0, 1], "up to the gap");
    assert_eq!(store.history(TEAM, Some(42), 100).expect("history").messages.len(), 2, "below it");
    store.apply(&[page(TEAM, 45..=51, 10, false)]).expect("a page");
    assert_eq!(gaps(&store, TEAM), [(11, 39), (42, 44)]);
    store.apply(&[page(TEAM, 42..=44, 10, false), page(TEAM, 30..=39, 10, false)]).expect("pages");
    assert_eq!(gaps(&store, TEAM), [(11, 29)]);
    // The floor rises: messages below it never come.
    store.apply(&[Change::Floor { conv: TEAM, floor: 20 }]).expect("a floor");
    assert_eq!(gaps(&store, TEAM), [(21, 29)]);
    store.apply(&[page(TEAM, 25..=29, 24, true)]).expect("the last page");
    let history = store.history(TEAM, None, 100).expect("history");
    assert_eq!((history.messages.len(), history.has_gap, history.is_start), (28, false, true));
    assert_eq!(store.after(TEAM, 50, 10).expect("messages").len(), 2);
    // Messages beyond the cursor are not taken from a page, because they come in their place.
    store.apply(&[page(TEAM, 52..=54, 24, false)]).expect("a page");
    assert_eq!((cursor(&store, TEAM), store.after(TEAM, 52, 10).expect("none").len()), (Some(52), 0));
}

#[test]
fn an_empty_page_that_is_complete_ends_the_gap() {
    let mut store = store();
    store.apply(&[Change::Line { line: line(TEAM, 40, 0), adopt: true }]).expect("adopted");
    let empty = Page { conv: TEAM, complete: true, floor: 39, msgs: Vec::new() };
    store.apply(&[Change::Page { page: empty, before: Some(40) }]).expect("a page");
    assert_eq!(gaps(&store, TEAM), []);
}

#[test]
fn edits_and_recalls_change_the_message_and_are_not_shown_themselves() {
    let mut store = store();
    let edit = |seq, target| message(seq, 9, &format!(r#"{{"msgType":4,"edit":{target},"msg":"edited by {seq}"}}"#));
    let recall = |seq, target| message(seq, 9, &format!(r#"{{"msgType":4,"recall":{target}}}"#));
    let foreign = message(6, 7, r#"{"msgType":4,"edit":1,"msg":"not yours"}"#);
    let first = [
        take(BOB, chat(1, "a")),
        take(BOB, chat(2, "b")),
        take(BOB, edit(3, 1)),
        take(BOB, edit(4, 1)),
        take(BOB, edit(5, 2)),
    ];
    store.apply(&first).expect("stored");
    store.apply(&[take(BOB, foreign)]).expect("stored");
    assert_eq!(shown(&store, BOB), [(1, "edited by 4".to_owned()), (2, "edited by 5".to_owned())]);
    store.apply(&[take(BOB, recall(7, 1))]).expect("stored");
    assert_eq!(shown(&store, BOB), [(1, "Recalled".to_owned()), (2, "edited by 5".to_owned())]);
    // A late page with an earlier state changes nothing.
    let old = Page { conv: BOB, complete: true, floor: 0, msgs: vec![chat(1, "a"), chat(2, "b")] };
    store.apply(&[Change::Page { page: old, before: Some(3) }]).expect("a page");
    assert_eq!(shown(&store, BOB), [(1, "Recalled".to_owned()), (2, "edited by 5".to_owned())]);
    assert_eq!(row(&store, BOB).unread, 0, "a message of one's own marks all as read");
}

/// A page is read before an edit and delivered after it, to a client that does not have the
/// message.
#[test]
fn a_page_that_is_older_than_an_edit_does_not_bring_the_old_text_back() {
    let mut store = store();
    let of = |seq, members: &str| message(seq, 9, &format!(r#"{{"msgType":4,{members}}}"#));
    let foreign = message(12, 7, r#"{"msgType":4,"edit":4,"msg":"not yours"}"#);
    store.apply(&[Change::Line { line: line(BOB, 9, 0), adopt: true }]).expect("adopted");
    let later =
        [of(10, r#""edit":4,"msg":"new""#), of(11, r#""recall":5"#), foreign, of(13, r#""edit":4,"msg":"newer""#)];
    store.apply(&later.map(|message| take(BOB, message))).expect("stored");
    let old = Page { conv: BOB, complete: true, floor: 0, msgs: (4..=8).map(|seq| chat(seq, "old")).collect() };
    store.apply(&[Change::Page { page: old, before: Some(9) }]).expect("a page");
    let expected = [(4, "newer"), (5, "Recalled"), (6, "old"), (7, "old"), (8, "old"), (9, "last")];
    assert_eq!(shown(&store, BOB), expected.map(|(seq, text)| (seq, text.to_owned())));
}

#[test]
fn a_page_shows_a_recalled_message_once() {
    let mut store = store();
    let recalled = |seq| Message { m: None, recalled: Some(9), ..chat(seq, "") };
    let by = message(9, 9, r#"{"msgType":4,"recall":1}"#);
    store.apply(&[Change::Line { line: Line { last: Some(by), ..line(BOB, 9, 0) }, adopt: true }]).expect("adopted");
    let fifth = Message { edited: Some(6), ..message(5, 9, r#"{"msgType":4,"edit":5,"msg":"new"}"#) };
    let msgs = vec![recalled(1), recalled(2), recalled(3), chat(4, "d"), fifth];
    let (complete, floor) = (true, 0);
    store.apply(&[Change::Page { page: Page { conv: BOB, complete, floor, msgs }, before: Some(6) }]).expect("a page");
    store.apply(&[page(BOB, 6..=8, 0, false)]).expect("a page");
    let shown: Vec<u64> = shown(&store, BOB).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(shown, [1, 4, 5, 6, 7, 8], "its edits 2 and 3, and the recall, are not shown");
}

#[test]
fn another_history_and_a_closed_conversation() {
    let mut store = store();
    store.apply(&[take(BOB, chat(1, "a")), take(BOB, chat(5, "b")), lost(BOB, 0, false)]).expect("reset");
    assert_eq!((cursor(&store, BOB), gaps(&store, BOB), shown(&store, BOB)), (None, vec![], vec![]));
    store.apply(&[take(TEAM, chat(1, "a")), Change::Closed { conv: TEAM, errno: 403 }]).expect("closed");
    assert_eq!((cursor(&store, TEAM), shown(&store, TEAM).len()), (None, 1), "what it has stays");
    assert_eq!(row(&store, TEAM).closed, Some(403));
    store.apply(&[Change::Line { line: line(TEAM, 1, 0), adopt: false }]).expect("open again");
    assert_eq!(cursor(&store, TEAM), Some(1));
}

fn lost(conv: Conv, head: u64, is_counted: bool) -> Change {
    Change::Reset { conv, head, is_counted }
}

#[test]
fn after_a_loss_no_mark_is_above_the_head_and_nothing_is_counted_twice() {
    let mut store = store();
    let read = Read { conv: BOB, head: 8, read: 8, unread: 0 };
    let peer = Peer { conv: BOB, read: 7, recv: 8 };
    store.apply(&[take(BOB, chat(8, "lost")), Change::Read(read), Change::Peer(peer)]).expect("stored");
    // Without a login, the messages that follow are counted.
    store.apply(&[lost(BOB, 5, false), take(BOB, chat(5, "a")), take(BOB, chat(6, "b"))]).expect("reset");
    let found = row(&store, BOB);
    assert_eq!((found.read, found.unread, found.peer_read, found.peer_recv), (5, 1, 5, 5));
    // The server names the marks before all messages that follow have come, or after.
    for is_early in [true, false] {
        let marks = [
            Change::Read(Read { conv: BOB, head: 6, read: 4, unread: 2 }),
            Change::Peer(Peer { conv: BOB, read: 2, recv: 3 }),
        ];
        let mut taken = vec![lost(BOB, 6, false), take(BOB, chat(5, "a")), take(BOB, chat(6, "b"))];
        let at = if is_early { 1 } else { taken.len() };
        taken.splice(at..at, marks);
        store.apply(&taken).expect("marks");
        let found = row(&store, BOB);
        assert_eq!((found.read, found.unread, found.peer_read, found.peer_recv), (4, 2, 2, 3), "{is_early}");
    }
    // At a login, its 43 has counted the messages.
    store.apply(&[Change::Line { line: line(BOB, 6, 0), adopt: false }]).expect("a line");
    let counted = row(&store, BOB).unread;
    store.apply(&[lost(BOB, 6, true), take(BOB, chat(6, "b")), take(BOB, chat(7, "c"))]).expect("reset");
    assert_eq!(row(&store, BOB).unread, counted + 1);
}

#[test]
fn marks_are_kept_until_the_server_has_them() {
    let mut store = store();
    store.apply(&[take(BOB, chat(1, "a")), take(BOB, chat(2, "b"))]).expect("stored");
    assert!(store.mark_read(BOB, 2).expect("marked"));
    assert!(!store.mark_read(BOB, 1).expect("no news"));
    assert_eq!((row(&store, BOB).unread, store.known().expect("marks").marks), (0, vec![(BOB, 2)]));
    store.apply(&[Change::Read(Read { conv: BOB, head: 2, read: 2, unread: 0 })]).expect("confirmed");
    // The mark of another device counts message 3, which comes after it. An older mark does not
    // know that message.
    let mark = |head, unread| Change::Read(Read { conv: BOB, head, read: 2, unread });
    store.apply(&[mark(3, 1), take(BOB, chat(3, "c")), mark(2, 0)]).expect("marks");
    assert_eq!(row(&store, BOB).unread, 1);
    assert_eq!(store.known().expect("marks").marks, []);
    store.apply(&[Change::Peer(Peer { conv: BOB, read: 2, recv: 1 })]).expect("marks");
    assert_eq!((row(&store, BOB).peer_read, row(&store, BOB).peer_recv), (2, 2), "what is read is received");
}

#[test]
fn the_outbox_keeps_its_order_until_each_is_answered() {
    let mut store = store();
    for (n, conv) in [BOB, TEAM, BOB, BOB].into_iter().enumerate() {
        store
            .enqueue(conv, &format!("c{n}"), &format!(r#"{{"msgType":4,"cid":"c{n}","msg":"{n}"}}"#), 5)
            .expect("queued");
    }
    assert!(store.enqueue(BOB, "c0", "{}", 5).is_err(), "a cid is used once");
    let mut filled = store.known().expect("the outbox").filled;
    filled.sort();
    assert_eq!((filled, store.pending_count().expect("a count")), (vec![BOB, TEAM], 4));
    let rows = store.to_send(Wanted { conv: BOB, after: 0, count: 2 }).expect("rows");
    let cids: Vec<&str> = rows.iter().map(|(_, cid, _)| &**cid).collect();
    assert_eq!(cids, ["c0", "c2"]);
    let acked = |cid: &str, seq, place| Change::Acked {
        cid: cid.to_owned(),
        conv: BOB,
        seq,
        tag: "0a".to_owned(),
        time: 6,
        place,
    };
    let refused = Change::Refused { cid: "c2".to_owned(), errno: 403, errmsg: "blocked".to_owned() };
    store.apply(&[acked("c0", 1, true), refused, acked("c3", 9, false)]).expect("answers");
    assert_eq!((shown(&store, BOB), cursor(&store, BOB)), (vec![(1, "0".to_owned())], Some(1)));
    let waiting = store.pending(BOB, 10).expect("pending");
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].text(), &waiting[0].refused), ("2".to_owned(), &Some((403, "blocked".to_owned()))));
    assert!(!store.discard("c1").expect("it still waits"));
    assert!(store.discard("c2").expect("it was refused"));
    // The answer to a message that the outbox no longer has leaves a gap, which a page fills.
    store.apply(&[acked("c9", 2, true)]).expect("an answer");
    assert_eq!((cursor(&store, BOB), gaps(&store, BOB)), (Some(2), vec![(2, 2)]));
}

/// A path for a data file. The file is removed with its companions at the end.
struct File(PathBuf);

impl File {
    fn new() -> File {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("raybox-client-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        File(folder.join("data.db"))
    }

    fn open(&self) -> Result<Store> {
        Store::open(&self.0, || Ok("d".to_owned()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().expect("a folder"));
    }
}

#[test]
fn a_file_is_its_owners_alone_and_used_by_one() {
    let file = File::new();
    fs::write(&file.0, "").expect("a file that everybody may read");
    let mut store = file.open().expect("a store");
    store.apply(&[account()]).expect("an account");
    for name in ["data.db", "data.db-wal", "data.db-shm", "data.db.lock"] {
        let mode = fs::metadata(file.0.with_file_name(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(matches!(file.open(), Err(Error::InUse)));
    drop(store);
    let store = file.open().expect("it is free again");
    let login = store.login().expect("a login");
    assert_eq!(
        (login.token.as_deref(), login.owner, login.device.as_str()),
        (Some("t"), Some((7, "ann".to_owned())), "d")
    );
    store.connection.execute_batch("PRAGMA user_version = 99").expect("of tomorrow");
    drop(store);
    assert!(matches!(file.open(), Err(Error::NewerFile)));
}

#[test]
fn a_crash_between_two_changes_of_a_transaction_leaves_neither() {
    let file = File::new();
    let mut store = file.open().expect("a store");
    store.apply(&[account(), take(BOB, chat(1, "a"))]).expect("stored");
    store.connection.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
    store.change(&take(BOB, chat(2, "b"))).expect("a change");
    // The process dies: nothing more is committed, and the file stays as it is on the disk at this
    // moment.
    let copy = File::new();
    for name in ["data.db", "data.db-wal"] {
        fs::copy(file.0.with_file_name(name), copy.0.with_file_name(name)).expect(name);
    }
    let left = copy.open().expect("the copy opens");
    assert_eq!((cursor(&left, BOB), shown(&left, BOB).len()), (Some(1), 1));
}

#[test]
fn a_change_that_fails_takes_those_before_it_back() {
    let mut store = store();
    store.connection.execute_batch("DROP TABLE gaps").expect("a broken file");
    assert!(store.apply(&[take(BOB, chat(1, "a")), take(BOB, chat(9, "b"))]).is_err());
    assert_eq!((cursor(&store, BOB), store.connection.is_autocommit()), (None, true));
    store.apply(&[take(BOB, chat(1, "a"))]).expect("it goes on");
}

#[test]
fn names_and_notes() {
    let mut store = store();
    store.remember_names(&[(9, "bob".to_owned()), (9, "rob".to_owned())]).expect("names");
    store.apply(&[take(BOB, chat(1, "a"))]).expect("stored");
    assert_eq!(row(&store, BOB).name.as_deref(), Some("rob"));
    assert_eq!(store.name_of(9).expect("a name").as_deref(), Some("rob"));
    assert_eq!(store.name_of(7).expect("a name").as_deref(), Some("ann"));
    assert_eq!(store.name_of(1).expect("none"), None);
    assert_eq!(store.note("k").expect("none"), None);
    store.set_note("k", "1").expect("noted");
    store.set_note("k", "2").expect("noted");
    assert_eq!(store.note("k").expect("a note").as_deref(), Some("2"));
}
