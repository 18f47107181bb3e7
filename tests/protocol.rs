//! docs/protocol.md and examples/client.py: the server behaves as they describe.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
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

/// The users of the examples, by the names of their connections.
#[derive(Default)]
struct Cast {
    clients: BTreeMap<String, TestClient>,
}

impl Cast {
    fn client(&mut self, name: &str, server: &TestServer) -> &mut TestClient {
        self.clients.entry(name.to_owned()).or_insert_with(|| TestClient::connect_lines(server))
    }

    /// Plays one line of a block.
    fn play(&mut self, line: &str, server: &TestServer) {
        let (name, rest) = line.split_at(line.find(['>', '<', ' ']).expect("a name and what it does"));
        let client = self.client(name, server);
        match rest.split_at(2) {
            ("> ", frame) => client.send_text(frame),
            ("< ", frame) => client.expect_text(frame),
            _ => match rest {
                " (connects)" => {}
                " (hears nothing)" => client.ack_barrier(),
                " (is disconnected)" => client.expect_eof(),
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
    let blocks = examples(&read("docs/protocol.md"));
    let (talk, errors): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.options.is_empty());
    assert!(talk.len() > 20 && errors.len() > 2, "{} and {} blocks of examples", talk.len(), errors.len());
    let server = TestServer::start();
    let mut cast = Cast::default();
    for line in talk.iter().flat_map(|block| &block.lines) {
        cast.play(line, &server);
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
        let server = builder.clone().start();
        let begun = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut cast = Cast::default();
            block.lines.iter().for_each(|line| cast.play(line, &server));
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
    assert_eq!(examples(&read("docs/protocol.md")), examples(&read("docs/protocol.zh-CN.md")));
}

/// The error texts of the server, taken from its source.
fn error_texts() -> Vec<String> {
    let source = read("src/protocol/reply.rs");
    let product = source.split("#[cfg(test)]").next().expect("the part before the tests");
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
