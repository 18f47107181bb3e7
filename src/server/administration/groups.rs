//! Groups: their list, and changes that their creators could make. The event that members see names
//! the creator, or a member if there is no creator.

use serde_json::{Value, json};

use super::call::{AdministrationParts, Answered, Call, of_store};
use super::users::NOT_THERE;
use crate::base::rows::Group;
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::{GroupId, UserId};
use crate::server::jobs::{GroupOrder, Ordered};
use crate::store::StoreError;
use crate::store::community::{GroupRefusal, GroupRole};

pub(super) fn list(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let after = call.number(KNOWN, "after", (1, i32::MAX))?.unwrap_or(0);
    let limit = call.number(KNOWN, "limit", (1, LIMIT_MAX))?.unwrap_or(LIMIT_DEFAULT) as usize;
    let jobs = parts.jobs()?;
    let read = || jobs.directory.contacts.get()?.groups_after(GroupId(after), limit + 1);
    let mut groups = read().map_err(|error| of_store(&error))?;
    let more = groups.len() > limit;
    groups.truncate(limit);
    let groups: Vec<_> = groups.iter().map(|(group, members)| line(group, *members)).collect();
    Ok(ApiAnswer::done(json!({"groups": groups, "more": more})))
}

fn line(group: &Group, members: u64) -> Value {
    json!({"description": group.description, "id": group.id.0, "member_count": members, "name": group.name})
}

pub(super) fn show(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    let (jobs, id) = (parts.jobs()?, GroupId(call.id(0)));
    let read = || -> Result<Option<Value>, StoreError> {
        let contacts = jobs.directory.contacts.get()?;
        let Some(group) = contacts.group(id)? else { return Ok(None) };
        let ids = contacts.members(id)?;
        let known = jobs.arrangements.members_for_order(id, &ids)?;
        let member = |user: &UserId| {
            let known = known.iter().find(|member| member.user == *user);
            let role = known.map(|member| if member.role == GroupRole::Creator { "creator" } else { "normal" });
            json!({"id": user.0, "name": known.and_then(|member| member.name.clone()), "role": role})
        };
        let mut line = line(&group, ids.len() as u64);
        line["members"] = ids.iter().map(member).collect();
        Ok(Some(line))
    };
    let found = read().map_err(|error| of_store(&error))?;
    found.map(ApiAnswer::done).ok_or_else(|| ApiAnswer::refused(404, "there is no such group"))
}

pub(super) fn dissolve(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.body(&[])?;
    order(parts, call, GroupOrder::Dissolve)?;
    Ok(ApiAnswer::done(json!({"dissolved": true})))
}

pub(super) fn remove_member(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.body(&[])?;
    order(parts, call, GroupOrder::Remove(UserId(call.id(1))))?;
    Ok(ApiAnswer::done(json!({"removed": true})))
}

pub(super) fn transfer(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let Some(user) = call.body(&["user"])?.id("user")? else {
        return Err(ApiAnswer::refused(400, "user, the id of a member, is needed"));
    };
    order(parts, call, GroupOrder::Transfer(UserId(user)))?;
    Ok(ApiAnswer::done(json!({"creator": user})))
}

fn order(parts: &AdministrationParts, call: &Call<'_>, order: GroupOrder) -> Result<(), ApiAnswer> {
    let (jobs, id) = (parts.jobs()?, GroupId(call.id(0)));
    let done = || {
        let ids = jobs.directory.contacts.get()?.members(id)?;
        jobs.arrangements.order_group(id, &ids, order)
    };
    match done().map_err(|error| of_store(&error))? {
        Ordered::Done(Ok(())) => Ok(()),
        Ordered::Done(Err(why)) => Err(refused(why)),
        // Only accounts are made so.
        Ordered::MadeByJwt => Err(ApiAnswer::refused(409, "a JWT has made this account")),
        Ordered::NotThere => Err(ApiAnswer::refused(501, NOT_THERE)),
        Ordered::NoSuchUser => Err(refused(GroupRefusal::NoSuchUser)),
    }
}

fn refused(why: GroupRefusal) -> ApiAnswer {
    match why {
        GroupRefusal::NoSuchGroup => ApiAnswer::refused(404, "there is no such group"),
        GroupRefusal::NoSuchUser => ApiAnswer::refused(404, "there is no such user"),
        GroupRefusal::NoSuchMember => ApiAnswer::refused(404, "this user is not a member"),
        GroupRefusal::Yourself => {
            ApiAnswer::refused(409, "this is the creator: transfer the group first, or dissolve it")
        }
        GroupRefusal::NotMember | GroupRefusal::NotCreator | GroupRefusal::Banned | GroupRefusal::Full => {
            ApiAnswer::refused(409, "the group was changed just now: look at it, and try again")
        }
    }
}

const KNOWN: &[&str] = &["after", "limit"];
const LIMIT_DEFAULT: i32 = 100;
const LIMIT_MAX: i32 = 1000;
