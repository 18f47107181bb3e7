//! The names of messages and of their content.

use blake2::Blake2s256;
use blake2::digest::Digest as _;

use crate::base::conversation::{ConversationId, Tag};
use crate::base::rows::MessageId;
use crate::protocol::UserId;

/// A sender's own id of a message, unique for ever for this sender.
///
/// The stored form keeps ids that were made one after the other adjacent in the index: 16 bytes for
/// a UUID in its usual form, the unchanged text for any other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Cid(Box<[u8]>);

impl Cid {
    /// The id that a client has given: 1 to 64 printable ASCII characters without blanks. `None`
    /// for any other text.
    pub fn of_client(text: &str) -> Option<Cid> {
        let is_fit = matches!(text.len(), 1..=64) && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
        is_fit.then(|| Cid(uuid(text).map_or_else(|| text.as_bytes().into(), |bytes| with_mark(UUID, &bytes))))
    }

    /// The id of a message without a client's id, for recording from level 1. The 16 bytes must be
    /// unique.
    pub fn of_server(bytes: [u8; 16]) -> Cid {
        Cid(with_mark(SERVER, &bytes))
    }

    /// The id of an imported message, from a hash of its content, so that a second import finds the
    /// first.
    pub fn of_import(hash: [u8; 16]) -> Cid {
        Cid(with_mark(IMPORT, &hash))
    }

    /// The stored form.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id with this stored form.
    pub(in crate::store) fn stored(bytes: impl Into<Box<[u8]>>) -> Cid {
        Cid(bytes.into())
    }
}

/// The first byte of an id that is not stored as text: no character of a client's id, so that ids
/// of different kinds are never equal.
const UUID: u8 = 0;
const SERVER: u8 = 1;
const IMPORT: u8 = 2;

fn with_mark(mark: u8, bytes: &[u8; 16]) -> Box<[u8]> {
    std::iter::once(mark).chain(*bytes).collect()
}

/// The bytes of a UUID in lower case with its hyphens. Another spelling is another id.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return None;
    }
    let (mut bytes, mut nibbles) = ([0; 16], 0);
    for (at, character) in text.iter().enumerate() {
        let digit = match (at, character) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => character - b'0',
            (_, b'a'..=b'f') => character - b'a' + 10,
            _ => return None,
        };
        bytes[nibbles / 2] |= if nibbles % 2 == 0 { digit << 4 } else { digit };
        nibbles += 1;
    }
    Some(bytes)
}

/// Tells equal messages in a mailbox apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occurrence {
    /// The message in this row. Only its recipient has it.
    Row(MessageId),
    /// The nth of the equal messages in the mailbox. Other members of the group have it too, each
    /// in a row of their own.
    Nth(u32),
}

/// The id of an imported message. It is the same in every import by anybody.
pub fn import_cid(conv: ConversationId, sender: UserId, text: &str, occurrence: Occurrence) -> Cid {
    let (kind, number) = match occurrence {
        Occurrence::Row(MessageId(id)) => (0, id),
        Occurrence::Nth(nth) => (1, nth.into()),
    };
    let mut hash = Blake2s256::new();
    for part in [conv.column(), sender.0.into(), kind, number] {
        hash.update(part.to_le_bytes());
    }
    hash.update(text);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    Cid::of_import(short)
}

/// A hash of a frame's bytes, which distinguishes a retry from another message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameHash(pub [u8; 16]);

impl FrameHash {
    /// The hash of the bytes from `{` to `}`.
    pub fn of(frame: &[u8]) -> FrameHash {
        let mut hash = [0; 16];
        hash.copy_from_slice(&Blake2s256::digest(frame)[..16]);
        FrameHash(hash)
    }

    /// The stored hash. Bytes of another length match no frame.
    pub(in crate::store) fn stored(bytes: &[u8]) -> FrameHash {
        FrameHash(bytes.try_into().unwrap_or_default())
    }
}

/// The tag of a message, derived only from facts that never change.
pub fn tag_of(conv: ConversationId, seq: i64, sender: UserId, cid: &Cid, time: i64) -> Tag {
    let mut hash = Blake2s256::new();
    for part in [conv.column(), seq, sender.0.into(), time] {
        hash.update(part.to_le_bytes());
    }
    hash.update(cid.bytes());
    let mut tag = [0; 4];
    tag.copy_from_slice(&hash.finalize()[..4]);
    Tag(u32::from_be_bytes(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_one_to_one_with_what_is_stored() {
        let cid = |text: &str| Cid::of_client(text);
        let uuid = "0198c5a0-7b1f-7cc2-9d3e-0123456789ab";
        assert_eq!(cid(uuid).unwrap().bytes().len(), 17);
        for other in [&uuid.to_uppercase(), &uuid.replace('-', "_"), &uuid[1..]] {
            assert_eq!(cid(other).unwrap().bytes(), other.as_bytes());
        }
        assert!(cid("0198c5a0-7b1f-7cc2-9d3e-0123456789ac") > cid(uuid), "the order of time stays");
        for unfit in ["", " ", "a b", "é", "\u{7f}", &"x".repeat(65)] {
            assert_eq!(cid(unfit), None, "{unfit:?}");
        }
        assert!(cid(&"~".repeat(64)).is_some());
        assert_ne!(Cid::of_server([1; 16]), Cid::of_import([1; 16]));
    }

    #[test]
    fn an_import_is_recognised_by_all_that_makes_a_message() {
        let (conv, other) = (ConversationId::from_column(5), ConversationId::from_column(6));
        let cid = import_cid(conv, UserId(7), "a", Occurrence::Nth(1));
        assert_eq!(cid, import_cid(conv, UserId(7), "a", Occurrence::Nth(1)));
        for different in [
            import_cid(other, UserId(7), "a", Occurrence::Nth(1)),
            import_cid(conv, UserId(8), "a", Occurrence::Nth(1)),
            import_cid(conv, UserId(7), "b", Occurrence::Nth(1)),
            import_cid(conv, UserId(7), "a", Occurrence::Nth(2)),
            import_cid(conv, UserId(7), "a", Occurrence::Row(MessageId(1))),
        ] {
            assert_ne!(different, cid);
        }
    }

    #[test]
    fn a_tag_depends_on_all_that_makes_a_message() {
        let cid = |text: &str| Cid::of_client(text).unwrap();
        let five = ConversationId::from_column(5);
        let tag = tag_of(five, 42, UserId(7), &cid("a"), 1000);
        assert_eq!(tag, tag_of(five, 42, UserId(7), &cid("a"), 1000));
        for other in [
            tag_of(ConversationId::from_column(6), 42, UserId(7), &cid("a"), 1000),
            tag_of(five, 43, UserId(7), &cid("a"), 1000),
            tag_of(five, 42, UserId(8), &cid("a"), 1000),
            tag_of(five, 42, UserId(7), &cid("b"), 1000),
            tag_of(five, 42, UserId(7), &cid("a"), 1001),
        ] {
            assert_ne!(other, tag);
        }
    }
}
