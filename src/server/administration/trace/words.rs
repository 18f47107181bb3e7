//! Steps in words.

use std::fmt::Display;

use serde_json::{Value, json};

use super::time::shown;
use super::view::{SeenStep, View};
use crate::base::conversation::ConversationId;
use crate::base::trace::{Hop, Step};

/// A step as JSON, with its description.
pub(super) fn step_json(view: &View<'_>, seen: &SeenStep) -> Value {
    let Step { at, hop, conv, seq, device, from, to, number, .. } = seen.step;
    let positive = |number: i32| (number > 0).then_some(number);
    json!({
        "at": shown(at),
        "conversation": (conv != 0).then(|| view.asked.name(ConversationId::from_column(conv))),
        "device": (device != 0).then(|| view.device(device)),
        "from": positive(from),
        "hop": hop.word(),
        "node": view.label(seen.node),
        "number": number,
        "seq": (seq != 0).then_some(seq),
        "to": positive(to),
        "what": phrase(view, seen),
    })
}

/// A step in words, without its time and node.
pub(super) fn phrase(view: &View<'_>, seen: &SeenStep) -> String {
    let Step { hop, to, seq, number, device, .. } = seen.step;
    let user = format!("user {to}");
    let device = || format!("device {} of {user}", view.device(device));
    match hop {
        Hop::Received => format!("read {} from the sender", counted(number, "byte")),
        Hop::Refused => format!("refused it with {number}: {}", reason(number)),
        Hop::Stored => format!("stored it as {seq}"),
        Hop::Repeated => format!("got it again, it was stored as {seq} before"),
        Hop::Queued => format!("had no connection of level 1 of {user}, and looked elsewhere"),
        Hop::Published => published(view, &seen.step),
        Hop::Unpublished if seen.step.envelope != 0 => format!("offered it to other nodes: none has {user}"),
        Hop::Unpublished => "could not tell other nodes of it: the bus did not answer".to_owned(),
        Hop::Confirmed => format!("heard from {}: it is written to {user}", other(view, &seen.step)),
        Hop::Unconfirmed => "heard from no node in time that it was delivered".to_owned(),
        Hop::Declined if seen.step.frame == 0 && seen.step.conv == 0 => {
            format!("had no connection of {user}, and sent it back")
        }
        Hop::Declined => format!("got it back: the node that took it had no connection of {user}"),
        Hop::Heard if seen.step.conv != 0 => {
            format!("heard of it, with {} of level 2 of {user}", counted(number, "connection"))
        }
        Hop::Heard => format!("got it from {}", other(view, &seen.step)),
        Hop::Written if seen.step.device != 0 => format!("wrote it to {}", device()),
        Hop::Written => format!("wrote it to a connection of level 1 of {user}"),
        Hop::Returned => format!("got it back: a connection of {user} ended before the client had it"),
        Hop::Kept => format!("put it into the database, where it waits for the next login of {user} at level 1"),
        Hop::Spooled => format!("put it into its spool, where it waits for the database, for {user}"),
        Hop::Answered => format!("answered the sender: {number}"),
        Hop::Reported => format!("heard from {}: everything up to {seq} is stored there", device()),
    }
}

fn published(view: &View<'_>, step: &Step) -> String {
    match (step.envelope, step.node, step.number) {
        (0, ..) if step.to > 0 => format!("told the other nodes, for user {}", step.to),
        (0, ..) => "told the other nodes".to_owned(),
        (_, 0, 0) => format!("offered it to other nodes, and does not know whether one took it, for user {}", step.to),
        (_, 0, nodes) => format!("offered it to other nodes: {nodes} took it, for user {}", step.to),
        _ => format!("sent it to {}, for user {}", other(view, step), step.to),
    }
}

fn other(view: &View<'_>, step: &Step) -> String {
    let known = view.label_of_bus(step.node).map(|label| format!("node {label}"));
    known.unwrap_or_else(|| "another node".to_owned())
}

/// A number of things.
pub(in crate::server::administration) fn counted(count: impl Display + PartialEq + From<u8>, thing: &str) -> String {
    let plural = if count == 1.into() { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// Why a message is refused.
pub(super) fn reason(errno: u32) -> &'static str {
    match errno {
        403 => "the recipient has blocked the sender, or the sender is not a member",
        404 => "there is no such user or group",
        409 => "the same cid was used for another message",
        413 => "it is too long",
        500 => "the database refuses it",
        503 => "the database did not answer, or there was no room: in the lanes, in the mailbox, in the spool",
        _ => "see the list of errors in docs/protocol.md",
    }
}
