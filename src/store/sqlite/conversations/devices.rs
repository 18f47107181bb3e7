//! Devices: the tables `Device` and `DeviceCursor`.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::moments::now;
use crate::protocol::UserId;
use crate::store::history::{Device, DeviceId, LoggedIn, LoginProof, NewDeviceLogin};

/// `None`: the proof is no longer valid.
pub(super) fn log_in(db: &Connection, login: &NewDeviceLogin) -> rusqlite::Result<Option<LoggedIn>> {
    let now = now();
    let known = db
        .prepare_cached("SELECT id, user, device, login, secret, seen FROM Device WHERE user = ?1 AND device = ?2")?
        .query_row(params![login.user.0, login.name], device_row)
        .optional()?;
    let account: Option<(String, String)> = db
        .prepare_cached("SELECT name, password FROM User WHERE id = ?1")?
        .query_row([login.user.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((user_name, password)) = account else { return Ok(None) };
    let holds = match &login.proof {
        LoginProof::Password(stored) => password == *stored,
        LoginProof::Token(device, secret) => {
            known.as_ref().is_some_and(|known| known.id == *device && known.secret == *secret)
        }
    };
    if !holds {
        return Ok(None);
    }
    let number = login.number_after(known.as_ref().map_or(0, |before| before.login));
    if let Some(before) = known {
        let secret = login.secret_of_known(before.secret);
        db.prepare_cached("UPDATE Device SET login = ?2, seen = max(seen, ?3), secret = ?4 WHERE id = ?1")?
            .execute(params![before.id.0, number, now, secret])?;
        let replaced = Some(before.login);
        let device = Device { login: number, secret, seen: before.seen.max(now), ..before };
        return Ok(Some(LoggedIn { device, user_name, password, replaced, forgotten: Vec::new() }));
    }
    let NewDeviceLogin { user, name, secret, devices_max, .. } = login.clone();
    let mut others = of(db, user)?;
    let forgotten = others.split_off(others.len().min(devices_max.max(1) - 1));
    for old in &forgotten {
        forget(db, user, old.id)?;
    }
    db.prepare_cached("INSERT INTO Device (user, device, login, secret, seen) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![user.0, name, number, secret, now])?;
    let device = Device { id: DeviceId(db.last_insert_rowid()), user, name, login: number, secret, seen: now };
    Ok(Some(LoggedIn { device, user_name, password, replaced: None, forgotten }))
}

pub(super) fn device(db: &Connection, device: DeviceId) -> rusqlite::Result<Option<Device>> {
    db.prepare_cached("SELECT id, user, device, login, secret, seen FROM Device WHERE id = ?1")?
        .query_row([device.0], device_row)
        .optional()
}

/// The last logins of these devices, except forgotten ones.
pub(super) fn logins(db: &Connection, devices: &[DeviceId]) -> rusqlite::Result<Vec<(DeviceId, i64)>> {
    let mut query = db.prepare_cached("SELECT login FROM Device WHERE id = ?1")?;
    let mut find = |device: &DeviceId| {
        let login = query.query_row([device.0], |row| row.get(0)).optional()?;
        Ok(login.map(|login| (*device, login)))
    };
    devices.iter().filter_map(|device| find(device).transpose()).collect()
}

/// The devices of a user, the most recently seen first.
pub(in crate::store::sqlite) fn of(db: &Connection, user: UserId) -> rusqlite::Result<Vec<Device>> {
    db.prepare_cached(
        "SELECT id, user, device, login, secret, seen FROM Device WHERE user = ?1 ORDER BY seen DESC, id DESC",
    )?
    .query_map([user.0], device_row)?
    .collect()
}

/// Returns 1 if the device is one of the user's.
pub(in crate::store::sqlite) fn forget(db: &Connection, user: UserId, device: DeviceId) -> rusqlite::Result<usize> {
    let gone =
        db.prepare_cached("DELETE FROM Device WHERE id = ?1 AND user = ?2")?.execute(params![device.0, user.0])?;
    if gone > 0 {
        db.prepare_cached("DELETE FROM DeviceCursor WHERE device = ?1")?.execute([device.0])?;
    }
    Ok(gone)
}

fn device_row(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        id: DeviceId(row.get(0)?),
        user: UserId(row.get(1)?),
        name: row.get(2)?,
        login: row.get(3)?,
        secret: row.get(4)?,
        seen: row.get(5)?,
    })
}
