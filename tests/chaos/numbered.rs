//! Numbered messages of level 1: how they are written, and how they are recognised.

use serde_json::{Value, json};

use crate::books::{Arrival, Books, How, Moment, Target};

impl Books {
    /// Records a frame that arrived on a connection.
    pub fn note(&mut self, at: Moment, connection: usize, frame: &Value) {
        match (frame["msgType"].as_u64(), frame["msgs"].as_array()) {
            (Some(4 | 9), _) => self.note_message(at, How::Live(connection), frame),
            (Some(14), Some(texts)) => {
                let how = How::Fetched(self.fetches);
                self.fetches += 1;
                for text in texts {
                    let frame = serde_json::from_str(text.as_str().unwrap_or_default());
                    self.note_message(at, how, &frame.unwrap_or_default());
                }
            }
            // Replies to requests from before the connection was given up.
            (Some(15 | 429 | 503), _) => (),
            _ if is_ack(frame) => (),
            _ => self.strays.push(frame.to_string()),
        }
    }

    fn note_message(&mut self, at: Moment, how: How, frame: &Value) {
        let from = frame["FROMID"].as_i64();
        let number = frame["n"].as_u64().and_then(|number| usize::try_from(number).ok());
        let target = match frame["msgType"].as_u64() {
            Some(4) => frame["TOID"].as_i64().map(Target::User),
            _ => frame["GROUPID"].as_i64().map(Target::Group),
        };
        let length = frame["msg"].as_str().map_or(0, str::len);
        match (from, number, target) {
            (Some(from), Some(number), Some(target)) if *frame == message(from, target, number, length) => {
                self.arrivals.push(Arrival { at, from, target, number, how });
            }
            _ => self.strays.push(frame.to_string()),
        }
    }
}

/// A message, determined by its number and its length.
pub fn message(from: i64, target: Target, number: usize, length: usize) -> Value {
    let text = "x".repeat(length);
    match target {
        Target::User(to) => json!({"msgType": 4, "FROMID": from, "TOID": to, "n": number, "msg": text}),
        Target::Group(group) => json!({"msgType": 9, "FROMID": from, "GROUPID": group, "n": number, "msg": text}),
    }
}

pub fn is_ack(frame: &Value) -> bool {
    *frame == json!({"errno": 200, "msgType": 200})
}

/// Whether a login was refused because the server is busy.
pub fn is_busy(frame: &Value) -> bool {
    matches!(frame["errno"].as_u64(), Some(429 | 503))
}
