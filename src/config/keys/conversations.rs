//! The settings of level 2, of logins with JSON web tokens, and of friends and groups.

use std::time::Duration;

use crate::config::community::{FriendsBecome, GroupHistory, GroupJoin};
use crate::config::hook::HookKeyFile;
use crate::config::key::{Key, Kind};
use crate::config::values::{COUNT_MAX, HOUR, SWITCHED, YEAR};

pub(super) static KEYS: &[Key] = &[
    Key {
        name: "history",
        default: "auto",
        help: "Which messages are recorded in conversations; auto: those of users of level 2; off: there is no level 2",
        kind: Kind::Recorded(|config, recorded| config.recorded = recorded),
    },
    Key {
        name: "history_days",
        default: "off",
        help: "Days after which messages of conversations are deleted; off is never",
        kind: Kind::Limit(1, 36_500, |config, days| config.history_days = days),
    },
    Key {
        name: "history_per_conversation",
        default: "off",
        help: "The newest messages of a conversation that are kept; off is all",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.history_per_conversation = limit),
    },
    Key {
        name: "dedup_days",
        default: "7",
        help: "Days for which a message that is sent again at level 2 is recognised, even where it is deleted before",
        kind: Kind::Count(1, 3650, |config, days| config.dedup_days = days),
    },
    Key {
        name: "edit_window",
        default: "24h",
        help: "Time within which a message may be edited or recalled at level 2; 0 is never",
        kind: Kind::Time(Duration::ZERO, YEAR, |config, time| config.edit_window = time),
    },
    Key {
        name: "conversations_max",
        default: "20000",
        help: "The most two-person conversations of a user; strangers open at most half of them",
        kind: Kind::Count(2, 1_000_000, |config, n| config.conversations_max = n as usize),
    },
    Key {
        name: "inflight",
        default: "256",
        help: "Sends of a connection of level 2 without an answer; beyond that, the connection is not read",
        kind: Kind::Count(1, 4096, |config, n| config.inflight_max = n as usize),
    },
    Key {
        name: "devices_max",
        default: "16",
        help: "The most devices of a user at level 2; one more, and the least recently seen one is forgotten",
        kind: Kind::Count(1, 1000, |config, n| config.devices_max = n as usize),
    },
    Key {
        name: "token_days",
        default: "30",
        help: "Days for which a token of level 2 is valid",
        kind: Kind::Count(1, 3650, |config, days| config.token_days = days),
    },
    Key {
        name: "jwt_key",
        default: "none",
        help: "File with the keys that verify JSON web tokens (PEM or JWKS), with which users may log in at level 2",
        kind: Kind::OneFile(|config, file| config.jwt.key_file = file),
    },
    Key {
        name: "jwt_algorithm",
        default: "RS256",
        help: "The algorithm of JSON web tokens; a token with another one is refused",
        kind: Kind::JwtAlgorithm(|config, algorithm| config.jwt.algorithm = algorithm),
    },
    Key {
        name: "jwt_claim",
        default: "sub",
        help: "The claim of JSON web tokens that names the user: an integer is an id, a text is a name",
        kind: Kind::Text(100, |config, claim| config.jwt.claim = claim),
    },
    Key {
        name: "jwt_issuer",
        default: "none",
        help: "The issuer (iss) that JSON web tokens must name",
        kind: Kind::Text(1000, |config, issuer| config.jwt.issuer = issuer),
    },
    Key {
        name: "jwt_audience",
        default: "none",
        help: "The audience (aud) to which JSON web tokens must be addressed",
        kind: Kind::Text(1000, |config, audience| config.jwt.audience = audience),
    },
    Key {
        name: "jwt_register",
        default: "off",
        help: "Whether a JSON web token makes the account of a new user; then tokens open no other accounts",
        kind: Kind::Switch(|config, on| config.jwt.registers = on),
    },
    Key {
        name: "presence",
        default: "contacts",
        help: "Who may see at level 2 whether a user is online; contacts: friends and members of common groups",
        kind: Kind::Presence(|config, presence| config.presence = presence),
    },
    Key {
        name: "receipts",
        default: "on",
        help: "Whether partners at level 2 are shown how far the other one has read; each user may switch that off",
        kind: Kind::Either(SWITCHED, |config, is_off| config.receipts = !is_off),
    },
    Key {
        name: "hook_url",
        default: "off",
        help: "Web server that gets the messages which no device of a recipient at level 2 has received",
        kind: Kind::Url(|config, url| config.hook_url = url),
    },
    Key {
        name: "hook_key",
        default: "none",
        help: "File with the key that signs what is posted to hook_url",
        kind: Kind::OneFile(|config, file| config.hook_key = HookKeyFile(file)),
    },
    Key {
        name: "hook_delay",
        default: "10s",
        help: "Time within which a device may receive a message before it is posted to hook_url",
        kind: Kind::Time(Duration::ZERO, HOUR, |config, time| config.hook_delay = time),
    },
    Key {
        name: "hook_private",
        default: "off",
        help: "Addresses that are not public and that hook_url may lead to",
        kind: Kind::NetworksOrOff(|config, networks| config.hook_private = networks),
    },
    Key {
        name: "hook_waiting",
        default: "1000000",
        help: "Messages that may wait for hook_url; beyond that, the oldest are dropped",
        kind: Kind::Count(100, 100_000_000, |config, n| config.hook_waiting_max = n),
    },
    Key {
        name: "friends",
        default: "open",
        help: "Whether a request makes friends at once, or the other user must have sent one before (ask)",
        kind: Kind::Either(["open", "ask"], |config, asks| {
            config.friends = if asks { FriendsBecome::Ask } else { FriendsBecome::Open };
        }),
    },
    Key {
        name: "group_join",
        default: "open",
        help: "Whether users join groups by themselves, or the creator adds them (closed)",
        kind: Kind::Either(["open", "closed"], |config, is_closed| {
            config.group_join = if is_closed { GroupJoin::Closed } else { GroupJoin::Open };
        }),
    },
    Key {
        name: "group_history",
        default: "joined",
        help: "What a new member sees at level 2; all needs group_join=closed",
        kind: Kind::Either(["joined", "all"], |config, sees_all| {
            config.group_history = if sees_all { GroupHistory::All } else { GroupHistory::Joined };
        }),
    },
];
