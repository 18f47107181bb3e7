//! The terminal: reads keys and events, fills the [`App`], draws it, and carries out its actions.

use std::collections::hash_map::Entry;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event as Key, KeyEventKind};
use ratatui::crossterm::execute;
use raybox_client::{Client, Content, Conv, Error, Event, Friendship};
use signal_hook::consts::{SIGHUP, SIGTERM};

use crate::app::{Action, App, STEP};
use crate::commands::Command;
use crate::failure::Failure;
use crate::opening::open;
use crate::options::Options;
use crate::script::unknown;
use crate::{safe, screen};

/// How long one wait for a key lasts; events of the client are handled in between.
const LOOK: Duration = Duration::from_millis(50);

/// The most messages that scrolling loads.
const LIMIT_MAX: usize = 20_000;

/// The result of a command, from its thread.
enum News {
    Notice(String),
    Open(Conv),
}

struct Screen {
    client: Arc<Client>,
    app: App,
    news: Receiver<News>,
    tell: Sender<News>,
    /// The users whose presence is watched now.
    watched: Vec<i64>,
    /// The page that was requested last.
    asked_below: Option<(Conv, Option<u64>)>,
    is_stale: bool,
    /// Set by SIGTERM and SIGHUP. The program then ends and restores the terminal.
    is_told_to_end: Arc<AtomicBool>,
}

/// Runs until the user quits.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let client = open(options, None)?;
    let (me, name) = client.user()?.unwrap_or_default();
    let (tell, news) = mpsc::channel();
    let app = App::new(me, name, Instant::now());
    let mut screen = Screen {
        client: Arc::new(client),
        app,
        news,
        tell,
        watched: Vec::new(),
        asked_below: None,
        is_stale: true,
        is_told_to_end: Arc::default(),
    };
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, screen.is_told_to_end.clone()).map_err(|error| error.to_string())?;
    }
    let mut terminal = ratatui::try_init()
        .map_err(|error| format!("this needs a terminal ({error}); for scripts there are chat send and chat tail"))?;
    give_back_paste_on_panic();
    let pasting = execute!(io::stdout(), EnableBracketedPaste);
    let ended = pasting.map_err(|error| error.to_string().into()).and_then(|()| screen.turn(&mut terminal));
    // Restore the terminal, however the run has ended.
    let _ = execute!(io::stdout(), DisableBracketedPaste);
    if ratatui::try_restore().is_err() {
        // The terminal is gone, and to drop this would print an error on it, which panics.
        mem::forget(terminal);
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// Turns off bracketed paste on a panic. The hook of `ratatui` restores the rest of the terminal.
fn give_back_paste_on_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let _ = execute!(io::stdout(), DisableBracketedPaste);
        hook(info);
    }));
}

impl Screen {
    fn turn(&mut self, terminal: &mut DefaultTerminal) -> Result<(), Failure> {
        let mut drawn_at = Instant::now();
        loop {
            self.app.now = Instant::now();
            self.take_events();
            self.take_news()?;
            // Draw at least once a second, because times on the screen change.
            let is_due = self.app.now >= drawn_at + Duration::from_secs(1);
            if self.is_stale || is_due {
                self.is_stale = false;
                self.refresh()?;
                terminal.draw(|frame| screen::draw(frame, &mut self.app)).map_err(|error| error.to_string())?;
                drawn_at = self.app.now;
                self.after_drawing()?;
            }
            if self.is_told_to_end.load(Ordering::Relaxed) {
                return Ok(());
            }
            let has_key = event::poll(LOOK).map_err(|error| error.to_string())?;
            if has_key && !self.on_input(event::read().map_err(|error| error.to_string())?)? {
                return Ok(());
            }
        }
    }

    // News

    fn take_events(&mut self) {
        while let Some(event) = self.client.events().next_now() {
            self.is_stale = true;
            match event {
                // A page may have been lost with the connection: allow it to be requested again.
                Event::State => self.asked_below = None,
                Event::Typing { conv, from } => drop(self.app.typing.insert(conv, (from, self.app.now))),
                Event::Presence { user, online } => drop(self.app.online.insert(user, online)),
                Event::Message { conv, .. } => drop(self.app.typing.remove(&conv)),
                Event::Refused { message, .. } => self.app.notice = Some(safe::line(&format!("refused: {message}"))),
                Event::StoreFailed(why) => self.app.notice = Some(safe::line(&format!("the data file: {why}"))),
                _ => {}
            }
        }
    }

    fn take_news(&mut self) -> Result<(), Failure> {
        while let Ok(news) = self.news.try_recv() {
            self.is_stale = true;
            match news {
                News::Notice(text) => self.app.notice = Some(safe::line(&text)),
                News::Open(conv) => {
                    self.app.open(conv);
                    self.opened();
                }
            }
        }
        Ok(())
    }

    /// Reads from the store what the screen shows.
    fn refresh(&mut self) -> Result<(), Failure> {
        let client = &self.client;
        self.app.state = client.state();
        self.app.queued = client.pending_count()?;
        if let Some((me, name)) = client.user()? {
            (self.app.me, self.app.my_name) = (me, name);
        }
        self.app.set_conversations(client.conversations()?);
        if let Some(conv) = self.app.open {
            self.app.history = client.history(conv, None, self.app.limit)?;
            self.app.pending = client.pending(conv, STEP)?;
            let partner = Some(conv.id()).filter(|_| !conv.is_group());
            let senders = self.app.history.messages.iter().map(|message| message.from);
            for user in senders.chain(partner) {
                if let Entry::Vacant(vacant) = self.app.names.entry(user)
                    && let Some(name) = client.name_of(user)?
                {
                    vacant.insert(name);
                }
            }
        }
        self.watch()
    }

    fn watch(&mut self) -> Result<(), Failure> {
        let me = self.app.me;
        let partners = self.app.conversations.iter().filter_map(|row| match row.conv {
            Conv::User(user) if user != me => Some(user),
            _ => None,
        });
        let mut partners: Vec<i64> = partners.take(500).collect();
        partners.sort_unstable();
        if partners != self.watched {
            self.watched.clone_from(&partners);
            self.client.watch(partners)?;
        }
        Ok(())
    }

    /// Marks the messages on the screen as read. Requests earlier messages when the view is at the
    /// upper end.
    fn after_drawing(&mut self) -> Result<(), Failure> {
        let Some(conv) = self.app.open else { return Ok(()) };
        let newest = self.app.history.messages.last().map_or(0, |message| message.seq);
        if self.app.sees_newest() && newest > 0 {
            let row = self.app.conversations.iter().find(|row| row.conv == conv);
            // Edits and recalls have numbers of their own, and are read together with the message
            // that they change.
            self.client.mark_read(conv, row.map_or(newest, |row| row.held.max(newest)))?;
        }
        if self.app.wants_more && !self.app.history.is_start && self.app.scroll > 0 || self.is_short() {
            if self.app.history.has_gap {
                let below = self.app.history.messages.first().map(|message| message.seq);
                // Request each page once.
                if self.asked_below != Some((conv, below)) {
                    self.asked_below = Some((conv, below));
                    self.client.fetch_older(conv, None)?;
                }
            } else if self.app.limit < LIMIT_MAX && self.app.history.messages.len() >= self.app.limit {
                self.app.limit += STEP;
                self.is_stale = true;
            }
        }
        Ok(())
    }

    /// Whether the conversation does not fill the screen although the server has more of it.
    fn is_short(&self) -> bool {
        self.app.wants_more && self.app.history.has_gap
    }

    // Input

    /// Handles an input; returns whether to go on.
    fn on_input(&mut self, input: Key) -> Result<bool, Failure> {
        self.is_stale = true;
        let action = match input {
            Key::Key(key) if key.kind != KeyEventKind::Release => self.app.on_key(key),
            Key::Paste(text) => {
                self.app.on_paste(&text);
                None
            }
            _ => None,
        };
        match action {
            None => {}
            Some(Action::Quit) => return Ok(false),
            Some(Action::Typing(conv)) => self.client.typing(conv)?,
            Some(Action::Opened) => self.opened(),
            Some(Action::Send(conv, text)) => {
                if let Err(error) = self.client.send(conv, &text) {
                    self.app.notice = Some(error.to_string());
                    self.app.write_again(&text);
                }
            }
            Some(Action::Do(command)) => self.do_command(command)?,
        }
        Ok(true)
    }

    /// Looks up the names in the conversation that was just opened.
    fn opened(&mut self) {
        self.asked_below = None;
        let Some(conv) = self.app.open else { return };
        let needs_name = !self.app.conversations.iter().any(|row| row.conv == conv && row.name.is_some());
        match conv {
            Conv::Group(group) => self.in_background(move |client| client.members(group).map(|_| None)),
            Conv::User(user) if needs_name => {
                self.in_background(move |client| client.search(&user.to_string()).map(|_| None));
            }
            Conv::User(_) => {}
        }
    }

    /// Sends a request to the server without blocking the screen.
    fn in_background(&self, ask: impl FnOnce(&Client) -> raybox_client::Result<Option<News>> + Send + 'static) {
        let (client, tell) = (self.client.clone(), self.tell.clone());
        let thread = thread::Builder::new().name("ask".to_owned()).spawn(move || {
            let news = match ask(&client) {
                Ok(news) => news,
                // A name that cannot be looked up now is looked up next time.
                Err(Error::Offline | Error::Interrupted) => {
                    Some(News::Notice("not connected: try again later".to_owned()))
                }
                Err(error) => Some(News::Notice(error.to_string())),
            };
            // The screen may be gone by now.
            news.map(|news| tell.send(news));
        });
        if let Err(error) = thread {
            let _ = self.tell.send(News::Notice(error.to_string()));
        }
    }

    // Commands

    fn do_command(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Open(name) => self.with_conv(name, |_, conv| Ok(Some(News::Open(conv)))),
            Command::Add(name) => self.with_user(name, add),
            Command::Accept(Some(name)) => self.with_user(name, add),
            Command::Block(Some(name)) => self.with_user(name, |client, user| block(client, user, true)),
            Command::Unblock(Some(name)) => self.with_user(name, |client, user| block(client, user, false)),
            Command::Accept(None) => self.with_partner(add),
            Command::Block(None) => self.with_partner(|client, user| block(client, user, true)),
            Command::Unblock(None) => self.with_partner(|client, user| block(client, user, false)),
            Command::Friends => self.in_background(|client| {
                let found = client.friends()?;
                let friends = found.users.iter().map(|user| user.name.clone());
                let groups = found.groups.iter().map(|group| format!("#{}", group.name));
                let names: Vec<String> = friends.chain(groups).collect();
                notice(if names.is_empty() {
                    "no friends and groups yet: /add NAME".to_owned()
                } else {
                    names.join(", ")
                })
            }),
            Command::Create(name) => {
                self.in_background(move |client| client.create_group(&name, "").map(News::Open).map(Some))
            }
            Command::Join(name) => self.in_background(move |client| join(client, &name)),
            Command::Leave => self
                .with_group(|client, group| client.leave_group(group).and_then(|()| notice("you have left the group"))),
            Command::Members => self.with_group(|client, group| {
                let members = client.members(group)?;
                let names =
                    members.iter().map(|member| format!("{}{}", member.name, if member.is_creator { "*" } else { "" }));
                notice(names.collect::<Vec<_>>().join(", "))
            }),
            Command::Rename(name) => {
                self.with_group(move |client, group| client.rename_group(group, &name).map(|()| None))
            }
            Command::Invite(name) => self.with_group(move |client, group| {
                with_found_user(client, &name, |client, user| client.add_member(group, user).map(|()| None))
            }),
            Command::Remove(name) => self.with_group(move |client, group| {
                with_found_user(client, &name, |client, user| client.remove_member(group, user).map(|()| None))
            }),
            Command::Edit(text) => return self.change_last(Some(text)),
            Command::Recall => return self.change_last(None),
            Command::Discard => {
                let refused = self.app.pending.iter().filter(|pending| pending.refused.is_some());
                for pending in refused {
                    self.client.discard(&pending.cid)?;
                }
            }
            // The app carries these out itself.
            Command::Help | Command::Quit => {}
        }
        Ok(())
    }

    /// Edits or recalls the last own text of the open conversation.
    fn change_last(&mut self, text: Option<String>) -> Result<(), Failure> {
        let me = self.app.me;
        let is_own =
            |message: &&raybox_client::Message| message.from == me && matches!(message.content(), Content::Text(_));
        let last = self.app.history.messages.iter().rev().find(is_own).map(|message| message.seq);
        let (Some(conv), Some(seq)) = (self.app.open, last) else {
            self.app.notice = Some("there is no message of yours here".to_owned());
            return Ok(());
        };
        let done = match &text {
            Some(text) => self.client.edit(conv, seq, text),
            None => self.client.recall(conv, seq),
        };
        match (done, text) {
            // The typed text goes back into the input line, so nothing is lost.
            (Err(error @ Error::TooLong { .. }), Some(text)) => {
                self.app.notice = Some(error.to_string());
                self.app.input.set(format!("/edit {text}"));
                Ok(())
            }
            (done, _) => Ok(done.map(drop)?),
        }
    }

    fn with_conv(
        &self,
        name: String,
        then: impl FnOnce(&Client, Conv) -> raybox_client::Result<Option<News>> + Send + 'static,
    ) {
        self.in_background(move |client| match client.find(&name)? {
            Some(conv) => then(client, conv),
            None => notice(unknown(&name)),
        });
    }

    fn with_user(
        &self,
        name: String,
        then: impl FnOnce(&Client, i64) -> raybox_client::Result<Option<News>> + Send + 'static,
    ) {
        self.in_background(move |client| with_found_user(client, &name, then));
    }

    fn with_partner(
        &mut self,
        then: impl FnOnce(&Client, i64) -> raybox_client::Result<Option<News>> + Send + 'static,
    ) {
        match self.app.open {
            Some(Conv::User(user)) => self.in_background(move |client| then(client, user)),
            _ => self.app.notice = Some("open the conversation with the user, or name the user".to_owned()),
        }
    }

    fn with_group(&mut self, then: impl FnOnce(&Client, i64) -> raybox_client::Result<Option<News>> + Send + 'static) {
        match self.app.open {
            Some(Conv::Group(group)) => self.in_background(move |client| then(client, group)),
            _ => self.app.notice = Some("open a group first: /open NAME".to_owned()),
        }
    }
}

fn notice(text: impl Into<String>) -> raybox_client::Result<Option<News>> {
    Ok(Some(News::Notice(text.into())))
}

fn with_found_user(
    client: &Client,
    name: &str,
    then: impl FnOnce(&Client, i64) -> raybox_client::Result<Option<News>>,
) -> raybox_client::Result<Option<News>> {
    match client.find(name)? {
        Some(Conv::User(user)) => then(client, user),
        Some(Conv::Group(_)) => notice(format!("{name} is a group")),
        None => notice(unknown(name)),
    }
}

fn add(client: &Client, user: i64) -> raybox_client::Result<Option<News>> {
    match client.add_friend(user)? {
        Friendship::Made => Ok(Some(News::Open(Conv::User(user)))),
        Friendship::Asked => notice("asked: you are friends when the other accepts"),
    }
}

fn block(client: &Client, user: i64, block: bool) -> raybox_client::Result<Option<News>> {
    client.block(user, block)?;
    notice(if block { "blocked: this user cannot write to you" } else { "no longer blocked" })
}

fn join(client: &Client, name: &str) -> raybox_client::Result<Option<News>> {
    let group = match name.parse() {
        Ok(Conv::Group(group)) => Some(group),
        _ => {
            let found = client.search(name)?.groups;
            found.iter().find(|group| group.name.to_lowercase() == name.to_lowercase()).map(|group| group.id)
        }
    };
    let Some(group) = group else { return notice(format!("no group is called {name}")) };
    client.join_group(group)?;
    Ok(Some(News::Open(Conv::Group(group))))
}
