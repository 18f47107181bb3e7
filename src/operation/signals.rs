//! Signals: those that stop the server, those that make it reload files, and those without effect.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT | a graceful shutdown; a second one ends the process immediately |
//! | SIGQUIT | a graceful shutdown, however often it comes |
//! | SIGHUP, SIGUSR1 | the log file is reopened and the settings are read again |
//! | SIGUSR2, SIGXFSZ | nothing |
//!
//! An unhandled signal would end the process and lose what it holds. A closing terminal sends
//! SIGHUP, tools that rotate logs send SIGHUP or SIGUSR1. A file that would grow beyond a limit
//! (setrlimit(2)) raises SIGXFSZ; if that is ignored, the write fails, which is treated as a full
//! disk.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Signals that wait to be handled instead of ending the process.
pub struct Caught(Signals);

/// Catches every signal that is not a request to stop. Stop requests keep their usual effect until
/// [`Caught::handle`], so that a start that hangs can be interrupted.
///
/// # Errors
///
/// If the system refuses.
pub fn catch() -> io::Result<Caught> {
    // A handler instead of an ignored signal, because children would inherit the latter.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let signals = Signals::new([SIGUSR1, SIGUSR2])?;
    // `nohup` and the like start a program with SIGHUP ignored on purpose.
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    Ok(Caught(signals))
}

impl Caught {
    /// Starts a thread named `signals` that handles all signals, including those since [`catch`]:
    /// it calls `stop` once, and `look_again` each time.
    ///
    /// # Errors
    ///
    /// If the system refuses, or cannot start a thread.
    pub fn handle(self, stop: impl Fn() + Send + 'static, look_again: impl Fn() + Send + 'static) -> io::Result<()> {
        let Caught(mut signals) = self;
        for signal in [SIGTERM, SIGINT, SIGQUIT] {
            signals.add_signal(signal)?;
        }
        let listen = move || {
            let (mut is_stopping, mut is_urgent) = (false, false);
            for signal in signals.forever() {
                match signal {
                    SIGHUP | SIGUSR1 => look_again(),
                    SIGUSR2 => log::info!("SIGUSR2: nothing to do"),
                    _ => {
                        let (name, code) = match signal {
                            SIGINT => ("SIGINT", 130),
                            SIGTERM => ("SIGTERM", 143),
                            _ => ("SIGQUIT", 131),
                        };
                        if signal != SIGQUIT && std::mem::replace(&mut is_urgent, true) {
                            // Exit handlers are skipped: work that does not finish by itself would
                            // not finish in them either.
                            signal_hook::low_level::exit(code);
                        }
                        log::info!("{name}: finishing what is in flight; a second SIGTERM or SIGINT ends it at once");
                        if !std::mem::replace(&mut is_stopping, true) {
                            stop();
                        }
                    }
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(())
    }
}

/// Whether the process was started with this signal ignored (proc_pid_status(5), `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}
