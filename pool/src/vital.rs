//! Threads without which there is half a process.

use std::cell::Cell;

thread_local! {
    static IS_VITAL: Cell<bool> = const { Cell::new(false) };
}

/// All the work of a thread without which there is half a process: a panic in it is to end the
/// process.
pub fn vital<T>(work: impl FnOnce() -> T) -> T {
    become_vital();
    work()
}

/// The same for a thread whose work begins elsewhere.
pub fn become_vital() {
    IS_VITAL.set(true);
}

/// Whether this thread does [`vital`] work: for the hook of panics, which runs on the thread that
/// panics.
pub fn is_vital() -> bool {
    IS_VITAL.try_with(Cell::get).unwrap_or(false)
}
