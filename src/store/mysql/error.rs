//! The classes of failed statements: those worth another attempt, and the meaning of the others for
//! the caller.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use mysql::error::{DriverError, Error, MySqlError};

/// The class of an error. An error that passes by itself or after the operator has acted is never
/// [`Trouble::Refused`]: the message is not its cause, so the message waits in the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Another transaction was in the way. Nothing was changed; a retry may succeed at once.
    Locked,
    /// Another transaction was in the way for as long as the database waits. Nothing was changed.
    Waited,
    /// The connection is lost or in an unrequested state; others may work.
    Lost,
    /// No answer came in time. The next caller would wait as long.
    Silent,
    /// The server of this connection no longer takes writes, or the user lacks a right. A new
    /// connection may lead to another server, and has the current rights. Nothing was changed.
    Barred,
    /// The database cannot do it now: full, out of connections, a table is missing.
    Busy,
    /// The statement is longer than the database accepts. Nothing was changed.
    TooLarge,
    /// The database refuses the given values, and would do so again and again.
    Refused,
    /// An unlisted error. The statement counts as its cause if the database executes a simpler one.
    Unknown,
}

/// Sorts an error of a statement.
pub(super) fn trouble(error: &Error) -> Trouble {
    if let Some(error) = io_error(error) {
        return io_trouble(error);
    }
    match error {
        Error::MySqlError(error) => server_trouble(error),
        Error::IoError(_) | Error::CodecError(_) | Error::TlsError(_) => Trouble::Lost,
        Error::DriverError(DriverError::ConnectTimeout | DriverError::Timeout) => Trouble::Silent,
        Error::DriverError(
            DriverError::MismatchedStmtParams(..) | DriverError::Params(_) | DriverError::MixedParams,
        ) => Trouble::Refused,
        // After any other error the driver has lost its place in the protocol.
        Error::DriverError(_) => Trouble::Lost,
        Error::UrlError(_) | Error::FromValueError(_) | Error::FromRowError(_) => Trouble::Refused,
    }
}

/// The underlying error of the system, if there is one. One kind of the driver's errors cannot be
/// named, but has a source.
fn io_error(error: &Error) -> Option<&io::Error> {
    match error {
        Error::IoError(error) => Some(error),
        Error::CodecError(error) => error.source()?.downcast_ref(),
        _ => None,
    }
}

fn io_trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        // The error of a socket with a timeout, see SO_RCVTIMEO in socket(7).
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Trouble::Silent,
        _ => Trouble::Lost,
    }
}

/// The error of a read-only server, also for accounts that may write nevertheless.
pub(super) fn read_only(message: &str) -> Error {
    Error::MySqlError(MySqlError { state: "HY000".to_owned(), message: message.to_owned(), code: READ_ONLY })
}

/// The error of a node that is not ready in Galera's sense, in Galera's words.
pub(super) fn not_ready() -> Error {
    let message = "the server does not belong to the primary component of its Galera cluster".to_owned();
    Error::MySqlError(MySqlError { state: "08S01".to_owned(), message, code: NOT_READY })
}

/// Whether the error is a reason to use another server, if there are several: this one is gone,
/// does not answer, or takes no writes.
pub(super) fn is_of_server(error: &Error) -> bool {
    match code(error) {
        Some(code) => NO_WRITES.contains(&code) || trouble(error) == Trouble::Lost,
        None => matches!(trouble(error), Trouble::Lost | Trouble::Silent),
    }
}

/// The error of an insert. A key that exists now, but did not a moment ago, came from another
/// transaction, which a retry will find. So it counts as a deadlock.
pub(super) fn duplicate_as_deadlock(error: Error) -> Error {
    match error {
        Error::MySqlError(error) if error.code == DUPLICATE_ENTRY => {
            Error::MySqlError(MySqlError { state: ROLLED_BACK.to_owned(), ..error })
        }
        other => other,
    }
}

/// Whether a row was not written because another one has its key.
pub(super) fn is_duplicate(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error) if error.code == DUPLICATE_ENTRY)
}

/// The error for rows that were deleted a moment ago: the operation begins again.
pub(super) fn removed_meanwhile() -> Error {
    let message = "rows are gone that were there a moment before".to_owned();
    Error::MySqlError(MySqlError { state: ROLLED_BACK.to_owned(), message, code: 0 })
}

/// The class of an error by its number, or else by the class of its SQLSTATE.
fn server_trouble(error: &MySqlError) -> Trouble {
    let by_code = BY_CODE.iter().find(|(_, codes)| codes.contains(&error.code));
    by_code.map_or_else(|| state_trouble(&error.state), |(trouble, _)| *trouble)
}

fn state_trouble(state: &str) -> Trouble {
    match state.get(..2) {
        // A connection exception, a rollback by the database.
        Some("08") => Trouble::Lost,
        Some("40") => Trouble::Locked,
        Some("25") if state == "25006" => Trouble::Barred,
        // Authorisation, no database.
        Some("28" | "3D") => Trouble::Barred,
        // Resources, operator intervention, interrupted.
        Some("53" | "57" | "70") => Trouble::Busy,
        // Data, integrity, a view's check, a trigger's own.
        Some("22" | "23" | "44" | "45") => Trouble::Refused,
        _ => Trouble::Unknown,
    }
}

/// Whether the other end has closed an open connection.
pub(super) fn is_closed(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kind = io_error(error).map(io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
        || (code(error).is_some() && trouble(error) == Trouble::Lost)
}

/// The number of the database's own error, if it is one.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(MySqlError { code, .. }) => Some(*code),
        _ => None,
    }
}

/// The error as a text for the log, without the driver's type names.
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
        // The packets of a MySQL are not like that.
        Error::CodecError(error) => format!("another program may answer there: {error}"),
        // The texts of these would show the value.
        Error::FromValueError(_) | Error::FromRowError(_) => "a column holds what it should not".to_owned(),
        other => other.to_string(),
    }
}

/// The text of a database error. Some texts quote a value, which may be a user's message, such as
/// "Incorrect string value: '\xF0\x9F…' for column …". The value may contain quotes, so everything
/// between the first and the last quote is left out.
fn without_values(error: &MySqlError) -> Cow<'_, str> {
    let quotes_values = match error.code {
        // Wrong, truncated or inconvertible value; the text of a user's trigger.
        1292 | 1366 | 1367 | 1411 | 1525 | 1644 | 1977 | 3854 => true,
        // Too long, out of range: these texts name only the column.
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
pub(super) const UNKNOWN_VARIABLE: u16 = 1193;
const READ_ONLY: u16 = 1290;
const NOT_READY: u16 = 1047;

/// A table, the server, a transaction or InnoDB is read-only; a node has left its Galera cluster or
/// group; offline mode.
const NO_WRITES: &[u16] = &[1036, NOT_READY, READ_ONLY, 1792, 1836, 1874, 3032, 3796, 3797, 3798, 3799];

/// The SQLSTATE of a transaction that the database has rolled back.
const ROLLED_BACK: &str = "40000";

/// Errors by their numbers in the MySQL and MariaDB error references.
const BY_CODE: &[(Trouble, &[u16])] = &[
    // The row or the table has changed meanwhile, a deadlock, "needs to be re-prepared", another
    // member of the group was faster.
    (Trouble::Locked, &[1020, 1213, 1412, 1615, 3058, 3101]),
    // Lock wait timeout, too many locks.
    (Trouble::Waited, &[1205, 1206]),
    // Shutdown, forced close, aborted, network errors, killed, gone, idle for too long; an unknown
    // prepared statement, a malformed packet; foreign locks, or a transaction that this server has
    // not begun.
    (
        Trouble::Lost,
        &[
            1053, 1077, 1079, 1080, 1099, 1100, 1152, 1158, 1159, 1160, 1161, 1184, 1192, 1223, 1243, 1400, 1568, 1835,
            1927, 2006, 2013, 3169, 4031,
        ],
    ),
    (Trouble::Barred, NO_WRITES),
    // Rights and accounts: no rights for this database, table, column, routine or trigger; a
    // password that is wrong, expired or not sufficient; locked; encryption is missing. Rights for
    // a database are those at the time of its selection.
    (
        Trouble::Barred,
        &[
            1044, 1045, 1046, 1049, 1131, 1133, 1141, 1142, 1143, 1227, 1370, 1449, 1524, 1698, 1820, 1862, 3118, 3159,
            4151,
        ],
    ),
    // A packet, the result of a function.
    (Trouble::TooLarge, &[1153, 1301]),
    // Larger than the cache of the binary log: a smaller batch may work.
    (Trouble::Refused, &[1197, 1705]),
    // Files, disks and memory: unreadable, full, crashed, out of handles.
    (
        Trouble::Busy,
        &[
            1012, 1016, 1017, 1018, 1021, 1023, 1024, 1025, 1026, 1030, 1034, 1035, 1037, 1038, 1039, 1041, 1114, 1135,
            1194, 1195, 1712, 1932, 3185,
        ],
    ),
    // Connections and statements: too many, a limit of this user, none for this host.
    (Trouble::Busy, &[1040, 1042, 1043, 1129, 1130, 1203, 1226, 1461, 1637, 3168, 3955]),
    // The tables: one or a column of it is gone, a column that this server does not know has no
    // default, a view is invalid, the plugin of a table is missing.
    (Trouble::Busy, &[1054, 1146, 1286, 1356, 1364, 1423]),
    // The binary log and replication: cannot be written, must have another format, waits for other
    // servers.
    (
        Trouble::Busy,
        &[1180, 1181, 1188, 1534, 1598, 1661, 1662, 1663, 1664, 1665, 1666, 1667, 1785, 1786, 1787, 3098, 3100],
    ),
    // Interrupted, took too long.
    (Trouble::Busy, &[1317, 1969, 3024]),
    // A text or a number that does not fit its column; a row that is too long for its table or
    // belongs to no partition; a check or a trigger.
    (Trouble::Refused, &[1118, 1264, 1265, 1300, 1366, 1367, 1369, 1406, 1411, 1526, 1644, 1748, 3819, 4025]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted() {
        let error = |state: &str, code| {
            Error::MySqlError(MySqlError { state: state.to_owned(), message: "m".to_owned(), code })
        };
        let server = |code| error("HY000", code);
        let state = |state| error(state, 9999);
        let io = |kind| Error::IoError(io::Error::from(kind));
        for (error, expected) in [
            (server(1213), Trouble::Locked),
            (server(1205), Trouble::Waited),
            (server(1927), Trouble::Lost),
            (server(1040), Trouble::Busy),
            (server(1290), Trouble::Barred),
            (server(1142), Trouble::Barred),
            (server(1461), Trouble::Busy),
            (server(1969), Trouble::Busy),
            (server(1146), Trouble::Busy),
            (server(1364), Trouble::Busy),
            (server(1366), Trouble::Refused),
            (server(1153), Trouble::TooLarge),
            (server(9999), Trouble::Unknown),
            (state("22003"), Trouble::Refused),
            (state("23000"), Trouble::Refused),
            (state("40001"), Trouble::Locked),
            (state("08S01"), Trouble::Lost),
            (state("28000"), Trouble::Barred),
            (state("42000"), Trouble::Unknown),
            (io(io::ErrorKind::WouldBlock), Trouble::Silent),
            (io(io::ErrorKind::UnexpectedEof), Trouble::Lost),
            (Error::DriverError(DriverError::PacketOutOfSync), Trouble::Lost),
            (error("23000", DUPLICATE_ENTRY), Trouble::Refused),
            (duplicate_as_deadlock(error("23000", DUPLICATE_ENTRY)), Trouble::Locked),
            (duplicate_as_deadlock(server(1366)), Trouble::Refused),
            (removed_meanwhile(), Trouble::Locked),
        ] {
            assert_eq!(trouble(&error), expected, "{error}");
        }
    }

    #[test]
    fn each_error_is_in_one_list() {
        let mut codes: Vec<u16> = BY_CODE.iter().flat_map(|(_, codes)| *codes).copied().collect();
        assert!(codes.contains(&READ_ONLY));
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn texts_are_plain() {
        let refused = Error::MySqlError(MySqlError { state: "42000".to_owned(), message: "no".to_owned(), code: 1146 });
        assert_eq!(text(&refused), "no (error 1146)");
        assert_eq!(text(&Error::IoError(io::ErrorKind::WouldBlock.into())), "no answer in time");
    }

    #[test]
    fn values_of_users_are_not_shown() {
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
