//! Groups: 10 join, 11 list one's own, 12 create, 13 search by name.

use std::borrow::Cow;

use net::Flow;

use super::account::NAME_MAX;
use crate::protocol::{self, EchoedId, Id};
use crate::session::phase::Awaited;
use crate::session::{Effects, Job, Session};

impl Session {
    pub(crate) fn join_group(&mut self, user: Id, group: EchoedId<'_>, effects: &mut Effects<'_>) -> Flow {
        if let Err(reply) = self.may_act_as(user) {
            return self.reply(reply, effects);
        }
        // In compat mode a client may name a user who does not exist; the reference server does not
        // check.
        let user = user.user_or_nobody();
        if group.id.user().is_none() {
            return self.reply(protocol::no_such_group(group), effects);
        }
        let job = Job::JoinGroup { user, group: group.id.group_or_none(), asked: group.id };
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
        // In compat mode it may be an unknown user; the reference server does not check.
        let owner = user.user_or_nobody();
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

/// The most characters in a group's description, as in the table.
pub const DESCRIPTION_MAX: usize = 200;
