//! [`Error`]: the errors that an application can get.

use std::fmt;
use std::io;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection now. Messages can still be sent: they wait in the outbox.
    Offline,
    /// The connection ended before the answer came. The server may have carried out the request.
    Interrupted,
    /// No answer came in time. The server may have carried out the request.
    NoAnswer,
    /// Too many requests are unanswered.
    Busy,
    /// The server refuses the request.
    Refused {
        /// The reason as a number, such as 403.
        errno: i64,
        /// The reason in words.
        message: String,
        /// The number of seconds after which a retry may succeed.
        retry_after: Option<f64>,
    },
    /// The server's answer does not follow the protocol.
    Misunderstood,
    /// The message is longer than the server takes.
    TooLong {
        /// The length of its frame, in bytes.
        bytes: usize,
        /// The longest frame that the server takes.
        max: usize,
    },
    /// There is no account in the data file yet: log in first.
    NoAccount,
    /// Another process uses the data file.
    InUse,
    /// The data file was written by a newer version of this library.
    NewerFile,
    /// The data file cannot be read or written.
    Store(rusqlite::Error),
    /// These certificates or this address do not permit TLS; the text says why.
    Tls(String),
    /// A file or a socket fails.
    Io(io::Error),
    /// The client was closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Offline => f.write_str("not connected: try again when the client is online"),
            Error::Interrupted => f.write_str("the connection ended before the answer: check whether it was done"),
            Error::NoAnswer => f.write_str("no answer in time: check whether it was done"),
            Error::Busy => f.write_str("too many requests at once: wait for an answer"),
            Error::Refused { errno, message, retry_after } => {
                write!(f, "{} ({errno})", if message.is_empty() { "the server refuses it" } else { message })?;
                match retry_after {
                    Some(seconds) => write!(f, ", try again in {seconds:.0} s"),
                    None => Ok(()),
                }
            }
            Error::Misunderstood => f.write_str("the server's answer is not understood"),
            Error::TooLong { bytes, max } => {
                write!(f, "the message has {bytes} bytes with its frame, and {max} is the limit: send it in parts")
            }
            Error::NoAccount => f.write_str("nobody has logged in with this data file: log in first"),
            Error::InUse => f.write_str("another program uses the data file: close it, or give another file"),
            Error::NewerFile => f.write_str("a newer version has written the data file: use that version"),
            Error::Store(error) => write!(f, "the data file cannot be used: {error}"),
            Error::Tls(why) => f.write_str(why),
            Error::Io(error) => error.fmt(f),
            Error::Closed => f.write_str("the client is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Store(error) => Some(error),
            Error::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Store(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

/// The result of what an application asks for.
pub type Result<T> = std::result::Result<T, Error>;
