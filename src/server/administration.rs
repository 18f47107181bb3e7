//! [`Administration`]: carries out the requests of administrators whose key is right.
//!
//! [`ROUTES`] is the list of all requests; `openapi.json` describes it to clients, and a test
//! compares the two. Each request leaves one line in the audit log, whatever its result. Passwords
//! and tokens are in no line.

mod announcement;
mod announcements;
mod call;
mod connections;
mod explain;
mod groups;
mod node;
mod trace;
mod users;

use std::fmt::Write as _;

use serde_json::Value;

pub use self::announcement::Announcements;
pub use self::call::{AdministrationParts, NodeParts, TraceParts};
use self::call::{Answered, Call, stopping};
use crate::admission::audit;
use crate::operation::admin::api::{Administrator, ApiAnswer, ApiCall};

/// Answers administrators. Any thread may call it, and it may block.
pub struct Administration {
    parts: AdministrationParts,
}

/// One kind of request.
struct Route {
    method: &'static str,
    /// The path, in which `{…}` stands for a number.
    path: &'static str,
    /// Its name in the audit log.
    action: &'static str,
    answer: fn(&AdministrationParts, &Call<'_>) -> Answered,
}

/// All kinds of requests.
static ROUTES: &[Route] = &[
    route("GET", "/v1/openapi.json", "show_api", openapi),
    route("GET", "/v1/node", "show_node", node::show),
    route("POST", "/v1/drain", "drain", node::drain),
    route("POST", "/v1/undrain", "undrain", node::undrain),
    route("GET", "/v1/log-level", "show_log_level", node::log_level),
    route("PUT", "/v1/log-level", "set_log_level", node::set_log_level),
    route("POST", "/v1/reload", "reload", node::reload),
    route("GET", "/v1/connections", "list_connections", connections::list),
    route("POST", "/v1/connections/close", "close_connections", connections::close),
    route("GET", "/v1/announcements", "show_announcement", announcements::show),
    route("POST", "/v1/announcements", "announce", announcements::start),
    route("POST", "/v1/announcements/stop", "stop_announcement", announcements::stop),
    route("GET", "/v1/users", "list_users", users::list),
    route("POST", "/v1/users", "create_user", users::create),
    route("GET", "/v1/users/{id}", "show_user", users::show),
    route("DELETE", "/v1/users/{id}", "delete_user", users::delete),
    route("POST", "/v1/users/{id}/password", "reset_password", users::set_password),
    route("POST", "/v1/users/{id}/logout", "log_out_user", users::log_out),
    route("POST", "/v1/users/{id}/disable", "disable_user", users::disable),
    route("POST", "/v1/users/{id}/enable", "enable_user", users::enable),
    route("POST", "/v1/users/{id}/tokens", "make_token", users::make_token),
    route("POST", "/v1/users/{id}/tokens/revoke", "revoke_tokens", users::revoke_tokens),
    route("GET", "/v1/users/{id}/explain", "explain_user", explain::show),
    route("GET", "/v1/node/users/{id}", "explain_user_here", explain::show_node),
    route("GET", "/v1/trace/cid", "trace", trace::by_cid),
    route("GET", "/v1/trace/conversation", "trace", trace::by_place),
    route("GET", "/v1/trace/level1", "trace", trace::at_level1),
    route("GET", "/v1/node/trace", "trace_here", trace::show_node),
    route("GET", "/v1/tracing", "show_tracing", trace::setting),
    route("PUT", "/v1/tracing", "set_tracing", trace::set),
    route("GET", "/v1/groups", "list_groups", groups::list),
    route("GET", "/v1/groups/{id}", "show_group", groups::show),
    route("DELETE", "/v1/groups/{id}", "dissolve_group", groups::dissolve),
    route("DELETE", "/v1/groups/{id}/members/{user}", "remove_member", groups::remove_member),
    route("POST", "/v1/groups/{id}/transfer", "transfer_group", groups::transfer),
];

const fn route(
    method: &'static str,
    path: &'static str,
    action: &'static str,
    answer: fn(&AdministrationParts, &Call<'_>) -> Answered,
) -> Route {
    Route { method, path, action, answer }
}

impl Administration {
    pub(super) fn new(parts: AdministrationParts) -> Administration {
        Administration { parts }
    }

    /// The name of the request, and the answer.
    fn try_answer(&self, request: &ApiCall) -> (&'static str, ApiAnswer) {
        let known: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, route.ids(&request.path)?))).collect();
        let Some((route, ids)) = known.iter().find(|(route, _)| route.method == request.method) else {
            let methods: Vec<_> = known.iter().map(|(route, _)| route.method).collect();
            return (if methods.is_empty() { UNKNOWN } else { WRONG_METHOD }, no_route(&methods));
        };
        if self.parts.node.as_ref().is_some_and(|node| node.health.is_draining()) {
            return (route.action, stopping());
        }
        // Only queries have parameters. An order with a parameter is probably a mistake.
        if request.method != "GET"
            && let Some((name, _)) = request.query.first()
        {
            let why = format!("parameter {name:?} is one too many: this takes a body, and no parameters");
            return (route.action, ApiAnswer::refused(400, why));
        }
        let call = Call { request, ids: ids.clone() };
        (route.action, (route.answer)(&self.parts, &call).unwrap_or_else(|refusal| refusal))
    }
}

impl Administrator for Administration {
    fn answer(&self, request: &ApiCall) -> ApiAnswer {
        let (action, answer) = self.try_answer(request);
        note(action, request, &answer);
        answer
    }

    fn refused(&self, request: &ApiCall, answer: &ApiAnswer) {
        let mut known = ROUTES.iter().filter(|route| route.ids(&request.path).is_some()).peekable();
        let otherwise = if known.peek().is_some() { WRONG_METHOD } else { UNKNOWN };
        let route = known.find(|route| route.method == request.method);
        note(route.map_or(otherwise, |route| route.action), request, answer);
    }
}

/// Writes the line in the audit log.
fn note(action: &'static str, request: &ApiCall, answer: &ApiAnswer) {
    let (mut what, status) = (subject(request, answer), answer.status);
    if action == WRONG_METHOD {
        let method: String = request.method.chars().filter(char::is_ascii_graphic).take(METHOD_CHARS).collect();
        what = format!("{method} {what}");
    }
    let ending = if answer.is_done() { "done" } else { "refused" };
    let Some(from) = request.from else {
        log::info!(
            target: audit::TARGET, event = "admin", action, subject = what.as_str(), status, from = "offline";
            "administrator with --offline: {action} {what}: {ending} ({status})"
        );
        return;
    };
    log::info!(
        target: audit::TARGET, event = "admin", action, subject = what.as_str(), status, from:% = from;
        "administrator with admin_key from {from}: {action} {what}: {ending} ({status})"
    );
}

impl Route {
    /// The numbers in a path of this form.
    fn ids(&self, path: &str) -> Option<Vec<i32>> {
        let (mut ids, mut parts) = (Vec::new(), path.split('/'));
        for own in self.path.split('/') {
            let part = parts.next()?;
            if own.starts_with('{') {
                let digits = part.bytes().all(|byte| byte.is_ascii_digit());
                ids.push(part.parse().ok().filter(|id| digits && *id > 0)?);
            } else if own != part {
                return None;
            }
        }
        parts.next().is_none().then_some(ids)
    }
}

fn no_route(methods: &[&str]) -> ApiAnswer {
    if methods.is_empty() {
        return ApiAnswer::refused(404, "there is no such path, or an id in it is none; see /v1/openapi.json");
    }
    let allow = methods.join(", ");
    let refused = ApiAnswer::refused(405, format!("use {allow}"));
    ApiAnswer { allow: Some(allow), ..refused }
}

/// The object of the request and the id of the result, for the audit log.
fn subject(request: &ApiCall, answer: &ApiAnswer) -> String {
    let mut what: String = request.path.chars().filter(|c| c.is_ascii_graphic()).take(SUBJECT_CHARS).collect();
    for (name, value) in request.query.iter().take(QUERY_MAX) {
        let [name, value] = [name, value].map(|text| text.chars().take(SUBJECT_CHARS).collect::<String>());
        let _ = write!(what, " ?{}=", name.escape_debug());
        // With a blank in it, a value could look like another member.
        let _ = if value.contains(char::is_whitespace) {
            write!(what, "{value:?}")
        } else {
            write!(what, "{}", value.escape_debug())
        };
    }
    for name in SHOWN {
        if let Some(value) = request.body.get(name).filter(|value| !value.is_object() && !value.is_array()) {
            let value: String = value.to_string().chars().take(SUBJECT_CHARS).collect();
            let _ = write!(what, " {name}={value}");
        }
    }
    let made = answer.body.get("id").filter(|id| id.is_number());
    let made = made.or_else(|| answer.body.get("announcement")?.get("id").filter(|_| request.body.get("id").is_none()));
    if let Some(id) = made.filter(|_| request.method == "POST") {
        let _ = write!(what, " id={id}");
    }
    what
}

fn openapi(_: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    let described: Result<Value, _> = serde_json::from_str(OPENAPI);
    described.map(ApiAnswer::done).map_err(|error| ApiAnswer::refused(500, error.to_string()))
}

/// The description for clients.
const OPENAPI: &str = include_str!("administration/openapi.json");
/// The action of an unknown path.
const UNKNOWN: &str = "unknown";
/// The action of a path with a method that it does not have.
const WRONG_METHOD: &str = "wrong_method";
/// The members of a body that are shown in the audit log.
const SHOWN: [&str; 9] = ["user", "address", "name", "device", "level", "from", "away", "id", "trace"];
const SUBJECT_CHARS: usize = 100;
const METHOD_CHARS: usize = 20;
/// The most parameters of a query that the audit log shows.
const QUERY_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_with_positive_numbers_only() {
        let route = route("GET", "/v1/users/{id}/devices", "x", openapi);
        assert_eq!(route.ids("/v1/users/7/devices"), Some(vec![7]));
        for other in [
            "/v1/users/0/devices",
            "/v1/users/-1/devices",
            "/v1/users/+1/devices",
            "/v1/users/2147483648/devices",
            "/v1/users//devices",
            "/v1/users/7/devices/",
            "/v1/users/7",
            "/v1/users/7/groups",
        ] {
            assert_eq!(route.ids(other), None, "{other}");
        }
    }

    #[test]
    fn the_description_has_what_there_is() {
        let described: Value = serde_json::from_str(OPENAPI).expect("it is JSON");
        let paths = described["paths"].as_object().expect("paths");
        let of_path = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().expect("methods").keys().filter(|key| *key != "parameters");
            methods.map(|method| format!("{} {path}", method.to_ascii_uppercase())).collect::<Vec<_>>()
        };
        let mut described: Vec<String> = paths.iter().flat_map(of_path).collect();
        let mut known: Vec<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        described.sort();
        known.sort();
        assert_eq!(described, known);
    }

    #[test]
    fn the_audit_log_shows_no_password() {
        let body = serde_json::json!({"name": "ann", "password": "secret-text", "user": 7, "device": {"a": "b"}});
        let path = "/v1/users".to_owned();
        let request = ApiCall {
            method: "POST".into(),
            path,
            query: vec![("a".into(), "b\nc".into())],
            body,
            from: None,
            key: crate::config::Secret::new("key-text"),
        };
        let made = ApiAnswer::done(serde_json::json!({"id": 18, "password": "made-text"}));
        assert_eq!(subject(&request, &made), "/v1/users ?a=\"b\\nc\" user=7 name=\"ann\" id=18");
    }
}
