//! [`Services`]: the databases and Redis servers behind the nodes, and their faults.

use std::time::Duration;

use crate::parts::{DatabaseKind, Deployment, Member, RedisKind};
use crate::schedule::Kind;
use testkit::{Builder, Database, Galera, MariaDb, Redis, Replicas, Sentinel, ShardedRedis, Switch, WatchedRedis};

/// See the [module](self).
pub struct Services {
    databases: Databases,
    redis: RedisServers,
    pub database: Database,
    /// The ways of each node to the database servers, if there are several of these.
    switches: Vec<Vec<Switch>>,
    /// The number of the process that the current fault has hit, among those of its service.
    hit: usize,
}

enum Databases {
    One(MariaDb),
    Galera(Galera),
    Replicas { servers: Box<Replicas>, primary: usize },
}

enum RedisServers {
    One(Redis),
    Watched(Box<WatchedRedis>),
    Sharded(ShardedRedis),
}

/// A process that a fault can hit.
trait Process {
    fn kill(&mut self);
    fn stop(&self);
    fn cont(&self);
}

macro_rules! processes {
    ($($name:ty),*) => {
        $(impl Process for $name {
            fn kill(&mut self) {
                <$name>::kill(self);
            }

            fn stop(&self) {
                <$name>::stop(self);
            }

            fn cont(&self) {
                <$name>::cont(self);
            }
        })*
    };
}

processes!(MariaDb, Redis, Sentinel);

impl Services {
    /// Starts the services for this number of nodes.
    pub fn start(deployment: Deployment, nodes: usize) -> Services {
        let databases = match deployment.database {
            DatabaseKind::One => Databases::One(MariaDb::start()),
            DatabaseKind::Galera => Databases::Galera(Galera::start()),
            DatabaseKind::Replica => {
                Databases::Replicas { servers: Box::new(Replicas::start_waiting(REPLICA_PATIENCE)), primary: 0 }
            }
        };
        let redis = match deployment.redis {
            RedisKind::One => RedisServers::One(Redis::start()),
            RedisKind::Sentinel => RedisServers::Watched(Box::new(WatchedRedis::start_behind_switches())),
            RedisKind::Sharded => RedisServers::Sharded(ShardedRedis::start()),
        };
        if let RedisServers::Sharded(cluster) = &redis {
            cluster.expect_faults();
        }
        let database = databases.create_database();
        let of_node = |_| databases.several().into_iter().map(|server| Switch::to(server.address())).collect();
        let switches = (0..nodes).map(of_node).collect();
        Services { databases, redis, database, switches, hit: 0 }
    }

    /// Lets a node use the services.
    pub fn connect(&self, builder: Builder, node: usize) -> Builder {
        let addresses: Vec<_> = self.switches[node].iter().map(Switch::address).collect();
        let builder = match &self.databases {
            Databases::One(_) => builder.mysql(&self.database),
            _ => builder,
        };
        let cnf = match &self.databases {
            Databases::One(_) => self.database.cnf(),
            Databases::Galera(galera) => galera.cnf_at(&addresses, &self.database),
            Databases::Replicas { servers, .. } => servers.cnf_at(&addresses, &self.database),
        };
        // Pools grow while the database is frozen. Their idle connections should be closed soon
        // after the run.
        let builder = builder.file("mysql.cnf", format!("{cnf}maxIdleTime=5\n"));
        match &self.redis {
            RedisServers::One(redis) => builder.redis(redis),
            RedisServers::Watched(watched) => builder.file("redis.cnf", watched.cnf()),
            RedisServers::Sharded(cluster) => builder.file("redis.cnf", cluster.cnf()),
        }
    }

    /// The only MariaDB.
    pub fn mariadb(&mut self) -> &mut MariaDb {
        match &mut self.databases {
            Databases::One(mariadb) => mariadb,
            _ => unreachable!("this deployment has several database servers"),
        }
    }

    /// The only Redis.
    pub fn redis(&mut self) -> &mut Redis {
        match &mut self.redis {
            RedisServers::One(redis) => redis,
            _ => unreachable!("this deployment has several Redis servers"),
        }
    }

    /// The number of connections to the only Redis.
    pub fn redis_connections(&self) -> usize {
        match &self.redis {
            RedisServers::One(redis) => redis.connections(),
            _ => unreachable!("this deployment has several Redis servers"),
        }
    }

    /// Causes a fault of one of several processes; `target` chooses among equals.
    pub fn harm(&mut self, kind: Kind, target: usize) {
        match kind {
            Kind::Killed(member) => {
                self.hit = self.choose(member, target);
                self.process(member).kill();
                if member == Member::Primary {
                    self.promote();
                }
            }
            Kind::Frozen(member) => {
                self.hit = self.choose(member, target);
                self.process(member).stop();
            }
            Kind::CutOff(member) => {
                self.hit = self.choose(member, target);
                self.cut(member, true);
            }
            Kind::NodeCutOff => {
                self.hit = self.databases.in_use(&self.database);
                self.switches[target][self.hit].cut(true);
            }
            Kind::RolesChanged => self.hit = self.databases.change_roles(),
            _ => unreachable!("{kind} is not a fault of one of several processes"),
        }
    }

    /// Makes sure that the frozen primary takes no writes when it goes on, as an operator has to
    /// before a promotion, and promotes its replica.
    pub fn fence(&mut self) {
        self.process(Member::Primary).kill();
        self.promote();
    }

    /// Ends the fault, and waits until the service is whole again.
    pub fn heal(&mut self, kind: Kind, target: usize) {
        match kind {
            Kind::Killed(member) => self.start_again(member),
            Kind::Frozen(Member::Primary) => self.start_again(Member::Primary),
            Kind::Frozen(member) => self.process(member).cont(),
            Kind::CutOff(member) => self.cut(member, false),
            Kind::NodeCutOff => self.switches[target][self.hit].cut(false),
            Kind::RolesChanged => self.databases.follow(self.hit),
            _ => unreachable!("{kind} is not a fault of one of several processes"),
        }
        self.databases.wait_whole();
        self.redis.wait_whole();
    }

    /// The number of the process, among those of its service.
    fn choose(&self, member: Member, target: usize) -> usize {
        let in_use = || self.databases.in_use(&self.database);
        match member {
            Member::GaleraInUse | Member::Primary => in_use(),
            Member::GaleraOther => (in_use() + 1 + target % 2) % 3,
            Member::Replica => 1 - in_use(),
            Member::RedisPrimary | Member::ShardPrimary => self.redis.nth(false, target),
            Member::RedisReplica | Member::ShardReplica => self.redis.nth(true, target),
            Member::Sentinel => target,
        }
    }

    fn process(&mut self, member: Member) -> &mut dyn Process {
        let hit = self.hit;
        match (member, &mut self.databases, &mut self.redis) {
            (Member::GaleraInUse | Member::GaleraOther, Databases::Galera(galera), _) => &mut galera.nodes[hit],
            (Member::Primary | Member::Replica, Databases::Replicas { servers, .. }, _) => &mut servers.servers[hit],
            (Member::RedisPrimary | Member::RedisReplica, _, RedisServers::Watched(watched)) => {
                &mut watched.servers[hit]
            }
            (Member::Sentinel, _, RedisServers::Watched(watched)) => &mut watched.sentinels[hit],
            (Member::ShardPrimary | Member::ShardReplica, _, RedisServers::Sharded(cluster)) => {
                &mut cluster.servers[hit]
            }
            _ => unreachable!("this deployment has no {member}"),
        }
    }

    fn promote(&mut self) {
        let Databases::Replicas { servers, primary } = &mut self.databases else { unreachable!("there is no replica") };
        *primary = 1 - self.hit;
        servers.promote(*primary);
    }

    fn cut(&mut self, member: Member, is_cut: bool) {
        match (member, &self.databases, &self.redis) {
            (Member::GaleraInUse, Databases::Galera(galera), _) => galera.isolate(self.hit, is_cut),
            (Member::RedisPrimary, _, RedisServers::Watched(watched)) => watched.cut(self.hit, is_cut),
            _ => unreachable!("the {member} cannot be cut off"),
        }
    }

    fn start_again(&mut self, member: Member) {
        let hit = self.hit;
        match (member, &mut self.databases, &mut self.redis) {
            (Member::GaleraInUse | Member::GaleraOther, Databases::Galera(galera), _) => galera.restart(hit),
            (Member::Primary | Member::Replica, Databases::Replicas { servers, .. }, _) => {
                servers.servers[hit].restart();
                if member == Member::Primary {
                    self.databases.follow(hit);
                }
            }
            (Member::RedisPrimary, _, RedisServers::Watched(watched)) => watched.servers[hit].restart(),
            (Member::RedisReplica, _, RedisServers::Watched(watched)) => watched.restart_replica(hit),
            (Member::Sentinel, _, RedisServers::Watched(watched)) => watched.sentinels[hit].restart(),
            (_, _, RedisServers::Sharded(cluster)) => cluster.servers[hit].restart(),
            _ => unreachable!("this deployment has no {member}"),
        }
    }
}

impl Databases {
    fn create_database(&self) -> Database {
        match self {
            Databases::One(mariadb) => mariadb.create_database(),
            Databases::Galera(galera) => galera.create_database(),
            Databases::Replicas { servers, .. } => servers.create_database(),
        }
    }

    /// The servers, if there are several.
    fn several(&self) -> Vec<&MariaDb> {
        match self {
            Databases::One(_) => Vec::new(),
            Databases::Galera(galera) => galera.nodes.iter().collect(),
            Databases::Replicas { servers, .. } => servers.servers.iter().collect(),
        }
    }

    /// The server with the most connections of nodes, or the primary.
    fn in_use(&self, database: &Database) -> usize {
        match self {
            Databases::One(_) => 0,
            Databases::Galera(galera) => {
                (0..galera.nodes.len()).max_by_key(|nth| galera.nodes[*nth].connections_to(database)).unwrap_or(0)
            }
            Databases::Replicas { primary, .. } => *primary,
        }
    }

    /// Promotes the replica in order. Returns the number of the old primary.
    fn change_roles(&mut self) -> usize {
        let Databases::Replicas { servers, primary } = self else { unreachable!("there is no replica") };
        let old = std::mem::replace(primary, 1 - *primary);
        servers.servers[old].run("SET GLOBAL read_only = 1");
        servers.wait_caught_up(*primary, old);
        servers.promote(*primary);
        old
    }

    /// Makes the old primary the replica.
    fn follow(&self, old: usize) {
        let Databases::Replicas { servers, primary } = self else { unreachable!("there is no replica") };
        servers.follow(old, *primary);
    }

    fn wait_whole(&self) {
        match self {
            Databases::One(_) => (),
            Databases::Galera(galera) => galera.wait_whole(),
            Databases::Replicas { servers, primary } => servers.wait_whole(*primary),
        }
    }
}

impl RedisServers {
    /// The number of one of the replicas, or of one of the primaries.
    fn nth(&self, is_replica: bool, target: usize) -> usize {
        let servers = match self {
            RedisServers::One(redis) => std::slice::from_ref(redis),
            RedisServers::Watched(watched) => &watched.servers,
            RedisServers::Sharded(cluster) => &cluster.servers,
        };
        let meant = |nth: &usize| servers[*nth].is_connected_replica() == is_replica;
        let meant: Vec<usize> = (0..servers.len()).filter(meant).collect();
        meant[target % meant.len()]
    }

    fn wait_whole(&self) {
        match self {
            RedisServers::One(_) => (),
            RedisServers::Watched(watched) => watched.wait_whole(),
            RedisServers::Sharded(cluster) => cluster.wait_whole(),
        }
    }
}

/// How long a commit waits for a silent replica. A replica that is only slow answers sooner.
const REPLICA_PATIENCE: Duration = Duration::from_secs(5);
