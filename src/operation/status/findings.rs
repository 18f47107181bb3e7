//! Problems in words, the most urgent first: the node judges itself by the [`RULES`]. An urgent
//! problem (`page`) is shown as soon as it exists. For a problem whose alert waits longer, the page
//! waits as well.

use std::collections::BTreeMap;
use std::time::Duration;

use super::picture::{NodePicture, NodeRow, StatusFinding};
use super::reading::NodeReading;
use super::rules::{Events, Judge, Of, PAGE, RULES, Rule, Seen};
use super::trend::Trend;

/// The problems of this node.
pub(super) fn of_node(reading: &NodeReading, trend: &Trend) -> Vec<StatusFinding> {
    let judged = RULES.iter().flat_map(|rule| judge(rule, reading, trend).into_iter().map(|what| finding(rule, what)));
    let mut found = judged.collect::<Vec<_>>();
    most_urgent_first(&mut found);
    found
}

fn judge(rule: &Rule, reading: &NodeReading, trend: &Trend) -> Vec<String> {
    let patience = rule.patience();
    match &rule.judge {
        Judge::Now(says) => says(reading, trend),
        Judge::State { of, says } => {
            let holding = of.iter().filter(|(series, _)| trend.has_held(*series, patience));
            holding.flat_map(|(_, label)| says(&Seen { reading, label, count: 0.0 })).collect()
        }
        Judge::Events(events) => {
            let many = events.of.iter().filter_map(|of| count(events, of, patience, (reading, trend)));
            many.flat_map(|(label, count)| (events.says)(&Seen { reading, label, count })).collect()
        }
        Judge::BusyLoop { within, more_than } => {
            let busy = trend.busy_loop(*more_than, *within, patience);
            busy.map(|nth| format!("{}: loop {nth} works all the time", reading.name)).into_iter().collect()
        }
        Judge::OfCluster => Vec::new(),
    }
}

/// The number of events of this kind, if they are too many.
fn count(
    events: &Events,
    (series, label): &Of,
    patience: Duration,
    (reading, trend): (&NodeReading, &Trend),
) -> Option<(&'static str, f64)> {
    let Events { within, more_than, share, .. } = events;
    let count = trend.sum(*series, *within);
    let is_unusual = share.as_ref().is_none_or(|share| count > share.more_than * (share.of)(reading, trend));
    (is_unusual && trend.stays_above(*series, *more_than, *within, patience)).then_some((*label, count))
}

/// The problems of the cluster, from its nodes' answers. Their versions have differed for the time
/// `differ`.
pub(super) fn of_cluster(nodes: &[NodeRow], differ: Duration) -> Vec<StatusFinding> {
    let mut found = Vec::new();
    for row in nodes {
        let name = row.node.as_ref().map_or("", |node| &node.name);
        let address = row.address.as_deref().unwrap_or_default();
        if let Some(trouble) = &row.trouble {
            let whom = if name.is_empty() { address.to_owned() } else { format!("{name} ({address})") };
            found.push(match row.foreign {
                true => finding(rule("NoStatusPage"), format!("{whom}: {trouble}")),
                false => finding(rule("ServerDown"), format!("{whom} does not answer: {trouble}")),
            });
        }
    }
    found.extend(answering(nodes).flat_map(|node| node.findings.clone()));
    let (versions, differs) = (versions(nodes), rule("VersionsDiffer"));
    if versions.len() > 1 && differ >= differs.patience() {
        let each: Vec<_> =
            versions.iter().map(|(version, nodes)| format!("{version} ({})", nodes.join(", "))).collect();
        let what = format!("Servers of {} versions run beside each other: {}", versions.len(), each.join(", "));
        found.push(finding(differs, what));
    }
    most_urgent_first(&mut found);
    found
}

/// The names of the nodes that answer, by version.
pub(super) fn versions(nodes: &[NodeRow]) -> BTreeMap<&str, Vec<&str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in answering(nodes) {
        versions.entry(&node.version).or_default().push(&node.name);
    }
    versions
}

fn answering(nodes: &[NodeRow]) -> impl Iterator<Item = &NodePicture> {
    nodes.iter().filter(|row| row.trouble.is_none()).filter_map(|row| row.node.as_ref())
}

fn rule(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| rule.name == name).expect("it is in the table")
}

fn finding(rule: &Rule, what: String) -> StatusFinding {
    let Rule { name, severity, action, .. } = rule;
    StatusFinding { alert: (*name).to_owned(), severity: (*severity).to_owned(), what, action: (*action).to_owned() }
}

fn most_urgent_first(found: &mut [StatusFinding]) {
    // Another node may report a problem that this one does not know.
    let place = |finding: &StatusFinding| RULES.iter().position(|rule| rule.name == finding.alert);
    found.sort_by_key(|finding| (finding.severity != PAGE, place(finding).unwrap_or(RULES.len())));
}

#[cfg(test)]
mod tests {
    use super::super::picture::Gauges;
    use super::super::reading::{DAY, WARNING_DAYS};
    use super::super::rules::{DESCRIPTORS_SHARE, LANE_HANGS_SECONDS};
    use super::super::series::{Series, TrendPoint};
    use super::super::trend::EVERY;
    use super::*;

    /// A node with which nothing is wrong.
    fn well() -> NodeReading {
        let conditions = ["store", "spool", "recorder", "bus", "running"].map(|name| (name, None));
        NodeReading {
            name: "north".to_owned(),
            conditions: conditions.into(),
            certificates: vec![("a.pem".to_owned(), 90.0 * DAY)],
            descriptors: (100.0, 1024.0),
            ..NodeReading::default()
        }
    }

    /// A past with this number of samples, in each of which the series has this value.
    fn past(series: Series, number: f32, samples: u32) -> Trend {
        let (mut trend, mut sample): (Trend, TrendPoint) = (Trend::new(), [0.0; _]);
        sample[series as usize] = number;
        (0..samples).for_each(|n| trend.add(EVERY * n, sample, Vec::new()));
        trend
    }

    fn alerts(found: &[StatusFinding]) -> Vec<&str> {
        found.iter().map(|finding| finding.alert.as_str()).collect()
    }

    #[test]
    fn all_is_well_when_nothing_is_wrong() {
        assert_eq!(of_node(&well(), &Trend::new()), []);
        let mut trend = past(Series::Messages, 50_000.0, 400);
        assert_eq!(of_node(&well(), &trend), [], "work is no fault");
        trend.add(EVERY * 400, [0.0; _], Vec::new());
        assert_eq!(of_node(&well(), &trend), []);
        let stopping = NodeReading { conditions: vec![("running", Some("the server stops".to_owned()))], ..well() };
        assert_eq!(of_node(&stopping, &trend), [], "somebody wants that");
    }

    #[test]
    fn each_condition_of_a_moment_is_found() {
        let not = |name| NodeReading { conditions: vec![(name, Some("the disk is full".to_owned()))], ..well() };
        let lane = |lane_busy_seconds| NodeReading {
            busiest_lane: "lane-3".to_owned(),
            gauges: Gauges { lane_busy_seconds, ..Gauges::default() },
            ..well()
        };
        let unstored = |unstored| NodeReading { gauges: Gauges { unstored, ..Gauges::default() }, ..well() };
        let open = |open| NodeReading { descriptors: (open, 1024.0), ..well() };
        let ends = |days: f64| NodeReading { certificates: vec![("a.pem".to_owned(), days * DAY)], ..well() };
        for (reading, expected) in [
            (not("store"), "NotReady: north: store is not ready: the disk is full"),
            (not("bus"), "NotReady: north: bus is not ready: the disk is full"),
            (
                unstored(3.0),
                "MessagesOnlyInMemory: north has 3 messages that neither the database nor its disk accepts",
            ),
            (unstored(1.0), "MessagesOnlyInMemory: north has 1 message that neither the database nor its disk accepts"),
            (lane(5.0), ""),
            (lane(7.2), "LaneHangs: north: a batch in lane-3 takes 7 seconds"),
            (open(820.0), "DescriptorsShort: north has few descriptors left: 820 of 1024 are open"),
            (open(819.0), ""),
            (ends(7.1), ""),
            (ends(0.5), "CertificateEnded: north: a.pem ends within a day"),
            (ends(0.0), "CertificateEnded: north: a.pem has ended"),
        ] {
            let found = of_node(&reading, &Trend::new());
            let said: Vec<_> = found.iter().map(|finding| format!("{}: {}", finding.alert, finding.what)).collect();
            assert_eq!(said.concat(), expected);
        }
    }

    #[test]
    fn each_condition_of_a_time_is_found_no_sooner_than_it_holds() {
        let no_store = NodeReading { conditions: vec![("store", Some("it is away".to_owned()))], ..well() };
        for (series, number, samples, expected) in [
            (Series::SpoolWaits, 1.0, 60, None),
            (Series::SpoolWaits, 1.0, 61, Some("SpoolNotEmpty")),
            (Series::SetAside, 1.0, 1, Some("MessagesSetAside")),
            (Series::Unconfirmed, 1.0, 10, None),
            (Series::Unconfirmed, 1.0, 11, Some("BusLosesMessages")),
            (Series::NoMysql, 1.0, 12, None),
            (Series::NoMysql, 1.0, 13, Some("PoolExhausted")),
            (Series::NoRedis, 1.0, 13, Some("PoolExhausted")),
            (Series::LoginsMax, 11.0, 57, None),
            (Series::LoginsMax, 10.0, 90, None),
            (Series::LoginsMax, 11.0, 58, Some("Overload")),
            (Series::RequestsMax, 11.0, 60, Some("Overload")),
            (Series::LaneMax, 11.0, 60, Some("Overload")),
            (Series::MemoryMax, 11.0, 60, Some("Overload")),
            (Series::Descriptors, 1.0, 1, Some("DescriptorsShort")),
            (Series::SlowClosed, 1.0, 20, None),
            (Series::SlowClosed, 1.0, 21, Some("SlowConsumers")),
            (Series::WrongLogins, 100.0, 1, None),
            (Series::WrongLogins, 101.0, 1, Some("PasswordGuessing")),
            (Series::AdminKeys, 1.0, 20, None),
            (Series::AdminKeys, 1.0, 21, Some("AdminKeyGuessed")),
            (Series::LogLines, 1.0, 1, Some("LogLinesLost")),
            (Series::SweepsFailed, 1.0, 33, None),
            (Series::SweepsFailed, 1.0, 34, Some("SweepsFail")),
            (Series::HookFailed, 1.0, 32, None),
            (Series::HookFailed, 1.0, 33, Some("HookFails")),
            (Series::Failed, 5.0, 30, None),
            (Series::Failed, 5.0, 31, Some("MessagesRefused")),
            (Series::SendsRefused, 1.0, 30, None),
            (Series::SendsRefused, 1.0, 31, Some("SendsRefused")),
            (Series::CertificateEnds, 1.0, 30, None),
            (Series::CertificateEnds, 1.0, 31, Some("CertificateEnds")),
            (Series::Drained, 1.0, 359, None),
            (Series::Drained, 1.0, 360, Some("Drained")),
        ] {
            let certificates = vec![("a.pem".to_owned(), 6.5 * DAY)];
            let found = of_node(&NodeReading { certificates, ..well() }, &past(series, number, samples));
            assert_eq!(alerts(&found), expected.into_iter().collect::<Vec<_>>(), "{series:?} {number} {samples}");
        }
        let found = of_node(&no_store, &past(Series::Failed, 5.0, 1));
        assert_eq!(alerts(&found), ["NotReady", "MessagesFail"]);
        let mut busy = Trend::new();
        (0..60).for_each(|n| busy.add(EVERY * n, [0.0; _], vec![0.1, 0.95]));
        let found = of_node(&well(), &busy);
        assert_eq!(
            (alerts(&found), found[0].what.as_str()),
            (vec!["LoopSaturated"], "north: loop 1 works all the time")
        );
    }

    #[test]
    fn a_usual_share_among_many_is_not_a_finding() {
        let with = |mut all: Vec<(Series, f32)>| {
            let (mut trend, mut sample): (Trend, TrendPoint) = (Trend::new(), [0.0; _]);
            all.drain(..).for_each(|(series, number)| sample[series as usize] = number);
            trend.add(EVERY, sample, Vec::new());
            trend
        };
        let guesses = |all| with(vec![(Series::WrongLogins, 101.0), (Series::AllLogins, all)]);
        assert_eq!(alerts(&of_node(&well(), &guesses(2000.0))), ["PasswordGuessing"]);
        assert_eq!(of_node(&well(), &guesses(2100.0)), []);
        let crowd = |connections| NodeReading { gauges: Gauges { connections, ..Gauges::default() }, ..well() };
        let slow = with(vec![(Series::SlowClosed, 21.0)]);
        assert_eq!(alerts(&of_node(&crowd(2000.0), &slow)), ["SlowConsumers"]);
        assert_eq!(of_node(&crowd(2100.0), &slow), []);
    }

    fn row(name: &str, version: &str, trouble: Option<&str>) -> NodeRow {
        let node = NodePicture { name: name.into(), version: version.into(), ..NodePicture::default() };
        let (address, trouble) = (Some(format!("{name}:1")), trouble.map(str::to_owned));
        NodeRow { address, trouble, foreign: false, seconds_ago: None, node: Some(node) }
    }

    #[test]
    fn an_unreachable_node_comes_first_and_versions_are_compared() {
        let mut rows = vec![row("a", "1", None), row("b", "1", None), row("c", "2", Some("it is away"))];
        let ticket = finding(rule("LogLinesLost"), "a has dropped lines of its log".to_owned());
        let page = finding(rule("NotReady"), "b: store is not ready".to_owned());
        let hour = Duration::from_secs(3600);
        rows[0].node.as_mut().unwrap().findings = vec![ticket];
        rows[1].node.as_mut().unwrap().findings = vec![page];
        let found = of_cluster(&rows, hour);
        assert_eq!(alerts(&found), ["ServerDown", "NotReady", "LogLinesLost"], "what is away has no version");
        assert_eq!(found[0].what, "c (c:1) does not answer: it is away");
        rows[2].foreign = true;
        let found = of_cluster(&rows, hour);
        assert_eq!(alerts(&found), ["NotReady", "LogLinesLost", "NoStatusPage"], "it is not a server of the cluster");
        rows[2].trouble = None;
        assert_eq!(alerts(&of_cluster(&rows, hour - EVERY)), ["NotReady", "LogLinesLost"], "an upgrade takes time");
        let found = of_cluster(&rows, hour);
        assert_eq!(alerts(&found), ["NotReady", "LogLinesLost", "VersionsDiffer"]);
        assert_eq!(found[2].what, "Servers of 2 versions run beside each other: 1 (a, b), 2 (c)");
        rows[2].node = None;
        assert_eq!(alerts(&of_cluster(&rows, hour)), ["NotReady", "LogLinesLost"], "it was not asked yet");
    }

    /// A time as in a rule of Prometheus.
    fn written(time: Duration) -> String {
        match time.as_secs() {
            seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
            seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
            seconds => format!("{seconds}s"),
        }
    }

    /// Compares how a rule judges with the expression of an alert.
    fn compare(rule: &Rule, expr: &str) {
        let has = |part: String| assert!(expr.contains(&part), "{}: {part} is not in {expr}", rule.name);
        // A number ends where the part does: 10 is not the beginning of 100, or of 10.5.
        let has_number = |part: String| {
            let ends = |rest: &str| rest.is_empty() || rest.starts_with([' ', ')']);
            assert!(expr.split(&part).skip(1).any(ends), "{}: {part} is not in {expr}", rule.name);
        };
        match &rule.judge {
            Judge::Events(events) => {
                has(format!("[{}]", written(events.within)));
                let per = if expr.contains("rate(") { events.within.as_secs_f64() } else { 1.0 };
                has_number(format!(" > {}", events.more_than / per));
                for (series, _) in events.of {
                    let counter = series.counter().expect("events are counted");
                    has(counter.family.to_owned());
                    counter.labels.iter().for_each(|label| has((*label).to_owned()));
                }
                if let Some(share) = &events.share {
                    has(format!(" {} * ", share.more_than));
                }
            }
            Judge::BusyLoop { within, more_than } => {
                has("rate(raybox_loop_turn_seconds_sum".to_owned());
                has(format!("[{}]", written(*within)));
                has_number(format!(" > {more_than}"));
            }
            Judge::Now(_) | Judge::State { .. } | Judge::OfCluster => assert_eq!(expr, written_out(rule.name)),
        }
    }

    /// The whole expressions of alerts whose rules are functions, with the numbers of these.
    fn written_out(name: &str) -> String {
        let day = DAY;
        match name {
            "ServerDown" => "up{job=\"raybox\"} == 0".to_owned(),
            "NotReady" => "raybox_ready{condition!=\"running\"} == 0".to_owned(),
            "Drained" => "raybox_ready{condition=\"running\"} == 0".to_owned(),
            "MessagesOnlyInMemory" => "raybox_unstored_messages > 0".to_owned(),
            "SpoolNotEmpty" => {
                "raybox_spool_messages > 0 and on (instance) raybox_ready{condition=\"store\"} == 1".to_owned()
            }
            "LaneHangs" => format!("max by (instance, lane) (raybox_lane_busy_seconds) > {LANE_HANGS_SECONDS}"),
            "PoolExhausted" => "raybox_pool_connections_idle == 0 and raybox_pool_connections == \
                                raybox_pool_connections_max and raybox_pool_connections_max > 0"
                .to_owned(),
            "DescriptorsShort" => format!(
                "process_open_fds{{job=\"raybox\"}} / process_max_fds > {DESCRIPTORS_SHARE} or \
                 increase(raybox_refused_total{{limit=\"descriptors\"}}[5m]) > 0"
            ),
            "CertificateEnded" => format!("raybox_tls_certificate_expiry_seconds < {day}"),
            "CertificateEnds" => format!(
                "raybox_tls_certificate_expiry_seconds >= {day} and raybox_tls_certificate_expiry_seconds < \
                 {WARNING_DAYS} * {day}"
            ),
            "VersionsDiffer" => "count(count by (version) (raybox_build_info)) > 1".to_owned(),
            other => panic!("{other}: write its expression here"),
        }
    }

    #[test]
    fn they_are_the_alerts_of_prometheus() {
        let alerts = include_str!("../../../conf/monitoring/alerts.yml");
        let mut names = Vec::new();
        for alert in alerts.split("- alert: ").skip(1) {
            let line = |key: &str| {
                let found = alert.lines().find_map(|line| line.trim().strip_prefix(key));
                found.map(|text| text.trim_matches('"'))
            };
            let name = alert.lines().next().unwrap_or_default();
            // A node knows neither Prometheus nor processes before it.
            if ["NothingWatched", "Restarts"].contains(&name) {
                continue;
            }
            let known = RULES.iter().find(|known| known.name == name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(Some(known.action), line("action: "), "{name}");
            assert_eq!(Some(format!("{{severity: {}}}", known.severity).as_str()), line("labels: "), "{name}");
            let lasts = (!known.lasts.is_zero()).then(|| written(known.lasts));
            assert_eq!(lasts.as_deref(), line("for: "), "{name}");
            compare(known, line("expr: ").expect("each has one"));
            names.push(name);
        }
        let more: Vec<_> = RULES.iter().map(|known| known.name).filter(|name| !names.contains(name)).collect();
        assert_eq!(more, ["NoStatusPage"], "Prometheus does not know that there is a page");
    }
}
