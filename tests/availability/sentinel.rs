//! Redis with a replica and three sentinels.

use testkit::{Database, TestServer, WatchedRedis, Workplace, wait_until};

use crate::talk::Talk;

#[test]
fn the_replica_that_sentinels_promote_is_found() {
    let mut redis = WatchedRedis::start();
    let database = Database::create();
    let cnf = redis.cnf();
    let node = || {
        let builder = TestServer::builder().mysql(&database).option("admin", "127.0.0.1:0");
        builder.file("redis.cnf", cnf.clone()).start()
    };
    let nodes = [node(), node()];
    let talk = Talk::start(&nodes);
    talk.suffer("the Redis primary is killed", || redis.servers[0].kill());
    wait_until("the nodes have changed over", || nodes.iter().all(|node| node.logs().contains(" works again after ")));
    redis.servers[0].restart();
    redis.wait_demoted(0);
    redis.wait_whole();
    talk.suffer("the Redis primary and the first sentinel are frozen", || {
        redis.sentinels[0].stop();
        redis.servers[1].stop();
    });
    redis.servers[1].cont();
    redis.sentinels[0].cont();
    redis.wait_demoted(1);
    talk.wait_for_more();
    talk.end();
}

#[test]
fn sentinels_and_redis_may_want_passwords_and_tls() {
    let mut redis = WatchedRedis::start_secured();
    let database = Database::create();
    let cnf = redis.cnf();
    let node = || {
        let builder = TestServer::builder().mysql(&database).option("admin", "127.0.0.1:0");
        builder.file("redis.cnf", cnf.clone()).file("ca.pem", redis.ca()).start()
    };
    let nodes = [node(), node()];
    let talk = Talk::start(&nodes);
    talk.suffer("the Redis primary with TLS and password is killed", || redis.servers[0].kill());
    wait_until("the nodes have changed over", || nodes.iter().all(|node| node.logs().contains(" works again after ")));
    redis.servers[0].restart();
    redis.wait_demoted(0);
    talk.end();
    // Each of the passwords is needed, and so is the certificate.
    let check = |cnf: &str| {
        let place = Workplace::on(&database);
        place.write("redis.cnf", cnf);
        place.write("ca.pem", &redis.ca());
        place.run(&["check", "127.0.0.1", "0"])
    };
    assert_eq!(check(&cnf).code, Some(0));
    for (without, said) in
        [("password=", "\"NOAUTH\""), ("sentinel_password=", "no sentinel knows"), ("tls_ca=", "UnknownIssuer")]
    {
        let less: Vec<&str> = cnf.lines().filter(|line| !line.starts_with(without)).collect();
        let checked = check(&less.join("\n"));
        let problem = checked.stdout.lines().find(|line| line.contains("PROBLEM redis")).unwrap_or_default();
        assert!(checked.code == Some(1) && problem.contains(said), "without {without} {checked:?}");
    }
}
