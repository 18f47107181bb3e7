//! [`Books`]: what one client sent, was told and got, and when; and the checker, which compares the books of all.
//!
//! What is wrong is told apart: *lost* was acknowledged and never came (what was in an nginx that was killed is counted
//! by itself), *duplicated* came more than once, *reordered*
//! came after what was sent later, *misdelivered* came to somebody it was not for, or is not what was sent.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use crate::schedule::Kind;

/// Since the beginning of the run.
pub type Moment = Duration;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    User(i64),
    Group(i64),
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Node(usize),
    /// To a node of its choice.
    Nginx,
}

/// Everything that one client has seen.
#[derive(Debug, Default)]
pub struct Books {
    pub user: i64,
    /// What was sent, in its order.
    pub lots: Vec<Lot>,
    /// What came, in its order.
    pub arrivals: Vec<Arrival>,
    pub connections: Vec<Connection>,
    pub fetches: usize,
    /// What came and should not have: whatever is wrong with it.
    pub strays: Vec<String>,
}

/// Messages that were sent together and are acknowledged together. Numbers count for each target.
#[derive(Clone, Debug)]
pub struct Lot {
    pub target: Target,
    /// The sender's.
    pub connection: usize,
    pub numbers: Range<usize>,
    pub sent: Moment,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The answer has not come.
    Open,
    /// Settled, but for so many of them that the sender was told of.
    Acknowledged { at: Moment, refused: usize },
    /// The connection ended before the answer, or the sender gave it up.
    Unknown,
}

/// One message that has come.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub at: Moment,
    pub from: i64,
    /// For the user whose books these are, or for a group.
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

/// A fault as it was caused.
#[derive(Clone, Debug)]
pub struct Caused {
    pub kind: Kind,
    /// Which node.
    pub node: Option<usize>,
    /// Which client, by its user.
    pub user: Option<i64>,
    pub begun: Moment,
    pub over: Moment,
    /// How long after its end all nodes concerned were ready.
    pub ready_after: Option<Duration>,
}

/// Who is who.
#[derive(Debug, Default)]
pub struct Members(pub HashMap<i64, BTreeSet<i64>>);

/// Something that is wrong with one message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: Wrong,
    pub from: i64,
    pub to: i64,
    pub target: Target,
    pub number: usize,
    pub sent: Moment,
    pub at: Moment,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    Lost,
    /// Came once more.
    Duplicated,
    Reordered,
    Misdelivered,
    /// Was acknowledged and never came: it was in the memory of an nginx that was killed, which had acknowledged it to
    /// the server in the recipient's place. No server can know.
    TakenByProxy,
    /// Came in a fetch after what was sent later, because it had been on its way to a connection that broke. Not wrong:
    /// it was stored when that was found out.
    CameBack,
}

/// One message for one recipient, as all books together show it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub from: i64,
    pub to: i64,
    pub sent: Moment,
    pub fate: Fate,
    /// When it first came.
    pub came: Option<Moment>,
}

/// What the books of all come to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub deliveries: Vec<Delivery>,
    pub findings: Vec<Finding>,
    pub refused: usize,
}

impl Members {
    /// Who is to get what `from` sends to `target`.
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

/// What was sent by whom to whom under which number.
type Sent<'a> = HashMap<(i64, Target, usize), &'a Lot>;

/// Compares the books of all. `proxy_kills` is when nginx was killed.
pub fn check(books: &[&Books], members: &Members, proxy_kills: &[Moment]) -> Verdict {
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
    let mut first: HashMap<(i64, i64, Target, usize), Moment> = HashMap::new();
    for books in books {
        for Arrival { at, from, target, number, .. } in &books.arrivals {
            first.entry((books.user, *from, *target, *number)).or_insert(*at);
        }
        verdict.misdelivered(books, members, &sent);
        verdict.duplicated(books, &sent);
        verdict.reordered(books, &sent);
    }
    for sender in books {
        for lot in &sender.lots {
            if let Fate::Acknowledged { refused, .. } = lot.fate {
                verdict.refused += refused;
            }
            for to in members.recipients(sender.user, lot.target) {
                let came = |number| first.get(&(to, sender.user, lot.target, number)).copied();
                let taken = by_user.get(&to).is_some_and(|to| to.was_robbed(lot, proxy_kills));
                verdict.lost(sender.user, to, lot, came, if taken { Wrong::TakenByProxy } else { Wrong::Lost });
            }
        }
    }
    verdict
}

impl Verdict {
    fn lost(&mut self, from: i64, to: i64, lot: &Lot, came: impl Fn(usize) -> Option<Moment>, what: Wrong) {
        let delivery = |number| Delivery { from, to, sent: lot.sent, fate: lot.fate, came: came(number) };
        self.deliveries.extend(lot.numbers.clone().map(delivery));
        let Fate::Acknowledged { at, refused } = lot.fate else { return };
        let missing: Vec<usize> = lot.numbers.clone().filter(|number| came(*number).is_none()).collect();
        // The answers do not say which ones were refused, only how many.
        for number in missing.iter().skip(refused) {
            let detail = format!("of {:?}, acknowledged at {:.2}, {refused} refused", lot.numbers, at.as_secs_f64());
            self.find(what, (from, to, lot.target, *number), lot.sent, at, detail);
        }
    }

    fn misdelivered(&mut self, books: &Books, members: &Members, sent: &Sent) {
        for arrival in &books.arrivals {
            let Arrival { at, from, target, number, .. } = *arrival;
            let key = (from, books.user, target, number);
            match sent.get(&(from, target, number)) {
                None => self.find(Wrong::Misdelivered, key, at, at, "nobody sent that".to_owned()),
                Some(lot) if !members.recipients(from, target).contains(&books.user) => {
                    self.find(Wrong::Misdelivered, key, lot.sent, at, "it was not for that user".to_owned());
                }
                Some(_) => (),
            }
        }
        for stray in &books.strays {
            let key = (0, books.user, Target::User(books.user), 0);
            self.find(Wrong::Misdelivered, key, Moment::ZERO, Moment::ZERO, stray.clone());
        }
    }

    fn duplicated(&mut self, books: &Books, sent: &Sent) {
        let mut first: HashMap<(i64, Target, usize), How> = HashMap::new();
        for arrival in &books.arrivals {
            let key = (arrival.from, arrival.target, arrival.number);
            if let Some(before) = first.get(&key) {
                let detail = format!("first {before:?}, then {:?}", arrival.how);
                let sent = sent.get(&key).map_or(arrival.at, |lot| lot.sent);
                let key = (arrival.from, books.user, arrival.target, arrival.number);
                self.find(Wrong::Duplicated, key, sent, arrival.at, detail);
            } else {
                first.insert(key, arrival.how);
            }
        }
    }

    /// Looks at each connection and each fetch by itself, and at what came there for the first time. A message must not
    /// come after one that was sent after it on the same connection, nor, if it was acknowledged, after any that was
    /// sent afterwards. What a sender has given up and sent others after on another connection is in no order with them.
    fn reordered(&mut self, books: &Books, sent: &Sent) {
        let mut come = BTreeSet::new();
        let mut last: HashMap<(How, i64, Target, Option<usize>), usize> = HashMap::new();
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
                let last = last.entry((how, from, target, key)).or_insert(number);
                *last = number.max(*last);
            }
            if let Some(before) = before.filter(|before| *before > number) {
                let came_back = matches!(how, How::Fetched(_)) && books.has_broken_with(lot.sent, lot.fate);
                let what = if came_back { Wrong::CameBack } else { Wrong::Reordered };
                let detail = format!("after {before}, {how:?}");
                self.find(what, (from, books.user, target, number), lot.sent, at, detail);
            }
        }
    }

    fn find(
        &mut self,
        what: Wrong,
        (from, to, target, number): (i64, i64, Target, usize),
        sent: Moment,
        at: Moment,
        detail: String,
    ) {
        self.findings.push(Finding { what, from, to, target, number, sent, at, detail });
    }

    pub fn count(&self, what: Wrong) -> usize {
        self.findings.iter().filter(|finding| finding.what == what).count()
    }
}

impl Books {
    /// Whether a message that was sent then may have been handed to a connection of this user that broke.
    fn has_broken_with(&self, sent: Moment, fate: Fate) -> bool {
        let settled = match fate {
            Fate::Acknowledged { at, .. } => at,
            Fate::Open | Fate::Unknown => sent + AFTERMATH,
        };
        self.connections.iter().any(|connection| {
            connection.broke
                && connection.opened <= settled
                && connection.ended.is_some_and(|ended| sent <= ended + AFTERMATH)
        })
    }

    /// Whether messages may have been in nginx, on their way to this user, when it was killed.
    fn was_robbed(&self, lot: &Lot, proxy_kills: &[Moment]) -> bool {
        let Fate::Acknowledged { at, .. } = lot.fate else { return false };
        proxy_kills.iter().any(|kill| {
            lot.sent <= *kill && *kill <= at + IN_PROXY && self.used_nginx(kill.saturating_sub(IN_PROXY), *kill)
        })
    }

    /// The place of a connection at a time around `from..to`.
    fn was_at(&self, node: usize, from: Moment, to: Moment) -> bool {
        self.connections.iter().any(|connection| {
            let may_be_there = connection.place == Place::Node(node) || connection.place == Place::Nginx;
            // What ended long ago may still be known to the node that it went to.
            let ended = connection.ended.map_or(Moment::MAX, |ended| ended.saturating_add(AFTERMATH));
            may_be_there && connection.opened <= to && ended >= from
        })
    }

    fn used_nginx(&self, from: Moment, to: Moment) -> bool {
        self.connections.iter().any(|connection| {
            connection.place == Place::Nginx
                && connection.opened <= to
                && connection.ended.is_none_or(|ended| ended >= from)
        })
    }
}

impl Caused {
    /// Whether it can have an effect on messages from or to that client.
    pub fn concerns(&self, books: &Books) -> bool {
        let (from, to) = (self.begun, self.over);
        match self.kind {
            Kind::NodeKilled | Kind::NodeFrozen => self.node.is_some_and(|node| books.was_at(node, from, to)),
            Kind::NginxKilled => books.used_nginx(from, to),
            Kind::BlackHole | Kind::Reset | Kind::StopsReading => self.user == Some(books.user),
            Kind::DatabaseKilled
            | Kind::DatabaseFrozen
            | Kind::RedisKilled
            | Kind::RedisFrozen
            | Kind::RollingRestart => true,
        }
    }

    /// Whether something between these times is next to it.
    pub fn is_near(&self, from: Moment, to: Moment) -> bool {
        from <= self.over + AFTERMATH && to >= self.begun
    }
}

/// When nginx was killed.
pub fn proxy_kills(caused: &[Caused]) -> Vec<Moment> {
    caused.iter().filter(|caused| caused.kind == Kind::NginxKilled).map(|caused| caused.begun).collect()
}

/// How long after a fault is over its effects may show: a node finds out after at most so long that a peer is gone, a
/// confirmation is waited for, a client gives up and comes back.
pub const AFTERMATH: Duration = Duration::from_secs(8);

/// How long nginx may keep a message on a machine that is busy.
const IN_PROXY: Duration = Duration::from_secs(1);

mod tests {
    use super::*;

    const SECOND: Moment = Duration::from_secs(1);

    /// Ann (1) sends four messages to Bob (2), Cid (3) looks on, and all three are in group 9.
    fn ann(fate: Fate, target: Target) -> Books {
        let lots = vec![Lot { target, connection: 0, numbers: 0..4, sent: SECOND, fate }];
        Books { user: 1, lots, ..Books::default() }
    }

    fn with(user: i64, target: Target, came: &[(usize, How)]) -> Books {
        let arrival = |(number, how)| Arrival { at: 2 * SECOND, from: 1, target, number, how };
        let connection = Connection { place: Place::Node(0), opened: Moment::ZERO, ended: None, broke: false };
        Books {
            user,
            arrivals: came.iter().copied().map(arrival).collect(),
            connections: vec![connection],
            ..Books::default()
        }
    }

    fn found(books: &[&Books]) -> Vec<(Wrong, i64, usize)> {
        found_with(books, &[])
    }

    fn found_with(books: &[&Books], proxy_kills: &[Moment]) -> Vec<(Wrong, i64, usize)> {
        let members = Members(HashMap::from([(9, BTreeSet::from([1, 2, 3]))]));
        let verdict = check(books, &members, proxy_kills);
        verdict.findings.iter().map(|finding| (finding.what, finding.to, finding.number)).collect()
    }

    const BOB: Target = Target::User(2);
    const GROUP: Target = Target::Group(9);
    const ACKNOWLEDGED: Fate = Fate::Acknowledged { at: SECOND, refused: 0 };

    fn live(numbers: &[usize]) -> Vec<(usize, How)> {
        numbers.iter().map(|number| (*number, How::Live(0))).collect()
    }

    #[test]
    fn books_that_agree() {
        let mut came = live(&[0, 1]);
        came.extend([(2, How::Fetched(0)), (3, How::Fetched(0))]);
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &came)]), []);
        // One list may begin before the end of another.
        came.rotate_left(2);
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &came)]), []);
        assert_eq!(found(&[&ann(Fate::Unknown, BOB), &with(2, BOB, &live(&[1]))]), []);
        assert_eq!(found(&[&ann(Fate::Open, BOB), &with(2, BOB, &[])]), []);
        let all = live(&[0, 1, 2, 3]);
        assert_eq!(found(&[&ann(ACKNOWLEDGED, GROUP), &with(2, GROUP, &all), &with(3, GROUP, &all)]), []);
    }

    #[test]
    fn what_was_acknowledged_and_did_not_come_is_lost() {
        let bob = with(2, BOB, &live(&[0, 1, 3]));
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Lost, 2, 2)]);
        let refused = |refused| Fate::Acknowledged { at: SECOND, refused };
        assert_eq!(found(&[&ann(refused(1), BOB), &bob]), []);
        let bob = with(2, BOB, &live(&[0]));
        assert_eq!(found(&[&ann(refused(1), BOB), &bob]).len(), 2);
        let (bob, cid) = (with(2, GROUP, &live(&[0, 1, 2, 3])), with(3, GROUP, &live(&[0, 1, 2])));
        assert_eq!(found(&[&ann(ACKNOWLEDGED, GROUP), &bob, &cid]), [(Wrong::Lost, 3, 3)]);
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB)]).len(), 4, "who has no books got nothing");
    }

    #[test]
    fn what_was_in_a_proxy_that_was_killed_is_taken() {
        let kill = [SECOND + SECOND / 2];
        let mut bob = with(2, BOB, &live(&[0, 1, 3]));
        assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &kill), [(Wrong::Lost, 2, 2)], "he was on a node");
        bob.connections[0].place = Place::Nginx;
        assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &kill), [(Wrong::TakenByProxy, 2, 2)]);
        assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &[SECOND / 2]), [(Wrong::Lost, 2, 2)], "before");
        assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &[3 * SECOND]), [(Wrong::Lost, 2, 2)], "long after");
        assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &[]), [(Wrong::Lost, 2, 2)], "nothing was killed");
    }

    #[test]
    fn what_came_twice_is_duplicated() {
        let mut came = live(&[0, 1, 2, 3]);
        came.push((2, How::Fetched(0)));
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &came)]), [(Wrong::Duplicated, 2, 2)]);
    }

    #[test]
    fn what_came_after_a_later_one_is_reordered() {
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &live(&[0, 2, 1, 3]))]), [(Wrong::Reordered, 2, 1)]);
        let fetched: Vec<_> = [1, 2, 3, 0].map(|number| (number, How::Fetched(0))).to_vec();
        let mut bob = with(2, BOB, &fetched);
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Reordered, 2, 0)]);
        // It may have been on its way to a connection that broke.
        bob.connections[0].broke = true;
        bob.connections[0].ended = Some(2 * SECOND);
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::CameBack, 2, 0)]);
        // On a connection that lives there is no such excuse.
        bob.arrivals.iter_mut().for_each(|arrival| arrival.how = How::Live(0));
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Reordered, 2, 0)]);
    }

    #[test]
    fn what_was_given_up_is_in_no_order_with_what_was_sent_elsewhere() {
        let mut ann = ann(Fate::Unknown, BOB);
        ann.lots.push(Lot {
            connection: 1,
            numbers: 4..6,
            sent: 2 * SECOND,
            fate: ACKNOWLEDGED,
            ..ann.lots[0].clone()
        });
        assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 0, 1]))]), []);
        assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 1, 0]))]), [(Wrong::Reordered, 2, 0)]);
        ann.lots[0].fate = ACKNOWLEDGED;
        assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 0, 1, 2, 3]))]).len(), 4);
        ann.lots[0].fate = Fate::Unknown;
        ann.lots[1].connection = 0;
        assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 0, 1]))]).len(), 2);
    }

    #[test]
    fn what_came_to_somebody_else_is_misdelivered() {
        let (bob, cid) = (with(2, BOB, &live(&[0, 1, 2, 3])), with(3, BOB, &live(&[2])));
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob, &cid]), [(Wrong::Misdelivered, 3, 2)]);
        let invented = with(2, BOB, &live(&[0, 1, 2, 3, 4]));
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &invented]), [(Wrong::Misdelivered, 2, 4)]);
        let mut bob = with(2, BOB, &live(&[0, 1, 2, 3]));
        bob.strays.push("not what was sent".to_owned());
        assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Misdelivered, 2, 0)]);
        // A group's message that comes back to its sender.
        let mut ann = ann(ACKNOWLEDGED, GROUP);
        ann.arrivals = with(1, GROUP, &live(&[0])).arrivals;
        let (bob, cid) = (with(2, GROUP, &live(&[0, 1, 2, 3])), with(3, GROUP, &live(&[0, 1, 2, 3])));
        assert_eq!(found(&[&ann, &bob, &cid]), [(Wrong::Misdelivered, 1, 0)]);
    }

    #[test]
    fn a_fault_concerns_who_was_there() {
        let fault = |kind, node, user| Caused { kind, node, user, begun: SECOND, over: 2 * SECOND, ready_after: None };
        let bob = with(2, BOB, &[]);
        assert!(fault(Kind::NodeKilled, Some(0), None).concerns(&bob));
        assert!(!fault(Kind::NodeKilled, Some(1), None).concerns(&bob));
        assert!(fault(Kind::RedisFrozen, None, None).concerns(&bob));
        assert!(!fault(Kind::NginxKilled, None, None).concerns(&bob));
        assert!(fault(Kind::BlackHole, None, Some(2)).concerns(&bob));
        assert!(!fault(Kind::BlackHole, None, Some(3)).concerns(&bob));
        let fault = fault(Kind::Reset, None, Some(2));
        assert!(fault.is_near(Moment::ZERO, SECOND) && !fault.is_near(Moment::ZERO, SECOND / 2));
        assert!(!fault.is_near(3 * SECOND + AFTERMATH, 9 * SECOND + AFTERMATH));
    }
}
