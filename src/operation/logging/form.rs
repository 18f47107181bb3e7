//! [`Form`]: the format of a line of the log.
//!
//! ```text
//! 2026-07-09 18:04:05.123+02:00 chat-1[4711] INFO  loop-0 raybox::server: message
//! local time and its offset     node and pid level thread name of the part
//!
//! {"time":"2026-07-09T18:04:05.123+02:00","node":"chat-1","pid":4711,"level":"info","thread":"loop-0",
//!  "part":"raybox::server","message":"message"}                                        (on one line)
//! ```
//! A line of the audit trail has its own members after these: `event`, `user`, `from`.
//!
//! The systemd journal adds times and names itself. Text lines for it begin with their priority
//! instead, as in sd-daemon(3).

use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, Record};

use super::names::Name;
use crate::config::LogFormat;

/// One record, formatted except for its beginning.
pub(super) struct LogLine {
    pub(super) at: Timestamp,
    pub(super) level: Level,
    /// The body, as [`body`] makes it: without newlines and other control characters.
    pub(super) body: String,
}

/// The format of all lines of one process.
#[derive(Clone)]
pub(super) struct Form {
    format: LogFormat,
    zone: TimeZone,
    /// The node and the process: `chat-1[4711] `, or two JSON members.
    process: String,
}

impl Form {
    /// The format of the lines of the process `pid` on this node.
    pub(super) fn new(format: LogFormat, zone: TimeZone, node: &str, pid: u32) -> Form {
        let process = match format {
            LogFormat::Text => format!("{node}[{pid}] "),
            LogFormat::Json => format!("\"node\":{},\"pid\":{pid}", quoted(node)),
        };
        Form { format, zone, process }
    }

    /// Appends a line with its newline.
    pub(super) fn append(&self, line: &LogLine, to: &mut Vec<u8>) {
        let local = ZonedDateTime::new(line.at, self.zone.clone());
        let Form { process, .. } = self;
        // Writing to memory does not fail.
        let _ = match self.format {
            LogFormat::Text => {
                writeln!(to, "{} {process}{}", local.strftime("%Y-%m-%d %H:%M:%S.%3f%:z"), line.body)
            }
            LogFormat::Json => {
                writeln!(to, "{{\"time\":\"{}\",{process},{}}}", local.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z"), line.body)
            }
        };
    }

    /// Appends a line for the systemd journal.
    pub(super) fn append_for_journal(&self, line: &LogLine, to: &mut Vec<u8>) {
        let priority = match line.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        let _ = write!(to, "<{priority}>");
        match self.format {
            LogFormat::Text => {
                let _ = writeln!(to, "{}", line.body);
            }
            LogFormat::Json => self.append(line, to),
        }
    }

    /// The body of a line from the log module itself.
    pub(super) fn report(&self, text: fmt::Arguments<'_>) -> String {
        let record = Record::builder().level(Level::Warn).target("raybox::operation::logging").args(text).build();
        body(self.format, THREAD, &record)
    }

    /// The day of a line, by local time.
    pub(super) fn date(&self, line: &LogLine) -> jiff::civil::Date {
        self.zone.to_datetime(line.at).date()
    }
}

/// The part of a line that is formatted on the thread that logs.
pub(super) fn body(format: LogFormat, thread: &str, record: &Record<'_>) -> String {
    let (level, part) = (record.level(), Name::of(record.target()));
    match format {
        LogFormat::Text => one_line(format!("{level:<5} {thread} {part}: {}", record.args())),
        LogFormat::Json => {
            let mut body = format!(
                "\"level\":\"{}\",\"thread\":{},\"part\":{},\"message\":{}",
                level.as_str().to_ascii_lowercase(),
                quoted(thread),
                quoted(&part.to_string()),
                quoted(&record.args().to_string()),
            );
            // Appending to a string does not fail.
            let _ = record.key_values().visit(&mut MembersOf(&mut body));
            body
        }
    }
}

/// Appends key-value pairs as members of an object.
struct MembersOf<'b>(&'b mut String);

impl<'kvs> VisitSource<'kvs> for MembersOf<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let _ = match value.to_i64() {
            Some(number) => write!(self.0, ",{}:{number}", quoted(key.as_str())),
            None => write!(self.0, ",{}:{}", quoted(key.as_str()), quoted(&value.to_string())),
        };
        Ok(())
    }
}

/// The text as a JSON string.
fn quoted(text: &str) -> impl fmt::Display {
    serde_json::Value::from(text)
}

/// Escapes newlines and other control characters, so that a record stays one line and cannot
/// control a terminal.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// The thread that writes.
pub(super) const THREAD: &str = "log";

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-07-09T16:04:05.1239Z";

    fn form(format: LogFormat) -> Form {
        Form::new(format, TimeZone::fixed(jiff::tz::offset(2)), "chat-1", 4711)
    }

    /// A record as a written line, and as the journal gets it.
    fn written(format: LogFormat, record: &Record<'_>) -> [String; 2] {
        let line = LogLine { at: AT.parse().unwrap(), level: record.level(), body: body(format, "loop-0", record) };
        let (mut plain, mut journal) = (Vec::new(), Vec::new());
        form(format).append(&line, &mut plain);
        form(format).append_for_journal(&line, &mut journal);
        [plain, journal].map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_line_of_text_has_its_time_with_the_zone_and_its_process() {
        let record = |args| Record::builder().level(Level::Warn).target("raybox::routing::router").args(args).build();
        let [plain, journal] = written(LogFormat::Text, &record(format_args!("two\nlines")));
        assert_eq!(plain, "2026-07-09 18:04:05.123+02:00 chat-1[4711] WARN  loop-0 raybox::router: two\\nlines\n");
        assert_eq!(journal, "<4>WARN  loop-0 raybox::router: two\\nlines\n");
    }

    #[test]
    fn a_line_of_json_is_one_object_with_the_members_of_the_record() {
        let pairs: [(&str, Value<'_>); 3] =
            [("event", Value::from("login")), ("user", Value::from(17)), ("from", Value::from("a\"b"))];
        let [plain, journal] = written(
            LogFormat::Json,
            &Record::builder()
                .level(Level::Info)
                .target("audit")
                .args(format_args!("user 17 \u{1b} \"x\""))
                .key_values(&pairs)
                .build(),
        );
        assert_eq!(journal, format!("<6>{plain}"));
        assert_eq!(plain.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&plain).unwrap();
        let expected = serde_json::json!({
            "time": "2026-07-09T18:04:05.123+02:00", "node": "chat-1", "pid": 4711, "level": "info", "thread": "loop-0",
            "part": "audit", "message": "user 17 \u{1b} \"x\"", "event": "login", "user": 17, "from": "a\"b",
        });
        assert_eq!(object, expected);
    }
}
