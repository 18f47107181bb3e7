//! The limit on file descriptors: this process needs one for each connection.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides connections: standard input and output, the relay's pipes, polls, and files
/// that are open for a moment.
const OTHERS: u64 = 64;

/// # Errors
///
/// If the limit is too low; the text tells how to raise it.
pub(crate) fn need_descriptors(connections: usize) -> io::Result<()> {
    let needed = connections as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .map_err(|error| io::Error::other(format!("{needed} descriptors are needed: `ulimit -n {needed}` ({error})")))
}
