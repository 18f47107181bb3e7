//! Fill levels, which their owners report and the metrics show.

use std::fmt;

/// The use of a pool of connections.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolUse {
    /// Open connections.
    pub open: u32,
    /// Idle connections.
    pub idle: u32,
    /// The most connections.
    pub max: u32,
}

/// The fill level of a spool.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SpoolLoad {
    /// Messages in it, including those set aside.
    pub messages: usize,
    /// Their size: the text, and a constant for each.
    pub bytes: usize,
    /// The number of messages that are set aside.
    pub aside: usize,
}

impl fmt::Display for SpoolLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpoolLoad { messages, bytes, aside } = self;
        write!(f, "{messages} messages ({bytes} bytes")?;
        if *aside > 0 {
            write!(f, ", {aside} of them set aside because the database refuses them")?;
        }
        f.write_str(")")
    }
}
