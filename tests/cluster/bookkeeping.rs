//! Tests of the books that the other tests' traffic keeps, on one embedded server.

use crate::traffic::{Pair, Person, Recipient, Totals, Traffic, Twice};
use testkit::{TestServer, offline_user};

#[test]
fn traffic_in_normal_running_comes_once() {
    let server = TestServer::start();
    let books = Traffic::run(&pairs(&server), |traffic| traffic.flow(20));
    let totals = Totals::of(&books, Twice::Never);
    assert_eq!((totals.refused, totals.unknown), (0, 0));
    assert!(totals.acknowledged >= 400, "{totals}");
    assert!(totals.live >= 200 && totals.fetched >= 200, "{totals}");
}

#[test]
fn traffic_goes_on_after_a_node_is_killed_and_started_again() {
    let mut server = TestServer::builder().fixed_port().start();
    let books = Traffic::run(&pairs(&server), |traffic| {
        traffic.flow(20);
        server.restart();
        traffic.flow(20);
    });
    let totals = Totals::of(&books, Twice::Allowed);
    assert!(totals.acknowledged >= 800, "{totals}");
}

/// Two pairs: one user writes to an online user, one to an offline user.
fn pairs(server: &TestServer) -> [Pair; 2] {
    let person = |name: &str| Person::new(name, offline_user(server, name), &[server.address()]);
    [
        Pair { from: person("ann"), to: person("bob"), recipient: Recipient::Stays },
        Pair { from: person("amy"), to: person("ben"), recipient: Recipient::IsAway },
    ]
}
