//! The rules by which a node judges itself: the alerts of `conf/monitoring/alerts.yml`, as a table.
//! A test compares both. A new alert is a row here and a rule there.

use std::time::Duration;

use super::reading::{DAY, NodeReading};
use super::series::Series;
use super::trend::Trend;

/// An alert: its condition on a node, and advice.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) severity: &'static str,
    /// How long the condition must last before Prometheus alerts.
    pub(super) lasts: Duration,
    pub(super) judge: Judge,
    pub(super) action: &'static str,
}

/// The way in which a condition is judged.
pub(super) enum Judge {
    /// By the present state: returns each problem in words.
    Now(fn(&NodeReading, &Trend) -> Vec<String>),
    /// Any of these states.
    State { of: &'static [Of], says: fn(&Seen) -> Vec<String> },
    /// Any of these events.
    Events(Events),
    /// A loop uses more than this share of a core.
    BusyLoop { within: Duration, more_than: f32 },
    /// Only by the cluster: a node cannot see it by itself.
    OfCluster,
}

/// Too many events within a time.
pub(super) struct Events {
    pub(super) of: &'static [Of],
    pub(super) within: Duration,
    pub(super) more_than: f64,
    /// The share of something up to which events are usual.
    pub(super) share: Option<Share>,
    pub(super) says: fn(&Seen) -> Vec<String>,
}

/// The total with which events are compared.
pub(super) struct Share {
    pub(super) more_than: f64,
    pub(super) of: fn(&NodeReading, &Trend) -> f64,
}

/// A series, and its name in sentences.
pub(super) type Of = (Series, &'static str);

/// A problem to be put into words.
pub(super) struct Seen<'a> {
    pub(super) reading: &'a NodeReading,
    pub(super) label: &'static str,
    /// The number of events.
    pub(super) count: f64,
}

impl Rule {
    /// How long the page waits. Urgent findings are shown at once.
    pub(super) fn patience(&self) -> Duration {
        if self.severity == PAGE { Duration::ZERO } else { self.lasts }
    }

    const fn new(name: &'static str, severity: &'static str, lasts: Duration, judge: Judge) -> Rule {
        Rule { name, severity, lasts, judge, action: "" }
    }

    /// An urgent condition of the present state.
    const fn page(name: &'static str, lasts: Duration, says: fn(&NodeReading, &Trend) -> Vec<String>) -> Rule {
        Rule::new(name, PAGE, lasts, Judge::Now(says))
    }

    const fn state(name: &'static str, lasts: Duration, of: &'static [Of], says: fn(&Seen) -> Vec<String>) -> Rule {
        Rule::new(name, TICKET, lasts, Judge::State { of, says })
    }

    const fn events(name: &'static str, lasts: Duration, events: Events) -> Rule {
        Rule::new(name, TICKET, lasts, Judge::Events(events))
    }

    const fn action(self, action: &'static str) -> Rule {
        Rule { action, ..self }
    }
}

impl Events {
    const fn of(of: &'static [Of], within: Duration, more_than: f64, says: fn(&Seen) -> Vec<String>) -> Events {
        Events { of, within, more_than, share: None, says }
    }

    /// Requires this share as well.
    const fn and(self, more_than: f64, of: fn(&NodeReading, &Trend) -> f64) -> Events {
        Events { share: Some(Share { more_than, of }), ..self }
    }
}

fn not_ready(reading: &NodeReading, _: &Trend) -> Vec<String> {
    let broken = reading.conditions.iter().filter(|(condition, _)| *condition != "running");
    let says = |(condition, trouble): &(&str, Option<String>)| {
        trouble.as_ref().map(|trouble| format!("{}: {condition} is not ready: {trouble}", reading.name))
    };
    broken.filter_map(says).collect()
}

fn only_in_memory(reading: &NodeReading, _: &Trend) -> Vec<String> {
    let NodeReading { name, gauges, .. } = reading;
    let messages = messages(gauges.unstored);
    let says = || format!("{name} has {messages} that neither the database nor its disk accepts");
    (gauges.unstored > 0.0).then(says).into_iter().collect()
}

/// The database is unavailable, so the messages went to the disk first.
fn refuses_messages(seen: &Seen) -> Vec<String> {
    if seen.reading.holds("store") { Vec::new() } else { seen.says("refuses messages for offline users") }
}

fn lane_hangs(reading: &NodeReading, _: &Trend) -> Vec<String> {
    let NodeReading { name, busiest_lane: lane, gauges, .. } = reading;
    let busy = gauges.lane_busy_seconds;
    // A batch takes milliseconds.
    (busy > LANE_HANGS_SECONDS)
        .then(|| format!("{name}: a batch in {lane} takes {busy:.0} seconds"))
        .into_iter()
        .collect()
}

fn few_descriptors(reading: &NodeReading, trend: &Trend) -> Vec<String> {
    let NodeReading { name, descriptors: (open, max), .. } = reading;
    let is_refusing = trend.sum(Series::Descriptors, minutes(5)) > 0.0;
    let says = || format!("{name} has few descriptors left: {open} of {max} are open");
    (is_refusing || *open > DESCRIPTORS_SHARE * max).then(says).into_iter().collect()
}

fn ended_certificates(reading: &NodeReading, _: &Trend) -> Vec<String> {
    let says = |(file, left): &(String, f64)| {
        let when = if *left > 0.0 { "ends within a day" } else { "has ended" };
        format!("{}: {file} {when}", reading.name)
    };
    reading.certificates.iter().filter(|(_, left)| *left < DAY).map(says).collect()
}

fn ending_certificates(seen: &Seen) -> Vec<String> {
    let says = |(file, left)| format!("{}: {file} ends in {:.1} days", seen.reading.name, left / DAY);
    seen.reading.ending_certificates().map(says).collect()
}

fn on_disk(seen: &Seen) -> Vec<String> {
    let messages = messages(seen.reading.gauges.spool_messages);
    seen.says(&format!("has {messages} on its disk, though the database is back"))
}

fn exhausted(seen: &Seen) -> Vec<String> {
    vec![format!("{}: all connections of the pool {} are in use", seen.reading.name, seen.label)]
}

fn overload(seen: &Seen) -> Vec<String> {
    let Seen { label, count, .. } = seen;
    seen.says(&format!("refuses {:.0} requests a second because of {label}", count / FIVE_MINUTES.as_secs_f64()))
}

fn slow_consumers(seen: &Seen) -> Vec<String> {
    seen.says(&format!("has closed {} connections whose clients do not read", seen.count))
}

fn bus_loses(seen: &Seen) -> Vec<String> {
    vec![format!("{}: other servers do not confirm its messages", seen.reading.name)]
}

fn guesses(seen: &Seen) -> Vec<String> {
    vec![format!("{}: {} failed logins within five minutes", seen.reading.name, seen.count)]
}

fn guessed_keys(seen: &Seen) -> Vec<String> {
    seen.says(&format!("got {} requests with a wrong admin key within an hour", seen.count))
}

impl Seen<'_> {
    fn says(&self, what: &str) -> Vec<String> {
        vec![format!("{} {what}", self.reading.name)]
    }
}

fn messages(count: f64) -> String {
    if count == 1.0 { "1 message".to_owned() } else { format!("{count} messages") }
}

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// A batch that takes longer hangs.
pub(super) const LANE_HANGS_SECONDS: f64 = 5.0;
/// More open descriptors than this share are too many.
pub(super) const DESCRIPTORS_SHARE: f64 = 0.8;
pub(super) const PAGE: &str = "page";
pub(super) const TICKET: &str = "ticket";
const AT_ONCE: Duration = Duration::ZERO;
const FIVE_MINUTES: Duration = minutes(5);

/// The rules, in the order in which they are shown.
pub(super) static RULES: [Rule; 25] = [
    Rule::new("ServerDown", PAGE, minutes(1), Judge::OfCluster).action(
        "The process has ended or hangs, or its machine is down. Clients connect to the other servers. Look at the server's log. After an upgrade that changes tables, the first start may take minutes.",
    ),
    Rule::page("NotReady", minutes(1), not_ready).action(
        "Ask /readyz of the server for the reason. loops: an event loop stands still, so restart the server. store: the database accepts no writes. spool: the disk of the spool accepts no writes. bus: Redis does not deliver. recorder: a commit hangs.",
    ),
    Rule::page("MessagesOnlyInMemory", minutes(1), only_in_memory)
        .action("Mend the database or make room on the disk before the server stops. Otherwise these messages are lost."),
    Rule::new(
        "MessagesFail",
        PAGE,
        AT_ONCE,
        Judge::Events(Events::of(&[(Series::Failed, "")], minutes(5), 0.0, refuses_messages)),
    )
    .action("The database is unavailable, and the spool has no more room (spool_max, or its disk is full). Mend the database, or make room."),
    Rule::page("LaneHangs", Duration::from_secs(30), lane_hangs).action(
        "The database (lane, recorder) or Redis (lane-out) hangs. lane_max bounds the messages that wait behind this batch. Beyond that, senders get 503.",
    ),
    Rule::page("DescriptorsShort", AT_ONCE, few_descriptors)
        .action("Raise LimitNOFILE (systemd), ulimits (compose) or ulimit -n, or add a server."),
    Rule::page("CertificateEnded", minutes(5), ended_certificates)
        .action("Clients refuse to connect once it has ended. Renew the certificate, and send the server SIGHUP."),
    Rule::state("Drained", minutes(60), &[(Series::Drained, "")], |seen| seen.says("has been drained for an hour"))
        .action("Load balancers send the server no clients. `server admin undrain` ends that."),
    Rule::events(
        "MessagesRefused",
        minutes(5),
        Events::of(&[(Series::Failed, "")], minutes(5), 0.0, |seen| {
            seen.says("keeps refusing messages for offline users")
        }),
    )
    .action("A sender has filled its share of lane_max, or the database refuses messages: see the log."),
    Rule::events(
        "SendsRefused",
        minutes(5),
        Events::of(&[(Series::SendsRefused, "")], minutes(5), 0.0, |seen| {
            seen.says("keeps answering 503 to sends of level 2")
        }),
    )
    .action("The database is unavailable or does not keep up, or a sender has filled its share of lane_max. The clients send again."),
    Rule::state("SpoolNotEmpty", minutes(10), &[(Series::SpoolWaits, "")], on_disk)
        .action("The log says why these messages are not drained. The next start tries them again."),
    Rule::events(
        "MessagesSetAside",
        AT_ONCE,
        Events::of(&[(Series::SetAside, "")], minutes(60), 0.0, |seen| {
            seen.says("has set messages aside that the database refuses")
        }),
    )
    .action("These messages stay in spool.db, and the next start tries them again. The log names the error."),
    Rule::events(
        "BusLosesMessages",
        AT_ONCE,
        Events::of(&[(Series::Unconfirmed, "")], minutes(10), 10.0, bus_loses),
    )
    .action("These messages are stored, and delivered at the next login. Another server hangs, or Redis loses messages."),
    Rule::state("PoolExhausted", minutes(2), &[(Series::NoMysql, "mysql"), (Series::NoRedis, "redis")], exhausted)
        .action("The database is slow, or the pool is too small: maxSize in mysql.cnf, size in redis.cnf."),
    Rule::events("Overload", minutes(5), Events::of(&OVERLOAD, FIVE_MINUTES, 300.0, overload)).action(
        "logins_max: raise hashers, if there are cores. requests_max, lane_max: the database does not keep up, or a single client needs more than its share. memory_max: raise it, or add a server.",
    ),
    Rule::new("LoopSaturated", TICKET, minutes(5), Judge::BusyLoop { within: minutes(5), more_than: 0.9 })
        .action("Raise loops, if there are cores, or add a server."),
    Rule::events(
        "SlowConsumers",
        AT_ONCE,
        Events::of(&[(Series::SlowClosed, "")], minutes(15), 20.0, slow_consumers)
            .and(0.01, |reading, _| reading.gauges.connections),
    )
    .action("Clients hang, the network is bad, or output_max is too small for their bursts."),
    Rule::events(
        "PasswordGuessing",
        AT_ONCE,
        Events::of(&[(Series::WrongLogins, "")], minutes(5), 100.0, guesses)
            .and(0.05, |_, trend| trend.sum(Series::AllLogins, minutes(5))),
    )
    .action("The audit trail in the log names the addresses."),
    Rule::events("AdminKeyGuessed", AT_ONCE, Events::of(&[(Series::AdminKeys, "")], minutes(60), 20.0, guessed_keys))
        .action("The audit trail in the log names the addresses. If nobody has mistyped the key, block these addresses from the admin port."),
    Rule::state("CertificateEnds", minutes(5), &[(Series::CertificateEnds, "")], ending_certificates)
        .action("The renewal does not work, or it writes other files than those that tls_cert and tls_key name."),
    Rule::events(
        "LogLinesLost",
        AT_ONCE,
        Events::of(&[(Series::LogLines, "")], minutes(15), 0.0, |seen| seen.says("has dropped lines of its log")),
    )
    .action("The disk of the log is full or slow. Lower log_level, or make room."),
    Rule::events(
        "SweepsFail",
        minutes(5),
        Events::of(&[(Series::SweepsFailed, "")], minutes(2), 3.0, |seen| {
            seen.says("cannot look for messages of which it was not notified")
        }),
    )
    .action("The database refuses the server's reads; the log names the error. Until that is mended, a device gets messages that Redis has lost only at its next login."),
    Rule::events(
        "HookFails",
        minutes(5),
        Events::of(&[(Series::HookFailed, "")], minutes(15), 2.0, |seen| {
            seen.says("cannot post messages to its hook")
        }),
    )
    .action("The log names the reason. At most hook_waiting messages wait, for 3 days at most. They are posted when the web server answers 2xx."),
    Rule::new("VersionsDiffer", TICKET, minutes(60), Judge::OfCluster).action("An upgrade is not finished."),
    Rule::new("NoStatusPage", TICKET, AT_ONCE, Judge::OfCluster).action(
        "The server has an older version and its upgrade is not finished, or admin_nodes names the port of another program.",
    ),
];

static OVERLOAD: [Of; 4] = [
    (Series::LoginsMax, "logins_max"),
    (Series::RequestsMax, "requests_max"),
    (Series::LaneMax, "lane_max"),
    (Series::MemoryMax, "memory_max"),
];
