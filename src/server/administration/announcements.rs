//! Announcements, in administrators' requests.

use serde_json::json;

use super::announcement::{AnnouncementOrder, NotBegun, Senders, first_order};
use super::call::{AdministrationParts, Answered, Call, of_store, stopping};
use super::users::NOT_THERE;
use crate::base::disabled::is_disabled;
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::UserId;
use crate::routing::recorder::Recorder;

pub(super) fn show(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    Ok(ApiAnswer::done(json!({"announcement": parts.node()?.announcements.shown()})))
}

pub(super) fn start(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let body = call.body(&["from", "text", "away", "id"])?;
    let (from, text) = (body.id("from")?, body.text_of("text", (1, TEXT_MAX))?);
    let (Some(from), Some(text)) = (from.map(UserId), text) else {
        return Err(ApiAnswer::refused(400, "from, the id of a user, and text are needed"));
    };
    let to_away = body.flag("away")?.unwrap_or(false);
    let id = match body.text_of("id", (1, ID_MAX))? {
        Some(id) if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) => id.to_owned(),
        Some(_) => return Err(ApiAnswer::refused(400, "id may have letters, digits, - and _ only")),
        None => format!("{:016x}", getrandom::u64().map_err(|error| ApiAnswer::refused(500, error.to_string()))?),
    };
    let node = parts.node()?;
    let Some(recorder) = node.recorder.clone() else { return Err(ApiAnswer::refused(501, NOT_THERE)) };
    let stored = parts.jobs()?.logins.store.get().and_then(|accounts| match accounts.user(from)? {
        Some(_) => accounts.credential(from),
        None => Ok(None),
    });
    let Some(stored) = stored.map_err(|error| of_store(&error))? else {
        return Err(ApiAnswer::refused(404, "there is no such user as from names"));
    };
    let first = first_time(&*recorder.upgrade().ok_or_else(stopping)?, from, &id, text)?;
    let order =
        AnnouncementOrder { id, from, text: text.to_owned(), to_away, was_disabled: is_disabled(&stored), first };
    let (jobs, router, health) = (parts.jobs.clone(), node.router.clone(), node.health.clone());
    match node.announcements.begin(order, Senders { jobs, router, recorder, health }) {
        Ok(shown) => Ok(ApiAnswer::done(json!({"announcement": shown}))),
        Err(NotBegun::Another) => {
            Err(ApiAnswer::refused(409, "another announcement is under way: wait for its end, or stop it"))
        }
        Err(NotBegun::NoThread(error)) => {
            Err(ApiAnswer::refused(503, format!("the system has no threads left: {error}")))
        }
    }
}

/// When this was ordered for the first time, if it was.
fn first_time(recorder: &Recorder, from: UserId, id: &str, text: &str) -> Result<Option<u64>, ApiAnswer> {
    let history = recorder.history().get().map_err(|error| of_store(&error))?;
    let history = history.ok_or_else(|| ApiAnswer::refused(501, NOT_THERE))?;
    match first_order(history, from, id).map_err(|error| of_store(&error))? {
        None => Ok(None),
        Some((Some(first), time)) if first == text => Ok(Some(time)),
        Some(_) => Err(ApiAnswer::refused(409, OTHER_TEXT)),
    }
}

pub(super) fn stop(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.body(&[])?;
    Ok(ApiAnswer::done(json!({"stopped": parts.node()?.announcements.stop()})))
}

const OTHER_TEXT: &str = "this id was used for another text: send the same text, or take another id";
/// The most characters of a text.
const TEXT_MAX: usize = 1000;
/// The most characters of an id. The id and a user's id form the `cid` of a message.
const ID_MAX: usize = 40;
