//! [`Gate`]: whether the way to the other nodes may be used. Shut by a failure, it stays shut until
//! a probe has come back.
//!
//! ```text
//!   state      envelopes   commands   the next state
//!   untried    no          yes        open when the first probe has come back
//!   open       yes         yes        shut when a command or the connection fails
//!   shut       no          no         open when a probe has come back
//! ```
//! So a way that swallows everything delays one call, and not every call. A node that has stopped
//! leaves the gate untried: its last commands may pass.

use std::sync::atomic::{AtomicU8, Ordering};

/// See the [module](self). Any thread may call it.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    /// An untried way.
    pub(super) fn new() -> Gate {
        Gate(AtomicU8::new(UNTRIED))
    }

    /// Whether envelopes may be published: they arrive, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.state() == OPEN
    }

    /// Whether only a probe may be sent.
    pub(crate) fn is_shut(&self) -> bool {
        self.state() == SHUT
    }

    /// Opens the gate because a probe has come back.
    pub(super) fn open(&self) {
        self.0.store(OPEN, Ordering::Release);
    }

    /// Shuts the gate because a command has failed. Returns true if it was open: then the caller
    /// has a probe sent. A gate that was not open stays as it is, because the probe of its
    /// connection is due anyway.
    pub(super) fn shut(&self) -> bool {
        self.0.compare_exchange(OPEN, SHUT, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Shuts the gate because the connection has failed, or could not be made.
    pub(super) fn lose(&self) {
        self.0.store(SHUT, Ordering::Release);
    }

    /// Leaves the gate untried: the node has stopped gracefully, nothing has failed, and nothing is
    /// published any more.
    pub(super) fn release(&self) {
        self.0.store(UNTRIED, Ordering::Release);
    }

    fn state(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

const UNTRIED: u8 = 0;
const OPEN: u8 = 1;
const SHUT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Happening {
        ProbeBack,
        CommandFailed,
        ConnectionFailed,
        Stopped,
    }

    #[test]
    fn a_gate_that_was_shut_opens_only_when_a_probe_comes_back() {
        use Happening::{CommandFailed, ConnectionFailed, ProbeBack, Stopped};
        // The state, what happens, the next state, and whether a probe is to be sent.
        for (before, happening, after, needs_probe) in [
            (UNTRIED, ProbeBack, OPEN, false),
            (UNTRIED, CommandFailed, UNTRIED, false),
            (UNTRIED, ConnectionFailed, SHUT, false),
            (UNTRIED, Stopped, UNTRIED, false),
            (OPEN, ProbeBack, OPEN, false),
            (OPEN, CommandFailed, SHUT, true),
            (OPEN, ConnectionFailed, SHUT, false),
            (OPEN, Stopped, UNTRIED, false),
            (SHUT, ProbeBack, OPEN, false),
            (SHUT, CommandFailed, SHUT, false),
            (SHUT, ConnectionFailed, SHUT, false),
            (SHUT, Stopped, UNTRIED, false),
        ] {
            let gate = Gate(AtomicU8::new(before));
            let sends_probe = match happening {
                ProbeBack => {
                    gate.open();
                    false
                }
                CommandFailed => gate.shut(),
                ConnectionFailed => {
                    gate.lose();
                    false
                }
                Stopped => {
                    gate.release();
                    false
                }
            };
            assert_eq!((gate.state(), sends_probe), (after, needs_probe), "{before}, then {happening:?}");
        }
    }

    #[test]
    fn envelopes_pass_an_open_gate_only_and_commands_an_untried_one_too() {
        for (state, envelopes, commands) in [(UNTRIED, false, true), (OPEN, true, true), (SHUT, false, false)] {
            let gate = Gate(AtomicU8::new(state));
            assert_eq!((gate.is_open(), !gate.is_shut()), (envelopes, commands), "{state}");
        }
        assert!(Gate::new().state() == UNTRIED, "a start asks other nodes before its first probe");
    }
}
