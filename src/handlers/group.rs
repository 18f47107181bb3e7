//! Groups: 10 join, 11 one's own, 12 create, 13 by name.

use std::borrow::Cow;

use net::Flow;

use super::account::NAME_MAX;
use crate::protocol::{self, Id};
use crate::session::{Awaited, Effects, Job, Session};

impl Session {
    pub(crate) fn join_group(&mut self, user: Id, group: Id, effects: &mut Effects<'_>) -> Flow {
        if let Err(reply) = self.may_act_as(user) {
            return self.reply(reply, effects);
        }
        let Some(user) = user.user() else { return self.reply(protocol::SERVER_ERROR, effects) };
        let job = Job::JoinGroup { user, group: group.group_or_none(), asked: group };
        self.submit(job, Awaited::Reply, effects)
    }

    pub(crate) fn groups_of(&mut self, user: Id, effects: &mut Effects<'_>) -> Flow {
        match self.may_act_as(user) {
            Ok(()) => self.submit(Job::GroupsOf { user: user.user_or_nobody() }, Awaited::Reply, effects),
            Err(reply) => self.reply(reply, effects),
        }
    }

    pub(crate) fn create_group(
        &mut self,
        user: Id,
        name: Cow<'_, str>,
        description: Cow<'_, str>,
        effects: &mut Effects<'_>,
    ) -> Flow {
        if let Err(reply) = self.may_act_as(user) {
            return self.reply(reply, effects);
        }
        if name.chars().count() > NAME_MAX || description.chars().count() > DESCRIPTION_MAX {
            return self.reply(protocol::SERVER_ERROR, effects);
        }
        let Some(owner) = user.user() else { return self.reply(protocol::SERVER_ERROR, effects) };
        let job = Job::CreateGroup { owner, name: name.into_owned(), description: description.into_owned() };
        self.submit(job, Awaited::Reply, effects)
    }

    pub(crate) fn groups_named(&mut self, name: Cow<'_, str>, effects: &mut Effects<'_>) -> Flow {
        match self.may_ask() {
            Ok(()) => self.submit(Job::GroupsNamed { name: name.into_owned() }, Awaited::Reply, effects),
            Err(reply) => self.reply(reply, effects),
        }
    }
}

/// Characters in a group's description, as the table has it.
const DESCRIPTION_MAX: usize = 200;
