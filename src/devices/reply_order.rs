//! [`ReplyOrder`]: replies of a connection leave in the order of their requests. 41s have an order of
//! their own, which the pump keeps.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::history::answers::{Answers, Ticket};
use crate::protocol::level2::{Rid, replies};

/// The requests without a reply. The connection is not read while there are too many.
#[derive(Debug, Default)]
pub(super) struct ReplyOrder {
    answers: Answers<String>,
    /// Those that the session answers next.
    of_session: VecDeque<(Ticket, Option<Rid>)>,
    /// 48s at work.
    pages: usize,
    /// The rest of a reply that has several frames.
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

    pub(super) fn open_for_session(&mut self, rid: Option<Rid>) {
        let ticket = self.answers.open();
        self.of_session.push_back((ticket, rid));
    }

    pub(super) fn settle(&mut self, ticket: Ticket, text: String) {
        self.answers.settle(ticket, text);
    }

    pub(super) fn settle_page(&mut self, ticket: Ticket, text: String) {
        self.pages = self.pages.saturating_sub(1);
        self.answers.settle(ticket, text);
    }

    pub(super) fn settle_of_session(&mut self, reply: &str) {
        if let Some((ticket, rid)) = self.of_session.pop_front() {
            self.answers.settle(ticket, replies::with_rid(reply, rid.as_ref()));
        }
    }

    /// The next frame of a reply, if it is there. The caller asks until there is none.
    pub(super) fn next_frame(&mut self) -> Option<Arc<str>> {
        while self.frames.is_empty() {
            // A reply has as many frames as lines, mostly one.
            self.frames.extend(self.answers.next_ready()?.lines().map(Arc::from));
        }
        self.frames.pop_front()
    }

    /// Whether a reply that was taken has more frames.
    pub(super) fn is_amid_a_reply(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether this reply was taken.
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

/// The most requests of a connection without an answer.
pub(super) const ANSWERS_MAX: usize = 64;
/// The most 48s of a connection at work: each page has up to 256 KiB.
pub(super) const PAGES_MAX: usize = 4;
