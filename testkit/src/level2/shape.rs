//! The form of a frame that the server composed: compact, keys in byte order, each once, and
//! `null` only where the contract has it.

use serde::de::IgnoredAny;

use super::{Checked, Mistake};

/// Checks the form of `text`, which is valid JSON. The value of a key `m` is a sender's own text
/// and is skipped.
pub(super) fn check(text: &str) -> Checked<()> {
    let mut walk = Walk { text, at: 0 };
    walk.value()?;
    if walk.at == text.len() { Ok(()) } else { walk.wrong("something follows the object") }
}

struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Walk<'t> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn wrong<T>(&self, what: &str) -> Checked<T> {
        let from = self.at.saturating_sub(30);
        let around = String::from_utf8_lossy(&self.text.as_bytes()[from..(self.at + 30).min(self.text.len())]);
        Err(Mistake(format!("{what} at byte {}, in …{around}…", self.at)))
    }

    fn value(&mut self) -> Checked<()> {
        match self.peek() {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string().map(drop),
            b'n' => self.wrong("null"),
            byte if byte.is_ascii_whitespace() => self.wrong("a blank"),
            _ => {
                while !matches!(self.peek(), b',' | b'}' | b']' | 0) {
                    if self.peek().is_ascii_whitespace() {
                        return self.wrong("a blank");
                    }
                    self.at += 1;
                }
                Ok(())
            }
        }
    }

    fn object(&mut self) -> Checked<()> {
        self.at += 1;
        let mut last: Option<&str> = None;
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != b'"' {
                return self.wrong("no key, or a blank before it,");
            }
            let key = self.string()?;
            if last.is_some_and(|last| last.as_bytes() >= key.as_bytes()) {
                return self.wrong(&format!("the key {key:?} is behind {:?}", last.unwrap_or_default()));
            }
            last = Some(key);
            if self.peek() != b':' {
                return self.wrong("a blank");
            }
            self.at += 1;
            match (key, self.peek()) {
                ("m", _) => self.skip()?,
                ("name", b'n') => self.at += "null".len(),
                _ => self.value()?,
            }
            match self.peek() {
                b',' => self.at += 1,
                b'}' => break,
                _ => return self.wrong("a blank"),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self) -> Checked<()> {
        self.at += 1;
        if self.peek() == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            match self.peek() {
                b',' => self.at += 1,
                b']' => break,
                _ => return self.wrong("a blank"),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// A string without its quotes; escapes stay as they are.
    fn string(&mut self) -> Checked<&'t str> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'\\') => at += 2,
                Some(b'"') => break,
                Some(_) => at += 1,
                None => return self.wrong("an endless string"),
            }
        }
        self.at = at + 1;
        Ok(&self.text[start..at])
    }

    /// Skips a value. Only its delimiters are looked at.
    fn skip(&mut self) -> Checked<()> {
        if self.peek().is_ascii_whitespace() {
            return self.wrong("a blank");
        }
        let rest = &self.text[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        values.next();
        let end = values.byte_offset();
        if rest[..end].contains(['\n', '\r']) {
            return self.wrong("a raw newline in m");
        }
        self.at += end;
        Ok(())
    }
}
