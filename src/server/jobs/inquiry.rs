//! An operator's queries to the database about messages and users. No text of a message leaves this
//! file.

use std::collections::HashMap;
use std::time::Instant;

use super::Jobs;
use super::mail::Waiting;
use crate::base::conversation::ConversationId;
use crate::base::disabled::is_disabled;
use crate::protocol::UserId;
use crate::store::StoreError;
use crate::store::history::{Cid, Denied, DeviceId, Head, History};

/// The message that is searched for.
#[derive(Clone, Debug)]
pub enum Sought {
    /// By its sender and the sender's id of it.
    Cid(UserId, Cid),
    /// By its place, as this user sees it.
    Place(UserId, ConversationId, i64),
    /// A message of level 1 to this user.
    To(UserId),
}

/// The database's facts about a message.
#[derive(Clone, Debug, Default)]
pub struct MessageFacts {
    /// Its place, or where it would be.
    pub place: Option<(ConversationId, i64)>,
    /// The message, if it is there.
    pub stored: Option<StoredFacts>,
    /// The last number of the conversation.
    pub head: i64,
    /// The last number that the named user cannot read.
    pub floor: i64,
    /// The reason why that user cannot read the conversation.
    pub denied: Option<Denied>,
    /// The recipients, without the sender; the first ones of a large group.
    pub recipients: Vec<RecipientFacts>,
    /// The number of recipients.
    pub recipient_count: usize,
}

/// A message in its conversation.
#[derive(Clone, Copy, Debug)]
pub struct StoredFacts {
    /// Its sender.
    pub from: UserId,
    /// The time of its commit, ms.
    pub time: i64,
    /// The bytes of its frame; `None` if it is recalled.
    pub bytes: Option<usize>,
    /// The number of its recall, or of its newest edit.
    pub changed: Option<i64>,
}

/// A recipient.
#[derive(Clone, Debug)]
pub struct RecipientFacts {
    /// The user.
    pub user: UserId,
    /// The devices.
    pub devices: Vec<DeviceFacts>,
    /// The bytes that wait for a login at level 1.
    pub waiting_bytes: usize,
}

/// A device, and its cursor in the conversation.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// Its key.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// The time when it was last seen, ms.
    pub seen: i64,
    /// The last number that it has reported.
    pub cursor: i64,
}

/// A conversation of which a device lacks messages.
#[derive(Clone, Copy, Debug)]
pub struct Behind {
    /// The conversation.
    pub conv: ConversationId,
    /// The last number that the device has reported, or the floor of the user.
    pub cursor: i64,
    /// The last number.
    pub head: i64,
}

/// The messages that a device lacks.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    /// The number of messages that the device has not reported as stored.
    pub messages: i64,
    /// The number of conversations that have them.
    pub conversations: usize,
    /// The first of these.
    pub first: Vec<Behind>,
}

impl Lag {
    /// Of a device with these cursors, in conversations with these heads.
    fn new(heads: &[Head], cursors: &[(ConversationId, i64)]) -> Lag {
        let cursors: HashMap<ConversationId, i64> = cursors.iter().copied().collect();
        let mut lag = Lag::default();
        for Head { conv, floor, head, .. } in heads {
            let cursor = cursors.get(conv).copied().unwrap_or_default().max(*floor);
            if cursor < *head {
                lag.messages += head - cursor;
                lag.conversations += 1;
                if lag.first.len() < BEHIND_MAX {
                    lag.first.push(Behind { conv: *conv, cursor, head: *head });
                }
            }
        }
        lag
    }
}

/// The facts about a user in the database.
#[derive(Clone, Debug, Default)]
pub struct UserFacts {
    /// The name; `None` if no user has this id.
    pub name: Option<String>,
    /// Whether logins are disabled.
    pub is_disabled: bool,
    /// Messages that wait for a login at level 1.
    pub waiting: Waiting,
    /// The devices, and how far each is behind.
    pub devices: Vec<(DeviceFacts, Lag)>,
    /// The number of devices that were not looked at in time.
    pub devices_left: usize,
    /// The conversations of the user.
    pub conversations: usize,
    /// The number of unread messages.
    pub unread: i64,
}

impl Jobs {
    /// Looks for a message. Blocks; no further recipient is looked at after `by`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn find_message(&self, sought: &Sought, by: Instant) -> Result<MessageFacts, StoreError> {
        let mut facts = MessageFacts::default();
        let history = self.arrangements.history()?;
        let (asker, place) = match (sought, history) {
            (Sought::To(user), history) => {
                facts.recipients.extend(self.recipient(history, *user, (None, by))?);
                facts.recipient_count = 1;
                return Ok(facts);
            }
            (_, None) => return Ok(facts),
            (Sought::Place(user, conv, seq), Some(_)) => (*user, Some((*conv, *seq))),
            (Sought::Cid(user, cid), Some(history)) => {
                (*user, history.place_of(*user, cid)?.map(|(conv, seq, _)| (conv, seq)))
            }
        };
        let (Some((conv, seq)), Some(history)) = (place, history) else { return Ok(facts) };
        facts.place = place;
        match history.heads_of(asker, &[conv])?.pop() {
            Some(Ok(head)) => (facts.head, facts.floor) = (head.head, head.floor),
            Some(Err(denied)) => facts.denied = Some(denied),
            None => {}
        }
        let entry = history.messages_at(&[(conv, seq)])?.pop().flatten();
        facts.stored = entry.map(|entry| StoredFacts {
            from: entry.from,
            time: entry.time,
            bytes: entry.text.map(|text| text.len()),
            changed: entry.recalled.or(entry.edited),
        });
        let members = match (conv.group(), conv.users()) {
            (Some(group), _) => self.directory.contacts.get()?.members(group)?,
            (None, Some((low, high))) if low == high => vec![low],
            (None, Some((low, high))) => vec![low, high],
            (None, None) => Vec::new(),
        };
        let sender = facts.stored.map(|stored| stored.from).or(matches!(sought, Sought::Cid(..)).then_some(asker));
        let is_recipient = |user: &UserId| Some(*user) != sender || members.len() == 1;
        facts.recipient_count = members.iter().filter(|user| is_recipient(user)).count();
        for user in members.iter().filter(|user| is_recipient(user)).take(RECIPIENTS_MAX) {
            match self.recipient(Some(history), *user, (Some(conv), by))? {
                Some(recipient) => facts.recipients.push(recipient),
                None => break,
            }
        }
        Ok(facts)
    }

    /// `None`: it was too late.
    fn recipient(
        &self,
        history: Option<&dyn History>,
        user: UserId,
        (conv, by): (Option<ConversationId>, Instant),
    ) -> Result<Option<RecipientFacts>, StoreError> {
        let mut devices = Vec::new();
        if let (Some(history), Some(conv)) = (history, conv) {
            for device in history.devices(user)? {
                if Instant::now() >= by {
                    return Ok(None);
                }
                let cursors = history.cursors(device.id)?;
                let cursor = cursors.iter().find(|(of, _)| *of == conv).map_or(0, |(_, seq)| *seq);
                devices.push(DeviceFacts { id: device.id, name: device.name, seen: device.seen, cursor });
            }
        }
        Ok(Some(RecipientFacts { user, devices, waiting_bytes: self.mail.waiting(user)?.bytes }))
    }

    /// Looks for a user. Blocks; no read begins after `by` but for the first ones.
    ///
    /// # Errors
    /// Those of the store.
    pub fn find_user(&self, user: UserId, by: Instant) -> Result<UserFacts, StoreError> {
        let accounts = self.logins.store.get()?;
        let Some(account) = accounts.user(user)? else { return Ok(UserFacts::default()) };
        let is_disabled = accounts.credential(user)?.is_some_and(|stored| is_disabled(&stored));
        let waiting = self.mail.waiting(user)?;
        let mut facts = UserFacts { name: Some(account.name), is_disabled, waiting, ..UserFacts::default() };
        let Some(history) = self.arrangements.history()? else { return Ok(facts) };
        let heads = history.heads(user)?;
        facts.conversations = heads.len();
        facts.unread = heads.iter().map(|head| head.unread).sum();
        for device in history.devices(user)? {
            if Instant::now() >= by {
                facts.devices_left += 1;
                continue;
            }
            let lag = Lag::new(&heads, &history.cursors(device.id)?);
            let device = DeviceFacts { id: device.id, name: device.name, seen: device.seen, cursor: 0 };
            facts.devices.push((device, lag));
        }
        Ok(facts)
    }
}

/// The most recipients of a message that are examined.
const RECIPIENTS_MAX: usize = 50;
/// The most conversations shown in which a device is behind.
const BEHIND_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_that_are_not_shown_are_counted() {
        let conv = |at: usize| ConversationId::from_column(at as i64 + 1);
        let head = |at: usize| Head {
            conv: conv(at),
            name: None,
            head: 10,
            tag: None,
            floor: 2,
            read: 0,
            recv: 0,
            unread: 0,
            peer: None,
            touched: 0,
        };
        let heads: Vec<Head> = (0..BEHIND_MAX + 6).map(head).collect();
        let cursors = [(conv(0), 7), (conv(1), 10), (conv(2), 1)];
        let lag = Lag::new(&heads, &cursors);
        let conversations = BEHIND_MAX + 5;
        assert_eq!((lag.conversations, lag.first.len()), (conversations, BEHIND_MAX));
        assert_eq!(lag.messages, 3 + 8 * (conversations as i64 - 1));
        assert_eq!(lag.first[0].cursor, 7);
        assert_eq!(lag.first[1].cursor, 2, "what the user may not see is not missing");
    }
}
