//! A Galera cluster of three servers, any one of which may fail.

use testkit::{Galera, Redis, TestServer, Workplace, wait_until};

use crate::talk::Talk;

#[test]
fn a_galera_cluster_may_lose_the_server_in_use_again_and_again() {
    let mut galera = Galera::start();
    let (database, redis) = (galera.create_database(), Redis::start());
    let node = || {
        let builder = TestServer::builder().redis(&redis).option("admin", "127.0.0.1:0");
        builder.file("mysql.cnf", galera.cnf(&database)).start()
    };
    let nodes = [node(), node()];
    let in_use = |galera: &Galera| {
        let of_node = |nth: &usize| of_nodes(galera, *nth) >= 4;
        (0..3).filter(of_node).collect::<Vec<_>>()
    };
    wait_until("both nodes use the first server", || in_use(&galera) == [0]);
    let talk = Talk::start(&nodes);
    talk.suffer("the Galera server in use is killed", || galera.nodes[0].kill());
    wait_until("both nodes use the second server", || in_use(&galera) == [1]);
    galera.restart(0);
    talk.suffer("the Galera server in use is frozen", || galera.nodes[1].stop());
    wait_until("both nodes use the first server", || in_use(&galera) == [0]);
    galera.nodes[1].cont();
    galera.wait_whole();
    talk.suffer("the Galera server in use is cut off from the others", || galera.isolate(0, true));
    wait_until("both nodes use the second server", || in_use(&galera)[..] == [1]);
    galera.isolate(0, false);
    galera.wait_whole();
    talk.suffer("two Galera servers are frozen, and resume", || {
        galera.nodes[0].stop();
        galera.nodes[2].stop();
        wait_until("no server takes writes", || {
            galera.status(1, "wsrep_cluster_status") == "non-Primary" && nodes.iter().all(|node| !node.is_ready())
        });
        galera.nodes[0].cont();
        galera.nodes[2].cont();
    });
    talk.end();
}

#[test]
fn tables_are_made_and_users_administered_on_a_galera_cluster() {
    let galera = Galera::start();
    let database = galera.nodes[0].create_empty();
    let place = Workplace::empty();
    // An account that may make tables.
    let user = format!("username={}\n", database.user());
    place.write("mysql.cnf", &galera.cnf(&database).replace("username=node\n", &user));
    let made = place.succeed(&["migrate"]);
    assert!(made.contains("all tables are made"), "{made}");
    place.succeed(&["admin", "--offline", "users", "create", "ann"]);
    assert!(place.succeed(&["admin", "--offline", "users", "list"]).contains("ann"));
}

/// The number of connections of nodes to a server; 0 if it does not answer.
fn of_nodes(galera: &Galera, nth: usize) -> usize {
    use mysql::prelude::Queryable as _;
    if galera.nodes[nth].is_away() {
        return 0;
    }
    let count = "SELECT count(*) FROM information_schema.processlist WHERE db LIKE 'raybox%'";
    let ask = || galera.nodes[nth].connect()?.query_first(count);
    ask().unwrap_or_default().unwrap_or_default()
}
