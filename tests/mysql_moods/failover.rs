//! Connections that lead to another server from some time on, or end during a health check.

use raybox::store::{Accounts as _, Database as _, Messages as _};
use testkit::{MariaDb, wait_until};

use crate::mysql_store::open_with;
use crate::store::{append, new_user, ordinary, texts};
use crate::switch::Switch;

#[test]
fn after_a_failover_the_new_primary_is_used_though_the_old_one_lives_on() {
    let (old, new) = (MariaDb::start(), MariaDb::start());
    let database = old.create_database();
    let copy = new.create_namesake(&database);
    let switch = Switch::to(database.address());
    let account = ordinary(&database);
    let _ = ordinary(&copy);
    let store = open_with(&database, |settings| {
        account(settings);
        settings.servers[0].port = switch.port;
    });
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    copy.run("INSERT INTO User (id, name, password) VALUES (1, 'ann', 'x')");
    wait_until("one connection for calls and one for checks", || database.connections() >= 2);
    database.run("SET GLOBAL read_only = 1");
    switch.lead_to(copy.address());
    wait_until("the new primary takes messages", || append(&store, ann, "after").is_ok());
    wait_until("the node is ready", || store.check().is_ok());
    store.register("bob", "x").unwrap();
    assert_eq!(texts(&store, ann), ["after"]);
    assert_eq!(copy.count("SELECT COUNT(*) FROM OfflineMessage"), 1);
    assert_eq!(database.rows::<String>("SELECT message FROM OfflineMessage"), ["before"]);
    wait_until("nobody stays with the old one", || database.connections() == 0);
}

#[test]
fn connections_closed_during_checks_are_an_outage_only_if_all_are() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let switch = Switch::to(database.address());
    let store = open_with(&database, |settings| settings.servers[0].port = switch.port);
    let ann = new_user(&store, "ann");
    append(&store, ann, "before").unwrap();
    // Now each health check opens a connection, to find a server that takes writes.
    database.run("SET GLOBAL read_only = 1");
    wait_until("it is not ready", || store.check().is_err());
    let trouble = || store.check().unwrap_err().to_string();
    let is_read_only = || trouble().contains("read-only");
    for closed in [1, 2, 4] {
        // The single connection for reads is open.
        assert_eq!(texts(&store, ann), ["before"]);
        switch.close_next(closed);
        wait_until("they are closed, and another one is not", || {
            assert_eq!(texts(&store, ann), ["before"], "what is there can be read");
            assert!(is_read_only(), "{}", trouble());
            switch.has_opened_since()
        });
    }
    switch.close_next(usize::MAX);
    wait_until("it is noticed", || !is_read_only());
    assert!(store.fetch(ann, 1).is_err());
    switch.close_next(0);
    wait_until("it answers again", is_read_only);
    assert_eq!(texts(&store, ann), ["before"]);
}
