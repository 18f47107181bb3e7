//! [`Tables`]: a database in memory, which outlives every node, and [`NodeStore`], a node's way to
//! it, which may fail. `history.rs` has the roles of level 2.

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::dice::Dice;
use super::{Mutation, number_of};
use crate::base::clock::Clock;
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::{GroupId, UserId};
use crate::store::community::Community;
use crate::store::history::{Head, History};
use crate::store::memory::{Flaw, MemoryGroup, MemoryHistory, People};
use crate::store::{
    Accounts, AppendOutcome, Contacts, Database, FriendNames, Group, Joined, KeptMessage, MessageId, Messages,
    NewMessage, States, StoreError, User, UserState,
};

/// The durable facts.
pub(super) struct Tables {
    people: People,
    friends: BTreeSet<(UserId, UserId)>,
    messages: BTreeMap<MessageId, MailRow>,
    last_message: i64,
    /// Whether the tables have conversations. Otherwise nobody can use level 2.
    has_history: bool,
    pub(super) history: MemoryHistory,
    /// The clock of the database, if it has conversations.
    clock: Option<(Clock, Instant)>,
    /// Whether the heads of a login are those from before it was written, and so from before its
    /// connection is told of messages.
    reads_heads_early: bool,
    /// Tags of messages that are lost, where the server is broken on purpose.
    pub(super) remembered_tags: BTreeMap<(ConversationId, i64), Tag>,
    early_heads: BTreeMap<UserId, Vec<Head>>,
    pub(super) is_up: bool,
    /// One call in this number fails, or is done and reports a failure; 0: none.
    pub(super) fails_once_in: usize,
    dice: Dice,
    mutation: Option<Mutation>,
    /// Messages stored and deleted since the world has looked.
    pub(super) news: Vec<News>,
    /// Whether a call has failed on purpose since the world has looked.
    has_failed: bool,
}

/// A row of `OfflineMessage`.
#[derive(Clone)]
struct MailRow {
    to: UserId,
    text: Arc<str>,
    /// The message's place in its conversation.
    mark: Option<(ConversationId, i64)>,
}

/// A copy of what a backup holds.
pub(super) struct Backup {
    people: People,
    messages: BTreeMap<MessageId, MailRow>,
    history: MemoryHistory,
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
            let group = MemoryGroup {
                name: format!("group{}", nth + 1),
                members: members.iter().copied().collect(),
                creator: members.first().copied(),
                banned: BTreeSet::new(),
            };
            (GroupId(nth as i32 + 1), group)
        };
        Tables {
            people: People {
                users: (0..users).map(user).collect(),
                groups: groups.iter().enumerate().map(group).collect(),
            },
            friends: BTreeSet::new(),
            messages: BTreeMap::new(),
            last_message: 0,
            has_history: false,
            history: MemoryHistory::default(),
            clock: None,
            reads_heads_early: false,
            remembered_tags: BTreeMap::new(),
            early_heads: BTreeMap::new(),
            is_up: true,
            fails_once_in: 0,
            dice: Dice::new(seed ^ 0x5709e),
            mutation,
            news: Vec::new(),
            has_failed: false,
        }
    }

    /// The same with conversations.
    pub(super) fn with_history(self, clock: &Clock, flaw: Option<Flaw>, reads_heads_early: bool) -> Tables {
        let (history, clock) = (MemoryHistory::with_flaw(flaw), Some((clock.clone(), clock.now())));
        Tables { has_history: true, history, clock, reads_heads_early, ..self }
    }

    /// Milliseconds since 1970.
    fn now(&self) -> i64 {
        let passed = self.clock.as_ref().map(|(clock, start)| clock.now().saturating_duration_since(*start));
        STARTED_AT + passed.unwrap_or_default().as_millis() as i64
    }

    pub(super) fn back_up(&self) -> Backup {
        let (people, messages, history) = (self.people.clone(), self.messages.clone(), self.history.clone());
        Backup { people, messages, history }
    }

    pub(super) fn restore(&mut self, backup: Backup) {
        let Backup { people, messages, history } = backup;
        (self.people, self.messages, self.history) = (people, messages, history);
    }

    pub(super) fn people(&self) -> &People {
        &self.people
    }

    /// Commits one of the transactions that have numbers and are not committed, which only exist if
    /// the store is broken on purpose.
    pub(super) fn land_one(&mut self) {
        let count = self.history.in_flight();
        if count > 0 {
            let nth = self.dice.range(0..count);
            self.history.land(&mut self.people, nth);
        }
    }

    /// Whether it is unavailable, or a call has failed since the last call of this.
    pub(super) fn is_failing(&mut self) -> bool {
        std::mem::take(&mut self.has_failed) || !self.is_up
    }

    /// The messages stored for a user, oldest first.
    pub(super) fn kept(&self, user: UserId) -> impl Iterator<Item = &str> {
        self.messages.values().filter(move |row| row.to == user).map(|row| &*row.text)
    }

    fn append(&mut self, messages: &[NewMessage]) -> Vec<AppendOutcome> {
        let mut kept = Vec::new();
        for message in messages {
            if !self.people.users.contains_key(&message.to) {
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
                let mark = message.recorded.map(|conv| (conv, self.history.extent(conv)));
                let row = MailRow { to: message.to, text: message.text.clone(), mark };
                self.messages.insert(id, row);
                if let Some(number) = number_of(&message.text) {
                    self.news.push(News::Stored { to: message.to, number });
                }
            }
        }
        kept
    }

    fn delete(&mut self, user: UserId, ids: &[MessageId]) {
        for id in ids {
            if let Some(row) = self.messages.get(id)
                && row.to == user
            {
                if let Some(number) = number_of(&row.text) {
                    self.news.push(News::Deleted { of: user, number });
                }
                self.messages.remove(id);
            }
        }
    }
}

/// A node's way to the database. After the node has crashed, its calls have no effect.
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
        self.call(|tables| tables.people.users.get(&user).map(|(_, password)| password.clone()))
    }

    fn register(&self, name: &str, credential: &str) -> Result<UserId, StoreError> {
        self.call(|tables| {
            if tables.people.users.values().any(|(other, _)| other == name) {
                return Err(StoreError::NameTaken);
            }
            let id = UserId(tables.people.users.keys().last().map_or(1, |last| last.0 + 1));
            tables.people.users.insert(id, (name.to_owned(), credential.to_owned()));
            Ok(id)
        })?
    }

    fn replace_credential(&self, _: UserId, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        self.call(|tables| tables.people.users.get(&user).map(|(name, _)| User { id: user, name: name.clone() }))
    }

    fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        self.call(|tables| {
            let found = tables.people.users.iter().find(|(_, (other, _))| other == name);
            found.map(|(user, (name, _))| User { id: *user, name: name.clone() })
        })
    }
}

impl Contacts for NodeStore {
    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.call(|tables| {
            let name = |user| tables.people.users.get(user).map(|(name, _)| name.clone());
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
            friends.map(|id| User { id, name: tables.people.users[&id].0.clone() }).collect()
        })
    }

    fn create_group(&self, owner: UserId, name: &str, _: &str) -> Result<GroupId, StoreError> {
        self.call(|tables| {
            let id = GroupId(tables.people.groups.keys().last().map_or(1, |last| last.0 + 1));
            let group = MemoryGroup {
                name: name.to_owned(),
                members: [owner].into(),
                creator: Some(owner),
                banned: BTreeSet::new(),
            };
            tables.people.groups.insert(id, group);
            id
        })
    }

    fn join_group(&self, user: UserId, group: GroupId, _: usize) -> Result<Joined, StoreError> {
        self.call(|tables| match tables.people.groups.get_mut(&group) {
            None => Joined::NoSuchGroup,
            Some(group) => {
                let is_new = group.members.insert(user);
                (if is_new { Joined::New } else { Joined::Already })(group.name.clone())
            }
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.call(|tables| {
            let groups = tables.people.groups.iter().filter(|(_, group)| group.members.contains(&user));
            let shown = |(id, group): (&GroupId, &MemoryGroup)| Group {
                id: *id,
                name: group.name.clone(),
                description: String::new(),
            };
            groups.map(shown).collect()
        })
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.call(|tables| {
            let name = tables.people.groups.get(&group)?.name.clone();
            Some(Group { id: group, name, description: String::new() })
        })
    }

    fn groups_named(&self, _: &str, _: usize) -> Result<Vec<Group>, StoreError> {
        self.call(|_| Vec::new())
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.call(|tables| {
            tables.people.groups.get(&group).map_or(Vec::new(), |group| group.members.iter().copied().collect())
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
            for (id, row) in tables.messages.iter().filter(|(_, row)| row.to == user) {
                bytes += row.text.len();
                if !found.is_empty() && bytes > bytes_max {
                    break;
                }
                found.push(KeptMessage { id: *id, text: row.text.to_string() });
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

    fn history(self: Arc<Self>) -> Option<Arc<dyn History>> {
        let has_history = self.tables.lock().has_history;
        has_history.then_some(self)
    }

    fn community(self: Arc<Self>) -> Option<Arc<dyn Community>> {
        let has_history = self.tables.lock().has_history;
        has_history.then_some(self)
    }

    fn appenders(&self) -> usize {
        2
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.tables.lock().is_up { Ok(()) } else { Err(StoreError::Unavailable("it is away".into())) }
    }
}

/// The time at which the database's clock starts, in ms.
const STARTED_AT: i64 = 1_790_000_000_000;
