//! One user: the connections, the waiting messages, and the recent incidents.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::call::{AdministrationParts, Answered, Call};
use super::trace::{ago, counted, other_nodes, shown, within};
use crate::base::trace::{Happened, Incident};
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::UserId;
use crate::server::jobs::{Behind, DeviceFacts, Lag, UserFacts};
use crate::store::spool::{MESSAGE_BYTES, PIECE_BYTES_MAX, PIECE_MAX, Part, Spooled};

/// The facts that only this node knows about a user; other nodes request them.
pub(super) fn show_node(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    Ok(ApiAnswer::done(own(parts, UserId(call.id(0)))?))
}

fn own(parts: &AdministrationParts, user: UserId) -> Result<Value, ApiAnswer> {
    let incidents: Vec<Value> = parts.node()?.trace.tracer.incidents(user).iter().map(incident).collect();
    let mut places = Vec::new();
    parts.router()?.attendance().visit(Some(user), |attendee| {
        if places.len() < PLACES_MAX {
            places.push(json!({
                "address": attendee.link.peer().map(|peer| peer.to_string()),
                "device": attendee.device.map(|device| device.0),
                "level": if attendee.device.is_some() { 2 } else { 1 },
                "unread_bytes": attendee.link.undelivered_bytes(),
            }));
        }
    });
    let spool = parts.node()?.trace.spool.upgrade();
    let spooled = spool.map_or(Ok(Vec::new()), |spool| spool.oldest(Part::User(user)));
    let more = spooled.as_ref().is_ok_and(|piece| is_piece_of_more(piece));
    Ok(json!({
        "incidents": incidents,
        "instance": parts.node()?.trace.instance,
        "node": parts.node()?.name,
        "places": places,
        "spooled": spooled.ok().map(|piece| piece.len()),
        "spooled_more": more,
    }))
}

/// Whether there may be more messages than the spool has returned: it limits their number and text.
fn is_piece_of_more(piece: &[Spooled]) -> bool {
    let bytes: usize = piece.iter().map(|spooled| spooled.message.text.len() + MESSAGE_BYTES).sum();
    piece.len() >= PIECE_MAX || bytes > PIECE_BYTES_MAX / 2
}

fn incident(happened: &Happened) -> Value {
    let Happened { at, what, times, .. } = *happened;
    let (kind, number, text) = match what {
        Incident::LoggedIn(level) => ("login", i64::from(level), format!("logged in at level {level}")),
        Incident::WrongPassword => ("wrong_password", 0, "a wrong password".to_owned()),
        Incident::MustWait => ("must_wait", 0, "a login had to wait after wrong passwords".to_owned()),
        Incident::Closed(reason) => ("closed", 0, format!("a connection ended: {}", ended_by(reason))),
        Incident::Refused(errno) => ("refused", errno.into(), format!("a request was refused with {errno}")),
        Incident::SlowConsumer => ("slow", 0, "a connection did not take its messages and was closed".to_owned()),
        Incident::Returned(count) => {
            ("returned", count.into(), format!("{count} messages came back from a connection that ended"))
        }
    };
    json!({"at": at, "kind": kind, "number": number, "times": times, "what": text})
}

/// The reason why a connection has ended, in words.
fn ended_by(reason: &str) -> &str {
    match reason {
        "ended" => "its client closed it",
        "broken" => "it broke, or was hung up",
        other => other,
    }
}

/// Everything about a user.
pub(super) fn show(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    let user = UserId(call.id(0));
    let jobs = parts.jobs()?;
    let facts = within(move |by| jobs.find_user(user, by));
    if facts.as_ref().is_ok_and(|facts| facts.name.is_none()) {
        return Err(ApiAnswer::refused(404, "there is no such user"));
    }
    let mut nodes = vec![(parts.node()?.name.clone(), Ok(own(parts, user)?))];
    for (address, answer) in other_nodes(parts.node()?, &format!("/v1/node/users/{user}"), &call.request.key) {
        let name = answer.as_ref().ok().and_then(|answer| answer["node"].as_str()).unwrap_or_default();
        let is_taken = nodes.iter().any(|(known, _)| known == name);
        let name = match name {
            "" => address.to_string(),
            name if is_taken => format!("{name} ({address})"),
            name => name.to_owned(),
        };
        nodes.push((name, answer));
    }
    let told = Told { user, facts, nodes };
    Ok(ApiAnswer::done(told.answer()))
}

/// The answers of the database and the nodes.
struct Told {
    user: UserId,
    facts: Result<UserFacts, String>,
    nodes: Vec<(String, Result<Value, String>)>,
}

impl Told {
    fn answer(&self) -> Value {
        let (places, incidents) = (self.places(), self.incidents());
        let facts = self.facts.as_ref().ok();
        let nodes: Vec<Value> = self.nodes.iter().map(|(name, answer)| node_json(name, answer)).collect();
        json!({
            "conversations": facts.map(|facts| facts.conversations),
            "devices": self.devices(&places),
            "disabled": facts.map(|facts| facts.is_disabled),
            "id": self.user.0,
            "incidents": incidents,
            "limited": self.is_limited(),
            "name": facts.and_then(|facts| facts.name.clone()),
            "nodes": nodes,
            "places": places,
            "summary": self.summary(&places),
            "unread": facts.map(|facts| facts.unread),
            "waiting": facts.map(|UserFacts { waiting, .. }| {
                json!({"bytes": waiting.bytes, "more": waiting.more, "rows": waiting.rows})
            }),
        })
    }

    /// The entries of all nodes' lists with this name, each with the name of its node.
    fn listed(&self, list: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for (node, answer) in &self.nodes {
            let Ok(answer) = answer else { continue };
            for value in
                answer[list].as_array().into_iter().flatten().filter(|value| value.is_object()).take(PLACES_MAX)
            {
                let mut value = value.clone();
                value["node"] = json!(node);
                all.push(value);
            }
        }
        all
    }

    fn places(&self) -> Vec<Value> {
        let names: HashMap<i64, &str> = self.known_devices().map(|device| (device.id.0, &*device.name)).collect();
        let mut logins: HashMap<(String, i64), i64> = HashMap::new();
        for incident in self.listed("incidents").iter().filter(|incident| incident["kind"] == "login") {
            let key = (incident["node"].to_string(), incident["number"].as_i64().unwrap_or_default());
            logins.insert(key, incident["at"].as_i64().unwrap_or_default());
        }
        let mut places = self.listed("places");
        for place in &mut places {
            // The latest login of this level at that node, if the node remembers it.
            let login = logins.get(&(place["node"].to_string(), place["level"].as_i64().unwrap_or_default()));
            place["last_login"] = json!(login.map(|at| shown(*at)));
            if let Some(id) = place["device"].as_i64() {
                place["device"] =
                    json!(names.get(&id).map_or_else(|| format!("number {id}"), |name| (*name).to_owned()));
            }
        }
        places
    }

    fn incidents(&self) -> Vec<Value> {
        let mut incidents = self.listed("incidents");
        incidents.sort_by_key(|incident| incident["at"].as_i64().unwrap_or_default());
        for incident in &mut incidents {
            incident["at"] = json!(shown(incident["at"].as_i64().unwrap_or_default()));
        }
        incidents
    }

    /// Whether a limit has recently refused something.
    fn is_limited(&self) -> bool {
        let is_limit = |incident: &Value| incident["kind"] == "must_wait" || incident["number"] == 429;
        let now = super::trace::now();
        let is_late = |incident: &Value| incident["at"].as_i64().is_some_and(|at| at + LATELY > now);
        self.listed("incidents").iter().any(|incident| is_limit(incident) && is_late(incident))
    }

    fn known_devices(&self) -> impl Iterator<Item = &DeviceFacts> {
        self.facts.iter().flat_map(|facts| &facts.devices).map(|(device, _)| device)
    }

    fn devices(&self, places: &[Value]) -> Vec<Value> {
        let devices = self.facts.iter().flat_map(|facts| &facts.devices);
        let device_json = |(device, lag): &(DeviceFacts, Lag)| {
            let at = places.iter().filter(|place| place["device"] == json!(device.name)).map(|place| &place["node"]);
            let behind = lag.first.iter().map(|Behind { conv, cursor, head }| {
                json!({"conversation": conv.name_for(self.user).to_string(), "cursor": cursor, "head": head})
            });
            json!({
                "behind": behind.collect::<Vec<_>>(),
                "behind_conversations": lag.conversations,
                "behind_messages": lag.messages,
                "connected_to": at.collect::<Vec<_>>(),
                "device": device.name,
                "seen": shown(device.seen),
            })
        };
        devices.map(device_json).collect()
    }

    /// The most important facts, in words.
    fn summary(&self, places: &[Value]) -> Vec<String> {
        let mut said = Vec::new();
        said.push(match places.len() {
            0 => "The user is not connected to any node that answers.".to_owned(),
            count => format!("The user has {}.", counted(count, "connection")),
        });
        for place in places.iter().filter(|place| place["unread_bytes"].as_u64().unwrap_or_default() > 0) {
            let bytes = counted(place["unread_bytes"].as_u64().unwrap_or_default(), "byte");
            let node = place["node"].as_str().unwrap_or_default();
            said.push(format!(
                "A connection to node {node} has {bytes} of unacknowledged output: its client does not read."
            ));
        }
        match &self.facts {
            Err(trouble) => said.push(format!("The database was not read: {trouble}.")),
            Ok(facts) => of_facts(facts, &mut said),
        }
        for (node, answer) in &self.nodes {
            match answer {
                Err(trouble) => {
                    said.push(format!("Node {node} did not answer ({trouble}): what it knows is missing here."))
                }
                Ok(answer) => said.extend(of_spool(node, answer)),
            }
        }
        if self.is_limited() {
            said.push("A limit has refused something within the last minute.".to_owned());
        }
        said
    }
}

fn of_facts(facts: &UserFacts, said: &mut Vec<String>) {
    if facts.is_disabled {
        said.push("The account is disabled: nobody can log in.".to_owned());
    }
    let waiting = facts.waiting;
    if waiting.rows > 0 {
        let (least, verb) = (at_least(waiting.more), if waiting.rows == 1 { "waits" } else { "wait" });
        let (rows, bytes) = (counted(waiting.rows, "message"), counted(waiting.bytes, "byte"));
        said.push(format!("{least}{rows} ({bytes} in all) {verb} for a login at level 1."));
    }
    for (device, lag) in facts.devices.iter().filter(|(_, lag)| lag.messages > 0) {
        let (messages, conversations) = (counted(lag.messages, "message"), counted(lag.conversations, "conversation"));
        let (name, seen) = (&device.name, ago(device.seen));
        said.push(format!("Device {name} has not reported {messages} of {conversations} as stored; last seen {seen}."));
    }
    if facts.devices_left > 0 {
        let more = counted(facts.devices_left, "more device");
        said.push(format!("The database was slow: not known how far behind {more} may be. Ask again later."));
    }
}

/// The sentence about messages on the disk of this node.
fn of_spool(node: &str, answer: &Value) -> Option<String> {
    match answer["spooled"].as_u64() {
        Some(0) => None,
        Some(count) => {
            let least = at_least(answer["spooled_more"].as_bool().unwrap_or_default());
            let (messages, verb) = (counted(count, "message"), if count == 1 { "waits" } else { "wait" });
            Some(format!("{least}{messages} {verb} in the spool of node {node} for the database."))
        }
        None => Some(format!(
            "The spool of node {node} cannot be read: not known what waits there. Look at the log of that node."
        )),
    }
}

fn at_least(more: bool) -> &'static str {
    if more { "At least " } else { "" }
}

fn node_json(name: &str, answer: &Result<Value, String>) -> Value {
    let spooled = answer.as_ref().ok().and_then(|answer| answer["spooled"].as_u64());
    let more = answer.as_ref().is_ok_and(|answer| answer["spooled_more"].as_bool().unwrap_or_default());
    json!({
        "answered": answer.is_ok(), "node": name, "spooled": spooled, "spooled_more": more,
        "trouble": answer.as_ref().err(),
    })
}

/// The most connections and incidents of a user that a node returns.
const PLACES_MAX: usize = 100;
/// How long a refusal by a limit counts, ms.
const LATELY: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewMessage;
    use crate::store::spool::SpoolId;

    #[test]
    fn a_spool_that_cannot_be_read_is_not_empty() {
        let said = |answer: Value| of_spool("north", &answer).unwrap_or_default();
        assert_eq!(said(json!({"spooled": 0, "spooled_more": false})), "");
        assert!(said(json!({"spooled": null, "spooled_more": false})).contains("not known what waits there"));
        assert!(said(json!({"spooled": 1, "spooled_more": false})).starts_with("1 message waits"));
        assert!(said(json!({"spooled": 1024, "spooled_more": true})).starts_with("At least 1024 messages wait"));
    }

    #[test]
    fn a_full_piece_of_the_spool_may_have_more_behind_it() {
        let spooled = |bytes: usize| Spooled { id: SpoolId(1), message: NewMessage::new(UserId(1), "x".repeat(bytes)) };
        let piece = |count, bytes| (0..count).map(|_| spooled(bytes)).collect::<Vec<_>>();
        assert!(!is_piece_of_more(&piece(PIECE_MAX - 1, 1)));
        assert!(is_piece_of_more(&piece(PIECE_MAX, 1)));
        assert!(is_piece_of_more(&piece(10, PIECE_BYTES_MAX / 15)));
    }

    #[test]
    fn one_is_not_said_as_many() {
        let waiting = crate::server::jobs::Waiting { rows: 1, more: false, bytes: 189 };
        let mut said = Vec::new();
        of_facts(&UserFacts { waiting, ..UserFacts::default() }, &mut said);
        assert_eq!(said, ["1 message (189 bytes in all) waits for a login at level 1."]);
    }
}
