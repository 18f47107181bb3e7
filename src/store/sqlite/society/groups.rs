//! Changes of groups.

use rusqlite::{Connection, OptionalExtension, params};

use super::recording::{record, text_of};
use crate::base::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::store::community::groups::{Decision, Gone, GroupFacts, GroupRole, GroupWrite, Subject};
use crate::store::community::{GroupAct, GroupChanged, GroupMember, GroupRefusal, NewGroup, Recorded};
use crate::store::sqlite::contacts::add_member;
use crate::store::sqlite::ids::{IdKind, Ids};
use crate::store::sqlite::rows::{limit, new_id};

const NAME: &str = "SELECT groupname FROM AllGroup WHERE id = ?1";
const USER_NAME: &str = "SELECT name FROM User WHERE id = ?1";

pub(super) fn create(db: &Connection, ids: &Ids, group: &NewGroup) -> rusqlite::Result<(GroupId, Recorded)> {
    db.prepare_cached("INSERT INTO AllGroup (groupname, name_key, groupdesc) VALUES (?1, ?2, ?3)")?
        .execute(params![group.name, fold(&group.name), group.description])?;
    let id = GroupId(new_id(db)?);
    ids.note(IdKind::Group, id.0)?;
    add_member(db, id, group.owner, "creator")?;
    let owner_name = text_of(db, USER_NAME, group.owner.0)?.unwrap_or_default();
    let noted = record(db, &[group.entry(id, &owner_name)], vec![group.owner], Vec::new())?;
    Ok((id, noted.ok_or(rusqlite::Error::QueryReturnedNoRows)?))
}

pub(super) fn act(db: &Connection, act: &GroupAct) -> rusqlite::Result<Result<GroupChanged, GroupRefusal>> {
    let facts = facts(db, act)?;
    match act.decide(&facts) {
        Err(refusal) => Ok(Err(refusal)),
        Ok(decision) => {
            let recorded = carry_out(db, act, &decision)?;
            Ok(Ok(GroupChanged { name: facts.name.unwrap_or_default(), recorded }))
        }
    }
}

/// Carries out a decision.
pub(super) fn carry_out(db: &Connection, act: &GroupAct, decision: &Decision) -> rusqlite::Result<Option<Recorded>> {
    let before = member_ids(db, act.group)?;
    let entries = decision.entries(act);
    let noted = record(db, &entries, Vec::new(), Vec::new())?;
    decision.writes.iter().try_for_each(|write| apply(db, act.group, write))?;
    let Some(noted) = noted else { return Ok(None) };
    let (members, gone) = match decision.gone {
        Gone::Nobody => (member_ids(db, act.group)?, Vec::new()),
        Gone::One(user) => (member_ids(db, act.group)?, vec![user]),
        Gone::All => (Vec::new(), before),
    };
    Ok(Some(Recorded { members, gone, ..noted }))
}

pub(super) fn facts(db: &Connection, act: &GroupAct) -> rusqlite::Result<GroupFacts> {
    let (group, by, subject) = (act.group.0, act.by, act.subject());
    let is_banned = "SELECT 1 FROM Banned WHERE groupid = ?1 AND userid = ?2";
    let members: i64 = db
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM GroupUser WHERE groupid = ?1 LIMIT ?2)")?
        .query_row(params![group, limit(act.members_max())], |row| row.get(0))?;
    Ok(GroupFacts {
        name: text_of(db, NAME, group)?,
        standing: standing(db, act.group, by)?,
        by_name: text_of(db, USER_NAME, by.0)?,
        subject: Subject {
            name: text_of(db, USER_NAME, subject.0)?,
            is_member: standing(db, act.group, subject)?.is_some(),
            is_banned: db.prepare_cached(is_banned)?.exists([group, subject.0])?,
        },
        members: usize::try_from(members).unwrap_or_default(),
        heir: if act.needs_heir() { heir(db, act.group, by)? } else { None },
    })
}

fn standing(db: &Connection, group: GroupId, user: UserId) -> rusqlite::Result<Option<GroupRole>> {
    db.prepare_cached("SELECT grouprole FROM GroupUser WHERE groupid = ?1 AND userid = ?2")?
        .query_row([group.0, user.0], |row| Ok(GroupRole::stored(row.get_ref(0)?.as_str()?)))
        .optional()
}

/// The longest-standing member except `user`. A row of a user who does not exist is not a member.
fn heir(db: &Connection, group: GroupId, user: UserId) -> rusqlite::Result<Option<(UserId, String)>> {
    db.prepare_cached(
        "SELECT userid, name FROM GroupUser JOIN User ON User.id = userid
         WHERE groupid = ?1 AND userid <> ?2 ORDER BY since, userid LIMIT 1",
    )?
    .query_row([group.0, user.0], |row| Ok((UserId(row.get(0)?), row.get(1)?)))
    .optional()
}

fn member_ids(db: &Connection, group: GroupId) -> rusqlite::Result<Vec<UserId>> {
    db.prepare_cached("SELECT userid FROM GroupUser WHERE groupid = ?1 ORDER BY userid")?
        .query_map([group.0], |row| Ok(UserId(row.get(0)?)))?
        .collect()
}

fn apply(db: &Connection, group: GroupId, write: &GroupWrite) -> rusqlite::Result<()> {
    let of_user = |statement, user: &UserId| db.prepare_cached(statement)?.execute([group.0, user.0]).map(drop);
    match write {
        GroupWrite::Promote(user) => {
            of_user("UPDATE GroupUser SET grouprole = 'creator' WHERE groupid = ?1 AND userid = ?2", user)
        }
        GroupWrite::Demote(user) => {
            of_user("UPDATE GroupUser SET grouprole = 'normal' WHERE groupid = ?1 AND userid = ?2", user)
        }
        GroupWrite::Ban(user) => {
            of_user("INSERT INTO Banned (groupid, userid) VALUES (?1, ?2) ON CONFLICT DO NOTHING", user)
        }
        GroupWrite::LiftBan(user) => of_user("DELETE FROM Banned WHERE groupid = ?1 AND userid = ?2", user),
        GroupWrite::Name(name) => db
            .prepare_cached("UPDATE AllGroup SET groupname = ?2, name_key = ?3 WHERE id = ?1")?
            .execute(params![group.0, name, fold(name)])
            .map(drop),
        GroupWrite::Description(text) => db
            .prepare_cached("UPDATE AllGroup SET groupdesc = ?2 WHERE id = ?1")?
            .execute(params![group.0, text])
            .map(drop),
        GroupWrite::End => {
            for statement in [
                "DELETE FROM GroupUser WHERE groupid = ?1",
                "DELETE FROM Member WHERE conv = ?1",
                "DELETE FROM Banned WHERE groupid = ?1",
                "DELETE FROM AllGroup WHERE id = ?1",
            ] {
                db.prepare_cached(statement)?.execute([group.0])?;
            }
            Ok(())
        }
    }
}

pub(super) fn members(
    db: &Connection,
    group: GroupId,
    asker: UserId,
) -> rusqlite::Result<Result<Vec<GroupMember>, GroupRefusal>> {
    let members: Vec<GroupMember> = db
        .prepare_cached(
            "SELECT userid, name, grouprole FROM GroupUser LEFT JOIN User ON User.id = userid
             WHERE groupid = ?1 ORDER BY userid",
        )?
        .query_map([group.0], |row| {
            let role = GroupRole::stored(row.get_ref(2)?.as_str()?);
            Ok(GroupMember { user: UserId(row.get(0)?), name: row.get(1)?, role })
        })?
        .collect::<rusqlite::Result<_>>()?;
    if members.iter().any(|member| member.user == asker) {
        return Ok(Ok(members));
    }
    let exists = text_of(db, NAME, group.0)?.is_some();
    Ok(Err(if exists { GroupRefusal::NotMember } else { GroupRefusal::NoSuchGroup }))
}
