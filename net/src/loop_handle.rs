//! [`LoopHandle`]: how any other thread reaches a loop.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::Waker;
use parking_lot::Mutex;

use crate::opening::Preface;
use crate::output::Pace;
use crate::slots::ConnId;
use crate::socket::Socket;
use crate::tls::Tls;

/// An item of a loop's inbox.
#[derive(Debug)]
pub(crate) enum Letter<M> {
    /// A new connection for this loop.
    Accepted(Socket, SocketAddr, Preface),
    /// The application's message for a connection.
    Message(ConnId, M),
    /// A frame with [`Fate::Report`](crate::Fate::Report) has arrived.
    Sent(ConnId, u32),
    /// The connection is dead or was given up.
    HangUp(ConnId),
    /// Close the connections one after the other, with this pause between two, then finish within
    /// this time and stop.
    Drain { pause: Duration, timeout: Duration },
    /// Prove that the loop still runs turns.
    Beat,
}

/// A loop's inbox. Posting never blocks and never fails.
///
/// The inbox has no capacity of its own, since refusing a letter would lose an outcome. Its size is
/// bounded by the sources of letters: connections (one accept, one hang-up each), and the
/// application's jobs in flight, which the application bounds.
pub(crate) struct LoopHandle<M> {
    inbox: Arc<Inbox<M>>,
}

struct Inbox<M> {
    letters: Mutex<Vec<Letter<M>>>,
    /// Whether the loop was woken and has not looked into the inbox since.
    notified: AtomicBool,
    waker: Waker,
    /// The high-water mark of each connection.
    output_bytes_max: usize,
    pace: Option<Pace>,
    tls: Option<Arc<Tls>>,
}

impl<M> LoopHandle<M> {
    pub(crate) fn new(
        waker: Waker,
        output_bytes_max: usize,
        pace: Option<Pace>,
        tls: Option<Arc<Tls>>,
    ) -> LoopHandle<M> {
        let (letters, notified) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let inbox = Inbox { letters, notified, waker, output_bytes_max, pace, tls };
        LoopHandle { inbox: Arc::new(inbox) }
    }

    pub(crate) fn output_bytes_max(&self) -> usize {
        self.inbox.output_bytes_max
    }

    /// The pace for connections that do not read lines, if any.
    pub(crate) fn pace(&self) -> Option<&Pace> {
        self.inbox.pace.as_ref()
    }

    /// The TLS that connections may begin with, if any.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.inbox.tls.as_deref()
    }

    pub(crate) fn post(&self, letter: Letter<M>) {
        self.inbox.letters.lock().push(letter);
        self.notify();
    }

    pub(crate) fn post_all(&self, letters: impl IntoIterator<Item = Letter<M>>) {
        self.inbox.letters.lock().extend(letters);
        self.notify();
    }

    /// Whether something was posted since the letters were last taken.
    pub(crate) fn is_notified(&self) -> bool {
        self.inbox.notified.load(Ordering::Acquire)
    }

    /// The number of letters.
    pub(crate) fn letters(&self) -> usize {
        self.inbox.letters.lock().len()
    }

    pub(crate) fn is(&self, other: &LoopHandle<M>) -> bool {
        Arc::ptr_eq(&self.inbox, &other.inbox)
    }

    /// Takes all letters, leaving the empty `spare` in their place. The flag is cleared first, so
    /// that a letter pushed after the taking wakes the loop again.
    pub(crate) fn take(&self, spare: &mut Vec<Letter<M>>) {
        debug_assert!(spare.is_empty());
        if self.inbox.notified.swap(false, Ordering::AcqRel) {
            std::mem::swap(spare, &mut *self.inbox.letters.lock());
        }
    }

    fn notify(&self) {
        if !self.inbox.notified.swap(true, Ordering::AcqRel)
            && let Err(error) = self.inbox.waker.wake()
        {
            // An eventfd write fails only if the loop has ended.
            log::debug!("cannot wake a loop: {error}");
        }
    }
}

impl<M> Clone for LoopHandle<M> {
    fn clone(&self) -> LoopHandle<M> {
        LoopHandle { inbox: self.inbox.clone() }
    }
}

impl<M> fmt::Debug for LoopHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle").finish_non_exhaustive()
    }
}
