//! Times in a form for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time, in ms since 1970, as text in UTC.
pub(in crate::server::administration) fn shown(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| format!("{at:.3}"))
}

/// How long ago this time was.
pub(in crate::server::administration) fn ago(at: i64) -> String {
    let seconds = now().saturating_sub(at).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}

/// The time, in ms since 1970.
pub(in crate::server::administration) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
