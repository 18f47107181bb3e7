//! Commands, which begin with a slash.

/// A command that was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Open(String),
    Add(String),
    /// Without a name: the user of the open conversation.
    Accept(Option<String>),
    Friends,
    Create(String),
    Join(String),
    Leave,
    Members,
    Invite(String),
    Remove(String),
    Rename(String),
    Block(Option<String>),
    Unblock(Option<String>),
    /// Changes the last own message of the open conversation.
    Edit(String),
    Recall,
    /// Discards the refused messages of the open conversation.
    Discard,
    Help,
    Quit,
}

/// The text of `/help`.
pub(crate) const HELP: &[&str] = &[
    "Enter sends, Alt-Enter begins a new line",
    "Tab: list of conversations and back",
    "PgUp, PgDn: older and newer messages",
    "Ctrl-N, Ctrl-P: next, previous conversation",
    "Ctrl-C or /quit: end",
    "",
    "\u{2026} waits  \u{2713} sent  \u{2713}\u{2713} delivered  \u{25cf} read  ! refused",
    "",
    "/open NAME    write to somebody, or to a group",
    "/add NAME     make friends, or ask for it",
    "/accept       make friends with the user who asked",
    "/friends      friends and groups",
    "/edit TEXT    change your last message",
    "/recall       take it back",
    "/discard      drop a refused message",
    "/block /unblock [NAME]",
    "/create NAME  a new group",
    "/join NAME    a group, by name or as g3",
    "/members /leave /invite NAME /remove NAME",
    "/rename NAME  the open group",
];

/// Reads a command, without its slash.
///
/// # Errors
/// The advice to the user: the command to type instead.
pub(crate) fn parse(typed: &str) -> Result<Command, String> {
    let (word, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    let rest = rest.trim();
    let needed = |what: &str| {
        if rest.is_empty() { Err(format!("type /{word} {what}")) } else { Ok(rest.to_owned()) }
    };
    let optional = || (!rest.is_empty()).then(|| rest.to_owned());
    Ok(match word {
        "open" | "to" => Command::Open(needed("NAME")?),
        "add" => Command::Add(needed("NAME")?),
        "accept" => Command::Accept(optional()),
        "friends" | "groups" => Command::Friends,
        "create" => Command::Create(needed("NAME")?),
        "join" => Command::Join(needed("NAME")?),
        "leave" => Command::Leave,
        "members" => Command::Members,
        "invite" => Command::Invite(needed("NAME")?),
        "remove" => Command::Remove(needed("NAME")?),
        "rename" => Command::Rename(needed("NAME")?),
        "block" => Command::Block(optional()),
        "unblock" => Command::Unblock(optional()),
        "edit" => Command::Edit(needed("TEXT")?),
        "recall" => Command::Recall,
        "discard" => Command::Discard,
        "help" | "?" => Command::Help,
        "quit" | "q" | "exit" => Command::Quit,
        _ => return Err(format!("there is no /{word}: /help lists the commands; // sends a text with a slash")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_and_others_explained() {
        let table = [
            ("add bob", Ok(Command::Add("bob".to_owned()))),
            ("add  anna maria ", Ok(Command::Add("anna maria".to_owned()))),
            ("accept", Ok(Command::Accept(None))),
            ("accept bob", Ok(Command::Accept(Some("bob".to_owned())))),
            ("edit new text", Ok(Command::Edit("new text".to_owned()))),
            ("quit", Ok(Command::Quit)),
            ("add", Err("type /add NAME".to_owned())),
        ];
        for (typed, expected) in table {
            assert_eq!(parse(typed), expected, "{typed}");
        }
        assert!(parse("dance").is_err_and(|error| error.contains("/help")));
        // Every command in the help text must exist.
        let words = HELP.iter().flat_map(|line| line.split([' ', ':'])).filter_map(|word| word.strip_prefix('/'));
        for word in words.filter(|word| !word.is_empty()) {
            let (plain, with_name) = (parse(word), parse(&format!("{word} x")));
            assert!(plain.is_ok() || with_name.is_ok(), "/{word}");
        }
    }
}
