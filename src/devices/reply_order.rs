//! [`ReplyOrder`]: keeps the replies of a connection in the order of their requests. 41s have their
//! own order, which the pump keeps.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::history::answers::{Answers, Ticket};
use crate::protocol::level2::{Rid, replies};

/// The requests without a reply. If there are too many, the connection is not read.
#[derive(Debug, Default)]
pub(super) struct ReplyOrder {
    answers: Answers<String>,
    /// The request that the session answers next.
    of_session: Option<(Ticket, Option<Rid>)>,
    /// The number of 48s being processed.
    pages: usize,
    /// The remaining frames of a reply with several.
    frames: VecDeque<Arc<str>>,
}

impl ReplyOrder {
    pub(super) fn open(&mut self) -> Ticket {
        self.answers.open()
    }

    pub(super) fn open_page(&mut self) -> Ticket {
        self.pages += 1;
        self.answers.open()
    }

    pub(super) fn settle(&mut self, ticket: Ticket, text: String) {
        self.answers.settle(ticket, text);
    }

    pub(super) fn settle_page(&mut self, ticket: Ticket, text: String) {
        self.pages = self.pages.saturating_sub(1);
        self.answers.settle(ticket, text);
    }

    /// Notes that the session answers this request next.
    pub(super) fn asks_session(&mut self, ticket: Ticket, rid: Option<Rid>) {
        self.of_session = Some((ticket, rid));
    }

    /// Takes the session's answer. Returns the ticket of its request.
    pub(super) fn settle_of_session(&mut self, reply: &str) -> Option<Ticket> {
        let (ticket, rid) = self.of_session.take()?;
        self.answers.settle(ticket, replies::with_rid(reply, rid.as_ref()));
        Some(ticket)
    }

    /// Takes the next frame of a reply, if it is there. The caller repeats this until there is
    /// none.
    pub(super) fn next_frame(&mut self) -> Option<Arc<str>> {
        while self.frames.is_empty() {
            // Each line of a reply is a frame; most replies have one line.
            self.frames.extend(self.answers.next_ready()?.lines().map(Arc::from));
        }
        self.frames.pop_front()
    }

    /// Whether a reply that has begun to leave has more frames.
    pub(super) fn is_amid_a_reply(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether this reply has left.
    pub(super) fn has_left(&self, ticket: Ticket) -> bool {
        self.answers.has_left(ticket)
    }

    /// Whether another request may be read.
    pub(super) fn has_room(&self) -> bool {
        self.pages < PAGES_MAX && self.answers.open_count() < ANSWERS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.open_count() == 0 && self.frames.is_empty()
    }
}

/// The most unanswered requests of a connection.
pub(super) const ANSWERS_MAX: usize = 64;
/// The most 48s of a connection processed at once: each page may have 256 KiB.
pub(super) const PAGES_MAX: usize = 4;
