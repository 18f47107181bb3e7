//! How full things are: told by what has them, shown by the metrics.

use std::fmt;

/// How a pool of connections is used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolUse {
    /// Connections that it has.
    pub open: u32,
    /// Those that nobody uses.
    pub idle: u32,
    /// Connections that it may have.
    pub max: u32,
}

/// How full a spool is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SpoolLoad {
    /// Messages in it, those set aside among them.
    pub messages: usize,
    /// What they weigh: their text, and a constant for each.
    pub bytes: usize,
    /// Those of them that are set aside.
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
