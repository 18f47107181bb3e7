//! [`Hashing`]: the passwords that wait to be hashed, in round-robin order.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pool::{Workers, WorkersWatch};

use super::answer::JobReply;
use super::jobs::Jobs;
use crate::admission::{Admission, JobDuration, Source, Turns};
use crate::delivery::ClientLink;
use crate::protocol;
use crate::session::{Job, Outcome};

/// The hashers and their queue. Any loop may call it.
pub(super) struct Hashing {
    hashers: Workers,
    queue: WorkersWatch,
    /// Passwords waiting to be hashed, one queue per address, served round-robin. A leaf lock.
    turns: Arc<Mutex<Turns<Source, HashingWork>>>,
    /// The recent duration of hashing.
    pace: Arc<JobDuration>,
}

/// A password to be hashed, and the work that follows.
type HashingWork = Box<dyn FnOnce() + Send>;

impl Hashing {
    /// Uses this number of hashers.
    pub(super) fn new(hashers: Workers, count: usize) -> Hashing {
        let queue = hashers.watch();
        Hashing { hashers, queue, turns: Arc::default(), pace: Arc::new(JobDuration::new(count)) }
    }

    /// Runs a job that hashes a password for a client of this address, and calls `note` before the
    /// answer. False if there is no room; then the session learns when to retry.
    pub(super) fn submit(
        &self,
        (job, jobs): (Job, Arc<Jobs>),
        admission: &Arc<Admission>,
        (link, source): (&Arc<ClientLink>, Source),
        now: Instant,
        note: impl FnOnce(&Outcome) + Send + 'static,
    ) -> bool {
        let seconds = self.pace.seconds_for(self.queue.waiting());
        // If there is no room it is dropped, which notifies the client.
        let answer = JobReply::or_else(link, protocol::busy_for(seconds));
        self.work(admission, source, now, move || {
            let outcome = jobs.run(job);
            note(&outcome);
            move || answer.send(outcome)
        })
    }

    /// Runs other work that hashes a password, and then the function that it returns, after its
    /// place is released. False if there is no room.
    pub(super) fn work<A: FnOnce()>(
        &self,
        admission: &Arc<Admission>,
        source: Source,
        now: Instant,
        hash: impl FnOnce() -> A + Send + 'static,
    ) -> bool {
        let Some(place) = admission.queue(source) else {
            admission.no_room(source, now);
            return false;
        };
        let (pace, turns) = (self.pace.clone(), self.turns.clone());
        let work = move || {
            let begun = Instant::now();
            let answer = hash();
            pace.note(begun.elapsed());
            drop(place);
            answer();
        };
        self.turns.lock().push(source, Box::new(work));
        let next = move || {
            let (_, work) = turns.lock().take().expect("each waiting password has exactly one job");
            work();
        };
        self.hashers.submit(next).expect("there is room for a login that has a place");
        true
    }

    /// Another thread's view of the number of waiting passwords.
    pub(super) fn watch(&self) -> WorkersWatch {
        self.hashers.watch()
    }

    /// Finishes the work that has begun, until `by` at most.
    pub(super) fn close(self, by: Instant) {
        self.hashers.close(by);
    }
}
