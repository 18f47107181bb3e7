//! [`Report`]: the results of runs, as a table, as a list of errors and as a plot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::books::{Books, Delivery, Fate, Finding, Moment, Verdict, Way, Wrong, check};
use crate::caused::{Caused, Part, Party};
use crate::ledger::{self, Flaw, Ledger};
use crate::parts;
use crate::plot;
use crate::schedule::{KINDS, Kind};
use crate::stage::Run;

/// One or more runs after the check.
pub struct Report<'a> {
    checked: Vec<Checked<'a>>,
}

struct Checked<'a> {
    run: &'a Run,
    verdict: Verdict,
    books: HashMap<i64, &'a Books>,
    /// The users that each fault concerns.
    concerned: Vec<BTreeSet<i64>>,
    /// The findings at level 2.
    flaws: Vec<ledger::Finding>,
}

/// The effects of one kind of fault.
#[derive(Default)]
struct Row {
    times: usize,
    longest: Duration,
    deliveries: usize,
    acknowledged: usize,
    wrong: BTreeMap<Wrong, usize>,
    ready: Option<Duration>,
    delivered: Option<Duration>,
}

impl<'a> Report<'a> {
    pub fn new(runs: &'a [Run]) -> Report<'a> {
        Report { checked: runs.iter().map(Checked::new).collect() }
    }

    /// Describes broken promises; `None` if there are none.
    pub fn failure(&self) -> Option<String> {
        let mut text = String::new();
        for checked in &self.checked {
            let bad: Vec<&Finding> =
                checked.verdict.findings.iter().filter(|finding| checked.is_bad(finding)).collect();
            let mut counts: BTreeMap<Wrong, usize> = BTreeMap::new();
            bad.iter().for_each(|finding| *counts.entry(finding.what).or_default() += 1);
            if !bad.is_empty() {
                let _ = writeln!(text, "{counts:?} with seed {}", checked.run.seed);
            }
            for finding in bad.iter().take(SHOWN_MAX) {
                let _ = writeln!(text, "  {}", checked.describe(finding));
            }
            if !checked.flaws.is_empty() {
                let _ = writeln!(text, "{} flaws at level 2 with seed {}", checked.flaws.len(), checked.run.seed);
            }
            for flaw in checked.flaws.iter().take(SHOWN_MAX) {
                let _ = writeln!(text, "  {flaw:?}");
            }
            for caused in checked.silent() {
                let _ = writeln!(text, "no message of level 2 came: {}", checked.describe_fault(caused));
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// The number of findings of this kind.
    pub fn count(&self, what: Wrong) -> usize {
        self.checked.iter().map(|checked| checked.verdict.count(what)).sum()
    }

    /// One row for each kind of fault, in Markdown.
    pub fn table(&self) -> String {
        let mut table =
            "| fault | times | longest | messages | acknowledged | lost | misdelivered | reordered | duplicated | \
                         ready after | delivered after |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned();
        let mut add = |name: &str, row: &Row| {
            let wrong = |what| row.wrong.get(&what).copied().unwrap_or(0);
            let longest = if row.longest.is_zero() { "–".to_owned() } else { seconds(row.longest) };
            let _ = writeln!(
                table,
                "| {name} | {} | {longest} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.times,
                row.deliveries,
                row.acknowledged,
                wrong(Wrong::Lost),
                wrong(Wrong::Misdelivered),
                wrong(Wrong::Reordered),
                wrong(Wrong::Duplicated),
                row.ready.map_or("–".to_owned(), seconds),
                row.delivered.map_or("–".to_owned(), seconds),
            );
        };
        for kind in KINDS.into_iter().chain(parts::KINDS) {
            let row = self.row(|caused| caused.kind == kind);
            if row.times > 0 {
                add(&kind.to_string(), &row);
            }
        }
        let mut calm = Row::default();
        let mut all = Row::default();
        for checked in &self.checked {
            checked.add_calm(&mut calm);
            checked.add_all(&mut all);
        }
        add("no fault near", &calm);
        add("**all**", &all);
        let refused: usize = self.checked.iter().map(|checked| checked.verdict.refused).sum();
        let (came_back, taken) = (self.count(Wrong::CameBack), self.count(Wrong::TakenByProxy));
        let waited = self.count(Wrong::WaitedInSpool);
        let spooled: usize =
            self.checked.iter().flat_map(|checked| &checked.run.caused).map(|caused| caused.spooled).sum();
        let _ = write!(
            table,
            "\n{spooled} messages were in the spools of nodes as they were killed. {refused} messages were refused with an error; {came_back} came in a fetch behind later ones, having been on \
             their way to a connection that broke, and {waited} behind later ones that another node stored, \
             having waited in the spool of a node; {taken} were in the memory of an nginx that was killed, and are not \
             counted as lost.\n"
        );
        self.add_devices(&mut table);
        table
    }

    /// Adds the outcome of the messages of level 2.
    fn add_devices(&self, table: &mut String) {
        let devices = || self.checked.iter().flat_map(|checked| &checked.run.devices);
        let sum = |count: fn(&Ledger) -> usize| devices().map(count).sum::<usize>();
        let flaws = |wanted: &[Flaw]| {
            let flaws = self.checked.iter().flat_map(|checked| &checked.flaws);
            flaws.filter(|finding| wanted.contains(&finding.flaw)).count()
        };
        let caught: usize = self.checked.iter().map(|checked| checked.run.caught).sum();
        let _ = write!(
            table,
            "\nLevel 2:\n\n| sent | acknowledged to a client that ran until then | in all stores | without an answer when a node was killed | connections | clients started again | lost | doubled | holes | misordered | other flaws |\n|---|---|---|---|---|---|---|---|---|---|---|\n| {} | {} | {} | {caught} | {} | {} | {} | {} | {} | {} | {} |\n",
            sum(Ledger::sent_count),
            sum(Ledger::acknowledged_count),
            sum(Ledger::held_count),
            sum(|ledger| ledger.connections),
            sum(|ledger| ledger.restarts),
            flaws(&[Flaw::Lost]),
            flaws(&[Flaw::Doubled]),
            flaws(&[Flaw::Hole]),
            flaws(&[Flaw::Misordered]),
            flaws(&[Flaw::Renumbered, Flaw::Foreign, Flaw::Trouble]),
        );
    }

    fn row(&self, is_meant: impl Fn(&Caused) -> bool) -> Row {
        let mut row = Row::default();
        for checked in &self.checked {
            let meant: Vec<usize> =
                (0..checked.run.caused.len()).filter(|index| is_meant(&checked.run.caused[*index])).collect();
            checked.add_faults(&meant, &mut row);
        }
        row
    }

    /// Writes the table, all findings and a plot of each run. Returns the files.
    pub fn write(&self, name: &str) -> Vec<PathBuf> {
        let folder = folder();
        let mut text = self.table();
        for checked in &self.checked {
            let _ =
                writeln!(text, "\n{}, seed {}, {}:\n", checked.run.deployment, checked.run.seed, checked.run.network);
            for (number, caused) in checked.run.caused.iter().enumerate() {
                let _ = write!(text, "- {}", checked.describe_fault(caused));
                if let Some((after, user, sent)) = checked.delivered_after(number) {
                    let way = if sent { "from" } else { "to" };
                    let _ = write!(
                        text,
                        "; the last delivery that came back was {way} user {user}, after {}",
                        seconds(after)
                    );
                }
                text.push('\n');
            }
            for finding in &checked.verdict.findings {
                let _ = writeln!(text, "- {}", checked.describe(finding));
            }
            for flaw in &checked.flaws {
                let _ = writeln!(text, "- level 2: {flaw:?}");
            }
        }
        let mut paths = vec![folder.join(name)];
        fs::write(&paths[0], text).expect("write the report");
        for checked in &self.checked {
            let path = folder.join(format!("{}seed-{}.svg", checked.run.deployment.prefix(), checked.run.seed));
            fs::write(&path, plot::draw(checked.run)).expect("write the plot");
            paths.push(path);
        }
        paths
    }
}

impl<'a> Checked<'a> {
    fn new(run: &'a Run) -> Checked<'a> {
        let books: Vec<_> = run.books.iter().collect();
        let verdict = check(&books, &run.members, &run.caused);
        let of =
            |caused: &Caused| run.books.iter().filter(|books| caused.concerns(books)).map(|books| books.user).collect();
        let concerned = run.caused.iter().map(of).collect();
        let flaws = ledger::check(&run.devices.iter().collect::<Vec<_>>());
        Checked { run, verdict, books: run.books.iter().map(|books| (books.user, books)).collect(), concerned, flaws }
    }

    /// The faults of servers after which no message of level 2 came while another part should have
    /// taken over.
    fn silent(&self) -> impl Iterator<Item = &Caused> {
        let caused = self.run.caused.iter().filter(|caused| !caused.kind.is_of_client());
        caused.filter(|caused| self.run.deployment.has_several() && caused.delivered_after.is_none())
    }

    /// Whether a fault can have affected a message. One rule holds for all messages.
    fn is_touched(&self, fault: usize, way: &Way) -> bool {
        let (Some(sender), Some(recipient)) = (self.books.get(&way.from), self.books.get(&way.to)) else {
            return false;
        };
        self.run.caused[fault].touches(way, sender, recipient)
    }

    fn touching(&self, way: &Way) -> impl Iterator<Item = usize> {
        (0..self.run.caused.len()).filter(move |fault| self.is_touched(*fault, way))
    }

    /// Whether a finding breaks a promise. A duplicate does so only if no fault explains it. If the
    /// services have several processes, one fault follows the other without a pause, and each may
    /// explain a duplicate: they are only counted.
    fn is_bad(&self, finding: &Finding) -> bool {
        match finding.what {
            Wrong::Lost | Wrong::Reordered | Wrong::Misdelivered => true,
            Wrong::Duplicated => !self.run.deployment.has_several() && self.touching(&finding.way).next().is_none(),
            Wrong::CameBack | Wrong::WaitedInSpool | Wrong::TakenByProxy => false,
        }
    }

    fn add_faults(&self, faults: &[usize], row: &mut Row) {
        row.times += faults.len();
        for fault in faults {
            let caused = &self.run.caused[*fault];
            row.longest = row.longest.max(caused.over - caused.begun);
            row.ready = row.ready.max(caused.ready_after);
            let delivered = caused.delivered_after.or_else(|| self.delivered_after(*fault).map(|(after, ..)| after));
            row.delivered = row.delivered.max(delivered);
        }
        let is_touched = |way: &Way| faults.iter().any(|fault| self.is_touched(*fault, way));
        row.count(self.verdict.deliveries.iter().filter(|delivery| is_touched(&delivery.way)));
        self.verdict.findings.iter().filter(|finding| is_touched(&finding.way)).for_each(|finding| row.note(finding));
    }

    fn add_calm(&self, row: &mut Row) {
        let is_calm = |way: &Way| self.touching(way).next().is_none();
        row.count(self.verdict.deliveries.iter().filter(|delivery| is_calm(&delivery.way)));
        self.verdict.findings.iter().filter(|finding| is_calm(&finding.way)).for_each(|finding| row.note(finding));
    }

    fn add_all(&self, row: &mut Row) {
        row.times += self.run.caused.len();
        row.count(self.verdict.deliveries.iter());
        self.verdict.findings.iter().for_each(|finding| row.note(finding));
    }

    /// The longest time until the first delivery from or to a steady client that the fault
    /// concerns. The time begins at the end of a server's fault, or at the beginning of a client's
    /// fault. Also returns the client, and whether it sent or received.
    fn delivered_after(&self, fault: usize) -> Option<(Duration, i64, bool)> {
        let caused = &self.run.caused[fault];
        let since = if caused.kind.is_of_client() { caused.begun } else { caused.over };
        let is_meant = |user: &i64| self.concerned[fault].contains(user);
        let mut first: BTreeMap<(i64, bool), Moment> = BTreeMap::new();
        for delivery in self.verdict.deliveries.iter().filter(|delivery| delivery.way.sent >= since) {
            let Some(came) = delivery.came else { continue };
            for party in [(delivery.way.from, true), (delivery.way.to, false)] {
                if self.run.steady.contains(&party.0) && is_meant(&party.0) {
                    let first = first.entry(party).or_insert(came);
                    *first = came.min(*first);
                }
            }
        }
        first.into_iter().map(|((user, sent), came)| (came - since, user, sent)).max()
    }

    fn describe_fault(&self, caused: &Caused) -> String {
        let name = |party: Party| match party {
            Party::Node(node) => format!("node {node}"),
            Party::Client(user) => format!("user {user}"),
            Party::Database | Party::Redis | Party::Nginx => format!("{party:?}"),
        };
        let part = |part: &Part| {
            let (begun, well) = (part.begun.as_secs_f64(), part.well.as_secs_f64());
            format!("{} {begun:.2} to {well:.2}", name(part.party))
        };
        let parts: Vec<String> = caused.parts.iter().map(part).collect();
        let (begun, over) = (caused.begun.as_secs_f64(), caused.over.as_secs_f64());
        let ready = caused.ready_after.map_or(String::new(), |after| format!(", ready {} later", seconds(after)));
        let spooled = if caused.spooled > 0 { format!(", {} in the spool", caused.spooled) } else { String::new() };
        let delivered =
            caused.delivered_after.map_or(String::new(), |after| format!(", delivered after {}", seconds(after)));
        format!("{} from {begun:.2} to {over:.2}{delivered}{ready} ({}){spooled}", caused.kind, parts.join(", "))
    }

    fn describe(&self, finding: &Finding) -> String {
        let Finding { what, target, number, way: Way { from, to, sent, until, .. }, detail } = finding;
        let near: Vec<String> =
            self.touching(&finding.way).map(|fault| self.describe_fault(&self.run.caused[fault])).collect();
        format!(
            "{what:?}: {number} of {from} to {target:?} for {to}, sent at {:.2}, at {:.2}: {detail}; near: {near:?}",
            sent.as_secs_f64(),
            until.as_secs_f64()
        )
    }
}

impl Row {
    fn count<'a>(&mut self, deliveries: impl Iterator<Item = &'a Delivery>) {
        for delivery in deliveries {
            self.deliveries += 1;
            self.acknowledged += usize::from(matches!(delivery.fate, Fate::Acknowledged { .. }));
        }
    }

    fn note(&mut self, finding: &Finding) {
        *self.wrong.entry(finding.what).or_default() += 1;
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The folder that reports are written to.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos");
    fs::create_dir_all(&folder).expect("create a folder for reports");
    folder
}

impl Kind {
    /// The colour of this kind in the plot.
    pub fn colour(self) -> &'static str {
        match self {
            Kind::NodeKilled => "#c0392b",
            Kind::NodeKilledDatabaseKilled => "#922b21",
            Kind::NodeKilledDatabaseFrozen => "#cd6155",
            Kind::NodeFrozen => "#d35400",
            Kind::DatabaseKilled => "#7d3c98",
            Kind::DatabaseFrozen => "#a569bd",
            Kind::RedisKilled => "#7d6608",
            Kind::RedisFrozen => "#d4ac0d",
            Kind::ServicesKilled => "#6e2c00",
            Kind::ServicesFrozen => "#a04000",
            Kind::NginxKilled => "#117864",
            Kind::NginxFrozen => "#1e8449",
            Kind::NginxReloaded => "#45b39d",
            Kind::RollingRestart => "#5d6d7e",
            Kind::Killed(_) => "#7d3c98",
            Kind::Frozen(_) => "#a569bd",
            Kind::CutOff(_) | Kind::NodeCutOff => "#a04000",
            Kind::RolesChanged => "#1e8449",
            Kind::BlackHole => "#212f3d",
            Kind::Reset => "#cb4335",
            Kind::StopsReading => "#2874a6",
        }
    }
}

const SHOWN_MAX: usize = 20;
