//! [`App`]: the state of the screen, and the effect of keys. It reads no socket and no file:
//! [`crate::terminal`] fills it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use raybox_client::{Conv, Conversation, History, Pending, State};

use crate::commands::{self, Command};
use crate::input::{Input, TEXT_MAX};
use crate::safe;

/// The state of the program.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) me: i64,
    pub(crate) my_name: String,
    pub(crate) state: State,
    /// The number of messages in all conversations that wait to be sent.
    pub(crate) queued: u64,
    pub(crate) conversations: Vec<Conversation>,
    /// The index of the selected row in the list.
    pub(crate) selected: usize,
    pub(crate) open: Option<Conv>,
    pub(crate) in_list: bool,
    pub(crate) history: History,
    pub(crate) pending: Vec<Pending>,
    /// The number of lines below the bottom of the screen.
    pub(crate) scroll: usize,
    /// The most messages that are shown; grows when the user scrolls up.
    pub(crate) limit: usize,
    /// Set by the screen when the user wants to see more than is loaded.
    pub(crate) wants_more: bool,
    pub(crate) input: Input,
    pub(crate) names: HashMap<i64, String>,
    pub(crate) typing: HashMap<Conv, (i64, Instant)>,
    pub(crate) online: HashMap<i64, bool>,
    pub(crate) notice: Option<String>,
    pub(crate) help: bool,
    pub(crate) now: Instant,
}

/// The action that a key press asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Send(Conv, String),
    Do(Command),
    Typing(Conv),
    /// Another conversation was opened.
    Opened,
    Quit,
}

/// The number of messages shown at first, and how many more each scroll beyond them shows.
pub(crate) const STEP: usize = 200;

/// How long the sign of a typing user stays after the last event.
const TYPING_FOR: Duration = Duration::from_secs(5);

impl App {
    pub(crate) fn new(me: i64, my_name: String, now: Instant) -> App {
        App {
            me,
            my_name,
            state: State::Connecting,
            queued: 0,
            conversations: Vec::new(),
            selected: 0,
            open: None,
            in_list: true,
            history: History::default(),
            pending: Vec::new(),
            scroll: 0,
            limit: STEP,
            wants_more: false,
            input: Input::default(),
            names: HashMap::new(),
            typing: HashMap::new(),
            online: HashMap::new(),
            notice: None,
            help: false,
            now,
        }
    }

    // The content of the screen

    /// The name of a conversation.
    pub(crate) fn title(&self, conv: Conv) -> String {
        let row = self.conversations.iter().find(|row| row.conv == conv);
        let name = row.and_then(|row| row.name.clone());
        let name = name.or_else(|| match conv {
            Conv::User(id) if id == self.me => Some("notes to myself".to_owned()),
            Conv::User(id) => self.names.get(&id).cloned(),
            Conv::Group(_) => None,
        });
        safe::line(&name.unwrap_or_else(|| conv.to_string()))
    }

    /// The name of a user.
    pub(crate) fn name(&self, user: i64) -> String {
        if user == self.me {
            return safe::line(&self.my_name);
        }
        let name = self.names.get(&user).cloned();
        let name = name.or_else(|| {
            let row = self.conversations.iter().find(|row| row.conv == Conv::User(user));
            row.and_then(|row| row.name.clone())
        });
        safe::line(&name.unwrap_or_else(|| format!("u{user}")))
    }

    /// A user who is typing in the open conversation.
    pub(crate) fn typist(&self) -> Option<String> {
        let (user, since) = self.typing.get(&self.open?)?;
        (self.now < *since + TYPING_FOR).then(|| self.name(*user))
    }

    /// The connection in words.
    pub(crate) fn status(&self) -> String {
        let state = match &self.state {
            State::Online => "online".to_owned(),
            State::Connecting => "connecting".to_owned(),
            // The client has not tried to connect yet.
            State::Waiting { reason, .. } if reason.is_empty() => "connecting".to_owned(),
            State::LoggingIn | State::Synchronising => "synchronising".to_owned(),
            State::Waiting { until, reason } => {
                let seconds = until.saturating_duration_since(self.now).as_secs_f64().ceil();
                format!("offline, again in {seconds:.0} s: {}", safe::line(reason))
            }
            State::Ended(end) => safe::line(&end.to_string()),
        };
        match self.queued {
            0 => state,
            1 => format!("1 message waits \u{b7} {state}"),
            count => format!("{count} messages wait \u{b7} {state}"),
        }
    }

    /// Replaces the rows of the list; the selected conversation stays selected.
    pub(crate) fn set_conversations(&mut self, conversations: Vec<Conversation>) {
        let at = self.conversations.get(self.selected).map(|row| row.conv);
        self.conversations = conversations;
        let wanted = if self.in_list { at } else { self.open.or(at) };
        let again = self.conversations.iter().position(|row| Some(row.conv) == wanted);
        self.selected = again.unwrap_or(self.selected).min(self.conversations.len().saturating_sub(1));
    }

    /// Opens a conversation.
    pub(crate) fn open(&mut self, conv: Conv) {
        if self.open != Some(conv) {
            self.history = History::default();
            self.pending.clear();
            self.input.take();
        }
        self.open = Some(conv);
        (self.in_list, self.help, self.scroll, self.limit) = (false, false, 0, STEP);
        if let Some(at) = self.conversations.iter().position(|row| row.conv == conv) {
            self.selected = at;
        }
    }

    /// Whether the newest message of the open conversation is on the screen.
    pub(crate) fn sees_newest(&self) -> bool {
        !self.in_list && !self.help && self.scroll == 0
    }

    // Keys

    /// Handles a key press.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> Option<Action> {
        self.notice = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'q') if control => return Some(Action::Quit),
            KeyCode::Char('n') if control => return self.go_to_neighbour(1),
            KeyCode::Char('p') if control => return self.go_to_neighbour(-1),
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Tab | KeyCode::Esc => self.in_list = !self.in_list || self.open.is_none(),
            KeyCode::PageUp => self.scroll += 10,
            KeyCode::PageDown => self.scroll = self.scroll.saturating_sub(10),
            _ if self.in_list && self.input.text().is_empty() && self.on_list_key(key.code) => {}
            KeyCode::Enter if self.in_list && self.input.text().is_empty() => {
                let conv = self.conversations.get(self.selected)?.conv;
                self.open(conv);
                return Some(Action::Opened);
            }
            _ => return self.on_input_key(key, control),
        }
        None
    }

    /// Handles pasted text.
    pub(crate) fn on_paste(&mut self, text: &str) {
        self.write(text);
    }

    fn write(&mut self, text: &str) {
        if !self.input.insert(text) {
            self.notice = Some(format!("too long: a message has at most {TEXT_MAX} bytes"));
        }
    }

    fn on_list_key(&mut self, code: KeyCode) -> bool {
        let last = self.conversations.len().saturating_sub(1);
        self.selected = match code {
            KeyCode::Up => self.selected.saturating_sub(1),
            KeyCode::Down => (self.selected + 1).min(last),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => return false,
        };
        true
    }

    fn go_to_neighbour(&mut self, step: isize) -> Option<Action> {
        let at = self.open.and_then(|open| self.conversations.iter().position(|row| row.conv == open));
        let next = at.map_or(Some(0), |at| at.checked_add_signed(step))?;
        let conv = self.conversations.get(next)?.conv;
        self.open(conv);
        Some(Action::Opened)
    }

    fn on_input_key(&mut self, key: KeyEvent, control: bool) -> Option<Action> {
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Enter if alt => self.write("\n"),
            KeyCode::Enter => return self.enter(),
            KeyCode::Up => self.scroll += 1,
            KeyCode::Down => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Char('u') if control => drop(self.input.take()),
            KeyCode::Char('w') if control => self.input.delete_word(),
            KeyCode::Char('a') if control => self.input.home(),
            KeyCode::Char('e') if control => self.input.end(),
            KeyCode::Backspace => self.input.backspace(),
            KeyCode::Delete => self.input.delete(),
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Char(c) if !control => {
                self.write(c.encode_utf8(&mut [0; 4]));
                let is_text = !self.input.text().starts_with('/');
                return self.open.filter(|_| is_text).map(Action::Typing);
            }
            _ => {}
        }
        None
    }

    /// Sends the typed text, or runs the typed command.
    fn enter(&mut self) -> Option<Action> {
        let typed = self.input.take();
        if typed.trim().is_empty() {
            return None;
        }
        let text = match typed.strip_prefix('/') {
            Some(command) if !command.starts_with('/') => return self.command(command, &typed),
            Some(text) => text.to_owned(),
            None => typed,
        };
        match self.open {
            Some(conv) => {
                self.scroll = 0;
                Some(Action::Send(conv, text))
            }
            None => {
                self.notice = Some("open a conversation first: /open NAME".to_owned());
                self.write_again(&text);
                None
            }
        }
    }

    /// Puts a text that was not sent back into the input line. If the text begins with a slash, the
    /// slash is doubled, so that it is not read as a command.
    pub(crate) fn write_again(&mut self, text: &str) {
        self.input.set(if text.starts_with('/') { format!("/{text}") } else { text.to_owned() });
    }

    fn command(&mut self, command: &str, typed: &str) -> Option<Action> {
        match commands::parse(command) {
            Ok(Command::Help) => self.help = true,
            Ok(Command::Quit) => return Some(Action::Quit),
            Ok(command) => return Some(Action::Do(command)),
            Err(why) => {
                self.notice = Some(safe::line(&why));
                self.input.set(typed.to_owned());
            }
        }
        None
    }
}
