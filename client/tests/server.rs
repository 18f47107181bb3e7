//! Clients against a real server, which is killed, stopped and started again while they talk.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use raybox_client::{Client, Content, Conv, End, Error, Event, Friendship, Options, Proof, State, register};
use serde_json::json;
use testkit::jwt::{JwtIssuer, in_seconds};
use testkit::{PATIENCE, TestServer, accept_within, exit_within, wait_until};

/// A folder for data files, which is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("raybox-client-test-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        Folder(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(server: &TestServer, name: &str) -> Options {
    Options::new(server.address().to_string()).password(name, format!("pw-{name}"))
}

/// A new user who is online, and the id.
fn user(server: &TestServer, name: &str) -> (Client, i64) {
    let id = register(&server.address().to_string(), name, &format!("pw-{name}")).expect("registered");
    (online(options(server, name)), id)
}

fn online(options: Options) -> Client {
    let client = Client::open(options).expect("opened");
    client.wait_online(PATIENCE).expect("online");
    client
}

/// All texts of a conversation; what is not in the store is read from the server.
fn texts(client: &Client, conv: Conv) -> Vec<String> {
    let history = client.older(conv, None, 10_000).expect("history");
    assert!(!history.has_gap);
    let text = |message: &raybox_client::Message| match message.content() {
        Content::Text(text) => text,
        other => format!("{other:?}"),
    };
    history.messages.iter().map(text).collect()
}

fn numbered(who: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{who} {n}")).collect()
}

fn of(who: &str, texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| text.starts_with(who)).cloned().collect()
}

#[test]
fn two_clients_talk() {
    let server = TestServer::start();
    let ((ann, ann_id), (bob, bob_id)) = (user(&server, "ann"), user(&server, "bob"));
    let (to_bob, to_ann) = (Conv::User(bob_id), Conv::User(ann_id));
    let seq = ann.send(to_bob, "hello \u{1F600} \u{4f60}\u{597d}").expect("queued").wait(PATIENCE).expect("committed");
    assert_eq!(seq, 1);
    wait_until("the message is there", || texts(&bob, to_ann) == ["hello \u{1F600} \u{4f60}\u{597d}"]);
    let row = bob.conversation(to_ann).expect("a conversation").expect("it is there");
    assert_eq!((row.unread, row.head), (1, 1));
    wait_until("it is delivered", || ann.conversation(to_bob).expect("one").is_some_and(|row| row.peer_recv == 1));
    bob.mark_read(to_ann, 1).expect("marked");
    wait_until("it is read", || ann.conversation(to_bob).expect("one").is_some_and(|row| row.peer_read == 1));
    ann.edit(to_bob, 1, "hello bob").expect("queued").wait(PATIENCE).expect("edited");
    wait_until("the edit is there", || texts(&bob, to_ann) == ["hello bob"]);
    ann.recall(to_bob, 1).expect("queued").wait(PATIENCE).expect("recalled");
    wait_until("it is taken back", || texts(&bob, to_ann) == ["Recalled"]);
    assert_eq!(texts(&ann, to_bob), ["Recalled"]);
    // Typing and presence are seen by others.
    assert_eq!(bob.add_friend(ann_id).expect("added"), Friendship::Made);
    bob.watch(vec![ann_id]).expect("watched");
    wait_for(&bob, "ann is online", |event| *event == Event::Presence { user: ann_id, online: true });
    ann.typing(to_bob).expect("typing");
    wait_for(&bob, "ann types", |event| *event == Event::Typing { conv: to_ann, from: ann_id });
    drop(ann);
    wait_for(&bob, "ann has gone", |event| *event == Event::Presence { user: ann_id, online: false });
}

fn wait_for(client: &Client, what: &str, is_it: impl Fn(&Event) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.events().next_within(left) {
            Some(event) if is_it(&event) => return,
            Some(_) => {}
            None => panic!("waited in vain: {what}"),
        }
    }
}

#[test]
fn friends_groups_and_the_account() {
    let server = TestServer::start();
    let ((ann, ann_id), (bob, bob_id)) = (user(&server, "ann"), user(&server, "bob"));
    let team = ann.create_group("team", "we").expect("created");
    bob.join_group(team.id()).expect("joined");
    assert_eq!(bob.find("TEAM").expect("asked"), Some(team));
    let members = bob.members(team.id()).expect("members");
    let shape: Vec<_> = members.iter().map(|member| (member.id, member.name.as_str(), member.is_creator)).collect();
    assert_eq!(shape, [(ann_id, "ann", true), (bob_id, "bob", false)]);
    ann.send(team, "to all").expect("queued").wait(PATIENCE).expect("committed");
    wait_until("bob has it", || texts(&bob, team).contains(&"to all".to_owned()));
    assert!(matches!(bob.rename_group(team.id(), "x"), Err(Error::Refused { errno: 403, .. })));
    ann.remove_member(team.id(), bob_id).expect("removed");
    let refused = bob.send(team, "still here?").expect("queued").wait(PATIENCE);
    assert!(matches!(refused, Err(Error::Refused { errno: 403, .. })), "{refused:?}");
    let waiting = bob.pending(team, 10).expect("pending");
    assert_eq!(waiting[0].refused.as_ref().map(|refused| refused.0), Some(403));
    assert!(bob.discard(&waiting[0].cid).expect("discarded"));

    ann.block(bob_id, true).expect("blocked");
    assert_eq!(ann.blocked().expect("a list")[0].id, bob_id);
    let refused = bob.send(Conv::User(ann_id), "hello?").expect("queued").wait(PATIENCE);
    assert!(matches!(refused, Err(Error::Refused { errno: 403, .. })), "{refused:?}");
    ann.rename("anna").expect("renamed");
    assert_eq!(ann.devices().expect("devices").len(), 1);
    ann.change_password("pw-ann", "another").expect("changed");
    assert!(matches!(ann.change_password("pw-ann", "x"), Err(Error::Refused { errno: 302, .. })));
    ann.log_out().expect("logged out");
    wait_until("it ends", || ann.state() == State::Ended(End::LoggedOut));
}

#[test]
fn a_wrong_password_ends_a_client_and_a_name_is_taken_once() {
    let server = TestServer::start();
    let address = server.address().to_string();
    register(&address, "ann", "pw-ann").expect("registered");
    assert!(matches!(register(&address, "Ann", "other"), Err(Error::Refused { errno: 500, .. })));
    let client = Client::open(Options::new(&address).password("ann", "wrong")).expect("opened");
    assert!(matches!(client.wait_online(PATIENCE), Err(Error::Refused { errno: 302, .. })));
    assert!(matches!(Client::open(Options::new(&address)), Err(Error::NoAccount)));
}

#[test]
fn a_fresh_jwt_is_fetched_when_the_token_has_expired() {
    let issuer = JwtIssuer::es256();
    let builder = TestServer::builder().file("key.pem", issuer.pem()).option("jwt_key", "key.pem");
    let mut server = builder.option("jwt_algorithm", "ES256").option("jwt_register", "on").fixed_port().start();
    let (folder, fetched) = (Folder::new(), Arc::new(AtomicU64::new(0)));
    let count = fetched.clone();
    let fetch = move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => Err("the provider does not answer".to_owned()),
        // It has expired, but within the leeway. So the token of the server has expired as well.
        _ => Ok(issuer.sign(&json!({"sub": "ann", "exp": in_seconds(-5)}))),
    };
    let options = Options::new(server.address().to_string()).file(folder.file("ann.db")).jwt(fetch);
    let ann = online(options.clone());
    assert_eq!(ann.user().expect("a user").map(|(_, name)| name).as_deref(), Some("ann"));
    assert_eq!(fetched.load(Ordering::Relaxed), 2, "it was tried again");
    server.kill9();
    wait_until("it is offline", || ann.state() != State::Online);
    server.restart();
    wait_until("it is back", || ann.state() == State::Online);
    assert_eq!(fetched.load(Ordering::Relaxed), 3, "the token was refused first");
    drop(ann);
    let wrong = Options::new(server.address().to_string()).jwt(|| Ok("x".to_owned()));
    let client = Client::open(wrong).expect("opened");
    assert!(matches!(client.wait_online(PATIENCE), Err(Error::Refused { errno: 302, .. })));
}

#[test]
fn a_fresh_jwt_takes_the_place_of_the_password() {
    let issuer = JwtIssuer::es256();
    let builder = TestServer::builder().file("key.pem", issuer.pem()).option("jwt_key", "key.pem");
    let server = builder.option("jwt_algorithm", "ES256").option("jwt_register", "on").start();
    let jwt = issuer.sign(&json!({"sub": "ann", "exp": in_seconds(3600)}));
    let fetched = jwt.clone();
    let options = Options::new(server.address().to_string()).jwt(move || Ok(fetched.clone()));
    let ann = online(options.clone());
    assert!(matches!(ann.change_password("no password yet", "word"), Err(Error::Refused { errno: 302, .. })));
    ann.change_password(Proof::Jwt(&jwt), "word").expect("a password");
    let by_word = online(Options::new(server.address().to_string()).password("ann", "word"));
    by_word.change_password("word", "another").expect("changed");
    // The other device was logged out.
    wait_until("it ends", || matches!(ann.state(), State::Ended(_)));
    assert!(matches!(by_word.delete_account("word"), Err(Error::Refused { errno: 302, .. })));
    let id = by_word.user().expect("a user").expect("logged in").0;
    by_word.delete_account(Proof::Jwt(&jwt)).expect("deleted");
    assert_ne!(online(options).user().expect("a user").expect("logged in").0, id, "a new account");
}

#[test]
fn a_file_is_all_that_a_device_needs() {
    let (server, folder) = (TestServer::start(), Folder::new());
    let (ann, ann_id) = user(&server, "ann");
    let bob_id = register(&server.address().to_string(), "bob", "pw-bob").expect("registered");
    let file = folder.file("bob.db");
    drop(online(options(&server, "bob").file(&file)));
    for text in numbered("ann", 350) {
        ann.send(Conv::User(bob_id), &text).expect("queued");
    }
    wait_until("all are committed", || ann.pending_count().expect("a count") == 0);
    // No password: the file has a token. More was missed than comes by itself, so the rest is read
    // in pages.
    let again = Options::new(server.address().to_string()).file(&file);
    let bob = online(again.clone());
    let row = bob.conversation(Conv::User(ann_id)).expect("a conversation").expect("it is there");
    assert_eq!((row.unread, row.head, row.held), (350, 350, 350));
    assert_eq!(texts(&bob, Conv::User(ann_id)), numbered("ann", 350));
    assert!(matches!(Client::open(again.clone()), Err(Error::InUse)));
    // The same device elsewhere, from a copy of the file.
    let copy = folder.file("copy.db");
    for end in ["", "-wal"] {
        fs::copy(folder.file(&format!("bob.db{end}")), folder.file(&format!("copy.db{end}"))).expect("copied");
    }
    let other = online(Options::new(server.address().to_string()).file(copy));
    wait_until("the first one is replaced", || bob.state() == State::Ended(End::Replaced));
    assert_eq!(other.state(), State::Online);
    // Another account does not get into the file.
    drop(bob);
    let intruder = Client::open(options(&server, "ann").file(&file)).expect("opened");
    assert!(matches!(intruder.wait_online(PATIENCE), Err(Error::Refused { errno: 409, .. })));
}

#[test]
fn a_server_that_is_killed_and_comes_back_loses_nothing_and_doubles_nothing() {
    let mut server = TestServer::builder().fixed_port().start();
    let ((ann, ann_id), (bob, bob_id)) = (user(&server, "ann"), user(&server, "bob"));
    let count = 300;
    let sending = |client: &Client, who: &str, to: Conv| {
        for text in numbered(who, count) {
            client.send(to, &text).expect("queued");
        }
    };
    thread::scope(|scope| {
        let senders = [
            scope.spawn(|| sending(&ann, "ann", Conv::User(bob_id))),
            scope.spawn(|| sending(&bob, "bob", Conv::User(ann_id))),
        ];
        for round in 1..=3 {
            let head = || bob.conversation(Conv::User(ann_id)).expect("one").map_or(0, |row| row.head);
            wait_until("they talk", || head() >= round * 60);
            server.kill9();
            server.restart();
            ann.hurry().expect("hurried");
            bob.hurry().expect("hurried");
        }
        senders.into_iter().for_each(|sender| sender.join().expect("it sends"));
    });
    wait_until("all are committed", || ann.pending_count().expect("one") + bob.pending_count().expect("one") == 0);
    let (at_ann, at_bob) = (Conv::User(bob_id), Conv::User(ann_id));
    wait_until("all have come", || {
        [(&ann, at_ann), (&bob, at_bob)].iter().all(|(client, conv)| {
            client.conversation(*conv).expect("one").is_some_and(|row| row.head == 2 * count as u64)
                && client.state() == State::Online
        })
    });
    let seen = texts(&ann, at_ann);
    assert_eq!(seen, texts(&bob, at_bob), "both show the same");
    assert_eq!((of("ann", &seen), of("bob", &seen)), (numbered("ann", count), numbered("bob", count)));
}

#[test]
fn a_message_written_offline_is_sent_later() {
    let (mut server, folder) = (TestServer::builder().fixed_port().start(), Folder::new());
    let (bob, bob_id) = user(&server, "bob");
    let ann_id = register(&server.address().to_string(), "ann", "pw-ann").expect("registered");
    let with_file = options(&server, "ann").file(folder.file("ann.db"));
    drop(online(with_file.clone()));
    server.kill9();
    let ann = Client::open(with_file.clone()).expect("opened");
    wait_until("it waits", || matches!(ann.state(), State::Waiting { .. }));
    assert!(matches!(ann.friends(), Err(Error::Offline)));
    for text in numbered("ann", 20) {
        ann.send(Conv::User(bob_id), &text).expect("queued");
    }
    assert_eq!(ann.pending_count().expect("a count"), 20);
    drop(ann);
    server.restart();
    bob.hurry().expect("hurried");
    let ann = online(with_file);
    wait_until("all are committed", || ann.pending_count().expect("a count") == 0);
    wait_until("all have come", || texts_now(&bob, Conv::User(ann_id)) == numbered("ann", 20));
}

fn texts_now(client: &Client, conv: Conv) -> Vec<String> {
    let history = client.history(conv, None, 10_000).expect("history");
    history.messages.iter().map(|message| format!("{:?}", message.content())).map(unquoted).collect()
}

fn unquoted(content: String) -> String {
    content.trim_start_matches("Text(\"").trim_end_matches("\")").to_owned()
}

#[test]
fn a_greedy_conversation_does_not_hold_up_a_quiet_one_and_events_stay_bounded() {
    let server = TestServer::start();
    let ((ann, _), (bob, bob_id), (cat, cat_id)) = (user(&server, "ann"), user(&server, "bob"), user(&server, "cat"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                ann.send(Conv::User(bob_id), &format!("{count} {}", "x".repeat(200))).expect("queued");
                count += 1;
            }
            count
        });
        let _stop = testkit::SetOnDrop(&stop);
        wait_until("there is a queue", || ann.pending_count().expect("a count") > 0);
        for n in 0..5 {
            ann.send(Conv::User(cat_id), &format!("quiet {n}")).expect("queued").wait(PATIENCE).expect("committed");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(greedy.join().expect("it sends") > 20);
    });
    wait_until("all are committed", || ann.pending_count().expect("a count") == 0);
    wait_until("cat has heard of it", || cat.conversations().expect("conversations").len() == 1);
    // Nobody has taken bob's events.
    let mut events = 0;
    while bob.events().next_now().is_some() {
        events += 1;
    }
    assert!(events <= 1025, "{events}");
}

/// The client that is killed: this test binary, started again with a file and a recipient in its
/// environment.
#[test]
fn a_client_that_is_killed_while_it_sends() {
    if let Ok(task) = env::var("RAYBOX_CLIENT_VICTIM") {
        return be_the_victim(&task);
    }
    let (server, folder) = (TestServer::start(), Folder::new());
    let (bob, bob_id) = user(&server, "bob");
    let ann_id = register(&server.address().to_string(), "ann", "pw-ann").expect("registered");
    let file = folder.file("ann.db");
    drop(online(options(&server, "ann").file(&file)));
    let task = format!("{} {bob_id} {}", server.address(), file.display());
    for round in 1..=4 {
        let mut victim = Victim::start(&task);
        let head = || bob.conversation(Conv::User(ann_id)).expect("one").map_or(0, |row| row.head);
        wait_until("it sends", || head() >= round * 40);
        victim.0.kill().expect("killed");
        exit_within(PATIENCE, &mut victim.0);
    }
    // The messages in its outbox are sent by the next one.
    let ann = online(Options::new(server.address().to_string()).file(&file));
    wait_until("all are committed", || ann.pending_count().expect("a count") == 0);
    let sent = texts(&ann, Conv::User(bob_id));
    let numbers: Vec<usize> = sent.iter().map(|text| text.parse().expect("a number")).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "everything once and in order");
    wait_until("bob has the same", || texts(&bob, Conv::User(ann_id)) == sent);
}

/// Sends numbers one after the other, going on where the last one was put into the outbox.
fn be_the_victim(task: &str) {
    let mut words = task.splitn(3, ' ');
    let mut word = || words.next().expect("a word");
    let client = Client::open(Options::new(word()).file({
        let bob: i64 = word().parse().expect("an id");
        BOB.store(bob, Ordering::Relaxed);
        word()
    }))
    .expect("opened");
    let bob = Conv::User(BOB.load(Ordering::Relaxed));
    client.wait_online(PATIENCE).expect("online");
    let next = || {
        let waiting = client.pending(bob, 100_000).expect("pending").last().map(|pending| pending.text());
        let newest = || texts(&client, bob).pop();
        waiting.or_else(newest).map_or(0, |text| text.parse::<u64>().expect("a number") + 1)
    };
    for n in next().. {
        client.send(bob, &n.to_string()).expect("queued");
    }
}

static BOB: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

struct Victim(Child);

impl Victim {
    fn start(task: &str) -> Victim {
        let program = env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["--exact", "a_client_that_is_killed_while_it_sends"]).env("RAYBOX_CLIENT_VICTIM", task);
        Victim(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process"))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_message_to_a_frozen_server_waits() {
    let server = TestServer::start();
    let ((ann, _), (bob, bob_id)) = (user(&server, "ann"), user(&server, "bob"));
    server.stop();
    let ticket = ann.send(Conv::User(bob_id), "are you there?").expect("queued");
    assert!(matches!(ticket.wait(Duration::from_millis(100)), Err(Error::NoAnswer)));
    server.cont();
    ticket.wait(PATIENCE).expect("committed");
    drop(bob);
}

#[test]
fn a_registration_tries_the_next_address_when_one_is_frozen() {
    let (frozen, server) = (TestServer::start(), TestServer::start());
    frozen.stop();
    let both = format!("{},{}", frozen.address(), server.address());
    let id = register(&both, "ann", "pw-ann").expect("the other server answers");
    assert_eq!(online(options(&server, "ann")).user().expect("a store"), Some((id, "ann".to_owned())));
}

#[test]
fn a_registration_whose_answer_was_lost_says_that_the_account_may_be_there() {
    let server = TestServer::start();
    let way = TcpListener::bind("127.0.0.1:0").expect("a port");
    let both = format!("{},{}", way.local_addr().expect("an address"), server.address());
    let registering = thread::spawn(move || register(&both, "ann", "pw-ann"));
    // It takes the request to the server, and closes before the answer.
    let mut client = BufReader::new(accept_within(PATIENCE, &way));
    let mut request = String::new();
    client.read_line(&mut request).expect("a request");
    register(&server.address().to_string(), "ann", "pw-ann").expect("registered");
    assert!(request.contains("\"ann\""), "{request}");
    drop(client);
    wait_until("the registration ends", || registering.is_finished());
    match registering.join().expect("no panic") {
        Err(Error::Refused { errno: 500, message, .. }) => assert!(message.contains("try to log in"), "{message}"),
        other => panic!("{other:?}"),
    }
    online(options(&server, "ann"));
}

#[test]
fn a_registration_whose_answer_was_cut_tries_the_next_address() {
    let server = TestServer::start();
    let way = TcpListener::bind("127.0.0.1:0").expect("a port");
    let both = format!("{},{}", way.local_addr().expect("an address"), server.address());
    let registering = thread::spawn(move || register(&both, "ann", "pw-ann"));
    let mut client = BufReader::new(accept_within(PATIENCE, &way));
    client.read_line(&mut String::new()).expect("a request");
    client.get_mut().write_all(br#"{"USERID":7,"errno":20"#).expect("the beginning of an answer");
    drop(client);
    wait_until("the registration ends", || registering.is_finished());
    let id = registering.join().expect("no panic").expect("the other server answers");
    assert_eq!(online(options(&server, "ann")).user().expect("a store"), Some((id, "ann".to_owned())));
}
