//! All nodes are replaced one after the other, behind nginx and under traffic.

use std::io::{self, Write};

use crate::traffic::{Pair, Person, Recipient, Totals, Traffic, Twice};
use testkit::{Cluster, LONG_PATIENCE, Nginx, TestServer};
use testkit::{offline_user, wait_within};

#[test]
fn a_rolling_restart_loses_nothing_that_was_acknowledged() {
    const NODES: usize = 3;
    const PAIRS: usize = 9;
    const ROUNDS: usize = 2;
    let mut cluster = Cluster::start_with(NODES, |builder| {
        // nginx expects a restarted node on its old port.
        let builder = builder.fixed_port().option("admin", "127.0.0.1:0");
        builder.option("proxy_protocol", "on").option("proxy_from", Nginx::COMES_FROM)
    });
    let nginx = Nginx::as_shipped(&cluster.addresses());
    let person = |name: String| Person::new(&name, offline_user(&cluster.nodes[0], &name), nginx.addresses());
    let pairs: Vec<Pair> = (0..PAIRS)
        .map(|n| Pair {
            from: person(format!("from {n}")),
            to: person(format!("to {n}")),
            recipient: if n == 0 { Recipient::IsAway } else { Recipient::Stays },
        })
        .collect();
    let mut late = 0.0;
    let books = Traffic::run(&pairs, |traffic| {
        traffic.flow(20);
        for _ in 0..ROUNDS {
            for node in &mut cluster.nodes {
                node.terminate();
                assert_eq!(node.wait_exit(LONG_PATIENCE).code(), Some(0), "it ends in order: {}", node.output());
                node.restart();
                wait_within(LONG_PATIENCE, "the new node is ready", || node.is_ready());
                traffic.flow(10);
            }
            // A node that shuts down gracefully answers every message that it has read, so no
            // sender waits in vain.
            for node in &cluster.nodes {
                late += node.metric("raybox_bus_unconfirmed_total");
            }
        }
    });
    let totals = Totals::of(&books, Twice::Never);
    assert!(totals.unknown > 0, "connections ended under traffic: {totals}");
    assert_eq!(totals.refused, 0, "{totals}");
    assert_eq!(late, 0.0, "messages whose confirmation did not come in time");
    writeln!(io::stderr(), "{ROUNDS} rolling restarts of {NODES} nodes: {totals}").expect("print the report");
    wait_within(LONG_PATIENCE, "everybody is known to have gone", || all_are_offline(&cluster.nodes[0]));
}

fn all_are_offline(node: &TestServer) -> bool {
    node.count("SELECT count(*) FROM User WHERE state = 'online'") == 0
}
