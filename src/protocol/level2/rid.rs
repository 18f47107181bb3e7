//! [`Rid`]: a client's name of its request.

use std::fmt;

/// The client's name of a request, repeated in the reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rid {
    /// A text of 1 to 64 characters.
    Text(Box<str>),
    /// An integer within ±2^53.
    Integer(i64),
}

impl Rid {
    /// `None` for a text that is empty or too long: it is not repeated.
    pub fn text(text: &str) -> Option<Rid> {
        // The bytes are checked first, because a text may be as long as a frame.
        let is_fit = text.len() <= 4 * RID_CHARS_MAX && matches!(text.chars().count(), 1..=RID_CHARS_MAX);
        is_fit.then(|| Rid::Text(text.into()))
    }

    /// `None` for an integer that JSON readers may not represent exactly: it is not repeated.
    pub fn integer(integer: i64) -> Option<Rid> {
        (-RID_INTEGER_MAX..=RID_INTEGER_MAX).contains(&integer).then_some(Rid::Integer(integer))
    }
}

/// As JSON.
impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rid::Text(text) => f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?),
            Rid::Integer(integer) => integer.fmt(f),
        }
    }
}

const RID_CHARS_MAX: usize = 64;
const RID_INTEGER_MAX: i64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_not_repeated() {
        let text = |text: &str| Rid::text(text).map(|rid| rid.to_string());
        assert_eq!(text("a\"\n"), Some(r#""a\"\n""#.to_owned()));
        assert_eq!(text(&"你".repeat(64)), Some(format!("\"{}\"", "你".repeat(64))));
        assert_eq!((text(""), text(&"x".repeat(65)), text(&"😀".repeat(65))), (None, None, None));
        let integer = |integer| Rid::integer(integer).is_some();
        assert!(integer(1 << 53) && integer(-(1 << 53)) && integer(0));
        assert!(!integer((1 << 53) + 1) && !integer(-(1 << 53) - 1) && !integer(i64::MIN));
    }
}
