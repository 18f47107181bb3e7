//! [`Report`]: what runs come to, as a table, as a list of what is wrong and as a plot.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::books::{AFTERMATH, Caused, Delivery, Fate, Finding, Moment, Verdict, Wrong, check, proxy_kills};
use crate::plot;
use crate::schedule::{KINDS, Kind};
use crate::stage::Run;

/// One or more runs, checked.
pub struct Report<'a> {
    checked: Vec<Checked<'a>>,
}

struct Checked<'a> {
    run: &'a Run,
    verdict: Verdict,
    /// Whom each fault concerns.
    concerned: Vec<HashMap<i64, bool>>,
}

/// What one kind of fault did.
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

    /// What must not be, in words; `None` if all is as promised.
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
        }
        (!text.is_empty()).then_some(text)
    }

    /// How often something was found.
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
        for kind in KINDS {
            add(&kind.to_string(), &self.row(|caused| caused.kind == kind));
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
        let _ = write!(
            table,
            "\n{refused} messages were refused with an error; {came_back} came in a fetch behind later ones, having been on \
             their way to a connection that broke; {taken} were in the memory of an nginx that was killed, and are not \
             counted as lost.\n"
        );
        table
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

    /// Writes the table, everything found and a plot of each run; where to.
    pub fn write(&self) -> Vec<PathBuf> {
        let folder = folder();
        let mut text = self.table();
        for checked in &self.checked {
            let _ = writeln!(text, "\nSeed {}, {}:\n", checked.run.seed, checked.run.network);
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
        }
        let mut paths = vec![folder.join("report.md")];
        fs::write(&paths[0], text).expect("write the report");
        for checked in &self.checked {
            let path = folder.join(format!("seed-{}.svg", checked.run.seed));
            fs::write(&path, plot::draw(checked.run)).expect("write the plot");
            paths.push(path);
        }
        paths
    }
}

impl<'a> Checked<'a> {
    fn new(run: &'a Run) -> Checked<'a> {
        let books: Vec<_> = run.books.iter().collect();
        let verdict = check(&books, &run.members, &proxy_kills(&run.caused));
        let of = |caused: &Caused| run.books.iter().map(|books| (books.user, caused.concerns(books))).collect();
        let concerned = run.caused.iter().map(of).collect();
        Checked { run, verdict, concerned }
    }

    fn concerns(&self, fault: usize, from: i64, to: i64) -> bool {
        let concerned = |user| self.concerned[fault].get(&user).copied().unwrap_or(false);
        concerned(from) || concerned(to)
    }

    /// The faults next to which something happened to a message.
    fn near(&self, finding: &Finding) -> impl Iterator<Item = usize> {
        let (from, to, sent, at) = (finding.from, finding.to, finding.sent, finding.at);
        (0..self.run.caused.len())
            .filter(move |fault| self.run.caused[*fault].is_near(sent, at) && self.concerns(*fault, from, to))
    }

    /// Twice is bad only where no failure explains it.
    fn is_bad(&self, finding: &Finding) -> bool {
        match finding.what {
            Wrong::Lost | Wrong::Reordered | Wrong::Misdelivered => true,
            Wrong::Duplicated => self.near(finding).next().is_none(),
            Wrong::CameBack | Wrong::TakenByProxy => false,
        }
    }

    /// Whether a message was under way during a fault or just after it.
    fn is_touched(&self, fault: usize, delivery: &Delivery) -> bool {
        let settled = match delivery.fate {
            Fate::Acknowledged { at, .. } => at,
            Fate::Open | Fate::Unknown => delivery.sent + AFTERMATH,
        };
        let caused = &self.run.caused[fault];
        let until = delivery.came.unwrap_or(settled).max(settled);
        delivery.sent <= caused.over + UNDER_WAY
            && until >= caused.begun
            && self.concerns(fault, delivery.from, delivery.to)
    }

    fn add_faults(&self, faults: &[usize], row: &mut Row) {
        row.times += faults.len();
        for fault in faults {
            let caused = &self.run.caused[*fault];
            row.longest = row.longest.max(caused.over - caused.begun);
            row.ready = row.ready.max(caused.ready_after);
            row.delivered = row.delivered.max(self.delivered_after(*fault).map(|(after, ..)| after));
        }
        let touched = |delivery: &&Delivery| faults.iter().any(|fault| self.is_touched(*fault, delivery));
        row.count(self.verdict.deliveries.iter().filter(touched));
        let near = |finding: &&Finding| self.near(finding).any(|fault| faults.contains(&fault));
        self.verdict.findings.iter().filter(near).for_each(|finding| row.note(finding));
    }

    fn add_calm(&self, row: &mut Row) {
        let all = 0..self.run.caused.len();
        row.count(
            self.verdict
                .deliveries
                .iter()
                .filter(|delivery| !all.clone().any(|fault| self.is_touched(fault, delivery))),
        );
        let calm = |finding: &&Finding| self.near(finding).next().is_none();
        self.verdict.findings.iter().filter(calm).for_each(|finding| row.note(finding));
    }

    fn add_all(&self, row: &mut Row) {
        row.times += self.run.caused.len();
        row.count(self.verdict.deliveries.iter());
        self.verdict.findings.iter().for_each(|finding| row.note(finding));
    }

    /// The longest that a client who is there all the time, and whom the fault concerns, waited for the first delivery
    /// from or to it: after the end of a fault of servers, after the beginning of one of a client. Who that was, and
    /// whether it sent or received.
    fn delivered_after(&self, fault: usize) -> Option<(Duration, i64, bool)> {
        let caused = &self.run.caused[fault];
        let since = if caused.kind.is_of_client() { caused.begun } else { caused.over };
        let is_meant = |user: &i64| self.concerned[fault].get(user).copied().unwrap_or(false);
        let mut first: BTreeMap<(i64, bool), Moment> = BTreeMap::new();
        for delivery in self.verdict.deliveries.iter().filter(|delivery| delivery.sent >= since) {
            let Some(came) = delivery.came else { continue };
            for party in [(delivery.from, true), (delivery.to, false)] {
                if self.run.steady.contains(&party.0) && is_meant(&party.0) {
                    let first = first.entry(party).or_insert(came);
                    *first = came.min(*first);
                }
            }
        }
        first.into_iter().map(|((user, sent), came)| (came - since, user, sent)).max()
    }

    fn describe_fault(&self, caused: &Caused) -> String {
        let whom = match (caused.node, caused.user) {
            (Some(node), _) => format!(" (node {node})"),
            (_, Some(user)) => format!(" (user {user})"),
            _ => String::new(),
        };
        let (begun, over) = (caused.begun.as_secs_f64(), caused.over.as_secs_f64());
        let ready = caused.ready_after.map_or(String::new(), |after| format!(", ready {} later", seconds(after)));
        format!("{}{whom} from {begun:.2} to {over:.2}{ready}", caused.kind)
    }

    fn describe(&self, finding: &Finding) -> String {
        let Finding { what, from, to, target, number, sent, at, detail } = finding;
        let near: Vec<String> = self.near(finding).map(|fault| self.describe_fault(&self.run.caused[fault])).collect();
        format!(
            "{what:?}: {number} of {from} to {target:?} for {to}, sent at {:.2}, at {:.2}: {detail}; near: {near:?}",
            sent.as_secs_f64(),
            at.as_secs_f64()
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

/// Where reports go.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos");
    fs::create_dir_all(&folder).expect("create a folder for reports");
    folder
}

impl Kind {
    /// In the plot.
    pub fn colour(self) -> &'static str {
        match self {
            Kind::NodeKilled => "#c0392b",
            Kind::NodeFrozen => "#d35400",
            Kind::DatabaseKilled => "#7d3c98",
            Kind::DatabaseFrozen => "#a569bd",
            Kind::RedisKilled => "#7d6608",
            Kind::RedisFrozen => "#d4ac0d",
            Kind::NginxKilled => "#117864",
            Kind::RollingRestart => "#5d6d7e",
            Kind::BlackHole => "#212f3d",
            Kind::Reset => "#cb4335",
            Kind::StopsReading => "#2874a6",
        }
    }
}

/// How long after a fault messages that are sent then may still feel it.
const UNDER_WAY: Duration = Duration::from_secs(2);

const SHOWN_MAX: usize = 20;
