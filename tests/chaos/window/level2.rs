//! The same kills at level 2: a node is killed while clients have a window of messages in flight.
//! The acknowledged messages are committed, and all others are in the outboxes of the clients. So
//! in the end every store holds everything, once and in order. The checker is that of the chaos
//! test ([`crate::ledger`]).
//!
//! `WINDOW_TRIES=n` sets how often each node is killed (5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use raybox_client::{Client, Conv, Error, Options, Ticket};
use socket2::{Domain, Socket, Type};

use super::{MESSAGES_MAX, OUTPUT_MAX, TEXT, TRIES, VICTIM, cluster};
use crate::ledger::{Ledger, Sent, check, text};
use crate::schedule::Dice;
use crate::wire::{Carrier, Wire};
use crate::{number, say};
use testkit::{LONG_PATIENCE, PATIENCE, SetOnDrop, TestServer, offline_user, password, wait_within};

#[test]
fn a_killed_node_loses_nothing_at_level_2() {
    const PAIRS: usize = 8;
    let mut cluster = cluster();
    let tries = number("WINDOW_TRIES").unwrap_or(TRIES);
    let mut dice = Dice::new(number("CHAOS_SEED").unwrap_or(1));
    let (mut settled, mut caught, mut all) = (0, 0, 0);
    for attempt in 0..tries {
        let readers: Vec<User> = (0..PAIRS).map(|n| User::new(&cluster.nodes[0], &format!("r{attempt}-{n}"))).collect();
        let writers: Vec<User> = (0..PAIRS).map(|n| User::new(&cluster.nodes[0], &format!("w{attempt}-{n}"))).collect();
        let addresses = cluster.addresses();
        // Every other sender is on the node that is killed.
        let sent_from = |n: usize| addresses[if n.is_multiple_of(2) { VICTIM } else { 1 - VICTIM }];
        let reading: Vec<Client> = readers.iter().map(|reader| reader.online(addresses[VICTIM])).collect();
        let writing: Vec<Client> = (0..PAIRS).map(|n| writers[n].online(sent_from(n))).collect();
        let stop = AtomicBool::new(false);
        let acknowledged: Vec<AtomicUsize> = (0..PAIRS).map(|_| AtomicUsize::new(0)).collect();
        // The acknowledged messages of each sender, on the victim or on the other node.
        let counts = |on_victim: bool| -> Vec<usize> {
            let counts = acknowledged.iter().map(|count| count.load(Ordering::Relaxed));
            counts.enumerate().filter(|(n, _)| n.is_multiple_of(2) == on_victim).map(|(_, count)| count).collect()
        };
        let writing: Vec<Sending> = thread::scope(|scope| {
            let stop_at_the_end = SetOnDrop(&stop);
            let senders: Vec<_> = (0..PAIRS)
                .map(|n| {
                    let mut sending = Sending::new(&writing[n], writers[n].id, readers[n].id);
                    let (stop, acknowledged) = (&stop, &acknowledged[n]);
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            sending.fill();
                            acknowledged.store(sending.acknowledged(), Ordering::Relaxed);
                        }
                        sending
                    })
                })
                .collect();
            wait_within(LONG_PATIENCE, "something is acknowledged", || counts(true).iter().sum::<usize>() > 0);
            thread::sleep(Duration::from_millis(dice.between(200, 600)));
            cluster.nodes[VICTIM].kill9();
            let (killed, others) = (counts(true), counts(false));
            wait_within(LONG_PATIENCE, "the others go on", || {
                counts(false).iter().zip(&others).all(|(now, then)| *now > then + 4 * WINDOW)
            });
            // After the kill, only acknowledgements that the dead node's kernel had already sent
            // can arrive: one window at most.
            for (now, then) in counts(true).iter().zip(&killed) {
                assert!(*now <= then + WINDOW, "the kill does nothing: {then} and {now} are acknowledged");
            }
            drop(stop_at_the_end);
            senders.into_iter().map(|sender| sender.join().expect("a sender")).collect()
        });
        settled += writing.iter().map(Sending::acknowledged).sum::<usize>();
        // The unacknowledged messages of the senders on the killed node.
        caught += writing.iter().step_by(2).map(|sending| sending.in_flight.len()).sum::<usize>();
        cluster.nodes[VICTIM].restart();
        let mut ledgers = Vec::new();
        for (mut sending, (reader, client)) in writing.into_iter().zip(readers.iter().zip(&reading)) {
            sending.finish();
            all += sending.sent.len();
            ledgers.extend(sending.ledgers(client, reader));
        }
        assert_eq!(check(&ledgers.iter().collect::<Vec<_>>()), [], "after kill {attempt}");
    }
    say(&format!(
        "a node killed {tries} times while {PAIRS} clients of level 2 kept {WINDOW} messages each on their way: {settled} were \
         acknowledged until then and {caught} were not; all {all} are in the stores of sender and recipient, once and in order"
    ));
}

#[test]
fn a_killed_node_loses_nothing_of_a_recipient_of_level_2_who_does_not_read() {
    let mut cluster = cluster();
    let (from, to) = (User::new(&cluster.nodes[0], "writer"), User::new(&cluster.nodes[0], "sleeper"));
    let address = cluster.nodes[VICTIM].address();
    thread::scope(|scope| {
        let wire = Wire::open(scope, Carrier::Bytes, move || connect_with_little_room(address));
        let sleeper = to.online(wire.address);
        wire.stall(true);
        let sender = from.online(cluster.nodes[1 - VICTIM].address());
        let mut sending = Sending::new(&sender, from.id, to.id);
        while sending.sent.len() < MESSAGES_MAX {
            sending.fill();
        }
        sending.finish();
        let conv = Conv::User(from.id);
        let held = sleeper.conversation(conv).expect("a store").map_or(0, |line| line.held);
        assert!(held < MESSAGES_MAX as u64, "it reads nothing");
        cluster.nodes[VICTIM].kill9();
        cluster.nodes[VICTIM].restart();
        wire.reset();
        wire.stall(false);
        let ledgers = sending.ledgers(&sleeper, &to);
        assert_eq!(check(&ledgers.iter().collect::<Vec<_>>()), []);
        say(&format!(
            "a node killed with {} messages for a recipient of level 2 who does not read, output_max {} KiB: all \
             acknowledged, {held} read before, the rest after it; none lost",
            sending.sent.len(),
            OUTPUT_MAX / 1024
        ));
    });
}

struct User {
    id: i64,
    name: String,
}

impl User {
    fn new(node: &TestServer, name: &str) -> User {
        User { id: offline_user(node, name), name: name.to_owned() }
    }

    fn online(&self, address: SocketAddr) -> Client {
        let options = Options::new(address.to_string()).password(&self.name, password(&self.name));
        let client = Client::open(options).expect("a client in memory");
        client.wait_online(PATIENCE).expect("online");
        client
    }
}

/// A user who writes to another one, with a window of messages in flight.
struct Sending<'a> {
    client: &'a Client,
    from: i64,
    to: i64,
    sent: Vec<Sent>,
    in_flight: Vec<(usize, Ticket)>,
}

impl Sending<'_> {
    fn new(client: &Client, from: i64, to: i64) -> Sending<'_> {
        Sending { client, from, to, sent: Vec::new(), in_flight: Vec::new() }
    }

    /// Sends as many messages as the window allows, and waits a moment for acknowledgements.
    fn fill(&mut self) {
        while self.in_flight.len() < WINDOW {
            let number = self.sent.len();
            let ticket = self.client.send(Conv::User(self.to), &text(self.from, number, TEXT)).expect("room");
            self.sent.push(Sent::default());
            self.in_flight.push((number, ticket));
        }
        self.take_answers(TURN);
    }

    /// Waits this long for the first acknowledgement, and takes all that have come.
    fn take_answers(&mut self, patience: Duration) {
        let mut patience = patience;
        self.in_flight.retain(|(number, ticket)| match ticket.wait(std::mem::take(&mut patience)) {
            Ok(seq) => {
                self.sent[*number].acknowledged = Some(seq);
                false
            }
            Err(Error::NoAnswer) => true,
            Err(error) => panic!("message {number} was refused: {error}"),
        });
    }

    fn acknowledged(&self) -> usize {
        self.sent.len() - self.in_flight.len()
    }

    /// Waits until everything is acknowledged.
    fn finish(&mut self) {
        wait_within(LONG_PATIENCE, "the outbox is empty", || {
            let _ = self.client.hurry();
            self.take_answers(TURN);
            self.in_flight.is_empty()
        });
        assert_eq!(self.client.pending_count().expect("a store"), 0);
    }

    /// The ledgers of both users, once the recipient has everything.
    fn ledgers(&self, reading: &Client, reader: &User) -> [Ledger; 2] {
        let (out, back) = (Conv::User(self.to), Conv::User(self.from));
        wait_within(LONG_PATIENCE, "everything has come", || {
            let _ = reading.hurry();
            let line = reading.conversation(back).expect("a store");
            line.is_some_and(|line| line.held >= self.sent.len() as u64)
        });
        let ledger = |user, conv, client: &Client, sent: &[Sent]| {
            let sent = BTreeMap::from([(conv, sent.to_vec())]);
            let mut ledger = Ledger { user, convs: BTreeSet::from([conv]), sent, ..Ledger::default() };
            ledger.read_store(client).expect("its store");
            ledger.history = ledger.store.clone();
            ledger
        };
        [ledger(self.from, out, self.client, &self.sent), ledger(reader.id, back, reading, &[])]
    }
}

/// Connects with small kernel buffers, so that the server's output fills soon.
fn connect_with_little_room(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4 * 1024)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// The number of messages in flight of each sender.
const WINDOW: usize = 32;

const TURN: Duration = Duration::from_millis(5);
