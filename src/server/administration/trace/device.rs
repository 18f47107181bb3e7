//! The way of a message to one device, in words.

use super::time::{ago, shown};
use super::view::View;
use super::words::counted;
use crate::base::trace::Hop;
use crate::server::jobs::DeviceFacts;

/// The sentence about a device of this user and the message with this number, and whether the
/// device has the message, which the database proves. The message was committed at this time, if
/// that is known. A missing step of a node proves something only if the node remembers all steps.
pub(super) fn said(
    view: &View<'_>,
    user: i32,
    device: &DeviceFacts,
    (seq, stored): (i64, Option<i64>),
) -> (bool, String) {
    let DeviceFacts { id, name, seen, cursor } = device;
    let here = format!("device {name} of user {user}");
    let written = view.with(Hop::Written).filter(|seen| seen.step.device == id.0).last();
    let written = written.map(|seen| format!("written by node {} at {}", view.label(seen.node), shown(seen.step.at)));
    if *cursor >= seq {
        let reported = view.with(Hop::Reported).find(|seen| seen.step.device == id.0);
        let when = reported.map(|seen| format!(" at {}", shown(seen.step.at))).unwrap_or_default();
        let written = written.map(|written| format!("{written}, ")).unwrap_or_default();
        return (true, format!("On {here}: {written}reported as stored{when} (cursor {cursor})."));
    }
    let connected = view.connections(user, id.0).next();
    let away = if view.is_partial() { "not connected to any node that answers" } else { "not connected" };
    let sentence = match (written, connected) {
        (Some(written), Some((node, 0))) => format!(
            "On {here}: {written}, and not reported as stored yet (cursor {cursor}); its system has acknowledged all \
            that was written to its connection to node {}.",
            view.label(node)
        ),
        (Some(written), Some((node, bytes))) => format!(
            "For {here}: {written}; the client does not read: {} of its connection to node {} not acknowledged \
            (cursor {cursor}).",
            bytes_are(bytes),
            view.label(node)
        ),
        (Some(written), None) => format!(
            "For {here}: {written}; that connection ended before the device reported it. It waits in history for the \
            device, whose cursor is {cursor}, last seen {}.",
            ago(*seen)
        ),
        (None, Some((node, bytes))) => unwritten(view, &here, (node, bytes), stored, *cursor),
        (None, None) => {
            let forgetful = view.forgetful(stored.unwrap_or_default());
            format!(
                "For {here}: the device is {away}, last seen {}. It waits in history for the device, whose cursor is \
                {cursor}.{}",
                ago(*seen),
                unknown(&forgetful, " before")
            )
        }
    };
    (false, sentence)
}

/// No node tells that it was written, and the device is connected.
fn unwritten(view: &View<'_>, here: &str, (node, bytes): (usize, u64), stored: Option<i64>, cursor: i64) -> String {
    let label = view.label(node);
    let slow = match bytes {
        0 => None,
        bytes => Some(format!("the client does not read: {} not acknowledged", bytes_are(bytes))),
    };
    if stored.is_some_and(|stored| view.remembers(node, stored)) {
        let why = slow.unwrap_or_else(|| "the node has not heard of it, or has not come to it yet".to_owned());
        return format!(
            "For {here}: not written to its connection to node {label} ({why}); it waits in history, cursor {cursor}."
        );
    }
    let slow = slow.map(|slow| format!(" ({slow})")).unwrap_or_default();
    format!(
        "For {here}: not reported as stored yet, cursor {cursor}; connected to node {label}{slow}.{}",
        unknown(&[label], "")
    )
}

/// The sentence about nodes that cannot tell.
fn unknown(forgetful: &[&str], when: &str) -> String {
    match forgetful {
        [] => String::new(),
        nodes => {
            let verb = if nodes.len() == 1 { "remembers" } else { "remember" };
            format!(" Not known whether it was written{when}: node {} {verb} no steps of it.", nodes.join(", node "))
        }
    }
}

fn bytes_are(bytes: u64) -> String {
    let are = if bytes == 1 { "is" } else { "are" };
    format!("{} {are}", counted(bytes, "byte"))
}
