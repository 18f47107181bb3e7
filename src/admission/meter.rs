//! [`Meter`]: how fast one connection may send.
//!
//! Two token buckets, one for frames and one for bytes. A frame costs a decrement of each; bytes
//! between frames cost their number. Only when a bucket is empty is the time read: then the bucket
//! gets what its rate has earned since it was last filled, at most its burst. So after a pause a
//! client may send the rest of a bucket and another burst, which is the price for not reading a
//! clock for every frame.

use std::time::{Duration, Instant};

use crate::config::Rate;

/// The rates at which every connection may send.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The rate in frames.
    pub frames: Rate,
    /// The rate in bytes, inside and between frames.
    pub bytes: Rate,
    /// The zero of the meters' time.
    pub epoch: Instant,
}

/// The allowance that one connection has left. Small: there is one for each connection, however
/// idle.
#[derive(Clone, Copy, Default, Debug)]
pub struct Meter {
    frames: RateBucket,
    bytes: RateBucket,
    /// The number of frames refused since a bucket was last full.
    refused: u16,
    /// The reason why the current frame is refused. Stored, because the frame may have to wait for
    /// its reply and would be within the limit by then.
    refusing: Option<Excess>,
    begun: bool,
}

/// The exceeded limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Excess {
    /// Too many frames.
    Frames,
    /// Too many bytes.
    Bytes,
}

/// The refusal of a frame beyond the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateRefusal {
    /// The limit.
    pub excess: Excess,
    /// The client has kept exceeding the limit: the connection is to be closed.
    pub last: bool,
}

#[derive(Clone, Copy, Default, Debug)]
struct RateBucket {
    /// The tokens left. A frame may cost more than that; the rest is a debt.
    tokens: i32,
    /// The time until which it was filled, in milliseconds since the epoch; it may wrap.
    filled: u32,
}

impl Meter {
    /// Whether the next frame may be processed. The frame is not paid for yet: if it has to wait,
    /// this is called again.
    pub fn check(&mut self, now: Instant, rates: &Rates) -> Result<(), RateRefusal> {
        if self.has_some() { Ok(()) } else { self.look(now, rates, true) }
    }

    /// Whether a frame may be processed without reading the time. Changes nothing.
    fn has_some(&self) -> bool {
        self.frames.tokens > 0 && self.bytes.tokens > 0 && self.refusing.is_none()
    }

    /// Like [`Meter::check`], for bytes between frames.
    pub fn check_blanks(&mut self, now: Instant, rates: &Rates) -> Result<(), RateRefusal> {
        self.look(now, rates, false)
    }

    /// The time that the next frame has to wait, if any: for connections whose excess is delayed
    /// instead of refused.
    pub fn pause(&mut self, now: Instant, rates: &Rates) -> Option<Duration> {
        if self.check(now, rates).is_ok() {
            return None;
        }
        self.refusing = None;
        let wait = |bucket: &RateBucket, rate: Rate| {
            let missing = u64::from((1 - bucket.tokens.min(1)).unsigned_abs());
            rate.0.map_or(0, |rate| (missing * 1000).div_ceil(u64::from(rate.per_second.max(1))))
        };
        let wait = wait(&self.frames, rates.frames).max(wait(&self.bytes, rates.bytes));
        Some(Duration::from_millis(wait.max(1)))
    }

    /// Handles an empty bucket, or a frame that was refused when it was first seen.
    #[cold]
    fn look(&mut self, now: Instant, rates: &Rates, is_frame: bool) -> Result<(), RateRefusal> {
        if self.refusing.is_none() {
            let now = now.saturating_duration_since(rates.epoch).as_millis() as u32;
            let frames_full = self.frames.fill(now, rates.frames, self.begun);
            let bytes_full = self.bytes.fill(now, rates.bytes, self.begun);
            self.begun = true;
            if frames_full || bytes_full {
                self.refused = 0;
            }
            self.refusing = match (self.frames.tokens, self.bytes.tokens) {
                (..=0, _) if is_frame => Some(Excess::Frames),
                (_, ..=0) => Some(Excess::Bytes),
                _ => None,
            };
        }
        match self.refusing {
            None => Ok(()),
            Some(excess) => Err(RateRefusal { excess, last: u32::from(self.refused) >= rates.refused_max() }),
        }
    }

    /// Pays for a frame that was processed.
    pub fn pay(&mut self, len: usize) {
        self.frames.tokens -= 1;
        self.pay_blanks(len);
    }

    /// Pays for bytes between frames.
    pub fn pay_blanks(&mut self, len: usize) {
        self.bytes.tokens = self.bytes.tokens.saturating_sub(i32::try_from(len).unwrap_or(i32::MAX));
    }

    /// Counts a refused frame, which costs nothing.
    pub fn refused(&mut self) {
        self.refused = self.refused.saturating_add(1);
        self.refusing = None;
    }
}

impl Rates {
    /// The number of refused frames after which the connection is closed: the burst, within limits.
    fn refused_max(&self) -> u32 {
        self.frames.0.map_or(REFUSED_MAX, |frames| frames.burst.min(REFUSED_MAX))
    }
}

impl RateBucket {
    /// Fills an empty or a new bucket with what the time has earned. Returns whether it is full
    /// now.
    fn fill(&mut self, now: u32, rate: Rate, begun: bool) -> bool {
        if self.tokens > 0 {
            return false;
        }
        let Some(rate) = rate.0 else {
            self.tokens = i32::MAX;
            return false;
        };
        let burst = i64::from(rate.burst);
        let elapsed = u64::from(now.wrapping_sub(self.filled));
        let earned = elapsed * u64::from(rate.per_second) / 1000;
        let tokens = i64::from(self.tokens) + i64::try_from(earned).unwrap_or(i64::MAX);
        let full = !begun || tokens >= burst;
        if full {
            (self.tokens, self.filled) = (rate.burst.cast_signed(), now);
        } else {
            self.tokens = tokens as i32;
            // Subtracts only the time that was converted into tokens: the rest counts the next
            // time.
            let used = (earned * 1000).div_ceil(u64::from(rate.per_second));
            self.filled = self.filled.wrapping_add(used as u32);
        }
        full
    }
}

/// After this many refused frames it is certain that the client ignores refusals.
const REFUSED_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::PerSecond;

    fn rates(frames: Option<(u32, u32)>, bytes: Option<(u32, u32)>) -> Rates {
        let rate = |limit: Option<(u32, u32)>| Rate(limit.map(|(per_second, burst)| PerSecond { per_second, burst }));
        Rates { frames: rate(frames), bytes: rate(bytes), epoch: Instant::now() }
    }

    /// Sends `count` frames of this length at this time. Returns how many were processed, how many
    /// were refused, and whether the connection was closed.
    fn send(meter: &mut Meter, rates: &Rates, millis: u64, count: usize, len: usize) -> (usize, usize, bool) {
        let now = rates.epoch + Duration::from_millis(millis);
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..count {
            match meter.check(now, rates) {
                Ok(()) => {
                    meter.pay(len);
                    taken += 1;
                }
                Err(RateRefusal { last, .. }) => {
                    meter.refused();
                    refused += 1;
                    if last {
                        return (taken, refused, true);
                    }
                }
            }
        }
        (taken, refused, false)
    }

    #[test]
    fn a_burst_passes_and_then_what_the_rate_earns() {
        let (mut meter, rates) = (Meter::default(), rates(Some((10, 20)), None));
        // The bucket fills from the first frame on, not from the beginning of the connection.
        assert_eq!(send(&mut meter, &rates, 5000, 20, 50), (20, 0, false));
        assert_eq!(send(&mut meter, &rates, 5000, 3, 50), (0, 3, false));
        assert_eq!(send(&mut meter, &rates, 5099, 1, 50), (0, 1, false));
        assert_eq!(send(&mut meter, &rates, 5100, 2, 50), (1, 1, false));
        // The rest of an interval is not lost.
        assert_eq!(send(&mut meter, &rates, 5250, 2, 50), (1, 1, false));
        assert_eq!(send(&mut meter, &rates, 5300, 2, 50), (1, 1, false));
        assert_eq!(send(&mut meter, &rates, 60_000, 21, 50), (20, 1, false), "never more than the burst at once");
    }

    #[test]
    fn a_client_that_goes_on_is_closed_and_one_that_pauses_is_forgiven() {
        let rates = rates(Some((10, 20)), None);
        let mut meter = Meter::default();
        assert_eq!(send(&mut meter, &rates, 0, 100, 50), (20, 21, true));
        let mut meter = Meter::default();
        assert_eq!(send(&mut meter, &rates, 0, 40, 50), (20, 20, false));
        assert_eq!(send(&mut meter, &rates, 2000, 40, 50), (20, 20, false));
        assert_eq!(send(&mut meter, &rates, 2500, 6, 50), (5, 1, true), "it was not full in between");
    }

    #[test]
    fn bytes_are_counted_too_and_one_frame_may_be_longer_than_the_burst() {
        let (mut meter, rates) = (Meter::default(), rates(None, Some((1000, 1000))));
        assert_eq!(send(&mut meter, &rates, 0, 3, 400), (3, 0, false));
        assert_eq!(send(&mut meter, &rates, 200, 1, 400), (0, 1, false), "the debt is paid and nothing more");
        assert_eq!(send(&mut meter, &rates, 201, 1, 5000), (1, 0, false));
        assert_eq!(
            meter.check(rates.epoch + Duration::from_secs(5), &rates),
            Err(RateRefusal { excess: Excess::Bytes, last: false })
        );
        meter.refused();
        assert_eq!(send(&mut meter, &rates, 5201, 1, 1), (1, 0, false));
    }

    #[test]
    fn bytes_without_a_frame_are_counted_but_not_as_frames() {
        let (mut meter, rates) = (Meter::default(), rates(Some((1, 2)), Some((1000, 1000))));
        let refusal = |last| Err(RateRefusal { excess: Excess::Bytes, last });
        assert_eq!(send(&mut meter, &rates, 0, 3, 9), (2, 1, false));
        assert_eq!(meter.check_blanks(rates.epoch, &rates), Ok(()), "there are no more frames, but bytes");
        meter.pay_blanks(4982);
        assert_eq!(meter.check_blanks(rates.epoch, &rates), refusal(false));
        meter.refused();
        // They are refused as often as frames are.
        assert_eq!(meter.check_blanks(rates.epoch, &rates), refusal(true));
        meter.refused();
        let now = rates.epoch + Duration::from_millis(4001);
        assert_eq!(meter.check_blanks(now, &rates), Ok(()), "the debt is paid");
    }

    #[test]
    fn a_refusal_that_must_wait_stays_one() {
        let (mut meter, rates) = (Meter::default(), rates(Some((1, 1)), None));
        assert_eq!(send(&mut meter, &rates, 0, 1, 9), (1, 0, false));
        let refusal = Err(RateRefusal { excess: Excess::Frames, last: false });
        assert_eq!(meter.check(rates.epoch, &rates), refusal);
        assert_eq!(meter.check(rates.epoch + Duration::from_secs(10), &rates), refusal);
        meter.refused();
        assert_eq!(meter.check(rates.epoch + Duration::from_secs(10), &rates), Ok(()));
        assert_eq!(meter.check(rates.epoch + Duration::from_secs(10), &rates), Ok(()), "asking is free");
    }

    #[test]
    fn a_limit_that_is_off_never_refuses() {
        let (mut meter, rates) = (Meter::default(), rates(None, None));
        assert_eq!(send(&mut meter, &rates, 0, 100_000, 16 << 20), (100_000, 0, false));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Meter>() <= 24, "{}", size_of::<Meter>());
    }

    #[test]
    fn the_clock_may_wrap() {
        let (mut meter, rates) = (Meter::default(), rates(Some((1, 2)), None));
        let wrap = u64::from(u32::MAX);
        assert_eq!(send(&mut meter, &rates, wrap - 500, 3, 9), (2, 1, false));
        assert_eq!(send(&mut meter, &rates, wrap + 600, 2, 9), (1, 1, false));
    }
}
