//! The layout of the screen: the list of conversations beside the open one. A narrow screen shows
//! only one of them.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};
use raybox_client::{Conv, Conversation, Message, Pending};
use unicode_width::UnicodeWidthStr;

use crate::app::App;
use crate::commands::HELP;
use crate::script::describe;
use crate::{safe, time};

/// The least width at which list and conversation stand side by side.
const BOTH_FROM: u16 = 60;
const LIST_WIDTH: u16 = 22;

const DIM: Style = Style::new().fg(Color::DarkGray);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);
const WARNING: Style = Style::new().fg(Color::Red);

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [top, middle, notice, input, status] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(u16::from(app.notice.is_some() || app.typist().is_some())),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(bar(&heading(app), top.width)).style(BAR), top);
    let (list, talk) = panes(middle, app.in_list);
    if let Some(list) = list {
        draw_list(frame, app, list);
    }
    if let Some(talk) = talk {
        draw_talk(frame, app, talk);
    }
    if app.help {
        frame.render_widget(Clear, middle);
        let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(safe::cut(line, middle.width.into()))).collect();
        frame.render_widget(Paragraph::new(lines), middle);
    }
    let (text, style) = match &app.notice {
        Some(notice) => (notice.clone(), WARNING),
        None => (app.typist().map_or_else(String::new, |name| format!("{name} is writing\u{2026}")), DIM),
    };
    frame.render_widget(Paragraph::new(safe::cut(&text, notice.width.into())).style(style), notice);
    draw_input(frame, app, input);
    frame.render_widget(Paragraph::new(bar(&app.status(), status.width)).style(BAR), status);
}

fn panes(area: Rect, in_list: bool) -> (Option<Rect>, Option<Rect>) {
    if area.width >= BOTH_FROM {
        let [list, talk] = Layout::horizontal([Constraint::Length(LIST_WIDTH), Constraint::Min(1)]).areas(area);
        return (Some(list), Some(talk));
    }
    if in_list { (Some(area), None) } else { (None, Some(area)) }
}

/// A line that fills its width.
fn bar(text: &str, width: u16) -> String {
    let text = safe::cut(text, width.into());
    let rest = usize::from(width).saturating_sub(text.width());
    text + &" ".repeat(rest)
}

fn heading(app: &App) -> String {
    let Some(conv) = app.open.filter(|_| !app.in_list || app.help) else {
        let unread: u64 = app.conversations.iter().map(|row| row.unread).sum();
        return format!("{} \u{b7} {unread} unread \u{b7} /help", app.name(app.me));
    };
    let row = app.conversations.iter().find(|row| row.conv == conv);
    let state = match (conv, row.and_then(|row| row.closed)) {
        (_, Some(_)) => " \u{b7} closed",
        (Conv::User(user), None) if app.online.get(&user) == Some(&true) => " \u{b7} online",
        _ => "",
    };
    format!("{}{state}", app.title(conv))
}

fn draw_list(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let block = Block::new().borders(if area.width < frame.area().width { Borders::RIGHT } else { Borders::NONE });
    let inside = block.inner(area);
    frame.render_widget(block, area);
    if app.conversations.is_empty() {
        let text = safe::wrap("No conversations yet. Type /open NAME, or /add NAME.", inside.width.into());
        let lines: Vec<Line<'_>> = text.into_iter().map(Line::from).collect();
        return frame.render_widget(Paragraph::new(lines).style(DIM), inside);
    }
    let height = usize::from(inside.height);
    let first = (app.selected + 1).saturating_sub(height);
    let rows = app.conversations.iter().enumerate().skip(first).take(height);
    let lines: Vec<Line<'_>> = rows.map(|(at, row)| list_line(app, at, row, inside.width.into())).collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

fn list_line(app: &App, at: usize, row: &Conversation, width: usize) -> Line<'static> {
    let mark = match row.conv {
        Conv::Group(_) => '#',
        Conv::User(user) if app.online.get(&user) == Some(&true) => '\u{2022}',
        Conv::User(_) => ' ',
    };
    let count = match row.unread {
        0 => String::new(),
        1..1000 => format!(" {}", row.unread),
        _ => " 999+".to_owned(),
    };
    let name = safe::cut(&format!("{mark}{}", app.title(row.conv)), width.saturating_sub(count.width()));
    let blank = " ".repeat(width.saturating_sub(name.width() + count.width()));
    let style = match (at == app.selected && app.in_list, Some(row.conv) == app.open, row.unread > 0) {
        (true, _, _) => BAR,
        (_, true, _) => BOLD.add_modifier(Modifier::UNDERLINED),
        (_, _, true) => BOLD,
        _ => Style::new(),
    };
    Line::from(vec![Span::raw(name), Span::raw(blank), Span::raw(count)]).style(style)
}

fn draw_talk(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let Some(conv) = app.open else {
        let text = "Choose a conversation with the arrows and Enter, or type /open NAME.";
        let lines: Vec<Line<'_>> = safe::wrap(text, area.width.into()).into_iter().map(Line::from).collect();
        return frame.render_widget(Paragraph::new(lines).style(DIM), area);
    };
    let lines = talk_lines(app, conv, area.width.into());
    let height = usize::from(area.height);
    let above = lines.len().saturating_sub(height);
    // The user has reached the upper end of what is loaded, or wants to go beyond it.
    app.wants_more = app.scroll >= above && !app.in_list;
    app.scroll = app.scroll.min(above);
    let from = above - app.scroll;
    let shown: Vec<Line<'_>> = lines.into_iter().skip(from).take(height).collect();
    // A short conversation stands at the bottom, where new messages appear.
    let top = area.height.saturating_sub(u16::try_from(shown.len()).unwrap_or(area.height));
    let area = Rect { y: area.y + top, height: area.height - top, ..area };
    frame.render_widget(Paragraph::new(shown), area);
}

fn talk_lines(app: &App, conv: Conv, width: usize) -> Vec<Line<'static>> {
    let row = app.conversations.iter().find(|row| row.conv == conv);
    let (peer_read, peer_recv) = row.map_or((0, 0), |row| (row.peer_read, row.peer_recv));
    let mut lines = Vec::new();
    let beginning = match (app.history.is_start, app.history.has_gap) {
        (true, _) => "the beginning",
        (_, true) => "older messages are at the server",
        _ => "older messages: PgUp",
    };
    lines.push(Line::styled(safe::cut(&format!("\u{2014} {beginning} \u{2014}"), width), DIM));
    let mut day = String::new();
    for message in &app.history.messages {
        let today = time::day(message.time);
        if today != day {
            lines.push(Line::styled(safe::cut(&format!("\u{2014} {today} \u{2014}"), width), DIM));
            day = today;
        }
        let mark = match (message.from == app.me, conv) {
            (false, _) => "",
            (true, Conv::User(user)) if user != app.me && peer_read >= message.seq => "\u{25cf}",
            (true, Conv::User(user)) if user != app.me && peer_recv >= message.seq => "\u{2713}\u{2713}",
            (true, _) => "\u{2713}",
        };
        message_lines(app, message, mark, width, &mut lines);
    }
    for pending in &app.pending {
        pending_lines(app, pending, width, &mut lines);
    }
    lines
}

fn message_lines(app: &App, message: &Message, mark: &str, width: usize, lines: &mut Vec<Line<'static>>) {
    let edited = if message.edited.is_some() { " (edited)" } else { "" };
    let text = format!("{}{edited}", safe::lines(&describe(&message.content())));
    let head = format!("{} ", time::minute(message.time));
    let name = safe::cut(&app.name(message.from), (width / 3).max(4));
    let style = if message.from == app.me { DIM } else { BOLD };
    body_lines(&head, &name, mark, style, &text, width, lines);
}

fn pending_lines(app: &App, pending: &Pending, width: usize, lines: &mut Vec<Line<'static>>) {
    let (mark, why) = match &pending.refused {
        None => ("\u{2026}", String::new()),
        Some((_, why)) => ("!", format!(" (refused: {}; /discard)", safe::line(why))),
    };
    let name = safe::cut(&app.name(app.me), (width / 3).max(4));
    let style = if pending.refused.is_some() { WARNING } else { DIM };
    let text = format!("{}{why}", safe::lines(&pending.text()));
    body_lines("      ", &name, mark, style, &text, width, lines);
}

/// Time, name and mark, then the text; further lines are indented.
fn body_lines(
    head: &str,
    name: &str,
    mark: &str,
    style: Style,
    text: &str,
    width: usize,
    lines: &mut Vec<Line<'static>>,
) {
    let indent = 6;
    let mark = if mark.is_empty() { String::new() } else { format!("{mark} ") };
    let used = head.width() + name.width() + 2 + mark.width();
    let mut rest = text;
    let mut first = String::new();
    // The first line has less room. If no room is left for the text, it begins on the next line.
    if width > used + 8 {
        first = safe::wrap(text, width - used).into_iter().next().unwrap_or_default();
        rest = text.get(first.len()..).unwrap_or_default();
        rest = rest.strip_prefix('\n').unwrap_or_else(|| rest.trim_start_matches(' '));
    }
    let spans = vec![
        Span::styled(head.to_owned(), DIM),
        Span::styled(name.to_owned(), style),
        Span::styled(format!(": {mark}"), DIM),
        Span::raw(first),
    ];
    lines.push(Line::from(spans));
    if !rest.is_empty() {
        let wrapped = safe::wrap(rest, width.saturating_sub(indent));
        lines.extend(wrapped.into_iter().map(|line| Line::from(format!("{}{line}", " ".repeat(indent)))));
    }
}

fn draw_input(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let width = usize::from(area.width).saturating_sub(2);
    let (text, column) = app.input.shown(width);
    frame.render_widget(Paragraph::new(Line::from(vec![Span::styled("> ", BOLD), Span::raw(text)])), area);
    let x = area.x + 2 + u16::try_from(column).unwrap_or(0);
    frame.set_cursor_position(Position::new(x.min(area.right().saturating_sub(1)), area.y));
}

#[cfg(test)]
#[path = "screen/tests.rs"]
mod tests;
