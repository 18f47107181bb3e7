//! This node: its activity, whether it gets new clients, its log and its settings.

use serde_json::json;

use super::call::{AdministrationParts, Answered, Call};
use crate::admission::audit;
use crate::config::LogLevels;
use crate::operation::admin::api::ApiAnswer;
use crate::operation::certificates::Looked;
use crate::operation::reload::ReloadError;

pub(super) fn show(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    let node = parts.node()?;
    let open: u64 = node.loops.iter().map(|watch| watch.stats().open()).sum();
    let readiness: Vec<_> = node
        .health
        .readiness()
        .into_iter()
        .map(|(condition, holds)| json!({"condition": condition, "ok": holds}))
        .collect();
    Ok(ApiAnswer::done(json!({
        "connections": open,
        "drained": node.health.is_reserved(),
        "log_level": node.log.levels(),
        "node": node.name,
        "readiness": readiness,
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

pub(super) fn drain(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    reserve(parts, call, true)
}

pub(super) fn undrain(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    reserve(parts, call, false)
}

fn reserve(parts: &AdministrationParts, call: &Call<'_>, is_reserved: bool) -> Answered {
    call.body(&[])?;
    let was = parts.node()?.health.reserve(is_reserved);
    if was != is_reserved {
        log::info!(
            "an administrator has {} this node: /readyz says so",
            if is_reserved { "drained" } else { "undrained" }
        );
    }
    Ok(ApiAnswer::done(json!({"changed": was != is_reserved, "drained": is_reserved})))
}

pub(super) fn log_level(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.query(&[], "")?;
    Ok(ApiAnswer::done(json!({"level": parts.node()?.log.levels()})))
}

pub(super) fn set_log_level(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    let text = call.body(&["level"])?.text_of("level", (1, LEVEL_CHARS_MAX))?;
    let levels = text.and_then(LogLevels::parse);
    let Some(levels) = levels else {
        return Err(ApiAnswer::refused(400, format!("level must be {}", LogLevels::allowed())));
    };
    if levels.parts.iter().any(|(part, _)| part == audit::TARGET) {
        return Err(ApiAnswer::refused(400, "only log_level in server.cnf says what is audited: leave audit out"));
    }
    parts.node()?.log.set_levels_for_now(&levels);
    Ok(ApiAnswer::done(json!({"level": parts.node()?.log.levels()})))
}

pub(super) fn reload(parts: &AdministrationParts, call: &Call<'_>) -> Answered {
    call.body(&[])?;
    match parts.node()?.reloader.reload() {
        Ok(read) => {
            let word = |looked| match looked {
                Looked::Same => "unchanged",
                Looked::Renewed => "renewed",
            };
            Ok(ApiAnswer::done(json!({
                "applied": read.applied,
                "certificates": read.certificates.map(word),
                "jwt_keys": read.jwt_keys.map(word),
                "needs_restart": read.waiting,
            })))
        }
        Err(error @ ReloadError::Wrong(_)) => Err(ApiAnswer::refused(409, error.to_string())),
        Err(error @ (ReloadError::Full | ReloadError::Late)) => {
            Err(ApiAnswer { retry_after: Some(10), ..ApiAnswer::refused(503, error.to_string()) })
        }
    }
}

const LEVEL_CHARS_MAX: usize = 1000;
