//! The table of settings: the name and the meaning of each, and the field of
//! [`Config`](super::Config) for its value. It is in parts, by subject.

mod conversations;
mod limits;
mod operation;
mod serving;

use super::key::Key;

/// Every setting, in the order of the sample file.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    [serving::KEYS, conversations::KEYS, limits::KEYS, operation::KEYS].into_iter().flatten()
}

/// The setting with this name.
pub(super) fn named(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::key::Kind;
    use crate::config::settings::Config;

    #[test]
    fn every_default_reaches_a_field_of_its_own() {
        // For every key, another value changes exactly one line of the settings, and no line is
        // left over.
        let address = "127.0.0.1:0".parse().unwrap();
        let plain = format!("{:#?}", Config::with_defaults(address));
        for key in all() {
            let other = match key.kind {
                Kind::Folder(_) | Kind::File(_) | Kind::LogDir(_) | Kind::NodeName(_) => "elsewhere",
                Kind::LogTarget(_) => "both",
                Kind::LogFormat(_) => "json",
                Kind::Auth(_) => "compat",
                Kind::Paced(_) => "on",
                Kind::Presence(_) | Kind::Recorded(_) => "all",
                Kind::Either([_, second], _) => second,
                Kind::Switch(_) => "on",
                Kind::Hosts(_) => "chat.example.org",
                Kind::Origins(_) => "https://chat.example.org",
                Kind::Networks(_) => "10.0.0.0/8",
                Kind::TlsUse(_) => "require",
                Kind::Files(_) => "a.pem,b.pem",
                Kind::NetworksOrOff(_) => "10.0.0.0/8",
                Kind::Url(_) => "https://push.example.org/",
                Kind::Levels(_) => "trace",
                Kind::Count(..) | Kind::Threads(..) | Kind::Limit(..) | Kind::Rate(..) => "123",
                Kind::ByteRate(..) => "1m/2m",
                Kind::Size(..) => "5k",
                Kind::AutoSize(..) | Kind::LogBytes(..) => "77m",
                Kind::Time(..) => "7s",
                Kind::Address(_) => "[::1]:9600",
                Kind::Addresses(_) => "10.0.0.1:9600,[::1]:9600",
                Kind::AdminKey(_) => "0123456789abcdef0123456789abcdef",
                Kind::Trace(_) => "all",
                Kind::OneFile(_) => "/tmp/key.pem",
                Kind::Text(..) => "other",
                Kind::JwtAlgorithm(_) => "ES256",
                Kind::Cost(_) => "m=19456,t=3,p=1",
            };
            let mut config = Config::with_defaults(address);
            assert!(key.set(&mut config, other), "{}", key.name);
            let changed = format!("{config:#?}");
            let differing = plain.lines().zip(changed.lines()).filter(|(before, after)| before != after).count();
            assert_eq!(differing, 1, "{} changes one field", key.name);
        }
        // The address, the contents of three files, the notes and what was given are not keys. The
        // cost has a line for each of its three fields, the levels for their two, and these two,
        // the log and the tokens have two for their braces.
        assert_eq!(plain.lines().count(), 2 + 6 + (all().count() - 2) + 5 + 4 + 2 + 2);
    }

    #[test]
    fn names_differ() {
        let mut names = HashSet::new();
        for key in all() {
            assert!(names.insert(key.name), "{}", key.name);
        }
    }
}
