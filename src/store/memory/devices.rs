//! [`MemoryDevices`]: the devices of all users, and the numbers that each has stored.

use std::collections::BTreeMap;

use super::People;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::history::{Device, DeviceId, LoggedIn, LoginProof, NewDeviceLogin};

/// The tables `Device` and `DeviceCursor`.
#[derive(Clone, Default)]
pub(crate) struct MemoryDevices {
    by_id: BTreeMap<DeviceId, Device>,
    last: i64,
    cursors: BTreeMap<(DeviceId, ConversationId), i64>,
}

impl MemoryDevices {
    /// `None`: the proof is no longer valid.
    pub(crate) fn log_in(&mut self, people: &People, login: &NewDeviceLogin, now: i64) -> Option<LoggedIn> {
        let known = self.by_id.values_mut().find(|device| device.user == login.user && device.name == login.name);
        let (user_name, password) = people.users.get(&login.user)?;
        let (user_name, stored) = (user_name.clone(), password.clone());
        let holds = match &login.proof {
            LoginProof::Password(stored) => password == stored,
            LoginProof::Token(device, secret) => {
                known.as_ref().is_some_and(|known| known.id == *device && known.secret == *secret)
            }
        };
        if !holds {
            return None;
        }
        let number = login.number_after(known.as_ref().map_or(0, |known| known.login));
        if let Some(device) = known {
            let replaced = Some(std::mem::replace(&mut device.login, number));
            device.seen = device.seen.max(now);
            device.secret = login.secret_of_known(device.secret);
            return Some(LoggedIn {
                device: device.clone(),
                user_name,
                password: stored,
                replaced,
                forgotten: Vec::new(),
            });
        }
        let mut others = self.of(login.user);
        let forgotten = others.split_off(others.len().min(login.devices_max.max(1) - 1));
        let ids: Vec<DeviceId> = forgotten.iter().map(|device| device.id).collect();
        self.forget(login.user, &ids);
        self.last += 1;
        let NewDeviceLogin { user, name, secret, .. } = login.clone();
        let device = Device { id: DeviceId(self.last), user, name, login: number, secret, seen: now };
        self.by_id.insert(device.id, device.clone());
        Some(LoggedIn { device, user_name, password: stored, replaced: None, forgotten })
    }

    pub(crate) fn find(&self, device: DeviceId) -> Option<Device> {
        self.by_id.get(&device).cloned()
    }

    pub(crate) fn of(&self, user: UserId) -> Vec<Device> {
        let mut devices: Vec<Device> = self.by_id.values().filter(|device| device.user == user).cloned().collect();
        devices.sort_by_key(|device| std::cmp::Reverse((device.seen, device.id)));
        devices
    }

    pub(crate) fn logins(&self, devices: &[DeviceId]) -> Vec<(DeviceId, i64)> {
        devices.iter().filter_map(|id| Some((*id, self.by_id.get(id)?.login))).collect()
    }

    pub(crate) fn seen(&mut self, devices: &[DeviceId], now: i64) {
        for id in devices {
            self.by_id.entry(*id).and_modify(|device| device.seen = device.seen.max(now));
        }
    }

    pub(crate) fn forget(&mut self, user: UserId, devices: &[DeviceId]) -> usize {
        let before = self.by_id.len();
        self.by_id.retain(|id, device| device.user != user || !devices.contains(id));
        let kept = &self.by_id;
        self.cursors.retain(|(device, _), _| kept.contains_key(device));
        before - self.by_id.len()
    }

    /// Notes that a device of `user` has stored a conversation up to this number.
    pub(super) fn report(&mut self, user: UserId, device: DeviceId, conv: ConversationId, seq: i64) {
        if self.by_id.get(&device).is_some_and(|device| device.user == user) {
            let cursor = self.cursors.entry((device, conv)).or_default();
            *cursor = seq.max(*cursor);
        }
    }

    pub(crate) fn cursors(&self, device: DeviceId) -> Vec<(ConversationId, i64)> {
        let rows = self.cursors.iter().filter(|((other, _), _)| *other == device);
        rows.map(|((_, conv), seq)| (*conv, *seq)).collect()
    }
}
