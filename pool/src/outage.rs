//! [`Outage`]: one line in the log when a failure begins, and one when it is over.

use std::fmt;
use std::time::{Duration, Instant};

/// Whether something fails, and since when. The owner logs the beginning and the end of an outage,
/// and nothing in between.
///
/// ```
/// let mut outage = pool::Outage::default();
/// assert!(outage.begin());
/// assert!(!outage.begin(), "the first failure is logged, and not the next");
/// let lasted = outage.end().expect("it is over, which is logged too");
/// assert!(lasted.to_string().ends_with(" s"));
/// assert!(outage.end().is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
}

/// How long an outage has lasted. Its text is "1.2 s".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lasted(Duration);

impl Outage {
    /// Notes a failure. Returns true if the outage begins with it.
    pub fn begin(&mut self) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        begins
    }

    /// Notes a success. If an outage ends with it, returns the duration.
    pub fn end(&mut self) -> Option<Lasted> {
        self.since.take().map(|since| Lasted(since.elapsed()))
    }
}

impl fmt::Display for Lasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f32())
    }
}
