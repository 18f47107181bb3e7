//! [`Talk`]: two users of level 2 on two nodes; one writes to the other all the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use raybox_client::{Client, Content, Conv, Error, Options, State};
use testkit::{LONG_PATIENCE, TestServer, offline_user, password, wait_within};

/// Two users, each on a node of its own.
pub(crate) struct Talk<'t> {
    nodes: &'t [TestServer],
    shared: Arc<TalkCore>,
    people: Vec<JoinHandle<Client>>,
    ids: [i64; 2],
}

#[derive(Default)]
struct TalkCore {
    /// All numbers below this are sent.
    sent: AtomicUsize,
    acknowledged: AtomicUsize,
    /// The numbers that have arrived, in order of arrival.
    arrived: Mutex<Vec<usize>>,
    is_over: AtomicBool,
    troubles: Mutex<Vec<String>>,
}

impl Talk<'_> {
    /// Starts a talk on the first two nodes.
    pub(crate) fn start(nodes: &[TestServer]) -> Talk<'_> {
        Talk::start_at(nodes, [0, 1].map(|node: usize| nodes[node].address().to_string()))
    }

    /// Starts a talk in which both people have the same addresses.
    pub(crate) fn start_through<'n>(nodes: &'n [TestServer], addresses: &str) -> Talk<'n> {
        Talk::start_at(nodes, [0, 1].map(|_| addresses.to_owned()))
    }

    fn start_at(nodes: &[TestServer], [of_ann, of_bob]: [String; 2]) -> Talk<'_> {
        let [ann, bob] = ["ann", "bob"].map(|name| offline_user(&nodes[0], name));
        let shared = Arc::new(TalkCore::default());
        let open = |server: String, name: &str| {
            let options = Options::new(server).password(name, password(name));
            Client::open(options).expect("open a client")
        };
        let (writer, reader) = (open(of_ann, "ann"), open(of_bob, "bob"));
        // The reader must be online before the first message. An earlier message would be history,
        // which a client has to ask for.
        reader.wait_online(LONG_PATIENCE).expect("the reader logs in");
        let (of_writer, of_reader) = (shared.clone(), shared.clone());
        let people = vec![
            thread::spawn(move || {
                of_writer.write(&writer, Conv::User(bob));
                writer
            }),
            thread::spawn(move || {
                of_reader.read(&reader, Conv::User(ann));
                reader
            }),
        ];
        let talk = Talk { nodes, shared, people, ids: [ann, bob] };
        talk.wait_for_more();
        talk
    }

    /// Causes `fault`, and waits until a message that is sent afterwards arrives, and until all
    /// nodes are ready. Prints how long each took.
    pub(crate) fn suffer(&self, what: &str, fault: impl FnOnce()) {
        self.wait_ready();
        self.wait_for_more();
        let begin = Instant::now();
        fault();
        let (lasted, over) = (begin.elapsed(), Instant::now());
        self.wait_for_more();
        let delivered = over.elapsed();
        self.wait_ready();
        println!("{what}: done in {lasted:.1?}, delivered after {delivered:.1?}, ready after {:.1?}", over.elapsed());
    }

    /// The id of the user who reads.
    pub(crate) fn reader(&self) -> i64 {
        self.ids[1]
    }

    fn wait_ready(&self) {
        wait_within(LONG_PATIENCE, "the nodes are ready", || self.nodes.iter().all(TestServer::is_ready));
    }

    /// Waits until ten messages have arrived that are sent from now on.
    pub(crate) fn wait_for_more(&self) {
        let from = self.shared.sent.load(Ordering::SeqCst);
        wait_within(LONG_PATIENCE, "messages arrive", || {
            self.check();
            self.shared.arrived.lock().unwrap().iter().rev().take_while(|number| **number >= from).count() >= 10
        });
    }

    /// Ends the talk when everything is acknowledged. Every message must have arrived, once and in
    /// order. Returns both clients, each with its name for the conversation.
    pub(crate) fn end(mut self) -> [(Client, Conv); 2] {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let mut clients: Vec<Client> = self.people.drain(..).map(|person| person.join().expect("a person")).collect();
        self.check();
        let sent = self.shared.sent.load(Ordering::SeqCst);
        let arrived = self.shared.arrived.lock().unwrap();
        assert!(arrived.iter().copied().eq(0..sent), "of {sent} messages have arrived: {arrived:?}");
        println!("{sent} messages, all acknowledged, all arrived once and in order");
        let (reader, writer) = (clients.pop().expect("the reader"), clients.pop().expect("the writer"));
        let [ann, bob] = self.ids;
        [(writer, Conv::User(bob)), (reader, Conv::User(ann))]
    }

    fn check(&self) {
        let troubles = self.shared.troubles.lock().unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if thread::panicking() {
            let TalkCore { sent, acknowledged, arrived, .. } = &*self.shared;
            let arrived = arrived.lock().map(|arrived| (arrived.len(), arrived.last().copied()));
            eprintln!("sent {sent:?}, acknowledged {acknowledged:?}, arrived, and the last: {arrived:?}");
        }
    }
}

impl TalkCore {
    fn write(&self, client: &Client, to: Conv) {
        let mut in_flight = Vec::new();
        let mut over = None;
        while !self.is_over.load(Ordering::SeqCst) || !in_flight.is_empty() {
            if self.is_over.load(Ordering::SeqCst) && over.get_or_insert_with(Instant::now).elapsed() > GIVE_UP_AFTER {
                return self.trouble(format!("{} messages are not acknowledged", in_flight.len()));
            }
            while in_flight.len() < IN_FLIGHT_MAX && !self.is_over.load(Ordering::SeqCst) {
                let number = self.sent.load(Ordering::SeqCst);
                match client.send(to, &number.to_string()) {
                    Ok(ticket) => in_flight.push(ticket),
                    Err(error) => return self.trouble(format!("the outbox takes no message: {error}")),
                }
                self.sent.fetch_add(1, Ordering::SeqCst);
            }
            in_flight.retain(|ticket| match ticket.wait(Duration::ZERO) {
                Ok(_) => {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    false
                }
                Err(Error::NoAnswer) => true,
                Err(error) => {
                    self.trouble(format!("a message is refused: {error}"));
                    false
                }
            });
            hurry(client);
            thread::park_timeout(TURN);
        }
    }

    /// Reads until every message has arrived that is acknowledged at the end.
    fn read(&self, client: &Client, from: Conv) {
        let (mut last, mut over) = (0, None);
        loop {
            let messages = client.after(from, last, 100).unwrap_or_default();
            for message in messages {
                last = message.seq;
                let number = match message.content() {
                    Content::Text(text) => text.parse().ok(),
                    _ => None,
                };
                self.arrived.lock().unwrap().push(number.unwrap_or(usize::MAX));
            }
            if self.is_over.load(Ordering::SeqCst) {
                let sent = self.sent.load(Ordering::SeqCst);
                let over = *over.get_or_insert_with(Instant::now);
                if self.arrived.lock().unwrap().len() >= sent || over.elapsed() > GIVE_UP_AFTER {
                    return;
                }
            }
            hurry(client);
            client.events().next_within(TURN);
            while client.events().next_now().is_some() {}
        }
    }

    fn trouble(&self, what: String) {
        self.troubles.lock().unwrap().push(what);
    }
}

/// Connects again without the client's growing backoff, because this tests the servers.
fn hurry(client: &Client) {
    if matches!(client.state(), State::Waiting { .. }) {
        let _ = client.hurry();
    }
}

const IN_FLIGHT_MAX: usize = 8;
const TURN: Duration = Duration::from_millis(20);
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
