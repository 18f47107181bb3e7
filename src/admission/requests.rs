//! [`Requests`]: the jobs that wait for a worker, and the order in which they are served.
//!
//! Accounts take turns, independent of the order of arrival. One account may occupy all workers but
//! one, and may have no more waiting jobs than there are free places. Searches may read a whole
//! table, so only one worker at a time runs them. So whatever one account requests, another one's
//! request waits for at most one job of each account.
//!
//! ```text
//!   submit ─▶ turns of accounts ─┬─ other requests ─▶ any worker
//!                                └─ searches ───────▶ one worker at a time
//! ```
//! Workers are notified of each job once. A worker that finds no job that may run now returns; the
//! next worker that finishes a job looks again in its place.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use pool::{Workers, WorkersWatch};

use crate::admission::{Holder, NestedShares, Payer, Turns};

/// See the [module](self).
pub struct Requests {
    queue: Arc<Mutex<RequestQueue>>,
    /// The workers; `None` once the queue is closed.
    workers: RwLock<Option<Workers>>,
    watch: WorkersWatch,
}

/// The kind of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// A job that reads many rows.
    Search,
    /// Any other job.
    Short,
}

/// A place among the jobs that wait or run, released when dropped.
pub struct WorkerSlot {
    queue: Arc<Mutex<RequestQueue>>,
    holder: Holder,
}

type RequestWork = Box<dyn FnOnce() + Send>;

struct WaitingRequest {
    work: RequestWork,
    /// The job's place; `None` for a job that completes earlier work, which always runs.
    place: Option<WorkerSlot>,
}

struct RequestQueue {
    places: NestedShares,
    short: Turns<Payer, WaitingRequest>,
    searches: Turns<Payer, WaitingRequest>,
    /// The number of jobs that have not started.
    waiting: usize,
    /// The number of workers that each payer occupies.
    running: HashMap<Payer, usize>,
    running_max: usize,
    search_runs: bool,
    /// Whether the last job that started was a search: with a single worker other jobs come next.
    search_was_last: bool,
    /// The number of notifications whose workers found no job that could run.
    owed: usize,
}

impl Requests {
    /// For these `count` workers, with at most `waiting_max` waiting jobs.
    pub fn new(workers: Workers, count: usize, waiting_max: usize) -> Requests {
        let queue = RequestQueue {
            places: NestedShares::new(waiting_max + count),
            short: Turns::default(),
            searches: Turns::default(),
            waiting: 0,
            running: HashMap::new(),
            running_max: count.saturating_sub(1).max(1),
            search_runs: false,
            search_was_last: false,
            owed: 0,
        };
        let watch = workers.watch();
        Requests { queue: Arc::new(Mutex::new(queue)), workers: RwLock::new(Some(workers)), watch }
    }

    /// Takes a place for a job; `None` if that would exceed the holder's share.
    pub fn place(&self, holder: Holder) -> Option<WorkerSlot> {
        let taken = self.queue.lock().places.take(holder, 1);
        taken.then(|| WorkerSlot { queue: self.queue.clone(), holder })
    }

    /// Submits a job, which runs when its turn comes.
    pub fn submit(&self, kind: RequestKind, place: WorkerSlot, work: impl FnOnce() + Send + 'static) {
        let payer = place.holder.payer;
        self.push(kind, payer, WaitingRequest { work: Box::new(work), place: Some(place) });
    }

    /// Submits a job that completes earlier work, which limits its number. It runs even if the
    /// server stops.
    pub fn submit_anyway(&self, holder: Holder, work: impl FnOnce() + Send + 'static) {
        self.push(RequestKind::Short, holder.payer, WaitingRequest { work: Box::new(work), place: None });
    }

    fn push(&self, kind: RequestKind, payer: Payer, job: WaitingRequest) {
        self.queue.lock().push(kind, payer, job);
        let queue = self.queue.clone();
        let told = self.workers.read().as_ref().map(|workers| workers.submit(move || serve(&queue)));
        if !matches!(told, Some(Ok(()))) {
            // The workers were already notified of this job; one of them runs it.
            self.queue.lock().owed += 1;
        }
    }

    /// Returns a function with which another thread reads the number of waiting jobs.
    pub fn watch(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let queue = self.queue.clone();
        move || queue.lock().waiting
    }

    /// Drops the waiting jobs, except those that complete earlier work, which still run. Waits
    /// until `by` at most.
    pub fn close(&self, by: Instant) {
        let workers = self.workers.write().take();
        loop {
            let job = self.queue.lock().take_any();
            match job {
                None => break,
                Some(WaitingRequest { work, place: None }) if Instant::now() < by => run(work),
                Some(_) => {}
            }
        }
        if let Some(workers) = workers {
            workers.close(by);
        }
    }

    /// The number of workers that were notified and have not come yet.
    pub fn told(&self) -> usize {
        self.watch.waiting()
    }
}

/// Serves a notification: runs that job or another one whose turn it is, and the jobs put off
/// meanwhile.
fn serve(queue: &Mutex<RequestQueue>) {
    let Some(mut begun) = queue.lock().begin_or_owe() else { return };
    loop {
        let Begun { kind, payer, job } = begun;
        let WaitingRequest { work, place } = job;
        run(work);
        drop(place);
        let mut queue = queue.lock();
        queue.finish(kind, payer);
        match queue.begin_owed() {
            Some(next) => begun = next,
            None => return,
        }
    }
}

/// Runs a job. If it panics, dropping it notifies the client that waits for its outcome.
fn run(work: RequestWork) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        log::error!("a request has panicked; the worker goes on");
    }
}

struct Begun {
    kind: RequestKind,
    payer: Payer,
    job: WaitingRequest,
}

impl RequestQueue {
    fn push(&mut self, kind: RequestKind, payer: Payer, job: WaitingRequest) {
        self.waiting += 1;
        match kind {
            RequestKind::Short => self.short.push(payer, job),
            RequestKind::Search => self.searches.push(payer, job),
        }
    }

    /// Takes the next job by turn, of those that may run now.
    fn begin(&mut self) -> Option<Begun> {
        let (running, max) = (&self.running, self.running_max);
        let may = |payer: &Payer| running.get(payer).is_none_or(|running| *running < max);
        let search_first = !self.search_was_last;
        let search = |searches: &mut Turns<Payer, WaitingRequest>| {
            if self.search_runs { None } else { searches.take_if(may) }
                .map(|(payer, job)| (RequestKind::Search, payer, job))
        };
        let mut next = None;
        if search_first {
            next = search(&mut self.searches);
        }
        let next = next
            .or_else(|| self.short.take_if(may).map(|(payer, job)| (RequestKind::Short, payer, job)))
            .or_else(|| search(&mut self.searches));
        let (kind, payer, job) = next?;
        self.waiting -= 1;
        self.search_was_last = kind == RequestKind::Search;
        self.search_runs |= kind == RequestKind::Search;
        *self.running.entry(payer).or_default() += 1;
        Some(Begun { kind, payer, job })
    }

    fn begin_or_owe(&mut self) -> Option<Begun> {
        let begun = self.begin();
        // If no job waits, another worker has already run it.
        if begun.is_none() && self.waiting > self.owed {
            self.owed += 1;
        }
        begun
    }

    fn begin_owed(&mut self) -> Option<Begun> {
        self.owed = self.owed.min(self.waiting);
        if self.owed == 0 {
            return None;
        }
        let begun = self.begin();
        self.owed -= usize::from(begun.is_some());
        begun
    }

    fn finish(&mut self, kind: RequestKind, payer: Payer) {
        if kind == RequestKind::Search {
            self.search_runs = false;
        }
        if let Some(running) = self.running.get_mut(&payer) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&payer);
            }
        }
    }

    fn take_any(&mut self) -> Option<WaitingRequest> {
        let (_, job) = self.short.take().or_else(|| self.searches.take())?;
        self.waiting -= 1;
        Some(job)
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.queue.lock().places.give_back(self.holder, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::admission::Source;
    use crate::protocol::UserId;

    fn holder(user: i32) -> Holder {
        Holder { payer: Payer::Account(UserId(user)), source: Source::of([192, 0, 2, 1].into()) }
    }

    fn start(count: usize, waiting_max: usize) -> Requests {
        Requests::new(Workers::start("test", count, waiting_max + count).expect("threads"), count, waiting_max)
    }

    /// Jobs that report their name when they run, and wait for permission to continue.
    struct Scene {
        requests: Requests,
        ran: mpsc::Receiver<&'static str>,
        say: mpsc::Sender<&'static str>,
        waiting: Mutex<HashMap<&'static str, mpsc::Sender<()>>>,
    }

    impl Scene {
        fn new(count: usize, waiting_max: usize) -> Scene {
            let (say, ran) = mpsc::channel();
            Scene { requests: start(count, waiting_max), ran, say, waiting: Mutex::default() }
        }

        fn submit(&self, user: i32, kind: RequestKind, name: &'static str) -> bool {
            let Some(place) = self.requests.place(holder(user)) else { return false };
            let (say, (go, gate)) = (self.say.clone(), mpsc::channel());
            self.waiting.lock().insert(name, go);
            self.requests.submit(kind, place, move || {
                say.send(name).expect("received below");
                gate.recv().expect("told below");
            });
            true
        }

        fn next(&self) -> &'static str {
            self.ran.recv_timeout(Duration::from_secs(30)).expect("a job")
        }

        fn none(&self) {
            assert_eq!(self.ran.recv_timeout(Duration::from_millis(30)), Err(mpsc::RecvTimeoutError::Timeout));
        }

        fn go(&self, name: &str) {
            self.waiting.lock()[name].send(()).expect("it waits");
        }
    }

    #[test]
    fn accounts_take_turns_and_one_leaves_a_worker_to_others() {
        let scene = Scene::new(2, 100);
        for name in ["a", "b", "c"] {
            assert!(scene.submit(1, RequestKind::Short, name));
        }
        assert_eq!(scene.next(), "a");
        scene.none();
        assert!(scene.submit(2, RequestKind::Short, "x"));
        assert_eq!(scene.next(), "x", "the other worker was left to it");
        assert!(scene.submit(2, RequestKind::Short, "y"));
        scene.go("x");
        assert_eq!(scene.next(), "y", "the other account has as many at work as it may");
        scene.go("a");
        assert_eq!(scene.next(), "b", "what was put off is not forgotten");
        scene.go("y");
        scene.none();
        scene.go("b");
        assert_eq!(scene.next(), "c");
        scene.go("c");
    }

    #[test]
    fn one_worker_searches_and_a_single_one_does_other_things_in_between() {
        let scene = Scene::new(3, 100);
        assert!(scene.submit(1, RequestKind::Search, "search 1"));
        assert!(scene.submit(2, RequestKind::Search, "search 2"));
        assert_eq!(scene.next(), "search 1");
        scene.none();
        assert!(scene.submit(3, RequestKind::Short, "short"));
        assert_eq!(scene.next(), "short");
        scene.go("search 1");
        assert_eq!(scene.next(), "search 2");
        ["short", "search 2"].iter().for_each(|name| scene.go(name));

        let scene = Scene::new(1, 100);
        for (user, kind, name) in [
            (9, RequestKind::Short, "first"),
            (1, RequestKind::Search, "search 1"),
            (2, RequestKind::Search, "search 2"),
            (3, RequestKind::Short, "short"),
        ] {
            assert!(scene.submit(user, kind, name));
            if name == "first" {
                assert_eq!(scene.next(), "first");
            }
        }
        for (before, name) in [("first", "search 1"), ("search 1", "short"), ("short", "search 2")] {
            scene.go(before);
            assert_eq!(scene.next(), name);
        }
        scene.go("search 2");
    }

    #[test]
    fn one_account_has_half_of_the_places_and_they_are_given_back() {
        let scene = Scene::new(1, 7);
        assert!(scene.submit(1, RequestKind::Short, "a"));
        assert_eq!(scene.next(), "a");
        assert_eq!(
            ["b", "c", "d", "e"].map(|name| scene.submit(1, RequestKind::Short, name)),
            [true, true, true, false]
        );
        assert!(scene.submit(2, RequestKind::Short, "quiet"));
        assert_eq!(scene.requests.watch()(), 4);
        for (before, name) in [("a", "b"), ("b", "quiet"), ("quiet", "c"), ("c", "d")] {
            scene.go(before);
            assert_eq!(scene.next(), name, "the quiet one waits for one of the others");
        }
        scene.go("d");
        let deadline = Instant::now() + Duration::from_secs(30);
        while scene.requests.queue.lock().places.free() < 8 {
            assert!(Instant::now() < deadline, "places are given back");
            thread::yield_now();
        }
    }

    #[test]
    fn a_panic_ends_one_job_and_closing_does_what_must_be_done() {
        let requests = start(1, 10);
        let (say, said) = mpsc::channel();
        let (enter, entered) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let place = requests.place(holder(1)).expect("room");
        requests.submit(RequestKind::Short, place, || panic!("on purpose"));
        let place = requests.place(holder(1)).expect("room");
        requests.submit(RequestKind::Short, place, move || {
            enter.send(()).expect("received below");
            gate.recv().expect("told below");
        });
        entered.recv().expect("the worker goes on");
        let place = requests.place(holder(1)).expect("room");
        let dropped = say.clone();
        requests.submit(RequestKind::Short, place, move || dropped.send("a request").expect("received below"));
        requests.submit_anyway(holder(1), move || say.send("a deletion").expect("received below"));
        go.send(()).ok();
        requests.close(Instant::now() + Duration::from_secs(10));
        assert!(said.iter().any(|name| name == "a deletion"));
    }
}
