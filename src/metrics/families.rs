//! [`Families`]: every number by its name, with its sources, formatted by the `prometheus` crate.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

/// One family of numbers.
struct FamilyRow {
    name: &'static str,
    kind: MetricType,
    /// The label that distinguishes the numbers of the family, if there are several.
    label: Option<&'static str>,
    help: &'static str,
}

/// All families.
pub(super) struct Families {
    registry: Registry,
    families: HashMap<&'static str, Arc<Family>>,
}

struct Family {
    row: &'static FamilyRow,
    desc: Desc,
    looks: Mutex<Vec<SampleReader>>,
}

type SampleReader = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// The current value of one number or of one histogram.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Sample {
    label: Option<String>,
    value: SampleValue,
}

#[derive(Clone, PartialEq, Debug)]
enum SampleValue {
    Number(f64),
    /// Pairs of an upper bound and a count up to it, the total count, and the sum.
    Histogram(Vec<(f64, u64)>, u64, f64),
}

impl Sample {
    pub(super) fn number(n: u64) -> Sample {
        // A double represents integers up to 2⁵³ exactly, and the format has only doubles.
        Sample { label: None, value: SampleValue::Number(n as f64) }
    }

    pub(super) fn seconds(time: Duration) -> Sample {
        Sample { label: None, value: SampleValue::Number(time.as_secs_f64()) }
    }

    /// A histogram. `counts` are by upper bound, followed by the count above all bounds.
    pub(super) fn histogram(bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) -> Sample {
        let mut so_far = 0;
        let cumulated = bounds.zip(counts).map(|(bound, count)| {
            so_far += count;
            (bound, so_far)
        });
        Sample { label: None, value: SampleValue::Histogram(cumulated.collect(), counts.iter().sum(), sum) }
    }

    /// The value of the family's label; empty if it has none.
    pub(super) fn label(&self) -> &str {
        self.label.as_deref().unwrap_or_default()
    }

    /// The number; for a histogram, the sum of all measured values.
    pub(super) fn number_or_sum(&self) -> f64 {
        match self.value {
            SampleValue::Number(number) | SampleValue::Histogram(_, _, number) => number,
        }
    }

    /// For a histogram: each bound with the count up to it, the last one being infinity.
    pub(super) fn cumulated(&self) -> Option<Vec<(f64, u64)>> {
        let SampleValue::Histogram(cumulated, count, _) = &self.value else { return None };
        Some(cumulated.iter().copied().chain([(f64::INFINITY, *count)]).collect())
    }

    /// The same sample with a value for the family's label.
    pub(super) fn of(self, label: impl Into<String>) -> Sample {
        Sample { label: Some(label.into()), ..self }
    }
}

impl Families {
    /// All families, without numbers except those of the process.
    pub(super) fn new() -> Families {
        let registry = Registry::new();
        let mut families = HashMap::new();
        for row in &TABLE {
            let label = row.label.iter().map(ToString::to_string).collect();
            let desc = Desc::new(row.name.into(), row.help.into(), label, HashMap::new()).expect("names are good");
            let family = Arc::new(Family { row, desc, looks: Mutex::default() });
            registry.register(Box::new(Shown(family.clone()))).expect("names differ");
            families.insert(row.name, family);
        }
        registry.register(Box::new(ProcessCollector::for_self())).expect("names differ");
        Families { registry, families }
    }

    /// Adds a source for the numbers of the family `name`; several sources are read one after the
    /// other.
    ///
    /// # Panics
    ///
    /// If there is no such family.
    pub(super) fn add(&self, name: &str, look: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        let family = self.families.get(name).unwrap_or_else(|| panic!("{name} is in the table"));
        family.looks.lock().push(Box::new(look));
    }

    /// The current samples of the family `name`.
    ///
    /// # Panics
    ///
    /// If there is no such family.
    pub(super) fn samples(&self, name: &str) -> Vec<Sample> {
        let family = self.families.get(name).unwrap_or_else(|| panic!("{name} is in the table"));
        family.looks.lock().iter().flat_map(|look| look()).collect()
    }

    pub(super) fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            log::error!("the metrics cannot be formatted: {error}");
            String::new()
        })
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Families").finish_non_exhaustive()
    }
}

/// A family in the registry.
struct Shown(Arc<Family>);

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Family { row, looks, .. } = &*self.0;
        let samples = looks.lock().iter().flat_map(|look| look()).map(|sample| row.metric(sample)).collect::<Vec<_>>();
        if samples.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(row.name.into());
        family.set_help(row.help.into());
        family.set_field_type(row.kind);
        family.set_metric(samples);
        vec![family]
    }
}

impl FamilyRow {
    const fn new(name: &'static str, kind: MetricType, label: Option<&'static str>, help: &'static str) -> FamilyRow {
        FamilyRow { name, kind, label, help }
    }

    fn metric(&self, sample: Sample) -> Metric {
        debug_assert_eq!(self.label.is_some(), sample.label.is_some(), "{}", self.name);
        let pair = self.label.zip(sample.label).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.into());
            pair.set_value(value);
            pair
        });
        let mut metric = Metric::from_label(pair.into_iter().collect());
        match sample.value {
            SampleValue::Number(number) if self.kind == COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            }
            SampleValue::Number(number) => {
                let mut gauge = Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
            SampleValue::Histogram(cumulated, count, sum) => metric.set_histogram(histogram(cumulated, count, sum)),
        }
        metric
    }
}

fn histogram(cumulated: Vec<(f64, u64)>, count: u64, sum: f64) -> Histogram {
    let bucket = |(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(cumulated.into_iter().map(bucket).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    histogram
}

const COUNTER: MetricType = MetricType::COUNTER;
const GAUGE: MetricType = MetricType::GAUGE;
const HISTOGRAM: MetricType = MetricType::HISTOGRAM;

/// The families of the process, named `process_`, come from the `prometheus` crate.
static TABLE: [FamilyRow; 50] = [
    FamilyRow::new("raybox_node_info", GAUGE, Some("node"), "Always 1; the label is the name of the node."),
    FamilyRow::new("raybox_build_info", GAUGE, Some("version"), "Always 1; the label says which version runs."),
    FamilyRow::new("raybox_ready", GAUGE, Some("condition"), "Whether a condition of readiness holds, 1 or 0."),
    FamilyRow::new(
        "raybox_connections_open",
        GAUGE,
        Some("loop"),
        "Connections of an event loop, including closing and waiting ones.",
    ),
    FamilyRow::new(
        "raybox_connections_accepted_total",
        COUNTER,
        Some("loop"),
        "Connections accepted for an event loop.",
    ),
    FamilyRow::new("raybox_connections_closed_total", COUNTER, Some("reason"), "Connections closed, by reason."),
    FamilyRow::new(
        "raybox_slow_consumers_total",
        COUNTER,
        None,
        "Connections closed because they did not take messages.",
    ),
    FamilyRow::new("raybox_accounts_compared_total", COUNTER, None, "Rows of connected users that were compared."),
    FamilyRow::new("raybox_logged_out_total", COUNTER, None, "Connections logged out because of a changed account."),
    FamilyRow::new("raybox_tls_connections_open", GAUGE, None, "Connections that speak TLS."),
    FamilyRow::new("raybox_tls_handshakes_total", COUNTER, Some("outcome"), "Handshakes of TLS, by outcome."),
    FamilyRow::new(
        "raybox_tls_certificate_expiry_seconds",
        GAUGE,
        Some("file"),
        "Time until a certificate ends; 0 once it has.",
    ),
    FamilyRow::new("raybox_users_online", GAUGE, None, "Users with a connection to this node, at either level."),
    FamilyRow::new("raybox_logins_total", COUNTER, Some("outcome"), "Logins, by outcome."),
    FamilyRow::new("raybox_refused_total", COUNTER, Some("limit"), "Refusals because of a limit, by the limit's key."),
    FamilyRow::new(
        "raybox_http_answers_total",
        COUNTER,
        Some("status"),
        "Answers in HTTP, by status; 101 is a WebSocket.",
    ),
    FamilyRow::new("raybox_frames_total", COUNTER, Some("type"), "Frames processed, by msgType."),
    FamilyRow::new("raybox_replies_total", COUNTER, Some("errno"), "Replies sent, by errno."),
    FamilyRow::new("raybox_deliveries_total", COUNTER, Some("path"), "Messages for one recipient each, by path."),
    FamilyRow::new(
        "raybox_deliveries_returned_total",
        COUNTER,
        None,
        "Messages that an ending connection did not take.",
    ),
    FamilyRow::new("raybox_bus_published_total", COUNTER, None, "Messages offered to other nodes."),
    FamilyRow::new(
        "raybox_bus_unconfirmed_total",
        COUNTER,
        None,
        "Messages offered to other nodes and not confirmed in time.",
    ),
    FamilyRow::new("raybox_bus_probe_age_seconds", GAUGE, None, "Time since this node's last probe came back."),
    FamilyRow::new("raybox_queue_jobs", GAUGE, Some("queue"), "Jobs that wait for a thread."),
    FamilyRow::new("raybox_lane_items", GAUGE, Some("lane"), "Messages and other work that wait in a lane."),
    FamilyRow::new("raybox_lane_bytes", GAUGE, Some("lane"), "Bytes that wait in a lane or are being handled."),
    FamilyRow::new(
        "raybox_lane_busy_seconds",
        GAUGE,
        Some("lane"),
        "How long a lane has been at its batch; 0 if it has none.",
    ),
    FamilyRow::new("raybox_level2_devices", GAUGE, None, "Connections of level 2."),
    FamilyRow::new("raybox_level2_sends_total", COUNTER, Some("outcome"), "Answers to sends of level 2."),
    FamilyRow::new("raybox_level2_pushes_total", COUNTER, None, "Messages written to connections of level 2."),
    FamilyRow::new(
        "raybox_recorded_total",
        COUNTER,
        Some("what"),
        "Messages that were recorded in conversations, or not.",
    ),
    FamilyRow::new("raybox_history_reads_total", COUNTER, Some("what"), "Reads of conversations, by their purpose."),
    FamilyRow::new("raybox_sweeps_total", COUNTER, Some("what"), "Sweeps, and what they found."),
    FamilyRow::new(
        "raybox_imported_total",
        COUNTER,
        Some("what"),
        "Messages that waited when their user came to level 2.",
    ),
    FamilyRow::new("raybox_retention_total", COUNTER, Some("what"), "Old messages that were deleted."),
    FamilyRow::new("raybox_hook_messages_total", COUNTER, Some("what"), "Messages for the hook, by their fate."),
    FamilyRow::new("raybox_hook_requests_total", COUNTER, Some("outcome"), "Requests to the hook, by outcome."),
    FamilyRow::new(
        "raybox_hook_waiting_messages",
        GAUGE,
        None,
        "Messages that wait for the hook, if this node posts them.",
    ),
    FamilyRow::new("raybox_hook_oldest_seconds", GAUGE, None, "Age of the oldest message that waits for the hook."),
    FamilyRow::new("raybox_batch_messages", HISTOGRAM, Some("stage"), "Messages in one batch."),
    FamilyRow::new(
        "raybox_unstored_messages",
        GAUGE,
        None,
        "Messages that came back from connections and cannot be stored: only in memory.",
    ),
    FamilyRow::new("raybox_spool_messages", GAUGE, None, "Messages that wait on this node's disk for the database."),
    FamilyRow::new("raybox_spool_bytes", GAUGE, None, "Bytes in the spool, limited by spool_max."),
    FamilyRow::new("raybox_spool_total", COUNTER, Some("what"), "Messages put into the spool, and their fate."),
    FamilyRow::new("raybox_pool_connections", GAUGE, Some("pool"), "Connections of a pool."),
    FamilyRow::new("raybox_pool_connections_idle", GAUGE, Some("pool"), "Idle connections of a pool."),
    FamilyRow::new("raybox_pool_connections_max", GAUGE, Some("pool"), "The most connections of a pool."),
    FamilyRow::new("raybox_loop_letters", GAUGE, Some("loop"), "Events that wait in the inbox of an event loop."),
    FamilyRow::new("raybox_loop_turn_seconds", HISTOGRAM, Some("loop"), "Duration of the turns of an event loop."),
    FamilyRow::new(
        "raybox_log_lines_dropped_total",
        COUNTER,
        None,
        "Log lines dropped because the disk did not keep up.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_has_every_family_as_it_is() {
        let documented: BTreeSet<String> = include_str!("../../docs/metrics.md")
            .lines()
            .filter(|line| line.starts_with("| `raybox_") || line.starts_with("| `process_"))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                assert_eq!(cells.len(), 6, "four cells: {line}");
                assert!(!cells[4].is_empty(), "says something: {line}");
                [cells[1], cells[2], cells[3]].join(" ").replace('`', "").trim().to_owned()
            })
            .collect();
        assert_eq!(documented, described());
    }

    /// Name, type and label of every family, separated by blanks.
    fn described() -> BTreeSet<String> {
        let ours = TABLE.iter().map(|row| {
            let (kind, label) = (format!("{:?}", row.kind).to_lowercase(), row.label.unwrap_or_default());
            format!("{} {kind} {label}", row.name).trim().to_owned()
        });
        let of_process = ProcessCollector::for_self().collect();
        let theirs = of_process.iter().map(|family| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            format!("{} {kind}", family.name())
        });
        ours.chain(theirs).collect()
    }
}
