//! Signals: which ones stop the server, which ones have it look again, and which ones do nothing.
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM, SIGINT | a graceful shutdown; a second one ends the process at once |
//! | SIGQUIT | a graceful shutdown, however often it comes |
//! | SIGHUP, SIGUSR1 | the log file is opened again and the settings are read again |
//! | SIGUSR2, SIGXFSZ | nothing |
//!
//! A signal that nobody handles ends a process and costs what it holds. A terminal that closes sends SIGHUP, tools that
//! rotate logs send SIGHUP or SIGUSR1. A file that would grow beyond a limit (setrlimit(2)) raises SIGXFSZ; ignored, it
//! leaves an error of the write, which is treated as a full disk.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Signals that wait to be handled from now on, instead of ending the process.
pub struct Caught(Signals);

/// Catches every signal that is no request to stop. Those have their usual effect until [`Caught::handle`]: a start that does
/// not come to an end can be broken off.
///
/// # Errors
/// When the system refuses.
pub fn catch() -> io::Result<Caught> {
    // A handler rather than an ignore: children do not inherit it.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let signals = Signals::new([SIGUSR1, SIGUSR2])?;
    // `nohup` and the like start a program with SIGHUP ignored, and that is meant.
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    Ok(Caught(signals))
}

impl Caught {
    /// Has a thread named `signals` handle everything, also what came since [`catch`]: it calls `stop` once, and `look_again`
    /// each time.
    ///
    /// # Errors
    /// When the system refuses, or has no thread left.
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
                            // No exit handlers: what does not finish by itself would not finish in them either.
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
