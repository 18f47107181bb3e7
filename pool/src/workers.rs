//! [`Workers`]: a fixed number of threads that run jobs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run whatever is submitted, first come, first served.
#[derive(Debug)]
pub struct Workers {
    jobs: Sender<Job>,
    /// The same queue, for dropping what nobody waits for any more.
    queue: Receiver<Job>,
    threads: Vec<JoinHandle<()>>,
}

/// Sees how many jobs wait. See [`Workers::watch`].
#[derive(Clone, Debug)]
pub struct WorkersWatch {
    queue: Receiver<Job>,
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
        Ok(Workers { jobs, queue, threads })
    }

    /// Has a thread run `job`. Never blocks. A job that panics is reported in the log; whoever waits for its outcome
    /// must learn it from the job itself being dropped.
    ///
    /// # Errors
    /// [`WorkersFull`]; tell the client to try later.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), WorkersFull> {
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => WorkersFull,
            TrySendError::Disconnected(_) => unreachable!("the queue is held here"),
        })
    }
}

impl Workers {
    /// How another thread sees the queue. It does not keep the workers from closing.
    pub fn watch(&self) -> WorkersWatch {
        WorkersWatch { queue: self.queue.clone() }
    }

    /// Takes the oldest job that waits, for whoever runs jobs in the place of threads.
    #[cfg(feature = "simulation")]
    pub fn take_job(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.queue.try_recv().ok()
    }

    /// Drops the jobs that wait, and lets those that run finish, but waits no longer than `by`; threads that are not done
    /// then end with the process.
    pub fn close(self, by: Instant) {
        let Workers { jobs, queue, threads } = self;
        drop(jobs);
        queue.try_iter().for_each(drop);
        drop(queue);
        for thread in threads {
            join_until(thread, by);
        }
    }
}

impl WorkersWatch {
    /// Jobs that no thread has begun.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// Waits for a thread to end, but no longer than `by`; what does not end by then ends with the process.
pub fn join_until(thread: JoinHandle<()>, by: Instant) {
    while !thread.is_finished() {
        if Instant::now() >= by {
            return;
        }
        thread::park_timeout(POLL_EVERY);
    }
    if thread.join().is_err() {
        log::error!("a thread has panicked");
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

/// A thread's end cannot be waited for with a bound, so it is looked for.
const POLL_EVERY: Duration = Duration::from_millis(1);

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
    fn a_full_queue_refuses_and_what_waits_at_the_end_is_dropped() {
        let workers = Workers::start("test", 1, 1).expect("a thread");
        let (release, held) = mpsc::channel::<()>();
        let (started, is_started) = mpsc::channel();
        workers.submit(move || (started.send(()), held.recv()).0.expect("received below")).expect("room");
        is_started.recv().expect("the job runs");
        let (done, is_done) = mpsc::channel();
        workers.submit(move || done.send(()).expect("received below")).expect("one may wait");
        assert_eq!(workers.submit(|| ()), Err(WorkersFull));
        assert_eq!(workers.watch().waiting(), 1);
        // The job that runs does not end, and is not waited for.
        workers.close(Instant::now());
        assert_eq!(is_done.recv(), Err(mpsc::RecvError), "the job that waited is gone, and whoever waits for it hears");
        drop(release);
    }

    #[test]
    fn what_runs_at_the_end_is_finished() {
        let workers = Workers::start("test", 2, 1).expect("threads");
        let (done, is_done) = mpsc::channel();
        let (started, is_started) = mpsc::channel();
        let job = move || {
            started.send(()).expect("received below");
            done.send(7).expect("received below");
        };
        workers.submit(job).expect("room");
        is_started.recv().expect("the job runs");
        workers.close(Instant::now() + Duration::from_secs(10));
        assert_eq!(is_done.try_recv(), Ok(7));
    }
}
