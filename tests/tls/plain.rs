//! Passwords that are sent without TLS.

use std::env;
use std::process::Command;

use testkit::tls::{Certificate, trusting};
use testkit::{LONG_PATIENCE, PATIENCE, TestClient, TestServer, output_within, password, wait_until};

use crate::{lines_in_log, with};

/// An address outside the loopback network.
const ADDRESS: &str = "203.0.113.7";

/// Whether this process is in a network of its own.
const INSIDE: &str = "TEST_IN_OWN_NETWORK";

/// Runs a test of this program again, in a network of its own.
fn run_inside(test: &str) {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]).arg(env::current_exe().expect("the path of this program"));
    command.args(["--exact", test]).env(INSIDE, "1");
    let output = output_within(3 * LONG_PATIENCE, &mut command).expect("unshare(1) is installed");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "the test needs a network of its own: run it as root, or allow users to have namespaces\n{said}"
    );
}

fn take_address() {
    for arguments in [&["link", "set", "lo", "up"][..], &["addr", "add", ADDRESS, "dev", "lo"]] {
        let output = output_within(PATIENCE, Command::new("ip").args(arguments));
        assert!(output.expect("ip(8) is installed").status.success(), "ip {arguments:?}");
    }
}

#[test]
fn the_first_password_from_another_machine_without_tls_is_warned_of() {
    if env::var_os(INSIDE).is_none() {
        return run_inside("plain::the_first_password_from_another_machine_without_tls_is_warned_of");
    }
    take_address();
    let certificate = Certificate::of("localhost");
    let mut server = with(&certificate).host(ADDRESS).start();
    let warned = |server: &TestServer| lines_in_log(server, "as plain text, which anybody on the way can read");
    // A password from this machine, and one with TLS.
    TestClient::connect_from(2, &server).register("ann", &password("ann"));
    TestClient::connect_tls(&server, &trusting(&[&certificate])).register("bob", &password("bob"));
    let mut carol = TestClient::connect(&server);
    let c = carol.register("carol", &password("carol"));
    wait_until("the log has it", || warned(&server) == 1);
    carol.login(c, &password("carol"));
    TestClient::connect(&server).register("dave", &password("dave"));
    server.terminate();
    server.wait_exit(LONG_PATIENCE);
    assert_eq!(warned(&server), 1, "once");
}
