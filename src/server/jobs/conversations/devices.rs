//! Devices: logging in and out, and their list.

use std::cmp::Ordering;

use super::parts::{ConversationParts, Conversations, refusal_of, wall_clock};
use crate::bus::DeviceNews;
use crate::bus::news::DeviceEnd;
use crate::delivery::Posted;
use crate::devices::entry::{AdmittedDevice, EntryNews, NamedUser, WRONG};
use crate::devices::tasks::{Identity, MemberNews};
use crate::devices::token::{Token, TokenKey, TokenOrigin};
use crate::history::answers::Ticket;
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies::{self, Reason, Welcome};
use crate::protocol::{self, UserId};
use crate::session::password::Stamp;
use crate::store::history::{Device, DeviceId, History, HistoryReads, LoggedIn, LoginProof, NewDeviceLogin, SharedKey};
use crate::store::{StoreError, User};

/// A device that wants to log in.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The client's name for the device.
    pub device: Box<str>,
    /// The seconds between heartbeats.
    pub ping: u32,
    /// The client's id of the request, which the reply repeats.
    pub rid: Option<Rid>,
}

/// The proof of a client.
enum Proven {
    /// A password that matched the stored value with this stamp, or a JSON web token that opens the
    /// account of this stored value.
    Stored(Stamp, TokenEnd),
    /// A token of the device, made with this secret.
    Token(DeviceId, [u8; 16], TokenEnd),
    /// An administrator's order, which replaces all earlier tokens of the device. The stored value
    /// has this stamp.
    Order(Stamp),
}

/// The latest end of a new token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenEnd {
    /// It lives as long as the settings say.
    AsSet,
    /// It also ends with the JSON web token that proved the login, at this time, in ms since 1970.
    WithJwt(i64),
}

impl Conversations {
    /// Writes the login of a user whose stored password has this stamp: the client's password
    /// matches it, or a JSON web token opens the account.
    pub fn admit(&self, user: UserId, stamp: Stamp, end: TokenEnd, visitor: &Visitor) -> EntryNews {
        let admitted = self.try_admit(user, &Proven::Stored(stamp, end), visitor);
        self.parts.outages.note("logging devices in", admitted.as_ref().err());
        match admitted {
            Ok(Some(admitted)) => EntryNews::Admitted(Ok(Box::new(admitted))),
            Ok(None) => EntryNews::Outdated,
            Err(error) => EntryNews::Admitted(Err(refusal_of(&error))),
        }
    }

    /// The same with a token, unless the client names another user than the token's.
    pub fn admit_by_token(&self, token: &str, visitor: &Visitor, who: &NamedUser) -> EntryNews {
        let admitted = self.try_admit_by_token(token, visitor, who);
        self.parts.outages.note("logging devices in", admitted.as_ref().err());
        let admitted = admitted.map_err(|error| refusal_of(&error));
        EntryNews::Admitted(admitted.and_then(|admitted| admitted.map(Box::new).ok_or(WRONG)))
    }

    /// The user of this token's device, without a login; `None` if the token is wrong.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub fn sender_with(&self, token: &str) -> Result<Option<UserId>, Refusal> {
        let device = self.device_with(token);
        self.parts.outages.note("reading devices", device.as_ref().err());
        Ok(device.map_err(|error| refusal_of(&error))?.map(|(device, _)| device.user))
    }

    /// The device of this token, and the latest end of the token that follows it, unless the token
    /// is wrong, has expired or was revoked.
    fn device_with(&self, token: &str) -> Result<Option<(Device, TokenEnd)>, StoreError> {
        let Some(token) = self.key()?.verify(token, wall_clock()) else { return Ok(None) };
        let found = self.history()?.device(DeviceId(token.device))?;
        Ok(found.filter(|device| token.is_of(device.user, &device.secret)).map(|device| (device, end_after(&token))))
    }

    /// `None`: the token is wrong, or the client names another user. Whether the row of the device
    /// still fits the token is for the transaction to decide that writes the login, so nothing is
    /// read before it.
    fn try_admit_by_token(
        &self,
        token: &str,
        visitor: &Visitor,
        who: &NamedUser,
    ) -> Result<Option<AdmittedDevice>, StoreError> {
        let Some(token) = self.key()?.verify(token, wall_clock()) else { return Ok(None) };
        let account = if who.is_name() { self.parts.accounts.get()?.user(token.user)? } else { None };
        if who.is_another(token.user, account.as_ref().map_or("", |account| &account.name)) {
            return Ok(None);
        }
        let proven = Proven::Token(DeviceId(token.device), token.serial, end_after(&token));
        self.try_admit(token.user, &proven, visitor)
    }

    /// `None`: the proof is no longer valid.
    fn try_admit(
        &self,
        user: UserId,
        proven: &Proven,
        visitor: &Visitor,
    ) -> Result<Option<AdmittedDevice>, StoreError> {
        let Some(logged_in) = self.enrol(user, proven, visitor)? else { return Ok(None) };
        let forgotten: Vec<DeviceId> = logged_in.forgotten.iter().map(|device| device.id).collect();
        self.revoke(user, &forgotten, None);
        self.note_password(user, &logged_in.password)?;
        let device = logged_in.device;
        let end = match proven {
            Proven::Stored(_, end) | Proven::Token(_, _, end) => *end,
            Proven::Order(_) => TokenEnd::AsSet,
        };
        let (token, expires) = self.token(&device, end)?;
        let welcome = Welcome {
            device: &visitor.device,
            frame_max: self.rules.frame_max,
            inflight: self.rules.inflight,
            name: &logged_in.user_name,
            ping: visitor.ping,
            token: &token,
            token_expires: expires,
            user,
        };
        let identity = Identity { user, device: device.id, device_name: (*visitor.device).into(), login: device.login };
        Ok(Some(AdmittedDevice { identity, welcome: replies::welcome(&welcome, visitor.rid.as_ref()) }))
    }

    /// Notes the stored password with which a login was written. If this node remembers a password
    /// that was verified against another one, that password is forgotten. If connections were
    /// logged in with another one, the account was changed, and they are logged out. Otherwise the
    /// next comparison of accounts would log this device out as well.
    fn note_password(&self, user: UserId, stored: &str) -> Result<(), StoreError> {
        let ConversationParts { stamps, passwords, accounts, .. } = &self.parts;
        let stamp = passwords.stamp(stored);
        passwords.forget_other(user, stamp);
        if stamps.differs(user, stamp) {
            // A later login may have been noted before this one.
            let now = accounts.get()?.credential(user)?;
            if now.is_some_and(|now| passwords.stamp(&now) == stamp) {
                passwords.forget(user);
                stamps.replaced(user, stamp);
            }
        }
        Ok(())
    }

    /// A token of this device that does not expire and replaces all earlier ones. `None` if the
    /// stored password no longer has this stamp.
    pub(in crate::server::jobs) fn lasting_token(
        &self,
        account: &User,
        stamp: Stamp,
        visitor: &Visitor,
    ) -> Result<Option<String>, StoreError> {
        let user = account.id;
        let Some(logged_in) = self.enrol(user, &Proven::Order(stamp), visitor)? else { return Ok(None) };
        let forgotten: Vec<DeviceId> = logged_in.forgotten.iter().map(|device| device.id).collect();
        self.revoke(user, &forgotten, None);
        if let (Some(_), Some(router)) = (&logged_in.replaced, self.router()) {
            let login = logged_in.device.login;
            for link in
                router.attendance().devices(user, |other| other.device == logged_in.device.id && other.login < login)
            {
                link.post(Posted::Member(Box::new(MemberNews::End(replies::Reason::Replaced))));
            }
        }
        let device = &logged_in.device;
        let token =
            Token { user, device: device.id.0, serial: device.secret, expires: NEVER, origin: TokenOrigin::Password };
        Ok(Some(self.key()?.sign(&token)))
    }

    /// Forgets the device of this name, and ends its connections. Returns whether there was one.
    pub(in crate::server::jobs) fn forget_named(&self, user: UserId, name: &str) -> Result<bool, StoreError> {
        let Some(history) = self.parts.history.get()? else { return Ok(false) };
        let Some(device) = history.devices(user)?.into_iter().find(|device| device.name == name) else {
            return Ok(false);
        };
        history.forget(user, &[device.id])?;
        self.revoke(user, &[device.id], None);
        Ok(true)
    }

    /// Forgets all devices of a user. The caller must then end the connections.
    pub(in crate::server::jobs) fn forget_all(&self, user: UserId) -> Result<Vec<DeviceId>, StoreError> {
        let Some(history) = self.parts.history.get()? else { return Ok(Vec::new()) };
        let devices: Vec<DeviceId> = history.devices(user)?.iter().map(|device| device.id).collect();
        history.forget(user, &devices)?;
        Ok(devices)
    }

    /// The users after `after` whose `User.state` says online.
    pub(in crate::server::jobs) fn online_after(&self, after: UserId, limit: usize) -> Result<Vec<UserId>, StoreError> {
        self.parts.states.get()?.online_after(after, limit)
    }

    /// The conversations, if the tables have any.
    pub(in crate::server::jobs) fn stored(&self) -> Result<Option<&dyn History>, StoreError> {
        self.parts.history.get()
    }

    /// The names of a user's devices, and when each was last seen.
    pub(in crate::server::jobs) fn devices_of(&self, user: UserId) -> Result<Vec<(String, i64)>, StoreError> {
        let Some(history) = self.parts.history.get()? else { return Ok(Vec::new()) };
        Ok(history.devices(user)?.into_iter().map(|device| (device.name, device.seen)).collect())
    }

    /// Writes the login of a device, and notifies other nodes. `None`: the proof is no longer
    /// valid.
    fn enrol(&self, user: UserId, proven: &Proven, visitor: &Visitor) -> Result<Option<LoggedIn>, StoreError> {
        let history = self.history()?;
        if let Proven::Stored(..) | Proven::Order(_) = proven {
            // The device may be new. The one to forget must not be one that has been connected for
            // long.
            let connected = self.router().map(|router| router.attendance().connected_devices(user));
            connected.filter(|devices| !devices.is_empty()).map_or(Ok(()), |devices| history.seen(&devices))?;
        }
        let Some(logged_in) = self.write_login(history, user, proven, visitor)? else { return Ok(None) };
        // The database may have lost that the user uses level 2, and the device as well.
        let is_known = self.parts.audience.has(user);
        let may_be_lost = matches!(proven, Proven::Stored(..) | Proven::Order(_));
        let is_new = (!is_known || may_be_lost) && history.use_level2(user)?;
        if is_new || !is_known {
            self.parts.audience.add(user);
            self.tell_nodes(&[DeviceNews::UsesLevel2(user)]);
        }
        if logged_in.replaced.is_some() {
            let device = &logged_in.device;
            self.tell_nodes(&[DeviceNews::End(user, device.id, DeviceEnd::Replaced(device.login))]);
        }
        Ok(Some(logged_in))
    }

    /// Writes the row. The transaction checks the proof, so a login under way does not succeed
    /// after a new password or the revocation of its device, on any node.
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
                Proven::Token(device, secret, _) => LoginProof::Token(*device, *secret),
                Proven::Stored(stamp, _) | Proven::Order(stamp) => {
                    let stored = self.parts.accounts.get()?.credential(user)?;
                    match stored.filter(|stored| self.parts.passwords.stamp(stored) == *stamp) {
                        Some(stored) => LoginProof::Password(stored),
                        None => return Ok(None),
                    }
                }
            };
            let is_token = matches!(proof, LoginProof::Token(..));
            let login = NewDeviceLogin {
                user,
                name: visitor.device.to_string(),
                proof,
                nonce: u32::from_le_bytes(*nonce),
                secret,
                renews_secret: matches!(proven, Proven::Order(_)),
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

    /// The reason why a connection of level 2 must end, if its login is not the last one of
    /// its device. Called after messages and news come to the connection, which therefore learns of
    /// any later login.
    pub(super) fn end_of(&self, history: &dyn HistoryReads, who: &Identity) -> Result<Option<Reason>, StoreError> {
        let last = history.logins(&[who.device])?.first().map(|(_, login)| *login);
        Ok(end_of_login(who.login, last))
    }

    /// A new token of a device, and the time at which it expires.
    fn token(&self, device: &Device, end: TokenEnd) -> Result<(String, i64), StoreError> {
        let lifetime = i64::try_from(self.rules.token_lifetime.as_millis()).unwrap_or(i64::MAX);
        let as_set = wall_clock().saturating_add(lifetime);
        let (expires, origin) = match end {
            TokenEnd::AsSet => (as_set, TokenOrigin::Password),
            TokenEnd::WithJwt(end) => (as_set.min(end), TokenOrigin::Jwt),
        };
        let token = Token { user: device.user, device: device.id.0, serial: device.secret, expires, origin };
        Ok((self.key()?.sign(&token), expires))
    }

    /// The cluster's key, which is read only once.
    fn key(&self) -> Result<&TokenKey, StoreError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let [first, second] = random()?;
        let mut new = [0; 32];
        new[..16].copy_from_slice(&first);
        new[16..].copy_from_slice(&second);
        let stored = self.history()?.shared_key(SharedKey::Tokens, new)?;
        Ok(self.key.get_or_init(|| TokenKey::new(&stored)))
    }

    /// A new token of this device, whose row has this secret.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn token_of(
        &self,
        user: UserId,
        (device, secret): (DeviceId, [u8; 16]),
        end: TokenEnd,
    ) -> Result<(String, i64), StoreError> {
        self.token(&Device { id: device, user, name: String::new(), login: 0, secret, seen: 0 }, end)
    }

    /// The answer to a 68: the devices, after one is logged out; and whether that one is the
    /// requester's `own`, whose connection the caller must end.
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
        // If the operator has switched level 2 off, nobody has a device.
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

    /// Logs a device out permanently.
    pub(super) fn log_out(
        &self,
        history: &dyn History,
        who: &Identity,
        ticket: Ticket,
        rid: Option<&Rid>,
    ) -> Result<MemberNews, StoreError> {
        history.forget(who.user, &[who.device])?;
        Ok(MemberNews::LoggedOut(ticket, replies::with_rid(protocol::ACK, rid)))
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

/// The reason why a login must end, if its device's last login has this number.
pub(super) fn end_of_login(own: i64, last: Option<i64>) -> Option<Reason> {
    match last {
        None => Some(Reason::Revoked),
        Some(last) => match last.cmp(&own) {
            Ordering::Equal => None,
            Ordering::Greater => Some(Reason::Replaced),
            // The database is in an older state. The client must reconnect.
            Ordering::Less => Some(Reason::Overload),
        },
    }
}

/// The latest end of a token that follows this one.
fn end_after(token: &Token) -> TokenEnd {
    match token.origin {
        TokenOrigin::Password => TokenEnd::AsSet,
        TokenOrigin::Jwt => TokenEnd::WithJwt(token.expires),
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

/// The most attempts to write a login while the stored value changes, but not the password.
const WRITES_MAX: usize = 3;
/// The last moment that a JavaScript date can represent.
const NEVER: i64 = 8_640_000_000_000_000;
const NO_SUCH_DEVICE: Refusal = Refusal::forever(404, "you have no such device");
