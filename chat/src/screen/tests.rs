//! Screens as text, on a terminal in memory.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use raybox_client::{History, State};

use super::*;
use crate::app::Action;

const BOB: Conv = Conv::User(9);
const TEAM: Conv = Conv::Group(3);

fn row(conv: Conv, name: &str, unread: u64) -> Conversation {
    let name = Some(name.to_owned());
    Conversation {
        conv,
        name,
        unread,
        read: 0,
        head: 9,
        held: 9,
        peer_read: 1,
        peer_recv: 2,
        pending: 0,
        closed: None,
        time: 0,
    }
}

fn message(seq: u64, from: i64, text: &str) -> Message {
    let frame = serde_json::json!({"msgType": 4, "msg": text}).to_string();
    Message { conv: BOB, seq, from, time: 0, frame: Some(frame), edited: None, recalled: None }
}

fn app() -> App {
    let mut app = App::new(7, "ann".to_owned(), Instant::now());
    app.state = State::Online;
    app.set_conversations(vec![row(BOB, "bob", 2), row(TEAM, "hikers", 0)]);
    app
}

fn talking() -> App {
    let mut app = app();
    app.open(BOB);
    let recalled = Message { frame: None, recalled: Some(9), ..message(4, 9, "") };
    let messages = vec![message(1, 7, "read"), message(2, 7, "delivered"), message(3, 7, "sent"), recalled];
    app.history = History { messages, is_start: true, has_gap: false };
    app
}

/// The screen as lines of text, without trailing blanks.
fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, app)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let mut lines = Vec::new();
    for y in 0..height {
        let (mut line, mut x) = (String::new(), 0);
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(symbol.width().max(1)).expect("narrow");
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

fn press(app: &mut App, code: KeyCode) -> Option<Action> {
    app.on_key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(app: &mut App, text: &str) -> Option<Action> {
    text.chars().for_each(|c| drop(press(app, KeyCode::Char(c))));
    press(app, KeyCode::Enter)
}

#[test]
fn a_small_screen_shows_the_list_or_the_conversation() {
    let mut app = app();
    let lines = screen(&mut app, 40, 12);
    assert_eq!(lines[0], "ann \u{b7} 2 unread \u{b7} /help");
    assert_eq!(lines[1], format!(" bob{}2", " ".repeat(35)));
    assert_eq!(lines[2], "#hikers");
    assert_eq!((&*lines[10], &*lines[11]), (">", "online"));
    assert_eq!(press(&mut app, KeyCode::Enter), Some(Action::Opened));
    let mut app = talking();
    let time = time::minute(0);
    let lines = screen(&mut app, 40, 12);
    let expected = [
        "bob".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        "\u{2014} the beginning \u{2014}".to_owned(),
        format!("\u{2014} {} \u{2014}", time::day(0)),
        format!("{time} ann: \u{25cf} read"),
        format!("{time} ann: \u{2713}\u{2713} delivered"),
        format!("{time} ann: \u{2713} sent"),
        format!("{time} bob: (taken back)"),
        ">".to_owned(),
        "online".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_large_screen_shows_both() {
    let mut app = talking();
    app.online.insert(9, true);
    app.typing.insert(BOB, (9, app.now));
    let lines = screen(&mut app, 80, 14);
    assert_eq!(lines[0], "bob \u{b7} online");
    assert!(lines[1].starts_with("\u{2022}bob"), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with("ann: \u{2713} sent")), "{lines:?}");
    assert_eq!(lines[11], "bob is writing\u{2026}");
    app.now += Duration::from_secs(6);
    assert!(!screen(&mut app, 80, 14).iter().any(|line| line.contains("is writing")));
}

#[test]
fn the_status_bar_shows_the_connection_state() {
    let mut app = app();
    app.state = State::Waiting { until: app.now + Duration::from_secs(7), reason: "the server is away".to_owned() };
    app.queued = 3;
    let lines = screen(&mut app, 80, 12);
    assert_eq!(lines[11], "3 messages wait \u{b7} offline, again in 7 s: the server is away");
    assert_eq!(screen(&mut app, 30, 12)[11], "3 messages wait \u{b7} offline, ag\u{2026}");
}

#[test]
fn no_message_and_no_name_controls_the_terminal() {
    let mut app = talking();
    let evil = "\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{202e}abc\r\x08";
    app.set_conversations(vec![row(BOB, evil, 1), row(TEAM, evil, 0)]);
    app.names.insert(9, evil.to_owned());
    app.history.messages = vec![message(1, 9, evil)];
    app.pending = vec![Pending {
        conv: BOB,
        cid: "c".to_owned(),
        frame: format!(r#"{{"msg":{}}}"#, serde_json::json!(evil)),
        refused: Some((403, evil.to_owned())),
    }];
    app.typing.insert(BOB, (9, app.now));
    app.state = State::Waiting { until: app.now, reason: evil.to_owned() };
    app.on_paste(evil);
    for width in [20, 40, 100] {
        let text = screen(&mut app, width, 24).concat();
        let is_evil = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.chars().any(is_evil), "{text:?}");
        assert!(text.contains("\u{241b}"), "it is shown: {text}");
    }
}

#[test]
fn wide_characters_keep_their_columns() {
    let mut app = talking();
    app.history.messages = vec![message(1, 9, &"\u{4f60}\u{597d}\u{4e16}\u{754c}".repeat(10))];
    let lines = screen(&mut app, 40, 12);
    assert!(lines.iter().all(|line| line.width() <= 40), "{lines:?}");
    let all: String = lines.concat().chars().filter(|c| *c == '\u{4f60}').collect();
    assert_eq!(all.chars().count(), 10, "nothing is lost: {lines:?}");
    "\u{4f60}\u{597d}".chars().for_each(|c| drop(press(&mut app, KeyCode::Char(c))));
    assert_eq!(screen(&mut app, 40, 12)[10], "> \u{4f60}\u{597d}");
}

#[test]
fn the_reader_scrolls_back_and_asks_for_more() {
    let mut app = talking();
    app.history = History {
        messages: (1..=100).map(|seq| message(seq, 9, &format!("number {seq}"))).collect(),
        is_start: false,
        has_gap: true,
    };
    let shows = |lines: &[String], text: &str| lines.iter().any(|line| line.ends_with(text));
    let lines = screen(&mut app, 40, 12);
    assert!(shows(&lines, "number 100") && app.sees_newest() && !app.wants_more);
    for _ in 0..20 {
        press(&mut app, KeyCode::PageUp);
    }
    let lines = screen(&mut app, 40, 12);
    assert!(shows(&lines, "number 1") && app.wants_more && !app.sees_newest(), "{lines:?}");
    // The help is shown at every size, even at one that holds no text.
    for (width, height) in [(1, 1), (2, 3), (5, 5), (10, 40), (200, 60)] {
        screen(&mut app, width, height);
    }
    app.help = true;
    screen(&mut app, 3, 4);
}

#[test]
fn typed_lines_are_sent_or_run() {
    let mut app = app();
    assert_eq!(type_in(&mut app, "//slash"), None);
    assert_eq!(app.input.take(), "//slash", "as it was typed");
    app.on_paste(&"x".repeat(70_000));
    assert!(app.notice.as_deref().is_some_and(|notice| notice.contains("too long")), "{:?}", app.notice);
    assert_eq!(type_in(&mut app, "hello"), None);
    assert_eq!(app.notice.as_deref(), Some("open a conversation first: /open NAME"));
    assert_eq!(app.input.take(), "hello", "it is not lost");
    app.open(BOB);
    assert_eq!(press(&mut app, KeyCode::Char('h')), Some(Action::Typing(BOB)));
    assert_eq!(type_in(&mut app, "i"), Some(Action::Send(BOB, "hi".to_owned())));
    assert_eq!(press(&mut app, KeyCode::Char('/')), None, "a command is not shown as typing");
    assert_eq!(type_in(&mut app, "quit"), Some(Action::Quit));
    assert_eq!(type_in(&mut app, "//slash"), Some(Action::Send(BOB, "/slash".to_owned())));
    assert_eq!(type_in(&mut app, "/recall"), Some(Action::Do(crate::commands::Command::Recall)));
    assert_eq!(type_in(&mut app, "   "), None);
    assert_eq!(type_in(&mut app, "/dance"), None);
    assert!(app.notice.as_deref().is_some_and(|notice| notice.contains("/help")), "{:?}", app.notice);
    assert_eq!(app.input.take(), "/dance", "it can be mended");
    type_in(&mut app, "/help");
    assert!(screen(&mut app, 60, 24).concat().contains("/create NAME"));
    press(&mut app, KeyCode::Esc);
    assert!(!app.help && !app.in_list);
    app.on_key(KeyEvent::new(KeyCode::Char('n'), KeyModifiers::CONTROL));
    assert_eq!(app.open, Some(TEAM));
    assert_eq!(app.on_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Action::Quit));
}
