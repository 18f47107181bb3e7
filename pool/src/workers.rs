//! [`Workers`]: a fixed number of threads that run jobs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

type WorkerJob = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that run submitted jobs in order.
#[derive(Debug)]
pub struct Workers {
    jobs: Sender<WorkerJob>,
    /// The receiving end of the queue, for dropping waiting jobs.
    queue: Receiver<WorkerJob>,
    threads: Vec<JoinHandle<()>>,
}

/// Observes the number of waiting jobs. See [`Workers::watch`].
#[derive(Clone, Debug)]
pub struct WorkersWatch {
    queue: Receiver<WorkerJob>,
}

/// The queue is full, and the job was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkersFull;

impl Workers {
    /// Starts `count` threads named `<name>-0` and so on, for which at most `waiting_max` jobs may
    /// wait.
    ///
    /// ```
    /// # use std::{sync::mpsc, time::{Duration, Instant}};
    /// let workers = pool::Workers::start("worker", 2, 100)?;
    /// let (sender, sums) = mpsc::channel();
    /// workers.submit(move || sender.send((1..=10).sum::<u32>()).unwrap()).expect("the queue is empty");
    /// assert_eq!(sums.recv(), Ok(55));
    /// workers.close(Instant::now() + Duration::from_secs(10));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread.
    pub fn start(name: &str, count: usize, waiting_max: usize) -> io::Result<Workers> {
        Workers::start_each(name, count, waiting_max, || ())
    }

    /// Like [`Workers::start`], for long computations that can wait: the threads give way to all
    /// others, which are hardly slowed down.
    ///
    /// # Errors
    /// As for [`Workers::start`].
    pub fn start_in_background(name: &str, count: usize, waiting_max: usize) -> io::Result<Workers> {
        Workers::start_each(name, count, waiting_max, || {
            // On Linux this affects the calling thread alone, though POSIX says otherwise (nice(2),
            // C library/kernel differences).
            if let Err(error) = rustix::process::nice(BACKGROUND) {
                log::warn!("the priority of a thread cannot be lowered: {error}");
            }
        })
    }

    fn start_each(name: &str, count: usize, waiting_max: usize, prepare: fn()) -> io::Result<Workers> {
        let (jobs, queue) = bounded(waiting_max);
        let start = |nth| {
            let queue = queue.clone();
            let work = move || {
                prepare();
                run(&queue);
            };
            thread::Builder::new().name(format!("{name}-{nth}")).spawn(work)
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Workers { jobs, queue, threads })
    }

    /// Lets a thread run `job`. Never blocks. A job that panics is logged and dropped; a waiter for
    /// its outcome must notice the drop.
    ///
    /// # Errors
    /// [`WorkersFull`] if `waiting_max` jobs wait already; tell the client to try later.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), WorkersFull> {
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => WorkersFull,
            TrySendError::Disconnected(_) => unreachable!("the queue is held here"),
        })
    }
}

impl Workers {
    /// A handle for observing the queue from another thread. The handle does not prevent the
    /// workers from closing.
    pub fn watch(&self) -> WorkersWatch {
        WorkersWatch { queue: self.queue.clone() }
    }

    /// Drops the waiting jobs, and waits for the running ones until `by` at most. Threads that have
    /// not finished by then end with the process.
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
    /// The number of waiting jobs.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Removes and returns the oldest waiting job, for tests that run jobs without threads.
    #[cfg(feature = "simulation")]
    pub fn take_job(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.queue.try_recv().ok()
    }
}

/// Waits for a thread to end, until `by` at most. A thread that has not ended by then ends with the
/// process.
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

fn run(queue: &Receiver<WorkerJob>) {
    for job in queue {
        // The panic hook has reported the panic already; dropping the job notifies its waiter.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            log::error!("a job has panicked; its thread goes on");
        }
    }
}

/// The nice value of a background thread: on a processor that other threads want as well, those get
/// nine tenths (sched(7)). With half this value the latency of chat was measurably higher; with
/// more, logins would wait too long on a busy machine.
const BACKGROUND: i32 = 10;
/// `JoinHandle` has no wait with a timeout, so the end of a thread is polled.
const POLL_EVERY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn threads_in_the_background_are_nice_and_no_others() {
        let nice = |workers: Workers| {
            let (sender, receiver) = mpsc::channel();
            workers.submit(move || sender.send(rustix::process::nice(0)).expect("received below")).expect("room");
            receiver.recv().expect("the job runs").expect("a thread may ask")
        };
        let usual = nice(Workers::start("test", 1, 1).expect("a thread"));
        let background = nice(Workers::start_in_background("test", 1, 1).expect("a thread"));
        assert_eq!(background, (usual + BACKGROUND).min(19));
        assert_eq!(nice(Workers::start("test", 1, 1).expect("a thread")), usual);
    }

    #[test]
    fn a_panicking_job_ends_alone() {
        let workers = Workers::start("test", 1, 8).expect("a thread");
        let (sender, receiver) = mpsc::channel();
        workers.submit(|| panic!("on purpose")).expect("room");
        workers.submit(move || sender.send(7).expect("received below")).expect("room");
        assert_eq!(receiver.recv(), Ok(7));
    }

    #[test]
    fn a_full_queue_refuses_and_waiting_jobs_are_dropped_at_shutdown() {
        let workers = Workers::start("test", 1, 1).expect("a thread");
        let (release, held) = mpsc::channel::<()>();
        let (started, is_started) = mpsc::channel();
        workers.submit(move || (started.send(()), held.recv()).0.expect("received below")).expect("room");
        is_started.recv().expect("the job runs");
        let (done, is_done) = mpsc::channel();
        workers.submit(move || done.send(()).expect("received below")).expect("one may wait");
        assert_eq!(workers.submit(|| ()), Err(WorkersFull));
        assert_eq!(workers.watch().waiting(), 1);
        // The running job does not end, and `close` does not wait for it.
        workers.close(Instant::now());
        assert_eq!(
            is_done.recv(),
            Err(mpsc::RecvError),
            "the job that waited is gone, and its waiting caller hears of that"
        );
        drop(release);
    }

    #[test]
    fn running_jobs_are_finished_at_shutdown() {
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
