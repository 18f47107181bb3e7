//! docs/protocol.md, docs/level2.md and examples/client.py: the server behaves as they describe,
//! and the two pages describe all that it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use testkit::{LONG_PATIENCE, TestClient, TestServer, chat, exit_within, user, wait_within};

/// One fenced block of examples, and the options that its server needs.
#[derive(PartialEq, Debug)]
struct Block {
    options: String,
    lines: Vec<String>,
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The examples of a document, from ```` ```wire ```` to ```` ``` ````.
fn examples(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(options) = line.strip_prefix("```wire") {
            let lines = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            blocks.push(Block { options: options.trim().to_owned(), lines });
        }
    }
    blocks
}

/// The values that a server chose, by the names that the examples give them.
#[derive(Default)]
struct Chosen(BTreeMap<String, String>);

impl Chosen {
    /// The line with values in the place of names such as `$tag1`.
    fn fill(&self, line: &str) -> String {
        let mut parts = line.split('$');
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for (name, literal) in parts.map(named) {
            filled.push_str(self.0.get(name).unwrap_or_else(|| panic!("${name} has no value yet: {line}")));
            filled.push_str(literal);
        }
        filled
    }

    /// Whether a received text is what the example says. A new name gets its value.
    fn agrees(&mut self, example: &str, received: &str) -> bool {
        let mut parts = example.split('$');
        let Some(mut rest) = received.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        for (name, literal) in parts.map(named) {
            let of_value = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let (value, after) = rest.split_at(rest.find(|c| !of_value(c)).unwrap_or(rest.len()));
            let known = self.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            let Some(after) = after.strip_prefix(literal).filter(|_| !value.is_empty() && known == value) else {
                return false;
            };
            rest = after;
        }
        rest.is_empty()
    }
}

/// A name, and the text behind it.
fn named(part: &str) -> (&str, &str) {
    part.split_at(part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len()))
}

/// The users of the examples, by the names of their connections.
#[derive(Default)]
struct Cast {
    clients: BTreeMap<String, TestClient>,
    chosen: Chosen,
}

impl Cast {
    fn client(&mut self, name: &str, server: &TestServer) -> &mut TestClient {
        self.clients.entry(name.to_owned()).or_insert_with(|| TestClient::connect_lines(server))
    }

    /// Plays one line of a block.
    fn play(&mut self, line: &str, server: &mut TestServer) {
        if line == "server (is killed and started again)" {
            server.restart();
            return self.clients.clear();
        }
        let (name, rest) = line.split_at(line.find(['>', '<', ' ']).expect("a name and what it does"));
        let client = self.client(name, server);
        match rest.split_at(2) {
            ("> ", frame) => {
                let frame = self.chosen.fill(frame);
                self.client(name, server).send_text(&frame);
            }
            ("< ", frame) => {
                let received = client.recv_text();
                assert!(self.chosen.agrees(frame, &received), "{name} received {received}, not {frame}");
            }
            _ => match rest {
                " (connects)" => {}
                " (hears nothing)" => client.ack_barrier(),
                " (is disconnected)" => {
                    client.expect_eof();
                    self.clients.remove(name);
                }
                " (disconnects)" => drop(self.clients.remove(name)),
                _ => panic!("what is meant by this? {line}"),
            },
        }
    }

    /// Checks that no user has received anything else.
    fn end(self) {
        for (name, mut client) in self.clients {
            if !client.has_ended() {
                let more = client.recv_pushes();
                assert!(more.is_empty(), "{name} also received {more:?}");
            }
        }
    }
}

#[test]
fn every_example_is_what_the_server_says() {
    play("docs/protocol.md", 20);
}

#[test]
fn every_example_of_level_2_is_what_the_server_says() {
    play("docs/level2.md", 10);
}

/// Plays a page with at least so many blocks without options, all of them on one server.
fn play(page: &str, least: usize) {
    let blocks = examples(&read(page));
    let (talk, errors): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.options.is_empty());
    assert!(talk.len() >= least && errors.len() > 1, "{} and {} blocks of examples", talk.len(), errors.len());
    let mut server = TestServer::start();
    let mut cast = Cast::default();
    for line in talk.iter().flat_map(|block| &block.lines) {
        cast.play(line, &mut server);
    }
    cast.end();
    errors.into_iter().for_each(play_errors);
}

/// Plays a block on a server of its own. Some errors end after the seconds that they name. So a
/// block that fails after more than a second is retried.
fn play_errors(block: &Block) {
    const ATTEMPTS: usize = 5;
    let mut builder = TestServer::builder();
    let words: Vec<_> = block.options.split(' ').collect();
    for option in words.chunks(2) {
        builder = builder.option(option[0].trim_start_matches("--"), option[1]);
    }
    for attempt in 1..=ATTEMPTS {
        let mut server = builder.clone().start();
        let begun = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut cast = Cast::default();
            block.lines.iter().for_each(|line| cast.play(line, &mut server));
            cast.end();
        }));
        let Err(panic) = played else { return };
        if begun.elapsed() < Duration::from_secs(1) || attempt == ATTEMPTS {
            resume_unwind(panic);
        }
    }
}

#[test]
fn both_languages_have_the_same_examples() {
    for (english, chinese) in PAGES {
        assert_eq!(examples(&read(english)), examples(&read(chinese)), "{english}");
    }
}

/// The pages in English and in Chinese.
const PAGES: [(&str, &str); 2] =
    [("docs/protocol.md", "docs/protocol.zh-CN.md"), ("docs/level2.md", "docs/level2.zh-CN.md")];

/// The text of a file before its inline tests.
fn product(name: &str) -> String {
    let source = read(name);
    source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// The error texts of level 1, taken from the source.
fn error_texts() -> Vec<String> {
    let product = product("src/protocol/reply.rs") + &product("src/server/foreign.rs");
    let mut texts = Vec::new();
    for opening in ["errmsg\":\"", "errmsg\\\":\\\"", "302,\"msg\":\"", "later(\""] {
        for rest in product.split(opening).skip(1) {
            let text = rest.split(['"', '\\']).next().unwrap_or_default();
            // The texts for `later` are found at its calls.
            if text != "{errmsg}" {
                texts.push(text.to_owned());
            }
        }
    }
    texts
}

#[test]
fn every_error_is_documented() {
    let texts = error_texts();
    assert!(texts.len() > 20, "{texts:?}");
    for document in ["docs/protocol.md", "docs/protocol.zh-CN.md"] {
        let written = read(document);
        for text in &texts {
            assert!(written.contains(&format!("`{text}`")), "{document} does not have the error {text:?}");
        }
    }
}

/// The sources of the server that run in production.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("list a folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_of_tests = ["tests", "tests.rs", "simulation", "simulation.rs", "fuzzing", "fuzzing.rs"].contains(&name);
        match path.is_dir() {
            _ if is_of_tests => {}
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The `errno` and the text of every refusal of level 2, taken from the source.
fn refusals() -> BTreeSet<(String, String)> {
    let (root, mut files) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
    sources(&root.join("src"), &mut files);
    let mut found = BTreeSet::new();
    for file in files {
        let name = file.strip_prefix(root).expect("a file of the package").to_str().expect("a name in ASCII");
        let text = product(name);
        let mut add = |rest: &str, errno: Option<&str>, skip: usize| {
            let first = rest.split(',').next().unwrap_or_default().trim();
            let text = rest.split('"').nth(2 * skip + 1).unwrap_or_default();
            let errno = errno.unwrap_or(first);
            if errno.parse::<u16>().is_ok() {
                found.insert((errno.to_owned(), text.to_owned()));
            }
        };
        text.split("Refusal::forever(").skip(1).for_each(|rest| add(rest, None, 0));
        text.split("Refusal { errno: ").skip(1).for_each(|rest| add(rest, None, 0));
        if name.starts_with("src/protocol/level2/") {
            text.split("bad(\"").skip(1).for_each(|rest| add(&format!("\"{rest}"), Some("400"), 0));
            // The reasons of a 55: the number, the word, the text.
            text.split("=> (").skip(1).for_each(|rest| add(rest, None, 1));
        }
    }
    found
}

#[test]
fn every_refusal_of_level_2_is_documented() {
    let refusals = refusals();
    assert!(refusals.len() > 80, "{refusals:#?}");
    let pages = [PAGES.map(|(english, _)| read(english)), PAGES.map(|(_, chinese)| read(chinese))];
    for pages in pages {
        let rows: Vec<&str> = pages.iter().flat_map(|page| page.lines()).collect();
        let is_there = |(errno, text): &&(String, String)| {
            let (start, text) = (format!("| {errno} | "), format!("`{text}`"));
            rows.iter().any(|row| row.starts_with(&start) && row.contains(&text))
        };
        let missing: Vec<_> = refusals.iter().filter(|refusal| !is_there(refusal)).collect();
        assert!(missing.is_empty(), "no table has {missing:#?}");
    }
}

/// What the examples send and receive: the lines with this mark behind the name.
fn spoken(mark: &str) -> Vec<String> {
    let blocks: Vec<Block> = PAGES.iter().flat_map(|(english, _)| examples(&read(english))).collect();
    let lines = blocks.iter().flat_map(|block| &block.lines);
    lines.filter_map(|line| line.split_once(mark)).map(|(_, frame)| frame.to_owned()).collect()
}

#[test]
fn every_request_has_an_example() {
    let type_of = |frame: &String| serde_json::from_str::<serde_json::Value>(frame).ok()?["msgType"].as_i64();
    let sent: BTreeSet<i64> = spoken("> ").iter().filter_map(type_of).collect();
    let kinds = product("src/protocol/kinds.rs");
    let (_, names) = kinds.split_once("impl FrameKind {").expect("the kinds of frames");
    let level1 = names.split(';').nth(1).expect("their names").split('"').filter_map(|name| name.parse::<i64>().ok());
    let level2 = (46..=49).chain(51..=54).chain([58]).chain(60..=69);
    let missing: Vec<i64> = level1.chain(level2).filter(|number| !sent.contains(number)).collect();
    assert!(sent.len() > 30 && missing.is_empty(), "no example sends {missing:?}");
}

/// Replies of level 1 that no example can provoke; the tables have their texts.
const NOT_PROVOKED: [&str; 1] = ["busy_for"];

/// Part of what each constructor of a reply of level 1 makes.
const REPLIES: [(&str, &str); 22] = [
    ("login_later", r#""errmsg":"too many wrong passwords"#),
    ("register_later", r#""errmsg":"too many new accounts"#),
    ("busy_for", ""),
    ("registered", r#"{"USERID":1,"errno":200,"#),
    ("friend_added", r#"{"errno":200,"msgType":6,"name":"ann","userId":"#),
    ("friend_asked", r#"{"errno":202,"msgType":6,"#),
    ("friend_blocked", r#""errmsg":"this user does not take requests from you""#),
    ("friend_no_room", r#""errmsg":"you or this user have too many conversations for another one""#),
    ("new_friend", r#"{"errno":200,"msgType":6,"name":"bob","new":true,"#),
    ("friend_request", r#"{"ask":true,"errno":200,"msgType":6,"#),
    ("no_such_user", r#""errmsg":"no such user""#),
    ("not_yourself", r#""errmsg":"cannot add yourself""#),
    ("no_such_group", r#""errmsg":"no such group""#),
    ("group_full", r#""errmsg":"the group has as many members as it may","errno":403,"groupId""#),
    ("too_many_groups_to_join", r#""errmsg":"you are in too many groups for another one","errno":403,"groupId""#),
    ("may_not_join", r#""errmsg":"only the creator of the group can add you""#),
    ("contacts", r#""friends":[{"id":"2","isGroup":"0""#),
    ("joined", r#"{"errno":200,"groupId":1,"msgType":10,"#),
    ("groups", r#""groups":[{"desc":"#),
    ("group_created", r#"{"GROUPID":1,"errno":200,"#),
    ("messages", r#""msgType":14,"msgs":["{"#),
    ("search_results", r#""results":[{"id":"#),
];

#[test]
fn every_reply_of_level_1_has_an_example() {
    let source = product("src/protocol/reply.rs");
    let heads = source.split("pub fn ").skip(1).filter_map(|rest| rest.split_once(" {\n").map(|(head, _)| head));
    let made: BTreeSet<&str> =
        heads.filter(|head| head.ends_with("-> String")).filter_map(|head| head.split(['(', '<']).next()).collect();
    assert_eq!(made, REPLIES.iter().map(|(name, _)| *name).collect(), "the list of replies");
    let received = spoken("< ");
    let is_shown =
        |(name, part): &&(&str, &str)| NOT_PROVOKED.contains(name) || received.iter().any(|frame| frame.contains(part));
    let missing: Vec<_> = REPLIES.iter().filter(|reply| !is_shown(reply)).collect();
    assert!(missing.is_empty(), "no example receives {missing:#?}");
}

#[test]
fn every_frame_and_member_of_level_2_has_an_example() {
    let source = product("src/protocol/level2/frames.rs") + &product("src/protocol/level2/replies.rs");
    let mut members = BTreeSet::new();
    for call in [".value(\"", ".text(\"", ".plain(\"", ".maybe(\"", ".flag(\"", ".list(\"", ".json(\""] {
        members.extend(source.split(call).skip(1).filter_map(|rest| rest.split('"').next()));
    }
    let mut parts: Vec<String> = members.iter().map(|member| format!("\"{member}\":")).collect();
    let numbers = source.split(".value(\"msgType\", ").skip(1).filter_map(|rest| rest.split(')').next());
    parts.extend(numbers.filter(|number| number.parse::<u16>().is_ok()).map(|number| format!("\"msgType\":{number}")));
    let received = spoken("< ");
    let is_shown = |part: &&String| received.iter().any(|frame| frame.contains(*part));
    let missing: Vec<&String> = parts.iter().filter(|part| !is_shown(part)).collect();
    assert!(parts.len() > 60 && missing.is_empty(), "no example receives {missing:?}");
}

/// The example client as a user runs it, with typed and printed lines.
struct Example {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Example {
    fn start(address: SocketAddr, words: &[&str]) -> Example {
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/client.py"));
        command.arg(address.ip().to_string()).arg(address.port().to_string()).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start python3");
        let (printed, stdout) = (Arc::new(Mutex::new(String::new())), child.stdout.take().expect("a pipe"));
        let text = printed.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                text.lock().expect("what was printed").push_str(&format!("{line}\n"));
            }
        });
        Example { child, printed }
    }

    fn types(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{line}").expect("type a line");
    }

    /// How often the client has printed this line.
    fn count(&self, line: &str) -> usize {
        self.printed.lock().expect("what was printed").lines().filter(|printed| *printed == line).count()
    }

    fn wait(&self, line: &str, times: usize) {
        wait_within(LONG_PATIENCE, line, || self.count(line) >= times);
    }

    /// Closes the client's input; it must exit with success.
    fn finish(&mut self) {
        drop(self.child.stdin.take());
        let status = exit_within(LONG_PATIENCE, &mut self.child);
        assert!(status.success(), "{status}");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_example_client_chats_and_survives_a_killed_server() {
    let mut server = TestServer::builder().fixed_port().start();
    for (name, id) in [("ann", "1"), ("bob", "2")] {
        let mut newcomer = Example::start(server.address(), &["new", name, "secret"]);
        newcomer.finish();
        newcomer.wait(id, 1);
    }
    let (mut cat, c) = user(&server, "cat");
    cat.send(&chat(c, 2, "stored for bob"));
    cat.barrier();
    drop(cat);
    let bob = Example::start(server.address(), &["chat", "2", "secret"]);
    bob.wait("chat from 3: stored for bob", 1);
    let mut ann = Example::start(server.address(), &["chat", "1", "secret"]);
    bob.wait("connected", 1);
    ann.types("2 hello bob");
    bob.wait("chat from 1: hello bob", 1);
    wait_within(LONG_PATIENCE, "what bob has fetched is deleted", || server.stored_for(2) == 0);
    server.restart();
    ann.types("2 still there?");
    bob.wait("connected", 2);
    bob.wait("chat from 1: still there?", 1);
    ann.types("2 the last one");
    ann.finish();
    bob.wait("chat from 1: the last one", 1);
    for line in ["chat from 3: stored for bob", "chat from 1: hello bob", "chat from 1: still there?"] {
        assert_eq!(bob.count(line), 1, "{line}");
    }
}
