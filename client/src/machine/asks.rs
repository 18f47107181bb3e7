//! [`Asks`]: unanswered requests.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::conv::Conv;

/// The recipient of the answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// The application, under this number.
    Application(u64),
    /// The application: a page below this number.
    Page { ask: u64, conv: Conv, before: Option<u64> },
    /// Nobody: a read mark.
    Mark,
    /// A 46, which its 45 answers.
    Sync,
}

/// The requests of one connection.
#[derive(Default, Debug)]
pub(crate) struct Asks {
    next: u64,
    open: BTreeMap<String, Asked>,
    /// The members from the frames of replies to 61 that are not complete.
    members: BTreeMap<String, Vec<Value>>,
}

/// The most unanswered requests. The server stops reading at 64.
const OPEN_MAX: usize = 48;

impl Asks {
    /// A new `rid`; `None` if too many requests are unanswered.
    pub(crate) fn ask(&mut self, asked: Asked) -> Option<Value> {
        if self.open.len() >= OPEN_MAX {
            return None;
        }
        self.next += 1;
        let rid = format!("r{}", self.next);
        self.open.insert(rid.clone(), asked);
        Some(Value::from(rid))
    }

    /// Removes the answered request with this `rid`.
    pub(crate) fn answered(&mut self, rid: &str) -> Option<Asked> {
        self.open.remove(rid)
    }

    /// Joins the frames of the reply to a 61. `None` while frames are missing.
    pub(crate) fn whole(&mut self, rid: &str, mut reply: Value) -> Option<Value> {
        let Some(members) = reply.get_mut("members").and_then(Value::as_array_mut) else { return Some(reply) };
        let members = std::mem::take(members);
        let known = self.members.entry(rid.to_owned()).or_default();
        known.extend(members);
        if reply["more"] == true && self.open.contains_key(rid) {
            return None;
        }
        reply["members"] = self.members.remove(rid).unwrap_or_default().into();
        Some(reply)
    }

    /// Ends the connection. Returns the unanswered requests.
    pub(crate) fn end(&mut self) -> Vec<Asked> {
        self.members.clear();
        std::mem::take(&mut self.open).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_frames_of_a_list_of_members_are_one_reply() {
        let mut asks = Asks::default();
        let rid = asks.ask(Asked::Application(1)).expect("a rid");
        let rid = rid.as_str().expect("a text");
        assert_eq!(asks.whole(rid, json!({"members": [1, 2], "more": true})), None);
        assert_eq!(asks.whole("other", json!({"members": [9]})), Some(json!({"members": [9]})));
        assert_eq!(asks.whole(rid, json!({"members": [3]})), Some(json!({"members": [1, 2, 3]})));
        assert_eq!(asks.whole(rid, json!({"errno": 403})), Some(json!({"errno": 403})));
        assert!(asks.members.is_empty());
    }

    #[test]
    fn each_request_is_answered_once_and_their_number_is_bounded() {
        let mut asks = Asks::default();
        let rids: Vec<Value> = (0..).map_while(|ask| asks.ask(Asked::Application(ask))).collect();
        assert_eq!(rids.len(), OPEN_MAX);
        assert_eq!(asks.answered("r1"), Some(Asked::Application(0)));
        assert_eq!((asks.answered("r1"), asks.answered("r999")), (None, None));
        assert!(asks.ask(Asked::Mark).is_some());
        assert_eq!((asks.end().len(), asks.end().len()), (OPEN_MAX, 0));
    }
}
