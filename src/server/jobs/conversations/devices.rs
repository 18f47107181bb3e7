//! Devices: logging in and out, and their list.

use std::cmp::Ordering;

use super::parts::{Conversations, refusal_of, wall_clock};
use crate::bus::DeviceNews;
use crate::bus::news::DeviceEnd;
use crate::delivery::Posted;
use crate::devices::entry::{Admitted, EntryNews, WRONG};
use crate::devices::tasks::{Identity, MemberNews};
use crate::devices::token::{Token, TokenKey};
use crate::history::answers::Ticket;
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies::{self, Reason, Welcome};
use crate::protocol::{self, UserId};
use crate::session::password::{RightPassword, Stamp};
use crate::store::history::{Device, DeviceId, DeviceLogin, History, HistoryReads, LoggedIn, LoginProof};
use crate::store::{StoreError, User};

/// A device that wants to log in.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The client's name of it.
    pub device: Box<str>,
    /// Seconds of the heartbeat.
    pub ping: u32,
    /// What the reply repeats.
    pub rid: Option<Rid>,
}

/// What a client has proved.
enum Proven {
    /// A password, that fitted the stored value with this stamp.
    Password(Stamp),
    /// A token of the device, made with this secret.
    Token(DeviceId, [u8; 16]),
}

impl Conversations {
    /// Writes the login of a user whose password is right.
    pub fn admit(&self, user: UserId, right: RightPassword, visitor: &Visitor) -> EntryNews {
        let admit = || match self.parts.accounts.get()?.user(user)? {
            Some(account) => self.try_admit(&account, &Proven::Password(right.stamp), visitor),
            None => Ok(None),
        };
        let admitted: Result<_, StoreError> = admit();
        self.parts.outages.note("logging devices in", admitted.as_ref().err());
        match admitted {
            Ok(Some(admitted)) => EntryNews::Admitted(Ok(Box::new(admitted))),
            Ok(None) => EntryNews::Outdated,
            Err(error) => EntryNews::Admitted(Err(refusal_of(&error))),
        }
    }

    /// The same with a token. `is_another` says whether the client names another user.
    pub fn admit_by_token(
        &self,
        token: &str,
        visitor: &Visitor,
        is_another: impl Fn(UserId, &str) -> bool,
    ) -> EntryNews {
        let admit = || {
            let Some((found, account)) = self.device_of(token, &visitor.device, is_another)? else { return Ok(None) };
            self.try_admit(&account, &Proven::Token(found.id, found.secret), visitor)
        };
        let admitted: Result<_, StoreError> = admit();
        self.parts.outages.note("logging devices in", admitted.as_ref().err());
        let admitted = admitted.map_err(|error| refusal_of(&error));
        EntryNews::Admitted(admitted.and_then(|admitted| admitted.map(Box::new).ok_or(WRONG)))
    }

    /// The user of the device that this token is of, without a login; `None` if it is wrong.
    ///
    /// # Errors
    /// What the client is told.
    pub fn sender_with(&self, token: &str) -> Result<Option<UserId>, Refusal> {
        let device = self.device_with(token);
        self.parts.outages.note("reading devices", device.as_ref().err());
        Ok(device.map_err(|error| refusal_of(&error))?.map(|device| device.user))
    }

    /// The device of this token, unless the token is wrong, has expired or was revoked.
    fn device_with(&self, token: &str) -> Result<Option<Device>, StoreError> {
        let Some(token) = self.key()?.verify(token, wall_clock()) else { return Ok(None) };
        let found = self.history()?.device(DeviceId(token.device))?;
        Ok(found.filter(|device| token.is_of(device.user, &device.secret)))
    }

    /// The device of a token that counts, with its user, if this is it and the user is the one whom the
    /// client names.
    fn device_of(
        &self,
        token: &str,
        device: &str,
        is_another: impl Fn(UserId, &str) -> bool,
    ) -> Result<Option<(Device, User)>, StoreError> {
        let Some(found) = self.device_with(token)?.filter(|found| found.name == device) else { return Ok(None) };
        let account = self.parts.accounts.get()?.user(found.user)?;
        Ok(account.filter(|account| !is_another(found.user, &account.name)).map(|account| (found, account)))
    }

    /// `None`: what was proved does not hold any more.
    fn try_admit(&self, account: &User, proven: &Proven, visitor: &Visitor) -> Result<Option<Admitted>, StoreError> {
        let (history, user) = (self.history()?, account.id);
        if let Proven::Password(_) = proven {
            // It may be a new device. One that has been connected for long is not the one to be forgotten.
            let connected = self.router().map(|router| router.attendance().connected_devices(user));
            connected.filter(|devices| !devices.is_empty()).map_or(Ok(()), |devices| history.seen(&devices))?;
        }
        let Some(logged_in) = self.write_login(history, user, proven, visitor)? else { return Ok(None) };
        // The database may have lost that the user uses level 2, and the device with it.
        let is_known = self.parts.audience.has(user);
        let may_be_lost = matches!(proven, Proven::Password(_));
        let is_new = (!is_known || may_be_lost) && history.use_level2(user)?;
        if is_new || !is_known {
            self.parts.audience.add(user);
            self.tell_nodes(&[DeviceNews::UsesLevel2(user)]);
        }
        let device = logged_in.device;
        if logged_in.replaced.is_some() {
            self.tell_nodes(&[DeviceNews::End(user, device.id, DeviceEnd::Replaced(device.login))]);
        }
        let (token, expires) = self.token(&device)?;
        let welcome = Welcome {
            device: &visitor.device,
            frame_max: self.rules.frame_max,
            inflight: self.rules.inflight,
            name: &account.name,
            ping: visitor.ping,
            token: &token,
            token_expires: expires,
            user,
        };
        let identity = Identity { user, device: device.id, device_name: (*visitor.device).into(), login: device.login };
        let forgotten: Vec<DeviceId> = logged_in.forgotten.iter().map(|device| device.id).collect();
        self.revoke(user, &forgotten, None);
        Ok(Some(Admitted { identity, welcome: replies::welcome(&welcome, visitor.rid.as_ref()) }))
    }

    /// Writes the row. The transaction looks at what was proved, so a login that is under way does not
    /// come through behind a new password or the revocation of its device, on whatever node.
    fn write_login(
        &self,
        history: &dyn History,
        user: UserId,
        proven: &Proven,
        visitor: &Visitor,
    ) -> Result<Option<LoggedIn>, StoreError> {
        let [nonce, secret] = random()?;
        let (nonce, _) = nonce.split_first_chunk().unwrap_or((&[0; 4], &[]));
        for _ in 0..WRITES_MAX {
            let proof = match proven {
                Proven::Token(device, secret) => LoginProof::Token(*device, *secret),
                Proven::Password(stamp) => {
                    let stored = self.parts.accounts.get()?.credential(user)?;
                    match stored.filter(|stored| self.parts.passwords.stamp(stored) == *stamp) {
                        Some(stored) => LoginProof::Password(stored),
                        None => return Ok(None),
                    }
                }
            };
            let is_token = matches!(proof, LoginProof::Token(..));
            let login = DeviceLogin {
                user,
                name: visitor.device.to_string(),
                proof,
                nonce: u32::from_le_bytes(*nonce),
                secret,
                devices_max: self.rules.devices_max,
            };
            let written = history.log_in(&login)?;
            if written.is_some() || is_token {
                return Ok(written);
            }
            // The stored value may have got a mark, for the same password.
        }
        Ok(None)
    }

    /// Why a connection of level 2 has to end, if its login is not the last one of its device. It is
    /// asked once messages and news come to the connection: what is written later finds it.
    pub(super) fn end_of(&self, history: &dyn HistoryReads, who: &Identity) -> Result<Option<Reason>, StoreError> {
        let last = history.logins(&[who.device])?.first().map(|(_, login)| *login);
        Ok(end_of_login(who.login, last))
    }

    /// A new token of a device, and when it expires.
    fn token(&self, device: &Device) -> Result<(String, i64), StoreError> {
        let lifetime = i64::try_from(self.rules.token_lifetime.as_millis()).unwrap_or(i64::MAX);
        let expires = wall_clock().saturating_add(lifetime);
        let token = Token { user: device.user, device: device.id.0, serial: device.secret, expires };
        Ok((self.key()?.sign(&token), expires))
    }

    /// The cluster's key, which is read once.
    fn key(&self) -> Result<&TokenKey, StoreError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let [first, second] = random()?;
        let mut new = [0; 32];
        new[..16].copy_from_slice(&first);
        new[16..].copy_from_slice(&second);
        let stored = self.history()?.token_key(new)?;
        Ok(self.key.get_or_init(|| TokenKey::new(&stored)))
    }

    /// A new token of this device, whose row has this secret.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn token_of(&self, user: UserId, device: DeviceId, secret: [u8; 16]) -> Result<(String, i64), StoreError> {
        self.token(&Device { id: device, user, name: String::new(), login: 0, secret, seen: 0 })
    }

    /// The answer to a 68: the devices, after one is logged out. Also whether that is the asker's
    /// `own`, whose connection is left to end.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn list_devices(
        &self,
        user: UserId,
        own: Option<DeviceId>,
        revoke: Option<&str>,
        rid: Option<&Rid>,
    ) -> Result<(String, bool), StoreError> {
        // Where the operator has switched level 2 off, nobody has a device.
        let history = self.parts.history.get()?;
        let mut devices = history.map_or_else(|| Ok(Vec::new()), |history| history.devices(user))?;
        let mut is_own_revoked = false;
        if let Some(name) = revoke {
            let found = devices.iter().position(|device| device.name == name);
            let (Some(history), Some(at)) = (history, found) else {
                return Ok((replies::refused(68, NO_SUCH_DEVICE, rid), false));
            };
            let device = devices.remove(at);
            history.forget(user, &[device.id])?;
            is_own_revoked = own == Some(device.id);
            self.revoke(user, &[device.id], own);
        }
        let router = self.router();
        let is_online = |device: &Device| {
            router
                .as_ref()
                .is_some_and(|router| !router.attendance().devices(user, |link| link.device == device.id).is_empty())
        };
        let line = |device: &Device| (device.name.clone(), device.seen, is_online(device));
        let lines: Vec<_> = devices.iter().map(line).collect();
        Ok((replies::devices(&lines, rid), is_own_revoked))
    }

    /// Logs a device out for good.
    pub(super) fn log_out(
        &self,
        history: &dyn History,
        who: &Identity,
        ticket: Ticket,
        rid: Option<&Rid>,
    ) -> Result<Vec<MemberNews>, StoreError> {
        history.forget(who.user, &[who.device])?;
        let reply = replies::with_rid(protocol::ACK, rid);
        Ok(vec![MemberNews::Answer(ticket, reply), MemberNews::End(Reason::Logout)])
    }

    /// Ends connections of devices that were logged out, on every node.
    pub fn revoke(&self, user: UserId, devices: &[DeviceId], but: Option<DeviceId>) {
        let ended: Vec<DeviceId> = devices.iter().copied().filter(|device| Some(*device) != but).collect();
        if let Some(router) = self.router() {
            for link in router.attendance().devices(user, |link| ended.contains(&link.device)) {
                link.post(Posted::Member(Box::new(MemberNews::End(Reason::Revoked))));
            }
        }
        let news = |device: &DeviceId| DeviceNews::End(user, *device, DeviceEnd::Revoked);
        self.tell_nodes(&ended.iter().map(news).collect::<Vec<_>>());
    }
}

/// Why a login ends whose device has logged in last with this number, if it has to.
pub(super) fn end_of_login(own: i64, last: Option<i64>) -> Option<Reason> {
    match last {
        None => Some(Reason::Revoked),
        Some(last) => match last.cmp(&own) {
            Ordering::Equal => None,
            Ordering::Greater => Some(Reason::Replaced),
            // The database is an older one. The client is to come back.
            Ordering::Less => Some(Reason::Overload),
        },
    }
}

/// Two times 16 random bytes.
fn random() -> Result<[[u8; 16]; 2], StoreError> {
    let mut bytes = [[0; 16]; 2];
    for part in &mut bytes {
        getrandom::fill(part).map_err(|error| StoreError::Failed(error.to_string().into()))?;
    }
    Ok(bytes)
}

/// How often a login is written whose stored password changes meanwhile, but not the password.
const WRITES_MAX: usize = 3;
const NO_SUCH_DEVICE: Refusal = Refusal::forever(404, "you have no such device");
