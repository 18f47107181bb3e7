//! [`Context`]: the settings that every workload gets.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::accounts::{self, Account};
use crate::carrier::Address;
use crate::interrupt;
use crate::phase::Phase;
use crate::progress::Progress;
use crate::target::{Measured, Meter, Target, Usage};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) target: Target,
    pub(crate) accounts: Option<PathBuf>,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) progress: Progress,
}

impl Context {
    /// Checks that the processes to be measured exist, before the run begins.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &self.target {
            Target::Server { pids, .. } => Usage::of(pids).map(drop).map_err(io::Error::other),
            Target::Relay(_) => Ok(()),
        }
    }

    /// The server's addresses and processes; an error for the relay, which answers no requests.
    pub(crate) fn server(&self) -> io::Result<(&[Address], &[u32])> {
        match &self.target {
            Target::Server { addresses, pids } => Ok((addresses, pids)),
            Target::Relay(_) => Err(io::Error::other("the relay knows pairs and groups only: give --address")),
        }
    }

    pub(crate) fn accounts(&self, count: usize) -> io::Result<Vec<Account>> {
        let (addresses, _) = self.server()?;
        accounts::provide(addresses[0], count, self.accounts.as_deref(), &self.progress)
    }

    /// Waits while other threads do the measured work. Returns what the target used, and the length
    /// of the period.
    pub(crate) fn measure(&self, pids: &[u32], phase: &Phase) -> Measured {
        self.pass("warming up", self.warm_up);
        let meter = Meter::start(pids, phase.begin_measured());
        self.pass("measuring", self.measured);
        let measured = meter.stop(phase.begin_last());
        self.progress.stage("waiting for the rest", 1);
        measured
    }

    /// Waits this long, or until the run is interrupted.
    pub(crate) fn pass(&self, stage: &str, time: Duration) {
        self.progress.stage(stage, time.as_millis() as usize);
        let start = Instant::now();
        while start.elapsed() < time && !interrupt::is_requested() {
            thread::sleep(time.saturating_sub(start.elapsed()).min(Duration::from_millis(100)));
            self.progress.reach(start.elapsed().as_millis() as u64);
        }
    }
}
