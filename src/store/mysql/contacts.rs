//! Friends and groups: the tables `Friend`, `AllGroup` and `GroupUser`.

use std::collections::HashMap;
use std::time::Instant;

use mysql::prelude::Queryable;
use mysql::{Conn, Row, params};
use rustc_hash::FxHashSet;

use super::MysqlStore;
use super::calls::{CallAttempt, Repeat};
use super::conversations::script::list;
use super::rows::{collect, column, ids_of, new_id, text, user_row};
use crate::base::collation::fold;
use crate::protocol::{GroupId, UserId};
use crate::store::{Contacts, FriendNames, Group, Joined, Membership, SEARCH_PAGE, SEARCH_TIME, StoreError, User};

impl Contacts for MysqlStore {
    fn add_friends(&self, a: UserId, b: UserId) -> Result<Option<FriendNames>, StoreError> {
        self.base.calls.call(|db, _| {
            let rows = db.exec("SELECT id, name FROM User WHERE id IN (:a, :b)", params! {"a" => a.0, "b" => b.0})?;
            let users = collect(rows, user_row)?;
            let name_of = |id| users.iter().find(|user| user.id == id).map(|user| user.name.clone());
            let (Some(name_a), Some(name_b)) = (name_of(a), name_of(b)) else { return Ok(None) };
            let (first, second) = (a.min(b).0, a.max(b).0);
            db.exec_drop(
                "INSERT INTO Friend (userid, friendid) VALUES (:first, :second), (:second, :first)
                 ON DUPLICATE KEY UPDATE friendid = friendid",
                params! {first, second},
            )?;
            Ok(Some(FriendNames { a: name_a, b: name_b }))
        })
    }

    fn remove_friend(&self, from: UserId, to: UserId) -> Result<(), StoreError> {
        self.base.calls.call(|db, _| {
            db.exec_drop(
                "DELETE FROM Friend WHERE userid = :user AND friendid = :friend",
                params! {"user" => from.0, "friend" => to.0},
            )
        })
    }

    fn friends(&self, user: UserId) -> Result<Vec<User>, StoreError> {
        self.base.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT User.id AS id, User.name AS name FROM Friend JOIN User ON User.id = Friend.friendid
                 WHERE Friend.userid = :user ORDER BY Friend.friendid",
                params! {"user" => user.0},
            )?;
            collect(rows, user_row)
        })
    }

    fn create_group(&self, owner: UserId, name: &str, description: &str) -> Result<GroupId, StoreError> {
        self.base.calls.transaction(Repeat::IfUndone, |db| {
            if self.base.schema.has_name_keys {
                let key = fold(name);
                db.exec_drop(
                    "INSERT INTO AllGroup (groupname, name_key, groupdesc) VALUES (:name, :key, :description)",
                    params! {name, key, description},
                )?;
            } else {
                db.exec_drop(
                    "INSERT INTO AllGroup (groupname, groupdesc) VALUES (:name, :description)",
                    params! {name, description},
                )?;
            }
            let group = new_id(db.last_insert_id().unwrap_or_default())?;
            db.exec_drop(
                "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (:group, :user, 'creator')",
                params! {group, "user" => owner.0},
            )?;
            Ok(GroupId(group))
        })
    }

    fn join_group(&self, user: UserId, group: GroupId, members_max: usize) -> Result<Joined, StoreError> {
        let max = i64::try_from(members_max).unwrap_or(i64::MAX);
        self.base.calls.call(|db, attempt| {
            let row = db.exec_first("SELECT groupname FROM AllGroup WHERE id = :id", params! {"id" => group.0})?;
            let Some(mut row): Option<Row> = row else { return Ok(Joined::NoSuchGroup) };
            let name = text(&mut row, "groupname")?;
            if is_member(db, group, user)? {
                // The answer to the insert may have been lost.
                return Ok(if attempt == CallAttempt::Again { Joined::New(name) } else { Joined::Already(name) });
            }
            let members: Option<Row> = db.exec_first(
                "SELECT COUNT(*) AS members FROM (SELECT 1 FROM GroupUser WHERE groupid = :group LIMIT :max) AS some",
                params! {"group" => group.0, max},
            )?;
            let members = members.map(|mut row| column::<i64>(&mut row, "members")).transpose()?;
            if members.is_some_and(|members| members >= max) {
                return Ok(Joined::Full);
            }
            db.exec_drop(
                "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (:group, :user, 'normal')
                 ON DUPLICATE KEY UPDATE userid = userid",
                params! {"group" => group.0, "user" => user.0},
            )?;
            Ok(Joined::New(name))
        })
    }

    fn membership(&self, user: UserId, group: GroupId) -> Result<Membership, StoreError> {
        self.base.calls.call(|db, _| {
            if is_member(db, group, user)? {
                return Ok(Membership::Member);
            }
            let statement = "SELECT userid AS id FROM GroupUser WHERE groupid = :group LIMIT 1";
            let any: Option<Row> = db.exec_first(statement, params! {"group" => group.0})?;
            Ok(if any.is_some() { Membership::Stranger } else { Membership::NoSuchGroup })
        })
    }

    fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        self.base.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT AllGroup.id AS id, groupname, groupdesc
                 FROM GroupUser JOIN AllGroup ON AllGroup.id = GroupUser.groupid
                 WHERE GroupUser.userid = :user ORDER BY GroupUser.groupid",
                params! {"user" => user.0},
            )?;
            collect(rows, group_row)
        })
    }

    fn is_in_groups(&self, user: UserId, count: usize) -> Result<bool, StoreError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        // A C++ server may leave the members of a group that is gone.
        let statement = "SELECT COUNT(*) AS found FROM (
            SELECT 1 FROM GroupUser JOIN AllGroup ON AllGroup.id = groupid WHERE userid = :user LIMIT :count) AS some";
        self.base.calls.call(|db, _| {
            let row: Option<Row> = db.exec_first(statement, params! {"user" => user.0, count})?;
            let found = row.map(|mut row| column::<i64>(&mut row, "found")).transpose()?;
            Ok(found.is_some_and(|found| found >= count))
        })
    }

    fn group(&self, group: GroupId) -> Result<Option<Group>, StoreError> {
        self.base.calls.call(|db, _| {
            let statement = "SELECT id, groupname, groupdesc FROM AllGroup WHERE id = :id";
            let row = db.exec_first(statement, params! {"id" => group.0})?;
            row.map(|mut row: Row| group_row(&mut row)).transpose()
        })
    }

    fn groups_after(&self, after: GroupId, limit: usize) -> Result<Vec<(Group, u64)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.base.calls.call(|db, _| {
            let rows = db.exec(
                "SELECT id, groupname, groupdesc, (SELECT COUNT(*) FROM GroupUser WHERE groupid = AllGroup.id) AS members
                 FROM AllGroup WHERE id > :after ORDER BY id LIMIT :limit",
                params! {"after" => after.0, limit},
            )?;
            collect(rows, |row| {
                let members: i64 = column(row, "members")?;
                Ok((group_row(row)?, u64::try_from(members).unwrap_or_default()))
            })
        })
    }

    fn groups_named(&self, text: &str, limit: usize) -> Result<Vec<Group>, StoreError> {
        let (condition, text) = if self.base.schema.has_name_keys {
            self.fill_name_keys()?;
            ("INSTR(name_key, :text) > 0", fold(text))
        } else {
            let escaped = text.replace('!', "!!").replace('%', "!%").replace('_', "!_");
            ("groupname LIKE :text ESCAPE '!'", format!("%{escaped}%"))
        };
        let page = format!(
            "SELECT MAX(id) AS last FROM
             (SELECT id FROM AllGroup WHERE id > :after ORDER BY id LIMIT {SEARCH_PAGE}) AS page"
        );
        let search = format!(
            "SELECT id, groupname, groupdesc FROM AllGroup
             WHERE id > :after AND id <= :last AND {condition} ORDER BY id LIMIT :limit"
        );
        self.base.calls.call(|db, _| {
            let (begun, mut found, mut after) = (Instant::now(), Vec::new(), i64::MIN);
            while found.len() < limit && begun.elapsed() < SEARCH_TIME {
                let last: Option<Row> = db.exec_first(&page, params! {after})?;
                let last = last.map(|mut row| column::<Option<i64>>(&mut row, "last")).transpose()?;
                let Some(last) = last.flatten() else { break };
                let limit = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
                found.extend(collect(db.exec(&search, params! {after, last, "text" => &text, limit})?, group_row)?);
                after = last;
            }
            Ok(found)
        })
    }

    fn members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        self.base.calls.call(|db, _| {
            let statement = "SELECT userid AS id FROM GroupUser WHERE groupid = :group ORDER BY userid";
            ids_of(db.exec(statement, params! {"group" => group.0})?)
        })
    }

    /// Needs one statement for each [`USERS_AT_ONCE`] users, which reads their rows by an index. It
    /// names the groups only while they are few.
    fn memberships(&self, groups: &[GroupId], users: &[UserId]) -> Result<Vec<(GroupId, UserId)>, StoreError> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: FxHashSet<GroupId> = groups.iter().copied().collect();
        let few =
            if groups.len() <= GROUPS_AT_ONCE { format!("AND groupid IN ({})", list(groups)) } else { String::new() };
        let mut found = Vec::new();
        for some in users.chunks(USERS_AT_ONCE) {
            let statement = format!("SELECT groupid, userid FROM GroupUser WHERE userid IN ({}) {few}", list(some));
            let rows: Vec<(i32, i32)> = self.base.calls.call(|db, _| db.query(&statement))?;
            let rows = rows.into_iter().map(|(group, user)| (GroupId(group), UserId(user)));
            found.extend(rows.filter(|(group, _)| wanted.contains(group)));
        }
        Ok(found)
    }

    /// Needs one statement for each [`GROUPS_AT_ONCE`] groups.
    fn members_of_each(&self, groups: &[GroupId]) -> Result<Vec<Vec<UserId>>, StoreError> {
        let mut members: HashMap<GroupId, Vec<UserId>> = HashMap::with_capacity(groups.len());
        for some in groups.chunks(GROUPS_AT_ONCE) {
            let ids: Vec<String> = some.iter().map(ToString::to_string).collect();
            let statement = format!(
                "SELECT groupid, userid FROM GroupUser WHERE groupid IN ({}) ORDER BY groupid, userid",
                ids.join(",")
            );
            let rows = self.base.calls.call(|db, _| {
                let rows: Vec<Row> = db.query(&statement)?;
                collect(rows, |row| Ok((GroupId(column(row, "groupid")?), UserId(column(row, "userid")?))))
            })?;
            rows.into_iter().for_each(|(group, user)| members.entry(group).or_default().push(user));
        }
        Ok(groups.iter().map(|group| members.remove(group).unwrap_or_default()).collect())
    }
}

/// The most groups of one statement.
const GROUPS_AT_ONCE: usize = 256;
/// The most users of one statement.
const USERS_AT_ONCE: usize = 512;

impl MysqlStore {
    /// Fills in the folded names of groups that another program has created. Usually there are
    /// none, and the check costs one look-up in an index.
    fn fill_name_keys(&self) -> Result<(), StoreError> {
        loop {
            let unfilled = self.base.calls.call(|db, _| {
                let rows = db.exec("SELECT id, groupname FROM AllGroup WHERE name_key IS NULL LIMIT 500", ())?;
                collect(rows, |row| Ok((column::<i32>(row, "id")?, text(row, "groupname")?)))
            })?;
            if unfilled.is_empty() {
                return Ok(());
            }
            self.base.calls.transaction(Repeat::Freely, |db| {
                for (id, name) in &unfilled {
                    let key = fold(name);
                    db.exec_drop("UPDATE AllGroup SET name_key = :key WHERE id = :id", params! {key, id})?;
                }
                Ok(())
            })?;
        }
    }
}

fn is_member(db: &mut Conn, group: GroupId, user: UserId) -> mysql::Result<bool> {
    let statement = "SELECT userid AS id FROM GroupUser WHERE groupid = :group AND userid = :user";
    let row: Option<Row> = db.exec_first(statement, params! {"group" => group.0, "user" => user.0})?;
    Ok(row.is_some())
}

fn group_row(row: &mut Row) -> mysql::Result<Group> {
    Ok(Group { id: GroupId(column(row, "id")?), name: text(row, "groupname")?, description: text(row, "groupdesc")? })
}
