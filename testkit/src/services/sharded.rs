//! A Redis Cluster: three primaries, each with a replica.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::redis::Redis;
use super::watched::{REDIS_PASSWORD, keep, tls};
use crate::tls::Certificate;
use crate::{LONG_PATIENCE, PATIENCE, free_port, wait_within, watchdog};

/// Six Redis servers. Dropping it kills them.
pub struct ShardedRedis {
    /// At the start, the first three are primaries, and each has the replica three behind it.
    pub servers: Vec<Redis>,
    /// The port of each server that nodes use.
    ports: Vec<u16>,
    /// Trusted by clients with TLS.
    certificate: Option<Certificate>,
}

impl ShardedRedis {
    /// Starts them, and waits until all of them see a whole cluster. No replica takes over by
    /// itself, however busy the machine is, until [`ShardedRedis::expect_faults`].
    pub fn start() -> ShardedRedis {
        ShardedRedis::start_with(None)
    }

    /// Like [`ShardedRedis::start`], with a password and TLS. Only the testkit does without TLS.
    pub fn start_secured() -> ShardedRedis {
        ShardedRedis::start_with(Some(Certificate::of("127.0.0.1")))
    }

    /// From now on a replica takes over when its primary has not answered for two seconds.
    pub fn expect_faults(&self) {
        for server in &self.servers {
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("cluster-node-timeout").arg("2000");
            set.exec(&mut server.connect()).expect("set the time");
        }
    }

    fn start_with(certificate: Option<Certificate>) -> ShardedRedis {
        let started = (0..2 * PRIMARIES).map(|_| start_server(certificate.as_ref()));
        let (servers, ways): (Vec<Redis>, Vec<(u16, u16)>) = started.unzip();
        let ports = ways.iter().map(|(port, _)| *port).collect();
        let cluster = ShardedRedis { servers, ports, certificate };
        for (index, server) in cluster.servers.iter().enumerate() {
            // Otherwise two primaries could have the same epoch at first.
            run(server, &["SET-CONFIG-EPOCH", &(index + 1).to_string()]).expect("set the epoch");
        }
        for index in 0..PRIMARIES {
            let [first, end] = [index, index + 1].map(|index| SLOTS * index / PRIMARIES);
            let range = [first.to_string(), (end - 1).to_string()];
            run(&cluster.servers[index], &["ADDSLOTSRANGE", &range[0], &range[1]]).expect("add slots");
        }
        for (port, bus) in &ways[1..] {
            let meet = ["MEET", "127.0.0.1", &port.to_string(), &bus.to_string()];
            run(&cluster.servers[0], &meet).expect("meet");
        }
        wait_within(LONG_PATIENCE, "the servers know each other", || {
            cluster.servers.iter().all(|server| fact(server, "cluster_known_nodes").as_deref() == Some("6"))
        });
        for index in 0..PRIMARIES {
            let primary = cluster.id(index);
            let replica = &cluster.servers[index + PRIMARIES];
            wait_within(LONG_PATIENCE, "a replica follows", || run(replica, &["REPLICATE", &primary]).is_ok());
        }
        cluster.wait_whole();
        cluster
    }

    /// The `redis.cnf` of a server that is to use it, which names two of the servers. With TLS,
    /// `ca.pem` is [`ShardedRedis::ca`].
    pub fn cnf(&self) -> String {
        let cnf = format!("cluster=127.0.0.1:{},127.0.0.1:{}\n", self.ports[0], self.ports[1]);
        match &self.certificate {
            None => cnf,
            Some(_) => format!("{cnf}password={REDIS_PASSWORD}\ntls=on\ntls_ca=ca.pem\n"),
        }
    }

    /// The ports of all servers.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The certificates to trust, in PEM; empty without TLS.
    pub fn ca(&self) -> String {
        self.certificate.as_ref().map(|certificate| certificate.chain.clone()).unwrap_or_default()
    }

    /// Waits until all servers that run see a whole cluster of three primaries, each with a
    /// replica.
    pub fn wait_whole(&self) {
        wait_within(LONG_PATIENCE, "the Redis Cluster is whole", || {
            let is_whole = |server: &Redis| {
                fact(server, "cluster_state").as_deref() == Some("ok") && with_replicas(server) == Some(PRIMARIES)
            };
            self.servers.iter().all(is_whole)
                && self.servers.iter().filter(|server| server.is_connected_replica()).count() == PRIMARIES
        });
    }

    /// The server that has the slot of this channel, as `asked` says.
    pub fn owner(&self, channel: &str, asked: usize) -> usize {
        let slot = self.slot(channel, asked);
        let Ok(Value::Array(ranges)) = run(&self.servers[asked], &["SLOTS"]) else { panic!("no table of the slots") };
        let owner = ranges.iter().find_map(|range| {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &parts[..] else { return None };
            let Some(Value::Int(port)) = primary.get(1) else { return None };
            (*first..=*last).contains(&slot).then_some(*port)
        });
        // The testkit connects without TLS, so it is told the ports without.
        let at = |server: &Redis| owner == Some(i64::from(server.address().port()));
        self.servers.iter().position(at).expect("a server has the slot")
    }

    fn slot(&self, channel: &str, asked: usize) -> i64 {
        let slot = run(&self.servers[asked], &["KEYSLOT", channel]).expect("ask for a slot");
        redis::from_redis_value(slot).expect("a number")
    }

    /// Moves the slot of this channel, which must contain no keys, to another primary, as
    /// `redis-cli --cluster reshard` does.
    pub fn move_slot(&self, channel: &str, to: usize) {
        let from = self.begin_move(channel, to);
        self.end_move(channel, from, to);
    }

    /// Begins to move the slot of this key to another primary. Returns the one that has it until
    /// [`ShardedRedis::end_move`].
    pub fn begin_move(&self, key: &str, to: usize) -> usize {
        let from = self.owner(key, to);
        self.set_slot(key, to, &["IMPORTING", &self.id(from)]);
        self.set_slot(key, from, &["MIGRATING", &self.id(to)]);
        from
    }

    /// Moves one key of a slot that is moving.
    pub fn move_key(&self, key: &str, from: usize, to: usize) {
        let target = self.servers[to].address();
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg(target.ip().to_string()).arg(target.port()).arg(key).arg(0).arg(PATIENCE.as_millis());
        let answer: String = migrate.query(&mut self.servers[from].connect()).expect("move a key");
        assert_eq!(answer, "OK", "{key} is there");
    }

    /// Ends a move. No key of the slot may be left at its old primary.
    pub fn end_move(&self, key: &str, from: usize, to: usize) {
        let target = self.id(to);
        for server in [to, from] {
            self.set_slot(key, server, &["NODE", &target]);
        }
    }

    fn set_slot(&self, key: &str, server: usize, how: &[&str]) {
        let slot = self.slot(key, server).to_string();
        run(&self.servers[server], &[&["SETSLOT", &slot], how].concat()).expect("move a slot");
    }

    /// Changes how all servers announce their addresses to clients, and waits until each announces
    /// all of them with this host; `None` if they announce only ports.
    pub fn announce(&self, settings: &[[&str; 2]], host: Option<&str>) {
        for server in &self.servers {
            for [key, value] in settings {
                let mut set = redis::cmd("CONFIG");
                set.arg("SET").arg(key).arg(value).exec(&mut server.connect()).expect("change how it is announced");
            }
        }
        let expected = host.map_or(Value::Nil, |host| Value::BulkString(host.as_bytes().to_vec()));
        wait_within(LONG_PATIENCE, "all servers announce it", || {
            self.servers.iter().all(|server| hosts(server).iter().all(|host| *host == expected))
        });
    }

    /// Makes a replica change roles with its primary, as `CLUSTER FAILOVER` does. Redis gives up
    /// after 5 seconds, so on a busy machine it may need another order.
    pub fn take_over(&self, replica: usize) {
        let mut ordered: Option<Instant> = None;
        wait_within(LONG_PATIENCE, "the replica takes over", || {
            if ordered.is_none_or(|at| at.elapsed() > Duration::from_secs(8)) {
                // It refuses if it has taken over meanwhile.
                let _ = run(&self.servers[replica], &["FAILOVER"]);
                ordered = Some(Instant::now());
            }
            let role = redis::cmd("ROLE").query::<Vec<Value>>(&mut self.servers[replica].connect());
            role.expect("ask for the role").first() == Some(&Value::BulkString(b"master".to_vec()))
        });
    }

    /// Makes a primary forget one of its own slots, or know it again. Meanwhile it sees no whole
    /// cluster, as if it were cut off; the others do.
    pub fn forget_slot(&self, primary: usize, forgets: bool) {
        let slot = (SLOTS * primary / PRIMARIES).to_string();
        let command = if forgets { "DELSLOTS" } else { "ADDSLOTS" };
        run(&self.servers[primary], &[command, &slot]).expect("change a slot");
    }

    /// The number of subscribers to a channel, among those of the servers that run.
    pub fn listeners(&self, channel: &str) -> u32 {
        let count = |server: &Redis| -> RedisResult<u32> {
            let mut connection = server.try_connect()?;
            let counts: (String, u32) = redis::cmd("PUBSUB").arg("SHARDNUMSUB").arg(channel).query(&mut connection)?;
            Ok(counts.1)
        };
        self.servers.iter().filter_map(|server| count(server).ok()).sum()
    }

    /// The subscribed channels that a pattern describes.
    pub fn channels(&self, pattern: &str) -> Vec<String> {
        let channels = |server: &Redis| -> RedisResult<Vec<String>> {
            redis::cmd("PUBSUB").arg("SHARDCHANNELS").arg(pattern).query(&mut server.try_connect()?)
        };
        self.servers.iter().filter_map(|server| channels(server).ok()).flatten().collect()
    }

    fn id(&self, server: usize) -> String {
        let id = run(&self.servers[server], &["MYID"]).expect("ask a server for its id");
        redis::from_redis_value(id).expect("a text")
    }
}

/// A server, the port that nodes use, and that of the other servers.
fn start_server(certificate: Option<&Certificate>) -> (Redis, (u16, u16)) {
    let (folder, bus): (PathBuf, u16) = (watchdog::new_folder(), free_port());
    let mut options: Vec<[String; 2]> = [
        ["cluster-enabled", "yes"],
        ["cluster-port", &bus.to_string()],
        ["cluster-node-timeout", "120000"],
        ["repl-diskless-sync-delay", "0"],
        ["repl-ping-replica-period", "1"],
    ]
    .map(|pair| pair.map(str::to_owned))
    .into();
    let tls_port = certificate.map(|certificate| keep(certificate, &folder));
    if let Some(port) = tls_port {
        options.extend(tls(port, &folder));
        options.push(["tls-cluster", "yes"].map(str::to_owned));
        options.extend(["requirepass", "masterauth"].map(|key| [key.to_owned(), REDIS_PASSWORD.to_owned()]));
    }
    let options = options.into_iter().flat_map(|[key, value]| [format!("--{key}"), value]).collect();
    let redis = Redis::start_at(folder, options, certificate.map(|_| REDIS_PASSWORD));
    let port = tls_port.unwrap_or(redis.address().port());
    (redis, (port, bus))
}

fn run(server: &Redis, arguments: &[&str]) -> RedisResult<Value> {
    redis::cmd("CLUSTER").arg(arguments).query(&mut server.try_connect()?)
}

/// A line of `CLUSTER INFO`.
fn fact(server: &Redis, name: &str) -> Option<String> {
    let text: String = redis::from_redis_value(run(server, &["INFO"]).ok()?).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_end().to_owned())
}

/// The number of different primaries with a replica in the table of a server; `None` if one has no
/// replica.
fn with_replicas(server: &Redis) -> Option<usize> {
    let Ok(Value::Array(ranges)) = run(server, &["SLOTS"]) else { return None };
    let mut primaries = Vec::new();
    for range in &ranges {
        let Value::Array(parts) = range else { return None };
        let [_, _, Value::Array(primary), _, ..] = &parts[..] else { return None };
        let port = primary.get(1)?;
        if !primaries.contains(port) {
            primaries.push(port.clone());
        }
    }
    Some(primaries.len())
}

/// The hosts of all servers in the table of one of them.
fn hosts(server: &Redis) -> Vec<Value> {
    let Ok(Value::Array(ranges)) = run(server, &["SLOTS"]) else { panic!("no table of the slots") };
    let servers = ranges.into_iter().flat_map(|range| match range {
        Value::Array(parts) => parts.into_iter().skip(2).collect(),
        _ => Vec::new(),
    });
    let host = |server| match server {
        Value::Array(parts) => parts.into_iter().next(),
        _ => None,
    };
    servers.filter_map(host).collect()
}

const PRIMARIES: usize = 3;
const SLOTS: usize = 16384;
