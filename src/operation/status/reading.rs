//! [`NodeReading`]: all facts of this node that the page shows, at one moment.

use std::time::Duration;

use super::picture::{Gauges, PoolPicture};
use super::process::ProcessFiles;
use crate::metrics::Metrics;
use crate::operation::health::Health;

/// Numbers of this node.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct NodeReading {
    pub(super) name: String,
    /// The conditions, each with its problem if it does not hold.
    pub(super) conditions: Vec<(&'static str, Option<String>)>,
    pub(super) gauges: Gauges,
    /// The lane that has worked at its batch for the longest time.
    pub(super) busiest_lane: String,
    /// The seconds until each certificate expires.
    pub(super) certificates: Vec<(String, f64)>,
    /// Open descriptors and their limit when the last sample was taken.
    pub(super) descriptors: (f64, f64),
    pub(super) totals: Totals,
}

/// Counters and sums at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Totals {
    /// The time since the start.
    pub(super) at: Duration,
    /// The count of each counting series, in the order of the series.
    pub(super) counts: Vec<f64>,
    /// The number of the loops' turns that took at most this many seconds, for each bound.
    pub(super) turns: Vec<(f64, u64)>,
    /// The seconds that each loop has worked.
    pub(super) worked: Vec<f64>,
    /// The seconds of processor time.
    pub(super) cpu: f64,
}

impl NodeReading {
    /// Takes a reading with these totals. Nothing here waits, and nothing takes longer with more
    /// clients.
    pub(super) fn take(metrics: &Metrics, health: &Health, process: &ProcessFiles, totals: Totals) -> NodeReading {
        let total = |family| metrics.figures(family).total();
        let names = metrics.figures("raybox_node_info");
        let lanes = metrics.figures("raybox_lane_busy_seconds");
        let (busiest_lane, lane_busy_seconds) = lanes.largest().unwrap_or_default();
        let certificates = metrics.figures("raybox_tls_certificate_expiry_seconds");
        NodeReading {
            name: names.each().next().map_or_else(String::new, |(name, _)| name.to_owned()),
            conditions: health.troubles(),
            gauges: Gauges {
                users: total("raybox_users_online"),
                connections: total("raybox_connections_open"),
                probe_seconds: health.probe_age().map(|age| age.as_secs_f64()),
                unstored: total("raybox_unstored_messages"),
                spool_messages: total("raybox_spool_messages"),
                spool_bytes: total("raybox_spool_bytes"),
                queue_jobs: total("raybox_queue_jobs"),
                lane_items: total("raybox_lane_items"),
                lane_bytes: total("raybox_lane_bytes"),
                lane_busy_seconds,
                pools: pools(metrics),
                memory_bytes: process.memory_bytes(),
            },
            busiest_lane: busiest_lane.to_owned(),
            certificates: certificates.each().map(|(file, left)| (file.to_owned(), left)).collect(),
            descriptors: (0.0, f64::INFINITY),
            totals,
        }
    }

    /// Whether a condition of readiness holds.
    pub(super) fn holds(&self, condition: &str) -> bool {
        self.conditions.iter().any(|(name, trouble)| *name == condition && trouble.is_none())
    }

    /// Whether all connections of a pool are in use.
    pub(super) fn lacks_connections_of(&self, pool: &str) -> bool {
        self.gauges.pools.iter().any(|known| known.name == pool && known.is_used_up())
    }

    /// The certificates that end within [`WARNING_DAYS`], but not within a day, and in how many
    /// seconds.
    pub(super) fn ending_certificates(&self) -> impl Iterator<Item = (&str, f64)> {
        let certificates = self.certificates.iter().map(|(file, left)| (file.as_str(), *left));
        certificates.filter(|(_, left)| (DAY..WARNING_DAYS * DAY).contains(left))
    }
}

fn pools(metrics: &Metrics) -> Vec<PoolPicture> {
    let of = |family| metrics.figures(family);
    let (open, idle) = (of("raybox_pool_connections"), of("raybox_pool_connections_idle"));
    let pool = |(name, max): (&str, f64)| PoolPicture {
        name: name.to_owned(),
        open: open.sum(&[name]),
        idle: idle.sum(&[name]),
        max,
    };
    of("raybox_pool_connections_max").each().map(pool).collect()
}

/// A day in seconds.
pub(super) const DAY: f64 = 86_400.0;
/// A certificate is reported from this number of days before its end.
pub(super) const WARNING_DAYS: f64 = 7.0;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::loads::{PoolUse, SpoolLoad};
    use crate::metrics::{Hit, LoginOutcome};
    use crate::operation::status::series::{Series, sample, totals};

    #[test]
    fn a_reading_has_what_the_metrics_have() {
        let (metrics, health) = (Metrics::new(2), Health::new(Arc::new([]), None));
        metrics.name_node("north".to_owned());
        metrics.watch_users(|| 7);
        metrics.watch_queue("worker", || 3);
        metrics.watch_spool(|| SpoolLoad { messages: 5, bytes: 500, aside: 0 });
        metrics.watch_pool("mysql", || PoolUse { open: 9, idle: 0, max: 9 });
        let process = ProcessFiles::open();
        let before = NodeReading::take(&metrics, &health, &process, totals(&metrics, Duration::ZERO));
        metrics.login(LoginOutcome::Accepted);
        metrics.login(LoginOutcome::Wrong);
        (0..20).for_each(|_| metrics.refused(Hit::LaneMax));
        let now = NodeReading::take(&metrics, &health, &process, totals(&metrics, Duration::from_secs(10)));
        assert_eq!(
            (now.name.as_str(), now.gauges.users, now.gauges.queue_jobs, now.gauges.spool_bytes),
            ("north", 7.0, 3.0, 500.0)
        );
        assert_eq!(now.gauges.pools, [PoolPicture { name: "mysql".into(), open: 9.0, idle: 0.0, max: 9.0 }]);
        assert!(!now.holds("store"), "it was not checked yet");
        assert!(now.gauges.memory_bytes > 1e6, "{now:?}");
        let point = sample(&before.totals, &now);
        for (series, expected) in [
            (Series::Users, 7.0),
            (Series::AllLogins, 2.0),
            (Series::WrongLogins, 1.0),
            (Series::Waiting, 3.0),
            (Series::Spool, 5.0),
            (Series::Logins, 0.1),
            (Series::FailedLogins, 0.1),
            (Series::Refusals, 2.0),
            (Series::LaneMax, 20.0),
            (Series::LoginsMax, 0.0),
            (Series::NoMysql, 1.0),
            (Series::NoRedis, 0.0),
            (Series::SpoolWaits, 0.0),
        ] {
            assert_eq!(point[series as usize], expected, "{series:?}");
        }
    }
}
