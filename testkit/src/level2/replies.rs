//! [`Replies`]: the requests of a connection, and the order in which they are answered.

use std::collections::VecDeque;

use serde_json::Value;

use super::frame::Rid;
use super::{Checked, Mistake, ensure};

/// The requests of one connection that are not answered, without sends and 46s.
#[derive(Default, Debug)]
pub(super) struct Replies {
    asked: VecDeque<Asked>,
    /// Whether a 3 has succeeded.
    is_logged_out: bool,
}

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) kind: i64,
    pub(super) rid: Option<Rid>,
    pub(super) request: Value,
}

impl Asked {
    pub(super) fn new(request: Value) -> Asked {
        let kind = request["msgType"].as_i64().unwrap_or(0);
        Asked { kind, rid: rid_of(&request), request }
    }

    /// Whether the server answers this request only if it is wrong.
    fn is_silent(&self) -> bool {
        matches!(self.kind, 47 | 51 | 54)
    }

    fn is_answered_by(&self, kind: i64, rid: Option<&Rid>) -> bool {
        let is_level2 = (40..70).contains(&kind);
        // A request that is unknown or not JSON gets a fixed reply of level 1, whatever its number.
        let fits = match self.kind {
            1 => kind == 40 || !is_level2,
            53 => kind == 54,
            40..70 => kind == self.kind || matches!(kind, 401 | 404),
            _ => !is_level2,
        };
        fits && self.rid.as_ref() == rid
    }
}

impl Replies {
    pub(super) fn on_sent(&mut self, request: Value) {
        self.asked.push_back(Asked::new(request));
    }

    pub(super) fn unanswered(&self) -> usize {
        self.asked.iter().filter(|asked| !asked.is_silent()).count()
    }

    /// Whether a frame of this kind, which may also come unasked, answers a request.
    pub(super) fn awaits(&self, kind: i64, rid: Option<&Rid>) -> bool {
        self.next().is_some_and(|asked| asked.is_answered_by(kind, rid))
    }

    pub(super) fn is_logged_out(&self) -> bool {
        self.is_logged_out
    }

    /// Notes that a 3 has succeeded: nothing behind it may be answered.
    pub(super) fn log_out(&mut self) {
        self.is_logged_out = true;
    }

    /// Notes a reply, and returns the request that it answers.
    pub(super) fn on_reply(&mut self, kind: i64, rid: Option<&Rid>) -> Checked<Asked> {
        ensure(!self.is_logged_out, || format!("a reply of type {kind}, rid {rid:?}, to a request behind a logout"))?;
        loop {
            let Some(asked) = self.asked.pop_front() else {
                return Err(Mistake(format!("a reply of type {kind}, rid {rid:?}, to nothing")));
            };
            if asked.is_answered_by(kind, rid) {
                return Ok(asked);
            }
            ensure(asked.is_silent(), || {
                format!("a reply of type {kind}, rid {rid:?}, where the one to {} is next", asked.request)
            })?;
        }
    }

    fn next(&self) -> Option<&Asked> {
        self.asked.iter().find(|asked| !asked.is_silent())
    }
}

/// The `rid` that a reply has to repeat.
pub(super) fn rid_of(request: &Value) -> Option<Rid> {
    let rid = request.get("rid")?;
    let is_rid = match rid {
        Value::String(text) => (1..=64).contains(&text.chars().count()),
        Value::Number(number) => number.as_i64().is_some_and(|number| number.unsigned_abs() <= 1 << 53),
        _ => false,
    };
    is_rid.then(|| rid.clone())
}
