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

/// What a loop finds in its inbox.
#[derive(Debug)]
pub(crate) enum Letter<M> {
    /// A new connection for this loop.
    Accepted(Socket, SocketAddr, Preface),
    /// The application's message for a connection.
    Message(ConnId, M),
    /// A frame with [`Fate::Report`](crate::Fate::Report) is out.
    Sent(ConnId, u32),
    /// The connection is dead or was given up.
    HangUp(ConnId),
    /// Close the connections one after the other, with so long a pause between two, then finish within this time and stop.
    Drain { pause: Duration, timeout: Duration },
    /// Give a sign of life.
    Beat,
}

/// A loop's inbox. Posting never blocks and never fails.
///
/// The inbox has no capacity of its own, since refusing a letter would lose an outcome. What can be in it is bounded by
/// what causes letters: connections (one accept, one hang-up each), the application's jobs in flight, which it bounds.
pub(crate) struct LoopHandle<M> {
    inbox: Arc<Inbox<M>>,
}

struct Inbox<M> {
    letters: Mutex<Vec<Letter<M>>>,
    /// The loop was woken and has not looked into the inbox since.
    notified: AtomicBool,
    waker: Waker,
    /// The high-water mark of each connection.
    output_bytes_max: usize,
    pace: Option<Pace>,
}

impl<M> LoopHandle<M> {
    pub(crate) fn new(waker: Waker, output_bytes_max: usize, pace: Option<Pace>) -> LoopHandle<M> {
        let (letters, notified) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let inbox = Inbox { letters, notified, waker, output_bytes_max, pace };
        LoopHandle { inbox: Arc::new(inbox) }
    }

    pub(crate) fn output_bytes_max(&self) -> usize {
        self.inbox.output_bytes_max
    }

    /// How connections that do not read lines are written to, if not at once.
    pub(crate) fn pace(&self) -> Option<&Pace> {
        self.inbox.pace.as_ref()
    }

    pub(crate) fn post(&self, letter: Letter<M>) {
        self.inbox.letters.lock().push(letter);
        self.notify();
    }

    pub(crate) fn post_all(&self, letters: impl IntoIterator<Item = Letter<M>>) {
        self.inbox.letters.lock().extend(letters);
        self.notify();
    }

    /// Whether something was posted since the last taking.
    pub(crate) fn is_notified(&self) -> bool {
        self.inbox.notified.load(Ordering::Acquire)
    }

    /// How many wait.
    pub(crate) fn letters(&self) -> usize {
        self.inbox.letters.lock().len()
    }

    pub(crate) fn is(&self, other: &LoopHandle<M>) -> bool {
        Arc::ptr_eq(&self.inbox, &other.inbox)
    }

    /// Takes all letters, leaving the empty `spare` in their place. The flag is cleared first, so that a letter which
    /// is pushed after the taking wakes the loop again.
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
            // An eventfd write fails only if the loop is gone.
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
