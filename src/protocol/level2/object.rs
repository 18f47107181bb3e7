//! [`Object`]: compact JSON, one member after the other.

use std::fmt::{Display, Write};

/// A JSON object under composition. Debug builds check that keys come in byte order.
pub(super) struct Object {
    text: String,
    #[cfg(debug_assertions)]
    last: &'static str,
}

impl Object {
    pub(super) fn new() -> Object {
        Object::with_capacity(128)
    }

    /// An empty object, with room for this number of bytes.
    pub(super) fn with_capacity(bytes: usize) -> Object {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Object {
            text,
            #[cfg(debug_assertions)]
            last: "",
        }
    }

    /// A number, or true or false.
    pub(super) fn value(mut self, key: &'static str, value: impl Display) -> Object {
        self.key(key);
        write!(self.text, "{value}").expect("a String takes everything");
        self
    }

    /// The value, if there is one.
    pub(super) fn maybe(self, key: &'static str, value: Option<impl Display>) -> Object {
        match value {
            Some(value) => self.value(key, value),
            None => self,
        }
    }

    /// `true`, or nothing.
    pub(super) fn flag(self, key: &'static str, is_set: bool) -> Object {
        self.maybe(key, is_set.then_some(true))
    }

    /// A text that needs no escapes: printable ASCII without quotes and backslashes.
    pub(super) fn plain(mut self, key: &'static str, text: impl Display) -> Object {
        self.key(key);
        write!(self.text, "\"{text}\"").expect("a String takes everything");
        self
    }

    /// Any text.
    pub(super) fn text(mut self, key: &'static str, text: &str) -> Object {
        self.key(key);
        push_text(&mut self.text, text);
        self
    }

    /// JSON as it is.
    pub(super) fn json(mut self, key: &'static str, json: &str) -> Object {
        self.key(key);
        self.text.push_str(json);
        self
    }

    /// A list of JSON values.
    pub(super) fn list<T: AsRef<str>>(mut self, key: &'static str, values: impl IntoIterator<Item = T>) -> Object {
        self.key(key);
        self.text.push('[');
        for (nth, value) in values.into_iter().enumerate() {
            if nth > 0 {
                self.text.push(',');
            }
            self.text.push_str(value.as_ref());
        }
        self.text.push(']');
        self
    }

    pub(super) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }

    fn key(&mut self, key: &'static str) {
        #[cfg(debug_assertions)]
        {
            assert!(self.last < key, "{key} comes before {}", self.last);
            self.last = key;
        }
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(key);
        self.text.push_str("\":");
    }
}

/// Appends a text as a JSON string.
fn push_text(json: &mut String, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::to_string(text).expect("a text is JSON"));
    }
}
