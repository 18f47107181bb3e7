//! Times in the form that users read.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Day and minute in the local time zone, such as `2026-11-29 21:07`.
pub(crate) fn short(unix_ms: i64) -> String {
    format(unix_ms, "%Y-%m-%d %H:%M")
}

/// The minute in the local time zone, such as `21:07`.
pub(crate) fn minute(unix_ms: i64) -> String {
    format(unix_ms, "%H:%M")
}

/// The day in the local time zone, such as `Sun 29 Nov 2026`.
pub(crate) fn day(unix_ms: i64) -> String {
    format(unix_ms, "%a %-d %b %Y")
}

fn format(unix_ms: i64, format: &str) -> String {
    // A server may send any number; one that is not a time is shown as `?`.
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| "?".to_owned(), |at| TimeZone::system().to_datetime(at).strftime(format).to_string())
}
