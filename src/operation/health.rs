//! [`Health`]: whether this node is alive, and whether clients should be sent to it.
//!
//! Alive means that its event loops turn. Ready means that it is alive and not shutting down, that
//! its store and its spool, if it has one, accept writes, that the lanes that record messages make
//! progress, and that its bus answers. A query returns recent results and never waits for a
//! database; threads do the checks.
//!
//! | thread | task | may block |
//! |---|---|---|
//! | `health` | checks that every loop turns, and the bus | never |
//! | `store-check` | checks that the store accepts writes | for as long as the store does |
//! | `spool-check` | the same for the spool, if there is one | for as long as its disk does |

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use net::LoopWatch;
use parking_lot::Mutex;
use pool::LanesWatch;

use crate::bus::BusHealth;
use crate::delivery::Posted;
use crate::routing::recorder::RecorderItem;
use crate::store::spool::Spool;
use crate::store::{Database, StoreCallback, StoreError};

/// The known health of this node. Any thread may call it; nothing here blocks.
#[derive(Debug)]
pub struct Health {
    loops: Arc<[LoopWatch<Posted>]>,
    store: Mutex<CheckResult>,
    /// The check of the spool; `None` if there is no spool.
    spool: Mutex<Option<CheckResult>>,
    bus: Mutex<(CheckResult, Option<Duration>)>,
    /// The lanes of the recorder, if there are any.
    recorder: Option<LanesWatch<RecorderItem>>,
    draining: AtomicBool,
    /// Whether an administrator wants no new clients here.
    is_reserved: AtomicBool,
}

/// The result and the time of the last check; initially none.
#[derive(Clone, Debug)]
struct CheckResult {
    trouble: Option<String>,
    at: Instant,
}

/// The answer to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whether all checks succeeded.
    pub good: bool,
    /// One line for each check.
    pub text: String,
}

/// The threads that check. They end when this is closed.
#[derive(Debug)]
pub struct Checks {
    /// One channel for each thread. A message makes the thread check immediately; dropping the
    /// channel ends it.
    looks: Vec<Arc<Sender<()>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Health {
    /// A node without results except those of its loops: it is not ready.
    pub fn new(loops: Arc<[LoopWatch<Posted>]>, recorder: Option<LanesWatch<RecorderItem>>) -> Health {
        let unknown = CheckResult { trouble: Some(NOT_YET.to_owned()), at: Instant::now() };
        let bus = Mutex::new((unknown.clone(), None));
        let (store, spool) = (Mutex::new(unknown), Mutex::new(None));
        Health {
            loops,
            store,
            spool,
            bus,
            recorder,
            draining: AtomicBool::default(),
            is_reserved: AtomicBool::default(),
        }
    }

    /// Makes the node not ready, because it shuts down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node shuts down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Sets whether new clients should go to other nodes. Returns the previous value.
    pub fn reserve(&self, is_reserved: bool) -> bool {
        self.is_reserved.swap(is_reserved, Ordering::Relaxed)
    }

    /// Whether new clients should go to other nodes.
    pub fn is_reserved(&self) -> bool {
        self.is_reserved.load(Ordering::Relaxed)
    }

    /// Whether the event loops turn.
    pub fn alive(&self) -> Report {
        self.alive_within(LOOP_PATIENCE)
    }

    /// Whether the event loops turn within this time.
    pub(super) fn alive_within(&self, patience: Duration) -> Report {
        let now = Instant::now();
        let stuck = self.loops.iter().enumerate().filter_map(|(nth, watch)| {
            let silent = now.saturating_duration_since(watch.owes_since()?);
            (silent >= patience).then(|| format!("loop-{nth}: no sign of life for {:.1} s\n", silent.as_secs_f32()))
        });
        let text: String = stuck.collect();
        if text.is_empty() { Report { good: true, text: "ok\n".to_owned() } } else { Report { good: false, text } }
    }

    /// Whether clients should be sent here, with a line for each condition.
    pub fn ready(&self) -> Report {
        let mut report = Report { good: true, text: String::new() };
        for (condition, trouble) in self.conditions(LOOP_PATIENCE) {
            report.good &= trouble.is_none();
            let _ = writeln!(report.text, "{condition}: {}", trouble.as_deref().unwrap_or("ok"));
        }
        report
    }

    /// The conditions of readiness, each with its problem if it does not hold.
    pub(super) fn troubles(&self) -> Vec<(&'static str, Option<String>)> {
        self.conditions(LOOP_PATIENCE)
    }

    /// The conditions of readiness, and whether each holds.
    pub fn readiness(&self) -> Vec<(&'static str, bool)> {
        self.conditions(LOOP_PATIENCE).into_iter().map(|(condition, trouble)| (condition, trouble.is_none())).collect()
    }

    /// Time since this node's last probe came back; `None` if it sends no probes.
    pub fn probe_age(&self) -> Option<Duration> {
        let (finding, age) = &*self.bus.lock();
        age.map(|age| age + finding.at.elapsed())
    }

    fn conditions(&self, loop_patience: Duration) -> Vec<(&'static str, Option<String>)> {
        let reserved = || self.is_reserved().then(|| "an administrator has drained this node".to_owned());
        let draining = self.is_draining().then(|| "the server stops".to_owned()).or_else(reserved);
        let now = Instant::now();
        let loops = self.alive_within(loop_patience);
        let mut conditions = vec![("loops", (!loops.good).then(|| one_line(&loops.text)))];
        conditions.push(("store", self.store.lock().trouble(now)));
        conditions.extend(self.spool.lock().as_ref().map(|finding| ("spool", finding.trouble(now))));
        conditions
            .extend(self.recorder.as_ref().map(|lanes| ("recorder", trouble_of(&lanes.busy(), RECORDER_PATIENCE))));
        conditions.extend([("bus", self.bus.lock().0.trouble(now)), ("running", draining)]);
        conditions
    }

    fn note_store(&self, trouble: Option<String>) {
        *self.store.lock() = CheckResult { trouble, at: Instant::now() };
    }

    fn note_spool(&self, trouble: Option<String>) {
        *self.spool.lock() = Some(CheckResult { trouble, at: Instant::now() });
    }

    /// Asks every loop for a sign of life; [`alive`](Health::alive) reports those that owe one.
    pub fn ask_loops(&self) {
        self.loops.iter().for_each(LoopWatch::ask);
    }

    fn look(&self, bus: &dyn BusHealth) {
        self.ask_loops();
        let trouble = (!bus.is_ready()).then(|| "messages to other nodes do not arrive".to_owned());
        *self.bus.lock() = (CheckResult { trouble, at: Instant::now() }, bus.probe_age());
    }
}

impl CheckResult {
    /// The problem, if there is one. A check that takes too long is a problem itself, whatever the
    /// previous one found.
    fn trouble(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.at);
        match &self.trouble {
            None if age > FINDING_AGE_MAX => Some(format!("no answer for {:.1} s", age.as_secs_f32())),
            trouble => trouble.clone(),
        }
    }
}

impl Checks {
    /// Starts the checks.
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub fn start(
        health: &Arc<Health>,
        store: Arc<dyn Database>,
        spool: Arc<dyn Spool>,
        bus: Arc<dyn BusHealth>,
    ) -> io::Result<Checks> {
        let (of_store, of_spool) = (store.clone(), spool.clone());
        let check_spool = spool.is_there().then_some(move || of_spool.check());
        let checks = Checks::start_with(health, move || of_store.check(), check_spool, bus)?;
        // In the order in which the threads were started.
        store.on_trouble(look_now(&checks.looks[0]));
        if spool.is_there() {
            spool.on_trouble(look_now(&checks.looks[1]));
        }
        Ok(checks)
    }

    fn start_with(
        health: &Arc<Health>,
        check: impl Fn() -> Result<(), StoreError> + Send + 'static,
        check_spool: Option<impl Fn() -> Result<(), StoreError> + Send + 'static>,
        bus: Arc<dyn BusHealth>,
    ) -> io::Result<Checks> {
        let mut checks = Checks { looks: Vec::new(), threads: Vec::new() };
        let (of_store, of_bus) = (health.clone(), health.clone());
        let look = move || of_store.note_store(check().err().map(|error| one_line(&error.to_string())));
        checks.add("store-check", look)?;
        if let Some(check) = check_spool {
            let of_spool = health.clone();
            of_spool.note_spool(Some(NOT_YET.to_owned()));
            // The error mentions the database, which is elsewhere; its source is about the disk.
            let cause = |error: StoreError| error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let look = move || of_spool.note_spool(check().err().map(|error| one_line(&cause(error))));
            checks.add("spool-check", look)?;
        }
        checks.add("health", move || of_bus.look(&*bus))?;
        Ok(checks)
    }

    fn add(&mut self, name: &str, look: impl Fn() + Send + 'static) -> io::Result<()> {
        let (now, asked) = crossbeam_channel::bounded(1);
        self.looks.push(Arc::new(now));
        let run = move || {
            loop {
                look();
                if asked.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Stops the checks, and releases the store and the bus. A check that is still running at `by`
    /// ends with the process.
    pub fn close(self, by: Instant) {
        let Checks { looks, threads } = self;
        drop(looks);
        for thread in threads {
            pool::join_until(thread, by);
        }
    }
}

/// Returns a function that makes a thread check immediately. It does not prevent the thread from
/// ending.
fn look_now(thread: &Arc<Sender<()>>) -> StoreCallback {
    let thread = Arc::downgrade(thread);
    Box::new(move || {
        if let Some(thread) = thread.upgrade() {
            // If there is no room, the thread is about to check.
            let _ = thread.try_send(());
        }
    })
}

/// The problem of lanes if one of them does not finish its batch.
fn trouble_of(busy: &[Duration], patience: Duration) -> Option<String> {
    let stuck = busy.iter().enumerate().find(|(_, busy)| **busy >= patience);
    stuck.map(|(nth, busy)| format!("recorder-{nth} has been at one batch for {:.1} s", busy.as_secs_f32()))
}

/// One line of a driver's text, which may have several.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

const NOT_YET: &str = "not checked yet";
/// The interval at which each thread checks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a good result is valid: `/readyz` returns 503 within five seconds if a database does
/// not respond at all.
const FINDING_AGE_MAX: Duration = Duration::from_secs(4);
/// How long a batch of messages may take until it is committed and passed on. Usually it takes
/// milliseconds.
const RECORDER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a loop may stand still. A turn takes milliseconds, a very long one a second.
pub(super) const LOOP_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) mod tests {
    use crossbeam_channel::Receiver;

    use super::*;
    use crate::base::loads::PoolUse;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn wait_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "in vain");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    type NoCheck = fn() -> Result<(), StoreError>;

    /// A bus that can be broken.
    struct Wire(AtomicBool);

    impl BusHealth for Wire {
        fn describe(&self) -> String {
            "a wire".into()
        }

        fn is_ready(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn probe_age(&self) -> Option<Duration> {
            Some(Duration::from_secs(70))
        }

        fn connections(&self) -> Option<PoolUse> {
            None
        }
    }

    #[test]
    fn the_last_words_of_store_and_bus_are_shown_until_they_say_something_else() {
        let health = Arc::new(health());
        let (wire, works) = (Arc::new(Wire(AtomicBool::new(true))), Arc::new(AtomicBool::new(true)));
        let of_store = works.clone();
        let check = move || match of_store.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(StoreError::Unavailable("gone\nfor good".into())),
        };
        assert_eq!(health.probe_age(), None);
        let checks = Checks::start_with(&health, check, None::<NoCheck>, wire.clone()).expect("threads");
        wait_until(|| health.ready().good);
        assert!(health.probe_age().is_some_and(|age| age >= Duration::from_secs(70)));
        works.store(false, Ordering::Relaxed);
        wait_until(|| !health.ready().good);
        let text = health.ready().text;
        assert_eq!(text, "loops: ok\nstore: the database is not available: gone for good\nbus: ok\nrunning: ok\n");
        works.store(true, Ordering::Relaxed);
        wait_until(|| health.ready().good);
        wire.0.store(false, Ordering::Relaxed);
        wait_until(|| !health.ready().good);
        assert_eq!(health.readiness(), [("loops", true), ("store", true), ("bus", false), ("running", true)]);
        wire.0.store(true, Ordering::Relaxed);
        wait_until(|| health.ready().good);
        checks.close(Instant::now() + PATIENCE);
        assert_eq!((Arc::strong_count(&wire), Arc::strong_count(&works)), (1, 1), "nobody holds them any more");
    }

    #[test]
    fn a_spool_that_keeps_nothing_is_reported_where_there_is_one() {
        let health = Arc::new(health());
        let works = Arc::new(AtomicBool::new(false));
        let of_spool = works.clone();
        let check_spool = move || match of_spool.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(StoreError::Unavailable("disk full".into())),
        };
        let wire = Arc::new(Wire(AtomicBool::new(true)));
        let checks = Checks::start_with(&health, || Ok(()), Some(check_spool), wire).expect("threads");
        wait_until(|| health.ready().text == "loops: ok\nstore: ok\nspool: disk full\nbus: ok\nrunning: ok\n");
        assert!(!health.ready().good);
        works.store(true, Ordering::Relaxed);
        wait_until(|| health.ready().good);
        checks.close(Instant::now() + PATIENCE);
    }

    #[test]
    fn a_store_that_hangs_keeps_nobody_from_being_told_or_from_stopping() {
        let health = Arc::new(health());
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let (entered, has_entered) = crossbeam_channel::unbounded();
        let check = move || {
            let _ = (entered.send(()), held.recv());
            Ok(())
        };
        let wire = Arc::new(Wire(AtomicBool::new(true)));
        let checks = Checks::start_with(&health, check, None::<NoCheck>, wire).expect("threads");
        has_entered.recv_timeout(PATIENCE).expect("the store is asked");
        wait_until(|| health.readiness().contains(&("bus", true)));
        assert!(!health.ready().good);
        assert!(health.alive().good);
        checks.close(Instant::now());
        drop(release);
    }

    /// A handler whose loop is blocked while a connection opens.
    struct Stuck(Receiver<()>);

    impl net::Handler for Stuck {
        type Conn = ();
        type Arrival = ();
        type Message = Posted;

        fn on_arrival(&mut self, _: &mut Turn, _: std::net::SocketAddr, _: net::Preface) -> Result<(), &'static [u8]> {
            Ok(())
        }

        fn on_open(&mut self, _: &mut Turn, _: &Arc<Link>, (): ()) {
            let _ = self.0.recv();
        }

        fn on_incoming(&mut self, _: &mut Turn, _: &Arc<Link>, _: &mut (), _: net::Incoming<'_>) -> net::Flow {
            net::Flow::Taken
        }

        fn on_sent(&mut self, _: &mut Turn, _: &Arc<Link>, _: &mut (), _: u32) {}
        fn on_message(&mut self, _: &mut Turn, _: &Arc<Link>, _: &mut (), _: Posted) {}
        fn on_hang_up(&mut self, _: &mut Turn, _: &Arc<Link>, _: &mut ()) {}
        fn on_close(&mut self, _: &mut Turn, _: &Arc<Link>, _: (), _: net::CloseReason) {}
        fn on_unsent(&mut self, _: &mut Turn, _: net::Label, _: Box<[u8]>) {}
        fn on_stray(&mut self, _: &mut Turn, _: Posted) {}
    }

    type Turn = net::Turn<Posted>;
    type Link = net::Link<Posted>;

    /// Calls `test` with two loops, of which the first stands still until the test drops the
    /// sender.
    pub(in crate::operation) fn with_a_stuck_loop(test: impl FnOnce(&Arc<Health>, Sender<()>)) {
        let time = Duration::from_secs(60);
        let settings = net::Settings {
            frame_bytes_max: 1024,
            frame_timeout: time,
            idle_timeout: time,
            output_bytes_max: 1024,
            drain_timeout: time,
            pace: None,
        };
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let mut group = net::LoopGroup::start(2, settings, |_| Stuck(held.clone())).expect("threads");
        let health = Arc::new(Health::new(group.watches(), None));
        let listen = net::ListenSettings { backlog: 1, user_timeout: time };
        let acceptor = net::Acceptor::bind(([127, 0, 0, 1], 0).into(), listen).expect("a port");
        let client = std::net::TcpStream::connect(acceptor.local_addr().expect("an address")).expect("it listens");
        let stopper = acceptor.stopper();
        acceptor.run(|stream, peer| {
            group.assign(stream, peer, net::Preface::None);
            stopper.stop();
        });
        test(&health, release);
        drop(client);
        group.drain(u32::MAX, Duration::ZERO);
    }

    #[test]
    fn a_loop_that_stands_still_is_noticed_and_one_that_sleeps_is_not() {
        with_a_stuck_loop(|health, release| {
            let wire = Wire(AtomicBool::new(true));
            health.look(&wire);
            wait_until(|| health.loops[1].owes_since().is_none());
            let report = health.alive_within(Duration::ZERO);
            assert!(!report.good);
            assert!(
                report.text.starts_with("loop-0: no sign of life for ") && report.text.lines().count() == 1,
                "{report:?}"
            );
            assert!(health.alive().good, "it has some time");
            let [("loops", Some(stuck)), ..] = &health.conditions(Duration::ZERO)[..] else { panic!("it is ready") };
            assert!(stuck.starts_with("loop-0: no sign of life for "), "{stuck}");
            drop(release);
            wait_until(|| health.loops[0].owes_since().is_none());
            health.look(&wire);
            wait_until(|| health.alive_within(Duration::ZERO).good);
        });
    }

    fn health() -> Health {
        Health::new(Arc::new([]), None)
    }

    #[test]
    fn a_node_is_ready_when_everything_was_found_good() {
        let health = health();
        assert_eq!(health.ready().text, "loops: ok\nstore: not checked yet\nbus: not checked yet\nrunning: ok\n");
        assert!(!health.ready().good);
        health.note_store(None);
        assert!(!health.ready().good);
        health.look(&crate::bus::local::LocalBus);
        assert_eq!(health.ready(), Report { good: true, text: "loops: ok\nstore: ok\nbus: ok\nrunning: ok\n".into() });
        health.note_store(Some(one_line("gone\n  for good\r\n")));
        assert_eq!(
            health.ready(),
            Report { good: false, text: "loops: ok\nstore: gone for good\nbus: ok\nrunning: ok\n".into() }
        );
        health.note_store(None);
        health.drain();
        assert_eq!(health.readiness(), [("loops", true), ("store", true), ("bus", true), ("running", false)]);
        assert!(!health.ready().good);
        assert!(health.alive().good, "a server that stops is alive");
    }

    #[test]
    fn a_lane_that_does_not_come_to_its_end_is_reported() {
        let (patience, short) = (Duration::from_secs(5), Duration::from_secs(4));
        assert_eq!(trouble_of(&[], patience), None);
        assert_eq!(trouble_of(&[short, Duration::ZERO], patience), None);
        let stuck = trouble_of(&[short, Duration::from_millis(7500)], patience);
        assert_eq!(stuck, Some("recorder-1 has been at one batch for 7.5 s".into()));
    }

    #[test]
    fn good_news_grow_old_and_bad_news_do_not() {
        let at = Instant::now();
        let good = CheckResult { trouble: None, at };
        assert_eq!(good.trouble(at + FINDING_AGE_MAX), None);
        let later = at + FINDING_AGE_MAX + Duration::from_millis(500);
        assert_eq!(good.trouble(later), Some("no answer for 4.5 s".into()));
        let bad = CheckResult { trouble: Some("away".into()), at };
        assert_eq!(bad.trouble(later), Some("away".into()));
    }
}
