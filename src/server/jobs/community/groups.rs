//! Groups and friends: 61 to 65, and 6, 10 and 12 of level 1.

use std::borrow::Cow;

use super::parts::{Arrangements, CommunityRules, GroupDoor, nonce};
use crate::metrics::Hit;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::{Account, MemberAction};
use crate::protocol::{self, EchoedId, GroupId, Id, UserId};
use crate::session::{DESCRIPTION_MAX, MadeFriends, NAME_MAX, ToldBy};
use crate::store::StoreError;
use crate::store::community::{
    Befriended, Community, Deed, FriendPolicy, FriendRequest, GroupAct, GroupChanged, GroupMember, GroupRefusal,
    GroupRole, NewGroup, Recorded, Right, Trace, Visible,
};
use crate::store::hooks::Hooked;

/// A member as a 61 shows it: id, name, and whether it is the creator.
type ListedMember = (UserId, Option<String>, bool);

impl Arrangements {
    /// 61.
    pub(super) fn members(
        &self,
        community: &dyn Community,
        asker: UserId,
        group: Id,
    ) -> Result<Result<Vec<ListedMember>, Refusal>, StoreError> {
        Ok(match community.members_of(group.group_or_none(), asker)? {
            Ok(members) => {
                let line = |member: GroupMember| (member.user, member.name, member.role == GroupRole::Creator);
                Ok(members.into_iter().map(line).collect())
            }
            Err(refusal) => Err(refusal_of(refusal)),
        })
    }

    /// 62 to 65.
    pub(super) fn change_group(
        &self,
        community: &dyn Community,
        by: UserId,
        request: &Account<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let (group, deed) = match self.deed(request) {
            Ok(deed) => deed,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let group = group.group_or_none();
        if let Deed::Add { user, .. } = deed
            && user != by
            && !self.parts.group_room.for_being_added(user, group)?
        {
            // Only the creator learns that; a change of nothing finds out who asks.
            let nothing = Deed::Change { name: None, description: None };
            return Ok(Err(self.act(community, group, by, nothing)?.map_or_else(refusal_of, |_| TOO_MANY_GROUPS)));
        }
        Ok(self.act(community, group, by, deed)?.map(drop).map_err(refusal_of))
    }

    fn deed(&self, request: &Account<'_>) -> Result<(Id, Deed), Refusal> {
        let (members_max, sees) = (self.parts.rules.members_max, self.sees());
        Ok(match request {
            Account::Leave { group } => (*group, Deed::Leave),
            Account::Dissolve { group } => (*group, Deed::Dissolve),
            Account::Member { group, user, change } => {
                let user = user.user_or_nobody();
                let deed = match change {
                    MemberAction::Remove => Deed::Remove(user),
                    MemberAction::LiftBan => Deed::LiftBan(user),
                    MemberAction::Add => Deed::Add { user, members_max, sees },
                };
                (*group, deed)
            }
            Account::ChangeGroup { group, name, description } => {
                let fits = |text: &Option<_>, max| {
                    text.as_ref().is_none_or(|text: &std::borrow::Cow<'_, str>| text.chars().count() <= max)
                };
                if name.is_none() && description.is_none()
                    || !fits(name, NAME_MAX)
                    || !fits(description, DESCRIPTION_MAX)
                {
                    return Err(BAD_GROUP);
                }
                let owned = |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| text.to_string());
                (*group, Deed::Change { name: owned(name), description: owned(description) })
            }
            _ => return Err(BAD_GROUP),
        })
    }

    /// Whether a new member sees earlier messages: only in groups that nobody can join without the
    /// creator.
    fn sees(&self) -> Visible {
        match self.parts.rules.groups {
            GroupDoor::Closed => self.parts.rules.history,
            GroupDoor::Open => Visible::Hidden,
        }
    }

    /// Answers a 10. `None` if the tables lack level 2, or for a user who does not exist, which
    /// compat mode allows.
    pub(in crate::server::jobs) fn join(
        &self,
        user: UserId,
        group: GroupId,
        asked: EchoedId<'_>,
    ) -> Result<Option<String>, StoreError> {
        let Some(community) = self.parts.community.get()? else { return Ok(None) };
        let door = match self.parts.rules.groups {
            GroupDoor::Open => Ok(()),
            GroupDoor::Closed => community.members_of(group, user)?.map(drop),
        };
        let joined = match door {
            Ok(()) => self.act(community, group, user, Deed::Join { members_max: self.parts.rules.members_max })?,
            Err(refusal) => Err(refusal),
        };
        Ok(match joined {
            Ok(changed) => Some(protocol::joined(group, &changed.name)),
            Err(GroupRefusal::NoSuchUser) => None,
            Err(GroupRefusal::NoSuchGroup) => Some(protocol::no_such_group(asked)),
            Err(GroupRefusal::Full) => {
                self.parts.metrics.refused(Hit::GroupMembersMax);
                Some(protocol::group_full(asked))
            }
            Err(_) => Some(protocol::may_not_join(asked)),
        })
    }

    /// Creates the group of a 12. `None` if the tables lack level 2.
    pub(in crate::server::jobs) fn found_group(
        &self,
        owner: UserId,
        name: &str,
        description: &str,
    ) -> Result<Option<GroupId>, StoreError> {
        let Some(community) = self.parts.community.get()? else { return Ok(None) };
        let (name, description) = (name.to_owned(), description.to_owned());
        let (group, recorded) = community.found_group(&NewGroup { owner, name, description, nonce: nonce()? })?;
        // Other nodes cannot have cached a new group.
        self.parts.groups.changed(group);
        self.tell(&recorded, Some(owner));
        Ok(Some(group))
    }

    /// Answers a 6. `None` if the tables lack level 2.
    pub(in crate::server::jobs) fn befriend(&self, a: UserId, b: UserId) -> Result<Option<MadeFriends>, StoreError> {
        let Some(community) = self.parts.community.get()? else { return Ok(None) };
        let audience = &self.parts.audience;
        let trace = if audience.records(a, b) { Trace::Recorded } else { Trace::None };
        // At level 1 the other user is notified each time, as by the reference server.
        let push = if audience.has(a) || audience.has(b) { ToldBy::Nothing } else { ToldBy::Push };
        let CommunityRules { friends: policy, conversations_max, .. } = self.parts.rules;
        let hooked = if audience.has(b) { self.hooked() } else { Hooked::No };
        let request = FriendRequest { a, b, policy, trace, hooked, conversations_max, nonce: nonce()? };
        Ok(Some(match community.befriend(&request)? {
            Befriended::New(names, recorded) => MadeFriends::Friends(names, self.told(recorded.as_ref(), b)),
            Befriended::Already(names) => MadeFriends::Friends(names, push),
            Befriended::Asked(names, recorded) => MadeFriends::Asked(names, self.told(recorded.as_ref(), b)),
            Befriended::AskedBefore(names) => MadeFriends::Asked(names, ToldBy::Nothing),
            Befriended::Blocked => MadeFriends::Blocked,
            Befriended::NoRoom => MadeFriends::NoRoom,
            Befriended::NoSuchUser => MadeFriends::NoSuchUser,
        }))
    }

    /// The way to notify `b`: a user of level 1 has no conversation to find the request in.
    fn told(&self, recorded: Option<&Recorded>, b: UserId) -> ToldBy {
        if let Some(recorded) = recorded {
            self.tell(recorded, None);
        }
        if !self.parts.audience.has(b) {
            return ToldBy::Push;
        }
        // The user may be at level 1 as well.
        self.parts.level1_seen.learn([b]);
        ToldBy::Conversation
    }

    /// Whether friend requests are noted, because only their recipient may agree.
    pub fn notes_requests(&self) -> bool {
        self.parts.rules.friends == FriendPolicy::Ask
    }

    /// Notes a friend request that is in no conversation. Blocks.
    pub fn note_request(&self, from: UserId, to: UserId) {
        let noted = self.parts.community.get().and_then(|community| match community {
            Some(community) => community.note_asked(from, to),
            None => Ok(()),
        });
        self.parts.outages.note("noting requests to be friends", noted.as_ref().err());
    }

    pub(super) fn act(
        &self,
        community: &dyn Community,
        group: GroupId,
        by: UserId,
        deed: Deed,
    ) -> Result<Result<GroupChanged, GroupRefusal>, StoreError> {
        let joins = match &deed {
            Deed::Join { .. } => Some(by),
            Deed::Add { user, .. } => Some(*user),
            _ => None,
        };
        let (right, hooked) = (Right::Standing, self.hooked());
        let outcome = community.act(&GroupAct { group, by, right, deed, hooked, nonce: nonce()? })?;
        if let Ok(GroupChanged { recorded: Some(recorded), .. }) = &outcome {
            self.group_changed(recorded, joins);
        }
        Ok(outcome)
    }

    /// Called before the reply, so that a client that learns of the change finds it made.
    pub(super) fn group_changed(&self, recorded: &Recorded, joins: Option<UserId>) {
        if let Some(group) = recorded.conv.group() {
            self.parts.groups.changed(group);
            self.parts.bus.group_changed(group);
        }
        self.tell(recorded, joins);
    }
}

fn refusal_of(refusal: GroupRefusal) -> Refusal {
    match refusal {
        GroupRefusal::NoSuchGroup => Refusal::forever(404, "there is no such group"),
        GroupRefusal::NoSuchUser => NO_SUCH_USER,
        GroupRefusal::NoSuchMember => Refusal::forever(404, "this user is not a member"),
        // Only a 10 finds a ban, and its refusal is another one.
        GroupRefusal::NotMember | GroupRefusal::Banned => Refusal::forever(403, "you are not a member of this group"),
        GroupRefusal::NotCreator => Refusal::forever(403, "only the creator may do this"),
        GroupRefusal::Full => Refusal::forever(403, "the group has as many members as it may"),
        GroupRefusal::Yourself => Refusal::forever(400, "leave the group with a 62"),
    }
}

pub(super) const NO_SUCH_USER: Refusal = Refusal::forever(404, "there is no such user");
const TOO_MANY_GROUPS: Refusal = Refusal::forever(403, "this user is in too many groups for another one");
const BAD_GROUP: Refusal =
    Refusal::forever(400, "give name, of at most 50 characters, or description, of at most 200, or both");
