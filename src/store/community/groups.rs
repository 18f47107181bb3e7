//! Changes of groups: whether they are allowed, and what follows from them, decided without a
//! database. A store reads the [`GroupFacts`] under its locks, and carries out the [`Decision`]
//! before it releases them.

use std::sync::Arc;

use blake2::Blake2s256;
use blake2::digest::Digest as _;

use super::recorded::Recorded;
use crate::base::conversation::ConversationId;
use crate::protocol::level2::replies::group_event;
use crate::protocol::{GroupId, UserId};
use crate::store::history::{Cid, EntryKind, FrameHash, MemberChange, NewEntry, SenderCheck};
use crate::store::hooks::Hooked;

/// A group to be created.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Its creator and first member.
    pub owner: UserId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Random bytes.
    pub nonce: [u8; 16],
}

/// A request to change a group.
#[derive(Clone, Debug)]
pub struct GroupAct {
    /// The group.
    pub group: GroupId,
    /// The user who makes the request, or in whose name an administrator's order is recorded.
    pub by: UserId,
    /// The reason why the change is allowed.
    pub right: Right,
    /// The change to make.
    pub deed: Deed,
    /// Whether its events join the queue of the hook.
    pub hooked: Hooked,
    /// Random bytes, the same for a retry of the request.
    pub nonce: [u8; 16],
}

/// The reason why a change of a group is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// The requester's standing in the group.
    Standing,
    /// An administrator's order. It needs no creator.
    Administrator,
}

/// A change of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// The requester becomes a member. `members_max` is the most members of the group.
    Join { members_max: usize },
    /// The requester leaves. If this is the creator, the longest-standing member takes over; if it
    /// is the last member, the group is dissolved.
    Leave,
    /// A member is removed, and may not join again.
    Remove(UserId),
    /// A user who was removed may join again.
    LiftBan(UserId),
    /// A user is added. `members_max` is the most members of the group.
    Add { user: UserId, members_max: usize, sees: Visible },
    /// A member becomes the creator, who stays as a normal member.
    Transfer(UserId),
    /// The group gets another name or description.
    Change { name: Option<String>, description: Option<String> },
    /// The group is dissolved.
    Dissolve,
}

/// Whether something is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visible {
    /// It is shown.
    Shown,
    /// It is hidden.
    Hidden,
}

/// The result of a change that is made, or was made before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupChanged {
    /// Its name, before the change.
    pub name: String,
    /// The entries that were recorded; `None` if nothing that members see has changed.
    pub recorded: Option<Recorded>,
}

/// The reason why a group is not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupRefusal {
    /// No group has that id (404).
    NoSuchGroup,
    /// No user has that id (404).
    NoSuchUser,
    /// The user is not a member (404).
    NoSuchMember,
    /// The requester is not a member (403).
    NotMember,
    /// The requester is not the creator (403).
    NotCreator,
    /// The requester was removed before (403).
    Banned,
    /// The group has as many members as it may (403).
    Full,
    /// The creator must leave by another request (400).
    Yourself,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMember {
    /// The member.
    pub user: UserId,
    /// The name; `None` if the account is deleted.
    pub name: Option<String>,
    /// The rights of the member.
    pub role: GroupRole,
}

/// The rights of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupRole {
    /// All rights.
    Creator,
    /// The rights to read, write and leave.
    Normal,
}

impl GroupRole {
    /// The rights as they are stored.
    pub(in crate::store) fn stored(role: &str) -> GroupRole {
        if role == "creator" { GroupRole::Creator } else { GroupRole::Normal }
    }
}

/// The facts about a group that a decision needs.
#[derive(Clone, Default, Debug)]
pub(in crate::store) struct GroupFacts {
    /// Its name, if it exists.
    pub(in crate::store) name: Option<String>,
    /// The standing and the name of the requester.
    pub(in crate::store) standing: Option<GroupRole>,
    pub(in crate::store) by_name: Option<String>,
    /// The facts about [`GroupAct::subject`].
    pub(in crate::store) subject: Subject,
    /// The number of members, as far as it matters.
    pub(in crate::store) members: usize,
    /// The longest-standing one of the other members.
    pub(in crate::store) heir: Option<(UserId, String)>,
}

/// The user whom a change concerns.
#[derive(Clone, Default, Debug)]
pub(in crate::store) struct Subject {
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) is_member: bool,
    pub(in crate::store) is_banned: bool,
}

/// Entries to record and rows to write.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(in crate::store) struct Decision {
    pub(in crate::store) events: Vec<GroupEvent>,
    pub(in crate::store) writes: Vec<GroupWrite>,
    pub(in crate::store) gone: Gone,
}

/// The users who are no longer members afterwards.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::store) enum Gone {
    #[default]
    Nobody,
    One(UserId),
    All,
}

/// An event of a group (57).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct GroupEvent {
    event: &'static str,
    user: UserId,
    name: String,
    change: Option<MemberChange>,
}

/// A change of rows, besides those of members who join or leave with an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum GroupWrite {
    Promote(UserId),
    Demote(UserId),
    Ban(UserId),
    LiftBan(UserId),
    Name(String),
    Description(String),
    /// Deletes everything of the group but its conversation.
    End,
}

impl GroupAct {
    /// The act by which a user leaves one of several groups in one request, with its own random
    /// bytes.
    pub(in crate::store) fn leaving(group: GroupId, by: UserId, hooked: Hooked, request: [u8; 16]) -> GroupAct {
        let nonce = derived(request, group.0.into());
        GroupAct { group, by, right: Right::Standing, deed: Deed::Leave, hooked, nonce }
    }

    /// The user whom the change concerns.
    pub(in crate::store) fn subject(&self) -> UserId {
        match self.deed {
            Deed::Remove(user) | Deed::LiftBan(user) | Deed::Transfer(user) | Deed::Add { user, .. } => user,
            Deed::Join { .. } | Deed::Leave | Deed::Change { .. } | Deed::Dissolve => self.by,
        }
    }

    pub(in crate::store) fn conv(&self) -> ConversationId {
        ConversationId::of_group(self.group)
    }

    /// The number up to which members are counted.
    pub(in crate::store) fn members_max(&self) -> usize {
        match self.deed {
            Deed::Join { members_max } | Deed::Add { members_max, .. } => members_max,
            _ => 0,
        }
    }

    /// Whether the heir matters.
    pub(in crate::store) fn needs_heir(&self) -> bool {
        self.deed == Deed::Leave
    }

    pub(in crate::store) fn decide(&self, facts: &GroupFacts) -> Result<Decision, GroupRefusal> {
        if facts.name.is_none() {
            return Err(GroupRefusal::NoSuchGroup);
        }
        match &self.deed {
            Deed::Join { members_max } => self.join(facts, *members_max),
            Deed::Leave => self.leave(facts),
            Deed::Remove(_)
            | Deed::LiftBan(_)
            | Deed::Transfer(_)
            | Deed::Add { .. }
            | Deed::Change { .. }
            | Deed::Dissolve => match facts.standing {
                _ if self.right == Right::Administrator => self.as_creator(facts),
                None => Err(GroupRefusal::NotMember),
                Some(GroupRole::Normal) => Err(GroupRefusal::NotCreator),
                Some(GroupRole::Creator) => self.as_creator(facts),
            },
        }
    }

    fn join(&self, facts: &GroupFacts, members_max: usize) -> Result<Decision, GroupRefusal> {
        let name = facts.by_name.clone().ok_or(GroupRefusal::NoSuchUser)?;
        match facts.standing {
            Some(_) => Ok(Decision::default()),
            None if facts.subject.is_banned => Err(GroupRefusal::Banned),
            None if facts.members >= members_max => Err(GroupRefusal::Full),
            None => Ok(Decision::of(joined(self.by, name, Visible::Hidden))),
        }
    }

    fn leave(&self, facts: &GroupFacts) -> Result<Decision, GroupRefusal> {
        let standing = facts.standing.ok_or(GroupRefusal::NotMember)?;
        let name = facts.by_name.clone().unwrap_or_default();
        let left = GroupEvent { event: "left", user: self.by, name, change: Some(MemberChange::Leaves(self.by)) };
        let mut decision = Decision { gone: Gone::One(self.by), ..Decision::of(left) };
        match (&facts.heir, standing) {
            (None, _) => {
                decision.gone = Gone::All;
                decision.writes.push(GroupWrite::End);
            }
            (Some((heir, name)), GroupRole::Creator) => {
                decision.events.push(GroupEvent { event: "creator", user: *heir, name: name.clone(), change: None });
                decision.writes.push(GroupWrite::Promote(*heir));
            }
            (Some(_), GroupRole::Normal) => {}
        }
        Ok(decision)
    }

    fn as_creator(&self, facts: &GroupFacts) -> Result<Decision, GroupRefusal> {
        let (subject, of_subject) = (self.subject(), &facts.subject);
        let own_name = || facts.by_name.clone().unwrap_or_default();
        // An administrator's order may be in the name of another member.
        let is_creator = facts.standing == Some(GroupRole::Creator);
        Ok(match &self.deed {
            Deed::Remove(user) if *user == self.by && is_creator => return Err(GroupRefusal::Yourself),
            Deed::Remove(_) if !of_subject.is_member => return Err(GroupRefusal::NoSuchMember),
            Deed::Remove(_) => {
                let name = of_subject.name.clone().unwrap_or_default();
                let change = Some(MemberChange::Leaves(subject));
                let removed = GroupEvent { event: "removed", user: subject, name, change };
                let writes = vec![GroupWrite::Ban(subject)];
                Decision { writes, gone: Gone::One(subject), ..Decision::of(removed) }
            }
            Deed::LiftBan(_) if of_subject.name.is_none() => return Err(GroupRefusal::NoSuchUser),
            Deed::LiftBan(_) => Decision { writes: vec![GroupWrite::LiftBan(subject)], ..Decision::default() },
            Deed::Add { members_max, sees, .. } => match &of_subject.name {
                None => return Err(GroupRefusal::NoSuchUser),
                Some(_) if of_subject.is_member => Decision::default(),
                Some(_) if facts.members >= *members_max => return Err(GroupRefusal::Full),
                Some(name) => {
                    let writes = vec![GroupWrite::LiftBan(subject)];
                    Decision { writes, ..Decision::of(joined(subject, name.clone(), *sees)) }
                }
            },
            Deed::Transfer(user) if *user == self.by && is_creator => Decision::default(),
            Deed::Transfer(_) if !of_subject.is_member => return Err(GroupRefusal::NoSuchMember),
            Deed::Transfer(_) => {
                let name = of_subject.name.clone().unwrap_or_default();
                let creator = GroupEvent { event: "creator", user: subject, name, change: None };
                let mut writes = vec![GroupWrite::Promote(subject)];
                writes.extend(is_creator.then_some(GroupWrite::Demote(self.by)));
                Decision { writes, ..Decision::of(creator) }
            }
            Deed::Change { name, description } => {
                let mut decision = Decision::default();
                if let Some(name) = name.clone().filter(|name| Some(name) != facts.name.as_ref()) {
                    decision.writes.push(GroupWrite::Name(name.clone()));
                    decision.events.push(GroupEvent { event: "renamed", user: self.by, name, change: None });
                }
                decision.writes.extend(description.clone().map(GroupWrite::Description));
                decision
            }
            // Nobody is there to see an event.
            Deed::Dissolve if facts.standing.is_none() => {
                Decision { writes: vec![GroupWrite::End], gone: Gone::All, ..Decision::default() }
            }
            Deed::Dissolve => {
                let dissolved = GroupEvent { event: "dissolved", user: self.by, name: own_name(), change: None };
                Decision { writes: vec![GroupWrite::End], gone: Gone::All, ..Decision::of(dissolved) }
            }
            // These were decided above.
            Deed::Join { .. } | Deed::Leave => Decision::default(),
        })
    }
}

impl Decision {
    fn of(event: GroupEvent) -> Decision {
        Decision { events: vec![event], ..Decision::default() }
    }

    /// The events as entries, in the name of the requester.
    pub(in crate::store) fn entries(&self, act: &GroupAct) -> Vec<NewEntry> {
        let entry = |(nth, event): (usize, &GroupEvent)| {
            let text: Arc<str> = group_event(event.event, event.user, act.by, &event.name).into();
            let entry = new_entry(act.conv(), act.by, event_cid(act.nonce, nth), event.change, text);
            NewEntry { is_hooked: act.hooked == Hooked::Yes, ..entry }
        };
        self.events.iter().enumerate().map(entry).collect()
    }
}

impl NewGroup {
    /// The first entry of the group. Only its creator is there to see it.
    pub(in crate::store) fn entry(&self, group: GroupId, owner_name: &str) -> NewEntry {
        let text: Arc<str> = group_event("created", self.owner, self.owner, owner_name).into();
        new_entry(ConversationId::of_group(group), self.owner, event_cid(self.nonce, 0), None, text)
    }
}

fn joined(user: UserId, name: String, sees: Visible) -> GroupEvent {
    let change = MemberChange::Joins { user, sees_all: sees == Visible::Shown };
    GroupEvent { event: "joined", user, name, change: Some(change) }
}

fn new_entry(conv: ConversationId, sender: UserId, cid: Cid, change: Option<MemberChange>, text: Arc<str>) -> NewEntry {
    let (kind, hash) = (EntryKind::Other, FrameHash::of(text.as_bytes()));
    NewEntry {
        conv,
        sender,
        cid,
        hash,
        kind,
        is_imported: false,
        check: SenderCheck::None,
        is_hooked: false,
        change,
        text,
    }
}

/// The id of the nth entry of one request.
pub(in crate::store) fn event_cid(nonce: [u8; 16], nth: usize) -> Cid {
    Cid::of_server(derived(nonce, nth as i64))
}

fn derived(nonce: [u8; 16], number: i64) -> [u8; 16] {
    let mut hash = Blake2s256::new();
    hash.update(nonce);
    hash.update(number.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATOR: UserId = UserId(1);
    const OTHER: UserId = UserId(2);

    fn facts() -> GroupFacts {
        GroupFacts {
            name: Some("group".into()),
            standing: Some(GroupRole::Creator),
            by_name: Some("ann".into()),
            subject: Subject { name: Some("bob".into()), is_member: true, is_banned: false },
            members: 2,
            heir: Some((OTHER, "bob".into())),
        }
    }

    fn by_creator(deed: Deed) -> GroupAct {
        let (right, hooked) = (Right::Standing, Hooked::Yes);
        GroupAct { group: GroupId(3), by: CREATOR, right, deed, hooked, nonce: [0; 16] }
    }

    fn decide(deed: Deed, facts: &GroupFacts) -> Result<Decision, GroupRefusal> {
        by_creator(deed).decide(facts)
    }

    fn events(decision: &Decision) -> Vec<&'static str> {
        decision.events.iter().map(|event| event.event).collect()
    }

    #[test]
    fn only_the_creator_changes_a_group() {
        let deeds = [
            Deed::Remove(OTHER),
            Deed::LiftBan(OTHER),
            Deed::Add { user: OTHER, members_max: 9, sees: Visible::Hidden },
            Deed::Change { name: Some("x".into()), description: None },
            Deed::Dissolve,
        ];
        for deed in deeds {
            let refused = |standing| decide(deed.clone(), &GroupFacts { standing, ..facts() });
            assert_eq!(refused(None), Err(GroupRefusal::NotMember), "{deed:?}");
            assert_eq!(refused(Some(GroupRole::Normal)), Err(GroupRefusal::NotCreator), "{deed:?}");
            assert!(decide(deed.clone(), &facts()).is_ok(), "{deed:?}");
            let unknown = GroupFacts { name: None, ..facts() };
            assert_eq!(decide(deed, &unknown), Err(GroupRefusal::NoSuchGroup));
        }
    }

    #[test]
    fn an_administrator_changes_a_group_without_a_creator_or_members() {
        let order = |by, deed, facts: &GroupFacts| {
            GroupAct { group: GroupId(3), by, right: Right::Administrator, deed, hooked: Hooked::No, nonce: [0; 16] }
                .decide(facts)
        };
        let headless = GroupFacts { standing: Some(GroupRole::Normal), ..facts() };
        let transferred = order(OTHER, Deed::Transfer(OTHER), &headless).unwrap();
        assert_eq!((events(&transferred), transferred.writes), (vec!["creator"], vec![GroupWrite::Promote(OTHER)]));
        let removed = order(OTHER, Deed::Remove(OTHER), &headless).unwrap();
        assert_eq!((events(&removed), removed.gone), (vec!["removed"], Gone::One(OTHER)));
        assert_eq!(events(&order(OTHER, Deed::Dissolve, &headless).unwrap()), ["dissolved"]);
        let empty = GroupFacts { standing: None, by_name: None, subject: Subject::default(), members: 0, ..facts() };
        let dissolved = order(UserId(0), Deed::Dissolve, &empty).unwrap();
        assert_eq!((events(&dissolved), dissolved.writes), (vec![], vec![GroupWrite::End]));
        assert_eq!(order(UserId(0), Deed::Remove(OTHER), &empty), Err(GroupRefusal::NoSuchMember));
        // The creator is still to be replaced first.
        assert_eq!(order(CREATOR, Deed::Remove(CREATOR), &facts()), Err(GroupRefusal::Yourself));
    }

    #[test]
    fn the_longest_standing_member_takes_the_creators_place_and_the_last_one_dissolves() {
        let left = decide(Deed::Leave, &facts()).unwrap();
        assert_eq!((events(&left), left.gone), (vec!["left", "creator"], Gone::One(CREATOR)));
        assert_eq!(left.writes, [GroupWrite::Promote(OTHER)]);
        let normal = decide(Deed::Leave, &GroupFacts { standing: Some(GroupRole::Normal), ..facts() }).unwrap();
        assert_eq!((events(&normal), normal.writes), (vec!["left"], vec![]));
        let last = decide(Deed::Leave, &GroupFacts { heir: None, ..facts() }).unwrap();
        assert_eq!((events(&last), last.gone, last.writes), (vec!["left"], Gone::All, vec![GroupWrite::End]));
        let stranger = GroupFacts { standing: None, ..facts() };
        assert_eq!(decide(Deed::Leave, &stranger), Err(GroupRefusal::NotMember));
    }

    #[test]
    fn a_removed_member_joins_again_only_if_the_creator_wants_it() {
        let removed = decide(Deed::Remove(OTHER), &facts()).unwrap();
        assert_eq!((events(&removed), removed.writes), (vec!["removed"], vec![GroupWrite::Ban(OTHER)]));
        assert_eq!(decide(Deed::Remove(CREATOR), &facts()), Err(GroupRefusal::Yourself));
        let subject = Subject { is_member: false, is_banned: true, name: Some("bob".into()) };
        let out = GroupFacts { standing: None, subject: subject.clone(), ..facts() };
        let join = Deed::Join { members_max: 9 };
        assert_eq!(decide(join.clone(), &out), Err(GroupRefusal::Banned));
        let lifted = GroupFacts { subject: Subject { is_banned: false, ..subject.clone() }, ..out.clone() };
        assert_eq!(events(&decide(join, &lifted).unwrap()), ["joined"]);
        assert_eq!(decide(Deed::Join { members_max: 2 }, &lifted), Err(GroupRefusal::Full));
        let add = Deed::Add { user: OTHER, members_max: 9, sees: Visible::Shown };
        let added = decide(add.clone(), &GroupFacts { subject, ..facts() }).unwrap();
        assert_eq!((events(&added), added.writes), (vec!["joined"], vec![GroupWrite::LiftBan(OTHER)]));
        assert_eq!(decide(add.clone(), &facts()), Ok(Decision::default()), "a member already");
        let unknown = GroupFacts { subject: Subject::default(), ..facts() };
        assert_eq!(decide(add, &unknown), Err(GroupRefusal::NoSuchUser));
        assert_eq!(decide(Deed::Remove(OTHER), &unknown), Err(GroupRefusal::NoSuchMember));
    }

    #[test]
    fn a_name_that_stays_is_not_an_event() {
        let change = |name: &str| Deed::Change { name: Some(name.into()), description: Some("d".into()) };
        let same = decide(change("group"), &facts()).unwrap();
        assert_eq!((events(&same), same.writes), (vec![], vec![GroupWrite::Description("d".into())]));
        let other = decide(change("other"), &facts()).unwrap();
        assert_eq!(events(&other), ["renamed"]);
        let entries = other.entries(&by_creator(change("other")));
        assert_eq!(&*entries[0].text, r#"{"USERID":1,"by":1,"event":"renamed","msgType":57,"name":"other"}"#);
        assert!(entries[0].is_hooked);
        assert_ne!(event_cid([1; 16], 0), event_cid([1; 16], 1));
    }
}
