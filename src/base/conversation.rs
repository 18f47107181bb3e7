//! Conversations of level 2, and places in them: [`ConversationId`] in the store,
//! [`ConversationName`] on the wire, [`Cursor`] for the position that a client has reached.

use std::fmt;

use super::ids::{GroupId, UserId};

/// The number of a message in its conversation: 1, 2, 3 … without a hole. 0 is before the first.
/// Never negative, and always below [`SEQ_END`].
pub type Seq = i64;

/// Numbers are below this: JSON readers store numbers as doubles, which are exact up to here.
pub const SEQ_END: Seq = 1 << 53;

/// A conversation's id, the same for all who are in it: the group's id, or `lower user << 32 |
/// higher user`. It is computed and never looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConversationId(i64);

/// A conversation as one of its users names it: `u9` is the one with user 9, `g3` is group 3. The
/// user's own id names the notes to oneself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ConversationName {
    /// The conversation with this user.
    User(UserId),
    /// The conversation of this group.
    Group(GroupId),
}

/// The tag of a message, derived from its content. A client's tag that does not match reveals that
/// the database has lost its latest messages. On the wire: eight lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag(pub u32);

/// A client's place in a conversation: `41:9f3ac1d0` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The last number that was reached.
    pub seq: Seq,
    /// The tag of that message.
    pub tag: HeldTag,
}

/// The tag in a client's cursor, which may be any text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HeldTag {
    /// A tag that a message may have.
    Tag(Tag),
    /// Text that is not the tag of any message.
    Foreign,
}

impl ConversationId {
    /// The conversation of two users, in either order, or the notes of one user.
    pub fn between(a: UserId, b: UserId) -> ConversationId {
        ConversationId(i64::from(a.0.min(b.0)) << 32 | i64::from(a.0.max(b.0)))
    }

    /// The conversation of a group.
    pub fn of_group(group: GroupId) -> ConversationId {
        ConversationId(group.0.into())
    }

    /// The id in a column.
    pub fn from_column(id: i64) -> ConversationId {
        ConversationId(id)
    }

    /// The id for a column.
    pub fn column(self) -> i64 {
        self.0
    }

    /// Its group, if it is one.
    pub fn group(self) -> Option<GroupId> {
        i32::try_from(self.0).ok().map(GroupId)
    }

    /// Its two users, the lower id first, if it is not a group. Notes to oneself have one user
    /// twice.
    pub fn users(self) -> Option<(UserId, UserId)> {
        // The cast takes the lower half.
        self.group().is_none().then_some((UserId((self.0 >> 32) as i32), UserId(self.0 as i32)))
    }

    /// The conversation's name as `user`, a member, sees it.
    pub fn name_for(self, user: UserId) -> ConversationName {
        match (self.group(), self.users()) {
            (None, Some((lower, higher))) => ConversationName::User(if lower == user { higher } else { lower }),
            (group, _) => ConversationName::Group(group.unwrap_or(GroupId(0))),
        }
    }
}

impl ConversationName {
    /// Reads a name exactly as the server writes it: `u` or `g`, and an id without a sign or
    /// leading zeros.
    pub fn parse(text: &str) -> Option<ConversationName> {
        let id = |digits: &str| {
            let is_canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
            digits.parse().ok().filter(|_| is_canonical)
        };
        match text.as_bytes().first()? {
            b'u' => Some(ConversationName::User(UserId(id(&text[1..])?))),
            b'g' => Some(ConversationName::Group(GroupId(id(&text[1..])?))),
            _ => None,
        }
    }

    /// The conversation to which `user` gives this name.
    pub fn for_user(self, user: UserId) -> ConversationId {
        match self {
            ConversationName::User(other) => ConversationId::between(user, other),
            ConversationName::Group(group) => ConversationId::of_group(group),
        }
    }
}

impl fmt::Display for ConversationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConversationName::User(user) => write!(f, "u{user}"),
            ConversationName::Group(group) => write!(f, "g{group}"),
        }
    }
}

impl Tag {
    /// Reads a tag exactly as the server writes it.
    pub fn parse(text: &str) -> Option<Tag> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_canonical = text.len() == 8 && text.bytes().all(is_digit);
        is_canonical.then(|| u32::from_str_radix(text, 16).ok().map(Tag)).flatten()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Cursor {
    /// Reads a cursor as a client composes it from what the server writes: a number without leading
    /// zeros, a colon, a tag. Number 0 has no tag.
    pub fn parse(text: &str) -> Option<Cursor> {
        let (digits, tag) = text.split_once(':')?;
        let is_canonical = digits == "0" || !digits.starts_with('0');
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let seq: Seq = digits.parse().ok().filter(|seq| is_canonical && all_digits && *seq < SEQ_END)?;
        let is_there = !tag.is_empty() || seq == 0;
        is_there.then(|| Cursor { seq, tag: Tag::parse(tag).map_or(HeldTag::Foreign, HeldTag::Tag) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_has_one_id_and_a_name_from_each_side() {
        let (ann, bob) = (UserId(7), UserId(i32::MAX));
        let both = ConversationId::between(ann, bob);
        assert_eq!(both, ConversationId::between(bob, ann));
        assert_eq!(
            (both.name_for(ann), both.name_for(bob)),
            (ConversationName::User(bob), ConversationName::User(ann))
        );
        assert_eq!((both.group(), both.users()), (None, Some((ann, bob))));
        let notes = ConversationId::between(ann, ann);
        assert_eq!((notes.name_for(ann), notes.users()), (ConversationName::User(ann), Some((ann, ann))));
        let group = ConversationId::of_group(GroupId(i32::MAX));
        assert_eq!((group.name_for(ann), group.users()), (ConversationName::Group(GroupId(i32::MAX)), None));
        for conversation in [both, notes, group] {
            assert_eq!(conversation.name_for(ann).for_user(ann), conversation);
            assert_eq!(ConversationId::from_column(conversation.column()), conversation);
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["u1", "g1", "u2147483647", "g30"] {
            assert_eq!(ConversationName::parse(name).map(|name| name.to_string()), Some(name.to_owned()));
        }
        let wrong =
            ["", "u", "9", "u0", "u09", "u-1", "u+1", "U9", "u9 ", " u9", "g2147483648", "x9", "u9é", "é9", "u9.0"];
        for name in wrong {
            assert_eq!(ConversationName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn cursors_are_read_as_they_are_composed() {
        let cursor = |seq, tag| Some(Cursor { seq, tag });
        for (text, seq, tag) in [("41:9f3ac1d0", 41, 0x9f3a_c1d0), ("9007199254740991:ffffffff", SEQ_END - 1, u32::MAX)]
        {
            assert_eq!(Cursor::parse(text), cursor(seq, HeldTag::Tag(Tag(tag))), "{text}");
        }
        for text in ["41:9F3AC1D0", "41:9f3ac1d", "41:9f3ac1d00", "41:+f3ac1d0", "41:9f3ac1d0:", "41:日", "41: "] {
            assert_eq!(Cursor::parse(text), cursor(41, HeldTag::Foreign), "{text}");
        }
        assert_eq!(Cursor::parse("0:"), cursor(0, HeldTag::Foreign));
        let wrong = ["", ":", "41", "41:", ":9f3ac1d0", "041:9f3ac1d0", "+41:9f3ac1d0", "-1:9f3ac1d0"];
        for text in wrong.into_iter().chain(["9007199254740992:9f3ac1d0", "41 :9f3ac1d0", "00:9f3ac1d0", "x:9f3ac1d0"])
        {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
