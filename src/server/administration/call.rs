//! [`Call`]: a request to the administration with a known path; and the building blocks of answers.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use net::LoopWatch;
use serde_json::{Map, Value};

use super::announcement::Announcements;
use crate::base::trace::Tracer;
use crate::delivery::Posted;
use crate::operation::admin::api::{ApiAnswer, ApiCall};
use crate::operation::health::Health;
use crate::operation::logging::LogControl;
use crate::operation::reload::Reloader;
use crate::routing::recorder::Recorder;
use crate::routing::router::Router;
use crate::server::jobs::Jobs;
use crate::store::StoreError;
use crate::store::spool::Spool;

/// The parts that answers are made from. References to parts that end with the server are weak,
/// because the admin port ends later.
pub struct AdministrationParts {
    /// The work on the database.
    pub jobs: Weak<Jobs>,
    /// The parts of this node; `None` without a running node.
    pub node: Option<NodeParts>,
}

/// The parts of a running node.
pub struct NodeParts {
    /// The users and their connections.
    pub router: Weak<Router>,
    /// Commits messages, if the tables have conversations.
    pub recorder: Option<Weak<Recorder>>,
    /// The event loops.
    pub loops: Arc<[LoopWatch<Posted>]>,
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub health: Arc<Health>,
    /// The control of the log's levels.
    pub log: LogControl,
    /// Reloads the settings.
    pub reloader: Reloader,
    /// The current or the last announcement.
    pub announcements: Announcements,
    /// The parts for queries about messages and users.
    pub trace: TraceParts,
}

/// The parts that [`trace`](super::trace) and [`explain`](super::explain) use.
pub struct TraceParts {
    /// The tracer of messages on this node.
    pub tracer: Arc<Tracer>,
    /// The messages that wait for the database.
    pub spool: Weak<dyn Spool>,
    /// The admin ports of the cluster.
    pub nodes: Vec<SocketAddr>,
    /// A random text by which this node recognises itself.
    pub instance: String,
}

/// An answer; the second one if the request is refused.
pub(super) type Answered = Result<ApiAnswer, ApiAnswer>;

/// A request and the numbers in its path.
pub(super) struct Call<'a> {
    pub(super) request: &'a ApiCall,
    pub(super) ids: Vec<i32>,
}

impl AdministrationParts {
    pub(super) fn node(&self) -> Result<&NodeParts, ApiAnswer> {
        self.node.as_ref().ok_or_else(|| ApiAnswer::refused(501, NO_NODE))
    }

    pub(super) fn router(&self) -> Result<Arc<Router>, ApiAnswer> {
        self.node()?.router.upgrade().ok_or_else(stopping)
    }

    pub(super) fn jobs(&self) -> Result<Arc<Jobs>, ApiAnswer> {
        self.jobs.upgrade().ok_or_else(stopping)
    }
}

const NO_NODE: &str = "this is about a server that runs: leave --offline out, and ask the server";

pub(super) fn stopping() -> ApiAnswer {
    ApiAnswer::refused(503, "the server stops")
}

/// The answer to a request for which the database has failed.
pub(super) fn of_store(error: &StoreError) -> ApiAnswer {
    match error {
        StoreError::NameTaken => ApiAnswer::refused(409, "another user has this name"),
        StoreError::Unavailable(_) => {
            ApiAnswer { retry_after: Some(5), ..ApiAnswer::refused(503, format!("{error}, try again")) }
        }
        StoreError::Failed(_) => ApiAnswer::refused(500, error.to_string()),
    }
}

impl Call<'_> {
    /// The nth number of the path.
    pub(super) fn id(&self, nth: usize) -> i32 {
        self.ids.get(nth).copied().unwrap_or_default()
    }

    /// The members of the body, all of them known.
    pub(super) fn body(&self, known: &[&str]) -> Result<BodyFields<'_>, ApiAnswer> {
        let empty = || BodyFields(None);
        let fields = match &self.request.body {
            Value::Null => empty(),
            Value::Object(members) => BodyFields(Some(members)),
            _ => return Err(ApiAnswer::refused(400, "the body must be a JSON object")),
        };
        let unknown = fields.0.into_iter().flat_map(Map::keys).find(|name| !known.contains(&name.as_str()));
        match unknown {
            Some(name) if known.is_empty() => {
                Err(ApiAnswer::refused(400, format!("{name:?} is one too many: the body has no members")))
            }
            Some(name) => Err(ApiAnswer::refused(400, format!("{name:?} is not known, only {}", known.join(", ")))),
            None => Ok(fields),
        }
    }

    /// A parameter of the query. Every parameter must be known, and occur only once.
    pub(super) fn query(&self, known: &[&str], wanted: &str) -> Result<Option<&str>, ApiAnswer> {
        let mut found = None;
        for (at, (name, value)) in self.request.query.iter().enumerate() {
            if known.is_empty() {
                return Err(ApiAnswer::refused(400, format!("parameter {name:?} is one too many: there are none")));
            }
            if !known.contains(&name.as_str()) {
                return Err(ApiAnswer::refused(
                    400,
                    format!("parameter {name:?} is not known, only {}", known.join(", ")),
                ));
            }
            if self.request.query[..at].iter().any(|(other, _)| other == name) {
                return Err(ApiAnswer::refused(400, format!("parameter {name:?} comes twice")));
            }
            found = (name == wanted).then_some(value.as_str()).or(found);
        }
        Ok(found)
    }

    /// A number of the query, not negative and possibly large.
    pub(super) fn long(&self, known: &[&str], wanted: &str) -> Result<Option<i64>, ApiAnswer> {
        let Some(text) = self.query(known, wanted)? else { return Ok(None) };
        let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .map(Some)
            .ok_or_else(|| ApiAnswer::refused(400, format!("{wanted} must be a number from 0 to {}", i64::MAX)))
    }

    /// A number of the query within these bounds.
    pub(super) fn number(
        &self,
        known: &[&str],
        wanted: &str,
        (min, max): (i32, i32),
    ) -> Result<Option<i32>, ApiAnswer> {
        let Some(text) = self.query(known, wanted)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        let number = number.filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .map(Some)
            .ok_or_else(|| ApiAnswer::refused(400, format!("{wanted} must be a number from {min} to {max}")))
    }
}

/// The members of a body.
pub(super) struct BodyFields<'a>(Option<&'a Map<String, Value>>);

impl<'a> BodyFields<'a> {
    fn member(&self, name: &str) -> Option<&'a Value> {
        self.0?.get(name)
    }

    /// The text with this name, if any.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiAnswer> {
        match self.member(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiAnswer::refused(400, format!("{name} must be a text"))),
        }
    }

    /// The text with this name, of this number of characters.
    pub(super) fn text_of(&self, name: &str, (min, max): (usize, usize)) -> Result<Option<&'a str>, ApiAnswer> {
        let text = self.text(name)?;
        match text {
            Some(text) if !(min..=max).contains(&text.chars().count()) => {
                Err(ApiAnswer::refused(400, format!("{name} must have {min} to {max} characters")))
            }
            text => Ok(text),
        }
    }

    /// The boolean with this name, if any.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiAnswer> {
        match self.member(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(ApiAnswer::refused(400, format!("{name} must be true or false"))),
        }
    }

    /// The id of a user or a group with this name, if any.
    pub(super) fn id(&self, name: &str) -> Result<Option<i32>, ApiAnswer> {
        let Some(value) = self.member(name) else { return Ok(None) };
        // 7.0 is the same number as 7.
        let whole = || value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64);
        let id = value.as_i64().or_else(whole).and_then(|id| i32::try_from(id).ok()).filter(|id| *id > 0);
        id.map(Some).ok_or_else(|| ApiAnswer::refused(400, format!("{name} must be an id, from 1 to 2147483647")))
    }
}
