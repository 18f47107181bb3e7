//! [`RedisError`]: an error that makes Redis unusable, with advice.

use std::error::Error;
use std::fmt;

use crate::config::{RedisPlace, RedisSettings};

/// See the [module](self).
#[derive(Debug)]
pub struct RedisError {
    file: String,
    server: String,
    cause: String,
    /// The key that names the server, in words.
    named_by: &'static str,
}

impl RedisError {
    pub(super) fn of(settings: &RedisSettings, cause: &dyn fmt::Display) -> RedisError {
        let (server, named_by) = match &settings.place {
            RedisPlace::Cluster(_) => (settings.place.to_string(), "cluster"),
            RedisPlace::Server(_) | RedisPlace::Sentinels(_) => (format!("Redis at {}", settings.place), "ip, port"),
        };
        RedisError { file: settings.file.display().to_string(), server, cause: cause.to_string(), named_by }
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisError { file, server, cause, named_by } = self;
        write!(f, "{file}: {server}: {cause}; start it, or correct {named_by}, username, password or tls there")
    }
}

impl Error for RedisError {}
