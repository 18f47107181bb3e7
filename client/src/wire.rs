//! [`Lines`]: cuts the bytes from a server into frames. The server answers a client that ends its
//! requests with a newline with one JSON object in each line, and no object has a newline inside.

/// Frames of a server are shorter than this.
const FRAME_MAX: usize = 512 * 1024;

/// Bytes that have arrived and were not taken.
#[derive(Default, Debug)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    /// The beginning of the first frame that is not taken.
    begin: usize,
    /// The end of the bytes that were searched and have no newline.
    searched: usize,
}

/// A frame that is longer than a server may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooLong;

impl Lines {
    /// Appends bytes that have arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without blanks around it; empty lines are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        loop {
            let Some(at) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                let is_too_long = self.searched - self.begin > FRAME_MAX;
                return if is_too_long { Err(TooLong) } else { Ok(None) };
            };
            let (begin, end) = (self.begin, self.searched + at);
            self.begin = end + 1;
            self.searched = end + 1;
            if end - begin > FRAME_MAX {
                return Err(TooLong);
            }
            if !self.bytes[begin..end].trim_ascii().is_empty() {
                return Ok(Some(self.bytes[begin..end].trim_ascii()));
            }
        }
    }

    /// The bytes that are left when the connection ends. A server that has received nothing yet
    /// writes no newlines.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let rest = self.bytes[self.begin..].trim_ascii().to_vec();
        *self = Lines::default();
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next().expect("short lines") {
            found.push(String::from_utf8(line.to_vec()).expect("text"));
        }
        found
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let text = "{\"a\":1}\n{\"b\":2}\r\n\n  {\"c\":3}\n{\"d\"";
        for step in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(step) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            assert_eq!(found, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#], "pieces of {step}");
            assert_eq!(lines.rest(), br#"{"d""#);
        }
    }

    #[test]
    fn a_server_cannot_fill_the_memory_with_one_frame() {
        let mut lines = Lines::default();
        let mut pushed = 0;
        while lines.next() == Ok(None) {
            lines.push(&[b'x'; 10_000]);
            pushed += 10_000;
            assert!(pushed <= FRAME_MAX + 10_000, "it is noticed");
        }
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; FRAME_MAX + 1]);
        lines.push(b"\n");
        assert_eq!(lines.next(), Err(TooLong));
    }
}
