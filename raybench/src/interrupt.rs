//! Ctrl-C: what there is, is still told. A second one ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code, as shells have it for a process that SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// timeout(1) sends its signal to the process and to its group: one that follows so soon is still the first.
const SAME: Duration = Duration::from_millis(500);

static REQUESTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn watch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        let mut first: Option<Instant> = None;
        for _ in signals.forever() {
            if first.get_or_insert_with(Instant::now).elapsed() > SAME {
                signal_hook::low_level::exit(i32::from(EXIT_CODE));
            }
            REQUESTED.store(true, Ordering::Relaxed);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// # Errors
/// When somebody wants an end.
pub(crate) fn check() -> io::Result<()> {
    if is_requested() { Err(io::Error::other("interrupted")) } else { Ok(()) }
}
