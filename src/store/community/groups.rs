//! Changes of groups: what is allowed and what follows, decided without a database. A store reads
//! the [`GroupFacts`] under its locks, and does what the [`Decision`] says before it lets them go.

use std::sync::Arc;

use blake2::Blake2s256;
use blake2::digest::Digest as _;

use super::recorded::Recorded;
use crate::base::conversation::ConversationId;
use crate::protocol::level2::replies::group_event;
use crate::protocol::{GroupId, UserId};
use crate::store::history::{Cid, EntryKind, FrameHash, MemberChange, NewEntry};

/// A group to be made.
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
    /// Which.
    pub group: GroupId,
    /// Who asks.
    pub by: UserId,
    /// What is to be done.
    pub deed: Deed,
    /// Random bytes, the same when the request is repeated.
    pub nonce: [u8; 16],
}

/// What is to be done to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// The asker becomes a member, of at most this number.
    Join { members_max: usize },
    /// The asker is a member no more. The longest-standing one takes the place of a creator; the
    /// last one dissolves the group.
    Leave,
    /// A member is removed, and may not join again.
    Remove(UserId),
    /// A user who was removed may join again.
    LiftBan(UserId),
    /// A user becomes a member, of at most this number.
    Add { user: UserId, members_max: usize, sees: Visible },
    /// The group gets another name or description.
    Change { name: Option<String>, description: Option<String> },
    /// The group is no more.
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

/// A group that is as requested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupChanged {
    /// Its name, before the change.
    pub name: String,
    /// What was recorded; `None` if nothing that members see has changed.
    pub recorded: Option<Recorded>,
}

/// Why a group is not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupRefusal {
    /// No group has that id (404).
    NoSuchGroup,
    /// No user has that id (404).
    NoSuchUser,
    /// The user is not a member (404).
    NoSuchMember,
    /// The asker is not a member (403).
    NotMember,
    /// The asker is not the creator (403).
    NotCreator,
    /// The asker was removed before (403).
    Banned,
    /// The group has as many members as it may (403).
    Full,
    /// The creator leaves by another request (400).
    Yourself,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMember {
    /// Who.
    pub user: UserId,
    /// The name, `None` of a deleted account.
    pub name: Option<String>,
    /// What the member may do.
    pub role: GroupRole,
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupRole {
    /// Everything.
    Creator,
    /// Read, write and leave.
    Normal,
}

impl GroupRole {
    /// As it is stored.
    pub(in crate::store) fn stored(role: &str) -> GroupRole {
        if role == "creator" { GroupRole::Creator } else { GroupRole::Normal }
    }
}

/// What must be known of a group.
#[derive(Clone, Default, Debug)]
pub(in crate::store) struct GroupFacts {
    /// Its name, if it exists.
    pub(in crate::store) name: Option<String>,
    /// Of the asker: standing and name.
    pub(in crate::store) standing: Option<GroupRole>,
    pub(in crate::store) by_name: Option<String>,
    /// Of [`GroupAct::subject`].
    pub(in crate::store) subject: Subject,
    /// The number of members, as far as it matters.
    pub(in crate::store) members: usize,
    /// The longest-standing one of the others.
    pub(in crate::store) heir: Option<(UserId, String)>,
}

/// The user whom a change concerns.
#[derive(Clone, Default, Debug)]
pub(in crate::store) struct Subject {
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) is_member: bool,
    pub(in crate::store) is_banned: bool,
}

/// What is to be recorded and written.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(in crate::store) struct Decision {
    pub(in crate::store) events: Vec<GroupEvent>,
    pub(in crate::store) writes: Vec<GroupWrite>,
    pub(in crate::store) gone: Gone,
}

/// Who is no member afterwards.
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

/// A change of rows, besides those of members who come and go with an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum GroupWrite {
    Promote(UserId),
    Ban(UserId),
    LiftBan(UserId),
    Name(String),
    Description(String),
    /// Nothing of the group stays but its conversation.
    End,
}

impl GroupAct {
    /// One of several groups that a user leaves by one request, which has random bytes of its own.
    pub(in crate::store) fn leaving(group: GroupId, by: UserId, request: [u8; 16]) -> GroupAct {
        GroupAct { group, by, deed: Deed::Leave, nonce: derived(request, group.0.into()) }
    }

    /// The user whom it concerns.
    pub(in crate::store) fn subject(&self) -> UserId {
        match self.deed {
            Deed::Remove(user) | Deed::LiftBan(user) | Deed::Add { user, .. } => user,
            Deed::Join { .. } | Deed::Leave | Deed::Change { .. } | Deed::Dissolve => self.by,
        }
    }

    pub(in crate::store) fn conv(&self) -> ConversationId {
        ConversationId::of_group(self.group)
    }

    /// How many members are counted.
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
            Deed::Remove(_) | Deed::LiftBan(_) | Deed::Add { .. } | Deed::Change { .. } | Deed::Dissolve => {
                match facts.standing {
                    None => Err(GroupRefusal::NotMember),
                    Some(GroupRole::Normal) => Err(GroupRefusal::NotCreator),
                    Some(GroupRole::Creator) => self.as_creator(facts),
                }
            }
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
        Ok(match &self.deed {
            Deed::Remove(user) if *user == self.by => return Err(GroupRefusal::Yourself),
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
            Deed::Change { name, description } => {
                let mut decision = Decision::default();
                if let Some(name) = name.clone().filter(|name| Some(name) != facts.name.as_ref()) {
                    decision.writes.push(GroupWrite::Name(name.clone()));
                    decision.events.push(GroupEvent { event: "renamed", user: self.by, name, change: None });
                }
                decision.writes.extend(description.clone().map(GroupWrite::Description));
                decision
            }
            Deed::Dissolve => {
                let dissolved = GroupEvent { event: "dissolved", user: self.by, name: own_name(), change: None };
                Decision { writes: vec![GroupWrite::End], gone: Gone::All, ..Decision::of(dissolved) }
            }
            // Decided before.
            Deed::Join { .. } | Deed::Leave => Decision::default(),
        })
    }
}

impl Decision {
    fn of(event: GroupEvent) -> Decision {
        Decision { events: vec![event], ..Decision::default() }
    }

    /// The events as entries, in the name of `by`.
    pub(in crate::store) fn entries(&self, conv: ConversationId, by: UserId, nonce: [u8; 16]) -> Vec<NewEntry> {
        let entry = |(nth, event): (usize, &GroupEvent)| {
            let text: Arc<str> = group_event(event.event, event.user, by, &event.name).into();
            new_entry(conv, by, event_cid(nonce, nth), event.change, text)
        };
        self.events.iter().enumerate().map(entry).collect()
    }
}

impl NewGroup {
    /// The first entry of the group.
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
    NewEntry { conv, sender, cid, hash, kind, is_imported: false, is_unchecked: false, change, text }
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

    fn decide(deed: Deed, facts: &GroupFacts) -> Result<Decision, GroupRefusal> {
        GroupAct { group: GroupId(3), by: CREATOR, deed, nonce: [0; 16] }.decide(facts)
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
    fn who_was_removed_joins_again_only_if_the_creator_wants_it() {
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
    fn a_name_that_stays_is_no_event() {
        let change = |name: &str| Deed::Change { name: Some(name.into()), description: Some("d".into()) };
        let same = decide(change("group"), &facts()).unwrap();
        assert_eq!((events(&same), same.writes), (vec![], vec![GroupWrite::Description("d".into())]));
        let other = decide(change("other"), &facts()).unwrap();
        assert_eq!(events(&other), ["renamed"]);
        let entries = other.entries(ConversationId::of_group(GroupId(3)), CREATOR, [1; 16]);
        assert_eq!(&*entries[0].text, r#"{"USERID":1,"by":1,"event":"renamed","msgType":57,"name":"other"}"#);
        assert_ne!(event_cid([1; 16], 0), event_cid([1; 16], 1));
    }
}
