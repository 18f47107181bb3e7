//! The answers to `trace` and `explain` in a form for people: the important facts in sentences,
//! then the tables, without data that only programs need.

use serde_json::{Map, Value, json};

use super::table::{cell, shown};

/// The answer as text; `None` for the answer of another command.
pub(super) fn told(answer: &Value) -> Option<String> {
    let members = answer.as_object()?;
    let sentences = members.get("verdict").or_else(|| members.get("summary"))?.as_array()?;
    let mut text = String::new();
    for sentence in sentences {
        text += &cell(sentence);
        text.push('\n');
    }
    let rest = members.iter().filter(|(name, _)| !matches!(name.as_str(), "verdict" | "summary" | "message"));
    let rest: Map<String, Value> = rest.map(|(name, value)| (name.clone(), for_people(name, value))).collect();
    Some(text + "\n" + &shown(&Value::Object(rest)))
}

fn for_people(list: &str, value: &Value) -> Value {
    let only = |names: &[&str]| {
        let row = |row: &Value| names.iter().map(|name| ((*name).to_owned(), row[name].clone())).collect::<Map<_, _>>();
        value.as_array().map(|rows| rows.iter().map(row).collect())
    };
    let kept = match list {
        "steps" => only(&["at", "hop", "node", "what"]),
        "incidents" => only(&["at", "node", "times", "what"]),
        "waiting" => {
            let least = |waiting: &Map<String, Value>| if waiting["more"] == true { "at least " } else { "" };
            value.as_object().map(|waiting| {
                let (rows, bytes) = (&waiting["rows"], &waiting["bytes"]);
                let messages = if *rows == 1 { "message" } else { "messages" };
                json!(format!("{}{rows} {messages}, {bytes} bytes", least(waiting)))
            })
        }
        "devices" => value.as_array().map(|devices| devices.iter().map(with_cursors).collect()),
        _ => None,
    };
    kept.unwrap_or_else(|| value.clone())
}

/// A device with the conversations in which it is behind as a text.
fn with_cursors(device: &Value) -> Value {
    let mut device = device.clone();
    let only_for_programs = |name: &str| matches!(name, "behind_conversations" | "behind_messages");
    if let Some(behind) = device["behind"].as_array() {
        let one = |at: &Value| format!("{} {} of {}", cell(&at["conversation"]), at["cursor"], at["head"]);
        let mut told: Vec<String> = behind.iter().map(one).collect();
        let left = device["behind_conversations"].as_u64().unwrap_or_default().saturating_sub(told.len() as u64);
        told.extend((left > 0).then(|| format!("and {left} more")));
        device["behind"] = json!(told);
    }
    if let Some(members) = device.as_object_mut() {
        members.retain(|name, _| !only_for_programs(name));
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omitted_rows_are_counted() {
        let device = json!({
            "behind": [{"conversation": "u3", "cursor": 1, "head": 2}],
            "behind_conversations": 26, "behind_messages": 1501, "device": "phone",
        });
        assert_eq!(with_cursors(&device), json!({"behind": ["u3 1 of 2", "and 25 more"], "device": "phone"}));
        let waiting = |rows: u64, more: bool| for_people("waiting", &json!({"bytes": 70, "more": more, "rows": rows}));
        assert_eq!(waiting(1, false), "1 message, 70 bytes");
        assert_eq!(waiting(248, true), "at least 248 messages, 70 bytes");
    }

    #[test]
    fn sentences_come_first() {
        let answer = json!({
            "verdict": ["It is there.", "Twice."],
            "message": {"seq": 1},
            "nodes": [],
            "steps": [{"at": "now", "hop": "stored", "node": "a", "what": "stored it", "number": 5}],
        });
        let expected = "It is there.\nTwice.\n\nnodes: -\n\nAT   HOP     NODE  WHAT\nnow  stored  a     stored it\n";
        assert_eq!(told(&answer).as_deref(), Some(expected));
        assert_eq!(told(&json!({"users": []})), None);
    }
}
