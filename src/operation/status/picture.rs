//! The content of the page as JSON; `docs/metrics.md` describes it. It contains no user's name and
//! no text of a message.

use serde::{Deserialize, Serialize};

/// A node's picture of itself.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodePicture {
    pub(super) name: String,
    pub(super) version: String,
    /// A random text, new after each start, by which a node recognises itself.
    pub(super) instance: String,
    pub(super) ready: bool,
    pub(super) conditions: Vec<ReadinessCondition>,
    pub(super) uptime_seconds: f64,
    pub(super) messages_per_second: f64,
    pub(super) logins_per_second: f64,
    pub(super) cpu: f64,
    #[serde(flatten)]
    pub(super) gauges: Gauges,
    pub(super) findings: Vec<StatusFinding>,
}

/// Numbers of a node that exist at each moment. A new one is a field here, filled by a reading.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Gauges {
    pub(super) users: f64,
    pub(super) connections: f64,
    /// The time since the last probe on the bus came back; `None` without a bus.
    pub(super) probe_seconds: Option<f64>,
    pub(super) unstored: f64,
    pub(super) spool_messages: f64,
    pub(super) spool_bytes: f64,
    pub(super) queue_jobs: f64,
    pub(super) lane_items: f64,
    pub(super) lane_bytes: f64,
    pub(super) lane_busy_seconds: f64,
    pub(super) pools: Vec<PoolPicture>,
    pub(super) memory_bytes: f64,
}

/// A condition of readiness.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ReadinessCondition {
    pub(super) name: String,
    pub(super) trouble: Option<String>,
}

/// A pool of connections.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PoolPicture {
    pub(super) name: String,
    pub(super) open: f64,
    pub(super) idle: f64,
    pub(super) max: f64,
}

/// A problem.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StatusFinding {
    /// The name in `conf/monitoring/alerts.yml`.
    pub(super) alert: String,
    /// `page` or `ticket`.
    pub(super) severity: String,
    pub(super) what: String,
    pub(super) action: String,
}

/// The answer to another node.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct OwnPicture {
    pub(super) node: NodePicture,
}

/// The answer to the page.
#[derive(Debug, Serialize)]
pub(super) struct WholePicture {
    pub(super) findings: Vec<StatusFinding>,
    /// The nodes, this one first.
    pub(super) nodes: Vec<NodeRow>,
    pub(super) trend: TrendPicture,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct NodeRow {
    /// The address of its admin port; not needed for this node.
    pub(super) address: Option<String>,
    /// The reason why it does not answer, if any.
    pub(super) trouble: Option<String>,
    /// Whether another program answers there.
    pub(super) foreign: bool,
    /// The time since its last answer.
    pub(super) seconds_ago: Option<f64>,
    /// Its last answer.
    pub(super) node: Option<NodePicture>,
}

/// The last hour of this node.
#[derive(Debug, Serialize)]
pub(super) struct TrendPicture {
    pub(super) every_seconds: u64,
    /// The most samples.
    pub(super) samples: usize,
    pub(super) series: Vec<SeriesPicture>,
}

/// A series; missing numbers are null.
#[derive(Debug, Serialize)]
pub(super) struct SeriesPicture {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// Whether it is 0 while the node works well.
    pub(super) fault: bool,
    pub(super) values: Vec<f32>,
}

impl NodePicture {
    /// The same picture, shortened to the most that a node ever sends.
    pub(super) fn bounded(mut self) -> NodePicture {
        for name in [&mut self.name, &mut self.version, &mut self.instance] {
            cut(name, NAME_BYTES_MAX);
        }
        shorten(&mut self.conditions, CONDITIONS_MAX);
        for condition in &mut self.conditions {
            cut(&mut condition.name, NAME_BYTES_MAX);
            condition.trouble.iter_mut().for_each(|trouble| cut(trouble, TEXT_BYTES_MAX));
        }
        shorten(&mut self.gauges.pools, POOLS_MAX);
        self.gauges.pools.iter_mut().for_each(|pool| cut(&mut pool.name, NAME_BYTES_MAX));
        shorten(&mut self.findings, FINDINGS_MAX);
        for finding in &mut self.findings {
            cut(&mut finding.alert, NAME_BYTES_MAX);
            cut(&mut finding.severity, NAME_BYTES_MAX);
            cut(&mut finding.what, TEXT_BYTES_MAX);
            cut(&mut finding.action, TEXT_BYTES_MAX);
        }
        self
    }
}

/// Keeps the first elements, and frees the memory of the others.
fn shorten<T>(list: &mut Vec<T>, count_max: usize) {
    list.truncate(count_max);
    list.shrink_to_fit();
}

/// Keeps this number of bytes, or a few less so that no character is cut.
fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
    text.shrink_to_fit();
}

impl PoolPicture {
    /// Whether no connection is left for another call. A pool without connections belongs to a
    /// database that has not answered yet, or that is being closed.
    pub(super) fn is_used_up(&self) -> bool {
        self.max > 0.0 && self.idle == 0.0 && self.open == self.max
    }
}

const CONDITIONS_MAX: usize = 16;
const POOLS_MAX: usize = 8;
const FINDINGS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
/// The longest text: more than any `action` has.
const TEXT_BYTES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_no_more_memory_than_it_may_say() {
        let long = || "é".repeat(1000);
        let finding = StatusFinding { alert: long(), severity: long(), what: long(), action: long() };
        let condition = ReadinessCondition { name: long(), trouble: Some(long()) };
        let pool = PoolPicture { name: long(), ..PoolPicture::default() };
        let picture = NodePicture {
            name: long(),
            version: long(),
            instance: long(),
            conditions: vec![condition; 1000],
            gauges: Gauges { pools: vec![pool; 1000], ..Gauges::default() },
            findings: vec![finding; 1000],
            ..NodePicture::default()
        };
        let mut picture = picture.bounded();
        assert_eq!((picture.name.as_str(), picture.version.capacity()), ("é".repeat(32).as_str(), NAME_BYTES_MAX));
        assert_eq!((picture.findings.capacity(), picture.conditions.capacity()), (FINDINGS_MAX, CONDITIONS_MAX));
        assert_eq!((picture.gauges.pools.capacity(), picture.gauges.pools[7].name.len()), (POOLS_MAX, NAME_BYTES_MAX));
        let finding = picture.findings.pop().expect("one of them");
        assert_eq!((finding.what.capacity(), finding.action.len()), (TEXT_BYTES_MAX, TEXT_BYTES_MAX));
        let condition = &picture.conditions[0];
        assert_eq!((condition.name.len(), condition.trouble.as_ref().map(String::capacity)), (64, Some(500)));
        let mut odd = format!("x{}", long());
        cut(&mut odd, NAME_BYTES_MAX);
        assert_eq!(odd.len(), 63, "no character is cut in two");
    }

    #[test]
    fn a_pool_without_connections_is_not_used_up() {
        let pool = |open, idle, max| PoolPicture { name: "mysql".to_owned(), open, idle, max };
        for (pool, expected) in
            [(pool(9.0, 0.0, 9.0), true), (pool(9.0, 1.0, 9.0), false), (pool(8.0, 0.0, 9.0), false)]
        {
            assert_eq!(pool.is_used_up(), expected, "{pool:?}");
        }
        assert!(!pool(0.0, 0.0, 0.0).is_used_up(), "its database has not answered yet");
    }
}
