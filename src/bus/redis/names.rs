//! [`Names`]: the names of an installation's channels and keys.
//!
//! A published message reaches all subscribers of a Redis, whatever database number they have
//! chosen. So the names contain the number and the name of the installation (`cluster_name`);
//! without either they are as short as in earlier builds.
//!
//! ```text
//! raybox:u:7              db=0
//! raybox:@1:u:7           db=1
//! raybox:@0.blue:u:7      db=0, cluster_name=blue
//! ```
//! In a Redis Cluster all keys of an installation contain `{r}`, so that one slot holds them: a
//! pipeline changes several of them on one connection. Channels contain no braces, so they are
//! spread over all slots.
//!
//! The channels of the reference server's nodes, such as `RayBox-user-7`, contain neither. They
//! belong to one installation per Redis: the one with the shortest names, unless `cpp_nodes` says
//! otherwise.

use crate::bus::peer::Topic;
use crate::config::{RedisPlace, RedisSettings};
use crate::protocol::UserId;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    /// The beginning of keys.
    key_prefix: String,
    /// Whether the channels of the reference server's nodes belong to this installation.
    hears_reference: bool,
}

/// The content of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Channel<'c> {
    /// A topic of this server's nodes.
    Topic(Topic<&'c str>),
    /// Messages for this user from nodes of the reference server.
    Reference(UserId),
}

impl Names {
    /// The names that these settings give.
    pub(super) fn new(settings: &RedisSettings) -> Names {
        let RedisSettings { place, db, cluster_name, cpp_nodes, .. } = settings;
        let (prefix, is_shortest) = match cluster_name {
            None if *db == 0 => (COMMON.to_owned(), true),
            None => (format!("{COMMON}@{db}:"), false),
            Some(name) => (format!("{COMMON}@{db}.{name}:"), false),
        };
        match place {
            RedisPlace::Server(_) | RedisPlace::Sentinels(_) => {
                Names { key_prefix: prefix.clone(), prefix, hears_reference: cpp_nodes.unwrap_or(is_shortest) }
            }
            RedisPlace::Cluster(_) => {
                Names { key_prefix: format!("{prefix}{ONE_SLOT}"), prefix, hears_reference: false }
            }
        }
    }

    /// The names of nodes of earlier builds, which never contained a database number.
    pub(super) fn shortest() -> Names {
        Names { prefix: COMMON.to_owned(), key_prefix: COMMON.to_owned(), hears_reference: true }
    }

    /// The names under which nodes of this installation may be registered. During a rolling update,
    /// nodes of an earlier build use the shortest names for everything; those never used a Redis
    /// Cluster.
    pub(super) fn with_earlier(&self) -> impl Iterator<Item = Names> {
        let earlier = (self.key_prefix == self.prefix).then(Names::shortest);
        [self.clone()].into_iter().chain(earlier)
    }

    /// Whether the channels of the reference server's nodes belong to this installation.
    pub(super) fn hears_reference(&self) -> bool {
        self.hears_reference
    }

    /// Identifies this installation among others on the same Redis; `None` for the one with the
    /// shortest names.
    pub(super) fn installation(&self) -> Option<&str> {
        self.prefix.strip_prefix(COMMON)?.strip_suffix(':')
    }

    /// Parses the name of a channel; `None` if it belongs to others.
    pub(super) fn read<'c>(&self, channel: &'c [u8]) -> Option<Channel<'c>> {
        let channel = str::from_utf8(channel).ok()?;
        if let Some(topic) = channel.strip_prefix(&*self.prefix) {
            return Topic::parse(topic).map(Channel::Topic);
        }
        let user = channel.strip_prefix(REFERENCE_USER)?;
        user.parse().ok().map(|user| Channel::Reference(UserId(user)))
    }

    /// The channel of a topic.
    pub(super) fn channel(&self, topic: Topic<&str>) -> String {
        format!("{}{topic}", self.prefix)
    }

    pub(super) fn user_channel(&self, user: UserId) -> String {
        self.channel(Topic::User(user))
    }

    /// The channels to subscribe to for a user; this server's own comes last.
    pub(super) fn channels_of(&self, user: UserId) -> impl Iterator<Item = String> {
        let reference = self.hears_reference.then(|| reference_channel(user));
        reference.into_iter().chain([self.user_channel(user)])
    }

    pub(super) fn node_channel(&self, node: &str) -> String {
        self.channel(Topic::Node(node))
    }

    /// The key with this suffix.
    pub(super) fn key(&self, end: &str) -> String {
        format!("{}{end}", self.key_prefix)
    }
}

pub(super) fn reference_channel(user: UserId) -> String {
    format!("{REFERENCE_USER}{user}")
}

const REFERENCE_USER: &str = "RayBox-user-";
const COMMON: &str = "raybox:";
/// A Redis Cluster puts keys with the same text in braces into the same slot.
const ONE_SLOT: &str = "{r}:";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(db: i64, cluster_name: Option<&str>, cpp_nodes: Option<bool>) -> Names {
        let mut settings = RedisSettings::at("localhost", 6379);
        (settings.db, settings.cpp_nodes) = (db, cpp_nodes);
        settings.cluster_name = cluster_name.map(str::to_owned);
        Names::new(&settings)
    }

    #[test]
    fn no_installation_has_a_name_of_another() {
        let all = [(0, None), (1, None), (10, None), (0, Some("1")), (1, Some("a")), (0, Some("a")), (0, Some("b"))];
        let all = all.map(|(db, name)| names(db, name, None));
        for (nth, one) in all.iter().enumerate() {
            let channel = one.user_channel(UserId(7));
            for (other, others) in all.iter().enumerate() {
                assert_eq!(others.read(channel.as_bytes()).is_some(), nth == other, "{channel} {}", others.prefix);
            }
        }
    }

    #[test]
    fn the_first_installation_is_called_as_always_and_alone_hears_the_reference_server() {
        let shortest = names(0, None, None);
        assert_eq!(shortest.prefix, Names::shortest().prefix);
        assert!(shortest.channels_of(UserId(7)).eq(["RayBox-user-7".to_owned(), "raybox:u:7".to_owned()]));
        assert_eq!((shortest.key("nodes").as_str(), shortest.installation()), ("raybox:nodes", None));
        assert_eq!(shortest.read(b"RayBox-user-7"), Some(Channel::Reference(UserId(7))));
        assert_eq!(shortest.read(b"raybox:u:7"), Some(Channel::Topic(Topic::User(UserId(7)))));
        for foreign in [&b"RayBox-user-"[..], b"RayBox-user~decoy", b"raybox:u:x", b"elsewhere", b"\xff"] {
            assert_eq!(shortest.read(foreign), None);
        }
        let other = names(1, Some("blue"), None);
        assert!(other.channels_of(UserId(7)).eq(["raybox:@1.blue:u:7".to_owned()]));
        assert_eq!(other.installation(), Some("@1.blue"));
        let mut settings = RedisSettings::at("localhost", 6379);
        settings.place = RedisPlace::Cluster(Vec::new());
        let sharded = Names::new(&settings);
        assert_eq!(
            (sharded.key("nodes").as_str(), sharded.node_channel("a").as_str()),
            ("raybox:{r}:nodes", "raybox:n:a")
        );
        assert!(sharded.channels_of(UserId(7)).eq(["raybox:u:7".to_owned()]) && !sharded.hears_reference());
        assert_eq!((shortest.with_earlier().count(), sharded.with_earlier().count()), (2, 1));
        assert!(names(1, None, Some(true)).hears_reference() && !names(0, None, Some(false)).hears_reference());
    }
}
