//! Changes of groups.

use mysql::prelude::Queryable;
use mysql::{Conn, Row, params};

use super::recording::{self, Attempts, Locked};
use crate::base::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::store::community::groups::{Decision, Gone, GroupFacts, GroupRole, GroupWrite, Subject};
use crate::store::community::{GroupAct, GroupChanged, GroupMember, GroupRefusal, NewGroup, Recorded};
use crate::store::history::NewEntry;
use crate::store::mysql::base::Base;
use crate::store::mysql::conversations::script::or_undone;
use crate::store::mysql::error;
use crate::store::mysql::rows::{collect, column, ids_of, new_id};

pub(super) fn create(
    db: &mut Conn,
    base: &Base,
    group: &NewGroup,
    attempts: &mut Attempts<(GroupId, Recorded)>,
) -> mysql::Result<(GroupId, Recorded)> {
    if let Some(answer) = attempts.stored(db)? {
        return Ok(answer);
    }
    or_undone(db, |db| {
        db.query_drop("START TRANSACTION")?;
        if base.schema.has_name_keys {
            db.exec_drop(
                "INSERT INTO AllGroup (groupname, groupdesc, name_key) VALUES (?, ?, ?)",
                (&group.name, &group.description, fold(&group.name)),
            )?;
        } else {
            let insert = "INSERT INTO AllGroup (groupname, groupdesc) VALUES (?, ?)";
            db.exec_drop(insert, (&group.name, &group.description))?;
        }
        let id = GroupId(new_id(db.last_insert_id())?);
        let insert = "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (?, ?, 'creator')";
        db.exec_drop(insert, (id.0, group.owner.0))?;
        let name: Option<String> = db.exec_first("SELECT name FROM User WHERE id = ?", (group.owner.0,))?;
        let entry = group.entry(id, &name.unwrap_or_default());
        let noted = recording::record(db, base, std::slice::from_ref(&entry), vec![group.owner], Vec::new())?;
        let noted = noted.ok_or_else(error::removed_meanwhile)?;
        attempts.commit(db, Some(&entry), (id, noted))
    })
}

pub(super) fn act(
    db: &mut Conn,
    base: &Base,
    act: &GroupAct,
    attempts: &mut Attempts<GroupChanged>,
) -> mysql::Result<Result<GroupChanged, GroupRefusal>> {
    or_undone(db, |db| {
        recording::begin(db, &[act.conv()], Locked::Groups)?;
        if let Some(answer) = attempts.stored(db)? {
            db.query_drop("ROLLBACK")?;
            return Ok(Ok(answer));
        }
        let facts = facts(db, act)?;
        let decision = match act.decide(&facts) {
            Ok(decision) => decision,
            Err(refusal) => {
                db.query_drop("ROLLBACK")?;
                return Ok(Err(refusal));
            }
        };
        let (first, recorded) = carry_out(db, base, act, &decision)?;
        let changed = GroupChanged { name: facts.name.unwrap_or_default(), recorded };
        attempts.commit(db, first.as_ref(), changed).map(Ok)
    })
}

/// Carries out a decision, within a transaction that has locked the group. Returns the first entry
/// as well.
pub(super) fn carry_out(
    db: &mut Conn,
    base: &Base,
    act: &GroupAct,
    decision: &Decision,
) -> mysql::Result<(Option<NewEntry>, Option<Recorded>)> {
    let before = if decision.gone == Gone::All { member_ids(db, act.group)? } else { Vec::new() };
    let entries = decision.entries(act);
    let noted = recording::record(db, base, &entries, Vec::new(), Vec::new())?;
    decision.writes.iter().try_for_each(|write| apply(db, base, act.group, write))?;
    let Some(noted) = noted else { return Ok((None, None)) };
    let (members, gone) = match decision.gone {
        Gone::Nobody => (member_ids(db, act.group)?, Vec::new()),
        Gone::One(user) => (member_ids(db, act.group)?, vec![user]),
        Gone::All => (Vec::new(), before),
    };
    Ok((entries.into_iter().next(), Some(Recorded { members, gone, ..noted })))
}

pub(super) fn facts(db: &mut Conn, act: &GroupAct) -> mysql::Result<GroupFacts> {
    let (group, by, subject) = (act.group.0, act.by.0, act.subject().0);
    let row: Option<Row> = db.exec_first(
        "SELECT (SELECT COALESCE(groupname, '') FROM AllGroup WHERE id = :group) AS name,
             (SELECT grouprole FROM GroupUser WHERE groupid = :group AND userid = :by) AS standing,
             (SELECT COALESCE(name, '') FROM User WHERE id = :by) AS by_name,
             (SELECT COALESCE(name, '') FROM User WHERE id = :subject) AS subject_name,
             (SELECT COUNT(*) FROM GroupUser WHERE groupid = :group AND userid = :subject) AS is_member,
             (SELECT COUNT(*) FROM Banned WHERE groupid = :group AND userid = :subject) AS is_banned,
             (SELECT COUNT(*) FROM (SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT :max) AS some) AS members",
        params! {group, by, subject, "max" => act.members_max()},
    )?;
    let mut row = row.ok_or_else(error::removed_meanwhile)?;
    let standing: Option<String> = column(&mut row, "standing")?;
    Ok(GroupFacts {
        name: column(&mut row, "name")?,
        standing: standing.as_deref().map(GroupRole::stored),
        by_name: column(&mut row, "by_name")?,
        subject: Subject {
            name: column(&mut row, "subject_name")?,
            is_member: column::<i64>(&mut row, "is_member")? > 0,
            is_banned: column::<i64>(&mut row, "is_banned")? > 0,
        },
        members: usize::try_from(column::<i64>(&mut row, "members")?).unwrap_or_default(),
        heir: if act.needs_heir() { heir(db, act.group, act.by)? } else { None },
    })
}

/// The longest-standing member except `user`. A row of a user who does not exist is not a member.
fn heir(db: &mut Conn, group: GroupId, user: UserId) -> mysql::Result<Option<(UserId, String)>> {
    let row: Option<(i32, Option<String>)> = db.exec_first(
        "SELECT userid, name FROM GroupUser JOIN User ON User.id = userid
         WHERE groupid = ? AND userid <> ? ORDER BY since, userid LIMIT 1",
        (group.0, user.0),
    )?;
    Ok(row.map(|(user, name)| (UserId(user), name.unwrap_or_default())))
}

fn member_ids(db: &mut Conn, group: GroupId) -> mysql::Result<Vec<UserId>> {
    ids_of(db.exec("SELECT userid AS id FROM GroupUser WHERE groupid = ? ORDER BY userid", (group.0,))?)
}

fn apply(db: &mut Conn, base: &Base, group: GroupId, write: &GroupWrite) -> mysql::Result<()> {
    match write {
        GroupWrite::Promote(user) => {
            let update = "UPDATE GroupUser SET grouprole = 'creator' WHERE groupid = ? AND userid = ?";
            db.exec_drop(update, (group.0, user.0))
        }
        GroupWrite::Demote(user) => {
            let update = "UPDATE GroupUser SET grouprole = 'normal' WHERE groupid = ? AND userid = ?";
            db.exec_drop(update, (group.0, user.0))
        }
        GroupWrite::Ban(user) => {
            let insert = "INSERT INTO Banned (groupid, userid) VALUES (?, ?) ON DUPLICATE KEY UPDATE userid = userid";
            db.exec_drop(insert, (group.0, user.0))
        }
        GroupWrite::LiftBan(user) => {
            db.exec_drop("DELETE FROM Banned WHERE groupid = ? AND userid = ?", (group.0, user.0))
        }
        GroupWrite::Name(name) if base.schema.has_name_keys => {
            let update = "UPDATE AllGroup SET groupname = ?, name_key = ? WHERE id = ?";
            db.exec_drop(update, (name, fold(name), group.0))
        }
        GroupWrite::Name(name) => db.exec_drop("UPDATE AllGroup SET groupname = ? WHERE id = ?", (name, group.0)),
        GroupWrite::Description(text) => {
            db.exec_drop("UPDATE AllGroup SET groupdesc = ? WHERE id = ?", (text, group.0))
        }
        GroupWrite::End => {
            for statement in [
                "DELETE FROM GroupUser WHERE groupid = ?",
                "DELETE FROM Member WHERE conv = ?",
                "DELETE FROM Banned WHERE groupid = ?",
                "DELETE FROM AllGroup WHERE id = ?",
            ] {
                db.exec_drop(statement, (group.0,))?;
            }
            Ok(())
        }
    }
}

pub(super) fn members(
    db: &mut Conn,
    group: GroupId,
    asker: UserId,
) -> mysql::Result<Result<Vec<GroupMember>, GroupRefusal>> {
    let rows = db.exec(
        "SELECT userid, name, grouprole FROM GroupUser LEFT JOIN User ON User.id = userid
         WHERE groupid = ? ORDER BY userid",
        (group.0,),
    )?;
    let members = collect(rows, |row| {
        let (user, name) = (UserId(column(row, "userid")?), column(row, "name")?);
        let role: Option<String> = column(row, "grouprole")?;
        Ok(GroupMember { user, name, role: GroupRole::stored(&role.unwrap_or_default()) })
    })?;
    if members.iter().any(|member| member.user == asker) {
        return Ok(Ok(members));
    }
    let exists: Option<i32> = db.exec_first("SELECT id FROM AllGroup WHERE id = ?", (group.0,))?;
    Ok(Err(if exists.is_some() { GroupRefusal::NotMember } else { GroupRefusal::NoSuchGroup }))
}
