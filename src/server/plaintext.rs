//! [`PlainPasswords`]: warns the operator that passwords come over the network as plain text.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::delivery::ClientLink;

/// Whether that was logged.
#[derive(Default)]
pub(super) struct PlainPasswords {
    is_said: AtomicBool,
}

impl PlainPasswords {
    /// A client has sent a password. Logged is the first one that came without TLS from another
    /// machine. What lies before a trusted proxy is the proxy's: it may well speak TLS there.
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
