//! [`Tables`]: a database in memory, which outlives every node, and [`NodeStore`], a node's way to
//! it, which may fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::dice::Dice;
use super::{Mutation, number_of};
use crate::protocol::{GroupId, UserId};
use crate::store::{
    Accounts, AppendOutcome, Contacts, Database, FriendNames, Group, Joined, KeptMessage, MessageId, Messages,
    NewMessage, States, StoreError, User, UserState,
};

/// The durable facts.
pub(super) struct Tables {
    users: BTreeMap<UserId, (String, String)>,
    groups: BTreeMap<GroupId, (String, BTreeSet<UserId>)>,
    friends: BTreeSet<(UserId, UserId)>,
    messages: BTreeMap<MessageId, (UserId, Arc<str>)>,
    last_message: i64,
    pub(super) is_up: bool,
    /// One call in this number fails, or is done and fails all the same; none if 0.
    pub(super) fails_once_in: usize,
    dice: Dice,
    mutation: Option<Mutation>,
    /// Messages stored and deleted since the world has looked.
    pub(super) news: Vec<News>,
    /// A call has failed on purpose since the world has looked.
    has_failed: bool,
}

/// The fate of a stored message.
pub(super) enum News {
    Stored { to: UserId, number: u32 },
    Deleted { of: UserId, number: u32 },
    Refused { to: UserId, number: u32 },
}

impl Tables {
    pub(super) fn new(users: usize, groups: &[Vec<UserId>], seed: u64, mutation: Option<Mutation>) -> Tables {
        let user = |nth: usize| (UserId(nth as i32 + 1), (format!("user{}", nth + 1), "secret".to_owned()));
        let group = |(nth, members): (usize, &Vec<UserId>)| {
            (GroupId(nth as i32 + 1), (format!("group{}", nth + 1), members.iter().copied().collect()))
        };
        Tables {
            users: (0..users).map(user).collect(),
            groups: groups.iter().enumerate().map(group).collect(),
            friends: BTreeSet::new(),
            messages: BTreeMap::new(),
            last_message: 0,
            is_up: true,
            fails_once_in: 0,
            dice: Dice::new(seed ^ 0x5709e),
            mutation,
            news: Vec::new(),
            has_failed: false,
        }
    }

    /// It is away, or a call has failed since this was last asked.
    pub(super) fn is_failing(&mut self) -> bool {
        std::mem::take(&mut self.has_failed) || !self.is_up
    }

    /// The messages stored for a user, oldest first.
    pub(super) fn kept(&self, user: UserId) -> impl Iterator<Item = &str> {
        self.messages.values().filter(move |(to, _)| *to == user).map(|(_, text)| &**text)
    }

    fn append(&mut self, messages: &[NewMessage]) -> Vec<AppendOutcome> {
        let mut kept = Vec::new();
        for message in messages {
            if !self.users.contains_key(&message.to) {
                kept.push(AppendOutcome::NoSuchUser);
                continue;
            }
            kept.push(AppendOutcome::Stored);
            let copies = match self.mutation {
                Some(Mutation::LosesStored) if self.dice.one_in(4) => 0,
                Some(Mutation::StoresTwice) if self.dice.one_in(4) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                self.last_message += 1;
                let id = match self.mutation {
                    // Newer ones come first.
                    Some(Mutation::ReordersStored) => MessageId(-self.last_message),
                    _ => MessageId(self.last_message),
                };
                self.messages.insert(id, (message.to, message.text.clone()));
                if let Some(number) = number_of(&message.text) {
                    self.news.push(News::Stored { to: message.to, number });
                }
            }
        }
        kept
    }

    fn delete(&mut self, user: UserId, ids: &[MessageId]) {
        for id in ids {
            if let Some((to, text)) = self.messages.get(id)
                && *to == user
            {
                if let Some(number) = number_of(text) {
                    self.news.push(News::Deleted { of: user, number });
                }
                self.messages.remove(id);
            }
        }
    }
}

/// A node's way to the database. When the node has crashed, its calls come to nothing.
pub(super) struct NodeStore {
    pub(super) tables: Arc<Mutex<Tables>>,
}

impl NodeStore {
    fn call<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> Result<T, StoreError> {
        let mut tables = self.tables.lock();
        if !tables.is_up {
            return Err(StoreError::Unavailable("it is away".into()));
        }
        let once_in = tables.fails_once_in;
        if once_in == 0 || !tables.dice.one_in(once_in) {
            return Ok(work(&mut tables));
        }
        tables.has_failed = true;
        match tables.dice.range(0..3) {
            0 => Err(StoreError::Unavailable("it is busy".into())),
            1 => Err(StoreError::Failed("it refuses".into())),
            _ => {
                work(&mut tables);
                Err(StoreError::Unavailable("the answer is lost".into()))
            }
        }
    }
}

impl Accounts for NodeStore {
    fn fits_hashes(&self) -> bool {
        false
    }

    fn credential(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.call(|tables| tables.users.get(&user).map(|(_, password)| password.clone()))
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        self.call(|tables| {
            if tables.users.values().any(|(other, _)| other == name) {
                return Err(StoreError::NameTaken);
            }
            let id = UserId(tables.users.keys().last().map_or(1, |last| last.0 + 1));
            tables.users.insert(id, (name.to_owned(), credential.to_owned()));
            Ok(id)
        })?
    }

    fn replace_credential(&self, _: UserId, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.call(|tables| tables.users.get(&user).map(|(name, _)| User { id: user, name: name.clone() }))
    }

    fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        self.call(|tables| {
            let found = tables.users.iter().find(|(_, (other, _))| other == name);
            found.map(|(user, (name, _))| User { id: *user, name: name.clone() })
        })
    }
}

impl Contacts for NodeStore {
    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.call(|tables| {
            let name = |user| tables.users.get(user).map(|(name, _)| name.clone());
            let names = FriendNames { a: name(&a)?, b: name(&b)? };
            tables.friends.extend([(a, b), (b, a)]);
            Some(names)
        })
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.call(|tables| {
            tables.friends.remove(&(from, to));
        })
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.call(|tables| {
            let friends = tables.friends.iter().filter(|(from, _)| *from == user).map(|(_, to)| *to);
            friends.map(|id| User { id, name: tables.users[&id].0.clone() }).collect()
        })
    }

    fn create_group(&self, owner: UserId, name: &str, _: &str) -> Result<GroupId, StoreError> {
        self.call(|tables| {
            let id = GroupId(tables.groups.keys().last().map_or(1, |last| last.0 + 1));
            tables.groups.insert(id, (name.to_owned(), [owner].into()));
            id
        })
    }

    fn join_group(&self, user: UserId, group: GroupId, _: usize) -> Result<Joined, StoreError> {
        self.call(|tables| match tables.groups.get_mut(&group) {
            None => Joined::NoSuchGroup,
            Some((name, members)) => {
                let is_new = members.insert(user);
                (if is_new { Joined::New } else { Joined::Already })(name.clone())
            }
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.call(|tables| {
            let groups = tables.groups.iter().filter(|(_, (_, members))| members.contains(&user));
            groups.map(|(id, (name, _))| Group { id: *id, name: name.clone(), description: String::new() }).collect()
        })
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.call(|tables| {
            let (name, _) = tables.groups.get(&group)?;
            Some(Group { id: group, name: name.clone(), description: String::new() })
        })
    }

    fn groups_named(&self, _: &str, _: usize) -> Result<Vec<Group>, StoreError> {
        self.call(|_| Vec::new())
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.call(|tables| {
            tables.groups.get(&group).map_or(Vec::new(), |(_, members)| members.iter().copied().collect())
        })
    }
}

impl Messages for NodeStore {
    fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        let kept = self.call(|tables| tables.append(messages));
        if let (Err(StoreError::Failed(_)), [message]) = (&kept, messages)
            && let Some(number) = number_of(&message.text)
        {
            // The caller gives up a message that is refused alone.
            self.tables.lock().news.push(News::Refused { to: message.to, number });
        }
        kept
    }

    fn fetch(&self, user: UserId, bytes_max: usize) -> Result<Vec<KeptMessage>, StoreError> {
        self.call(|tables| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for (id, (_, text)) in tables.messages.iter().filter(|(_, (to, _))| *to == user) {
                bytes += text.len();
                if !found.is_empty() && bytes > bytes_max {
                    break;
                }
                found.push(KeptMessage { id: *id, text: text.to_string() });
            }
            if tables.mutation == Some(Mutation::DeletesEarly) {
                let ids: Vec<_> = found.iter().map(|message| message.id).collect();
                tables.delete(user, &ids);
            }
            found
        })
    }

    fn delete(&self, user: UserId, ids: &[MessageId]) -> Result<(), StoreError> {
        self.call(|tables| tables.delete(user, ids))
    }
}

impl States for NodeStore {
    fn set_states(&self, _: &[(UserId, UserState)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn set_all_offline(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn online(&self, _: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        Ok(Vec::new())
    }

    fn online_after(&self, _: UserId, _: usize) -> Result<Vec<UserId>, StoreError> {
        Ok(Vec::new())
    }
}

impl Database for NodeStore {
    fn describe(&self) -> String {
        "a simulation".into()
    }

    fn appenders(&self) -> usize {
        2
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.tables.lock().is_up { Ok(()) } else { Err(StoreError::Unavailable("it is away".into())) }
    }
}
