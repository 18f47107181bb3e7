//! [`SessionError`] and [`Loss`]: the reasons why connections to Redis are given up, or must
//! be.

use std::fmt;
use std::io;

use super::dial::DialError;
use super::wire::Malformed;
use crate::bus::peer::Deaf;
use crate::config::ServerAddress;

/// The reason why the connections are given up.
#[derive(Debug)]
pub(super) enum SessionError {
    Dial(DialError),
    Io(io::Error),
    Malformed(Malformed),
    Refused(String),
    /// The probe did not come back.
    Deaf,
    /// The connections lead to the wrong Redis.
    Lost(Loss),
    /// The error of this server of a Redis Cluster.
    At(ServerAddress, Box<SessionError>),
}

/// The reason why all connections must be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// The Redis at which this node is subscribed has become a replica.
    Demoted,
    /// New connections lead to another Redis.
    Moved,
    /// A server of the Redis Cluster has lost the others.
    CutOff,
    /// The Redis Cluster has other primaries now, or this node's own channels have moved.
    Reshaped,
}

impl SessionError {
    /// The error for this answer of Redis.
    pub(super) fn refused(text: &[u8]) -> SessionError {
        SessionError::Refused(String::from_utf8_lossy(text).into_owned())
    }
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> SessionError {
        SessionError::Io(error)
    }
}

impl From<Malformed> for SessionError {
    fn from(malformed: Malformed) -> SessionError {
        SessionError::Malformed(malformed)
    }
}

impl From<DialError> for SessionError {
    fn from(error: DialError) -> SessionError {
        SessionError::Dial(error)
    }
}

impl From<Deaf> for SessionError {
    fn from(Deaf: Deaf) -> SessionError {
        SessionError::Deaf
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Dial(error) => error.fmt(f),
            SessionError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it has closed the connection")
            }
            SessionError::Io(error) => error.fmt(f),
            SessionError::Malformed(malformed) => malformed.fmt(f),
            SessionError::Refused(text) => write!(f, "it refused: {}", pool::without_arguments(text)),
            SessionError::Deaf => f.write_str("a probe of this node did not come back in time"),
            SessionError::At(server, error) => write!(f, "{server}: {error}"),
            SessionError::Lost(Loss::Demoted) => f.write_str("it has become a replica"),
            SessionError::Lost(Loss::Moved) => f.write_str("its name leads to another Redis now"),
            SessionError::Lost(Loss::CutOff) => f.write_str("one of its servers has lost the others"),
            SessionError::Lost(Loss::Reshaped) => f.write_str("its slots are distributed differently now"),
        }
    }
}
