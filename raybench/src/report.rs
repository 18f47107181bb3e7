//! Results as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::environment::Environment;
use crate::tally::{Counts, Figure, Outcome, SLICE, Times, times};

/// The workload that was run, and the software and machine that it ran on.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) workload: &'static str,
    /// The command line.
    pub(crate) command: String,
    /// All options with their values.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) environment: Environment,
}

/// The results of a target in all its rounds.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Outcome>,
}

impl Run {
    pub(crate) fn is_complete(&self) -> bool {
        self.rounds.iter().all(Outcome::is_complete)
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.rounds.iter().any(|round| round.is_interrupted)
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.rounds.iter().for_each(|round| sum.add(round.counts));
        sum
    }

    pub(crate) fn first_trouble(&self) -> Option<&str> {
        self.rounds.iter().find_map(|round| round.first_trouble.as_deref())
    }

    /// Each warning begins with its round, if there are several.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let several = self.rounds.len() > 1;
        let of_round = |(n, round): (usize, &Outcome)| {
            let before = if several { format!("round {}: ", n + 1) } else { String::new() };
            round.warnings.iter().map(|warning| format!("{before}{warning}")).collect::<Vec<_>>()
        };
        self.rounds.iter().enumerate().flat_map(of_round).collect()
    }

    /// The values of a figure, round by round; `None` for an interrupted round if there are several
    /// rounds.
    pub(crate) fn values(&self, title: &str) -> Vec<Option<f64>> {
        let is_one_of_several = self.rounds.len() > 1;
        let of_round = |round: &Outcome| {
            let figure = round.figures.iter().find(|figure| figure.title() == title);
            figure.filter(|_| !(round.is_interrupted && is_one_of_several)).map(|figure| figure.value)
        };
        self.rounds.iter().map(of_round).collect()
    }

    /// The times of all rounds, with the name of each kind.
    pub(crate) fn times(&self) -> Vec<(&'static str, Times)> {
        let mut all: Vec<(&str, Times)> = Vec::new();
        for (of, more) in self.rounds.iter().flat_map(|round| &round.times) {
            match all.iter_mut().find(|(known, _)| known == of) {
                Some((_, sum)) => *sum += more,
                None => {
                    let mut sum = times();
                    sum += more;
                    all.push((of, sum));
                }
            }
        }
        all
    }
}

pub(crate) fn text(run: &Run) -> String {
    let mut text = String::new();
    for round in &run.rounds {
        let _ = writeln!(text, "{}{}", mark(round), run.name);
        for figure in &round.figures {
            let Figure { value, unit, .. } = figure;
            let _ = writeln!(text, "  {:<34} {:>14} {unit}", figure.title(), number(*value));
        }
    }
    let _ = write!(text, "  {}", text_of_trouble(run));
    text
}

/// The mark in front of a figure whose round is not complete.
pub(crate) fn mark(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome { is_interrupted: true, .. } => "INCOMPLETE (interrupted): ",
        incomplete if !incomplete.is_complete() => "INCOMPLETE: ",
        _ => "",
    }
}

/// The counts and the errors, one on each line.
pub(crate) fn text_of_trouble(run: &Run) -> String {
    let mut text = format!("{}\n", completeness(&run.counts()));
    if let Some(trouble) = run.first_trouble() {
        let _ = writeln!(text, "  the first trouble: {trouble}");
    }
    for warning in run.warnings() {
        let _ = writeln!(text, "  warning: {warning}");
    }
    if run.is_interrupted() {
        text.push_str("  interrupted\n");
    }
    text
}

/// A figure as text, or a dash for none.
pub(crate) fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

pub(crate) fn completeness(counts: &Counts) -> String {
    let Counts { sent, delivered, lost, duplicated, reordered, foreign, closed } = *counts;
    let [sent, delivered, lost, duplicated, reordered, foreign, closed] =
        [sent, delivered, lost, duplicated, reordered, foreign, closed].map(|count| grouped(&count.to_string()));
    format!(
        "{sent} sent, {delivered} delivered: {lost} lost, {duplicated} duplicated, {reordered} reordered, \
         {foreign} unexpected, {closed} connections closed"
    )
}

/// A number with its significant digits, and a separator between thousands.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let whole = grouped(whole);
    fraction.map_or(whole.clone(), |fraction| format!("{whole}.{fraction}"))
}

/// Digits, perhaps behind a minus sign, with a separator between thousands.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn json(about: &About, runs: &[Run]) -> Value {
    let runs: Vec<Value> = runs.iter().map(json_of_run).collect();
    let settings: BTreeMap<_, _> = about.settings.iter().cloned().collect();
    json!({
        "workload": about.workload,
        "command": about.command,
        "settings": settings,
        "environment": about.environment,
        "runs": runs,
    })
}

fn json_of_run(run: &Run) -> Value {
    let of_each = run.times().into_iter().map(|(of, times)| {
        let points = percentiles(&times).into_iter().map(|(q, ms)| json!({"quantile": q, "ms": ms}));
        json!({"of": of, "count": times.len(), "percentiles": points.collect::<Vec<_>>()})
    });
    let rounds = run.rounds.iter().map(|round| {
        json!({
            "counts": round.counts,
            "complete": round.is_complete(),
            "figures": round.figures,
            "slices": round.slices.all(),
            "generator_threads": round.generator_threads,
            "rates": round.rates,
        })
    });
    json!({
        "target": run.name,
        "complete": run.is_complete(),
        "interrupted": run.is_interrupted(),
        "counts": run.counts(),
        "first_trouble": run.first_trouble(),
        "warnings": run.warnings(),
        "times": of_each.collect::<Vec<_>>(),
        "slice_seconds": SLICE.as_secs_f64(),
        "rounds": rounds.collect::<Vec<_>>(),
    })
}

/// Quantiles with their times in milliseconds, denser towards 1.
pub(crate) fn percentiles(times: &Times) -> Vec<(f64, f64)> {
    if times.is_empty() {
        return Vec::new();
    }
    let most = (times.len() as f64).max(10.0);
    let steps = (most.log10() * 20.0) as u32;
    (0..=steps)
        .map(|step| {
            let quantile = 1.0 - 10_f64.powf(-f64::from(step) / 20.0);
            (quantile, times.value_at_quantile(quantile) as f64 / 1e6)
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tally::{Rates, record};

    /// A report of two runs, one good and one with a lost message.
    pub(crate) fn example() -> (About, Vec<Run>) {
        let about = About {
            workload: "pairs",
            command: "raybench pairs --relay".to_owned(),
            settings: vec![("size".to_owned(), "100".to_owned()), ("over".to_owned(), "<10".to_owned())],
            environment: Environment::here(),
        };
        let round = |count: u64| {
            let mut outcome = Outcome { times: vec![("delivery", times())], ..Outcome::default() };
            (outcome.counts.sent, outcome.counts.delivered) = (count, count);
            outcome.push("rate", count as f64, "deliveries/s");
            record(&mut outcome.times[0].1, Duration::from_millis(count));
            outcome.push_times();
            outcome.slices.note(Duration::ZERO, count);
            outcome.slices.end(Duration::from_millis(300));
            outcome
        };
        let mut worse = round(3);
        worse.counts.lost = 1;
        worse.push_rates(Rates { asked: 1000.0, reached: 3.0 }, Duration::from_secs(1));
        let run = |name: &str, rounds| Run { name: name.to_owned(), rounds };
        (about, vec![run("good", vec![round(1), round(2)]), run("worse", vec![worse])])
    }

    #[test]
    fn rounds_are_summed_up() {
        let (_, runs) = example();
        let good = &runs[0];
        assert_eq!((good.counts().sent, good.counts().delivered), (3, 3));
        assert_eq!(good.values("rate"), [Some(1.0), Some(2.0)]);
        let times = good.times();
        assert_eq!((times.len(), times[0].0, times[0].1.len()), (1, "delivery", 2));
        assert!(good.is_complete() && !runs[1].is_complete());
    }

    #[test]
    fn json_says_all_of_it() {
        let (about, runs) = example();
        let json = json(&about, &runs);
        assert_eq!(json["settings"]["size"], "100");
        assert_eq!(json["environment"]["version"], env!("CARGO_PKG_VERSION"));
        let [good, worse] = [&json["runs"][0], &json["runs"][1]];
        assert_eq!((&good["complete"], &worse["complete"]), (&json!(true), &json!(false)));
        assert_eq!(
            good["rounds"][1]["figures"][0],
            json!({"name": "rate", "of": "", "value": 2.0, "unit": "deliveries/s"})
        );
        assert_eq!(good["rounds"][1]["slices"], json!([2, 0, 0]));
        assert_eq!(good["times"][0]["count"], 2);
        assert_eq!(worse["counts"]["lost"], 1);
        assert_eq!(worse["rounds"][0]["rates"], json!({"asked": 1000.0, "reached": 3.0}));
        assert!(worse["warnings"][0].as_str().is_some_and(|text| text.contains("could not keep the rate")));
        assert_keys_are_snake_case(&json);
    }

    fn assert_keys_are_snake_case(value: &Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{key}");
                    assert_keys_are_snake_case(value);
                }
            }
            Value::Array(values) => values.iter().for_each(assert_keys_are_snake_case),
            _ => {}
        }
    }

    #[test]
    fn an_incomplete_report_says_so_first() {
        let (_, mut runs) = example();
        assert!(text(&runs[1]).starts_with("INCOMPLETE: worse\n"));
        assert!(text(&runs[1]).contains("warning: could not keep the rate"));
        assert!(crate::compare::text(&runs).starts_with("INCOMPLETE\n"));
        assert!(text(&runs[0]).starts_with("good\n"));
        runs[0].rounds[0].is_interrupted = true;
        assert!(text(&runs[0]).starts_with("INCOMPLETE (interrupted): good\n"));
        assert_eq!(runs[0].values("rate"), [None, Some(2.0)], "it would be in the medians");
        runs[0].rounds.truncate(1);
        assert_eq!(runs[0].values("rate"), [Some(1.0)], "it is all there is");
    }

    #[test]
    fn numbers_are_read_easily() {
        let cases =
            [(0.12345, "0.123"), (12.34, "12.3"), (123.4, "123"), (1234567.0, "1,234,567"), (-1234.0, "-1,234")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
