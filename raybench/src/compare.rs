//! Compares two targets round by round. They run alternately, so that other work of the machine
//! affects both.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};

use crate::context::Context;
use crate::interrupt;
use crate::report::{Run, completeness, mark, number, shown, text_of_trouble};
use crate::tally::{Figure, Outcome};

/// Runs both targets `rounds` times, and prints each round when it is done. Target B goes first in
/// every other round, so that each target equally often follows the other. An error ends the
/// comparison; the rounds done before are part of the result.
pub(crate) fn compare(
    mut contexts: [Context; 2],
    rounds: u32,
    mut run: impl FnMut(&Context) -> io::Result<Outcome>,
) -> (Vec<Run>, Option<io::Error>) {
    for (context, letter) in contexts.iter_mut().zip(["a", "b"]) {
        let name = format!("raybench-{}-{letter}.json", std::process::id());
        context.accounts = Some(std::env::temp_dir().join(name));
    }
    let mut runs = Vec::new();
    let result = run_rounds(&contexts, rounds, &mut runs, &mut run);
    for file in contexts.iter().filter_map(|context| context.accounts.as_ref()) {
        let _ = fs::remove_file(file);
    }
    (runs, result.err())
}

fn run_rounds(
    contexts: &[Context; 2],
    rounds: u32,
    runs: &mut Vec<Run>,
    run: &mut impl FnMut(&Context) -> io::Result<Outcome>,
) -> io::Result<()> {
    for round in 1..=rounds {
        for n in if round % 2 == 1 { [0, 1] } else { [1, 0] } {
            let context = &contexts[n];
            interrupt::check()?;
            let outcome = run(context)?;
            let name = context.target.to_string();
            let line = format!("{}round {round} of {rounds}, {name}: {}", mark(&outcome), summary(&outcome));
            let _ = writeln!(io::stderr(), "{line}");
            match runs.get_mut(n) {
                None => runs.push(Run { name, rounds: vec![outcome] }),
                Some(before) => before.rounds.push(outcome),
            }
        }
    }
    Ok(())
}

fn summary(outcome: &Outcome) -> String {
    let figures =
        outcome.figures.iter().filter(|figure| matches!(figure.name, "rate" | "per CPU-second" | "p50" | "p99"));
    let mut words: Vec<_> =
        figures.map(|figure| format!("{} {} {}", figure.title(), number(figure.value), figure.unit)).collect();
    if !outcome.is_complete() {
        words.push(completeness(&outcome.counts));
    }
    words.join(", ")
}

/// A table with a row for each figure: the median of each target, and the ratio of B to A with its
/// least and greatest value.
pub(crate) fn text(runs: &[Run]) -> String {
    let mut text = String::new();
    if !runs.iter().all(Run::is_complete) {
        text.push_str("INCOMPLETE\n");
    }
    for (letter, run) in LETTERS.iter().zip(runs) {
        let _ = writeln!(text, "{letter}: {}", run.name);
    }
    let _ = writeln!(text, "\n{:<34} {:>13} {:>13}  {:<13} {:>6}  spread", "medians", "A", "B", "", "B/A");
    for (title, unit) in titles(runs) {
        let medians = [0, 1].map(|n| shown(runs.get(n).and_then(|run| median(&run.values(&title)))));
        let ratio = Ratio::of(runs, &title);
        let _ = writeln!(
            text,
            "{title:<34} {:>13} {:>13}  {unit:<13} {:>6}  {}",
            medians[0],
            medians[1],
            ratio.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median)),
            ratio.map_or("-".to_owned(), |ratio| ratio.spread()),
        );
    }
    for (letter, run) in LETTERS.iter().zip(runs) {
        let _ = write!(text, "\n{letter}: {}", text_of_trouble(run));
    }
    text
}

pub(crate) const LETTERS: [&str; 2] = ["A", "B"];

/// The ratios of B's figure to A's, one for each round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    /// The ratios of the rounds in which both have the figure and A's is not zero; `None` if there
    /// is no such round.
    pub(crate) fn of(runs: &[Run], title: &str) -> Option<Ratio> {
        let [a, b] = runs else { return None };
        let pairs = a.values(title).into_iter().zip(b.values(title));
        let ratios = pairs.map(|(a, b)| Some(b? / a?).filter(|ratio| ratio.is_finite())).collect::<Vec<_>>();
        let known = ratios.iter().flatten();
        let (least, most) = known.fold((f64::MAX, f64::MIN), |(least, most), r| (least.min(*r), most.max(*r)));
        median(&ratios).map(|median| Ratio { median, least, most })
    }

    pub(crate) fn spread(self) -> String {
        format!("{:.2}-{:.2}", self.least, self.most)
    }
}

/// The titles of all figures in any round of any target, each once, with its unit.
pub(crate) fn titles(runs: &[Run]) -> Vec<(String, &'static str)> {
    let mut titles: Vec<(String, &str)> = Vec::new();
    let figures = runs.iter().flat_map(|run| &run.rounds).flat_map(|round| &round.figures);
    for (title, unit) in figures.map(|figure: &Figure| (figure.title(), figure.unit)) {
        if !titles.iter().any(|(known, _)| *known == title) {
            titles.push((title, unit));
        }
    }
    titles
}

/// The median of the values that are known.
pub(crate) fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[odd / 2]),
        even => Some((sorted[even / 2 - 1] + sorted[even / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::carrier::Carrier;
    use crate::progress::Progress;
    use crate::target::Target;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert_eq!(median(&[Some(3.0), Some(1.0), None, Some(2.0)]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0].map(Some)), Some(2.5));
        assert_eq!(median(&[None]), None);
    }

    fn run(name: &str, rates: &[f64]) -> Run {
        let rounds = rates.iter().map(|rate| {
            let mut outcome = Outcome::default();
            outcome.push("rate", *rate, "1/s");
            outcome
        });
        Run { name: name.to_owned(), rounds: rounds.collect() }
    }

    #[test]
    fn figures_are_compared_with_those_of_the_same_round() {
        // A has no figure in its second round, B has none after it.
        let runs = [run("a", &[1.0, f64::NAN, 4.0]), run("b", &[2.0, 100.0])];
        assert_eq!(Ratio::of(&runs, "rate"), Some(Ratio { median: 2.0, least: 2.0, most: 2.0 }));
        assert_eq!(Ratio::of(&[run("a", &[0.0]), run("b", &[2.0])], "rate"), None, "nothing is infinite");
        let text = text(&[run("a", &[0.0]), run("b", &[2.0])]);
        assert!(!text.contains("inf") && !text.contains("NaN") && text.contains(" - "), "{text}");
    }

    #[test]
    fn an_error_keeps_the_rounds_before_it_and_leaves_no_file() {
        let context = || Context {
            target: Target::Relay(Carrier::Tcp),
            accounts: None,
            warm_up: Duration::ZERO,
            measured: Duration::ZERO,
            progress: Progress::new(true),
        };
        let (mut done, mut files) = (0, Vec::<std::path::PathBuf>::new());
        let (runs, error) = compare([context(), context()], 5, |context| {
            let file = context.accounts.clone().expect("a file for each");
            fs::write(&file, "[]").expect("a file");
            files.push(file);
            done += 1;
            if done == 4 { Err(io::Error::other("it broke")) } else { Ok(Outcome::default()) }
        });
        let order: Vec<_> = files.iter().map(|file| *file == files[0]).collect();
        assert_eq!(order, [true, false, false, true], "each begins a round");
        assert_eq!(runs.iter().map(|run| run.rounds.len()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(error.map(|error| error.to_string()).as_deref(), Some("it broke"));
        assert!(files.iter().all(|file| !file.exists()));
    }
}
