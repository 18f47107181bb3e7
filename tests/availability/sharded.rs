//! A Redis Cluster of three primaries, each with a replica.

use testkit::{
    Database, LONG_PATIENCE, ShardedRedis, TestServer, Workplace, chat, numbered, user, wait_until, wait_within,
};

use crate::talk::Talk;

#[test]
fn the_loss_of_a_primary_of_a_redis_cluster_loses_no_message() {
    let mut redis = ShardedRedis::start();
    let database = Database::create();
    let nodes = nodes(&redis, &database);
    let talk = Talk::start(&nodes);
    let channel = format!("raybox:u:{}", talk.reader());
    let owner = redis.owner(&channel, 0);
    talk.suffer("the slot of the reader's channel moves", || redis.move_slot(&channel, (owner + 1) % 3));
    talk.suffer("the slot moves back", || redis.move_slot(&channel, owner));
    redis.expect_faults();
    talk.suffer("the primary with the reader's channel is killed", || redis.servers[owner].kill());
    // A replica that misses its election begins another one only after several seconds.
    let have_changed_over = || nodes.iter().all(|node| node.logs().contains(" works again after "));
    wait_within(LONG_PATIENCE, "the nodes have changed over", have_changed_over);
    redis.servers[owner].restart();
    redis.wait_whole();
    let owner = redis.owner(&channel, 0);
    talk.suffer("the primary with the reader's channel is frozen", || redis.servers[owner].stop());
    redis.servers[owner].cont();
    redis.wait_whole();
    talk.wait_for_more();
    talk.end();
}

#[test]
fn users_of_level_1_write_to_each_other_through_a_redis_cluster() {
    let redis = ShardedRedis::start();
    let database = Database::create();
    let nodes = nodes(&redis, &database);
    // Each pair of users has other slots.
    for pair in 0..5 {
        let (mut ann, a) = user(&nodes[0], &format!("ann {pair}"));
        let (mut bob, b) = user(&nodes[1], &format!("bob {pair}"));
        for number in 0..10 {
            ann.send(&numbered(a, b, number));
            bob.expect(&numbered(a, b, number));
            bob.send(&numbered(b, a, number));
            ann.expect(&numbered(b, a, number));
        }
        let channel = format!("raybox:u:{b}");
        redis.move_slot(&channel, (redis.owner(&channel, 0) + 1) % 3);
        wait_until("bob is subscribed again", || redis.listeners(&channel) == 1);
        ann.send(&chat(a, b, "moved"));
        bob.expect(&chat(a, b, "moved"));
    }
    assert!(nodes.iter().all(|node| !node.logs().contains(" works again after ")));
}

#[test]
fn a_redis_cluster_may_want_a_password_and_tls() {
    let mut redis = ShardedRedis::start_secured();
    let database = Database::create();
    let nodes = nodes(&redis, &database);
    let talk = Talk::start(&nodes);
    redis.expect_faults();
    talk.suffer("a primary with TLS and password is killed", || redis.servers[0].kill());
    redis.servers[0].restart();
    redis.wait_whole();
    talk.end();
    // The password is needed, and so is the certificate.
    let check = |cnf: &str| {
        let place = Workplace::on(&database);
        place.write("redis.cnf", cnf);
        place.write("ca.pem", &redis.ca());
        place.run(&["check", "127.0.0.1", "0"])
    };
    let cnf = redis.cnf();
    let checked = check(&cnf);
    let line = checked.stdout.lines().find(|line| line.contains("the Redis Cluster 127.0.0.1:")).unwrap_or_default();
    assert!(checked.code == Some(0) && line.contains("connected nodes: 2"), "{checked:?}");
    for (without, said) in [("password=", "\"NOAUTH\""), ("tls_ca=", "UnknownIssuer")] {
        let less: Vec<&str> = cnf.lines().filter(|line| !line.starts_with(without)).collect();
        let checked = check(&less.join("\n"));
        let problem = checked.stdout.lines().find(|line| line.contains("PROBLEM redis")).unwrap_or_default();
        assert!(checked.code == Some(1) && problem.contains(said), "without {without} {checked:?}");
    }
}

fn nodes(redis: &ShardedRedis, database: &Database) -> [TestServer; 2] {
    [0, 1].map(|_| {
        let builder = TestServer::builder().mysql(database).option("admin", "127.0.0.1:0");
        builder.file("redis.cnf", redis.cnf()).file("ca.pem", redis.ca()).start()
    })
}
