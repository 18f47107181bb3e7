//! `server migrate --reset-states`: sets users to offline whom nodes of the reference server have
//! left online.
//!
//! A node of the reference server that stops leaves its users marked online. While another one
//! runs, a message for such a user is published, and no node takes it. Users of this server's nodes
//! are in their sets in Redis, and stay online. Nothing records which other users are on a running
//! reference server, so these are set to offline too, until they log in again. Messages for them
//! are stored meanwhile, and not lost.

use std::collections::HashSet;

use super::{CommandError, grouped, say};
use crate::bus::redis::{Claims, Survey, survey};
use crate::config::{Config, MysqlSettings};
use crate::protocol::UserId;
use crate::store::UserState;
use crate::store::mysql::Maintenance;

/// Resets the states, or only counts them.
pub(super) fn reset(settings: &MysqlSettings, config: &Config, is_dry_run: bool) -> Result<(), CommandError> {
    let Some(redis) = &config.redis else {
        return Err(CommandError::refused(
            "migrate: without redis.cnf it cannot be known which users are on nodes of this server; name it with \
             --redis FILE",
        ));
    };
    let refused = |error| CommandError::refused(format_args!("migrate: {error}"));
    if let Survey { has_reference_nodes: true, .. } = survey(redis).map_err(refused)? {
        say(
            "note: nodes of the reference server are running. Their users count as offline until they log in again, and \
             messages for them are stored until then.",
        );
    }
    let mut claims = Claims::open(redis).map_err(refused)?;
    let waits = || say("another server migrate or copy works on this database: waiting for its end");
    let mut database = Maintenance::begin(settings, waits).map_err(CommandError::refused)?;
    let unfinished = |error: &dyn std::fmt::Display| CommandError::unfinished(format_args!("migrate: {error}"));
    let (mut after, mut count) = (UserId(0), 0);
    loop {
        let online = database.online_after(after, PAGE).map_err(|error| unfinished(&error))?;
        let Some(last) = online.last() else { break };
        after = *last;
        let abandoned = claims.unclaimed(&online).map_err(|error| unfinished(&error))?;
        count += abandoned.len();
        if is_dry_run || abandoned.is_empty() {
            continue;
        }
        database.set_states(&abandoned, UserState::Offline).map_err(|error| unfinished(&error))?;
        // A node of this server claims a user before it writes the state, so users who have logged
        // in there meanwhile are left out.
        let still: HashSet<UserId> =
            claims.unclaimed(&abandoned).map_err(|error| unfinished(&error))?.into_iter().collect();
        let arrived: Vec<UserId> = abandoned.into_iter().filter(|user| !still.contains(user)).collect();
        database.set_states(&arrived, UserState::Online).map_err(|error| unfinished(&error))?;
    }
    let (name, count) = (database.name(), grouped(count as u64));
    match is_dry_run {
        true => {
            say(format_args!("{name}: users online on no node of this server: {count}\ndry run: nothing was changed"))
        }
        false => {
            say(format_args!("{name}: users who were online on no node of this server, and are offline now: {count}"))
        }
    }
    Ok(())
}

/// Users per page.
const PAGE: usize = 500;
