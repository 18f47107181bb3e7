//! [`Lanes`]: ordered queues whose items are handled in batches.
//!
//! ```text
//!   submit(key, standing, item) ─▶ lane = key mod lanes ─▶ flows, which take turns ─▶ one thread a lane: handle(batch)
//! ```
//! Items of different lanes are handled in parallel. In a lane, the items of one flow and key are
//! handled in the order submitted, and flows take turns ([`Standing`]). A batch is everything that
//! waits when the thread is free, up to a bound: one item under light load, many under heavy load.

mod fair_queue;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use fair_queue::FairQueue;
pub use fair_queue::{BatchMax, Standing};

/// Lanes of items of type `T`.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Vec<Arc<Lane<T>>>,
    /// Empty once the threads are joined.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Observes the fill level of the lanes. See [`Lanes::watch`].
#[derive(Debug)]
pub struct LanesWatch<T> {
    lanes: Vec<Arc<Lane<T>>>,
}

/// The fill level of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneLoad {
    /// Items that wait to be handled.
    pub items: usize,
    /// The weight of the waiting items and of those being handled.
    pub bytes: usize,
}

/// When a handler should be called again, with an empty batch if nothing has been submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// After this time. The lanes do not close before that.
    After(Duration),
    /// After this time, but the remaining work is skipped if the lanes close.
    UnlessClosing(Duration),
}

/// The lanes are closing; the item is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LanesClosed<T>(pub T);

#[derive(Debug)]
struct Lane<T> {
    queue: Mutex<LaneQueue<T>>,
    /// Notified when an item was queued, or the lane should close.
    news: Condvar,
    /// Notified when the lane's thread has ended.
    idle: Condvar,
}

#[derive(Debug)]
struct LaneQueue<T> {
    items: FairQueue<T>,
    /// The number of items being handled.
    in_hand: usize,
    /// The time at which the present batch began to be handled.
    since: Option<Instant>,
    /// The weight of the queued items and of those being handled.
    bytes: usize,
    closing: bool,
    ended: bool,
    /// The number of guards that are adding items to be handled together. Two counts, by the parity
    /// of `wanted`: guards that began before the lane's thread wanted its batch, and those that
    /// began since. The thread waits only for the former, because new guards may begin all the
    /// time.
    held: [usize; 2],
    /// The number of batches that it has wanted.
    wanted: usize,
}

/// Prevents lanes from taking a batch. See [`Lanes::hold`].
#[derive(Debug)]
pub struct LaneHold<'l, T> {
    /// Each lane with its value of `wanted`.
    lanes: Vec<(&'l Lane<T>, usize)>,
}

impl<T: Send + 'static> Lanes<T> {
    /// Starts `count` lanes on threads named `<name>-0` and so on. `handle` gets at most
    /// `batch_max` in a batch, with the state that its lane keeps between batches. It may ask to be
    /// called again after some time, with an empty batch if nothing was submitted. `begin` returns
    /// the first state of the nth lane, and the time at which its handler is to be called first
    /// even if nothing was submitted. The lanes themselves have no bound: the owner limits how much
    /// is submitted.
    ///
    /// If a handler panics, its batch is lost, and the lane continues. The panic may have left the
    /// state half changed, so `begin` is called again with that state, and returns the state to
    /// continue with.
    ///
    /// ```
    /// # use std::{sync::mpsc, time::{Duration, Instant}};
    /// use pool::Standing;
    ///
    /// let (sender, handled) = mpsc::channel();
    /// let lanes = pool::Lanes::start("lane", 2, 100, |_, _| (0, None), move |sum: &mut u32, batch: Vec<u32>| {
    ///     *sum += batch.iter().sum::<u32>();
    ///     sender.send(*sum).unwrap();
    ///     None
    /// })?;
    /// lanes.submit(7, Standing::of(1), 1, 4).unwrap();
    /// lanes.submit(7, Standing::of(1), 2, 4).unwrap();
    /// assert_eq!(lanes.close(Instant::now() + Duration::from_secs(10)), 0);
    /// assert_eq!(handled.iter().last(), Some(3));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the system cannot start a thread, or has no random numbers.
    pub fn start<S: Send + 'static>(
        name: &str,
        count: usize,
        batch_max: impl Into<BatchMax>,
        begin: impl Fn(usize, Option<S>) -> (S, Option<Again>) + Send + Sync + 'static,
        handle: impl Fn(&mut S, Vec<T>) -> Option<Again> + Send + Sync + 'static,
    ) -> io::Result<Lanes<T>> {
        let (work, batch_max) = (Arc::new((begin, handle)), batch_max.into());
        let mut lanes = Lanes::without_threads(count, getrandom::u64().map_err(io::Error::other)?);
        for (nth, lane) in lanes.lanes.iter().enumerate() {
            let (work, lane) = (work.clone(), lane.clone());
            let (state, again) = work.0(nth, None);
            let run = move || {
                let (begin, handle) = &*work;
                lane.run(batch_max, Hand { state, again, done: 0 }, |state| begin(nth, Some(state)), handle);
            };
            lanes.threads.get_mut().push(thread::Builder::new().name(format!("{name}-{nth}")).spawn(run)?);
        }
        Ok(lanes)
    }

    fn without_threads(count: usize, secret: u64) -> Lanes<T> {
        let lane = |_| {
            let queue = LaneQueue {
                items: FairQueue::new(secret),
                in_hand: 0,
                since: None,
                bytes: 0,
                closing: false,
                ended: false,
                held: [0; 2],
                wanted: 0,
            };
            Arc::new(Lane { queue: Mutex::new(queue), news: Condvar::new(), idle: Condvar::new() })
        };
        Lanes { lanes: (0..count).map(lane).collect(), threads: Mutex::default() }
    }

    /// Like [`Lanes::start`] without threads: the owner of the [`ManualLane`]s decides when a batch
    /// is handled. [`Lanes::close`] only tells the lanes to end.
    #[cfg(feature = "simulation")]
    pub fn manual<S: Send + 'static>(
        count: usize,
        batch_max: impl Into<BatchMax>,
        begin: impl Fn(usize, Option<S>) -> (S, Option<Again>),
        handle: impl Fn(&mut S, Vec<T>) -> Option<Again> + Send + Sync + 'static,
    ) -> (Lanes<T>, Vec<Box<dyn ManualLane>>) {
        let (handle, batch_max) = (Arc::new(handle), batch_max.into());
        // The same secret each time, because a simulation must repeat itself.
        let lanes = Lanes::without_threads(count, 0x9E37_79B9_7F4A_7C15);
        let by_hand = |(nth, lane): (usize, &Arc<Lane<T>>)| {
            let (state, again) = begin(nth, None);
            let hand = Hand { state, again, done: 0 };
            let by_hand = ByHand { lane: lane.clone(), hand, batch: None, batch_max, handle: handle.clone() };
            Box::new(by_hand) as Box<dyn ManualLane>
        };
        let by_hand = lanes.lanes.iter().enumerate().map(by_hand).collect();
        (lanes, by_hand)
    }

    /// Queues `item`, which weighs `bytes`, in the lane of this key. Never blocks; the caller
    /// limits the total.
    ///
    /// # Errors
    ///
    /// [`LanesClosed`] with the item, if the lanes are closing.
    pub fn submit(&self, key: u64, standing: Standing, item: T, bytes: usize) -> Result<(), LanesClosed<T>> {
        let queue = self.lane(key).queue.lock();
        if queue.closing {
            return Err(LanesClosed(item));
        }
        self.push(key, queue, standing, item, bytes);
        Ok(())
    }

    /// Queues `item` even while the lanes are closing: for items that were accepted before.
    ///
    /// # Errors
    ///
    /// [`LanesClosed`] with the item after [`Lanes::close`] has returned 0, when nothing would
    /// handle it.
    pub fn submit_late(&self, key: u64, standing: Standing, item: T, bytes: usize) -> Result<(), LanesClosed<T>> {
        let queue = self.lane(key).queue.lock();
        if queue.ended {
            return Err(LanesClosed(item));
        }
        self.push(key, queue, standing, item, bytes);
        Ok(())
    }

    /// Delays each lane's next batch until the guard is dropped, so that items submitted meanwhile
    /// share a batch (up to `batch_max`). A lane that is already waiting for earlier guards does
    /// not wait for this one. The holder of a guard must not wait for the lanes.
    pub fn hold(&self) -> LaneHold<'_, T> {
        let hold = |lane| {
            let Lane { queue, .. }: &Lane<T> = lane;
            let mut queue = queue.lock();
            let wanted = queue.wanted;
            queue.held[wanted % 2] += 1;
            (lane, wanted)
        };
        LaneHold { lanes: self.lanes.iter().map(|lane| hold(&**lane)).collect() }
    }

    /// A handle for observing the lanes from another thread. The handle does not prevent them from
    /// closing.
    pub fn watch(&self) -> LanesWatch<T> {
        LanesWatch { lanes: self.lanes.clone() }
    }

    /// Handles the waiting items, then ends. Waits until `by` at most. Returns the number of items
    /// left, without those that a handler has put back to retry. Threads that have not ended by
    /// then end with the process.
    pub fn close(&self, by: Instant) -> usize {
        for lane in &self.lanes {
            lane.queue.lock().closing = true;
            lane.news.notify_one();
        }
        let (threads, mut left) = (std::mem::take(&mut *self.threads.lock()), 0);
        for (lane, thread) in self.lanes.iter().zip(threads) {
            let mut queue = lane.queue.lock();
            while !queue.ended {
                if lane.idle.wait_until(&mut queue, by).timed_out() {
                    break;
                }
            }
            if queue.ended {
                drop(queue);
                if thread.join().is_err() {
                    log::error!("a lane has panicked");
                }
            } else {
                left += queue.items.len() + queue.in_hand;
            }
        }
        left
    }

    fn lane(&self, key: u64) -> &Lane<T> {
        &self.lanes[lane_of(key, self.lanes.len() as u64) as usize]
    }

    fn push(&self, key: u64, mut queue: MutexGuard<'_, LaneQueue<T>>, standing: Standing, item: T, bytes: usize) {
        queue.bytes += bytes;
        queue.items.push(key, standing, item, bytes);
        let is_news = queue.items.len() == 1 && queue.held == [0; 2];
        drop(queue);
        // The thread takes all waiting items, so it sleeps only on an empty queue, or on one that
        // is held.
        if is_news {
            self.lane(key).news.notify_one();
        }
    }
}

/// The lane, of `lanes` lanes, that handles the items of a key.
pub fn lane_of(key: u64, lanes: u64) -> u64 {
    key % lanes
}

impl<T> Drop for LaneHold<'_, T> {
    fn drop(&mut self) {
        for (lane, wanted) in &self.lanes {
            let mut queue = lane.queue.lock();
            let held = &mut queue.held[wanted % 2];
            *held -= 1;
            if *held == 0 || !queue.items.is_empty() {
                drop(queue);
                lane.news.notify_one();
            }
        }
    }
}

impl<T> LanesWatch<T> {
    /// The current fill level of each lane, in the order of their names.
    pub fn loads(&self) -> Vec<LaneLoad> {
        let load = |lane: &Arc<Lane<T>>| {
            let queue = lane.queue.lock();
            LaneLoad { items: queue.items.len(), bytes: queue.bytes }
        };
        self.lanes.iter().map(load).collect()
    }

    /// The time for which each lane has handled its batch; zero if it has none.
    pub fn busy(&self) -> Vec<Duration> {
        let busy = |lane: &Arc<Lane<T>>| lane.queue.lock().since.map_or(Duration::ZERO, |since| since.elapsed());
        self.lanes.iter().map(busy).collect()
    }
}

/// The state of a lane's thread between batches.
struct Hand<S> {
    state: S,
    /// The time at which the handler should be called again if nothing is submitted.
    again: Option<Again>,
    /// The weight of the last batch, until the lane knows that the batch is done.
    done: usize,
}

impl<T> Lane<T> {
    fn run<S>(
        &self,
        batch_max: BatchMax,
        mut hand: Hand<S>,
        begin_again: impl Fn(S) -> (S, Option<Again>),
        handle: &impl Fn(&mut S, Vec<T>) -> Option<Again>,
    ) {
        while let Some(batch) = self.wait(&mut hand, batch_max) {
            let count = batch.len();
            match catch_unwind(AssertUnwindSafe(|| handle(&mut hand.state, batch))) {
                Ok(again) => hand.again = again,
                Err(_) => {
                    log::error!("a batch of {count} items panicked and is lost; the lane goes on with the next");
                    let Hand { state, done, .. } = hand;
                    let (state, again) = begin_again(state);
                    hand = Hand { state, again, done };
                }
            }
        }
    }

    /// Waits for the next batch, and returns it; `None` at the end. Blocks.
    fn wait<S>(&self, hand: &mut Hand<S>, batch_max: BatchMax) -> Option<Vec<T>> {
        let mut queue = self.queue.lock();
        queue.bytes -= std::mem::take(&mut hand.done);
        (queue.in_hand, queue.since) = (0, None);
        while queue.items.is_empty() {
            match hand.again {
                None | Some(Again::UnlessClosing(_)) if queue.closing => {
                    queue.ended = true;
                    self.idle.notify_all();
                    return None;
                }
                None => self.news.wait(&mut queue),
                Some(Again::After(after) | Again::UnlessClosing(after)) => {
                    self.news.wait_for(&mut queue, after);
                    break;
                }
            }
        }
        let before = queue.wanted % 2;
        queue.wanted += 1;
        while queue.held[before] > 0 {
            self.news.wait(&mut queue);
        }
        Some(take(queue, hand, batch_max))
    }
}

fn take<T, S>(mut queue: MutexGuard<'_, LaneQueue<T>>, hand: &mut Hand<S>, batch_max: BatchMax) -> Vec<T> {
    let (batch, bytes) = queue.items.take(batch_max);
    queue.in_hand = batch.len();
    queue.since = (!batch.is_empty()).then(Instant::now);
    hand.done = bytes;
    batch
}

/// A lane without a thread, from [`Lanes::manual`].
#[cfg(feature = "simulation")]
pub trait ManualLane: Send {
    /// Takes a batch, unless one was taken, or no item waits and `even_nothing` is false. Returns
    /// whether there is a batch now.
    fn take(&mut self, even_nothing: bool) -> bool;

    /// Handles the batch that was taken.
    fn handle(&mut self);

    /// Whether a batch was taken.
    fn has_taken(&self) -> bool;

    /// The number of waiting items.
    fn waiting(&self) -> usize;

    /// The time at which the handler should be called again if nothing is submitted, counted from
    /// its last call.
    fn again(&self) -> Option<Again>;

    /// Ends the lane if it is closed and has no more work. Returns whether it has ended.
    fn end(&mut self) -> bool;
}

#[cfg(feature = "simulation")]
struct ByHand<T, S, H> {
    lane: Arc<Lane<T>>,
    hand: Hand<S>,
    batch: Option<Vec<T>>,
    batch_max: BatchMax,
    handle: Arc<H>,
}

#[cfg(feature = "simulation")]
impl<T: Send, S: Send, H: Fn(&mut S, Vec<T>) -> Option<Again> + Send + Sync> ManualLane for ByHand<T, S, H> {
    fn take(&mut self, even_nothing: bool) -> bool {
        let queue = self.lane.queue.lock();
        if self.batch.is_none() && (even_nothing || !queue.items.is_empty()) {
            self.batch = Some(take(queue, &mut self.hand, self.batch_max));
        }
        self.batch.is_some()
    }

    fn handle(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.hand.again = (self.handle)(&mut self.hand.state, batch);
            let mut queue = self.lane.queue.lock();
            queue.bytes -= std::mem::take(&mut self.hand.done);
            queue.since = None;
        }
    }

    fn has_taken(&self) -> bool {
        self.batch.is_some()
    }

    fn waiting(&self) -> usize {
        self.lane.queue.lock().items.len()
    }

    fn again(&self) -> Option<Again> {
        self.hand.again
    }

    fn end(&mut self) -> bool {
        let mut queue = self.lane.queue.lock();
        let must_come_again = matches!(self.hand.again, Some(Again::After(_)));
        queue.ended |= queue.closing && queue.items.is_empty() && self.batch.is_none() && !must_come_again;
        queue.ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn one() -> Standing {
        Standing::of(1)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn items_of_a_key_keep_their_order_and_none_is_lost() {
        let (sender, receiver) = mpsc::channel();
        let handle = move |_: &mut (), batch: Vec<(u64, u32)>| {
            sender.send(batch).expect("received below");
            None
        };
        let lanes = Lanes::start("test", 3, 7, |_, _| ((), None), handle).expect("threads");
        for nth in 0..1000 {
            for key in 0..5 {
                lanes.submit(key, one(), (key, nth), 1).expect("room");
            }
        }
        assert_eq!(lanes.close(soon()), 0);
        let batches: Vec<_> = receiver.iter().collect();
        assert!(batches.iter().all(|batch| batch.len() <= 7));
        for key in 0..5 {
            let of_key = batches.iter().flatten().filter(|(other, _)| *other == key).map(|(_, nth)| *nth);
            assert!(of_key.eq(0..1000));
        }
    }

    #[test]
    fn items_submitted_while_a_lane_is_held_are_one_batch() {
        let (sender, receiver) = mpsc::channel();
        let handle = move |_: &mut (), batch: Vec<u32>| {
            sender.send(batch).expect("received below");
            None
        };
        let lanes = Lanes::start("test", 1, 100, |_, _| ((), None), handle).expect("a thread");
        for round in 0..100 {
            let held = lanes.hold();
            for nth in 0..3 {
                lanes.submit(1, one(), 3 * round + nth, 1).expect("room");
                // Gives the lane many opportunities to run.
                thread::yield_now();
            }
            drop(held);
            assert_eq!(receiver.recv().expect("a batch").len(), 3);
        }
    }

    #[test]
    fn overlapping_holders_do_not_hold_a_lane_for_ever() {
        let (sender, receiver) = mpsc::channel();
        let handle = move |_: &mut (), batch: Vec<u32>| {
            sender.send(batch).expect("received below");
            None
        };
        let lanes = Lanes::start("test", 1, 100, |_, _| ((), None), handle).expect("a thread");
        let (mut held, deadline) = (lanes.hold(), soon());
        lanes.submit(1, one(), 7, 1).expect("room");
        while receiver.try_recv() != Ok(vec![7]) {
            assert!(Instant::now() < deadline, "somebody always holds it");
            drop(std::mem::replace(&mut held, lanes.hold()));
            thread::yield_now();
        }
    }

    #[test]
    fn items_weigh_until_their_batch_is_done_and_a_panic_ends_a_batch_only() {
        let (entered, has_entered) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let handle = move |_: &mut (), batch: Vec<u32>| -> Option<Again> {
            entered.send(batch).expect("received below");
            held.lock().recv().expect("released below");
            panic!("on purpose");
        };
        let lanes = Lanes::start("test", 1, 100, |_, _| ((), None), handle).expect("a thread");
        lanes.submit(1, one(), 1, 10).expect("it is open");
        assert_eq!(has_entered.recv(), Ok(vec![1]));
        assert_eq!(lanes.watch().loads(), [LaneLoad { items: 0, bytes: 10 }]);
        lanes.submit(1, one(), 2, 5).expect("it is open");
        assert_eq!(lanes.watch().loads(), [LaneLoad { items: 1, bytes: 15 }]);
        release.send(()).expect("the lane waits");
        assert_eq!(has_entered.recv(), Ok(vec![2]));
        assert_eq!(lanes.watch().loads(), [LaneLoad { items: 0, bytes: 5 }]);
        assert_eq!(lanes.close(Instant::now()), 1, "a lane that does not end in time is reported");
    }

    #[test]
    fn a_handler_that_asks_for_it_is_called_again_and_the_end_waits_for_that() {
        let (sender, receiver) = mpsc::channel();
        let handle = move |calls: &mut u32, batch: Vec<u32>| {
            *calls += 1;
            sender.send((*calls, batch)).expect("received below");
            (*calls < 3).then_some(Again::After(Duration::from_millis(1)))
        };
        let lanes = Lanes::start("test", 1, 100, |_, _| (0, None), handle).expect("a thread");
        lanes.submit(1, one(), 7, 1).expect("room");
        assert_eq!(lanes.close(soon()), 0);
        assert_eq!(lanes.submit(1, one(), 8, 1), Err(LanesClosed(8)));
        assert_eq!(lanes.submit_late(1, one(), 8, 1), Err(LanesClosed(8)));
        let calls: Vec<_> = receiver.iter().collect();
        assert_eq!(calls, [(1, vec![7]), (2, vec![]), (3, vec![])]);
    }

    #[test]
    fn a_lane_goes_on_after_a_panic_with_the_state_that_is_made_of_the_one_before() {
        let (sender, receiver) = mpsc::channel();
        let handle = move |sum: &mut u32, batch: Vec<u32>| {
            *sum += batch.iter().sum::<u32>();
            assert!(!batch.contains(&13), "on purpose");
            sender.send(*sum).expect("received below");
            None
        };
        let begin = |_, panicked: Option<u32>| {
            let again = panicked.map(|_| Again::UnlessClosing(Duration::ZERO));
            (panicked.map_or(0, |sum| 1000 + sum), again)
        };
        let lanes = Lanes::start("test", 1, 100, begin, handle).expect("a thread");
        lanes.submit(1, one(), 2, 1).expect("it is open");
        assert_eq!(receiver.recv(), Ok(2));
        lanes.submit(1, one(), 13, 1).expect("it is open");
        assert_eq!(receiver.recv(), Ok(1015), "it is called at once, because it was to begin so");
        lanes.submit(1, one(), 5, 1).expect("it is open");
        assert_eq!(receiver.recv(), Ok(1020));
        assert_eq!(lanes.close(soon()), 0);
    }

    #[test]
    fn a_handler_that_is_to_begin_is_called_without_an_item_and_the_end_does_not_wait_for_what_can_be_left() {
        const LONG: Duration = Duration::from_secs(3600);
        let (sender, receiver) = mpsc::channel();
        let handle = move |nth: &mut usize, batch: Vec<u32>| {
            sender.send((*nth, batch)).expect("received below");
            Some(Again::UnlessClosing(LONG))
        };
        let begin = |nth, _| (nth, (nth == 1).then_some(Again::UnlessClosing(Duration::ZERO)));
        let lanes = Lanes::start("test", 2, 100, begin, handle).expect("threads");
        assert_eq!(receiver.recv(), Ok((1, vec![])), "only the second begins");
        lanes.submit(0, one(), 5, 1).expect("room");
        assert_eq!(receiver.recv(), Ok((0, vec![5])));
        assert_eq!(lanes.close(soon()), 0, "nobody waits for an hour");
    }
}
