//! Ctrl-C: what there is, is still told. A second one ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code, as shells have it for a process that SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

pub(crate) fn watch() -> io::Result<()> {
    let requested = FLAG.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag clear.
        flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), requested.clone())?;
        flag::register(signal, requested.clone())?;
    }
    Ok(())
}

pub(crate) fn is_requested() -> bool {
    FLAG.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}

/// # Errors
/// When somebody wants an end.
pub(crate) fn check() -> io::Result<()> {
    if is_requested() { Err(io::Error::other("interrupted")) } else { Ok(()) }
}
