//! Friends: 6 add, 7 delete, 8 the list.

use net::Flow;

use crate::protocol::{self, Asked, Id, UserId};
use crate::session::phase::{Awaited, Phase};
use crate::session::{Effect, Effects, Job, Session};
use crate::store::FriendNames;

impl Session {
    pub(crate) fn add_friend(&mut self, a: Id, b: Asked<'_>, effects: &mut Effects<'_>) -> Flow {
        if let Err(reply) = self.may_act_as(a) {
            return self.reply(reply, effects);
        }
        if a == b.id && a.user().is_some() {
            return self.reply(protocol::not_yourself(b), effects);
        }
        let Some(friend) = b.id.user() else { return self.reply(protocol::no_such_user(b), effects) };
        let user = a.user_or_nobody();
        self.submit(Job::AddFriends { a: user, b: friend }, Awaited::Friends { a: user, b: friend }, effects)
    }

    /// The push is sent before the reply, which says that it is delivered or stored. A connection
    /// that is both users gets the reply first, as from the reference server: otherwise it would
    /// take the push for the reply.
    pub(crate) fn friends_added(
        &mut self,
        a: UserId,
        b: UserId,
        names: Option<FriendNames>,
        effects: &mut Effects<'_>,
    ) {
        let Some(names) = names else {
            effects.push(Effect::Reply(protocol::no_such_user(Id(b.0.into()).into()).into()));
            return;
        };
        let push = protocol::new_friend(a, &names.a);
        let reply = protocol::friend_added(b, &names.b);
        let id = self.count_unsettled(push.len());
        if self.is(Id(b.0.into())) {
            effects.push(Effect::Reply(reply.into()));
        } else {
            self.phase = Phase::Settling { reply };
        }
        effects.push(Effect::Deliver { id, to: b, text: push.into() });
    }

    pub(crate) fn delete_friend(&mut self, user: Id, friend: Id, effects: &mut Effects<'_>) -> Flow {
        if let Err(reply) = self.may_act_as(user) {
            return self.reply(reply, effects);
        }
        let job = Job::RemoveFriend { user: user.user_or_nobody(), friend: friend.user_or_nobody() };
        self.submit(job, Awaited::Reply, effects)
    }

    pub(crate) fn contacts(&mut self, user: Id, effects: &mut Effects<'_>) -> Flow {
        match self.may_act_as(user) {
            Ok(()) => self.submit(Job::Contacts { user: user.user_or_nobody() }, Awaited::Reply, effects),
            Err(reply) => self.reply(reply, effects),
        }
    }
}
