//! Changes of accounts.

use mysql::prelude::Queryable;
use mysql::{Conn, Row, params};

use super::groups;
use super::recording::{self, Locked};
use crate::base::conversation::ConversationId;
use crate::protocol::{GroupId, UserId};
use crate::store::community::{AccountDeletion, Deletion, GroupAct, OwnAccount, PasswordChange, Swapped};
use crate::store::history::DeviceId;
use crate::store::mysql::base::Base;
use crate::store::mysql::conversations::devices;
use crate::store::mysql::conversations::script::or_undone;
use crate::store::mysql::error;
use crate::store::mysql::rows::{column, text};

pub(super) fn own(db: &mut Conn, user: UserId) -> mysql::Result<Option<OwnAccount>> {
    let row: Option<Row> = db.exec_first("SELECT name, receipts FROM User WHERE id = ?", (user.0,))?;
    let read = |mut row: Row| {
        Ok(OwnAccount { name: text(&mut row, "name")?, receipts: column::<i64>(&mut row, "receipts")? != 0 })
    };
    row.map(read).transpose()
}

/// `None`: another user has the name.
pub(super) fn change_own(
    db: &mut Conn,
    user: UserId,
    name: Option<&str>,
    receipts: Option<bool>,
) -> mysql::Result<Option<Option<OwnAccount>>> {
    // One statement: both change or neither.
    let update =
        "UPDATE User SET name = COALESCE(:name, name), receipts = COALESCE(:receipts, receipts) WHERE id = :user";
    let params = params! {name, "receipts" => receipts.map(i64::from), "user" => user.0};
    match db.exec_drop(update, params) {
        Err(error) if error::code(&error) == Some(error::DUPLICATE_ENTRY) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => own(db, user).map(Some),
    }
}

/// The stored password, locked.
fn locked_password(db: &mut Conn, user: UserId) -> mysql::Result<Option<String>> {
    let row: Option<Row> = db.exec_first("SELECT password FROM User WHERE id = ? FOR UPDATE", (user.0,))?;
    row.map(|mut row| text(&mut row, "password")).transpose()
}

/// `forgotten` are the devices that the previous attempt planned to forget. Its answer may have
/// been lost.
pub(super) fn change_password(
    db: &mut Conn,
    change: &PasswordChange,
    forgotten: &mut Vec<DeviceId>,
) -> mysql::Result<Swapped<Vec<DeviceId>>> {
    let PasswordChange { user, old, new, keep } = change;
    or_undone(db, |db| {
        db.query_drop("START TRANSACTION")?;
        let found = locked_password(db, *user)?;
        // An attempt whose answer was lost may have written it.
        if found.as_ref() == Some(new) && new != old {
            db.query_drop("ROLLBACK")?;
            return Ok(Swapped::Done(forgotten.clone()));
        }
        if found.as_ref() != Some(old) {
            db.query_drop("ROLLBACK")?;
            return Ok(Swapped::Stale);
        }
        db.exec_drop("UPDATE User SET password = ? WHERE id = ?", (new, user.0))?;
        let kept = keep.map(|(device, _)| device);
        let others: Vec<DeviceId> =
            devices::of(db, *user)?.iter().map(|device| device.id).filter(|id| Some(*id) != kept).collect();
        devices::forget(db, *user, &others)?;
        if let Some((device, secret)) = keep {
            let update = "UPDATE Device SET secret = ? WHERE id = ? AND user = ?";
            db.exec_drop(update, (&secret[..], device.0, user.0))?;
        }
        forgotten.clone_from(&others);
        db.query_drop("COMMIT")?;
        Ok(Swapped::Done(others))
    })
}

/// Deletes an account. `planned` is the answer of the previous attempt, which may have been lost.
pub(super) fn delete(
    db: &mut Conn,
    base: &Base,
    request: &AccountDeletion<'_>,
    planned: &mut Option<Deletion>,
) -> mysql::Result<Swapped<Deletion>> {
    let AccountDeletion { user, stored, .. } = *request;
    for _ in 0..LOCKED_MAX {
        let groups = groups_of(db, user)?;
        let convs: Vec<ConversationId> = groups.iter().map(|group| ConversationId::of_group(*group)).collect();
        let done = or_undone(db, |db| {
            recording::begin(db, &convs, Locked::Groups)?;
            let found = locked_password(db, user)?;
            if found.as_deref() != Some(stored) {
                db.query_drop("ROLLBACK")?;
                let answer = planned.take().filter(|_| found.is_none());
                return Ok(Some(answer.map_or(Swapped::Stale, Swapped::Done)));
            }
            // The user may have joined another group meanwhile.
            if groups_of(db, user)? != groups {
                db.query_drop("ROLLBACK")?;
                return Ok(None);
            }
            let deletion = delete_locked(db, base, request, &groups)?;
            *planned = Some(deletion.clone());
            db.query_drop("COMMIT")?;
            Ok(Some(Swapped::Done(deletion)))
        })?;
        if let Some(done) = done {
            return Ok(done);
        }
    }
    Err(error::removed_meanwhile())
}

fn delete_locked(
    db: &mut Conn,
    base: &Base,
    request: &AccountDeletion<'_>,
    groups: &[GroupId],
) -> mysql::Result<Deletion> {
    let AccountDeletion { user, hooked, nonce, .. } = *request;
    let mut deletion = Deletion { groups: Vec::new(), devices: devices::of(db, user)? };
    for group in groups {
        let act = GroupAct::leaving(*group, user, hooked, nonce);
        match act.decide(&groups::facts(db, &act)?) {
            Ok(decision) => deletion.groups.extend(groups::carry_out(db, base, &act, &decision)?.1),
            // A row of a group that does not exist.
            Err(_) => db.exec_drop("DELETE FROM GroupUser WHERE groupid = ? AND userid = ?", (group.0, user.0))?,
        }
    }
    let ids: Vec<DeviceId> = deletion.devices.iter().map(|device| device.id).collect();
    devices::forget(db, user, &ids)?;
    let friends: Vec<i32> = db.exec("SELECT friendid FROM Friend WHERE userid = ? ORDER BY friendid", (user.0,))?;
    // If only the other user has a row, it stays, and is shown to nobody.
    for friend in friends {
        db.exec_drop("DELETE FROM Friend WHERE userid = ? AND friendid = ?", (friend, user.0))?;
    }
    for statement in [
        "DELETE FROM Friend WHERE userid = ?",
        "DELETE FROM Asked WHERE userid = ?",
        "DELETE FROM Asked WHERE friendid = ?",
        "DELETE FROM Blocked WHERE user = ?",
        "DELETE FROM Blocked WHERE blocked = ?",
        "DELETE FROM OfflineMessage WHERE userid = ?",
        "DELETE FROM User WHERE id = ?",
    ] {
        db.exec_drop(statement, (user.0,))?;
    }
    Ok(deletion)
}

/// The groups of a user, by ascending id.
fn groups_of(db: &mut Conn, user: UserId) -> mysql::Result<Vec<GroupId>> {
    let ids: Vec<i32> = db.exec("SELECT groupid FROM GroupUser WHERE userid = ? ORDER BY groupid", (user.0,))?;
    Ok(ids.into_iter().map(GroupId).collect())
}

/// The most attempts, because a user may keep joining groups.
const LOCKED_MAX: usize = 5;
