//! Friends: 6 add, 7 delete, 8 the list.

use net::Flow;

use crate::protocol::{self, EchoedId, Id, UserId};
use crate::session::phase::{Awaited, Phase};
use crate::session::{Effect, Effects, Job, MadeFriends, Session, ToldBy};

impl Session {
    pub(crate) fn add_friend(&mut self, a: Id, b: EchoedId<'_>, effects: &mut Effects<'_>) -> Flow {
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

    /// The push is sent before the reply, so the reply means that the push is delivered or stored.
    /// A connection that is logged in as both users gets the reply first, as from the reference
    /// server: otherwise it would take the push for the reply.
    pub(crate) fn friends_made(&mut self, a: UserId, b: UserId, made: MadeFriends, effects: &mut Effects<'_>) {
        let (push, reply, told) = match made {
            MadeFriends::Friends(names, told) => {
                (protocol::new_friend(a, &names.a), protocol::friend_added(b, &names.b), told)
            }
            MadeFriends::Asked(names, told) => {
                (protocol::friend_request(a, &names.a), protocol::friend_asked(b, &names.b), told)
            }
            MadeFriends::Blocked => return effects.push(Effect::Reply(protocol::friend_blocked(b).into())),
            MadeFriends::NoRoom => return effects.push(Effect::Reply(protocol::friend_no_room(b).into())),
            MadeFriends::NoSuchUser => {
                return effects.push(Effect::Reply(protocol::no_such_user(Id(b.0.into()).into()).into()));
            }
        };
        let is_both = self.is(Id(b.0.into()));
        match told {
            ToldBy::Push => {
                let id = self.count_unsettled(push.len());
                if is_both {
                    effects.push(Effect::Reply(reply.into()));
                } else {
                    self.phase = Phase::Settling { reply };
                }
                effects.push(Effect::Deliver { id, to: b, text: push.into() });
            }
            ToldBy::Conversation => {
                effects.push(Effect::Reply(reply.into()));
                effects.push(Effect::Hand { from: a, to: b, text: push });
            }
            ToldBy::Nothing => effects.push(Effect::Reply(reply.into())),
        }
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
