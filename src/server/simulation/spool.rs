//! [`Disk`]: a node's own disk, which outlives the node, and [`NodeSpool`], the spool on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::number_of;
use crate::protocol::UserId;
use crate::store::spool::{Addition, Part, Spool, SpoolId, SpoolLoad, Spooled, lane_of};
use crate::store::{NewMessage, StoreError};

#[derive(Default)]
pub(super) struct Disk {
    messages: BTreeMap<SpoolId, NewMessage>,
    aside: BTreeSet<SpoolId>,
    last: i64,
    /// The number of messages that have room.
    pub(super) room: usize,
    pub(super) is_broken: bool,
    /// The changes since the world has looked.
    pub(super) news: Vec<(UserId, u32, Change)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Came,
    Went,
}

impl Disk {
    /// Messages that were set aside are tried again by the next node that starts here.
    pub(super) fn restart(&mut self) {
        self.aside.clear();
    }

    /// The number of messages that wait to be moved.
    pub(super) fn waiting(&self) -> usize {
        self.messages.len() - self.aside.len()
    }

    fn note(&mut self, message: &NewMessage, change: Change) {
        if let Some(number) = number_of(&message.text) {
            self.news.push((message.to, number, change));
        }
    }
}

pub(super) struct NodeSpool(pub(super) Arc<Mutex<Disk>>);

impl NodeSpool {
    fn call<T>(&self, work: impl FnOnce(&mut Disk) -> T) -> Result<T, StoreError> {
        let mut disk = self.0.lock();
        if disk.is_broken { Err(StoreError::Unavailable("the disk is full".into())) } else { Ok(work(&mut disk)) }
    }
}

impl Spool for NodeSpool {
    fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError> {
        self.call(|disk| {
            let mut kept = Vec::new();
            for Addition { message, must, .. } in messages {
                let fits = must || disk.messages.len() < disk.room;
                kept.push(fits);
                if fits {
                    disk.last += 1;
                    disk.note(&message, Change::Came);
                    disk.messages.insert(SpoolId(disk.last), message);
                }
            }
            kept
        })
    }

    fn oldest(&self, part: Part) -> Result<Vec<Spooled>, StoreError> {
        self.call(|disk| {
            let is_wanted = |id: &SpoolId, message: &NewMessage| match part {
                Part::Lane { nth, of, after } => *id > after && lane_of(message.to, of) == nth,
                Part::User(user) => message.to == user,
            };
            let wanted =
                disk.messages.iter().filter(|(id, message)| !disk.aside.contains(id) && is_wanted(id, message));
            wanted.take(PIECE_MAX).map(|(id, message)| Spooled { id: *id, message: message.clone() }).collect()
        })
    }

    fn remove(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        self.call(|disk| {
            for id in ids {
                disk.aside.remove(id);
                if let Some(message) = disk.messages.remove(id) {
                    disk.note(&message, Change::Went);
                }
            }
        })
    }

    fn set_aside(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        self.call(|disk| disk.aside.extend(ids.iter().filter(|id| disk.messages.contains_key(id))))
    }

    fn load(&self) -> SpoolLoad {
        let disk = self.0.lock();
        let bytes = disk.messages.values().map(|message| message.text.len()).sum();
        SpoolLoad { messages: disk.messages.len(), bytes, aside: disk.aside.len() }
    }
}

/// Small, so that a drain takes several.
const PIECE_MAX: usize = 2;
