//! Threads that the process cannot work without.

use std::cell::Cell;

thread_local! {
    static IS_VITAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs the work of a thread that the process cannot work without: a panic in it is to end the
/// process.
pub fn vital<T>(work: impl FnOnce() -> T) -> T {
    become_vital();
    work()
}

/// Marks the current thread like [`vital`], for a thread whose work begins elsewhere.
pub fn become_vital() {
    IS_VITAL.set(true);
}

/// Whether this thread does [`vital`] work. The panic hook asks, which runs on the thread that
/// panics.
pub fn is_vital() -> bool {
    IS_VITAL.try_with(Cell::get).unwrap_or(false)
}
