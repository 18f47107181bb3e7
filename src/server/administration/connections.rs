//! The logged-in connections of this node: their list, and closing them.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::call::{AdministrationParts, Answered, Call};
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::operation::admin::api::ApiAnswer;
use crate::protocol::UserId;
use crate::protocol::level2::replies::Reason;
use crate::routing::attendance::Attendee;

pub(super) fn list(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let user = call.number(KNOWN, "user", (1, i32::MAX))?.map(UserId);
    let address = call.query(KNOWN, "address")?.map(address_of).transpose()?;
    let limit = call.number(KNOWN, "limit", (1, LIMIT_MAX))?.unwrap_or(LIMIT_DEFAULT);
    let (mut shown, mut matching) = (Vec::new(), 0);
    parts.router()?.attendance().visit(user, |attendee| {
        if is_at(&attendee.link, address) {
            matching += 1;
            if shown.len() < limit as usize {
                shown.push(line(&attendee));
            }
        }
    });
    Ok(ApiAnswer::done(json!({"connections": shown, "matching": matching})))
}

fn line(attendee: &Attendee) -> Value {
    let Attendee { user, link, device } = attendee;
    json!({
        "address": link.peer().map(|peer| peer.to_string()),
        "device": device.map(|device| device.0),
        "level": if device.is_some() { 2 } else { 1 },
        "proxied": link.is_proxied(),
        "unread_bytes": link.undelivered_bytes(),
        "user": user.0,
    })
}

pub(super) fn close(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let body = call.body(&["user", "address"])?;
    let user = body.id("user")?.map(UserId);
    let address = body.text("address")?.map(address_of).transpose()?;
    if user.is_some() == address.is_some() {
        return Err(ApiAnswer::refused(400, "name either user, an id, or address, an IP address"));
    }
    let mut closed = 0;
    parts.router()?.attendance().visit(user, |attendee| {
        if is_at(&attendee.link, address) {
            end(&attendee);
            closed += 1;
        }
    });
    Ok(ApiAnswer::done(json!({"closed": closed})))
}

/// Ends a connection. Its client may reconnect; at level 2 it is told when. Unacknowledged messages
/// are treated like those of any broken connection.
fn end(attendee: &Attendee) {
    match attendee.device {
        Some(_) => attendee.link.post(Posted::Member(Box::new(MemberNews::End(Reason::Drain)))),
        None => attendee.link.hang_up(),
    }
}

fn is_at(link: &ClientLink, address: Option<IpAddr>) -> bool {
    address.is_none_or(|address| link.peer().is_some_and(|peer| peer.ip().to_canonical() == address))
}

fn address_of(text: &str) -> Result<IpAddr, ApiAnswer> {
    let address = text.parse::<IpAddr>().map(|address| address.to_canonical());
    address.map_err(|_| ApiAnswer::refused(400, "address must be an IP address, without a port"))
}

const KNOWN: &[&str] = &["user", "address", "limit"];
const LIMIT_DEFAULT: i32 = 100;
const LIMIT_MAX: i32 = 1000;
