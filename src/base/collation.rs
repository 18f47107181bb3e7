//! How names are compared: without regard to case and accents, as MySQL's `utf8mb4_0900_ai_ci`
//! does.
//!
//! That collation gives every character weights from the Unicode collation table (UTS #10) and
//! compares the primary ones only. [`fold`] gives the same result without the table: two texts are
//! equal there if their folded forms are the same bytes. Folded texts are never used for ordering,
//! and never shown.
//!
//! The differences from MySQL, found by comparing every single character with the table:
//! - Equal there, different here: hiragana and katakana, kana of different size, the digits of
//!   different scripts (but not full-width ones), a few Latin letters (`ꜳ`, `ʣ`) and letters of
//!   historic scripts.
//! - Different there, equal here: kinds of blanks, and the few letters that medieval texts write
//!   above another letter.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

/// The form of `text` in which equal names are equal bytes.
///
/// The result contains no NUL and no control characters other than blanks (tab, newline and the
/// like). It may be empty though `text` is not. It is composed (NFC), so that a syllable is found
/// only as a whole and never as a part of another.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut before = '\0';
    for c in text.nfkd() {
        if !is_ignored(c) || makes_another_letter(before, c) {
            for lower in c.to_lowercase() {
                push_spelled(&mut folded, lower);
            }
        }
        before = c;
    }
    folded.nfc().collect()
}

/// Whether the collation gives `c`, a character of decomposed text, no primary weight.
fn is_ignored(c: char) -> bool {
    match c {
        '\t'..='\r' | '\u{85}' => false,
        _ if c.is_control() => true,
        // Format characters and variation selectors: invisible, so a name that differs only by them
        // is a forgery.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => true,
        '\u{e0001}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}' => true,
        // Enclosing marks: the circle or keycap around a character.
        '\u{488}' | '\u{489}' | '\u{20dd}'..='\u{20e0}' | '\u{20e2}'..='\u{20e4}' => true,
        // Marks with a class are accents and tone signs, except the viramas (9) and the vowels of
        // Telugu, Thai, Lao and Tibetan, which are letters of their own.
        _ => !matches!(canonical_combining_class(c), 0 | 9 | 84 | 91 | 103 | 118 | 129 | 130 | 132),
    }
}

/// The accented letters that the table takes for other letters than their base: `й`, and `آ أ إ ؤ
/// ئ`.
fn makes_another_letter(before: char, c: char) -> bool {
    matches!((before, c), ('и' | 'И', '\u{306}') | ('ا' | 'و' | 'ي', '\u{653}'..='\u{655}'))
}

/// Appends one lower-case letter; those that do not decompose but whose weights are other letters'
/// become these.
fn push_spelled(folded: &mut String, lower: char) {
    match lower {
        'ß' => folded.push_str("ss"),
        'æ' => folded.push_str("ae"),
        'œ' => folded.push_str("oe"),
        'ø' => folded.push('o'),
        'đ' | 'ð' => folded.push('d'),
        'ħ' => folded.push('h'),
        'ł' => folded.push('l'),
        'ґ' => folded.push('г'),
        'ς' => folded.push('σ'),
        'ך' => folded.push('כ'),
        'ם' => folded.push('מ'),
        'ן' => folded.push('נ'),
        'ף' => folded.push('פ'),
        'ץ' => folded.push('צ'),
        other => folded.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_in_the_collation() {
        for (a, b) in [
            ("Harper", "hARPER"),
            ("Zoë", "ZOE"),
            ("Straße", "STRASSE"),
            ("STRAẞE", "strasse"),
            ("Ærø", "aero"),
            ("Łódź", "lodz"),
            ("第１２组", "第12组"),
            ("Ａｂｃ", "abc"),
            ("ΟΔΟΣ", "οδός"),
            ("İstanbul", "istanbul"),
            ("ﬁn", "FIN"),
            ("が", "か"),
            ("Ёлка", "елка"),
            ("שלום", "שָׁלוֹמ"),
            ("a\u{200b}b\0c\u{fe0f}", "abc"),
            ("e\u{301}", "é"),
            ("각", "\u{1100}\u{1161}\u{11a8}"),
        ] {
            assert_eq!(fold(a), fold(b), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn different_in_the_collation() {
        for (a, b) in [
            ("и", "й"),
            ("ا", "أ"),
            ("कि", "का"),
            ("क्", "क"),
            ("กุ", "กู"),
            ("ı", "i"),
            ("a", "a "),
            ("a\tb", "ab"),
            ("😀", "😁"),
            ("%", "_"),
            ("þ", "th"),
        ] {
            assert_ne!(fold(a), fold(b), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn a_syllable_is_not_found_in_another() {
        assert!(!fold("각").contains(&fold("가")));
        assert!(!fold("й").contains(&fold("и")));
    }

    #[test]
    fn only_ignored_characters_leave_nothing() {
        assert_eq!(fold("\0\u{301}\u{200d}"), "");
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            let folded = fold(&text);
            prop_assert_eq!(fold(&folded), folded);
        }

        #[test]
        fn no_nul_remains(text in any::<String>()) {
            prop_assert!(!fold(&text).contains('\0'));
        }
    }
}
