//! [`Workers`]: a fixed number of threads that run jobs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run whatever is submitted, first come, first served. Dropping them runs what was accepted, then joins.
#[derive(Debug)]
pub struct Workers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// As many jobs as are allowed wait already; the job was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkersFull;

impl Workers {
    /// Starts `count` threads named `<name>-0` and so on, which at most `waiting_max` jobs may wait for.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(name: &str, count: usize, waiting_max: usize) -> io::Result<Workers> {
        let (jobs, queue) = bounded(waiting_max);
        let start = |nth| {
            let queue = queue.clone();
            thread::Builder::new().name(format!("{name}-{nth}")).spawn(move || run(&queue))
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Workers { jobs: Some(jobs), threads })
    }

    /// Has a thread run `job`. Never blocks. A job that panics is reported in the log; whoever waits for its outcome
    /// must learn it from the job itself being dropped.
    ///
    /// # Errors
    /// [`WorkersFull`]; tell the client to try later.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), WorkersFull> {
        let jobs = self.jobs.as_ref().expect("there until dropped");
        jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => WorkersFull,
            TrySendError::Disconnected(_) => unreachable!("workers catch panics and stop last"),
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a worker has panicked");
            }
        }
    }
}

fn run(queue: &Receiver<Job>) {
    for job in queue {
        // The panic hook has reported it already; the job's own drop tells whoever waits.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            log::error!("a job has panicked; its thread goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_panicking_job_ends_alone() {
        let workers = Workers::start("test", 1, 8).expect("a thread");
        let (sender, receiver) = mpsc::channel();
        workers.submit(|| panic!("on purpose")).expect("room");
        workers.submit(move || sender.send(7).expect("received below")).expect("room");
        assert_eq!(receiver.recv(), Ok(7));
    }

    #[test]
    fn a_full_queue_refuses_and_what_was_accepted_runs_before_the_end() {
        let workers = Workers::start("test", 1, 1).expect("a thread");
        let (release, held) = mpsc::channel::<()>();
        let (started, is_started) = mpsc::channel();
        workers.submit(move || (started.send(()), held.recv()).0.expect("received below")).expect("room");
        is_started.recv().expect("the job runs");
        let (done, is_done) = mpsc::channel();
        workers.submit(move || done.send(()).expect("received below")).expect("one may wait");
        assert_eq!(workers.submit(|| ()), Err(WorkersFull));
        drop(release);
        drop(workers);
        assert_eq!(is_done.try_recv(), Ok(()));
    }
}
