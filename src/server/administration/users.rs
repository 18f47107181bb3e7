//! Users: their list, and changes of their accounts. Changes take effect on every node.

use serde_json::{Value, json};

use super::call::{AdministrationParts, Answered, Call, of_store};
use crate::base::rows::AccountState;
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::UserId;
use crate::server::jobs::{Jobs, Ordered};
use crate::session::{NAME_MAX, PASSWORD_MAX};
use crate::store::{StoreError, User};

pub(super) fn list(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let after = call.number(KNOWN, "after", (1, i32::MAX))?.unwrap_or(0);
    let limit = call.number(KNOWN, "limit", (1, LIMIT_MAX))?.unwrap_or(LIMIT_DEFAULT) as usize;
    let name = call.query(KNOWN, "name")?;
    let jobs = parts.jobs()?;
    let accounts = jobs.logins.store.get().map_err(|error| of_store(&error))?;
    if let Some(name) = name {
        let found = accounts.user_named(name).map_err(|error| of_store(&error))?;
        let found = found.map(|user| line(&jobs, &user)).transpose().map_err(|error| of_store(&error))?;
        return Ok(ApiAnswer::done(json!({"more": false, "users": found.into_iter().collect::<Vec<_>>()})));
    }
    // One more account shows whether there are more.
    let mut users = accounts.accounts_after(UserId(after), limit + 1).map_err(|error| of_store(&error))?;
    let more = users.len() > limit;
    users.truncate(limit);
    let users: Vec<_> = users.iter().map(|(user, state)| shown(user, *state)).collect();
    Ok(ApiAnswer::done(json!({"more": more, "users": users})))
}

pub(super) fn show(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    let (jobs, id) = (parts.jobs()?, UserId(call.id(0)));
    let found = || -> Result<Option<Value>, StoreError> {
        let Some(user) = jobs.logins.store.get()?.user(id)? else { return Ok(None) };
        let mut line = line(&jobs, &user)?;
        line["devices"] = jobs
            .arrangements
            .devices_of(id)?
            .into_iter()
            .map(|(name, seen)| json!({"device": name, "seen": seen}))
            .collect();
        Ok(Some(line))
    };
    let Some(mut line) = found().map_err(|error| of_store(&error))? else { return Err(no_such_user()) };
    if parts.node.is_some() {
        let mut connections = 0;
        parts.router()?.attendance().visit(Some(id), |_| connections += 1);
        line["connections"] = json!(connections);
    }
    Ok(ApiAnswer::done(line))
}

fn line(jobs: &Jobs, user: &User) -> Result<Value, StoreError> {
    let stored = jobs.logins.store.get()?.credential(user.id)?;
    Ok(shown(user, stored.map(|stored| AccountState::of(&stored)).unwrap_or_default()))
}

fn shown(user: &User, state: AccountState) -> Value {
    json!({"disabled": state.is_disabled, "id": user.id.0, "jwt": state.is_made_by_jwt, "name": user.name})
}

pub(super) fn create(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let body = call.body(&["name", "password"])?;
    let Some(name) = body.text_of("name", (1, NAME_MAX))? else {
        return Err(ApiAnswer::refused(400, "name, of at most 50 characters, is needed"));
    };
    let (password, is_new) = password(body.text_of("password", (1, PASSWORD_MAX))?)?;
    let jobs = parts.jobs()?;
    let user = jobs.logins.make(name, &password).map_err(|error| of_store(&error))?;
    Ok(ApiAnswer::done(json!({"id": user.0, "name": name, "password": is_new.then_some(password)})))
}

pub(super) fn set_password(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let (password, is_new) = password(call.body(&["password"])?.text_of("password", (1, PASSWORD_MAX))?)?;
    ordered(parts.jobs()?.arrangements.set_password(UserId(call.id(0)), &password))?;
    Ok(ApiAnswer::done(json!({"password": is_new.then_some(password)})))
}

pub(super) fn log_out(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.body(&[])?;
    let devices = ordered(parts.jobs()?.arrangements.log_out_everywhere(UserId(call.id(0))))?;
    Ok(ApiAnswer::done(json!({"forgotten_devices": devices})))
}

pub(super) fn disable(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    set_disabled(parts, call, true)
}

pub(super) fn enable(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    set_disabled(parts, call, false)
}

fn set_disabled(parts: &AdministrationParts, call: &Call<'_>, is_to_be: bool) -> Answered {
    call.body(&[])?;
    let is_changed = ordered(parts.jobs()?.arrangements.set_disabled(UserId(call.id(0)), is_to_be))?;
    Ok(ApiAnswer::done(json!({"changed": is_changed, "disabled": is_to_be})))
}

pub(super) fn delete(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.body(&[])?;
    ordered(parts.jobs()?.arrangements.delete(UserId(call.id(0))))?;
    Ok(ApiAnswer::done(json!({"deleted": true})))
}

pub(super) fn make_token(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let device = device(call)?;
    match ordered(parts.jobs()?.arrangements.lasting_token(UserId(call.id(0)), device))? {
        Some(token) => Ok(ApiAnswer::done(json!({"device": device, "token": token}))),
        None => Err(ApiAnswer::refused(409, "the account is disabled, or its password was changed just now")),
    }
}

pub(super) fn revoke_tokens(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let device = device(call)?;
    let was_there = ordered(parts.jobs()?.arrangements.log_out_device(UserId(call.id(0)), device))?;
    Ok(ApiAnswer::done(json!({"device": device, "revoked": was_there})))
}

/// The name of a device in the body.
fn device<'c>(call: &'c Call<'_>) -> Result<&'c str, ApiAnswer> {
    let device = call.body(&["device"])?.text_of("device", (1, DEVICE_MAX))?;
    device
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| ApiAnswer::refused(400, "device must have 1 to 64 printable ASCII characters without blanks"))
}

/// The result of the order, or an answer with the reason why it is not carried out.
fn ordered<T>(outcome: Result<Ordered<T>, StoreError>) -> Result<T, ApiAnswer> {
    match outcome {
        Ok(Ordered::Done(done)) => Ok(done),
        Ok(Ordered::NoSuchUser) => Err(no_such_user()),
        Ok(Ordered::NotThere) => Err(ApiAnswer::refused(501, NOT_THERE)),
        Ok(Ordered::MadeByJwt) => Err(ApiAnswer::refused(409, MADE_BY_JWT)),
        Err(error) => Err(of_store(&error)),
    }
}

fn no_such_user() -> ApiAnswer {
    ApiAnswer::refused(404, "there is no such user")
}

/// The given password or a new one, and whether it is new.
fn password(given: Option<&str>) -> Result<(String, bool), ApiAnswer> {
    if let Some(given) = given {
        return Ok((given.to_owned(), false));
    }
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| ApiAnswer::refused(500, error.to_string()))?;
    Ok((random.iter().map(|byte| format!("{byte:02x}")).collect(), true))
}

const KNOWN: &[&str] = &["after", "limit", "name"];
const LIMIT_DEFAULT: i32 = 100;
const LIMIT_MAX: i32 = 1000;
const DEVICE_MAX: usize = 64;
const MADE_BY_JWT: &str = "a JWT has made this account, so its user needs no password, and sets one with a fresh JWT; log \
                           the user out, or disable the account, and change the identity provider";
pub(super) const NOT_THERE: &str =
    "the tables of the database lack what this needs, or history=off: run server migrate, and start the server again";
