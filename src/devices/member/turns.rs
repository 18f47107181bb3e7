//! The requests of a member that threads do, one after the other.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Member, NO_REPLY};
use crate::devices::effects::{MemberEffect, MemberEffects};
use crate::devices::in_turn::{Does, Waiting};
use crate::devices::tasks::MemberTask;
use crate::history::answers::Ticket;
use crate::protocol::level2::Rid;
use crate::protocol::{Id, UserId};

impl Member {
    pub(super) fn on_watch(&mut self, users: Vec<Id>, rid: Option<Rid>, effects: &mut MemberEffects) {
        let mut seen = FxHashSet::default();
        // A user who has never existed is offline.
        let named = |Id(id)| i32::try_from(id).ok().map(UserId);
        let users: Arc<[UserId]> = users.into_iter().filter_map(named).filter(|user| seen.insert(*user)).collect();
        let ticket = self.replies.open();
        let before = self.watch.begin(ticket, users.clone());
        self.do_in_turn(ticket, Does::Read, MemberTask::Watch(ticket, rid, before, users), effects);
    }

    /// Has a task done when its turn has come.
    pub(super) fn do_in_turn(&mut self, ticket: Ticket, does: Does, task: MemberTask, effects: &mut MemberEffects) {
        self.tasks.add(ticket, does, Waiting::Task(task));
        self.do_next(effects);
    }

    /// Begins with those whose turn has come, but for the rest of a long reply.
    pub(super) fn do_next(&mut self, effects: &mut MemberEffects) {
        self.write_replies(effects);
        while !self.replies.is_amid_a_reply()
            && let Some(next) = self.tasks.next()
        {
            match next {
                Waiting::Task(task) => effects.push(MemberEffect::Do(task)),
                Waiting::Reports(ticket) => match self.reports.next() {
                    Some(stored) => effects.push(MemberEffect::Do(MemberTask::Report(ticket, stored))),
                    // Noted with an earlier one.
                    None => {
                        self.replies.settle(ticket, NO_REPLY);
                        self.tasks.done(ticket);
                    }
                },
            }
        }
        self.write_replies(effects);
    }

    /// A request is done; its reply is in its place.
    pub(super) fn done(&mut self, ticket: Ticket, effects: &mut MemberEffects) {
        self.tasks.done(ticket);
        self.do_next(effects);
    }

    /// Has the 47s that were read until its turn comes noted.
    pub(super) fn note_in_turn(&mut self, ticket: Ticket, effects: &mut MemberEffects) {
        self.tasks.add(ticket, Does::Change, Waiting::Reports(ticket));
        self.do_next(effects);
    }
}
