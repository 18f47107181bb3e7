//! Changes of groups.

use super::{MemoryHistory, People};
use crate::protocol::{GroupId, UserId};
use crate::store::community::groups::{Gone, GroupFacts, GroupRole, GroupWrite, Subject};
use crate::store::community::{GroupAct, GroupChanged, GroupMember, GroupRefusal, Recorded, recorded};
use crate::store::history::CommitRules;

impl MemoryHistory {
    /// Changes a group or its members, if it is allowed.
    pub(crate) fn act(&mut self, people: &mut People, act: &GroupAct, now: i64) -> Result<GroupChanged, GroupRefusal> {
        let facts = people.facts(act);
        let decision = act.decide(&facts)?;
        let before = people.member_ids(act.group);
        let entries = decision.entries(act);
        let outcomes = self.commit(people, &entries, CommitRules::OF_SERVER, now);
        let noted = recorded(&entries, &outcomes, Vec::new(), Vec::new());
        decision.writes.iter().for_each(|write| self.apply(people, act.group, write));
        let name = facts.name.unwrap_or_default();
        let recorded = noted.map(|noted| {
            let (members, gone) = match decision.gone {
                Gone::Nobody => (people.member_ids(act.group), Vec::new()),
                Gone::One(user) => (people.member_ids(act.group), vec![user]),
                Gone::All => (Vec::new(), before),
            };
            Recorded { members, gone, ..noted }
        });
        Ok(GroupChanged { name, recorded })
    }

    fn apply(&mut self, people: &mut People, id: GroupId, write: &GroupWrite) {
        let Some(group) = people.groups.get_mut(&id) else { return };
        match write {
            GroupWrite::Promote(user) => group.creator = Some(*user),
            GroupWrite::Demote(user) if group.creator == Some(*user) => group.creator = None,
            GroupWrite::Demote(_) => {}
            GroupWrite::Ban(user) => drop(group.banned.insert(*user)),
            GroupWrite::LiftBan(user) => drop(group.banned.remove(user)),
            GroupWrite::Name(name) => group.name.clone_from(name),
            GroupWrite::Description(_) => {}
            GroupWrite::End => {
                people.groups.remove(&id);
                self.members.retain(|(conv, _), _| conv.group() != Some(id));
            }
        }
    }
}

impl People {
    fn facts(&self, act: &GroupAct) -> GroupFacts {
        let name = |user: UserId| self.users.get(&user).map(|(name, _)| name.clone());
        let (by, subject) = (act.by, act.subject());
        let by_name = name(by);
        let Some(group) = self.groups.get(&act.group) else { return GroupFacts { by_name, ..GroupFacts::default() } };
        let role = if group.creator == Some(by) { GroupRole::Creator } else { GroupRole::Normal };
        let heir = group.members.iter().find(|user| **user != by);
        GroupFacts {
            name: Some(group.name.clone()),
            standing: group.members.contains(&by).then_some(role),
            by_name,
            subject: Subject {
                name: name(subject),
                is_member: group.members.contains(&subject),
                is_banned: group.banned.contains(&subject),
            },
            members: group.members.len(),
            heir: heir.filter(|_| act.needs_heir()).and_then(|user| Some((*user, name(*user)?))),
        }
    }

    fn member_ids(&self, group: GroupId) -> Vec<UserId> {
        self.groups.get(&group).map(|group| group.members.iter().copied().collect()).unwrap_or_default()
    }

    /// The members of a group, for one of them.
    pub(crate) fn members_of(&self, id: GroupId, asker: UserId) -> Result<Vec<GroupMember>, GroupRefusal> {
        let group = self.groups.get(&id).ok_or(GroupRefusal::NoSuchGroup)?;
        if !group.members.contains(&asker) {
            return Err(GroupRefusal::NotMember);
        }
        let member = |user: &UserId| GroupMember {
            user: *user,
            name: self.users.get(user).map(|(name, _)| name.clone()),
            role: if group.creator == Some(*user) { GroupRole::Creator } else { GroupRole::Normal },
        };
        Ok(group.members.iter().map(member).collect())
    }
}
