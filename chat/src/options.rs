//! The options of the command line and of the environment.

use std::path::PathBuf;
use std::{env, fs, io};

use clap::{Parser, Subcommand};

/// Chat in a terminal, and for scripts.
///
/// Without a command it shows conversations. The first time: `chat register NAME`, or `chat login
/// NAME`. The password is asked for, or read from RAYBOX_PASSWORD or from a file; it is needed once
/// for each data file. With a JSON web token: `chat login --jwt-file FILE`.
#[derive(Parser, Debug)]
#[command(version)]
pub(crate) struct Options {
    /// The server, as HOST:PORT, or tls://HOST:PORT to speak TLS with it; several addresses, with
    /// commas between them, take turns
    #[arg(long, env = "RAYBOX_SERVER", default_value = "127.0.0.1:6000", global = true)]
    pub(crate) server: String,
    /// Trust the certificates in this PEM file, instead of those of the system
    #[arg(long, env = "RAYBOX_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// The file for messages and the login [default: raybox/chat.db in the folder of your data]
    #[arg(long, value_name = "FILE", global = true)]
    data: Option<PathBuf>,
    /// A file whose first line is the password, for `register` and `login`
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// A file with a JSON web token of your identity provider, with which `chat login` logs in. It
    /// is read again whenever the server wants a fresh one
    #[arg(long, env = "RAYBOX_JWT_FILE", value_name = "FILE", global = true)]
    pub(crate) jwt_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make an account and log in
    Register {
        /// The name of the new account
        name: String,
    },
    /// Log in on this device
    Login {
        /// The name of the account; with --jwt-file there is none, because the token has it
        name: Option<String>,
    },
    /// Log this device out; its messages stay in the data file
    Logout,
    /// Send a text, and wait until it is committed
    ///
    /// Exit code 0: committed. 1: refused. 3: not committed in time; it waits in the data file, and
    /// is sent when chat runs again.
    Send {
        /// A user or a group, by name or as u9 or g3
        to: String,
        /// The text; by default it is read from standard input
        text: Option<String>,
        /// Seconds to wait
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Print new messages of others, and wait for more
    ///
    /// Continues where the last `tail` stopped; the first time, with the unread messages. After a
    /// kill, the last lines may come again; `conv` and `seq` identify them.
    Tail {
        /// Only messages of this user or group
        name: Option<String>,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// Stop when all messages that have come are printed
        #[arg(long)]
        once: bool,
    },
}

impl Options {
    /// Refuses a password that nothing would read.
    pub(crate) fn check(&self) -> Result<(), String> {
        let takes_password = matches!(self.command, Some(Command::Register { .. } | Command::Login { .. }));
        match self.password_file.is_some() && !takes_password {
            true => Err("only register and login take --password-file: log in once with chat login NAME \
                         --password-file FILE, and leave the option out afterwards"
                .to_owned()),
            false => Ok(()),
        }
    }

    /// The options for reaching the server.
    pub(crate) fn client(&self) -> raybox_client::Options {
        let client = raybox_client::Options::new(&self.server);
        match &self.ca {
            Some(ca) => client.ca(ca),
            None => client,
        }
    }

    /// The data file. Its folder is made if it is missing.
    pub(crate) fn data(&self) -> Result<PathBuf, String> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let folder = data_folder(env::var_os("XDG_DATA_HOME"), env::var_os("HOME"));
        let folder =
            folder.ok_or("neither XDG_DATA_HOME nor HOME is set: say where to keep messages with --data FILE")?;
        make_folder(&folder).map_err(|error| format!("cannot make {}: {error}; use --data FILE", folder.display()))?;
        Ok(folder.join("chat.db"))
    }
}

fn make_folder(folder: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The folder of this program; a relative XDG_DATA_HOME is ignored, as its specification says.
fn data_folder(xdg: Option<std::ffi::OsString>, home: Option<std::ffi::OsString>) -> Option<PathBuf> {
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.map(PathBuf::from).filter(|path| path.is_absolute());
    Some(xdg.or_else(|| Some(home?.join(".local/share")))?.join("raybox"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_well_formed() {
        Options::command().debug_assert();
        let options = Options::try_parse_from(["chat", "send", "bob", "--", "-1"]).expect("a text that looks like one");
        assert!(matches!(options.command, Some(Command::Send { text: Some(text), .. }) if text == "-1"));
        assert!(Options::try_parse_from(["chat", "login", "ann", "--password", "x"]).is_err(), "others would see it");
    }

    #[test]
    fn a_password_is_refused_where_nobody_logs_in() {
        let check = |arguments: &[&str]| {
            let all = ["chat", "--password-file", "f"].into_iter().chain(arguments.iter().copied());
            Options::try_parse_from(all).expect("options").check()
        };
        for arguments in [&["send", "bob", "hi"][..], &["tail"], &["logout"], &[]] {
            let why = check(arguments).expect_err("it has no effect");
            assert!(why.contains("chat login NAME --password-file FILE"), "{arguments:?}: {why}");
        }
        assert_eq!(check(&["login", "ann"]), Ok(()));
        assert_eq!(check(&["register", "ann"]), Ok(()));
    }

    #[test]
    fn data_are_stored_in_the_data_folder() {
        let folder = |xdg: &str, home: &str| data_folder(Some(xdg.into()), Some(home.into()));
        assert_eq!(folder("/x", "/h"), Some("/x/raybox".into()));
        assert_eq!(folder("relative", "/h"), Some("/h/.local/share/raybox".into()));
        assert_eq!(data_folder(None, None), None);
    }
}
