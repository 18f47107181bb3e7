//! Two targets in turns, so that what else the machine does meets both, and the ratios of each round.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::report::{Run, completeness, number};
use crate::tally::{Counts, Figure, Outcome};
use crate::target::Target;

/// Runs both `rounds` times, and prints each round as it is done. What a target did in all of them is one run, whose figures are one
/// after the other those of the rounds.
pub(crate) fn compare(
    targets: [&Target; 2],
    rounds: u32,
    accounts: Option<&Path>,
    mut run: impl FnMut(&Target, Option<PathBuf>) -> io::Result<Outcome>,
) -> io::Result<Vec<Run>> {
    if accounts.is_some() {
        return Err(io::Error::other(
            "a comparison keeps the users of its targets apart by itself: leave --accounts out",
        ));
    }
    let files =
        ["a", "b"].map(|letter| std::env::temp_dir().join(format!("raybench-{}-{letter}.json", std::process::id())));
    let mut runs: Vec<Run> = Vec::new();
    let result = (0..rounds).try_for_each(|round| {
        for (n, target) in targets.into_iter().enumerate() {
            let outcome = run(target, Some(files[n].clone()))?;
            eprintln!("round {} of {rounds}, {target}: {}", round + 1, summary(&outcome));
            match runs.get_mut(n) {
                None => runs.push(Run { name: target.to_string(), outcome }),
                Some(before) => merge(&mut before.outcome, outcome)?,
            }
        }
        Ok(())
    });
    for file in files {
        let _ = fs::remove_file(file);
    }
    result.map(|()| runs)
}

fn merge(sum: &mut Outcome, more: Outcome) -> io::Result<()> {
    sum.counts.add(more.counts);
    sum.figures.extend(more.figures);
    sum.times.add(&more.times).map_err(io::Error::other)?;
    sum.slices = more.slices;
    sum.first_trouble = sum.first_trouble.take().or(more.first_trouble);
    Ok(())
}

fn summary(outcome: &Outcome) -> String {
    let figures =
        outcome.figures.iter().filter(|figure| matches!(figure.name, "rate" | "per CPU-second" | "p50" | "p99"));
    let words: Vec<_> =
        figures.map(|Figure { name, value, unit }| format!("{name} {} {unit}", number(*value))).collect();
    let trouble =
        if outcome.counts.is_complete() { String::new() } else { format!("; {}", completeness(&outcome.counts)) };
    format!("{}{trouble}", words.join(", "))
}

/// A table: for each figure the medians of both, and the ratio of B to A with its least and greatest.
pub(crate) fn text(runs: &[Run]) -> String {
    let [a, b] = runs else { return String::new() };
    let mut text = format!("A: {}\nB: {}\n\n", a.name, b.name);
    let _ = writeln!(text, "{:<24} {:>13} {:>13}  {:<13} {:>6}  spread", "medians", "A", "B", "", "B/A");
    for (name, unit) in names(&a.outcome) {
        let (of_a, of_b) = (values(&a.outcome, name), values(&b.outcome, name));
        if of_b.is_empty() {
            continue;
        }
        let ratios: Vec<f64> = of_a.iter().zip(&of_b).map(|(a, b)| b / a).collect();
        let spread = ratios.iter().fold((f64::MAX, f64::MIN), |(least, most), r| (least.min(*r), most.max(*r)));
        let _ = writeln!(
            text,
            "{name:<24} {:>13} {:>13}  {unit:<13} {:>6.2}  {:.2}-{:.2}",
            number(median(&of_a)),
            number(median(&of_b)),
            median(&ratios),
            spread.0,
            spread.1
        );
    }
    for (letter, Run { outcome, .. }) in ["A", "B"].iter().zip(runs) {
        let counts: &Counts = &outcome.counts;
        let _ = writeln!(text, "\n{letter}: {}", completeness(counts));
        if let Some(trouble) = &outcome.first_trouble {
            let _ = writeln!(text, "   the first trouble: {trouble}");
        }
    }
    text
}

/// The figures of an outcome, each once.
pub(crate) fn names(outcome: &Outcome) -> Vec<(&'static str, &'static str)> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for Figure { name, unit, .. } in &outcome.figures {
        if !names.iter().any(|(known, _)| known == name) {
            names.push((name, unit));
        }
    }
    names
}

/// What a figure was in each round.
pub(crate) fn values(outcome: &Outcome, name: &str) -> Vec<f64> {
    outcome.figures.iter().filter(|figure| figure.name == name).map(|figure| figure.value).collect()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
