//! Errors in the settings, as the operator reads them.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::USAGE;

/// An error in the settings. `Display` is one line that names the culprit, its place and what is allowed.
#[derive(Debug)]
pub enum ConfigError {
    /// The command line as a whole: something is missing, given twice or too much.
    Usage(String),
    /// A name that no setting has.
    UnknownName {
        /// Where it stands.
        place: Place,
        /// The name as it stands there.
        name: String,
        /// A name that was perhaps meant.
        similar: Option<String>,
    },
    /// A value that its setting does not take.
    BadValue {
        /// Where it stands.
        place: Place,
        /// The setting's name as it stands there.
        name: String,
        /// The refused value.
        value: String,
        /// The values that are allowed.
        allowed: String,
    },
    /// A line of the file without `=`.
    BadLine {
        /// Where it stands.
        place: Place,
        /// The line.
        text: String,
    },
    /// A name or value in another encoding than UTF-8. The value may be a password, so it is not shown.
    NotUtf8 {
        /// Where it stands.
        place: Place,
        /// The name as it stands there.
        name: String,
    },
    /// A key that stands twice in the file.
    RepeatedKey {
        /// Where it stands for the second time.
        place: Place,
        /// The key.
        name: String,
        /// The line where it stands first.
        first_line: usize,
    },
    /// The file cannot be read.
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A key that its file must hold is not there.
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        name: &'static str,
        /// How a value looks.
        example: &'static str,
    },
    /// A setting names a file that cannot be read.
    UnreadableNamed {
        /// Where the setting stands.
        place: Place,
        /// The setting's name.
        name: &'static str,
        /// The file it names.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Settings of Redis, the file's name given, without those of a database.
    RedisAlone(PathBuf),
}

/// Where a setting stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// One of the two positional arguments.
    Argument,
    /// An option of the command line.
    Option,
    /// The environment.
    Environment,
    /// A line of the settings file, counted from 1.
    Line(PathBuf, usize),
}

impl fmt::Display for Place {
    /// Reads on with the setting's name: "option --loops", "server.cnf, line 3: key loops".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Argument => f.write_str("argument"),
            Place::Option => f.write_str("option"),
            Place::Environment => f.write_str("environment variable"),
            Place::Line(path, line) => write!(f, "{}, line {line}: key", path.display()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Usage(text) => write!(f, "{text}; usage: {USAGE}, see --help"),
            ConfigError::UnknownName { place, name, similar: Some(similar) } => {
                write!(f, "{place} {} is unknown, did you mean {similar}?", name.escape_debug())
            }
            ConfigError::UnknownName { place, name, similar: None } => {
                write!(f, "{place} {} is unknown, --help lists them all", name.escape_debug())
            }
            ConfigError::BadValue { place, name, value, allowed } => {
                write!(f, "{place} {name}: {value:?} is not allowed, use {allowed}")
            }
            ConfigError::BadLine { place, text } => {
                write!(f, "{place} expected, but found {text:?}; write key=value, or # before a comment")
            }
            ConfigError::NotUtf8 { place, name } => {
                write!(f, "{place} {} is not UTF-8; save the file as UTF-8", name.escape_debug())
            }
            ConfigError::RepeatedKey { place, name, first_line } => {
                write!(f, "{place} {} stands in line {first_line} already, remove one of them", name.escape_debug())
            }
            ConfigError::UnreadableFile { path, cause } => {
                write!(f, "cannot read the settings file {}: {cause}", path.to_string_lossy().escape_debug())
            }
            ConfigError::MissingKey { file, name, example } => {
                write!(f, "{} lacks the key {name}; add a line such as {name}={example}", file.display())
            }
            ConfigError::UnreadableNamed { place, name, path, cause } => {
                write!(f, "{place} {name}: cannot read {}: {cause}", path.to_string_lossy().escape_debug())
            }
            ConfigError::RedisAlone(file) => write!(
                f,
                "{} makes this server a node of a cluster, but the nodes of a cluster share one database and there is \
                 no mysql.cnf: add one (or --mysql FILE), or move {} away to run a single server",
                file.display(),
                file.display()
            ),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConfigError::UnreadableFile { cause, .. } | ConfigError::UnreadableNamed { cause, .. } => Some(cause),
            ConfigError::Usage(_)
            | ConfigError::UnknownName { .. }
            | ConfigError::BadValue { .. }
            | ConfigError::BadLine { .. }
            | ConfigError::NotUtf8 { .. }
            | ConfigError::RepeatedKey { .. }
            | ConfigError::MissingKey { .. }
            | ConfigError::RedisAlone(_) => None,
        }
    }
}
