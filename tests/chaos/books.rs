//! [`Books`]: one client's messages, the answers to them, and the messages it received, each with
//! its time; and the checker, which compares the books of all clients.
//!
//! The checker tells several errors apart. A *lost* message was acknowledged and never arrived;
//! what was in an nginx that was killed is counted separately. A *duplicated* message arrived more
//! than once. A *reordered* message arrived after one that was sent later. A *misdelivered* message
//! arrived at a client that it was not for, or differs from what was sent.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use crate::caused::{Caused, Part, Party};
use crate::schedule::{Kind, USER_TIMEOUT};

/// Since the beginning of the run.
pub type Moment = Duration;

/// The recipient of a message: a user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    User(i64),
    Group(i64),
}

/// The destination of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Node(usize),
    /// To the node that nginx chooses.
    Nginx,
}

/// Everything that one client has seen.
#[derive(Debug, Default)]
pub struct Books {
    pub user: i64,
    /// The messages sent, in their order.
    pub lots: Vec<Lot>,
    /// The messages that arrived, in their order.
    pub arrivals: Vec<Arrival>,
    pub connections: Vec<Connection>,
    pub fetches: usize,
    /// Arrivals that should not have happened, with what is wrong with each.
    pub strays: Vec<String>,
}

/// Messages that were sent together and are acknowledged together. Messages are numbered for each
/// target.
#[derive(Clone, Debug)]
pub struct Lot {
    pub target: Target,
    /// The sender's connection.
    pub connection: usize,
    pub numbers: Range<usize>,
    pub sent: Moment,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The answer has not arrived.
    Open,
    /// All are settled; the sender was notified that `refused` of them failed.
    Acknowledged { at: Moment, refused: usize },
    /// The connection ended before the answer, or the sender gave it up.
    Unknown,
}

/// One message that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: Moment,
    pub from: i64,
    /// The user whose books these are, or a group.
    pub target: Target,
    pub number: usize,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// On this connection of the books.
    Live(usize),
    /// In this fetch of the books.
    Fetched(usize),
}

/// One logged-in connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub place: Place,
    pub opened: Moment,
    /// When it ended, or its client gave it up.
    pub ended: Option<Moment>,
    /// It did not end by a logout, so messages may have been on their way to it.
    pub broke: bool,
}

/// All users and the members of all groups.
#[derive(Debug, Default)]
pub struct Members(pub HashMap<i64, BTreeSet<i64>>);

/// Something that is wrong with one message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: Wrong,
    pub target: Target,
    pub number: usize,
    /// Until it arrived wrongly, or its sender got the acknowledgement.
    pub way: Way,
    pub detail: String,
}

/// A message on its way to one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub from: i64,
    pub to: i64,
    /// The sender's connection.
    pub connection: usize,
    pub sent: Moment,
    pub until: Moment,
    /// Whether it was or may have been in the database: it was fetched, or never arrived.
    pub stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    Lost,
    /// Arrived once more.
    Duplicated,
    Reordered,
    Misdelivered,
    /// Acknowledged and never arrived: it was in the memory of an nginx that was killed, which had
    /// acknowledged it to the server in the recipient's place. No server can notice that.
    TakenByProxy,
    /// Arrived in a fetch after a message that was sent later, because it had been on its way to a
    /// connection that broke. Not wrong: it was stored when the server noticed.
    CameBack,
    /// Arrived in a fetch after a message that was sent later and that another node stored: it
    /// waited in the first node's spool while the database was unreachable. The other node stored
    /// the later one because it was sent there, or because it came back there from a connection of
    /// the recipient that broke. Not wrong: order is promised on a connection, and in the database.
    WaitedInSpool,
}

/// One message for one recipient, as all books together show it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Until it arrived for the last time.
    pub way: Way,
    pub fate: Fate,
    /// When it first arrived.
    pub came: Option<Moment>,
}

/// The arrival of a message at one recipient.
#[derive(Clone, Copy, Debug)]
struct Came {
    first: Moment,
    last: Moment,
    /// At least once in a fetch.
    fetched: bool,
}

/// The result of comparing all books.
#[derive(Debug, Default)]
pub struct Verdict {
    pub deliveries: Vec<Delivery>,
    pub findings: Vec<Finding>,
    pub refused: usize,
}

impl Members {
    /// The users who should receive what `from` sends to `target`.
    pub fn recipients(&self, from: i64, target: Target) -> Vec<i64> {
        match target {
            Target::User(user) => vec![user],
            Target::Group(group) => {
                let members = self.0.get(&group).into_iter().flatten();
                members.copied().filter(|member| *member != from).collect()
            }
        }
    }
}

/// The lot of each message, by sender, target and number.
type Sent<'a> = HashMap<(i64, Target, usize), &'a Lot>;

/// Compares the books of all clients, taking the caused faults into account.
pub fn check(books: &[&Books], members: &Members, caused: &[Caused]) -> Verdict {
    let proxy_kills: Vec<&Caused> = caused.iter().filter(|caused| caused.kind == Kind::NginxKilled).collect();
    let parts = caused.iter().flat_map(|caused| &caused.parts);
    let outages: Vec<Part> = parts.filter(|part| part.party == Party::Database).copied().collect();
    let mut verdict = Verdict::default();
    let by_user: HashMap<i64, &Books> = books.iter().map(|books| (books.user, *books)).collect();
    let mut sent: Sent = HashMap::new();
    for books in books {
        for lot in &books.lots {
            for number in lot.numbers.clone() {
                sent.insert((books.user, lot.target, number), lot);
            }
        }
    }
    let mut come: HashMap<(i64, i64, Target, usize), Came> = HashMap::new();
    for books in books {
        for Arrival { at, from, target, number, how } in &books.arrivals {
            let fetched = matches!(how, How::Fetched(_));
            come.entry((books.user, *from, *target, *number))
                .and_modify(|came| (came.last, came.fetched) = (*at, came.fetched || fetched))
                .or_insert(Came { first: *at, last: *at, fetched });
        }
        verdict.misdelivered(books, members, &sent);
        verdict.duplicated(books, &sent);
        verdict.reordered(books, &sent, &by_user, &outages);
    }
    for sender in books {
        for lot in &sender.lots {
            if let Fate::Acknowledged { refused, .. } = lot.fate {
                verdict.refused += refused;
            }
            for to in members.recipients(sender.user, lot.target) {
                let came = |number| come.get(&(to, sender.user, lot.target, number)).copied();
                let taken = by_user.get(&to).is_some_and(|to| to.was_robbed(lot, &proxy_kills));
                verdict.lost(sender, to, lot, came, if taken { Wrong::TakenByProxy } else { Wrong::Lost });
            }
        }
    }
    verdict
}

impl Verdict {
    fn lost(&mut self, sender: &Books, to: i64, lot: &Lot, came: impl Fn(usize) -> Option<Came>, what: Wrong) {
        let settled = sender.settled(lot);
        let delivery = |number| {
            let came = came(number);
            let until = came.map_or(settled, |came| came.last);
            let way = lot.way(sender.user, to, until, came.is_none_or(|came| came.fetched));
            Delivery { way, fate: lot.fate, came: came.map(|came| came.first) }
        };
        self.deliveries.extend(lot.numbers.clone().map(delivery));
        let Fate::Acknowledged { at, refused } = lot.fate else { return };
        let missing: Vec<usize> = lot.numbers.clone().filter(|number| came(*number).is_none()).collect();
        // The answers say only how many were refused, not which ones.
        for number in missing.iter().skip(refused) {
            let detail = format!("of {:?}, acknowledged at {:.2}, {refused} refused", lot.numbers, at.as_secs_f64());
            self.find(what, (lot.target, *number), lot.way(sender.user, to, at, true), detail);
        }
    }

    fn misdelivered(&mut self, books: &Books, members: &Members, sent: &Sent) {
        for arrival in &books.arrivals {
            let Arrival { at, from, target, number, how } = *arrival;
            let stored = matches!(how, How::Fetched(_));
            match sent.get(&(from, target, number)) {
                None => {
                    let way = Way { from, to: books.user, connection: 0, sent: at, until: at, stored };
                    self.find(Wrong::Misdelivered, (target, number), way, "nobody sent that".to_owned());
                }
                Some(lot) if !members.recipients(from, target).contains(&books.user) => {
                    let way = lot.way(from, books.user, at, stored);
                    self.find(Wrong::Misdelivered, (target, number), way, "it was not for that user".to_owned());
                }
                Some(_) => (),
            }
        }
        for stray in &books.strays {
            let (sent, until) = (Moment::ZERO, Moment::ZERO);
            let way = Way { from: 0, to: books.user, connection: 0, sent, until, stored: false };
            self.find(Wrong::Misdelivered, (Target::User(books.user), 0), way, stray.clone());
        }
    }

    fn duplicated(&mut self, books: &Books, sent: &Sent) {
        let mut first: HashMap<(i64, Target, usize), How> = HashMap::new();
        for arrival in &books.arrivals {
            let Arrival { at, from, target, number, how } = *arrival;
            let Some(before) = first.insert((from, target, number), how) else { continue };
            let Some(lot) = sent.get(&(from, target, number)) else { continue };
            let stored = [before, how].iter().any(|how| matches!(how, How::Fetched(_)));
            let way = lot.way(from, books.user, at, stored);
            self.find(Wrong::Duplicated, (target, number), way, format!("{before:?}, then {how:?}"));
        }
    }

    /// Checks the order within each connection and each fetch, for first arrivals. A message must
    /// not arrive after one that was sent later on the same connection, nor, if it was
    /// acknowledged, after any that was sent after the acknowledgement. Messages that a sender has
    /// given up have no order with those it sent later on another connection.
    fn reordered(&mut self, books: &Books, sent: &Sent, senders: &HashMap<i64, &Books>, outages: &[Part]) {
        let mut come = BTreeSet::new();
        let mut last: HashMap<_, (usize, &Lot)> = HashMap::new();
        for arrival in &books.arrivals {
            let Arrival { at, from, target, number, how } = *arrival;
            let Some(lot) = sent.get(&(from, target, number)) else { continue };
            if !come.insert((from, target, number)) {
                continue;
            }
            let on_any = last.get(&(how, from, target, None)).copied();
            let on_same = last.get(&(how, from, target, Some(lot.connection))).copied();
            let before = if matches!(lot.fate, Fate::Acknowledged { .. }) { on_any } else { on_same };
            for key in [None, Some(lot.connection)] {
                let last = last.entry((how, from, target, key)).or_insert((number, *lot));
                if number > last.0 {
                    *last = (number, *lot);
                }
            }
            if let Some((before, later)) = before.filter(|(before, _)| *before > number) {
                let fetched = matches!(how, How::Fetched(_));
                let spooled = |sender: &&Books| sender.spooled_elsewhere(lot, later, books, outages);
                let what = if fetched && books.has_broken_with(lot.sent, lot.fate) {
                    Wrong::CameBack
                } else if fetched && senders.get(&from).is_some_and(spooled) {
                    Wrong::WaitedInSpool
                } else {
                    Wrong::Reordered
                };
                let paths = senders.get(&from).map(|sender| sender.paths([lot, later], books));
                let detail = format!("after {before}, {how:?}; {}", paths.unwrap_or_default());
                let way = lot.way(from, books.user, at, matches!(how, How::Fetched(_)));
                self.find(what, (target, number), way, detail);
            }
        }
    }

    fn find(&mut self, what: Wrong, (target, number): (Target, usize), way: Way, detail: String) {
        self.findings.push(Finding { what, target, number, way, detail });
    }

    pub fn count(&self, what: Wrong) -> usize {
        self.findings.iter().filter(|finding| finding.what == what).count()
    }
}

impl Lot {
    fn way(&self, from: i64, to: i64, until: Moment, stored: bool) -> Way {
        Way { from, to, connection: self.connection, sent: self.sent, until, stored }
    }
}

impl Books {
    /// When the sender of a lot knew its fate, or could no longer learn it.
    fn settled(&self, lot: &Lot) -> Moment {
        let ended = || self.connections.get(lot.connection).and_then(|connection| connection.ended);
        match lot.fate {
            Fate::Acknowledged { at, .. } => at,
            Fate::Open | Fate::Unknown => ended().unwrap_or(lot.sent).max(lot.sent),
        }
    }

    /// Whether a lot of this sender may have waited for the database on another node than the one
    /// that has stored the `later` lot for this recipient.
    fn spooled_elsewhere(&self, lot: &Lot, later: &Lot, recipient: &Books, outages: &[Part]) -> bool {
        let settled = self.settled(lot);
        let waited = |outage: &Part| lot.sent <= outage.well + DRAINED_AFTER && outage.begun <= settled;
        let Some(first) = self.connections.get(lot.connection) else { return false };
        let is_apart = |other: &Connection| other.place != first.place || other.place == Place::Nginx;
        let sent_elsewhere =
            lot.connection != later.connection && self.connections.get(later.connection).is_some_and(is_apart);
        let came_back_elsewhere = || recipient.broken_with(later.sent, later.fate).any(is_apart);
        outages.iter().any(waited) && (sent_elsewhere || came_back_elsewhere())
    }

    /// The connections that these lots of this sender may have been on, for a report.
    fn paths(&self, lots: [&Lot; 2], recipient: &Books) -> String {
        let seconds = |moment: Moment| format!("{:.2}", moment.as_secs_f64());
        let lots = lots.map(|lot| {
            let place = self.connections.get(lot.connection).map(|connection| connection.place);
            let fate = lot.fate;
            format!(
                "{:?} sent at {} on connection {} ({place:?}), {fate:?}",
                lot.numbers,
                seconds(lot.sent),
                lot.connection
            )
        });
        let of_recipient = recipient.connections.iter().map(|connection| {
            let ended = connection.ended.map(seconds).unwrap_or_default();
            let broke = if connection.broke { " broken" } else { "" };
            format!("{:?} {}-{ended}{broke}", connection.place, seconds(connection.opened))
        });
        let of_recipient = of_recipient.collect::<Vec<_>>().join(", ");
        format!("{}; the recipient's connections: {of_recipient}", lots.join(" and "))
    }

    /// The places where nodes may have known this user between these times.
    pub fn places(&self, from: Moment, to: Moment) -> impl Iterator<Item = Place> {
        let was_known = move |connection: &&Connection| {
            // A node notices after at most this time that the other end has gone.
            let forgotten = connection.ended.map_or(Moment::MAX, |ended| ended + USER_TIMEOUT);
            connection.opened <= to && forgotten >= from
        };
        self.connections.iter().filter(was_known).map(|connection| connection.place)
    }

    /// Whether this user gave a connection up, or lost it, between these times.
    pub fn gave_up(&self, from: Moment, to: Moment) -> bool {
        let has_broken = |connection: &Connection| {
            connection.broke && connection.ended.is_some_and(|ended| (from..=to).contains(&ended))
        };
        self.connections.iter().any(has_broken)
    }

    /// Whether a message that was sent at this time may have been handed to a connection of this
    /// user that broke.
    fn has_broken_with(&self, sent: Moment, fate: Fate) -> bool {
        self.broken_with(sent, fate).next().is_some()
    }

    /// The connections of this user that broke and that a message that was sent at this time may
    /// have been handed to.
    fn broken_with(&self, sent: Moment, fate: Fate) -> impl Iterator<Item = &Connection> {
        let settled = match fate {
            Fate::Acknowledged { at, .. } => at,
            Fate::Open | Fate::Unknown => sent + AFTERMATH,
        };
        self.connections.iter().filter(move |connection| {
            connection.broke
                && connection.opened <= settled
                && connection.ended.is_some_and(|ended| sent <= ended + AFTERMATH)
        })
    }

    /// Whether messages to this user may have been in nginx when it was killed.
    fn was_robbed(&self, lot: &Lot, proxy_kills: &[&Caused]) -> bool {
        let Fate::Acknowledged { at, .. } = lot.fate else { return false };
        proxy_kills.iter().any(|kill| {
            lot.sent <= kill.complete + CLOSING
                && kill.begun <= at + IN_PROXY
                && self.used_nginx(kill.begun.saturating_sub(IN_PROXY), kill.complete)
        })
    }

    pub fn used_nginx(&self, from: Moment, to: Moment) -> bool {
        self.connections.iter().any(|connection| {
            connection.place == Place::Nginx
                && connection.opened <= to
                && connection.ended.is_none_or(|ended| ended >= from)
        })
    }
}

impl Place {
    /// The clients of nginx do not know which node it has chosen.
    pub fn may_be(self, node: usize) -> bool {
        self == Place::Node(node) || self == Place::Nginx
    }
}

/// How long after a message was handed to a connection that broke it may be stored: a node notices
/// after at most this time that a peer has gone, and waits for the database.
const AFTERMATH: Duration = Duration::from_secs(8);

/// How long after the end of a database outage a spool may still hold messages; new messages queue
/// behind them.
const DRAINED_AFTER: Duration = Duration::from_secs(3);

/// A killed process has no open files any more some moments before its last socket is closed, on a
/// busy machine. Until then the kernel acknowledges for it.
const CLOSING: Duration = Duration::from_millis(200);

/// How long nginx may hold a message on a busy machine.
const IN_PROXY: Duration = Duration::from_secs(1);

mod tests;
