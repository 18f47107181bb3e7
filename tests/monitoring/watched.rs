//! [`Watched`]: Prometheus's view of a server, and the alerts that follow.
//!
//! Time is stretched: the rules see one scrape as an hour of samples. So no test has to wait for
//! the `for` of a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, TestServer, output_within, wait_until};

/// The alert rules that are shipped.
pub(crate) const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/monitoring/alerts.yml");

/// The number of samples in more than an hour. This is longer than the longest `for` and the
/// longest range of a rule.
pub(crate) const AN_HOUR: usize = 280;
/// The seconds between two samples.
const INTERVAL: usize = 15;

/// See the [module](self).
pub(crate) struct Watched {
    series: BTreeMap<String, Vec<Stretch>>,
    samples: usize,
}

/// Consecutive samples of a series.
#[derive(Clone, Copy)]
struct Stretch {
    /// The value of the first sample; `None` if the series has no samples for this time.
    first: Option<f64>,
    /// The difference between one sample and the next.
    step: f64,
    samples: usize,
}

impl Watched {
    /// A view without any samples.
    pub(crate) fn new() -> Watched {
        Watched { series: BTreeMap::new(), samples: 0 }
    }

    /// A view of a server without a fault for an hour.
    pub(crate) fn healthy(server: &TestServer) -> Watched {
        wait_until("it is ready", || server.is_ready());
        let mut watched = Watched::new();
        watched.sees(&[Some(server.metrics())], AN_HOUR);
        watched.expect(&[]);
        watched
    }

    /// Adds this number of samples, in which each server shows its text. `None` stands for a server
    /// that does not answer.
    pub(crate) fn sees(&mut self, servers: &[Option<String>], samples: usize) {
        let mut seen = BTreeMap::new();
        for (nth, text) in servers.iter().enumerate() {
            let labels = labels_of(nth);
            seen.insert(format!("up{{{labels}}}"), (f64::from(u8::from(text.is_some())), 0.0));
            let series = text.iter().flat_map(|text| series_of(text, &labels));
            seen.extend(series.map(|(name, value)| (name, (value, 0.0))));
        }
        self.note(&seen, samples);
    }

    /// Adds an hour of samples in which counters grow as fast as between `before` and `after`.
    pub(crate) fn goes_on(&mut self, (before, after): (&str, &str), time: Duration) {
        let labels = labels_of(0);
        let before: BTreeMap<String, f64> = series_of(before, &labels).into_iter().collect();
        let mut seen = BTreeMap::from([(format!("up{{{labels}}}"), (1.0, 0.0))]);
        for (name, value) in series_of(after, &labels) {
            let counts = ["_total{", "_sum{", "_count{", "_bucket{"].iter().any(|end| name.contains(end));
            let grown = before.get(&name).map_or(0.0, |before| value - before);
            let step = if counts { grown / time.as_secs_f64() * INTERVAL as f64 } else { 0.0 };
            seen.insert(name, (value, step));
        }
        self.note(&seen, AN_HOUR);
    }

    /// Adds samples with these first values and steps.
    fn note(&mut self, seen: &BTreeMap<String, (f64, f64)>, samples: usize) {
        let before = self.samples;
        let known: BTreeSet<String> = self.series.keys().chain(seen.keys()).cloned().collect();
        for name in known {
            let missing = Stretch { first: None, step: 0.0, samples: before };
            let shown = seen.get(&name).map_or(Stretch { samples, ..missing }, |&(first, step)| Stretch {
                first: Some(first),
                step,
                samples,
            });
            self.series.entry(name).or_insert_with(|| if before > 0 { vec![missing] } else { vec![] }).push(shown);
        }
        self.samples += samples;
    }

    /// Expects that these alerts, and no others, fire at some time within the last hour.
    pub(crate) fn expect(&self, alerts: &[&str]) {
        self.expect_beside(alerts, &[]);
    }

    /// Expects that these alerts fire at some time within the last hour. The others may fire, too:
    /// they show other effects of the same fault.
    pub(crate) fn expect_beside(&self, alerts: &[&str], others: &[&str]) {
        let said = self.judge(alerts, others);
        said.unwrap_or_else(|said| panic!("expected {alerts:?} and perhaps {others:?}:\n{said}"));
    }

    /// Checks that these alerts, and no others, fire at some time within the last hour. The error
    /// is the output of promtool.
    pub(crate) fn judge(&self, alerts: &[&str], others: &[&str]) -> Result<(), String> {
        let selected = format!(r#"ALERTS{{alertstate="firing",alertname!~"{}"}}"#, others.join("|"));
        let expr = format!("group by (alertname) (max_over_time({selected}[{}s]))", (AN_HOUR - 1) * INTERVAL);
        let expected: Vec<_> = alerts.iter().map(|alert| (format!("{{alertname={alert:?}}}"), 1.0)).collect();
        self.evaluate(&expr, &expected)
    }

    /// Checks that an expression has these values by labels at the end. The error is the output of
    /// promtool.
    pub(crate) fn evaluate(&self, expr: &str, expected: &[(String, f64)]) -> Result<(), String> {
        self.evaluate_all(&[(expr.to_owned(), expected.to_vec())])
    }

    /// Like [`Watched::evaluate`], for several expressions.
    pub(crate) fn evaluate_all(&self, exprs: &[(String, Vec<(String, f64)>)]) -> Result<(), String> {
        let input: Vec<Value> = self
            .series
            .iter()
            .map(
                |(name, all)| json!({"series": name, "values": all.iter().map(notation).collect::<Vec<_>>().join(" ")}),
            )
            .collect();
        let interval = format!("{INTERVAL}s");
        let end = format!("{}s", (self.samples - 1) * INTERVAL);
        let sample = |(labels, value): &(String, f64)| json!({"labels": labels, "value": value});
        let exprs = exprs.iter().map(|(expr, expected)| {
            let expected: Vec<Value> = expected.iter().map(sample).collect();
            json!({"expr": expr, "eval_time": end, "exp_samples": expected})
        });
        let test = json!({
            "rule_files": [ALERTS],
            "evaluation_interval": interval,
            "tests": [{
                "interval": interval,
                "input_series": input,
                "promql_expr_test": exprs.collect::<Vec<_>>(),
            }],
        });
        let file = tempfile(&test.to_string());
        let run = output_within(LONG_PATIENCE, Command::new("promtool").args(["test", "rules"]).arg(&file));
        let run = run.expect("run promtool, of Debian's package prometheus");
        fs::remove_file(&file).expect("remove the file");
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        if run.status.success() { Ok(()) } else { Err(said) }
    }
}

/// The labels that Prometheus adds to the metrics of the nth server.
fn labels_of(nth: usize) -> String {
    format!(r#"job="raybox",instance="server{}""#, nth + 1)
}

/// The series of a scrape by name, with these labels added.
fn series_of(text: &str, labels: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| line.starts_with("raybox_") || line.starts_with("process_"));
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let name = match name.strip_suffix('}') {
            Some(open) => format!("{open},{labels}}}"),
            None => format!("{name}{{{labels}}}"),
        };
        (name, value.parse().unwrap_or_else(|error| panic!("{error}: {line}")))
    });
    series.collect()
}

/// The samples in promtool's notation.
fn notation(Stretch { first, step, samples }: &Stretch) -> String {
    match first {
        Some(first) if *step < 0.0 => format!("{first}{step}x{}", samples - 1),
        Some(first) => format!("{first}+{step}x{}", samples - 1),
        None => format!("_x{samples}"),
    }
}

fn tempfile(text: &str) -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("raybox-alerts-{}-{}.yml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = std::env::temp_dir().join(name);
    fs::write(&file, text).expect("write a file for promtool");
    file
}
