//! [`Metrics`]: counters and values of the server for Prometheus. Admission, routing and the server
//! count, and the admin port reads.
//!
//! There are two kinds of numbers. *Events* are counted by the code that causes them
//! ([`Metrics::stored`], [`LoopTally::frame`]). *Values*, such as the length of a queue, are read
//! when the metrics are read: parts of the server register closures for that
//! ([`Metrics::watch_queue`]), which must not block. `docs/metrics.md` explains every number.
//!
//! Counting costs a message almost nothing: a loop counts in its own plain numbers, and counters
//! that all threads use are split by thread. Labels are looked up only when the metrics are read.

mod counters;
mod events;
mod families;
mod figures;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use net::{CloseReason, Handshakes, LoopWatch, TURN_BOUNDS, Tls, TurnTimes};
use pool::LanesWatch;

use crate::base::loads::{PoolUse, SpoolLoad};
use counters::{Batches, Count, Sharded};
use events::HTTP_STATUSES;
pub use events::{
    BatchStage, HistoryRead, Hit, HookEvent, HookRequest, ImportEvent, LoginOutcome, RecordedEvent, RetentionEvent,
    SpoolMove, SweepEvent,
};
use families::{Families, Sample};
pub use figures::Figures;
pub use tally::LoopTally;

/// The numbers of one server. Any thread may count and read.
#[derive(Debug)]
pub struct Metrics {
    families: Families,
    loops: Box<[Arc<LoopTally>]>,
    counts: Arc<Counts>,
}

/// Counters that all threads share.
#[derive(Debug, Default)]
struct Counts {
    local: Sharded,
    confirmed: Count,
    stored: Count,
    failed: Count,
    unknown: Count,
    left_out: Count,
    no_frame: Count,
    returned: Count,
    published: Count,
    unconfirmed: Count,
    slow_consumers: Count,
    accounts_compared: Count,
    logged_out: Count,
    logins: [Count; LoginOutcome::NAMES.len()],
    refused: [Count; Hit::COUNT],
    http_answers: [Count; HTTP_STATUSES.len()],
    batches: [Batches; BatchStage::NAMES.len()],
    spool: [Count; SpoolMove::NAMES.len()],
    recorded: [Count; RecordedEvent::NAMES.len()],
    history_reads: [Count; HistoryRead::NAMES.len()],
    sweeps: [Count; SweepEvent::NAMES.len()],
    imports: [Count; ImportEvent::NAMES.len()],
    retention: [Count; RetentionEvent::NAMES.len()],
    hooked: [Count; HookEvent::NAMES.len()],
    hook_requests: [Count; HookRequest::NAMES.len()],
    /// Gauges: the messages in the queue of the hook, and the age of the oldest one, ms.
    hook_waiting: AtomicU64,
    hook_age: AtomicU64,
    /// A gauge.
    unstored: Count,
}

impl Metrics {
    /// The metrics of a server with this number of event loops; all counters are zero.
    pub fn new(loops: usize) -> Metrics {
        let loops: Box<[_]> = (0..loops).map(|_| Arc::new(LoopTally::new())).collect();
        let metrics = Metrics { families: Families::new(), loops, counts: Arc::default() };
        metrics.show_counts();
        tally::show(&metrics.loops, &metrics.families);
        metrics
    }

    /// All current numbers, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.families.render()
    }

    /// The current numbers of the family with this name.
    ///
    /// # Panics
    ///
    /// If there is no such family.
    pub fn figures(&self, family: &str) -> Figures {
        Figures::new(self.families.samples(family))
    }

    /// The counters of the nth event loop.
    ///
    /// # Panics
    ///
    /// If there is no such loop.
    pub fn of_loop(&self, nth: usize) -> Arc<LoopTally> {
        self.loops[nth].clone()
    }
}

/// Events.
impl Metrics {
    /// `n` messages were written to connections of this node.
    pub fn delivered_locally(&self, n: usize) {
        self.counts.local.add(n);
    }

    /// A request of HTTP got an answer with this status; 101 is the beginning of a WebSocket.
    pub fn http_answer(&self, status: u16) {
        if let Some(at) = HTTP_STATUSES.iter().position(|known| *known == status) {
            self.counts.http_answers[at].add(1);
        }
    }

    /// `n` messages were offered to other nodes.
    pub fn published(&self, n: usize) {
        self.counts.published.add(n);
    }

    /// Other nodes have confirmed `n` messages.
    pub fn confirmed(&self, n: usize) {
        self.counts.confirmed.add(n);
    }

    /// `n` messages were offered to other nodes, and not confirmed in time.
    pub fn unconfirmed(&self, n: usize) {
        self.counts.unconfirmed.add(n);
    }

    /// The store has committed `n` messages.
    pub fn stored(&self, n: usize) {
        self.counts.stored.add(n);
    }

    /// `n` messages could neither be delivered nor stored; their senders get an error.
    pub fn failed(&self, n: usize) {
        self.counts.failed.add(n);
    }

    /// `n` messages were for ids that no user has.
    pub fn unknown_recipients(&self, n: usize) {
        self.counts.unknown.add(n);
    }

    /// `n` messages to groups were not stored for a member whose mailbox has no room.
    pub fn left_out(&self, n: usize) {
        self.counts.left_out.add(n);
    }

    /// Another program has published something for a user that is not a frame, and it was dropped.
    pub fn no_frame(&self) {
        self.counts.no_frame.add(1);
    }

    /// The number of messages for ids that no user has.
    pub fn unknown_recipients_so_far(&self) -> u64 {
        self.counts.unknown.value()
    }

    /// Connections ended before they took `n` messages, which are delivered again.
    pub fn returned(&self, n: usize) {
        self.counts.returned.add(n);
    }

    /// The rows of connected users were compared with those at the login.
    pub fn accounts_compared(&self, users: usize) {
        self.counts.accounts_compared.add(users);
    }

    /// Connections were logged out because their account was changed or deleted.
    pub fn logged_out(&self, connections: usize) {
        self.counts.logged_out.add(connections);
    }

    /// A connection is closed because it did not take its messages.
    pub fn slow_consumer(&self) {
        self.counts.slow_consumers.add(1);
    }

    /// A login was answered.
    pub fn login(&self, login: LoginOutcome) {
        self.counts.logins[login as usize].add(1);
    }

    /// An event of `n` messages in the spool.
    pub fn spool(&self, what: SpoolMove, n: usize) {
        self.counts.spool[what as usize].add(n);
    }

    /// An event of `n` messages that are to be recorded.
    pub fn recorded(&self, what: RecordedEvent, n: usize) {
        self.counts.recorded[what as usize].add(n);
    }

    /// Conversations were read in this way.
    pub fn history_read(&self, what: HistoryRead) {
        self.counts.history_reads[what as usize].add(1);
    }

    /// `n` events of a sweep.
    pub fn sweep(&self, what: SweepEvent, n: usize) {
        self.counts.sweeps[what as usize].add(n);
    }

    /// An event of `n` messages that waited in a mailbox.
    pub fn imported(&self, what: ImportEvent, n: usize) {
        self.counts.imports[what as usize].add(n);
    }

    /// An event of `n` old messages.
    pub fn retention(&self, what: RetentionEvent, n: u64) {
        self.counts.retention[what as usize].add(usize::try_from(n).unwrap_or(usize::MAX));
    }

    /// The fate of `n` messages in the queue of the hook.
    pub fn hooked(&self, what: HookEvent, n: usize) {
        self.counts.hooked[what as usize].add(n);
    }

    /// A request to the hook is done.
    pub fn hook_request(&self, outcome: HookRequest) {
        self.counts.hook_requests[outcome as usize].add(1);
    }

    /// The messages in the queue of the hook, if this node posts them, and the age of the oldest
    /// one.
    pub fn hook_queue(&self, waiting: u64, age: Duration) {
        self.counts.hook_waiting.store(waiting, Relaxed);
        self.counts.hook_age.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Replaces one caller's part of a gauge: `now` messages that came back from connections are
    /// only in memory, `before` at its last call.
    pub fn unstored(&self, now: usize, before: usize) {
        self.counts.unstored.change(before, now);
    }

    /// The number of messages that came back from connections and are only in memory.
    pub fn unstored_now(&self) -> usize {
        usize::try_from(self.counts.unstored.value()).unwrap_or_default()
    }

    /// A limit was exceeded.
    pub fn refused(&self, hit: Hit) {
        self.counts.refused[hit as usize].add(1);
    }

    /// A batch of `items` messages was taken.
    pub fn batch(&self, stage: BatchStage, items: usize) {
        self.counts.batches[stage as usize].add(items);
    }
}

/// Values that are read when the metrics are read. Each is registered once per name.
impl Metrics {
    /// The event loops, in the order of their names.
    pub fn watch_loops<M: Send + 'static>(&self, loops: Arc<[LoopWatch<M>]>) {
        let families = &self.families;
        let reasons = loops.clone();
        families.add("raybox_connections_closed_total", move || {
            let sum = |reason| reasons.iter().map(|watch| watch.stats().closed(reason)).sum();
            CloseReason::ALL.map(|reason| Sample::number(sum(reason)).of(reason_name(reason))).into()
        });
        let each = move |look: fn(&LoopWatch<M>) -> Sample| {
            let loops = loops.clone();
            move || loops.iter().enumerate().map(|(nth, watch)| look(watch).of(nth.to_string())).collect()
        };
        families.add("raybox_connections_open", each(|watch| Sample::number(watch.stats().open())));
        families.add("raybox_connections_accepted_total", each(|watch| Sample::number(watch.stats().accepted())));
        families.add("raybox_loop_letters", each(|watch| Sample::number(watch.letters() as u64)));
        families.add("raybox_loop_turn_seconds", each(|watch| turn_times(&watch.stats().turn_times())));
    }

    /// A queue of jobs.
    pub fn watch_queue(&self, name: &'static str, waiting: impl Fn() -> usize + Send + Sync + 'static) {
        let look = move || vec![Sample::number(waiting() as u64).of(name)];
        self.families.add("raybox_queue_jobs", look);
    }

    /// Lanes, by the name of their threads without its number.
    pub fn watch_lanes<T: Send + 'static>(&self, name: &'static str, lanes: LanesWatch<T>) {
        let lanes = Arc::new(lanes);
        let each = |look: fn(pool::LaneLoad) -> usize| {
            let lanes = lanes.clone();
            let sample = move |(nth, load)| Sample::number(look(load) as u64).of(format!("{name}-{nth}"));
            move || lanes.loads().into_iter().enumerate().map(sample).collect()
        };
        self.families.add("raybox_lane_items", each(|load| load.items));
        self.families.add("raybox_lane_bytes", each(|load| load.bytes));
        let sample = move |(nth, busy)| Sample::seconds(busy).of(format!("{name}-{nth}"));
        let busy = move || lanes.busy().into_iter().enumerate().map(sample).collect();
        self.families.add("raybox_lane_busy_seconds", busy);
    }

    /// The connections of level 2.
    pub fn watch_devices(&self, online: impl Fn() -> usize + Send + Sync + 'static) {
        self.families.add("raybox_level2_devices", move || vec![Sample::number(online() as u64)]);
    }

    /// The users who are online here.
    pub fn watch_users(&self, online: impl Fn() -> usize + Send + Sync + 'static) {
        self.families.add("raybox_users_online", move || vec![Sample::number(online() as u64)]);
    }

    /// A pool of connections, for example to a database.
    pub fn watch_pool(&self, name: &'static str, look: impl Fn() -> PoolUse + Send + Sync + 'static) {
        let look = Arc::new(look);
        let each = move |part: fn(PoolUse) -> usize| {
            let look = look.clone();
            move || vec![Sample::number(part(look()) as u64).of(name)]
        };
        self.families.add("raybox_pool_connections", each(|pool| pool.open as usize));
        self.families.add("raybox_pool_connections_idle", each(|pool| pool.idle as usize));
        self.families.add("raybox_pool_connections_max", each(|pool| pool.max as usize));
    }

    /// The name of this node.
    pub fn name_node(&self, name: String) {
        self.families.add("raybox_node_info", move || vec![Sample::number(1).of(name.clone())]);
    }

    /// The number of dropped log lines.
    pub fn watch_log(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        self.families.add("raybox_log_lines_dropped_total", move || vec![Sample::number(dropped())]);
    }

    /// The fill level of the spool.
    pub fn watch_spool(&self, load: impl Fn() -> SpoolLoad + Send + Sync + 'static) {
        let load = Arc::new(load);
        let messages = load.clone();
        self.families.add("raybox_spool_messages", move || vec![Sample::number(messages().messages as u64)]);
        self.families.add("raybox_spool_bytes", move || vec![Sample::number(load().bytes as u64)]);
    }

    /// The readiness of the node: each condition, and whether it holds.
    pub fn watch_readiness(&self, look: impl Fn() -> Vec<(&'static str, bool)> + Send + Sync + 'static) {
        let sample = |(condition, holds)| Sample::number(u64::from(holds)).of(condition);
        self.families.add("raybox_ready", move || look().into_iter().map(sample).collect());
    }

    /// Shows the handshakes of this TLS, and the times that `left` returns, each for the file of a
    /// certificate. `left` must not block.
    pub fn watch_tls(&self, tls: Arc<Tls>, left: impl Fn() -> Vec<(String, Duration)> + Send + Sync + 'static) {
        let of_open = tls.clone();
        self.families.add("raybox_tls_connections_open", move || vec![Sample::number(of_open.handshakes().open)]);
        self.families.add("raybox_tls_handshakes_total", move || {
            let Handshakes { finished, resumed, failed, .. } = tls.handshakes();
            let outcomes = [("whole", finished.saturating_sub(resumed)), ("resumed", resumed), ("failed", failed)];
            outcomes.into_iter().map(|(outcome, n)| Sample::number(n).of(outcome)).collect()
        });
        self.families.add("raybox_tls_certificate_expiry_seconds", move || {
            left().into_iter().map(|(file, left)| Sample::number(left.as_secs()).of(file)).collect()
        });
    }

    /// The time since this node's last probe came back, if it sends probes.
    pub fn watch_probe(&self, age: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
        let look = move || age().map(Sample::seconds).into_iter().collect();
        self.families.add("raybox_bus_probe_age_seconds", look);
    }
}

impl Metrics {
    fn show_counts(&self) {
        let show = |name, read: fn(&Counts) -> Vec<Sample>| {
            let counts = self.counts.clone();
            self.families.add(name, move || read(&counts));
        };
        show("raybox_deliveries_total", |counts| {
            let paths = [
                ("local", counts.local.value()),
                ("bus", counts.confirmed.value()),
                ("stored", counts.stored.value()),
                ("spooled", counts.spool[SpoolMove::Spooled as usize].value()),
                ("failed", counts.failed.value()),
                ("unknown", counts.unknown.value()),
                ("left_out", counts.left_out.value()),
                ("no_frame", counts.no_frame.value()),
            ];
            paths.into_iter().map(|(path, n)| Sample::number(n).of(path)).collect()
        });
        show("raybox_deliveries_returned_total", |counts| vec![counts.returned.sample()]);
        show("raybox_bus_published_total", |counts| vec![counts.published.sample()]);
        show("raybox_bus_unconfirmed_total", |counts| vec![counts.unconfirmed.sample()]);
        show("raybox_slow_consumers_total", |counts| vec![counts.slow_consumers.sample()]);
        show("raybox_unstored_messages", |counts| vec![counts.unstored.sample()]);
        show("raybox_accounts_compared_total", |counts| vec![counts.accounts_compared.sample()]);
        show("raybox_logged_out_total", |counts| vec![counts.logged_out.sample()]);
        show("raybox_spool_total", |counts| {
            SpoolMove::NAMES.iter().zip(&counts.spool).map(|(name, count)| count.sample().of(*name)).collect()
        });
        show("raybox_recorded_total", |counts| named(&RecordedEvent::NAMES, &counts.recorded));
        show("raybox_history_reads_total", |counts| named(&HistoryRead::NAMES, &counts.history_reads));
        show("raybox_sweeps_total", |counts| named(&SweepEvent::NAMES, &counts.sweeps));
        show("raybox_imported_total", |counts| named(&ImportEvent::NAMES, &counts.imports));
        show("raybox_retention_total", |counts| named(&RetentionEvent::NAMES, &counts.retention));
        show("raybox_hook_messages_total", |counts| named(&HookEvent::NAMES, &counts.hooked));
        show("raybox_hook_requests_total", |counts| named(&HookRequest::NAMES, &counts.hook_requests));
        show("raybox_hook_waiting_messages", |counts| vec![Sample::number(counts.hook_waiting.load(Relaxed))]);
        show("raybox_hook_oldest_seconds", |counts| {
            vec![Sample::seconds(Duration::from_millis(counts.hook_age.load(Relaxed)))]
        });
        show("raybox_logins_total", |counts| {
            LoginOutcome::NAMES.iter().zip(&counts.logins).map(|(name, count)| count.sample().of(*name)).collect()
        });
        show("raybox_refused_total", |counts| {
            Hit::KEYS.iter().zip(&counts.refused).map(|(key, count)| count.sample().of(*key)).collect()
        });
        show("raybox_http_answers_total", |counts| {
            let counted = HTTP_STATUSES.iter().zip(&counts.http_answers);
            counted.map(|(status, count)| count.sample().of(status.to_string())).collect()
        });
        show("raybox_batch_messages", |counts| {
            BatchStage::NAMES.iter().zip(&counts.batches).map(|(name, batches)| batches.sample().of(*name)).collect()
        });
        show("raybox_build_info", |_| vec![Sample::number(1).of(env!("CARGO_PKG_VERSION"))]);
    }
}

/// The counters of events that have names.
fn named(names: &[&'static str], counts: &[Count]) -> Vec<Sample> {
    names.iter().zip(counts).map(|(name, count)| count.sample().of(*name)).collect()
}

/// The word for the reason why a connection has ended.
pub fn reason_name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Ended => "ended",
        CloseReason::Broken => "broken",
        CloseReason::Oversize => "oversize",
        CloseReason::Idle => "idle",
        CloseReason::Stopped => "stopped",
        CloseReason::Foreign => "foreign",
        CloseReason::Answered => "answered",
        CloseReason::Violation => "violation",
        CloseReason::Excess => "excess",
        CloseReason::TurnedAway => "turned_away",
    }
}

fn turn_times(times: &TurnTimes) -> Sample {
    Sample::histogram(TURN_BOUNDS.iter().map(Duration::as_secs_f64), &times.turns, times.total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::counters::SHARDS;
    use super::*;
    use crate::protocol::{FrameKind, ReplyKind};

    /// Metrics with all values registered, except loops and lanes.
    fn everything() -> Metrics {
        let metrics = Metrics::new(1);
        metrics.watch_queue("worker", || 3);
        metrics.watch_users(|| 7);
        metrics.watch_pool("mysql", || PoolUse { open: 5, idle: 2, max: 9 });
        metrics.watch_log(|| 4);
        metrics.watch_readiness(|| vec![("store", true), ("bus", false)]);
        metrics.watch_probe(|| Some(Duration::from_millis(1500)));
        metrics
    }

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }

    /// The lines that `events_are_shown` expects.
    const EVENTS: [&str; 37] = [
        r#"raybox_deliveries_total{path="local"} 2"#,
        r#"raybox_deliveries_total{path="bus"} 3"#,
        r#"raybox_deliveries_total{path="stored"} 4"#,
        r#"raybox_deliveries_total{path="failed"} 5"#,
        r#"raybox_deliveries_total{path="unknown"} 6"#,
        r#"raybox_deliveries_total{path="left_out"} 10"#,
        r#"raybox_deliveries_total{path="no_frame"} 1"#,
        "raybox_deliveries_returned_total 7",
        "raybox_bus_published_total 8",
        "raybox_bus_unconfirmed_total 9",
        "raybox_slow_consumers_total 1",
        r#"raybox_logins_total{outcome="remembered"} 1"#,
        r#"raybox_logins_total{outcome="accepted"} 0"#,
        r#"raybox_refused_total{limit="requests_max"} 1"#,
        r#"raybox_refused_total{limit="max_connections"} 0"#,
        r#"raybox_frames_total{type="4"} 1"#,
        r#"raybox_frames_total{type="5"} 0"#,
        r#"raybox_replies_total{errno="403"} 1"#,
        r#"raybox_batch_messages_bucket{stage="store",le="4"} 1"#,
        r#"raybox_batch_messages_bucket{stage="store",le="16"} 3"#,
        r#"raybox_batch_messages_bucket{stage="store",le="4096"} 3"#,
        r#"raybox_batch_messages_bucket{stage="store",le="+Inf"} 4"#,
        r#"raybox_batch_messages_sum{stage="store"} 5022"#,
        r#"raybox_batch_messages_count{stage="publish"} 0"#,
        "raybox_level2_pushes_total 1",
        r#"raybox_level2_sends_total{outcome="409"} 1"#,
        r#"raybox_level2_sends_total{outcome="new"} 0"#,
        r#"raybox_recorded_total{what="committed"} 11"#,
        r#"raybox_history_reads_total{what="page"} 1"#,
        r#"raybox_sweeps_total{what="told"} 12"#,
        r#"raybox_imported_total{what="new"} 13"#,
        r#"raybox_retention_total{what="retired"} 14"#,
        "raybox_level2_devices 15",
        r#"raybox_hook_messages_total{what="expired"} 16"#,
        r#"raybox_hook_requests_total{outcome="failed"} 1"#,
        "raybox_hook_waiting_messages 17",
        "raybox_hook_oldest_seconds 1.5",
    ];

    #[test]
    fn events_are_shown() {
        let metrics = everything();
        metrics.delivered_locally(2);
        metrics.confirmed(3);
        metrics.stored(4);
        metrics.failed(5);
        metrics.unknown_recipients(6);
        metrics.returned(7);
        metrics.left_out(10);
        metrics.no_frame();
        metrics.published(8);
        metrics.unconfirmed(9);
        metrics.slow_consumer();
        metrics.login(LoginOutcome::Remembered);
        metrics.refused(Hit::RequestsMax);
        metrics.of_loop(0).frame(FrameKind::of(4));
        metrics.of_loop(0).reply(ReplyKind::of(crate::protocol::NOT_YOU));
        metrics.of_loop(0).written(r#"{"conv":"u9","from":9,"m":{},"msgType":42,"seq":1,"tag":"00000000","time":1}"#);
        metrics.of_loop(0).written(r#"{"cid":"c","errmsg":"no","errno":409,"msgType":41}"#);
        metrics.recorded(RecordedEvent::Committed, 11);
        metrics.history_read(HistoryRead::Page);
        metrics.sweep(SweepEvent::Told, 12);
        metrics.imported(ImportEvent::New, 13);
        metrics.retention(RetentionEvent::Retired, 14);
        metrics.watch_devices(|| 15);
        metrics.hooked(HookEvent::Expired, 16);
        metrics.hook_request(HookRequest::Failed);
        metrics.hook_queue(17, Duration::from_millis(1500));
        for size in [1, 5, 16, 5000] {
            metrics.batch(BatchStage::Store, size);
        }
        for line in EVENTS {
            has(&metrics, line);
        }
    }

    #[test]
    fn gauges_show_the_present_values() {
        let metrics = everything();
        metrics.watch_queue("hasher", || 8);
        for line in [
            r#"raybox_queue_jobs{queue="worker"} 3"#,
            r#"raybox_queue_jobs{queue="hasher"} 8"#,
            "raybox_users_online 7",
            r#"raybox_pool_connections{pool="mysql"} 5"#,
            r#"raybox_pool_connections_idle{pool="mysql"} 2"#,
            r#"raybox_pool_connections_max{pool="mysql"} 9"#,
            "raybox_log_lines_dropped_total 4",
            r#"raybox_ready{condition="store"} 1"#,
            r#"raybox_ready{condition="bus"} 0"#,
            "raybox_bus_probe_age_seconds 1.5",
        ] {
            has(&metrics, line);
        }
        let without = Metrics::new(1);
        without.watch_probe(|| None);
        assert!(!without.render().contains("raybox_bus_probe_age_seconds"), "no bus, no probe");
        assert_eq!(without.figures("raybox_bus_probe_age_seconds"), Figures::default());
        assert_eq!(metrics.figures("raybox_queue_jobs").total(), 11.0);
        assert_eq!(metrics.figures("raybox_ready").sum(&["store"]), 1.0);
    }

    #[test]
    fn many_threads_lose_nothing() {
        let metrics = Metrics::new(1);
        std::thread::scope(|scope| {
            for _ in 0..SHARDS + 4 {
                scope.spawn(|| (0..10_000).for_each(|_| metrics.delivered_locally(1)));
            }
        });
        has(&metrics, &format!("raybox_deliveries_total{{path=\"local\"}} {}", (SHARDS + 4) * 10_000));
    }
}
