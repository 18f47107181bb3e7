//! [`Limit`] and [`Rate`]: settings that may be off.

use std::fmt;

/// A maximum, if there is a limit.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit(pub Option<u32>);

/// A maximum rate, if there is a limit.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate(pub Option<PerSecond>);

/// A rate and a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerSecond {
    /// The average per second.
    pub per_second: u32,
    /// The burst; not more than an `i32` holds.
    pub burst: u32,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(max) => max.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(PerSecond { per_second, burst }) => write!(f, "{per_second}/{burst}"),
            None => f.write_str("off"),
        }
    }
}

/// Formats it on one line, as in a settings file.
impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Formats it on one line, as in a settings file.
impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
