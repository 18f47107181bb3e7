//! Text of other users on this terminal. No message and no name can control the terminal: control
//! characters are shown as symbols, never written.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// The text in a form that is safe to write to a terminal; line breaks stay.
pub(crate) fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").chars().flat_map(shown).collect()
}

/// The text on one line.
pub(crate) fn line(text: &str) -> String {
    lines(text).replace('\n', " ")
}

/// JSON in a form that is safe to write to a terminal. Only strings can hold control characters,
/// and an escape in a string means the same character.
pub(crate) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

fn shown(c: char) -> impl Iterator<Item = char> {
    let (c, count) = match c {
        '\n' => ('\n', 1),
        '\t' => (' ', 4),
        // Unicode has symbols for the ASCII control characters.
        '\0'..='\x1f' => (char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'), 1),
        '\x7f' => ('\u{2421}', 1),
        _ if c.is_control() || is_invisible(c) => ('\u{fffd}', 1),
        _ => (c, 1),
    };
    std::iter::repeat_n(c, count)
}

/// Characters that reorder the text around them, and those that end a line for some programs.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text in lines of at most this many columns, broken at blanks where possible.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut wrapped = Vec::new();
    for paragraph in text.split('\n') {
        let (mut line, mut used) = (String::new(), 0);
        for word in paragraph.split_word_bounds() {
            let columns = word.width();
            if used + columns > width && columns <= width && used > 0 {
                wrapped.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            if used == 0 && word.trim().is_empty() && !wrapped.is_empty() && !line.is_empty() {
                continue;
            }
            for grapheme in word.graphemes(true) {
                let columns = grapheme.width();
                if used + columns > width {
                    wrapped.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push_str(grapheme);
                used += columns;
            }
        }
        wrapped.push(line);
    }
    wrapped
}

/// The beginning of a text that fits into this many columns. If anything is cut off, an ellipsis
/// shows it.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut cut, mut used) = (String::new(), 0);
    for grapheme in text.graphemes(true) {
        if used + grapheme.width() + 1 > width {
            break;
        }
        cut.push_str(grapheme);
        used += grapheme.width();
    }
    if width > 0 {
        cut.push('\u{2026}');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_controls_the_terminal() {
        let evil = "\x1b]0;title\x07\x1b[2Jred\x1b[31m \u{9b}31m \u{202e}txet\u{2066} \r\x08\x7f\x00 end";
        let safe = lines(evil);
        assert!(!safe.chars().any(|c| c != '\n' && (c.is_control() || is_invisible(c))), "{safe:?}");
        assert!(safe.contains("\u{241b}[2Jred"), "{safe}");
        assert_eq!(lines("a\r\nb\tc"), "a\nb    c");
        assert_eq!(line("a\nb"), "a b");
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        assert!(lines(&all).chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn escaped_json_means_the_same_and_controls_nothing() {
        let value = serde_json::json!({"text": "\u{9b}31m \u{7f}\u{202e} \u{1b}[2J \u{e0001} fine \u{4f60}"});
        let safe = json(&value.to_string());
        assert!(!safe.chars().any(|c| c.is_control() || is_invisible(c)), "{safe:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("JSON"), value);
    }

    #[test]
    fn lines_are_as_wide_as_they_look() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("\u{4f60}\u{597d}\u{4e16}\u{754c}", 5), ["\u{4f60}\u{597d}", "\u{4e16}\u{754c}"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\n\nb", 4), ["a", "", "b"]);
        for width in 2..20 {
            let lines =
                wrap("a \u{1F468}\u{200D}\u{1F469} \u{4f60}\u{597d} long-long-word e\u{301}e\u{301} end", width);
            assert!(lines.iter().all(|line| line.width() <= width), "{width}: {lines:?}");
        }
        assert_eq!(cut("\u{4f60}\u{597d}\u{4e16}", 5), "\u{4f60}\u{597d}\u{2026}");
        assert_eq!((cut("abc", 3), cut("abcd", 3), cut("abc", 0)), ("abc".into(), "ab\u{2026}".into(), String::new()));
    }
}
