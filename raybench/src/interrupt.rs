//! Ctrl-C: the first one ends the run and prints the result so far. A second one ends the process
//! immediately.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code, the same that shells report for a process killed by SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

/// timeout(1) sends its signal to the process and then to its group. Two signals within this time
/// count as one.
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
///
/// If the run was interrupted.
pub(crate) fn check() -> io::Result<()> {
    if is_requested() { Err(io::Error::other("interrupted")) } else { Ok(()) }
}
