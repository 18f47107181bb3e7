//! [`PlainPasswords`]: warns the operator that passwords cross the network as plain text.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::delivery::ClientLink;

/// Whether the warning was logged.
#[derive(Default)]
pub(super) struct PlainPasswords {
    is_said: AtomicBool,
}

impl PlainPasswords {
    /// Notes that a client has sent a password. The first one without TLS from another machine is
    /// logged. A trusted proxy is exempt, because it may use TLS with its clients.
    pub(super) fn note(&self, link: &ClientLink) {
        if self.is_said.load(Relaxed) || link.is_encrypted() || link.is_proxied() {
            return;
        }
        let Some(peer) = link.peer().filter(|peer| !peer.ip().to_canonical().is_loopback()) else { return };
        if !self.is_said.swap(true, Relaxed) {
            log::warn!(
                "a password has come from {} as plain text, which anybody on the way can read; set tls_cert, or let a \
                 proxy speak TLS (README, TLS). This is said once",
                peer.ip()
            );
        }
    }
}
