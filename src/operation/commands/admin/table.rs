//! Tables that show an answer of the administration to people.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Shows lists of objects as tables, and everything else as `name: value`.
pub(super) fn shown(answer: &Value) -> String {
    let Some(members) = answer.as_object() else { return cell(answer) };
    // A single object is shown by its members.
    if let Some(Value::Object(only)) = members.values().next().filter(|_| members.len() == 1) {
        return shown(&Value::Object(only.clone()));
    }
    let (lists, others): (Vec<_>, Vec<_>) = members.iter().partition(|(name, value)| is_table(name, value));
    let mut text = String::new();
    let after = lists.iter().find_map(|(_, rows)| rows.as_array()?.last()?.get("id"));
    for (name, value) in others {
        match (name.as_str(), after) {
            ("more", Some(after)) if value == &Value::Bool(true) => {
                let _ = writeln!(text, "there are more: --after {after}");
            }
            ("more", _) => {}
            _ => drop(writeln!(text, "{name}: {}", cell(value))),
        }
    }
    for (name, value) in lists {
        let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<&Map<String, Value>> = rows.iter().filter_map(Value::as_object).collect();
        if !text.is_empty() {
            text.push('\n');
        }
        match rows.is_empty() {
            true => text.push_str(&format!("no {name}\n")),
            false => table(&rows, &mut text),
        }
    }
    text
}

fn is_table(name: &str, value: &Value) -> bool {
    // Only the name of an empty list shows what it would contain.
    let of_objects =
        |rows: &Vec<Value>| TABLES.contains(&name) || !rows.is_empty() && rows.iter().all(Value::is_object);
    value.as_array().is_some_and(of_objects)
}

fn table(rows: &[&Map<String, Value>], text: &mut String) {
    // All rows have the same members.
    let names: Vec<&String> = rows.iter().take(1).flat_map(|row| row.keys()).collect();
    let line = |row: &Map<String, Value>| -> Vec<String> {
        names.iter().map(|name| row.get(*name).map_or_else(String::new, cell)).collect()
    };
    let mut lines = vec![names.iter().map(|name| heading(name)).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| line(row)));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    for line in &lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(shown, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", shown.trim_end());
    }
}

/// An address is headed by the option that selects it; `--address` is that of the admin port.
fn heading(name: &str) -> String {
    if name == "address" { "FROM".to_owned() } else { name.to_uppercase() }
}

/// A value in one line. Users choose names, so control characters, which could move a terminal's
/// cursor, are replaced.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The lists of objects in answers.
const TABLES: [&str; 5] = ["connections", "devices", "groups", "members", "users"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_tables() {
        let answer = json!({"more": true, "users": [{"id": 7, "name": "ann"}, {"id": 12, "name": "b\u{1b}[2Job"}], "next": null});
        assert_eq!(shown(&answer), "there are more: --after 12\nnext: -\n\nID  NAME\n7   ann\n12  b\u{fffd}[2Job\n");
        assert_eq!(shown(&json!({"users": [], "more": false})), "no users\n");
        assert_eq!(shown(&json!({"connections": [{"address": "::1"}]})), "FROM\n::1\n");
        assert_eq!(shown(&json!({"announcement": {"id": "x"}})), "id: x\n");
        assert_eq!(shown(&json!({"applied": [], "needs_restart": []})), "applied: -\nneeds_restart: -\n");
        assert_eq!(shown(&json!({"applied": ["a", "b"], "n": 1})), "applied: a, b\nn: 1\n");
    }
}
