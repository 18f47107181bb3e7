//! The settings of shutdown, of what clients, accounts and addresses may use up, and of passwords.

use std::time::Duration;

use crate::base::memory;
use crate::config::key::{Key, Kind};
use crate::config::values::{COUNT_MAX, DAY, KIB, MIB, MILLISECOND, YEAR};

pub(super) static KEYS: &[Key] = &[
    Key {
        name: "drain_delay",
        default: "0",
        help: "Time after a stop signal for which the server keeps serving while /readyz returns 503",
        kind: Kind::Time(Duration::ZERO, DAY, |config, time| config.drain_delay = time),
    },
    Key {
        name: "drain_rate",
        default: "1000",
        help: "Connections that are closed per second after the drain delay",
        kind: Kind::Count(1, 1_000_000, |config, n| config.drain_rate = n),
    },
    Key {
        name: "drain_timeout",
        default: "10s",
        help: "Time that shutdown may take after the last connection was told to close",
        kind: Kind::Time(MILLISECOND, DAY, |config, time| config.drain_timeout = time),
    },
    Key {
        name: "max_connections",
        default: "off",
        help: "The most connections; one more gets the 429 reply and is closed",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.connections_max = limit),
    },
    Key {
        name: "connections_per_address",
        default: "50000",
        help: "The most connections of one address (IPv6: of one /64); one more gets the 429 reply and is closed",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.connections_per_address = limit),
    },
    Key {
        name: "frames_per_second",
        default: "1000000",
        help: "Frames per second of one connection, optionally with a burst (100/500); more get the 429 reply",
        kind: Kind::Rate(COUNT_MAX, |config, rate| config.frames_per_second = rate),
    },
    Key {
        name: "bytes_per_second",
        default: "256m",
        help: "Bytes per second of one connection, optionally with a burst (1m/4m); more get the 429 reply",
        kind: Kind::ByteRate(1 << 30, |config, rate| config.bytes_per_second = rate),
    },
    Key {
        name: "login_failures",
        default: "10",
        help: "Wrong passwords for one account from one address without a delay; each further one makes the next attempt wait longer",
        kind: Kind::Limit(0, COUNT_MAX, |config, limit| config.login_failures = limit),
    },
    Key {
        name: "login_failures_per_address",
        default: "10000",
        help: "Wrong passwords from one address within an hour, for all accounts together",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.login_failures_per_address = limit),
    },
    Key {
        name: "registrations_per_address",
        default: "100000",
        help: "New accounts from one address within an hour",
        kind: Kind::Limit(1, COUNT_MAX, |config, limit| config.registrations_per_address = limit),
    },
    Key {
        name: "memory_max",
        default: "auto",
        help: "Memory for incomplete frames and for offline messages on their way to clients; auto is an eighth of the machine's or container's, or of what a limit of the address space (ulimit -v) leaves, from 8m to 512m",
        kind: Kind::AutoSize(MIB, 1024 * 1024 * MIB, memory::for_clients, |config, bytes| {
            config.memory_bytes_max = bytes;
        }),
    },
    Key {
        name: "requests_max",
        default: "4096",
        help: "Requests that wait for a worker; more get the 503 reply",
        kind: Kind::Count(1, 1_000_000, |config, n| config.requests_max = n as usize),
    },
    Key {
        name: "logins_max",
        default: "256",
        help: "Password checks that wait for a hasher; more get the 503 reply",
        kind: Kind::Count(1, 1_000_000, |config, n| config.logins_max = n as usize),
    },
    Key {
        name: "lane_max",
        default: "64m",
        help: "Bytes of messages on their way to the store and to other nodes; an account beyond its share gets the 503 reply",
        kind: Kind::Size(KIB, 2048 * MIB, |config, bytes| config.lane_bytes_max = bytes),
    },
    Key {
        name: "mailbox_max",
        default: "16m",
        help: "Bytes of messages stored for one user; a sender beyond its share gets the 503 reply, a group leaves the user out",
        kind: Kind::Size(KIB, 1024 * 1024 * MIB, |config, bytes| config.mailbox_bytes_max = bytes),
    },
    Key {
        name: "spool_max",
        default: "256m",
        help: "Bytes of messages that wait on the disk while MySQL is unavailable; more get the 503 reply; 0 is none",
        kind: Kind::Size(0, 1024 * 1024 * MIB, |config, bytes| config.spool_bytes_max = bytes),
    },
    Key {
        name: "fetch_max",
        default: "1m",
        help: "The most bytes of text in one reply with offline messages",
        kind: Kind::Size(KIB, 1024 * MIB, |config, bytes| config.fetch_bytes_max = bytes),
    },
    Key {
        name: "group_members_max",
        default: "20000",
        help: "The most members of a group; a request to join a full one gets a 403",
        kind: Kind::Count(2, 1_000_000, |config, n| config.group_members_max = n as usize),
    },
    Key {
        name: "groups_max",
        default: "2000",
        help: "The most groups of a user (403 beyond it); others may add a user to half as many",
        kind: Kind::Count(2, 1_000_000, |config, n| config.groups_max = n as usize),
    },
    Key {
        name: "search_max",
        default: "1000",
        help: "The most groups in one reply to a search",
        kind: Kind::Count(1, 1_000_000, |config, n| config.search_results_max = n as usize),
    },
    Key {
        name: "argon2",
        default: "m=19456,t=2,p=1",
        help: "Cost of one password hash: memory in KiB, passes, lanes",
        kind: Kind::Cost(|config, cost| config.password_cost = cost),
    },
    Key {
        name: "account_check",
        default: "5s",
        help: "How often the accounts of connected users are compared with the database; 0 is never",
        kind: Kind::Time(Duration::ZERO, DAY, |config, time| config.account_check = time),
    },
    Key {
        name: "password_memory",
        default: "24h",
        help: "Time a verified password is remembered; 0 is off",
        kind: Kind::Time(Duration::ZERO, YEAR, |config, time| config.password_memory = time),
    },
];
