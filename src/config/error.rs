//! Errors in the settings, as they are shown to the operator.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// An error in the settings. `Display` is one line that names the setting, its place and the
/// allowed values.
#[derive(Debug)]
pub enum ConfigError {
    /// The command line as a whole: an argument is missing, repeated or superfluous.
    Usage(String),
    /// A name that no setting has.
    UnknownName {
        /// The source of the name.
        place: SettingSource,
        /// The name as given.
        name: String,
        /// The similar name that may be meant.
        similar: Option<String>,
    },
    /// A value that is invalid for its setting.
    BadValue {
        /// The source of the value.
        place: SettingSource,
        /// The setting's name as given.
        name: String,
        /// The refused value.
        value: String,
        /// The values that are allowed.
        allowed: String,
    },
    /// A line of the file without `=`.
    BadLine {
        /// The source of the line.
        place: SettingSource,
        /// The line.
        text: String,
    },
    /// A name or value that is not UTF-8. The value may be a password, so it is not shown.
    NotUtf8 {
        /// The source of the name or value.
        place: SettingSource,
        /// The name as given.
        name: String,
    },
    /// A key that occurs twice in the file.
    RepeatedKey {
        /// The second place.
        place: SettingSource,
        /// The key.
        name: String,
        /// The line of the first one.
        first_line: usize,
    },
    /// The file cannot be read.
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: io::Error,
    },
    /// A required key is missing in its file.
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        name: &'static str,
        /// An example of a value.
        example: &'static str,
    },
    /// A setting names a file that cannot be read.
    UnreadableNamed {
        /// The place of the setting.
        place: SettingSource,
        /// The setting's name.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: io::Error,
    },
    /// The settings of the hook cannot be used.
    Hook {
        /// The key.
        key: &'static str,
        /// The reason.
        problem: String,
    },
    /// TLS is required, and there is no certificate.
    TlsWithoutCertificate,
    /// The numbers of private keys and certificates differ.
    TlsKeys {
        /// The number of certificates.
        certificates: usize,
        /// The number of keys.
        keys: usize,
    },
    /// There are settings of Redis, in the file of this name, but none of a database.
    RedisAlone(PathBuf),
}

/// The source of a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingSource {
    /// One of the two positional arguments.
    Argument,
    /// An option of the command line.
    Option,
    /// The environment.
    Environment,
    /// A line of the settings file, counted from 1.
    Line(PathBuf, usize),
}

impl SettingSource {
    /// The source followed by the setting's name: "option --loops", "server.cnf, line 3".
    pub(super) fn with(&self, name: &str) -> String {
        match self {
            SettingSource::Line(path, line) => format!("{}, line {line}", path.display()),
            _ => format!("{self} {name}"),
        }
    }
}

impl fmt::Display for SettingSource {
    /// Formats a text that the setting's name may follow: "option --loops", "server.cnf, line 3:
    /// key loops".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingSource::Argument => f.write_str("argument"),
            SettingSource::Option => f.write_str("option"),
            SettingSource::Environment => f.write_str("environment variable"),
            SettingSource::Line(path, line) => write!(f, "{}, line {line}: key", path.display()),
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
                write!(f, "{place} {name}: {:?} is not allowed, use {allowed}", shortened(value))
            }
            ConfigError::BadLine { place, text } => {
                write!(f, "{place} expected, but found {:?}; write key=value, or # before a comment", shortened(text))
            }
            ConfigError::NotUtf8 { place, name } => {
                write!(f, "{place} {} is not UTF-8; save the file as UTF-8", name.escape_debug())
            }
            ConfigError::RepeatedKey { place, name, first_line } => {
                write!(f, "{place} {} is already in line {first_line}, remove one of them", name.escape_debug())
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
            ConfigError::Hook { key, problem } => write!(f, "key {key}: {problem}"),
            ConfigError::TlsWithoutCertificate => {
                f.write_str("key tls: require needs a certificate; set tls_cert, and tls_key, to PEM files")
            }
            ConfigError::TlsKeys { certificates, keys } => write!(
                f,
                "key tls_key: {keys} files for {certificates} in tls_cert; name one key for each certificate, in the same \
                 order, or none if each file in tls_cert has its key"
            ),
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
            | ConfigError::Hook { .. }
            | ConfigError::TlsWithoutCertificate
            | ConfigError::TlsKeys { .. }
            | ConfigError::RedisAlone(_) => None,
        }
    }
}

/// The beginning of a text that may be long: the file may be another one, such as a program.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// The most characters that are shown of a value or a line.
const SHOWN_MAX: usize = 200;

/// The usage of the program, on one line.
pub(super) const USAGE: &str = "server IP PORT [OPTIONS], or server COMMAND";
