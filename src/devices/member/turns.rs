//! The requests of a member that threads do, in turn.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Member, NO_REPLY};
use crate::base::conversation::ConversationName;
use crate::devices::effects::{MemberEffect, MemberEffects};
use crate::devices::in_turn::{Does, QueuedRequest};
use crate::devices::tasks::MemberTask;
use crate::history::answers::Ticket;
use crate::protocol::level2::Rid;
use crate::protocol::{Id, UserId};

impl Member {
    pub(super) fn on_watch(&mut self, users: Vec<Id>, rid: Option<Rid>, effects: &mut MemberEffects) {
        let mut seen = FxHashSet::default();
        let each = users.into_iter().filter(|Id(id)| seen.insert(*id));
        // An id beyond those of users looks offline, as that of a user who has never existed.
        let (users, nobody): (Vec<Id>, Vec<Id>) = each.partition(|Id(id)| i32::try_from(*id).is_ok());
        let users: Arc<[UserId]> = users.iter().filter_map(|Id(id)| i32::try_from(*id).ok().map(UserId)).collect();
        let ticket = self.replies.open();
        let before = self.watch.begin(ticket, users.clone(), nobody);
        self.do_in_turn(ticket, Does::Read, MemberTask::Watch(ticket, rid, before, users), effects);
    }

    /// Moves the user's read mark when its turn comes.
    pub(super) fn on_read(&mut self, conv: ConversationName, read: i64, rid: Option<Rid>, effects: &mut MemberEffects) {
        let ticket = self.replies.open();
        self.marks.asks(ticket, conv.for_user(self.identity.user));
        let task = MemberTask::MarkRead(ticket, rid, self.named(conv), read.max(0));
        self.do_in_turn(ticket, Does::Change, task, effects);
    }

    /// Has a task done when its turn comes.
    pub(super) fn do_in_turn(&mut self, ticket: Ticket, does: Does, task: MemberTask, effects: &mut MemberEffects) {
        self.tasks.add(ticket, does, QueuedRequest::Task(task));
        self.do_next(effects);
    }

    /// Begins the requests whose turn has come, except while a long reply is unfinished.
    pub(super) fn do_next(&mut self, effects: &mut MemberEffects) {
        self.write_replies(effects);
        while !self.replies.is_amid_a_reply()
            && let Some(next) = self.tasks.next()
        {
            match next {
                QueuedRequest::Task(task) => effects.push(MemberEffect::Do(task)),
                QueuedRequest::Session(ticket, rid) => {
                    self.replies.asks_session(ticket, rid);
                    self.for_session.release();
                }
                QueuedRequest::Reports(ticket) => match self.reports.next() {
                    Some(stored) => effects.push(MemberEffect::Do(MemberTask::Report(ticket, stored))),
                    // These were noted with an earlier one.
                    None => {
                        self.replies.settle(ticket, NO_REPLY);
                        self.tasks.done(ticket);
                    }
                },
            }
        }
        self.write_replies(effects);
    }

    /// Notes that a request is done and its reply is in place.
    pub(super) fn done(&mut self, ticket: Ticket, effects: &mut MemberEffects) {
        self.tasks.done(ticket);
        self.do_next(effects);
    }

    /// Has all 47s noted that are read before its turn comes.
    pub(super) fn note_in_turn(&mut self, ticket: Ticket, effects: &mut MemberEffects) {
        self.tasks.add(ticket, Does::Change, QueuedRequest::Reports(ticket));
        self.do_next(effects);
    }

    /// Has the session process a frame when its turn comes.
    pub(super) fn have_session_process(&mut self, frame: Box<[u8]>, rid: Option<Rid>, effects: &mut MemberEffects) {
        let ticket = self.replies.open();
        self.for_session.add(frame);
        self.tasks.add(ticket, Does::Change, QueuedRequest::Session(ticket, rid));
        self.do_next(effects);
    }

    /// The frame that the session must process now. [`Member::on_reply`] follows. If the session is
    /// not ready, [`Member::session_is_busy`] follows.
    pub fn next_for_session(&mut self) -> Option<Box<[u8]>> {
        if self.has_ended() { None } else { self.for_session.next() }
    }

    /// Takes back a frame that the session wants to be shown again.
    pub fn session_is_busy(&mut self, frame: Box<[u8]>) {
        self.for_session.take_back(frame);
    }
}
