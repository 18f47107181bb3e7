//! The fate of the message in words, the most important facts first.

use std::collections::{BTreeMap, HashSet};

use super::device;
use super::time::shown;
use super::view::{SeenStep, View};
use super::words::{counted, phrase, reason};
use crate::base::trace::{Hop, Step};
use crate::server::jobs::{MessageFacts, RecipientFacts, Sought};
use crate::store::history::Denied;

/// The sentences.
pub(super) fn of(view: &View<'_>) -> Vec<String> {
    let mut said = Vec::new();
    match view.asked.sought {
        Sought::To(to) => of_level1(view, to.0, &mut said),
        Sought::Cid(..) | Sought::Place(..) => of_level2(view, &mut said),
    }
    for node in &view.nodes {
        if let Err(trouble) = &node.answer {
            said.push(format!("Node {} did not answer ({trouble}): what it knows is missing here.", node.label));
        }
    }
    if let Err(trouble) = &view.facts {
        said.push(format!("The database was not read: {trouble}."));
    }
    let is_traced = |traced: bool| {
        view.nodes.iter().filter_map(|node| node.answer.as_ref().ok()).all(|answer| (answer.sampling.0 > 0) == traced)
    };
    if is_traced(false) {
        said.push("No node traces messages (key trace, or server trace --set all): only the database is known.".into());
    } else if view.steps.is_empty() {
        said.push(
            "No node remembers a step of it: it is older than what they remember (trace_size), was not \
            among what is traced, or never came."
                .into(),
        );
    }
    said
}

fn of_level2(view: &View<'_>, said: &mut Vec<String>) {
    said.push(storage(view));
    let repeats = view.with(Hop::Repeated).count();
    if repeats > 0 {
        said.push(format!(
            "The sender has sent it {} more with the same cid; it is stored once.",
            counted(repeats, "time")
        ));
    }
    if let Some(SeenStep { node, step }) = view.with(Hop::Answered).last() {
        let what = if step.number == 200 { String::new() } else { format!(" ({})", reason(step.number)) };
        said.push(format!(
            "Node {} answered the sender {} at {}{what}.",
            view.label(*node),
            step.number,
            shown(step.at)
        ));
    } else if let Some(SeenStep { node, step }) = view.with(Hop::Stored).next()
        && view.remembers(*node, step.at)
        && !view.with(Hop::Received).any(|seen| seen.step.frame != 0)
    {
        said.push("The answer to the sender was not written: its connection had ended, or it waits.".into());
    }
    said.extend(bus(view));
    let Ok(facts) = &view.facts else { return of_steps(view, said) };
    if facts.stored.is_none() && view.with(Hop::Stored).next().is_none() {
        return;
    }
    let (mut well, seq) = (0, facts.place.map_or(0, |(_, seq)| seq));
    for recipient in &facts.recipients {
        let sentences: Vec<(bool, String)> = of_recipient(view, recipient, seq, facts.stored.map(|stored| stored.time));
        let is_well = sentences.iter().any(|(is_well, _)| *is_well);
        match facts.recipients.len() > RECIPIENTS_SAID && is_well {
            true => well += 1,
            false => said.extend(sentences.into_iter().map(|(_, sentence)| sentence)),
        }
    }
    if well > 0 {
        let has = if well == 1 { "has" } else { "have" };
        said.push(format!("{} {has} it on at least one device.", counted(well, "other recipient")));
    }
    if facts.recipient_count > facts.recipients.len() {
        let more = facts.recipient_count - facts.recipients.len();
        let (more, was) = (counted(more, "more recipient"), if more == 1 { "was" } else { "were" });
        said.push(format!("{more} {was} not looked at: ask about one with --user."));
    }
}

/// Whether it is in its conversation.
fn storage(view: &View<'_>) -> String {
    let stored = view.with(Hop::Stored).last();
    let by = stored.map(|seen| format!(" by node {}", view.label(seen.node))).unwrap_or_default();
    let facts = match &view.facts {
        Ok(facts) => facts,
        Err(_) => return without_database(view, stored),
    };
    if let (Some((conv, seq)), Some(found)) = (facts.place, facts.stored) {
        let gone = match (found.bytes, found.changed) {
            (None, Some(by)) => format!("; its sender has recalled it with {by}"),
            (Some(_), Some(by)) => format!("; its sender has edited it with {by}"),
            _ => String::new(),
        };
        let name = view.asked.name(conv);
        return format!("Stored as {seq} of {name}{by} at {}, from user {}{gone}.", shown(found.time), found.from);
    }
    if let Some(Denied::Unknown) = facts.denied {
        return "There is no such conversation: no such user or group.".to_owned();
    }
    let Some((conv, seq)) = facts.place else { return unstored(view) };
    let name = view.asked.name(conv);
    match (facts.denied, facts.head, facts.floor) {
        (Some(_), ..) => format!("User {} may not read {name}, and it has no number {seq}.", view.asked.user),
        (None, _, floor) if seq <= floor => format!(
            "Number {seq} of {name} is not stored any more: history up to {floor} is deleted (retention), or was \
            never this user's."
        ),
        (None, head, _) if seq > head => match stored {
            Some(_) => format!(
                "Stored as {seq} of {name}{by}, and lost since: the conversation ends with {head}. The database \
                was restored, or failed over with loss."
            ),
            None => format!("There is no number {seq} in {name} yet: it ends with {head}."),
        },
        _ => format!("Number {seq} of {name} is not stored."),
    }
}

fn without_database(view: &View<'_>, stored: Option<&SeenStep>) -> String {
    match stored {
        Some(SeenStep { node, step }) => {
            format!("Stored as {} by node {} at {}.", step.seq, view.label(*node), shown(step.at))
        }
        None => unstored(view),
    }
}

/// The sentence for a message that is in no conversation.
fn unstored(view: &View<'_>) -> String {
    if let Some(SeenStep { node, step }) = view.with(Hop::Refused).last() {
        let (errno, why) = (step.number, reason(step.number));
        return format!(
            "Refused with {errno} by node {} at {}: {why}. It is not stored.",
            view.label(*node),
            shown(step.at)
        );
    }
    match view.with(Hop::Received).last() {
        Some(SeenStep { node, step }) if view.facts.is_err() => format!(
            "Received by node {} at {}. Not known whether it is stored: the database was not read, and no node \
            remembers that it was.",
            view.label(*node),
            shown(step.at)
        ),
        None if view.facts.is_err() => {
            "Not known whether it is stored: the database was not read, and no node remembers a step of it.".to_owned()
        }
        Some(SeenStep { node, step }) => format!(
            "Received by node {} at {}, and not stored: it waits for the database there, or the node has ended before.",
            view.label(*node),
            shown(step.at)
        ),
        None => "Not stored: no message with this cid of this user has been committed.".to_owned(),
    }
}

/// Sentences about the news to other nodes.
fn bus(view: &View<'_>) -> Vec<String> {
    let mut said = Vec::new();
    let is_news = |seen: &&SeenStep| seen.step.envelope == 0;
    if let Some(SeenStep { node, step }) = view.with(Hop::Unpublished).filter(is_news).last() {
        said.push(format!(
            "Node {} could not tell the other nodes at {}: the bus did not answer. Devices there get it with the \
            next sweep.",
            view.label(*node),
            shown(step.at)
        ));
    }
    let Some(told) = view.with(Hop::Published).filter(is_news).last() else { return said };
    let mut heard: Vec<&str> = view.with(Hop::Heard).map(|seen| view.label(seen.node)).collect();
    heard.dedup();
    let mut forgetful = view.forgetful(told.step.at);
    forgetful.retain(|node| *node != view.label(told.node));
    let heard = match (heard.is_empty(), forgetful.is_empty()) {
        (true, true) => "none of them heard of it".to_owned(),
        (true, false) => {
            format!("not known whether it was heard of: node {} remembers no steps of it", forgetful.join(", node "))
        }
        (false, _) => format!("node {} heard of it", heard.join(", node ")),
    };
    said.push(format!("Node {} told the other nodes at {}; {heard}.", view.label(told.node), shown(told.step.at)));
    said
}

/// The sentences about one recipient; true: the message is there.
fn of_recipient(view: &View<'_>, recipient: &RecipientFacts, seq: i64, stored: Option<i64>) -> Vec<(bool, String)> {
    let user = recipient.user.0;
    let mut said: Vec<(bool, String)> =
        recipient.devices.iter().map(|device| device::said(view, user, device, (seq, stored))).collect();
    let last =
        view.steps.iter().rfind(|seen| seen.step.to == user && seen.step.device == 0 && is_of_level1(seen.step.hop));
    if let Some(seen) = last {
        let what = phrase(view, seen);
        let waits = if seen.step.hop == Hop::Kept && recipient.waiting_bytes == 0 {
            "; the user has fetched it since"
        } else {
            ""
        };
        said.push((
            seen.step.hop == Hop::Written,
            format!("At level 1, node {} {what} at {}{waits}.", view.label(seen.node), shown(seen.step.at)),
        ));
    }
    if recipient.devices.is_empty() {
        let waits = match recipient.waiting_bytes {
            0 => "nothing waits for a login at level 1".to_owned(),
            bytes => format!("{bytes} bytes wait for a login at level 1"),
        };
        said.push((false, format!("User {user} has no device of level 2; {waits}.")));
    }
    said
}

fn is_of_level1(hop: Hop) -> bool {
    !matches!(
        hop,
        Hop::Received | Hop::Stored | Hop::Repeated | Hop::Answered | Hop::Reported | Hop::Heard | Hop::Queued
    )
}

/// Without the database: the last step of each recipient.
fn of_steps(view: &View<'_>, said: &mut Vec<String>) {
    let mut last: BTreeMap<(i32, i64), &SeenStep> = BTreeMap::new();
    for seen in view.steps.iter().filter(|seen| seen.step.to > 0) {
        last.insert((seen.step.to, seen.step.device), seen);
    }
    for seen in last.values() {
        said.push(format!("Node {} {} at {}.", view.label(seen.node), phrase(view, seen), shown(seen.step.at)));
    }
}

/// Messages of level 1, of which there may be several.
fn of_level1(view: &View<'_>, to: i32, said: &mut Vec<String>) {
    let mut ways: BTreeMap<(usize, u64), Vec<&SeenStep>> = BTreeMap::new();
    let mut taken = HashSet::new();
    for (index, seen) in view.steps.iter().enumerate().filter(|(_, seen)| seen.step.frame > u64::from(u32::MAX)) {
        ways.entry((seen.node, seen.step.frame)).or_default().push(seen);
        taken.insert(index);
    }
    let mut ways: Vec<Vec<&SeenStep>> = ways.into_values().collect();
    for way in &mut ways {
        let envelopes = view.envelopes(way.iter().map(|seen| **seen));
        for (index, seen) in view.steps.iter().enumerate() {
            if !taken.contains(&index) && envelopes.contains_key(&(seen.step.node, seen.step.envelope, seen.step.nth)) {
                way.push(seen);
                taken.insert(index);
            }
        }
        // A node notes these two once it has handed the message on, and others are quick.
        let is_returned = way.iter().any(|seen| seen.step.hop == Hop::Returned);
        way.sort_by_key(|seen| {
            let hop = seen.step.hop;
            let is_first = hop == Hop::Received || hop == Hop::Queued && !is_returned;
            (!is_first, if is_first { 0 } else { seen.step.at }, hop)
        });
    }
    ways.sort_by_key(|way| way.first().map(|seen| seen.step.at));
    let count = ways.len();
    for way in ways.iter().rev().take(MESSAGES_SAID).rev() {
        said.push(of_way(view, way));
    }
    if count > MESSAGES_SAID {
        said.push(format!("{} earlier ones are among the steps: give --at for another time.", count - MESSAGES_SAID));
    }
    let rest = view.steps.iter().enumerate().filter(|(index, _)| !taken.contains(index)).map(|(_, seen)| seen);
    for seen in rest.collect::<Vec<_>>().iter().rev().take(MESSAGES_SAID).rev() {
        said.push(format!(
            "Of a message to user {to} whose sender is on another node or gone: node {} {} at {}.",
            view.label(seen.node),
            phrase(view, seen),
            shown(seen.step.at)
        ));
    }
    if let Ok(MessageFacts { recipients, .. }) = &view.facts
        && let Some(waiting) = recipients.first().map(|recipient| recipient.waiting_bytes)
    {
        said.push(match waiting {
            0 => format!("Nothing waits in the database for user {to} at level 1."),
            bytes => format!("{bytes} bytes wait in the database for the next login of user {to} at level 1."),
        });
    }
    let here: Vec<String> = view
        .connections(to, 0)
        .map(|(node, bytes)| format!("node {} ({bytes} bytes not acknowledged)", view.label(node)))
        .collect();
    match here.is_empty() {
        true => said.push(format!("User {to} has no connection of level 1 at any node that answers.")),
        false => said.push(format!("User {to} is at level 1 on {}.", here.join(", "))),
    }
}

/// One message: its way, step by step.
fn of_way(view: &View<'_>, way: &[&SeenStep]) -> String {
    let (mut node, mut told) = (usize::MAX, Vec::new());
    for seen in way {
        let who = if seen.node == node { String::new() } else { format!("node {} ", view.label(seen.node)) };
        node = seen.node;
        told.push(format!("{who}{}", phrase(view, seen)));
    }
    let Step { at, .. } = way.first().map_or(Step::of(Hop::Received), |seen| seen.step);
    let last = way.last().map(|seen| seen.step);
    let end = match last {
        Some(last) if last.at > at => format!(" at {}", shown(last.at)),
        _ => String::new(),
    };
    format!("At {}: {}{end}.", shown(at), told.join("; "))
}

/// The number of recipients beyond which only those without the message are named, and the most
/// messages that are described.
const RECIPIENTS_SAID: usize = 5;
const MESSAGES_SAID: usize = 10;
