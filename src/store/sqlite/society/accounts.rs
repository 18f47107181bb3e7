//! Changes of accounts.

use rusqlite::{Connection, OptionalExtension, params};

use super::groups;
use crate::base::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::store::community::{AccountDeletion, Deletion, GroupAct, OwnAccount, PasswordChange, Swapped};
use crate::store::history::DeviceId;
use crate::store::sqlite::conversations::devices;

pub(super) fn own(db: &Connection, user: UserId) -> rusqlite::Result<Option<OwnAccount>> {
    db.prepare_cached("SELECT name, receipts FROM User WHERE id = ?1")?
        .query_row([user.0], |row| Ok(OwnAccount { name: row.get(0)?, receipts: row.get(1)? }))
        .optional()
}

/// `None`: another user has the name.
pub(super) fn change_own(
    db: &Connection,
    user: UserId,
    name: Option<&str>,
    receipts: Option<bool>,
) -> rusqlite::Result<Option<Option<OwnAccount>>> {
    if let Some(name) = name {
        let key = fold(name);
        let is_taken =
            db.prepare_cached("SELECT 1 FROM User WHERE name_key = ?1 AND id <> ?2")?.exists(params![key, user.0])?;
        if is_taken {
            return Ok(None);
        }
        db.prepare_cached("UPDATE User SET name = ?2, name_key = ?3 WHERE id = ?1")?
            .execute(params![user.0, name, key])?;
    }
    if let Some(receipts) = receipts {
        db.prepare_cached("UPDATE User SET receipts = ?2 WHERE id = ?1")?.execute(params![user.0, receipts])?;
    }
    own(db, user).map(Some)
}

pub(super) fn change_password(db: &Connection, change: &PasswordChange) -> rusqlite::Result<Swapped<Vec<DeviceId>>> {
    let PasswordChange { user, old, new, keep } = change;
    let changed = db
        .prepare_cached("UPDATE User SET password = ?3 WHERE id = ?1 AND password = ?2")?
        .execute(params![user.0, old, new])?;
    if changed == 0 {
        return Ok(Swapped::Stale);
    }
    let mut forgotten = Vec::new();
    for device in devices::of(db, *user)? {
        match keep {
            Some((kept, secret)) if *kept == device.id => {
                db.prepare_cached("UPDATE Device SET secret = ?2 WHERE id = ?1")?.execute(params![kept.0, secret])?;
            }
            _ => {
                devices::forget(db, *user, device.id)?;
                forgotten.push(device.id);
            }
        }
    }
    Ok(Swapped::Done(forgotten))
}

pub(super) fn delete(db: &Connection, request: &AccountDeletion<'_>) -> rusqlite::Result<Swapped<Deletion>> {
    let AccountDeletion { user, stored, hooked, nonce } = *request;
    let is_same =
        db.prepare_cached("SELECT 1 FROM User WHERE id = ?1 AND password = ?2")?.exists(params![user.0, stored])?;
    if !is_same {
        return Ok(Swapped::Stale);
    }
    let mut deletion = Deletion { groups: Vec::new(), devices: devices::of(db, user)? };
    for group in groups_of(db, user)? {
        let act = GroupAct::leaving(group, user, hooked, nonce);
        match act.decide(&groups::facts(db, &act)?) {
            Ok(decision) => deletion.groups.extend(groups::carry_out(db, &act, &decision)?),
            // A row of a group that does not exist.
            Err(_) => {
                db.prepare_cached("DELETE FROM GroupUser WHERE groupid = ?1 AND userid = ?2")?
                    .execute([group.0, user.0])?;
            }
        }
    }
    for device in &deletion.devices {
        devices::forget(db, user, device.id)?;
    }
    let texts: Vec<i64> = db
        .prepare_cached("SELECT DISTINCT textid FROM OfflineMessage WHERE userid = ?1 AND textid IS NOT NULL")?
        .query_map([user.0], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for statement in [
        // If only the other user has a row, it stays, and is shown to nobody.
        "DELETE FROM Friend WHERE friendid = ?1 AND userid IN (SELECT friendid FROM Friend WHERE userid = ?1)",
        "DELETE FROM Friend WHERE userid = ?1",
        "DELETE FROM Asked WHERE userid = ?1 OR friendid = ?1",
        "DELETE FROM Blocked WHERE user = ?1 OR blocked = ?1",
        "DELETE FROM OfflineMessage WHERE userid = ?1",
        "DELETE FROM User WHERE id = ?1",
    ] {
        db.prepare_cached(statement)?.execute([user.0])?;
    }
    for text in texts {
        db.prepare_cached(
            "DELETE FROM MessageText WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM OfflineMessage WHERE textid = ?1)",
        )?
        .execute([text])?;
    }
    Ok(Swapped::Done(deletion))
}

/// The groups of a user, by ascending id.
fn groups_of(db: &Connection, user: UserId) -> rusqlite::Result<Vec<GroupId>> {
    db.prepare_cached("SELECT groupid FROM GroupUser WHERE userid = ?1 ORDER BY groupid")?
        .query_map([user.0], |row| Ok(GroupId(row.get(0)?)))?
        .collect()
}
