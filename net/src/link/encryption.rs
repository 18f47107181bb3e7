//! The reads of a [`Link`] whose socket is not plain, and the beginning of TLS.

use std::io;
use std::sync::Arc;

use super::{Link, Turn};
use crate::tls::Tls;
use crate::transport::{Got, Transport};

impl<M> Link<M> {
    /// Reads the client's bytes through its transport. Only the owner calls it, and only if the
    /// socket is not plain.
    pub(crate) fn read(self: &Arc<Link<M>>, turn: &mut Turn<M>, buffer: &mut [u8]) -> io::Result<Got> {
        let mut side = self.side.lock();
        let was_handshaking = side.transport.is_handshaking();
        let got = side.transport.read(&self.socket, buffer);
        turn.budget.spend(side.transport.take_work());
        if side.transport.ahead() > 0 {
            // The transport has answered, and the socket was full: its next event reports room.
            side.blocked = true;
        } else if was_handshaking && side.blocked && !side.transport.is_handshaking() {
            // Frames that were sent during the handshake waited for its end.
            self.flush_side(side, turn);
        }
        got
    }

    /// Speaks TLS from now on. Returns whether that is possible. Only the owner calls it, before
    /// anything was read.
    pub(crate) fn begin_tls(&self) -> bool {
        let Some(session) = self.owner.tls().and_then(Tls::begin) else { return false };
        self.side.lock().transport = Transport::encrypted(session);
        true
    }

    /// Whether clients may speak TLS to this port.
    pub(crate) fn has_tls(&self) -> bool {
        self.owner.tls().is_some()
    }

    /// Whether the client speaks TLS, and the handshake is finished. Any thread may call it.
    pub fn is_encrypted(&self) -> bool {
        let side = self.side.lock();
        matches!(side.transport, Transport::Encrypted(_)) && !side.transport.is_handshaking()
    }

    /// Whether nothing can be sent yet, because a handshake is not finished.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.side.lock().transport.is_handshaking()
    }

    /// The memory in bytes for input that the transport holds.
    pub(crate) fn held_input(&self) -> usize {
        self.side.lock().transport.held()
    }
}
