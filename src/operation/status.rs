//! [`Board`]: the content of the status page at `/` of the admin port: this node and the other
//! nodes, problems in words, and the last hour.
//!
//! One thread, `status`, takes a [`TrendPoint`](trend) every ten seconds and queries the other
//! nodes ([`nodes`]). It reads only numbers that exist anyway, so messages cost the same with and
//! without the page. The page's memory has a fixed size: the [trend], and the last answer of each
//! other node.

mod findings;
mod nodes;
mod picture;
mod process;
mod reading;
mod rules;
mod series;
mod trend;

use std::fmt;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use self::nodes::{Miss, OtherNode};
use self::picture::{NodePicture, OwnPicture, ReadinessCondition, SeriesPicture, TrendPicture, WholePicture};
use self::process::{ProcessFiles, descriptors};
use self::reading::{NodeReading, Totals};
use self::series::{ROWS, Series, SeriesRow, sample, shares, totals};
use self::trend::{EVERY, SAMPLES, Trend};
use crate::config::AdminNodes;
use crate::metrics::Metrics;
use crate::operation::health::Health;

/// The content of the page. Any thread may call it; nothing here waits for a database or another
/// node.
pub struct Board {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    process: ProcessFiles,
    /// A random text by which this node recognises itself among others.
    instance: String,
    started: Instant,
    state: Mutex<BoardState>,
}

/// The numbers and answers that the page remembers.
struct BoardState {
    trend: Trend,
    /// Open descriptors and their limit when the last sample was taken.
    descriptors: (f64, f64),
    others: Vec<OtherNode>,
    /// The time since which nodes of several versions run together.
    differ_since: Option<Instant>,
}

/// A file of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFile {
    /// The path, as in a request.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub text: &'static str,
}

/// The page.
pub static PAGE: [PageFile; 3] = [
    PageFile { path: "/", content_type: "text/html; charset=utf-8", text: include_str!("status/page/index.html") },
    PageFile {
        path: "/status.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("status/page/status.css"),
    },
    PageFile {
        path: "/status.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("status/page/status.js"),
    },
];

impl Board {
    /// Starts the thread, which runs until the process ends.
    ///
    /// # Errors
    ///
    /// The system has no threads or no random bytes left.
    pub fn start(metrics: Arc<Metrics>, health: Arc<Health>, nodes: &AdminNodes) -> io::Result<Arc<Board>> {
        let board = Arc::new(Board::new(metrics, health, nodes)?);
        let (run, nodes) = (board.clone(), nodes.0.clone());
        thread::Builder::new().name("status".to_owned()).spawn(move || run.run(&nodes))?;
        Ok(board)
    }

    fn new(metrics: Arc<Metrics>, health: Arc<Health>, nodes: &AdminNodes) -> io::Result<Board> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let instance = random.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let others = nodes.0.iter().copied().map(OtherNode::new).collect();
        let state = BoardState { trend: Trend::new(), descriptors: descriptors(), others, differ_since: None };
        let (process, started, state) = (ProcessFiles::open(), Instant::now(), Mutex::new(state));
        Ok(Board { metrics, health, process, instance, started, state })
    }

    fn run(&self, nodes: &[SocketAddr]) {
        let mut before = self.read().totals;
        self.ask(nodes);
        // Nodes that are started together do not answer yet when the first of them asks.
        self.wait_until(ASK_AGAIN);
        self.ask(nodes);
        for next in (1..).map(|nth| EVERY * nth) {
            self.wait_until(next);
            // Several samples are due after the process stood still, and only the last one has
            // news.
            if self.started.elapsed() < next + EVERY {
                before = self.sample(&before);
                self.ask(nodes);
            }
        }
    }

    /// Waits until this time since the start.
    fn wait_until(&self, time: Duration) {
        while let Some(left) = (self.started + time).checked_duration_since(Instant::now()) {
            thread::park_timeout(left.max(Duration::from_millis(1)));
        }
    }

    fn sample(&self, before: &Totals) -> Totals {
        let reading = NodeReading { descriptors: descriptors(), ..self.read() };
        let (sample, shares) = (sample(before, &reading), shares(before, &reading.totals));
        let mut state = self.state.lock();
        state.descriptors = reading.descriptors;
        state.trend.add(reading.totals.at, sample, shares);
        reading.totals
    }

    fn ask(&self, nodes: &[SocketAddr]) {
        let answers = nodes::ask_all(nodes);
        self.note(answers, Instant::now());
    }

    /// Notes the answers of the other nodes.
    fn note(&self, answers: Vec<Result<NodePicture, Miss>>, now: Instant) {
        let own = self.own_node();
        let mut state = self.state.lock();
        for (other, answer) in state.others.iter_mut().zip(answers) {
            other.note(answer, now);
        }
        let differ = findings::versions(&nodes::rows(own, &state.others, now)).len() > 1;
        state.differ_since = if differ { state.differ_since.or(Some(now)) } else { None };
    }

    fn read(&self) -> NodeReading {
        let totals = totals(&self.metrics, self.started.elapsed());
        NodeReading::take(&self.metrics, &self.health, &self.process, totals)
    }

    /// This node alone, as JSON.
    pub fn own(&self) -> String {
        json(&OwnPicture { node: self.own_node() })
    }

    fn own_node(&self) -> NodePicture {
        let reading = self.read();
        self.node(reading, &self.state.lock())
    }

    /// The whole content of the page, as JSON.
    pub fn whole(&self) -> String {
        let (reading, now) = (self.read(), Instant::now());
        let state = self.state.lock();
        let own = self.node(reading, &state);
        let nodes = nodes::rows(own, &state.others, now);
        let of = |row: &SeriesRow| {
            let plot = row.plot.as_ref()?;
            let values = state.trend.of(row.series).collect();
            Some(SeriesPicture { name: plot.name, title: plot.title, unit: plot.unit, fault: plot.is_fault, values })
        };
        let series = ROWS.iter().filter_map(of).collect();
        let trend = TrendPicture { every_seconds: EVERY.as_secs(), samples: SAMPLES, series };
        let differ = state.differ_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        drop(state);
        json(&WholePicture { findings: findings::of_cluster(&nodes, differ), nodes, trend })
    }

    fn node(&self, reading: NodeReading, state: &BoardState) -> NodePicture {
        let (reading, trend) = (NodeReading { descriptors: state.descriptors, ..reading }, &state.trend);
        let findings = findings::of_node(&reading, trend);
        let condition = |(name, trouble): (&str, Option<String>)| ReadinessCondition { name: name.to_owned(), trouble };
        NodePicture {
            findings,
            name: reading.name,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            ready: reading.conditions.iter().all(|(_, trouble)| trouble.is_none()),
            conditions: reading.conditions.into_iter().map(condition).collect(),
            uptime_seconds: self.started.elapsed().as_secs_f64().round(),
            messages_per_second: trend.last(Series::Messages),
            logins_per_second: trend.last(Series::Logins),
            cpu: trend.last(Series::Cpu),
            gauges: reading.gauges,
        }
    }
}

/// The time of the second query to the other nodes, after the start.
const ASK_AGAIN: Duration = Duration::from_secs(2);

fn json(picture: &impl Serialize) -> String {
    serde_json::to_string(picture).unwrap_or_else(|error| {
        log::error!("the status cannot be written as JSON: {error}");
        "{}".to_owned()
    })
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("instance", &self.instance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn board() -> Board {
        let (metrics, health) = (Arc::new(Metrics::new(1)), Arc::new(Health::new(Arc::new([]), None)));
        metrics.name_node("north".to_owned());
        metrics.watch_users(|| 7);
        Board::new(metrics, health, &AdminNodes::default()).expect("random bytes")
    }

    #[test]
    fn it_shows_the_present_and_the_past() {
        let board = board();
        let mut before = board.read().totals;
        for _ in 0..3 {
            before = board.sample(&before);
        }
        let whole: Value = serde_json::from_str(&board.whole()).expect("JSON");
        let node = &whole["nodes"][0]["node"];
        assert_eq!((&node["name"], &node["users"], &node["ready"]), (&"north".into(), &7.0.into(), &false.into()));
        assert_eq!(whole["findings"][0]["what"], "north: store is not ready: not checked yet");
        assert_eq!(whole["findings"], node["findings"], "there is no other node");
        assert_eq!(whole["trend"]["series"][0]["values"], serde_json::json!([7.0, 7.0, 7.0]));
        let first = &whole["trend"]["series"][0];
        assert_eq!(
            (&first["name"], &first["title"], &first["fault"]),
            (&"users".into(), &"Users online".into(), &false.into())
        );
        assert_eq!(whole["trend"]["series"].as_array().map(Vec::len), Some(14));
        let own: Value = serde_json::from_str(&board.own()).expect("JSON");
        assert_eq!(own["node"]["instance"], node["instance"]);
        assert_eq!(own.as_object().map(serde_json::Map::len), Some(1), "without those beside it, and the hour");
        assert!(board.own().len() < 8 * 1024, "other nodes read 64 KiB");
    }

    #[test]
    fn the_hour_has_a_fixed_size_in_the_answer_too() {
        let board = board();
        for n in 0..2 * SAMPLES as u32 {
            board.state.lock().trend.add(EVERY * n, [1234.567; _], Vec::new());
        }
        assert!(board.whole().len() < 64 * 1024, "{}", board.whole().len());
    }

    #[test]
    fn versions_differ_for_as_long_as_they_do() {
        let (metrics, health) = (Arc::new(Metrics::new(1)), Arc::new(Health::new(Arc::new([]), None)));
        let other = SocketAddr::from(([10, 0, 0, 2], 9600));
        let board = Board::new(metrics, health, &AdminNodes([other].into())).expect("random bytes");
        let answers = |version: &str| {
            let node = NodePicture { instance: "b".into(), version: version.into(), ..NodePicture::default() };
            board.note(vec![Ok(node)], Instant::now());
            board.state.lock().differ_since
        };
        let since = answers("0.0.1");
        assert!(since.is_some());
        assert_eq!(answers("0.0.2"), since, "it goes on");
        assert!(!board.whole().contains("VersionsDiffer"), "an upgrade takes time");
        board.state.lock().differ_since = Instant::now().checked_sub(Duration::from_secs(3600));
        assert!(board.whole().contains("VersionsDiffer"));
        assert_eq!(answers(env!("CARGO_PKG_VERSION")), None, "it is done");
        assert!(!board.whole().contains("VersionsDiffer"));
    }
}
