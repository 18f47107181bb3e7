//! `examples/bot.py`, with a token from an administrator.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::{LONG_PATIENCE, TestServer, offline_user, output_within, wait_within};

use crate::desk::{Desk, administered};

/// The example bot, in a folder of its own.
struct Bot {
    child: Child,
    printed: Arc<Mutex<String>>,
}

fn command(server: &TestServer, folder: &Path, token: &str, words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    let address = server.address();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bot.py"));
    command.arg(address.ip().to_string()).arg(address.port().to_string()).arg("answers").args(words);
    command.current_dir(folder).env("RAYBOX_TOKEN", token);
    command
}

impl Bot {
    fn start(server: &TestServer, folder: &Path, token: &str) -> Bot {
        let mut child = command(server, folder, token, &[]).stdout(Stdio::piped()).spawn().expect("start python3");
        let (printed, stdout) = (Arc::new(Mutex::new(String::new())), child.stdout.take().expect("a pipe"));
        let text = printed.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                text.lock().expect("printed lines").push_str(&format!("{line}\n"));
            }
        });
        let bot = Bot { child, printed };
        bot.wait_online(1);
        bot
    }

    fn wait_online(&self, times: usize) {
        let online = || self.printed.lock().expect("printed lines").matches("online as echo").count() >= times;
        wait_within(LONG_PATIENCE, "the bot is online", online);
    }
}

/// Kills it, as a crash would.
impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder(server: &TestServer) -> PathBuf {
    let folder = server.folder().join("bot");
    fs::create_dir(&folder).expect("a folder");
    folder
}

#[test]
fn the_example_bot_answers_each_message_once() {
    let mut server = administered().fixed_port().start();
    let (desk, folder) = (Desk::of(&server), folder(&server));
    let bot = desk.done("POST", "/v1/users", &json!({"name": "echo"}))["id"].as_i64().expect("an id");
    let tokens = format!("/v1/users/{bot}/tokens");
    let token =
        desk.done("POST", &tokens, &json!({"device": "answers"}))["token"].as_str().expect("a token").to_owned();
    let (a, c) = (offline_user(&server, "ann"), offline_user(&server, "cat"));
    let conv = format!("u{bot}");
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    ann.say(&conv, "before its first start");

    let running = Bot::start(&server, &folder, &token);
    ann.say(&conv, "hello");
    ann.until_at(&conv, 3);
    drop(running);
    // Both users write while the bot is offline.
    ann.say(&conv, "are you there?");
    ann.say(&conv, "hey");
    let mut cat = Level2Client::enter(&server, "cat", c, "c1");
    cat.say(&conv, "I am new");
    let running = Bot::start(&server, &folder, &token);
    ann.until_at(&conv, 7);
    cat.until_at(&conv, 2);
    let (ann_store, cat_store) = (ann.leave(), cat.leave());
    // The server restarts while the bot runs.
    server.kill9();
    server.restart();
    running.wait_online(2);
    let mut ann = Level2Client::resume(&server, "ann", "a1", ann_store);
    ann.say(&conv, "again");
    ann.until_at(&conv, 9);
    let expected = [
        "before its first start",
        "hello",
        "You said: hello",
        "are you there?",
        "hey",
        "You said: are you there?",
        "You said: hey",
        "again",
        "You said: again",
    ];
    assert_eq!(ann.store.texts(&conv), expected);
    assert_eq!(cat_store.texts(&conv), ["I am new", "You said: I am new"]);
}

#[test]
fn the_example_bot_sends_a_message_without_a_connection() {
    let server = administered().start();
    let (desk, folder) = (Desk::of(&server), folder(&server));
    let (bot, a) = (offline_user(&server, "echo"), offline_user(&server, "ann"));
    let tokens = format!("/v1/users/{bot}/tokens");
    let token =
        desk.done("POST", &tokens, &json!({"device": "answers"}))["token"].as_str().expect("a token").to_owned();
    let mut ann = Level2Client::enter(&server, "ann", a, "a1");
    let send = |token: &str, to: &str| {
        let mut command = command(&server, &folder, token, &["send", to, "the", "build", "is", "red"]);
        output_within(LONG_PATIENCE, &mut command).expect("run python3")
    };
    let sent = send(&token, &format!("u{a}"));
    assert!(sent.status.success() && String::from_utf8_lossy(&sent.stdout).contains("\"errno\":200"), "{sent:?}");
    ann.until_at(&format!("u{bot}"), 1);
    assert_eq!(ann.store.texts(&format!("u{bot}")), ["the build is red"]);
    for (token, to, says) in [(token.as_str(), "u999999", "404"), ("x", &*format!("u{a}"), "401")] {
        let refused = send(token, to);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(says), "{refused:?}");
    }
    let refused = output_within(LONG_PATIENCE, &mut command(&server, &folder, "x", &[])).expect("run python3");
    assert_eq!(refused.status.code(), Some(1), "a wrong token ends it: {refused:?}");
}
