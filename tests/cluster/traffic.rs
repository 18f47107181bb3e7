//! Traffic that keeps books, for tests in which something fails meanwhile.
//!
//! Each [`Pair`] is one user who writes numbered messages to another. The sender writes some
//! messages, then a request that is always answered, and waits: the answer acknowledges everything
//! sent before it. Afterwards the books of both must agree. An acknowledged message has reached the
//! recipient, live or as a stored message, unless the sender was notified that it failed.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::{LONG_PATIENCE, SetOnDrop, TestClient};
use testkit::{assert_refusal, number_of, numbered, password, wait_within};

/// A user of a [`Pair`], and the nodes where the user may log in. The first one that accepts is
/// used.
#[derive(Clone)]
pub struct Person {
    pub name: String,
    pub id: i64,
    pub nodes: Vec<SocketAddr>,
}

/// One user who writes to another.
pub struct Pair {
    pub from: Person,
    pub to: Person,
    pub recipient: Recipient,
}

/// The behaviour of a recipient during the test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// The recipient is online, and logs in again whenever its connection ends.
    Stays,
    /// The recipient is offline, and logs in and fetches at the end.
    IsAway,
    /// The recipient logs out after some messages, and logs in at the next node.
    Moves,
}

/// The record of one pair.
#[derive(Debug, Default)]
pub struct Books {
    /// Each lot of messages, with its fate as the sender knows it.
    lots: Vec<Lot>,
    /// Messages that arrived live, for each connection of the recipient.
    live: Vec<Vec<usize>>,
    /// The messages of each fetch.
    fetched: Vec<Vec<usize>>,
    /// The sender's longest wait for an answer.
    slowest: Duration,
}

#[derive(Debug)]
struct Lot {
    numbers: Range<usize>,
    fate: Fate,
}

#[derive(Debug)]
enum Fate {
    /// All messages are settled; the sender was notified that `refused` of them failed.
    Acknowledged { refused: usize },
    /// The connection ended before the answer.
    Unknown,
}

/// Whether a message may arrive more than once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Twice {
    /// No: nothing has failed.
    Never,
    /// Yes, because something has failed.
    Allowed,
}

/// The totals of the books of one or more pairs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Messages whose sender was notified that they failed.
    pub refused: usize,
    /// Messages whose fate is unknown because the connection ended.
    pub unknown: usize,
    /// Messages that arrived live, and those that were fetched.
    pub live: usize,
    pub fetched: usize,
    /// The number of messages that arrived more than once.
    pub repeated: usize,
    /// The longest wait of a sender for an answer.
    pub slowest: Duration,
}

/// The traffic of all pairs while it flows.
pub struct Traffic {
    /// The number of acknowledged lots of each pair.
    progress: Vec<AtomicUsize>,
    stop_senders: AtomicBool,
    stop_recipients: AtomicBool,
}

impl Person {
    /// A registered user with the test password of this name.
    pub fn new(name: &str, id: i64, nodes: &[SocketAddr]) -> Person {
        Person { name: name.to_owned(), id, nodes: nodes.to_vec() }
    }

    /// A new connection on which the user is logged in, at the first node that accepts.
    pub fn log_in(&self) -> TestClient {
        let mut client = None;
        wait_within(LONG_PATIENCE, &format!("{} can log in somewhere", self.name), || {
            client = self.nodes.iter().find_map(|node| self.try_log_in(*node));
            client.is_some()
        });
        client.expect("waited for it")
    }

    fn try_log_in(&self, node: SocketAddr) -> Option<TestClient> {
        let mut client = TestClient::try_connect_to(node)?;
        client.set_patience(LONG_PATIENCE);
        client.try_login(self.id, &password(&self.name)).then_some(client)
    }
}

impl Traffic {
    /// Runs the traffic of all pairs while `meanwhile` runs, and returns their books. Then every
    /// message is settled, and every recipient has read and fetched everything.
    pub fn run(pairs: &[Pair], meanwhile: impl FnOnce(&Traffic)) -> Vec<Books> {
        let traffic = Traffic {
            progress: pairs.iter().map(|_| AtomicUsize::new(0)).collect(),
            stop_senders: AtomicBool::new(false),
            stop_recipients: AtomicBool::new(false),
        };
        let traffic = &traffic;
        thread::scope(|scope| {
            let stop_recipients = SetOnDrop(&traffic.stop_recipients);
            let stop_senders = SetOnDrop(&traffic.stop_senders);
            let there: Vec<_> =
                pairs.iter().map(|pair| (pair.recipient != Recipient::IsAway).then(|| pair.to.log_in())).collect();
            let receive = |(pair, client)| scope.spawn(move || traffic.receive(pair, client));
            let recipients: Vec<_> = pairs.iter().zip(there).map(receive).collect();
            let send = |(pair, progress)| scope.spawn(move || traffic.send(pair, progress));
            let senders: Vec<_> = pairs.iter().zip(&traffic.progress).map(send).collect();
            meanwhile(traffic);
            drop(stop_senders);
            let sent: Vec<Books> = senders.into_iter().map(|sender| sender.join().expect("a sender")).collect();
            drop(stop_recipients);
            let received = recipients.into_iter().map(|recipient| recipient.join().expect("a recipient"));
            let together =
                |(sent, received): (_, Books)| Books { live: received.live, fetched: received.fetched, ..sent };
            sent.into_iter().zip(received).map(together).collect()
        })
    }

    /// Waits until this many more lots of every pair are acknowledged.
    pub fn flow(&self, lots: usize) {
        let all: Vec<usize> = (0..self.progress.len()).collect();
        self.flow_of(&all, lots);
    }

    /// Like [`Traffic::flow`], for some of the pairs.
    pub fn flow_of(&self, pairs: &[usize], lots: usize) {
        let acknowledged = |pair: &usize| self.progress[*pair].load(Ordering::Relaxed);
        let wanted: Vec<usize> = pairs.iter().map(|pair| acknowledged(pair) + lots).collect();
        wait_within(LONG_PATIENCE, &format!("traffic of the pairs {pairs:?} goes on"), || {
            pairs.iter().zip(&wanted).all(|(pair, wanted)| acknowledged(pair) >= *wanted)
        });
    }

    /// The number of acknowledged lots of each pair.
    pub fn acknowledged(&self) -> Vec<usize> {
        self.progress.iter().map(|progress| progress.load(Ordering::Relaxed)).collect()
    }

    fn send(&self, pair: &Pair, progress: &AtomicUsize) -> Books {
        let mut books = Books::default();
        let mut client = pair.from.log_in();
        let mut next = 0;
        while !self.stop_senders.load(Ordering::Relaxed) {
            let numbers = next..next + LOT;
            next = numbers.end;
            let begun = Instant::now();
            let fate = send_lot(&mut client, pair, numbers.clone());
            books.slowest = books.slowest.max(begun.elapsed());
            match fate {
                Fate::Acknowledged { .. } => _ = progress.fetch_add(1, Ordering::Relaxed),
                Fate::Unknown => client = pair.from.log_in(),
            }
            books.lots.push(Lot { numbers, fate });
            // This pause waits for no condition. It keeps a test of many seconds from producing
            // millions of rows.
            thread::sleep(PACE);
        }
        books
    }

    /// Reads until the end of the traffic, and logs in again whenever the connection ends. An
    /// offline recipient logs in at the end.
    fn receive(&self, pair: &Pair, there: Option<TestClient>) -> Books {
        let mut books = Books::default();
        let mut person = pair.to.clone();
        let mut client = there.unwrap_or_else(|| {
            wait_within(LONG_PATIENCE, "the end of the traffic", || self.stop_recipients.load(Ordering::Relaxed));
            person.log_in()
        });
        loop {
            books.live.push(Vec::new());
            books.fetch(&mut client, person.id);
            self.read(&mut client, &mut books, if pair.recipient == Recipient::Moves { STAY } else { usize::MAX });
            let is_over = self.stop_recipients.load(Ordering::Relaxed);
            if is_over && books.close(&mut client, person.id) {
                return books;
            }
            if pair.recipient == Recipient::Moves && !is_over {
                books.leave(&mut client, person.id);
                person.nodes.rotate_left(1);
            }
            client = person.log_in();
        }
    }

    /// Reads up to `limit` messages, or until the connection or the test ends.
    fn read(&self, client: &mut TestClient, books: &mut Books, limit: usize) {
        let mut count = 0;
        while count < limit && !client.has_ended() && !self.stop_recipients.load(Ordering::Relaxed) {
            if let Some(frame) = client.recv_within(PACE) {
                books.note_live(&frame);
                count += 1;
            }
        }
    }
}

/// Sends a lot of messages, and waits until they are settled.
fn send_lot(client: &mut TestClient, pair: &Pair, numbers: Range<usize>) -> Fate {
    for n in numbers {
        if !client.try_send(&numbered(pair.from.id, pair.to.id, n)) {
            return Fate::Unknown;
        }
    }
    // This request needs only the node itself, so its reply is never a refusal.
    if !client.try_send(&json!({"msgType": 200})) {
        return Fate::Unknown;
    }
    let mut refused = 0;
    loop {
        match client.recv_within(LONG_PATIENCE) {
            Some(reply) if is_ack(&reply) => return Fate::Acknowledged { refused },
            Some(reply) => {
                assert_refusal(&reply.to_string(), 503);
                refused += 1;
            }
            None if client.has_ended() => return Fate::Unknown,
            None => panic!("{} waited {LONG_PATIENCE:?} for an answer in vain", pair.from.name),
        }
    }
}

fn is_ack(frame: &Value) -> bool {
    *frame == json!({"errno": 200, "msgType": 200})
}

/// The outcome of a fetch.
#[derive(PartialEq, Eq)]
enum Fetched {
    Some,
    Nothing,
    /// The node cannot reach the database.
    Refused,
    /// The connection ended.
    Ended,
}

impl Books {
    fn note_live(&mut self, frame: &Value) {
        assert_eq!(frame["msgType"], 4, "a recipient gets messages only: {frame}");
        self.live.last_mut().expect("a connection").push(number_of(frame));
    }

    fn fetch(&mut self, client: &mut TestClient, user: i64) -> Fetched {
        if !client.try_send(&json!({"msgType": 14, "FROMID": user})) {
            return Fetched::Ended;
        }
        while let Some(frame) = client.recv_within(LONG_PATIENCE) {
            match (frame["msgType"].as_u64(), frame["msgs"].as_array()) {
                (Some(14), Some(texts)) if texts.is_empty() => return Fetched::Nothing,
                (Some(14), Some(texts)) => {
                    let number = |text: &Value| {
                        let text = text.as_str().expect("a stored message is text");
                        number_of(&serde_json::from_str(text).expect("stored text is JSON"))
                    };
                    self.fetched.push(texts.iter().map(number).collect());
                    return Fetched::Some;
                }
                (Some(503), _) => return Fetched::Refused,
                _ => self.note_live(&frame),
            }
        }
        assert!(client.has_ended(), "a fetch was not answered within {LONG_PATIENCE:?}");
        Fetched::Ended
    }

    /// Logs out. The answer comes after the last message.
    fn leave(&mut self, client: &mut TestClient, user: i64) {
        client.send(&json!({"msgType": 3, "USERID": user}));
        loop {
            match client.recv() {
                frame if is_ack(&frame) => return,
                frame => self.note_live(&frame),
            }
        }
    }

    /// Reads and fetches everything; false if the connection ends before that.
    fn close(&mut self, client: &mut TestClient, user: i64) -> bool {
        // Every settled message is written to this connection or stored. This takes two answers.
        // The first one makes the loop of this connection take a turn, in which it also writes what
        // other loops have posted.
        let mut answers = 0;
        while answers < 2 {
            if !client.try_send(&json!({"msgType": 200})) {
                return false;
            }
            loop {
                match client.recv_within(LONG_PATIENCE) {
                    Some(frame) if is_ack(&frame) => break,
                    Some(frame) => self.note_live(&frame),
                    None => return false,
                }
            }
            answers += 1;
        }
        let begun = Instant::now();
        loop {
            match self.fetch(client, user) {
                Fetched::Some => (),
                Fetched::Nothing => return true,
                Fetched::Ended => return false,
                Fetched::Refused => assert!(begun.elapsed() < LONG_PATIENCE, "fetches are still refused"),
            }
        }
    }

    /// Checks that every acknowledged message has arrived, each list in order, and without
    /// duplicates if `twice` forbids them. After a failure the order only holds between
    /// acknowledged messages and those sent afterwards. Within one lot, messages in flight to a
    /// connection that ended may arrive after those sent to the next connection.
    pub fn check(&self, twice: Twice) -> Totals {
        let live = self.live.iter().map(|list| ("live on one connection", list));
        let lists = live.chain(self.fetched.iter().map(|list| ("in one fetch", list)));
        let mut totals = Totals { slowest: self.slowest, ..Totals::default() };
        let mut come = HashSet::new();
        for (how, list) in lists {
            let in_order = match twice {
                Twice::Never => list.is_sorted_by(|before, after| before < after),
                Twice::Allowed => list.is_sorted_by_key(|number| number / LOT),
            };
            assert!(in_order, "out of order {how}: {list:?}");
            totals.repeated += list.iter().filter(|number| !come.insert(**number)).count();
        }
        assert!(twice == Twice::Allowed || totals.repeated == 0, "{} came twice", totals.repeated);
        totals.live = self.live.iter().map(Vec::len).sum();
        totals.fetched = self.fetched.iter().map(Vec::len).sum();
        for Lot { numbers, fate } in &self.lots {
            let missing: Vec<usize> = numbers.clone().filter(|number| !come.contains(number)).collect();
            match fate {
                Fate::Unknown => totals.unknown += numbers.len(),
                Fate::Acknowledged { refused } => {
                    assert!(missing.len() <= *refused, "lost: {missing:?} of {numbers:?}, {refused} refused");
                    totals.refused += refused;
                    totals.acknowledged += numbers.len() - refused;
                }
            }
        }
        totals
    }
}

impl Totals {
    /// Checks the books of several pairs, and adds up their totals.
    pub fn of<'a>(books: impl IntoIterator<Item = &'a Books>, twice: Twice) -> Totals {
        books.into_iter().map(|books| books.check(twice)).fold(Totals::default(), |sum, totals| Totals {
            acknowledged: sum.acknowledged + totals.acknowledged,
            refused: sum.refused + totals.refused,
            unknown: sum.unknown + totals.unknown,
            live: sum.live + totals.live,
            fetched: sum.fetched + totals.fetched,
            repeated: sum.repeated + totals.repeated,
            slowest: sum.slowest.max(totals.slowest),
        })
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { acknowledged, refused, unknown, live, fetched, repeated, slowest } = self;
        write!(
            f,
            "{acknowledged} acknowledged, {refused} refused, {unknown} of unknown fate; {live} came live, {fetched} \
             were fetched, {repeated} of them twice; the slowest answer took {:.2} s",
            slowest.as_secs_f64()
        )
    }
}

/// The number of messages that are sent before the sender waits for an answer.
const LOT: usize = 10;

/// The number of messages that a moving recipient takes at one place.
const STAY: usize = 25;

/// The pause between lots, and between checks of whether to stop.
const PACE: Duration = Duration::from_millis(10);

mod tests {
    use super::{Books, Duration, Fate, LOT, Lot, Twice};

    fn books(fate: Fate, live: &[usize], fetched: &[usize]) -> Books {
        let lots = vec![Lot { numbers: 0..4, fate }];
        Books { lots, live: vec![live.to_vec()], fetched: vec![fetched.to_vec()], slowest: Duration::ZERO }
    }

    fn complaint(books: &Books, twice: Twice) -> String {
        let panic = std::panic::catch_unwind(|| books.check(twice)).expect_err("the books are wrong");
        panic.downcast_ref::<String>().expect("it says why").clone()
    }

    #[test]
    fn books_that_agree() {
        books(Fate::Acknowledged { refused: 0 }, &[0, 1], &[2, 3]).check(Twice::Never);
        books(Fate::Acknowledged { refused: 1 }, &[0, 1], &[3]).check(Twice::Never);
        books(Fate::Unknown, &[], &[2]).check(Twice::Never);
        let totals = books(Fate::Acknowledged { refused: 0 }, &[0, 1, 2], &[2, 3]).check(Twice::Allowed);
        assert_eq!((totals.acknowledged, totals.live, totals.fetched, totals.repeated), (4, 3, 2, 1));
    }

    #[test]
    fn books_that_do_not() {
        let lost = complaint(&books(Fate::Acknowledged { refused: 0 }, &[0, 1], &[3]), Twice::Allowed);
        assert!(lost.starts_with("lost: [2] of 0..4"), "{lost}");
        let twice = complaint(&books(Fate::Acknowledged { refused: 0 }, &[0, 1, 2], &[2, 3]), Twice::Never);
        assert!(twice.starts_with("1 came twice"), "{twice}");
        let disorder = complaint(&books(Fate::Acknowledged { refused: 0 }, &[0, 2, 1], &[3]), Twice::Never);
        assert!(disorder.starts_with("out of order live"), "{disorder}");
        let disorder = complaint(&books(Fate::Unknown, &[LOT, 0], &[3]), Twice::Allowed);
        assert!(disorder.starts_with("out of order live"), "{disorder}");
    }
}
