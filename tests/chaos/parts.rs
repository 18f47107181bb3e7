//! [`Deployment`]: the services behind the nodes of a run, and the faults that suit them.
//!
//! `CHAOS_PARTS` chooses among the deployments in which every part is there more than once.

use std::env;
use std::fmt;

use crate::caused::Party;
use crate::schedule::{Kind, SINGLE};

/// The services behind the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub database: DatabaseKind,
    pub redis: RedisKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    One,
    /// A Galera cluster of three.
    Galera,
    /// A primary and a semi-synchronous replica.
    Replica,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisKind {
    One,
    /// A primary, a replica and three sentinels.
    Sentinel,
    /// A Redis Cluster of three primaries, each with a replica.
    Sharded,
}

/// A process of a service that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The Galera server that the nodes use.
    GaleraInUse,
    GaleraOther,
    Primary,
    Replica,
    RedisPrimary,
    RedisReplica,
    Sentinel,
    ShardPrimary,
    ShardReplica,
}

impl Deployment {
    pub const SINGLE: Deployment = Deployment { database: DatabaseKind::One, redis: RedisKind::One };

    /// Those that `CHAOS_PARTS` names. `all` is the default: two deployments that contain
    /// everything.
    pub fn chosen() -> Vec<Deployment> {
        let of = |database, redis| Deployment { database, redis };
        match env::var("CHAOS_PARTS").as_deref().unwrap_or("all") {
            "galera" => vec![of(DatabaseKind::Galera, RedisKind::One)],
            "replica" => vec![of(DatabaseKind::Replica, RedisKind::One)],
            "sentinel" => vec![of(DatabaseKind::One, RedisKind::Sentinel)],
            "sharded" => vec![of(DatabaseKind::One, RedisKind::Sharded)],
            "all" => vec![of(DatabaseKind::Galera, RedisKind::Sentinel), of(DatabaseKind::Replica, RedisKind::Sharded)],
            other => panic!("CHAOS_PARTS must be galera, replica, sentinel, sharded or all, not {other:?}"),
        }
    }

    /// Whether it has a service of several processes.
    pub fn has_several(self) -> bool {
        self != Deployment::SINGLE
    }

    /// The beginning of the names of its files.
    pub fn prefix(self) -> String {
        if self.has_several() { format!("{:?}-{:?}-", self.database, self.redis).to_lowercase() } else { String::new() }
    }

    /// The kinds of server faults in each round; of each set, one.
    pub fn faults(self) -> Vec<&'static [Kind]> {
        if !self.has_several() {
            return SINGLE.into();
        }
        let of_database = match self.database {
            DatabaseKind::One => &[][..],
            DatabaseKind::Galera => GALERA,
            DatabaseKind::Replica => REPLICA,
        };
        let of_redis = match self.redis {
            RedisKind::One => &[][..],
            RedisKind::Sentinel => SENTINEL,
            RedisKind::Sharded => SHARDED,
        };
        [FRONT, of_database, of_redis].concat()
    }
}

impl Member {
    /// The part of the cluster to which the process belongs.
    pub fn party(self) -> Party {
        match self {
            Member::GaleraInUse | Member::GaleraOther | Member::Primary | Member::Replica => Party::Database,
            Member::RedisPrimary
            | Member::RedisReplica
            | Member::Sentinel
            | Member::ShardPrimary
            | Member::ShardReplica => Party::Redis,
        }
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = match self.database {
            DatabaseKind::One => "MariaDB",
            DatabaseKind::Galera => "Galera",
            DatabaseKind::Replica => "primary and replica",
        };
        let redis = match self.redis {
            RedisKind::One => "Redis",
            RedisKind::Sentinel => "Redis Sentinel",
            RedisKind::Sharded => "Redis Cluster",
        };
        write!(f, "{database}, {redis}")
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Member::GaleraInUse => "Galera server in use",
            Member::GaleraOther => "another Galera server",
            Member::Primary => "primary",
            Member::Replica => "replica",
            Member::RedisPrimary => "Redis primary",
            Member::RedisReplica => "Redis replica",
            Member::Sentinel => "sentinel",
            Member::ShardPrimary => "primary of the Redis Cluster",
            Member::ShardReplica => "replica of the Redis Cluster",
        })
    }
}

/// The kinds that need a service of several processes.
pub const KINDS: [Kind; 22] = [
    Kind::Killed(Member::GaleraInUse),
    Kind::Frozen(Member::GaleraInUse),
    Kind::CutOff(Member::GaleraInUse),
    Kind::Killed(Member::GaleraOther),
    Kind::Frozen(Member::GaleraOther),
    Kind::NodeCutOff,
    Kind::RolesChanged,
    Kind::Killed(Member::Primary),
    Kind::Frozen(Member::Primary),
    Kind::Killed(Member::Replica),
    Kind::Frozen(Member::Replica),
    Kind::Killed(Member::RedisPrimary),
    Kind::Frozen(Member::RedisPrimary),
    Kind::CutOff(Member::RedisPrimary),
    Kind::Killed(Member::RedisReplica),
    Kind::Frozen(Member::RedisReplica),
    Kind::Killed(Member::Sentinel),
    Kind::Frozen(Member::Sentinel),
    Kind::Killed(Member::ShardPrimary),
    Kind::Frozen(Member::ShardPrimary),
    Kind::Killed(Member::ShardReplica),
    Kind::Frozen(Member::ShardReplica),
];

const FRONT: &[&[Kind]] = &[&[Kind::NodeKilled, Kind::NodeFrozen], &[Kind::NginxFrozen, Kind::NginxKilled]];

const GALERA: &[&[Kind]] = &[
    &[Kind::Killed(Member::GaleraInUse), Kind::Frozen(Member::GaleraInUse)],
    &[Kind::CutOff(Member::GaleraInUse), Kind::NodeCutOff],
    &[Kind::Frozen(Member::GaleraOther), Kind::Killed(Member::GaleraOther)],
];

const REPLICA: &[&[Kind]] = &[
    &[Kind::Killed(Member::Primary), Kind::Frozen(Member::Primary)],
    &[Kind::NodeCutOff, Kind::RolesChanged],
    &[Kind::Frozen(Member::Replica), Kind::Killed(Member::Replica)],
];

const SENTINEL: &[&[Kind]] = &[
    &[Kind::Frozen(Member::RedisPrimary), Kind::CutOff(Member::RedisPrimary), Kind::Killed(Member::RedisPrimary)],
    &[Kind::Killed(Member::RedisReplica), Kind::Frozen(Member::RedisReplica)],
    &[Kind::Frozen(Member::Sentinel), Kind::Killed(Member::Sentinel)],
];

const SHARDED: &[&[Kind]] = &[
    &[Kind::Frozen(Member::ShardPrimary), Kind::Killed(Member::ShardPrimary)],
    &[Kind::Killed(Member::ShardReplica), Kind::Frozen(Member::ShardReplica)],
];

mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schedule;

    #[test]
    fn every_kind_of_fault_belongs_to_a_deployment_and_has_a_row() {
        let all =
            [DatabaseKind::Galera, DatabaseKind::Replica].into_iter().zip([RedisKind::Sentinel, RedisKind::Sharded]);
        let faults = all.flat_map(|(database, redis)| Deployment { database, redis }.faults().concat());
        let in_use: BTreeSet<Kind> = faults.filter(|kind| !schedule::KINDS.contains(kind)).collect();
        assert_eq!(in_use, BTreeSet::from(KINDS));
    }
}
