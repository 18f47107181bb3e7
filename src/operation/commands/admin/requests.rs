//! The commands of `server admin`, and the request of each.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::client::AdminRequest;

/// The request to make.
pub(super) struct AdminAction {
    pub(super) request: AdminRequest,
    /// The thing that the request destroys, for which the operator must confirm it.
    pub(super) destroys: Option<String>,
    /// The missing part of the command, without which nothing is asked.
    pub(super) lacks: Option<&'static str>,
}

/// The commands.
pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new("status").about("Shows this node: connections, readiness, whether it is drained"),
        Command::new("drain").about("Has /readyz say that new clients should go to other nodes"),
        Command::new("undrain").about("Ends the drain"),
        Command::new("log-level")
            .about("Shows what is logged, or changes it until the next reload or start")
            .arg(Arg::new("level").value_name("LEVEL").help("Such as debug, or info,net=debug")),
        Command::new("reload")
            .about("Reads log_level, admin_key, admin_hosts, the hook's settings, certificates and JWT keys again, as SIGHUP does"),
        Command::new("connections").about("Lists the connections of this node on which users are logged in").args([
            number("user", "Only those of this user"),
            option("from", "IP", "Only those from this address"),
            number("limit", "At most this many, 1 to 1000; 100 if not given"),
        ]),
        Command::new("close")
            .about("Closes connections of this node; their clients may come back")
            .args([number("user", "Those of this user"), option("from", "IP", "Those from this address")]),
        announcements(),
        trace(),
        Command::new("explain")
            .about("Shows a user: connections, devices, what waits, what has lately gone wrong")
            .arg(id("user", "USER", "The id of the user")),
        users(),
        groups(),
    ]
}

fn announcements() -> Command {
    let command = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("announcements")
        .about("Sends a text to everybody, on every node")
        .subcommand_required(true)
        .subcommands([
            command("send", "Sends TEXT to all users who are logged in, as a chat message of USER").args([
                id("user", "USER", "The id of the sender, an account for this purpose"),
                text("text", "TEXT", "At most 1000 characters"),
                flag("away", "Also to users who are not logged in; they find it later"),
                option("id", "ID", "Its id; a repeat with the same id leaves out users who have the text"),
            ]),
            command("show", "Shows the progress of this node's last announcement"),
            command("stop", "Stops it; what was sent stays"),
        ])
}

fn trace() -> Command {
    Command::new("trace")
        .about("Says where a message is: stored, published, confirmed, written, reported; on all nodes")
        .after_help(TRACE_HELP)
        .args([
            number("user", "The sender; with --conv, from whose side the conversation is named"),
            option("cid", "CID", "The id that the sender has given the message, at level 2"),
            option("conv", "NAME", "The conversation as the user calls it, such as u9 or g3"),
            number("seq", "The number of the message in the conversation"),
            number("to", "The recipient, at level 1"),
            option("at", "TIME", "When it was sent, as 2026-11-30T20:30:12Z or in ms since 1970"),
            option("set", "MESSAGES", "Changes which messages this node traces until it starts again: off, all or 1/N"),
        ])
}

fn users() -> Command {
    let command = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let user = || id("user", "USER", "The id of the user");
    Command::new("users").about("Users, on every node").subcommand_required(true).subcommands([
        command("list", "Lists users by ascending id").args(page()),
        command("find", "Finds the user with this name").arg(text("name", "NAME", "Its name")),
        command("show", "Shows a user with devices and connections").arg(user()),
        command("create", "Makes an account and prints its password")
            .arg(text("name", "NAME", "Its name"))
            .arg(password()),
        command("password", "Sets another password, prints it, and logs the user out everywhere")
            .args([user(), password()]),
        command("logout", "Logs a user out everywhere").arg(user()),
        command("disable", "Lets nobody log in, and logs the user out everywhere").arg(user()),
        command("enable", "Lets the user log in again").arg(user()),
        command("delete", "Deletes an account for ever").arg(user()),
        command("token", "Prints a token of level 2 for a bot, which does not expire; earlier ones of DEVICE end")
            .args([user(), text("device", "DEVICE", "The name of its device")]),
        command("revoke", "Ends the tokens of one device, and logs it out")
            .args([user(), text("device", "DEVICE", "The name of the device; show lists them")]),
    ])
}

fn groups() -> Command {
    let command = |name: &'static str, about: &'static str| Command::new(name).about(about);
    let group = || id("group", "GROUP", "The id of the group");
    let user = |help| id("user", "USER", help);
    Command::new("groups").about("Groups, on every node").subcommand_required(true).subcommands([
        command("list", "Lists groups by ascending id").args(page()),
        command("show", "Shows a group with its members").arg(group()),
        command("remove", "Removes a member, who cannot join again unless the creator allows it")
            .args([group(), user("The member")]),
        command("transfer", "Makes another member the creator").args([group(), user("The new creator")]),
        command("dissolve", "Dissolves a group for ever").arg(group()),
    ])
}

/// The request of the command with these arguments; `None` for an unknown command.
pub(super) fn wanted(command: &str, matches: &ArgMatches) -> Option<AdminAction> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let number = |name: &str| matches.get_one::<u32>(name).copied();
    let get = |path: String| AdminAction::harmless(AdminRequest::new("GET", path));
    let post = |path: String| AdminAction::harmless(AdminRequest::new("POST", path));
    Some(match command {
        "status" => get("/v1/node".into()),
        "drain" | "undrain" => post(format!("/v1/{command}")),
        "log-level" => match text("level") {
            None => get("/v1/log-level".into()),
            Some(level) => AdminAction::harmless(AdminRequest::new("PUT", "/v1/log-level").with("level", level)),
        },
        "reload" => post("/v1/reload".into()),
        "connections" => {
            let query = [("user", number("user").map(|id| id.to_string())), ("address", text("from"))];
            let limit = ("limit", number("limit").map(|limit| limit.to_string()));
            get(with_query("/v1/connections", query.into_iter().chain([limit])))
        }
        "close" => {
            let mut request = AdminRequest::new("POST", "/v1/connections/close");
            if let Some(user) = number("user") {
                request = request.with("user", user);
            }
            if let Some(address) = text("from") {
                request = request.with("address", address);
            }
            let of_user = number("user").map(|user| format!("of user {user}"));
            let from = text("from").map(|address| format!("from {address}"));
            let which: Vec<String> = of_user.into_iter().chain(from).collect();
            let lacks =
                which.is_empty().then_some("say whose connections are to be closed: --user N, --from IP or both");
            let what = format!("close the connections of this node {}", which.join(" "));
            AdminAction { lacks, ..AdminAction::destroying(request, &what) }
        }
        "announcements show" => get("/v1/announcements".into()),
        "announcements stop" => post("/v1/announcements/stop".into()),
        "announcements send" => announcement(matches),
        "trace" => match text("set") {
            Some(set) => AdminAction::harmless(AdminRequest::new("PUT", "/v1/tracing").with("trace", set)),
            None => {
                let numbers = ["user", "seq", "to"].map(|name| (name, number(name).map(|number| number.to_string())));
                let texts = ["cid", "conv"].map(|name| (name, text(name)));
                let at = ("at", text("at").map(|at| milliseconds(&at)));
                let has = |names: &[&str]| names.iter().any(|name| matches.contains_id(name));
                let path = match () {
                    () if has(&["cid"]) => "/v1/trace/cid",
                    () if has(&["conv", "seq"]) => "/v1/trace/conversation",
                    () => "/v1/trace/level1",
                };
                get(with_query(path, numbers.into_iter().chain(texts).chain([at])))
            }
        },
        "explain" => get(format!("/v1/users/{}/explain", number("user").unwrap_or_default())),
        _ => return of_users(command, matches).or_else(|| of_groups(command, matches)),
    })
}

fn announcement(matches: &ArgMatches) -> AdminAction {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let mut request = AdminRequest::new("POST", "/v1/announcements")
        .with("from", matches.get_one::<u32>("user").copied().unwrap_or_default())
        .with("text", text("text").unwrap_or_default());
    let to_away = matches.get_flag("away");
    if to_away {
        request = request.with("away", true);
    }
    if let Some(id) = text("id") {
        request = request.with("id", id);
    }
    let to = if to_away { "every user" } else { "every user who is logged in" };
    AdminAction::destroying(request, &format!("send this text to {to}, and what is sent cannot be taken back"))
}

fn of_users(command: &str, matches: &ArgMatches) -> Option<AdminAction> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let user = || matches.get_one::<u32>("user").copied().unwrap_or_default();
    let of_user = |method, rest: &str| AdminRequest::new(method, format!("/v1/users/{}{rest}", user()));
    let with_password = |request: AdminRequest| match text("password") {
        Some(password) => request.with("password", password),
        None => request,
    };
    Some(match command {
        "users list" => AdminAction::harmless(AdminRequest::new("GET", with_query("/v1/users", page_of(matches)))),
        "users find" => {
            AdminAction::harmless(AdminRequest::new("GET", with_query("/v1/users", [("name", text("name"))])))
        }
        "users show" => AdminAction::harmless(of_user("GET", "")),
        "users create" => {
            let request = AdminRequest::new("POST", "/v1/users").with("name", text("name").unwrap_or_default());
            AdminAction::harmless(with_password(request))
        }
        "users password" => AdminAction::destroying(
            with_password(of_user("POST", "/password")),
            &format!("replace the password of user {} and log the user out everywhere", user()),
        ),
        "users logout" => {
            AdminAction::destroying(of_user("POST", "/logout"), &format!("log user {} out everywhere", user()))
        }
        "users disable" => AdminAction::destroying(
            of_user("POST", "/disable"),
            &format!("disable user {} and log the user out everywhere", user()),
        ),
        "users enable" => AdminAction::harmless(of_user("POST", "/enable")),
        "users delete" => {
            AdminAction::destroying(of_user("DELETE", ""), &format!("delete the account of user {} for ever", user()))
        }
        "users token" => {
            let device = text("device").unwrap_or_default();
            let what = format!("end the tokens that device {device:?} of user {} has, and its connection", user());
            AdminAction::destroying(of_user("POST", "/tokens").with("device", device), &what)
        }
        "users revoke" => {
            let device = text("device").unwrap_or_default();
            let what = format!("end all tokens of device {device:?} of user {}", user());
            AdminAction::destroying(of_user("POST", "/tokens/revoke").with("device", device), &what)
        }
        _ => return None,
    })
}

fn of_groups(command: &str, matches: &ArgMatches) -> Option<AdminAction> {
    let number = |name: &str| matches.try_get_one::<u32>(name).ok().flatten().copied().unwrap_or_default();
    let (group, user) = (number("group"), number("user"));
    let of_group = |method, rest: &str| AdminRequest::new(method, format!("/v1/groups/{group}{rest}"));
    Some(match command {
        "groups list" => AdminAction::harmless(AdminRequest::new("GET", with_query("/v1/groups", page_of(matches)))),
        "groups show" => AdminAction::harmless(of_group("GET", "")),
        "groups remove" => AdminAction::destroying(
            of_group("DELETE", &format!("/members/{user}")),
            &format!("remove user {user} from group {group}"),
        ),
        "groups transfer" => AdminAction::destroying(
            of_group("POST", "/transfer").with("user", user),
            &format!("make user {user} the creator of group {group}, in place of the one it has"),
        ),
        "groups dissolve" => {
            AdminAction::destroying(of_group("DELETE", ""), &format!("dissolve group {group} for ever"))
        }
        _ => return None,
    })
}

fn page_of(matches: &ArgMatches) -> [(&'static str, Option<String>); 2] {
    ["after", "limit"].map(|name| (name, matches.get_one::<u32>(name).map(ToString::to_string)))
}

impl AdminAction {
    fn harmless(request: AdminRequest) -> AdminAction {
        AdminAction { request, destroys: None, lacks: None }
    }

    fn destroying(request: AdminRequest, what: &str) -> AdminAction {
        AdminAction { request, destroys: Some(what.to_owned()), lacks: None }
    }
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn number(name: &'static str, help: &'static str) -> Arg {
    option(name, "N", help).value_parser(clap::value_parser!(u32))
}

fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).required(true).help(help)
}

fn id(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    text(name, value, help).value_parser(clap::value_parser!(u32))
}

fn page() -> [Arg; 2] {
    [number("after", "Only those with a higher id"), number("limit", "At most this many, 1 to 1000; 100 if not given")]
}

fn password() -> Arg {
    option(
        "password",
        "PASSWORD",
        "The password, which others on this machine can see; without it the server makes one",
    )
}

/// The path with these parameters.
fn with_query<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let given = parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// An operator's time in ms since 1970; the server refuses an invalid one.
fn milliseconds(at: &str) -> String {
    at.parse::<jiff::Timestamp>().map_or_else(|_| at.to_owned(), |at| at.as_millisecond().to_string())
}

/// Encodes a text for a query (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

const TRACE_HELP: &str = "\
Examples:
  server trace --user 7 --cid 0198c5aa-6e00-7000-8000-000000000001
  server trace --user 7 --conv u9 --seq 17
  server trace --user 7 --to 9 --at 2026-11-30T20:30:12Z

The key trace in server.cnf, or --set, says what is traced. The nodes of the
cluster are those in admin_nodes; they need the same admin_key.";

/// The options of all commands.
pub(super) fn common() -> [Arg; 6] {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).global(true).help(help)
    };
    [
        option("address", "ADDRESS", "The admin port: a port of this machine, or IP:PORT").global(true),
        flag("json", "Prints the answer as JSON, for scripts"),
        flag("yes", "Asks for no confirmation before it destroys something"),
        flag("offline", "Users and groups of a stopped server: works on its database, without a key"),
        option("data", "DIR", "With --offline: folder of raybox.db; without it that of the settings").global(true),
        flag("force", "With --offline: goes on though servers may use the database (MySQL)"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(line: &str) -> AdminRequest {
        let command = Command::new("server admin").subcommands(commands()).args(common());
        let matches = command.get_matches_from(["server admin"].into_iter().chain(line.split(' ')));
        let (mut name, mut matches) = matches.subcommand().map(|(name, inner)| (name.to_owned(), inner)).expect("one");
        if let Some((inner, of_inner)) = matches.subcommand() {
            (name, matches) = (format!("{name} {inner}"), of_inner);
        }
        wanted(&name, matches).unwrap_or_else(|| panic!("{name}")).request
    }

    /// A command with a value for each argument that it needs.
    fn line_of(outer: &str, command: &Command) -> String {
        let needed = command.get_arguments().filter(|argument| argument.is_required_set()).count();
        format!("{outer} {}{}", command.get_name(), " 7".repeat(needed))
    }

    #[test]
    fn every_command_is_a_request() {
        assert_eq!(asked("status").path, "/v1/node");
        assert_eq!(asked("connections --user 7 --from ::1").path, "/v1/connections?user=7&address=%3A%3A1");
        assert_eq!(asked("close --user 7").body, json!({"user": 7}));
        assert_eq!(asked("close --from ::1").body, json!({"address": "::1"}));
        assert_eq!(asked("log-level debug"), AdminRequest::new("PUT", "/v1/log-level").with("level", "debug"));
        assert_eq!(asked("log-level"), AdminRequest::new("GET", "/v1/log-level"));
        assert_eq!(asked("users list --after 7").path, "/v1/users?after=7");
        assert_eq!(asked("users find a+b").path, "/v1/users?name=a%2Bb");
        assert_eq!(asked("users password 7 --password x").body, json!({"password": "x"}));
        let sent = json!({"from": 7, "text": "x", "away": true, "id": "i"});
        assert_eq!(asked("announcements send 7 x --away --id i").body, sent);
        assert_eq!(asked("users delete 7"), AdminRequest::new("DELETE", "/v1/users/7"));
        assert_eq!(asked("trace --user 7 --conv u9 --seq 17").path, "/v1/trace/conversation?user=7&seq=17&conv=u9");
        assert_eq!(
            asked("trace --user 7 --to 9 --at 1970-01-01T00:00:01Z").path,
            "/v1/trace/level1?user=7&to=9&at=1000"
        );
        assert_eq!(asked("trace --set 1/10").body, json!({"trace": "1/10"}));
        assert_eq!(asked("explain 7").path, "/v1/users/7/explain");
        assert_eq!(asked("groups remove 3 7").path, "/v1/groups/3/members/7");
        assert_eq!(asked("groups transfer 3 7").body, json!({"user": 7}));
        for command in commands() {
            let inner: Vec<String> =
                command.get_subcommands().map(|inner| line_of(command.get_name(), inner)).collect();
            let lines = if inner.is_empty() { vec![line_of("", &command)] } else { inner };
            lines.iter().for_each(|line| drop(asked(line.trim())));
        }
    }
}
