//! The `chat` program against a real server, as a user and a script run it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use std::{env, process};

use serde_json::{Value, json};
use testkit::jwt::{JwtIssuer, in_seconds};
use testkit::{LONG_PATIENCE, TestServer, output_within, wait_until};

/// A folder for data files, removed at the end, and the address of a server.
struct Desk {
    folder: PathBuf,
    server: String,
}

impl Desk {
    fn new(server: &TestServer) -> Desk {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("raybox-chat-test-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        Desk { folder, server: server.address().to_string() }
    }

    /// A command that runs `chat` as this user.
    fn chat(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat"));
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
            command.env_remove(variable);
        }
        command.args(arguments).arg("--server").arg(&self.server).arg("--data").arg(self.folder.join(user));
        command.stdin(Stdio::null()).env("RAYBOX_PASSWORD", format!("pw-{user}")).env("TZ", "UTC");
        command
    }

    fn run(&self, user: &str, arguments: &[&str]) -> Output {
        output_within(LONG_PATIENCE, &mut self.chat(user, arguments)).expect("it runs")
    }

    /// Runs `chat`, which must succeed. Returns its standard output.
    fn succeed(&self, user: &str, arguments: &[&str]) -> String {
        let output = self.run(user, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout)
    }

    /// Runs `chat`, which must exit with this code. Returns its error output.
    fn fail(&self, user: &str, code: i32, arguments: &[&str]) -> String {
        let output = self.run(user, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        text(&output.stderr)
    }

    /// The texts that `tail --once --json` prints.
    fn tail(&self, user: &str) -> Vec<String> {
        texts(&self.succeed(user, &["tail", "--once", "--json"]))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process that is killed at the end.
struct Running(Child);

impl Running {
    fn kill9(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The texts in lines of JSON. A process that was killed may leave half a line at the end, which is
/// ignored.
fn texts(lines: &str) -> Vec<String> {
    let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().filter_map(|text| line(text)["text"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_shell_speaks_tls_with_a_server_that_it_trusts() {
    let certificate = testkit::tls::Certificate::of("localhost");
    let cert = certificate.in_one_file();
    let server = TestServer::builder().file("cert.pem", cert).option("tls_cert", "cert.pem").start();
    let mut desk = Desk::new(&server);
    desk.server = format!("tls://localhost:{}", server.address().port());
    let ca = server.folder().join("cert.pem").display().to_string();
    for user in ["ann", "bob"] {
        desk.succeed(user, &["register", user, "--ca", &ca]);
    }
    desk.succeed("ann", &["send", "u2", "hello", "--ca", &ca]);
    assert_eq!(texts(&desk.succeed("bob", &["tail", "--once", "--json", "--ca", &ca])), ["hello"]);
    assert!(desk.fail("cat", 1, &["register", "cat"]).contains("the server's certificate is not trusted"));
    assert!(desk.fail("cat", 1, &["register", "cat", "--ca", "/no/such/file"]).contains("/no/such/file"));
}

#[test]
fn two_users_write_from_the_shell() {
    let server = TestServer::start();
    let desk = Desk::new(&server);
    assert!(desk.fail("ann", 1, &["send", "u2", "hello"]).contains("chat register NAME"));
    assert_eq!(desk.succeed("ann", &["register", "ann"]), "registered and logged in as ann (user 1)\n");
    assert_eq!(desk.succeed("bob", &["register", "bob"]), "registered and logged in as bob (user 2)\n");
    assert!(desk.fail("ann", 1, &["register", "ann"]).contains("the name is taken"));
    assert!(desk.fail("cat", 1, &["login", "ann"]).contains("the name or the password is wrong"));
    assert!(desk.fail("ann", 1, &["send", "nobody", "hello"]).contains("name a user by number"));

    assert!(desk.fail("no/such/folder", 1, &["login", "ann"]).contains("give another data file with --data FILE"));

    desk.succeed("ann", &["send", "u2", "hello bob"]);
    let printed = desk.succeed("bob", &["tail", "--once"]);
    assert!(printed.ends_with(" ann: hello bob\n"), "{printed}");
    assert_eq!(desk.succeed("bob", &["tail", "--once"]), "", "it is printed once");
    // This send names the user, which works once they know each other, and reads standard input.
    let mut send = desk.chat("bob", &["send", "ann"]).stdin(Stdio::piped()).spawn().expect("it runs");
    send.stdin.take().expect("a pipe").write_all(b"two\nlines \x1b[2J\x7f\n").expect("written");
    assert!(send.wait().expect("it ends").success());
    let printed = desk.succeed("ann", &["tail", "--once"]);
    assert!(printed.ends_with("bob: two lines \u{241b}[2J\u{2421}\n"), "nothing acts on the terminal: {printed:?}");
    desk.succeed("bob", &["send", "ann", "\u{9b}31m\u{202e}"]);
    let printed = desk.succeed("ann", &["tail", "--once", "--json"]);
    assert!(!printed.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{printed:?}");
    assert_eq!(texts(&printed), ["\u{9b}31m\u{202e}"]);

    desk.succeed("ann", &["logout"]);
    assert!(desk.fail("ann", 1, &["tail", "--once"]).contains("chat login NAME"));
    desk.succeed("ann", &["login", "ann"]);
}

#[test]
fn a_message_waits_for_the_server() {
    let mut server = TestServer::builder().fixed_port().start();
    let desk = Desk::new(&server);
    desk.succeed("ann", &["register", "ann"]);
    desk.succeed("bob", &["register", "bob"]);
    server.kill9();
    assert!(desk.fail("ann", 3, &["send", "u2", "0", "--timeout", "1"]).contains("it waits in the data file"));
    server.restart();
    desk.succeed("ann", &["send", "u2", "1"]);
    assert_eq!(desk.tail("bob"), ["0", "1"]);
}

#[test]
fn a_send_that_is_killed_is_sent_once_or_never() {
    let server = TestServer::start();
    let desk = Desk::new(&server);
    desk.succeed("ann", &["register", "ann"]);
    desk.succeed("bob", &["register", "bob"]);
    let mut committed = Vec::new();
    for n in 0..12_u64 {
        let mut send = Running(desk.chat("ann", &["send", "u2", &n.to_string()]).spawn().expect("it runs"));
        if n % 3 == 2 {
            assert!(send.0.wait().expect("it ends").success());
            committed.push(n);
        } else {
            // The kill comes before or after the message is in the outbox; both must be right.
            thread::sleep(Duration::from_millis(n * 4));
            send.kill9();
        }
    }
    desk.succeed("ann", &["send", "u2", "12"]);
    let numbers: Vec<u64> = desk.tail("bob").iter().map(|text| text.parse().expect("a number")).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "once and in order: {numbers:?}");
    assert!(committed.iter().all(|n| numbers.contains(n)), "{committed:?} were committed: {numbers:?}");
}

#[test]
fn a_tail_that_is_killed_goes_on_where_it_stopped() {
    let server = TestServer::start();
    let desk = Desk::new(&server);
    desk.succeed("ann", &["register", "ann"]);
    desk.succeed("bob", &["register", "bob"]);
    let mut seen: Vec<u64> = Vec::new();
    let mut sent = 0;
    for round in 0..4 {
        let path = desk.folder.join(format!("printed-{round}"));
        let file = File::create(&path).expect("a file");
        // The first round has no conversation of that name yet.
        let arguments: &[&str] = if round == 0 { &["tail", "--json"] } else { &["tail", "ann", "--json"] };
        let mut tail = Running(desk.chat("bob", arguments).stdout(file).spawn().expect("it runs"));
        for _ in 0..5 {
            desk.succeed("ann", &["send", "u2", &sent.to_string()]);
            sent += 1;
        }
        let printed = |path: &Path| texts(&fs::read_to_string(path).expect("the output"));
        wait_until("it prints", || printed(&path).len() >= 3);
        tail.kill9();
        let numbers: Vec<u64> = printed(&path).iter().map(|text| text.parse().expect("a number")).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        let first = numbers[0];
        let expected = seen.last().map_or(0, |last| last + 1);
        assert!(first <= expected, "goes on at {expected} or before: {numbers:?}");
        seen.extend(numbers.into_iter().filter(|n| *n >= expected));
    }
    let rest = desk.tail("bob");
    let known = seen.len() as u64;
    seen.extend(rest.iter().map(|text| text.parse::<u64>().expect("a number")).filter(|n| *n >= known));
    assert_eq!(seen, (0..sent).collect::<Vec<_>>());
}

#[test]
fn a_message_is_typed_on_a_small_terminal() {
    let server = TestServer::start();
    let desk = Desk::new(&server);
    desk.succeed("ann", &["register", "ann"]);
    desk.succeed("bob", &["register", "bob"]);
    on_a_terminal(&desk.chat("ann", &[]), "type");
    assert_eq!(desk.tail("bob"), ["hello \u{4f60}\u{597d} from a terminal"]);
}

#[test]
fn a_terminal_that_is_closed_ends_chat() {
    let server = TestServer::start();
    let desk = Desk::new(&server);
    desk.succeed("ann", &["register", "ann"]);
    on_a_terminal(&desk.chat("ann", &[]), "close");
}

/// Runs a scenario of `terminal.py`.
fn on_a_terminal(chat: &Command, scenario: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(scenario).arg(chat.get_program()).args(chat.get_args()).env("TZ", "UTC");
    let output =
        output_within(LONG_PATIENCE, &mut python).unwrap_or_else(|error| panic!("this test needs python3: {error}"));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_json_web_token_in_a_file_logs_in_and_a_fresh_one_is_read_when_it_is_needed() {
    let issuer = JwtIssuer::es256();
    let builder = TestServer::builder().file("key.pem", issuer.pem()).option("jwt_key", "key.pem");
    let server = builder.option("jwt_algorithm", "ES256").option("jwt_register", "on").start();
    let desk = Desk::new(&server);
    let file = desk.folder.join("ann.jwt");
    let option = format!("--jwt-file={}", file.display());
    let put = |exp: i64| {
        let jwt = issuer.sign(&json!({"sub": "ann", "exp": in_seconds(exp)}));
        fs::write(&file, format!("{jwt}\n")).expect("write the token");
    };
    assert!(desk.fail("ann", 1, &["login", &option]).contains("cannot read"));
    fs::write(&file, " \n").expect("write nothing");
    assert!(desk.fail("ann", 1, &["login", &option]).contains("is empty"));
    // The token may come from the environment, where its user has forgotten it.
    let mut with_both = desk.chat("ann", &["login", "ann"]);
    let refused = output_within(LONG_PATIENCE, with_both.env("RAYBOX_JWT_FILE", &file)).expect("it runs");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for told in [text(&refused.stderr), desk.fail("ann", 1, &["login", "ann", &option])] {
        assert!(told.contains("give no name") && told.contains("unset RAYBOX_JWT_FILE"), "{told}");
    }
    let told = desk.fail("ann", 1, &["login", "--password-file", "/no/such/file", &option]);
    assert!(told.contains("--password-file and a JSON web token exclude each other"), "{told}");
    assert!(desk.fail("ann", 1, &["login"]).contains("chat login NAME"));
    // It has expired, but within the leeway: so the server's own login has expired as well.
    put(-5);
    assert_eq!(desk.succeed("ann", &["login", &option]), "logged in as ann (user 1)\n");
    assert!(desk.fail("ann", 1, &["tail", "--once"]).contains("log in again"));
    put(3600);
    desk.succeed("ann", &["tail", "--once", &option]);
    // The data file has a login now.
    desk.succeed("ann", &["tail", "--once"]);
}
