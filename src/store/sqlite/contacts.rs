//! Friends and groups: the tables `Friend`, `AllGroup` and `GroupUser`.

use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::SqliteStore;
use super::conversations::moments::now;
use super::ids::IdKind;
use super::rows::{limit, new_id, user_by_id, user_row};
use crate::base::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::store::{Contacts, FriendNames, Group, Joined, Membership, SEARCH_PAGE, SEARCH_TIME, StoreError, User};

impl Contacts for SqliteStore {
    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.live.change(move |db| {
            let (Some(user_a), Some(user_b)) = (user_by_id(db, a)?, user_by_id(db, b)?) else { return Ok(None) };
            let mut insert = db.prepare_cached(
                "INSERT INTO Friend (userid, friendid) VALUES (:user, :friend) ON CONFLICT DO NOTHING",
            )?;
            insert.execute(named_params! {":user": a.0, ":friend": b.0})?;
            insert.execute(named_params! {":user": b.0, ":friend": a.0})?;
            Ok(Some(FriendNames { a: user_a.name, b: user_b.name }))
        })
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.live.change(move |db| {
            db.prepare_cached("DELETE FROM Friend WHERE userid = :user AND friendid = :friend")?
                .execute(named_params! {":user": from.0, ":friend": to.0})
                .map(drop)
        })
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached(
                "SELECT User.id, User.name FROM Friend JOIN User ON User.id = Friend.friendid
                 WHERE Friend.userid = :user ORDER BY Friend.friendid",
            )?
            .query_map(named_params! {":user": user.0}, user_row)?
            .collect()
        })
    }

    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError> {
        let (name, name_key, description) = (name.to_owned(), fold(name), description.to_owned());
        let (live, ids) = self.live.live()?;
        let ids = ids.clone();
        live.change(move |db| {
            db.prepare_cached(
                "INSERT INTO AllGroup (groupname, name_key, groupdesc) VALUES (:name, :name_key, :description)",
            )?
            .execute(named_params! {":name": name, ":name_key": name_key, ":description": description})?;
            let group = GroupId(new_id(db)?);
            ids.note(IdKind::Group, group.0)?;
            add_member(db, group, owner, "creator")?;
            Ok(group)
        })
    }

    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError> {
        let join = move |db: &Connection, add: bool| {
            let Some(found) = group_by_id(db, group)? else { return Ok(Joined::NoSuchGroup) };
            if is_member(db, group, user)? {
                return Ok(Joined::Already(found.name));
            }
            let members: i64 = db
                .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT :max)")?
                .query_row(named_params! {":group": group.0, ":max": limit(members_max)}, |row| row.get(0))?;
            if members >= limit(members_max) {
                return Ok(Joined::Full);
            }
            if add {
                add_member(db, group, user, "normal")?;
            }
            Ok(Joined::New(found.name))
        };
        // A call that changes nothing does not wait for a write.
        match self.live.read(|db| join(db, false))? {
            Joined::New(_) => self.live.change(move |db| join(db, true)),
            unchanged => Ok(unchanged),
        }
    }

    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        self.live.read(move |db| {
            if is_member(db, group, user)? {
                return Ok(Membership::Member);
            }
            let has_members = db
                .prepare_cached("SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT 1")?
                .exists(named_params! {":group": group.0})?;
            Ok(if has_members { Membership::Stranger } else { Membership::NoSuchGroup })
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached(
                "SELECT AllGroup.id, groupname, groupdesc FROM GroupUser JOIN AllGroup ON AllGroup.id = GroupUser.groupid
                 WHERE GroupUser.userid = :user ORDER BY GroupUser.groupid",
            )?
            .query_map(named_params! {":user": user.0}, group_row)?
            .collect()
        })
    }

    fn is_in_groups(&self, user: UserId, count: usize) -> Result<bool, StoreError> {
        let count = limit(count);
        let statement = "SELECT count(*) FROM (
            SELECT 1 FROM GroupUser JOIN AllGroup ON AllGroup.id = groupid WHERE userid = :user LIMIT :count)";
        self.live.read(move |db| {
            let groups: i64 = db
                .prepare_cached(statement)?
                .query_row(named_params! {":user": user.0, ":count": count}, |row| row.get(0))?;
            Ok(groups >= count)
        })
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.live.read(move |db| group_by_id(db, group))
    }

    fn groups_after(&self, after: GroupId, limit: usize) -> Result<Vec<(Group, u64)>, StoreError> {
        let limit = super::rows::limit(limit);
        self.live.read(move |db| {
            db.prepare_cached(
                "SELECT id, groupname, groupdesc, (SELECT count(*) FROM GroupUser WHERE groupid = AllGroup.id) AS members
                 FROM AllGroup WHERE id > :after ORDER BY id LIMIT :limit",
            )?
            .query_map(named_params! {":after": after.0, ":limit": limit}, |row| {
                Ok((group_row(row)?, u64::try_from(row.get::<_, i64>("members")?).unwrap_or_default()))
            })?
            .collect()
        })
    }

    fn groups_named(&self, text: &str, max: usize) -> Result<Vec<Group>, StoreError> {
        let text = fold(text);
        self.live.read(move |db| {
            let (begun, mut found, mut after) = (Instant::now(), Vec::new(), i64::MIN);
            let mut page = db.prepare_cached(
                "SELECT max(id) FROM (SELECT id FROM AllGroup WHERE id > :after ORDER BY id LIMIT :page)",
            )?;
            // Not LIKE, which has wildcards. Folded text contains no NUL, at which some of SQLite's
            // text functions stop.
            let mut search = db.prepare_cached(
                "SELECT id, groupname, groupdesc FROM AllGroup
                 WHERE id > :after AND id <= :last AND instr(name_key, :text) > 0 ORDER BY id LIMIT :limit",
            )?;
            while found.len() < max && begun.elapsed() < SEARCH_TIME {
                let last: Option<i64> =
                    page.query_row(named_params! {":after": after, ":page": limit(SEARCH_PAGE)}, |row| row.get(0))?;
                let Some(last) = last else { break };
                let limit = limit(max - found.len());
                let rows = named_params! {":after": after, ":last": last, ":text": text, ":limit": limit};
                for group in search.query_map(rows, group_row)? {
                    found.push(group?);
                }
                after = last;
            }
            Ok(found)
        })
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.live.read(move |db| {
            db.prepare_cached("SELECT userid FROM GroupUser WHERE groupid = :group ORDER BY userid")?
                .query_map(named_params! {":group": group.0}, |row| Ok(UserId(row.get("userid")?)))?
                .collect()
        })
    }
}

fn group_by_id(db: &Connection, group: GroupId) -> rusqlite::Result<Option<Group>> {
    db.prepare_cached("SELECT id, groupname, groupdesc FROM AllGroup WHERE id = :id")?
        .query_row(named_params! {":id": group.0}, group_row)
        .optional()
}

fn is_member(db: &Connection, group: GroupId, user: UserId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM GroupUser WHERE groupid = :group AND userid = :user")?
        .exists(named_params! {":group": group.0, ":user": user.0})
}

pub(super) fn add_member(db: &Connection, group: GroupId, user: UserId, role: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO GroupUser (groupid, userid, grouprole, since) VALUES (:group, :user, :role, :since)
         ON CONFLICT DO NOTHING",
    )?
    .execute(named_params! {":group": group.0, ":user": user.0, ":role": role, ":since": now()})
    .map(drop)
}

fn group_row(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group { id: GroupId(row.get("id")?), name: row.get("groupname")?, description: row.get("groupdesc")? })
}
