//! [`Names`]: what the channels and keys of an installation are called.
//!
//! What is published reaches everybody who listens on a Redis, whatever number of a database they have chosen. So the names
//! hold the number and the name of the installation (`cluster_name`); without either they are as short as they always were.
//!
//! ```text
//! raybox:u:7              db=0
//! raybox:@1:u:7           db=1
//! raybox:@0.blue:u:7      db=0, cluster_name=blue
//! ```
//! Nodes of the reference server have no room for either in `RayBox-user-7`. Their channels belong to one installation on a
//! Redis, and that is the one with the shortest names unless `cpp_nodes` says otherwise.

use crate::config::RedisSettings;
use crate::protocol::UserId;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    /// The channels of the reference server's nodes are those of this installation.
    hears_reference: bool,
}

impl Names {
    /// Those that the settings lead to.
    pub(super) fn new(settings: &RedisSettings) -> Names {
        let RedisSettings { db, cluster_name, cpp_nodes, .. } = settings;
        let (prefix, is_shortest) = match cluster_name {
            None if *db == 0 => (COMMON.to_owned(), true),
            None => (format!("{COMMON}@{db}:"), false),
            Some(name) => (format!("{COMMON}@{db}.{name}:"), false),
        };
        Names { prefix, hears_reference: cpp_nodes.unwrap_or(is_shortest) }
    }

    /// Those of nodes of earlier builds, which have never held the number of a database.
    pub(super) fn shortest() -> Names {
        Names { prefix: COMMON.to_owned(), hears_reference: true }
    }

    /// Whether the channels of the reference server's nodes are those of this installation.
    pub(super) fn hears_reference(&self) -> bool {
        self.hears_reference
    }

    /// What tells this installation from others on the same Redis; `None` for the one with the shortest names.
    pub(super) fn installation(&self) -> Option<&str> {
        self.prefix.strip_prefix(COMMON)?.strip_suffix(':')
    }

    /// A channel without what all of this installation begin with.
    pub(super) fn own<'c>(&self, channel: &'c str) -> Option<&'c str> {
        channel.strip_prefix(&*self.prefix)
    }

    /// The user whose channel this is.
    pub(super) fn user_of(&self, channel: &[u8]) -> Option<UserId> {
        let user = self.own(str::from_utf8(channel).ok()?)?.strip_prefix(USER)?;
        user.parse().ok().map(UserId)
    }

    pub(super) fn user_channel(&self, user: UserId) -> String {
        format!("{}{USER}{user}", self.prefix)
    }

    /// The channels to listen to for a user; the one of our own comes last.
    pub(super) fn channels_of(&self, user: UserId) -> impl Iterator<Item = String> {
        let reference = self.hears_reference.then(|| reference_channel(user));
        reference.into_iter().chain([self.user_channel(user)])
    }

    pub(super) fn place_channel(&self, place: &str) -> String {
        format!("{}{PLACE}{place}", self.prefix)
    }

    pub(super) fn node_channel(&self, node: &str) -> String {
        format!("{}{NODE}{node}", self.prefix)
    }

    pub(super) fn groups_channel(&self) -> String {
        format!("{}{GROUPS}", self.prefix)
    }

    pub(super) fn hellos_channel(&self) -> String {
        format!("{}{HELLOS}", self.prefix)
    }

    /// A key with this end.
    pub(super) fn key(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }
}

pub(super) fn reference_channel(user: UserId) -> String {
    format!("{REFERENCE_USER}{user}")
}

/// What channels of ours are, behind what those of an installation begin with.
pub(super) const USER: &str = "u:";
pub(super) const PLACE: &str = "p:";
pub(super) const NODE: &str = "n:";
pub(super) const GROUPS: &str = "g";
pub(super) const HELLOS: &str = "h";
pub(super) const REFERENCE_USER: &str = "RayBox-user-";
const COMMON: &str = "raybox:";

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
                assert_eq!(others.user_of(channel.as_bytes()).is_some(), nth == other, "{channel} {}", others.prefix);
            }
        }
    }

    #[test]
    fn the_first_installation_is_called_as_always_and_alone_hears_the_reference_server() {
        let shortest = names(0, None, None);
        assert_eq!(shortest.prefix, Names::shortest().prefix);
        assert!(shortest.channels_of(UserId(7)).eq(["RayBox-user-7".to_owned(), "raybox:u:7".to_owned()]));
        assert_eq!((shortest.key("nodes").as_str(), shortest.installation()), ("raybox:nodes", None));
        let other = names(1, Some("blue"), None);
        assert!(other.channels_of(UserId(7)).eq(["raybox:@1.blue:u:7".to_owned()]));
        assert_eq!(other.installation(), Some("@1.blue"));
        assert!(names(1, None, Some(true)).hears_reference() && !names(0, None, Some(false)).hears_reference());
    }
}
