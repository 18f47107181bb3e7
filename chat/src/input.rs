//! [`Input`]: the line in which a message is written.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::safe;

/// A text and a cursor, which is always between two graphemes.
#[derive(Default, Debug)]
pub(crate) struct Input {
    text: String,
    at: usize,
}

/// The longest text that can be typed, in bytes. Its frame stays below the server's limit.
pub(crate) const TEXT_MAX: usize = 60_000;

impl Input {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Takes the whole text out and leaves the line empty.
    pub(crate) fn take(&mut self) -> String {
        self.at = 0;
        std::mem::take(&mut self.text)
    }

    pub(crate) fn set(&mut self, text: String) {
        self.at = text.len();
        self.text = text;
    }

    /// Inserts the text at the cursor, all of it or nothing; returns whether there was room. Line
    /// breaks stay; other control characters are dropped.
    pub(crate) fn insert(&mut self, text: &str) -> bool {
        let text: String = text.replace("\r\n", "\n").replace('\r', "\n");
        let text: String = text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
        let fits = self.text.len() + text.len() <= TEXT_MAX;
        if fits {
            self.text.insert_str(self.at, &text);
            self.at += text.len();
        }
        fits
    }

    pub(crate) fn backspace(&mut self) {
        let from = self.before();
        self.text.replace_range(from..self.at, "");
        self.at = from;
    }

    pub(crate) fn delete(&mut self) {
        let to = self.behind();
        self.text.replace_range(self.at..to, "");
    }

    /// Removes the word before the cursor.
    pub(crate) fn delete_word(&mut self) {
        let kept = self.text[..self.at].trim_end();
        let from =
            kept.rfind(char::is_whitespace).map_or(0, |at| at + kept[at..].chars().next().map_or(1, char::len_utf8));
        self.text.replace_range(from..self.at, "");
        self.at = from;
    }

    pub(crate) fn left(&mut self) {
        self.at = self.before();
    }

    pub(crate) fn right(&mut self) {
        self.at = self.behind();
    }

    pub(crate) fn home(&mut self) {
        self.at = 0;
    }

    pub(crate) fn end(&mut self) {
        self.at = self.text.len();
    }

    fn before(&self) -> usize {
        self.text[..self.at].graphemes(true).next_back().map_or(0, |grapheme| self.at - grapheme.len())
    }

    fn behind(&self) -> usize {
        self.text[self.at..].graphemes(true).next().map_or(self.at, |grapheme| self.at + grapheme.len())
    }

    /// The part around the cursor that fits into this many columns, and the cursor's column.
    pub(crate) fn shown(&self, width: usize) -> (String, usize) {
        let width = width.max(4);
        let before = shown(&self.text[..self.at]);
        let behind = shown(&self.text[self.at..]);
        let (mut left, mut used) = (before.len(), 0);
        for grapheme in before.graphemes(true).rev() {
            if used + grapheme.width() > width - 2 {
                break;
            }
            used += grapheme.width();
            left -= grapheme.len();
        }
        let mut text = before[left..].to_owned();
        let mut all = used;
        for grapheme in behind.graphemes(true) {
            if all + grapheme.width() > width {
                break;
            }
            all += grapheme.width();
            text.push_str(grapheme);
        }
        (text, used)
    }
}

/// The text as one line; each line break becomes a symbol.
fn shown(text: &str) -> String {
    safe::lines(&text.replace('\n', "\u{21b5}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &str) -> Input {
        let mut input = Input::default();
        input.insert(text);
        input
    }

    #[test]
    fn graphemes_are_moved_over_and_removed_as_one() {
        let mut input = input("a\u{4f60}e\u{301}\u{1F468}\u{200D}\u{1F469}");
        assert_eq!(input.shown(80), ("a\u{4f60}e\u{301}\u{1F468}\u{200D}\u{1F469}".to_owned(), 6));
        input.backspace();
        input.left();
        assert_eq!(input.shown(80).1, 3);
        input.backspace();
        input.insert("b\x1b[2J\u{9b}");
        assert_eq!(input.text(), "ab[2Je\u{301}");
        input.home();
        input.delete();
        input.end();
        input.delete();
        input.delete_word();
        assert_eq!((input.text(), input.shown(80)), ("", (String::new(), 0)));
    }

    #[test]
    fn a_long_text_is_shown_around_the_place() {
        let mut long = input(&"\u{4f60}".repeat(100));
        let (text, column) = long.shown(10);
        assert_eq!((text.width(), column), (8, 8));
        long.home();
        assert_eq!(long.shown(10).0.width(), 10);
        long.insert("x\ny");
        assert!(long.shown(10).0.starts_with("x\u{21b5}y"));
        assert!(!long.insert(&"z".repeat(TEXT_MAX)));
        assert!(long.text().len() < 400, "too long a text is not taken");
    }

    #[test]
    fn words_are_removed_whatever_blank_is_before_them() {
        let mut input = input("one two\u{3000}three ");
        input.delete_word();
        assert_eq!(input.text(), "one two\u{3000}");
        input.delete_word();
        assert_eq!(input.text(), "one ");
        assert_eq!(input.take(), "one ");
    }
}
