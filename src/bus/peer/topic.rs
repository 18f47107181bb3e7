//! [`Topic`]: the subject of a message between nodes, independent of the transport's name for it.

use std::fmt;

use crate::protocol::UserId;

/// The topic that every message between nodes has. A node receives the topics that it is subscribed
/// to. `S` is the type of names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Topic<S> {
    /// Messages for a user at any place, and announcements of the user's places.
    User(UserId),
    /// Messages for users of this place only.
    Place(S),
    /// Messages for a node itself: answers to what it has sent, and its probes.
    Node(S),
    /// Announcements of all users of a node that was disconnected.
    Hellos,
    /// Groups whose members have changed.
    Groups,
    /// News for connections of level 2 of all nodes.
    Level2,
}

impl<'t> Topic<&'t str> {
    /// Parses what `Display` writes.
    pub(crate) fn parse(text: &'t str) -> Option<Topic<&'t str>> {
        if let Some(user) = text.strip_prefix(USER) {
            return user.parse().ok().map(|user| Topic::User(UserId(user)));
        }
        match text {
            HELLOS => Some(Topic::Hellos),
            GROUPS => Some(Topic::Groups),
            LEVEL2 => Some(Topic::Level2),
            _ => {
                let place = text.strip_prefix(PLACE).map(Topic::Place);
                place.or_else(|| text.strip_prefix(NODE).map(Topic::Node))
            }
        }
    }
}

impl<S: AsRef<str>> Topic<S> {
    /// The same topic with a borrowed name.
    pub(crate) fn as_ref(&self) -> Topic<&str> {
        match self {
            Topic::User(user) => Topic::User(*user),
            Topic::Place(place) => Topic::Place(place.as_ref()),
            Topic::Node(node) => Topic::Node(node.as_ref()),
            Topic::Hellos => Topic::Hellos,
            Topic::Groups => Topic::Groups,
            Topic::Level2 => Topic::Level2,
        }
    }
}

impl<S: AsRef<str>> fmt::Display for Topic<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::User(user) => write!(f, "{USER}{user}"),
            Topic::Place(place) => write!(f, "{PLACE}{}", place.as_ref()),
            Topic::Node(node) => write!(f, "{NODE}{}", node.as_ref()),
            Topic::Hellos => f.write_str(HELLOS),
            Topic::Groups => f.write_str(GROUPS),
            Topic::Level2 => f.write_str(LEVEL2),
        }
    }
}

const USER: &str = "u:";
const PLACE: &str = "p:";
const NODE: &str = "n:";
const GROUPS: &str = "g";
const HELLOS: &str = "h";
const LEVEL2: &str = "l";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_written_is_read() {
        let topics = [
            (Topic::User(UserId(7)), "u:7"),
            (Topic::Place("ab12-3"), "p:ab12-3"),
            (Topic::Node("ab12"), "n:ab12"),
            (Topic::Hellos, "h"),
            (Topic::Groups, "g"),
            (Topic::Level2, "l"),
        ];
        for (topic, text) in topics {
            assert_eq!(topic.to_string(), text);
            assert_eq!(Topic::parse(text), Some(topic));
        }
        for text in ["", "u:", "u:x", "h1", "x:1", "nodes"] {
            assert_eq!(Topic::parse(text), None, "{text}");
        }
    }
}
