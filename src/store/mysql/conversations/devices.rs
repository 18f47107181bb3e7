//! Devices: the tables `Device` and `DeviceCursor`.

use mysql::prelude::Queryable;
use mysql::{Row, Transaction, from_row_opt};

use super::moments::NOW;
use super::script::{self, Script, list};
use crate::protocol::UserId;
use crate::store::history::{Device, DeviceId, LoggedIn, LoginProof, NewDeviceLogin};
use crate::store::mysql::error;
use crate::store::mysql::rows::{column, text};

/// A query before a login is written.
#[derive(Clone, Copy)]
enum DeviceQuestion {
    Account,
    Now,
    Known,
}

/// Writes a login; `None` if its proof is no longer valid. `planned` is the answer of the previous
/// attempt, which may have been lost.
pub(super) fn log_in(
    db: &mut Transaction<'_>,
    login: &NewDeviceLogin,
    planned: &mut Option<LoggedIn>,
) -> mysql::Result<Option<LoggedIn>> {
    // Logins of one user wait for each other, so that none counts the devices before another has
    // added one. A change of the password waits as well.
    let mut script = Script::new(usize::MAX);
    script
        .add(DeviceQuestion::Account, format!("SELECT name, password FROM User WHERE id = {} FOR UPDATE", login.user));
    script.add(DeviceQuestion::Now, format!("SELECT {NOW}"));
    let device = script::text(&login.name);
    script.add(
        DeviceQuestion::Known,
        format!(
            "SELECT id, user, device, login, secret, seen FROM Device WHERE user = {} AND device = {device} FOR UPDATE",
            login.user
        ),
    );
    let (mut now, mut known, mut account) = (0, None, None);
    script.run(db, |question, mut row| {
        match question {
            DeviceQuestion::Account => account = Some((text(&mut row, "name")?, text(&mut row, "password")?)),
            DeviceQuestion::Now => now = from_row_opt(row)?,
            DeviceQuestion::Known => known = Some(device_row(&mut row)?),
        }
        Ok(())
    })?;
    let found = known.as_ref();
    if let Some(done) = planned.take_if(|planned| found.is_some_and(|known| known.login == planned.device.login)) {
        return Ok(Some(done));
    }
    let Some(account) = account else { return Ok(None) };
    let holds = match &login.proof {
        LoginProof::Password(stored) => account.1 == *stored,
        LoginProof::Token(device, secret) => found.is_some_and(|known| known.id == *device && known.secret == *secret),
    };
    if !holds {
        return Ok(None);
    }
    let number = login.number_after(found.map_or(0, |before| before.login));
    let written = match known {
        Some(before) => again(db, login, account, number, (before, now))?,
        None => first(db, login, account, number, now)?,
    };
    *planned = Some(written.clone());
    Ok(Some(written))
}

fn lost() -> mysql::Error {
    error::removed_meanwhile()
}

fn again(
    db: &mut Transaction<'_>,
    login: &NewDeviceLogin,
    (user_name, password): (String, String),
    number: i64,
    (before, now): (Device, i64),
) -> mysql::Result<LoggedIn> {
    let (seen, secret) = (before.seen.max(now), login.secret_of_known(before.secret));
    let update = "UPDATE Device SET login = ?, seen = ?, secret = ? WHERE id = ?";
    db.exec_drop(update, (number, seen, &secret[..], before.id.0))?;
    let replaced = Some(before.login);
    let device = Device { login: number, secret, seen, ..before };
    Ok(LoggedIn { device, user_name, password, replaced, forgotten: Vec::new() })
}

fn first(
    db: &mut Transaction<'_>,
    login: &NewDeviceLogin,
    (user_name, password): (String, String),
    number: i64,
    now: i64,
) -> mysql::Result<LoggedIn> {
    let NewDeviceLogin { user, name, secret, devices_max, .. } = login.clone();
    let mut others = of(db, user)?;
    let forgotten = others.split_off(others.len().min(devices_max.max(1) - 1));
    let ids: Vec<DeviceId> = forgotten.iter().map(|old| old.id).collect();
    forget(db, user, &ids)?;
    db.exec_drop(
        "INSERT INTO Device (user, device, login, secret, seen) VALUES (?, ?, ?, ?, ?)",
        (user.0, &name, number, &secret[..], now),
    )
    .map_err(error::duplicate_as_deadlock)?;
    let id = i64::try_from(db.last_insert_id().unwrap_or_default()).map_err(|_| lost())?;
    let device = Device { id: DeviceId(id), user, name, login: number, secret, seen: now };
    Ok(LoggedIn { device, user_name, password, replaced: None, forgotten })
}

pub(super) fn device(db: &mut impl Queryable, device: DeviceId) -> mysql::Result<Option<Device>> {
    let row: Option<Row> =
        db.exec_first("SELECT id, user, device, login, secret, seen FROM Device WHERE id = ?", (device.0,))?;
    row.map(|mut row| device_row(&mut row)).transpose()
}

/// The devices of a user, the most recently seen first.
pub(in crate::store::mysql) fn of(db: &mut impl Queryable, user: UserId) -> mysql::Result<Vec<Device>> {
    let rows = db.exec_iter(
        "SELECT id, user, device, login, secret, seen FROM Device WHERE user = ? ORDER BY seen DESC, id DESC",
        (user.0,),
    )?;
    rows.map(|row| device_row(&mut row?)).collect()
}

/// Returns how many were deleted.
pub(in crate::store::mysql) fn forget(
    db: &mut impl Queryable,
    user: UserId,
    devices: &[DeviceId],
) -> mysql::Result<usize> {
    if devices.is_empty() {
        return Ok(0);
    }
    let ids = list(devices.iter().map(|device| device.0));
    let own: Vec<i64> =
        db.query(format!("SELECT id FROM Device WHERE id IN ({ids}) AND user = {user} ORDER BY id FOR UPDATE"))?;
    if own.is_empty() {
        return Ok(0);
    }
    let ids = list(&own);
    db.query_drop(format!("DELETE FROM Device WHERE id IN ({ids})"))?;
    db.query_drop(format!("DELETE FROM DeviceCursor WHERE device IN ({ids})"))?;
    Ok(own.len())
}

fn device_row(row: &mut Row) -> mysql::Result<Device> {
    let secret: Vec<u8> = column(row, "secret")?;
    Ok(Device {
        id: DeviceId(column(row, "id")?),
        user: UserId(column(row, "user")?),
        name: column(row, "device")?,
        login: column(row, "login")?,
        // Bytes of another length, which no version has written, match no token.
        secret: secret.try_into().unwrap_or_default(),
        seen: column(row, "seen")?,
    })
}
