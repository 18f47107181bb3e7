//! [`PeerMessage`]: the messages between nodes, byte for byte.
//!
//! ```text
//! topic      payload
//! u:<user>   1 <node> <sequence>\n<frame>[\n<frame> …]   messages for a user, to be confirmed
//! u:<user>   b <node> <sequence>\n<frame>[\n<frame> …]   the same, returned by a dead connection of that node
//! u:<user>   1+ …, b+ …                                  the same, of messages that are in their conversation already
//! u:<user>   h <place>                                   the user has come to this place
//! h          <place> <user>[,<user> …]                   these users are at that place, which was cut off
//! p:<place>  1 <node>\n<item>[\n<item> …]                messages for users of a place, to be confirmed; an item is
//!                                                        <frames> <user>:<sequence>[,<user>:<sequence> …]
//!                                                        and then that number of frames, one on each line; <frames>
//!                                                        with a + behind it: they are in their conversation already
//! n:<node>   c <place> <sequence> [<sequence> …]         confirmations, to the node that sent the messages; the place
//!                                                        is - if the users are elsewhere as well
//! n:<node>   r <sequence> <count>                        the number of the envelope's messages that were delivered
//! n:<node>   p <number>                                  a node's probe, to itself
//! g          <group>                                     the members of a group have changed
//! l, u:<user>                                            news for connections of level 2, see `devices.rs`
//! ```
//! A place is a node for as long as it receives everything: `<node>-<number>`, with another number
//! for each connection.
//!
//! A frame is JSON text without a raw newline. The `1` is the version: a node ignores messages that
//! it does not know, and the sender then stores the message because it is not confirmed.

use std::io::Write;
use std::str::FromStr;

use super::Topic;
use crate::base::ids::FrameId;
use crate::protocol::{GroupId, UserId};

/// A message of another node, or of this node to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerMessage<'b> {
    /// Messages for a user.
    Envelope { to: UserId, sender: &'b str, sequence: u64, frames: Frames<'b> },
    /// Messages for a user that a dead connection of that node has returned.
    Returned { to: UserId, sender: &'b str, sequence: u64, frames: Frames<'b> },
    /// Messages for users of this place.
    Bundle { sender: &'b str, items: Items<'b> },
    /// The user has logged in at that place.
    Hello { user: UserId, place: &'b str },
    /// All these users are at that place.
    Hellos { place: &'b str, users: &'b str },
    /// These envelopes of this node are settled.
    Confirmations { place: Option<&'b str>, sequences: &'b str },
    /// Only this number of messages of an envelope of this node found their user.
    Refusal { sequence: u64, delivered: usize },
    /// A probe of this node.
    Probe(u64),
    /// The members of this group have changed.
    GroupChanged(GroupId),
    /// News for connections of level 2: of this user, or of all.
    Devices { to: Option<UserId>, payload: &'b str },
}

impl<'b> PeerMessage<'b> {
    /// Parses a message; `None` for one that no node writes.
    pub(crate) fn parse(topic: Topic<&'b str>, payload: &'b [u8]) -> Option<PeerMessage<'b>> {
        let payload = str::from_utf8(payload).ok()?;
        match topic {
            Topic::Place(_) => {
                let (head, rest) = payload.split_once('\n')?;
                Some(PeerMessage::Bundle { sender: head.strip_prefix("1 ")?, items: Items { rest } })
            }
            Topic::Level2 => Some(PeerMessage::Devices { to: None, payload }),
            Topic::User(user) => match payload.strip_prefix("h ") {
                Some(place) => Some(PeerMessage::Hello { user, place }),
                None if payload.starts_with(['m', 's', 'x', 'j', 'l', 'r', 'p']) => {
                    Some(PeerMessage::Devices { to: Some(user), payload })
                }
                None => {
                    let (head, frames) = payload.split_once('\n')?;
                    let frames = Frames::of(frames);
                    let (kind, head) = head.split_once(' ')?;
                    let (sender, sequence) = head.split_once(' ')?;
                    let sequence = number(sequence)?;
                    match kind {
                        "1" => Some(PeerMessage::Envelope { to: user, sender, sequence, frames }),
                        "b" => Some(PeerMessage::Returned { to: user, sender, sequence, frames }),
                        "1+" => Some(PeerMessage::Envelope { to: user, sender, sequence, frames: frames.recorded() }),
                        "b+" => Some(PeerMessage::Returned { to: user, sender, sequence, frames: frames.recorded() }),
                        _ => None,
                    }
                }
            },
            Topic::Hellos => {
                let (place, users) = payload.split_once(' ')?;
                Some(PeerMessage::Hellos { place, users })
            }
            Topic::Groups => number(payload).map(|group| PeerMessage::GroupChanged(GroupId(group))),
            Topic::Node(_) => PeerMessage::parse_answer(payload),
        }
    }

    /// Parses a message that is addressed to a node itself.
    fn parse_answer(payload: &'b str) -> Option<PeerMessage<'b>> {
        match payload.split_once(' ')? {
            ("c", confirmed) => {
                let (place, sequences) = confirmed.split_once(' ')?;
                Some(PeerMessage::Confirmations { place: Some(place).filter(|place| *place != NO_PLACE), sequences })
            }
            ("r", refusal) => {
                let (sequence, delivered) = refusal.split_once(' ')?;
                Some(PeerMessage::Refusal { sequence: number(sequence)?, delivered: number(delivered)? })
            }
            ("p", probe) => number(probe).map(PeerMessage::Probe),
            _ => None,
        }
    }
}

/// The messages of an envelope, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frames<'b> {
    rest: Option<&'b str>,
    is_recorded: bool,
}

impl<'b> Frames<'b> {
    /// The messages of this text, one on each line. There is at least one.
    pub fn of(text: &'b str) -> Frames<'b> {
        Frames { rest: Some(text), is_recorded: false }
    }

    /// The same, which are in their conversation already.
    #[must_use]
    pub fn recorded(self) -> Frames<'b> {
        Frames { is_recorded: true, ..self }
    }

    /// The id of these frames in the output of a connection.
    pub fn id(&self) -> FrameId {
        if self.is_recorded { FrameId::RECORDED } else { FrameId::UNNAMED }
    }
}

impl<'b> Iterator for Frames<'b> {
    type Item = &'b str;

    fn next(&mut self) -> Option<&'b str> {
        let rest = self.rest?;
        let end = memchr::memchr(b'\n', rest.as_bytes());
        self.rest = end.map(|end| &rest[end + 1..]);
        Some(&rest[..end.unwrap_or(rest.len())])
    }
}

/// The items of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Items<'b> {
    rest: &'b str,
}

/// Frames, with the users and sequences of the envelopes that consist of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BundleItem<'b> {
    pub(crate) frames: Frames<'b>,
    envelopes: &'b str,
}

impl<'b> BundleItem<'b> {
    /// The user and the sequence of each envelope.
    pub(crate) fn envelopes(&self) -> impl Iterator<Item = (UserId, u64)> + use<'b> {
        self.envelopes.split(',').filter_map(|envelope| {
            let (user, sequence) = envelope.split_once(':')?;
            Some((UserId(number(user)?), number(sequence)?))
        })
    }
}

impl<'b> Iterator for Items<'b> {
    type Item = BundleItem<'b>;

    /// Invalid bytes end the bundle: its sender stores the messages.
    fn next(&mut self) -> Option<BundleItem<'b>> {
        let (head, rest) = self.rest.split_once('\n')?;
        let (count, envelopes) = head.split_once(' ')?;
        let (count, is_recorded) = count.strip_suffix('+').map_or((count, false), |count| (count, true));
        let last = number::<usize>(count)?.checked_sub(1)?;
        let (frames, rest) = match memchr::memchr_iter(b'\n', rest.as_bytes()).nth(last) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, ""),
        };
        self.rest = rest;
        Some(BundleItem { frames: Frames { is_recorded, ..Frames::of(frames) }, envelopes })
    }
}

/// A bundle that is being written.
#[derive(Debug)]
pub(crate) struct Bundle(Vec<u8>);

impl Bundle {
    pub(crate) fn new(sender: &str) -> Bundle {
        Bundle(format!("1 {sender}").into_bytes())
    }

    /// Adds frames for these users. `is_recorded`: they are in their conversation already.
    pub(crate) fn push<'a>(
        &mut self,
        envelopes: impl Iterator<Item = (UserId, u64)>,
        frames: impl ExactSizeIterator<Item = &'a str>,
        is_recorded: bool,
    ) {
        let Bundle(payload) = self;
        let _ = write!(payload, "\n{}{}", frames.len(), if is_recorded { "+" } else { "" });
        for (n, (user, sequence)) in envelopes.enumerate() {
            let _ = write!(payload, "{}{user}:{sequence}", if n == 0 { ' ' } else { ',' });
        }
        for frame in frames {
            payload.push(b'\n');
            payload.extend_from_slice(frame.as_bytes());
        }
    }

    pub(crate) fn into_payload(self) -> Vec<u8> {
        self.0
    }
}

/// The payload of an envelope with these frames. `is_returned`: by a dead connection.
/// `is_recorded`: they are in their conversation already.
pub(crate) fn envelope<'a>(
    sender: &str,
    sequence: u64,
    (is_returned, is_recorded): (bool, bool),
    frames: impl Iterator<Item = &'a str>,
) -> Vec<u8> {
    let mut payload = Vec::with_capacity(256);
    let (kind, mark) = (if is_returned { 'b' } else { '1' }, if is_recorded { "+" } else { "" });
    let _ = write!(payload, "{kind}{mark} {sender} {sequence}");
    for frame in frames {
        payload.push(b'\n');
        payload.extend_from_slice(frame.as_bytes());
    }
    payload
}

/// The payload that confirms these envelopes.
pub(crate) fn confirmations(place: Option<&str>, sequences: &[u64]) -> Vec<u8> {
    let mut payload = format!("c {}", place.unwrap_or(NO_PLACE)).into_bytes();
    for sequence in sequences {
        let _ = write!(payload, " {sequence}");
    }
    payload
}

/// The payload that says how many messages of an envelope found their user.
pub(crate) fn refusal(sequence: u64, delivered: usize) -> Vec<u8> {
    format!("r {sequence} {delivered}").into_bytes()
}

/// The payload that announces a user at this place.
pub(crate) fn hello(place: &str) -> Vec<u8> {
    format!("h {place}").into_bytes()
}

/// The payload that announces many users at this place.
pub(crate) fn hellos(place: &str, users: &[UserId]) -> Vec<u8> {
    let mut payload = place.as_bytes().to_vec();
    for (n, user) in users.iter().enumerate() {
        let _ = write!(payload, "{}{user}", if n == 0 { ' ' } else { ',' });
    }
    payload
}

/// The users who are at a place.
pub(crate) fn users(text: &str) -> impl Iterator<Item = UserId> + Clone {
    text.split(',').filter_map(number).map(UserId)
}

/// The payload that says that the members of a group have changed.
pub(crate) fn group(group: GroupId) -> Vec<u8> {
    group.0.to_string().into_bytes()
}

/// The payload of a probe.
pub(crate) fn probe(number: u64) -> Vec<u8> {
    format!("p {number}").into_bytes()
}

/// The sequences that are confirmed.
pub(crate) fn sequences(text: &str) -> impl Iterator<Item = u64> {
    text.split(' ').filter_map(number)
}

fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

/// Written instead of the place of users who are also elsewhere.
const NO_PLACE: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'b>(topic: &'b str, payload: &'b [u8]) -> Option<PeerMessage<'b>> {
        PeerMessage::parse(Topic::parse(topic)?, payload)
    }

    #[test]
    fn written_envelopes_are_read_back() {
        let payload = envelope("ab12", 7, (false, false), ["{\"a\":1}", "{}"].into_iter());
        assert_eq!(payload, b"1 ab12 7\n{\"a\":1}\n{}");
        let (to, topic, own) = (UserId(3), "u:3", "n:ab12");
        let expected = PeerMessage::Envelope { to, sender: "ab12", sequence: 7, frames: Frames::of("{\"a\":1}\n{}") };
        assert_eq!(parse(topic, &payload), Some(expected));
        let payload = envelope("ab12", 7, (true, false), ["{}"].into_iter());
        assert_eq!(payload, b"b ab12 7\n{}");
        let expected = PeerMessage::Returned { to, sender: "ab12", sequence: 7, frames: Frames::of("{}") };
        assert_eq!(parse(topic, &payload), Some(expected));
        let payload = envelope("ab12", 7, (false, true), ["{}"].into_iter());
        assert_eq!(payload, b"1+ ab12 7\n{}");
        let frames = Frames::of("{}").recorded();
        let expected = PeerMessage::Envelope { to, sender: "ab12", sequence: 7, frames };
        assert_eq!(parse(topic, &payload), Some(expected));
        assert_eq!((frames.id(), Frames::of("{}").id()), (FrameId::RECORDED, FrameId::UNNAMED));
        let payload = envelope("ab12", 7, (true, true), ["{}"].into_iter());
        assert_eq!(payload, b"b+ ab12 7\n{}");
        let expected = PeerMessage::Returned { to, sender: "ab12", sequence: 7, frames };
        assert_eq!(parse(topic, &payload), Some(expected));
        assert_eq!(parse(own, &probe(5)), Some(PeerMessage::Probe(5)));
        let refused = PeerMessage::Refusal { sequence: 7, delivered: 1 };
        assert_eq!(parse(own, &refusal(7, 1)), Some(refused));
        for place in [Some("ab12-3"), None] {
            let payload = confirmations(place, &[1, 20, 300]);
            let expected = PeerMessage::Confirmations { place, sequences: "1 20 300" };
            assert_eq!(parse(own, &payload), Some(expected));
        }
        let payload = hellos("ab12-3", &[UserId(1), UserId(20)]);
        let expected = PeerMessage::Hellos { place: "ab12-3", users: "1,20" };
        assert_eq!(parse("h", &payload), Some(expected));
        assert!(users("1,20").eq([UserId(1), UserId(20)]));
        assert!(sequences("1 20 300").eq([1, 20, 300]));
        let expected = PeerMessage::Hello { user: to, place: "ab12-3" };
        assert_eq!(parse(topic, &hello("ab12-3")), Some(expected));
        assert_eq!(parse("g", &group(GroupId(12))), Some(PeerMessage::GroupChanged(GroupId(12))));
    }

    #[test]
    fn an_envelope_has_a_frame_for_each_of_its_lines() {
        for (text, frames) in [
            ("{}", &["{}"][..]),
            ("{\"a\":1}\n{}", &["{\"a\":1}", "{}"]),
            ("a\n\nb", &["a", "", "b"]),
            ("a\n", &["a", ""]),
            ("", &[""]),
        ] {
            assert_eq!(Frames::of(text).collect::<Vec<_>>(), frames, "{text:?}");
            assert!(Frames::of(text).eq(text.split('\n')), "{text:?}");
        }
    }

    #[test]
    fn a_bundle_holds_each_text_once() {
        let mut bundle = Bundle::new("ab12");
        let users = |ids: &'static [i32]| ids.iter().map(|id| (UserId(*id), *id as u64 * 10));
        bundle.push(users(&[1, 2, 3]), ["{\"a\":1}", "{}"].into_iter(), false);
        bundle.push(users(&[4]), ["{\"b\":2}"].into_iter(), true);
        let payload = bundle.into_payload();
        assert_eq!(payload, b"1 ab12\n2 1:10,2:20,3:30\n{\"a\":1}\n{}\n1+ 4:40\n{\"b\":2}");
        let Some(PeerMessage::Bundle { sender: "ab12", items }) = parse("p:cd34-1", &payload) else {
            panic!("it is a bundle");
        };
        let read: Vec<_> = items.map(|item| (item.frames, item.envelopes().collect::<Vec<_>>())).collect();
        let expected = [
            (Frames::of("{\"a\":1}\n{}"), vec![(UserId(1), 10), (UserId(2), 20), (UserId(3), 30)]),
            (Frames::of("{\"b\":2}").recorded(), vec![(UserId(4), 40)]),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn unknown_envelopes_are_passed_over() {
        for (topic, payload) in [
            ("u:3", "2 ab 7\n{}"),
            ("u:3", "1++ ab 7\n{}"),
            ("u:3", "+ ab 7\n{}"),
            ("u:3", "1 ab x\n{}"),
            ("u:3", "1 ab 7"),
            ("u:x", "1 ab 7\n{}"),
            ("n:ab", "z 1"),
            ("n:ab", "p x"),
            ("n:ab", "r 1"),
            ("n:ab", "c 1"),
            ("p:ab-1", "1 cd"),
            ("p:ab-1", "2 cd\n1 1:1\n{}"),
            ("g", ""),
            ("elsewhere", "c 1"),
        ] {
            assert_eq!(parse(topic, payload.as_bytes()), None, "{topic} {payload}");
        }
        assert_eq!(parse("g", b"\xff"), None);
    }
}
