//! [`Ledger`]: the messages of one client of level 2, and the content of its store and of the
//! server's history at the end. The checker compares the ledgers of all clients.
//!
//! At level 2 no fault is an excuse. At the end every message of an outbox must be in the history
//! and in the store of each member of its conversation. It must be there once, under the
//! acknowledged number, without a gap, and in the order of sending.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use raybox_client::{Client, Content, Conv, Message, Result};

/// The record of one client.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub user: i64,
    /// The conversations of this user.
    pub convs: BTreeSet<Conv>,
    /// The messages that the outbox took, in order. The index of a message is its number.
    pub sent: BTreeMap<Conv, Vec<Sent>>,
    /// The content of the client's store.
    pub store: BTreeMap<Conv, Vec<Held>>,
    /// The messages that the server shows to a device that holds nothing.
    pub history: BTreeMap<Conv, Vec<Held>>,
    /// Anything else that should not have happened.
    pub troubles: Vec<String>,
    /// The number of connections that reached a server, and how often the client was opened again
    /// from its file.
    pub connections: usize,
    pub restarts: usize,
}

/// A message of this client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Since the beginning of the run.
    pub at: Duration,
    /// The number under which the server has acknowledged it.
    pub acknowledged: Option<u64>,
}

/// A message in a store or in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub seq: u64,
    pub from: i64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The message of the sender with this number.
    Numbered(usize),
    /// An event of a group.
    Event,
    /// A content that nobody sent.
    Other,
}

/// A mistake that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// A client lacks a message that was sent.
    Lost,
    /// A client has the message twice.
    Doubled,
    /// A number of the conversation has no message.
    Hole,
    /// A message comes after one that was sent later.
    Misordered,
    /// A number belongs to different messages for different clients.
    Renumbered,
    /// A message that its sender has not sent in this conversation.
    Foreign,
    /// One of [`Ledger::troubles`].
    Trouble,
}

/// Something wrong in one client's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub flaw: Flaw,
    pub user: i64,
    pub detail: String,
}

/// A conversation, with the same name for all its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Room {
    Pair(i64, i64),
    Group(i64),
}

/// One list of messages to check.
struct List<'a> {
    ledger: &'a Ledger,
    conv: Conv,
    /// The origin of the list: the store or the server.
    source: &'static str,
    held: &'a [Held],
}

/// Compares the ledgers of all clients.
pub fn check(ledgers: &[&Ledger]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let by_user: HashMap<i64, &Ledger> = ledgers.iter().map(|ledger| (ledger.user, *ledger)).collect();
    let mut numbers: HashMap<(Room, u64), Held> = HashMap::new();
    for ledger in ledgers {
        let trouble = |detail: &String| Finding { flaw: Flaw::Trouble, user: ledger.user, detail: detail.clone() };
        findings.extend(ledger.troubles.iter().map(trouble));
        for conv in &ledger.convs {
            for (source, lists) in [("store", &ledger.store), ("history", &ledger.history)] {
                let held = lists.get(conv).map_or(&[][..], Vec::as_slice);
                let list = List { ledger, conv: *conv, source, held };
                list.check_numbers(&mut numbers, &mut findings);
                list.check_senders(&by_user, &mut findings);
            }
        }
    }
    findings
}

impl List<'_> {
    fn find(&self, flaw: Flaw, detail: String, findings: &mut Vec<Finding>) {
        let detail = format!("{} of {}: {detail}", self.source, self.conv);
        findings.push(Finding { flaw, user: self.ledger.user, detail });
    }

    fn room(&self) -> Room {
        let me = self.ledger.user;
        match self.conv {
            Conv::User(other) => Room::Pair(me.min(other), me.max(other)),
            Conv::Group(group) => Room::Group(group),
        }
    }

    /// Checks that no number is missing, that each belongs to the same message for every client,
    /// and that each acknowledged number belongs to its own message.
    fn check_numbers(&self, numbers: &mut HashMap<(Room, u64), Held>, findings: &mut Vec<Finding>) {
        // A member sees a group's conversation from the moment of joining.
        let mut next = if self.conv.is_group() { self.held.first().map_or(1, |first| first.seq) } else { 1 };
        for held in self.held {
            if held.seq != next {
                self.find(Flaw::Hole, format!("{} comes where {next} should", held.seq), findings);
            }
            next = held.seq + 1;
            let known = numbers.entry((self.room(), held.seq)).or_insert(*held);
            if known != held {
                self.find(Flaw::Renumbered, format!("{held:?} is {known:?} for others"), findings);
            }
        }
        let places: HashMap<u64, &Held> = self.held.iter().map(|held| (held.seq, held)).collect();
        for (number, sent) in self.ledger.sent.get(&self.conv).into_iter().flatten().enumerate() {
            let Some(seq) = sent.acknowledged else { continue };
            let own = (self.ledger.user, What::Numbered(number));
            if places.get(&seq).is_none_or(|held| (held.from, held.what) != own) {
                self.find(Flaw::Renumbered, format!("{number} was acknowledged as {seq}"), findings);
            }
        }
    }

    /// Checks that the messages of each member are there once and in order.
    fn check_senders(&self, by_user: &HashMap<i64, &Ledger>, findings: &mut Vec<Finding>) {
        let me = self.ledger.user;
        let mut numbers: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for held in self.held {
            match held.what {
                What::Numbered(number) => numbers.entry(held.from).or_default().push(number),
                What::Event => (),
                What::Other => self.find(Flaw::Foreign, format!("{held:?}"), findings),
            }
        }
        let mut members: Vec<(i64, Conv)> = match self.conv {
            Conv::User(other) => vec![(me, self.conv), (other, Conv::User(me))],
            Conv::Group(_) => by_user.keys().map(|user| (*user, self.conv)).collect(),
        };
        members.retain(|(user, conv)| by_user.get(user).is_some_and(|ledger| ledger.convs.contains(conv)));
        for (user, conv) in members {
            let sent = by_user[&user].sent.get(&conv).map_or(&[][..], Vec::as_slice);
            self.check_sender(user, sent, &numbers.remove(&user).unwrap_or_default(), findings);
        }
        for (user, numbers) in numbers {
            self.find(Flaw::Foreign, format!("{} messages of {user}", numbers.len()), findings);
        }
    }

    fn check_sender(&self, user: i64, sent: &[Sent], numbers: &[usize], findings: &mut Vec<Finding>) {
        let mut seen = BTreeSet::new();
        for number in numbers {
            if seen.last().is_some_and(|last| last > number) && !seen.contains(number) {
                self.find(Flaw::Misordered, format!("{number} of {user} after {:?}", seen.last()), findings);
            }
            if !seen.insert(*number) {
                self.find(Flaw::Doubled, format!("{number} of {user}"), findings);
            }
            if *number >= sent.len() {
                self.find(Flaw::Foreign, format!("{number} of {user}"), findings);
            }
        }
        for (number, sent) in sent.iter().enumerate().filter(|(number, _)| !seen.contains(number)) {
            let told = sent.acknowledged.map_or("not acknowledged".to_owned(), |seq| format!("acknowledged as {seq}"));
            self.find(Flaw::Lost, format!("{number} of {user}, {told}"), findings);
        }
    }
}

impl Ledger {
    /// Reads the store. Messages that the store knows but lacks are read from the server.
    pub fn read_store(&mut self, client: &Client) -> Result<()> {
        self.store = read_all(client, &self.convs)?;
        Ok(())
    }

    /// Reads the history through a device that holds nothing.
    pub fn read_history(&mut self, fresh: &Client) -> Result<()> {
        self.history = read_all(fresh, &self.convs)?;
        Ok(())
    }

    pub fn sent_count(&self) -> usize {
        self.sent.values().map(Vec::len).sum()
    }

    pub fn acknowledged_count(&self) -> usize {
        self.sent.values().flatten().filter(|sent| sent.acknowledged.is_some()).count()
    }

    pub fn held_count(&self) -> usize {
        self.store.values().map(Vec::len).sum()
    }
}

fn read_all(client: &Client, convs: &BTreeSet<Conv>) -> Result<BTreeMap<Conv, Vec<Held>>> {
    convs.iter().map(|conv| Ok((*conv, read(client, *conv)?))).collect()
}

fn read(client: &Client, conv: Conv) -> Result<Vec<Held>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = client.older(conv, before, PAGE)?;
        all.extend(page.messages.iter().rev().map(held));
        before = page.messages.first().map(|first| first.seq);
        if page.is_start || before.is_none() {
            all.reverse();
            return Ok(all);
        }
    }
}

fn held(message: &Message) -> Held {
    let what = match message.content() {
        Content::Text(text) => number_of(message.from, &text).map_or(What::Other, What::Numbered),
        Content::GroupEvent { .. } => What::Event,
        _ => What::Other,
    };
    Held { seq: message.seq, from: message.from, what }
}

/// The text of a message, determined by its sender, its number and its length.
pub fn text(user: i64, number: usize, length: usize) -> String {
    format!("{number} of {user} {length} {}", "x".repeat(length))
}

fn number_of(user: i64, told: &str) -> Option<usize> {
    let mut words = told.split(' ');
    let number = words.next()?.parse().ok()?;
    let length = words.nth(2)?.parse().ok()?;
    (told == text(user, number, length)).then_some(number)
}

/// The number of messages in one read of a store.
const PAGE: usize = 1_000;

mod tests {
    use super::*;

    const ANN: i64 = 1;
    const BOB: i64 = 2;

    /// Ann has sent Bob three messages, the second of which is not acknowledged yet. Bob has sent
    /// one.
    fn talk() -> [Ledger; 2] {
        let held = |seq, from, number| Held { seq, from, what: What::Numbered(number) };
        let list = vec![held(1, ANN, 0), held(2, BOB, 0), held(3, ANN, 1), held(4, ANN, 2)];
        let ledger = |user, conv, sent: &[Option<u64>]| Ledger {
            user,
            convs: BTreeSet::from([conv]),
            sent: BTreeMap::from([(
                conv,
                sent.iter().map(|seq| Sent { acknowledged: *seq, ..Sent::default() }).collect(),
            )]),
            store: BTreeMap::from([(conv, list.clone())]),
            history: BTreeMap::from([(conv, list.clone())]),
            ..Ledger::default()
        };
        [ledger(ANN, Conv::User(BOB), &[Some(1), None, Some(4)]), ledger(BOB, Conv::User(ANN), &[Some(2)])]
    }

    fn flaws(ledgers: &[Ledger]) -> Vec<(Flaw, i64)> {
        let ledgers: Vec<&Ledger> = ledgers.iter().collect();
        check(&ledgers).into_iter().map(|finding| (finding.flaw, finding.user)).collect()
    }

    fn broken(breaks: impl FnOnce(&mut Vec<Held>)) -> Vec<(Flaw, i64)> {
        let mut ledgers = talk();
        breaks(ledgers[1].store.get_mut(&Conv::User(ANN)).expect("a list"));
        flaws(&ledgers)
    }

    #[test]
    fn ledgers_that_agree() {
        assert_eq!(flaws(&talk()), []);
    }

    #[test]
    fn every_error_of_a_store_is_found() {
        assert_eq!(broken(|store| _ = store.pop()), [(Flaw::Lost, BOB)]);
        assert_eq!(broken(|store| _ = store.remove(0)), [(Flaw::Hole, BOB), (Flaw::Lost, BOB)]);
        // Bob lacks even his own message that was acknowledged.
        let nothing = [Flaw::Renumbered, Flaw::Lost, Flaw::Lost, Flaw::Lost, Flaw::Lost];
        assert_eq!(broken(Vec::clear), nothing.map(|flaw| (flaw, BOB)));
        let again = Held { seq: 5, from: ANN, what: What::Numbered(2) };
        assert_eq!(broken(|store| store.push(again)), [(Flaw::Doubled, BOB)]);
        assert_eq!(broken(|store| store.push(Held { seq: 6, ..again })), [(Flaw::Hole, BOB), (Flaw::Doubled, BOB)]);
        let swapped = broken(|store| (store[2].what, store[3].what) = (store[3].what, store[2].what));
        assert_eq!(swapped, [(Flaw::Renumbered, BOB), (Flaw::Renumbered, BOB), (Flaw::Misordered, BOB)]);
        let other = Held { what: What::Other, ..again };
        assert_eq!(broken(|store| store.push(other)), [(Flaw::Foreign, BOB)]);
        assert_eq!(broken(|store| store.push(Held { from: 3, ..again })), [(Flaw::Foreign, BOB)]);
        assert_eq!(broken(|store| store.push(Held { what: What::Numbered(7), ..again })), [(Flaw::Foreign, BOB)]);
    }

    #[test]
    fn an_error_in_all_ledgers_alike_is_found() {
        let mut ledgers = talk();
        for (ledger, conv) in ledgers.iter_mut().zip([BOB, ANN].map(Conv::User)) {
            for lists in [&mut ledger.store, &mut ledger.history] {
                let list = lists.get_mut(&conv).expect("a list");
                (list[2].what, list[3].what) = (list[3].what, list[2].what);
            }
        }
        let found = flaws(&ledgers);
        assert_eq!(found.iter().filter(|(flaw, _)| *flaw == Flaw::Misordered).count(), 4, "{found:?}");
        assert!(found.contains(&(Flaw::Renumbered, ANN)), "its acknowledgement says otherwise: {found:?}");
    }

    #[test]
    fn a_changed_text_has_no_number() {
        assert_eq!(number_of(7, &text(7, 12, 30)), Some(12));
        assert_eq!(number_of(8, &text(7, 12, 30)), None);
        assert_eq!(number_of(7, &text(7, 12, 30)[..30]), None);
        assert_eq!(number_of(7, &text(7, 12, 30).replace("xxx", "xx")), None);
    }
}
