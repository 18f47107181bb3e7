//! [`Failure`]: the reason why a command failed.

use std::fmt;

use raybox_client::Error;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Failure {
    /// The text to show to the user.
    Text(String),
    /// The reader of standard output has closed the pipe.
    Pipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Text(text) => f.write_str(text),
            Failure::Pipe => f.write_str("nobody reads the output"),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Text(text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Text(match error {
            Error::NoAccount => "nobody has logged in yet: chat login NAME, or chat register NAME".to_owned(),
            Error::InUse => {
                "another chat uses the data file: close it, or give another one with --data FILE".to_owned()
            }
            error => error.to_string(),
        })
    }
}
