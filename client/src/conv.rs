//! [`Conv`]: the name of a conversation, as its user sees it.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};

/// A conversation: with a user (`u9`), or of a group (`g3`). The user's own id names notes to
/// oneself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Conv {
    /// The conversation with the user who has this id.
    User(i64),
    /// The group that has this id.
    Group(i64),
}

/// The error for a text that is not the name of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAConv;

impl Conv {
    /// The id of the user or of the group.
    pub fn id(self) -> i64 {
        match self {
            Conv::User(id) | Conv::Group(id) => id,
        }
    }

    /// Whether the conversation is a group.
    pub fn is_group(self) -> bool {
        matches!(self, Conv::Group(_))
    }
}

impl fmt::Display for Conv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conv::User(id) => write!(f, "u{id}"),
            Conv::Group(id) => write!(f, "g{id}"),
        }
    }
}

impl FromStr for Conv {
    type Err = NotAConv;

    /// Reads a name in the server's form, without a sign and leading zeros.
    fn from_str(text: &str) -> Result<Conv, NotAConv> {
        let (kind, digits) = text.split_at_checked(1).ok_or(NotAConv)?;
        let id: i64 = digits.parse().map_err(|_| NotAConv)?;
        if id <= 0 || digits.starts_with(['0', '+']) {
            return Err(NotAConv);
        }
        match kind {
            "u" => Ok(Conv::User(id)),
            "g" => Ok(Conv::Group(id)),
            _ => Err(NotAConv),
        }
    }
}

impl fmt::Display for NotAConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a conversation is written as u9 (with user 9) or g3 (group 3)")
    }
}

impl std::error::Error for NotAConv {}

impl<'de> Deserialize<'de> for Conv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Conv, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_only_as_it_is_written() {
        for name in ["u9", "g3", "u9223372036854775807"] {
            assert_eq!(name.parse::<Conv>().map(|conv| conv.to_string()), Ok(name.to_owned()));
        }
        for wrong in ["", "u", "9", "u0", "u-1", "u+1", "u01", "x1", "U1", "u1 ", "ü1", "u9223372036854775808"] {
            assert_eq!(wrong.parse::<Conv>(), Err(NotAConv), "{wrong}");
        }
    }
}
