//! The numbers of which the last hour is remembered: [`Series`] names them, and [`ROWS`] has the
//! source and the plot of each. A new one is a variant and a row.

use std::time::Duration;

use super::process::cpu_seconds;
use super::reading::{NodeReading, Totals};
use crate::metrics::Metrics;

/// A number that is remembered. Some are plotted, some are judged by `rules.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Series {
    Users,
    Connections,
    Messages,
    Sends,
    Logins,
    FailedLogins,
    Refusals,
    SlowConsumers,
    TurnTime,
    BusiestLoop,
    Waiting,
    Spool,
    Cpu,
    Memory,
    Failed,
    SetAside,
    Unconfirmed,
    LoginsMax,
    RequestsMax,
    LaneMax,
    MemoryMax,
    Descriptors,
    SlowClosed,
    WrongLogins,
    AllLogins,
    AdminKeys,
    LogLines,
    SweepsFailed,
    HookFailed,
    SendsRefused,
    NoMysql,
    NoRedis,
    Drained,
    SpoolWaits,
    CertificateEnds,
}

/// One number of each series.
pub(super) type TrendPoint = [f32; SERIES];

/// A series: its source, and its plot.
pub(super) struct SeriesRow {
    pub(super) series: Series,
    pub(super) source: SeriesSource,
    pub(super) plot: Option<Plot>,
}

/// The source of a number.
pub(super) enum SeriesSource {
    /// A number that exists at each moment.
    Gauge(fn(&NodeReading) -> f64),
    /// A condition, which counts as 1 when it holds.
    State(fn(&NodeReading) -> bool),
    /// The growth of a counter per second.
    PerSecond(Counter),
    /// The growth of a counter since the previous sample.
    Events(Counter),
    /// Computed from the previous and the present totals.
    Between(fn(&Totals, &Totals) -> f64),
}

/// A family of counters.
pub(super) struct Counter {
    pub(super) family: &'static str,
    /// The values of the label that are counted; if empty, all.
    pub(super) labels: &'static [&'static str],
}

/// How the page shows a series.
pub(super) struct Plot {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// `/s`, `s`, `share`, `bytes` or nothing.
    pub(super) unit: &'static str,
    /// Whether it is 0 while the node works well.
    pub(super) is_fault: bool,
}

impl Series {
    /// The counter behind a series that counts.
    pub(super) fn counter(self) -> Option<&'static Counter> {
        match &ROWS[self as usize].source {
            SeriesSource::PerSecond(counter) | SeriesSource::Events(counter) => Some(counter),
            SeriesSource::Gauge(_) | SeriesSource::State(_) | SeriesSource::Between(_) => None,
        }
    }
}

/// All present counters and sums, at this time since the start.
pub(super) fn totals(metrics: &Metrics, at: Duration) -> Totals {
    let count = |row: &SeriesRow| {
        let Some(Counter { family, labels }) = row.series.counter() else { return 0.0 };
        let figures = metrics.figures(family);
        if labels.is_empty() { figures.total() } else { figures.sum(labels) }
    };
    let turns = metrics.figures("raybox_loop_turn_seconds");
    let worked = turns.each().map(|(_, seconds)| seconds).collect();
    Totals { at, counts: ROWS.iter().map(count).collect(), turns: turns.counts(), worked, cpu: cpu_seconds() }
}

/// The sample for the time between the previous totals and this reading.
pub(super) fn sample(before: &Totals, now: &NodeReading) -> TrendPoint {
    let totals = &now.totals;
    let mut sample = [0.0; SERIES];
    for (nth, row) in ROWS.iter().enumerate() {
        let count = |totals: &Totals| totals.counts.get(nth).copied().unwrap_or_default();
        let grown = (count(totals) - count(before)).max(0.0);
        let number = match row.source {
            SeriesSource::Gauge(read) => read(now),
            SeriesSource::State(holds) => f64::from(u8::from(holds(now))),
            SeriesSource::PerSecond(_) => grown / seconds_between(before, totals),
            SeriesSource::Events(_) => grown,
            SeriesSource::Between(compare) => compare(before, totals),
        };
        sample[nth] = number as f32;
    }
    sample
}

/// The share of a core that each loop has used.
pub(super) fn shares(before: &Totals, now: &Totals) -> Vec<f32> {
    let seconds = seconds_between(before, now);
    let worked = before.worked.iter().zip(&now.worked);
    worked.map(|(before, now)| ((now - before).max(0.0) / seconds) as f32).collect()
}

fn seconds_between(before: &Totals, now: &Totals) -> f64 {
    now.at.saturating_sub(before.at).as_secs_f64().max(0.001)
}

fn busiest_loop(before: &Totals, now: &Totals) -> f64 {
    shares(before, now).into_iter().fold(0.0, f32::max).into()
}

fn cpu(before: &Totals, now: &Totals) -> f64 {
    (now.cpu - before.cpu).max(0.0) / seconds_between(before, now)
}

/// The time within which 99 % of the turns of all loops were completed.
fn turn_time(before: &Totals, now: &Totals) -> f64 {
    let turns = now.turns.iter().enumerate().map(|(nth, (bound, count))| {
        let before = before.turns.get(nth).map_or(0, |(_, count)| *count);
        (*bound, count.saturating_sub(before))
    });
    quantile(0.99, &turns.collect::<Vec<_>>())
}

/// The time within which this share was completed, from counts up to bounds; interpolated between
/// two bounds, as in Prometheus.
fn quantile(share: f64, counts: &[(f64, u64)]) -> f64 {
    let wanted = counts.last().map_or(0, |(_, count)| *count) as f64 * share;
    if wanted == 0.0 {
        return 0.0;
    }
    let (mut low, mut below) = (0.0, 0);
    for (bound, count) in counts {
        if *count as f64 >= wanted {
            let part = (wanted - below as f64) / (count - below).max(1) as f64;
            return if bound.is_finite() { low + (bound - low) * part } else { low };
        }
        (low, below) = (*bound, *count);
    }
    low
}

impl SeriesRow {
    const fn new(series: Series, source: SeriesSource) -> SeriesRow {
        SeriesRow { series, source, plot: None }
    }

    const fn plotted(self, name: &'static str, title: &'static str, unit: &'static str) -> SeriesRow {
        SeriesRow { plot: Some(Plot { name, title, unit, is_fault: false }), ..self }
    }

    const fn fault(self, name: &'static str, title: &'static str, unit: &'static str) -> SeriesRow {
        SeriesRow { plot: Some(Plot { name, title, unit, is_fault: true }), ..self }
    }
}

const fn per_second(family: &'static str, labels: &'static [&'static str]) -> SeriesSource {
    SeriesSource::PerSecond(Counter { family, labels })
}

const fn events(family: &'static str, labels: &'static [&'static str]) -> SeriesSource {
    SeriesSource::Events(Counter { family, labels })
}

pub(super) const SERIES: usize = Series::CertificateEnds as usize + 1;

const LOGINS: &str = "raybox_logins_total";
const REFUSED: &str = "raybox_refused_total";
const SENDS: &str = "raybox_level2_sends_total";
const SLOW: &str = "raybox_slow_consumers_total";

/// The rows, each at the index of its series. Plots are shown in this order.
pub(super) static ROWS: [SeriesRow; SERIES] = [
    SeriesRow::new(Series::Users, SeriesSource::Gauge(|now| now.gauges.users)).plotted("users", "Users online", ""),
    SeriesRow::new(Series::Connections, SeriesSource::Gauge(|now| now.gauges.connections)).plotted(
        "connections",
        "Connections",
        "",
    ),
    SeriesRow::new(Series::Messages, per_second("raybox_frames_total", &["4", "9"]))
        .plotted("messages", "Messages", "/s"),
    SeriesRow::new(Series::Sends, per_second(SENDS, &[])).plotted("level2_sends", "Sends at level 2", "/s"),
    SeriesRow::new(Series::Logins, per_second(LOGINS, &["accepted", "remembered"])).plotted("logins", "Logins", "/s"),
    SeriesRow::new(Series::FailedLogins, per_second(LOGINS, &["wrong", "refused", "delayed"])).fault(
        "failed_logins",
        "Failed logins",
        "/s",
    ),
    SeriesRow::new(Series::Refusals, per_second(REFUSED, &[])).fault("refusals", "Refusals", "/s"),
    SeriesRow::new(Series::SlowConsumers, per_second(SLOW, &[])).fault("slow_consumers", "Slow consumers", "/s"),
    SeriesRow::new(Series::TurnTime, SeriesSource::Between(turn_time)).plotted("turn_time", "A loop’s turn, 99 %", "s"),
    SeriesRow::new(Series::BusiestLoop, SeriesSource::Between(busiest_loop)).plotted(
        "busiest_loop",
        "Busiest loop",
        "share",
    ),
    SeriesRow::new(Series::Waiting, SeriesSource::Gauge(|now| now.gauges.queue_jobs + now.gauges.lane_items)).plotted(
        "waiting",
        "Waiting in queues",
        "",
    ),
    SeriesRow::new(Series::Spool, SeriesSource::Gauge(|now| now.gauges.spool_messages)).fault(
        "spool",
        "Waiting on the disk",
        "",
    ),
    SeriesRow::new(Series::Cpu, SeriesSource::Between(cpu)).plotted("cpu", "Processors used", "share"),
    SeriesRow::new(Series::Memory, SeriesSource::Gauge(|now| now.gauges.memory_bytes))
        .plotted("memory", "Memory", "bytes"),
    SeriesRow::new(Series::Failed, events("raybox_deliveries_total", &["failed"])),
    SeriesRow::new(Series::SetAside, events("raybox_spool_total", &["aside"])),
    SeriesRow::new(Series::Unconfirmed, events("raybox_bus_unconfirmed_total", &[])),
    SeriesRow::new(Series::LoginsMax, events(REFUSED, &["logins_max"])),
    SeriesRow::new(Series::RequestsMax, events(REFUSED, &["requests_max"])),
    SeriesRow::new(Series::LaneMax, events(REFUSED, &["lane_max"])),
    SeriesRow::new(Series::MemoryMax, events(REFUSED, &["memory_max"])),
    SeriesRow::new(Series::Descriptors, events(REFUSED, &["descriptors"])),
    SeriesRow::new(Series::SlowClosed, events(SLOW, &[])),
    SeriesRow::new(Series::WrongLogins, events(LOGINS, &["wrong", "delayed"])),
    SeriesRow::new(Series::AllLogins, events(LOGINS, &[])),
    SeriesRow::new(Series::AdminKeys, events(REFUSED, &["admin_key"])),
    SeriesRow::new(Series::LogLines, events("raybox_log_lines_dropped_total", &[])),
    SeriesRow::new(Series::SweepsFailed, events("raybox_sweeps_total", &["failed"])),
    SeriesRow::new(Series::HookFailed, events("raybox_hook_requests_total", &["failed"])),
    SeriesRow::new(Series::SendsRefused, events(SENDS, &["503"])),
    SeriesRow::new(Series::NoMysql, SeriesSource::State(|now| now.lacks_connections_of("mysql"))),
    SeriesRow::new(Series::NoRedis, SeriesSource::State(|now| now.lacks_connections_of("redis"))),
    SeriesRow::new(Series::Drained, SeriesSource::State(|now| !now.holds("running"))),
    SeriesRow::new(
        Series::SpoolWaits,
        SeriesSource::State(|now| now.gauges.spool_messages > 0.0 && now.holds("store")),
    ),
    SeriesRow::new(Series::CertificateEnds, SeriesSource::State(|now| now.ending_certificates().next().is_some())),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_the_place_of_its_series() {
        for (nth, row) in ROWS.iter().enumerate() {
            assert_eq!(row.series as usize, nth);
        }
    }

    #[test]
    fn rates_are_differences_of_counters() {
        let totals = |at, count: f64, turns: [u64; 3], worked: [f64; 2], cpu| Totals {
            at: Duration::from_secs(at),
            counts: vec![count; SERIES],
            turns: [0.001, 0.01, f64::INFINITY].into_iter().zip(turns).collect(),
            worked: worked.into(),
            cpu,
        };
        let reading = |totals: &Totals| NodeReading { totals: totals.clone(), ..NodeReading::default() };
        let before = totals(100, 50.0, [100, 100, 100], [1.0, 5.0], 7.0);
        let now = totals(105, 60.0, [100, 200, 200], [2.0, 5.5], 12.0);
        let point = sample(&before, &reading(&now));
        for (series, expected) in [
            (Series::Messages, 2.0),
            (Series::FailedLogins, 2.0),
            (Series::WrongLogins, 10.0),
            (Series::BusiestLoop, 0.2),
            (Series::Cpu, 1.0),
            (Series::TurnTime, 0.00991),
            (Series::Users, 0.0),
        ] {
            assert!((point[series as usize] - expected).abs() < 1e-6, "{series:?}: {}", point[series as usize]);
        }
        assert_eq!(shares(&before, &now), [0.2, 0.1]);
        let none = sample(&before, &reading(&before));
        assert_eq!(sample(&now, &reading(&before)), none, "nothing counts backwards");
        assert!(sample(&Totals::default(), &reading(&now)).iter().all(|number| number.is_finite()));
    }

    #[test]
    fn quantiles() {
        let end = f64::INFINITY;
        for (counts, expected) in [
            (&[][..], 0.0),
            (&[(1.0, 0), (end, 0)], 0.0),
            (&[(1.0, 100), (end, 100)], 0.99),
            (&[(1.0, 0), (2.0, 100), (end, 100)], 1.99),
            (&[(1.0, 0), (end, 5)], 1.0),
        ] {
            assert!((quantile(0.99, counts) - expected).abs() < 1e-9, "{counts:?}");
        }
    }
}
