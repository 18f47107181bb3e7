//! [`Health`]: whether this node is alive, and whether clients should be sent to it.
//!
//! Alive: its event loops turn. Ready: its store and its bus answer, and it is not on its way out. Whoever asks is told
//! what was found lately and never waits for a database; two threads do the finding.
//!
//! | thread | does | may block |
//! |---|---|---|
//! | `health` | asks every loop for a sign of life, looks at the bus | never |
//! | `store-check` | asks the store for a sign of life | for as long as the store does |

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use net::LoopWatch;
use parking_lot::Mutex;

use crate::bus::Bus;
use crate::delivery::Posted;
use crate::store::Store;

/// What is known of this node's health. Any thread asks; nothing here blocks.
#[derive(Debug)]
pub struct Health {
    loops: Arc<[LoopWatch<Posted>]>,
    store: Mutex<Finding>,
    bus: Mutex<(Finding, Option<Duration>)>,
    draining: AtomicBool,
}

/// What a look has found, and when. At the beginning: nothing yet.
#[derive(Clone, Debug)]
struct Finding {
    trouble: Option<String>,
    at: Instant,
}

/// An answer for whoever asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// All is well.
    pub good: bool,
    /// One line for each thing that was looked at.
    pub text: String,
}

/// The threads that look. They end when this is closed.
#[derive(Debug)]
pub struct Checks {
    stop: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Health {
    /// A node of which nothing is known yet but its loops: it is not ready.
    pub fn new(loops: Arc<[LoopWatch<Posted>]>) -> Health {
        let unknown = Finding { trouble: Some("not looked at yet".to_owned()), at: Instant::now() };
        let bus = Mutex::new((unknown.clone(), None));
        Health { loops, store: Mutex::new(unknown), bus, draining: AtomicBool::new(false) }
    }

    /// From now on no client should be sent here.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the event loops turn.
    pub fn alive(&self) -> Report {
        let now = Instant::now();
        let stuck = self.loops.iter().enumerate().filter_map(|(nth, watch)| {
            let silent = now.saturating_duration_since(watch.owes_since()?);
            (silent >= LOOP_PATIENCE)
                .then(|| format!("loop-{nth}: no sign of life for {:.1} s\n", silent.as_secs_f32()))
        });
        let text: String = stuck.collect();
        if text.is_empty() { Report { good: true, text: "ok\n".to_owned() } } else { Report { good: false, text } }
    }

    /// Whether clients should be sent here, with a line for each condition.
    pub fn ready(&self) -> Report {
        let mut report = Report { good: true, text: String::new() };
        for (condition, trouble) in self.conditions() {
            report.good &= trouble.is_none();
            let _ = writeln!(report.text, "{condition}: {}", trouble.as_deref().unwrap_or("ok"));
        }
        report
    }

    /// The conditions of readiness, and whether each holds.
    pub fn readiness(&self) -> Vec<(&'static str, bool)> {
        self.conditions().into_iter().map(|(condition, trouble)| (condition, trouble.is_none())).collect()
    }

    /// How long ago the last message of this node to itself came back, `None` if there is no such thing.
    pub fn probe_age(&self) -> Option<Duration> {
        let (finding, age) = &*self.bus.lock();
        age.map(|age| age + finding.at.elapsed())
    }

    fn conditions(&self) -> [(&'static str, Option<String>); 3] {
        let draining = self.draining.load(Ordering::Relaxed).then(|| "the server stops".to_owned());
        let now = Instant::now();
        [("store", self.store.lock().trouble(now)), ("bus", self.bus.lock().0.trouble(now)), ("running", draining)]
    }

    fn note_store(&self, trouble: Option<String>) {
        *self.store.lock() = Finding { trouble, at: Instant::now() };
    }

    fn look(&self, bus: &dyn Bus) {
        self.loops.iter().for_each(LoopWatch::ask);
        let trouble = (!bus.is_ready()).then(|| "messages to other nodes do not arrive".to_owned());
        *self.bus.lock() = (Finding { trouble, at: Instant::now() }, bus.probe_age());
    }
}

impl Finding {
    /// What is wrong. A look that takes long is in trouble itself, whatever the one before it found.
    fn trouble(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.at);
        match &self.trouble {
            None if age > FINDING_AGE_MAX => Some(format!("no answer for {:.1} s", age.as_secs_f32())),
            trouble => trouble.clone(),
        }
    }
}

impl Checks {
    /// Starts looking.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(health: &Arc<Health>, store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> io::Result<Checks> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let mut checks = Checks { stop, threads: Vec::new() };
        let (of_store, of_bus) = (health.clone(), health.clone());
        let check = move || of_store.note_store(store.check().err().map(|error| one_line(&error.to_string())));
        checks.add("store-check", stopped.clone(), check)?;
        checks.add("health", stopped, move || of_bus.look(&*bus))?;
        Ok(checks)
    }

    fn add(&mut self, name: &str, stopped: Receiver<()>, look: impl Fn() + Send + 'static) -> io::Result<()> {
        let run = move || {
            loop {
                look();
                // Nothing is ever sent: the other end is there, or gone.
                if stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Stops looking, and lets go of the store and the bus. A look that takes longer than until `by` ends with the process.
    pub fn close(self, by: Instant) {
        let Checks { stop, threads } = self;
        drop(stop);
        for thread in threads {
            pool::join_until(thread, by);
        }
    }
}

/// A driver's text may have several lines, and a condition has one.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// How often each thread looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How old good news may be: red within five seconds of the end of a database that does not even say no.
const FINDING_AGE_MAX: Duration = Duration::from_secs(4);
/// How long a loop may owe a sign of life. A turn takes milliseconds, a very long one a second.
const LOOP_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Arc::new([]))
    }

    #[test]
    fn a_node_is_ready_when_everything_was_found_good() {
        let health = health();
        assert_eq!(health.ready().text, "store: not looked at yet\nbus: not looked at yet\nrunning: ok\n");
        assert!(!health.ready().good);
        health.note_store(None);
        assert!(!health.ready().good);
        health.look(&crate::bus::local::LocalBus);
        assert_eq!(health.ready(), Report { good: true, text: "store: ok\nbus: ok\nrunning: ok\n".into() });
        health.note_store(Some(one_line("gone\n  for good\r\n")));
        assert_eq!(health.ready(), Report { good: false, text: "store: gone for good\nbus: ok\nrunning: ok\n".into() });
        health.note_store(None);
        health.drain();
        assert_eq!(health.readiness(), [("store", true), ("bus", true), ("running", false)]);
        assert!(!health.ready().good);
        assert!(health.alive().good, "a server that stops is alive");
    }

    #[test]
    fn good_news_grow_old_and_bad_news_do_not() {
        let at = Instant::now();
        let good = Finding { trouble: None, at };
        assert_eq!(good.trouble(at + FINDING_AGE_MAX), None);
        let later = at + FINDING_AGE_MAX + Duration::from_millis(500);
        assert_eq!(good.trouble(later), Some("no answer for 4.5 s".into()));
        let bad = Finding { trouble: Some("away".into()), at };
        assert_eq!(bad.trouble(later), Some("away".into()));
    }
}
