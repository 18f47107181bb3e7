//! The facts that only one node knows: steps of messages, and connections of users. Other nodes
//! request them as well, so they are read back from JSON here.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::base::conversation::ConversationId;
use crate::base::trace::{FoundSteps, Hop, Sampling, Step, Wanted};
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::UserId;
use crate::server::administration::call::{AdministrationParts, Answered, Call};

/// A query to a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub(super) wanted: Wanted,
    /// The users whose connections are wanted.
    pub(super) users: Vec<UserId>,
}

/// A node's answer.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeAnswer {
    /// Its name for people.
    pub(super) name: String,
    /// A random text by which a node recognises itself.
    pub(super) instance: String,
    /// The number that stands for it in the steps of other nodes.
    pub(super) bus: u64,
    /// Its sampling.
    pub(super) sampling: Sampling,
    pub(super) steps: Vec<Step>,
    /// Whether there are more of them.
    pub(super) more: bool,
    /// The time, ms since 1970, since which it remembers every step of the conversation. `None`: a
    /// missing step proves nothing.
    pub(super) complete_since: Option<i64>,
    pub(super) places: Vec<ConnectedDevice>,
}

/// A connection of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ConnectedDevice {
    pub(super) user: i32,
    /// The device; 0 at level 1.
    pub(super) device: i64,
    pub(super) unread_bytes: u64,
}

/// The answer of this node to others.
pub(in crate::server::administration) fn show(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let question = Question::read(call)?;
    let own = own(parts, &question)?;
    let steps: Vec<Value> = own.steps.iter().map(step_json).collect();
    let places = own.places.iter();
    let places: Vec<Value> = places
        .map(|place| json!({"device": place.device, "unread_bytes": place.unread_bytes, "user": place.user}))
        .collect();
    Ok(ApiAnswer::done(json!({
        "bus": hex(own.bus),
        "complete_since": own.complete_since,
        "instance": own.instance,
        "more": own.more,
        "node": own.name,
        "places": places,
        "steps": steps,
        "trace": own.sampling.to_string(),
    })))
}

/// The answer of this node to itself.
pub(super) fn own(parts: &AdministrationParts, question: &Question) -> Result<NodeAnswer, ApiAnswer> {
    let router = parts.router()?;
    let FoundSteps { steps, more, complete_since } = parts.node()?.trace.tracer.find(&question.wanted, STEPS_MAX);
    let (mut places, mut seen) = (Vec::new(), HashSet::new());
    for user in question.users.iter().filter(|user| seen.insert(**user)) {
        router.attendance().visit(Some(*user), |attendee| {
            if places.len() < PLACES_MAX {
                let device = attendee.device.map_or(0, |device| device.0);
                let unread_bytes = attendee.link.undelivered_bytes() as u64;
                places.push(ConnectedDevice { user: attendee.user.0, device, unread_bytes });
            }
        });
    }
    Ok(NodeAnswer {
        name: parts.node()?.name.clone(),
        instance: parts.node()?.trace.instance.clone(),
        bus: router.own_hash(),
        sampling: parts.node()?.trace.tracer.sampling(),
        steps,
        more,
        complete_since,
        places,
    })
}

impl Question {
    /// The path of the request to another node.
    pub(super) fn path(&self) -> String {
        let Wanted { place, cid, to, from, since, until } = &self.wanted;
        let mut path = format!("/v1/node/trace?since={since}&until={until}");
        if let Some((conv, seq)) = place {
            let _ = write!(path, "&conversation={}&seq={seq}", conv.column());
        }
        if let Some(cid) = cid {
            let _ = write!(path, "&cid={}", hex(*cid));
        }
        for (name, user) in [("to", to), ("from", from)] {
            if let Some(UserId(user)) = user {
                let _ = write!(path, "&{name}={user}");
            }
        }
        if !self.users.is_empty() {
            let users: Vec<String> = self.users.iter().map(ToString::to_string).collect();
            let _ = write!(path, "&users={}", users.join(","));
        }
        path
    }

    fn read(call: &Call<'_>) -> Result<Question, ApiAnswer> {
        let long = |name| call.long(KNOWN, name);
        let user = |name| Ok(call.number(KNOWN, name, (1, i32::MAX))?.map(UserId));
        let wrong = |name: &str, what: &str| ApiAnswer::refused(400, format!("{name} must be {what}"));
        let cid = call.query(KNOWN, "cid")?.map(|text| of_hex(text).ok_or_else(|| wrong("cid", HASH))).transpose()?;
        let users = call.query(KNOWN, "users")?.unwrap_or_default();
        let users: Option<Vec<UserId>> =
            users.split(',').filter(|_| !users.is_empty()).map(|part| id(part).map(UserId)).collect();
        let users = users.filter(|users| users.len() <= USERS_MAX).ok_or_else(|| wrong("users", "at most 64 ids"))?;
        let place = long("conversation")?.zip(long("seq")?);
        let place = place.map(|(conv, seq)| (ConversationId::from_column(conv), seq));
        let (since, until) = (long("since")?.unwrap_or(0), long("until")?.unwrap_or(i64::MAX));
        Ok(Question { wanted: Wanted { place, cid, to: user("to")?, from: user("from")?, since, until }, users })
    }
}

impl NodeAnswer {
    /// Reads the answer of another node.
    pub(super) fn read(answer: &Value) -> Option<NodeAnswer> {
        let text = |name: &str| Some(answer[name].as_str()?.chars().take(NAME_CHARS).collect::<String>());
        let place = |place: &Value| {
            let user = i32::try_from(place["user"].as_i64()?).ok()?;
            Some(ConnectedDevice {
                user,
                device: place["device"].as_i64()?,
                unread_bytes: place["unread_bytes"].as_u64()?,
            })
        };
        Some(NodeAnswer {
            name: text("node")?,
            instance: text("instance")?,
            bus: of_hex(answer["bus"].as_str()?)?,
            sampling: Sampling::parse(answer["trace"].as_str()?)?,
            steps: answer["steps"].as_array()?.iter().take(STEPS_MAX).filter_map(read_step).collect(),
            more: answer["more"].as_bool()?,
            complete_since: answer["complete_since"].as_i64(),
            places: answer["places"].as_array()?.iter().take(PLACES_MAX).map(place).collect::<Option<_>>()?,
        })
    }
}

fn step_json(step: &Step) -> Value {
    let Step { at, hop, conv, seq, cid, frame, from, to, device, node, envelope, nth, number } = *step;
    json!({
        "at": at, "cid": hex(cid), "conversation": conv, "device": device, "envelope": hex(envelope),
        "frame": hex(frame), "from": from, "hop": hop.word(), "node": hex(node), "nth": nth, "number": number,
        "seq": seq, "to": to,
    })
}

/// Reads a step. A step of a later version is ignored.
fn read_step(step: &Value) -> Option<Step> {
    let long = |name: &str| step[name].as_i64();
    let id = |name: &str| i32::try_from(step[name].as_i64()?).ok();
    let hash = |name: &str| of_hex(step[name].as_str()?);
    let count = |name: &str| u32::try_from(step[name].as_u64()?).ok();
    Some(Step {
        at: long("at")?,
        conv: long("conversation")?,
        seq: long("seq")?,
        cid: hash("cid")?,
        frame: hash("frame")?,
        from: id("from")?,
        to: id("to")?,
        device: long("device")?,
        node: hash("node")?,
        envelope: hash("envelope")?,
        nth: count("nth")?,
        number: count("number")?,
        ..Step::of(Hop::named(step["hop"].as_str()?)?)
    })
}

fn id(text: &str) -> Option<i32> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|id| is_canonical && *id > 0)
}

/// A number as text, because JSON readers would round it.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn of_hex(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

const KNOWN: &[&str] = &["conversation", "seq", "cid", "to", "from", "since", "until", "users"];
const HASH: &str = "16 digits of 0 to 9 and a to f";
/// The most steps and connections that a node returns.
const STEPS_MAX: usize = 1000;
const PLACES_MAX: usize = 500;
/// The most users in one query.
pub(super) const USERS_MAX: usize = 64;
const NAME_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_is_written() {
        for hop in Hop::ALL {
            let step = Step {
                at: 1_789_891_200_000,
                hop,
                conv: i64::MAX,
                seq: 17,
                cid: u64::MAX,
                frame: 1,
                from: 7,
                to: 9,
                device: 3,
                node: 0,
                envelope: 5,
                nth: 2,
                number: 403,
            };
            assert_eq!(read_step(&step_json(&step)), Some(step));
        }
        assert_eq!(read_step(&json!({"hop": "teleported"})), None);
    }
}
