//! What a failed statement means: which errors are worth another attempt, and what the others are for the caller.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use mysql::error::{DriverError, Error, MySqlError};

/// What kind of trouble an error is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Another transaction was in the way. Nothing was changed; the same again may work at once.
    Locked,
    /// Another transaction was in the way for as long as the database waits for it. Nothing was changed.
    Waited,
    /// The connection is gone; others may work.
    Lost,
    /// No answer came in time. Whoever asks next would wait as long.
    Silent,
    /// The database cannot do it now: full, read-only, too many connections.
    Busy,
    /// The database will not do it.
    Refused,
}

/// Sorts an error of a statement.
pub(super) fn trouble(error: &Error) -> Trouble {
    if let Some(error) = io_error(error) {
        return io_trouble(error);
    }
    match error {
        Error::MySqlError(error) => server_trouble(error.code),
        Error::IoError(_) | Error::CodecError(_) | Error::TlsError(_) => Trouble::Lost,
        Error::DriverError(DriverError::ConnectTimeout | DriverError::Timeout) => Trouble::Silent,
        Error::DriverError(
            DriverError::MismatchedStmtParams(..) | DriverError::Params(_) | DriverError::MixedParams,
        ) => Trouble::Refused,
        // Whatever else the driver says, it does not know any more where in the conversation it is.
        Error::DriverError(_) => Trouble::Lost,
        Error::UrlError(_) | Error::FromValueError(_) | Error::FromRowError(_) => Trouble::Refused,
    }
}

/// The system's error beneath, if there is one. One kind of the driver's errors cannot be named, but has a source.
fn io_error(error: &Error) -> Option<&io::Error> {
    match error {
        Error::IoError(error) => Some(error),
        Error::CodecError(error) => error.source()?.downcast_ref(),
        _ => None,
    }
}

fn io_trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        // What a socket with a timeout says, see SO_RCVTIMEO in socket(7).
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Trouble::Silent,
        _ => Trouble::Lost,
    }
}

/// By the numbers of the MySQL and MariaDB error references.
fn server_trouble(code: u16) -> Trouble {
    match code {
        // Deadlock, "needs to be re-prepared".
        1213 | 1615 => Trouble::Locked,
        // Lock wait timeout, too many locks.
        1205 | 1206 => Trouble::Waited,
        // Shutdown, forced close, aborted, network errors, killed, gone, idle for too long, unknown prepared statement.
        1053 | 1077 | 1079 | 1080 | 1152 | 1158..=1161 | 1184 | 1243 | 1927 | 2006 | 2013 | 3169 | 4031 => {
            Trouble::Lost
        }
        // Disk full, no memory, too many connections, table full, cluster not ready, limits of a user, interrupted, error
        // at commit, read-only.
        1021 | 1037..=1041 | 1047 | 1114 | 1180 | 1203 | 1226 | 1290 | 1317 | 1792 | 1836 | 3024 => Trouble::Busy,
        _ => Trouble::Refused,
    }
}

/// The number of the database's own error, if it is one.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(MySqlError { code, .. }) => Some(*code),
        _ => None,
    }
}

/// An error in words for the log, without the driver's names of types.
pub(super) fn text(error: &Error) -> String {
    if let Some(error) = io_error(error) {
        return io_text(error);
    }
    match error {
        Error::MySqlError(error) => format!("{} (error {})", without_values(error), error.code),
        Error::DriverError(DriverError::ConnectTimeout) => "no connection in time".to_owned(),
        Error::DriverError(DriverError::CouldNotConnect(Some((_, why, _)))) => why.clone(),
        Error::DriverError(error) => error.to_string(),
        Error::TlsError(error) => format!("TLS: {error}"),
        // In words of their own these show the value.
        Error::FromValueError(_) | Error::FromRowError(_) => "a column holds what it should not".to_owned(),
        other => other.to_string(),
    }
}

/// The message of an error of the database. Some quote what they were given, which may be what somebody wrote to another:
/// "Incorrect string value: '\xF0\x9F…' for column …". There is a quote in it, perhaps, so all between the first and the last
/// is left out.
fn without_values(error: &MySqlError) -> Cow<'_, str> {
    let quotes_values = match error.code {
        // Wrong, truncated or inconvertible value; a text of somebody's trigger.
        1292 | 1366 | 1367 | 1411 | 1525 | 1644 | 1977 | 3854 => true,
        // Too long, out of range: these name the column alone.
        1264 | 1406 => false,
        // Data exceptions.
        _ => error.state.starts_with("22"),
    };
    let text = &error.message;
    match (text.find('\''), text.rfind('\'')) {
        (Some(first), Some(last)) if quotes_values => format!("{}'…{}", &text[..first], &text[last..]).into(),
        _ => text.into(),
    }
}

fn io_text(error: &io::Error) -> String {
    match io_trouble(error) {
        Trouble::Silent => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) const DUPLICATE_ENTRY: u16 = 1062;
pub(super) const TABLE_EXISTS: u16 = 1050;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted() {
        let server = |code| Error::MySqlError(MySqlError { state: "HY000".to_owned(), message: "m".to_owned(), code });
        let io = |kind| Error::IoError(io::Error::from(kind));
        for (error, expected) in [
            (server(1213), Trouble::Locked),
            (server(1205), Trouble::Waited),
            (server(1927), Trouble::Lost),
            (server(1040), Trouble::Busy),
            (server(1146), Trouble::Refused),
            (io(io::ErrorKind::WouldBlock), Trouble::Silent),
            (io(io::ErrorKind::UnexpectedEof), Trouble::Lost),
            (Error::DriverError(DriverError::PacketOutOfSync), Trouble::Lost),
        ] {
            assert_eq!(trouble(&error), expected, "{error}");
        }
    }

    #[test]
    fn texts_are_plain() {
        let refused = Error::MySqlError(MySqlError { state: "42000".to_owned(), message: "no".to_owned(), code: 1146 });
        assert_eq!(text(&refused), "no (error 1146)");
        assert_eq!(text(&Error::IoError(io::ErrorKind::WouldBlock.into())), "no answer in time");
    }

    #[test]
    fn what_somebody_wrote_is_not_shown() {
        let server = |state: &str, code, message: &str| {
            text(&Error::MySqlError(MySqlError { state: state.to_owned(), message: message.to_owned(), code }))
        };
        assert_eq!(
            server(
                "HY000",
                1366,
                "Incorrect string value: 'it's 🔑' for column `chat`.`OfflineMessage`.`message` at row 1"
            ),
            "Incorrect string value: '…' for column `chat`.`OfflineMessage`.`message` at row 1 (error 1366)"
        );
        assert_eq!(server("22032", 3140, "Invalid JSON text: 'secret'"), "Invalid JSON text: '…' (error 3140)");
        assert_eq!(
            server("22001", 1406, "Data too long for column 'message' at row 1"),
            "Data too long for column 'message' at row 1 (error 1406)"
        );
        let value = Error::FromValueError(mysql::Value::Bytes(b"secret".to_vec()));
        assert!(!text(&value).contains("secret"), "{}", text(&value));
    }
}
