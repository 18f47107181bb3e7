//! Results as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::tally::{Counts, Figure, Outcome, SLICE};

/// What a target did in all its rounds.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

pub(crate) fn text(run: &Run) -> String {
    let Outcome { counts, figures, times_of, first_trouble, .. } = &run.outcome;
    let mut text = format!("{}\n", run.name);
    for Figure { name, value, unit } in figures {
        let name = if is_quantile(name) { format!("{times_of}, {name}") } else { (*name).to_owned() };
        let _ = writeln!(text, "  {name:<34} {:>14} {unit}", number(*value));
    }
    let _ = writeln!(text, "  {}", completeness(counts));
    if let Some(trouble) = first_trouble {
        let _ = writeln!(text, "  the first trouble: {trouble}");
    }
    text
}

pub(crate) fn is_quantile(name: &str) -> bool {
    name == "max" || name.strip_prefix('p').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

pub(crate) fn completeness(counts: &Counts) -> String {
    let Counts { sent, delivered, lost, duplicated, reordered, foreign, closed } = counts;
    format!(
        "{sent} sent, {delivered} delivered: {lost} lost, {duplicated} duplicated, {reordered} reordered, \
         {foreign} that nobody sent, {closed} connections closed"
    )
}

/// With as many digits as mean something, and thousands apart.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

pub(crate) fn json(workload: &str, settings: &str, runs: &[Run]) -> Value {
    let runs: Vec<Value> = runs
        .iter()
        .map(|Run { name, outcome }| {
            let percentiles: Vec<_> =
                percentiles(outcome).into_iter().map(|(q, ms)| json!({"quantile": q, "ms": ms})).collect();
            json!({
                "target": name,
                "counts": outcome.counts,
                "complete": outcome.counts.is_complete(),
                "figures": outcome.figures,
                "times of": outcome.times_of,
                "percentiles": percentiles,
                "slice seconds": SLICE.as_secs_f64(),
                "slices": outcome.slices,
                "first trouble": outcome.first_trouble,
            })
        })
        .collect();
    json!({"workload": workload, "command": settings, "runs": runs})
}

/// Quantiles, and the time each ends with in milliseconds, denser towards 1.
pub(crate) fn percentiles(outcome: &Outcome) -> Vec<(f64, f64)> {
    if outcome.times.is_empty() {
        return Vec::new();
    }
    let most = (outcome.times.len() as f64).max(10.0);
    let steps = (most.log10() * 20.0) as u32;
    (0..=steps)
        .map(|step| {
            let quantile = 1.0 - 10_f64.powf(-f64::from(step) / 20.0);
            (quantile, outcome.times.value_at_quantile(quantile) as f64 / 1e6)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_easily() {
        let cases =
            [(0.12345, "0.123"), (12.34, "12.3"), (123.4, "123"), (1234567.0, "1,234,567"), (-1234.0, "-1,234")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
