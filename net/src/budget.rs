//! [`Budget`]: the work that a step of a turn may still do, in all and for one share.
//!
//! Work is counted in bytes of frames, because that costs nothing. The cost per byte varies, so the
//! clock is read now and then, and time counts as the work that usually takes as long: one limit
//! bounds both.

use std::time::{Duration, Instant};

/// The work of one turn, and its bounds.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Work of this turn so far.
    work: usize,
    /// While the work is below this, no limit is reached and the clock need not be read: this is
    /// the only comparison for each frame.
    next_look: usize,
    /// The work at the beginning of the step, and its limit.
    step: (usize, usize),
    /// The share that is being served.
    served: Option<Served>,
    /// The work and the time when the clock was last read.
    looked: (usize, Instant),
    /// The clock, which only loops have: a simulation must do the same work on a fast and a slow
    /// machine.
    clock: Option<fn() -> Instant>,
    spenders: Spenders,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    share: u64,
    /// The work at the beginning, and at the end of the share's part of this turn.
    from: usize,
    end: usize,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Budget {
        let mut budget = Budget {
            work: 0,
            next_look: 0,
            step: (0, 0),
            served: None,
            looked: (0, now),
            clock: None,
            spenders: Spenders::new(),
        };
        budget.begin(now);
        budget
    }

    /// Begins a turn, with the step that serves connections.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.work, self.served, self.looked) = (0, None, (0, now));
        self.spenders.forget();
        self.begin_step(SERVING_WORK_MAX);
    }

    pub(crate) fn watch_clock(&mut self, clock: fn() -> Instant) {
        self.clock = Some(clock);
    }

    /// Begins another step. If the last one did hardly any work, reading the clock is not worth it.
    pub(crate) fn next_step(&mut self) {
        if self.work >= self.next_look || self.work - self.step.0 >= WORK_BETWEEN_LOOKS {
            self.charge_time();
        }
        self.begin_step(STEP_WORK_MAX);
    }

    fn begin_step(&mut self, work_max: usize) {
        self.step = (self.work, self.work + work_max);
        self.next_look = self.work + WORK_BETWEEN_LOOKS.min(work_max);
    }

    pub(crate) fn spend(&mut self, work: usize) {
        self.work += work;
    }

    /// Whether the step, or the share being served, has used up its budget.
    pub(crate) fn is_spent(&mut self) -> bool {
        self.work >= self.next_look && self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        let end = |budget: &Budget| budget.served.map_or(budget.step.1, |served| served.end.min(budget.step.1));
        if self.work < end(self) {
            self.charge_time();
        }
        let end = end(self);
        self.next_look = end.min(self.work + WORK_BETWEEN_LOOKS);
        self.work >= end
    }

    /// Counts the time since the clock was last read as work, if that is more than the counted
    /// work.
    fn charge_time(&mut self) {
        let Some(clock) = self.clock else { return };
        let (work, then) = self.looked;
        let now = clock();
        self.work = self.work.max(work + work_of(now.saturating_duration_since(then)));
        self.looked = (self.work, now);
    }

    /// Whether the share has some of its part of this turn left.
    pub(crate) fn has_left(&self, share: u64) -> bool {
        self.work < SHARE_WORK_MAX || self.spenders.work_of(share) < SHARE_WORK_MAX
    }

    /// From here on all work counts for this share.
    pub(crate) fn begin_serving(&mut self, share: u64) {
        let done = if self.work < UNTRACKED_WORK { 0 } else { self.spenders.work_of(share) };
        let end = self.work + SHARE_WORK_MAX.saturating_sub(done);
        self.next_look = self.next_look.min(end);
        self.served = Some(Served { share, from: self.work, end });
    }

    pub(crate) fn end_serving(&mut self) {
        if let Some(Served { share, from, .. }) = self.served.take()
            && self.work >= UNTRACKED_WORK
        {
            self.spenders.add(share, self.work - from);
        }
    }
}

/// The work of shares in this turn. Each place holds one share; a share with more work takes the
/// place of one with less. A share without a place has done little or is not charged this time, and
/// is never charged for the work of another.
#[derive(Debug)]
struct Spenders {
    turn: u32,
    places: Box<[Spender; SPENDERS]>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Spender {
    share: u64,
    turn: u32,
    work: u32,
}

impl Spenders {
    fn new() -> Spenders {
        Spenders { turn: 0, places: Box::new([Spender::default(); SPENDERS]) }
    }

    fn forget(&mut self) {
        // Places begin with turn 0.
        self.turn = self.turn.checked_add(1).unwrap_or(1);
    }

    fn work_of(&self, share: u64) -> usize {
        let place = &self.places[place_of(share)];
        if place.turn == self.turn && place.share == share { place.work as usize } else { 0 }
    }

    fn add(&mut self, share: u64, work: usize) {
        let turn = self.turn;
        let place = &mut self.places[place_of(share)];
        let work = u32::try_from(work).unwrap_or(u32::MAX);
        if place.turn == turn && place.share == share {
            place.work = place.work.saturating_add(work);
        } else if place.turn != turn || place.work < work {
            *place = Spender { share, turn, work };
        }
    }
}

fn place_of(share: u64) -> usize {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the share.
    (share.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - SPENDERS.ilog2())) as usize
}

fn work_of(time: Duration) -> usize {
    usize::try_from(time.as_micros()).unwrap_or(usize::MAX).saturating_mul(WORK_PER_MICROSECOND)
}

/// Work that takes about a microsecond: a short frame with its part of reading and writing.
const WORK_PER_MICROSECOND: usize = 512;
/// The most work for one share in a turn: half a millisecond, or a few hundred short frames.
const SHARE_WORK_MAX: usize = 256 * 1024;
/// Work at the beginning of a turn that is not tracked: most turns are shorter.
const UNTRACKED_WORK: usize = 32 * 1024;
/// The most work of a step other than serving connections: more than one share's, so that the
/// waiting work of other shares is looked at in the same turn.
const STEP_WORK_MAX: usize = 2 * SHARE_WORK_MAX;
/// The most work for all shares together in a turn. The more frames a turn takes from clients with
/// few requests each, the fewer system calls a frame costs.
const SERVING_WORK_MAX: usize = 2 * 1024 * 1024;
/// The work between two readings of the clock: a few tens of microseconds.
const WORK_BETWEEN_LOOKS: usize = 32 * 1024;
/// The number of places for shares: far more than can use up their part of one turn.
const SPENDERS: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::*;

    /// Serves a share in frames of this much work, until its budget or the step's is spent. Returns
    /// the work done.
    fn serve(budget: &mut Budget, share: u64, frame: usize, frames: usize) -> usize {
        budget.begin_serving(share);
        let mut work = 0;
        for _ in 0..frames {
            if budget.is_spent() {
                break;
            }
            budget.spend(frame);
            work += frame;
        }
        budget.end_serving();
        work
    }

    #[test]
    fn a_share_has_its_part_and_others_have_theirs() {
        let mut budget = Budget::new(Instant::now());
        assert!(serve(&mut budget, 1, 1000, usize::MAX).abs_diff(SHARE_WORK_MAX) <= 1000);
        assert!(!budget.has_left(1) && budget.has_left(2));
        assert!(!budget.is_spent(), "the step goes on for the others");
        // Two visits do the same as one.
        assert_eq!(serve(&mut budget, 2, 1000, 200), 200_000);
        assert!(budget.has_left(2));
        assert!((200_000 + serve(&mut budget, 2, 1000, usize::MAX)).abs_diff(SHARE_WORK_MAX) <= 1000);
        budget.begin(Instant::now());
        assert!(budget.has_left(1) && budget.has_left(2));
    }

    #[test]
    fn all_shares_together_end_the_step_and_the_next_step_has_work_of_its_own() {
        let mut budget = Budget::new(Instant::now());
        let all: usize = (0..100).map(|share| serve(&mut budget, share, 1000, usize::MAX)).sum();
        assert!(budget.is_spent() && all.abs_diff(SERVING_WORK_MAX) <= 10_000, "{all}");
        budget.next_step();
        assert!(!budget.is_spent());
        budget.spend(STEP_WORK_MAX);
        assert!(budget.is_spent());
    }

    thread_local! {
        static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    fn clock() -> Instant {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        *BEGINNING + PASSED.get()
    }

    #[test]
    fn slow_work_counts_by_its_time_for_the_share_that_does_it() {
        let mut budget = Budget::new(clock());
        budget.watch_clock(clock);
        budget.begin_serving(1);
        budget.spend(64 * 1024);
        assert!(!budget.is_spent(), "no time has passed");
        PASSED.set(Duration::from_millis(1));
        budget.spend(64 * 1024);
        assert!(budget.is_spent());
        budget.end_serving();
        assert!(!budget.has_left(1) && !budget.is_spent());
        budget.begin_serving(2);
        assert!(!budget.is_spent(), "the time of one share is not another's");
        budget.end_serving();
    }

    #[test]
    fn a_share_is_not_charged_for_another_in_its_place() {
        let place = place_of(1);
        let other = (2..).find(|share| place_of(*share) == place).expect("there are more shares than places");
        let mut spenders = Spenders::new();
        spenders.forget();
        spenders.add(1, 1000);
        spenders.add(other, 10);
        assert_eq!((spenders.work_of(1), spenders.work_of(other)), (1000, 0));
        spenders.add(other, 2000);
        assert_eq!((spenders.work_of(1), spenders.work_of(other)), (0, 2000));
    }
}
