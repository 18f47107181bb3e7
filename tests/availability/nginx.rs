//! Two nginx in front of two nodes, and clients that know the addresses of both.

use testkit::{Cluster, Nginx};

use crate::talk::Talk;

#[test]
fn clients_with_two_addresses_go_on_through_the_other_nginx() {
    let behind = |builder: testkit::Builder| {
        let builder = builder.option("admin", "127.0.0.1:0");
        builder.option("proxy_protocol", "on").option("proxy_from", Nginx::COMES_FROM)
    };
    let cluster = Cluster::start_with(2, behind);
    let mut front = [0, 1].map(|_| Nginx::as_shipped(&cluster.addresses()));
    let addresses = front.iter().map(|nginx| nginx.addresses()[0].to_string()).collect::<Vec<_>>().join(",");
    let talk = Talk::start_through(&cluster.nodes, &addresses);
    // Clients begin with any of the two, so this hits both, one or none of them.
    talk.suffer("one of two nginx is killed", || front[0].kill());
    front[0].restart();
    talk.suffer("the nginx that all use is killed", || front[1].kill());
    front[1].restart();
    talk.suffer("the nginx that all use is frozen", || front[0].stop());
    front[0].cont();
    talk.wait_for_more();
    talk.end();
}
