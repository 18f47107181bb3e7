//! A node that freezes in the middle of a transaction, and so holds locks in the database.

use mysql::prelude::Queryable as _;
use raybox_client::{Client, Conv, Options};
use testkit::{Cluster, Database, LONG_PATIENCE, PATIENCE, offline_user, password, wait_within};

#[test]
fn a_node_that_freezes_in_a_transaction_keeps_no_conversation_locked() {
    let cluster = Cluster::start_with(2, |builder| builder.option("admin", "127.0.0.1:0"));
    let [ann, bob] = ["ann", "bob"].map(|name| offline_user(&cluster.nodes[0], name));
    let open = |node: usize, name: &str| {
        let options = Options::new(cluster.nodes[node].address().to_string()).password(name, password(name));
        Client::open(options).expect("open a client")
    };
    let (writer, other) = (open(0, "ann"), open(1, "bob"));
    let sent = other.send(Conv::User(ann), "the conversation begins").expect("it is taken");
    sent.wait(PATIENCE).expect("it is acknowledged");
    let mut written = Vec::new();
    wait_within(LONG_PATIENCE, "the node freezes in a transaction", || {
        let more = (0..20).map(|nth| writer.send(Conv::User(bob), &nth.to_string()).expect("it is taken"));
        written.extend(more);
        cluster.nodes[0].stop();
        let is_locked = is_locked(&cluster.database);
        if !is_locked {
            cluster.nodes[0].cont();
            written.drain(..).for_each(|sent| _ = sent.wait(PATIENCE).expect("it is acknowledged"));
        }
        is_locked
    });
    let sent = other.send(Conv::User(ann), "while the node is frozen").expect("it is taken");
    sent.wait(PATIENCE).expect("the lock ends although the node is frozen");
    cluster.nodes[0].cont();
    for sent in written {
        sent.wait(PATIENCE).expect("it is acknowledged");
    }
}

/// Whether a transaction holds the lock of a conversation while it waits for its node.
fn is_locked(database: &Database) -> bool {
    let running = "SELECT count(*) FROM information_schema.processlist
                   WHERE db = DATABASE() AND command <> 'Sleep' AND id <> CONNECTION_ID()";
    wait_within(PATIENCE, "no statement runs", || database.count(running) == 0);
    let locked = database.connect().query::<i64, _>("SELECT id FROM Conversation FOR UPDATE NOWAIT");
    locked.is_err()
}
