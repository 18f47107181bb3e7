//! Passwords that are sent without TLS.

use std::process::Command;
use std::thread;

use rustix::thread::{UnshareFlags, unshare};
use testkit::tls::{Certificate, trusting};
use testkit::{PATIENCE, TestClient, TestServer, output_within, password, wait_until};

use crate::{lines_in_log, with};

/// An address outside the loopback network, for this thread and the processes that it starts.
const ADDRESS: &str = "203.0.113.7";

fn take_address() -> Result<(), String> {
    unshare(UnshareFlags::NEWNET).map_err(|error| format!("no network of its own (needs root): {error}"))?;
    for arguments in [&["link", "set", "lo", "up"][..], &["addr", "add", ADDRESS, "dev", "lo"]] {
        let output = output_within(PATIENCE, Command::new("ip").args(arguments));
        assert!(output.map_err(|error| format!("no ip(8): {error}"))?.status.success(), "ip {arguments:?}");
    }
    Ok(())
}

#[test]
fn the_first_password_from_another_machine_without_tls_is_warned_of() {
    let test = || {
        if let Err(why) = take_address() {
            eprintln!("not tested, because all addresses are of this machine: {why}");
            return;
        }
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
        server.wait_exit(testkit::LONG_PATIENCE);
        assert_eq!(warned(&server), 1, "once");
    };
    // The network namespace belongs to the thread.
    thread::spawn(test).join().expect("the test passes");
}
