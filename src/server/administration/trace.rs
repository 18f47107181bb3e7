//! The fate of a message: the hops that the nodes remember ([`Step`](crate::base::trace::Step)),
//! and the facts in the database.
//!
//! The node that gets the request queries the database, and the other nodes (`admin_nodes`) at the
//! same time. Each node has a second; nodes that do not answer are named. The database has three
//! seconds.

mod ask;
mod device;
mod gather;
mod node;
mod time;
mod verdict;
mod view;
mod words;

use serde_json::{Value, json};

use self::ask::TraceRequest;
pub(super) use self::gather::{other_nodes, within};
use self::node::Question;
pub(super) use self::node::show as show_node;
pub(super) use self::time::{ago, now, shown};
use self::view::View;
pub(super) use self::words::counted;
use super::call::{AdministrationParts, Answered, Call};
use crate::base::trace::{Sampling, Wanted};
use crate::operation::admin::api::ApiAnswer;
use crate::server::jobs::{DeviceFacts, MessageFacts, RecipientFacts};

/// The way of the message with this id of its sender.
pub(super) fn by_cid(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    show(parts, call, &TraceRequest::by_cid(call)?)
}

/// The way of the message with this number.
pub(super) fn by_place(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    show(parts, call, &TraceRequest::by_place(call)?)
}

/// The ways of messages of level 1 sent at this time.
pub(super) fn at_level1(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    show(parts, call, &TraceRequest::at_level1(call)?)
}

fn show(parts: &AdministrationParts, call: &Call<'_>, asked: &TraceRequest) -> Answered {
    let jobs = parts.jobs()?;
    let sought = asked.sought.clone();
    let facts = within(move |by| jobs.find_message(&sought, by));
    let question = asked.question(facts.as_ref().ok());
    let mut nodes = gather::all(parts, &question, &call.request.key)?;
    if let Some(place) = gather::place_of(&question, &nodes) {
        // The database has not returned the place, but a node has.
        let wanted = Wanted { place: Some(place), ..question.wanted };
        nodes = gather::all(parts, &Question { wanted, ..question }, &call.request.key)?;
    }
    let view = View::new(asked, facts, nodes);
    let (verdict, steps) = (verdict::of(&view), view.steps.iter().map(|seen| words::step_json(&view, seen)));
    let steps: Vec<Value> = steps.collect();
    let recipients = view.facts.iter().flat_map(|facts| &facts.recipients);
    let devices: Vec<Value> = recipients.flat_map(|user| devices(&view, user)).collect();
    Ok(ApiAnswer::done(json!({
        "devices": devices,
        "message": view.facts.as_ref().ok().map(|facts| message(&view, facts)),
        "nodes": view.nodes_json(),
        "steps": steps,
        "verdict": verdict,
    })))
}

fn message(view: &View<'_>, facts: &MessageFacts) -> Value {
    let stored = facts.stored;
    json!({
        "bytes": stored.and_then(|stored| stored.bytes),
        "conversation": facts.place.map(|(conv, _)| view.asked.name(conv)),
        "floor": facts.floor,
        "from": stored.map(|stored| stored.from.0),
        "head": facts.head,
        "recipients": facts.recipient_count,
        "seq": facts.place.map(|(_, seq)| seq),
        "stored": stored.map(|stored| shown(stored.time)),
    })
}

fn devices<'v>(view: &'v View<'_>, recipient: &'v RecipientFacts) -> impl Iterator<Item = Value> + use<'v> {
    recipient.devices.iter().map(move |DeviceFacts { id, name, seen, cursor }| {
        let nodes: Vec<&str> = view.connections(recipient.user.0, id.0).map(|(node, _)| view.label(node)).collect();
        json!({"connected_to": nodes, "cursor": cursor, "device": name, "seen": shown(*seen), "user": recipient.user.0})
    })
}

/// The sampling of this node.
pub(super) fn setting(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    Ok(ApiAnswer::done(json!({"trace": parts.node()?.trace.tracer.sampling().to_string()})))
}

/// Changes the sampling until the server restarts.
pub(super) fn set(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let text = call.body(&["trace"])?.text_of("trace", (1, SAMPLING_CHARS))?;
    let Some(sampling) = text.and_then(Sampling::parse) else {
        return Err(ApiAnswer::refused(400, "trace must be off, all or 1/N, with N from 2 to 1000000"));
    };
    parts.node()?.trace.tracer.sample(sampling);
    Ok(ApiAnswer::done(json!({"trace": sampling.to_string()})))
}

const SAMPLING_CHARS: usize = 20;
