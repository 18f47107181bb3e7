//! The source of a password: a file, the environment, or the keyboard. It is never the command
//! line, which other users can see.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::{env, fs};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// Reads the password. A `new` one is asked for twice.
pub(crate) fn read(file: Option<&Path>, new: bool) -> Result<String, String> {
    if let Some(file) = file {
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        return first_line(&text).ok_or_else(|| format!("the first line of {} must be the password", file.display()));
    }
    if let Ok(password) = env::var("RAYBOX_PASSWORD") {
        return first_line(&password).ok_or_else(|| "RAYBOX_PASSWORD is empty".to_owned());
    }
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(|error| format!("cannot read the password: {error}"))?;
        return first_line(&line).ok_or_else(|| {
            "no password: give it in RAYBOX_PASSWORD, with --password-file, or as a line on standard input".to_owned()
        });
    }
    let password = ask("Password: ")?;
    if new && ask("Again: ")? != password {
        return Err("the two passwords differ".to_owned());
    }
    Ok(password)
}

/// Reads a JSON web token.
pub(crate) fn jwt(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty: it must hold a JSON web token", file.display())),
        jwt => Ok(jwt.to_owned()),
    }
}

fn first_line(text: &str) -> Option<String> {
    text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

fn ask(prompt: &str) -> Result<String, String> {
    let asked = (|| {
        eprint!("{prompt}");
        io::stderr().flush()?;
        enable_raw_mode()?;
        let typed = type_in();
        disable_raw_mode()?;
        eprintln!();
        typed
    })();
    let password = asked.map_err(|error: io::Error| format!("no password: {error}"))?;
    if password.is_empty() { Err("no password was typed".to_owned()) } else { Ok(password) }
}

fn type_in() -> io::Result<String> {
    let mut typed = String::new();
    loop {
        let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event::read()? else { continue };
        match code {
            _ if kind == KeyEventKind::Release => {}
            KeyCode::Enter => return Ok(typed),
            KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
            }
            KeyCode::Char('u') if modifiers.contains(KeyModifiers::CONTROL) => typed.clear(),
            KeyCode::Char(c) => typed.push(c),
            KeyCode::Backspace => drop(typed.pop()),
            _ => {}
        }
    }
}
